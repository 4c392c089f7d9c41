"""Pages of nested runs and of densities: their numbers against closed forms, and what they say."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import undrift
from undrift.cli.main import main
from undrift.data.table import open_table
from undrift.errors import DataError
from undrift.infer.nested_calls import LEAST
from undrift.model.density_scores import score_density, thinned, unseen_rows
from undrift.report.corner import Samples, corner, enclosing, parameter_label
from undrift.report.density import calibration_part, density_verdict, field_likelihood, training_part
from undrift.report.nested import log_volumes, nested_section, parameter_table, points_by_depth, with_error
from undrift.verify.c2st import TwoSample
from undrift.verify.likelihood import Likelihood, learned_by_heart, mean_likelihood


def test_contours_enclose_their_mass():
    """The density of a normal in the plane at the edge of mass m is (1 - m) of its peak."""
    x = np.linspace(-6, 6, 601)
    density = np.exp(-0.5 * (x[:, None] ** 2 + x**2))
    np.testing.assert_allclose(enclosing(density, (0.683, 0.954)), [0.046, 0.317], rtol=0.01)


def test_volumes_shrink_by_one_nth_a_death_and_end_with_the_live_points():
    """Constant n: ln X = -i / n; then the last n die one by one without births, of n, n - 1, ... points."""
    n, deaths = 50, 200
    log_l = np.arange(deaths + n, dtype=float)
    birth = np.concatenate([np.full(n, -np.inf), log_l[:deaths]])
    found = log_volumes(log_l, birth)
    np.testing.assert_allclose(found[:deaths], -np.arange(1, deaths + 1) / n)
    last = -deaths / n - np.cumsum(1 / np.arange(n, 0, -1))
    np.testing.assert_allclose(found[deaths:], last)


def test_labels_that_are_no_mathematics_are_shown_as_they_are():
    assert parameter_label("h", r"\Omega_b h^2") == r"$\Omega_b h^2$"
    assert parameter_label("h", r"\frac{broken") == "h"
    assert parameter_label("cost_in_$", "cost_in_$") == r"cost_in_\$"
    assert parameter_label("a_very_long_name", "a_very_long_name", 8) == "a_very_…"
    assert [with_error(-5.98237, 0.00224), with_error(1234.5, 61.0), with_error(2.0, np.inf)] == [
        "−5.9824 ± 0.0022", "1234 ± 61", "2.000 ± ?"]  # fmt: skip


def test_the_table_of_parameters_heeds_weights():
    """The weights 1, 2, 1 of 0, 1, 3: mean 5/4, variance 11/4 - 25/16."""
    table = parameter_table(["x"], [Samples("s", np.array([[0.0], [1.0], [3.0]]), np.array([1.0, 2.0, 1.0]))])
    assert [cell.text for cell in table.rows[0].cells] == ["1.25", "1.09", "0", "1.00", "3.00"]


def nested_files(reliable="true", failed=3, n=500, deaths=4000, seed=0):
    """A run of n live points with L = X^(-1/2), and 5000 draws with ln L = -2 - chi^2 / 2 where ln Z is -5."""
    rng = np.random.default_rng(seed)
    log_l, birth = 0.5 * np.cumsum(rng.exponential(1 / n, deaths)), np.full(deaths, -np.inf)
    birth[n:] = log_l[:-n]
    theta = rng.normal(size=(deaths, 2))
    run = xr.Dataset({"x": ("point", theta[:, 0]), "y": ("point", theta[:, 1])})
    run["log_likelihood"], run["log_likelihood_birth"] = ("point", log_l), ("point", birth)
    levels = {"log_l": [-8.0, -6.0, -3.0], "log_volume": [0.0, -2.0, -5.0], "log_z": [-3.0, -1.0, -0.7]}
    for name, values in {**levels, "calls": [100, 200, 300]}.items():
        run[f"level_{name}"] = ("level", np.array(values))
    z = rng.normal(size=(5000, 2))
    posterior = xr.Dataset({name: ("sample", z[:, i], {"long_name": "a"}) for i, name in enumerate("xy")})
    posterior["weights"] = ("sample", np.full(5000, 1 / 5000))
    posterior["log_likelihood"] = ("sample", -2.0 - 0.5 * (z**2).sum(1))
    posterior.attrs = {"log_z": -5.0, "log_z_error": 0.012, "calls": 23000, "failed_calls": failed,
                       "pareto_shape": 0.31, "reliable": reliable, "doubt": "as it is"}  # fmt: skip
    return posterior, run


def test_a_nested_run_in_words():
    """ln L is -2 - chi^2 / 2 of two numbers and ln Z -5: the divergence is 2 nats, the dimensionality 2."""
    section = nested_section(*nested_files(), title="run", commands=[])
    assert section.verdict[0].startswith("good: ln Z = −5.000 ± 0.012.") and "0.31" in section.verdict[0]
    told = re.search(r"is ([\d.]+) ± ([\d.]+) nats from the prior and constrains about ([\d.]+)", section.verdict[1])
    assert float(told[1]) == pytest.approx(2.0, abs=4 * float(told[2])) and float(told[2]) == pytest.approx(
        0.014, abs=1e-3
    )
    assert float(told[3]) == pytest.approx(2.0, abs=0.2)
    assert section.verdict[2].startswith("warn: 3 of 23\u202f000 calls")
    rows = {row.name: [cell.text for cell in row.cells] for row in section.parts[0].tables[0].rows}
    assert rows["Failed calls"] == ["3", "–"] and rows["Worth, in equally weighted draws"][0] == "5000"
    # L = X^(-1/2): Z = 2, and the posterior X^(-1/2) / 2 is 1 - ln 2 from the prior
    value, error = (float(text) for text in rows["ln Z [nat]"][1].split(" ± "))
    assert value == pytest.approx(np.log(2), abs=4 * error) and error == pytest.approx(
        np.sqrt((1 - np.log(2)) / 500), rel=0.2
    )
    assert float(rows["Kullback-Leibler divergence from the prior [nat]"][1]) == pytest.approx(1 - np.log(2), abs=0.1)
    unsure = nested_section(*nested_files("false", 0), title="run", commands=[])
    assert unsure.verdict[0] == "bad: ln Z is about −5.000, without an error: as it is."
    assert len(unsure.verdict) == 2


def test_a_run_of_dynestys_in_words():
    """The error of the divergence holds that of ln Z, as both are of the same volumes; without Pareto shapes."""
    for reliable, begins in (("true", "good: ln Z = −5.00 ± 0.30, by dynesty"), ("false", "bad: ln Z is about −5.000")):
        posterior, run = nested_files(reliable)
        posterior.attrs |= {"driver": "dynesty", "log_z_error": 0.3, "pareto_shape": np.nan}
        section = nested_section(posterior, run, title="run", commands=[])
        assert section.verdict[0].startswith(begins)
        assert " ± 0.30 nats from the prior" in section.verdict[1]
        table = section.parts[0].tables[0]
        assert [column.name for column in table.columns] == ["", "by dynesty", "by anesthetic"]
        assert not any("Pareto" in row.name for row in table.rows)
        assert not table.notes


def test_points_without_likelihood_are_not_drawn():
    """Half of the first n points die at once: the others are at ln X = -ln 2 and deeper."""
    _, run = nested_files(n=500)
    zeros = xr.zeros_like(run.isel(point=slice(0, 250))[["x", "y"]])
    zeros["log_likelihood"] = ("point", np.full(250, LEAST))
    zeros["log_likelihood_birth"] = ("point", np.full(250, -np.inf))
    run["log_likelihood_birth"][np.arange(0, 500, 2)] = LEAST
    both = xr.concat([zeros, run.drop_dims("level")], "point")
    order, log_l, depth = points_by_depth(both)
    assert len(order) == len(log_l) == 4000
    assert log_l.min() >= 0
    assert depth[0] == pytest.approx(np.log(2), abs=0.02)
    alone = points_by_depth(run)[2]
    np.testing.assert_allclose(depth - depth[0], alone - alone[0], rtol=1e-6)


def pairs(n, seed):
    """theta ~ N(0, 1) and x = theta + e, so that theta given x is N(x / 2, 1 / 2)."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=n)
    return pd.DataFrame({"theta": theta, "x": theta + rng.normal(size=n)})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("density")
    pairs(3000, 0).to_csv(folder / "pairs.csv", index=False)
    words = ["train", str(folder / "pairs.csv"), "--task", "density", "--covariates", "x", "--estimator", "mixture"]
    assert main([*words, "--holdout", "20%", "--out", str(folder / "RUN")]) == 0
    return folder


