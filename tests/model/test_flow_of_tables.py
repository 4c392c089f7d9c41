"""Flows from the rows of one table to those of another, and couplings: moments, files and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import undrift
from carried import carried_back
from undrift.cli.main import main
from undrift.data.parameters import Parameters
from undrift.data.table import open_table
from undrift.distributions import pairing, point_flow
from undrift.distributions.base import Base
from undrift.distributions.pairing import coupling_of, drawn_rows, paired
from undrift.distributions.recoded import Recoded
from undrift.errors import DataError, UsageError
from undrift.nets import MLP
from undrift.process import ConditionalOT, DataToData, Key, MinibatchOT, normal
from undrift.solve.runge_kutta import DORMAND_PRINCE, Euler, RungeKutta
from undrift.solve.step_size import Adaptive

MEAN, FACTOR = np.array([1.0, -2.0]), np.array([[2.0, 0.0], [1.0, 0.8]])


def table(n, seed, mean=MEAN, factor=FACTOR):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 2)) @ factor.T + mean, columns=["a", "b"])


def base(n=2000, seed=1):
    return table(n, seed, np.array([9.0, 7.0]), 0.5 * np.eye(2))


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "_ROWS", 256)
        patch.setattr(point_flow, "_PAIRS", 4096)
        yield


@pytest.fixture(scope="module")
def model(few_pairs):
    task = undrift.Density("flow-matching", coupling="ot", base=base())
    return undrift.fit(table(2000, 0), task=task, steps=200, progress=False)


def test_a_flow_carries_one_table_to_the_law_of_another(model):
    """A flow of matched Gaussians is straight: one step of Euler, which of unmatched ones ends at the mean, does it."""
    begun = base(1500, 5)
    for how in ({"nfe": 1, "solver": Euler()}, {"nfe": 500, "solver": RungeKutta(DORMAND_PRINCE), "grid": Adaptive()}):
        found = model.transport(begun, **how).to_dataframe()
        np.testing.assert_allclose(found.mean(), MEAN, atol=0.25)
        np.testing.assert_allclose(np.cov(found.T), FACTOR @ FACTOR.T, atol=0.7)


def test_a_draw_begins_at_a_row_of_the_base(model):
    whole = model.sample(realizations=600, seed=3)
    np.testing.assert_allclose([whole.a.mean(), whole.b.mean()], MEAN, atol=0.35)
    part = model.sample(realizations="20:30", seed=3)
    np.testing.assert_array_equal(part.a, whole.a[20:30])
    ends = model.transport(base())
    near = np.abs(whole.a.values[:50, None] - ends.a.values[None]).min(1)
    assert near.max() < 1e-4


def test_a_flow_from_rows_has_no_density_and_says_so(model):
    for ask in (lambda: model.log_prob(table(3, 2)), lambda: model.evaluate(), lambda: model.evaluate(table(3, 2))):
        with pytest.raises(UsageError, match="begins at 2000 rows of .*, whose density is not known"):
            ask()
    with pytest.raises(UsageError, match="has none; fit with a density as base"):
        model.density.log_prob(np.zeros((2, 2)))


def test_a_saved_flow_carries_the_same_and_the_command_line_knows_it(tmp_path, capsys):
    table(600, 0).to_csv(tmp_path / "to.csv", index=False)
    base(500).to_csv(tmp_path / "from.csv", index=False)
    words = ["train", str(tmp_path / "to.csv"), "--estimator", "flow-matching", "--coupling", "ot", "--steps", "5"]
    assert main([*words, "--base", str(tmp_path / "from.csv"), "--out", str(tmp_path / "RUN")]) == 0
    flow = undrift.load(tmp_path / "RUN")
    facts = flow.describe()
    assert (facts["coupling"], facts["log likelihood"]) == ("ot", {}) and "500 rows of" in facts["base"]
    task = undrift.Density(coupling="ot", base=tmp_path / "from.csv")
    again = undrift.fit(tmp_path / "to.csv", task=task, steps=5, progress=False)
    np.testing.assert_array_equal(again.transport(base(20)).a, flow.transport(base(20)).a)
    assert main(["sample", str(tmp_path / "RUN"), "--realizations", "9", "--out", str(tmp_path / "d.csv")]) == 0
    assert main(["log-prob", str(tmp_path / "RUN"), str(tmp_path / "to.csv"), "--out", str(tmp_path / "p.nc")]) == 2
    assert "whose density is not known" in capsys.readouterr().err


def test_a_base_that_is_a_chain_loses_its_burn_in_too(caplog):
    walk = base(200).assign(chain=0)
    walk.loc[:19, "a"] += 50
    for begun, share, left in ((walk, 0.25, 150), (walk, 0, 200), (base(200), 0.25, 200)):
        caplog.clear()
        plan = undrift.fit(table(400, 0), base=begun, ignore_rows=share, dry_run=True)
        assert plan["base"].startswith(f"{left} rows of")
        assert ("of the base:" in caplog.text and "burn-in" in caplog.text) == (share == 0)


def test_what_no_coupling_or_base_can_do_is_refused(model):
    rows = table(400, 0)
    refused = {
        "--coupling is of flow matching, and --estimator kde": {"estimator": "kde", "coupling": "ot"},
        "--base is of flow matching, and --estimator nsf": {"estimator": "nsf", "base": base(50)},
        "type --coupling conditional-ot": {"variables": "a", "covariates": "b", "coupling": "ot"},
        "type --coupling ot": {"coupling": "conditional-ot"},
        "input should be 'independent', 'ot' or": {"coupling": "best"},
    }
    for sentence, options in refused.items():
        with pytest.raises(UsageError, match=sentence):
            undrift.fit(rows, progress=False, **options)
    with pytest.raises(DataError, match="row 1 of the base lies outside the bounds"):
        undrift.fit(rows.abs() * 0.01, base=base(50), bounds={"a": (0, 1)}, steps=2, progress=False)
    with pytest.raises(DataError, match="all rows of the base are the same"):
        undrift.fit(rows, base=base(1).loc[[0] * 50], steps=2, progress=False)
    with pytest.raises(UsageError, match="got base, where the density of a table begins"):
        undrift.fit(rows.to_xarray(), task="emulate", base=base(50))
    plain = undrift.fit(rows, estimator="flow-matching", coupling="ot", steps=2, progress=False)
    with pytest.raises(UsageError, match="fitted without a base"):
        plain.transport(rows)
    assert np.isfinite(plain.log_prob(rows.head(3)).log_prob).all()


def test_rows_of_a_pairing_are_drawn_by_their_weights():
    weights = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    rows = drawn_rows(weights, 800, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.bincount(rows, minlength=4), [0, 100, 200, 500], atol=1)
    x = torch.tensor(np.random.default_rng(0).normal(size=(4, 2)))
    at, z = paired(DataToData(x + 1), x, weights, None, number=2000, seed=1)
    assert len(at) == len(z) == 2048
    np.testing.assert_allclose(np.bincount(at, minlength=4) / 2048, weights / 8, atol=2e-3)


class Counted(ConditionalOT):
    """Transport within classes that keeps how many rows it was given, and of which classes, and how many differ."""

    def __call__(self, x, generator, given=None):
        self.sizes = [*getattr(self, "sizes", []), (len(x), *given.unique().tolist())]
        self.differ = [*getattr(self, "differ", []), len(x.unique(dim=0))]
        return super().__call__(x, generator, given)


def test_copies_and_large_classes_are_matched_in_small_parts(monkeypatch):
    """Nine in ten rows are of class 0 and all differ; the 300 of class 1 are three different ones."""
    monkeypatch.setattr(pairing, "_LEAST", 32)
    rng = np.random.default_rng(4)
    c = torch.tensor(np.repeat([0.0, 1.0], [2700, 300]))[:, None]
    x = torch.tensor(np.concatenate([rng.normal(size=(2700, 2)), np.repeat(rng.normal(size=(3, 2)), 100, axis=0)]))
    coupling, odds = Counted(), torch.ones(3000, dtype=torch.float64)
    at, z = paired(coupling, x, odds, c, number=2000, seed=0)
    of_zero, of_one = ([size for size, *classes in coupling.sizes if classes == [k]] for k in (0.0, 1.0))
    assert len(of_zero) + len(of_one) == len(coupling.sizes) and max(of_zero) < 384 and max(of_one) < 48
    assert min(of_zero) > 128 and sum(of_one) == pytest.approx(2048 / 10, abs=40)  # binomial: four deviations are 54
    apart = float((x[at] - z).square().sum(1)[c[at, 0] == 0].mean())
    assert apart < 0.2  # of matched normal rows; 4 of such that are not
    coupling.sizes = []
    paired(coupling, x, odds, c, number=2000, seed=0, seconds=0.0)
    assert max(size for size, *_ in coupling.sizes) < 48 and {one for _, *one in coupling.sizes for one in one} == {
        0,
        1,
    }


def test_copies_of_a_row_are_matched_in_several_parts(monkeypatch):
    """A hundred rows of one class, each drawn 19 times, in 19 parts: of a hundred draws 1 - 1/e are of different rows."""
    monkeypatch.setattr(pairing, "_LEAST", 100)
    c = torch.tensor(np.r_[np.zeros(100), np.repeat(np.arange(1.0, 20), 4)])[:, None]
    odds = torch.where(c[:, 0] == 0, 0.95 / 100, 0.05 / 76).double()
    coupling, x = Counted(), torch.tensor(np.random.default_rng(5).normal(size=(176, 2)))
    paired(coupling, x, odds, c, number=2000, seed=0)
    found = [share for share, (size, one) in zip(coupling.differ, coupling.sizes, strict=True) if one == 0]
    assert len(found) == 19 and np.mean(found) == pytest.approx(100 * (1 - np.exp(-1)), abs=4)


def test_a_base_of_weighted_rows_has_their_law():
    rng = np.random.default_rng(1)
    x, weights = np.stack([rng.normal(size=4000), rng.normal(size=4000)], 1), np.zeros(4000)
    weights[:] = norm.pdf(x[:, 0], 1, 1) / norm.pdf(x[:, 0], 0, 1)  # of N(1, 1)
    found = Base.of(x, weights)
    np.testing.assert_allclose(found.mean, [1, 0], atol=0.12)
    np.testing.assert_allclose((found.rows**2).mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(found.rows.mean(0), 0, atol=1e-5)
    every = found.drawn(norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None])
    np.testing.assert_array_equal(np.sort(every[:, 0]), np.sort(found.rows[:, 0]))
    np.testing.assert_allclose(found.seen(found.mean + 2 * found.scale), 2)


def test_covariates_are_classes_or_numbers():
    rng = np.random.default_rng(2)
    assert isinstance(coupling_of("ot", None, None), MinibatchOT)
    classes = coupling_of("conditional-ot", None, rng.choice([0.0, 1.0, 4.0], (500, 1)))
    numbers = coupling_of("conditional-ot", None, rng.normal(size=(500, 1)))
    assert isinstance(classes, ConditionalOT) and isinstance(numbers, ConditionalOT)
    assert classes.share is None and numbers.share == 0.05
    few = coupling_of("conditional-ot", None, rng.normal(size=(60, 1)))  # each its own class, of which none has two
    assert isinstance(few, ConditionalOT) and few.share == 0.05


def test_matching_leaves_half_of_a_budget(monkeypatch):
    """One matching of all pairs takes longer than the whole budget."""
    monkeypatch.setattr(point_flow, "_PAIRS", 1)
    found = undrift.fit(table(400, 0), estimator="flow-matching", coupling="ot", budget=0.004, progress=False)
    assert found.facts["training"]["seconds"] >= 0.002


def test_a_conditional_flow_heeds_its_classes():
    """Given c in {-1, 1}: a is N(3 c, 1/4), begun at N(0, 1) whatever c is."""
    rng = np.random.default_rng(3)
    c = rng.choice([-1.0, 1.0], 3000)
    rows = pd.DataFrame({"a": 3 * c + 0.5 * rng.normal(size=3000), "c": c})
    begun = pd.DataFrame({"a": rng.normal(size=2000)})
    task = undrift.Density(coupling="conditional-ot", base=begun)
    flow = undrift.fit(rows, task=task, covariates="c", variables="a", steps=150, progress=False)
    for value in (-1.0, 1.0):
        found = flow.transport(begun, at={"c": value}, nfe=1, solver=Euler()).a
        assert float(found.mean()) == pytest.approx(3 * value, abs=0.25)
        assert float(found.std()) == pytest.approx(0.5, abs=0.15)


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A mixture of positive a, and its columns in the other order."""
    begun = base(4000)[["b", "a"]].assign(a=lambda rows: np.exp(rows["a"] / 5))
    folder = tmp_path_factory.mktemp("law") / "BASE"
    return undrift.fit(begun, estimator="mixture", bounds={"a": (0, None)}, progress=False, out=folder)


