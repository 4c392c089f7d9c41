"""Error of the default sampler against network evaluations, beside azula's and diffusers' solvers, on exact denoisers.

    python benchmarks/solvers.py --out benchmarks/results/solvers.json --figure docs/images/solvers.png

Nothing is learned: E[x | x_t] is known in closed form, so that all that is measured is the solver and its grid. Every
solver starts from the same noise, 80 times standard normal, and is compared with the exact end point: Runge-Kutta of
order 4 with 1500 steps in log(sigma) down to 0.002 and one denoising. The error of a start is the root mean square over
dimensions. Of the starts, what is shown is the root mean square of min(error, 0.5), the median and the 90th percentile.
Every network call counts, a last denoising too; azula's solvers end at 0.002 without one, which is better for them.
Ratios are to the best peer at the same number of calls, with the 90 %
interval of a paired bootstrap over starts in which the best peer is chosen anew. With ``--sde`` samplers that add noise
are compared, by the law of their draws: see ``solvers_sde.py``.

The peers: ``pip install --no-deps azula "diffusers>=0.30"``.
"""

import argparse
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from undrift.denoise.exact import GaussianRandomField, Mixture
from undrift.infer import sample
from undrift.process import EDM, Coloured

COUNTS = (6, 8, 10, 16, 20, 40)
HIGH, LOW, CLIP = 80.0, 0.002, 0.5
STARTS = 4096  # of the yardsticks, and of fields; of other targets in two dimensions four times as many
Denoise = Callable[[Tensor, float], Tensor]


def yardstick(dims: int, components: int, spread: float, seed: int = 0) -> Mixture:
    """The mixtures of the yardsticks: means of norm sqrt(D), standard deviations around ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(components, dims, generator=generator, dtype=torch.float64)
    means = means / means.norm(dim=1, keepdim=True) * math.sqrt(dims)
    return Mixture(
        means, spread * torch.exp(0.5 * torch.randn(components, dims, generator=generator, dtype=torch.float64))
    )


def ring() -> Mixture:
    """Eight narrow Gaussians on a circle, of unit variance."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = torch.stack([angle.cos(), angle.sin()], 1) * math.sqrt(2)
    return Mixture(means, 0.1)


def swiss_roll() -> Mixture:
    """Sixty narrow Gaussians along a spiral, of unit variance."""
    turn = 1.5 * math.pi * (1 + 2 * torch.linspace(0, 1, 60, dtype=torch.float64))
    means = torch.stack([turn * turn.cos(), turn * turn.sin()], 1)
    return Mixture((means - means.mean(0)) / means.std(), 0.06)


