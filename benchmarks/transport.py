"""Flows from 8 Gaussians to two moons: couplings beside each other, in one step of Euler and in adaptive ones.

    OMP_NUM_THREADS=1 python benchmarks/transport.py --out benchmarks/results/transport.json     # resumable

The setting of Cheng & Schwing (2025), "The curse of conditions", https://arxiv.org/abs/2503.10636, by its public code:
8 Gaussians of deviation .1^(1/4) on a circle of radius 5; the moons of torchdyn (arcs of even angles, moved by one
uniform number in [0, .2] along the diagonal), times 3, less 1; what is given is nothing, the moon, or the first
coordinate of the end. W2^2 is that of 10,000 ends from fresh starts and the 10,000 rows of the moons whose conditions
they were given, without regard to the condition, by exact assignment; adaptive is Dormand and Prince's method with
tolerances of 1e-4. Differences: they match 1,024 new draws every four of 20,000 steps of 256, and here pairs of one
table of each law are matched before the training; steps adapt row by row, and the last, from noise of .002, is a
denoising; transport that does not heed the condition is refused. ``floor`` is W2^2 of two samples of the moons.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import undrift
from undrift.solve.runge_kutta import DORMAND_PRINCE, Euler, RungeKutta
from undrift.solve.step_size import Adaptive

Points = NDArray[np.float64]
ROWS, FRESH = 65_536, 10_000
COUPLINGS = {
    "none": ("independent", "ot"),
    "class": ("independent", "conditional-ot"),
    "x": ("independent", "conditional-ot"),
}
BEST = {"none": (0.072, 0.050), "class": (0.048, 0.018), "x": (0.077, 0.013)}  # Euler, adaptive
HOW = {
    "euler": {"nfe": 1, "solver": Euler()},
    "adaptive": {"nfe": 5000, "solver": RungeKutta(DORMAND_PRINCE), "grid": Adaptive(1e-4, 1e-4)},
}


def eight_gaussians(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of eight Gaussians on a circle."""
    angle = rng.integers(8, size=n) * np.pi / 4
    x = 5 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1**0.25 * rng.standard_normal((n, 2))
    return pd.DataFrame(x, columns=["a", "b"])


def moons(n: int, rng: np.random.Generator, case: str) -> pd.DataFrame:
    """Rows of two moons, with what is given in a column "c"."""
    half = n // 2
    one, other = np.linspace(0, np.pi, half), np.linspace(0, np.pi, n - half)
    arcs = [np.stack([np.cos(one), np.sin(one)], 1), np.stack([1 - np.cos(other), 0.5 - np.sin(other)], 1)]
    x = 3 * (np.concatenate(arcs) + 0.2 * rng.random((n, 1))) - 1
    rows = pd.DataFrame(x, columns=["a", "b"])
    given = {"none": {}, "class": {"c": np.repeat([-1.0, 1.0], [half, n - half])}, "x": {"c": x[:, 0]}}
    return rows.assign(**given[case])


def w2(x: Points, y: Points) -> float:
    """Squared 2-Wasserstein distance of two samples of as many points."""
    cost = cdist(x, y, "sqeuclidean")
    return float(cost[linear_sum_assignment(cost)].mean())


def measured(case: str, coupling: str, seed: int, steps: int) -> dict:
    """W2^2 of both solvers, and what it took."""
    rng = np.random.default_rng(seed)
    rows, base = moons(ROWS, rng, case), eight_gaussians(ROWS, rng)
    begun = time.perf_counter()
    flow = undrift.fit(
        rows, task=undrift.Density("flow-matching", coupling=coupling, base=base), variables="a,b",
        covariates=None if case == "none" else "c", holdout="0%", steps=steps, seed=seed, progress=False,
    )  # fmt: skip
    found = {"fitted_seconds": time.perf_counter() - begun, "steps": flow.describe()["training"]["steps"]}
    fresh = np.random.default_rng([seed, 1])
    ends, starts = moons(FRESH, fresh, case), eight_gaussians(FRESH, fresh)
    for name, how in HOW.items():
        carried = flow.transport(starts, None if case == "none" else ends[["c"]], **how)
        found[name] = w2(ends[["a", "b"]].to_numpy(), np.stack([carried.a, carried.b], 1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(COUPLINGS))
    parser.add_argument("--couplings", nargs="*", default=["independent", "ot", "conditional-ot"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/transport.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}

    def kept(key: str, make: Callable[[], dict]) -> dict:
        if key not in found:
            found[key] = make()
            asked.out.write_text(json.dumps(found, indent=1) + "\n")
        return found[key]

    for seed in asked.seeds:
        two = [moons(FRESH, np.random.default_rng([seed, i]), "none").to_numpy() for i in (2, 3)]
        print(f"floor, seed {seed}: {kept(f'floor, {seed}', lambda two=two: {'w2': w2(*two)})['w2']:.4f}", flush=True)
        for case in asked.cases:
            for coupling in COUPLINGS[case]:
                if coupling not in asked.couplings:
                    continue
                key = f"{case}, {coupling}, {seed}"
                one = kept(key, lambda c=case, k=coupling, s=seed: measured(c, k, s, asked.steps))
                bars = "/".join(f"{bar:.3f}" for bar in BEST[case])
                print(f"{key}: Euler {one['euler']:.4f}, adaptive {one['adaptive']:.4f} (bars {bars})", flush=True)


if __name__ == "__main__":
    main()
