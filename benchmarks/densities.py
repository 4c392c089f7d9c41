"""Learned densities of three laws in the plane, against the laws themselves.

    python benchmarks/densities.py --out benchmarks/results/densities.json --figures docs/images

A perceptron learns each law from 500,000 draws in two minutes. Its log-density, through the probability-flow ODE, is
compared on 20,000 fresh draws: ``KL = mean (log p - log q)`` with its paired standard error, in nats, which can
approach 0 and never be below it by more than chance. The 8 Gaussians, the checkerboard and the Swiss roll are those of
FFJORD (Grathwohl et al. 2018, https://arxiv.org/abs/1810.01367). The last figure is the Swiss roll on its way to noise
and back, as in figure 1 of Sohl-Dickstein et al. (2015), https://arxiv.org/abs/1503.03585.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.infer import log_prob, sample
from undrift.nets import MLP
from undrift.objective import EDMWeight, LogNormal, ScoreMatching
from undrift.process import EDM
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.grid import ShortFirst
from undrift.train.settings import Settings
from undrift.train.tensors import fit

Points = NDArray[np.float64]
DRAWS, FRESH, CHUNK = 500_000, 20_000, 5_000


@dataclass(frozen=True)
class Law:
    """A law with its log-density; the bar is the largest KL wanted."""

    draw: Callable[[int, np.random.Generator], Points]
    log_p: Callable[[Points], Points]
    bar: float


def _normal(x: Points, means: Points, std: float, weights: Points) -> Points:
    square = ((x[:, None] - means) ** 2).sum(-1) / std**2
    return logsumexp(-square / 2, b=weights, axis=1) - math.log(2 * math.pi * std**2)


def eight_gaussians() -> Law:
    angle = np.arange(8) * math.pi / 4
    means, std = 4 * np.stack([np.cos(angle), np.sin(angle)], 1) / math.sqrt(2), 0.5 / math.sqrt(2)

    def draw(n: int, rng: np.random.Generator) -> Points:
        return means[rng.integers(8, size=n)] + std * rng.standard_normal((n, 2))

    return Law(draw, lambda x: _normal(x, means, std, np.full(8, 1 / 8)), 0.03)


def checkerboard() -> Law:
    def draw(n: int, rng: np.random.Generator) -> Points:
        x = rng.uniform(-2, 2, n)
        y = rng.uniform(0, 1, n) - 2 * rng.integers(0, 2, n) + np.floor(x) % 2
        return 2 * np.stack([x, y], 1)

    return Law(draw, lambda x: np.full(len(x), -math.log(32)), 0.10)


def swiss_roll() -> Law:
    def curve(u: Points) -> Points:
        turn = 1.5 * math.pi * (1 + 2 * u)
        return np.stack([turn * np.cos(turn), turn * np.sin(turn)], 1) / 5

    nodes, weights = np.polynomial.legendre.leggauss(400)
    means = curve((nodes + 1) / 2)

    def draw(n: int, rng: np.random.Generator) -> Points:
        return curve(rng.uniform(size=n)) + 0.2 * rng.standard_normal((n, 2))

    return Law(draw, lambda x: _normal(x, means, 0.2, weights / 2), 0.03)


LAWS = {"8 Gaussians": eight_gaussians(), "checkerboard": checkerboard(), "Swiss roll": swiss_roll()}


def learned(law: Law, seconds: float, seed: int) -> tuple[Denoiser, int]:
    """A denoiser of the law, and the steps that it was trained for."""
    x = torch.tensor(law.draw(DRAWS, np.random.default_rng(seed)), dtype=torch.float32)
    scale = float(x.std())
    torch.manual_seed(seed)
    net = MLP(2, width=256, layers=4)
    denoiser = Preconditioned(net, EDM(sigma_max=30.0, sigma_min=0.002), GaussianGuess(floor=scale**2))
    objective = ScoreMatching(EDMWeight(scale), LogNormal(math.log(scale) - 2.0, 1.6))
    settings = Settings(budget=seconds, learning_rate=3e-3, weight_decay=0.0, ema=0.1, seed=seed)
    return denoiser, fit(net, objective, x, model=denoiser, settings=settings, batch=1024).steps


def measured(denoiser: Denoiser, law: Law, fresh: int, seed: int) -> dict:
    """KL on fresh draws, with its standard error and the error that the densities say of themselves."""
    x = law.draw(fresh, np.random.default_rng([seed, 1]))
    begun, log_q, error = time.perf_counter(), [], []
    for rows in torch.tensor(x, dtype=torch.float32).split(CHUNK):
        found = log_prob(denoiser, rows, tolerance=0.02, nfe=512)
        log_q.append(found.log_prob.numpy())
        error.append(found.error.numpy())
    gap = law.log_p(x) - np.concatenate(log_q)
    return {
        "kl": float(gap.mean()),
        "standard_error": float(gap.std(ddof=1) / math.sqrt(fresh)),
        "entropy": float(-law.log_p(x).mean()),
        "bar": law.bar,
        "error_of_log_prob": float(np.concatenate(error).mean()),
        "seconds": time.perf_counter() - begun,
    }


def _axes(rows: int, columns: int) -> tuple:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.6 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], aspect="equal")
    return fig, axes


def _density(denoiser: Denoiser, half: float, cells: int = 100) -> Points:
    side = (torch.arange(cells) + 0.5) / cells * 2 * half - half
    points = torch.cartesian_prod(side, side)
    found = [log_prob(denoiser, part, tolerance=0.1, nfe=100).log_prob for part in points.split(CHUNK)]
    return torch.cat(found).exp().reshape(cells, cells).T.numpy()


def maps(denoisers: dict[str, Denoiser], path: Path) -> None:
    """Draws of each law, the learned density, and draws of it."""
    fig, axes = _axes(len(denoisers), 3)
    for row, (name, denoiser) in zip(axes, denoisers.items()):
        true = LAWS[name].draw(20_000, np.random.default_rng(7))
        half = 1.25 * float(np.abs(true).max())
        noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(7))
        drawn = sample(denoiser, float(denoiser.process.sigma(torch.tensor(denoiser.process.t_max))) * noise, nfe=20).x
        box = {"range": [[-half, half]] * 2, "bins": 100, "cmap": "viridis"}
        row[0].hist2d(*true.T, **box)
        row[1].imshow(_density(denoiser, half), origin="lower", extent=(-half, half, -half, half), cmap="viridis")
        row[2].hist2d(*drawn.numpy().T, **box)
        row[0].set_ylabel(name)
    for axis, title in zip(axes[0], ("20,000 draws of the law", "learned density", "20,000 draws of the model")):
        axis.set_title(title, fontsize=10)
    fig.savefig(path, dpi=90)


def slices(denoiser: Denoiser, law: Law, path: Path) -> None:
    """The law on its way to noise, the model on its way back, and the drift that leads it, all of unit scale."""
    process, rng = denoiser.process, np.random.default_rng(11)
    x = torch.tensor(law.draw(3000, rng))
    scale = float(x.std())
    ratios = torch.tensor([0.002, 0.2, 0.5, 30.0], dtype=torch.float64) * torch.tensor([1, scale, scale, 1])
    times = process.t_of_ratio(ratios)
    fig, axes = _axes(3, len(times))
    shown = {"s": 1.0, "lw": 0, "c": "#0b6aa2"}
    noise = torch.tensor(rng.standard_normal((3000, 2)))
    solver = AdamsBashforth()
    grid = torch.cat([ShortFirst()(process, 60), times]).unique().flip(0)
    state, found = solver.init((float(ratios[-1]) * torch.tensor(rng.standard_normal((3000, 2)))).float()), {}
    found[float(grid[0])] = state.x
    for t, s in pairwise(grid):
        state = solver.step(_at_one_time(denoiser), state, process, t, s, lambda stage: torch.zeros(()))
        found[float(s)] = state.x
    side = torch.linspace(-2.4, 2.4, 17)
    lattice = torch.cartesian_prod(side, side)
    for column, t in zip(axes.T, times):
        sigma = float(process.sigma(t))
        size = math.hypot(scale, sigma)
        column[0].scatter(*((x + sigma * noise) / size).T, **shown)
        column[1].scatter(*(found[float(t)] / size).T, **shown)
        with torch.no_grad():
            at = denoiser(lattice * size, t.expand(len(lattice)))
        drift = (at.x - lattice * size) / size
        column[2].quiver(*lattice.T, *drift.T, color="#0b6aa2", angles="xy", pivot="mid", width=0.006)
        column[0].set_title(rf"$\sigma$ = {sigma:.3g}", fontsize=10)
        for axis in column:
            axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    for axis, label in zip(axes[:, 0], ("law, to noise", "model, from noise", r"drift $\hat x - x_t$")):
        axis.set_ylabel(label)
    fig.savefig(path, dpi=90)


def _at_one_time(denoiser: Denoiser) -> Callable[[torch.Tensor, torch.Tensor], Estimate]:
    @torch.no_grad()
    def evaluate(x: torch.Tensor, t: torch.Tensor) -> Estimate:
        return denoiser(x, t.expand(len(x)))

    return evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(LAWS)}; all without any")
    parser.add_argument("--seconds", type=float, default=120.0, help="of training")
    parser.add_argument("--fresh", type=int, default=FRESH, help="draws on which the KL is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    results, denoisers = {}, {}
    for name in options.names or LAWS:
        denoisers[name], steps = learned(LAWS[name], options.seconds, options.seed)
        results[name] = {"steps": steps, **measured(denoisers[name], LAWS[name], options.fresh, options.seed)}
        one = results[name]
        print(
            f"{name}: KL {one['kl']:.4f} +- {one['standard_error']:.4f} (bar {one['bar']}), {steps} steps, "
            f"log_prob within {one['error_of_log_prob']:.4f} in {one['seconds']:.0f} s",
            flush=True,
        )
    if options.figures:
        maps(denoisers, options.figures / "densities.png")
        if "Swiss roll" in denoisers:
            slices(denoisers["Swiss roll"], LAWS["Swiss roll"], options.figures / "swiss_roll.png")
    if options.out:
        options.out.write_text(json.dumps({"seconds": options.seconds, "laws": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
