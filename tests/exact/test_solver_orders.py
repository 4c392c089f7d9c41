"""The order of every deterministic solver as a slope, and stochastic ones by exact propagation, on Gaussians."""

import itertools

import numpy as np
import pytest
import torch

from undrift.denoise.exact import Gaussian
from undrift.infer.sample import sample
from undrift.process import EDM, FromSchedule, LinearLogSNR
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.dpm_solver import DPMSolver
from undrift.solve.exponential import DEIS, DPMSolverPlusPlus, ExponentialAdamsBashforth, SDEDPMSolverPlusPlus
from undrift.solve.frames import Angle, Plain, Ratio, Straight
from undrift.solve.pndm import PNDM
from undrift.solve.runge_kutta import DORMAND_PRINCE, EULER, KUTTA, MIDPOINT, Euler, Heun, RungeKutta
from undrift.solve.sde import (
    AnnealedLangevin,
    EulerMaruyama,
    ImprovedEuler,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from undrift.solve.step_size import Adaptive

CPU = torch.device("cpu")
VARIANCES = np.array([4.0, 1.0, 0.3, 0.05])
MEAN = np.array([1.0, -2.0, 0.5, 0.0])
HIGH, LOW = 4.0, -3.0  # lambda at data and at noise
EDMS = EDM(float(np.exp(-LOW / 2)), float(np.exp(-HIGH / 2)))
BENT = FromSchedule(  # neither variance preserving nor exploding
    lambda t: (1.2 - t) / 1.2 * (1 + 0.3 * t), lambda t: 0.13 + 0.8 * t + 0.04 * t**2
)
PROCESSES = {"linear log-SNR": LinearLogSNR(HIGH, LOW), "EDM": EDMS, "own": BENT}


def spread(process, t):
    """Standard deviation of x_t along each axis."""
    t = torch.tensor(t, dtype=torch.float64, device=CPU)
    return np.sqrt(float(process.alpha(t)) ** 2 * VARIANCES + float(process.sigma(t)) ** 2)


def flow(process, x, t, s):
    """The probability flow of a Gaussian: standardised coordinates stay."""
    a_t, a_s = (float(process.alpha(torch.tensor(v, dtype=torch.float64))) for v in (t, s))
    return a_s * MEAN + spread(process, s) / spread(process, t) * (x - a_t * MEAN)


def clock_of(solver, process):
    """The solver's own variable and its inverse: a frame's clock, lambda for exponential methods, t for DEIS."""
    if hasattr(solver, "frame"):
        return lambda t: solver.frame.clock(process, t), lambda u: solver.frame.time(process, u)
    if isinstance(solver, PNDM | DDIM):
        return process.ratio, process.t_of_ratio
    if isinstance(solver, DEIS):
        return lambda t: t, lambda t: t
    return lambda t: -process.log_snr(t), lambda u: process.t_of_log_snr(-u)


def times(solver, process, steps, first=True):
    """A smooth grid in the solver's own variable; the first step of a multistep method is h^1.5 in units of the whole."""
    forward, back = clock_of(solver, process)
    start, stop = (float(forward(torch.tensor(v, dtype=torch.float64))) for v in (process.t_max, process.t_min))
    shares = np.linspace(0, 1, steps + 1)
    shares = shares + 0.1 * shares * (1 - shares)  # not even, but smooth
    if first:
        short = steps**-1.5
        shares = np.concatenate([[0], short + (1 - short) * np.linspace(0, 1, steps)])
    if isinstance(solver, PNDM) and solver.warm_up:
        shares = np.linspace(0, 1, steps + 1)
    made = back(torch.tensor(start + (stop - start) * shares, dtype=torch.float64))
    made[0], made[-1] = process.t_max, process.t_min
    return made


def start(process, count=6):
    rng = np.random.default_rng(0)
    alpha = float(process.alpha(torch.tensor(process.t_max, dtype=torch.float64)))
    return alpha * MEAN + spread(process, process.t_max) * rng.normal(size=(count, 4))


def run(solver, process, grid, x):
    f = Gaussian(MEAN, VARIANCES, process)
    state = solver.init(torch.tensor(x))
    for t, s in itertools.pairwise(grid):
        state = solver.step(lambda x_t, at: f(x_t, at.expand(len(x_t))), state, process, t, s, None)
    return state.x.numpy()


DETERMINISTIC = {
    **{
        f"Adams-Bashforth {k}, {type(frame).__name__}": AdamsBashforth(k, frame)
        for k in (1, 2, 3)
        for frame in (Plain(), Ratio(), Straight(), Angle())
    },
    **{
        f"{name}, {type(frame).__name__}": RungeKutta(tableau, frame)
        for name, tableau in {
            "Euler": EULER,
            "midpoint": MIDPOINT,
            "Kutta": KUTTA,
            "Dormand-Prince": DORMAND_PRINCE,
        }.items()
        for frame in (Plain(), Ratio(), Straight(), Angle())
    },
    "Heun": Heun(),
    "Euler": Euler(),
    **{f"DEIS {k}": DEIS(k) for k in (1, 2, 3)},
    **{f"exponential {of} {k}": ExponentialAdamsBashforth(k, of) for k in (1, 2, 3) for of in ("x", "z")},
    **{f"DPM-Solver {k}": DPMSolver(k) for k in (1, 2, 3)},
    "DPM-Solver++ 2M": DPMSolverPlusPlus(),
    "PNDM": PNDM(),
    "PLMS": PNDM(False),
    "DDIM": DDIM(),
}


@pytest.mark.parametrize("law", PROCESSES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_declared_order_is_the_measured_one(name, law):
    """The slope of the error over three octaves above 1e-11, the finest that are needed to see it."""
    solver, process = DETERMINISTIC[name], PROCESSES[law]
    x = start(process)
    exact = flow(process, x, process.t_max, process.t_min)
    errors = []
    single = not isinstance(solver, AdamsBashforth | DEIS | ExponentialAdamsBashforth | DPMSolverPlusPlus)
    for steps in (4, 8, 16, 32, 64, 128, 256, 512):
        error = np.abs(run(solver, process, times(solver, process, steps, not single), x) - exact).max()
        if error < 1e-11:
            break
        errors.append(error)
        slope = np.log2(errors[-4] / errors[-1]) / 3 if len(errors) > 3 else 0.0
        if steps >= 64 and slope >= solver.order - 0.1:
            break
    assert slope >= solver.order - 0.15, (slope, errors)


@pytest.mark.parametrize("law", PROCESSES)
def test_pseudo_numerical_weights_keep_two_orders_on_another_grid(law):
    process, solver = PROCESSES[law], PNDM()
    x, errors = start(process), []
    for steps in (64, 128, 256, 512):
        grid = torch.linspace(process.t_max, process.t_min, steps + 1, dtype=torch.float64)
        errors.append(np.abs(run(solver, process, grid, x) - flow(process, x, process.t_max, process.t_min)).max())
    slope = np.log2(errors[0] / errors[-1]) / 3
    assert slope > 1.85, errors


def test_equal_first_steps_cost_adams_bashforth_an_order():
    """Why the default grid begins with a short step."""
    process, solver = PROCESSES["linear log-SNR"], AdamsBashforth(3)
    x, errors = start(process), []
    for steps in (64, 128, 256, 512):
        clock = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        u = solver.frame.clock(process, torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
        grid = solver.frame.time(process, u[1] + (u[0] - u[1]) * clock)
        errors.append(np.abs(run(solver, process, grid, x) - flow(process, x, process.t_max, process.t_min)).max())
    assert np.log2(errors[0] / errors[-1]) / 3 < 2.3


@pytest.mark.parametrize("frame", [Plain(), Straight(), Angle()], ids=["plain", "straight", "angle"])
@pytest.mark.parametrize("law", PROCESSES)
def test_adaptive_steps_keep_the_error_at_the_tolerance(law, frame):
    process = PROCESSES[law]
    x, denoiser = start(process), Gaussian(MEAN, VARIANCES, process)
    exact = flow(process, x, process.t_max, process.t_min)
    ratios = []
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
        grid = Adaptive(relative=0.0, absolute=tolerance)
        found = sample(
            denoiser, torch.tensor(x), nfe=5000, solver=RungeKutta(DORMAND_PRINCE, frame), grid=grid, denoise=False
        )
        assert found.status == "done"
        ratios.append(np.sqrt(np.mean((found.x.numpy() - exact) ** 2, axis=1)).max() / tolerance)
    assert max(ratios) < 10 and max(ratios) / min(ratios) < 100, ratios
    assert min(ratios) > 1e-3


def test_a_run_that_does_not_arrive_says_so():
    process = PROCESSES["EDM"]
    x, denoiser = torch.tensor(start(process)), Gaussian(MEAN, VARIANCES, process)
    found = sample(denoiser, x, nfe=50, solver=RungeKutta(DORMAND_PRINCE), grid=Adaptive(absolute=1e-9, relative=0.0))
    assert found.status == "not converged" and found.nfe <= 50
    with pytest.raises(ValueError, match="estimates no error"):
        sample(denoiser, x, nfe=50, solver=Euler(), grid=Adaptive())


# stochastic solvers: every step is affine on a Gaussian, so mean and variance are propagated without drawing anything


def propagated(solver, process, grid, stages, law):
    """Mean and variance along each axis at the end: the step applied to 0, to 1, and to each stage's noise."""
    zero, one = torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    first = float(grid[0])
    alpha = float(process.alpha(grid[0]))
    mean, variance = torch.tensor(alpha * MEAN)[None], torch.tensor(spread(process, first) ** 2)[None]

    def step(x, t, s, noise):
        f = lambda x_t, at: law(x_t, at.expand(len(x_t)))  # noqa: E731
        return solver.step(f, solver.init(x), process, t, s, lambda stage: noise.get(stage, zero)).x

    for t, s in itertools.pairwise(grid):
        base = step(zero, t, s, {})
        gain = step(one, t, s, {}) - base
        added = [step(zero, t, s, {stage: one}) - base for stage in stages]
        mean = base + gain * mean
        variance = gain**2 * variance + sum(a**2 for a in added)
    return mean.numpy()[0], variance.numpy()[0]


def stages_of(solver):
    if isinstance(solver, AnnealedLangevin):
        return range(solver.repeats)
    if isinstance(solver, PredictorCorrector):
        return [0, *(100 * (i + 1) for i in range(solver.corrections))]
    return [0]


STOCHASTIC = {
    "DDPM, posterior variance": Ancestral("posterior"),
    "DDPM, upper variance": Ancestral("upper"),
    "DDIM, eta 1": DDIM(1.0),
    "DDIM, eta 0.5": DDIM(0.5),
    "Euler-Maruyama": EulerMaruyama(),
    "improved Euler": ImprovedEuler(),
    "reverse diffusion": ReverseDiffusion(),
    "predictor-corrector": PredictorCorrector(EulerMaruyama(), Langevin(None, 0.01)),
    "churn": Heun(0.3, frame=Angle()),
}


@pytest.mark.parametrize("law", ["linear log-SNR", "EDM"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_weak_order_is_the_declared_one(name, law):
    solver, process = STOCHASTIC[name], PROCESSES[law]
    denoiser, errors = Gaussian(MEAN, VARIANCES, process), []
    end = float(process.alpha(torch.tensor(process.t_min, dtype=torch.float64)))
    for steps in (256, 512):
        grid = times(RungeKutta(EULER, Angle()), process, steps, first=False)
        if name == "churn":  # as S_churn / steps is
            solver = Heun(3.0 / steps, frame=Angle())
        if name == "predictor-corrector":  # whose own bias is of the order of its step
            solver = PredictorCorrector(EulerMaruyama(), Langevin(None, 1.0 / steps))
        mean, variance = propagated(solver, process, grid, stages_of(solver), denoiser)
        errors.append(
            max(np.abs(mean - end * MEAN).max(), np.abs(variance - spread(process, process.t_min) ** 2).max())
        )
    slope = np.log2(errors[-2] / errors[-1])
    declared = 2 if name == "churn" else solver.order
    assert declared - 0.15 <= slope, (slope, errors)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("law", PROCESSES)
def test_the_learned_variance_is_exact_on_a_gaussian(law):
    """With the true variance of what is not known of x each step is the true one, of any length."""
    process = PROCESSES[law]
    denoiser = Gaussian(MEAN, VARIANCES, process)
    grid = torch.tensor([process.t_max, 0.5 * (process.t_max + process.t_min), process.t_min], dtype=torch.float64)
    mean, variance = propagated(Ancestral("learned"), process, grid, [0], denoiser)
    alpha = float(process.alpha(grid[-1]))
    np.testing.assert_allclose(mean, alpha * MEAN, atol=1e-12)
    np.testing.assert_allclose(variance, spread(process, process.t_min) ** 2, rtol=1e-12)


def test_langevin_steps_leave_the_law_at_their_time():
    """With step h a Gaussian of variance v comes to v / (1 - h / (2 v)): the known bias of unadjusted Langevin steps."""
    process = PROCESSES["EDM"]
    t = torch.tensor(0.5, dtype=torch.float64)
    total = VARIANCES + 1.0
    grid = t.expand(4000)
    _, variance = propagated(Langevin(None, 0.05), process, grid, [0], Gaussian(MEAN, VARIANCES, process))
    np.testing.assert_allclose(variance, total / (1 - 0.05 / (2 * total)), rtol=1e-9)


def test_annealed_langevin_at_each_level():
    """Many small steps a level leave the variance of each level, v + sigma^2, up to their bias; the last one's remains."""
    process = EDM(1.0, 0.1)
    t = torch.tensor([process.t_max, 0.3, 0.2, process.t_min, process.t_min], dtype=torch.float64)
    solver, t = AnnealedLangevin(0.02, repeats=1), t.repeat_interleave(800)
    mean, variance = propagated(solver, process, t, [0], Gaussian(MEAN, VARIANCES, process))
    total = VARIANCES + 0.01
    np.testing.assert_allclose(variance, total / (1 - 0.02 / (4 * total)), rtol=3e-3)
    np.testing.assert_allclose(mean, MEAN, atol=0.05)


def test_the_sde_form_of_dpm_solver_has_its_order():
    """Multistep: the history is carried along, so whole runs are affine in start and noises."""
    process = PROCESSES["linear log-SNR"]
    denoiser, errors = Gaussian(MEAN, VARIANCES, process), []
    zero, one = torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    for steps in (16, 32, 64):
        grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)

        def end(x, at=None, grid=grid):
            solver = SDEDPMSolverPlusPlus()
            state = solver.init(x)
            f = lambda x_t, t: denoiser(x_t, t.expand(len(x_t)))  # noqa: E731
            for i, (t, s) in enumerate(itertools.pairwise(grid)):
                state = solver.step(f, state, process, t, s, lambda stage, i=i: one if i == at else zero)
            return state.x

        base = end(zero)
        alpha = float(process.alpha(grid[0]))
        gain = end(one) - base
        mean = base + gain * torch.tensor(alpha * MEAN)
        variance = gain**2 * torch.tensor(spread(process, 1.0) ** 2)
        variance = variance + sum((end(zero, i) - base) ** 2 for i in range(steps))
        last = float(process.alpha(grid[-1]))
        errors.append(
            max(np.abs(mean.numpy() - last * MEAN).max(), np.abs(variance.numpy() - spread(process, 0.0) ** 2).max())
        )
    slope = np.log2(errors[0] / errors[-1]) / 2
    assert slope >= SDEDPMSolverPlusPlus().order - 0.15, (slope, errors)