def test_a_density_is_judged_by_the_rows_it_has_not_seen(run):
    model = undrift.load(run / "RUN")
    held = unseen_rows(model)
    assert len(held.values) == model.facts["held out"] and 500 < len(held.values) < 700
    scores = score_density(model, held)
    assert scores.log_likelihood.mean == pytest.approx(model.facts["log likelihood"]["held out"])
    assert scores.ranks.shape == (400, 1) and scores.ranks.max() <= 99 and scores.distance_ranks.shape == (400,)
    assert abs(scores.two_sample.accuracy - 0.5) < 4 * scores.two_sample.error
    part, sentence = calibration_part(scores.ranks, scores.distance_ranks, 99, ["theta"], ["theta"])
    assert sentence.startswith("good: ranks of unseen rows are even")
    assert part.tables[0].caption == "Ranks of 400 unseen rows among 99 draws, against the uniform law."
    narrow = np.clip(np.round(49.5 + 1.5 * (scores.ranks - 49.5)), 0, 99).astype(int)
    part, sentence = calibration_part(narrow, scores.distance_ranks, 99, ["theta"], ["theta"])
    assert sentence.startswith("warn: the posteriors are not calibrated") and len(part.plots) == 2
    pairs(2999, 0).to_csv(run / "other.csv", index=False)
    model.config.data.paths = [str(run / "other.csv")]
    with pytest.raises(DataError, match="has 2999 rows now, and 3000 when"):
        unseen_rows(model)


