"""Pairing of an ensemble with the truth by coordinates, never by position alone where labels exist."""

__all__ = [
    "Axes",
    "Pairing",
    "aligned_truth",
    "axes_of",
    "describe_rows",
    "order_of_labels",
    "pair_samples",
    "same_cells",
    "same_units",
    "sample_labels",
    "single",
]

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.cf import recognise
from undrift.data.ensemble import MEMBER_NAMES
from undrift.data.layout import plain
from undrift.data.order import is_global
from undrift.errors import DataError
from undrift.verify.leads import LEAD, later, start_name
from undrift.verify.marginal import canonical_units

log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # of the typical spacing of a coordinate


@dataclass(frozen=True)
class Axes:
    """What the dimensions of an ensemble are.

    Attributes:
        realization: the dimension of members, None for a single deterministic field.
        sample: dimensions that count samples, in order.
        space: dimensions of space, (z, y, x) order.
        shape: their sizes.
        periodic: per space dimension.
        latitude: name of the latitude coordinate, longitude likewise.
    """

    realization: str | None
    sample: tuple[str, ...]
    space: tuple[str, ...]
    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    latitude: str | None
    longitude: str | None

    def level(self, array: xr.DataArray) -> tuple[str, ...]:
        """Dimensions of a variable that are neither members, samples nor space."""
        other = {*self.sample, *self.space, self.realization}
        return tuple(str(dim) for dim in array.dims if dim not in other)


@dataclass(frozen=True)
class Pairing:
    """Which sample of the truth belongs to which of the ensemble.

    Attributes:
        ensemble: flat indices of the ensemble's samples that have a truth, ascending.
        truth: flat indices of their truths.
        by: "coordinates", "position", or "nothing" for laws that can only be compared as distributions.
    """

    ensemble: NDArray[np.intp]
    truth: NDArray[np.intp]
    by: str


def axes_of(ensemble: xr.Dataset, truth: xr.Dataset, variables: Sequence[str]) -> Axes:
    """The roles of the dimensions of an ensemble, from attributes, names and the truth's dimensions.

    An ensemble's attributes `space_dims` and `periodic_dims` (names with spaces between) are believed where present.

    Raises:
        DataError: where no dimension of space is found.
    """
    dims = [str(dim) for dim in ensemble[variables[0]].dims]
    realization = _realization(ensemble, truth, dims)
    roles = recognise(ensemble[list(variables)])
    told = str(ensemble.attrs.get("space_dims", "")).split()
    rest = [dim for dim in dims if dim != realization]
    space = tuple(dim for dim in (told or roles.space) if dim in rest)
    if not space:
        others = [dim for dim in rest if dim not in roles.level and dim not in roles.time]
        space = tuple(others[-2:] if len(others) > 2 or len(others) < len(rest) else others[-1:])
    if not space:
        raise DataError(
            f"no dimension of space in {variables[0]}({', '.join(dims)}): name them y and x, or lat and lon"
        )
    shape = tuple(int(ensemble.sizes[dim]) for dim in space)
    shared = [dim for dim in rest if all(dim in ensemble[name].dims for name in variables)]
    sample = tuple(dim for dim in shared if dim not in space and dim not in roles.level)
    for name in variables:
        if not set(space) <= set(ensemble[name].dims):
            raise DataError(f"{name} is not on the grid ({', '.join(space)}) of {variables[0]}: evaluate it apart")
    periodic_told = str(ensemble.attrs.get("periodic_dims", "")).split()
    lon = roles.longitude if roles.longitude in ensemble.coords else None
    lat = roles.latitude if roles.latitude in ensemble.coords else None
    periodic = tuple(dim in periodic_told or (dim == lon and is_global(ensemble[lon].values)) for dim in space)
    on_grid = [name if name and set(ensemble[name].dims) <= set(space) else None for name in (lat, lon)]
    return Axes(realization, sample, space, shape, periodic, on_grid[0], on_grid[1])


def _realization(ensemble: xr.Dataset, truth: xr.Dataset, dims: Sequence[str]) -> str | None:
    """The dimension of members: by standard_name, or by the names in use."""
    for dim in dims:
        if dim in ensemble.coords and ensemble[dim].attrs.get("standard_name") == "realization":
            return dim
    found = [name for name in MEMBER_NAMES if name in dims]
    # "sample" also is what files without labels call their samples: then the truth has it too.
    return next((name for name in found if name != "sample" or name not in truth.dims), None)


