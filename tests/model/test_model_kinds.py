"""Every kind of field goes the whole way, from a Dataset to an ensemble with the same labels."""

import logging
import os
import signal

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import TINY, draw, fields, tiny_fit

import undrift
from forked import begin
from undrift.distributions.diffusion import Diffusion
from undrift.errors import DataError, UsageError
from undrift.train import device, loop
from undrift.train.device import device_of


def labelled(shape, dims, n=30, seed=0):
    """Smooth random fields over any dims."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, *[1] * len(shape))) + 0.5 * rng.normal(size=(n, *shape))
    coords = {d: np.arange(s, dtype=float) for d, s in zip(dims, shape)}
    time = np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D")
    return xr.Dataset(
        {"q": (("time", *dims), values.astype(np.float32), {"units": "1"})}, coords={"time": time, **coords}
    )


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((13,), ("x",)), ((9, 6), ("y", "x")), ((4, 8, 6), ("z", "y", "x"))],
    ids=["1-D", "2-D odd", "3-D"],
)
def test_any_number_of_space_dims(shape, dims):
    data = labelled(shape, dims)
    # with one space dim the sample dim has to be named: (time, x) could be a map
    model = tiny_fit(data, factor=2, dims=("time", *dims), set={**TINY, "codec.transforms": {"q": "standard"}})
    ensemble = draw(model, holdout=True)
    truth = model.holdout_truth()
    assert ensemble.q.dims == ("realization", "time", *dims)
    assert ensemble.q.shape[2:] == tuple(n - n % 2 for n in shape)
    for name in dims:
        np.testing.assert_array_equal(ensemble[name], data[name][: len(ensemble[name])])
    assert np.isfinite(ensemble.q).all()
    # the common part of each field is given, so an ensemble without it could not be this near
    near = float(((ensemble.q.mean("realization") - truth.q) ** 2).mean())
    assert near < 0.6 * float(truth.q.var())


def test_several_variables_with_levels():
    data = fields(30)
    levels = xr.concat([data.tas * f for f in (1.0, 0.5, 0.25)], xr.Variable("plev", [1000.0, 500.0, 250.0]))
    levels = levels.transpose("time", "plev", "lat", "lon").assign_attrs(units="K")
    pr = xr.DataArray(
        np.maximum(data.tas.values - 281, 0) ** 3 * 1e-6, data.tas.coords, data.tas.dims, attrs={"units": "kg m-2 s-1"}
    )
    both = xr.Dataset({"ta": levels, "pr": pr})
    model = tiny_fit(both)
    ensemble, truth = draw(model, holdout=True), model.holdout_truth()
    assert ensemble.ta.dims == ("realization", "time", "plev", "lat", "lon") and ensemble.pr.dims[2:] == ("lat", "lon")
    np.testing.assert_array_equal(ensemble.plev, both.plev)
    for i, scale in enumerate((281, 140, 70)):
        assert float(ensemble.ta.isel(plev=i).mean()) == pytest.approx(scale, rel=0.03)
    assert float(ensemble.pr.min()) == 0.0
    assert abs(float((ensemble.pr == 0).mean()) - float((truth.pr == 0).mean())) < 0.2
    kinds = {c.label: t.kind for c, t in zip(model.codec.layout.channels, model.codec.transforms)}
    levels = dict.fromkeys(["ta[plev=1000]", "ta[plev=500]", "ta[plev=250]"], "standard")
    assert kinds == {**levels, "pr": "censored"}


def test_the_noise_of_a_variable_does_not_depend_on_which_others_there_are(monkeypatch):
    data = fields(30)
    both = data.assign(uas=data.tas.copy(data=fields(30, seed=1).tas.values).assign_attrs(units="m s-1"))
    noise = []
    sample = Diffusion.sample
    monkeypatch.setattr(Diffusion, "sample", lambda law, c, z, **how: noise.append(z) or sample(law, c, z, **how))
    models = [tiny_fit(ds) for ds in (both[["uas"]], both)]
    noise.clear()  # of the calibration
    for model in models:
        draw(model, holdout=True)
    alone, among = (torch.cat(noise[half]) for half in (slice(len(noise) // 2), slice(len(noise) // 2, None)))
    place = [c.label for c in models[1].codec.layout.channels].index("uas")
    assert alone.shape[1] == 1 and among.shape[1] == 2
    torch.testing.assert_close(among[:, place], alone[:, 0], rtol=0, atol=0)
    assert (among[:, 1 - place] != alone[:, 0]).all()


def test_rain_in_another_unit_gives_the_same_fields():
    rng = np.random.default_rng(0)
    data = fields(30)
    wet = np.maximum(data.tas.values - 280 + rng.normal(size=data.tas.shape), 0) ** 3 * 1e-7
    pr = xr.Dataset({"pr": (("time", "lat", "lon"), wet)}, coords=data.coords)
    pr.pr.attrs["units"] = "kg m-2 s-1"
    other = (pr * 86400).assign_coords(pr.coords)
    other.pr.attrs["units"] = "mm/day"
    a, b = (draw(tiny_fit(d, set={"train.precision": "float32"}), holdout=True).pr.values for d in (pr, other))
    assert (a == 0).mean() > 0.1 and a.min() == 0
    np.testing.assert_allclose(b / 86400, a, rtol=2e-2, atol=1e-3 * a.std())


def test_the_share_of_values_at_a_bound_is_told(caplog):
    data = fields(30)
    data["tas"] = np.maximum(data.tas - 280, 0)
    data.tas.attrs["units"] = "mm"
    with caplog.at_level("INFO"):
        drawn = draw(tiny_fit(data), holdout=True).tas.values
    share = (drawn == 0).mean()
    assert share > 0.1
    assert f"tas: {100 * share:.2g} % of the drawn values stand at the bound 0" in caplog.text


def test_values_as_large_as_pressures_lose_nothing_in_small_numbers():
    """Fields are brought to unit scale in float64 before the network's bfloat16 sees them."""
    data = fields(30)
    pressure = data.copy(deep=True)
    pressure["tas"] = (data.tas.astype(np.float64) - 280) * 256 + 101376
    pressure.tas.attrs["units"] = "Pa"
    a, b = (draw(tiny_fit(d, set={"train.precision": "bfloat16"}), holdout=True).tas.values for d in (data, pressure))
    np.testing.assert_allclose((b.astype(np.float64) - 101376) / 256 + 280, a, atol=0.02 * a.std())


