"""Several files as one dataset: along time, along levels or members, and by variables, without losing a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import Roles, auxiliary, is_timelike, recognise
from undrift.data.layout import plain
from undrift.data.select import keep_labels
from undrift.data.tidy import tidy_time
from undrift.errors import DataError

__all__ = ["align", "combine"]

Part = tuple[xr.Dataset, str, Roles]


def combine(
    parts: Sequence[xr.Dataset],
    sources: Sequence[str],
    dims: tuple[str, ...] | None,
    wanted: Sequence[str],
    select: str | Mapping[str, Any] | None,
) -> tuple[xr.Dataset, dict[str, Any], list[str]]:
    """One dataset of all parts.

    Parts with the same variables are joined along time (or a scalar coordinate in which they differ, or a level); parts
    with different variables are merged, which needs equal samples. Coordinates of space within 1e-6 of a grid step (and
    the rounding of float32) are taken from the first part.

    Returns:
        The dataset, what to add to the counts, and warnings.

    Raises:
        DataError: Grids, units, calendars or samples differ; the sentence names the file and the difference.
    """
    counts: dict[str, Any] = {}
    warnings: list[str] = []
    ready: list[Part] = []
    for ds, source in zip(parts, sources, strict=True):
        roles = recognise(ds, dims)
        ds = _bare(ds, roles, wanted)
        if ds.data_vars:
            ready.append((align(ds, roles, *ready[0][:2], source) if ready else ds, source, roles))
    if not ready:
        names = sorted({str(name) for ds in parts for name in ds.data_vars})
        raise DataError(f"none of the files has {', '.join(wanted) or 'a field'}; there are {', '.join(names[:12])}")
    groups: dict[tuple[str, ...], list[Part]] = {}
    for ds, source, roles in ready:
        groups.setdefault(tuple(sorted(map(str, ds.data_vars))), []).append((ds, source, roles))
    joined: list[tuple[xr.Dataset, str]] = []
    for group in groups.values():
        kept = [(keep_labels(ds, select, roles), source, roles) for ds, source, roles in group] if select else group
        kept = [part for part in kept if 0 not in part[0].sizes.values()] or group
        ds, along = _join(kept)
        roles = kept[0][2]
        if along is not None:
            counts.setdefault("joined", {})[along] = counts.get("joined", {}).get(along, 0) + len(kept)
        time = next((dim for dim in [*roles.time, along] if dim is not None and dim in ds.dims), None)
        ds, _ = tidy_time(ds, xr.Dataset(), time, counts, warnings, kept[0][1], gaps=False)
        joined.append((ds, kept[0][1]))
    return _merge(joined), counts, warnings


def _bare(ds: xr.Dataset, roles: Roles, wanted: Sequence[str]) -> xr.Dataset:
    """The dataset without what describes other variables, and without fields that are not asked for."""
    ds = ds.set_coords([n for n in (roles.latitude, roles.longitude) if n is not None and n in ds.data_vars])
    ds = ds.drop_vars(auxiliary(ds), errors="ignore")
    space = set(roles.space)
    other = space | set(roles.level)
    drop = [
        str(name)
        for name, v in ds.data_vars.items()
        if v.ndim == 0 or (wanted and name not in wanted and space <= set(v.dims) and set(v.dims) - other)
    ]
    return ds.drop_vars(drop)


def align(ds: xr.Dataset, roles: Roles, first: xr.Dataset, name: str, source: str) -> xr.Dataset:
    """A dataset on the coordinates of space of the first, from which it may differ by rounding only.

    Raises:
        DataError: Sizes or coordinates differ.
    """
    for dim in roles.space:
        if dim not in first.dims:
            raise DataError(f"{source}: has the dimension {dim} and {name} has not; open them apart")
        if ds.sizes[dim] != first.sizes[dim]:
            raise DataError(
                f"{source}: has {ds.sizes[dim]} cells along {dim} and {name} has {first.sizes[dim]}; the files are on "
                "different grids, regrid them or open them apart"
            )
        if dim in ds.coords and dim in first.coords:
            index = _places(ds[dim].values, first[dim].values, dim == roles.longitude, f"{source}: {dim}", name)
            if not np.array_equal(index, np.arange(index.size)):
                ds = ds.isel({dim: index})
            ds = ds.assign_coords({dim: first[dim].variable})
    for coord in (roles.latitude, roles.longitude):
        if coord is not None and ds[coord].ndim == 2 and coord in first.coords:
            _same_2d(ds[coord].values, first[coord].values, coord == roles.longitude, f"{source}: {coord}", name)
            ds = ds.assign_coords({coord: first[coord].variable})
    return ds


def _tolerance(values: np.ndarray, other: np.ndarray) -> float:
    """1e-6 of a grid step, and the rounding of float32 where one of the two is float32."""
    step = np.abs(np.diff(np.sort(other.astype(np.float64)))).min() if other.size > 1 else 1.0
    single = np.float32 in (values.dtype, other.dtype)
    return 1e-6 * step + (4 * float(np.finfo(np.float32).eps) * float(np.abs(other).max()) if single else 1e-12)


def _places(values: np.ndarray, want: np.ndarray, cyclic: bool, what: str, name: str) -> np.ndarray:
    """For each wanted coordinate its position in values."""
    if want.dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        if not np.array_equal(values, want):
            raise DataError(f"{what} differs from that of {name}; the files are on different grids")
        return np.arange(want.size)
    gap = np.abs(values.astype(np.float64)[None, :] - want.astype(np.float64)[:, None])
    if cyclic:
        gap = np.abs((gap + 180.0) % 360.0 - 180.0)
    index = gap.argmin(axis=1)
    worst = float(gap[np.arange(want.size), index].max())
    if worst > _tolerance(values, want) or np.unique(index).size != want.size:
        raise DataError(
            f"{what} differs from that of {name} by up to {worst:.3g}; only rounding is aligned, so regrid the file "
            "or open the files apart"
        )
    return index


def _same_2d(values: np.ndarray, want: np.ndarray, cyclic: bool, what: str, name: str) -> None:
    gap = np.abs(values.astype(np.float64) - want.astype(np.float64))
    gap = np.abs((gap + 180.0) % 360.0 - 180.0) if cyclic else gap
    step = np.nanmedian(np.abs(np.diff(want.astype(np.float64), axis=1 if cyclic else 0)))
    if np.nanmax(gap) > 1e-3 * step:
        raise DataError(
            f"{what} differs from that of {name} by up to {np.nanmax(gap):.3g}; the files are on different grids"
        )


def _join(group: Sequence[Part]) -> tuple[xr.Dataset, str | None]:
    """Parts with the same variables as one dataset, and the dim along which they were joined."""
    _check_units(group)
    first, _, roles = group[0]
    if len(group) == 1:
        return first, None
    apart = [
        str(name)
        for name in first.coords
        if first[name].ndim == 0
        and all(name in ds.coords and ds[name].ndim == 0 for ds, _, _ in group)
        and len({str(plain(ds[name].values[()])) for ds, _, _ in group}) > 1
    ]
    fields = [v for v in first.data_vars.values() if set(v.dims) - set(roles.space) - set(roles.level)]
    times = [dim for dim in roles.time if any(dim in v.dims for v in fields)]
    members = [name for name in apart if not is_timelike(first[name].values.reshape(-1))]
    if times and members:
        sets: dict[str, list[Part]] = {}
        for part in sorted(group, key=lambda part: part[0][times[0]].values[0]) if times[0] in first.coords else group:
            sets.setdefault(str(plain(part[0][members[0]].values[()])), []).append(part)
        rows = [(_concat([p[0].drop_vars(members[0]) for p in s], times[0]), s[0]) for s in sets.values()]
        tidy = [tidy_time(ds, xr.Dataset(), times[0], {}, [], part[1], gaps=False)[0] for ds, part in rows]
        for ds, (_, part) in zip(tidy[1:], rows[1:], strict=True):
            _same_samples(ds, tidy[0], part[1], rows[0][1][1])
        label = xr.DataArray([p[0][members[0]].values[()] for _, p in rows], dims=members[0], name=members[0])
        return _concat(tidy, label), members[0]
    levels = [dim for dim in roles.level if dim in first.dims and not _equal_labels(group, dim)]
    if levels:
        return _concat([ds for ds, _, _ in group], levels[0]).sortby(levels[0]), levels[0]
    if times:
        _check_calendars(group, times[0])
        group = sorted(group, key=lambda part: part[0][times[0]].values[0]) if times[0] in first.coords else group
        return _concat([ds for ds, _, _ in group], times[0]), times[0]
    if apart:
        parts = [ds.expand_dims(apart[0]) for ds, _, _ in group]
        return _concat(parts, apart[0]), apart[0]
    dims = [str(dim) for v in fields for dim in v.dims if dim not in roles.space and dim not in roles.level]
    along = dims[0] if dims else "sample"
    return _concat([ds for ds, _, _ in group], along), along


def _concat(parts: Sequence[xr.Dataset], along: str | xr.DataArray) -> xr.Dataset:
    dim = along if isinstance(along, str) else str(along.name)
    names = [str(n) for n, v in parts[0].data_vars.items() if dim in v.dims]
    new = not names
    return xr.concat(
        _agreed(parts),
        dim=along,  # pyright: ignore[reportArgumentType]
        data_vars="all" if new else "minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )


def _agreed(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The parts without scalar coordinates in which they differ, as no single value holds for all."""
    scalars = {name for ds in parts for name, c in ds.coords.items() if c.ndim == 0}
    values = {name: {str(plain(ds[name].values[()])) if name in ds.coords else "" for ds in parts} for name in scalars}
    return [ds.drop_vars([n for n, seen in values.items() if len(seen) > 1], errors="ignore") for ds in parts]


