"""How long ``undrift check`` takes on a NetCDF file of 1 GB, from the shell's prompt to the next.

The file holds 2920 samples (one year of three-hourly steps) of 256 x 360 cells: a smooth field that moves, with noise,
as plain float32, as packed int16 with zlib and shuffle, or both. It was just written, so that it is read from the
page cache where that has room.

    python benchmarks/check_speed.py [--form float32|packed] [--samples 2920] [--profile]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import netCDF4
import numpy as np

SHAPE = (256, 360)
BLOCK = 40


def write(path: Path, samples: int, packed: bool) -> None:
    """Temperature in K with chunks of one sample, time in hours."""
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(-80, 80, SHAPE[0]), np.arange(0.0, 360.0)
    with netCDF4.Dataset(path, "w") as file:
        for name, values, units in (("lat", lat, "degrees_north"), ("lon", lon, "degrees_east")):
            file.createDimension(name, values.size)
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = units
        file.createDimension("time", samples)
        hours = file.createVariable("time", "f8", ("time",))
        hours.units, hours.calendar = "hours since 2001-01-01", "standard"
        hours[:] = 3.0 * np.arange(samples)
        options = {"zlib": True, "complevel": 1, "shuffle": True, "chunksizes": (1, *SHAPE)} if packed else {}
        kind, fill = ("i2", -32768) if packed else ("f4", None)
        tas = file.createVariable("tas", kind, ("time", "lat", "lon"), fill_value=fill, **options)
        tas.units, tas.standard_name = "K", "air_temperature"
        if packed:
            tas.scale_factor, tas.add_offset = 0.005, 280.0
        base = 288 - 40 * np.sin(np.radians(lat))[:, None] ** 2 + 0 * lon
        for start in range(0, samples, BLOCK):
            at = np.arange(start, min(start + BLOCK, samples))[:, None, None]
            wave = 8 * np.cos(np.radians(5 * lon - 2.0 * at) + lat[:, None] / 20) + 3 * np.sin(np.pi * at / 4)
            noise = rng.standard_normal((len(at), *SHAPE), dtype=np.float32)
            tas[start : start + len(at)] = (base + wave + noise).astype(np.float32)


def main() -> None:
    """Write, check, print seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=["float32", "packed"])
    parser.add_argument("--samples", type=int, default=2920)
    parser.add_argument("--profile", action="store_true", help="cProfile, by cumulative time")
    options = parser.parse_args()
    for form in [options.form] if options.form else ["float32", "packed"]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tas.nc"
            write(path, options.samples, form == "packed")
            tool = ["-m", "cProfile", "-s", "cumtime"] if options.profile else []
            start = time.perf_counter()
            command = [sys.executable, *tool, "-m", "undrift", "check", path]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
            size = 4 * options.samples * SHAPE[0] * SHAPE[1] / 1e9
            disk = path.stat().st_size / 1e9
        print("\n".join(done.stdout.splitlines()[: 90 if options.profile else 30]))
        print(f"{form}: {size:.2f} GB of float32 ({disk:.2f} GB on disk) in {seconds:.1f} s")


if __name__ == "__main__":
    main()
