"""Draws by every solver that adds noise against draws of the law itself: shares of modes, spreads and all the rest.

The law is a mixture, the start is from the exact law of x_1, and steps are so many that their bias is below what the
draws can see (of 24 other seeds the mean p of each solver was 0.43 to 0.62). The null of the test is then known: the
statistic is one of a thousand, its permutations the others, in random order. A solver without bias fails where none of them
reaches it: for 1 of 1000 seeds, and any of the twelve for 1.2 % of them. Seeds are fixed, so that this is the rate of
false alarms of changes that draw other noise.
"""

import importlib
import inspect
import itertools
import pkgutil

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from undrift import solve
from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Mixture
from undrift.infer.sample import sample
from undrift.process import EDM, NCSN, LinearBeta, LinearLogSNR
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.exponential import SDEDPMSolverPlusPlus
from undrift.solve.grid import EvenLogSNR, Karras, Nodes
from undrift.solve.runge_kutta import Heun
from undrift.solve.sde import (
    AnnealedLangevin,
    EulerMaruyama,
    ImprovedEuler,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from undrift.solve.solver import Solver, State
from undrift.solve.step_size import Adaptive

MODES, STD, SHARES = np.array([[-2.0, 0.0], [1.0, 1.5], [1.5, -1.0]]), 0.4, np.array([0.2, 0.5, 0.3])
ROWS, CELLS, PERMUTATIONS = 10, 100, 999
LEAST = 2 / (PERMUTATIONS + 1)  # of p: the statistic reached by one permutation


def drawn(rng, shares=SHARES):
    n = ROWS * CELLS
    return MODES[rng.choice(3, n, p=shares)] + STD * rng.normal(size=(n, 2))


def p_value(x, y):
    """Share of permutations whose maximum mean discrepancy is as large (Gretton et al. 2012, kernel as the modes)."""
    both, rng = np.concatenate([x, y]), np.random.default_rng(0)
    kernel = np.exp(-cdist(both, both, "sqeuclidean") / (2 * STD**2))
    signs = np.repeat([1.0, -1.0], len(x))[None].repeat(PERMUTATIONS + 1, 0)
    signs[1:] = rng.permuted(signs[1:], axis=1)
    found = ((signs @ kernel) * signs).sum(1)
    return (1 + (found[1:] >= found[0]).sum()) / (PERMUTATIONS + 1)


class Points(Denoiser):
    """Fields of two channels (B, 2, cells) whose cells are draws by themselves."""

    def __init__(self, process):
        self.process, self.law = process, Mixture(MODES, STD, SHARES, process)

    def __call__(self, x_t, t, condition=None):
        cells = x_t.movedim(1, -1)
        found = self.law(cells.reshape(-1, 2), t.repeat_interleave(cells.shape[1]))
        x, z, variance = (v.reshape(cells.shape).movedim(-1, 1) for v in (found.x, found.z, found.variance))
        return Estimate(x, z, self.process, t, variance=variance)


VP, EVEN = LinearLogSNR(8.0, -8.0), EvenLogSNR()
RUNS = {  # process, solver, evaluations at most, grid
    "DDPM": (VP, Ancestral(), 200, EVEN),
    "DDPM, upper": (VP, Ancestral("upper"), 200, EVEN),
    "DDPM, learned": (VP, Ancestral("learned"), 100, EVEN),
    "DDIM, eta 1/2": (VP, DDIM(0.5), 200, EVEN),
    "SDE-DPM-Solver++": (VP, SDEDPMSolverPlusPlus(), 100, EVEN),
    "Euler-Maruyama": (VP, EulerMaruyama(), 300, EVEN),
    "adaptive": (LinearBeta(), ImprovedEuler(), 2000, Adaptive(0.01, 0.01)),
    "reverse diffusion": (VP, ReverseDiffusion(), 300, EVEN),
    "corrected by signal to noise": (VP, PredictorCorrector(ReverseDiffusion(), Langevin(0.16)), 400, EVEN),
    "corrected by a share": (VP, PredictorCorrector(ReverseDiffusion(), Langevin(None, 0.05)), 400, EVEN),
    "annealed Langevin": (NCSN(0.03, 2.0, 40), AnnealedLangevin(0.5 * 0.03**2, 25), 1001, Nodes()),
    "churn": (EDM(80.0, 0.002), Heun(churn=0.2), 100, Karras()),
}


@pytest.mark.parametrize("name", RUNS)
def test_draws_of_a_mixture_are_draws_of_it(name, measured):
    (process, solver, nfe, grid), rng = RUNS[name], np.random.default_rng(0)
    t = torch.tensor(process.t_max, dtype=torch.float64)
    x_1 = float(process.alpha(t)) * drawn(rng) + float(process.sigma(t)) * rng.normal(size=(ROWS * CELLS, 2))
    start = torch.tensor(x_1).reshape(ROWS, CELLS, 2).movedim(-1, 1).contiguous()
    draw = sample(Points(process), start, nfe=nfe, solver=solver, grid=grid)
    assert draw.status == "done"
    p = p_value(draw.x.movedim(1, -1).reshape(-1, 2).numpy(), drawn(rng))
    quantity = f"p-value of 1000 draws, {name}"
    measured(type(solver), quantity, "a mixture's own draws, kernel two-sample test", "0.002 or more", p, least=LEAST)


def points(solver, steps=200):
    """A thousand rows of two numbers each, stepped by hand with noise drawn for all rows at once."""
    generator, rng, law = torch.Generator().manual_seed(0), np.random.default_rng(0), Mixture(MODES, STD, SHARES, VP)
    times, shape = EVEN(VP, steps), (ROWS * CELLS, 2)
    x_1 = float(VP.alpha(times[0])) * drawn(rng) + float(VP.sigma(times[0])) * rng.normal(size=shape)
    state, rows = State(torch.tensor(x_1)), torch.ones(len(x_1), dtype=torch.float64)

    def draw(stage):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    for t, s in itertools.pairwise(times):
        state = solver.step(law, state, VP, t * rows, s * rows, draw)
    return p_value(law(state.x, times[-1] * rows).x.numpy(), drawn(rng))


def test_langevin_steps_draw_rows_of_two_numbers(measured):
    """Those whose length follows the score of the row, as in Song et al., do not."""
    p, against = points(PredictorCorrector()), "a mixture's own draws, kernel two-sample test"
    measured(PredictorCorrector, "p-value of 1000 rows of two numbers", against, "0.002 or more", p, least=LEAST)
    assert points(PredictorCorrector(corrector=Langevin(0.16))) < LEAST


def test_the_test_would_notice():
    """Of a spread a quarter too large, a shift by 0.4 of it, and a tenth of the draws that are in another mode."""
    rng = np.random.default_rng(0)
    x, y = drawn(rng), drawn(rng)
    assert p_value(x, y) > 0.05
    assert p_value(x + 0.3 * rng.normal(size=x.shape), y) < LEAST
    assert p_value(x + np.array([0.15, 0.0]), y) < LEAST
    assert p_value(drawn(rng, [0.3, 0.4, 0.3]), y) < LEAST


def test_no_solver_with_noise_is_left_out():
    """What says of itself, or of one of its instances, that it is stochastic."""
    modules = [
        importlib.import_module(f"{solve.__name__}.{found.name}") for found in pkgutil.iter_modules(solve.__path__)
    ]
    public = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    solvers = {value for value in public if isinstance(value, type) and issubclass(value, Solver)}
    noisy = {value.__name__ for value in solvers if "stochastic = " in inspect.getsource(value)}
    run = [solver for _, solver, _, _ in RUNS.values()]
    run += [part for solver in run if isinstance(solver, PredictorCorrector) for part in vars(solver).values()]
    assert noisy == {type(solver).__name__ for solver in run if isinstance(solver, Solver)}