def _equal_labels(group: Sequence[Part], dim: str) -> bool:
    first = group[0][0]
    return all(
        ds.sizes.get(dim) == first.sizes[dim]
        and (
            dim not in first.coords
            or dim not in ds.coords
            or ds[dim].dtype.kind not in "iuf"
            or np.allclose(ds[dim].values.astype(float), first[dim].values.astype(float), rtol=1e-6)
        )
        for ds, _, _ in group[1:]
    )


def _check_units(group: Sequence[Part]) -> None:
    first, name, _ = group[0]
    for ds, source, _ in group[1:]:
        for variable in first.data_vars:
            ours, theirs = (str(d[variable].attrs.get("units", "")) for d in (first, ds))
            if ours != theirs:
                raise DataError(
                    f"{source}: {str(variable)!r} is in {theirs or 'no unit'} and in {ours or 'no unit'} in {name}; "
                    "convert one of them"
                )


def _check_calendars(group: Sequence[Part], time: str) -> None:
    kinds = {}
    for ds, source, _ in group:
        if time in ds.coords and ds.sizes[time]:
            value = ds[time].values[0]
            kinds.setdefault(getattr(value, "calendar", type(value).__name__), source)
    if len(kinds) > 1:
        listing = ", ".join(f"{kind} in {source}" for kind, source in kinds.items())
        raise DataError(f"{time} is of different kinds: {listing}; convert the calendars first")


