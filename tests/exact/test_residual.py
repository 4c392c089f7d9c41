"""A density of residuals of a linear predictor, and the estimator that left-out rows choose."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from undrift.distributions.estimators import Choice, Fitting, chosen, density_from_arrays, fit_density
from undrift.distributions.mixture import Mixture
from undrift.distributions.point_flow import PointFlow
from undrift.distributions.residual import Residual, fit_predictor
from undrift.infer.gaussian_mixture import GaussianMixture

SLOPE, NOISE = np.array([[1.0, -0.5], [0.3, 2.0]]), np.array([[0.5, 0.0], [0.2, 0.1]])


def pairs(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    given = rng.standard_normal((n, 2))
    return given @ SLOPE.T + rng.standard_normal((n, 2)) @ NOISE.T, given


def white():
    """A mixture of joint laws whose conditional, whatever is given, is the standard normal one."""
    return Mixture(GaussianMixture.standard(4), 2)


def test_the_density_of_residuals_is_that_of_the_points(agrees):
    """y = B g + L r of white r has the law N(B g, L L^T)."""
    law, (y, given) = Residual(white(), SLOPE, NOISE), pairs(20)
    exact = [multivariate_normal(SLOPE @ g, NOISE @ NOISE.T).logpdf(v) for v, g in zip(y, given, strict=True)]
    agrees(Residual, "log p(y | g)", "scipy's normal law", law.log_prob(y, given)[0], exact, 1e-10)
    slope = [-np.linalg.solve(NOISE @ NOISE.T, v - SLOPE @ g) for v, g in zip(y, given, strict=True)]
    np.testing.assert_allclose(law.score(y, given), slope, rtol=1e-9, atol=1e-9)


def test_draws_have_the_residuals_law():
    law, given = Residual(white(), SLOPE, NOISE), np.tile([[1.0, 2.0]], (20_000, 1))
    y = law.draw(np.random.default_rng(0).standard_normal((len(given), law.numbers)), given)
    error = np.sqrt(np.diag(NOISE @ NOISE.T) / len(y))
    assert (np.abs(y.mean(0) - SLOPE @ [1.0, 2.0]) < 4 * error).all()
    np.testing.assert_allclose(np.cov(y.T), NOISE @ NOISE.T, atol=0.01)


def test_the_predictor_is_that_of_weighted_least_squares(agrees):
    """Rows of weight w are w rows."""
    y, given = pairs(300)
    weights = np.random.default_rng(1).integers(0, 4, len(y))
    many = np.repeat(np.arange(len(y)), weights)
    x, rows = given[many], y[many]
    slope = np.linalg.solve(x.T @ x, x.T @ rows).T
    left = rows - x @ slope.T
    found, factor = fit_predictor(y, weights.astype(float), given)
    agrees(fit_predictor, "B", "the normal equations of repeated rows", found, slope, 1e-8)
    np.testing.assert_allclose(factor @ factor.T, left.T @ left / len(rows), rtol=1e-6, atol=1e-9)


def test_left_out_rows_choose_the_estimator():
    """Of two narrow Gaussians a mixture is likelier than a network of five steps; what is chosen is read again."""
    y, given = pairs(1000)
    y[::3, 0] += 5
    out = np.arange(len(y)) % 10 < 2
    choice = chosen("auto", len(y), 2, 2, None)
    name, found, how = fit_density(choice, y, np.ones(len(y)), given, out, Fitting(steps=5))
    scores = how["left-out log likelihood"]
    assert choice.estimator == "auto"
    assert name == "mixture"
    assert scores["mixture"] > scores["diffusion"] + 0.5
    judges = np.flatnonzero(out)[1::2]
    broad = multivariate_normal(np.zeros(2), 4 * np.eye(2)).pdf(y[judges])
    exact = np.log(0.99 * np.exp(found.log_prob(y[judges], given[judges])[0]) + 0.01 * broad).mean()
    assert scores["mixture"] == pytest.approx(exact, abs=1e-9)
    assert how["lead of the mixture"]["nats"] == pytest.approx(scores["mixture"] - scores["diffusion"], abs=1e-9)


def test_of_many_rows_a_mixture_must_lead_by_two_errors():
    """The same two densities and judges: the mixture is taken alone where it leads by more errors than it must."""
    y, given = pairs(1000)
    y[::3, 0] += 5
    out, taken = np.arange(len(y)) % 10 < 2, {}
    for lead in (0.0, 1e6):
        choice = Choice("auto", 128, "", lead)
        taken[lead], _, how = fit_density(choice, y, np.ones(len(y)), given, out, Fitting(steps=5))
    assert taken == {0.0: "mixture", 1e6: "stacked"}
    assert 5 * how["lead of the mixture"]["standard error"] < how["lead of the mixture"]["nats"]
    assert chosen("auto", 4_999, 2, 0, None).lead == 0
    assert chosen("auto", 5_000, 2, 0, None).lead == 2
    assert "likelier by 2 standard errors" in chosen("auto", 5_000, 2, 0, None).reason


def test_a_network_without_a_log_density_is_not_taken(monkeypatch):
    y, given = pairs(1000)
    log_prob = PointFlow.log_prob
    monkeypatch.setattr(PointFlow, "log_prob", lambda *a: tuple(np.nan * part for part in log_prob(*a)))
    out = np.arange(len(y)) % 10 < 2
    name, _, _ = fit_density(Choice("auto", 128, "", 2.0), y, np.ones(len(y)), given, out, Fitting(steps=5))
    assert name == "mixture"


def test_a_networks_density_is_of_residuals():
    """Little trained, it is already the normal law about the linear predictor."""
    y, given = pairs()
    nothing = np.zeros(len(y), bool)
    name, found, _ = fit_density(Choice("nsf", 32, ""), y, np.ones(len(y)), given, nothing, Fitting(steps=1))
    exact = [multivariate_normal(SLOPE @ g, NOISE @ NOISE.T).logpdf(v) for v, g in zip(y, given, strict=True)]
    assert name == "nsf"
    assert isinstance(found, Residual)
    again = density_from_arrays(name, found.to_arrays())
    np.testing.assert_allclose(again.log_prob(y[:5], given[:5])[0], found.log_prob(y[:5], given[:5])[0], rtol=1e-6)
    assert np.mean(exact - found.log_prob(y, given)[0]) < 0.1
