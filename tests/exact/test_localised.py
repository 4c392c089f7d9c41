"""Localised covariances: the taper against its definition as a convolution, and what it does for a short record."""

import numpy as np
import pytest
from scipy.integrate import quad

from undrift.denoise.guess import fit_guess
from undrift.denoise.localised import gaspari_cohn, leading, tapers

RNG = np.random.default_rng


def test_the_taper_is_a_hat_convolved_with_itself(agrees):
    """In three dims, by Fourier transforms of radial functions: that of 1 - r within 1, squared, and back."""

    def wave(k):
        return 4 * np.pi * (2 - 2 * np.cos(k) - k * np.sin(k)) / k**4

    def convolved(z):
        return quad(lambda k: wave(k) ** 2 * k**2 * np.sinc(k * z / np.pi), 1e-3, 300, limit=2000)[0]

    distances = np.array([0.2, 0.5, 0.9, 1.0, 1.3, 1.8])
    expected = np.array([convolved(z) for z in distances]) / convolved(0.0)
    agrees(gaspari_cohn, "taper", "convolution of hats", gaspari_cohn(distances), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gaspari_cohn(np.array([0.0, 2.0, 2.5, 99.0])), [1, 0, 0, 0])


def test_tapers_of_cells_around_an_axis_that_is_closed(agrees):
    found = tapers((3, 8), (False, True), 2.5)
    expected = np.empty((24, 24))
    for i in range(24):
        for j in range(24):
            along = abs(i % 8 - j % 8)
            expected[i, j] = gaspari_cohn(np.array(np.hypot(i // 8 - j // 8, min(along, 8 - along)) / 2.5))
    agrees(tapers, "between cells", "each pair by itself", found, expected, rtol=1e-6, atol=1e-7)


def test_leading_components_of_a_tapered_covariance(agrees, measured):
    fields = RNG(0).normal(size=(30, 48)) @ np.diag(np.repeat([3.0, 1.0], 24))
    taper = tapers((4, 6), (False, False), 2.0)
    values, vectors = leading(fields, 6, taper)
    dense = (fields.T @ fields / 30) * np.tile(taper, (2, 2))
    agrees(leading, "eigenvalues", "numpy's eigh", values, np.linalg.eigvalsh(dense)[:-7:-1], rtol=1e-5)
    away = np.abs(dense @ vectors.T - vectors.T * values).max() / values[0]
    measured(leading, "A v - v lambda over the largest lambda", "dense matrix", 0, away, within=1e-3)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-6)


def waves(n, length, seed=0, space=(8, 10)):
    """Fields whose correlation falls as exp(-d^2 / 2 length^2), their covariance, and five folds."""
    y, x = np.divmod(np.arange(np.prod(space)), space[1])
    square = np.subtract.outer(y, y) ** 2 + np.subtract.outer(x, x) ** 2
    c = 4 * np.exp(-square / (2 * length**2)) + 0.05 * np.eye(len(y))
    return RNG(seed).multivariate_normal(np.zeros(len(c)), c, size=n, method="cholesky"), c, np.arange(n) * 5 // n


def posterior_off(guess, c, r=0.5):
    """Mean squared error of the guess's denoising over the least there is, less 1; in numpy."""
    u, v, floor = guess.modes.double().numpy(), guess.variances.numpy(), float(guess.floor)
    found = floor * np.eye(len(c)) + (u.T * (v - floor)) @ u
    noise = r**2 * np.eye(len(c))

    def error(gain):
        return np.trace((np.eye(len(c)) - gain) @ c @ (np.eye(len(c)) - gain).T + gain @ noise @ gain.T)

    return error(found @ np.linalg.inv(found + noise)) / error(c @ np.linalg.inv(c + noise)) - 1


def test_a_short_record_is_localised(measured):
    """The guess of 40 fields with short correlations loses less than half of what principal components lose."""
    fields, c, fold = waves(40, 1.5)
    plain, local = fit_guess(fields, fold)[0], fit_guess(fields, fold, (8, 10))
    assert 2 < local[2]["half_width"] < 8 and local[2]["loss"] < fit_guess(fields, fold)[2]["loss"]
    share = posterior_off(local[0], c) / posterior_off(plain, c)
    measured(fit_guess, "excess error, localised", "that of principal components", "≤ 0.5", share, most=0.5)


def test_folds_of_a_localised_guess_have_not_seen_themselves():
    fields, _, fold = waves(40, 1.5)
    changed = fields.copy()
    changed[fold == 2] *= RNG(1).normal(size=(8, 1))
    both = [fit_guess(f, fold, (8, 10)) for f in (fields, changed)]
    assert both[0][2]["half_width"] == both[1][2]["half_width"] > 0
    kept = min(b[2]["modes"] for b in both)
    first, second = (b[1].of(2).modes[:kept] for b in both)
    assert (first - second).abs().max() == 0


def test_patterns_over_the_whole_domain_are_left_as_they_are():
    pattern = RNG(2).normal(size=(2, 80))
    fields = RNG(3).normal(size=(200, 2)) @ pattern + 0.1 * RNG(4).normal(size=(200, 80))
    guess, _, facts = fit_guess(fields, np.arange(200) // 40, (8, 10))
    assert facts["half_width"] == 0
    without = fit_guess(fields, np.arange(200) // 40)[0]
    assert np.array_equal(guess.modes, without.modes)


@pytest.mark.parametrize("periodic", [None, (False, True)])
def test_channels_share_a_taper(periodic):
    """Two channels that are the same but for a factor: so are their parts of each component."""
    fields, _, fold = waves(40, 1.5)
    guess, _, facts = fit_guess(np.concatenate([fields, 2 * fields], 1), fold, (8, 10), periodic)
    assert facts["half_width"] > 0
    modes = guess.modes[:8].reshape(8, 2, 80)
    np.testing.assert_allclose(modes[:, 1], 2 * modes[:, 0], atol=2e-3)
