"""The factors in the steps of solvers, the points of grids and the rule of step sizes, each against the paper's formula."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from undrift.denoise.estimate import Estimate
from undrift.process import EDM, LinearLogSNR, RectifiedFlow
from undrift.solve.ancestral import DDIM
from undrift.solve.frames import Ratio
from undrift.solve.grid import EvenAngle, EvenLogSNR, EvenTime, Karras, ShortFirst
from undrift.solve.runge_kutta import DORMAND_PRINCE, HEUN, MIDPOINT, Heun, RungeKutta
from undrift.solve.sde import Langevin
from undrift.solve.solver import State
from undrift.solve.step_size import Adaptive

CPU = torch.device("cpu")
X = np.array([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])
NOISE = np.array([[0.4, 1.1, -0.3], [-2.0, 0.5, 0.9]])


def at(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64, device=CPU)


def constant(x, z, process):
    """A denoiser that says the same everywhere."""
    return lambda x_t, t: Estimate(torch.tensor(x), torch.tensor(z), process, t)


def noise(stage):
    return torch.tensor(NOISE)


def test_the_step_of_langevin_is_that_of_the_signal_to_noise_ratio(measured):
    """Song et al. (2021), algorithm 4: ``2 (r |noise| / |score|)^2``, each field by itself."""
    process, t, snr, z = EDM(), at(0.75), 0.3, X[::-1] + 0.2  # sigma = 3
    found = Langevin(snr).step(constant(X, z.copy(), process), State(torch.tensor(X)), process, t, t, noise).x
    score = -z / 3
    step = 2 * (snr * np.linalg.norm(NOISE, axis=1) / np.linalg.norm(score, axis=1))[:, None] ** 2
    off = np.abs(found.numpy() - (X + step * score + np.sqrt(2 * step) * NOISE)).max()
    measured(Langevin, "one step, largest difference", "Song et al. (2021), algorithm 4", 0, off, within=1e-12)


def test_the_noise_of_ddim_grows_with_eta(measured):
    """Song et al. (2020), eq. 12 and 16, their alpha the square of ours."""
    process, t, s, off = LinearLogSNR(6.0, -6.0), at(0.7), at(0.4), 0.0
    bar_t, bar_s = (1 / (1 + np.exp(-(6 - 12 * v))) for v in (0.7, 0.4))
    z = X[::-1].copy()
    for eta in (0.0, 0.5, 1.0):
        spread = eta * np.sqrt((1 - bar_s) / (1 - bar_t)) * np.sqrt(1 - bar_t / bar_s)
        expected = np.sqrt(bar_s) * X + np.sqrt(1 - bar_s - spread**2) * z + spread * NOISE
        found = DDIM(eta).step(constant(X, z, process), State(torch.tensor(X)), process, t, s, noise).x
        off = max(off, np.abs(found.numpy() - expected).max())
    measured(DDIM, "one step of eta 0, 1/2, 1", "Song et al. (2020), eq. 12 and 16", 0, off, within=1e-12)


TWO = float(at(2 / 3) / (1 - at(2 / 3)))  # the ratio at that time, rounded as it is
CHURN = {
    "inside": (0.2, 0.5, 50.0, 1.0, 0.2),
    "at the lower bound": (0.2, TWO, 50.0, 1.0, 0.2),
    "at the upper bound": (0.2, 0.5, TWO, 1.0, 0.2),
    "below": (0.2, 2.1, 50.0, 1.0, 0.0),
    "above": (0.2, 0.5, 1.9, 1.0, 0.0),
    "capped": (0.9, 0.5, 50.0, 1.0, np.sqrt(2) - 1),
    "inflated": (0.2, 0.5, 50.0, 1.5, 0.2),
}


@pytest.mark.parametrize("case", CHURN)
def test_churn_is_that_of_edm(case, measured):
    """Karras et al. (2022), algorithm 2, from sigma 2 to 1, on data of variance 1/3."""
    churn, low, high, inflation, gamma = CHURN[case]
    process = EDM()

    def denoise(x, sigma):
        return x / (1 + 3 * sigma**2)

    def f(x_t, t):
        sigma = float(t / (1 - t))
        return Estimate(denoise(x_t, sigma), (x_t - denoise(x_t, sigma)) / sigma, process, t)

    raised = 2 * (1 + gamma)
    x = X + np.sqrt(raised**2 - 4) * inflation * NOISE
    slope = (x - denoise(x, raised)) / raised
    ahead = x + (1 - raised) * slope
    expected = x + (1 - raised) * (slope + (ahead - denoise(ahead, 1.0)) / 1.0) / 2
    found = Heun(churn, low, high, inflation).step(f, State(torch.tensor(X)), process, at(2 / 3), at(0.5), noise).x
    off = np.abs(found.numpy() - expected).max()
    measured(Heun, f"one step with churn, {case}", "Karras et al. (2022), algorithm 2", 0, off, within=1e-12)


def ratios(grid, process, steps):
    t = grid(process, steps, CPU)
    return (process.sigma(t) / process.alpha(t)).numpy()


@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_the_grid_of_karras(rho, measured):
    i = np.arange(13) / 12
    expected = (80 ** (1 / rho) + i * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    off = np.abs(ratios(Karras(rho), EDM(80.0, 0.002), 12) / expected - 1).max()
    off = max(off, np.abs(ratios(Karras(rho), EDM(80.0), 13)[:-1] / expected - 1).max())
    measured(Karras, f"sigma, rho {rho:g}, relative", "Karras et al. (2022), eq. 5", 0, off, within=1e-10)


def test_the_even_grids(measured):
    process = EDM(80.0, 0.002)
    off = np.abs(ratios(EvenLogSNR(), process, 12) / np.geomspace(80, 0.002, 13) - 1).max()
    flow = ratios(EvenLogSNR(0.01, 50.0), RectifiedFlow(), 12)
    off = max(off, np.abs(flow[1:-1] / np.geomspace(50, 0.01, 11) - 1).max())
    measured(EvenLogSNR, "sigma / alpha, relative", "a geometric series", 0, off, within=1e-10)
    off = np.abs(np.arctan(ratios(EvenAngle(), process, 12)) - np.linspace(np.arctan(80), np.arctan(0.002), 13)).max()
    measured(EvenAngle, "atan(sigma / alpha)", "an arithmetic series", 0, off, within=1e-10)
    off = np.abs(EvenTime()(process, 12, CPU).numpy() - np.linspace(80 / 81, 0.002 / 1.002, 13)).max()
    measured(EvenTime, "t", "an arithmetic series", 0, off, within=1e-14)


def test_the_default_grid_with_few_steps_many_steps_and_a_power_of_ones_own(measured):
    """u^p is even behind a first step of h^1.5, p = n / (n + 4.7), below six 3.3 / n and 1 at most."""
    off = 0.0
    for steps, own, power in ((3, None, 1.0), (5, None, 0.66), (12, None, 12 / 16.7), (12, 0.4, 0.4)):
        t = ShortFirst(own)(RectifiedFlow(), steps, CPU).numpy()  # t is u
        even = np.linspace(1 - (1 / steps) ** 1.5, 0, steps) ** (1 / power)
        off = max(off, np.abs(t - np.concatenate([[1.0], even])).max())
    measured(ShortFirst, "u", "its formula, 3, 5 and 12 steps", 0, off, within=1e-14)


@pytest.mark.parametrize(("order", "exponent", "own"), [(2, 1 / 2, None), (5, 1 / 5, None), (2, 0.9, 0.9)])
def test_the_next_step_of_an_adaptive_run(order, exponent, own, measured):
    """``safety norm^-exponent`` times as long, norm the root mean square over a row of error over tolerance."""
    process, solver = RectifiedFlow(), SimpleNamespace(order=order, evaluations=2, stochastic=False, adaptive=True)
    rule = Adaptive(relative=0.1, absolute=0.2, first=0.01, safety=0.8, exponent=own)
    before, after = np.ones((5, 4)), np.ones((5, 4))
    before[:, 0], after[:, 1] = -3.0, 5.0
    tolerance = 0.2 + 0.1 * np.maximum(np.abs(before), np.abs(after))
    norms = np.array([0.6, 1.0, 1.5, 1e-9, 1e9])
    shape = np.array([1.0, -1.0, 0.0, np.sqrt(2)])  # of root mean square 1
    error = norms[:, None] * shape * tolerance
    error[1] *= 1 - 1e-12  # at the tolerance, up to rounding
    control = rule.begin(process, torch.tensor(before), solver, 1000, 0)
    np.testing.assert_allclose((control.t - control.s).numpy(), 0.01, rtol=1e-10)
    state, found = control.settled(State(torch.tensor(before)), State(torch.tensor(after), (), torch.tensor(error)), 2)
    accepted = np.array([True, True, False, True, False])
    np.testing.assert_array_equal(state.x.numpy(), np.where(accepted[:, None], after, before))
    np.testing.assert_allclose(control.t.numpy(), np.where(accepted, 0.99, 1.0), rtol=1e-14)
    rms = np.sqrt((error**2).mean(1))
    np.testing.assert_allclose(found.numpy(), np.where(accepted, rms, 0.0), rtol=1e-12)
    expected = 0.01 * np.clip(0.8 * norms**-exponent, 0.2, 5.0)
    off = np.abs((control.t - control.s).numpy() / expected - 1).max()
    measured(Adaptive, f"next step, exponent {exponent:.2g}", "Hairer et al. (1993), II.4", 0, off, within=1e-9)


@pytest.mark.parametrize(("tableau", "weights"), [(HEUN, (-0.5, 0.5)), (MIDPOINT, (-1.0, 1.0))], ids=["Heun", "middle"])
def test_the_embedded_error_is_the_distance_to_euler(tableau, weights, measured):
    """In the frame of the ratio of alpha 1 the slope is z, here ``sigma^2``: ``h (w_1 k_1 + w_2 k_2)``, h = -1."""
    process = EDM()
    f = lambda x_t, t: Estimate(x_t, torch.full_like(x_t, float(process.sigma(t)) ** 2), process, t)  # noqa: E731
    state = RungeKutta(tableau, Ratio()).step(f, State(torch.tensor(X)), process, at(2 / 3), at(0.5), noise)
    second = 2 - tableau.c[1]
    expected = -(weights[0] * 4 + weights[1] * second**2)
    off = (state.error - expected).abs().max()
    name = "Heun" if tableau is HEUN else "midpoint"
    measured(RungeKutta, f"embedded error, {name}", "the step minus Euler's", 0, off, within=1e-12)
    euler = torch.tensor(X) - 4.0
    torch.testing.assert_close(state.x - state.error, euler, rtol=0, atol=1e-12)


def test_the_embedded_solution_of_dormand_and_prince_is_of_order_four():
    """Quadrature conditions of order four, and not of order five (RK5(4)7M)."""
    c, other = np.array(DORMAND_PRINCE.c), np.array(DORMAND_PRINCE.other)
    sums = [other @ c**k * (k + 1) - 1 for k in range(5)]
    np.testing.assert_allclose(sums[:4], 0, atol=1e-13)
    assert abs(sums[4]) > 1e-4