def checkerboard() -> Mixture:
    """Eight of sixteen squares, each of four by four narrow Gaussians, of unit variance."""
    side = torch.arange(16, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    dark = ((y // 4 + x // 4) % 2 == 0).flatten()
    means = torch.stack([x.flatten(), y.flatten()], 1)[dark]
    means = (means - means.mean(0)) / means.std(0)
    return Mixture(means, 0.1)


TARGETS = {
    "2-D mixture": lambda: yardstick(2, 8, 0.15),
    "32-D mixture": lambda: yardstick(32, 16, 0.3),
    "ring of 8": ring,
    "Swiss roll": swiss_roll,
    "8-D mixture": lambda: yardstick(8, 12, 0.2, seed=5),
    "64-D mixture": lambda: yardstick(64, 24, 0.35, seed=6),
    "checkerboard": checkerboard,
    "random field 16x16": lambda: GaussianRandomField(Coloured.isotropic((16, 16), -2.0).power),
}


def denoise_of(target: Mixture | GaussianRandomField) -> tuple[Denoise, tuple[int, ...]]:
    """x from (x_t, sigma), in float64; for mixtures along the axes by products of matrices, which are faster."""
    if isinstance(target, GaussianRandomField):
        shape = tuple(target.law.power.shape)
        return (lambda x, sigma: target(x, torch.tensor(sigma / (1 + sigma), dtype=torch.float64)).x), shape
    means, variances, weights = target.means, target.variances, target.weights

    def denoise(x: Tensor, sigma: float) -> Tensor:
        precision = 1 / (variances + sigma**2)
        square = x**2 @ precision.T - 2 * x @ (means * precision).T + (means**2 * precision - precision.log()).sum(1)
        share = torch.softmax(weights.log() - square / 2, 1)
        return share @ (means * sigma**2 * precision) + x * (share @ (variances * precision))

    return denoise, (means.shape[1],)


def reference(denoise: Denoise, x: Tensor, steps: int = 1500) -> Tensor:
    """Runge-Kutta of order 4 in log(sigma), then one denoising."""
    levels = np.linspace(math.log(HIGH), math.log(LOW), steps + 1)

    def slope(x: Tensor, level: float) -> Tensor:
        return x - denoise(x, math.exp(level))

    for a, b in pairwise(levels):
        h = b - a
        k1 = slope(x, a)
        k2 = slope(x + h / 2 * k1, a + h / 2)
        k3 = slope(x + h / 2 * k2, a + h / 2)
        k4 = slope(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return denoise(x, LOW)


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return self.denoise(x, float(sigma))


def ours(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
    from undrift.denoise.denoiser import Denoiser

    process = EDM(HIGH)
    denoiser = Denoiser.from_callable(
        lambda x_t, sigma: denoise(x_t, float(sigma[0])), predicts="x", process=process, label=process.sigma
    )
    return sample(denoiser, x, nfe=nfe).x


def azula_denoiser(denoise: Counted) -> object:
    """Azula's own kind of denoiser around an exact one, with its VE schedule."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VESchedule

    class Exact(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = VESchedule(LOW, HIGH)

        def forward(self, x_t: Tensor, t: Tensor, **_: object) -> DiracPosterior:
            return DiracPosterior(denoise(x_t, float(self.schedule.sigma(t))))

    return Exact()


def azula_solver(name: str, order: int) -> Callable[[Counted, Tensor, int], Tensor]:
    def run(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
        import azula.sample

        solver = getattr(azula.sample, name)(
            azula_denoiser(denoise), order=order, steps=nfe, silent=True, dtype=torch.float64
        )
        return solver(x)

    return run


def diffusers_solver(order: int) -> Callable[[Counted, Tensor, int], Tensor]:
    def run(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
        from diffusers import EDMDPMSolverMultistepScheduler

        scheduler = EDMDPMSolverMultistepScheduler(sigma_min=LOW, sigma_max=HIGH, solver_order=order)
        scheduler.set_timesteps(nfe)
        for i, t in enumerate(scheduler.timesteps):
            sigma = float(scheduler.sigmas[i])
            data = scheduler.config["sigma_data"]
            skip = data**2 / (sigma**2 + data**2)
            out = sigma * data / math.sqrt(sigma**2 + data**2)
            x = scheduler.step((denoise(x, sigma) - skip * x) / out, t, x).prev_sample
        return x

    return run


PEERS = {
    **{
        f"azula {name} {order}": azula_solver(f"{name}Sampler", order)
        for name in ("zAB", "vAB", "zEAB", "xEAB")
        for order in (2, 3)
    },
    **{f"diffusers EDMDPM {order}": diffusers_solver(order) for order in (2, 3)},
}


def statistics(error: np.ndarray) -> dict[str, float]:
    return {
        "rms": float(np.sqrt((np.minimum(error, CLIP) ** 2).mean())),
        "median": float(np.median(error)),
        "p90": float(np.quantile(error, 0.9)),
    }


def interval(mine: np.ndarray, theirs: dict[str, np.ndarray], name: str, draws: int = 300) -> list[float]:
    """Of the ratio to the best peer, over starts drawn again, the same for all."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(draws):
        rows = rng.integers(0, len(mine), len(mine))
        ratios.append(statistics(mine[rows])[name] / min(statistics(e[rows])[name] for e in theirs.values()))
    return [float(v) for v in np.quantile(ratios, [0.05, 0.95])]


def measured(title: str) -> dict:
    denoise, shape = denoise_of(TARGETS[title]())
    count = STARTS * (4 if title in ("ring of 8", "Swiss roll", "checkerboard") else 1)
    x = HIGH * torch.randn(count, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = reference(denoise, x, 1500 if len(shape) == 1 else 600)
    table: dict[str, dict[int, dict]] = {}
    ratios: dict[int, dict] = {}
    for nfe in COUNTS:
        errors = {}
        for name, solver in {"undrift": ours, **PEERS}.items():
            counted = Counted(denoise)
            end = solver(counted, x.clone(), nfe)
            if counted.calls != nfe:
                raise SystemExit(f"{name} made {counted.calls} calls for {nfe}")
            errors[name] = np.nan_to_num((end - exact).flatten(1).square().mean(1).sqrt().numpy(), nan=np.inf)
            table.setdefault(name, {})[nfe] = statistics(errors[name])
        mine = errors.pop("undrift")
        ratios[nfe] = {}
        for one in ("rms", "p90"):
            best = min(errors, key=lambda name: table[name][nfe][one])
            ratio = table["undrift"][nfe][one] / table[best][nfe][one]
            ratios[nfe][one] = {"best": best, "ratio": ratio, "interval": interval(mine, errors, one)}
    return {"target": title, "errors": table, "ratios": ratios}


def figure(results: list[dict], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = -(-len(results) // 2)
    fig, axes = plt.subplots(2, columns, figsize=(2.9 * columns, 5.6), layout="constrained", sharex=True, sharey=True)
    for axis in axes.flat[len(results) :]:
        axis.set_visible(False)
    axes = axes.flatten()
    for axis, one in zip(axes, results):
        for name, row in one["errors"].items():
            mine = name == "undrift"
            values = [row[n]["rms"] for n in COUNTS]
            style = {"color": "#0b6aa2", "lw": 2.2, "zorder": 3} if mine else {"color": "#999999", "lw": 0.8}
            axis.loglog(
                COUNTS, values, marker="o" if mine else None, label="undrift's default" if mine else None, **style
            )
        axis.set_title(one["target"], fontsize=9)
        axis.set_xlabel("evaluations", fontsize=8)
        axis.set_xticks(COUNTS, [str(c) for c in COUNTS])
        axis.minorticks_off()
    axes[0].set_ylabel("root mean square error", fontsize=8)
    axes[0].plot([], [], color="#999999", lw=0.8, label="azula, diffusers")
    axes[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--sde", action="store_true", help="samplers with noise instead, see solvers_sde.py")
    parser.add_argument("--out", type=Path, help="benchmarks/results/solvers.json or solvers_sde.json if not given")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    name = "solvers_sde.json" if arguments.sde else "solvers.json"
    arguments.out = arguments.out or Path("benchmarks/results") / name
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.sde:
        import solvers_sde

        solvers_sde.run(arguments.targets, arguments.out)
        return
    results = []
    for title in arguments.targets:
        results.append(measured(title))
        one = SimpleNamespace(**results[-1])
        print(f"\n{title}\n{'':22s}" + "".join(f"{n:>20d}" for n in COUNTS))
        for name, row in one.errors.items():
            cells = [f"{row[n]['rms']:.3f}/{row[n]['median']:.4f}/{row[n]['p90']:.3f}" for n in COUNTS]
            print(f"{name:22s}" + "".join(f"{c:>20s}" for c in cells))
        for which in ("rms", "p90"):
            cells = [
                "{ratio:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]".format(**one.ratios[n][which]) for n in COUNTS
            ]
            print(f"ratio of {which:13s}" + "".join(f"{c:>20s}" for c in cells), flush=True)
    arguments.out.write_text(json.dumps(results, indent=1))
    if arguments.figure:
        figure(results, arguments.figure)


if __name__ == "__main__":
    main()