@pytest.fixture(scope="module")
def from_law(few_pairs, law):
    task = undrift.Density(coupling="ot", base=law.run)
    return undrift.fit(table(2000, 0), task=task, steps=200, progress=False)


def test_a_flow_from_a_density_has_the_density_of_what_it_carries(law, from_law, measured, tmp_path):
    """The learned velocity integrated from t = 0 in double precision, to where the density of the base is known."""
    assert from_law.facts["base"] == f"20000 draws of the density {law.run}"
    rows = table(100, 7)
    found = from_law.log_prob(rows)
    flow, encode = from_law.density, from_law.parameters.encode
    y, change = encode(rows.to_numpy())
    x, divergence = carried_back(flow, y, 100)
    begun = from_law.parameters.decode(flow.base.mean + flow.base.scale * x)
    _, slope = encode(begun)
    at = law.log_prob(pd.DataFrame(begun, columns=["a", "b"])).log_prob.values
    exact = at - slope + 2 * np.log(flow.base.scale) + change + divergence
    away, error = np.abs(found.log_prob.values - exact), found.log_prob_error.values
    against = "Runge-Kutta of the velocity from t = 0"
    measured(Recoded, "median error of a flow from it in nats", against, "none", np.median(away), most=2e-3)
    assert (away <= 2 * error + 1e-3).mean() >= 0.9
    from_law.save(tmp_path / "RUN")
    again = undrift.load(tmp_path / "RUN")
    np.testing.assert_allclose(again.log_prob(rows).log_prob, found.log_prob, atol=1e-6)
    np.testing.assert_allclose(again.sample(realizations=7).a, from_law.sample(realizations=7).a, rtol=1e-6)