def test_descending_latitude_and_wrapped_longitude_change_nothing():
    data = fields(30, lon=np.linspace(330.0, 363.0, 12) % 360)
    data = data.sortby("lon")  # 0 .. 3 and 330 .. 357: cut in the middle of the region
    straight = fields(30, lon=np.linspace(-30.0, 3.0, 12))
    same = straight.assign_coords(lon=straight.lon % 360).sortby("lon")
    np.testing.assert_allclose(same.lon, data.lon)
    turned = same.isel(lat=slice(None, None, -1))
    a, b = (draw(tiny_fit(d), holdout=True) for d in (straight, turned))
    np.testing.assert_array_equal(b.lat, turned.lat)
    np.testing.assert_allclose(b.lon, turned.lon)
    back = b.sortby("lat").assign_coords(lon=(b.lon + 180) % 360 - 180).sortby("lon")
    np.testing.assert_allclose(back.lon, a.lon)
    np.testing.assert_allclose(back.tas.values, a.tas.values, atol=1e-3)


@pytest.mark.parametrize(("step", "periodic"), [(30.0, True), (29.0, False)])
def test_periodic_longitude_is_found_and_neighbours_across_the_seam_are_as_near_as_the_truths(step, periodic):
    rng = np.random.default_rng(0)
    data = fields(60, lon=np.arange(12) * step)
    turn = np.arange(12) * np.pi / 6
    waves = rng.normal(size=(60, 1, 1)) * np.cos(turn) + rng.normal(size=(60, 1, 1)) * np.sin(turn)
    values = 280 + 3 * waves + 0.1 * rng.normal(size=data.tas.shape)
    data["tas"] = data.tas.copy(data=values.astype(np.float32))
    model = tiny_fit(data, factor=2, steps=20)
    assert model.codec.layout.periodic == (False, periodic)
    assert (model.net.padding[1] == "circular") == periodic and model.net.padding[0] != "circular"
    jumps = [
        np.sqrt(np.square(tas.roll(lon=-1) - tas).mean([d for d in tas.dims if d != "lon"])).values
        for tas in (draw(model, holdout=True).tas, model.holdout_truth().tas)
    ]
    np.testing.assert_allclose(*jumps, rtol=0.1)


