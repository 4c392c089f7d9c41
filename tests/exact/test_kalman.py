"""A denoiser moved by the gain of a Gaussian guess: the posterior of a Gaussian random field, in numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from guide_fields import (
    CELLS,
    COVARIANCE,
    CPU,
    OPERATORS,
    affine,
    each_level,
    each_operator,
    each_process,
    estimate,
    fields,
    noisy,
    posterior,
    prior,
    problem,
    tensor,
)

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.guess import GaussianGuess
from undrift.guide import MMPS, Function, Kalman, Observation, PiGDM
from undrift.process import EDM, RectifiedFlow

VARIANCES, MODES = np.linalg.eigh(COVARIANCE)


def guess_of(covariance_modes=CELLS):
    """The field's own covariance, the trailing modes as the floor; in float64."""
    kept = slice(None, -covariance_modes - 1, -1)
    floor = VARIANCES[:-covariance_modes].mean() if covariance_modes < CELLS else 1.0
    guess = GaussianGuess(tensor(MODES[:, kept].T.copy()), tensor(VARIANCES[kept].copy()), float(floor))
    guess.modes = tensor(MODES[:, kept].T.copy())
    return guess


@each_operator
@each_level
@each_process
def test_it_is_the_posterior_at_every_time(operator, std, process, agrees):
    matrix, observed, observation = problem(operator, std)
    guided = Kalman(prior(process), observation, guess_of())
    t, x_t = noisy(process)
    law = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
    expected = estimate(x_t, process.alpha(t).numpy(), process.sigma(t).numpy(), *law)
    against = "the denoiser of the posterior in numpy"
    found = guided(fields(x_t), t).x.flatten(1)
    agrees(Kalman, "x, five operators, two noise levels", against, found, expected, rtol=1e-6, atol=1e-6)


def test_where_x_t_is_pure_noise(agrees):
    """At alpha = 0 the estimate is the posterior's mean, whatever x_t."""
    matrix, observed, observation = problem(OPERATORS["points"], 0.1)
    t, x_t = noisy(RectifiedFlow(), (1.0, 0.5))
    mean, _ = posterior(matrix, observed, 0.01 * np.eye(len(matrix)))
    found = Kalman(prior(RectifiedFlow()), observation, guess_of())(fields(x_t), t)
    agrees(Kalman, "x where alpha is 0", "the posterior's mean", found.x[0].flatten(), mean, rtol=2e-6, atol=2e-6)


def test_draws_are_those_of_the_posterior_law(agrees):
    """The affine map from noise to draws, matrix and offset, is that of the law that is known to be observed."""
    matrix, observed, observation = problem(OPERATORS["points"], 0.3)
    process = EDM()
    found = affine(Kalman(prior(process), observation, guess_of()), nfe=12)
    expected = affine(prior(process).conditioned(matrix, observed, 0.3), nfe=12)
    for name, one, other in zip(("matrix", "offset"), found, expected):
        agrees(Kalman, f"{name} of 12 steps", "`conditioned`", one, other, rtol=1e-6, atol=1e-6)


def test_another_guess_moves_by_its_own_gain(agrees):
    """Of a guess that is not the prior, with a floor: V A' (S + A V A')^-1 in numpy, with the denoiser's x_hat."""
    guess, process = guess_of(5), RectifiedFlow()
    matrix, observed, observation = problem(OPERATORS["block means"], 0.2)
    t, x_t = noisy(process)
    before = prior(process)(fields(x_t), t).x.flatten(1).numpy()
    u, v = guess.modes.numpy(), guess.variances.numpy()
    c = float(guess.floor) * np.eye(CELLS) + (u.T * (v - float(guess.floor))) @ u
    expected = np.empty_like(before)
    for i, r in enumerate((process.sigma(t) / process.alpha(t)).numpy()):
        left = r**2 * c @ np.linalg.inv(c + r**2 * np.eye(CELLS))
        system = matrix @ left @ matrix.T + 0.04 * np.eye(len(matrix))
        expected[i] = before[i] + left @ matrix.T @ np.linalg.solve(system, observed - matrix @ before[i])
    found = Kalman(prior(process), observation, guess)(fields(x_t), t).x.flatten(1)
    agrees(Kalman, "x, another guess than the prior", "numpy", found, expected, rtol=1e-6, atol=1e-6)


def test_without_modes_it_has_the_weights_of_pigdm():
    white = Denoiser.from_callable(
        lambda x, t: x / (1 + t[:, None, None, None] ** 2), predicts="x", process=EDM(), label=EDM().sigma
    )
    _, _, observation = problem(OPERATORS["points"], 0.2)
    t, x_t = noisy(EDM())
    found = Kalman(white, observation, GaussianGuess())(fields(x_t), t).x
    expected = PiGDM(white, observation, iterations=200, tolerance=1e-12)(fields(x_t), t).x
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_it_needs_no_gradients_and_stays_right_where_a_jacobian_is_not():
    """A ripple of a thousandth in the denoiser ruins its Jacobian in large noise; the gain does not look at it."""
    process = EDM()
    exact = prior(process)

    class Rippled(Denoiser):
        def __init__(self):
            self.process = process

        def __call__(self, x_t, t, condition=None):
            found = exact(x_t, t)
            return found.shift(
                1e-3 * torch.sin(30 * x_t) * (process.alpha(t) / process.sigma(t) ** 2)[:, None, None, None]
            )

    matrix, observed, observation = problem(OPERATORS["points"], 0.1)
    mean, covariance = posterior(matrix, observed, 0.01 * np.eye(len(matrix)))
    t = process.t_of_ratio(tensor([5.0, 20.0]))
    x_t = np.random.default_rng(3).normal(size=(2, CELLS)) * process.sigma(t).numpy()[:, None]
    expected = estimate(x_t, process.alpha(t).numpy(), process.sigma(t).numpy(), mean, covariance)
    kalman = Kalman(Rippled(), observation, guess_of())(fields(x_t), t).x.flatten(1).numpy()
    assert np.abs(kalman - expected).max() < 0.01
    with pytest.warns(RuntimeWarning, match="conjugate gradients"):
        matched = MMPS(Rippled(), observation, iterations=50)(fields(x_t), t).x.flatten(1).numpy()
    assert np.abs(matched - expected).max() > 0.3


def test_its_pullback_is_its_derivative():
    _, _, observation = problem(OPERATORS["block means"], 0.2)
    guided, process = Kalman(prior(RectifiedFlow()), observation, guess_of(5)), RectifiedFlow()
    t, x_t = noisy(process)
    g, away = (
        fields(np.random.default_rng(4).normal(size=x_t.shape)),
        fields(np.random.default_rng(5).normal(size=x_t.shape)),
    )
    _, back = guided.pullback(fields(x_t), t)
    ahead = (guided(fields(x_t) + 1e-4 * away, t).x - guided(fields(x_t) - 1e-4 * away, t).x) / 2e-4
    torch.testing.assert_close((back(g) * away).sum(), (g * ahead).sum(), rtol=1e-7, atol=1e-9)


def test_what_it_cannot_take_is_refused():
    no_guess: Any = COVARIANCE
    curved = Observation(Function(lambda x: x[:, 0, 0, :2] ** 2), torch.zeros(2, device=CPU), 0.1)
    with pytest.raises(TypeError, match="Points"):
        Kalman(prior(EDM()), curved, GaussianGuess())
    with pytest.raises(TypeError, match="guess"):
        Kalman(prior(EDM()), problem(OPERATORS["points"], 0.1)[2], no_guess)
