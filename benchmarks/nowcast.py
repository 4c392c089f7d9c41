"""Forecasts of rain from one training, beside pysteps' STEPS with as many members and the dressed baselines.

    python benchmarks/nowcast.py knmi_rain5min_20100826_1km_256.nc --out benchmarks/results/nowcast.json

The one variable of the file is rain per step, made mm/h. The first 64 frames train, for 10 minutes, a model of windows
of 3 frames given and 12 asked, and for 10 minutes more the same network as a regression; with --run they are kept, and
what was stopped is gone on with. Forecasts begin within the later frames, of which nothing was seen. STEPS (Bowler et
al. 2006, doi:10.1256/qj.04.100; Seed 2003) gets the same past frames, in dBR above the smallest rate of the record,
with motion by Lucas and Kanade; it needs pip install 'undrift[bench]'. All are scored as ensembles by the fair CRPS,
the dressed baselines by that of their quantiles. Which of the bars are met is printed; nothing is tuned on the later
frames.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

import undrift
from undrift.model.hindcast import hindcast_starts
from undrift.verify import by_lead, rain_by_lead, rain_thresholds
from undrift.verify.leads import LEAD

PAST, FUTURE = 3, 12
NOISE = -5.0  # dB below the smallest rate: what less rain is to STEPS
SETTINGS = {
    "codec.linear": False,  # one event has no climate of its own at each cell
    "net.channels": "24,48,48", "net.members": 1, "sample.micro_batch": 4, "sample.nfe": 6,
}  # fmt: skip
LEADS = {"15 min": 3, "30 min": 6, "60 min": 12}
FACTOR, SHORTEST = 1.5, 4.0  # of the spectrum at 30 min, km


def steps_forecast(past: np.ndarray, leads: int, members: int, km: float, least: float, seed: int) -> np.ndarray:
    """Members (M, leads, y, x) in mm/h from past frames (P, y, x), 5 min apart; the last one where there is no rain."""
    from pysteps import motion, nowcasts
    from pysteps.utils import transformation

    past = np.nan_to_num(past).astype(np.float64)
    if (past[-1] >= least).mean() < 1e-3:
        return np.broadcast_to(past[-1], (members, leads, *past.shape[1:])).copy()
    threshold = 10 * np.log10(least)
    decibel = transformation.dB_transform(past, threshold=least, zerovalue=threshold + NOISE)[0]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells all that it does
        velocity = motion.get_method("LK")(decibel)
        drawn = nowcasts.get_method("steps")(
            decibel, velocity, leads, n_ens_members=members, n_cascade_levels=6, ar_order=len(past) - 1, seed=seed,
            precip_thr=threshold, kmperpixel=km, timestep=5,
        )  # fmt: skip
    rain = transformation.dB_transform(drawn, threshold=threshold, inverse=True)[0]
    return np.where(np.isfinite(rain), rain, 0.0)


def beside(forecast: xr.Dataset, record: xr.Dataset, name: str, km: float, least: float) -> xr.Dataset:
    """Forecasts of STEPS with the starts, leads and number of members of another one."""
    step = forecast[LEAD].values[0]
    like = forecast[name].transpose("realization", "time", LEAD, *record[name].dims[1:])
    values = np.empty(like.shape, np.float32)
    for i, start in enumerate(forecast["time"].values):
        frames = record[name].sel(time=start - step * np.arange(PAST)[::-1]).values
        values[:, i] = steps_forecast(frames, like.sizes[LEAD], like.sizes["realization"], km, least, seed=i)
    return forecast.drop_vars(list(forecast.data_vars)).assign({name: like.copy(data=values)})


def opened(path: str) -> tuple[xr.Dataset, str]:
    """The record in mm/h, and the name of its variable."""
    raw = xr.open_dataset(path).load()
    (name,) = raw.data_vars
    hours = float(np.diff(raw["time"].values[:2])[0] / np.timedelta64(1, "h"))
    rate = (raw[name] / hours).astype(np.float32).assign_attrs(units="mm/h", standard_name="rainfall_rate")
    return raw.assign({name: rate}), str(name)


def trained(record: xr.Dataset, frames: int, run: Path, budget: str, regression: bool) -> undrift.FieldModel:
    """The model of the first frames; what a run has of it is gone on with."""
    if (run / "manifest.json").exists():
        return undrift.load(run, data=record)
    times = [str(t)[:19] for t in record["time"].values[[frames + PAST - 1, -1]]]
    return undrift.fit(
        record, task=undrift.Window(past=PAST, future=FUTURE), holdout={"time": tuple(times)}, budget=budget,
        baselines=regression, out=run, resume=run.exists(), set=SETTINGS,
    )  # fmt: skip


def bars(scores: xr.Dataset, forecast: xr.Dataset, name: str, seconds: float) -> list[dict]:
    """Each bar: what was found, what was to be, and whether it is met."""
    one, out = scores.isel(variable=0), []

    def bar(what: str, found: float, low: float, high: float) -> None:
        out.append({"bar": what, "found": found, "from": low, "to": high, "met": bool(low <= found <= high)})

    for label, lead in LEADS.items():
        at = one.isel({LEAD: lead - 1})
        for rival in ("Lagrangian persistence", "regression", "STEPS"):
            if rival in at["baseline"]:
                bar(f"CRPS, {label}, over {rival}'s", float(at.crps / at.crps_baseline.sel(baseline=rival)), 0.0, 1.0)
        bar(f"spread/skill, {label}", float(at.spread_skill), 0.8, 1.2)
        dry = float(at.zero_fraction_ensemble - at.zero_fraction_truth)
        bar(f"dry fraction less the truth's, {label}", dry, -0.03, 0.03)
    spectrum = one.spectrum_ratio.isel({LEAD: LEADS["30 min"] - 1})
    for band in np.flatnonzero(one["shortest"].values >= SHORTEST):
        bar(f"spectrum over the truth's, 30 min, {one['band'].values[band]}", float(spectrum[band]), 1 / FACTOR, FACTOR)
    bar("least rain, mm/h", float(forecast[name].min()), 0.0, np.inf)
    bar("seconds of 20 members x 12 steps", seconds, 0.0, 60.0)
    return out


def table(scores: xr.Dataset) -> dict[str, dict[str, float]]:
    """CRPS in mm/h of each, by lead."""
    one = scores.isel(variable=0)
    names = {"undrift": one.crps} | {str(b): one.crps_baseline.sel(baseline=b) for b in one["baseline"].values}
    return {n: {label: float(v.isel({LEAD: k - 1})) for label, k in LEADS.items()} for n, v in names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--run", type=Path, help="directory in which the training is kept")
    parser.add_argument("--budget", default="10m", help="of the model, and again of the regression")
    parser.add_argument("--regression", action=argparse.BooleanOptionalAction, default=True)
    for option, value in (("frames", 64), ("members", 20), ("starts", 12)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--km", type=float, default=1.0, help="side of a cell")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    record, name = opened(args.data)
    rates = record[name].values
    least = float(rates[: args.frames].min(where=rates[: args.frames] > 0, initial=np.inf))
    with tempfile.TemporaryDirectory() as folder:
        model = trained(record, args.frames, args.run or Path(folder) / "RUN", args.budget, args.regression)
        starts = hindcast_starts(model, FUTURE, args.starts)
        began = time.perf_counter()
        model.forecast(record, init=starts[:1], steps=FUTURE, realizations=20, progress=False)
        seconds = time.perf_counter() - began
        forecast = model.forecast(record, init=starts, steps=FUTURE, realizations=args.members)
        rivals, absent = model.forecast_baselines(forecast, record)
    try:
        rivals["STEPS"] = beside(forecast, record, name, args.km, least)
    except ImportError:
        absent.append("no STEPS: pip install 'undrift[bench]'")
    scores = by_lead(forecast, record, baselines=rivals)
    found = {"crps": table(scores), "bars": bars(scores, forecast, name, seconds), "absent": absent}
    for rival, row in found["crps"].items():
        print(f"{rival:>24s}  " + "  ".join(f"{label} {crps:.4f}" for label, crps in row.items()))
    for one in found["bars"]:
        print(f"{'met   ' if one['met'] else 'MISSED'}  {one['bar']}: {one['found']:.3f}")
    rain = rain_by_lead(forecast, record, rain_thresholds(record[name]), baselines=rivals, bootstrap=0)
    found["rain"] = {key: rain[key].values.tolist() for key in rain.data_vars if not key.endswith("_interval")}
    found |= {"starts": [str(t) for t in starts], "members": args.members, "budget": args.budget, "frames": args.frames}
    found["training"] = {k: model.parts.facts[k] for k in ("steps", "seconds", "preparing_seconds")}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
