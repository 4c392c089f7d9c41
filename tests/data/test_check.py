"""Each fault that is put into a file is named by `check`, and a clean file gets no complaint."""

import json
import shlex
import time

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.data.check import check
from undrift.data.findings import correlated_steps
from undrift.data.open import open_fields
from undrift.data.split import split
from undrift.data.windows import auto_crop
from undrift.errors import DataError, UsageError
from undrift.tasks import Downscale


def clean(n=200, shape=(16, 24), *, units="K", mean=285.0, sd=3.0, seed=0, name="tas", rho=0.0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, *shape))
    for i in range(1, n):
        noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return xr.Dataset(
        {name: (("time", "lat", "lon"), (mean + sd * noise).astype("f4"), {"units": units})},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
            "lat": ("lat", np.linspace(40, 47.5, shape[0]), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(-5, 6.5, shape[1]), {"units": "degrees_east"}),
        },
    )


def rows(report, *severities):
    return [text for severity, text in report.lines if severity in severities]


def only(report, severity, *words):
    """The one line of this severity that has all words."""
    found = [text for text in rows(report, severity) if all(word in text for word in words)]
    assert len(found) == 1, (severity, words, report.text())
    return found[0]


def test_clean_data_get_no_complaint_and_a_line_that_can_be_typed(tmp_path):
    path = tmp_path / "my file.nc"
    clean().to_netcdf(path)
    report = check(str(path), holdout="time=2001-06-01/2001-07-19")
    assert rows(report, "note", "warning", "error") == [] and report.severity == "info"
    words = shlex.split(report.suggested)
    assert words[:3] == ["undrift", "train", str(path)]
    assert words[words.index("--task") + 1] == "downscale" and words[words.index("--factor") + 1] == "4"
    assert words[words.index("--holdout") + 1] == "time=2001-06-01/2001-07-19"
    only(report, "info", "holdout", "151 samples train, 49 test")
    only(report, "info", "200 steps of 1 day", "standard calendar")
    only(report, "info", "given 4 x 6 block means, asked 16 x 24", "plain ones, not weighted by area")
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.text().endswith(report.suggested) and report.to_dict()["transforms"] == {"tas": "standard"}


def test_suggested_line_keeps_the_options_that_were_typed(tmp_path):
    clean(shape=(16, 24)).to_netcdf(tmp_path / "a;b.nc")
    report = check([str(tmp_path / "a;b.nc")], select="lat=40/46", variables=["tas"], task="emulate")
    words = shlex.split(report.suggested)
    assert str(tmp_path / "a;b.nc") in words and words[words.index("--select") + 1] == "lat=40/46"
    assert words[words.index("--variables") + 1] == "tas" and words[words.index("--covariates") + 1] == "dayofyear"
    assert "--factor" not in words


@pytest.mark.parametrize(
    "mean,sd,units,words",
    [
        (12.0, 3.0, "K", ("'K'", "in degC")),
        (285.0, 3.0, "degC", ("'degC'",)),
        (101325.0, 500.0, "hPa", ("'hPa'",)),
        (5.0, 0.5, "kg m-2 s-1", ("mm/day",)),
    ],
)
def test_implausible_units(mean, sd, units, words):
    only(check(clean(mean=mean, sd=sd, units=units)), "warning", "check the units", *words)


@pytest.mark.parametrize(
    "units,low,high",
    [("K", 100, 400), ("degC", -120, 100), ("%", -1, 150), ("kg m-2 s-1", -1, 1), ("hPa", -2000, 2000), ("mbar", -2000, 2000)],
)  # fmt: skip
def test_units_are_doubted_just_beyond_what_is_plausible_and_not_just_inside(units, low, high):
    sd = 1e-4 * (high - low)
    for mean, told in (
        (low - 20 * sd, True),
        (low + 20 * sd, False),
        (high - 20 * sd, False),
        (high + 20 * sd, True),
    ):
        said = rows(check(clean(mean=mean, sd=sd, units=units)), "warning", "error")
        assert len(said) == told and all("check the units" in text and repr(units) in text for text in said), mean
        values = clean(mean=mean, sd=sd, units=units).tas
        assert not told or f"with values {float(values.min()):.4g} to {float(values.max()):.4g}" in said[0]


