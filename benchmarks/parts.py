"""Parts of windows given others: before, between and within given frames, beside dressed interpolation.

    python benchmarks/parts.py era5_uk_t2m_hourly_201903.nc --budget 2m --out benchmarks/results/parts.json

Hourly temperature, one model of windows of 4 + 8 hours, the last fifth held out. Windows there that share no frame are
each given some of their hours or cells, and the rest is drawn:

- the 4 hours before 8 given ones, beside the first given hour;
- the 10 hours between two given ones, and two of each three hours, beside linear interpolation in time;
- a box of 16 x 24 cells, and nine of ten cells at random, in all hours, beside linear interpolation in space.

Interpolation and the climatology of the hour are dressed with quantiles of the errors that they make of the same cells
in the training part. CRPS in K over all asked cells, and spread over error.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

import undrift
from undrift.distributions.baselines import dress
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.spread import moments, spread_skill

PAST, FUTURE = 4, 8
FRAMES = PAST + FUTURE


def cases(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What is given of a window, (FRAMES, y, x), by name."""
    hours = np.zeros((3, FRAMES, *shape), bool)
    hours[0, PAST:], hours[1, [0, -1]], hours[2, ::3] = True, True, True
    box, scattered = np.ones(shape, bool), np.random.default_rng(0).random(shape) < 0.1
    box[8:24, 12:36] = False
    cells = [np.broadcast_to(c, (FRAMES, *shape)) for c in (box, scattered)]
    names = ("4 hours before 8", "10 hours between two", "two of each three hours", "a box", "nine of ten cells")
    return dict(zip(names, [*hours, *cells]))


def interpolated(windows: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Windows (n, FRAMES, y, x) from what is given of them: along time, or in space where each hour has some cells."""
    if not given.all((1, 2)).any():
        at, known = np.argwhere(np.ones_like(given[0])), given[0]
        values = windows[:, :, known].reshape(-1, known.sum()).T
        line, near = (f(np.argwhere(known), values)(at) for f in (LinearNDInterpolator, NearestNDInterpolator))
        return np.where(np.isnan(line), near, line).T.reshape(windows.shape)
    known = np.flatnonzero(given.all((1, 2)))
    after = np.clip(np.searchsorted(known, np.arange(FRAMES)), 1 if len(known) > 1 else 0, len(known) - 1)
    low, high = known[after - 1], known[after]
    share = np.clip((np.arange(FRAMES) - low) / (high - low), 0, 1)[:, None, None]
    return (1 - share) * windows[:, low] + share * windows[:, high]


def climatology(record: xr.DataArray, times: np.ndarray) -> np.ndarray:
    """The mean of each hour of the day of a record at times (n, FRAMES), (n, FRAMES, y, x)."""
    means = record.groupby("time.hour").mean().sortby("hour").values
    return means[times.astype("datetime64[h]").astype(int) % 24]


def windows_of(record: xr.DataArray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (n, FRAMES, y, x) that begin every so many hours, and their times (n, FRAMES)."""
    first = np.arange(0, record.sizes["time"] - FRAMES + 1, every)[:, None] + np.arange(FRAMES)
    return record.values[first], record.time.values[first]


def scored(model: undrift.FieldModel, record: xr.DataArray, given: np.ndarray, count: int) -> dict[str, object]:
    """Scores of one case over windows of the held-out part that share no frame, and of its dressed baselines."""
    end = model.training_data().time.values[-1]
    seen = record.sel(time=slice(None, end))
    held = record.sel(time=slice(model.holdout_truth().time.values[0] - np.timedelta64(PAST - 1, "h"), None))
    truth, times = windows_of(held, FRAMES)
    trained, hours = windows_of(seen, 3)
    asked = ~given
    drawn = []
    for k, at in enumerate(times):
        window = record.sel(time=at).where(xr.DataArray(given, dims=record.dims, coords={"time": at}))
        one = model.sample(window.to_dataset(), realizations=count, progress=False).t2m.isel(time=0)
        drawn.append(one.transpose("realization", "lead_time", ...).values[:, asked])
        assert drawn[k].shape[1] == asked.sum()
    members, truths = np.stack(drawn, 1), truth[:, asked]
    mean, variance = moments(members)
    error = ((truths - mean) ** 2).mean()
    rivals = {
        "interpolation": (interpolated(truth, given), interpolated(trained, given)),
        "climatology": (climatology(seen, times), climatology(seen, hours)),
    }
    out: dict[str, object] = {
        "undrift": float(fair_crps(truths, members).mean()),
        "spread/skill": float(spread_skill(variance.mean(), error, count)),
    }
    for name, (point, before) in rivals.items():
        dressed = point[None] + dress(trained - before)[:, None]
        out[name] = float(discrete_crps(truths, dressed[:, :, asked]).mean())
        out[f"error of {name}"] = float(np.abs(truth - point)[:, asked].mean())
    return out | {"windows": len(truth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--realizations", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/parts.json"))
    arguments = parser.parse_args()
    record = xr.open_dataset(arguments.path).t2m
    model = undrift.fit(arguments.path, task=undrift.Window(past=PAST, future=FUTURE), budget=arguments.budget)
    assert isinstance(model, undrift.FieldModel)
    found: dict[str, object] = {"budget": arguments.budget, "steps of training": model.facts["steps"]}
    for name, given in cases(record.shape[1:]).items():
        found[name] = scored(model, record, given, arguments.realizations)
        print(name, found[name], flush=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
