"""Chains of parameters in xarray: variables over one dimension of samples, or over (chain, draw) as ArviZ has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.chain_objects import without_dollars
from undrift.data.columns import LOG_LIKELIHOODS, LOG_POSTERIORS, LOG_PRIORS, WEIGHTS, Columns
from undrift.data.netcdf import open_dataset
from undrift.data.sources import read_path
from undrift.errors import DataError

__all__ = ["from_dataset", "read_netcdf"]

_CHAINS = ("chain", "draw")
_SAMPLES = ("sample", "draw", "realization")


def read_netcdf(path: Path) -> Columns:
    """A NetCDF or Zarr file: its group posterior where it has one, as ArviZ writes them, else its variables.

    Weights, log-likelihoods, log-priors or log-posteriors of one number per draw in the group sample_stats are
    taken too.
    """
    posterior = _group(path, "posterior")
    if posterior is None:
        return from_dataset(read_path(path, None, None, None), str(path))
    stats = _group(path, "sample_stats") or xr.Dataset()
    for name in (*WEIGHTS, *LOG_LIKELIHOODS, *LOG_PRIORS, *LOG_POSTERIORS):
        if name in stats and name not in posterior and stats[name].dims == _CHAINS:
            posterior = posterior.assign({name: stats[name]})
    return from_dataset(posterior, str(path))


def _group(path: Path, name: str) -> xr.Dataset | None:
    """A group of a file, None where there is none or the file has no groups."""
    try:
        zarr = path.is_dir()
        with xr.open_dataset(path, group=name, engine="zarr") if zarr else open_dataset(path, group=name) as ds:
            return ds.load()
    except (OSError, KeyError, ValueError, RuntimeError):
        return None


def from_dataset(ds: xr.Dataset, name: str) -> Columns:
    """One column per variable, and per cell of a variable with further dimensions, named theta[cell] as ArviZ does.

    LaTeX is the attribute ``latex`` or ``label`` of a variable.

    Raises:
        DataError: the variables share no dimension of samples.
    """
    dims = _sample_dims(ds, name)
    values: dict[str, NDArray[np.float64]] = {}
    labels: dict[str, str] = {}
    for variable, array in ds.data_vars.items():
        if not set(dims) <= set(array.dims) or array.dtype.kind not in "biuf":
            continue
        for column, label, cells in _cells(str(variable), array.transpose(*dims, ...), len(dims)):
            values[column] = cells
            if label:
                labels[column] = label
    if not values:
        raise DataError(f"{name}: has no variable of numbers along {', '.join(dims)}")
    columns = replace(Columns.of_one(name, values), labels=labels)
    if dims != _CHAINS:
        return columns
    chains, draws = (ds.sizes[dim] for dim in dims)
    known = ds["chain"].values if "chain" in ds.coords else np.arange(chains)
    return replace(
        columns,
        chain=np.repeat(np.arange(chains), draws),
        line=np.tile(np.arange(draws), chains),
        origins=tuple(f"{name}, chain {number}" for number in known),
        word="draw",
        sequential=True,
    )


def _sample_dims(ds: xr.Dataset, name: str) -> tuple[str, ...]:
    if set(_CHAINS) <= set(ds.dims):
        return _CHAINS
    shared = [str(dim) for dim in ds.dims if all(dim in array.dims for array in ds.data_vars.values())]
    if len(shared) == 1:
        return (shared[0],)
    named = [dim for dim in _SAMPLES if dim in shared]
    if named:
        return (named[0],)
    raise DataError(
        f"{name}: its variables have the dimensions {', '.join(map(str, ds.dims)) or 'none'}, of which "
        f"{', '.join(shared) or 'none'} are shared by all; expected one of samples, or chain and draw; keep the "
        "variables of the table, as ds[['a', 'b']], and name its dimension sample"
    )


def _cells(name: str, array: xr.DataArray, lead: int) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """Name, LaTeX and values of each column of a variable whose first dims are those of samples."""
    label = without_dollars(str(array.attrs.get("latex", array.attrs.get("label", ""))))
    inner = array.dims[lead:]
    flat = np.asarray(array.values, np.float64).reshape(int(np.prod(array.shape[:lead])), -1)
    for index, column in zip(np.ndindex(*array.shape[lead:]), flat.T, strict=True):
        cell = ", ".join(str(_coordinate(array, dim, i)) for dim, i in zip(inner, index, strict=True))
        place = f"_{{{cell}}}" if cell else ""
        yield f"{name}[{cell}]" if cell else name, label and (f"{{{label}}}{place}" if place else label), column


def _coordinate(array: xr.DataArray, dim: Any, index: int) -> Any:
    return array[dim].values[index] if dim in array.coords else index
