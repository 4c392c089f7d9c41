"""Fields with a known formula come out exactly; what cannot be known is refused."""

import datetime

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.data.grid import axis_weights
from undrift.data.open import open_fields
from undrift.data.regrid import Grid, Regridder, join, match_given, regrid, same_units
from undrift.errors import DataError
from undrift.tasks import Downscale


def field(lat, lon, fn, *, time=4, name="tas", units="K", **coords):
    """fn(lat, lon) * (1 + i) on a rectilinear grid."""
    y, x = np.meshgrid(lat, lon, indexing="ij")
    data = np.stack([fn(y, x) * (1 + i) for i in range(time)])
    return xr.Dataset(
        {name: (("time", "lat", "lon"), data, {"units": units, "long_name": "a field"})},
        coords={
            "time": coords.get("times", np.datetime64("2001-01-01", "ns") + np.arange(time) * np.timedelta64(1, "D")),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )


def curvilinear(lat, lon, fn, time=2):
    data = np.stack([fn(lat, lon) * (1 + i) for i in range(time)])
    return xr.Dataset(
        {"tas": (("time", "y", "x"), data, {"units": "K"})},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(time) * np.timedelta64(1, "D"),
            "lat": (("y", "x"), lat, {"units": "degrees_north"}),
            "lon": (("y", "x"), lon, {"units": "degrees_east"}),
        },
    )


def rotated(ny, nx, lat0, lon0, size, angle=0.4):
    """A grid turned by an angle about (lat0, lon0)."""
    v, u = np.meshgrid(np.linspace(-size, size, ny), np.linspace(-size, size, nx), indexing="ij")
    return lat0 + v * np.cos(angle) + u * np.sin(angle), lon0 - v * np.sin(angle) + u * np.cos(angle)


def plane(lat, lon):
    return 3.0 + 0.25 * lat - 0.125 * lon


def test_a_plane_is_reproduced_whatever_the_order_of_latitude_and_the_longitude_convention():
    fine = field(np.arange(41.0, 48.9, 0.5), np.arange(1.0, 11.0, 0.5), plane)
    for lat in (np.arange(40.0, 51, 2), np.arange(50.0, 39, -2)):
        for lon in (np.arange(0.0, 13, 3), np.arange(0.0, 13, 3) + 360):
            coarse = field(lat, lon, lambda y, x: plane(y, (x + 180) % 360 - 180))
            out = regrid(coarse, fine)
            np.testing.assert_allclose(out.tas, fine.tas, rtol=0, atol=1e-12)
            assert out.tas.dims == ("time", "lat", "lon") and out.tas.units == "K"
            np.testing.assert_array_equal(out.lat, fine.lat)
    west = field(np.arange(40.0, 51, 2), np.arange(-12.0, 1, 3), plane)
    want = field(np.arange(41.0, 48), np.arange(350.0, 359), lambda y, x: plane(y, x - 360))
    np.testing.assert_allclose(regrid(west, want).tas, want.tas, atol=1e-12)


def test_through_canonical_fields_descending_latitudes_give_the_same():
    fine = open_fields(field(np.arange(41.0, 48.9, 0.5), np.arange(1.0, 11.0, 0.5), plane))
    down = open_fields(field(np.arange(50.0, 39, -2), np.arange(0.0, 13, 3) - 360, lambda y, x: plane(y, x + 360)))
    move = Regridder(Grid.of(down), Grid.of(fine))
    np.testing.assert_allclose(move(down.read([0, 3])), fine.read([0, 3]), atol=2e-5)


def test_linear_across_the_seam_of_the_sphere():
    lon = np.arange(0.0, 360, 10)
    globe = field(np.linspace(-85, 85, 18), lon, lambda y, x: np.cos(np.deg2rad(x)) + 0 * y)
    want = field(np.array([0.0, 5.0]), np.array([-7.5, -5.0, -2.5, 352.5, 357.5, 0.0]), plane)
    got = regrid(globe, want).tas[0, 0].values
    c = np.cos(np.deg2rad(10))
    np.testing.assert_allclose(got, [0.75 * c + 0.25, 0.5 + 0.5 * c, 0.25 * c + 0.75, 0.75 * c + 0.25, 0.25 * c + 0.75, 1.0], atol=1e-12)  # fmt: skip