def sample_labels(ds: xr.Dataset, dims: Sequence[str]) -> dict[str, NDArray]:
    """Labels of the flattened samples: every coordinate over the sample dims, and every scalar one.

    The times at which forecasts start are replaced by those that they are of, which a truth is labelled by.

    Returns:
        Per name an array (n,) with n the product of the sizes of `dims`.
    """
    frame = xr.DataArray(np.zeros([ds.sizes[dim] for dim in dims], np.int8), dims=list(dims))
    labels: dict[str, NDArray] = {}
    for name, coord in ds.coords.items():
        if set(coord.dims) <= set(dims):
            plain_coord = coord.variable if not coord.dims else xr.Variable(coord.dims, coord.values)
            spread = xr.DataArray(plain_coord).broadcast_like(frame).transpose(*dims)
            labels[str(name)] = np.asarray(spread.values).reshape(-1)
    if LEAD in labels and ("valid_time" in labels or "time" in labels):
        start = start_name(ds)
        labels[start] = later(labels[start], labels[LEAD]) if "valid_time" not in labels else labels["valid_time"]
        labels = {name: values for name, values in labels.items() if name not in ("valid_time", LEAD)}
    return labels


def describe_rows(labels: Mapping[str, NDArray], dims: Sequence[str], rows: NDArray[np.intp]) -> list[str]:
    """Text of each sample's labels, such as "scenario=E1, year=2070"; its number where it has none."""
    names = [dim for dim in dims if dim in labels] or [name for name, values in labels.items() if _varies(values)]
    if not names:
        return [str(int(row)) for row in rows]
    return [", ".join(f"{name}={plain(labels[name][row])}" for name in names) for row in rows]


