"""Forecasts of rain beside pysteps' STEPS with as many members, and beside the dressed baselines, lead by lead.

    python benchmarks/nowcast.py RUN [--members 16] [--starts 12] [--steps 12] [--km 1] [--out FILE.json]

RUN is a run directory of --task window whose one variable is rain in mm/h, with --past 2 or more. Forecasts begin
within the part of its record that training left out. STEPS (Bowler et al. 2006, doi:10.1256/qj.04.100; Seed 2003) gets
the same past frames, in dBR above 0.1 mm/h, with motion by Lucas and Kanade. Both are scored as ensembles of that many
members, by the fair CRPS; it needs pip install 'undrift[bench]'.
"""

import argparse
import contextlib
import io
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr

import undrift
from undrift.data.frames import single_frames_of
from undrift.model.hindcast import hindcast_starts
from undrift.verify import by_lead, rain_by_lead, rain_thresholds, to_table
from undrift.verify.leads import LEAD

DRY, ZERO = 0.1, -15.0  # mm/h, and what less rain is in dBR
FRAMES = 3  # of the past that STEPS takes: an autoregression of order 2


def steps_forecast(past: np.ndarray, leads: int, members: int, km: float, minutes: float, seed: int) -> np.ndarray:
    """Members (M, leads, y, x) in mm/h from past frames (P, y, x); the last frame on and on where there is no rain."""
    from pysteps import motion, nowcasts
    from pysteps.utils import transformation

    past = np.nan_to_num(past[-FRAMES:]).astype(np.float64)
    if (past[-1] >= DRY).mean() < 1e-3:
        return np.broadcast_to(past[-1], (members, leads, *past.shape[1:])).copy()
    decibel = transformation.dB_transform(past, threshold=DRY, zerovalue=ZERO)[0]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells all that it does
        velocity = motion.get_method("LK")(decibel)
        drawn = nowcasts.get_method("steps")(
            decibel, velocity, leads, n_ens_members=members, n_cascade_levels=6, ar_order=len(past) - 1, seed=seed,
            precip_thr=10 * np.log10(DRY), kmperpixel=km, timestep=minutes,
        )  # fmt: skip
    rain = transformation.dB_transform(drawn, threshold=10 * np.log10(DRY), inverse=True)[0]
    return np.where(np.isfinite(rain), rain, 0.0)


def beside(forecast: xr.Dataset, record: xr.Dataset, name: str, past: int, km: float) -> xr.Dataset:
    """Forecasts of STEPS with the starts, leads and number of members of another one."""
    step = forecast[LEAD].values[0]
    order = ("realization", "time", LEAD, *record[name].dims[1:])
    like = forecast[name].transpose(*order)
    values = np.empty(like.shape, np.float32)
    for i, start in enumerate(forecast["time"].values):
        frames = record[name].sel(time=start - step * np.arange(past)[::-1]).values
        members, leads, minutes = like.sizes["realization"], like.sizes[LEAD], float(step / np.timedelta64(1, "m"))
        values[:, i] = steps_forecast(frames, leads, members, km, minutes, seed=i)
    return forecast.drop_vars(list(forecast.data_vars)).assign({name: like.copy(data=values)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    for option, value in (("members", 16), ("starts", 12), ("steps", 12)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--km", type=float, default=1.0, help="side of a cell")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = undrift.load(args.run)
    frames = single_frames_of(model.problem.pair.target)
    record = frames.restore(frames.dataset)
    (name,) = record.data_vars
    began = time.perf_counter()
    starts = hindcast_starts(model, args.steps, args.starts)
    forecast = model.forecast(None, init=starts, steps=args.steps, realizations=args.members)
    drawn = time.perf_counter()
    rivals, absent = model.forecast_baselines(forecast)
    fitted = time.perf_counter()
    rivals["STEPS"] = beside(forecast, record, str(name), model.task.past, args.km)
    seconds = {"forecast": drawn - began, "STEPS": time.perf_counter() - fitted}
    scores = by_lead(forecast, record, baselines=rivals)
    rain = rain_by_lead(forecast, record, rain_thresholds(record[name]), baselines=rivals)
    rows = {"lead": [f"{lead / np.timedelta64(1, 'm'):g} min" for lead in forecast[LEAD].values]}
    rows["undrift"] = scores["crps"].values[0].tolist()
    rows |= {one: scores["crps_baseline"].sel(baseline=one).values[0].tolist() for one in rivals}
    for parts in zip(*([key, *values] for key, values in rows.items())):
        print("  ".join(f"{p:>12.4f}" if isinstance(p, float) else f"{p:>12.12s}" for p in parts))
    print(*absent, seconds, sep="\n")
    if args.out:
        found = {key: rain[key].values.tolist() for key in rain.data_vars if not key.endswith("_interval")}
        args.out.write_text(json.dumps({"seconds": seconds, "crps": rows, "scores": to_table(scores), "rain": found}))


if __name__ == "__main__":
    main()