def test_a_roll_of_a_global_grid_is_exact():
    rng = np.random.default_rng(0)
    lon = np.arange(0.0, 360, 5)
    values = {x: rng.normal() for x in lon}
    east = field(np.arange(-80.0, 81, 10), lon, lambda y, x: np.vectorize(values.get)(x) + y)
    half = field(np.arange(-80.0, 81, 10), lon - 180, lambda y, x: np.vectorize(values.get)(x % 360) + y)
    np.testing.assert_allclose(regrid(east, half).tas, half.tas, atol=1e-12)


def test_periodic_box_without_coordinates_is_taken_as_the_same_box():
    n, m = 8, 16
    x = (np.arange(n) + 0.5) / n
    array = np.sin(2 * np.pi * x)[None, :, None] + 0 * np.zeros((2, n, n))
    lr = open_fields(array, dims="sample,y,x", periodic="y,x")
    hr = open_fields(np.zeros((2, m, m)), dims="sample,y,x", periodic="y,x")
    move = Regridder(Grid.of(lr), Grid.of(hr))
    got = move(lr.read([0]))[0, 0, :, 3]
    f = np.sin(2 * np.pi * x)
    want = np.empty(m)
    want[0::2] = 0.75 * f + 0.25 * np.roll(f, 1)
    want[1::2] = 0.75 * f + 0.25 * np.roll(f, -1)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert any("same box" in note for note in move.notes)
    with pytest.raises(DataError, match="give both files coordinates"):
        Regridder(Grid.of(lr), Grid.of(open_fields(np.zeros((2, 11, 11)), dims="sample,y,x")))


@pytest.mark.parametrize("space", [("x",), ("z", "y", "x")])
def test_one_and_three_dims_of_space(space):
    rng = np.random.default_rng(1)
    slope = rng.normal(size=len(space))

    def make(step, start, count):
        axes = [start + step * np.arange(count + i) for i in range(len(space))]
        mesh = np.meshgrid(*axes, indexing="ij")
        values = sum(s * a for s, a in zip(slope, mesh))
        return xr.Dataset({"a": (("sample", *space), np.stack([values, -values]))}, dict(zip(space, axes)))

    coarse, fine = make(1.0, 0.0, 7), make(0.25, 0.5, 20)
    move = Regridder(Grid.of(open_fields(coarse)), Grid.of(open_fields(fine)))
    np.testing.assert_allclose(move(coarse.a.values), fine.a.values, atol=1e-12)


def test_a_plane_between_2d_grids_in_every_combination():
    """Across the seam at 0 or 180 degrees too; weights are made once and are rows that sum to 1."""
    for lon0 in (5.0, 0.0, 180.0):

        def fn(y, x, lon0=lon0):
            return 3.0 + 0.25 * y - 0.125 * ((x - lon0 + 180) % 360 - 180)

        source = curvilinear(*[a if i == 0 else a % 360 for i, a in enumerate(rotated(30, 34, 45, lon0, 12))], fn)
        lat, lon = np.arange(41.0, 50, 0.7), np.arange(lon0 - 5, lon0 + 5.1, 0.7)
        onto_1d = field(lat, (lon + 180) % 360 - 180 if lon0 == 180.0 else lon, fn, time=2)
        onto_2d = curvilinear(*rotated(11, 9, 45, lon0, 5, angle=-0.2), fn)
        move = Regridder(Grid.of(source), Grid.of(onto_1d))
        np.testing.assert_allclose(move.weights.sum(axis=1), 1)
        np.testing.assert_allclose(regrid(source, onto_1d).tas, onto_1d.tas, atol=1e-9)
        np.testing.assert_allclose(regrid(source, onto_2d).tas, onto_2d.tas, atol=1e-9)
        regular = field(np.arange(35.0, 56), np.arange(lon0 - 12, lon0 + 13), fn, time=2)
        back = regrid(regular, onto_2d)
        np.testing.assert_allclose(back.tas, onto_2d.tas, atol=1e-9)
        assert back.tas.dims == ("time", "y", "x") and back["lat"].dims == ("y", "x")