def holes():
    data = fields(40)
    values = data.tas.values
    values[:, :3, :4] = np.nan  # land
    values[np.random.default_rng(0).random(values.shape) < 0.03] = np.nan
    values[5] = np.nan
    values[-2] = np.nan
    return data


def test_masks_stay_and_gaps_are_filled():
    data = holes()
    model = tiny_fit(data)
    ensemble = draw(model, holdout=True)
    land = np.isnan(data.tas.values).all(0)
    assert land[:3, :4].all() and not land[3:, 4:].any()
    got = np.isnan(ensemble.tas.values)
    np.testing.assert_array_equal(got, np.broadcast_to(land, got.shape))
    truth = fields(40).tas.sel(time=ensemble.time)
    error = (ensemble.tas - truth).transpose("time", "lat", "lon", "realization").values
    gap = np.isnan(data.tas.sel(time=ensemble.time).values) & ~land
    whole = gap.sum((1, 2)) == (~land).sum()
    assert whole.tolist() == [False] * 6 + [True, False] and gap[~whole].sum() > 10
    # gaps have the noise of 0.3 of what is around them; of a frame of which nothing is known the waves are drawn
    assert 0.2 < np.sqrt(np.square(error[~whole][gap[~whole]]).mean()) < 0.25 * float(truth.std())
    assert 0.5 * float(truth.std()) < np.sqrt(np.square(error[whole][gap[whole]]).mean()) < 2.5 * float(truth.std())


def test_an_ensemble_for_a_frame_of_which_nothing_is_given_is_as_wide_as_the_record(caplog):
    """Row 30 of the faults: what is missing is generated, and not as if its mean had been given."""
    data = fields(200)
    model = tiny_fit(data, steps=20)
    given = model.holdout_given().isel(time=slice(0, 16))
    climate = float(data.tas.std("time").mean())
    given.tas.values[3] = np.nan
    given.tas.values[5, 0, :2] = np.nan
    gap = {"realizations": 60, "nfe": 2}
    ensemble = draw(model, given, **gap)
    assert "8 given values are missing, in 2 of 16 samples" in caplog.text
    spread = ensemble.tas.std("realization").mean(("lat", "lon"))
    usual = float(spread.isel(time=slice(10, None)).mean())
    assert 0.75 * climate < float(spread[3]) < 1.25 * climate  # 4 modes, 60 members: 7 % of chance
    assert usual < 0.25 * climate
    assert usual < float(spread[5]) < 0.6 * climate
    later = draw(model, given.isel(time=[3]), **gap | {"realizations": "7:9"})
    np.testing.assert_array_equal(later.tas.values[:, 0], ensemble.tas.values[7:9, 3])


def test_another_land_mask_of_what_is_given_is_told(tmp_path, caplog):
    """Row 41 of the faults: cells that are missing now and had values, and the other way round, are counted."""
    data = holes()
    data.tas.values[:, :4, :4] = np.nan  # one whole coarse cell
    model = tiny_fit(data, out=tmp_path / "run")
    given = model.holdout_given()
    draw(model, given)
    assert "mask of missing cells" not in caplog.text
    given.tas.values[:, 1, 1:] = np.nan  # two more coarse cells, and one that has values now
    given.tas.values[:, 0, 0] = 280.0
    for one in (model, undrift.load(tmp_path / "run")):
        caplog.clear()
        ensemble = draw(one, given)
        assert "2 cells are missing now that had values, 1 have values that were missing" in caplog.text
        assert np.isnan(ensemble.tas.values[:, :, :4, :4]).all()


