"""From files, datasets or arrays to canonical Fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import Roles, auxiliary, recognise
from undrift.data.chunks import missing_chunks
from undrift.data.combine import combine
from undrift.data.dims import parse_dims, suggest_dims
from undrift.data.fields import Fields
from undrift.data.layout import Channel, Layout, channels_for
from undrift.data.order import canonical_order, is_global, refuse_repeated
from undrift.data.select import crop
from undrift.data.sources import expand, from_array, name_dims, read_path, split_variable
from undrift.data.static import refuse_infinite, take_covariates, take_static
from undrift.data.tidy import tidy_time
from undrift.errors import DataError, UsageError

__all__ = ["open_fields"]

_OF_CHAINS = {"chain", "draw", "sample"}  # dims of samples of parameters

Data = str | Path | Sequence[str | Path] | xr.Dataset | xr.DataArray | np.ndarray


def open_fields(
    data: Data,
    *,
    dims: str | Sequence[str] | None = None,
    variables: str | Sequence[str] | None = None,
    static: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    periodic: str | Sequence[str] | None = None,
    select: str | Mapping[str, Any] | None = None,
) -> Fields:
    """Open data as canonical samples of fields, without reading their values.

    Args:
        data: A path (NetCDF, HDF5, Zarr, .npy, .npz), a glob, a list of them, a Dataset, a DataArray, or an array with
            ``dims``. ``file:variable`` is one variable of a file, such as ``pair.npz:lr``.
        dims: Names of the dimensions of arrays, such as "sample,z,y,x": x, y, z are space, ``level`` and ``channel``
            become channels, all others count samples. On named data, what the dims are called.
        variables: Names of the fields; all by default.
        static: Names of variables that condition the model, or a file of such variables on the same grid.
        covariates: Names of coordinates or variables over sample dims.
        periodic: Space dims whose ends are neighbours ("x", "y,x", "lon"), beside longitudes that go round; "none" for
            none.
        select: What to keep, such as "lat=35/60,time=2019-03" (see ``undrift.data.select``).

    Raises:
        DataError: The data cannot be read, or are not what undrift can use; the sentence says what to do.
        UsageError: An option cannot be used.
    """
    named = parse_dims(dims)
    wanted = _words(variables)
    parts, sources = _parts(data, named, wanted)
    if len(parts) == 1:
        raw, joined, warnings = parts[0], {}, []
    else:
        raw, joined, warnings = combine(parts, sources, named, wanted, select)
    return _canonical(
        raw,
        sources,
        named=named,
        wanted=wanted,
        static=_words(static),
        covariates=_words(covariates),
        periodic=_words(periodic),
        select=select,
        counts={"files": len(sources), **joined},
        warnings=warnings,
    )


def _words(text: str | Iterable[str] | None) -> list[str]:
    items = text.split(",") if isinstance(text, str) else [str(item) for item in text or ()]
    return [item.strip() for item in items if item.strip()]


def near(word: str, names: Iterable[str]) -> str:
    """What to add to a sentence about an unknown name: the near one, or what there is."""
    names = [str(name) for name in names]
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(names[:12])}" if names else "there are none"


def _parts(data: Data, dims: tuple[str, ...] | None, variables: Sequence[str]) -> tuple[list[xr.Dataset], list[str]]:
    """The datasets that the user gave, one per file."""
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=str(data.name or "field"))
    if isinstance(data, xr.Dataset):
        return [name_dims(data, dims, "the Dataset")], ["Dataset"]
    if isinstance(data, np.ndarray):
        return [from_array(data, dims, name=variables[0] if variables else "field", source="the array")], ["array"]
    if not isinstance(data, str | Path | Sequence):
        raise UsageError(f"data is a {type(data).__name__}; give a path, a list of paths, a Dataset or a NumPy array")
    paths = expand(data)
    chunks = None if len(paths) == 1 else {}
    return [read_path(path, dims, variables, chunks) for path in paths], [str(path) for path in paths]


def _canonical(
    raw: xr.Dataset,
    sources: list[str],
    *,
    named: tuple[str, ...] | None,
    wanted: list[str],
    static: list[str],
    covariates: list[str],
    periodic: list[str],
    select: str | Mapping[str, Any] | None,
    counts: dict[str, Any],
    warnings: list[str],
) -> Fields:
    """Canonical fields of one dataset."""
    where = ", ".join(sources[:3])
    roles = recognise(raw, named)
    raw = promote(raw, roles)
    roles = recognise(raw, named)
    if not roles.space:
        shapes = ", ".join(f"{name}({', '.join(map(str, v.dims))})" for name, v in list(raw.data_vars.items())[:4])
        biggest = max((v.shape for v in raw.data_vars.values()), key=len, default=())
        raise DataError(
            f"{where}: no dimension is recognised as space in {shapes}; name them in the order of the data, "
            f"for example {suggest_dims(biggest, sources[0])}"
            + ("; of samples of parameters type --task density" if set(raw.sizes) <= _OF_CHAINS else "")
        )
    names = field_names(raw, roles, wanted, where)
    fields = raw[names]
    layout_dims = sample_dims(fields, roles)
    _report_chunks(sources, names, roles, counts, warnings)
    if raw.attrs.get("undrift_undecoded_times"):
        warnings.append(f"{where}: its times cannot be decoded and are used as plain numbers")
    if str(raw.attrs.get("complete", "")).lower() in ("false", "0"):
        warnings.append(f"{where}: says that it is incomplete (attribute complete)")
    order = canonical_order(fields, roles.latitude, roles.longitude)
    statics = take_static(raw, roles, names, static, order, where)
    wide = take_covariates(raw, covariates, layout_dims, where)
    fields = order.apply(fields)
    time = next((dim for dim in roles.time if dim in layout_dims), None)
    fields, wide = tidy_time(fields, wide, time, counts, warnings, where)
    spans = periodic_flags(fields, roles, periodic)
    if select:
        fields, statics, wide, order, spans = crop(fields, statics, wide, order, select, roles, layout_dims, spans)
    refuse_infinite(statics, where)
    refuse_repeated(fields, order, roles.space, roles.latitude, where)
    fields = fields.map(lambda v: _ordered(v, fields, layout_dims, roles), keep_attrs=True)
    layout = make_layout(fields, roles, layout_dims, time, spans)
    out = Fields(
        fields,
        layout,
        static=statics,
        covariates=wide,
        covariate_names=covariates,
        order=order,
        sources=sources,
        counts=counts,
        warnings=warnings,
    )
    if len(out) == 0:
        raise DataError(f"{where}: there are no samples")
    return out


def _report_chunks(
    sources: Sequence[str], names: Sequence[str], roles: Roles, counts: dict[str, Any], warnings: list[str]
) -> None:
    """Say which chunks of Zarr stores are not there; what the store returns for them is no data."""
    for source in (split_variable(source)[0] for source in sources):
        if not Path(source).is_dir():
            continue
        for name, found in missing_chunks(Path(source), names, len(roles.space)).items():
            if found.missing == found.total:
                raise DataError(f"{source}: {name!r} was never written (none of its {found.total} chunks is there)")
            if found.masked:
                counts.setdefault("masked_chunks", {})[name] = found.masked
            if found.missing:
                counts.setdefault("missing_chunks", {})[name] = found.missing
                warnings.append(
                    f"{source}: {found.missing} of {found.total} chunks of {name!r} are missing, the first is "
                    f"{found.first}; they read as {found.fill} and may never have been written"
                )


def promote(ds: xr.Dataset, roles: Roles) -> xr.Dataset:
    """The dataset with latitude and longitude as coordinates, 1-D ones as those of their dimension.

    A file may have ``lat(nlat)`` on a dimension without coordinate: that dimension is then called ``lat``.
    """
    names = [n for n in (roles.latitude, roles.longitude) if n is not None]
    ds = ds.set_coords([n for n in names if n in ds.data_vars])
    swap = {
        str(ds[n].dims[0]): n
        for n in names
        if ds[n].ndim == 1 and ds[n].dims[0] != n and ds[n].dims[0] not in ds.coords
    }
    return ds.swap_dims(swap)


def field_names(ds: xr.Dataset, roles: Roles, wanted: Sequence[str], where: str) -> list[str]:
    """Names of the variables that are fields: numbers over space and at least one sample dim.

    Raises:
        DataError: None is, one that is asked is not, or they are on different grids.
    """
    skip = auxiliary(ds)
    space = set(roles.space)
    for name in wanted:
        if name not in ds.data_vars:
            raise DataError(f"{where}: there is no variable {name!r}; {near(name, map(str, ds.data_vars))}")
    names = [str(name) for name in ds.data_vars if not wanted or name in wanted]
    names = list(wanted) if wanted else [name for name in names if name not in skip]
    found = []
    for name in names:
        dims = set(map(str, ds[name].dims))
        is_field = space <= dims and bool(dims - space - set(roles.level)) and ds[name].dtype.kind in "biuf"
        if is_field:
            found.append(name)
        elif name in wanted:
            raise DataError(
                f"{where}: {name!r} has dims ({', '.join(map(str, ds[name].dims))}) of {ds[name].dtype}; a field needs "
                f"numbers over {', '.join(roles.space)} and at least one dimension that counts samples"
            )
    if not found:
        words = [str(name) for name, v in ds.data_vars.items() if space <= set(v.dims) and v.dtype.kind not in "biuf"]
        if words:
            kind = "text" if ds[words[0]].dtype.kind in "OSU" else str(ds[words[0]].dtype)
            raise DataError(f"{where}: {words[0]!r} holds {kind}, and fields need numbers; convert it in the file")
        listing = ", ".join(f"{name}({', '.join(map(str, ds[name].dims))})" for name in names[:5]) or "nothing"
        raise DataError(
            f"{where}: no variable has samples over space ({', '.join(roles.space)}): found {listing}; "
            "a time or sample dimension is needed, or name the dimensions with --dims"
        )
    return found


def sample_dims(fields: xr.Dataset, roles: Roles) -> tuple[str, ...]:
    """The dims that count samples, in the order of the variable that has most of them."""
    other = set(roles.space) | set(roles.level)
    lists = [[str(dim) for dim in v.dims if dim not in other] for v in fields.data_vars.values()]
    longest = max(lists, key=len)
    extra = [dim for dims in lists for dim in dims if dim not in longest]
    return tuple(dict.fromkeys([*longest, *extra]))


def _ordered(v: xr.DataArray, ds: xr.Dataset, sample: tuple[str, ...], roles: Roles) -> xr.DataArray:
    """A variable with dims (sample, level, space); sample dims that it lacks are repeated."""
    missing = [dim for dim in sample if dim not in v.dims]
    if missing:
        v = v.expand_dims({dim: ds.sizes[dim] for dim in missing})
    level = [dim for dim in v.dims if dim in roles.level]
    return v.transpose(*sample, *level, *roles.space)


def periodic_flags(fields: xr.Dataset, roles: Roles, periodic: Sequence[str]) -> tuple[bool, ...]:
    """Per space dim whether it is periodic: named by the user, or equally spaced longitudes that go round.

    Raises:
        UsageError: A name is no dimension of space.
    """
    flags = dict.fromkeys(roles.space, False)
    lon = roles.longitude
    if lon is not None and lon in flags:
        flags[lon] = is_global(np.asarray(fields[lon].values))
    if list(periodic) == ["none"]:
        return tuple(False for _ in flags)
    known = {"x": roles.x, "y": roles.y, "z": roles.z, "lon": roles.x, "lat": roles.y}
    for word in periodic:
        dim = word if word in flags else known.get(word)
        if dim is None:
            raise UsageError(f"--periodic {word}: no such dimension of space; {near(word, flags)}")
        flags[dim] = True
    return tuple(flags.values())


def make_layout(
    fields: xr.Dataset, roles: Roles, sample: tuple[str, ...], time: str | None, periodic: tuple[bool, ...]
) -> Layout:
    """The layout of canonical fields."""
    names = tuple(str(name) for name in fields.data_vars)
    level: dict[str, tuple[str, ...]] = {}
    channels: list[Channel] = []
    for name in names:
        dims = tuple(str(dim) for dim in fields[name].dims if dim in roles.level)
        level[name] = dims
        labels = {dim: list(fields[name][dim].values) for dim in dims}
        channels += channels_for(name, dims, labels)
    return Layout(
        variables=names,
        sample=sample,
        space=roles.space,
        level=level,
        time=time,
        shape=tuple(int(fields.sizes[dim]) for dim in roles.space),
        periodic=periodic,
        latitude=roles.latitude,
        longitude=roles.longitude,
        channels=tuple(channels),
        units={name: str(fields[name].attrs.get("units", "")) for name in names},
    )
