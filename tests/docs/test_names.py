"""The page of names: each row is built from its cells, trained for one batch and run, on data whose denoiser is known."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from test_pages import NAMES, PAGES, tables

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.guess import FoldedGuess, GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.denoise.targets import LearnedRange, Target
from undrift.infer.sample import sample
from undrift.process import Bridge, DataToData, MinibatchOT, Noise, Process, White
from undrift.solve.grid import TimeGrid
from undrift.solve.sde import AnnealedLangevin
from undrift.solve.solver import Solver
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Batch

MEAN, STD = 0.4, 0.8  # of every cell of the data, independent
OTHER_MEAN, OTHER_STD = -1.0, 1.5  # of the data at the other end of a path
HEADER, *LINES = tables(PAGES["names"])
ROWS = {re.search(r"\*\*(.+?)\*\*|^(the same.*)$", line[0])[0].strip("*"): line[1:] for line in LINES}
ANY = {  # for a solver that goes with any of them
    "process": ["RectifiedFlow()", "EDM(80.0, 0.002)"],
    "target": ["X()"],
}


def made(row, column):
    """What stands as code in a cell."""
    cell = row[column]
    code = ANY[("process", "target")[column]] if cell == "any" else re.findall(r"`([^`]+)`", cell)
    return [eval(span, dict(NAMES)) for span in code]


def of_kind(kind, things):
    return [thing for thing in things if isinstance(thing, kind)]


def runs(row):
    """Pairs of solver and grid: of as many each the one with the other."""
    solvers, grids = of_kind(Solver, made(row, 4)), of_kind((TimeGrid, Adaptive), made(row, 5))
    solvers = solvers or [None]
    return (
        list(zip(solvers, grids, strict=True))
        if len(grids) == len(solvers)
        else list(itertools.product(solvers, grids))
    )


def across(values, x):
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def pair(process, t, x_t):
    """E[x | x_t], E[z | x_t] and var(x | x_t) for white noise: lines in x_t."""
    alpha, sigma = across(process.alpha(t), x_t), across(process.sigma(t), x_t)
    whole = alpha**2 * STD**2 + sigma**2
    away = x_t - alpha * MEAN
    return MEAN + alpha * STD**2 / whole * away, sigma / whole * away, STD**2 * sigma**2 / whole


def transported(process, t, x_t):
    """The ends of the straight line through x_t of the optimal transport between N(0, 1) and the data: x = m + s z."""
    alpha, sigma = across(process.alpha(t), x_t), across(process.sigma(t), x_t)
    z = (x_t - alpha * MEAN) / (alpha * STD + sigma)
    return MEAN + STD * z, z, None


def bridged(process, t, x_t, bridge):
    """E[velocity | x_t] between two Gaussians with noise between them."""
    alpha, sigma, gamma = (across(v, x_t) for v in (process.alpha(t), process.sigma(t), bridge.gamma(t)))
    away = x_t - alpha * MEAN - sigma * OTHER_MEAN
    away = away / (alpha**2 * STD**2 + sigma**2 * OTHER_STD**2 + gamma**2)
    x, y = MEAN + alpha * STD**2 * away, OTHER_MEAN + sigma * OTHER_STD**2 * away
    return y - x + across(bridge.gamma_dot(t), x_t) * gamma * away  # of alpha = 1 - t, sigma = t


def learned(target, process, t, found):
    """Their v in [-1, 1] for the right variance of DDPM's step; at the last step there is no range."""
    s = target.previous(t).clamp(min=process.t_min)
    s = torch.where(t <= process.t_min, t / 2, s)
    law, most = process.posterior(s, t), process.transition(s, t).variance
    right = across(law.variance, found) + across(law.from_clean, found) ** 2 * found
    least, most = across(law.variance, found), across(most, found)
    v = 2 * (right / least).log() / (most / least).log() - 1
    return torch.where(across(t, v) <= process.t_min, 0.0, v)


