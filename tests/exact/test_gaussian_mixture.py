"""Mixtures of Gaussians against scipy's densities and closed forms."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from undrift.distributions.mixture import Mixture, fit_mixture
from undrift.infer.gaussian_mixture import GaussianMixture, climb, effective_size, fit_gaussians


def example(dimensions=3, components=3, seed=0):
    rng = np.random.default_rng(seed)
    factors = np.tril(0.4 * rng.standard_normal((components, dimensions, dimensions)))
    factors[:, np.arange(dimensions), np.arange(dimensions)] = rng.uniform(0.4, 1.2, (components, dimensions))
    return GaussianMixture(
        np.array([0.5, 0.3, 0.2][:components]), 3 * rng.standard_normal((components, dimensions)), factors
    )


def densities(mixture, y):
    laws = zip(mixture.weights, mixture.means, mixture.factors, strict=True)
    return np.stack([w * multivariate_normal(m, f @ f.T).pdf(y) for w, m, f in laws], axis=1)


def points(n, dimensions=3, seed=1):
    return 3 * np.random.default_rng(seed).standard_normal((n, dimensions))


def test_the_density_is_scipys(agrees):
    mixture, y = example(), points(200)
    expected = np.log(densities(mixture, y).sum(axis=1))
    agrees(GaussianMixture, "log-density", "scipy's multivariate normal", mixture.log_prob(y), expected, 1e-10)
    value, error = Mixture(mixture).log_prob(y)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    assert not error.any()


def test_the_score_is_the_gradient(agrees):
    mixture, y, step = example(), points(20), 1e-5
    slope = np.stack(
        [(mixture.log_prob(y + step * e) - mixture.log_prob(y - step * e)) / (2 * step) for e in np.eye(3)], axis=1
    )
    agrees(GaussianMixture, "score", "differences of the log-density", mixture.score(y), slope, 1e-6, 1e-6)


def test_draws_have_the_moments_of_the_mixture(measured):
    mixture, n = example(), 40_000
    y = mixture.draw(np.random.default_rng(2).standard_normal((n, 4)))
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    covariance = np.einsum("k,kij->ij", mixture.weights, mixture.factors @ mixture.factors.transpose(0, 2, 1))
    covariance += np.einsum("k,ki,kj->ij", mixture.weights, away, away)
    z = (y.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / n)
    measured(GaussianMixture, "mean of draws, in standard errors", "closed form", "below 4", np.abs(z).max(), most=4)
    products = (y - mean)[:, :, None] * (y - mean)[:, None, :]
    z = (products.mean(axis=0) - covariance) / (products.std(axis=0) / np.sqrt(n))
    measured(GaussianMixture, "covariance of draws, in errors", "closed form", "below 4", np.abs(z).max(), most=4)


def test_a_conditional_is_the_joint_over_the_marginal():
    joint, given = example(), np.array([[0.7]])
    law = Mixture(joint, covariates=1)
    grid = np.linspace(-15, 15, 301)
    y = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(law.log_prob(y, np.repeat(given, len(y), axis=0))[0]) * (grid[1] - grid[0]) ** 2
    assert p.sum() == pytest.approx(1, abs=1e-6)
    n = 20_000
    drawn = law.draw(np.random.default_rng(3).standard_normal((n, law.numbers)), np.repeat(given, n, axis=0))
    mean = p @ y
    covariance = (y - mean).T @ ((y - mean) * p[:, None])
    assert np.abs((drawn.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / n)).max() < 4
    products = (drawn - mean)[:, 0] * (drawn - mean)[:, 1]
    assert abs(products.mean() - covariance[0, 1]) < 4 * products.std() / np.sqrt(n)


def test_a_row_of_draws_depends_on_its_own_numbers_alone():
    law, z = Mixture(example(), covariates=1), np.random.default_rng(4).standard_normal((6, 3))
    given = points(6, 1)
    np.testing.assert_array_equal(law.draw(z, given)[3:4], law.draw(z[3:4], given[3:4]))


def test_no_iteration_lowers_the_likelihood(measured):
    mixture = example()
    y = mixture.draw(np.random.default_rng(5).standard_normal((3000, 4)))
    w = np.random.default_rng(6).uniform(0.2, 2, len(y))
    history = []
    found = fit_gaussians(y, w, 5, rng=np.random.default_rng(7), tolerance=1e-9, history=history)
    assert len(history) > 20
    gains = np.diff(history)
    measured(fit_gaussians, "largest loss of an iteration in nats", "none", "0", max(0, -gains.min()), most=1e-9)
    # The last one told is that of the mixture returned, by the density's own code.
    assert history[-1] == pytest.approx(w @ found.log_prob(y) / w.sum(), abs=1e-5)
    again = w @ np.log(densities(mixture, y).sum(axis=1)) / w.sum()
    assert history[-1] > again - 1e-3  # as good as the law that made the points


def test_a_weight_of_two_is_a_row_twice(agrees):
    y = example().draw(np.random.default_rng(8).standard_normal((600, 4)))
    w = np.random.default_rng(9).integers(0, 4, len(y)).astype(float)
    start = fit_gaussians(y, np.ones(len(y)), 3, rng=np.random.default_rng(10), steps=3)
    weighted = fit_gaussians(y, w, 3, start=start, steps=8)
    rows = np.repeat(y, w.astype(int), axis=0)
    repeated = fit_gaussians(rows, np.ones(len(rows)), 3, start=start, steps=8)
    for name, array in weighted.to_arrays().items():
        agrees(fit_gaussians, f"{name} of weighted rows", "rows repeated", array, getattr(repeated, name), 1e-6, 1e-8)


def test_one_component_is_the_weighted_mean_and_covariance():
    y, w = points(50), np.random.default_rng(11).uniform(0, 3, 50)
    found = fit_gaussians(y, w, 1, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.means[0], np.average(y, axis=0, weights=w), rtol=1e-9)
    np.testing.assert_allclose(found.factors[0] @ found.factors[0].T, np.cov(y.T, aweights=w, ddof=0), rtol=1e-6)


def test_left_out_points_choose_the_components(measured):
    mixture = GaussianMixture(
        np.array([0.6, 0.4]), np.array([[-3.0, 0], [3.0, 1]]), np.stack([np.eye(2), 0.3 * np.eye(2)])
    )
    rng = np.random.default_rng(12)
    y, fresh = (mixture.draw(rng.standard_normal((n, 3))) for n in (2000, 4000))
    found = climb(y[:1500], np.ones(1500), (y[1500:], np.ones(500)), rng=rng, begin=8)
    lost = mixture.log_prob(fresh) - found.log_prob(fresh)
    measured(climb, "nats lost to the law, two components", "the law itself", "below 0.01", lost.mean(), most=0.01)
    assert len(found.weights) == 2


def two(rng, n):
    """Points of two Gaussians, a quarter left out."""
    y = np.where(rng.random((n, 1)) < 0.5, -3.0, 3.0) + rng.standard_normal((n, 1))
    cut = 3 * n // 4
    return y[:cut], np.ones(cut), (y[cut:], np.ones(n - cut))


def test_components_are_taken_for_what_they_gain():
    """A second Gaussian of these gains about half a nat of left-out points, further ones nothing."""
    points = two(np.random.default_rng(15), 1200)
    rest = {"begin": 2, "most": 6}
    count = {g: len(climb(*points, rng=np.random.default_rng(0), gain=g, **rest).weights) for g in (-1, 0.004, 0.3, 2)}
    assert count == {-1: 6, 0.004: 2, 0.3: 2, 2: 1}


def test_the_chosen_mixture_is_polished_as_far_as_is_asked():
    """Where it has come to rest another iteration gains nothing; after one it still gains."""
    y, w, left = two(np.random.default_rng(16), 1200)
    every, ones = np.concatenate([y, left[0]]), np.ones(1200)
    gains = {}
    for steps, tolerance in ((1, 1e-4), (400, 1e-12)):
        rest = {"gain": -1.0, "most": 6, "begin": 6, "steps": 2, "polish": (steps, tolerance)}
        found, history = climb(y, w, left, rng=np.random.default_rng(0), **rest), []
        fit_gaussians(every, ones, len(found.weights), start=found, steps=2, tolerance=-1.0, history=history)
        gains[steps] = history[1] - history[0]
    assert gains[400] < 1e-6 and gains[1] > 1e-5


def test_time_ends_the_iterations_but_for_five():
    y, history = two(np.random.default_rng(17), 1200)[0], []
    rest = {"rng": np.random.default_rng(0), "tolerance": -1.0, "steps": 20}
    fit_gaussians(y, np.ones(len(y)), 3, seconds=0.0, history=history, **rest)
    assert len(history) == 5


def test_of_many_points_a_mixture_is_finer(monkeypatch):
    """12,000 points that are few or many: nearer to their law where they are many."""
    rng = np.random.default_rng(21)

    def bent(n):
        a = rng.standard_normal(n)
        return np.stack([a, a**2 / 2 + 0.5 * rng.standard_normal(n)], 1)

    y, fresh, found = bent(12_000), bent(4000), {}
    for many in (10_000, 100_000):
        monkeypatch.setattr("undrift.distributions.mixture._MANY", many)
        law = fit_mixture(y, np.ones(len(y)), None, left_out=np.arange(len(y)) % 10 == 0, seconds=20.0)
        found[many] = len(law.joint.weights), law.log_prob(fresh)[0].mean()
    assert found[10_000][0] > found[100_000][0] and found[10_000][1] > found[100_000][1] + 0.002


def test_an_estimator_learns_a_conditional_law():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((4000, 1))
    y = 2 * x + 0.5 * rng.standard_normal((4000, 1))
    law = fit_mixture(y, np.ones(4000), x, left_out=np.arange(4000) >= 3000)
    at = np.linspace(-1, 1, 9)[:, None]
    value, _ = law.log_prob(2 * at + 0.3, at)
    np.testing.assert_allclose(value, -0.5 * 0.36 - np.log(0.5) - 0.5 * np.log(2 * np.pi), atol=0.1)
    np.testing.assert_allclose(law.score(2 * at + 0.3, at), -0.3 / 0.25, rtol=0.15)
    kept = Mixture.from_arrays(law.to_arrays())
    np.testing.assert_array_equal(kept.log_prob(y[:5], x[:5])[0], law.log_prob(y[:5], x[:5])[0])


def test_the_effective_size_is_kishs(measured):
    measured(
        effective_size,
        "of weights 1, 1, 2",
        "(1 + 1 + 2)^2 / (1 + 1 + 4)",
        16 / 6,
        effective_size(np.array([1.0, 1, 2])),
        within=1e-12,
    )
