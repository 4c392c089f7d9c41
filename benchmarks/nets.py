"""The three kinds of net on windows of frames: seconds of a training step, and the loss of validation after a budget.

    OMP_NUM_THREADS=1 python benchmarks/nets.py DATA_FOLDER [--budget 60s] [--out benchmarks/results/nets.json]

Each kind trains for the same wall clock, one network of the width and with the dropout that are chosen for it, and the
faster ones again for as many steps as the slowest made. Data: waves that travel a cell an hour over a periodic line,
with noise, 2 past and 3 future frames; and the ERA5 month over the UK, 6 past and 12 future frames. The loss of
validation is the mean square of what the network leaves of its target, over blocks of the training part with masks and
noise that do not change: of one data set, it can be compared between nets.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import undrift

KINDS = ("unet", "space-time", "dit")


def waves(count: int = 400) -> xr.Dataset:
    """A wave that travels a cell an hour, of an amplitude that changes slowly, and noise."""
    rng = np.random.default_rng(0)
    x, t = np.arange(16), np.arange(count)
    amplitude = np.zeros((count, 2))
    for now in range(1, count):
        amplitude[now] = 0.98 * amplitude[now - 1] + np.sqrt(1 - 0.98**2) * rng.normal(size=2)
    phase = 2 * np.pi * (x - t[:, None]) / 16
    wave = amplitude[:, :1] * np.cos(phase) + amplitude[:, 1:] * np.sin(phase)
    values = 280 + wave[:, None] + 0.1 * rng.normal(size=(count, 8, 16))
    times = np.datetime64("2001-03-01", "ns") + t * np.timedelta64(1, "h")
    coords = {"time": times, "lat": np.linspace(40, 47, 8), "lon": np.linspace(0, 337.5, 16)}
    return xr.Dataset({"tas": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})}, coords)


def trained(data, task: undrift.Window, kind: str, chosen: dict | None = None, **how) -> dict:
    settings = {"net.kind": kind, "net.members": 1, **(chosen or {})}
    model = undrift.fit(data, task=task, set=settings, device="cpu", progress=False, **how)
    facts, network = model.facts, model.describe()["network"]
    return {
        "kind": kind,
        "channels": network["channels"],
        "dropout": model.config.net.dropout,
        "parameters": network["parameters of each"],
        "steps": facts["steps"],
        "seconds a step": facts["seconds"] / facts["steps"],
        "first loss": facts["history"][0],
        "best loss": facts["best_loss"],
        "best step": facts["best_step"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nets.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "waves": (waves(), undrift.Window(past=2, future=3)),
        "era5": (arguments.folder / "era5_uk_t2m_hourly_201903.nc", undrift.Window(past=6, future=12)),
    }
    rows = []
    for name, (data, task) in cases.items():
        found = [trained(data, task, kind, budget=arguments.budget) for kind in KINDS]
        least = min(row["steps"] for row in found)
        for row in [row for row in found if row["steps"] > least]:
            chosen = {"net.channels": row["channels"], "net.dropout": row["dropout"]}
            found.append(trained(data, task, row["kind"], chosen, steps=least))
        for row in found:
            rows.append({"data": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
