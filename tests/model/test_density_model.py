"""Densities of tables from end to end: labels, bounds, weights, what is given, files."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, poisson

import undrift
from undrift.cli.main import main
from undrift.data.rows import write_rows
from undrift.distributions import estimators
from undrift.errors import UsageError
from undrift.model import density_training
from undrift.nets import MLP


def chain(n=3000, seed=0):
    """a is N(1, 1/4), b given a is N(a, 1), c is uniform on [0, 2] and half of it below 1."""
    rng = np.random.default_rng(seed)
    a = rng.normal(1, 0.5, n)
    return pd.DataFrame({"a": a, "b": a + rng.normal(size=n), "c": rng.uniform(0, 2, n)})


def log_p(rows):
    return norm.logpdf(rows["a"], 1, 0.5) + norm.logpdf(rows["b"], rows["a"], 1) - np.log(2)


@pytest.fixture(scope="module")
def model():
    return undrift.fit(chain(), estimator="mixture", bounds={"c": (0, 2)}, progress=False)


def test_the_density_is_in_the_units_of_the_data(model):
    rows = chain(400, seed=1)
    found = model.log_prob(rows)
    assert found.log_prob.attrs["units"] == "nat"
    gap = log_p(rows) - found.log_prob.values
    assert abs(gap.mean()) < 0.05 and gap.std() < 0.25
    beyond = model.log_prob(rows.head(2).assign(c=[2.5, -0.1]))
    assert np.isneginf(beyond.log_prob.values).all()


def test_draws_have_names_labels_and_moments(model):
    draws = model.sample(realizations=4000, seed=2)
    assert list(draws.data_vars) == ["a", "b", "c"] and draws.sizes == {"realization": 4000}
    root = np.sqrt(4000)
    assert float(draws.a.mean()) == pytest.approx(1, abs=0.04 + 4 * 0.5 / root)
    assert float(draws.b.std()) == pytest.approx(np.sqrt(1.25), rel=0.06)
    assert float(draws.c.min()) > 0 and float(draws.c.max()) < 2
    assert float(draws.c.mean()) == pytest.approx(1, abs=0.06)


def test_a_realization_is_the_same_however_many_are_drawn(model):
    whole = model.sample(realizations=50, seed=3)
    xr_part = model.sample(realizations="20:30", seed=3)
    np.testing.assert_array_equal(xr_part.to_array(), whole.isel(realization=slice(20, 30)).to_array())
    np.testing.assert_array_equal(xr_part.realization, np.arange(20, 30))


@pytest.mark.parametrize("estimator", ["mixture", "kde", "nsf", "diffusion", "auto"])
def test_a_saved_density_is_the_same(estimator, tmp_path, monkeypatch):
    rows = chain(500)
    steps = {"steps": 5} if estimator in ("nsf", "diffusion", "auto") else {}
    monkeypatch.setattr(estimators, "_FEW_ROWS", 0)
    monkeypatch.setattr(estimators, "_LEAD", 1e6)  # a mixture is never taken alone
    fitted = undrift.fit(rows, estimator=estimator, **steps, out=tmp_path / "RUN", progress=False)
    assert fitted.facts["estimator"] == ("stacked" if estimator == "auto" else estimator)
    again = undrift.load(tmp_path / "RUN")
    assert isinstance(again, undrift.DensityModel)
    some = rows.head(20)
    found = again.log_prob(some)
    np.testing.assert_array_equal(found.log_prob, fitted.log_prob(some).log_prob)
    missed = int((found.log_prob_error > 1e-3).sum()) if estimator in ("diffusion", "auto") else None
    assert found.attrs.get("not_converged") == missed
    np.testing.assert_array_equal(again.sample(realizations=5).a, fitted.sample(realizations=5).a)
    assert again.describe() == fitted.describe()
    with pytest.raises(UsageError, match="overwrite"):
        fitted.save(tmp_path / "RUN")


def test_open_and_periodic_bounds_are_kept_in_a_run(tmp_path):
    bounds = {"a": (None, np.inf), "b": (np.float32(-30), None), "c": (0, 2, "periodic")}
    fitted = undrift.fit(chain(400), estimator="mixture", bounds=bounds, out=tmp_path / "RUN", progress=False)
    assert fitted.facts["bounds"] == [[None, None], [-30, None], [0, 2]]
    assert fitted.facts["periodic"] == [False, False, True]
    again = undrift.load(tmp_path / "RUN")
    assert again.config.density.bounds == {"a": ["N", "N"], "b": [-30, "N"], "c": [0, 2, "periodic"]}
    for wrong in ({"a": 5}, {"a": (1, 0)}, {"a": (0, 1, "often")}, {"a": (0, "x")}):
        with pytest.raises(UsageError, match=r"the bounds of 'a' are .*, expected a lower and an upper number"):
            undrift.fit(chain(400), estimator="mixture", bounds=wrong, progress=False)


def test_what_is_given_is_a_row_or_a_table():
    task = undrift.Density("mixture")
    model = undrift.fit(chain(), task=task, variables="b", covariates="a", progress=False)
    at = model.sample(at={"a": 2.0}, realizations=3000)
    assert float(at.b.mean()) == pytest.approx(2, abs=0.1) and float(at.b.std()) == pytest.approx(1, rel=0.08)
    table = pd.DataFrame({"a": [0.5, 2.0]})
    both = model.sample(table, realizations=3000)
    assert both.b.dims == ("sample", "realization")
    np.testing.assert_allclose(both.b.mean("realization"), [0.5, 2.0], atol=0.1)
    rows = chain(300, seed=4)
    beside = model.log_prob(rows)
    np.testing.assert_allclose(model.log_prob(rows[["b"]], rows[["a"]]).log_prob, beside.log_prob)
    gap = norm.logpdf(rows["b"], rows["a"], 1) - beside.log_prob.values
    assert abs(gap.mean()) < 0.05
    for wrong in ({}, {"at": {"x": 1.0}}):
        with pytest.raises(UsageError, match="given a"):
            model.sample(realizations=2, **wrong)
    with pytest.raises(UsageError, match="one of them"):
        model.sample(table, at={"a": 1.0})
    with pytest.raises(UsageError, match="one of them"):
        model.log_prob(rows[["b"]], rows[["a"]], at={"a": 1.0})
    with pytest.raises(UsageError, match="at a is nan"):
        model.sample(at={"a": np.nan})


def test_rows_outside_the_bounds_and_of_no_weight_are_not_scored(model):
    rows = chain(60, seed=6)
    rows.loc[:4, "c"] = 3.0
    found = model.evaluate(rows.assign(weight=np.where(np.arange(60) % 2, 2.0, 0.0)))
    kept = rows.iloc[5::2]
    assert (found["rows"], found["outside"]) == (len(kept), 2)
    assert found["log_likelihood"] == pytest.approx(float(model.log_prob(kept).log_prob.mean()))


def test_held_out_rows_are_scored_and_learning_by_heart_is_told(caplog):
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(rng.normal(size=(150, 4)), columns=list("wxyz"))
    model = undrift.fit(rows, estimator="nsf", steps=60, progress=False, set={"train.patience": 100})
    score = model.describe()["log likelihood"]
    assert score["of training rows"] > score["held out"]
    assert score["rows"] == model.describe()["held out"]


def test_the_choice_is_stated_and_few_rows_get_a_mixture(caplog):
    plan = undrift.fit(chain(200), dry_run=True)
    assert plan["estimator"] == "mixture" and "too few" in plan["reason"]
    assert undrift.fit(chain(3000), dry_run=True)["estimator"] == "auto"
    plan = undrift.fit(chain(3000), dry_run=True, budget="2s")
    assert plan["estimator"] == "mixture" and "2 s are too short for a network" in plan["reason"]


def test_bad_input_gets_one_sentence():
    for wrong, message in (
        ({"estimator": "kde", "task": "downscale"}, "--task density"),
        ({"estimator": "kde", "steps": 5}, "--steps 5 is of networks, and --estimator kde takes none"),
        ({"factor": 4}, "factor"),
        ({"holdout": "year=2000"}, "holdout"),
        ({"static": "z"}, "static"),
        ({"resume": True}, "one go"),
        ({"set": {"train.batch": 8}}, "train.batch"),
        ({"set": {"net.channels": 16}}, "net.channels"),
    ):
        with pytest.raises(UsageError, match=message):
            undrift.fit(chain(100), **wrong)
    for name in ("kde", "gp"):
        with pytest.raises(UsageError, match=f"--estimator {name} takes no covariates"):
            undrift.fit(chain(500), task=undrift.Density(name), covariates="a", variables="b", dry_run=True)


def test_counts_are_refused_or_spread_over_their_steps():
    """Of Poisson counts the log-density at the rungs is the logarithm of their shares, for steps of 1."""
    rows = pd.DataFrame({"n": np.random.default_rng(6).poisson(30, 4000).astype(float)})
    with pytest.raises(undrift.DataError, match="--dequantize"):
        undrift.fit(rows, estimator="mixture", progress=False)
    model = undrift.fit(rows, estimator="mixture", dequantize=True, progress=False)
    found = model.log_prob(pd.DataFrame({"n": [25.0, 30.0, 36.0]}))
    np.testing.assert_allclose(found.log_prob, poisson.logpmf([25, 30, 36], 30), atol=0.1)
    assert "spread over its step of 1" in found.attrs["remarks"]


def test_rows_that_are_written_and_remarks_of_a_chain(tmp_path, caplog):
    rows = chain(120).rename(columns={"a": "$H_0$ [km/s]"})
    model = undrift.fit(rows, estimator="kde", progress=False)
    draws = model.sample(realizations=3)
    with pytest.raises(UsageError, match=r"slash.*draws.csv"):
        write_rows(draws, tmp_path / "draws.nc")
    write_rows(draws, tmp_path / "draws.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "draws.csv")["$H_0$ [km/s]"], draws["$H_0$ [km/s]"])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        undrift.fit(rows, out=tmp_path / "file")
    walk = chain(400).assign(chain=0)
    walk.loc[:39, "a"] += 50
    undrift.fit(walk, dry_run=True)
    assert "burn-in" in caplog.text


def test_copies_of_a_row_are_held_out_together():
    """Each row three times: the width of kernels and the score are as of each row once, but for which are drawn."""
    once = undrift.fit(chain(600), estimator="kde", progress=False).describe()
    thrice = chain(600).loc[np.repeat(np.arange(600), 3)]
    found = undrift.fit(thrice, estimator="kde", progress=False).describe()
    assert found["training"]["bandwidth"] > 0.6 * once["training"]["bandwidth"]
    error = np.hypot(once["log likelihood"]["standard error"], found["log likelihood"]["standard error"])
    assert abs(found["log likelihood"]["held out"] - once["log likelihood"]["held out"]) < 4 * error


@pytest.mark.parametrize(
    ("estimator", "rtol", "h"),
    [("mixture", 1e-5, 1e-4), ("kde", 1e-5, 1e-4), ("nsf", 2e-2, 1e-3), ("flow-matching", 2e-2, 1e-2)],
)
def test_the_score_is_that_of_differences(estimator, rtol, h):
    """a is bounded, b periodic, and x is given but to a kernel density."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"a": rng.beta(2, 3, 600), "b": rng.vonmises(3, 4, 600) % 6, "x": rng.normal(size=600)})
    table["a"] = (table.a + np.abs(np.tanh(table.x))) / 2
    told = {} if estimator == "kde" else {"x": 0.3}
    found = undrift.fit(
        table.drop(columns=[] if told else "x"), task=undrift.Density(estimator), variables="a,b", covariates=[*told],
        bounds={"a": (0, 1), "b": (0, 6)}, periodic="b", progress=False, **({} if rtol < 1e-3 else {"steps": 20}),
    )  # fmt: skip
    rows = pd.DataFrame({"a": [0.2, 0.5, 0.8], "b": [2.5, 3.0, 4.0]})
    slopes = found.score(rows, at=told or None)
    for name in ("a", "b"):
        ends = [found.log_prob(rows.assign(**{name: rows[name] + s * h}), at=told or None).log_prob for s in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(slopes[name], difference, rtol=rtol, atol=rtol)
    assert found.score(rows.assign(a=1.5), at=told or None).a.isnull().all()


def test_held_out_rows_of_no_weight_leave_no_score():
    rows = chain(300)
    part = np.random.default_rng([0, 5]).random(300) < 0.1
    model = undrift.fit(rows.assign(weight=np.where(part, 0.0, 1.0)), estimator="kde", progress=False)
    assert model.describe()["held out"] == part.sum() and model.describe()["log likelihood"] == {}
    with pytest.raises(UsageError, match="held out"):
        model.evaluate()


def test_how_often_the_network_is_called_for_log_densities_is_told(monkeypatch):
    monkeypatch.setattr(estimators, "_FEW_ROWS", 0)
    monkeypatch.setattr(estimators, "_LEAD", 1e6)
    plain = undrift.fit(chain(400), estimator="diffusion", steps=5, progress=False)
    given = undrift.fit(chain(400), estimator="diffusion", variables="a,b", covariates="c", steps=5, progress=False)
    calls, forward = [], MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda *args: calls.append(1) or forward(*args))
    stacked = undrift.fit(chain(400), variables="a,b", covariates="c", steps=5, progress=False)
    for fitted in (plain, given, stacked):
        calls.clear()
        assert fitted.log_prob(chain(10)).attrs["network_calls"] == len(calls) > 4
    mixture = undrift.fit(chain(400), estimator="mixture", progress=False)
    assert "network_calls" not in mixture.log_prob(chain(10)).attrs


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_fit_that_is_stopped_leaves_nothing_and_says_so(number, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chain(200).to_csv("chain.csv", index=False)
    words = ["train", "chain.csv", "--estimator", "kde", "--out", "RUN"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with monkeypatch.context() as patched:
            patched.setattr(density_training, "fit_density", lambda *args, **kwargs: os.kill(os.getpid(), number))
            assert main(words) == code
    finally:
        signal.signal(signal.SIGINT, before)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("nothing was written to RUN; type the same command again")
    assert [path.name for path in tmp_path.iterdir()] == ["chain.csv"]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 2
    assert "--overwrite to fit RUN anew" in capsys.readouterr().err


def test_nested_sampling_that_is_stopped_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problem.py").write_text(PROBLEM.replace("return -float", "raise KeyboardInterrupt; return -float"))
    assert main(["nested", "problem.py", "--out", "RUN"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("type the same command with --resume to go on")


def test_what_is_typed_next_names_what_has_to_be_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chain(400).to_csv("chain.csv", index=False)
    words = ["train", "chain.csv", "--estimator", "mixture", "--covariates", "b,c", "--out", "RUN"]
    assert main(words) == 0
    assert "next: undrift sample RUN --at b=VALUE,c=VALUE --out DRAWS.csv\n" in capsys.readouterr().err
    assert main(["sample", "RUN", "--at", "b=1,c=1", "--out", "DRAWS.csv"]) == 0


PROBLEM = """
import math
parameters = {"x": "x", "y": "y_0"}
def prior_transform(u):
    return 4 * u - 2
def log_likelihood(theta):
    return -float((theta ** 2).sum()) / 0.02
"""


def test_processes_find_the_same_evidence_with_what_lies_beside_the_problem(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_the_problem.py").write_text("WIDTH = 0.02\n")
    (tmp_path / "problem.py").write_text("from beside_the_problem import WIDTH\n" + PROBLEM.replace("0.02", "WIDTH"))
    words = ["nested", "problem.py", "--live", "100", "--precision", "0.1", "--json"]
    found = []
    for workers in ("1", "2"):
        assert main([*words, "--workers", workers, "--out", workers]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["ln Z"] == found[1]["ln Z"] == pytest.approx(np.log(2 * np.pi * 0.01 / 16), abs=0.5)
    (tmp_path / "problem.py").write_text("import os\n" + PROBLEM.replace("return -float", "os._exit(1); return -float"))
    assert main([*words, "--workers", "2", "--out", "3"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("type the same command with --resume to go on")


def test_the_command_line_from_a_likelihood_to_a_density(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problem.py").write_text(PROBLEM)
    (tmp_path / "twice.py").write_text(PROBLEM + "parameters = ['a', 'a']\n")
    assert main(["nested", "problem.py", "--out", "RUN", "--precision", "0.03", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reliable"] and abs(told["ln Z"] - np.log(2 * np.pi * 0.01 / 16)) < 5 * told["error"]
    assert main(["nested", "problem.py", "--out", "RUN", "--precision", "0.03"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "RUN/chain", "--task", "density", "--estimator", "mixture", "--out", "DENSITY"]) == 0
    capsys.readouterr()
    assert main(["sample", "DENSITY", "--realizations", "2000", "--out", "draws.csv"]) == 0
    draws = pd.read_csv("draws.csv")
    assert draws["x"].std() == pytest.approx(0.1, rel=0.1)
    assert main(["log-prob", "DENSITY", "draws.csv", "--out", "F.csv"]) == 0
    entropy = np.log(2 * np.pi * np.e * 0.01)
    assert pd.read_csv("F.csv")["log_prob"].mean() == pytest.approx(-entropy, abs=0.1)
    capsys.readouterr()
    assert main(["evaluate", "DENSITY", "--truth", "draws.csv", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert score["log_likelihood"] == pytest.approx(-entropy, abs=4 * score["standard_error"] + 0.05)
    assert score["standard_error"] == pytest.approx(
        1 / np.sqrt(2000), rel=0.2
    )  # half a chi-square of 2 has deviation 1
    assert main(["evaluate", "DENSITY"]) == 0
    assert "nats a row" in capsys.readouterr().out
    for words, text in (
        (["report", "DENSITY", "--nfe", "3"], "got --nfe"),
        (["sample", "DENSITY", "--out", "d.nc", "--nfe", "3"], "--nfe"),
        (["evaluate", "DENSITY", "--truth", "draws.csv", "--out", "scores.json"], "got --out"),
        (["evaluate", "DENSITY", "draws.csv"], "got draws.csv, which no argument takes; type --truth draws.csv"),
        (["log-prob", "DENSITY", "draws.csv", "--out", "G.csv", "--seed", "3"], "got --seed, of models of fields"),
        (["log-prob", "DENSITY", "draws.csv", "--out", "G.csv", "--device", "cuda:0"], "on the CPU; type cpu"),
        (["train", "draws.csv", "--device", "cuda:0", "--out", "R2"], "on the CPU; type cpu"),
        (["log-prob", "DENSITY", "draws.csv", "--out", "F.txt"], ".nc or .csv"),
        (["nested", "absent.py", "--out", "R2"], "absent.py"),
        (["nested", "draws.csv", "--out", "R2"], "cannot be run"),
        (["nested", "problem.py", "--out", "draws.csv"], "is a file"),
        (["nested", "twice.py", "--out", "R2"], "defines parameters with 'a' twice"),
    ):
        assert main(words) in (2, 3), words
        assert text in capsys.readouterr().err
    for words in (["inspect", "RUN"], ["sample", "RUN", "--out", "d.nc"], ["evaluate", "RUN", "--truth", "draws.csv"],
                  ["log-prob", "RUN", "draws.csv", "--out", "G.csv"]):  # fmt: skip
        assert main(words) == 4
        said = capsys.readouterr().err
        assert "type undrift report RUN for its evidence" in said and "undrift train RUN/chain --task density" in said