def test_infinite_values_and_constant_channels_are_refused():
    data = fields(30)
    data.tas.values[3, 2, 1] = np.inf
    with pytest.raises(DataError, match=r"tas has 1 infinite values .*first at time=2001-01-04"):
        tiny_fit(data)
    still = fields(30).assign(snow=lambda d: 0 * d.tas)
    with pytest.raises(DataError, match=r"snow is constant \(0\)"):
        tiny_fit(still)
    with pytest.raises(DataError, match="at least 8"):
        tiny_fit(fields(9))


def scenarios():
    data = fields(48)
    years = np.arange(2000, 2024)
    values = (
        data.tas.values.reshape(2, 24, 8, 12)
        + (years - 2000)[None, :, None, None] * np.array([1.0, 0.1])[:, None, None, None]
    )
    return xr.Dataset(
        {"tas": (("scenario", "year", "lat", "lon"), values.astype(np.float32), {"units": "K"})},
        coords={"scenario": ["A1B", "E1"], "year": years, "lat": data.lat, "lon": data.lon},
    )


@pytest.fixture(scope="module")
def emulator():
    return tiny_fit(scenarios(), task="emulate", holdout="year=2020/2023,scenario=E1", steps=20)


def test_emulate_at_covariates(emulator):
    one = draw(emulator, at="year=2022,scenario=E1", realizations=4)
    assert one.tas.dims == ("realization", "scenario", "year", "lat", "lon")
    assert one.year.values.tolist() == [2022] and one.scenario.values.tolist() == ["E1"]
    assert one.attrs["block_means"].startswith("not applicable: ")
    held = draw(emulator, holdout=True, realizations=4)
    there = (
        held.tas.sel(year=2022).squeeze("scenario", drop=True)
        if "scenario" in held.tas.dims
        else held.tas.sel(year=2022)
    )
    np.testing.assert_array_equal(one.tas.squeeze(("year", "scenario"), drop=True).values, there.values)
    some = draw(emulator, holdout=True, at="year=2021/2022", realizations=4)
    np.testing.assert_array_equal(some.tas.sel(year=2022).values, held.tas.sel(year=2022).values)
    assert some.sizes["year"] == 2
    several = draw(emulator, at={"year": [2022, 2005], "scenario": ["E1", "A1B"]}, realizations=4)
    np.testing.assert_array_equal(several.tas.sel(year=2022, scenario="E1").values, one.tas.squeeze().values)
    warm, cool = (float(draw(emulator, at=f"year=2019,scenario={s}", realizations=8).tas.mean()) for s in ("A1B", "E1"))
    assert warm - cool == pytest.approx(17, abs=5)  # by construction; the waves have a spread of 3 K


def test_emulate_refuses_what_it_does_not_know(emulator):
    for at, text in {
        "year=2022": "lacks 'scenario'",
        "year=2022,scenario=B2": "training met only A1B, E1",
        "year=2022,scenario=E1,member=3": "names 'member'; the model is given scenario, year",
        "year=2022,scenaro=E1": "names 'scenaro': did you mean 'scenario'. the model is given scenario, year",
        "member=3,scenario=E1": "names 'member'; the model is given scenario, year",
        "year=soon,scenario=E1": "is no number",
        "year=nan,scenario=E1": "year=nan is no number; training met 20",
        "year=-inf,scenario=E1": "year=-inf is no number",
    }.items():
        with pytest.raises((UsageError, DataError), match=text):
            draw(emulator, at=at)
    with pytest.raises(UsageError, match="--at year=2085"):
        draw(emulator)
    for year, share in ((2100, 1.0), (2010, 0.0)):
        assert draw(emulator, at=f"year={year},scenario=E1").attrs["given_out_of_range"] == share


