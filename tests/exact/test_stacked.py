"""Densities beside each other, with the shares that make unseen rows likeliest."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal, norm

from undrift.distributions import estimators
from undrift.distributions.estimators import Choice, Fitting, density_from_arrays, fit_density
from undrift.distributions.mixture import Mixture
from undrift.distributions.stacked import Stacked, shares_of
from undrift.infer.gaussian_mixture import GaussianMixture

SHARES = {"b": 0.3, "a": 0.7}
NARROW, WIDE = multivariate_normal([-2.0, 1.0], [0.5, 1.5]), multivariate_normal([3.0, 0.0], [[2.0, 0.8], [0.8, 1.0]])


def gaussian(law):
    return Mixture(GaussianMixture(np.ones(1), law.mean[None], np.linalg.cholesky(law.cov)[None]))


@pytest.fixture
def law():
    return Stacked({"b": gaussian(NARROW), "a": gaussian(WIDE)}, SHARES)


class WithError(Mixture):
    """Its own error of a log-density."""

    def log_prob(self, y, given=None):
        value, _ = super().log_prob(y, given)
        return value, np.full(len(y), 0.01)


def test_the_density_and_its_score_are_those_of_the_sum(law, agrees):
    y = np.random.default_rng(0).normal(size=(200, 2)) * 3
    exact = np.log(0.3 * NARROW.pdf(y) + 0.7 * WIDE.pdf(y))
    agrees(Stacked.log_prob, "log p", "scipy's Gaussians", law.log_prob(y)[0], exact, 1e-12, 1e-12)
    h = 1e-5
    slope = [(law.log_prob(y + h * e)[0] - law.log_prob(y - h * e)[0]) / (2 * h) for e in np.eye(2)]
    agrees(Stacked.score, "grad log p", "central differences", law.score(y), np.stack(slope, 1), 1e-6, 1e-8)


def test_the_error_is_that_of_the_parts_by_their_shares_at_a_point(law):
    doubted = Stacked({"b": WithError(law.parts["b"].joint), "a": law.parts["a"]}, SHARES)
    y = np.random.default_rng(1).normal(size=(50, 2)) * 2
    share = 0.3 * NARROW.pdf(y) / (0.3 * NARROW.pdf(y) + 0.7 * WIDE.pdf(y))
    np.testing.assert_allclose(doubted.log_prob(y)[1], 0.01 * share, rtol=1e-9)
    assert share.min() < 0.1 < 0.9 < share.max()


def test_draws_are_of_the_sum(law, measured):
    n = 40_000
    z = np.random.default_rng(2).standard_normal((n, law.numbers))
    drawn = law.draw(z)
    mean = 0.3 * NARROW.mean + 0.7 * WIDE.mean
    off = (drawn.mean(0) - mean) / (drawn.std(0) / np.sqrt(n))
    measured(Stacked.draw, "mean in standard errors", "0.3 m_1 + 0.7 m_2", "below 4", np.abs(off).max(), most=4)
    surprise = -law.log_prob(drawn)[0]
    fresh = np.concatenate([NARROW.rvs(12_000, random_state=3), WIDE.rvs(28_000, random_state=4)])
    other = -law.log_prob(fresh)[0]
    assert abs(surprise.mean() - other.mean()) < 4 * np.hypot(surprise.std(), other.std()) / np.sqrt(n)
    np.testing.assert_array_equal(drawn[5:9], law.draw(z[5:9]))  # each of its own row alone
    assert law.draw(z[:0]).shape == (0, 2)


def test_what_is_read_draws_the_same(law):
    again = Stacked.from_arrays(dict(reversed(law.to_arrays().items())), lambda name, held: Mixture.from_arrays(held))
    z, y = np.random.default_rng(5).standard_normal((100, law.numbers)), np.random.default_rng(6).normal(size=(20, 2))
    np.testing.assert_array_equal(again.draw(z), law.draw(z))
    np.testing.assert_array_equal(again.log_prob(y)[0], law.log_prob(y)[0])
    assert again.shares == law.shares


@pytest.mark.parametrize(("value", "error"), [(np.nan, np.nan), (np.nan, np.inf), (-np.inf, np.inf), (-np.inf, 0.0)])
def test_a_row_that_one_part_has_no_numbers_for_is_the_others(law, value, error):
    """Outside of it the part adds nothing; where its numbers end what it adds is not known, and the error says so."""

    class Blind(Mixture):
        def log_prob(self, y, given=None):
            return np.full(len(y), value), np.full(len(y), error)

    half, y = Stacked({"b": Blind(law.parts["b"].joint), "a": law.parts["a"]}, SHARES), np.zeros((1, 2))
    found, doubt = half.log_prob(y)
    assert found == pytest.approx(WIDE.logpdf(y[0]) + np.log(0.7)) and doubt == (0 if error == 0 else np.inf)
    none = Stacked({"b": Blind(law.parts["b"].joint)}, {"b": 1.0})
    assert none.log_prob(y)[0] == -np.inf and (none.log_prob(y)[1] == 0) == (error == 0)


def test_shares_make_weighted_rows_likeliest(agrees):
    """With one row more of each part, beside a search of the one number there is."""
    rng = np.random.default_rng(7)
    y, w = np.concatenate([rng.normal(0, 1, 300), rng.normal(3, 0.5, 100)]), rng.uniform(0.1, 2, 400)
    log_q = np.stack([norm(0, 1).logpdf(y), norm(3, 0.5).logpdf(y)], 1)
    rows = w.sum() ** 2 / (w**2).sum()

    def lost(a):
        likelihood = rows * w @ np.logaddexp(np.log(a) + log_q[:, 0], np.log1p(-a) + log_q[:, 1]) / w.sum()
        return -likelihood - np.log(a) - np.log1p(-a)

    best = minimize_scalar(lost, bounds=(0.01, 0.99), method="bounded", options={"xatol": 1e-9}).x
    agrees(shares_of, "share of the first", "a search", shares_of(log_q, w), np.array([best, 1 - best]), 1e-4)


def test_few_rows_leave_something_to_each(measured):
    """Of one row that only the first part explains the shares are those of Laplace's rule: 2/3 and 1/3."""
    found = shares_of(np.array([[0.0, -1e3]]), np.ones(1))
    measured(shares_of, "of one row", "Laplace's rule of succession", 2 / 3, found[0], within=1e-5)


