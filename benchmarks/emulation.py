"""Long emulations: 500 steps of 20 realizations, and what is left of the record's statistics in steps 250 to 500.

    python benchmarks/emulation.py --jcm jcm_speedy_t31_daily_1yr.nc --flow exponax_kolmogorov64.npz --budget 8m

Each record is learned by one model of windows, which then goes on from the record's last frames, window after window.
A statistic of the emulation is the mean over its realizations of what one segment gives. It is within the range where
it differs from that of the truth by no more than truth segments differ from each other (95 % of pairs), or by no more
than 5 % of the local standard deviation, whichever is wider.

- *jcm*, a simulated year of a global atmosphere: per calendar month and band of 22.5 degrees of latitude, mean and
  standard deviation (of days, at a cell) of each variable. There is one year: truth segments are months that are put
  together from blocks of 10 days, of the record within 45 days of the month's middle and without its yearly cycle.
- *flow*, two-dimensional turbulence: enstrophy and its standard deviation in time, power at each wavenumber, quantiles
  of vorticity. Truth segments are of 100 frames, as the runs of the record are, put together from blocks of 20 frames.

Beside the count of statistics within the range stands the share of single realizations within it, which would be 95 %
if they were truth; and what a perfect emulation would leave outside: the count for the mean of as many truth segments
about another one, drawn 500 times. Statistics go together, so that the count varies much.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import undrift

STEPS, FIRST, REALIZATIONS = 500, 250, 20
PAIRS, NEAR = 500, 0.05
BANDS, MONTH_BLOCK, SEASON, LEAST_DAYS = 8, 10, 45, 20
FLOW_BLOCK, FLOW_SEGMENT, WAVES = 20, 100, 28
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)

Statistics = dict[str, np.ndarray]
Array = np.ndarray


@dataclass(frozen=True)
class Emulation:
    """What is trained and drawn.

    Attributes:
        folder: of the run and of its forecast.
        settings: of ``undrift.fit``.
        realizations: of the forecast.
        coarsen: cells of the record in a cell of what is learned, along each side.
        kept: whether the folder's forecast is scored as it is.
        facts: what was measured beside the statistics.
    """

    folder: Path
    settings: dict[str, Any]
    realizations: int
    coarsen: int
    kept: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, data: xr.Dataset, last: xr.Dataset) -> xr.Dataset:
        """Train on a record and go on from its last frames; what was stopped is gone on with."""
        path = self.folder / "FC.zarr"
        if not self.kept:
            run = self.folder / "RUN"
            model = undrift.fit(data, out=run, resume=(run / "config.toml").exists(), **self.settings)
            assert isinstance(model, undrift.FieldModel)
            began = time.perf_counter()
            model.forecast(last, steps=STEPS, realizations=self.realizations, out=path, overwrite=True)
            self.facts["forecast_seconds"] = round(time.perf_counter() - began, 1)
        model = undrift.load(self.folder / "RUN", data=data)
        self.facts.update(training_steps=model.facts["steps"], parameters=model.facts["parameters"])
        return xr.open_zarr(path).isel(time=0)


def compared(singles: Statistics, truth: Statistics, segments: Statistics, scale: Statistics) -> dict[str, object]:
    """Statistics of the emulation beside the range of truth against truth.

    Args:
        singles: name -> of single segments of the emulation, (segments, ...).
        truth: the same of the truth, any shape.
        segments: the same of 2 ``PAIRS`` truth segments, (segments, ...).
        scale: local standard deviation, in units of the statistic.
    """
    out: dict[str, object] = {}
    inside, within, count = 0, [], 0
    perfect, rng = np.zeros(PAIRS, int), np.random.default_rng(1)
    chosen = rng.integers(2 * PAIRS, size=(PAIRS, 1 + len(next(iter(singles.values())))))
    for name, value in singles.items():
        low, high = np.quantile(segments[name][:PAIRS] - segments[name][PAIRS:], [0.025, 0.975], axis=0)
        near = NEAR * scale[name]
        low, high = np.minimum(low, -near), np.maximum(high, near)
        for k, (one, *others) in enumerate(chosen):
            off = segments[name][others].mean(0) - segments[name][one]
            perfect[k] += int(((off < low) | (off > high)).sum())
        off = value.mean(0) - truth[name]
        good = (off >= low) & (off <= high)
        each = ((value - truth[name] >= low) & (value - truth[name] <= high)).mean()
        ratio = np.where(off > 0, off / high, off / low)
        out[name] = {
            "inside": int(good.sum()),
            "of": int(good.size),
            "single": round(float(each), 3),
            "worst, in ranges": round(float(ratio.max()), 2),
            "worst at": [int(i) for i in np.unravel_index(ratio.argmax(), ratio.shape)],
        }
        inside, count = inside + int(good.sum()), count + good.size
        within.append(each)
    met = "met" if inside == count else "missed"
    emulated = {"outside": round(float(perfect.mean()), 1), "95 %": int(np.quantile(perfect, 0.95))}
    emulated |= {"as many or more": round(float((perfect >= count - inside).mean()), 3)}
    single = round(float(np.mean(within)), 3)
    return {"inside": inside, "of": count, "bar": met, "single": single, "perfect": emulated, "by statistic": out}


# the atmosphere


def months_of(times: xr.DataArray) -> Array:
    """Calendar month of each time."""
    return times.dt.month.values


def month_statistics(values: Array, lat: Array) -> tuple[Array, Array]:
    """Mean and standard deviation in time of days (day, variable, lat, lon), of each band, (variable, band)."""
    weight = np.cos(np.deg2rad(lat)).reshape(BANDS, -1)

    def banded(field: Array) -> Array:
        rows = field.mean(-1).reshape(len(field), BANDS, -1)
        return (rows * weight).sum(-1) / weight.sum(-1)

    return banded(values.mean(0)), np.sqrt(banded(values.var(0)))


def without_cycle(values: Array, days: Array) -> Array:
    """Values (day, ...) less two harmonics of the year."""
    phase = 2 * np.pi * days / 365.2425
    basis = np.stack([np.ones_like(phase), *(f(k * phase) for k in (1, 2) for f in (np.cos, np.sin))], 1)
    flat = values.reshape(len(values), -1)
    return (flat - basis @ np.linalg.lstsq(basis, flat, rcond=None)[0]).reshape(values.shape)


def month_segments(anomalies: Array, days: Array, middle: float, length: int, lat: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of months made of blocks of the season."""
    rng = np.random.default_rng(0)
    away = np.abs((days - middle + 182.6) % 365.2425 - 182.6)
    starts = np.flatnonzero(away < SEASON)
    starts = starts[starts < len(days) - MONTH_BLOCK]

    def segment() -> tuple[Array, Array]:
        chosen = rng.choice(starts, -(-length // MONTH_BLOCK))
        rows = (chosen[:, None] + np.arange(MONTH_BLOCK)).ravel()[:length]
        return month_statistics(anomalies[rows], lat)

    means, stds = zip(*(segment() for _ in range(2 * PAIRS)))
    return np.stack(means), np.stack(stds)


def atmosphere(path: Path, emulation: Emulation) -> dict[str, object]:
    """Statistics of the year's continuation beside those of the year."""
    data = xr.open_dataset(path).load().astype("float32")
    if emulation.coarsen > 1:
        data = data.coarsen(lat=emulation.coarsen, lon=emulation.coarsen).mean()
    forecast = emulation(data, data.isel(time=slice(-8, None)))
    names, lat = list(data.data_vars), data.lat.values
    record = np.stack([data[v].values for v in names], 1).astype(np.float64)
    days = data.time.dt.dayofyear.values.astype(np.float64)
    anomalies = without_cycle(record, days)
    late = forecast.isel(prediction_timedelta=slice(FIRST - 1, None))
    when, months = months_of(late.valid_time), months_of(data.time)
    chosen = [m for m in range(1, 13) if (when == m).sum() >= LEAST_DAYS]
    truth, segments, scale = ({"mean": [], "standard deviation": []} for _ in range(3))
    for m in chosen:
        mean, std = month_statistics(record[months == m], lat)
        middle, length = float(np.median(days[months == m])), int((when == m).sum())
        made = month_segments(anomalies, days, middle, length, lat)
        for name, value, some in zip(truth, (mean, std), made):
            truth[name].append(value)
            segments[name].append(some)
            scale[name].append(std)
    singles: dict[str, list] = {name: [] for name in truth}
    for r in range(emulation.realizations):
        one = late.isel(realization=r)
        values = np.stack([one[v].transpose("prediction_timedelta", "lat", "lon").values for v in names], 1)
        parts = [month_statistics(values[when == m].astype(np.float64), lat) for m in chosen]
        for k, name in enumerate(truth):
            singles[name].append(np.stack([p[k] for p in parts]))
    arrays = [{k: np.stack(v) for k, v in d.items()} for d in (singles, truth, scale)]
    of_truth = {k: np.stack(v, 1) for k, v in segments.items()}

    def named(d: dict[str, Array], axis: int) -> Statistics:
        return {f"{v} {k}": np.take(a, i, axis=axis) for k, a in d.items() for i, v in enumerate(names)}

    singles_, truth_, scale_ = named(arrays[0], 2), named(arrays[1], 1), named(arrays[2], 1)
    result = compared(singles_, truth_, named(of_truth, 2), scale_)
    return {**emulation.facts, "months": chosen, "bands": BANDS, **result}


# the flow


def frame_statistics(frames: Array) -> Statistics:
    """Of each frame (n, 64, 64): enstrophy, power at wavenumbers 1 to 28, and quantiles of vorticity."""
    size = frames.shape[-1]
    waves = np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(waves[:, None], waves[None])).astype(int)
    power = np.abs(np.fft.fft2(frames)) ** 2 / size**4
    spectrum = np.stack([power[:, ring == k].sum(-1) for k in range(1, WAVES + 1)], 1)
    return {
        "enstrophy": 0.5 * (frames**2).mean((1, 2)),
        "power": spectrum,
        "quantile": np.quantile(frames.reshape(len(frames), -1), QUANTILES, axis=1).T,
    }


def segment_statistics(frames: Statistics) -> Statistics:
    """Of a segment, from those of its frames."""
    out = {name: value.mean(0) for name, value in frames.items()}
    return {**out, "standard deviation of enstrophy": frames["enstrophy"].std()}


def flow(path: Path, emulation: Emulation) -> dict[str, object]:
    """Statistics of a run that goes on beside those of the runs."""
    runs = np.load(path)["vort"].astype(np.float32)
    dims = ("run", "time", "y", "x")
    coords = {"run": np.arange(len(runs)), "time": np.arange(runs.shape[1], dtype=np.float64)}
    data = xr.Dataset({"vorticity": (dims, runs)}, coords)
    forecast = emulation(data, data.isel(run=[-1], time=slice(-8, None))).isel(run=0, missing_dims="ignore")
    of_runs = [frame_statistics(run.astype(np.float64)) for run in runs]
    truth = {k: np.mean([segment_statistics(r)[k] for r in of_runs], 0) for k in segment_statistics(of_runs[0])}
    rng = np.random.default_rng(0)

    def segment() -> Statistics:
        rows = []
        for _ in range(FLOW_SEGMENT // FLOW_BLOCK):
            run, start = rng.integers(len(runs)), rng.integers(runs.shape[1] - FLOW_BLOCK + 1)
            rows.append({k: v[start : start + FLOW_BLOCK] for k, v in of_runs[run].items()})
        return segment_statistics({k: np.concatenate([r[k] for r in rows]) for k in rows[0]})

    made = [segment() for _ in range(2 * PAIRS)]
    segments = {k: np.stack([s[k] for s in made]) for k in truth}
    together = {k: np.concatenate([r[k] for r in of_runs]) for k in of_runs[0]}
    scale = {k: v.std(0) for k, v in together.items()} | {"quantile": np.full(len(QUANTILES), runs.std())}
    scale["standard deviation of enstrophy"] = scale["enstrophy"]
    late = forecast.vorticity.transpose("realization", "prediction_timedelta", "y", "x")
    singles = []
    for r in range(emulation.realizations):
        of_frames = frame_statistics(late[r, FIRST - 1 :].values.astype(np.float64))
        for start in range(0, STEPS - FIRST + 1 - FLOW_SEGMENT + 1, FLOW_SEGMENT):
            singles.append(segment_statistics({k: v[start : start + FLOW_SEGMENT] for k, v in of_frames.items()}))
    stacked = {k: np.stack([s[k] for s in singles]) for k in truth}
    result = compared(stacked, truth, segments, scale)
    return {**emulation.facts, **result}


CASES: dict[str, Callable[[Path, Emulation], dict[str, object]]] = {"jcm": atmosphere, "flow": flow}
WINDOW = {"past": 1, "future": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    # all but the last window is learned: what is compared comes long after the record
    "jcm": {"holdout": "time=2001-02-16", "set": {"sample.nfe": 5, "sample.micro_batch": 20}},
    "flow": {"holdout": "run=3,time=91", "periodic": "y,x", "set": {"sample.nfe": 6, "sample.micro_batch": 20}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in CASES:
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--budget", default="8m")
    parser.add_argument("--steps", type=int, help="of training, in place of the budget")
    parser.add_argument("--realizations", type=int, default=REALIZATIONS)
    parser.add_argument("--coarsen", type=int, default=1, help="of the atmosphere, along each side")
    parser.add_argument("--set", action="append", default=[], help="a setting, as net.channels=16,16")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps the runs and forecasts, to go on with after a stop"
    )
    parser.add_argument("--kept", action="store_true", help="score the forecasts that --work has")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/emulation.json"))
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    length = {"budget": arguments.budget} if arguments.steps is None else {"steps": arguments.steps}
    for name, case in CASES.items():
        path = getattr(arguments, name)
        if path is None:
            continue
        own = dict(SETTINGS[name])
        own["set"] = own["set"] | dict(text.split("=", 1) for text in arguments.set)
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.work or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            settings = {"task": undrift.Window(**WINDOW), **length, **own}
            emulation = Emulation(folder, settings, arguments.realizations, arguments.coarsen, arguments.kept)
            result = case(path, emulation)
        asked = {**length, **own, "window": WINDOW, "realizations": arguments.realizations}
        found[name] = {**asked, "coarsen": arguments.coarsen, **result}
        print(json.dumps({name: found[name]}, indent=1), flush=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
