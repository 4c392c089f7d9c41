"""Densities of weighted points: against closed forms, sums by hand and integrals over grids."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from carried import carried_back
from undrift.distributions.estimators import Choice, Fitting, fit_density
from undrift.distributions.kernel_density import KernelDensity, fit_kernel_density
from undrift.distributions.mixture import fit_mixture
from undrift.distributions.point_flow import fit_point_flow
from undrift.distributions.points import condition_of, validation_of
from undrift.distributions.spline_flow import fit_spline_flow
from undrift.train.settings import Settings

N = 2000


def bent(n=N, seed=0):
    """y_1 about half of y_0 squared: no Gaussian."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    x[:, 1] = (x[:, 0] ** 2 - 1) / 2 + 0.5 * x[:, 1]
    return x


def some_out(n=N):
    return np.arange(n) % 10 == 0


def settings(steps):
    return Settings(steps=steps, learning_rate=3e-3, weight_decay=0.0, ema=0.1)


@pytest.fixture(scope="module")
def learned():
    """Little trained: what a density has to be for any network."""
    y, ones, out = bent(), np.ones(N), some_out()
    found = {
        "mixture": fit_mixture(y, ones, None, left_out=out),
        "kde": fit_kernel_density(y, ones, None, left_out=out),
        "nsf": fit_spline_flow(y, ones, None, left_out=out, settings=settings(40))[0],
    }
    for kind in ("diffusion", "flow-matching"):
        rest = {"left_out": out, "settings": settings(40), "width": 32, "layers": 2}
        found[kind] = fit_point_flow(kind, y, ones, None, **rest)[0]
    return found


