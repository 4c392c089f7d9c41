"""Windows of hourly temperature: between, ahead, from stations, and after a lead time, beside dressed baselines.

    python benchmarks/windows.py era5_uk_t2m_hourly_201903.nc [case ...] --budget 5m

Cases: windows, stations, leads; those that are not named stay in the results as they were. The last fifth of the record
is held out. The training of windows serves two tables:

- the middle hour of 6-hourly data, beside linear interpolation in time, dressed with its errors in training;
- forecasts at 6 and 12 hours, beside the baselines of ``undrift evaluate``: persistence, climatology, EOF ridge.

That of stations is of single fields; the model is given 20 random stations, beside optimal interpolation with the
covariance of the training part. That of leads draws the state 3, 6, 12 and 24 hours after one in a step, beside the
same baselines. All CRPS in K.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

import undrift
from undrift.distributions.baselines import dress
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.spread import moments, spread_skill

STATIONS, ERROR = 20, 0.05
TASKS = {
    "windows": undrift.Window(past=6, future=12),
    "stations": undrift.Window(past=0, future=1),
    "leads": undrift.LeadTime("24h"),
}


def between(model: undrift.FieldModel, record: xr.DataArray) -> dict[str, float]:
    """CRPS of the middle hour of windows whose frames 0 and 6 are given, and of dressed linear interpolation."""
    held = model.holdout_truth()
    began = time.perf_counter()
    ensemble = model.sample(holdout=True, know="0,6", realizations=20, progress=False).t2m.isel(lead_time=3)
    seconds = time.perf_counter() - began
    truth = held.t2m.isel(lead_time=3).values
    ends = [held.t2m.isel(lead_time=k).values for k in (0, 6)]
    trained = record.sel(time=slice(None, model.training_data().time.values[-1])).values
    errors = trained[3:-3] - (trained[:-6] + trained[6:]) / 2
    members = dress(errors[::3, None])[:, 0]
    line = np.mean(ends, 0)[None] + members[:, None]
    drawn = ensemble.transpose("realization", "time", ...).values
    mean, variance = moments(drawn)
    return {
        "undrift": float(fair_crps(truth, drawn).mean()),
        "spread/skill": float(spread_skill(variance.mean(), ((truth - mean) ** 2).mean(), len(drawn))),
        "linear interpolation": float(discrete_crps(truth, line).mean()),
        "windows": len(truth),
        "seconds": seconds,
    }


def ahead(model: undrift.FieldModel, path: str, every: int) -> dict[str, dict[str, float]]:
    """CRPS at 6 and 12 hours of forecasts from every so many hours of the held-out part, and of its baselines."""
    held = model.holdout_truth().time.values
    init = ",".join(str(np.datetime_as_string(t, unit="s")) for t in held[::every])
    forecast = model.forecast(path, init=init, steps=12, realizations=50, progress=False)
    return by_lead(model, forecast, path, (6, 12))


def after(model: undrift.FieldModel, path: str, every: int) -> dict[str, dict[str, float]]:
    """CRPS of the states some hours after every so many hours of the held-out part, and of its baselines."""
    leads = (3, 6, 12, 24)
    starts = model.holdout_truth().isel(time=slice(None, None, every))
    ensemble = model.sample(starts, lead=[f"{lead}h" for lead in leads], realizations=50, progress=False)
    return by_lead(model, ensemble, path, leads)


def by_lead(
    model: undrift.FieldModel, ensemble: xr.Dataset, path: str, leads: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """CRPS and spread/skill at leads in hours, and the CRPS of the baselines."""
    scores = undrift.evaluate(ensemble, path, run=model, bootstrap=0, progress=False)
    out = {}
    for lead in leads:
        one = scores.sel(variable="t2m", prediction_timedelta=np.timedelta64(lead, "h"))
        out[f"{lead} h"] = {"undrift": float(one.crps), "spread/skill": float(one.spread_skill)} | {
            str(name): float(one.crps_baseline.sel(baseline=name)) for name in one.baseline.values
        }
    return out


def stations(model: undrift.FieldModel, record: xr.DataArray, every: int, table: Path) -> dict[str, object]:
    """CRPS and spread/skill at the other cells given stations, and of optimal interpolation."""
    rng, size = np.random.default_rng(0), record[0].size
    seen = rng.choice(size, STATIONS, replace=False)
    others = np.setdiff1d(np.arange(size), seen)
    held = model.holdout_truth().time.values[::every]
    truth = record.sel(time=held).values.reshape(len(held), -1)
    i, j = np.unravel_index(seen, record.shape[1:])
    rows = [
        (t, record.latitude.values[a], record.longitude.values[b], truth[k, s], ERROR)
        for k, t in enumerate(held)
        for a, b, s in zip(i, j, seen)
    ]
    pd.DataFrame(rows, columns=["time", "latitude", "longitude", "t2m", "t2m_error"]).to_csv(table, index=False)
    ensemble = model.sample(observe=table, realizations=50, progress=False).t2m.isel(lead_time=0)
    members = ensemble.transpose("realization", "time", ...).values.reshape(50, len(held), -1)
    trained = model.training_data().t2m.values.reshape(-1, size)
    mean, covariance = trained.mean(0), np.cov(trained.T)
    cross = covariance[:, seen]
    gain = cross @ np.linalg.inv(covariance[np.ix_(seen, seen)] + ERROR**2 * np.eye(STATIONS))
    centre = mean + (truth[:, seen] - mean[seen]) @ gain.T
    spread = np.sqrt(np.maximum(np.diag(covariance) - (gain * cross).sum(1), 1e-9))
    w = (truth - centre) / spread
    oi = spread * (w * (2 * norm.cdf(w) - 1) + 2 * norm.pdf(w) - np.pi**-0.5)
    truth, members, centre = truth[:, others], members[:, :, others], centre[:, others]
    mean, variance = moments(members)

    errors = [((truth - m) ** 2).mean() for m in (mean, centre)]
    return {
        "undrift": {
            "CRPS": float(fair_crps(truth, members).mean()),
            "spread/skill": float(spread_skill(variance.mean(), errors[0], len(members))),
        },
        "optimal interpolation": {
            "CRPS": float(oi[:, others].mean()),
            "spread/skill": float(((spread[others] ** 2).mean() / errors[1]) ** 0.5),
        },
        "fields": len(held),
        "steps of training": model.facts["steps"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("cases", nargs="*", default=list(TASKS), help=", ".join(TASKS))
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--every", type=int, default=6, help="hours between the windows that are scored")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/windows.json"))
    arguments = parser.parse_args()
    record = xr.open_dataset(arguments.path).t2m
    found: dict[str, object] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found["budget"] = arguments.budget
    if unknown := [c for c in arguments.cases if c not in TASKS]:
        parser.error(f"got the cases {', '.join(unknown)}, expected some of {', '.join(TASKS)}")
    for case in arguments.cases:
        model = undrift.fit(arguments.path, task=TASKS[case], budget=arguments.budget)
        assert isinstance(model, undrift.FieldModel)
        if case == "windows":
            found["middle hour"] = {**between(model, record), "steps of training": model.facts["steps"]}
            found["forecasts"] = ahead(model, arguments.path, arguments.every)
        elif case == "leads":
            found["leads"] = {
                **after(model, arguments.path, arguments.every), "steps of training": model.facts["steps"],
            }  # fmt: skip
        else:
            table = arguments.out.with_suffix(".csv")
            found["stations"] = stations(model, record, 2 * arguments.every, table)
            table.unlink()
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
