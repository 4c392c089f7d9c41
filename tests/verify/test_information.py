"""Divergence and dimensionality of Gaussian posteriors in uniform and Gaussian priors, in closed form."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from undrift.errors import DataError
from undrift.verify.information import information

N = 40_000


@pytest.mark.parametrize("dims", [1, 4])
def test_a_gaussian_in_a_uniform_prior(dims):
    draws = np.random.default_rng(0).normal(0, 0.1, (N, dims))
    found = information(norm.logpdf(draws, 0, 0.1).sum(1) + dims * np.log(3.0))
    exact = dims * (np.log(3.0) - 0.5 * np.log(2 * np.pi * np.e * 0.01))
    assert found.divergence == pytest.approx(exact, abs=4.5 * found.divergence_error)
    assert found.dimensionality == pytest.approx(dims, abs=4.5 * found.dimensionality_error)
    # r is a constant less chi^2 / 2, and chi^2 of D has the variance 2 D and the fourth central moment 12 D (D + 4)
    fourth = 12 * dims * (dims + 4) / 16
    assert found.divergence_error == pytest.approx(np.sqrt(dims / 2 / N), rel=0.03)
    assert found.dimensionality_error == pytest.approx(2 * np.sqrt((fourth - dims**2 / 4) / N), rel=0.1)


def test_a_gaussian_in_a_gaussian_prior_of_weighted_draws():
    """N(m, S) in N(0, I): KL = (tr S + m.m - D - ln det S) / 2 and var r = tr (I - S)^2 / 2 + m.S m."""
    rng, mean = np.random.default_rng(1), np.array([1.0, -0.5])
    cov = np.array([[0.3, 0.1], [0.1, 0.2]])
    posterior, wide = multivariate_normal(mean, cov), multivariate_normal(mean, 1.5 * cov)
    draws = wide.rvs(N, random_state=rng)
    weights = np.exp(posterior.logpdf(draws) - wide.logpdf(draws))
    found = information(posterior.logpdf(draws) - multivariate_normal(np.zeros(2)).logpdf(draws), weights)
    exact = 0.5 * (np.trace(cov) + mean @ mean - 2 - np.log(np.linalg.det(cov)))
    variance = 0.5 * np.trace((np.eye(2) - cov) @ (np.eye(2) - cov)) + mean @ cov @ mean
    assert found.divergence == pytest.approx(exact, abs=4.5 * found.divergence_error)
    assert found.dimensionality == pytest.approx(2 * variance, abs=4.5 * found.dimensionality_error)
    assert found.divergence_error < 0.01 and found.dimensionality_error < 0.05


def test_rows_of_no_weight_count_nothing_and_zero_densities_are_refused():
    ratio = np.array([1.0, 2.0, -np.inf])
    assert information(ratio, [1, 3, 0]).divergence == 1.75
    with pytest.raises(DataError, match="1 of 3 rows have a log ratio that is not finite"):
        information(ratio)
