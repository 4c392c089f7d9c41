"""Quality of downscaling beside dressed baselines: fair CRPS, spread/skill, variogram score, spectra.

    python benchmarks/quality.py DATA_FOLDER [case ...] [--out benchmarks/results]

Cases: era5, era5_folds, hadcm3, hadcm3_5min, xclim, jaxpm, warmer. Every case trains, draws 16 realizations of its
held-out samples and scores them and all dressed baselines in one run. The CRPS in the table is the plain mean over
cells and samples; scores.json has also the area-weighted one with intervals.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import scoringrules
import xarray as xr

import undrift
from undrift.verify import to_table, verdict

REALIZATIONS = 16
ERA5_CROP = "latitude=50.25/58,longitude=-10/1.75"  # 32 x 48 cells


def plain_crps(ensemble: np.ndarray, truth: np.ndarray, estimator: str) -> float:
    """Mean over all cells and samples; ensemble (M, ...)."""
    parts = [
        scoringrules.crps_ensemble(t, np.moveaxis(e, 0, -1), estimator=estimator)
        for t, e in zip(truth, np.moveaxis(ensemble, 1, 0))
    ]
    return float(np.nanmean(np.stack(parts)))


def with_block_means(members: np.ndarray, truth: np.ndarray, factor: list[int]) -> np.ndarray:
    """Members (M, n, y, x) moved together in each block so that their mean has the truth's mean over the block."""
    away = xr.DataArray(truth - members.mean(0), dims=("n", "y", "x"))
    means = away.coarsen(y=factor[0], x=factor[1]).mean().values
    return members + np.repeat(np.repeat(means, factor[0], 1), factor[1], 2)


def score(model, title: str, started: float) -> dict:
    truth = model.holdout_truth()
    ensemble = model.sample(holdout=True, realizations=REALIZATIONS, progress=False)
    baselines = model.baselines()
    scores = undrift.evaluate(ensemble, truth, baselines=baselines, train=model.training_data())
    rows, about = {}, model.describe()
    for name in truth.data_vars:
        sample_dims = [d for d in ensemble[name].dims if d not in ("realization", *ensemble[name].dims[-2:])]

        def flat(da: xr.DataArray, dims: list = sample_dims) -> np.ndarray:
            return da.stack(n=dims).transpose("realization", "n", ...).values

        target = truth[name].stack(n=sample_dims).transpose("n", ...).values
        one = scores.sel(variable=name)
        rows[str(name)] = {
            "crps": plain_crps(flat(ensemble[name]), target, "fair"),
            "crps_baselines": {k: plain_crps(flat(b[name]), target, "nrg") for k, b in baselines.items()},
            "crps_linear_with_block_means": plain_crps(
                with_block_means(flat(baselines["linear predictor"][name]), target, about["cells per given cell"]),
                target,
                "nrg",
            )
            if name in about["block means kept of"] and about["transforms"][str(name)] == "standard"
            else None,
            "spread_skill": float(one.spread_skill),
            "reliability_index": float(one.reliability_index),
            "variogram": float(one.variogram),
            "variogram_baselines": dict(zip(one.baseline.values.tolist(), one.variogram_baseline.values.tolist())),
            "spectrum_ratio": [round(float(v), 3) for v in one.spectrum_ratio.values],
            "zero_fraction": [float(one.zero_fraction_truth), float(one.zero_fraction_ensemble)],
            "wet_fraction": [float(one.wet_fraction_truth), float(one.wet_fraction_ensemble)],
            "minimum": float(ensemble[name].min()),
            "given_out_of_range": float(ensemble.attrs["given_out_of_range"]),
        }
    kept = ("seconds", "steps", "best_step", "best_loss", "parameters", "guess", "spread")
    return {
        "case": title,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "training": {k: model.facts.get(k) for k in kept},
        "variables": rows,
        "verdict": [str(f) for f in verdict(scores)],
        "scores": to_table(scores),
    }


def trained(data, title: str, steps: int | None, **arguments) -> dict:
    started = time.perf_counter()
    if steps is not None:
        arguments = {k: v for k, v in arguments.items() if k != "budget"} | {"steps": steps}
    usual = {"task": "downscale", "factor": None if "given" in arguments else 4, "baselines": True}
    arguments = usual | {"progress": False, "device": "cpu"} | arguments
    return score(undrift.fit(data, **arguments), title, started)