def test_a_fraction_that_is_called_a_percentage():
    data = clean(mean=0.5, sd=0.1, units="%")
    only(check(data.clip(0, 1)), "warning", "a fraction, not a percentage?")
    for largest in (2, 100):
        assert (
            rows(check(data.clip(0, 1).assign(tas=lambda d, n=largest: (n * d.tas).assign_attrs(units="%"))), "warning")
            == []
        )
    assert rows(check(data.clip(0, 1).assign(tas=lambda d: d.tas.assign_attrs(units="1"))), "warning") == []


def test_missing_units_are_a_note_and_anomalies_in_kelvin_are_none():
    only(check(clean(units="")), "note", "no units: tas")
    data = clean(mean=0.0)
    data.tas.attrs["long_name"] = "temperature anomaly"
    assert rows(check(data), "note", "warning", "error") == []


@pytest.mark.parametrize("calendar", ["noleap", "360_day", None])
def test_gaps_duplicates_and_disorder_of_time_in_every_calendar(calendar):
    """Row 37."""
    data = clean()
    if calendar:
        data["time"] = cftime.num2date(np.arange(200), "days since 2001-01-01", calendar=calendar)
    order = np.r_[0:50, 53:100, 120:200]
    gappy = check(data.isel(time=order))
    day = {"noleap": "2001-02-19", "360_day": "2001-02-20", None: "2001-02-19"}[calendar]
    assert f"after {day}" in only(gappy, "warning", "2 gaps in time", "23 steps are missing")
    only(check(data.isel(time=np.r_[0:50, 51:200])), "warning", "1 gap in time", "1 step is missing")
    only(gappy, "info", f"{calendar or 'standard'} calendar")
    shuffled = check(data.isel(time=np.r_[10:200, 0:10]))
    only(shuffled, "warning", "not in order", "1 steps back")
    assert not [t for t in rows(shuffled, "warning") if "gap" in t]
    twice = check(data.isel(time=np.r_[0:200, 7, 8]))
    only(twice, "warning", "2 values of time occur twice")
    conflict = data.isel(time=np.r_[0:200, 7]).copy(deep=True)
    conflict.tas[-1] += 1
    with pytest.raises(DataError, match="two different fields at time=2001-01-08"):
        check(conflict)


def test_missing_values_are_told_apart():
    data = clean()
    data.tas[:, :3, :4] = np.nan  # a mask of 12 cells
    data.tas[20:25] = np.nan
    data.tas[100, 5, 5:9] = np.nan
    report = check(data)
    text = only(report, "note", "tas:")
    assert "mask of 12 of 384 cells (3.1%" in text and "5 of 200 frames wholly missing" in text
    assert "4 other values missing" in text
    holes = clean()
    holes.tas.values[np.random.default_rng(1).random(holes.tas.shape) < 0.3] = np.nan
    only(check(holes), "warning", "23028 other values missing (29.98%")


def test_infinite_values_are_an_error_that_names_time_and_count():
    data = clean()
    data.tas[[30, 40], 2, 3] = np.inf
    report = check(data)
    assert "first at time=2001-01-31" in only(report, "error", "tas has 2 infinite values")
    assert report.suggested == "" and report.severity == "error"


def test_fill_values_declared_are_missing_and_undeclared_are_flagged(tmp_path):
    """Row 31: `_FillValue` of packed integers is decoded; a bare 1e20 or -999 is not believed."""
    data = clean()
    data.tas[:, 2, 3] = np.nan
    data.to_netcdf(
        tmp_path / "packed.nc",
        encoding={"tas": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280, "_FillValue": -32768}},
    )
    packed = check(str(tmp_path / "packed.nc"))
    assert rows(packed, "warning", "error") == []
    only(packed, "note", "mask of 1 of 384")
    for value, severity in ((1e20, "error"), (-999.0, "warning"), (9999.0, "warning")):
        bare = clean()
        bare.tas[3:6, 2, 3] = value
        report = check(bare)
        only(report, severity, "3 times", f"{value:g}", "undeclared fill value")
        assert bool(report.suggested) == (severity == "warning")