def test_a_flow_from_a_density_begins_at_fresh_draws_of_it(law, from_law):
    """In the plane of the base: more different places than rows were drawn for the training, with its moments."""
    z = np.random.default_rng(3).standard_normal((4000, from_law.density.numbers))
    places = from_law.density.base.drawn(z)
    begun = from_law.parameters.decode(from_law.density.base.mean + from_law.density.base.scale * places)
    drawn = law.sample(realizations=4000, seed=1)
    for i, name in enumerate("ab"):
        error = np.hypot(begun[:, i].std(), float(drawn[name].std())) / np.sqrt(4000)
        assert abs(begun[:, i].mean() - float(drawn[name].mean())) < 4 * error
    assert len(np.intersect1d(places[:, 0].astype(np.float32), from_law.density.base.rows[:, 0])) < 40
    first = from_law.density.base.drawn(normal(Key(0, "density", 0), (20, from_law.density.numbers)))
    np.testing.assert_array_less(
        1e-3, np.abs(first - from_law.density.base.rows[:20]).max(1)
    )  # none is of the training
    score = from_law.facts["log likelihood"]
    entropy = np.log(2 * np.pi * np.e) + np.log(np.linalg.det(FACTOR))
    assert score["held out"] == pytest.approx(-entropy, abs=4 * score["standard error"] + 0.1)


