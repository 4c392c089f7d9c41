"""A NetCDF file is open once, and one thread at a time is in the C library."""

from __future__ import annotations

import copy
import gc
import threading

import netCDF4
import numpy as np
import pytest
import xarray as xr
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from undrift.data.ensemble import open_ensemble
from undrift.data.netcdf import LOCK, groups, open_dataset, write_dataset
from undrift.data.open import open_fields
from undrift.data.write import EnsembleWriter

OPEN, OUTSIDE = set(), []


def _held() -> bool:
    """Whether this thread holds the lock."""
    return LOCK._thread._is_owned()  # pyright: ignore[reportAttributeAccessIssue]


class Watched(netCDF4.Dataset):
    """Notes which files are open, and whatever is asked of them by a thread that does not hold the lock."""

    def __init__(self, path, *args, **options):
        assert path not in OPEN, f"{path} is open already"
        if not _held():
            OUTSIDE.append("open")
        super().__init__(path, *args, **options)
        OPEN.add(path)

    def close(self):
        OPEN.discard(super().filepath())
        return super().close()

    def __getattribute__(self, name):
        if not _held():
            OUTSIDE.append(name)
        return super().__getattribute__(name)


@pytest.fixture
def watched(monkeypatch):
    gc.collect()
    OPEN.clear()
    OUTSIDE.clear()
    monkeypatch.setattr(netCDF4, "Dataset", Watched)
    monkeypatch.setattr("undrift.data.fields.MEMORY_LIMIT", 0)


def record(runs=("a", "b"), times=slice(0, 4)) -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(len(runs), 8, 20, 30)).astype(np.float32)
    dims = ("run", "time", "lat", "lon")
    whole = xr.Dataset({"t": (dims, values)}, {"run": list(runs), "time": range(8), "lat": range(20), "lon": range(30)})
    return whole.isel(time=times)


def test_a_file_has_one_handle_and_every_call_the_lock(tmp_path, watched):
    paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
    with pytest.MonkeyPatch.context() as unwatched:
        unwatched.setattr(netCDF4, "Dataset", Watched.__base__)
        for path, times in zip(paths, (slice(0, 4), slice(4, 8)), strict=True):
            record(times=times).to_netcdf(path)
    one, again, both = open_fields(paths[0]), open_fields(paths[0]), open_fields(paths)
    assert {str(path) for path in paths} == OPEN
    del one
    want = record(times=slice(0, 8)).t.values
    np.testing.assert_array_equal(again.read([5])[0, 0], want[1, 1])
    np.testing.assert_array_equal(both.read([15])[0, 0], want[1, 7])
    template = record(times=slice(0, 1)).rename(run="realization").drop_vars("realization")
    with EnsembleWriter(tmp_path / "E.nc", template) as writer:
        writer.write(slice(0, 2), None, template)
        writer.annotate({"title": "two"})
    np.testing.assert_array_equal(open_ensemble(tmp_path / "E.nc").t.values, template.t.values)
    assert not OUTSIDE


def test_files_are_closed_when_their_fields_are_dropped(tmp_path, watched):
    record().to_netcdf(tmp_path / "a.nc")
    gc.disable()
    try:
        fields = open_fields(tmp_path / "a.nc")
        fields.read([1])
        assert OPEN
        del fields
        assert not OPEN  # a cycle of references would leave it to the collector, which runs in any thread
    finally:
        gc.enable()


def test_what_is_closed_for_one_is_read_by_the_other(tmp_path):
    record().to_netcdf(tmp_path / "a.nc")
    first, second = open_dataset(tmp_path / "a.nc"), open_dataset(tmp_path / "a.nc")
    first.close()
    np.testing.assert_array_equal(second.t.values, record().t.values)
    record(runs=("c", "d", "e")).to_netcdf(tmp_path / "new.nc")
    (tmp_path / "new.nc").replace(tmp_path / "a.nc")
    assert open_dataset(tmp_path / "a.nc").run.values.tolist() == ["c", "d", "e"]


def test_groups_are_written_and_read(tmp_path):
    write_dataset(record().chunk(time=1), tmp_path / "a.nc", encoding={"t": {"zlib": True}})
    write_dataset(record().isel(time=[2]), tmp_path / "a.nc", mode="a", group="part")
    assert groups(tmp_path / "a.nc") == ["part"]
    assert open_dataset(tmp_path / "a.nc").t.encoding["zlib"]
    xr.testing.assert_identical(open_dataset(tmp_path / "a.nc", group="part").load(), record().isel(time=[2]))


def test_the_lock_is_reentrant_and_holds_off_xarray_and_other_threads():
    taken = []
    with LOCK, LOCK:
        assert not NETCDF4_PYTHON_LOCK.acquire(blocking=False)
        thread = threading.Thread(target=lambda: taken.append(LOCK.acquire(blocking=False)))
        thread.start()
        thread.join()
    assert taken == [False]
    with NETCDF4_PYTHON_LOCK:
        assert not LOCK.acquire(blocking=False)
    assert LOCK.acquire(blocking=False)
    LOCK.release()
    assert copy.deepcopy(LOCK) is LOCK