def test_a_network_that_misses_is_stacked_with_the_mixture_that_does_not():
    """Little trained, of many rows: the diffusion has the smaller share, and what is kept is the same."""
    rng = np.random.default_rng(8)
    y = rng.normal(size=(1000, 2)) * 0.2
    y[::3, 0] += 2
    out = np.arange(len(y)) % 10 < 2
    name, found, how = fit_density(Choice("auto", 32, "", 1e6), y, np.ones(len(y)), None, out, Fitting(steps=5))
    assert name == "stacked" and isinstance(found, Stacked)
    assert how["shares"] == dict(found.shares)
    judges = np.flatnonzero(out)[1::2]
    parts = np.stack([found.parts[n].log_prob(y[judges])[0] for n in ("mixture", "diffusion")], 1)
    np.testing.assert_allclose(list(how["shares"].values()), shares_of(parts, np.ones(len(judges))), atol=0.02)
    assert how["shares"]["mixture"] > 0.9 and how["components"] >= 2 and how["steps"] == 5
    again = density_from_arrays(name, found.to_arrays())
    np.testing.assert_allclose(again.log_prob(y[:5])[0], found.log_prob(y[:5])[0], rtol=1e-6)
    z = rng.standard_normal((40, found.numbers))
    np.testing.assert_allclose(again.draw(z), found.draw(z), rtol=1e-5, atol=1e-6)


def test_a_law_of_many_gaussians_is_told_to_the_network_by_sinusoids(monkeypatch):
    """Of few numbers and nothing given; what is kept is the same."""
    y, out = np.random.default_rng(9).normal(size=(800, 2)), np.arange(800) % 10 < 2
    choice, ones = Choice("auto", 32, "", 1e6), np.ones(800)
    few = fit_density(choice, y, ones, None, out, Fitting(steps=3))[1]
    monkeypatch.setattr(estimators, "_MANY_GAUSSIANS", 1)
    _, many, how = fit_density(choice, y, ones, None, out, Fitting(steps=3))
    _, given, _ = fit_density(choice, y, ones, y[:, :1] + 1, out, Fitting(steps=3))
    _, wide, _ = fit_density(choice, np.hstack([y, y[::-1]]), ones, None, out, Fitting(steps=3))
    seen = [found.parts["diffusion"].net.sinusoids for found in (few, many, wide)]
    assert seen == [0, 3, 0] and given.parts["diffusion"].density.net.sinusoids == 0
    assert (how["sinusoids"], how["layers"], many.parts["diffusion"].net.sizes["layers"]) == (3, 3, 3)
    assert many.parts["diffusion"].net.waves.weight.abs().max() > 0  # learned
    again = density_from_arrays("stacked", many.to_arrays())
    np.testing.assert_allclose(again.log_prob(y[:9])[0], many.log_prob(y[:9])[0], rtol=1e-6)
