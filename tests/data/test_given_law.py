"""The law of what is given: missing values are drawn from the exact conditional Gaussian."""

import numpy as np
import pytest

from undrift.data.given_law import GivenLaw


@pytest.fixture(scope="module")
def law():
    rng = np.random.default_rng(0)
    modes = np.linalg.qr(rng.normal(size=(9, 3)))[0].T
    return GivenLaw(modes, np.array([6.0, 2.0, 0.7]), 0.3)


def conditional(law, z):
    """Mean and covariance of the missing part by the textbook formula."""
    covariance = law.modes.T @ np.diag(law.variances) @ law.modes + law.floor * np.eye(z.size)
    known = np.isfinite(z)
    kk, mk, mm = (covariance[np.ix_(a, b)] for a, b in ((known, known), (~known, known), (~known, ~known)))
    gain = mk @ np.linalg.inv(kk) if known.any() else np.zeros((z.size, 0))
    return gain @ z[known], mm - gain @ mk.T


@pytest.mark.parametrize("missing", [[0], [1, 4, 7], list(range(9))])
def test_draws_have_the_conditional_mean_and_covariance(law, missing):
    z = np.random.default_rng(1).normal(size=9)
    z[missing] = np.nan
    mean, covariance = conditional(law, z)
    np.testing.assert_allclose(law.fill(z, None)[missing], mean, atol=1e-12)
    rng, count = np.random.default_rng(2), 12_000
    draws = np.stack([law.fill(z, rng) for _ in range(count)])
    np.testing.assert_array_equal(
        draws[:, np.isfinite(z)], np.broadcast_to(z[np.isfinite(z)], (count, 9 - len(missing)))
    )
    got = draws[:, missing]
    error = np.sqrt(np.diag(covariance) / count)
    assert (np.abs(got.mean(0) - mean) < 4.5 * error).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / np.sqrt(count)
    assert (np.abs(np.cov(got.T).reshape(covariance.shape) - covariance) < 4.5 * scale).all()


def test_the_fit_finds_modes_variances_and_floor(law):
    rng, n = np.random.default_rng(3), 20_000
    z = rng.normal(size=(n, 3)) * np.sqrt(law.variances) @ law.modes + np.sqrt(law.floor) * rng.normal(size=(n, 9))
    got = GivenLaw.fit(z)
    assert len(got.modes) == 4  # half the numbers; the fourth is noise
    covariance = got.modes.T @ np.diag(got.variances) @ got.modes + got.floor * np.eye(9)
    truth = law.modes.T @ np.diag(law.variances) @ law.modes + law.floor * np.eye(9)
    scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)) + truth**2) / np.sqrt(n)
    assert (np.abs(covariance - truth) < 4.5 * scale + 0.02 * law.floor).all()