def jaxpm(folder: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """2-D slabs: eight evenly spaced fine slices of each box, and the coarse slices that hold them."""
    with np.load(folder / "jaxpm_sr_pairs_24x32to64.npz") as z:
        fine, coarse, size = z["hr"][:, ::8].astype("f4"), z["lr"][:, ::4].astype("f4"), float(z["boxsize"])
    axis = lambda n: (np.arange(n) + 0.5) * size / n  # noqa: E731
    label = {"box": np.arange(len(fine)), "slab": np.arange(fine.shape[1])}

    def made(values: np.ndarray) -> xr.Dataset:
        n = values.shape[-1]
        coords = {**label, "y": ("y", axis(n), {"units": "Mpc/h"}), "x": ("x", axis(n), {"units": "Mpc/h"})}
        attrs = {"units": "1", "long_name": "log10 of 1 + particles per cell"}
        return xr.Dataset({"log_density": (("box", "slab", "y", "x"), values, attrs)}, coords=coords)

    return made(fine), made(coarse)


def cases(folder: Path, names: list[str], steps: int | None = None) -> list[dict]:
    era5, hadcm3 = folder / "era5_uk_t2m_hourly_201903.nc", folder / "iris_A1B_E1_north_america_tas.nc"
    split = "year=2070/2099,scenario=E1"
    out = []
    for name in names:
        if name == "era5":
            out.append(trained(era5, name, steps, select=ERA5_CROP, holdout="20%", budget="2m"))
        elif name == "era5_folds":
            days = np.array_split(np.arange(744), 5)
            with xr.open_dataset(era5) as ds:
                for k, hours in enumerate(days):
                    lo, hi = hours[0], hours[-1]
                    keep = ds.isel(time=np.r_[0 : max(lo - 24, 0), lo : hi + 1, min(hi + 25, 744) : 744]).load()
                    ends = [str(t)[:16] for t in ds.time.values[[lo, hi]]]
                    out.append(
                        trained(
                            keep,
                            f"{name}_{k}",
                            steps,
                            select=ERA5_CROP,
                            holdout=f"time={ends[0]}/{ends[1]}",
                            budget="2m",
                            baselines=False,
                        )
                    )
        elif name == "hadcm3":
            out.append(trained(hadcm3, name, steps, holdout=split, budget="75s"))
        elif name == "hadcm3_5min":
            out.append(trained(hadcm3, name, steps, holdout=split, budget="5m", baselines=False))
        elif name == "xclim":
            out.append(trained(folder / "xclim_canesm2_noleap_10km_2095.nc", name, steps, holdout="20%", budget="2m"))
        elif name == "jaxpm":
            fine, coarse = jaxpm(folder)
            out.append(trained(fine, name, steps, given=coarse, holdout="box=19/23", periodic="y,x", budget="2m"))
        elif name == "warmer":
            with xr.open_dataset(hadcm3) as ds:
                a1b = ds.sel(scenario=["A1B"]).sel(year=list(range(1860, 2040)) + list(range(2070, 2100))).load()
            out.append(trained(a1b, name, steps, holdout="year=2070/2099", budget="75s"))
        else:
            raise SystemExit(f"unknown case {name}")
        one = out[-1]
        for variable, row in one["variables"].items():
            rivals = ", ".join(f"{k} {v:.4f}" for k, v in row["crps_baselines"].items())
            print(
                f"{one['case']:14s} {variable:12s} CRPS {row['crps']:.4f} ({rivals}), "
                f"spread/skill {row['spread_skill']:.2f}",
                flush=True,
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "cases", nargs="*", default=["era5", "era5_folds", "hadcm3", "hadcm3_5min", "xclim", "jaxpm", "warmer"]
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, help="train for so many steps in place of the budgets")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases:
        found = cases(arguments.folder, [name], arguments.steps)
        tail = "" if arguments.steps is None else f"_{arguments.steps}_steps"
        (arguments.out / f"quality_{name}{tail}.json").write_text(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
