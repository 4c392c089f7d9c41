"""Estimators of densities beside each other, by ``undrift.fit``, on laws whose density is known.

    python benchmarks/table_densities.py --out benchmarks/results/table_densities.json     # resumable

Each estimator is fitted to the same 100,000 draws of a law in the plane for the same time (a mixture and a kernel
density take what they take; a kernel density is of 20,000 of them). KL = mean (log p - log q) on fresh draws with its
paired standard error, which can approach 0 and never be below it by more than chance; and the seconds that the
log-density of 10,000 points takes.
``nsf`` is zuko's neural spline flow: what is learned beside it was trained for as long, in the same run.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

import undrift
from densities import LAWS
from undrift.distributions.estimators import ESTIMATORS

DRAWS, FEWER, FRESH, TIMED = 100_000, 20_000, 20_000, 10_000


def measured(law: str, estimator: str, budget: float, seed: int) -> dict:
    """KL, its error, and what it took."""
    one = LAWS[law]
    rows = one.draw(FEWER if estimator == "kde" else DRAWS, np.random.default_rng(seed))
    begun = time.perf_counter()
    model = undrift.fit(rows, estimator=estimator, budget=budget, seed=seed, progress=False)
    fitted = time.perf_counter() - begun
    fresh = one.draw(FRESH, np.random.default_rng([seed, 1]))
    begun = time.perf_counter()
    found = model.log_prob(fresh[:TIMED])
    seconds = time.perf_counter() - begun
    log_q = np.concatenate([found.log_prob, model.log_prob(fresh[TIMED:]).log_prob])
    gap = one.log_p(fresh) - log_q
    return {
        "kl": float(gap.mean()),
        "standard_error": float(gap.std(ddof=1) / math.sqrt(FRESH)),
        "bar": one.bar,
        "fitted_seconds": fitted,
        "log_prob_seconds": seconds,
        "log_prob_error": float(found.log_prob_error.quantile(0.9)),
        "training": model.describe()["training"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="*", default=list(LAWS))
    parser.add_argument("--estimators", nargs="*", default=[e for e in ESTIMATORS if e != "gp"])
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/table_densities.json"))
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    for law in asked.laws:
        for estimator in asked.estimators:
            key = f"{law}, {estimator}"
            if key not in found:
                found[key] = measured(law, estimator, asked.budget, asked.seed)
                asked.out.write_text(json.dumps(found, indent=1) + "\n")
            one = found[key]
            print(
                f"{key}: KL {one['kl']:.4f} +- {one['standard_error']:.4f} (bar {one['bar']}), "
                f"10,000 points in {one['log_prob_seconds']:.1f} s within {one['log_prob_error']:.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