def test_values_far_from_all_others():
    data = clean()
    data.tas[77, 3, 3] = 285 + 40 * 3.0
    text = only(check(data), "warning", "tas reaches 405", "robust standard deviations")
    assert 36 < float(text.split(",")[1].split()[0]) < 44  # 40 within the error of the quartiles


def test_constant_and_empty_channels_are_errors_that_name_them():
    """Row 33."""
    data = clean()
    data["flat"] = xr.full_like(data.tas, 7.0)
    data["void"] = xr.full_like(data.tas, np.nan)
    report = check(data)
    only(report, "error", "flat is constant (7)", "--variables")
    only(report, "error", "void has no value at all")
    assert check(data, variables="tas").suggested


def test_transforms_follow_zeros_and_bounds():
    rng = np.random.default_rng(3)
    data = clean()
    rain = np.maximum(rng.normal(-0.3, 1, data.tas.shape), 0) ** 2
    ice = np.clip(rng.normal(0.5, 0.5, data.tas.shape), 0, 1)
    data["pr"] = (data.tas.dims, rain.astype("f4"), {"units": "mm/day"})
    data["ice"] = (data.tas.dims, ice.astype("f4"), {"units": "1"})
    report = check(data)
    assert report.facts["transforms"] == {"tas": "standard", "pr": "censored", "ice": "bounded"}
    n = rain.size
    for name, want in (("pr", 0.6179), ("ice", 0.1587)):  # normal probabilities
        got = report.facts["zeros"][name]
        assert abs(got - want) < 4 * np.sqrt(want * (1 - want) / n) + 1e-3
    padded = clean(mean=0.0, units="m s-1")
    padded.tas[:, :8] = 0.0
    only(check(padded), "note", "50.0% of tas are exact zeros")


def test_negative_rain_is_told():
    """Row 42, on the way in."""
    data = clean(name="pr", units="mm/day", mean=5.0)
    low = float(data.pr.min())
    only(check(data), "warning", "pr should not be negative", f"goes down to {low:.3g} (real)")
    packed = data.clip(0)
    packed.pr.values[3, 2, 1] = -1e-6
    only(check(packed), "warning", "pr should not be negative", "goes down to -1e-06 (tiny)")
    for dry_or_cold in (data.clip(0), clean(units="degC", mean=5.0)):
        assert rows(check(dry_or_cold), "warning") == []


@pytest.mark.parametrize("rho", [0.0, 0.8, 0.95])
def test_effective_samples_of_a_known_process(rho):
    """exp(-1) of AR(1) is passed at -1 / log(rho) steps; a trend and a season do not count as correlation."""
    n = 4000 if rho > 0.9 else 800  # taking out the slow part shortens the memory of a short record
    data = clean(n=n, shape=(12, 12), rho=rho, seed=5)
    season = 20 * np.sin(2 * np.pi * np.arange(n) / 365.25) + 0.02 * np.arange(n)
    lag, looked = correlated_steps(open_fields(data + season[:, None, None].astype("f4")), np.arange(n))
    want = 0.0 if rho == 0 else -1 / np.log(rho)
    assert abs(lag - want) <= 1 + 0.15 * want and looked == n
    if rho == 0.95:
        few = check(data.isel(time=slice(0, 300)))
        lag = few.facts["decorrelation_steps"]
        count = few.facts["effective_samples"]
        assert 8 <= lag <= 30 and count == pytest.approx(300 / (1 + 2 * lag), abs=0.05)
        only(
            few,
            "warning",
            f"about {count:.0f} effective samples (cells stay correlated over {lag} steps)",
            "few to learn",
        )