def test_rows_are_thinned_by_weight_and_none_comes_twice():
    weight = np.repeat([0.8, 0.2], 2000)
    table = open_table(pd.DataFrame({"a": np.r_[np.arange(3999), 3998], "weight": weight}))
    kept = thinned(table, 10**6, 0).values[:, 0]
    assert len(set(kept)) == len(kept) and (kept < 2000).sum() == 2000
    assert (kept >= 2000).sum() == pytest.approx(500, abs=4 * np.sqrt(2000 * 0.25 * 0.75))
    assert len(thinned(table, 100, 0).values) == 100


def test_a_density_that_is_told_apart_or_learned_by_heart_is_warned_of():
    facts = {"log likelihood": {"held out": -3.0, "of training rows": -1.0, "standard error": 0.1}}
    far = TwoSample(0.7, 0.02, np.full(5, 0.7))
    held = Likelihood(-3.0, 0.1, 100, 0)
    found = density_verdict(held, far, facts, own=True)
    assert found[1].startswith("warn: a classifier tells draws from unseen rows in 0.700 ± 0.020 of cases")
    assert found[2].startswith("warn: rows of the training are likelier by 2.00 nats")
    assert density_verdict(held, TwoSample(0.53, 0.02, far.folds), facts, own=False)[1].startswith("good")


def test_the_mean_likelihood_is_of_the_rows_within_by_weight():
    """Of 1, 2, 4 with weights 1, 2, 1 the mean is 9/4, and the error sqrt(25/16 + 4/16 + 49/16) / 4."""
    log_p, weights = np.array([1.0, 2.0, -np.inf, 4.0, 50.0]), np.array([1.0, 2.0, 1.0, 1.0, 0.0])
    found = mean_likelihood(log_p, weights)
    assert (found.mean, found.rows, found.outside) == (2.25, 3, 1)
    assert found.error == pytest.approx(np.sqrt(78 / 16) / 4)
    assert mean_likelihood(log_p[:1], weights[:1]) == Likelihood(1.0, None, 1, 0)
    assert mean_likelihood(log_p[2:3], weights[2:3]).rows == 0
    score = {"held out": -3.0, "of training rows": -2.4, "standard error": 0.1}  # 0.57 is four errors of both
    assert learned_by_heart(score) and not learned_by_heart(score | {"of training rows": -2.5})
    assert not learned_by_heart(score | {"standard error": None})


def test_pages_of_the_command_line(run, tmp_path, capsys):
    problem = tmp_path / "problem.py"
    problem.write_text(
        "parameters = {'x': r'\\mu', 'y': 'y'}\nprior_transform = lambda u: 10 * u - 5\n"
        "log_likelihood = lambda t: -0.5 * float(((t - 1) ** 2).sum()) / 0.04\n"
    )
    folder, page = str(tmp_path / "NESTED"), tmp_path / "nested.html"
    assert main(["nested", str(problem), "--out", folder, "--live", "100", "--precision", "0.05"]) == 0
    assert main(["report", folder, "--out", str(page)]) == 0
    text = page.read_text()
    assert "Bayesian model dimensionality" in text and text.count("<img ") == 4 and "by anesthetic" in text
    value, error = (float(v.replace("−", "-")) for v in re.search(r"ln Z = (\S+) ± ([\d.]+)\.", text).groups())
    assert value == pytest.approx(np.log(2 * np.pi * 0.04 / 100), abs=5 * error)
    followed = str(tmp_path / "FOLLOWED")
    assert main(["nested", str(problem), "--out", followed, "--live", "60", "--driver", "dynesty"]) == 0
    assert main(["report", followed, "--out", str(page), "--overwrite"]) == 0
    text = page.read_text()
    assert text.count("<img ") == 4
    value, error = (
        float(v.replace("−", "-")) for v in re.search(r"ln Z = (\S+) ± ([\d.]+), by dynesty", text).groups()
    )
    assert value == pytest.approx(np.log(2 * np.pi * 0.04 / 100), abs=5 * error)
    density = tmp_path / "density.html"
    assert main(["report", str(run / "RUN"), "--out", str(density)]) == 0
    text = density.read_text()
    assert "undrift train" in text and text.count("<img ") == 3 and "Ranks of 400 unseen rows" in text
    capsys.readouterr()
    assert main(["report", str(run / "RUN"), "--nfe", "5", "--out", str(tmp_path / "x.html")]) == 2
    assert "got --nfe, of models of fields" in capsys.readouterr().err
    (tmp_path / "NESTED" / "run.nc").unlink()
    assert main(["report", folder, "--out", str(tmp_path / "y.html")]) == 4
    assert "--resume" in capsys.readouterr().err


