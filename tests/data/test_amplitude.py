"""The amplitude: its weights against known ones, its features against hand-made fields, its use in the codec."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from undrift.data.amplitude import Activity, _loss, choose_weights, curvature, log_amplitude
from undrift.data.codec_fit import fit_codec
from undrift.data.open import open_fields
from undrift.tasks import Downscale

RNG = np.random.default_rng
FOLD = np.repeat(np.arange(5), 4000)


def drawn(weights, seed=0):
    """Features and squares of Gaussian residuals whose variance they give."""
    rng = RNG(seed)
    features = rng.normal(size=(len(FOLD), 3))
    return features, np.exp(features @ np.asarray(weights)) * rng.normal(size=len(FOLD)) ** 2


@pytest.mark.parametrize("true", [(0.6, 0.0, 0.0), (0.6, 0.5, 0.0), (0.6, 0.5, -0.2)])
def test_known_weights_come_back_within_their_standard_errors(true):
    features, square = drawn(true)
    got = choose_weights(features, square, FOLD)
    # Fisher information of log variance is 1/2 a sample, so a weight of a unit feature has variance 2 / N
    error = np.sqrt(2 / len(FOLD))
    np.testing.assert_allclose(got, true, atol=4 * error)
    assert (got[np.array(true) == 0] == 0).all() or true[1] != 0


def test_what_folds_do_not_ask_for_has_weight_zero():
    features, square = drawn((0, 0, 0))
    np.testing.assert_array_equal(choose_weights(features, square, FOLD), 0)


def test_a_feature_that_helps_in_no_other_fold_is_left_out():
    rng = RNG(1)
    features = np.zeros((len(FOLD), 3))
    features[:, 2] = rng.normal(size=5)[FOLD]  # one value a fold: its slope is learned from noise between folds
    square = np.exp(rng.normal(size=5)[FOLD]) * rng.normal(size=len(FOLD)) ** 2
    np.testing.assert_array_equal(choose_weights(features, square, FOLD), 0)


def test_the_loss_is_the_gaussian_log_likelihood_and_its_gradient_agrees():
    features, square = drawn((0.3, 0, 0))
    design = np.concatenate([np.ones((len(square), 1)), features], 1)
    weights = np.array([0.1, 0.4, -0.2, 0.3])
    loss, gradient = _loss(weights, design, square)
    std = np.exp(0.5 * design @ weights)
    expected = -stats.norm(0, std).logpdf(np.sqrt(square)).mean() - 0.5 * np.log(2 * np.pi)
    assert loss == pytest.approx(expected, rel=1e-12)
    for i in range(4):
        step = 1e-6 * np.eye(4)[i]
        slope = (_loss(weights + step, design, square)[0] - _loss(weights - step, design, square)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)


def test_curvature_is_the_sum_of_second_differences():
    y, x = np.meshgrid(np.arange(6.0), np.arange(8.0), indexing="ij")
    inner = curvature((y**2 + 3 * x**2)[None, None], (False, False))[0, 0, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, 2 + 6)
    wave = np.cos(2 * np.pi * np.arange(8) / 8)[None, None]
    np.testing.assert_allclose(curvature(wave, (True,)), 2 * (np.cos(2 * np.pi / 8) - 1) * wave, atol=1e-14)


def test_activity_of_a_field_is_in_units_of_its_mean_and_local_where_it_is():
    rng = RNG(2)
    coarse = rng.normal(size=(40, 2, 12, 16))
    mean = (curvature(coarse, (True, True)) ** 2).mean((0, 2, 3))
    activity = Activity([1, None], (True, True), lambda v: np.repeat(np.repeat(v, 4, 2), 4, 3), mean)
    whole, near = activity(coarse)
    doubled, same = activity(2 * coarse)
    np.testing.assert_allclose(doubled - whole, np.log(4), rtol=1e-5)
    np.testing.assert_allclose(np.exp(whole).mean(0), 1, atol=0.02)
    assert np.median(np.abs(same - near)) < 0.04  # but for the floor that keeps calm cells from -inf
    calm = coarse.copy()
    calm[:, :, :, :8] = 0
    _, near = activity(calm)
    assert near[:, 0, :, 36:60].mean() > near[:, 0, :, 4:28].mean() + 2


def test_log_amplitude_is_linear_inside_its_bounds():
    rng = RNG(3)
    whole, near, level = rng.normal(size=(4, 2)), rng.normal(size=(4, 2, 5)), rng.normal(size=(4, 2, 5))
    weights = np.array([[0.5, 0.2, 0.1], [0.0, 0.0, -0.3]])
    got = log_amplitude(weights, whole, near, level)
    np.testing.assert_allclose(got[:, 0], 0.5 * whole[:, :1] + 0.2 * near[:, 0] + 0.1 * level[:, 0])
    np.testing.assert_allclose(got[:, 1], -0.3 * level[:, 1])
    far = log_amplitude(weights, 1e6 * whole, near, level)
    assert np.abs(far).max() == pytest.approx(np.log(16))


def lively(n=200, shape=(16, 24), seed=0):
    """Fields whose unresolved part follows the activity of what is resolved: (fields, amplitude of each sample)."""
    rng = RNG(seed)
    size = np.exp(0.5 * rng.normal(size=n))
    coarse = size[:, None, None] * rng.normal(size=(n, shape[0] // 4, shape[1] // 4))
    small = size[:, None, None] * rng.normal(size=(n, *shape))
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
        "y": np.arange(float(shape[0])),
        "x": np.arange(float(shape[1])),
    }
    values = 280 + 3 * np.kron(coarse, np.ones((4, 4))) + small
    return xr.Dataset({"tas": (("time", "y", "x"), values.astype(np.float32), {"units": "K"})}, coords), size


def test_the_codec_finds_which_samples_are_lively_and_its_residuals_are_not():
    data, size = lively()
    pair = Downscale(4).pair(open_fields(data))
    rows = np.arange(160)
    codec, fold = fit_codec(pair.target, pair.given, rows, factor=pair.factor, covariates={})
    assert codec.amplitude[0, 0] > 0.5
    held = np.arange(160, 200)
    encoded, predicted = codec.encode(pair.target, pair.given, held, covariates={})
    log_std = np.log(predicted.std.reshape(40, -1).mean(1))
    # 24 coarse cells tell the size up to noise, which draws the slope below 1
    slope, _ = np.polyfit(np.log(size[held]), log_std, 1)
    assert 0.6 < slope < 1.05
    assert np.corrcoef(np.log(size[held]), log_std)[0, 1] > 0.9
    power = (encoded.x**2).mean((1, 2, 3))
    assert np.log(power).var() < 0.2 * (2 * np.log(size[held])).var()
    raw = pair.target.read(held)
    np.testing.assert_allclose(codec.decode(encoded.x, predicted), raw, rtol=1e-6)
    # out of fold, the mean square of residuals is one: the scale was fitted beside the amplitude
    train, _ = codec.encode(pair.target, pair.given, rows, covariates={}, fold=fold)
    assert (train.x**2).mean() == pytest.approx(1, abs=0.02)