def test_gaps_do_not_make_samples_independent():
    data = clean(n=800, shape=(12, 12), rho=0.8, seed=5)
    whole = correlated_steps(open_fields(data), np.arange(800))[0]
    rng = np.random.default_rng(0)
    data.tas.values[rng.random(data.tas.shape) < 0.02] = np.nan
    data.tas[100:110] = np.nan
    assert whole > 2 and abs(correlated_steps(open_fields(data), np.arange(800))[0] - whole) <= 1


def test_a_shifted_sample_is_no_copy():
    """Its values are the same in another order, and so is the sum of their bits."""
    data = clean(n=60)
    data["tas"][7] = np.roll(data.tas.values[3], 5, axis=1)
    fields = open_fields(data)
    sums = fields.scan().bit_sums
    assert sums[7] == sums[3] and np.unique(sums).size == 59
    assert sums[3] == sum(int(v) for v in data.tas.values[3].view(np.uint32).ravel())
    assert split(fields).duplicates == 0 and split(open_fields(data)).duplicates == 0


def test_repeated_samples_are_counted():
    data = clean()
    data.tas[120:130] = data.tas[20:30].values
    report = check(data)
    only(report, "warning", "10 training samples repeat another exactly")
    data.tas[190:195] = data.tas[20:25].values
    only(check(data), "warning", "5 of 40 held-out samples also are in training, the first at time=2001-07-10")


def test_far_edge_is_told_and_periodic_circles_are_kept_whole():
    text = only(check(clean(shape=(17, 26))), "note", "far edge is trimmed")
    assert "1 cell along lat, 2 cells along lon" in text
    globe = clean(shape=(16, 30)).assign_coords(lon=np.arange(0, 360, 12.0), lat=np.linspace(-80, 80, 16))
    report = check(globe)
    only(report, "info", "periodic along lon")
    only(report, "warning", "lon is periodic", "--factor")
    assert not rows(check(globe, factor=2), "warning")
    only(check(clean(shape=(16, 3)), task="downscale"), "error", "no block of 4 cells", "a --factor of at most 3")
    only(check(clean(shape=(1, 30)), task="downscale"), "error", "drop the dim 'lat' of one cell")


def test_samples_are_counted_as_training_counts_them():
    """After trimming and joining: what is slow on the far edge alone leaves no gap, and what is not joined no sample."""
    data = clean(shape=(16, 25))
    data.tas[:, :, 24] += 200 * np.sin(np.arange(200) / 20)[:, None].astype("f4")
    fields = open_fields(data)
    told, trains = check(data).facts, split(Downscale(4).pair(fields).target)
    assert (told["train"], told["holdout"]) == (trains.train.size, trains.holdout.size)
    assert told["train"] > split(fields).train.size + 5, "the far edge counts"
    coarse = clean(shape=(4, 6), seed=1).isel(time=slice(50, 170))
    trains = split(Downscale().pair(fields, open_fields(coarse)).target)
    data.tas[60] = data.tas[55].values
    told = check(data, given=coarse).facts
    assert (told["train"] + 1, told["holdout"], told["duplicates"]) == (trains.train.size, trains.holdout.size, 1)
    assert told["train"] < 96


def test_given_data_join_regrid_or_are_refused():
    coarse = clean(shape=(6, 8), seed=1)
    both = check(clean(), given=coarse.isel(time=slice(50, 200)))
    only(both, "info", "150 of 200 samples joined")
    only(both, "info", "given grid 6 x 8", "regridded")
    apart = check(clean(), given=coarse.assign_coords(time=coarse.time + np.timedelta64(9000, "D")))
    only(apart, "error", "no sample of the given data matches", "target 2001-01-01", "given 2025-")
    region = check(clean(), given=coarse.assign_coords(lat=coarse.lat + 20))
    only(region, "error", "do not fit", "lat reaches 40")
    assert region.suggested == ""


