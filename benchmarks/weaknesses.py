"""Slow sampling, no physics, no detail: what the three weaknesses of diffusion models come to, for docs/weaknesses.md.

    python benchmarks/weaknesses.py maps --work RUNS --out MAPS.json
    python benchmarks/weaknesses.py flow exponax_kolmogorov64.npz --work RUNS --out FLOW.json

``maps``: the embedded annual temperatures, downscaled by 4, E1 2070 to 2099 as test, with the same net as a regression:
scores and seconds of a member by number of evaluations; and, of draws, of the regression, and of the regression dressed
with its errors in training, what they make of small scales, of differences between cells and of tails.

``flow``: velocities of forced turbulence (of its vorticity, by the stream function; waves up to a quarter of the grid's
64, on 32 x 32), the last fifth of each run as test, two frames given and two asked. Draws as they are and under each
constraint, from the same noise: its residual, the fair CRPS, the spread over the error, and seconds. The means over
blocks of 4 x 4 cells are those of the truth, which a coarse model would know.
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
from undrift.distributions.typed import Typed
from undrift.verify import evaluate
from undrift.verify.crps import discrete_crps, fair_crps

COUNTS = (1, 2, 3, 4, 6, 10, 20)
MEMBERS, FLOWS = 16, 4
TAIL = 0.9


def tails(truth: np.ndarray, members: np.ndarray, above: np.ndarray, crps: Any) -> dict[str, float]:
    """CRPS, that of what is above a level of each cell, and that of the largest anomaly of a map, members first."""
    largest = (truth - above).max((-2, -1)), (members - above).max((-2, -1))
    return {
        "crps": float(crps(truth, members).mean()),
        "tail": float(crps(np.maximum(truth, above), np.maximum(members, above)).mean()),
        "maximum": float(crps(*largest).mean()),
    }


def shown(scores: xr.Dataset) -> dict[str, float]:
    """Power at the smallest scales over that of the truth, and the variogram score."""
    one = scores.isel(variable=0)
    small = one["wavelength"].values < 4
    power = {side: one[f"spectrum_{side}"].values[small].sum() for side in ("ensemble", "truth")}
    return {"small scales": float(power["ensemble"] / power["truth"]), "variogram": float(one["variogram"])}


def trained(run: Path, data: xr.Dataset, steps: int, **options: Any) -> undrift.FieldModel:
    """The run, gone on with where it was stopped."""
    if not (run / "manifest.json").exists():
        undrift.fit(data, steps=steps, out=run, resume=(run / "config.toml").exists(), **options)
    return undrift.load(run, data=data)


def maps(steps: int, work: Path) -> dict[str, Any]:
    """The part about evaluations and about detail."""
    model = trained(
        work / "maps", north_america(), steps, task=undrift.Downscale(factor=4), baselines=True,
        holdout="year=2070/2099,scenario=E1",
    )  # fmt: skip
    truth = model.holdout_truth()
    order = [str(d) for d in truth.tas.dims]
    held = truth.tas.values.reshape(-1, *truth.tas.shape[-2:])
    before = north_america().tas.sel(scenario="E1", year=slice(2040, 2069))  # of about the climate of the test
    above = before.sel(lat=truth.lat, lon=truth.lon).quantile(TAIL, "year").transpose(*order[-2:]).values

    def members(ensemble: xr.Dataset) -> np.ndarray:
        values = ensemble.tas.transpose("realization", *order).values
        return values.reshape(len(values), *held.shape)

    rows: list[dict[str, Any]] = []
    drawn = {}
    for nfe in (COUNTS[-1], *COUNTS):  # the first warms up
        began = time.process_time()
        drawn[nfe] = model.sample(holdout=True, realizations=MEMBERS, nfe=nfe, progress=False)
        seconds = (time.process_time() - began) / (MEMBERS * len(held))
        scores = evaluate(drawn[nfe], truth, bootstrap=0)
        spread = float(scores["spread_skill"].item())
        found = tails(held, members(drawn[nfe]), above, fair_crps) | shown(scores) | {"spread/skill": spread}
        rows.append({"nfe": nfe, "milliseconds": 1000 * seconds} | found)
    baselines = model.baselines(progress=False)
    dressed = baselines["regression"]
    plain = dressed.mean("realization").expand_dims(realization=[0]).assign_attrs(dressed.attrs | {"dressed": ""})
    detail = {"draws": next(row for row in rows[1:] if row["nfe"] == 10)}
    detail["regression"] = tails(held, members(plain), above, discrete_crps) | shown(
        evaluate(plain, truth, bootstrap=0)
    )
    detail["regression, dressed"] = tails(held, members(dressed), above, discrete_crps)
    detail["regression, dressed"] |= shown(evaluate(dressed, truth, bootstrap=0))
    return {"steps": steps, "evaluations": rows[1:], "detail": detail}


def velocities(path: str) -> xr.Dataset:
    """u and v (run, time, y, x) on 32 x 32, of which the divergence is 0 to rounding."""
    vorticity = np.load(path)
    w = np.fft.fft2(vorticity[vorticity.files[0]].astype(np.float64))
    k = 2 * np.pi * np.fft.fftfreq(w.shape[-1], 1 / w.shape[-1])
    square = k[:, None] ** 2 + k**2
    stream = np.where(square > 0, w / np.where(square > 0, square, 1), 0)
    kept = np.r_[0:16, -16:0]
    k, small = k[kept], stream[..., kept[:, None], kept] * (32 / w.shape[-1]) ** 2
    small[..., 16, :], small[..., 16] = (
        0,
        0,
    )  # the wave at the Nyquist frequency, whose derivative the grid does not know
    u, v = (np.fft.ifft2(1j * part * small).real for part in (k[:, None], -k))
    scale = u.std()
    coords = {"time": np.datetime64("2001-01-01", "ns") + np.arange(w.shape[1]) * np.timedelta64(1, "h")}
    fields = {
        name: (("run", "time", "y", "x"), (x / scale).astype("f4"), {"units": "1"}) for name, x in zip("uv", (u, v))
    }
    return xr.Dataset(fields, coords | {"run": np.arange(len(w)), "y": np.arange(32.0), "x": np.arange(32.0)})


def flow(path: str, steps: int, work: Path) -> dict[str, Any]:
    """The part about constraints."""
    record = velocities(path)
    model = trained(work / "flow", record, steps, task=undrift.Window(past=2, future=2), periodic="y,x", covariates=[])
    record.coarsen(y=4, x=4).mean().to_netcdf(work / "coarse.nc")
    mean = xr.Dataset({name: (("sum", "y", "x"), np.zeros((2, 32, 32)) + on) for name, on in _one_each().items()})
    mean.assign(value=("sum", np.zeros(2))).to_netcdf(work / "mean.nc")
    kinds = {
        "none": [],
        "zero divergence": ["divergence=u,v"],
        "mean flow": [f"integral={work / 'mean.nc'}"],
        "means over blocks": [f"means={work / 'coarse.nc'}"],
        "zero divergence and means": ["divergence=u,v", f"means={work / 'coarse.nc'}"],
    }
    truth = model.holdout_truth()
    found: dict[str, Any] = {}
    model.sample(holdout=True, realizations=1, at=f"time={str(truth.time.values[0])[:13]}", progress=False)  # warms up
    for name, words in kinds.items():
        began = time.process_time()
        drawn = model.sample(holdout=True, realizations=FLOWS, constraint=words, progress=False)
        seconds = time.process_time() - began
        members, fields = drawn.isel(lead_time=slice(2, None)), truth.isel(lead_time=slice(2, None))
        scores = evaluate(members, fields, bootstrap=0)
        found[name] = {
            "crps": float(scores["crps"].mean()), "spread/skill": float(scores["spread_skill"].mean()),
            "small scales": float(np.mean([shown(scores.isel(variable=[k]))["small scales"] for k in (0, 1)])),
            "milliseconds": 1000 * seconds / (FLOWS * truth.u.isel(lead_time=0, y=0, x=0).size),
            "residuals": {kind: residual(model, some, members) for kind, some in kinds.items() if some},
        }  # fmt: skip
        print(name, found[name], flush=True)
    return {"steps": steps, "constraints": found}


def _one_each() -> dict[str, np.ndarray]:
    return {name: np.array([float(name == "u"), float(name == "v")])[:, None, None] for name in "uv"}


def residual(model: undrift.FieldModel, words: list[str], members: xr.Dataset) -> float:
    """Root mean square over asked frames of the residual of a constraint, relative to its terms."""
    typed, squares = Typed.read(words, model.codec, model.parts.shell), []
    for lead in members.lead_time.values:
        for start in members.time.values:
            one = members.sel(lead_time=lead, time=start).stack(row=("realization", "run"))
            x = np.stack([one[name].transpose("row", "y", "x").values for name in "uv"], 1)
            labels = [{"time": start + lead, "run": run} for run in one["run"].values]
            wanted = typed.wanted(labels)
            squares.append(wanted.residual(torch.from_numpy(x.astype(np.float64))).numpy() ** 2)
    return float(np.sqrt(np.mean(squares)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["maps", "flow"])
    parser.add_argument("path", nargs="?")
    parser.add_argument("--steps", type=int, default=300, help="of training, of each net")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs; what was stopped goes on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.part == "flow" and options.path is None:
        parser.error("flow needs the path of exponax_kolmogorov64.npz")
    options.work.mkdir(parents=True, exist_ok=True)
    work, steps = options.work, options.steps
    found = maps(steps, work) if options.part == "maps" else flow(options.path, steps, work)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
