"""Small synthetic fields with something to learn, and trainings of a second."""

import numpy as np
import xarray as xr

import undrift

TINY = {"net.channels": [8, 8], "train.batch": 8, "sample.micro_batch": 8, "train.device": "cpu"}


def fields(n=40, lat=None, lon=None, *, name="tas", seed=0, units="K", offset=280.0):
    """(time, lat, lon): smooth waves with random amplitudes, and white noise."""
    lat = np.linspace(31.0, 52.0, 8) if lat is None else np.asarray(lat, dtype=float)
    lon = np.linspace(0.0, 33.0, 12) if lon is None else np.asarray(lon, dtype=float)
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, lat.size), np.linspace(0, 1, lon.size), indexing="ij")
    waves = np.stack([np.ones_like(x), y, np.sin(2 * np.pi * x), np.cos(2 * np.pi * x) * y])
    values = np.tensordot(rng.normal(size=(n, 4)) * [3, 2, 2, 1], waves, 1) + 0.3 * rng.normal(size=(n, *x.shape))
    time = np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D")
    return xr.Dataset(
        {
            name: (
                ("time", "lat", "lon"),
                (offset + values).astype(np.float32),
                {"units": units, "long_name": "a field"},
            )
        },
        coords={
            "time": time,
            "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )


def tiny_fit(data, **options):
    """``undrift.fit`` with a tiny network and a few steps."""
    settings = TINY | options.pop("set", {})
    given = {"factor": 4, "steps": 4, "progress": False, "seed": 0, **options}
    if given.get("task") == "emulate":
        del given["factor"]
    return undrift.fit(data, set=settings, **given)


def draw(model, given=None, **options):
    return model.sample(given, **{"realizations": 2, "nfe": 2, "progress": False, **options})


HOUR = np.timedelta64(1, "h")


def waves(count=400, seed=0):
    """A wave that travels a cell an hour on a periodic line, of an amplitude that changes slowly, and white noise."""
    rng = np.random.default_rng(seed)
    amplitude, out = rng.normal(size=2), []
    for _ in range(count):
        amplitude = 0.98 * amplitude + np.sqrt(1 - 0.98**2) * rng.normal(size=2)
        out.append(amplitude.copy())
    x, t = np.arange(16), np.arange(count)
    phase = 2 * np.pi * (x[None] - t[:, None]) / 16
    field = np.stack(out)[:, :1] * np.cos(phase) + np.stack(out)[:, 1:] * np.sin(phase)
    field = 280 + field[:, None, :] * np.ones((1, 8, 1)) + 0.1 * rng.normal(size=(count, 8, 16))
    times = np.datetime64("2001-03-01", "ns") + t * HOUR
    coords = {"time": times, "lat": np.linspace(40, 47, 8), "lon": np.linspace(0, 337.5, 16)}
    return xr.Dataset({"tas": (("time", "lat", "lon"), field.astype(np.float32), {"units": "K"})}, coords)


FACTOR = 4  # of coarse sequences


def coarse(data, factor=FACTOR):
    return data.coarsen(lat=factor, lon=factor).mean()


def detail(count=400, seed=0):
    """Waves, and a pattern of zero mean over the blocks whose amplitude goes on from hour to hour."""
    data, rng = waves(count), np.random.default_rng(seed + 1)
    amplitude = np.zeros(count)
    for t in range(1, count):
        amplitude[t] = 0.9 * amplitude[t - 1] + np.sqrt(1 - 0.9**2) * rng.normal()
    pattern = np.where((np.arange(8)[:, None] + np.arange(16)) % 2, 0.7, -0.7)
    return data.assign(tas=data.tas + (amplitude[:, None, None] * pattern).astype(np.float32).reshape(count, 8, 16))
