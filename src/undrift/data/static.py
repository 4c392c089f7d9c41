"""Variables without samples, and covariates of the samples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from undrift.data.cf import Roles, auxiliary, is_timelike, recognise
from undrift.data.order import Order, canonical_order
from undrift.errors import DataError

__all__ = ["PARTS_OF_TIME", "refuse_infinite", "take_covariates", "take_static"]

PARTS_OF_TIME = ("year", "month", "dayofyear", "hour")


def _near(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(names), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(list(names)[:12]) or 'none'}"


def take_static(
    raw: xr.Dataset, roles: Roles, fields: Sequence[str], asked: Sequence[str], order: Order, where: str
) -> xr.Dataset:
    """The variables without sample dims, canonical: those of the data, and those asked by name or file.

    Raises:
        DataError: A name is neither a variable nor a file, a variable changes from sample to sample, or a grid differs.
    """
    space = set(roles.space)
    skip = auxiliary(raw) | set(fields) | {n for n in (roles.latitude, roles.longitude) if n}
    out: dict[str, xr.DataArray] = {}
    for name, variable in raw.data_vars.items():
        if (
            name not in skip
            and space <= set(variable.dims) <= space | set(roles.level)
            and variable.dtype.kind in "biuf"
        ):
            out[str(name)] = variable
    for word in asked:
        if word in raw.variables:
            out[word] = _still(raw[word], roles, where)
        elif Path(word).exists():
            out |= _from_file(Path(word), raw, roles, order)
        else:
            names = [str(n) for n in raw.data_vars if n not in skip]
            raise DataError(f"--static {word}: is neither a variable of {where} nor a file; {_near(word, names)}")
    level = [*roles.level]
    kept = {
        name: v.transpose(*[d for d in v.dims if d in level], *roles.space).drop_vars(
            [c for c in v.coords if c not in roles.space and c not in level and v[c].ndim == 0]
        )
        for name, v in out.items()
    }
    return order.apply(xr.Dataset(kept))


def refuse_infinite(statics: xr.Dataset, where: str) -> None:
    """Raises DataError where a static field has infinite values; NaN is missing and stays."""
    for name, variable in statics.data_vars.items():
        count = int(np.isinf(variable.values).sum())
        if count:
            words = f"{count} infinite value{'s' * (count > 1)}"
            raise DataError(
                f"{where}: the static field {str(name)!r} has {words}; replace them by NaN where data are missing"
            )


def _still(array: xr.DataArray, roles: Roles, where: str) -> xr.DataArray:
    """An array that may be repeated along samples, once."""
    if not set(roles.space) <= set(array.dims):
        raise DataError(
            f"{where}: --static {array.name} has dims ({', '.join(map(str, array.dims))}) "
            f"and needs {', '.join(roles.space)}"
        )
    for dim in [d for d in array.dims if d not in roles.space and d not in roles.level]:
        first = array.isel({dim: 0}, drop=True)
        for i in {array.sizes[dim] // 2, array.sizes[dim] - 1}:
            if not np.array_equal(first.values, array.isel({dim: i}).values, equal_nan=True):
                raise DataError(f"{where}: --static {array.name} changes along {dim}; it is a field, not static")
        array = first
    return array


def _from_file(path: Path, raw: xr.Dataset, roles: Roles, order: Order) -> dict[str, xr.DataArray]:
    """The fields of a file on the same grid, in the order of the data."""
    from undrift.data.sources import read_path

    given = read_path(path, None, None, None)
    theirs = recognise(given)
    if not theirs.space or len(theirs.space) != len(roles.space):
        raise DataError(f"{path}: has no grid over {', '.join(roles.space)}")
    skip = auxiliary(given) | {n for n in (theirs.latitude, theirs.longitude) if n}
    out: dict[str, xr.DataArray] = {}
    rename = dict(zip(theirs.space, roles.space, strict=True))
    own = canonical_order(given, theirs.latitude, theirs.longitude)
    for name, variable in given.data_vars.items():
        if name in skip or variable.dtype.kind not in "biuf" or not set(theirs.space) <= set(variable.dims):
            continue
        array = own.apply(xr.Dataset({str(name): _still(variable, theirs, str(path))}))[str(name)]
        array = array.rename({k: v for k, v in rename.items() if k != v})
        for dim in roles.space:
            _same_grid(array, raw, dim, order, path)
            if dim in array.coords:
                array = array.drop_vars(dim)
            if dim in order.positions:  # back to the user's order, which the caller will leave again
                array = array.isel({dim: np.argsort(order.positions[dim])})
            if dim in raw.coords:
                array = array.assign_coords({dim: raw[dim].variable})
        out[str(name)] = array.drop_vars([c for c in array.coords if c not in roles.space])
    if not out:
        raise DataError(f"{path}: has no variable over {', '.join(theirs.space)} to use as static")
    return out


def _same_grid(array: xr.DataArray, raw: xr.Dataset, dim: str, order: Order, path: Path) -> None:
    if array.sizes[dim] != raw.sizes[dim]:
        raise DataError(
            f"{path}: {array.name!r} has {array.sizes[dim]} cells along {dim} and the data have {raw.sizes[dim]}; "
            "regrid the static file to the grid of the data"
        )
    if dim not in array.coords or dim not in raw.coords:
        return
    want = np.asarray(order.canonical.get(dim, raw[dim].values), dtype=np.float64)
    have = np.asarray(array[dim].values, dtype=np.float64)
    spacing = np.abs(np.diff(want)).min() if want.size > 1 else 1.0
    gap = np.abs(have - want)
    gap = np.minimum(gap, np.abs(gap - 360.0)) if dim in order.positions else gap
    if gap.max() > 1e-3 * spacing:
        raise DataError(
            f"{path}: {dim} of {array.name!r} differs by up to {gap.max():.4g} from the data; regrid it first"
        )


def take_covariates(raw: xr.Dataset, asked: Sequence[str], sample: tuple[str, ...], where: str) -> xr.Dataset:
    """Coordinates and variables over sample dims, by name; year, month, dayofyear and hour are made from dates.

    Raises:
        DataError: There is no such name, or it is not over sample dims only.
    """
    usable = [str(n) for n, v in raw.variables.items() if v.ndim > 0 and set(v.dims) <= set(sample)]
    dates = next((d for d in sample if d in raw.coords and is_timelike(raw[d].values)), None)
    arrays: dict[str, xr.DataArray] = {}
    for name in asked:
        if name in usable:
            arrays[name] = raw[name].reset_coords(drop=True)
        elif dates is not None and name in PARTS_OF_TIME:
            arrays[name] = getattr(raw[dates].dt, name).reset_coords(drop=True).rename(name)
        else:
            names = usable + [part for part in PARTS_OF_TIME if dates is not None and part not in usable]
            raise DataError(
                f"{where}: --covariates {name}: no such label over {', '.join(sample)}; {_near(name, names)}"
            )
    base = xr.Dataset(coords={dim: raw[dim].reset_coords(drop=True) for dim in sample if dim in raw.coords})
    for name, array in arrays.items():
        if name not in base.coords:
            base[name] = array
    return base
