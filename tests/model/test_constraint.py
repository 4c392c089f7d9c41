"""A constraint in the data's units and order on what a model draws."""

import numpy as np
import pytest
import torch
import xarray as xr

import undrift
from undrift.distributions.framewise import EachFrame
from undrift.distributions.typed import Typed
from undrift.guide import BoundedMeans, Bounds, CoarseMeans, Integral, Linear, Together

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


@pytest.fixture(scope="module")
def flow():
    """Windows of one frame and two of u, v on a periodic plane, u in two levels."""
    rng = np.random.default_rng(2)
    names = {n: (("time", "lev", "y", "x"), rng.normal(size=(200, 2, 6, 8)).astype("f4")) for n in "uv"}
    times = np.datetime64("2001-01-01", "ns") + np.arange(200) * np.timedelta64(6, "h")
    data = xr.Dataset(names, {"time": times, "lev": [500, 850], "y": np.arange(6.0), "x": np.arange(8.0)})
    options = {"set": {"net.channels": "8,8"}, "periodic": "y,x", "steps": 4, "progress": False}
    return undrift.fit(data, task=undrift.Window(past=1, future=2), **options), data


def typed(flow, tmp_path, *words, values=None):
    """What is meant by words, of fields (B, 4, 6, 8): u at two levels, v at two levels."""
    model, data = flow
    if values is not None:
        values.to_netcdf(tmp_path / "F.nc")
    words = [word.format(tmp_path / "F.nc") for word in words]
    return Typed.read(words, model.codec, model.parts.shell).wanted([{"time": data.time.values[0]}])


def test_two_at_once_are_exact_where_that_is_known(flow, tmp_path):
    _, data = flow
    coarse = data.isel(time=0, drop=True).coarsen(y=3, x=4).mean()
    kinds = {
        Bounds: ["u>=0"],
        BoundedMeans: ["means={}", "0<=v<=1"],
        CoarseMeans: ["means={}"],
        Together: ["divergence=u,v", "u<=2"],
    }
    for kind, words in kinds.items():
        assert type(typed(flow, tmp_path, *words, values=coarse)) is kind
    x = torch.randn(3, 4, 6, 8, dtype=torch.float64)
    bounds = typed(flow, tmp_path, "u>=0", "v<=0.5").project(x)
    np.testing.assert_array_equal(bounds[:, :2], x[:, :2].clip(0))
    np.testing.assert_array_equal(bounds[:, 2:], x[:, 2:].clip(max=0.5))
    one = typed(flow, tmp_path, "means={}", values=coarse).project(x)
    want = coarse.to_array().values.reshape(4, 2, 2)
    found = one.reshape(3, 4, 2, 3, 2, 4).mean((3, 5)).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(want, found.shape), atol=1e-6)
    # both levels are flows of their own
    calm = typed(flow, tmp_path, "divergence=u,v").project(x).numpy()
    kx, ky = 2 * np.pi * np.fft.fftfreq(8), 2 * np.pi * np.fft.fftfreq(6)[:, None]
    kx[4], ky[3] = 0, 0
    u, v = np.fft.fft2(calm[:, :2]), np.fft.fft2(calm[:, 2:])
    assert np.abs(kx * u + ky * v).max() < 1e-10 < np.abs(kx * u).max()


def test_each_frame_has_its_own(flow):
    """By hand on each frame; in other units the same fields; and what is not asked stays."""
    low, total = Bounds(low=0.5), Integral(torch.ones(1, 2, 3, 4), [2.0])
    asked = torch.tensor([[True, True, True], [True, True, False]])
    both = EachFrame([low, None, total], asked)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = both.project(x).unflatten(1, (2, 3))
    frames = x.unflatten(1, (2, 3))
    np.testing.assert_array_equal(found[:, :, 0], frames[:, :, 0].clip(0.5))
    np.testing.assert_array_equal(found[:, :, 1], frames[:, :, 1])
    move = (2.0 - frames[0, :, 2].sum()) / 24
    np.testing.assert_allclose(found[0, :, 2], frames[0, :, 2] + move, rtol=1e-12)
    np.testing.assert_array_equal(found[1, :, 2], frames[1, :, 2])
    apart = [max(low.relative(f[None, :, 0])[0], a * total.relative(f[None, :, 2])[0]) for f, a in zip(frames, (1, 0))]
    np.testing.assert_allclose(both.residual(x), apart, rtol=1e-12)
    scale, offset = torch.linspace(0.5, 2, 6)[:, None, None].expand(6, 3, 4).double(), torch.randn(6, 3, 4).double()
    there = offset + scale * both.in_units(scale, offset).project((x - offset) / scale)
    assert both.residual(there).max() < 1e-12
    np.testing.assert_allclose(there[:, 0::3], x[:, 0::3].clip(0.5), rtol=1e-12)
    with pytest.raises(ValueError, match="expected a multiple of 3 channels"):
        both.project(x[:, :5])


def test_a_forecast_keeps_a_constraint_of_its_frames(flow):
    model, data = flow
    weights = torch.zeros(1, 4, 6, 8)
    weights[0, 1] = 1 / 48  # the mean of u at the second level
    forecast = model.forecast(
        data, steps=3, realizations=2, constraint=Integral(weights, [0.25]), progress=False, nfe=2
    )
    means = forecast.u.sel(lev=850).astype(float).mean(("y", "x"))
    assert means.sizes["prediction_timedelta"] == 3
    np.testing.assert_allclose(means, 0.25, atol=1e-6)
    assert np.abs(forecast.u.sel(lev=500).mean(("y", "x")) - 0.25).min() > 1e-3
    assert forecast.attrs["constraint"] == "Integral" and 0 < forecast.attrs["constraint_residual"] < 1e-5


def test_the_residual_is_of_what_is_written(flow, caplog):
    """Known frames come back as they are, so that a constraint of them too is not satisfied, and that is said."""
    model, _ = flow
    high = Bounds(low=1.0)
    ensemble = model.sample(holdout=True, realizations=1, constraint=high, progress=False, nfe=2)
    flat = [ensemble[n].transpose("realization", "time", ...).values.reshape(len(ensemble.time), -1) for n in "uv"]
    x = np.concatenate(flat, 1)
    want = (np.clip(1 - x, 0, None).max(1) / np.abs(x).max(1)).max()
    np.testing.assert_allclose(ensemble.attrs["constraint_residual"], want, rtol=1e-6)
    assert want > 0.3 and "the constraint is satisfied to" in caplog.text
