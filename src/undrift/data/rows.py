"""Writing rows of numbers: NetCDF or CSV, under another name first and then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr

from undrift.data.netcdf import write_dataset
from undrift.errors import UsageError

__all__ = ["renamed", "write_rows"]


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """Another name beside a path, to write to; what is there at the end is synced and gets the path's name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_rows(rows: xr.Dataset, path: str | Path) -> Path:
    """Write what is small to .nc, or to .csv with a column for each variable and for each dim of more than one.

    Raises:
        UsageError: for another suffix.
    """
    path = Path(path)
    if path.suffix not in (".nc", ".csv"):
        raise UsageError(f"rows are written to .nc or .csv, not to {path.name!r}")
    if path.suffix == ".nc" and (name := next((str(v) for v in (*rows.data_vars, *rows.attrs) if "/" in str(v)), "")):
        raise UsageError(f"NetCDF has no name with a slash, such as {name!r}; type --out {path.with_suffix('.csv')}")
    with renamed(path) as partial:
        if path.suffix == ".csv":
            rows.to_dataframe().reset_index().to_csv(partial, index=False)
        else:
            write_dataset(rows, partial)
    return path