@pytest.mark.parametrize("lon0", [5.0, 0.0, 180.0])
@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1)])
def test_a_2d_grid_of_one_cell_across_is_linear_along_it_and_the_same_across(shape, lon0):
    lat, lon = rotated(4 * shape[0], 4 * shape[1], 0.0, lon0, 3)
    axis = int(np.argmax(shape))
    along = np.linspace(-3, 3, 4 * shape[axis])
    blocks = along.reshape(-1, 4).mean(1)
    want = np.clip(along, blocks[0], blocks[-1])
    want, blocks = (np.expand_dims(v, 1 - axis) for v in (want, blocks))
    coarse = [a.reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3)) for a in (lat, lon)]
    source = curvilinear(coarse[0], coarse[1] % 360, lambda y, x: blocks, time=1)
    fine = curvilinear(lat, (lon + 180) % 360 - 180, lambda y, x: 0 * y, time=1)
    np.testing.assert_allclose(regrid(source, fine).tas[0], np.broadcast_to(want, lat.shape), atol=2e-3)
    assert Grid.of(source).same(Grid.of(source))
    beside = curvilinear(lat + 4.0, (lon + 180) % 360 - 180, lambda y, x: 0 * y, time=1)
    with pytest.raises(DataError, match="one cell across .*: give data of two cells or more"):
        regrid(source, beside)


def test_a_finer_source_is_averaged_over_the_cells_as_the_coarse_maps_are():
    from undrift.data.fields import coarsen

    rng = np.random.default_rng(2)
    noise = rng.normal(size=(24, 32))
    lat, lon = 40 + 0.25 * np.arange(24), 1 + 0.25 * np.arange(32)
    fine = field(lat, lon, lambda y, x: noise)
    coarse = field(lat.reshape(-1, 4).mean(1), lon.reshape(-1, 4).mean(1), plane)
    np.testing.assert_allclose(regrid(fine, coarse).tas, coarsen(fine.tas.values, 4, 2), atol=1e-12)


@pytest.mark.parametrize("axis", ["lat", "lon"])
def test_outside_by_more_than_half_a_cell_is_refused_within_it_is_the_nearest(axis):
    lat, lon = np.arange(40.0, 51, 2), np.arange(0.0, 13, 2)
    coarse = field(lat, lon, plane)
    inside = {"lat": (np.arange(41.0, 50, 0.5), "51"), "lon": (np.arange(1.0, 12, 0.5), "13")}
    near, far = ({"lat": inside["lat"][0], "lon": inside["lon"][0]} for _ in range(2))
    end = {"lat": 50.0, "lon": 12.0}[axis]
    near[axis], far[axis] = np.append(near[axis], end + 1.0), np.append(near[axis], end + 1.1)
    got = regrid(coarse, field(near["lat"], near["lon"], plane)).tas.isel({axis: -1})
    edge = field(near["lat"], near["lon"], plane).assign_coords({axis: np.append(near[axis][:-1], end)})
    want = plane(*np.meshgrid(edge.lat, edge.lon, indexing="ij"))
    np.testing.assert_allclose(got[0], want[-1] if axis == "lat" else want[:, -1], atol=1e-12)
    with pytest.raises(DataError, match=rf"{axis} reaches {end + 1.1:g}, 1.1 \(0.55 cells\) beyond .* end at {end:g}"):
        regrid(coarse, field(far["lat"], far["lon"], plane))


def test_outside_of_a_2d_grid_is_refused():
    source = curvilinear(*rotated(30, 34, 45, 5, 12), plane)
    with pytest.raises(DataError, match=r"cells of the target lie outside .* latitude"):
        regrid(source, field(np.arange(30.0, 50), np.arange(0.0, 9), plane))


def test_missing_values_leave_a_point_where_less_than_half_of_its_weight_has_values():
    coarse = field(np.arange(4.0), np.arange(4.0), lambda y, x: y)
    coarse.tas[:, 1, :] = np.nan
    fine = field(np.array([0.25, 0.4, 0.5, 0.6, 0.75, 1.0, 1.6]), np.array([0.0, 1.0]), plane)
    got = regrid(coarse, fine).tas[0, :, 0].values
    np.testing.assert_allclose(got, [0, 0, 0, np.nan, np.nan, np.nan, 2.0], atol=1e-12)


