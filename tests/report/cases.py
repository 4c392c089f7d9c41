"""Small sections of known truth: Gaussian random fields with the coordinates and units that files have."""

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from undrift.report import Section
from undrift.verify.scores import evaluate

MEMBERS, SAMPLES = 6, 8


def smooth(rng, shape, axes, width=1.5):
    """Smooth noise of unit variance over the last `axes` dimensions."""
    z = gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - axes) + (width,) * axes, mode="wrap")
    return z / z.std()


def law(name, dims, coords, attrs, make, space, seed=0, members=MEMBERS):
    """Ensemble, truth and two dressed baselines drawn from `make(unit noise)`, a predictable part known to all."""
    rng = np.random.default_rng(seed)
    shape = [len(coords[d]) if d in coords else space[d] for d in dims]
    known, axes = smooth(rng, shape, len(space)), len(space)
    of = lambda z: make(known + 0.3 * z).astype("f4")  # noqa: E731
    truth = xr.DataArray(of(smooth(rng, shape, axes)), dims=dims, coords=coords, attrs=attrs, name=name).to_dataset()
    drawn = of(smooth(rng, (members, *shape), axes))
    ensemble = xr.Dataset({name: (("realization", *dims), drawn, attrs)}, {"realization": np.arange(members), **coords})
    levels = np.linspace(-1.6, 1.6, 11)
    baselines = {}
    for label, wide in (("linear predictor", 0.45), ("climatology", 1.0)):
        z = np.stack([(known if wide < 1 else 0 * known) + wide * q for q in levels])
        one = xr.Dataset({name: (("realization", *dims), make(z).astype("f4"), attrs)}, coords)
        baselines[label] = one.assign_attrs(dressed="quantiles")
    return ensemble, truth, baselines


def temperature(seed=0, name="tas", attrs=None, **section):
    """A geographic temperature with what was given on a grid four times coarser."""
    coords = {
        "time": np.arange("2001-01-01", "2001-01-09", dtype="datetime64[D]").astype("datetime64[ns]"),
        "lat": ("lat", np.linspace(30, 53, 24), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(-20, 11, 32), {"units": "degrees_east"}),
    }
    coords = {k: v if isinstance(v, tuple) else (k, v) for k, v in coords.items()}
    sizes = {k: v[1] for k, v in coords.items()}
    attrs = {"units": "K", "long_name": "2 m temperature"} if attrs is None else attrs
    ensemble, truth, baselines = law(
        name, ("time", "lat", "lon"), sizes, attrs, lambda z: 285 + 8 * z, {"lat": 24, "lon": 32}, seed
    )
    for ds in (ensemble, truth, *baselines.values()):
        for axis in ("lat", "lon"):
            ds[axis].attrs.update(coords[axis][2])
    given = truth.coarsen(lat=4, lon=4).mean()
    given[name].attrs.update(attrs)
    return section_of(ensemble, truth, baselines, given, **section)


def section_of(ensemble, truth, baselines=None, given=None, title="A section", **more):
    """A section with everything filled in."""
    scores = evaluate(ensemble, truth, baselines=baselines, bootstrap=40)
    metrics = [
        {"step": 10 * i, "seconds": 0.5 * i, "loss": 0.3 + float(np.exp(-i / 9)),
         "validation": 0.35 + float(np.exp(-i / 9)) if i % 8 == 0 else None,
         "loss_by_noise": {"0.02": 0.9, "0.3": 0.5 - i / 200, "5.0": 0.2} if i % 8 == 0 else None}
        for i in range(60)
    ]  # fmt: skip
    defaults = {
        "question": ["Asked: the fine field, given means over 4 × 4 cells.", "Of: synthetic fields."],
        "verdict": ["The ensemble beats both baselines.", "It is calibrated."],
        "metrics": metrics,
        "facts": {
            "data": ["a.nc", "b.nc"], "fingerprint": "0123456789abcdef" * 4, "seed": 0, "parameters": 1234567,
            "versions": {"python": "3.11", "torch": "2.13.0"},
            "commands": ["undrift train a.nc b.nc --out run", "undrift report run"],
        },
        "notes": ["A note."],
    }  # fmt: skip
    return Section(
        title,
        scores=scores,
        ensemble=ensemble,
        truth=truth,
        given=given,
        **{**defaults, **more},
    )


def rain_on_levels():
    """Rain at two levels on a projected grid, dry in half of the cells."""
    y, x = 1000.0 * np.arange(20), 1000.0 * np.arange(28)
    coords = {"time": np.arange(SAMPLES), "height": np.array([10.0, 100.0]), "y": y, "x": x}
    attrs = {"units": "mm/day", "long_name": "precipitation", "standard_name": "precipitation_flux"}
    ensemble, truth, baselines = law(
        "pr", ("time", "height", "y", "x"), coords, attrs, lambda z: 6 * np.maximum(z, 0) ** 2, {"y": 20, "x": 28}
    )
    for ds in (ensemble, truth, *baselines.values()):
        for axis in ("y", "x"):
            ds[axis].attrs.update(units="m", standard_name=f"projection_{axis}_coordinate")
        ds["height"].attrs["units"] = "m"
    return section_of(ensemble, truth, baselines, title="Rain on levels")


def curvilinear():
    """A field on a rotated grid with 2-D latitude and longitude across the date line and a mask."""
    j, i = np.meshgrid(np.arange(18), np.arange(26), indexing="ij")
    lon = (172 + 0.8 * i + 0.3 * j + 180) % 360 - 180
    lat = 50 + 0.6 * j - 0.2 * i
    ensemble, truth, _ = law(
        "sst",
        ("time", "j", "i"),
        {"time": np.arange(SAMPLES)},
        {"units": "degC"},
        lambda z: 8 + 3 * z,
        {"j": 18, "i": 26},
    )
    on = {"lat": (("j", "i"), lat, {"units": "degrees_north"}), "lon": (("j", "i"), lon, {"units": "degrees_east"})}
    land = xr.DataArray((j < 5) & (i > 18), dims=("j", "i"))
    return section_of(ensemble.assign_coords(on).where(~land), truth.assign_coords(on).where(~land), title="Ocean")


def profile():
    """A field in one dimension."""
    coords = {"time": np.arange(SAMPLES), "x": np.linspace(0, 4, 64)}
    ensemble, truth, baselines = law("u", ("time", "x"), coords, {"units": "m s-1"}, lambda z: 2 * z, {"x": 64})
    return section_of(ensemble, truth, baselines, truth.isel(x=slice(0, None, 8)), title="A profile")


def volume():
    """A heavy-tailed density in three dimensions."""
    ensemble, truth, _ = law(
        "density",
        ("box", "z", "y", "x"),
        {},
        {},
        lambda z: np.exp(2.2 * z),
        {"box": 4, "z": 10, "y": 12, "x": 14},
        members=4,
    )
    return section_of(ensemble, truth, title="Boxes")


def free_running():
    """An ensemble of other years than the truth's, which it can only resemble."""
    one = temperature()
    ensemble = one.ensemble.assign_coords(time=one.ensemble.time + np.timedelta64(40000, "D"))
    return section_of(ensemble, one.truth, title="Free-running")
