"""What every task keeps: labelled samples in their order, nothing invented, bad requests refused in one sentence."""

import numpy as np
import pytest
import xarray as xr
from implementations import TASKS

from undrift.data.open import open_fields
from undrift.errors import UsageError
from undrift.tasks import TASKS as NAMES
from undrift.tasks import task_of

each = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def dataset(n=10, lat=8, lon=6):
    values = 280 + np.random.default_rng(0).normal(size=(n, lat, lon)).astype(np.float32)
    return xr.Dataset(
        {"tas": (("time", "lat", "lon"), values, {"units": "K"})},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D"),
            "lat": ("lat", np.linspace(-20, 30, lat), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(lon) * 5.0, {"units": "degrees_east"}),
        },
    )


def ensemble(data):
    """The same fields as two members of half as many dates."""
    half = data.tas.values.reshape(5, 2, *data.tas.shape[1:])
    tas = (("time", "number", "lat", "lon"), half, data.tas.attrs)
    return xr.Dataset({"tas": tas}, {**data.isel(time=slice(0, 5)).coords, "number": [0, 1]})


def opened(task, data):
    return open_fields(ensemble(data) if task.name == "enrich" else data)


@each
def test_a_task_is_what_its_name_says(task):
    assert NAMES[task.name] is type(task)
    names = ("factor", "past", "future", "members", "longest")
    settings = {name: getattr(task, name) for name in names if hasattr(task, name)}
    assert task_of(task.name, **settings) == task


@each
def test_asked_is_the_data_and_given_a_function_of_it_sample_by_sample(task):
    data = dataset()
    pair = task.pair(opened(task, data))
    assert len(pair.target) == 10 and (pair.given is None or len(pair.given) == 10)
    rows = np.array([7, 2])
    np.testing.assert_array_equal(pair.target.read(rows)[:, 0], data.tas.values[rows])
    days = ["2001-01-04", "2001-01-02"] if task.name == "enrich" else ["2001-01-08", "2001-01-03"]
    assert [str(pair.target.labels(int(i))["time"])[:10] for i in rows] == days
    if pair.given is None:
        return
    whole = pair.given.read(np.arange(10))
    changed = data.copy(deep=True)
    changed["tas"][2] += 3
    other = task.pair(opened(task, changed)).given.read(np.arange(10))
    moved = np.abs(other - whole).reshape(10, -1).max(1)
    at = 3 if task.name == "enrich" else 2  # which is given the other member of its date
    assert moved[at] > 1 and (np.delete(moved, at) == 0).all()


@each
def test_a_selection_is_the_same_for_both_sides(task):
    pair = task.pair(opened(task, dataset()))
    part = pair.select(np.array([4, 1]))
    for mine, whole in ((part.target, pair.target), (part.given, pair.given)):
        if whole is not None:
            np.testing.assert_array_equal(mine.read(np.arange(2)), whole.read(np.array([4, 1])))
    assert part.factor == pair.factor


def test_the_given_of_a_downscaling_is_the_mean_of_blocks():
    data = dataset()
    given = TASKS["downscale"].pair(open_fields(data)).given
    blocks = data.tas.values.astype(np.float64).reshape(10, 4, 2, 3, 2).mean((2, 4))
    np.testing.assert_allclose(given.read(np.arange(10))[:, 0], blocks, rtol=1e-6)


def test_what_a_task_cannot_do_is_refused():
    fields = open_fields(dataset())
    with pytest.raises(UsageError, match="emulate takes covariates and no --given"):
        TASKS["emulate"].pair(fields, fields)
    with pytest.raises(
        UsageError, match="has no block of 20 cells: give a --factor of at most 6, or type --task emulate"
    ):
        task_of("downscale", 20).pair(fields)
    with pytest.raises(
        UsageError, match="--task enrich needs an ensemble: a dim such as number, member or realization"
    ):
        TASKS["enrich"].pair(fields)
    with pytest.raises(UsageError, match="enrich takes no --given: what is given are other members of DATA itself"):
        TASKS["enrich"].pair(fields, fields)
    with pytest.raises(UsageError, match="members is 0, expected at least 1"):
        task_of("enrich", members=0)
    with pytest.raises(UsageError, match="factor is 0, expected at least 1"):
        task_of("downscale", 0)
    expected = "downscale, emulate, enrich, window, lead-time"
    with pytest.raises(UsageError, match=f"task is 'upscale', expected one of {expected}"):
        task_of("upscale")
