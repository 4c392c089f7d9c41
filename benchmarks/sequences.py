"""Downscaling in time: hourly temperature of 4 x 4 times as many cells, consistent from hour to hour.

    python benchmarks/sequences.py era5_uk_t2m_hourly_201903.nc --budget 5m --out benchmarks/results/sequences.json

The last fifth of the record is held out and drawn from its means over 4 x 4 cells, as one sequence:

- chained windows: ``--task window --past 2 --future 6 --factor 4``, each given the last two frames drawn before it;
- frame by frame: ``--task downscale --factor 4``, each hour on its own;
- the linear predictors of both (a ridge from the coarse cells of the hour, or of the window), dressed with errors.

CRPS in K, lag-1 autocorrelation and mean lengths of spells (hours above the 90 % and below the 10 % quantile of a cell)
of the fields, and of their detail: what the means over blocks do not tell.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import xarray as xr

import undrift
from undrift.verify import sequence_scores

FACTOR = 4
BLOCKS = {"latitude": FACTOR, "longitude": FACTOR}


def model_of(path: str, task: Any, budget: str, run: Path) -> undrift.FieldModel:
    """The model of a run, trained, or gone on with, where there is none."""
    if not (run / "manifest.json").exists():
        undrift.fit(path, task=task, budget=budget, out=run, resume=run.exists())
    return undrift.load(run)


def detail(data: xr.Dataset) -> xr.Dataset:
    """What the means over blocks do not tell."""
    split = data.t2m.coarsen(BLOCKS).construct(latitude=("y", "i"), longitude=("x", "j"))
    left = (split - split.mean(("i", "j"))).stack(latitude=("y", "i"), longitude=("x", "j"))
    left = left.drop_vars(["latitude", "longitude", "y", "x", "i", "j"], errors="ignore").transpose(*data.t2m.dims)
    return xr.Dataset({"t2m": left}).assign_coords({d: data[d] for d in data.dims}).assign_attrs(data.attrs)


def rows(ensemble: xr.Dataset, truth: xr.Dataset, name: str, run: undrift.FieldModel) -> dict[str, dict[str, float]]:
    """Scores of an ensemble and of the dressed linear predictor of its run."""
    baseline = {"linear": held(run)}
    out: dict[str, dict[str, float]] = {name: {}, f"linear predictor of {name}": {}}
    scores = undrift.evaluate(ensemble, truth, baselines=baseline, bootstrap=0, progress=False).isel(variable=0)
    out[name] = {"CRPS": float(scores.crps), "spread/skill": float(scores.spread_skill)}
    out[f"linear predictor of {name}"] = {"CRPS": float(scores.crps_baseline.squeeze())}
    fine = {key: detail(one) for key, one in baseline.items()}
    for of, one in (("", scores), (" of detail", in_time(detail(ensemble), detail(truth), fine))):
        for row, side in ((name, "ensemble"), (f"linear predictor of {name}", "baseline"), ("truth", "truth")):
            at = out.setdefault(row, {})
            at[f"autocorrelation{of}"] = float(one[f"autocorrelation_{side}"].squeeze())
            for spell in one.spell.values:
                at[f"spells {spell}{of}"] = float(one[f"spell_{side}"].sel(spell=spell).squeeze())
                if side != "truth":
                    key = "spell_distance" if side == "ensemble" else "spell_distance_baseline"
                    at[f"distance of spells {spell}{of}"] = float(one[key].sel(spell=spell).squeeze())
                if side == "ensemble":
                    at[f"by chance {spell}{of}"] = float(one.spell_distance_expected.sel(spell=spell))
    return out


def in_time(ensemble: xr.Dataset, truth: xr.Dataset, baselines: dict[str, xr.Dataset]) -> xr.Dataset:
    """Scores in time."""
    found = sequence_scores(ensemble, truth, baselines=baselines)
    assert found is not None
    return found.isel(variable=0)


def held(model: undrift.FieldModel) -> xr.Dataset:
    """The dressed linear predictor of the held-out part, hour by hour."""
    from undrift.model.frames import frame_baselines

    found = {"linear predictor": model.baselines(progress=False)["linear predictor"]}
    found = frame_baselines(found, "time") if model.config.task.name == "window" else found
    return found["linear predictor"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--realizations", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("build/sequences"), help="directory of the two runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sequences.json"))
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    frames = model_of(arguments.path, undrift.Downscale(FACTOR), arguments.budget, arguments.runs / "frames")
    windows = model_of(arguments.path, undrift.Window(2, 6, FACTOR), arguments.budget, arguments.runs / "windows")
    truth, coarse = frames.holdout_truth().load(), frames.holdout_given()
    assert coarse is not None
    found: dict[str, Any] = {"budget": arguments.budget, "hours": truth.sizes["time"]}
    for name, model in (("frame by frame", frames), ("chained windows", windows)):
        began = time.perf_counter()
        drawn = model.sample(coarse, realizations=arguments.realizations, progress=False)
        found[f"seconds, {name}"] = time.perf_counter() - began
        found |= rows(drawn, truth, name, model)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