def test_without_coordinates_of_time_or_space():
    rng = np.random.default_rng(0)
    report = check(rng.normal(size=(50, 8, 8, 8)).astype("f4"), dims="sample,z,y,x", periodic="z,y,x")
    only(report, "info", "grid z 8 x y 8 x x 8", "periodic along z, y, x")
    only(report, "info", "no time: samples are independent along sample")
    assert "--dims sample,z,y,x" in report.suggested and "--periodic z,y,x" in report.suggested


def test_a_time_dim_without_coordinate_counts_along_its_positions():
    independent, smooth = (clean(n=600, rho=rho, seed=4).tas.values.reshape(2, 300, 16, 24) for rho in (0.0, 0.9))
    reports = [check(a, dims="run,time,y,x") for a in (independent, smooth)]
    lags = [report.facts["decorrelation_steps"] for report in reports]
    assert lags[0] == 0 and 4 <= lags[1] <= 13  # 0.9^10 = 1 / e
    only(reports[0], "info", "time has no coordinate", "300 steps")


def test_a_curvilinear_region_across_greenwich_has_its_true_span():
    y, x = np.meshgrid(np.arange(16.0), np.arange(24.0), indexing="ij")
    data = clean().rename(lat="y", lon="x").drop_vars(["y", "x"])
    data = data.assign_coords(
        lat=(("y", "x"), 45 + 0.5 * y, {"units": "degrees_north"}),
        lon=(("y", "x"), (350 + x - 0.1 * y) % 360, {"units": "degrees_east"}),
    )
    only(check(data), "info", "2-D latitude 45 to 52.5, longitude -11.5 to 13")


def test_memory_is_that_of_a_training_window_and_a_warning_where_the_machine_lacks_it(monkeypatch):
    boxes = xr.Dataset({"n": (("sample", "z", "y", "x"), np.random.default_rng(4).normal(size=(5, 64, 64, 64)))})

    def told(machine):
        monkeypatch.setattr("undrift.data.memory._machine_memory", lambda: int(machine * 1e9))
        (line,) = (line for line in check(boxes).lines if "of memory" in line[1])
        return line

    # 16 boxes of 64^3 cells, 16 channels of 90 bytes: 6.04 GB
    assert told(24) == ("info", "0.00524 GB as float32 (kept in memory); training takes roughly 6.5 GB of memory")
    for machine, words in (
        (8, "has 8 GB: add --set train.batch=8"),
        (4, "train.batch=2"),
        (1.765, "add --crop 32"),
        (1, "--select"),
    ):
        severity, text = told(machine)
        assert severity == "warning" and words in text
    crops = {(64, 64, 64): None, (128, 128): None, (129, 128): 64, (16, 2000): 64, (20000,): 64, (40, 80, 80): 64}
    assert {shape: auto_crop(shape) for shape in crops} == crops


def test_bad_options_and_files(tmp_path):
    with pytest.raises(UsageError, match="downscale, emulate, enrich, window or lead-time"):
        check(clean(), task="forecast")
    (tmp_path / "x.nc").write_text("hello")
    with pytest.raises(DataError, match=r"x\.nc"):
        check(str(tmp_path / "x.nc"))
    only(check(clean(n=1)), "error", "1 sample")
    with pytest.raises(DataError, match="0 of"):
        check(clean(), holdout="time=2031/2032")


def test_missing_chunk_of_a_store_is_named(tmp_path):
    """Row 32."""
    clean().to_zarr(tmp_path / "a.zarr", encoding={"tas": {"chunks": (20, 16, 24)}}, zarr_format=3, consolidated=False)
    assert rows(check(str(tmp_path / "a.zarr")), "warning", "error") == []
    (tmp_path / "a.zarr" / "tas" / "c" / "3" / "0" / "0").unlink()
    only(check(str(tmp_path / "a.zarr")), "warning", "1 of 10 chunks of 'tas' are missing", "c/3/0/0")


def test_the_pace_is_that_of_a_gigabyte_in_ten_seconds():
    """Of 64 MB, by the clock of this process, at the best of three on a busy machine."""
    data, seconds = clean(n=1600, shape=(100, 100)), []
    for _ in range(3):
        start = time.process_time()
        check(data)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.64, seconds
