"""Tables of parameters: every source gives the same numbers, and what is wrong with one is said with its row."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from undrift.data.table import open_table
from undrift.errors import DataError, UsageError

RNG = np.random.default_rng(5)
VALUES = RNG.normal((0, 10), size=(8, 2))
WEIGHTS = np.array([1.0, 2, 0, 3, 1, 1, 4, 1])
LOG_L = -np.arange(8.0)


def frame():
    return pd.DataFrame({"weight": WEIGHTS, "logL": LOG_L, "a": VALUES[:, 0], "b": VALUES[:, 1]})


def is_the_table(table, rows=slice(None)):
    assert table.names == ("a", "b")
    np.testing.assert_allclose(table.values, VALUES[rows], rtol=1e-12)
    np.testing.assert_array_equal(table.weights, WEIGHTS[rows])
    np.testing.assert_array_equal(table.log_likelihood, LOG_L[rows])


def test_an_array_has_equal_weights_and_no_bounds():
    table = open_table(VALUES)
    assert table.names == table.labels == ("x0", "x1") and table.source == "array"
    np.testing.assert_array_equal(table.values, VALUES)
    np.testing.assert_array_equal(table.weights, np.ones(8))
    np.testing.assert_array_equal(table.bounds, [[-np.inf, np.inf]] * 2)
    assert table.log_likelihood is None and table.given.shape == (8, 0) and not table.periodic.any()


def test_tables_of_every_kind_are_the_same(tmp_path):
    df = frame()
    df.to_csv(tmp_path / "plain.csv")  # with pandas' own counting column
    df.to_csv(tmp_path / "bare.csv", index=False)
    np.save(tmp_path / "record.npy", df.to_records(index=False))
    np.savez(tmp_path / "columns.npz", **df)
    ds = xr.Dataset({name: ("sample", df[name]) for name in df})
    ds.to_netcdf(tmp_path / "columns.nc")
    is_the_table(open_table(df))
    is_the_table(open_table(ds))
    is_the_table(open_table(df.to_records(index=False)))
    for name in ("plain.csv", "bare.csv", "record.npy", "columns.npz", "columns.nc"):
        is_the_table(open_table(tmp_path / name))


def test_a_csv_of_numbers_alone_names_its_columns_by_their_place(tmp_path):
    np.savetxt(tmp_path / "t.csv", VALUES, delimiter=",")
    table = open_table(tmp_path / "t.csv", variables="x1")
    assert table.names == ("x1",)
    np.testing.assert_allclose(table.values[:, 0], VALUES[:, 1], rtol=1e-15)


def test_a_column_asked_for_is_no_weight():
    table = open_table(frame(), variables=["a", "weight"])
    np.testing.assert_array_equal(table.values[:, 1], WEIGHTS)
    np.testing.assert_array_equal(table.weights, np.ones(8))


def test_covariates_stand_beside_the_variables():
    table = open_table(frame(), covariates="b")
    assert table.names == ("a",) and table.given_names == ("b",)
    np.testing.assert_array_equal(table.given, VALUES[:, 1:])
    with pytest.raises(UsageError, match="'b' is among the variables and the covariates"):
        open_table(frame(), variables="a,b", covariates="b")


def test_rows_of_likelihood_zero_keep_it_and_weigh_nothing():
    df = frame()
    df.loc[3, "logL"] = -np.inf
    table = open_table(df)
    assert table.log_likelihood[3] == -np.inf and table.weights[3] == 0 and table.weights[1] == 2
    assert table.effective == pytest.approx((13 - 3) ** 2 / (1 + 4 + 1 + 1 + 16 + 1))


@pytest.mark.parametrize("keywords", [{}, {"weights": WEIGHTS}, {"labels": ["$a_0$", r"$\beta,c$"]},
                                      {"labels": ["$a_0$", r"$\beta,c$"], "weights": WEIGHTS}])  # fmt: skip
def test_samples_of_anesthetic_and_their_csv(keywords, tmp_path):
    from anesthetic import MCMCSamples

    samples = MCMCSamples(data=VALUES, columns=["a", "b"], logL=LOG_L, **keywords)
    samples.to_csv(tmp_path / "t.csv")
    for source in (samples, tmp_path / "t.csv"):
        table = open_table(source)
        np.testing.assert_allclose(table.values, VALUES, rtol=1e-15)
        np.testing.assert_array_equal(table.weights, samples.get_weights())
        np.testing.assert_array_equal(table.log_likelihood, LOG_L)
        assert table.labels == (("a_0", r"\beta,c") if "labels" in keywords else ("a", "b"))


def test_arviz_posteriors_are_stacked_chain_by_chain(tmp_path):
    theta = RNG.normal(size=(2, 5, 3))
    mu = RNG.normal(size=(2, 5))
    posterior = xr.Dataset(
        {"mu": (("chain", "draw"), mu, {"latex": r"$\mu$"}), "theta": (("chain", "draw", "school"), theta)},
        {"chain": [0, 1], "draw": np.arange(5), "school": ["A", "B", "C"]},
    )
    path = tmp_path / "idata.nc"
    posterior.to_netcdf(path, group="posterior")
    stats = xr.Dataset({"log_likelihood": (("chain", "draw"), -(mu**2)), "energy": (("chain", "draw"), mu)})
    stats.to_netcdf(path, group="sample_stats", mode="a")
    table = open_table(path)
    assert table.names == ("mu", "theta[A]", "theta[B]", "theta[C]") and table.labels[0] == r"\mu"
    np.testing.assert_array_equal(table.values[:, 2], theta[:, :, 1].ravel())
    np.testing.assert_array_equal(table.log_likelihood, -(mu**2).ravel())
    later = open_table(path, ignore_rows=0.4)
    np.testing.assert_array_equal(later.values[:, 0], mu[:, 2:].ravel())
    theta[1, 3, 0] = np.nan
    with pytest.raises(DataError, match=r"chain 1: draw 3: theta\[A\] is missing or no number"):
        open_table(posterior)


def getdist_root(folder, n=200):
    """Two chains as GetDist writes them, with bounds and a derived parameter."""
    from getdist import MCSamples

    rng = np.random.default_rng(1)
    chains = [np.column_stack([rng.normal(size=n), rng.uniform(0, 360, n), rng.normal(size=n)]) for _ in range(2)]
    weights = [rng.integers(1, 5, n).astype(float) for _ in range(2)]
    samples = MCSamples(
        samples=chains, weights=weights, loglikes=[c[:, 0] ** 2 / 2 for c in chains], names=["a", "phase", "s*"],
        labels=["a_0", r"\phi", "s"], ranges={"a": [-9, None], "phase": [0, 360, True], "fixed": [1, 1]},
        settings={"ignore_rows": 0},
    )  # fmt: skip
    for number, (chain, weight) in enumerate(zip(chains, weights, strict=True), 1):
        rows = np.column_stack([weight, chain[:, 0] ** 2 / 2, chain])
        np.savetxt(folder / f"run_{number}.txt", rows)
    (folder / "run.paramnames").write_text("a  a_0\nphase \\phi\ns*  s\n")
    samples.ranges.saveToFile(str(folder / "run.ranges"))
    return folder / "run"


def test_a_root_of_getdist_is_as_getdist_reads_it(tmp_path):
    from getdist import loadMCSamples

    root = getdist_root(tmp_path)
    table = open_table(root, ignore_rows=0.3)
    assert table.names == ("a", "phase") and table.labels == ("a_0", r"\phi")
    np.testing.assert_array_equal(table.bounds, [[-9, np.inf], [0, 360]])
    np.testing.assert_array_equal(table.periodic, [False, True])
    theirs = loadMCSamples(str(root), no_cache=True, settings={"ignore_rows": 0.3})
    np.testing.assert_allclose(table.values, theirs.samples[:, :2], rtol=1e-14)
    np.testing.assert_allclose(table.weights, theirs.weights)
    np.testing.assert_allclose(table.log_likelihood, -theirs.loglikes, rtol=1e-14)
    assert open_table(root, variables="s").names == ("s",)
    assert len(open_table(f"{root}_2.txt", ignore_rows=17).values) == 200 - 17
    told = open_table(root, bounds={"a": (None, 20.0)})
    np.testing.assert_array_equal(told.bounds, [[-np.inf, 20], [-np.inf, np.inf]])


def test_a_chain_that_holds_its_burn_in_is_remarked_on(tmp_path):
    root = getdist_root(tmp_path, 400)
    assert open_table(root).remarks == ()
    rows = np.loadtxt(f"{root}_2.txt")
    rows[:40, 2] += np.linspace(30, 0, 40)
    np.savetxt(f"{root}_2.txt", rows)
    (remark,) = open_table(root).remarks
    assert "run_2.txt: up to line 20 a is on average" in remark and "--ignore-rows 0.3" in remark
    assert open_table(root, ignore_rows=0.3).remarks == ()
    rng = np.random.default_rng(0)  # slow mixing over a few tens of rows is no burn-in
    slow = np.stack([np.convolve(rng.normal(size=2039), np.ones(40) / 40, "valid") for _ in range(20)], axis=1)
    table = open_table(pd.DataFrame(slow).assign(chain=0).set_axis([*(f"x{i}" for i in range(20)), "chain"], axis=1))
    assert table.remarks == () and len(table.names) == 20


def test_the_number_of_a_draw_is_no_parameter():
    drawn = frame().assign(sample=0, realization=np.arange(len(frame())))
    assert open_table(drawn).names == open_table(frame()).names
    assert "realization" in open_table(drawn, variables="a,realization").names
    assert "realization" in open_table(drawn.assign(realization=0.5 + drawn["a"])).names


def test_bounds_come_from_a_file_or_a_mapping(tmp_path):
    (tmp_path / "b.ranges").write_text("a N 50\nb 0 50 periodic\nother 1 1\n")
    expected = [[-np.inf, 50], [0, 50]]
    table = open_table(frame(), bounds=tmp_path / "b.ranges")
    np.testing.assert_array_equal(table.bounds, expected)
    np.testing.assert_array_equal(table.periodic, [False, True])
    for spoken in ({"a": (None, 50), "b": (0, 50)}, "a=N/50, b=0/50"):
        table = open_table(frame(), bounds=spoken, periodic="b")
        np.testing.assert_array_equal(table.bounds, expected)
    np.testing.assert_array_equal(table.periodic, [False, True])


def nested_root(folder, live=40):
    """A run on a Gaussian likelihood of width s under a uniform prior on the unit disc, drawn exactly."""
    rng, s = np.random.default_rng(3), 0.1

    def log_l(x):
        return -(x**2).sum(-1) / (2 * s**2)

    def within(volume, size):
        radius, angle = np.sqrt(volume * rng.random(size)), rng.uniform(0, 2 * np.pi, size)
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    points, birth = within(1.0, live), np.full(live, -np.inf)
    dead = []
    for _ in range(live * 8):
        worst = int(np.argmin(log_l(points)))
        value = log_l(points[worst])
        dead.append([*points[worst], value, birth[worst]])
        points[worst], birth[worst] = within((points[worst] ** 2).sum(), 1)[0], value
    np.savetxt(folder / "pc_dead-birth.txt", dead)
    np.savetxt(folder / "pc_phys_live-birth.txt", np.column_stack([points, log_l(points), birth]))
    (folder / "pc.paramnames").write_text("x x_0\ny\n")
    return folder / "pc", np.log(2 * s**2)  # 2 pi s^2 / pi


def test_a_nested_run_has_the_weights_and_the_evidence_of_anesthetic(tmp_path):
    from anesthetic import read_chains

    root, truth = nested_root(tmp_path)
    samples, table = read_chains(str(root)), open_table(root)
    assert table.names == ("x", "y") and table.labels == ("x_0", "y")
    np.testing.assert_array_equal(table.values, samples[["x", "y"]].to_numpy())
    np.testing.assert_array_equal(table.weights, samples.get_weights())
    value, error = table.log_evidence
    assert value == pytest.approx(float(samples.logZ()), abs=1e-12) and abs(value - truth) < 4 * error
    assert error == pytest.approx(np.sqrt(float(samples.D_KL()) / 40), rel=0.15)  # Skilling's sqrt(H / n_live)
    assert open_table(samples).log_evidence == table.log_evidence
    assert open_table(f"{root}_dead-birth.txt").log_evidence == table.log_evidence
    with pytest.raises(DataError, match="is a nested run, which has no burn-in"):
        open_table(root, ignore_rows=0.3)


def test_settings_of_cobaya_are_data_and_never_run(tmp_path):
    rows = np.column_stack([np.ones(6), np.arange(6.0), VALUES[:6], np.full((6, 2), 3.0)])
    np.savetxt(tmp_path / "c.1.txt", rows, header=" weight minuslogpost a b s chi2")
    made = tmp_path / "made"
    (tmp_path / "c.updated.yaml").write_text(
        f"likelihood: {{l: !!python/object/apply:os.mkdir ['{made}']}}\nparams:\n  a: {{prior: {{min: -5, max: 5e0}}, latex: a_0}}\n"
        "  b: {prior: {dist: norm, loc: 0, scale: 1}}\n  s: {derived: true}\n"
    )
    table = open_table(tmp_path / "c")
    assert table.names == ("a", "b") and table.labels == ("a_0", "b") and not made.exists()
    np.testing.assert_array_equal(table.bounds, [[-5, 5], [-np.inf, np.inf]])
    np.testing.assert_array_equal(table.log_likelihood, -np.arange(6.0))


ROWS = ["1 0.5 0.1 0.2", "2 1e30 0.3 0.4", "1 0.1 0.5 0.6"]

FAULTS = {
    "negative weight": ({1: "-2 1 0.3 0.4"}, {}, r"c_1\.txt: line 2: the weight is -2\.0"),
    "weight NaN": ({2: "nan 1 0.3 0.4"}, {}, r"line 3: the weight is nan"),
    "log-likelihood": ({0: "1 -inf 0.3 0.4"}, {}, r"line 1: the log-likelihood is inf"),
    "short line": ({1: "2 1 0.3"}, {}, r"c_1\.txt: line 2 has 3 columns, expected 4 as line 1 has"),
    "more than named": ({0: "1 1 1 1 1"}, {}, r"line 1 has 5 columns, expected 4: 2 names are known beside weight"),
    "word": ({2: "1 1 zero 2"}, {}, r"line 3 has 'zero', expected a number"),
    "no number": ({1: "1 1 nan 2"}, {}, r"line 2: a is missing or no number"),
    "infinite": ({1: "1 1 2 inf"}, {}, r"line 2: b is inf"),
    "all weights zero": ({0: "0 1 2 3", 1: "0 1 2 3", 2: "0 1 2 3"}, {}, r"none of its 3 rows has a positive weight"),
    "burn-in": ({}, {"ignore_rows": 3}, r"c_1\.txt: has 3 rows and ends at line 3, so that ignore_rows 3 leaves none"),
    "column": ({}, {"variables": "bb"}, r"has no column 'bb'; did you mean 'b'\?"),
    "bound": ({}, {"bounds": {"a": (0.2, 1)}}, r"line 1: a is 0\.1, beyond its bounds 0\.2, 1;"),
    "bound of none": ({}, {"bounds": {"c": (0, 1)}}, r"has no column 'c'"),
    "all are covariates": ({}, {"covariates": "a,b"}, "leaves no column to learn"),
}


def write_chain(folder, changed):
    (folder / "c.paramnames").write_text("a\nb\n")
    (folder / "c_1.txt").write_text("\n".join(changed.get(i, row) for i, row in enumerate(ROWS)) + "\n")
    return folder / "c"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_with_its_row(fault, tmp_path):
    changed, options, sentence = FAULTS[fault]
    with pytest.raises(DataError, match=sentence) as caught:
        open_table(write_chain(tmp_path, changed), **options)
    assert "\n" not in str(caught.value)


def test_the_chain_of_the_faults_is_sound_without_them(tmp_path):
    table = open_table(write_chain(tmp_path, {}))
    np.testing.assert_array_equal(table.weights, [1, 0, 1])  # 1e30 is CosmoMC's logarithm of 0
    np.testing.assert_array_equal(table.log_likelihood, [-0.5, -np.inf, -0.1])


USAGE = {
    "twice": ({"variables": "a,a"}, "variables names 'a' twice"),
    "open circle": ({"periodic": "b", "bounds": {"b": (0, None)}}, "b is periodic and its bounds are 0, inf"),
    "typed bounds": ({"bounds": "a=0:1"}, "got 'a=0:1' among the bounds"),
    "bounds typed twice": ({"bounds": "a=0/1,a=0/2"}, "each name once"),
    "falling bounds": ({"bounds": {"a": (1, 0)}}, r"the bounds of 'a' are \(1, 0\)"),
    "share": ({"ignore_rows": 1.5}, "ignore_rows is 1.5, expected a share"),
    "negative share": ({"ignore_rows": -1}, "ignore_rows is -1, expected a share"),
}


@pytest.mark.parametrize("case", USAGE)
def test_options_that_contradict_each_other(case):
    options, sentence = USAGE[case]
    with pytest.raises(UsageError, match=sentence):
        open_table(frame(), **options)


def test_other_files_are_told_apart(tmp_path):
    getdist_root(tmp_path, 5)
    with pytest.raises(DataError, match=r"rum: no such file, and no chain of that root.*did you mean '.*run'\?"):
        open_table(tmp_path / "rum")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n3\n")
    with pytest.raises(DataError, match=r"t\.csv: line 4 has 1 columns, expected 2 as line 1 has"):
        open_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n3,x\n")
    with pytest.raises(DataError, match=r"t\.csv: line 4: b is missing or no number"):
        open_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text('a;b\n1;2\n"3";4\n')
    np.testing.assert_array_equal(open_table(tmp_path / "t.csv").values, [[1, 2], [3, 4]])
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"3",4,5\n')
    with pytest.raises(DataError, match=r"t\.csv: line 3 has 3 columns, expected 2 as line 1 has"):
        open_table(tmp_path / "t.csv")
    (tmp_path / "r.ranges").write_text("a 0 1\nb 3\n")
    with pytest.raises(DataError, match=r"r\.ranges: line 2 is 'b 3' \(2 words\)"):
        open_table(frame(), bounds=tmp_path / "r.ranges")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        open_table(tmp_path / "o.npy")
    with pytest.raises(DataError, match="the table is list"):
        open_table([[1, 2]])
