"""The order of every deterministic solver as a slope, and stochastic ones by exact propagation, on Gaussians."""

import itertools

import numpy as np
import pytest
import torch

from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Gaussian
from undrift.infer.sample import sample
from undrift.process import EDM, NCSN, LinearLogSNR, Process
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.dpm_solver import DPMSolver
from undrift.solve.exponential import DEIS, DPMSolverPlusPlus, ExponentialAdamsBashforth, SDEDPMSolverPlusPlus
from undrift.solve.frames import Angle, Plain, Ratio, Straight
from undrift.solve.grid import EvenTime, Nodes
from undrift.solve.multistep import Multistep
from undrift.solve.pndm import PNDM
from undrift.solve.runge_kutta import DORMAND_PRINCE, HEUN, KUTTA, MIDPOINT, Euler, Heun, RungeKutta
from undrift.solve.sde import (
    AnnealedLangevin,
    EulerMaruyama,
    ImprovedEuler,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from undrift.solve.step_size import Adaptive

F64 = {"dtype": torch.float64, "device": torch.device("cpu")}
VARIANCES = np.array([4.0, 1.0, 0.3, 0.05])
MEAN = np.array([1.0, -2.0, 0.5, 0.0])
HIGH, LOW = 4.0, -3.0  # lambda at data and at noise


class Bent(Process):
    """``alpha = exp(-1.3 t)``, ``sigma = exp(2.2 t - 2)``: neither variance preserving nor exploding."""

    t_min, t_max = 0.0, 1.0

    def alpha(self, t):
        return torch.exp(-1.3 * t)

    def sigma(self, t):
        return torch.exp(2.2 * t - 2)

    def alpha_dot(self, t):
        return -1.3 * self.alpha(t)

    def sigma_dot(self, t):
        return 2.2 * self.sigma(t)

    def t_of_log_snr(self, log_snr):
        return (4 - log_snr) / 7


PROCESSES = {
    "EDM": EDM(float(np.exp(-LOW / 2)), float(np.exp(-HIGH / 2))),
    "linear log-SNR": LinearLogSNR(HIGH, LOW),
    "own": Bent(),
}


def at(t):
    return torch.tensor(t, **F64)


def exact(process):
    """E[x | x_t] and E[z | x_t] of the Gaussian."""
    variances, mean = torch.tensor(VARIANCES), torch.tensor(MEAN)

    def f(x_t, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        away = (x_t - alpha * mean) / (alpha**2 * variances + sigma**2)
        left = variances * sigma**2 / (alpha**2 * variances + sigma**2)
        return Estimate(mean + alpha * variances * away, sigma * away, process, t, variance=left.expand_as(x_t))

    return f


def spread(process, t):
    """Standard deviation of x_t along each axis."""
    return np.sqrt(float(process.alpha(at(t))) ** 2 * VARIANCES + float(process.sigma(at(t))) ** 2)


def flow(process, x, t, s):
    """The probability flow of a Gaussian: standardised coordinates stay."""
    a_t, a_s = (float(process.alpha(at(v))) for v in (t, s))
    return a_s * MEAN + spread(process, s) / spread(process, t) * (x - a_t * MEAN)


def start(process, count=2):
    z = np.random.default_rng(0).normal(size=(count, 4))
    return float(process.alpha(at(process.t_max))) * MEAN + spread(process, process.t_max) * z


def run(solver, process, grid, x, draw=lambda step, stage: None):
    f, state = exact(process), solver.init(torch.tensor(x))
    for step, (t, s) in enumerate(itertools.pairwise(grid)):
        state = solver.step(f, state, process, t, s, lambda stage, step=step: draw(step, stage))
    return state.x.numpy()


def error(solver, process, grid, x=None):
    """Largest distance to the flow at the end."""
    x = start(process) if x is None else x
    return np.abs(run(solver, process, grid, x) - flow(process, x, process.t_max, process.t_min)).max()


def clock_of(solver, process):
    """The solver's own variable and its inverse: a frame's clock, lambda for exponential methods, t for DEIS."""
    if hasattr(solver, "frame"):
        return lambda t: solver.frame.clock(process, t), lambda u: solver.frame.time(process, u)
    if isinstance(solver, PNDM | DDIM):
        return process.ratio, process.t_of_ratio
    if isinstance(solver, DEIS):
        return lambda t: t, lambda t: t
    return lambda t: -process.log_snr(t), lambda u: process.t_of_log_snr(-u)


def times(solver, process, steps):
    """A smooth grid in the solver's own variable.

    The first step of a multistep method, of order one, is h^1.5 in units of the whole, and so as good as one of order
    two; PNDM, whose coefficients are fixed, declares equal steps.
    """
    forward, back = clock_of(solver, process)
    first, last = (float(forward(at(v))) for v in (process.t_max, process.t_min))
    shares = np.linspace(0, 1, steps + 1)
    if isinstance(solver, Multistep):
        shares = np.concatenate([[0], steps**-1.5 + (1 - steps**-1.5) * np.linspace(0, 1, steps)])
    elif not (isinstance(solver, PNDM) and solver.warm_up):
        shares = shares + 0.1 * shares * (1 - shares)  # not even, but smooth
    made = back(at(first + (last - first) * shares))
    made[0], made[-1] = process.t_max, process.t_min
    return made


FRAMES = (Plain(), Ratio(), Straight(), Angle())
DETERMINISTIC = {  # several of one order under one name
    **{f"Adams-Bashforth {k}": [AdamsBashforth(k, frame) for frame in FRAMES] for k in (1, 2, 3)},
    "Euler": [Euler(frame) for frame in FRAMES],
    "Heun": [Heun(), Heun(frame=Plain())],
    "midpoint": [RungeKutta(MIDPOINT, frame) for frame in FRAMES],
    "Kutta": [RungeKutta(KUTTA, frame) for frame in FRAMES],
    "Dormand-Prince": [RungeKutta(DORMAND_PRINCE, frame) for frame in FRAMES],
    **{f"DEIS {k}": [DEIS(k)] for k in (1, 2, 3)},
    **{f"exponential {k}": [ExponentialAdamsBashforth(k, of) for of in ("x", "z")] for k in (1, 2, 3)},
    **{f"DPM-Solver {k}": [DPMSolver(k)] for k in (1, 2, 3)},
    "DPM-Solver++ 2M": [DPMSolverPlusPlus()],
    "PNDM, equal steps in sigma / alpha": [PNDM()],
    "PLMS": [PNDM(False)],
    "DDIM": [DDIM()],
}


def knows_time(solver):
    """Whether t is more than a label for it."""
    return isinstance(solver, DEIS) or isinstance(getattr(solver, "frame", None), Plain)


def slope(solver, process, most=512):
    """Of the error over the last three octaves in which it is above 1e-11."""
    errors = []
    for steps in 2 ** np.arange(1, int(np.log2(most)) + 1):
        found = error(solver, process, times(solver, process, int(steps)))
        if found < 1e-11:
            break
        errors.append(found)
    assert len(errors) > 3, errors
    return np.log2(errors[-4] / errors[-1]) / 3


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_declared_order_is_the_measured_one(name, measured):
    """For two steps and twice as many until the error is below 1e-11, or 512; where t matters with another clock too."""
    solvers = DETERMINISTIC[name]
    slopes = [slope(solver, PROCESSES["EDM"]) for solver in solvers]
    slopes += [slope(solver, PROCESSES["own"]) for solver in solvers if knows_time(solver)]
    order = solvers[0].order
    against = "the flow of a Gaussian, lambda from -3 to 4, last three octaves above 1e-11"
    said = f"at least {order} - 0.15"
    measured(type(solvers[0]), f"slope of the error, {name}", against, said, min(slopes), least=order - 0.15)


@pytest.mark.parametrize("law", ["linear log-SNR", "own"])
def test_time_is_a_label(law):
    """At the same ratios sigma / alpha the same field ``x_t / alpha_t``, whatever the process: so their orders are."""
    one, other = PROCESSES["EDM"], PROCESSES[law]
    for solver in itertools.chain(*DETERMINISTIC.values()):
        if knows_time(solver):
            continue
        grid = times(solver, one, 9)
        label = other.t_of_ratio(one.ratio(grid))
        label[0], label[-1] = other.t_max, other.t_min
        x = start(one)
        found = run(solver, other, label, x * float(other.alpha(label[0]))) / float(other.alpha(label[-1]))
        np.testing.assert_allclose(found, run(solver, one, grid, x), rtol=1e-10, err_msg=str(solver))


@pytest.mark.parametrize("law", PROCESSES)
def test_pseudo_numerical_weights_keep_two_orders_on_another_grid(law, measured):
    process, errors = PROCESSES[law], []
    for steps in (64, 128, 256, 512):
        errors.append(error(PNDM(), process, EvenTime()(process, steps)))
    found = np.log2(errors[0] / errors[-1]) / 3
    measured(
        PNDM,
        f"slope of the error, equal steps in t, {law}",
        "the flow of a Gaussian",
        "1.85 or more",
        found,
        least=1.85,
    )


def test_equal_first_steps_cost_adams_bashforth_an_order():
    """Why the default grid begins with a short step."""
    process, solver, errors = PROCESSES["EDM"], AdamsBashforth(3), []
    for steps in (64, 128, 256, 512):
        u = solver.frame.clock(process, at([process.t_max, process.t_min]))
        grid = solver.frame.time(process, u[1] + (u[0] - u[1]) * torch.linspace(1, 0, steps + 1, **F64))
        errors.append(error(solver, process, grid))
    assert 1.85 < np.log2(errors[0] / errors[-1]) / 3 < 2.3


@pytest.mark.parametrize("law", ["EDM", "linear log-SNR"])
def test_deis_of_order_one_is_ddim(law, measured):
    """Whatever the grid: the integral of rho' is the difference of rho."""
    process = PROCESSES[law]
    grid = EvenTime()(process, 12)
    off = np.abs(run(DEIS(1), process, grid, start(process)) - run(DDIM(), process, grid, start(process))).max()
    measured(DEIS, f"order 1, equal steps in t, {law}", "DDIM", 0, off, within=1e-12)


FINE = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
ADAPTIVE = {
    "Heun": (HEUN, Straight(), (1e-2, 1e-3, 1e-4, 1e-5, 1e-6), 10),
    **{f"Dormand-Prince, {type(f).__name__}": (DORMAND_PRINCE, f, FINE, 10) for f in (Plain(), Straight(), Angle())},
    # there of order six on a Gaussian, so that errors fall faster than tolerances
    "Dormand-Prince, Ratio": (DORMAND_PRINCE, Ratio(), FINE, 30),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps_keep_the_error_at_the_tolerance(name, measured):
    tableau, frame, tolerances, most = ADAPTIVE[name]
    process = PROCESSES["EDM"]
    x, ratios = start(process, 6), []
    for tolerance in tolerances:
        found = sample(
            Gaussian(MEAN, VARIANCES, process),
            torch.tensor(x),
            nfe=5000,
            solver=RungeKutta(tableau, frame),
            grid=Adaptive(relative=0.0, absolute=tolerance),
            denoise=False,
        )
        assert found.status == "done"
        away = found.x.numpy() - flow(process, x, process.t_max, process.t_min)
        ratios.append(np.sqrt(np.mean(away**2, axis=1)).max() / tolerance)
    against = "the flow of a Gaussian, 4 decades"
    measured(Adaptive, f"error over tolerance, {name}", against, "10 at most", max(ratios), most=10)
    spread = max(ratios) / min(ratios)
    measured(Adaptive, f"its largest over its smallest, {name}", against, f"{most} at most", spread, most=most)


def test_a_run_that_does_not_arrive_says_so():
    process = PROCESSES["EDM"]
    x, denoiser = torch.tensor(start(process)), Gaussian(MEAN, VARIANCES, process)
    found = sample(denoiser, x, nfe=50, solver=RungeKutta(DORMAND_PRINCE), grid=Adaptive(absolute=1e-9, relative=0.0))
    assert found.status == "not converged" and found.nfe <= 50


def test_a_run_that_does_not_arrive_is_denoised_where_each_row_is(measured):
    """By EDM a field m + sqrt(v + sigma^2) z says its sigma, and its E[x] is m + v / (v + sigma^2) (x_t - m)."""
    process, z = EDM(), np.random.default_rng(0).normal(size=(5, len(VARIANCES))) * np.geomspace(0.01, 10, 5)[:, None]
    m, v = np.asarray(MEAN), np.asarray(VARIANCES)
    law, x_1 = Gaussian(MEAN, VARIANCES, process), torch.tensor(m + np.sqrt(v + 80.0**2) * z)
    options = {"solver": RungeKutta(DORMAND_PRINCE), "grid": Adaptive(absolute=1e-6, relative=0.0)}
    there = sample(law, x_1, nfe=29, denoise=False, **options).x.numpy()
    found = sample(law, x_1, nfe=30, **options)
    sigma2 = (((there - m) / z) ** 2 - v).mean(1, keepdims=True)
    assert found.status == "not converged" and sigma2.max() > 100 * sigma2.min() > 1
    off = np.abs(found.x.numpy() - (m + v / (v + sigma2) * (there - m))).max()
    measured(Adaptive, "E[x] of rows on their way", "Gaussian conditioning", 0, off, within=1e-5)


# stochastic solvers: on a Gaussian a run is affine in its start and noises, so moments need no drawing


def moments(solver, process, grid, stages=1):
    """Mean and variance along each axis at the end, exactly.

    Row 0 starts at 0, row 1 at 1, both without noise; every other row starts at 0 and has one stage's noise of one step
    equal to 1.
    """
    kept: dict[tuple[int, int], int] = {}
    rows = 2 + (len(grid) - 1) * stages

    def draw(step, stage):
        row = kept.setdefault((step, stage), 2 + len(kept))
        noise = torch.zeros(rows, 4, **F64)
        noise[row] = 1.0
        return noise

    x = np.zeros((rows, 4))
    x[1] = 1.0
    end = run(solver, process, grid, x, draw)
    first, alpha = float(grid[0]), float(process.alpha(grid[0]))
    gain, added = end[1] - end[0], end[2:] - end[0]
    return end[0] + gain * alpha * MEAN, gain**2 * spread(process, first) ** 2 + (added**2).sum(0)


STOCHASTIC = {
    "DDPM, posterior variance": lambda steps: Ancestral("posterior"),
    "DDPM, upper variance": lambda steps: Ancestral("upper"),
    "DDIM, eta 1": lambda steps: DDIM(1.0),
    "DDIM, eta 0.5": lambda steps: DDIM(0.5),
    "Euler-Maruyama": lambda steps: EulerMaruyama(),
    "improved Euler": lambda steps: ImprovedEuler(),
    "reverse diffusion": lambda steps: ReverseDiffusion(),
    "SDE-DPM-Solver++": lambda steps: SDEDPMSolverPlusPlus(),
    # the corrector's own bias is of the order of its step, and churn is S_churn / steps
    "predictor-corrector": lambda steps: PredictorCorrector(EulerMaruyama(), Langevin(None, 1.0 / steps)),
    "churn": lambda steps: Heun(3.0 / steps, frame=Angle()),
}


@pytest.mark.parametrize("law", ["linear log-SNR", "EDM"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_weak_order_is_the_declared_one(name, law, measured):
    """Mean and variance at the end, with 256 and 512 steps."""
    process, errors = PROCESSES[law], []
    end = float(process.alpha(at(process.t_min)))
    for steps in (256, 512):
        solver = STOCHASTIC[name](steps)
        grid = times(Euler(Angle()), process, steps)
        mean, variance = moments(solver, process, grid, 2 if name == "predictor-corrector" else 1)
        off = np.abs(mean - end * MEAN).max(), np.abs(variance - spread(process, process.t_min) ** 2).max()
        errors.append(max(off))
    found = np.log2(errors[0] / errors[1])
    said, least = f"at least {solver.order} - 0.15", solver.order - 0.15
    measured(type(solver), f"weak slope, {name}, {law}", "mean and variance of a Gaussian", said, found, least=least)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("law", PROCESSES)
def test_the_learned_variance_is_exact_on_a_gaussian(law, measured):
    """With the true variance of what is not known of x each step is the true one, of any length."""
    process = PROCESSES[law]
    mean, variance = moments(Ancestral("learned"), process, EvenTime()(process, 2))
    off = np.abs(mean - float(process.alpha(at(process.t_min))) * MEAN).max()
    off = max(off, np.abs(variance / spread(process, process.t_min) ** 2 - 1).max())
    measured(Ancestral, f"moments of two steps, learned variance, {law}", "a Gaussian's", 0, off, within=1e-11)


def test_langevin_steps_leave_the_law_at_their_time(measured):
    """With step h a Gaussian of variance v comes to v / (1 - h / (2 v)): the known bias of unadjusted Langevin steps."""
    process, total = PROCESSES["EDM"], VARIANCES + 1.0
    _, variance = moments(Langevin(None, 0.2), process, at([0.5]).expand(401))
    off = np.abs(variance * (1 - 0.2 / (2 * total)) / total - 1).max()
    measured(Langevin, "variance after 400 steps, relative", "v / (1 - h / 2 v)", 0, off, within=1e-9)


@pytest.mark.parametrize("process", [NCSN(0.1, 1.0, 5), LinearLogSNR(3.0, -1.0)], ids=["NCSN", "linear log-SNR"])
def test_annealed_langevin_visits_every_level(process, measured):
    """Song & Ermon (2019), algorithm 1, written out: ``step = epsilon sigma_i^2 / sigma_L^2``, the last level included."""
    repeats, epsilon = 6, 0.03
    grid = (Nodes() if isinstance(process, NCSN) else EvenTime())(process, 4)
    found = moments(AnnealedLangevin(epsilon, repeats), process, grid, 2 * repeats)
    alphas, sigmas = process.alpha(grid).numpy(), process.sigma(grid).numpy()
    mean, variance = alphas[0] * MEAN, spread(process, 1.0) ** 2
    for before, alpha, sigma in zip([alphas[0], *alphas], alphas, sigmas):
        mean, variance = mean * alpha / before, variance * (alpha / before) ** 2
        step, total = epsilon * (sigma / sigmas[-1]) ** 2, alpha**2 * VARIANCES + sigma**2
        for _ in range(repeats):
            mean = mean - step / 2 * (mean - alpha * MEAN) / total
            variance = (1 - step / 2 / total) ** 2 * variance + step
    off = max(np.abs(found[0] - mean).max(), np.abs(found[1] - variance).max())
    name = f"moments of five levels, {type(process).__name__}"
    measured(AnnealedLangevin, name, "Song & Ermon (2019), algorithm 1", 0, off, within=1e-12)
