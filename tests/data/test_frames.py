"""Windows of frames: which there are, what they hold and how they are split."""

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.data.frames import FRAME, later, single_steps, windows_of
from undrift.data.layout import Layout
from undrift.data.open import open_fields
from undrift.data.split import split
from undrift.errors import DataError, UsageError
from undrift.tasks import Window

HOURS = np.datetime64("2020-01-01T00", "ns") + np.arange(30) * np.timedelta64(3, "h")


def record(times=HOURS, members=None, levels=None):
    """Values that tell their place: 1000 member + 100 level + time + cell / 100."""
    n = len(times)
    cells = np.arange(6).reshape(2, 3) / 100
    values = np.arange(n)[:, None, None] + cells
    dims, coords = ["time", "lat", "lon"], {"time": times, "lat": [0.0, 1.0], "lon": [0.0, 1.0, 2.0]}
    if levels:
        values = values[:, None] + 100 * np.arange(levels)[:, None, None]
        dims.insert(1, "plev")
        coords["plev"] = np.arange(levels) * 100.0
    if members:
        values = np.stack([values + 1000 * m for m in range(members)])
        dims.insert(0, "scenario")
        coords["scenario"] = [f"s{m}" for m in range(members)]
    return xr.Dataset({"tas": (dims, values.astype(np.float32)), "pr": (dims, -values.astype(np.float32))}, coords)


