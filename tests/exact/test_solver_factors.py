"""The factors in the steps of solvers, the points of grids and the rule of step sizes, each against the paper's formula."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Gaussian
from undrift.infer.sample import sample
from undrift.process import EDM, VE, DiscreteBetas, LinearLogSNR, RectifiedFlow
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.frames import Angle, Plain, Ratio, Straight
from undrift.solve.grid import EvenAngle, EvenLogSNR, EvenTime, Karras, Nodes, ShortFirst
from undrift.solve.pndm import PNDM
from undrift.solve.runge_kutta import DORMAND_PRINCE, EULER, HEUN, KUTTA, MIDPOINT, Heun, RungeKutta, Tableau
from undrift.solve.sde import EulerMaruyama, ImprovedEuler, Langevin, ReverseDiffusion
from undrift.solve.solver import State
from undrift.solve.step_size import Adaptive, Fixed

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
    """Song et al. (2021), algorithm 4: ``2 (r |noise| / |score|)^2``, each field by itself, ``|noise|^2`` its mean 3."""
    process, t, snr, z = EDM(), at(0.75), 0.3, X[::-1] + 0.2  # sigma = 3
    found = Langevin(snr).step(constant(X, z.copy(), process), State(torch.tensor(X)), process, t, t, noise).x
    score = -z / 3
    step = 2 * snr**2 * 3 / (score**2).sum(1, keepdims=True)
    off = np.abs(found.numpy() - (X + step * score + np.sqrt(2 * step) * NOISE)).max()
    measured(Langevin, "one step, largest difference", "Song et al. (2021), algorithm 4", 0, off, within=1e-12)
    found = Langevin().step(constant(X, z.copy(), process), State(torch.tensor(X)), process, t, t, noise).x
    step = 2 * 0.16**2 * 3**2  # the same where |score| is that of noise alone
    off = np.abs(found.numpy() - (X + step * score + np.sqrt(2 * step) * NOISE)).max()
    measured(Langevin, "one step of the default, largest difference", "its formula", 0, off, within=1e-12)


def test_the_first_steps_of_pndm(measured):
    """Liu et al. (2022), eq. 11 to 13, with alpha 1: three pseudo Runge-Kutta steps, then a linear multistep one."""
    process, sigmas = EDM(), np.array([4.0, 3.0, 2.5, 1.0, 0.4])

    def z(x, sigma):
        return 3 * sigma * x / (1 + 3 * sigma**2)  # of data of variance 1/3

    x, past = X, []
    for now, after in itertools.pairwise(sigmas):
        h, middle = after - now, (now + after) / 2
        past.insert(0, z(x, now))
        if len(past) < 4:
            two = z(x + h / 2 * past[0], middle)
            three = z(x + h / 2 * two, middle)
            move = (past[0] + 2 * two + 2 * three + z(x + h * three, after)) / 6
        else:
            move = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        x = x + h * move

    def f(x_t, t):
        noise = z(x_t, float(t / (1 - t)))
        return Estimate(x_t - t / (1 - t) * noise, noise, process, t)

    state = State(torch.tensor(X))
    for t, s in itertools.pairwise(sigmas / (1 + sigmas)):
        state = PNDM().step(f, state, process, at(t), at(s), noise)
    off = np.abs(state.x.numpy() - x).max()
    measured(PNDM, "four steps, largest difference", "Liu et al. (2022), eq. 11 to 13", 0, off, within=1e-12)


def test_the_steps_of_the_reverse_sde(measured):
    """Song et al. (2021), eq. 6 and 46, and the mean of two steps of Jolicoeur-Martineau et al. (2021), algorithm 1.

    On the linear log-SNR process, lambda from 6 to -6: ``f = -6 sigma^2`` and ``g^2 = 12 sigma^2``.
    """
    process, t, s, z = LinearLogSNR(6.0, -6.0), 0.7, 0.55, X[::-1].copy()
    f, h = constant(X, z, process), t - s

    def moved(x, v):
        variance = 1 / (1 + np.exp(6 - 12 * v))
        score = -z / np.sqrt(variance)
        return -h * (-6 * variance * x - 12 * variance * score) + np.sqrt(12 * variance * h) * NOISE

    euler = X + moved(X, t)
    both = (euler + X + moved(euler, s)) / 2
    bar_t, bar_s = (1 / (1 + np.exp(-(6 - 12 * v))) for v in (t, s))
    kept, beta = np.sqrt(bar_t / bar_s), 1 - bar_t / bar_s
    reverse = (2 - kept) * X - beta * z / np.sqrt(1 - bar_t) + np.sqrt(beta) * NOISE
    for solver, expected, source in (
        (EulerMaruyama(), euler, "Song et al. (2021), eq. 6"),
        (ImprovedEuler(), both, "Jolicoeur-Martineau et al. (2021), algorithm 1"),
        (ReverseDiffusion(), reverse, "Song et al. (2021), eq. 46"),
    ):
        found = solver.step(f, State(torch.tensor(X)), process, at(t), at(s), noise)
        off = np.abs(found.x.numpy() - expected).max()
        measured(type(solver), "one step, largest difference", source, 0, off, within=1e-12)
    found = ImprovedEuler().step(f, State(torch.tensor(X)), process, at(t), at(s), noise)
    np.testing.assert_allclose(found.error.numpy(), euler - both, atol=1e-12)


def test_the_upper_variance_of_ddpm_by_hand(measured):
    """``sigma_{t|s}^2``, 0.7^2 - (0.3 / 0.8)^2 0.2^2 on straight paths; none where the step ends at clean data."""
    process, t, s = RectifiedFlow(), at(0.7), at(0.2)
    f = constant(X[::-1].copy(), X + 1, process)
    kept, lost = 0.3 / 0.8 * (0.2 / 0.7) ** 2, 1 - (0.3 * 0.2 / (0.8 * 0.7)) ** 2
    expected = kept * X + 0.8 * lost * X[::-1] + np.sqrt(0.49 - (0.3 / 0.8 * 0.2) ** 2) * NOISE
    off = np.abs(Ancestral("upper").step(f, State(torch.tensor(X)), process, t, s, noise).x.numpy() - expected).max()
    measured(Ancestral, "one step of upper variance, largest difference", "by hand", 0, off, within=1e-12)
    last = Ancestral("upper").step(f, State(torch.tensor(X)), process, t, at(0.0), noise).x
    off = np.abs(last.numpy() - X[::-1]).max()
    measured(Ancestral, "last step of upper variance, largest difference", "x", 0, off, within=1e-12)


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
    """Karras et al. (2022), algorithm 2, from sigma 2 to 1, inside the process and at its end, on data of variance 1/3."""
    churn, low, high, inflation, gamma = CHURN[case]

    def denoise(x, sigma):
        return x / (1 + 3 * sigma**2)

    def f(x_t, t):
        sigma = float(t / (1 - t))
        return Estimate(denoise(x_t, sigma), (x_t - denoise(x_t, sigma)) / sigma, EDM(), t)

    raised = 2 * (1 + gamma)
    x = X + np.sqrt(raised**2 - 4) * inflation * NOISE
    slope = (x - denoise(x, raised)) / raised
    ahead = x + (1 - raised) * slope
    expected = x + (1 - raised) * (slope + (ahead - denoise(ahead, 1.0)) / 1.0) / 2
    solver, state = Heun(churn, low, high, inflation), State(torch.tensor(X))
    found = [solver.step(f, state, EDM(sigma_max), at(2 / 3), at(0.5), noise).x for sigma_max in (80.0, 2.0)]
    off = max(np.abs(x.numpy() - expected).max() for x in found)
    measured(Heun, f"one step with churn, {case}", "Karras et al. (2022), algorithm 2", 0, off, within=1e-12)


def variance_of_edm(steps, highest):
    """Karras et al. (2022), algorithm 2, of data of variance 1/4: steps of 18 from 80 to 0, S_churn 40."""
    sigmas = [*(80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0]
    total = 80.0**2
    for now, after in itertools.pairwise(sigmas[: steps + 1]):
        raised = min(now * (1 + min(40 / 18, np.sqrt(2) - 1)), highest)
        h, slope = after - raised, raised / (raised**2 + 1 / 4)
        if after > 0:
            slope = (slope + (1 + h * slope) * after / (after**2 + 1 / 4)) / 2
        total = (total + raised**2 - now**2) * (1 + h * slope) ** 2
    return total


@pytest.mark.parametrize(("process", "steps", "highest"), [(EDM(), 18, np.inf), (VE(0.002, 80.0), 17, 80.0)])
def test_a_run_with_churn_from_the_largest_noise(process, steps, highest, measured):
    """Above sigma_max on EDM, as in the paper, and not on VE, whose time ends there.

    Rows are the start and the noise of each step, whose squares add up to the variance at the end.
    """
    law, units = Gaussian([0.0], [0.25], process), torch.eye(steps + 1, dtype=torch.float64, device=CPU)
    state, times = State(80 * units[:, :1]), Karras()(process, steps, CPU)
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        noise = units[:, i + 1 : i + 2]
        state = Heun(40 / 18).step(lambda x, t: law(x, t.expand(len(x))), state, process, t, s, lambda _, z=noise: z)
    off = float(state.x.square().sum()) / variance_of_edm(steps, highest) - 1
    name = type(process).__name__
    measured(
        Heun, f"variance of 18 steps, S_churn 40, {name}", "Karras et al. (2022), algorithm 2", 0, off, within=1e-10
    )
    assert variance_of_edm(18, 80.0) / variance_of_edm(18, np.inf) - 1 == pytest.approx(-2.63e-8, rel=1e-2)


REFUSED = {
    "low, high are 2.0, 1.0, expected 0 <= low <= high": lambda: Heun(0.2, 2.0, 1.0),
    "inflation is -1.0, expected at least 0": lambda: Heun(0.2, inflation=-1.0),
    "relative, absolute are -0.1, 0.001, expected at least 0": lambda: Adaptive(relative=-0.1),
    "relative, absolute are 0.001, -0.1, expected at least 0": lambda: Adaptive(absolute=-0.1),
    "relative, absolute are 0.0, 0.0, expected at least 0 and one of them above": lambda: Adaptive(0.0, 0.0),
    "relative, absolute are nan, 0.001": lambda: Adaptive(relative=float("nan")),
    **{
        f"{name} is -1, expected a number above 0": lambda name=name: Adaptive(**{name: -1})
        for name in ("first", "safety", "exponent", "least")
    },
}


@pytest.mark.parametrize("said", REFUSED)
def test_numbers_that_no_step_has_are_refused(said):
    with pytest.raises(ValueError, match=said):
        REFUSED[said]()


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


def test_the_nodes_of_ddpm(measured):
    """Ho et al. (2020): a thousand betas from 1e-4 to 0.02; every step, and every 111th as Song et al. (2020) respace."""
    bar, off = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), 0.0
    for steps in (999, 9):
        t = Nodes()(DiscreteBetas(), steps, CPU)
        expected = bar[:: 999 // steps][::-1]
        off = max(off, np.abs(DiscreteBetas().alpha(t).numpy() ** 2 / expected - 1).max())
    few = DiscreteBetas([0.05, 0.1, 0.2, 0.3, 0.5, 0.7])
    assert (6 * Nodes()(few, 3, CPU)).tolist() == pytest.approx([6, 4, 3, 1])  # 5, 3.33, 1.67, 0, rounded, and one more
    measured(Nodes, "alpha^2 of 999 and 9 steps, relative", "Ho et al. (2020), section 4", 0, off, within=1e-11)


@pytest.mark.parametrize(
    ("frame", "clock", "scale"),
    [
        (Plain(), None, lambda alpha, sigma: 1.0),
        (Ratio(), lambda alpha, sigma: sigma / alpha, lambda alpha, sigma: alpha),
        (Straight(), lambda alpha, sigma: sigma / (alpha + sigma), lambda alpha, sigma: alpha + sigma),
        (Angle(), lambda alpha, sigma: np.arctan2(sigma, alpha), np.hypot),
    ],
    ids=["plain", "ratio", "straight", "angle"],
)
def test_the_slope_of_a_frame_is_that_of_the_flow(frame, clock, scale, measured):
    """``dy / du`` by differences, where x and z stay as they are along the flow: ``y = (alpha x + sigma z) / scale``."""
    off, h, x, z = 0.0, 1e-5, 0.7, -1.3
    for process in (LinearLogSNR(6.0, -6.0), EDM()):
        for t in (0.2, 0.5, 0.9):
            u, y = [], []
            for v in (t - h, t + h):
                alpha, sigma = float(process.alpha(at(v))), float(process.sigma(at(v)))
                u.append(v if clock is None else clock(alpha, sigma))
                y.append((alpha * x + sigma * z) / scale(alpha, sigma))
            a, b = (float(value) for value in frame.velocity(process, at(t)))
            off = max(off, abs((a * x + b * z) * (u[1] - u[0]) / (y[1] - y[0]) - 1))
            off = max(off, abs(float(frame.time(process, frame.clock(process, at(t)))) - t))
            assert float(frame.clock(process, at(t))) == pytest.approx(sum(u) / 2, rel=1e-7)
    measured(type(frame), "dy / du, relative, and t of its clock", "differences of the field", 0, off, within=1e-7)


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


def trees(tableau, weights):
    """Conditions of order, ``weights . g - 1 / density``, of all rooted trees to order five, by order (Butcher)."""
    count = len(tableau.b)
    a, c, b = np.zeros((count, count)), np.array(tableau.c), np.array(weights)
    for i, row in enumerate(tableau.a):
        a[i + 1, : len(row)] = row
    ac, acc, aac = a @ c, a @ c**2, a @ a @ c
    found = {
        1: [(c**0, 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (ac, 6)],
        4: [(c**3, 4), (c * ac, 8), (acc, 12), (aac, 24)],
        5: [(c**4, 5), (c**2 * ac, 10), (ac**2, 20), (c * acc, 15), (c * aac, 30)],
    }
    found[5] += [(a @ c**3, 20), (a @ (c * ac), 40), (a @ acc, 60), (a @ aac, 120)]
    return {order: max(abs(b @ g - 1 / density) for g, density in one) for order, one in found.items()}


TABLEAUS = {"Euler": EULER, "Heun": HEUN, "midpoint": MIDPOINT, "Kutta": KUTTA, "Dormand-Prince": DORMAND_PRINCE}


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_table_has_the_order_that_it_says_and_no_more(name, measured):
    tableau = TABLEAUS[name]
    found = trees(tableau, tableau.b)
    off = max(found[order] for order in range(1, tableau.order + 1))
    measured(Tableau, f"conditions of order, {name}", "Butcher's, of all rooted trees", 0, off, within=1e-14)
    assert tableau.order == 5 or found[tableau.order + 1] > 1e-3


def test_the_embedded_solution_of_dormand_and_prince_is_of_order_four(measured):
    """RK5(4)7M: and not of order five."""
    found = trees(DORMAND_PRINCE, DORMAND_PRINCE.other)
    off = max(found[order] for order in range(1, 5))
    measured(Tableau, "conditions of order, embedded", "Butcher's, of all rooted trees", 0, off, within=1e-14)
    assert found[5] > 1e-4


def test_a_run_by_hand_is_the_loop(measured):
    """States are handed from step to step along the times of a grid, with their history: no more is in the loop."""
    process, solver, z = EDM(20.0, 0.1), AdamsBashforth(), torch.tensor(X)
    law, times = Gaussian([0.3, -0.2, 0.0], [1.0, 0.4, 2.0], process), ShortFirst()(process, 9)
    state, control, seen = solver.init(20 * z), Fixed(times), []
    while control.goes_on:
        seen.append((float(control.t), float(control.s)))
        trial = solver.step(lambda x, t: law(x, t.expand(2)), state, process, control.t, control.s, noise)
        state, _ = control.settled(state, trial, 0)
        assert len(state.history) == min(len(seen), 2)
    assert control.status == "done" and control.accepted == control.number == 9
    off = np.abs(np.array(seen) - np.stack([times[:-1], times[1:]], 1)).max()
    measured(Fixed, "ends of its steps", "the times of the grid", 0, off, within=0)
    off = (state.x - sample(law, 20 * z, nfe=9, denoise=False).x).abs().max()
    measured(State, "a run of nine steps by hand", "the loop", 0, off, within=0)