def order_of_labels(labels: Mapping[str, NDArray], dims: Sequence[str], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places that sort samples by their labels, the last dim (or dates) varying fastest: neighbours in time adjoin."""
    names = [dim for dim in dims if dim in labels] or [name for name, values in labels.items() if _varies(values)]
    keys: list[NDArray] = []
    for name in names:
        numbers = _numbers(labels[name][rows])
        text = [str(plain(value)) for value in labels[name][rows]] if numbers is None else []
        keys.append(np.unique(text, return_inverse=True)[1] if numbers is None else numbers)
    return np.lexsort(keys[::-1]) if keys else np.arange(rows.size)


def pair_samples(ensemble: xr.Dataset, truth: xr.Dataset, dims: Sequence[str], truth_dims: Sequence[str]) -> Pairing:
    """Match samples by the labels that both sides have.

    Numbers and times match within a thousandth of their typical spacing, times by their calendar date (a 360_day or
    noleap date matches the same date of another calendar); text exactly. Without a label on either side samples
    match by position if their counts agree.

    Raises:
        DataError: if one sample of the ensemble has several truths.
    """
    ours, theirs = sample_labels(ensemble, dims), sample_labels(truth, truth_dims)
    count = int(np.prod([ensemble.sizes[dim] for dim in dims], dtype=int))
    truth_count = int(np.prod([truth.sizes[dim] for dim in truth_dims], dtype=int))
    nothing = Pairing(np.zeros(0, np.intp), np.zeros(0, np.intp), "nothing")
    keys = _keys(ensemble, truth, dims, truth_dims, ours, theirs)
    if not keys:
        bare = not any(dim in ensemble.coords for dim in dims) and not any(dim in truth.coords for dim in truth_dims)
        if dims and bare and count == truth_count:
            return Pairing(np.arange(count), np.arange(count), "position")
        return nothing
    codes = [_codes(ours[key], theirs[key]) for key in keys]
    mine = np.stack([code[0] for code in codes], axis=-1)
    its = np.stack([code[1] for code in codes], axis=-1)
    places: dict[tuple[int, ...], list[int]] = {}
    for row, code in enumerate(map(tuple, its.tolist())):
        places.setdefault(code, []).append(row)
    found = [(row, places.get(code, [])) for row, code in enumerate(map(tuple, mine.tolist())) if min(code) >= 0]
    found = [(row, rows) for row, rows in found if rows]
    for row, rows in found:
        if len(rows) > 1:
            label = ", ".join(f"{key}={plain(ours[key][row])}" for key in keys)
            other = [name for name in theirs if name not in keys and _varies(theirs[name][rows])]
            advice = f"select one by {other[0]}" if other else "remove the duplicates"
            raise DataError(f"the truth has {len(rows)} samples for {label}: {advice}")
    if not found:
        return nothing
    return Pairing(np.array([row for row, _ in found]), np.array([rows[0] for _, rows in found]), "coordinates")


def _keys(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    dims: Sequence[str],
    truth_dims: Sequence[str],
    ours: Mapping[str, NDArray],
    theirs: Mapping[str, NDArray],
) -> list[str]:
    """Names of labels on both sides that index a sample dim of one of them, or lie along one that has no index."""
    indexed = {dim for dim in dims if dim in ensemble.coords} | {dim for dim in truth_dims if dim in truth.coords}
    bare = {dim for dim in dims if dim not in ensemble.coords} | {dim for dim in truth_dims if dim not in truth.coords}
    shared = [name for name in ours if name in theirs]

    def along_bare(name: str) -> bool:
        on = {
            *(ensemble[name].dims if name in ensemble.coords else ()),
            *(truth[name].dims if name in truth.coords else ()),
        }
        return bool(on & bare)

    return [name for name in shared if name in indexed or along_bare(name)]


def _varies(values: NDArray) -> bool:
    return values.size > 1 and any(value != values[0] for value in values[1:])


def _numbers(values: NDArray) -> NDArray[np.float64] | None:
    """Labels as numbers whose order and spacing are meant, dates as calendar seconds; None for text."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    if values.dtype.kind == "m":
        return values / np.timedelta64(1, "s")
    if values.dtype.kind == "M":
        days = values.astype("M8[D]")
        months = values.astype("M8[M]")
        seconds = (values - days) / np.timedelta64(1, "s")
        day = (days - months.astype("M8[D]")).astype(np.int64)
        return (months.astype(np.int64) + 1970 * 12) * 31 * 86400.0 + day * 86400.0 + seconds
    if values.dtype == object and all(hasattr(value, "isoformat") for value in values):
        return np.array([_calendar_seconds(value) for value in values], np.float64)
    return None


def _calendar_seconds(date: object) -> float:
    year, month, day = (int(getattr(date, part)) for part in ("year", "month", "day"))
    clock = [float(getattr(date, part)) for part in ("hour", "minute", "second", "microsecond")]
    of_day = clock[0] * 3600 + clock[1] * 60 + clock[2] + clock[3] * 1e-6
    return (year * 12 + month - 1) * 31 * 86400.0 + (day - 1) * 86400.0 + of_day


def _codes(mine: NDArray, its: NDArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Integers that are equal where labels are; -1 where a label of mine is none of its."""
    a, b = _numbers(mine), _numbers(its)
    if (a is None) != (b is None):
        return np.full(mine.size, -1), np.full(its.size, 0)
    if a is None or b is None:
        index = {str(plain(value)): place for place, value in reversed(list(enumerate(its)))}
        return (
            np.array([index.get(str(plain(value)), -1) for value in mine], np.intp),
            np.array([index[str(plain(value))] for value in its], np.intp),
        )
    known = np.unique(b)
    tolerance = _spacing(known) * _TOLERANCE
    group = np.concatenate([[0], np.cumsum(np.diff(known) > tolerance)]).astype(np.intp)
    near = _nearest(known, a)
    close = np.abs(known[near] - a) <= tolerance
    return np.where(close, group[near], -1), group[_nearest(known, b)]


def _spacing(values: NDArray[np.float64]) -> float:
    """Typical distance between labels; the width of rounding for a single one."""
    steps = np.diff(values)
    steps = steps[steps > 1e-6 * np.max(steps)] if steps.size else steps
    return float(np.median(steps)) if steps.size else max(1.0, float(np.abs(values).max(initial=0.0)) * 1e-3)


def _nearest(sorted_values: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    right = np.clip(np.searchsorted(sorted_values, values), 0, sorted_values.size - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(sorted_values[left] - values) <= np.abs(sorted_values[right] - values), left, right)


def single(truth: xr.Dataset, axes: Axes) -> xr.Dataset:
    """The truth without a dimension of members.

    Raises:
        DataError: where it has several.
    """
    name = axes.realization
    if name is None or name not in truth.dims:
        return truth
    if truth.sizes[name] != 1:
        raise DataError(f"the truth has {truth.sizes[name]} members along {name!r}: select one")
    return truth.isel({name: 0}, drop=True)


def aligned_truth(truth: xr.Dataset, ensemble: xr.Dataset, names: Sequence[str], axes: Axes) -> xr.Dataset:
    """The truth without members, on the cells and levels of the ensemble and in their order."""
    levels = sorted({dim for name in names for dim in axes.level(ensemble[name])})
    return same_cells(single(truth, axes), ensemble, (*levels, *axes.space), axes, "the truth")


def same_cells(other: xr.Dataset, ensemble: xr.Dataset, dims: Sequence[str], axes: Axes, what: str) -> xr.Dataset:
    """Reorder and cut `other` (truth, baseline, training data) to the cells and levels of the ensemble.

    Raises:
        DataError: naming the dimension and the first cell that `other` lacks.
    """
    picks: dict[Hashable, NDArray[np.intp] | slice] = {}
    for dim in dims:
        size = ensemble.sizes[dim]
        if dim not in other.dims:
            raise DataError(
                f"{what} has no dimension {dim!r}, which the ensemble has: it has {', '.join(map(str, other.dims))}"
            )
        if dim in ensemble.coords and dim in other.coords:
            pick = _positions(ensemble[dim].values, other[dim].values, dim == axes.longitude, dim, what)
        elif other.sizes[dim] == size or _same_corner(other, ensemble, dim, axes):
            pick = np.arange(size)
        else:
            raise DataError(
                f"{what} has {other.sizes[dim]} cells along {dim!r}, the ensemble {size}, and no coordinate says which"
            )
        if pick.size != other.sizes[dim] or np.any(pick != np.arange(size)):
            step = np.diff(pick)
            whole = pick.size > 1 and np.all(step == 1)
            picks[dim] = slice(int(pick[0]), int(pick[-1]) + 1) if whole else pick
    return other.isel(picks) if picks else other


def _positions(mine: NDArray, its: NDArray, longitude: bool, dim: str, what: str) -> NDArray[np.intp]:
    """Place of each label of the ensemble in the other's coordinate."""
    a, b = _numbers(mine), _numbers(its)
    if a is None or b is None:
        places = {str(plain(value)): place for place, value in enumerate(its)}
        found = np.array([places.get(str(plain(value)), -1) for value in mine], np.intp)
    else:
        if longitude:
            a, b = a % 360.0, b % 360.0
        order = np.argsort(b, kind="stable")
        near = order[_nearest(b[order], a)]
        distance = np.abs(b[near] - a)
        if longitude:  # 359.9999 and 0 are neighbours
            for end in (order[0], order[-1]):
                around = np.abs((b[end] - a + 180.0) % 360.0 - 180.0)
                near, distance = np.where(around < distance, end, near), np.minimum(around, distance)
        spacing = _spacing(np.unique(a)) if a.size > 1 else _spacing(np.unique(b))
        found = np.where(distance <= 10 * _TOLERANCE * spacing, near, -1)
    if np.any(found < 0):
        missing = mine[np.argmax(found < 0)]
        lost = f"{int((found < 0).sum())} of the ensemble's {mine.size} labels along {dim!r}, first {plain(missing)}"
        raise DataError(f"{what} lacks {lost}: put both on one grid")
    return found


def _same_corner(other: xr.Dataset, ensemble: xr.Dataset, dim: str, axes: Axes) -> bool:
    """Whether the ensemble's 2-D latitudes are the other's with the far edge cut off."""
    name = axes.latitude
    if name is None or name not in other.coords or ensemble[name].ndim != 2 or other.sizes[dim] < ensemble.sizes[dim]:
        return False
    ours = ensemble[name]
    cut = {d: slice(0, ours.sizes[d]) for d in ours.dims}
    return bool(np.allclose(other[name].transpose(*ours.dims).isel(cut).values, ours.values, atol=1e-4, equal_nan=True))


def same_units(ensemble: xr.DataArray, other: xr.DataArray, name: str, what: str) -> None:
    """Refuse to compare values of different units, and warn where only one side has any.

    Raises:
        DataError: with both units.
    """
    ours, theirs = str(ensemble.attrs.get("units", "")), str(other.attrs.get("units", ""))
    if bool(ours) != bool(theirs):
        side, other_side = ("ensemble", what) if ours else (what, "ensemble")
        text = "%s is in %r in the %s and without units in the %s: taken for the same; write units into its attributes"
        log.warning(text, name, ours or theirs, side, other_side)
    elif ours and canonical_units(ours) != canonical_units(theirs):
        raise DataError(f"{name} is in {ours!r} in the ensemble and in {theirs!r} in the {what}: convert one of them")
