"""Which scenario is a map from? The ratio of the log-densities of two trained models, with its error.

    python benchmarks/scenarios.py iris_A1B_E1_north_america_tas.nc --work WORK --figure docs/images/scenarios.png

Two emulators, of annual mean air temperature given the year, are trained on the maps of one scenario each, 2000 to
2099. Of each ten years after 2050 five (2053 to 2057, 2063 to 2067, ...) are held out, and the years beside them are
left out of training too: consecutive years are alike, so that a year whose neighbours were learned is no test. The
maps of a block are still alike: a standard error over maps would be too small, and that of the share is over blocks.

For each held-out map x of year y the ratio is ``log p(x | y, A1B) - log p(x | y, E1)``, its error that of both in
quadrature. Beside it stand

- *Gaussian*: per scenario a mean that is linear in the year at each cell, and of what is left, in units of each cell's
  spread, the covariance times a Gaussian of the distance in cells, and a multiple of the unit matrix; both widths are
  those by which contiguous folds of the training years are likeliest;
- *discriminant*: the same means, and in the ten leading EOFs of what is left one covariance of both.

What is stopped is gone on with: runs and log-densities are kept in the folder of ``--work``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import undrift
from undrift.data.examples import north_america

Array = np.ndarray
SCENARIOS = ("A1B", "E1")
FIRST, TESTED = 2000, 2050
EOFS = 10
WIDTHS = [(width, share) for width in (4.0, 8.0, 16.0) for share in (0.001, 0.01)]


def split(years: Array) -> tuple[Array, Array]:
    """Years that train, and years that are held out."""
    held = (years >= TESTED) & np.isin(years % 10, [3, 4, 5, 6, 7])
    beside = (years >= TESTED) & np.isin(years % 10, [2, 8])
    return years[(years >= FIRST) & ~held & ~beside], years[held]


def densities(data: xr.Dataset, work: Path, budget: str, probes: int) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Log-densities of all held-out maps under each scenario's model, (scenario, year)."""
    train, held = split(data.year.values)
    last = held[held >= 2090]  # the runs' own held-out part, which trains as little as the rest
    found, facts = {}, {}
    for name in SCENARIOS:
        run, own = work / name, data.sel(scenario=name, drop=True)
        if not (run / "manifest.json").exists():
            undrift.fit(
                own.sel(year=np.union1d(train, last)), task="emulate", holdout=f"year={last[0]}/{last[-1]}",
                budget=budget, set={"net.members": 1}, out=run, progress=False, overwrite=True,
            )  # fmt: skip
        parts = []
        for decade in np.unique(held // 10):
            file = work / f"{name}_{decade}0.nc"
            if not file.exists():
                began = time.perf_counter()
                model = undrift.load(run, data=own)
                asked = data.sel(year=held[held // 10 == decade])
                made = model.log_prob(asked, probes=probes, tolerance=2.0, nfe=120, progress=False)
                made.assign_attrs(seconds=time.perf_counter() - began).to_netcdf(file)
            parts.append(xr.load_dataset(file))
        found[name] = xr.concat(parts, "year")
        facts[name] = {"seconds_a_map": sum(one.seconds for one in parts) / found[name].log_prob.size}
        facts[name] |= {str(part): float(found[name][part].median()) for part in found[name] if part != "log_prob"}
    return found, facts


def localised(x: Array, shape: tuple[int, int], width: float, share: float) -> Array:
    """The covariance of rows (n, D) about 0, tapered, with a share of the unit matrix."""
    place = np.stack(np.unravel_index(np.arange(x.shape[1]), shape), 1)
    away = ((place[:, None] - place) ** 2).sum(-1)
    return (1 - share) * (x.T @ x / len(x)) * np.exp(-0.5 * away / width**2) + share * np.eye(x.shape[1])


def covariance_of(x: Array, shape: tuple[int, int]) -> Array:
    """That of rows (n, D) about 0 that makes contiguous folds likeliest."""
    spread = np.sqrt((x**2).mean(0))
    y, fold = x / spread, np.arange(len(x)) * 5 // len(x)

    def held_out(widths: tuple[float, float]) -> float:
        return sum(log_normal(y[fold == k], localised(y[fold != k], shape, *widths)).sum() for k in range(5))

    return localised(y, shape, *max(WIDTHS, key=held_out)) * np.outer(spread, spread)


def log_normal(x: Array, covariance: Array) -> Array:
    """Log-densities of rows (n, D) of a Gaussian about 0."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, x.T)
    return -0.5 * (white**2).sum(0) - np.log(np.diag(root)).sum() - 0.5 * x.shape[1] * np.log(2 * np.pi)


def baselines(data: xr.Dataset) -> dict[str, Array]:
    """Ratios of both baselines, (scenario, year), and the log-density of the Gaussian of each map's own scenario."""
    train, held = split(data.year.values)
    basis, asked = (np.stack([np.ones(len(y)), (y - 2050) / 50], 1) for y in (train, held))
    tested = data.tas.sel(year=held).values.reshape(2, len(held), -1).astype(np.float64)
    means, left = [], []
    for name in SCENARIOS:
        own = data.tas.sel(scenario=name, year=train).values.reshape(len(train), -1).astype(np.float64)
        weights = np.linalg.lstsq(basis, own, rcond=None)[0]
        means.append(asked @ weights)
        left.append((own - basis @ weights) * np.sqrt(len(train) / (len(train) - 2)))
    covariances = [covariance_of(one, data.tas.shape[-2:]) for one in left]
    value = np.stack([[log_normal(x - m, c) for x in tested] for m, c in zip(means, covariances)])
    both = np.concatenate(left)
    eofs = np.linalg.svd(both, full_matrices=False)[2][:EOFS]
    scores = np.cov(both @ eofs.T, rowvar=False)
    linear = np.stack([[log_normal((x - m) @ eofs.T, scores) for x in tested] for m in means])
    return {
        "Gaussian": value[0] - value[1],
        "discriminant": linear[0] - linear[1],
        "own": np.stack([value[i, i] for i in range(2)]),
    }


def judged(ratio: Array, years: Array) -> dict[str, float]:
    """Of ratios (scenario, year), A1B first."""
    favour = ratio * np.array([[1.0], [-1.0]])
    right = favour > 0
    blocks = np.array([right[:, years // 10 == decade].mean(1) for decade in np.unique(years // 10)]).ravel()
    return {
        "right": float(right.mean()),
        "right_error": float(blocks.std(ddof=1) / np.sqrt(len(blocks))),
        "maps": right.size,
        "favour_median": float(np.median(favour)),
        "favour_least": float(favour.min()),
        "log_score": float(-np.logaddexp(0, -favour).mean()),
    }


def drawn(ratio: Array, error: Array, other: dict[str, Array], years: Array, path: Path) -> None:
    """Ratios by year."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True)
    for i, (name, colour) in enumerate(zip(SCENARIOS, ("tab:red", "tab:blue"))):
        axes[0].errorbar(years, ratio[i], error[i], fmt="o", ms=4, color=colour, label=f"maps of {name}")
        axes[1].plot(years, other["Gaussian"][i], "o", ms=4, color=colour, label=f"{name}, Gaussian")
        axes[1].plot(years, other["discriminant"][i], "x", ms=4, color=colour, label=f"{name}, discriminant")
    for one, title in zip(axes, ("trained models", "baselines")):
        one.axhline(0, color="grey", lw=1)
        one.set_yscale("symlog", linthresh=10)
        one.set_ylim(-6000, 6000)
        one.set_title(title)
        one.set_xlabel("held-out year")
        one.legend(fontsize=8)
    axes[0].set_ylabel("log p(x | A1B) - log p(x | E1), nats")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="iris_A1B_E1_north_america_tas.nc, or embedded for the same data in the package")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--budget", default="25s", help="of each training")
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scenarios.json"))
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    data = north_america() if asked.path == "embedded" else xr.load_dataset(asked.path)
    years = split(data.year.values)[1]
    found, facts = densities(data, asked.work, asked.budget, asked.probes)
    ratio = (found["A1B"].log_prob - found["E1"].log_prob).transpose("scenario", "year").values
    error = np.hypot(found["A1B"].log_prob_error, found["E1"].log_prob_error).transpose("scenario", "year").values
    other = baselines(data)
    own = np.stack([found[name].log_prob.sel(scenario=name).values for name in SCENARIOS])
    result = {
        "models": judged(ratio, years) | {"error_median": float(np.median(error)), "error_most": float(error.max())},
        "within_two_errors": float((np.abs(ratio) <= 2 * error).mean()),
        "Gaussian": judged(other["Gaussian"], years),
        "discriminant": judged(other["discriminant"], years),
        "log_density_of_own_a_map": {"models": float(own.mean()), "Gaussian": float(other["own"].mean())},
        "density": facts,
        "years": years.tolist(),
        "ratio": np.round(ratio, 2).tolist(),
        "ratio_error": np.round(error, 2).tolist(),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    if asked.figure is not None:
        drawn(ratio, error, other, years, asked.figure)
    print(json.dumps({k: v for k, v in result.items() if k not in ("years", "ratio", "ratio_error")}, indent=1))


if __name__ == "__main__":
    main()