def test_a_density_in_other_coordinates_is_the_same_law(law, agrees):
    """Whitened anew with its columns in another order and open bounds: it integrates to one, and draws have it."""
    told = Parameters.fit(open_table(law.sample(realizations=3000, seed=5)[["a", "b"]]))
    same = Recoded("mixture", law.density, law.parameters, told, np.array([1, 0]))
    side = np.linspace(-9, 9, 401)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    total = np.exp(same.log_prob(grid)[0]).sum() * (side[1] - side[0]) ** 2
    agrees(Recoded.log_prob, "integral over the plane", "1", total, 1.0, 1e-3)
    rows = law.sample(realizations=50, seed=6)
    u, slope = told.encode(np.stack([rows.a.values, rows.b.values], 1))
    agrees(
        Recoded.log_prob,
        "log p",
        "the density in the data's units",
        same.log_prob(u)[0] + slope,
        law.log_prob(rows).log_prob.values,
        1e-9,
        1e-9,
    )
    beyond, _ = told.encode(np.array([[-1.0, 7.0]]))
    assert np.isneginf(same.log_prob(beyond)[0]) and same.log_prob(beyond)[1] == 0


def test_what_a_base_of_another_density_must_be(law, from_law, model):
    given = undrift.fit(table(300, 0), estimator="mixture", variables="a", covariates="b", progress=False)
    for wrong, told in (
        (law, "a density|the density .* of b, a, expected one of a with"),
        (given, "of a given b, expected"),
    ):
        with pytest.raises(UsageError, match=told):
            undrift.fit(table(200, 0), variables="a", base=wrong, steps=2, progress=False)
    begun = undrift.fit(table(400, 0), base=model, steps=2, progress=False)  # itself from rows: draws, no density
    with pytest.raises(UsageError, match="begins at 20000 draws of a density, whose density is not known"):
        begun.log_prob(table(3, 0))
    unit = pd.DataFrame(np.random.default_rng(0).uniform(0.3, 0.7, (400, 2)), columns=["a", "b"])
    near = undrift.fit(unit, estimator="mixture", bounds={"a": (0, None)}, progress=False)
    with pytest.raises(
        UsageError, match="a density reaches beyond the bounds of a, 0/1; fit it with --bounds a=0/1 too"
    ):
        undrift.fit(unit, base=near, bounds={"a": (0, 1)}, steps=2, progress=False)
    undrift.fit(unit, base=near, bounds={"a": (0, None)}, steps=2, progress=False)


