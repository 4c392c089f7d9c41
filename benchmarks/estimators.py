"""Six estimators, and what `auto` takes, on one chain each of 300, 3,000 and 30,000 rows: KL, C2ST and times.

    python benchmarks/estimators.py --out benchmarks/results/estimators.json    # resumable
    python benchmarks/estimators.py --figures docs/images    # the densities side by side, fitted anew

The chain is of a bent posterior, a ~ N(0, 1), b given a ~ N(a^2 / 2, 1/4), c and more ~ N(a / 2, 1), drawn from laws
that are 1.3 times as wide and weighted to the posterior, with the column log_posterior up to a constant. KL is the mean
of log p - log q over 10,000 fresh draws with its paired standard error; C2ST is the accuracy of sbibm's classifier on
2,000 draws of each (0.5 is best). Neural estimators may train for the budget on one core, and stop early
on rows that are left out.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import undrift
from undrift.verify.c2st import c2st

ESTIMATORS = ("mixture", "kde", "gp", "nsf", "flow-matching", "diffusion", "auto")
ROWS = (300, 3_000, 30_000)
FRESH, TOLD = 10_000, 2_000
_WIDE = 1.3  # the chain's standard deviations in units of the posterior's


def normal(x: np.ndarray, mean: np.ndarray | float, std: float) -> np.ndarray:
    return -(((x - mean) / std) ** 2) / 2 - math.log(std * math.sqrt(2 * math.pi))


def log_p(x: np.ndarray, wide: float = 1.0) -> np.ndarray:
    """Log-density of points (n, D), of standard deviations that many times as wide."""
    a = x[:, 0]
    bent = normal(a, 0.0, wide) + normal(x[:, 1], a**2 / 2, wide / 2)
    return bent + normal(x[:, 2:], a[:, None] / 2, wide).sum(1)


def draw(n: int, size: int, rng: np.random.Generator, wide: float = 1.0) -> np.ndarray:
    """Points (n, size)."""
    x = wide * rng.standard_normal((n, size))
    x[:, 1] = x[:, 0] ** 2 / 2 + x[:, 1] / 2
    x[:, 2:] += x[:, :1] / 2
    return x


def chain(n: int, size: int, seed: int) -> pd.DataFrame:
    """Weighted rows with their log-posterior."""
    x = draw(n, size, np.random.default_rng(seed), _WIDE)
    value = log_p(x)
    table = pd.DataFrame(x, columns=list("abcdefgh")[:size])
    return table.assign(weight=np.exp(value - log_p(x, _WIDE)), log_posterior=value + 12.5)


def fitted(rows: pd.DataFrame, estimator: str, budget: float, out: Path | None = None) -> Any:
    data: Any = rows
    return undrift.fit(data, estimator=estimator, budget=budget, seed=0, out=out, overwrite=True, progress=False)


def measured(estimator: str, n: int, size: int, budget: float) -> dict:
    """KL, C2ST, and what it took."""
    rows = chain(n, size, 0)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = fitted(rows, estimator, budget, Path(folder) / "run")
        seconds = {"fit": time.perf_counter() - begun}
    fresh = draw(FRESH, size, np.random.default_rng([1, size]))
    begun = time.perf_counter()
    found = model.log_prob(fresh_table(fresh))
    seconds["log_prob of 10,000"] = time.perf_counter() - begun
    gap = log_p(fresh) - found.log_prob.values
    begun = time.perf_counter()
    drawn = model.sample(realizations=FRESH, seed=1)
    seconds["10,000 draws"] = time.perf_counter() - begun
    told = c2st(fresh[:TOLD], np.stack([drawn[name].values for name in model.names], 1)[:TOLD])
    return {
        "kl": float(gap.mean()),
        "standard_error": float(gap.std(ddof=1) / math.sqrt(FRESH)),
        "rms_gap": float(np.sqrt((gap**2).mean())),
        "log_prob_error": float(found.log_prob_error.median()),
        "c2st": told.accuracy,
        "c2st_error": told.error,
        "seconds": seconds,
        "training": model.describe()["training"],
    }


def fresh_table(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=list("abcdefgh")[: x.shape[1]])


def figure(folder: Path, estimators: list[str], budget: float) -> None:
    """The law and the densities of one chain of 300 rows, in the plane."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across, up = np.meshgrid(np.linspace(-3.6, 3.6, 110), np.linspace(-2, 6, 110))
    grid = np.stack([across.ravel(), up.ravel()], 1)
    rows = chain(300, 2, 0)
    shown = {"exact": log_p(grid)}
    for estimator in estimators:
        shown[estimator] = fitted(rows, estimator, budget).log_prob(fresh_table(grid)).log_prob.values
    canvas, axes = plt.subplots(1, len(shown), figsize=(1.5 * len(shown), 1.95), sharey=True, layout="constrained")
    for axis, (name, value) in zip(axes, shown.items(), strict=True):
        axis.pcolormesh(across, up, np.exp(value).reshape(across.shape), vmin=0, vmax=0.32, cmap="magma_r")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    canvas.savefig(folder / "estimators.png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--sizes", nargs="*", type=int, default=[2])
    parser.add_argument("--estimators", nargs="*", default=list(ESTIMATORS))
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of a training")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/estimators.json"))
    parser.add_argument("--figures", type=Path, help="only draw the picture, into this folder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.figures is not None:
        return figure(asked.figures, asked.estimators, asked.budget)
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    for size in asked.sizes:
        for n in asked.rows:
            for estimator in asked.estimators:
                key = f"{size} numbers, {n} rows, {estimator}"
                if key not in found:
                    found[key] = measured(estimator, n, size, asked.budget)
                    asked.out.write_text(json.dumps(found, indent=1) + "\n")
                one = found[key]
                print(
                    f"{key}: KL {one['kl']:.4f} +- {one['standard_error']:.4f}, C2ST {one['c2st']:.3f} +- "
                    f"{one['c2st_error']:.3f}, " + ", ".join(f"{k} {v:.1f} s" for k, v in one["seconds"].items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
