"""Calibration of exact Gaussian posteriors: the true one passes, and one of a wrong width has its closed-form curve."""

import numpy as np
import pytest
from scipy import integrate, stats

from undrift.errors import DataError, UsageError
from undrift.verify.c2st import c2st
from undrift.verify.calibration import coverage, coverage_band, posterior_ranks, tarp_places, tarp_ranks, uniformity

L = 99


def posteriors(n, factor=1.0, draws=L, dims=3, noise=0.7, seed=0):
    """theta ~ N(0, 1), x = theta + noise N(0, 1): the mean and draws of p(theta | x), its width divided by a factor."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, dims))
    x = truth + noise * rng.normal(size=(n, dims))
    variance = 1 / (1 + noise**-2)
    mean = variance * x / noise**2
    return truth, mean, mean[:, None] + np.sqrt(variance) / factor * rng.normal(size=(n, draws, dims))


def rank_law(factor, draws):
    """(L + 1,) probability of each rank where the posterior is too narrow: binomial given the truth's standing."""
    z = np.linspace(-7, 7, 401)
    w, p = stats.norm.pdf(z), stats.norm.cdf(factor * z)
    return np.array([w @ stats.binom.pmf(k, draws, p) for k in range(draws + 1)]) / w.sum()


def test_the_true_posterior_passes():
    truth, _, draws = posteriors(1000)
    rank = posterior_ranks(truth, draws)
    assert rank.shape == truth.shape and rank.min() >= 0 and rank.max() <= L
    for column in rank.T:
        test = uniformity(column, L)
        assert min(test.chi_square_p, test.distance_p) > 1e-3 and len(test.counts) == 50
        assert test.chi_square_p == pytest.approx(stats.chisquare(test.counts).pvalue)
    test = uniformity(tarp_ranks(truth, draws), L)
    assert min(test.chi_square_p, test.distance_p) > 1e-3


@pytest.mark.parametrize("factor", [1.5, 0.7])
def test_ranks_under_a_wrong_width_have_their_closed_form(factor):
    truth, _, draws = posteriors(2000, factor, draws=19)
    rank = posterior_ranks(truth, draws)
    law = rank_law(factor, 19)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    for column in rank.T:
        counts = np.bincount(column, minlength=20)
        assert stats.chisquare(counts, 2000 * law).pvalue > 1e-3
        assert uniformity(column, 19).chi_square_p < 1e-6 and uniformity(column, 19).distance_p < 1e-3


def test_coverage_under_a_wrong_width_is_the_closed_form():
    """From the posterior's own mean, |theta - mean|^2 is chi-square in both laws, times the square of the factor."""
    n, factor = 3000, 1.4
    truth, mean, draws = posteriors(n, factor)
    levels, covered = coverage(tarp_ranks(truth, draws, mean), L)
    np.testing.assert_array_equal(levels, np.arange(L + 2) / (L + 1))
    # P(rank < k): the truth is nearer than the k-th nearest draw, whose level is a Beta(k, L + 1 - k) number
    expected = [
        integrate.quad(
            lambda a, k=k: stats.chi2.cdf(stats.chi2.ppf(a, 3) / factor**2, 3) * stats.beta.pdf(a, k, L + 1 - k), 0, 1,
            points=[k / (L + 1)],
        )[0]
        for k in (10, 50, 90)
    ]  # fmt: skip
    error = np.sqrt(np.array(expected) * (1 - np.array(expected)) / n)
    assert (np.abs(covered[[10, 50, 90]] - expected) < 4 * error).all()
    assert (levels[[10, 50, 90]] - expected > 5 * error).all()
    exact = coverage(tarp_ranks(*posteriors(n)[::2], posteriors(n)[1]), L)[1]
    assert np.abs(exact - levels).max() < 1.95 / np.sqrt(n)  # Kolmogorov's distance at p = 0.001


def test_random_places_see_a_posterior_that_ignores_the_data():
    """The prior as posterior passes the ranks of single parameters, and places that depend on the data find it out."""
    rng = np.random.default_rng(0)
    truth, mean, _ = posteriors(1500)
    prior = rng.normal(size=(1500, L, 3))
    assert uniformity(posterior_ranks(truth, prior)[:, 0], L).distance_p > 1e-3
    assert uniformity(tarp_ranks(truth, prior, mean), L).distance_p < 1e-6


def test_distances_are_in_the_spread_of_each_parameter():
    truth, mean, draws = posteriors(50)
    scale = np.array([1.0, 1e3, 1e-4])
    np.testing.assert_array_equal(
        tarp_ranks(truth * scale, draws * scale, mean * scale), tarp_ranks(truth, draws, mean)
    )
    np.testing.assert_array_equal(tarp_ranks(truth * scale, draws * scale), tarp_ranks(truth, draws))
    by_hand = [
        (np.linalg.norm((d - m) / truth.std(0), axis=1) < np.linalg.norm((t - m) / truth.std(0))).sum()
        for t, m, d in zip(truth, mean, draws, strict=True)
    ]
    np.testing.assert_array_equal(tarp_ranks(truth, draws, mean), by_hand)
    places = tarp_places(truth, seed=3)
    assert (places >= truth.min(0)).all() and (places <= truth.max(0)).all()
    assert stats.kstest(tarp_places(np.array([[0.0], [1.0]] * 400))[:, 0], "uniform").pvalue > 1e-3


