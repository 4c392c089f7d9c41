"""Shared errors: found from halves of folds, and drawn anew without a change of covariance."""

import numpy as np
import pytest

from undrift.train.shared_errors import SharedErrors

RNG = np.random.default_rng
FOLDS, EACH, SHAPE = 5, 60, (2, 6, 8)
FOLD = np.repeat(np.arange(FOLDS), EACH)
HALF = 2 * FOLD + np.tile(np.arange(EACH) * 2 // EACH, FOLDS)


def residuals(size=1.0, seed=0):
    """(x, error field of each fold)."""
    rng = RNG(seed)
    error = size * rng.normal(size=(FOLDS, *SHAPE))
    return rng.normal(size=(len(FOLD), *SHAPE)) + error[FOLD], error


def fit(x, weight=None):
    weight = np.ones_like(x) if weight is None else weight
    blocks = ((np.arange(i, min(i + 7, len(x))), x[i : i + 7], weight[i : i + 7]) for i in range(0, len(x), 7))
    return SharedErrors.fit(blocks, HALF)


def error_of(shared):
    return shared.share * shared.mean


def test_error_fields_of_folds_are_found():
    x, error = residuals()
    got = error_of(fit(x))
    # a mean of 60 unit draws has standard error 0.13; the shrinkage is n / (n + 1) on average
    assert np.sqrt(((got - error) ** 2).mean()) < 1.2 / np.sqrt(EACH)
    assert (got * error).sum() / (error**2).sum() == pytest.approx(1, abs=0.03)


def test_means_of_noise_alone_are_taken_for_noise():
    got = error_of(fit(residuals(size=0.0)[0]))
    assert (got**2).mean() < 0.1 / EACH


def test_missing_cells_do_not_count():
    x, error = residuals()
    weight = (RNG(1).random(x.shape) < 0.7).astype(float)
    x = np.where(weight, x, 1e6)
    got = error_of(fit(x, weight))
    assert np.sqrt(((got - error) ** 2).mean()) < 1.2 / np.sqrt(0.7 * EACH)


@pytest.mark.parametrize("size", [1.0, 0.15])  # errors well above, and as large as, what weather leaves in a mean
def test_the_exchange_keeps_the_covariance_and_hides_the_fold(size):
    x, _ = residuals(size)
    shared = fit(x)
    assert (shared.share < 0.8).all() == (size < 1)
    weight = np.ones_like(x)
    rounds = [shared.exchange(x, weight, FOLD, None, RNG(10 + i)) for i in range(400)]
    mean = np.mean(rounds, 0)
    left = np.stack([mean[k == FOLD].mean(0) for k in range(FOLDS)])
    np.testing.assert_allclose(left, (1 - shared.share) * shared.mean, atol=5 * np.abs(shared.mean).max() / 20)
    new, old = np.concatenate(rounds).reshape(-1, x[0].size), x.reshape(len(x), -1)
    difference = new.T @ new / len(new) - old.T @ old / len(old)
    # drawn anew 400 x 300 times: what is left is chance
    assert np.linalg.norm(difference) < 0.02 * np.linalg.norm(old.T @ old / len(old))
    assert np.trace(difference) == pytest.approx(0, abs=0.005 * (old**2).sum() / len(old))


def test_windows_and_weights():
    x, _ = residuals()
    shared = fit(x)
    weight = np.ones_like(x)
    weight[:, :, 0] = 0
    whole = shared.exchange(x, weight, FOLD, None, RNG(3))
    window = (slice(2, 5), slice(1, 8))
    cut = (slice(None), slice(None), *window)
    np.testing.assert_allclose(shared.exchange(x[cut], weight[cut], FOLD, window, RNG(3)), whole[cut], atol=1e-6)
    np.testing.assert_array_equal(whole[:, :, 0], x[:, :, 0])