def _same_samples(ds: xr.Dataset, first: xr.Dataset, source: str, name: str) -> None:
    """Refuse to merge datasets whose samples differ."""
    for dim in set(ds.dims) & set(first.dims):
        same = ds.sizes[dim] == first.sizes[dim]
        if same and dim in ds.coords and dim in first.coords:
            a, b = ds[dim].values, first[dim].values
            same = bool(
                np.allclose(a, b, rtol=1e-6) if a.dtype.kind in "f" and b.dtype.kind in "f" else np.array_equal(a, b)
            )
        if not same:
            ours = set(map(plain, first[dim].values)) if dim in first.coords else set()
            theirs = set(map(plain, ds[dim].values)) if dim in ds.coords else set()
            only = sorted(map(str, ours ^ theirs))
            raise DataError(
                f"{source}: {dim} has {ds.sizes[dim]} labels and {name} has {first.sizes[dim]}, "
                f"{len(ours & theirs)} in common"
                + (f" (only in one: {only[0]} to {only[-1]})" if only else "")
                + f"; no sample is dropped silently, choose the common ones with --select {dim}=A/B"
            )


def _merge(joined: Sequence[tuple[xr.Dataset, str]]) -> xr.Dataset:
    """Datasets of different variables as one."""
    first, name = max(joined, key=lambda item: len(item[0].dims))
    aligned = [first]
    for ds, source in joined:
        if ds is first:
            continue
        _same_samples(ds, first, source, name)
        shared = [dim for dim in ds.dims if dim in first.coords and dim in first.dims]
        aligned.append(ds.assign_coords({dim: first[dim].variable for dim in shared}))
    return xr.merge(_agreed(aligned), compat="override", join="override", combine_attrs="override")
