"""The one door to netCDF-C: a file is open once, and whoever calls the library holds ``LOCK``.

HDF5 crashes where a file with a variable of strings is opened a second time and one of the two handles is closed
(HDFGroup/hdf5 issue 5359, Unidata/netcdf4-python issue 1444): the other then reads memory that was freed.
Neither library is thread safe. xarray holds its lock of them while values are read and a file is closed, but not while
the metadata of a file are read or written. Files are closed wherever the last reference is dropped or the garbage
collector runs: in any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import netCDF4
import xarray as xr
from xarray.backends import CachingFileManager
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK, NetCDF4DataStore

__all__ = ["LOCK", "groups", "open_dataset", "write_dataset"]


class _Lock:
    """xarray's lock of netCDF-C and HDF5, which the thread that holds it may take again.

    It is taken over from xarray so that lazily read datasets that a user opened are held off as well. Their values
    must not be read by the thread that holds it: xarray would wait for itself.
    """

    def __init__(self) -> None:
        self._thread = threading.RLock()
        self._depth = 0

    def acquire(self, blocking: bool = True) -> bool:
        """Take it; False where ``blocking`` is false and another thread holds it."""
        if not self._thread.acquire(blocking):
            return False
        if self._depth == 0 and not NETCDF4_PYTHON_LOCK.acquire(blocking=blocking):
            self._thread.release()
            return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Give it back."""
        self._depth -= 1
        if self._depth == 0:
            NETCDF4_PYTHON_LOCK.release()
        self._thread.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> str:
        return "LOCK"  # a dataset that is sent to another process takes the lock there


LOCK = _Lock()
"""Held around every call of netCDF4, by datasets of ``open_dataset`` also when values are read later."""


def open_dataset(path: str | Path, *, group: str | None = None, **options: Any) -> xr.Dataset:
    """``xarray.open_dataset`` by netCDF4, alone in the C libraries then and whenever values are read.

    All datasets of one file share one handle of it.

    Args:
        path: An existing file.
        group: The group of the file.
        options: ``chunks``, ``decode_times`` and ``decode_timedelta`` of ``xarray.open_dataset``.
    """
    with LOCK:
        return xr.open_dataset(_store(path, group), engine="store", **options)


def groups(path: str | Path) -> list[str]:
    """The groups of a file."""
    with LOCK:
        return list(_store(path).ds.groups)


def _store(path: str | Path, group: str | None = None) -> NetCDF4DataStore:
    """A file for reading; xarray's cache has one handle per identity, for as long as a dataset needs it."""
    about = os.stat(path)
    identity = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
    name = os.path.realpath(path)
    opener: Any = netCDF4.Dataset
    manager = CachingFileManager(opener, name, mode="r", lock=LOCK, manager_id=identity)
    return NetCDF4DataStore(manager, group=group, mode="r", lock=LOCK)


def write_dataset(
    ds: xr.Dataset,
    path: str | Path,
    *,
    mode: str = "w",
    group: str | None = None,
    encoding: Mapping[Any, Mapping[str, Any]] | None = None,
) -> None:
    """``Dataset.to_netcdf`` of what fits into memory, alone in the C libraries; all dims are of fixed length.

    Args:
        ds: The dataset; it may be read lazily.
        path: The file.
        mode: ``w`` replaces the file, ``a`` adds to it.
        group: The group of the file.
        encoding: The encoding per variable.
    """
    values = ds.compute()
    with LOCK:
        store = NetCDF4DataStore.open(str(path), mode=mode, group=group, lock=LOCK)
        try:
            values.dump_to_store(store, encoding=encoding)
        finally:
            store.close()