def test_a_corner_of_many_parameters_says_what_it_leaves_out():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(9)]
    rows = Samples("rows", rng.normal(size=(300, 9)), rng.random(300))
    picture = corner([rows], names, names, title="All", dpi=30)
    assert picture.caption.endswith("The first 8 of 9 parameters.") and picture.width == picture.height == 1100


def test_rows_that_lie_outside_are_told(tmp_path, capsys):
    bounds = {"theta": (0, 1)}
    rows = pd.DataFrame({"theta": np.random.default_rng(0).beta(2, 3, 200)})
    model = undrift.fit(rows, estimator="mixture", bounds=bounds, progress=False)
    with pytest.raises(DataError, match="every row lies outside the bounds of the density"):
        score_density(model, unseen_rows(model, [pd.DataFrame({"theta": [2.0, 3.0]})]))
    model.save(tmp_path / "RUN")
    pd.DataFrame({"theta": [0.5, 2.0, 3.0]}).to_csv(tmp_path / "rows.csv", index=False)
    capsys.readouterr()
    assert main(["log-prob", str(tmp_path / "RUN"), str(tmp_path / "rows.csv"), "--out", str(tmp_path / "F.csv")]) == 0
    first = float(model.log_prob(pd.DataFrame({"theta": [0.5]})).log_prob[0])
    assert f"F.csv: 3 rows, 2 with -inf; of the others mean {first:.4f} nats" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "RUN"), "--truth", str(tmp_path / "rows.csv")]) == 0
    assert f"log-likelihood {first:.4f} nats a row (one row, 2 more outside the bounds)" in capsys.readouterr().out
    words = ["report", str(tmp_path / "RUN"), "--truth", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "r.html")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "one row that training has not seen has a log-density of " in said and "±" not in said
    assert "warn: 2 of 3 rows lie outside the bounds" in said
    page = (tmp_path / "r.html").read_text()
    assert re.search(r"Further ones outside the bounds.{0,80}>2<", page)


def test_how_likely_held_out_fields_are_in_words():
    one = {"standard_error": 35.1, "nats_per_value": 0.64578, "bits_per_value": -0.93166}
    gaussian = {"log_likelihood": 1170.8, **one}
    found = {"log_likelihood": -20.25, **one, "gaussian": gaussian, "gain": 351.81, "gain_error": 7.68}
    found |= {"samples": 4, "left_out": 2, "numbers": 1813, "numerical_error": 6.02}
    part, sentence = field_likelihood(found)
    assert sentence == (
        "info: the network gains 351.8 ± 7.7 nats a held-out field beyond the Gaussian that it corrects."
    )
    (table,) = part.tables
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["−20 ± 35", "6.0", "0.6458", "−0.9317"], ["1171 ± 35", "0", "0.6458", "−0.9317"]]  # fmt: skip
    assert table.rows[0].model and "2 more lack values" in " ".join(table.notes)
    assert table.caption == "4 fields of 1\u202f813 values that training has not seen."


def test_the_training_curve_of_a_density(tmp_path):
    """Of whitened normals a spline flow near the identity has the entropy of two of them, and validation is logged."""
    rows = pd.DataFrame(np.random.default_rng(0).normal(3, 2, (1500, 2)), columns=["a", "b"])
    model = undrift.fit(rows, estimator="nsf", steps=40, progress=False, out=tmp_path / "RUN")
    train = [row for row in model.log if row["kind"] == "train"]
    checked = [(row["step"], row["validation"]) for row in model.log if row["kind"] == "validation"]
    assert [row["step"] for row in train] == list(range(1, 41))
    assert train[0]["loss"] == pytest.approx(np.log(2 * np.pi * np.e), abs=0.25)
    history = model.facts["training"]["history"]
    assert [step for step, _ in checked] == [step for step, _ in history]
    np.testing.assert_allclose([loss for _, loss in checked], [loss for _, loss in history], rtol=1e-6)
    again = undrift.load(tmp_path / "RUN")
    assert again.log == model.log
    (curve,) = training_part(again.log, "nsf").plots
    assert curve.caption.startswith("Loss over 40 steps: ") and "minus the log-density" in curve.caption
    assert training_part([], "mixture") is None and training_part([], "nsf") is None