def predicted(target, process, t, x_t, x, z, variance):
    """What a network with this target says of known x and z, by the formulas of the papers."""
    if isinstance(target, LearnedRange):
        first = predicted(target.target, process, t, x_t, x, z, None)
        return torch.cat([first, learned(target, process, t, variance).expand_as(first)], 1)
    alpha, sigma = across(process.alpha(t), x_t), across(process.sigma(t), x_t)
    kind = type(target).__name__
    if kind == "F":
        y, ratio, data = x_t / alpha, sigma / alpha, target.sigma_data
        return (x - data**2 / (data**2 + ratio**2) * y) * (data**2 + ratio**2) ** 0.5 / (ratio * data)
    if kind == "Velocity":
        return across(process.alpha_dot(t), x) * x + across(process.sigma_dot(t), x) * z
    return {"Eps": z, "X": x, "V": alpha * z - sigma * x, "Score": -z / sigma}[kind]


def network(target, process, estimates, wrong):
    """The exact network, or one whose output is too large by three tenths and shifted."""

    def fn(x_t, t):
        out = predicted(target, process, t, x_t, *estimates(process, t, x_t))
        first, rest = out[:, : x_t.shape[1]], out[:, x_t.shape[1] :]
        return torch.cat([(1 + 0.3 * wrong) * first + 0.3 * wrong, rest], 1)

    return fn


def student(noise):
    """As :func:`pair`, of noise that is Gaussian given its scale, one for all cells: dof / scale^2 is chi-squared."""
    dof = noise.dof
    log_scale = torch.linspace(-2, 14, 400) if dof == 1 else torch.linspace(-0.6, 0.8, 100)
    scale2 = (2 * log_scale.double()).exp()
    prior = -dof * log_scale - dof / (2 * scale2)  # of the logarithm of the scale, up to a constant

    def estimates(process, t, x_t):
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        away, whole = x_t - across(alpha, x_t) * MEAN, alpha**2 * STD**2 + sigma**2 * scale2
        square = away.square().flatten(1).sum(1, keepdim=True)
        weight = (prior - x_t[0].numel() / 2 * whole.log() - square / (2 * whole)).softmax(1)
        x = MEAN + across(alpha[:, 0] * STD**2 * (weight / whole).sum(1), x_t) * away
        return x, across(sigma[:, 0] * (weight * scale2 / whole).sum(1), x_t) * away, None

    return estimates


def larger(objective, batch, right, wrong):
    """The wrong network's loss is larger on the same draws, by standard errors."""
    more = (objective(batch, wrong, 0)[0] - objective(batch, right, 0)[0]).detach().numpy()
    assert more.mean() > 4 * more.std() / math.sqrt(len(more)), type(objective).__name__


def data(shape, mean=MEAN, std=STD, seed=0):
    return mean + std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standard(shape):
    """Numbers of mean 0 and variance 1 as they stand."""
    z = data(shape, 0.0, 1.0, 1)
    return (z - z.mean()) / z.std(correction=0)


def drawn(denoiser, start, solver, grid):
    most = 2000 if isinstance(grid, Adaptive) else 1001 if isinstance(solver, AnnealedLangevin) else 300
    found = sample(denoiser, start, nfe=most, solver=solver, grid=grid)
    assert found.status == "done"
    return found.x


def holds(x, independent):
    """Mean and spread of draws are those of the data, within 4.5 standard errors of so many independent numbers."""
    errors = 4.5 / math.sqrt(independent) if independent else 0.0
    assert abs(float(x.mean()) - MEAN) < STD * (0.02 + errors)
    assert abs(float(x.std()) / STD - 1) < 0.03 + errors


def setup(row):
    """Process, target, objectives and noise of a row, the objectives with its law of t."""
    things = made(row, 0)
    objectives, laws = [thing for thing in made(row, 2) if not isinstance(thing, type)], made(row, 3)
    for objective in objectives:
        if laws and not isinstance(objective.times, torch.Tensor):
            objective.times = laws[0]
    noises = of_kind(Noise, things)
    return of_kind(Process, things), of_kind(Target, made(row, 1)), objectives, noises[0] if noises else White()


PLAIN = [name for name in ROWS if name not in ("Stochastic interpolants", "undrift's default")]


