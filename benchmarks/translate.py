"""What is not seen from what is: wind, temperature and humidity of the lower troposphere given height and rain.

    python benchmarks/translate.py jcm_speedy_t31_daily_1yr.nc --budget 5m --out benchmarks/results/translate.json

A model of single frames of six variables of a global atmosphere, trained with random masks, is given two of them on
every fifth of the days that are held out. Beside it stand a regression in each cell from the same two variables, and
the seasonal climatology of each cell (one harmonic), both dressed with their errors in training.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import xarray as xr

import undrift
from undrift.distributions.baselines import dress
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.spread import moments, spread_skill

GIVEN, ASKED = ["z_sig51", "precip"], ["t_sig83", "u_sig83", "v_sig83", "q_sig83"]
EVERY, REALIZATIONS, RIDGE = 5, 20, 1e-2


def flat(data: xr.Dataset, name: str) -> np.ndarray:
    """Days of a variable in cells, (time, cells); of rain its root."""
    values = data[name].transpose("time", "lat", "lon").values.reshape(data.sizes["time"], -1).astype(np.float64)
    return np.sqrt(np.maximum(values, 0)) if name == "precip" else values


def seasons(time: xr.DataArray) -> np.ndarray:
    """A constant and one harmonic of the year, (time, 3)."""
    phase = 2 * np.pi * time.dt.dayofyear.values / 365.25
    return np.stack([np.ones(len(phase)), np.cos(phase), np.sin(phase)], 1)


def rivals(trained: xr.Dataset, held: xr.Dataset, name: str) -> dict[str, np.ndarray]:
    """Dressed members (50, time, cells) of the climatology of each cell and of its regression."""
    before, after = seasons(trained.time), seasons(held.time)

    def anomalies(of: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = flat(trained, of)
        fit = np.linalg.lstsq(before, y, rcond=None)[0]
        return y - before @ fit, flat(held, of) - after @ fit, after @ fit

    x, seen = (np.stack(v, 1) for v in zip(*(anomalies(n)[:2] for n in GIVEN)))
    size = x.std(0) + 1e-2 * x.std((0, 2))[:, None]
    x, seen = x / size, seen / size
    y, _, centre = anomalies(name)
    gram = np.einsum("tvc,twc->cvw", x, x) / len(x) + RIDGE * np.eye(len(GIVEN))
    weights = np.linalg.solve(gram, (np.einsum("tvc,tc->cv", x, y) / len(x))[..., None])[..., 0]
    left = y - np.einsum("cv,tvc->tc", weights, x)
    told = centre + np.einsum("cv,tvc->tc", weights, seen)
    return {
        "regression": told + dress(left[:, None])[:, 0][:, None],
        "climatology": centre + dress(y[:, None])[:, 0][:, None],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--holdout", default="time=2000-09-01/2000-10-31")
    parser.add_argument("--run", type=Path, help="directory in which the training is kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/translate.json"))
    arguments = parser.parse_args()
    run: Path | None = arguments.run
    if run is not None and (run / "manifest.json").exists():
        model = undrift.load(run)
    else:
        model = undrift.fit(
            arguments.path, task=undrift.Window(0, 1), budget=arguments.budget, holdout=arguments.holdout, out=run
        )
    assert isinstance(model, undrift.FieldModel)
    held = model.holdout_truth().isel(lead_time=0, drop=True).isel(time=slice(None, None, EVERY))
    trained = model.training_data().isel(lead_time=0, drop=True)
    drawn = model.sample(held[GIVEN], realizations=REALIZATIONS, progress=False).isel(lead_time=0)
    found = {
        "budget": arguments.budget,
        "holdout": arguments.holdout,
        "steps of training": model.facts["steps"],
        "days": held.sizes["time"],
    }
    for name in ASKED:
        truth = flat(held, name)
        members = np.stack([flat(drawn.isel(realization=k), name) for k in range(REALIZATIONS)])
        mean, variance = moments(members)
        found[name] = {
            "undrift": float(fair_crps(truth, members).mean()),
            "spread/skill": float(spread_skill(variance.mean(), ((truth - mean) ** 2).mean(), REALIZATIONS)),
        } | {n: float(discrete_crps(truth, m).mean()) for n, m in rivals(trained, held, name).items()}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
