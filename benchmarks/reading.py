"""The share of a training step that waits for its windows, when the data are a Zarr store read at every step.

Samples of 256 x 256 cells in chunks of one sample or a few, windows of 64 x 64, the net that undrift chooses. What is
normally kept in memory (below 1 GB) is read from the store here too, as a larger record would be, and the system's
cache of the files is dropped when the measured steps begin: most chunks then come from the disk.

    python benchmarks/reading.py [--samples 2000] [--chunk 1] [--steps 150] [--linear]
"""

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

import undrift
from undrift.data import fields
from undrift.train import prefetch

SIDE = 256
WARM_UP = 10


def write(path: Path, samples: int, chunk: int) -> None:
    """Temperature in K: waves and noise."""
    rng = np.random.default_rng(0)
    at = np.linspace(0, 2 * np.pi, SIDE, endpoint=False)
    phase = rng.uniform(0, 2 * np.pi, (2, samples, 1, 1))
    for start in range(0, samples, 100 * chunk):
        part = slice(start, min(start + 100 * chunk, samples))
        waves = np.cos(3 * at[:, None] + phase[0, part]) + np.sin(2 * at + phase[1, part])
        noise = rng.standard_normal(waves.shape, dtype=np.float32)
        time_axis = np.datetime64("2001-01-01", "ns") + np.arange(part.start, part.stop) * np.timedelta64(6, "h")
        ds = xr.Dataset(
            {"tas": (("time", "y", "x"), (280 + 5 * waves + noise).astype(np.float32), {"units": "K"})},
            {"time": time_axis, "y": np.arange(SIDE) * 1e3, "x": np.arange(SIDE) * 1e3},
        ).chunk({"time": chunk})
        ds.to_zarr(path, **({"append_dim": "time"} if start else {"mode": "w"}))


def drop_cache(path: Path) -> None:
    """Ask the system to forget what it holds of the files in a folder."""
    os.sync()
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class _EnoughError(Exception):
    """The steps are done; what comes after them, the calibration of the spread, is not measured."""


def measure(path: Path, steps: int, linear: bool) -> tuple[list[float], list[float]]:
    """Seconds that each step waited for its batch, and seconds from batch to batch."""
    waits, begins = [], []
    take = prefetch.Prefetch.take

    def timed(self: prefetch.Prefetch, last: bool = False) -> object:
        if len(waits) == WARM_UP:
            drop_cache(path)
        begin = time.perf_counter()
        batch = take(self, last)
        begins.append(begin)
        waits.append(time.perf_counter() - begin)
        if last:
            raise _EnoughError
        return batch

    prefetch.Prefetch.take = timed
    options = {"codec.linear": linear}
    with contextlib.suppress(_EnoughError):
        undrift.fit(str(path), task="downscale", factor=4, crop=64, steps=steps, progress=False, set=options)
    return waits, [b - a for a, b in itertools.pairwise(begins)]


def main() -> None:
    """Write, train, print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--chunk", type=int, default=1, help="samples per chunk")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--linear", action="store_true", help="with the linear predictor fitted and applied")
    options = parser.parse_args()
    fields.MEMORY_LIMIT = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tas.zarr"
        write(path, options.samples, options.chunk)
        begin = time.perf_counter()
        waits, steps = measure(path, options.steps, options.linear)
        total = time.perf_counter() - begin
    wait, step = sum(waits[WARM_UP:-1]), sum(steps[WARM_UP:])
    print(f"{options.samples} samples, chunks of {options.chunk}: {wait / step:.1%} of the steps' time is waiting")
    print(f"median step {statistics.median(steps[WARM_UP:]):.3f} s, wait {statistics.median(waits[WARM_UP:]):.4f} s")
    print(f"{total - sum(steps):.0f} s before the steps")


if __name__ == "__main__":
    main()
