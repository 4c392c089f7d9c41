"""Evidence and marginal Kullback-Leibler divergences of nested-sampling chains, beside anesthetic's.

    python benchmarks/marginal_kl.py CHAINS/pc --bounds x0=-1/1,x1=-1/1,x2=0/1,x3=0/1,x4=2/4 --log-z -2.0794415

The prior is uniform within the bounds. Of all parameters together the reference is anesthetic's D_KL, with the error of
its 500 resampled volumes; of one parameter a histogram of a hundred bins, less the (bins - 1) / 2n by which it is too
large (Miller 1955), with a bootstrap error. ``gap`` is (ours - reference) / both errors. Where ln Z is known,
<ln L> - ln Z is one more reference of the joint divergence, free of the noise of the volumes.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anesthetic import read_chains

from undrift.data.table import Table, open_table
from undrift.model.marginals import marginal_kl

BINS, BOOTSTRAPS, VOLUMES = 100, 200, 500


def histogram(table: Table, column: int) -> tuple[float, float]:
    """KL of one parameter from the uniform law between its bounds, and its bootstrap error."""
    low, high = table.bounds[column]
    bins = np.minimum(((table.values[:, column] - low) / (high - low) * BINS).astype(int), BINS - 1)
    rng, found = np.random.default_rng(0), []
    for k in range(BOOTSTRAPS + 1):
        rows = np.arange(len(bins)) if k == 0 else rng.integers(len(bins), size=len(bins))
        share = np.bincount(bins[rows], table.weights[rows], BINS) / table.weights[rows].sum()
        held = share[share > 0]
        found.append(float(held @ np.log(held * BINS)) - (len(held) - 1) / (2 * table.effective))
    return found[0], float(np.std(found[1:]))


def measured(root: str, bounds: str, log_z: float | None, estimator: str) -> dict:
    """What one chain gives."""
    np.random.seed(0)  # noqa: NPY002  (anesthetic resamples volumes with the global generator)
    samples: Any = read_chains(root)
    table = open_table(root, bounds=bounds)
    stats: Any = samples.stats(nsamples=VOLUMES)
    assert table.log_evidence is not None
    rows = {"all": (tuple(table.names), (float(stats.D_KL.mean()), float(stats.D_KL.std())))}
    rows |= {name: ((name,), histogram(table, i)) for i, name in enumerate(table.names)}
    found: dict = {"log_z": table.log_evidence[0], "anesthetic_log_z": float(samples.logZ()), "estimator": estimator}
    for label, (names, (reference, error)) in rows.items():
        limits = {name: tuple(table.bounds[table.names.index(name)]) for name in names}
        ours = marginal_kl(root, names, bounds=limits, estimator=estimator)
        found[label] = {
            "kl": ours.divergence, "error": ours.divergence_error, "reference": reference, "reference_error": error,
            "gap": (ours.divergence - reference) / math.hypot(ours.divergence_error, error),
            "dimensionality": ours.dimensionality, "dimensionality_error": ours.dimensionality_error,
        }  # fmt: skip
    found["all"]["anesthetic_dimensionality"] = float(stats.d_G.mean())
    if log_z is not None:
        found["all"]["kl_of_known_evidence"] = float(stats.logL_P.mean()) - log_z
        found["all"]["kl_of_known_evidence_error"] = float(stats.logL_P.std())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chains", nargs="+", help="roots, as chains/pc")
    parser.add_argument("--bounds", required=True, help="of the uniform prior, as a=0/1,b=-1/1")
    parser.add_argument("--log-z", type=float, help="the exact ln Z, where it is known")
    parser.add_argument("--estimator", default="mixture")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/marginal_kl.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for root in asked.chains:
        name = Path(root).name
        one = found[name] = measured(root, asked.bounds, asked.log_z, asked.estimator)
        print(f"{name}: ln Z {one['log_z']:.10f}, of anesthetic {one['anesthetic_log_z']:.10f}")
        for label, row in one.items():
            if isinstance(row, dict):
                print(
                    f"  {label}: KL {row['kl']:.3f} +- {row['error']:.3f}, reference {row['reference']:.3f} +- "
                    f"{row['reference_error']:.3f} (gap {row['gap']:+.1f}), d {row['dimensionality']:.2f} +- "
                    f"{row['dimensionality_error']:.2f}"
                )
        if (known := one["all"].get("kl_of_known_evidence")) is not None:
            print(f"  of the known evidence: {known:.3f} +- {one['all']['kl_of_known_evidence_error']:.3f}")
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
