"""Makes a run directory that every later version must load: ``python tests/data/make_run.py NAME``.

Run once for each format and never again. ``run_0_1`` was made first: one network, and no means over blocks are kept;
``run_0_1_means`` next: two networks, and they are. Beside the run lie what was given (``given.nc``) and what was drawn
from it (``draw.nc``); ``tests/model/test_kept_run.py`` compares.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import undrift
from undrift.model import FieldModel

HERE = Path(__file__).parent


def data() -> xr.Dataset:
    """Sixty days of rain on 8 x 8 cells with dry cells, a masked corner, descending latitude and a wrapped longitude."""
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 8), indexing="ij")
    waves = np.stack([np.ones_like(x), y, np.sin(2 * np.pi * x), np.cos(2 * np.pi * y) * x])
    smooth = np.tensordot(rng.normal(size=(60, 4)) * [1, 2, 2, 1], waves, 1)
    pr = 1e-5 * np.maximum(smooth + 1 + rng.normal(size=(60, 8, 8)), 0) ** 2
    pr[:, :1, :2] = np.nan
    return xr.Dataset(
        {"pr": (("time", "lat", "lon"), pr.astype(np.float32), {"units": "kg m-2 s-1", "long_name": "precipitation"})},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D"),
            "lat": ("lat", np.linspace(59.0, 52.0, 8), {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", np.arange(356.0, 364.0) % 360, {"standard_name": "longitude", "units": "degrees_east"}),
        },
        attrs={"title": "synthetic fields"},
    )


def main(name: str) -> None:
    """Train, save, draw."""
    kept = HERE / name
    model = undrift.fit(
        data(),
        task="downscale",
        factor=2,
        steps=3,
        baselines=True,
        seed=0,
        progress=False,
        device="cpu",
        covariates="time",
        set={
            "net.channels": [4, 4],
            "net.blocks": 1,
            "net.members": 2,
            "codec.folds": 3,
            "train.batch": 8,
            "train.precision": "float32",
        },
    )
    assert isinstance(model, FieldModel)
    model.save(kept / "run")
    given = model.holdout_given()
    assert given is not None
    given = given.isel(time=slice(0, 3))
    given.to_netcdf(kept / "given.nc")
    model.sample(given, realizations=4, seed=7, progress=False).to_netcdf(kept / "draw.nc")


if __name__ == "__main__":
    main(sys.argv[1])