def test_emulate_refuses_a_date_that_is_none():
    model = tiny_fit(fields(), task="emulate")
    for word in ("NaT", "nan", "soon"):
        with pytest.raises(UsageError, match=f"time={word} is no date"):
            draw(model, at=f"time={word}")


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_emulate_at_a_date_of_another_calendar(calendar):
    data = fields(36)
    data = data.assign_coords(
        time=xr.date_range("2001-01-16", periods=36, freq="MS", calendar=calendar, use_cftime=True)
    )
    model = tiny_fit(data, task="emulate")
    day = "2003-02-30" if calendar == "360_day" else "2003-09-01"
    if calendar == "noleap":
        held = draw(model, holdout=True)
        assert day in [str(t)[:10] for t in held.time.values]
        np.testing.assert_array_equal(
            draw(model, at=f"time={day}").tas.values[:, 0], held.tas.sel(time=day).values.reshape(2, 8, 12)
        )
    one = draw(model, at=f"time={day}")
    assert str(one.time.values[0])[:10] == day and one.time.values[0].calendar == calendar


def test_emulate_without_covariates_draws_the_climate():
    values = fields(60).tas.values
    model = tiny_fit(values, task="emulate", dims="sample,y,x")
    ensemble = draw(model, holdout=True, realizations=4, nfe=10)  # two steps lose half of the spread
    trained = values[model.problem.split.train]
    drawn = ensemble.to_dataarray().values.reshape(-1, 8, 12)
    off = (drawn.mean(0) - trained.mean(0)) / (trained.std(0) * np.sqrt(1 / len(drawn) + 1 / len(trained)))
    assert np.abs(off).mean() < 2.5
    assert drawn.std(0).mean() == pytest.approx(trained.std(0).mean(), rel=0.2)


# devices


@pytest.fixture
def meta():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_no_tensor_is_made_without_its_device(meta, tmp_path):
    model = tiny_fit(holes(), steps=2, out=tmp_path / "run", baselines=True, device="cpu")
    ensemble = draw(model, holdout=True)
    again = undrift.load(tmp_path / "run", device="cpu")
    np.testing.assert_array_equal(draw(again, model.holdout_given()).tas.values, ensemble.tas.values)
    assert "regression" in model.baselines()


def test_a_machine_without_the_device_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device._note_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="undrift"):
        assert device_of("auto") == torch.device("cpu") and not caplog.records  # what is no training
        asked = [device_of(name, tell=True) for name in ("auto", "auto", "cpu")]
    assert asked == [torch.device("cpu")] * 3
    assert [record.message for record in caplog.records] == ["no GPU was found: computing on the CPU"]
    for name in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(UsageError, match=f"device {name} .* no CUDA device; type --device cpu"):
            device_of(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(n) for n in ("auto", "cuda:1")] == [torch.device("cuda"), torch.device("cuda:1")]
    with pytest.raises(UsageError, match=r"cuda:7 .* has cuda:0 to cuda:1"):
        device_of("cuda:7")


# padding


def test_padding_changes_the_net_at_open_ends_only(tmp_path):
    """The two nets have the same weights, so that they agree where no window of theirs reaches an open end."""
    whole = np.arange(0.0, 360.0, 15.0)  # 24 cells around the globe
    data = fields(30, lat=np.linspace(-60, 60, 64), lon=whole)
    nets = {}
    for mode in ("zero", "reflect"):
        model = tiny_fit(data, steps=1, out=tmp_path / mode, set={"net.padding": mode, "net.channels": [4, 4]})
        loaded = undrift.load(tmp_path / mode, device="cpu")
        assert loaded.config.net.padding == mode
        assert loaded.net.padding == ({"zero": "zeros"}.get(mode, mode), "circular")
        nets[mode] = model.net
    nets["reflect"].load_state_dict(nets["zero"].state_dict())
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, nets["zero"].in_channels, 64, 24)).astype("f4"))
    with torch.no_grad():
        zero, reflect = (nets[mode](x, torch.zeros(1)) for mode in ("zero", "reflect"))
        turned = nets["reflect"](x.roll(4, 3), torch.zeros(1)).roll(-4, 3)
    apart = (zero - reflect).abs().amax((0, 1, 3))
    assert apart[[0, -1]].min() > 10 * apart[28:36].max()
    torch.testing.assert_close(turned, reflect, atol=1e-4, rtol=1e-4)  # the periodic axis has no ends