KINDS = ["mixture", "kde", "nsf", "diffusion", "flow-matching"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_integrates_to_one(learned, kind):
    """The trapezoidal rule, which is exact to rounding for what is smooth and has decayed at the ends."""
    side = np.linspace(-7, 7, 141 if kind == "nsf" else 71)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    value, error = learned[kind].log_prob(grid)
    total = np.exp(value).sum() * (side[1] - side[0]) ** 2
    assert total == pytest.approx(1, abs=0.01)
    assert (error >= 0).all() and np.isfinite(error).all()


def test_the_density_of_a_flow_is_that_of_its_velocity_all_the_way_to_the_points(learned, measured):
    """The learned velocity integrated from t = 0 in double precision, where the quick way begins a little later."""
    law, y = learned["flow-matching"], bent(100, seed=5)
    value, error = law.log_prob(y)
    x, divergence = carried_back(law, y, 50)
    expected = norm.logpdf(x).sum(1) + divergence
    away = np.abs(value - expected)
    assert error.max() < 1e-3 and np.median(away / error) > 0.1
    against = "Runge-Kutta of the velocity from t = 0"
    measured(
        fit_point_flow, "share within 2 estimates of the error", against, "≥ 0.9", (away <= 2 * error).mean(), least=0.9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_density(learned, kind):
    """The mean log-density of draws is that of the grid, minus the entropy, within four standard errors."""
    law = learned[kind]
    z = np.random.default_rng(1).standard_normal((1500, law.numbers))
    value, _ = law.log_prob(law.draw(z))
    side = np.linspace(-7, 7, 71)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    on_grid, _ = law.log_prob(grid)
    mass = np.exp(on_grid) * (side[1] - side[0]) ** 2
    kept = mass > 0
    mean, second = (mass[kept] * on_grid[kept] ** k @ np.ones(kept.sum()) for k in (1, 2))
    assert value.mean() == pytest.approx(mean, abs=4 * np.sqrt((second - mean**2) / len(z)) + 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_of_its_own_row_alone(learned, kind):
    law = learned[kind]
    z = np.random.default_rng(2).standard_normal((7, law.numbers))
    np.testing.assert_allclose(law.draw(z)[3:5], law.draw(z[3:5]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_gradient(learned, kind):
    """Central differences, of half the step that a flow takes."""
    law, step = learned[kind], 5e-3
    y = bent(20, seed=3)
    found = law.score(y)
    for i in range(2):
        away = step * np.eye(2)[i]
        slope = (law.log_prob(y + away)[0] - law.log_prob(y - away)[0]) / (2 * step)
        np.testing.assert_allclose(found[:, i], slope, atol=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_is_its_arrays(learned, kind):
    law = learned[kind]
    again = type(law).from_arrays({k: np.array(v) for k, v in law.to_arrays().items()})
    y = bent(5, seed=4)
    np.testing.assert_array_equal(again.log_prob(y)[0], law.log_prob(y)[0])
    z = np.random.default_rng(5).standard_normal((4, law.numbers))
    np.testing.assert_array_equal(again.draw(z), law.draw(z))


def test_a_kernel_density_is_the_sum_over_its_centres():
    rng = np.random.default_rng(6)
    centres, share, h = rng.normal(size=(50, 3)), rng.random(50), 0.4
    share /= share.sum()
    law, y = KernelDensity(centres, share, h), rng.normal(size=(9, 3))
    by_hand = [logsumexp(multivariate_normal.logpdf(centres, point, h**2 * np.eye(3)), b=share) for point in y]
    np.testing.assert_allclose(law.log_prob(y)[0], by_hand, rtol=1e-6)
    z = rng.standard_normal((40_000, 4))
    drawn = law.draw(z)
    assert np.abs(drawn.mean(0) - share @ centres).max() < 4 * drawn.std(0).max() / 200
    expected = share @ centres**2 - (share @ centres) ** 2 + h**2
    np.testing.assert_allclose(drawn.var(0), expected, rtol=4 * np.sqrt(3 / 40_000))


@pytest.mark.parametrize("kind", ["mixture", "kde", "nsf", "flow-matching"])
def test_weights_are_how_often_a_point_counts(kind):
    """Points of N(0, 1) with weights that make them N(1/2, 1): exp(x / 2 - 1/8)."""
    rng = np.random.default_rng(7)
    y = rng.standard_normal((4000, 1))
    weights, out = np.exp(y[:, 0] / 2), some_out(4000)
    if kind == "mixture":
        law = fit_mixture(y, weights, None, left_out=out)
    elif kind == "kde":
        law = fit_kernel_density(y, weights, None, left_out=out)
    elif kind == "nsf":
        law, _ = fit_spline_flow(y, weights, None, left_out=out, settings=settings(100))
    else:
        law, _ = fit_point_flow(kind, y, weights, None, left_out=out, settings=settings(300), width=32, layers=2)
    drawn = law.draw(rng.standard_normal((4000, law.numbers)))
    assert drawn.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", ["mixture", "nsf", "flow-matching"])
def test_what_is_given_moves_the_density(kind):
    """y given x is N(x, 1/4): log-densities within a tenth of a nat of it."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((N, 1))
    y = x + 0.5 * rng.standard_normal((N, 1))
    ones, out = np.ones(N), some_out()
    if kind == "mixture":
        law = fit_mixture(y, ones, x, left_out=out)
    elif kind == "nsf":
        law, _ = fit_spline_flow(y, ones, x, left_out=out, settings=settings(150))
    else:
        law, _ = fit_point_flow(kind, y, ones, x, left_out=out, settings=settings(400), width=64, layers=2)
    at, told = np.array([[-0.8], [0.0], [0.9], [1.2]]), np.array([[-1.0], [0.1], [1.0], [0.7]])
    found, _ = law.log_prob(at, told)
    np.testing.assert_allclose(found, norm.logpdf(at, told, 0.5)[:, 0], atol=0.15)
    drawn = law.draw(rng.standard_normal((4000, law.numbers)), np.full((4000, 1), 1.0))
    assert drawn.mean() == pytest.approx(1, abs=0.1) and drawn.std() == pytest.approx(0.5, rel=0.1)


def test_the_budget_ends_the_choice_of_a_mixture():
    """Of N(0, 1) one Gaussian is chosen; without time the first number that is tried."""
    y, choice = np.random.default_rng(9).standard_normal((600, 1)), Choice("mixture", 0, "")
    found = [fit_density(choice, y, np.ones(600), None, some_out(600), Fitting(b))[2] for b in (None, 1e-6)]
    assert [one["components"] for one in found] == [1, 6]


def test_rows_that_choose_are_fitted_in_the_end():
    """Those left out, a tenth, lie alone at 9: kernels get all of their mass, a few steps of a mixture much of it."""
    y, out, ones = np.random.default_rng(10).standard_normal((1000, 1)), some_out(1000), np.ones(1000)
    y[out] += 9
    side = np.linspace(5, 20, 1501)[:, None]
    mass = [
        np.exp(fit(y, ones, None, left_out=out).log_prob(side)[0]).sum() * 0.01
        for fit in (fit_kernel_density, fit_mixture)
    ]
    assert mass[0] == pytest.approx(0.1, abs=0.005)
    assert 0.05 < mass[1] < 0.105


def test_a_kernel_density_is_given_nothing():
    with pytest.raises(ValueError, match="--estimator mixture"):
        fit_kernel_density(bent(), np.ones(N), bent(), left_out=some_out())


def test_a_training_validates_on_draws_by_weight_as_many_as_there_are_rows():
    """2,048 at least and 8,192 at most: the mean of rows 0, 1, ... of odds 0, 1, ... is (2n - 1) / 3."""
    for rows, drawn in ((100, 2048), (3000, 3072), (20_000, 8192)):
        x = torch.arange(rows).float()[:, None]
        found = torch.cat([b.x for b in validation_of(x, condition_of(None), torch.arange(rows).double(), seed=3)])
        assert len(found) == drawn
        assert found.min() > 0
        assert float(found.mean()) == pytest.approx((2 * rows - 1) / 3, abs=4 * rows / np.sqrt(18 * drawn))
    assert validation_of(x, condition_of(None), torch.zeros(rows), seed=3) is None
