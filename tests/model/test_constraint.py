"""A constraint in the data's units and order on what a model draws."""

import numpy as np
import pytest
import torch
import xarray as xr

import undrift
from undrift.guide import Bounds, Integral, Linear, Together

LAT = np.linspace(47, 40, 8)  # falling: the model computes in the other order


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 1, 1)) + 0.3 * rng.normal(size=(300, 8, 12))
    values = 280 + 3 * base + np.arange(8)[:, None]
    times = np.datetime64("2001-01-01", "ns") + np.arange(300) * np.timedelta64(1, "D")
    data = xr.Dataset({"tas": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})})
    data = data.assign_coords(time=times, lat=LAT, lon=np.arange(12.0))
    return undrift.fit(
        data, task=undrift.Window(past=0, future=1), steps=40, set={"net.channels": "16,16"}, progress=False
    )


def draw(model, constraint, **options):
    ensemble = model.sample(
        holdout=True, know="nothing", realizations=4, constraint=constraint, progress=False, **options
    )
    assert (ensemble.lat.values == LAT).all()
    return ensemble


def test_the_integral_of_a_region_is_what_is_asked(model):
    """The northernmost row, first in the data and last in the model."""
    weights = torch.zeros(1, 1, 8, 12)
    weights[0, 0, 0] = 1 / 12
    ensemble = draw(model, Integral(weights, [291.5]))
    north = ensemble.tas.isel(lat=0).mean("lon", dtype=float)
    np.testing.assert_allclose(north, 291.5, rtol=1e-6)
    assert ensemble.attrs["constraint_residual"] < 1e-5
    free = draw(model, None)
    assert np.abs(free.tas.isel(lat=0).mean("lon") - 291.5).mean() > 1
    # known in every estimate, and not only at the end: the rest of the map follows, as the whole map moves together
    others = ensemble.tas.isel(lat=slice(1, None)).mean()
    assert float(others - free.tas.isel(lat=slice(1, None)).mean()) > 1


def test_several_at_once_and_in_a_file(model, tmp_path):
    operator = torch.zeros(1, 96)
    operator[0, 5], operator[0, 40] = 1.0, -1.0  # two cells are alike
    both = Together(Linear(operator, [0.0]), Bounds(low=275.0, high=290.0))
    ensemble = draw(model, both, out=tmp_path / "E.zarr")
    x = ensemble.tas.transpose("realization", "time", "lead_time", "lat", "lon").values.reshape(-1, 96)
    np.testing.assert_allclose(x[:, 5], x[:, 40], rtol=1e-5)
    assert x.min() >= 275 and x.max() <= 290
    assert ensemble.attrs["constraint_residual"] < 1e-4
    ensemble.close()
    assert draw(model, both, out=tmp_path / "E.nc").attrs["constraint_residual"] < 1e-4


def test_a_constraint_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match="expected"):
        draw(model, Integral(torch.ones(1, 1, 9, 9), [1.0]))