def test_windows_hold_their_frames_in_order():
    windows, notes = windows_of(open_fields(record()), 2, 3)
    assert len(windows) == 26 and not notes
    assert [c.label for c in windows.layout.channels[:2]] == ["tas[lead_time=-10800]", "tas[lead_time=0]"]
    got = windows.read([0, 25])
    assert got.shape == (2, 10, 2, 3)
    np.testing.assert_array_equal(got[0, :5, 0, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(got[1, 5:, 0, 0], [-25, -26, -27, -28, -29])
    assert windows.labels(0)["time"] == HOURS[1]  # the last of the past
    hours = windows.dataset[FRAME].values / np.timedelta64(1, "h")
    np.testing.assert_array_equal(hours, [-3, 0, 3, 6, 9])
    np.testing.assert_array_equal(windows.dataset["tas"].values[25, :, 1, 2], np.float32([25, 26, 27, 28, 29]) + 0.05)


def test_levels_and_other_sample_dims():
    windows, _ = windows_of(open_fields(record(members=2, levels=3)), 1, 1)
    assert len(windows) == 2 * 29 and windows.layout.frames == 2
    got = windows.read([29 + 4])[0, :6, 0, 0]  # the second scenario, tas, level by level, frame fastest
    np.testing.assert_array_equal(got, [1004, 1005, 1104, 1105, 1204, 1205])
    assert dict(windows.layout.channels[3].level)["plev"] == 100 and Layout.from_dict(windows.layout.to_dict())
    part = windows.read([0], (slice(1, 2), slice(0, 2)))
    assert part.shape == (1, 12, 1, 2) and part[0, 0, 0, 1] == np.float32(0.04)


def test_no_window_crosses_a_gap():
    times = np.delete(HOURS, [10, 11])
    windows, notes = windows_of(open_fields(record(times)), 2, 2)
    starts = windows.read(np.arange(len(windows)))[:, :4, 0, 0]
    assert (np.diff(starts, axis=1) == 1).all()
    whole = {(int(w[0])) for w in starts}
    assert whole == set(range(7)) | set(range(10, 25))
    assert notes == ["3 of 25 windows of 4 frames would cross a gap in time: not used"]


def test_months_are_steps_and_leads_are_counted():
    months = np.array([np.datetime64("2001-01", "M") + k for k in range(24)]).astype("datetime64[ns]")
    windows, notes = windows_of(open_fields(record(months)), 3, 1)
    assert len(windows) == 21 and not notes
    np.testing.assert_array_equal(windows.dataset[FRAME].values, [-2, -1, 0, 1])
    assert windows.dataset[FRAME].attrs["units"] == "frames"


def test_other_calendars():
    times = np.array(
        [
            cftime.DatetimeNoLeap(2000, 2, 25)
            + k * (cftime.DatetimeNoLeap(2000, 1, 2) - cftime.DatetimeNoLeap(2000, 1, 1))
            for k in range(12)
        ]
    )
    windows, _ = windows_of(open_fields(record(times)), 1, 2)
    assert len(windows) == 10
    np.testing.assert_array_equal(windows.dataset[FRAME].values / np.timedelta64(1, "D"), [0, 1, 2])


def test_steps():
    apart, step = single_steps(np.array([0.0, 1.0, 2.1, 3.0, 5.0]))
    assert step == 1.05
    np.testing.assert_array_equal(apart, [1, 1, 1, 2])
    apart, step = single_steps(np.array([0.0, 1.0, 2.0, 4.0, 4.5]))
    assert step == 1.0
    np.testing.assert_array_equal(apart, [1, 1, 2, 0])


@pytest.mark.parametrize("holdout", ["20%", "time=2020-01-02/2020-01-02T12"])
def test_training_and_held_out_windows_share_no_frame(holdout):
    rng = np.random.default_rng(0)
    data = record(np.datetime64("2020-01-01", "ns") + np.arange(80) * np.timedelta64(3, "h"))
    data["tas"].values[:] = rng.normal(size=data["tas"].shape)
    windows, _ = windows_of(open_fields(data), 2, 4)
    parts = split(windows, holdout)
    frames = windows._store.positions(np.arange(len(windows)))
    assert parts.holdout.size and parts.train.size
    assert not set(frames[parts.train].ravel()) & set(frames[parts.holdout].ravel())
    assert len(np.union1d(np.union1d(parts.train, parts.holdout), parts.gap)) == len(windows)


BAD = {
    "there are 30 frames along time, and a window has 40": lambda: windows_of(open_fields(record()), 20, 20),
    "no 12 consecutive frames": lambda: windows_of(open_fields(record(np.delete(HOURS, [9, 20]))), 6, 6),
    "the data have none; name the dims": lambda: windows_of(
        open_fields(np.zeros((9, 3, 3), np.float32), dims="sample,y,x"), 2, 2
    ),
    "a window of no frames": lambda: Window(0, 0),
    "past is -1, expected a number of frames": lambda: Window(-1, 3),
    "expected past, future, ends, nothing or numbers from 0 to 3": lambda: Window(2, 2).frames_known("0,9"),
    "frames of DATA are 10800 s apart and those that are given 21600 s": lambda: Window(1, 1).pair(
        open_fields(record()), open_fields(record(HOURS[::2]))
    ),
    "factor is 0, expected at least 1": lambda: Window(1, 1, 0),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises((DataError, UsageError), match=message):
        BAD[message]()


def test_masks_are_of_every_kind_as_often_as_said():
    """Shares of the kinds within 4.5 standard errors, told by the masks themselves."""
    task, n = Window(2, 2), 4000
    masks = task.draw((2 * 4, 6, 8), n, np.random.default_rng(0)).reshape(n, 2, 4, 6, 8)
    by_frame = masks.all((1, 3, 4))
    uniform = (masks.all((3, 4)) == masks.any((3, 4))).all((1, 2))
    alike = uniform & (by_frame == masks.any((1, 3, 4))).all(1)
    past = alike & (by_frame == [1, 1, 0, 0]).all(1)
    nothing = ~masks.any((1, 2, 3, 4))
    one_variable = uniform & (masks.all((2, 3, 4)).sum(1) == 1)
    mixed = uniform & ~alike & ~(one_variable & (masks.any((2, 3, 4)).sum(1) == 1))  # of whole frames: 4 of 6 parts
    # past is drawn by name 4/15, and as two of three numbers of random frames: 1/3 * 1/6 of 2/15
    for found, chance in ((past, 4 / 15 + 2 / 15 / 18), (one_variable & ~mixed, 1 / 15), (mixed, 1 / 15 * 4 / 6)):
        assert abs(found.mean() - chance) < 4.5 * np.sqrt(chance * (1 - chance) / n)
    assert nothing.mean() > 1 / 15 - 4.5 * np.sqrt(1 / 15 / n)
    assert not masks.all((1, 2, 3, 4)).mean() > 0.02


def test_nothing_fine_is_known_the_more_often_where_the_coarse_sequence_is():
    task, n = Window(2, 2), 4000
    masks = task.draw((8, 6, 8), n, np.random.default_rng(0), coarse=True)
    share = 1 - masks.any((1, 2, 3)).mean()
    assert 3 / 16 - 4.5 * np.sqrt(3 / 16 / n) < share < 3 / 16 + 0.03  # and where no point is drawn


def test_the_coarse_sequence_of_a_window_is_of_its_own_frames():
    """Block means of each frame, and the frames of a dataset of the same times, whichever it has more of."""
    data = record().isel(lon=[0, 1])
    pair = Window(2, 3, 2).pair(open_fields(data))
    assert pair.factor == (2, 2) and len(pair.target) == len(pair.given) == 26
    rows = np.array([0, 7])
    fine, coarse = pair.target.read(rows), pair.given.read(rows)
    assert coarse.shape == (2, 10, 1, 1)
    np.testing.assert_allclose(coarse[..., 0, 0], fine.mean((2, 3)), rtol=1e-6)
    other = record(HOURS[4:]).rename(tas="t850", pr="q850").isel(lat=slice(0, 2), lon=[0, 2])
    beside = Window(2, 3).pair(open_fields(data), open_fields(other))
    assert len(beside.target) == len(beside.given) == 22
    assert beside.target.labels(0) == beside.given.labels(0) == {"time": HOURS[5]}
    np.testing.assert_array_equal(beside.given.read([0])[0, :5, 0, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(beside.target.read([0])[0, :5, 0, 0], [4, 5, 6, 7, 8])


def test_variables_are_given_with_all_their_levels_as_often_as_level_by_level():
    """Of windows of one frame with a variable of three levels and one without, a fifth are of variables alone."""
    task, n, names = Window(0, 1), 4000, ["prof", "prof", "prof", "surf"]
    masks = task.draw((4, 5, 6), n, np.random.default_rng(0), names)
    uniform = (masks.all((2, 3)) == masks.any((2, 3))).all(1)
    translate = uniform & (masks.all((2, 3)) == [False, False, False, True]).all(1)
    # whole variables 1/2 * 1/2; of channels one of three numbers of them, one of four
    chance = (1 / 4 + 1 / 2 / 3 / 4) / 5
    whole = translate.mean()
    assert whole > chance - 4.5 * np.sqrt(chance / n) and whole < 1.3 * chance + 4.5 * np.sqrt(chance / n)
    mixed = ~uniform & (masks.all((2, 3)).any(1) | ~masks.any((2, 3)).all(1))
    assert 0.14 < mixed.mean() < 1 / 5 + 4.5 * np.sqrt(0.16 / n)  # some points are none


def test_times_so_many_frames_later():
    """Months by the calendar, on the last day of those that are shorter; other steps by their length."""
    months = xr.DataArray(np.arange(3), dims=FRAME, attrs={"months": 1})
    ends = np.array(["2001-01-31T12", "2001-11-15"], dtype="datetime64[ns]")
    np.testing.assert_array_equal(later(ends, 1, months), np.array(["2001-02-28T12", "2001-12-15"], "datetime64[ns]"))
    np.testing.assert_array_equal(later(ends[1:], 3, months), np.array(["2002-02-15"], "datetime64[ns]"))
    np.testing.assert_array_equal(later(ends[1:], -12, months), np.array(["2000-11-15"], "datetime64[ns]"))
    date = np.array([cftime.Datetime360Day(2000, 12, 30)])
    assert later(date, 2, months)[0] == cftime.Datetime360Day(2001, 2, 30)
    assert later(np.array([cftime.DatetimeNoLeap(2000, 1, 31)]), 1, months)[0] == cftime.DatetimeNoLeap(2000, 2, 28)
    hours = xr.DataArray(np.arange(3) * np.timedelta64(3, "h"), dims=FRAME)
    assert later(ends, 2, hours)[0] == ends[0] + np.timedelta64(6, "h")
    assert later(date, 2, hours)[0] == cftime.Datetime360Day(2000, 12, 30, 6)
    monthly = np.arange("2001-01", "2003-01", dtype="datetime64[M]").astype("M8[ns]")
    windows, _ = windows_of(open_fields(record(monthly)), 1, 2)
    assert windows.dataset[FRAME].attrs["months"] == 1