def test_ties_of_whole_numbers_leave_ranks_uniform():
    """Counts of a Poisson law with few values: without random ties the ranks would pile up."""
    rng = np.random.default_rng(1)
    truth, draws = rng.poisson(1.0, (2000, 1)), rng.poisson(1.0, (2000, 9, 1))
    test = uniformity(posterior_ranks(truth, draws)[:, 0], 9)
    assert test.chi_square_p > 1e-3 and test.distance_p > 1e-3


def test_the_tests_have_uniform_p_values_for_few_draws():
    """Of 400 sets of 60 uniform ranks among 4 draws, 5 % are below 0.05; a test that ignores ties has far fewer."""
    rng = np.random.default_rng(2)
    sets = rng.integers(0, 5, (400, 60))
    p = np.array([[t.distance_p, t.chi_square_p] for t in (uniformity(s, 4, seed=i) for i, s in enumerate(sets))])
    assert stats.kstest(p[:, 0], "uniform").pvalue > 1e-3
    assert abs((p[:, 1] < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)


def test_bins_that_do_not_divide_the_ranks_expect_what_they_hold():
    test = uniformity(np.repeat(np.arange(11), 3), 10, bins=4)
    np.testing.assert_allclose(test.expected, test.counts)
    assert test.chi_square == pytest.approx(0, abs=1e-12) and test.expected.sum() == 33


def test_the_band_holds_binomial_coverage():
    low, high = coverage_band(np.array([0.0, 0.3, 1.0]), 200)
    np.testing.assert_allclose(low, [0, stats.binom.ppf(0.025, 200, 0.3) / 200, 1])
    assert high[0] == 0 and high[2] == 1
    inside = stats.binom.cdf(high[1] * 200, 200, 0.3) - stats.binom.cdf(low[1] * 200 - 1, 200, 0.3)
    assert 0.95 <= inside < 0.97


def test_shapes_that_do_not_match_are_said():
    truth, _, draws = posteriors(5)
    with pytest.raises(DataError, match=r"shapes \(5, 3\) and \(5, 99\), expected"):
        posterior_ranks(truth, draws[..., 0])
    with pytest.raises(DataError, match="NaN"):
        posterior_ranks(truth * np.nan, draws)
    with pytest.raises(DataError, match=r"places have shape \(2, 3\)"):
        tarp_ranks(truth, draws, truth[:2])
    with pytest.raises(DataError, match="ranks are 0 to 7, expected 0 to the number of draws, 5"):
        coverage(np.array([0, 7]), 5)
    with pytest.raises(UsageError, match="bins is 12, expected 2 to 10"):
        uniformity(np.array([0, 7]), 9, bins=12)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_c2st_is_the_composition_that_sbibm_defines():
    from sklearn.model_selection import KFold
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 2, size=(20, 1)), rng.normal(8, 2, size=(20, 1))
    found = c2st(x, y)
    rows = np.concatenate([(v - x.mean(0)) / x.std(0, ddof=1) for v in (x, y)])
    label = np.repeat([0, 1], 20)
    train, test = list(KFold(5, shuffle=True, random_state=1).split(rows))[1]
    network = MLPClassifier((10, 10), activation="relu", max_iter=1000, solver="adam", random_state=1)
    assert found.folds[1] == (network.fit(rows[train], label[train]).predict(rows[test]) == label[test]).mean()
    assert found.accuracy == found.folds.mean() and 0.5 < found.accuracy < 1
    assert found.error == pytest.approx(1.5 * np.sqrt(found.accuracy * (1 - found.accuracy) / 40))


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_c2st_reaches_the_best_accuracy_of_two_gaussians(shift):
    """Of N(0, 1) and N(d, 1) no classifier has more than Phi(d / 2); a network of these units comes near."""
    rng = np.random.default_rng(3)
    found = c2st(rng.normal(size=(400, 1)), rng.normal(shift, 1, size=(400, 1)))
    assert abs(found.accuracy - stats.norm.cdf(shift / 2)) < 3 * found.error < 0.09


def test_c2st_needs_samples_alike():
    with pytest.raises(DataError, match=r"shapes \(10, 2\) and \(12, 2\)"):
        c2st(np.zeros((10, 2)), np.zeros((12, 2)))
    with pytest.raises(DataError, match="column 1 of the first sample is constant"):
        c2st(np.random.default_rng(0).normal(size=(10, 2)) * [1, 0], np.zeros((10, 2)))
