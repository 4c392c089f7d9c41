"""What bounded variables depart from a linear prediction: recovered from samples, out of fold, and worth its place."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from undrift.data.censored import surprise
from undrift.data.codec_file import Shell, load_codec, save_codec
from undrift.data.codec_fit import fit_codec
from undrift.data.conserve import in_blocks
from undrift.data.curves import Curve, fit_curve
from undrift.data.linear import Given
from undrift.data.open import open_fields
from undrift.tasks import Downscale

LOW = -0.5
B, C = ((-0.4, 0.1, 0.0), (0.7, 0.2, -0.3))  # b and c at given latents of -0.5, 0.5 and 1.5


def samples(seed: int, count: int = 60_000) -> dict[str, np.ndarray]:
    """Cells of the law that curves describe, a tenth of them given dry, with what lies below LOW out of sight."""
    rng = np.random.default_rng(seed)
    own = np.where(rng.random(count) < 0.1, LOW, rng.uniform(LOW, 1.5, count))
    mean, std = rng.normal(0, 0.3, count), rng.uniform(0.2, 0.4, count)
    at = [-0.5, 0.5, 1.5]
    u = mean + np.interp(own, at, B) + std * np.exp(np.interp(own, at, C)) * rng.normal(size=count)
    return {"own": own, "u": np.where(u <= LOW, -np.inf, u), "mean": mean, "std": std,
            "fold": np.arange(count) * 5 // count}  # fmt: skip


def test_curves_are_those_that_the_cells_were_drawn_from():
    curve = fit_curve(**samples(0, 200_000), folds=5, low=LOW, high=np.inf)
    assert curve is not None and curve.knots[0] == LOW and curve.bend.shape == (6, len(curve.knots))
    at = np.linspace(-0.5, 1.4, 20)
    truth = np.interp(at, [-0.5, 0.5, 1.5], B), np.interp(at, [-0.5, 0.5, 1.5], C)
    # where most cells are out of sight the last passes of the expectation-maximisation are still missing
    np.testing.assert_allclose(curve.moved(at[None])[0], truth[0], atol=0.04)
    np.testing.assert_allclose(np.log(curve.widened(at)), truth[1], atol=0.05)


def test_a_fold_is_bent_by_the_others_alone():
    one = samples(1, 20_000)
    other = one | {"u": np.where(one["fold"] == 2, one["u"] + 1, one["u"])}
    a, b = (fit_curve(**x, folds=5, low=LOW, high=np.inf) for x in (one, other))
    assert a is not None and b is not None
    np.testing.assert_array_equal(a.bend[2], b.bend[2])
    for k in (0, 1, 3, 4, -1):  # a fifth of the cells, or a quarter, say 1 more, and more where none was out of sight
        assert (b.bend[k] - a.bend[k]).mean() > 0.1


def test_what_is_straight_has_no_curve():
    x = samples(2)
    rng = np.random.default_rng(3)
    u = x["mean"] + x["std"] * rng.normal(size=len(x["u"]))
    assert fit_curve(**(x | {"u": np.where(u <= LOW, -np.inf, u)}), folds=5, low=LOW, high=np.inf) is None
    assert fit_curve(**(x | {"own": np.full(len(u), LOW)}), folds=5, low=LOW, high=np.inf) is None


def test_a_fold_without_cells_is_bent_by_all():
    x = samples(7, 20_000)
    some = {k: v[x["fold"] < 3] for k, v in x.items()}
    curve = fit_curve(**some, folds=5, low=LOW, high=np.inf)
    assert curve is not None and curve.bend.shape[0] == 6
    for k in (3, 4):
        np.testing.assert_array_equal(curve.bend[k], curve.bend[-1])
    assert not np.allclose(curve.bend[2], curve.bend[-1], atol=1e-3)


def test_the_upper_bound_mirrors_the_lower():
    x = samples(4, 20_000)
    mirrored = x | {k: -x[k] for k in ("own", "u", "mean")}
    a, b = fit_curve(**x, folds=5, low=LOW, high=np.inf), fit_curve(**mirrored, folds=5, low=-np.inf, high=-LOW)
    assert a is not None and b is not None
    at = np.linspace(-0.5, 1.5, 30)
    np.testing.assert_allclose(b.moved(-at[None]), -a.moved(at[None]), atol=1e-9)
    np.testing.assert_allclose(b.widened(-at), a.widened(at), rtol=1e-9)


def test_each_sample_has_the_curve_of_its_fold_and_ends_are_constant():
    curve = Curve(np.array([0.0, 1.0, 3.0]), np.array([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]]), np.log([1.0, 2.0, 8.0]))
    own = np.array([[-4.0, 0.5, 2.0], [9.0, 1.0, 0.0]])
    np.testing.assert_allclose(curve.moved(own, np.array([0, 1])), [[0.0, 0.5, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(curve.moved(own), 2.0)
    assert curve.moved(np.full((1, 1), np.nan)) == 0 and curve.widened(np.full((1, 1), np.nan)) == 1
    np.testing.assert_allclose(curve.widened(own), [[1.0, np.sqrt(2), 4.0], [8.0, 2.0, 1.0]])


def test_surprise_is_that_of_a_censored_gaussian():
    u, mean, std = np.array([-np.inf, np.inf, 0.3]), np.array([0.1, -0.2, 0.4]), np.array([0.5, 2.0, 0.7])
    law = stats.norm(mean, std)
    wanted = [-law.logcdf(-0.6)[0], -law.logsf(1.2)[1], -law.logpdf(0.3)[2]]
    np.testing.assert_allclose(surprise(u, mean, std, -0.6, 1.2), wanted, rtol=1e-12)


def drizzle(samples: int = 240, seed: int = 5) -> xr.Dataset:
    """Rain whose wet blocks are all wet, and whose blocks of little rain have two dry cells in three."""
    rng = np.random.default_rng(seed)
    level = rng.random((samples, 3, 4)).repeat(4, 1).repeat(4, 2)
    wet = 0.2 + level * (1 + 0.1 * rng.normal(size=level.shape))
    trace = np.where(rng.random(level.shape) < 2 / 3, 0.0, rng.uniform(0.01, 0.1, level.shape))
    return xr.Dataset({"pr": (("time", "y", "x"), np.where(level < 0.3, trace, wet), {"units": "mm/day"})})


@pytest.fixture(scope="module")
def rainy():
    fields = open_fields(drizzle())
    rows = np.arange(len(fields))
    made = Downscale(4).pair(fields)
    codec, fold = fit_codec(made.target, made.given, rows, factor=made.factor, covariates={})
    return made, rows, codec, fold


def drawn(rainy, codec) -> np.ndarray:
    """Fields of independent normal residuals, as if the network had learned nothing."""
    made, rows, _, fold = rainy
    given = made.given.read(rows).astype(np.float64)
    part = codec.predictors(given, {}, len(rows))[0]
    r = np.random.default_rng(6).normal(size=(len(rows), 1, *codec.layout.shape))
    return codec.decode(r, codec.predict(part, fold), codec.blocks(given))[:, 0]


def test_blocks_of_little_rain_have_the_dry_cells_that_they_had(rainy):
    made, rows, codec, _ = rainy
    truth, given = made.target.read(rows)[:, 0], made.given.read(rows)[:, 0]
    little = (given > 0) & (given < 0.1)
    dry = {"truth": (in_blocks(truth, (4, 4)) == 0)[little].mean()}
    dry["bent"] = (in_blocks(drawn(rainy, codec), (4, 4)) == 0)[little].mean()
    curves, codec.curves = codec.curves, {}
    dry["straight"] = (in_blocks(drawn(rainy, codec), (4, 4)) == 0)[little].mean()
    codec.curves = curves
    assert dry["truth"] == pytest.approx(2 / 3, abs=0.02)
    assert abs(dry["bent"] - dry["truth"]) < 0.1 < abs(dry["straight"] - dry["truth"]), dry


def test_a_cell_is_bent_by_its_own_block(rainy):
    made, rows, codec, _ = rainy
    given = made.given.read(rows[:2]).astype(np.float64)
    part = codec.predictors(given, {}, 2)[0]
    own = codec.own(part, 0)
    wanted = codec.transforms[0].continuous(given[:, 0].repeat(4, 1).repeat(4, 2))
    np.testing.assert_allclose(own, wanted, atol=1e-9)
    window = (slice(3, 9), slice(2, 11))
    whole, cut = codec.predict(part), codec.predict(part, window=window)
    np.testing.assert_allclose(cut.mean, whole.mean[:, :, 3:9, 2:11], rtol=1e-12)
    np.testing.assert_allclose(cut.std, whole.std[:, :, 3:9, 2:11], rtol=1e-12)
    curve = codec.curves[0]
    np.testing.assert_allclose(whole.mean[:, 0] - codec.predictor.predict(part)[:, 0], curve.moved(own), atol=1e-12)
    assert isinstance(part, Given) and np.ptp(curve.widened(own)) > 0.2


def test_curves_are_saved_with_the_codec(rainy, tmp_path):
    made, _, codec, _ = rainy
    save_codec(tmp_path / "codec.nc", codec, Shell.of(made.target), Shell.of(made.given))
    again = load_codec(tmp_path / "codec.nc")[0]
    np.testing.assert_array_equal(drawn(rainy, again), drawn(rainy, codec))
    assert list(again.curves) == [0]


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "interpolated"])
def test_what_is_never_given_says_nothing_of_the_law(nested):
    """Blocks of which nothing is given are not taken for dry ones: their cells have no part in the curves."""
    ds = drizzle()
    coarse = ds.coarsen(y=4, x=4).mean()
    axis = lambda n: np.arange(n) + 0.5  # noqa: E731
    ds = ds.assign_coords(y=axis(12), x=axis(16))
    coarse = coarse.assign_coords(y=4 * axis(3), x=4 * axis(4))
    if not nested:
        coarse = coarse.assign_coords(y=4.1 * axis(3), x=4.1 * axis(4))
    coarse = coarse.where(coarse.x > 8)
    made = Downscale().pair(open_fields(ds), open_fields(coarse))
    codec, _ = fit_codec(made.target, made.given, np.arange(240), factor=made.factor, covariates={})
    given = made.given.read(np.arange(2)).astype(np.float64)
    part = codec.predictors(given, {}, 2)[0]
    own = codec.own(part, 0)
    assert (made.factor is not None) == nested and np.isnan(own[:, :, :6]).all() and np.isfinite(own[:, :, 10:]).all()
    moved = codec.predict(part).mean - codec.predictor.predict(part)
    assert (moved[:, 0, :, :6] == 0).all() and np.abs(moved[:, 0, :, 10:]).max() > 0.01
