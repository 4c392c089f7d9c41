"""The codec: exact where cells are known, random only where a point mass leaves the latent open."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from undrift.data.censored import _below, expected
from undrift.data.codec_file import Shell, load_codec, save_codec
from undrift.data.codec_fit import fit_codec
from undrift.data.open import open_fields
from undrift.errors import CheckpointError
from undrift.tasks import Downscale


def rain(n=60, shape=(8, 12), seed=0):
    """Censored smooth fields, with a mask, gaps and a temperature beside."""
    rng = np.random.default_rng(seed)
    slow = np.kron(rng.normal(size=(n, 2, 3)), np.ones((4, 4)))
    latent = slow + 0.7 * rng.normal(size=(n, *shape))
    pr = np.maximum(latent + 0.3, 0) ** 3 * 1e-5
    tas = 280 + 3 * slow + rng.normal(size=(n, *shape))
    tas[:, 0, :2] = np.nan
    tas[rng.random(tas.shape) < 0.02] = np.nan
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
        "y": np.arange(8.0),
        "x": np.arange(12.0),
    }
    return xr.Dataset(
        {"pr": (("time", "y", "x"), pr.astype(np.float32), {"units": "kg m-2 s-1"}), "tas": (("time", "y", "x"), tas.astype(np.float32), {"units": "K"})},
        coords,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    pair = Downscale(4).pair(open_fields(rain()))
    rows = np.arange(48)
    codec, fold = fit_codec(
        pair.target, pair.given, rows, factor=pair.factor, covariates={}, transforms={"pr": "censored"}
    )
    return pair, rows, codec, fold


def encode(fitted, rows, **options):
    pair, _, codec, _ = fitted
    return codec.encode(pair.target, pair.given, rows, covariates={}, **options)


@pytest.mark.parametrize("out_of_fold", [False, True])
def test_decode_is_the_inverse_of_encode(fitted, out_of_fold):
    pair, rows, codec, fold = fitted
    some = rows[::7]
    which = fold[::7] if out_of_fold else None
    encoded, prediction = encode(fitted, some, fold=which, draw=np.random.default_rng(0))
    got, truth = codec.decode(encoded.x, prediction), pair.target.read(some)
    known = np.isfinite(truth)
    np.testing.assert_allclose(got[known], truth[known], rtol=2e-5, atol=1e-11)
    assert (truth[:, 0] == 0).mean() > 0.2
    np.testing.assert_array_equal(got[:, 0] == 0, truth[:, 0] == 0)  # dry stays exactly dry
    # masked cells count, as zeros
    np.testing.assert_array_equal(encoded.weight == 1, known | np.broadcast_to(codec.mask, known.shape))
    assert not encoded.x[~known].any()
    assert (encoded.x[~known] == 0).all()


def test_windows_are_slices(fitted):
    _, rows, _, fold = fitted
    window = (slice(2, 6), slice(3, 9))
    whole, prediction = encode(fitted, rows[:5], fold=fold[:5])
    part, cut = encode(fitted, rows[:5], fold=fold[:5], window=window)
    at = (slice(None), slice(None), *window)
    np.testing.assert_allclose(part.x, whole.x[at], atol=1e-5)
    np.testing.assert_allclose(cut.mean, prediction.mean[at], atol=1e-9)
    np.testing.assert_allclose(cut.std, prediction.std[at], atol=1e-9)
    for name in whole.fields:
        np.testing.assert_allclose(part.fields[name], whole.fields[name][at], atol=1e-5)


def test_masks_are_nan_again_and_gaps_are_filled(fitted):
    pair, rows, codec, _ = fitted
    encoded, prediction = encode(fitted, rows[:4])
    got = np.isnan(codec.decode(np.zeros_like(encoded.x), prediction))
    expected = np.zeros((2, 8, 12), dtype=bool)
    expected[1, 0, :2] = True
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))
    assert np.isnan(pair.target.read(rows)).sum() > expected.sum() * len(rows)


def test_residuals_have_unit_scale_out_of_fold(fitted):
    _, rows, _, fold = fitted
    x, weight = (lambda e: (e.x, e.weight))(encode(fitted, rows, fold=fold, draw=np.random.default_rng(1))[0])
    for channel in range(2):
        known = x[:, channel][weight[:, channel] == 1]
        assert known.std() == pytest.approx(1, abs=0.06)
        assert abs(known.mean()) < 0.1
    inside = encode(fitted, rows, draw=np.random.default_rng(1))[0]
    assert inside.x[:, 1][inside.weight[:, 1] == 1].std() < x[:, 1][weight[:, 1] == 1].std()


def test_dry_cells_are_drawn_from_the_normal_law_below_the_threshold(fitted):
    """Uniform after the map through the law N(prediction, std^2) cut at the threshold."""
    pair, rows, codec, fold = fitted
    encoded, prediction = encode(fitted, rows, fold=fold, draw=np.random.default_rng(2))
    dry = pair.target.read(rows)[:, 0] == 0
    low = codec.transforms[0].thresholds[0]
    bound = (low - prediction.mean[:, 0]) / prediction.std[:, 0]
    u = stats.norm.cdf(encoded.x[:, 0][dry]) / stats.norm.cdf(bound[dry])
    assert (u <= 1 + 1e-5).all()
    assert stats.kstest(np.clip(u, 0, 1), "uniform").pvalue > 1e-4
    again = encode(fitted, rows, fold=fold, draw=np.random.default_rng(3))[0].x[:, 0]
    assert not np.allclose(again[dry], encoded.x[:, 0][dry])
    np.testing.assert_array_equal(again[~dry], encoded.x[:, 0][~dry])


@pytest.mark.parametrize("std", [0.3, 1.0])
@pytest.mark.parametrize("mean", [-1.5, 0.0, 2.0])
def test_conditional_moments_below_a_threshold(mean, std):
    law = stats.truncnorm(-np.inf, (0.4 - mean) / std, mean, std)
    m, v = _below(np.array(0.4), np.array(mean), np.array(std))
    assert float(m) == pytest.approx(law.mean(), rel=1e-6, abs=1e-6) and float(v) == pytest.approx(law.var(), rel=1e-5)
    above = stats.truncnorm((0.4 - mean) / std, np.inf, mean, std)
    u = np.full((1, 1, 1), np.inf)
    e, v = expected(u, np.full(1, mean), np.full(1, std), np.full(1, -9.0), np.full(1, 0.4))
    assert float(e[0, 0, 0]) == pytest.approx(above.mean(), rel=1e-6) and float(v[0, 0, 0]) == pytest.approx(
        above.var(), rel=1e-5
    )


def test_what_is_given_alone_is_enough_to_predict(fitted):
    pair, rows, codec, _ = fitted
    raw = pair.given.read(rows[:3]).astype(np.float64)
    alone, prediction = codec.encode(None, None, np.arange(3), covariates={}, offered=raw)
    both, expected = encode(fitted, rows[:3])
    assert alone.x is None and alone.weight is None
    np.testing.assert_allclose(prediction.mean, expected.mean, atol=1e-9)
    assert list(alone.fields) == list(both.fields)
    for name in set(both.fields) - {"target known"}:
        np.testing.assert_array_equal(alone.fields[name], both.fields[name])


def test_values_outside_the_training_range(fitted):
    pair, rows, codec, _ = fitted
    raw = pair.given.read(rows).astype(np.float64)
    assert (codec.given.outside(raw) == 0).all()
    raw[:, 1] += 100
    np.testing.assert_array_equal(codec.given.outside(raw), [0.0, 1.0])


def test_file_round_trip_is_bitwise(fitted, tmp_path):
    pair, rows, codec, fold = fitted
    save_codec(tmp_path / "codec.nc", codec, Shell.of(pair.target), Shell.of(pair.given))
    again, shell, given_shell = load_codec(tmp_path / "codec.nc")
    for name, value in codec.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value, err_msg=name)
    assert (
        again.transforms == codec.transforms
        and again.layout == codec.layout
        and again.given_layout == codec.given_layout
    )
    for which in (None, fold[:6]):
        a, p = codec.encode(pair.target, pair.given, rows[:6], covariates={}, fold=which, draw=np.random.default_rng(0))
        b, q = again.encode(pair.target, pair.given, rows[:6], covariates={}, fold=which, draw=np.random.default_rng(0))
        np.testing.assert_array_equal(b.x, a.x)
        np.testing.assert_array_equal(q.mean, p.mean)
        np.testing.assert_array_equal(q.std, p.std)
    np.testing.assert_array_equal(again.decode(a.x, p), codec.decode(a.x, p))
    np.testing.assert_array_equal(shell.coords.x, rain().x)
    assert shell.variable_attrs["tas"]["units"] == "K" and given_shell is not None
    (tmp_path / "broken.nc").write_bytes((tmp_path / "codec.nc").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(tmp_path / "broken.nc")


def test_cells_that_are_missing_now_and_then_are_marked_and_all_are_known_when_drawing(fitted):
    pair, rows, codec, _ = fitted
    assert codec.patchy  # two per cent of tas are
    encoded, _ = encode(fitted, rows[:5])
    missing = np.isnan(pair.target.read(rows[:5])) & ~codec.mask
    assert 0 < missing.sum() < 100
    np.testing.assert_array_equal(encoded.fields["target known"] == 0, missing)
    drawn, _ = codec.encode(None, pair.given, rows[:5], covariates={})
    assert (drawn.fields["target known"] == 1).all()
    # a mask that never changes tells nothing
    whole = open_fields(rain().assign(tas=rain().tas.fillna(280.0)))
    pair = Downscale(4).pair(whole)
    plain, _ = fit_codec(pair.target, pair.given, rows, factor=pair.factor, covariates={})
    assert not plain.patchy
    assert "target known" not in plain.encode(None, pair.given, rows[:2], covariates={})[0].fields


def test_the_network_sees_the_prediction_without_the_level_of_what_is_given(fitted):
    """Of unbounded variables; a warmer climate has a level that training never had. Rain keeps its own."""
    pair, _, codec, _ = fitted
    rows = np.array([3, 20])
    encoded, prediction = encode(fitted, rows)
    base = codec.predictors(pair.given.read(rows).astype(np.float64), {}, 2)[0].base
    standard, level = ((v - codec.mean) / codec.std for v in (prediction.mean, base))
    np.testing.assert_allclose(encoded.fields["linear"][:, 0], standard[:, 0], rtol=1e-5, atol=1e-5)
    expected = standard[:, 1] - level[:, 1].mean((1, 2), keepdims=True)
    assert np.abs(level[:, 1].mean((1, 2))).max() > 0.1
    np.testing.assert_allclose(encoded.fields["linear"][:, 1], expected, rtol=1e-5, atol=1e-5)


def test_the_network_sees_where_fields_depart_from_what_is_given_and_by_how_much():
    """Coasts and mountains: the mean of a cell beside its coarse one, and the scale of what is left over."""
    rng = np.random.default_rng(0)
    hill, rough = rng.normal(size=(8, 12)), np.exp(0.5 * rng.normal(size=(8, 12)))
    slow = np.kron(rng.normal(size=(400, 2, 3)), np.ones((4, 4)))
    values = 5 * hill + 3 * slow + rough * rng.normal(size=(400, 8, 12))
    coords = {"time": np.arange(400), "y": np.arange(8.0), "x": np.arange(12.0)}
    data = xr.Dataset({"t": (("time", "y", "x"), values.astype(np.float32), {"units": "K"})}, coords)
    pair = Downscale(4).pair(open_fields(data))
    codec, _ = fit_codec(pair.target, pair.given, np.arange(400), factor=pair.factor, covariates={})
    departure, scale = codec.static[-2:]
    usual = (codec.mean - codec.given.mean)[0]
    np.testing.assert_allclose(departure, (usual - usual.mean()) / usual.std(), atol=1e-5)
    for field, truth in ((departure, usual), (scale, np.log(codec.scale[0]))):
        assert abs(field.mean()) < 1e-5 and field.std() == pytest.approx(1, abs=1e-5)
        assert np.corrcoef(field.ravel(), truth.ravel())[0, 1] > 0.9999
    coarse = hill.reshape(2, 4, 3, 4).mean((1, 3)).repeat(4, 0).repeat(4, 1)
    assert np.corrcoef(departure.ravel(), (hill - coarse).ravel())[0, 1] > 0.75
    assert np.corrcoef(scale.ravel(), np.log(rough).ravel())[0, 1] > 0.9