@pytest.mark.parametrize("name", PLAIN)
def test_a_row_is_a_model(name):
    """The exact network has a smaller loss than another, and what is drawn has the mean and spread of the data."""
    processes, targets, objectives, noise = setup(ROWS[name])
    assert processes and targets
    transports = any(isinstance(getattr(objective, "coupling", None), MinibatchOT) for objective in objectives)
    white = isinstance(noise, White)
    estimates = transported if transports else pair if white else student(noise)
    for process, target in itertools.product(processes, targets):
        right, wrong = (
            Denoiser.from_callable(
                network(target, process, estimates, by), predicts=target, process=process, noise=noise
            )
            for by in (0, 1)
        )
        for objective in objectives:
            larger(objective, Batch.of(data((400, 1, 1) if transports else (3000, 1, 3))), right, wrong)
        for solver, grid in runs(ROWS[name]):
            t = torch.tensor(process.t_max, dtype=torch.float64)
            alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
            if white:
                start = alpha * MEAN + math.hypot(alpha * STD, sigma) * standard((4, 1, 1000))
            else:
                start = alpha * data((400, 1, 3)) + sigma * noise.draw((400, 1, 3), torch.Generator().manual_seed(1))
            random = not white or (solver is not None and solver.stochastic)
            holds(drawn(right, start, solver, grid), start.numel() if random else 0)


def test_the_row_of_stochastic_interpolants():
    """Between two data sets, with noise on the way."""
    row = ROWS["Stochastic interpolants"]
    (process,), (target,), (objective,), _ = setup(row)
    assert isinstance(objective.bridge, Bridge) and made(row, 0)[1] is DataToData
    other = data((3000, 1, 3), OTHER_MEAN, OTHER_STD, 2)
    objective.coupling = DataToData(other)

    def velocity(by):
        return lambda x_t, t: (1 + 0.3 * by) * bridged(process, t, x_t, objective.bridge) + 0.3 * by

    right, wrong = (
        Denoiser.from_callable(velocity(by), predicts=target, process=process, noise=objective.coupling.noise)
        for by in (0, 1)
    )
    larger(objective, Batch.of(data((3000, 1, 3))), right, wrong)
    ((solver, grid),) = runs(row)
    holds(drawn(right, OTHER_MEAN + OTHER_STD * standard((4, 1, 1000)), solver, grid), 0)


class ExactF(torch.nn.Module):
    """EDM's F of the data around a white guess, of the scaled field and atan(sigma)."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, scaled, label, vector=None):
        ratio = across(label.double().tan(), scaled).double()
        y = scaled.double() * (1 + ratio**2) ** 0.5
        x = MEAN + STD**2 / (STD**2 + ratio**2) * (y - MEAN)
        return (1 + 0.3 * self.wrong) * (x - y / (1 + ratio**2)) * (1 + ratio**2) ** 0.5 / ratio + 0.3 * self.wrong


def test_the_row_of_the_default():
    """Its own objective takes the network, its denoiser is around it; solver and grid are what `sample` takes."""
    row = ROWS["undrift's default"]
    (process,), (kind,), (objective,), (times,) = (made(row, column) for column in range(4))
    assert kind is Preconditioned
    guess = GaussianGuess(floor=1.0)
    loss = objective(process, FoldedGuess([guess]), times)
    larger(loss, Batch.of(data((3000, 1, 3))), ExactF(0), ExactF(1))
    start = 80 * standard((4, 1, 1000))
    ((solver, grid),) = runs(row)
    right = Preconditioned(ExactF(0), process, guess)
    found = drawn(right, start, solver, grid)
    holds(found, 0)
    assert np.array_equal(found, sample(right, start, nfe=300).x)


def test_every_row_is_built():
    assert set(ROWS) - set(PLAIN) == {"Stochastic interpolants", "undrift's default"} and len(ROWS) == len(LINES) == 16


def test_the_table_is_made_of_names():
    """Whatever stands as code in it can be typed."""
    spans = [span for row in tables(PAGES["names"]) for span in re.findall(r"`([^`]+)`", " ".join(row))]
    assert len(spans) > 40
    for span in spans:
        eval(span, dict(NAMES))
