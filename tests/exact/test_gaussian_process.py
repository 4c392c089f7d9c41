"""A Gaussian process of log-densities: against the laws they are of, scikit-learn's predictions and differences."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from undrift.distributions.gaussian_process import GaussianProcess, fit_gaussian_process
from undrift.distributions.kernel_density import fit_kernel_density

COVARIANCE = np.array([[1.0, 0.5], [0.5, 0.8]])
LAWS = ["Gaussian", "bent"]


def points(law, n, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 2))
    return z @ np.linalg.cholesky(COVARIANCE).T if law == "Gaussian" else bent(z)


def bent(z):
    return np.stack([z[:, 0], (z[:, 0] ** 2 - 1) / 2 + 0.5 * z[:, 1]], 1)


def log_p(law, y):
    if law == "Gaussian":
        return multivariate_normal.logpdf(y, np.zeros(2), COVARIANCE)
    return norm.logpdf(y[:, 0]) + norm.logpdf(y[:, 1], (y[:, 0] ** 2 - 1) / 2, 0.5)


@pytest.fixture(scope="module")
def learned():
    """Of 200 points, with log-densities up to 7 nats."""
    out = np.arange(200) % 10 == 0
    rows = {law: points(law, 200) for law in LAWS}
    return {
        law: fit_gaussian_process(y, np.ones(200), None, log_density=log_p(law, y) + 7, left_out=out)
        for law, y in rows.items()
    }


@pytest.mark.parametrize("law", LAWS)
def test_the_density_is_that_of_the_values_and_normalised(learned, law):
    """Within three of its errors in the root mean square, and these are small."""
    y = points(law, 2000, seed=1)
    value, error = learned[law].log_prob(y)
    gap = value - log_p(law, y)
    assert np.sqrt(np.mean((gap / error) ** 2)) < 3
    assert np.median(error) < 0.02 and np.sqrt(np.mean(gap**2)) < 0.03
    assert learned[law].log_normaliser == pytest.approx(7, abs=4 * learned[law].normaliser_error)


def test_it_is_far_nearer_than_a_kernel_density_of_the_same_points(learned):
    y, fresh = points("bent", 200), points("bent", 2000, seed=1)
    kde = fit_kernel_density(y, np.ones(200), None, left_out=np.arange(200) % 10 == 0)
    exact = log_p("bent", fresh)
    divergence = [(exact - one.log_prob(fresh)[0]).mean() for one in (learned["bent"], kde)]
    assert divergence[1] > 0.1 and abs(divergence[0]) < 0.05 * divergence[1]


@pytest.mark.parametrize("law", LAWS)
def test_draws_have_the_moments_of_the_law(learned, law):
    process, n = learned[law], 4000
    drawn = process.draw(np.random.default_rng(2).standard_normal((n, process.numbers)))
    far = points(law, 100_000, seed=3)
    for power in (1, 2):
        gap = (drawn**power).mean(0) - (far**power).mean(0)
        assert (np.abs(gap) < 4.5 * (far**power).std(0) * np.sqrt(1 / n + 1e-5)).all()


def test_a_draw_is_of_its_own_row_alone(learned):
    z = np.random.default_rng(4).standard_normal((9, learned["bent"].numbers))
    np.testing.assert_allclose(learned["bent"].draw(z)[3:6], learned["bent"].draw(z[3:6]), atol=1e-10)


@pytest.mark.parametrize("law", LAWS)
def test_the_score_is_the_gradient(learned, law):
    y, step = points(law, 30, seed=5), 1e-3
    found = learned[law].score(y)
    for i, away in enumerate(step * np.eye(2)):
        slope = (learned[law].log_prob(y + away)[0] - learned[law].log_prob(y - away)[0]) / (2 * step)
        np.testing.assert_allclose(found[:, i], slope, atol=1e-3)


def test_the_process_is_that_of_scikit_learn(learned):
    """Mean and standard deviation of its own prediction, its kernel and points given."""
    one = learned["bent"]
    kernel = ConstantKernel(one.variance) * RBF(one.lengths) + WhiteKernel(one.noise)
    left = (log_p("bent", one.points) + 7 + (one.points**2).sum(1) / 2 - one.centre) / one.scale
    oracle = GaussianProcessRegressor(kernel, optimizer=None).fit(one.points, left)
    y = np.concatenate([points("bent", 40, seed=6), [[4.0, -3.0], [-5.0, 5.0]]])
    mean, deviation = oracle.predict(y, return_std=True)
    value = one.log_prob(y)[0] + one.log_normaliser + (y**2).sum(1) / 2 - one.centre
    np.testing.assert_allclose(value, one.scale * mean, atol=1e-4)
    np.testing.assert_allclose(one.deviation(y), one.inflation * one.scale * deviation, rtol=0.02, atol=5e-5)


def test_it_is_its_arrays_exactly(learned):
    one = learned["bent"]
    again = GaussianProcess.from_arrays({k: np.array(v) for k, v in one.to_arrays().items()})
    y, z = points("bent", 20, seed=7), np.random.default_rng(8).standard_normal((6, one.numbers))
    np.testing.assert_array_equal(again.log_prob(y), one.log_prob(y))
    np.testing.assert_array_equal(again.draw(z), one.draw(z))
    assert again.numbers == one.numbers


def test_it_falls_off_where_no_point_is(learned):
    """Far out it is the quadratic, with an error that is the process's own deviation."""
    one, far = learned["bent"], np.array([[0.0, 5e3], [1e200, 0.0]])
    value, error = one.log_prob(far)
    expected = one.centre - 5e3**2 / 2 - one.log_normaliser
    assert value[0] == pytest.approx(expected) and np.isneginf(value[1])
    prior = one.inflation * one.scale * np.sqrt(one.variance + one.noise)
    np.testing.assert_allclose(error, np.hypot(prior, one.normaliser_error), rtol=1e-6)


def test_weights_choose_the_points_and_not_the_density():
    """Draws twice as wide as N(0, 1), weighted or not, have the density of their values; 1,000 points are learned."""
    y = 2 * np.random.default_rng(9).standard_normal((1500, 1))
    values, out = norm.logpdf(y[:, 0]), np.arange(1500) % 10 == 0
    weights = np.exp(values - norm.logpdf(y[:, 0], 0, 2))
    for w in (weights, np.ones(1500)):
        one = fit_gaussian_process(y, w, None, log_density=values, left_out=out)
        assert len(one.points) == 1000
        np.testing.assert_allclose(one.log_prob(np.array([[0.0], [1.5]]))[0], norm.logpdf([0, 1.5]), atol=0.01)


def test_what_it_cannot_learn_is_refused():
    y, ones, out = points("bent", 50), np.ones(50), np.zeros(50, bool)
    with pytest.raises(ValueError, match="--estimator mixture"):
        fit_gaussian_process(y, ones, y, log_density=ones, left_out=out)
    with pytest.raises(ValueError, match="learns log-densities"):
        fit_gaussian_process(y, ones, None, log_density=None, left_out=out)
    with pytest.raises(ValueError, match="expected at least 4"):
        fit_gaussian_process(y, ones, None, log_density=np.where(np.arange(50) < 3, 0.0, -np.inf), left_out=out)