def test_each_axis_may_have_its_own_padding():
    data, small = fields(30), {"net.channels": [4, 4]}
    model = tiny_fit(data, steps=1, set={"net.padding": "reflect,zero", **small})
    assert model.net.padding == ("reflect", "zeros")
    with pytest.raises(UsageError, match="net.padding=zero,zero,zero: give one for each of lat, lon, or one for all"):
        tiny_fit(data, steps=1, set={"net.padding": ["zero"] * 3, **small})
    with pytest.raises(UsageError, match="padding"):
        tiny_fit(data, steps=1, set={"net.padding": "zero,mirror", **small})


# resume


def fit_until(kill, path, baselines):
    """The work of a process that dies before step ``kill`` of all its steps."""
    torch.set_num_threads(1)
    take, count = loop.take_step, 0

    def step(*arguments, **options):
        nonlocal count
        if count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return take(*arguments, **options)

    loop.take_step = step
    tiny_fit(fields(), steps=12, out=path, baselines=baselines, set={"train.save_steps": 5})


def killed_fit(path, kill, baselines=False):
    process = begin(fit_until, kill, path, baselines)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_fit_resumes_to_the_same_bits(tmp_path):
    """From a checkpoint (killed at 8, saved at 5), and from before the first one (killed at 2)."""
    undisturbed = tiny_fit(fields(), steps=12, out=tmp_path / "whole", set={"train.save_steps": 5})
    want = draw(undisturbed, holdout=True)
    for kill in (8, 2):
        path = tmp_path / f"killed-{kill}"
        killed_fit(path, kill)
        assert not (path / "manifest.json").exists()
        model = tiny_fit(fields(), steps=12, out=path, resume=True, set={"train.save_steps": 5})
        assert (path / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
        np.testing.assert_array_equal(draw(model, holdout=True).tas.values, want.tas.values)
    with pytest.raises(UsageError, match="config.train.batch: was 8, now 4"):
        tiny_fit(fields(), steps=12, out=path, resume=True, set={"train.save_steps": 5, "train.batch": 4})
    with pytest.raises(UsageError, match=r'data: was "[0-9a-f]{64}", now "'):
        tiny_fit(fields(seed=1), steps=12, out=path, resume=True, set={"train.save_steps": 5})
    with pytest.raises(UsageError, match="overwrite"):
        tiny_fit(fields(), steps=12, out=path)
    longer = tiny_fit(fields(), steps=16, out=path, resume=True, set={"train.save_steps": 5})
    assert longer.facts["steps"] == 16


def test_a_killed_regression_goes_on_to_the_same_bits(tmp_path, caplog):
    """Killed at step 8 of its 12, after the 12 of the main network; saved at 5."""
    options = {"steps": 12, "baselines": True, "set": {"train.save_steps": 5}}
    tiny_fit(fields(), out=tmp_path / "whole", **options)
    path = tmp_path / "killed"
    killed_fit(path, 12 + 8, baselines=True)
    assert not (path / "manifest.json").exists() and (path / "regression" / "checkpoints").is_dir()
    steps = []
    take = loop.take_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop, "take_step", lambda state, *a, **k: steps.append(state.counters.step) or take(state, *a, **k)
        )
        model = tiny_fit(fields(), out=path, resume=True, **options)
    assert steps == list(range(5, 12)) or steps == list(range(10, 12))
    for name in ("model.safetensors", "regression.safetensors"):
        assert (path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (path / "regression").exists() and not (path / "regression.lock").exists()
    lines = model.metrics()
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "regression train"}
    assert set(losses) == set(range(1, 13)) and all(np.isfinite(list(losses.values())))
    assert [line["kind"] for line in lines].count("summary") == 1
    assert model.facts["regression"]["steps"] == 12 and model.facts["regression"]["seconds"] > 0
