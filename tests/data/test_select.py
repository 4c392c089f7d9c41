"""Selections and splits."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from data_grids import grid
from hypothesis import given
from hypothesis import strategies as st

from undrift.data.examples import north_america
from undrift.data.open import open_fields
from undrift.data.select import format_selection, parse_selection, sample_mask, split
from undrift.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("year=2070/2099,scenario=E1", {"year": ("2070", "2099"), "scenario": ("E1",)}),
        ("year = 2070 / 2099 , scenario = E1", {"year": ("2070", "2099"), "scenario": ("E1",)}),
        ("year=2070:2099", {"year": ("2070", "2099")}),
        ("lat=-35:60.5", {"lat": ("-35", "60.5")}),
        ("lat=35:60", {"lat": ("35:60",)}),  # two digits on each side: what it is depends on the coordinate
        ("time=2019-03", {"time": ("2019-03",)}),
        ("time=2019-03-01:2019-03-20", {"time": ("2019-03-01", "2019-03-20")}),
        ("time=2019-03-01T12:00", {"time": ("2019-03-01T12:00",)}),
        ("time=2019-03-01T12:00/2019-03-01T18:00", {"time": ("2019-03-01T12:00", "2019-03-01T18:00")}),
        ("year=2070/", {"year": ("2070", "")}),
        ("year=/2070", {"year": ("", "2070")}),
    ],
)
def test_parsing(text, parsed):
    assert parse_selection(text) == parsed


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "cannot read ''"), ("year", "cannot read 'year'"), ("year=", "cannot read 'year='"), ("=3", "cannot read '=3'"),
     ("year=1/2/3", "a range is year=A/B, got '1/2/3'"), ("year=1,year=2", "year is given twice"),
     ("year=/", "a range is year=A/B, got '/'"), ("a=1,,b=2", "cannot read ''")],
)  # fmt: skip
def test_unreadable_selections(text, says):
    with pytest.raises(UsageError, match=f"selection '{text}': {says}"):
        parse_selection(text)


_word = st.text(st.characters(categories=("Ll", "Lu", "Nd"), include_characters="_-."), min_size=1, max_size=8)
_number = st.one_of(st.integers(-9999, 9999).map(str), st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: f"{v:.4f}"))
_end = st.one_of(_number, _word)


@given(st.dictionaries(_word, st.one_of(st.tuples(_end), st.tuples(_end, _end)), min_size=1, max_size=4))
def test_parse_of_format_is_the_identity(selection):
    assert parse_selection(format_selection(selection)) == selection


@pytest.fixture(scope="module")
def america():
    return open_fields(north_america_once())


@given(a=st.integers(1860, 2099), b=st.integers(1860, 2099))
def test_ranges_are_inclusive_in_either_order(america, a, b):
    fields = america
    years = fields.along(fields.dataset.year)
    for text in (f"year={a}/{b}", f"year={a}:{b}"):
        mask = sample_mask(fields, text)
        np.testing.assert_array_equal(mask, (years >= min(a, b)) & (years <= max(a, b)))


_CACHE: list[xr.Dataset] = []


def north_america_once() -> xr.Dataset:
    if not _CACHE:
        _CACHE.append(north_america())
    return _CACHE[0]


def test_keys_are_joined_by_and():
    fields = open_fields(north_america_once())
    mask = sample_mask(fields, "year=2070/2099,scenario=E1")
    assert mask.sum() == 30
    assert [fields.labels(i) for i in np.flatnonzero(mask)][:2] == [
        {"scenario": "E1", "year": 2070},
        {"scenario": "E1", "year": 2071},
    ]
    assert sample_mask(fields, {"year": slice(2070, None), "scenario": "E1"}).sum() == 30
    assert sample_mask(fields, {"year": (2070, 2071)}).sum() == 4


def test_dates_by_their_beginning():
    fields = open_fields(grid(90, start="2019-02-20"))
    days = fields.times().astype("datetime64[D]").astype(str)
    for text, test in (
        ("time=2019-03", lambda d: d.startswith("2019-03")),
        ("time=2019-03-05/2019-03-20", lambda d: "2019-03-05" <= d <= "2019-03-20"),
        ("time=2019-03-20/2019-03-05", lambda d: "2019-03-05" <= d <= "2019-03-20"),
        ("time=2019-03/2019-04", lambda d: "2019-03" <= d[:7] <= "2019-04"),
        ("time=/2019-03-01", lambda d: d <= "2019-03-01"),
        ("month=3", lambda d: d[5:7] == "03"),
        ("month=3/4", lambda d: d[5:7] in ("03", "04")),
    ):
        np.testing.assert_array_equal(sample_mask(fields, text), [test(d) for d in days], err_msg=text)


def test_a_date_as_numpy_prints_it():
    """With nine digits of a second, all of them 0, or some that are not."""
    times = np.datetime64("2001-01-04T07", "ns") + np.arange(4) * np.timedelta64(500, "ms")
    data = xr.Dataset({"u": (("time", "y", "x"), np.ones((4, 3, 3)))}, {"time": times})
    fields = open_fields(data)
    for k, time in enumerate(times):
        chosen = np.flatnonzero(sample_mask(fields, f"time={time}"))
        assert k in chosen and len(chosen) <= 2  # a whole second stands for all of it
    assert sample_mask(fields, f"time={times[1]}").sum() == 1


def test_dates_of_another_calendar():
    time = xr.date_range("2000-01-01", periods=360, calendar="360_day", use_cftime=True)
    ds = xr.Dataset({"v": (("time", "y", "x"), np.zeros((360, 2, 2)))}, {"time": time})
    fields = open_fields(ds)
    assert sample_mask(fields, "time=2000-02-30").sum() == 1
    assert sample_mask(fields, "time=2000-02").sum() == 30
    assert isinstance(fields.times()[0], cftime.Datetime360Day)


def test_hours_are_inclusive_to_their_end():
    time = np.datetime64("2019-03-01", "ns") + np.arange(48) * np.timedelta64(1, "h")
    ds = grid(48).assign_coords(time=time)
    assert sample_mask(open_fields(ds), "time=2019-03-01T06/2019-03-01T12").sum() == 7
    assert sample_mask(open_fields(ds), "time=2019-03-01").sum() == 24
    assert sample_mask(open_fields(ds), "hour=0/5").sum() == 12


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("year=3000/4000", DataError, "selects 0 of 480; year is 1860 to 2099"),
        ("scenario=A2", DataError, "selects 0 of 480"),
        ("yaer=2000", UsageError, "did you mean 'year'"),
        ("year=soon", UsageError, "year is a number"),
        ("scenario=A1B/E1", UsageError, "scenario is text"),
    ],
)
def test_empty_and_wrong_selections(text, error, match):
    with pytest.raises(error, match=match):
        sample_mask(open_fields(north_america_once()), text)


def test_space_is_cropped():
    ds = north_america_once()
    fields = open_fields(ds, select="lat=35/50,lon=240:260")
    want = ds.tas.sel(lat=slice(35, 50), lon=slice(240, 260))
    assert fields.layout.shape == want.shape[2:]
    np.testing.assert_array_equal(fields.read([3])[0, 0], want.values[0, 3].astype(np.float32))
    west = open_fields(ds, select="lat=50/35,lon=-120/-100")
    np.testing.assert_array_equal(west.read([3]), fields.read([3]))
    two_digits = open_fields(ds, select="lat=35:50")
    assert two_digits.layout.shape[0] == want.sizes["lat"]
    with pytest.raises(DataError, match="selects 0 of 37"):
        open_fields(ds, select="lat=70/80")
    with pytest.raises(UsageError, match="did you mean 'lat'"):
        open_fields(ds, select="latt=70/80")


def test_a_crop_across_the_end_of_periodic_longitudes():
    ds = grid(2, lon=30.0 * np.arange(12))
    fields = open_fields(ds, select="lon=-60/60")
    assert fields.layout.periodic == (False, False) and fields.layout.shape == (5, 5)
    assert ((fields.dataset.lon.values + 60) % 360).tolist() == [0, 30, 60, 90, 120]
    np.testing.assert_array_equal(fields.read([1])[0, 0], ds.t2m.values[1][:, [10, 11, 0, 1, 2]])
    back = fields.restore(fields.dataset)
    for lon in (300.0, 330.0, 0.0, 30.0, 60.0):
        np.testing.assert_array_equal(back.t2m.sel(lon=lon), ds.t2m.sel(lon=lon))
    assert open_fields(ds, select="lon=0/360").layout.periodic == (False, True)


def test_samples_are_selected_on_opening():
    fields = open_fields(north_america_once(), select="scenario=E1,year=2000/")
    assert [fields.labels(i) for i in range(len(fields))] == [{"scenario": "E1", "year": y} for y in range(2000, 2100)]


def test_the_split_of_the_demo():
    fields = open_fields(north_america_once())
    result = split(fields, "year=2070/2099,scenario=E1")
    train = {tuple(fields.labels(i).values()) for i in result.train}
    held = {tuple(fields.labels(i).values()) for i in result.holdout}
    assert held == {("E1", y) for y in range(2070, 2100)}
    assert train == {("A1B", y) for y in range(1860, 2100)} | {("E1", y) for y in range(2000, 2070)}
    assert result.duplicates == 140 and result.gap.size == 0


def test_held_out_twins_are_warned_of():
    result = split(open_fields(north_america_once()), "year=1990/1999,scenario=E1")
    assert any("10 of 10 held-out samples also are in training" in text for text in result.warnings)


def autoregressive(n: int, phi: float, seed: int) -> xr.Dataset:
    """Fields whose pattern amplitude is an AR(1) series with e-folding time -1 / log(phi)."""
    rng = np.random.default_rng(seed)
    amplitude = np.zeros(n)
    for t in range(1, n):
        amplitude[t] = phi * amplitude[t - 1] + np.sqrt(1 - phi**2) * rng.normal()
    pattern = np.sin(np.linspace(0, 3, 35)).reshape(5, 7)
    ds = grid(n)
    return ds.assign(t2m=ds.t2m * 0 + amplitude[:, None, None] * pattern + 0.01 * rng.normal(size=(n, 5, 7)))


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_gap_is_one_decorrelation_time(phi):
    want = -1.0 / np.log(phi)
    gaps = [split(open_fields(autoregressive(1000, phi, seed)), "20%").gap.size for seed in range(12)]
    error = np.std(gaps) / np.sqrt(len(gaps))
    assert abs(np.mean(gaps) - np.ceil(want)) <= 3 * error + 0.15 * want + 0.5, (gaps, want)


def test_the_end_of_the_record_is_held_out():
    fields = open_fields(autoregressive(200, 0.5, 0))
    result = split(fields)
    assert result.holdout.tolist() == list(range(160, 200))
    assert result.gap.tolist() == list(range(160 - result.gap.size, 160)) and 1 <= result.gap.size <= 20
    assert result.train.tolist() == list(range(160 - result.gap.size))


def test_shares_act_along_time_for_all_other_dims():
    fields = open_fields(north_america_once())
    result = split(fields, "10%")
    assert {fields.labels(i)["year"] for i in result.holdout} == set(range(2076, 2100))
    assert result.holdout.size == 48
    last = max(fields.labels(i)["year"] for i in result.train)
    assert last < 2076 - result.gap.size / 2 + 1e-9


def test_without_time_the_last_of_the_first_dim_is_held_out():
    array = np.random.default_rng(0).normal(size=(10, 4, 6, 6)).astype(np.float32)
    result = split(open_fields(array, dims="box,slab,y,x"), "20%")
    assert result.holdout.tolist() == list(range(32, 40)) and result.gap.size == 0 and result.train.size == 32


def test_dry_days_are_no_duplicates():
    """Days 3, 5 and 18 have no rain anywhere, 6 and 19 are rainy copies of 0."""
    ds = grid(20)
    for day in (3, 5, 18):
        ds["t2m"][day] = 0.0
    for day in (6, 19):
        ds["t2m"][day] = ds["t2m"][0]
    ds["t2m"][5, 0, 0] = np.nan
    result = split(open_fields(ds), "time=2001-01-18/2001-01-20")
    assert result.duplicates == 1 and {3, 5} <= set(result.train.tolist()) and 6 not in result.train
    (warning,) = [text for text in result.warnings if "held-out" in text]
    assert "1 of 3 held-out samples also are in training" in warning and "2001-01-20" in warning


def test_missing_frames_are_no_duplicates():
    ds = grid(20)
    ds.t2m.values[[3, 5]] = np.nan
    ds.t2m.values[7] = ds.t2m.values[6]
    result = split(open_fields(ds), "time=2001-01-18/2001-01-20")
    assert result.duplicates == 1 and 7 not in result.train and {3, 5, 6} <= set(result.train.tolist())


@pytest.mark.parametrize("text", ["0%", "100%", "120%"])
def test_impossible_shares(text):
    with pytest.raises(UsageError, match=f"--holdout {text}: give a share between 0% and 100%"):
        split(open_fields(grid(10)), text)


def test_nothing_left_to_train():
    with pytest.raises(DataError, match="leaves none"):
        split(open_fields(grid(10)), "time=2001")


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_ranges_do_not_depend_on_the_unit_of_length(unit):
    x = np.arange(10) * 0.1 * unit
    ds = xr.Dataset({"v": (("time", "y", "x"), np.zeros((2, 3, 10)))}, {"x": x.astype(np.float32)})
    fields = open_fields(ds, select={"x": (0.3 * unit, 0.7 * unit)})
    np.testing.assert_allclose(fields.dataset.x, x[3:8], rtol=1e-6)
    assert open_fields(ds, select={"x": 0.2 * unit}).layout.shape == (3, 1)


def test_samples_without_labels_are_held_out_by_position():
    values = np.zeros((5, 2, 4, 6), dtype="f4")
    fields = open_fields(values, dims="sample,member,y,x")
    mask = sample_mask(fields, "sample=3/4").reshape(5, 2)
    np.testing.assert_array_equal(mask, (np.arange(5) >= 3)[:, None].repeat(2, 1))
    both = sample_mask(fields, "sample=1/3,member=1").reshape(5, 2)
    assert np.argwhere(both).tolist() == [[1, 1], [2, 1], [3, 1]]
    with pytest.raises(DataError, match=r"selects 0 of 10; sample is 0 to 4"):
        sample_mask(fields, "sample=7/9")
