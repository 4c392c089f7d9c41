"""Fair CRPS against network evaluations per realization, with the same noise throughout, and the figure of it.

    python benchmarks/sampler_nfe.py RUN --out benchmarks/results/nfe.json --figure docs/images/nfe.png

RUN is a trained run whose data are still where they were, such as demo/downscale after `make demo`. The differences
are paired: every count of evaluations starts from the same noise, so that what differs is the solver's error alone.
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import scoringrules

import undrift

COUNTS = (4, 5, 6, 8, 10, 15, 20, 40, 100)


def main() -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nfe.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/nfe.png"))
    parser.add_argument("--realizations", type=int, default=16)
    arguments = parser.parse_args()
    model = undrift.load(arguments.run)
    truth = model.holdout_truth()
    name = str(next(iter(truth.data_vars)))
    per_sample = {}
    for nfe in COUNTS:
        drawn = model.sample(holdout=True, realizations=arguments.realizations, nfe=nfe, progress=False)[name]
        space = drawn.dims[-2:]
        crps = scoringrules.crps_ensemble(truth[name].values, np.moveaxis(drawn.values, 0, -1), estimator="fair")
        per_sample[nfe] = np.nanmean(crps, axis=tuple(range(crps.ndim - len(space), crps.ndim))).ravel()
        print(f"{nfe:4d} evaluations: CRPS {per_sample[nfe].mean():.5f}", flush=True)
    reference = per_sample[max(COUNTS)]
    rows = []
    for nfe in COUNTS:
        ratio = per_sample[nfe].mean() / reference.mean() - 1
        error = (per_sample[nfe] - reference).std(ddof=1) / np.sqrt(len(reference)) / reference.mean()
        rows.append({"nfe": nfe, "crps": per_sample[nfe].mean(), "excess": ratio, "standard_error": error})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"variable": name, "rows": rows}, indent=1, default=float))
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    excess = [100 * r["excess"] for r in rows]
    axis.errorbar(
        COUNTS, excess, yerr=[200 * r["standard_error"] for r in rows], marker="o", capsize=3, color="#0b6aa2"
    )
    axis.axhspan(-1, 1, color="#e6efe6", zorder=0, label="within 1 %")
    axis.set(xscale="log", xlabel="network evaluations per realization", ylabel="CRPS above that of 100 [%]")
    axis.set_xticks(COUNTS, [str(c) for c in COUNTS])
    axis.minorticks_off()
    axis.legend(frameon=False)
    axis.set_title("Paired, same noise; bars: 2 standard errors", fontsize=10)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure, dpi=130)


if __name__ == "__main__":
    main()