def test_calls_are_counted_of_the_flow_where_a_flow_begins_too(monkeypatch):
    first = undrift.fit(base(400), estimator="flow-matching", steps=2, progress=False)
    second = undrift.fit(table(400, 0), base=first, steps=2, progress=False)
    calls, forward = [], MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda *args: calls.append(1) or forward(*args))
    assert second.log_prob(table(5, 1)).attrs["network_calls"] == len(calls) > 8


def test_a_row_has_its_own_error_wherever_the_flow_begins():
    """A far row, and one beyond all numbers, leave the others as they are; a base of bounds leaves scores away."""
    first = undrift.fit(base(1000), estimator="diffusion", steps=100, progress=False)
    flow = undrift.fit(table(1000, 0), base=first, steps=50, progress=False)
    near = table(5, 1)
    far = pd.concat([near, pd.DataFrame({"a": [1e6, 1e40], "b": [1e6, 1e40]})])
    alone, beside = flow.log_prob(near), flow.log_prob(far)
    np.testing.assert_allclose(beside.log_prob[:5], alone.log_prob, rtol=1e-4)
    assert float(beside.log_prob_error[:5].max()) < 1e-3 < float(beside.log_prob_error[5])
    assert np.isneginf(beside.log_prob[6]) and np.isinf(beside.log_prob_error[6])


def test_rows_that_come_from_beyond_the_base_have_no_score(caplog):
    flat = pd.DataFrame(np.random.default_rng(2).uniform(0, 1, (2000, 2)), columns=["a", "b"])
    square = undrift.fit(flat, estimator="mixture", bounds={"a": (0, 1), "b": (0, 1)}, progress=False)
    flow = undrift.fit(table(1000, 0), base=square, steps=40, progress=False)
    rows = table(400, 3)
    outside = np.isneginf(flow.log_prob(rows).log_prob.values)
    slopes = flow.score(rows)
    assert 0 < outside.sum() < 200 and "held-out rows have density 0, as the flow carries them beyond" in caplog.text
    assert slopes.a.isnull().values[outside].all() and slopes.a.notnull().sum() > 150


def test_one_base_is_given():
    told = undrift.fit(base(300), estimator="mixture", progress=False)
    with pytest.raises(UsageError, match="leave one of them out"):
        undrift.fit(table(300, 0), task=undrift.Density(base="some.csv"), base=told, steps=2, progress=False)
    with pytest.raises(UsageError, match="leave one of them out"):
        undrift.fit(table(300, 0), task=undrift.Density(base=told), base=told, steps=2, progress=False)