def test_grids_equal_to_1e_7_are_the_same_and_values_stay_bitwise():
    """Row 36."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(20, 30)).astype("f4")
    one = field(np.linspace(40, 50, 20), np.linspace(-5, 5, 30), lambda y, x: noise)
    two = one.assign_coords(lat=one.lat + 1e-7, lon=(one.lon - 1e-7) % 360)
    assert Regridder(Grid.of(one), Grid.of(two)).identity
    np.testing.assert_array_equal(regrid(one, two).tas.values, one.tas.values)
    np.testing.assert_array_equal(regrid(one, two).lat, two.lat)
    shifted = one.assign_coords(lat=one.lat + 0.05)
    assert not Regridder(Grid.of(one), Grid.of(shifted)).identity
    fields = [open_fields(part) for part in (one, two)]
    fields[1] = open_fields(two.assign_coords(time=two.time))
    ti, gi = join(*fields)
    np.testing.assert_array_equal(ti, gi)
    assert len(ti) == 4


def test_numbers_join_within_1e_5_of_their_spacing():
    steps = np.arange(6) * 0.1
    one = xr.Dataset({"a": (("run", "y", "x"), np.zeros((6, 3, 3)))}, {"run": steps})
    two = xr.Dataset({"a": (("run", "y", "x"), np.zeros((5, 3, 3)))}, {"run": steps[:0:-1] + 1e-7})
    ti, gi = join(open_fields(one), open_fields(two))
    a, b = open_fields(one), open_fields(two)
    assert (
        [round(a.labels(i)["run"], 3) for i in ti]
        == [round(b.labels(j)["run"], 3) for j in gi]
        == [0.1, 0.2, 0.3, 0.4, 0.5]
    )


def days(start, n, hours=0, step=24, calendar=None):
    if calendar is None:
        return np.datetime64(start, "ns") + np.arange(n) * np.timedelta64(step, "h") + np.timedelta64(hours, "h")
    y, m, d = map(int, start.split("-"))
    units = f"hours since {y}-{m}-{d}"
    return np.array(cftime.num2date(np.arange(n) * step + hours, units, calendar=calendar))


def samples(times):
    return open_fields(field(np.arange(3.0), np.arange(3.0), plane, time=len(times), times=times))


def dates_of(fields, index):
    return [str(fields.labels(i)["time"])[:10] for i in index]


@pytest.mark.parametrize("calendar", [None, "noleap", "standard", "360_day"])
def test_daily_stamps_at_other_hours_and_of_other_calendars_join_by_date(calendar):
    """Row 37: 29 February and the 31sts have no partner in calendars that lack them, and nothing slips by a day."""
    a, b = samples(days("2004-02-20", 60)), samples(days("2004-01-01", 200, hours=12, calendar=calendar))
    ti, gi = join(a, b)
    assert dates_of(a, ti) == dates_of(b, gi)
    lost = {None: 0, "standard": 0, "noleap": 1, "360_day": 1}[calendar]  # 29 Feb; 31 Mar
    assert len(ti) == 60 - lost


def test_months_join_whatever_the_day_of_the_stamp_and_years_whatever_the_month():
    month = np.arange("1990-01", "1993-01", dtype="M8[M]").astype("M8[ns]")
    a, b = samples(month), samples((month + np.timedelta64(16, "D"))[5:])
    ti, gi = join(a, b)
    assert [d[:7] for d in dates_of(a, ti)] == [d[:7] for d in dates_of(b, gi)] and len(ti) == 31
    year = np.arange("1990", "2000", dtype="M8[Y]").astype("M8[ns]")
    ds = xr.Dataset({"a": (("year", "y", "x"), np.zeros((6, 3, 3)))}, {"year": np.arange(1993, 1999)})
    ti, gi = join(samples(year), open_fields(ds))
    np.testing.assert_array_equal(ti, np.arange(3, 9))
    np.testing.assert_array_equal(gi, np.arange(6))


def test_hours_join_within_half_a_step_and_not_beyond():
    a = samples(days("2004-02-20", 20, step=6))
    for hours, expected in ((0, 20), (2, 20), (-2, 20), (3, 0)):
        b = samples(days("2004-02-19", 60, hours=hours, step=6))
        if expected:
            ti, gi = join(a, b)
            np.testing.assert_array_equal(ti, np.arange(20))
            np.testing.assert_array_equal(gi, np.arange(20) + 4)
        else:
            with pytest.raises(DataError, match=r"no sample .*2004-02-20.* to 2004-02-24"):
                join(a, b)


@pytest.mark.parametrize("calendars", [(None, None), (None, "standard"), ("noleap", "noleap"), ("360_day", "360_day")])
def test_stamps_a_little_early_join_across_the_ends_of_months(calendars):
    target, exact = (days("2003-12-25", 24 * 120, step=1, calendar=calendar) for calendar in calendars)
    early = exact - (np.timedelta64(5, "m") if calendars[1] is None else datetime.timedelta(minutes=5))
    ti, gi = join(samples(target), samples(early))
    np.testing.assert_array_equal(ti, np.arange(24 * 120))
    np.testing.assert_array_equal(gi, ti)


def test_daily_target_takes_the_six_hourly_sample_of_its_very_hour():
    a, b = samples(days("2004-02-20", 10, hours=12)), samples(days("2004-02-19", 60, step=6))
    ti, gi = join(a, b)
    np.testing.assert_array_equal(ti, np.arange(10))
    np.testing.assert_array_equal(gi, 4 + 2 + 4 * np.arange(10))


def test_no_match_prints_both_ranges_and_other_dims_must_agree():
    a, b = samples(days("2004-02-20", 5)), samples(days("1999-02-20", 5))
    with pytest.raises(DataError, match=r"target 2004-02-20.*to 2004-02-24.*given 1999-02-20.*to 1999-02-24"):
        join(a, b)

    def runs(names, start):
        shape = (len(names), 5, 3, 3)
        return open_fields(
            xr.Dataset({"a": (("run", "time", "y", "x"), np.zeros(shape))}, {"run": names, "time": days(start, 5)})
        )

    ti, gi = join(runs(["E1", "A1B"], "2004-02-20"), runs(["A1B", "B2"], "2004-02-22"))
    np.testing.assert_array_equal(ti, [7, 8, 9])
    np.testing.assert_array_equal(gi, [0, 1, 2])
    ti, gi = join(runs(["E1", "A1B"], "2004-02-20"), samples(days("2004-02-20", 5)))
    np.testing.assert_array_equal(gi, [*range(5), *range(5)])
    with pytest.raises(DataError, match="--select run=E1"):
        join(samples(days("2004-02-20", 5)), runs(["E1", "A1B"], "2004-02-20"))


@pytest.mark.parametrize(
    "a,b",
    [("kg m-2 s-1", "kg/m2/s"), ("kg m-2 s-1", "kg m**-2 s**-1"), ("degC", "Celsius"), ("degC", "degrees_C"), ("K", "kelvin"),
     ("mm/day", "mm d-1"), ("m s-1", "m/s"), ("m s-1", "m.s-1"), ("1", ""), ("%", "percent"), ("hPa", "mbar"), ("W m⁻²", "W/m2")],
)  # fmt: skip
def test_spellings_of_one_unit(a, b):
    assert same_units(a, b) and same_units(b, a)


@pytest.mark.parametrize(
    "a,b",
    [("K", "degC"), ("kg m-2 s-1", "mm/day"), ("Pa", "hPa"), ("m", "mm"), ("m s-1", "m s-2"), ("1", "%"), ("K", ""), ("m", "m2"), ("mPa", "MPa")],
)  # fmt: skip
def test_different_units(a, b):
    assert not same_units(a, b) and not same_units(b, a)


def test_match_given_names_what_differs_from_training():
    """Row 38: a unit or a variable; another region; row 41: the mask."""
    lat, lon = np.arange(40.0, 51), np.arange(0.0, 13)
    trained = open_fields(field(lat, lon, plane))
    args = (trained.layout, trained.dataset)
    same = match_given(open_fields(field(lat, lon, plane, units="kelvin")), *args)
    assert same.regridder.identity and not same.notes and not same.warnings
    with pytest.raises(DataError, match=r"'tas' was trained with units 'K' and is given in 'degC'"):
        match_given(open_fields(field(lat, lon, plane, units="degC")), *args)
    with pytest.raises(DataError, match=r"trained with 'tas'.*\['tasmax'\].*rename 'tasmax'"):
        match_given(open_fields(field(lat, lon, plane, name="tasmax")), *args)
    with pytest.raises(DataError, match=r"another region .*lat reaches 40, 10"):
        match_given(open_fields(field(lat + 10, lon, plane)), *args)

    wider = field(np.arange(55.0, 35, -0.75), np.arange(-5.0, 20, 0.75), plane)
    wider = wider.assign(other=wider.tas * 0)[["other", "tas"]]
    given = open_fields(wider)
    match = match_given(given, *args)
    assert "regridded" in match.notes[0] and match.channels == [given.layout.variables.index("tas")]
    np.testing.assert_allclose(match(given.read([0, 1])), trained.read([0, 1]), atol=1e-5)

    holes = field(lat, lon, plane)
    holes.tas[:, 2:4, 1] = np.nan
    mask = np.zeros((11, 13), bool)
    mask[5, 5:8] = True
    (warning,) = match_given(open_fields(holes), *args, mask=mask).warnings
    assert "2 cells are missing now that had values, 3 have values that were missing" in warning


def test_a_coarse_file_that_is_trimmed_at_the_other_end_is_told_by_its_labels():
    """Blocks from the south and west are those trained with, in whatever order latitudes come; others are named."""
    fine = field(np.arange(50.0, 40, -1), np.arange(0.0, 15), plane)
    trained = Downscale(4).pair(open_fields(fine))
    assert trained.given is not None and len(trained.notes) == 1
    assert "lat 10 -> 8 (41 to 48), lon 15 -> 12 (0 to 11)" in trained.notes[0]

    def notes(coarse):
        match = match_given(open_fields(coarse), trained.given.layout, trained.given.dataset)
        return match.regridder.interpolates, "; ".join(match.notes)

    blocks, ascending = {"lat": 4, "lon": 4, "boundary": "trim"}, fine.sortby("lat")
    coarse = ascending.coarsen(**blocks).mean()
    assert notes(coarse) == (False, "")
    why = ", as where blocks of cells are trimmed at the other end"
    interpolated, note = notes(fine.coarsen(**blocks).mean())
    assert interpolated and note.endswith(f"not those trained with: lat is 44.5 to 48.5, expected 42.5 to 46.5{why}")
    with pytest.raises(DataError, match=rf"in training \(lon is 4.5 to 12.5, expected 1.5 to 9.5{why}\): .*0.75 cells"):
        notes(ascending.coarsen(**blocks, side={"lat": "left", "lon": "right"}).mean())
    wider = xr.concat([coarse.isel(lat=[0]).assign_coords(lat=[38.5]), coarse], "lat")
    assert notes(wider)[1].endswith("lat is 38.5 to 46.5, expected 42.5 to 46.5 (3 and 2 cells)")


def test_levels_match_by_their_values():
    base = field(np.arange(3.0), np.arange(3.0), plane).tas
    both = xr.concat([base, base * 2], xr.DataArray([50000.0, 85000.0], dims="plev", name="plev")).to_dataset(name="ta")
    both.ta.attrs["units"] = "K"
    trained = open_fields(both)
    given = open_fields(both.isel(plev=[1, 0]).assign_coords(plev=[85000.01, 50000.0]))
    match = match_given(given, trained.layout, trained.dataset)
    np.testing.assert_array_equal(match(given.read([1])), trained.read([1]))
    with pytest.raises(DataError, match=r"ta\[plev=50000\]"):
        match_given(open_fields(both.isel(plev=[1])), trained.layout, trained.dataset)


def test_one_source_cell_holds_for_the_cells_of_which_it_is_the_mean():
    target = np.array([45.0, 46.0, 48.0, 52.0])
    weights, _ = axis_weights(np.array([target.mean()]), target, "lat")
    np.testing.assert_array_equal(weights.toarray(), np.ones((4, 1)))
    around = np.arange(350.0, 370.0, 5.0) % 360
    np.testing.assert_array_equal(axis_weights(np.array([357.5]), around, "lon", longitude=True)[0].toarray(), 1.0)
    with pytest.raises(DataError, match="the one lat 47; the target has 45 to 52"):
        axis_weights(np.array([47.0]), target, "lat")
