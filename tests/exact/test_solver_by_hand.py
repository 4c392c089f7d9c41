"""Steps of exponential solvers by hand: three uneven ones of a denoiser that is bent, each by the paper's formula."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec

from undrift.denoise.estimate import Estimate
from undrift.process import LinearLogSNR
from undrift.solve.dpm_solver import DPMSolver
from undrift.solve.exponential import DEIS, DPMSolverPlusPlus, ExponentialAdamsBashforth, SDEDPMSolverPlusPlus
from undrift.solve.solver import State

X = np.array([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])
NOISE = np.array([[0.4, 1.1, -0.3], [-2.0, 0.5, 0.9]])
LEVELS = LinearLogSNR(6.0, -6.0)
STOPS = (0.75, 0.6, 0.5, 0.32)


def half(t):
    """The papers' lambda, half of ours."""
    return 3 - 6 * t


def scales(t):
    return 1 / np.sqrt(1 + np.exp(-2 * half(t))), 1 / np.sqrt(1 + np.exp(2 * half(t)))


def eps(x, t):
    return np.tanh(x) + 0.3 * t * x


def bent(x_t, t):
    """The denoiser of ``eps``."""
    alpha, sigma = scales(float(t))
    z = torch.tensor(eps(x_t.numpy(), float(t)))
    return Estimate((x_t - sigma * z) / alpha, z, LEVELS, t)


def clean(x, t):
    alpha, sigma = scales(t)
    return (x - sigma * eps(x, t)) / alpha


def dpm_solver_2(x, known, t, s):
    """Lu et al. (2022), DPM-Solver, algorithm 1 with r1 = 1/2."""
    h, m = half(s) - half(t), (t + s) / 2
    (a_t, _), (a_m, s_m), (a_s, s_s) = scales(t), scales(m), scales(s)
    u = a_m / a_t * x - s_m * np.expm1(h / 2) * eps(x, t)
    return a_s / a_t * x - s_s * np.expm1(h) * eps(u, m)


def dpm_solver_3(x, known, t, s):
    """Lu et al. (2022), DPM-Solver, algorithm 2."""
    h, (a_t, _), (a_s, s_s) = half(s) - half(t), scales(t), scales(s)
    first, second = t + (s - t) / 3, t + 2 * (s - t) / 3
    (a_1, s_1), (a_2, s_2) = scales(first), scales(second)
    e = eps(x, t)
    u = a_1 / a_t * x - s_1 * np.expm1(h / 3) * e
    d = eps(u, first) - e
    u = a_2 / a_t * x - s_2 * np.expm1(2 * h / 3) * e - 2 * s_2 * (np.expm1(2 * h / 3) / (2 * h / 3) - 1) * d
    d = eps(u, second) - e
    return a_s / a_t * x - s_s * np.expm1(h) * e - 1.5 * s_s * (np.expm1(h) / h - 1) * d


def extrapolated(x, known, t, s):
    """D of Lu et al. (2022), DPM-Solver++, algorithm 2: x in the middle of the step."""
    if not known:
        return clean(x, t)
    before, at_before = known[-1]
    r = (half(t) - half(before)) / (half(s) - half(t))
    return (1 + 1 / (2 * r)) * clean(x, t) - 1 / (2 * r) * clean(at_before, before)


def plus_plus(x, known, t, s):
    h, (_, s_t), (a_s, s_s) = half(s) - half(t), scales(t), scales(s)
    return s_s / s_t * x - a_s * np.expm1(-h) * extrapolated(x, known, t, s)


def plus_plus_sde(x, known, t, s):
    h, (_, s_t), (a_s, s_s) = half(s) - half(t), scales(t), scales(s)
    lost = -np.expm1(-2 * h)
    return s_s / s_t * np.exp(-h) * x + a_s * lost * extrapolated(x, known, t, s) + s_s * np.sqrt(lost) * NOISE


def interpolated(nodes, values, at):
    """The polynomial through values (k, ...) at nodes."""
    basis = [np.prod([(at - b) / (a - b) for b in nodes if b != a]) for a in nodes]
    return sum(v * b for v, b in zip(values, basis))


def deis(order):
    def step(x, known, t, s):
        """Zhang & Chen (2022), eq. 15: the noise as a polynomial in t."""
        past = [*known, (t, x)][-order:]
        values, nodes = np.stack([eps(v, u) for u, v in past]), [u for u, _ in past]

        def rate(u):
            return -6 * -np.exp(-half(u)) * interpolated(nodes, values, u)  # d rho / d t, rho = exp(-lambda)

        whole, _ = quad_vec(rate, t, s, epsabs=1e-13, epsrel=1e-13)
        return scales(s)[0] * (x / scales(t)[0] + whole)

    return step


def exponential(x, known, t, s):
    """Hochbruck & Ostermann (2010), section 2.5: x as a polynomial in lambda, order 3."""
    past = [*known, (t, x)][-3:]
    values, nodes = np.stack([clean(v, u) for u, v in past]), [half(u) for u, _ in past]
    whole, _ = quad_vec(lambda v: np.exp(v) * interpolated(nodes, values, v), half(t), half(s), epsabs=1e-13)
    return scales(s)[1] * (x / scales(t)[1] + whole)


BY_HAND = {
    "DPM-Solver-2": (DPMSolver(2), dpm_solver_2, "Lu et al. (2022), DPM-Solver, algorithm 1"),
    "DPM-Solver-3": (DPMSolver(3), dpm_solver_3, "Lu et al. (2022), DPM-Solver, algorithm 2"),
    "DPM-Solver++(2M)": (DPMSolverPlusPlus(), plus_plus, "Lu et al. (2022), DPM-Solver++, algorithm 2"),
    "SDE-DPM-Solver++(2M)": (SDEDPMSolverPlusPlus(), plus_plus_sde, "Lu et al. (2022), DPM-Solver++, section 5"),
    "DEIS 2": (DEIS(2), deis(2), "Zhang & Chen (2022), eq. 15, by quadrature"),
    "DEIS 3": (DEIS(3), deis(3), "Zhang & Chen (2022), eq. 15, by quadrature"),
    "exponential": (ExponentialAdamsBashforth(3), exponential, "Hochbruck & Ostermann (2010), by quadrature"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_three_steps_by_hand(name, measured):
    """Of a denoiser that is bent, on uneven steps: start-up and all weights."""
    solver, step, source = BY_HAND[name]
    state, x, known = State(torch.tensor(X)), X, []
    for t, s in itertools.pairwise(STOPS):
        ends = (torch.tensor(v, dtype=torch.float64, device="cpu") for v in (t, s))
        state = solver.step(bent, state, LEVELS, *ends, lambda stage: torch.tensor(NOISE))
        x, known = step(x, known, t, s), [*known, (t, x)]
    off = np.abs(state.x.numpy() - x).max()
    measured(type(solver), f"three uneven steps, {name}", source, 0, off, within=1e-11)
