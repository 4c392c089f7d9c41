"""Selections such as ``year=2070/2099,scenario=E1``: parsing, masks over samples, crops of space."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import Roles, is_timelike
from undrift.data.fields import Fields
from undrift.data.layout import plain
from undrift.data.order import Order
from undrift.data.split import Split, split
from undrift.errors import DataError, UsageError

__all__ = ["Split", "crop", "format_selection", "match", "normalise", "parse_selection", "sample_mask", "split"]

_CLOCK = re.compile(r"\d{1,2}:\d{2}")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_DATE = r"\d{4}(?:-\d{2}(?:-\d{2})?)?"
_COLON = re.compile(rf"^({_NUMBER}|{_DATE})?:({_NUMBER}|{_DATE})?$")
_DERIVED = ("year", "month", "day", "dayofyear", "hour")


def parse_selection(text: str) -> dict[str, tuple]:
    """Parse ``key=value`` or ``key=A/B`` separated by commas.

    A range includes both ends, in either order; an end left out is open (``2070/``). ``A:B`` is a range too where it
    cannot be a clock time. Values stay text: what they mean depends on the coordinate.

    Returns:
        Per key a tuple of one value, or of the two ends of a range ("" for an open end).

    Raises:
        UsageError: The text cannot be read.
    """
    out: dict[str, tuple] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key or not equals or not value:
            raise UsageError(
                f"selection {text!r}: cannot read {item.strip()!r}; type for example year=2070/2099,scenario=E1"
            )
        if key in out:
            raise UsageError(f"selection {text!r}: {key} is given twice; type {key}=A/B for a range")
        if "/" in value:
            ends = tuple(end.strip() for end in value.split("/"))
            if len(ends) != 2 or not any(ends):
                raise UsageError(f"selection {text!r}: a range is {key}=A/B, got {value!r}")
            out[key] = ends
        else:
            out[key] = _colon(value)
    return out


def _colon(value: str) -> tuple:
    """``A:B`` as a range where it cannot be a clock time, else the value itself."""
    if _CLOCK.fullmatch(value):
        return (value,)
    found = _COLON.match(value)
    return (found[1] or "", found[2] or "") if found and (found[1] or found[2]) else (value,)


def format_selection(selection: Mapping[str, tuple]) -> str:
    """The text that ``parse_selection`` reads as this selection."""
    return ",".join(f"{key}={'/'.join(str(end) for end in ends)}" for key, ends in selection.items())


def normalise(selection: str | Mapping[str, Any]) -> dict[str, tuple]:
    """A selection as text or as a mapping to values, (first, last) pairs or slices, as ``parse_selection`` gives it."""
    if isinstance(selection, str):
        return parse_selection(selection)
    out: dict[str, tuple] = {}
    for key, value in selection.items():
        if isinstance(value, slice):
            out[key] = tuple("" if end is None else end for end in (value.start, value.stop))
        elif isinstance(value, list | tuple):
            if len(value) not in (1, 2):
                raise UsageError(f"selection of {key}: give one value or a pair (first, last), got {value!r}")
            out[key] = tuple("" if end is None else end for end in value)
        else:
            out[key] = _colon(value) if isinstance(value, str) and "/" not in value else parse_value(key, value)
    return out


def parse_value(key: str, value: Any) -> tuple:
    """One value of a mapping, which may be text such as "35/60"."""
    return parse_selection(f"{key}={value}")[key] if isinstance(value, str) else (value,)


def match(labels: np.ndarray, ends: tuple, key: str, *, cyclic: bool = False) -> np.ndarray:
    """Which labels a value or an inclusive range selects.

    Args:
        labels: Coordinate labels of any kind.
        ends: One value, or two ends ("" is open).
        key: For sentences.
        cyclic: Labels are longitudes: a range goes east from its first to its last end, modulo 360.

    Raises:
        UsageError: The value is of the wrong kind for these labels.
    """
    labels = np.asarray(labels)
    if is_timelike(labels):
        return _match_times(labels, [_time_text(end, key) for end in ends])
    if labels.dtype.kind in "iufb":
        if len(ends) == 1 and isinstance(ends[0], str) and _CLOCK.fullmatch(ends[0]):
            ends = tuple(ends[0].split(":"))  # a number cannot be a clock time
        numbers = [_number(end, key) for end in ends]
        return _match_numbers(labels.astype(np.float64), numbers, cyclic)
    text = np.array([str(plain(label)) for label in labels.ravel()]).reshape(labels.shape)
    if len(ends) == 2:
        raise UsageError(
            f"{key}={ends[0]}/{ends[1]}: {key} is text; type one of {', '.join(dict.fromkeys(text.ravel()[:8]))}"
        )
    return text == str(ends[0])


def _number(end: Any, key: str) -> float | None:
    if end == "" or end is None:
        return None
    try:
        return float(end)
    except (TypeError, ValueError):
        raise UsageError(f"{key}={end}: {key} is a number, got {end!r}; type for example {key}=1/2") from None


def _match_numbers(labels: np.ndarray, ends: Sequence[float | None], cyclic: bool) -> np.ndarray:
    spacing = np.ptp(labels) / (labels.size - 1) if labels.size > 1 else 0.0
    slack = 1e-6 * (np.abs(labels) + spacing)  # rounding of float32, whatever the unit
    if len(ends) == 1:
        gap = np.abs(labels - (ends[0] or 0.0))
        return (np.minimum(gap, np.abs((gap + 180.0) % 360.0 - 180.0)) if cyclic else gap) <= slack
    low, high = ends
    if cyclic and low is not None and high is not None:
        if high < low and high + 360.0 - low > 180.0:  # the short way says that the ends were swapped
            low, high = high, low
        if high - low >= 360.0:
            return np.ones(labels.shape, dtype=bool)
        offset = (labels - low + slack) % 360.0
        return offset <= (high - low) % 360.0 + 2 * slack
    if low is not None and high is not None and low > high:
        low, high = high, low
    ok = np.ones(labels.shape, dtype=bool)
    if low is not None:
        ok &= labels >= low - slack
    if high is not None:
        ok &= labels <= high + slack
    return ok


def _time_text(end: Any, key: str) -> str:
    """A date as the beginning of ISO 8601 text."""
    text = str(plain(end)) if not isinstance(end, str) else end.strip().replace(" ", "T").removesuffix("Z")
    text = text.rstrip("0").rstrip(".") if "." in text else text  # as numpy prints a time of whole seconds
    if text and not re.fullmatch(r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?)?)?)?", text):
        raise UsageError(f"{key}={end}: {key} is a date; type for example {key}=2019-03 or {key}=2019-03-01/2019-03-20")
    return text


def _match_times(labels: np.ndarray, ends: Sequence[str]) -> np.ndarray:
    """Dates are compared as ISO 8601 text, cut to the precision of the end: right in every calendar."""
    text = np.array([str(plain(label)) for label in labels.ravel()])
    if len(ends) == 1:
        ends = (ends[0], ends[0])
    low, high = ends
    common = min(len(low), len(high))
    if low and high and low[:common] > high[:common]:
        low, high = high, low
    ok = np.array([label[: len(low)] >= low and (not high or label[: len(high)] <= high) for label in text], dtype=bool)
    return ok.reshape(labels.shape)


def _sample_labels(ds: xr.Dataset, key: str, sample: Sequence[str]) -> xr.DataArray | None:
    """The labels over sample dims that a key names; parts of dates (year, month, hour) are made if not there."""
    if key in ds.variables and ds[key].ndim > 0 and set(ds[key].dims) <= set(sample):
        return ds[key]
    if key in sample:
        return xr.DataArray(np.arange(ds.sizes[key]), dims=key)
    if key in _DERIVED:
        for dim in sample:
            if dim in ds.coords and is_timelike(ds[dim].values):
                return getattr(ds[dim].dt, key)
    return None


def _sample_keys(ds: xr.Dataset, sample: Sequence[str]) -> list[str]:
    own = [str(n) for n, v in ds.variables.items() if v.ndim > 0 and set(v.dims) <= set(sample)]
    dates = any(dim in ds.coords and is_timelike(ds[dim].values) for dim in sample)
    return list(dict.fromkeys([*sample, *own, *(_DERIVED if dates else ())]))


def sample_mask(fields: Fields, selection: str | Mapping[str, Any]) -> np.ndarray:
    """Which samples a selection keeps (all keys must hold).

    Returns:
        Booleans, one per sample.

    Raises:
        UsageError: A key is unknown.
        DataError: Nothing is selected.
    """
    wide = xr.merge([fields._dataset.coords.to_dataset(), fields.covariates], compat="override")
    bare = [dim for dim in fields.layout.sample if dim not in wide.coords]
    wide = wide.assign_coords({dim: np.arange(fields._dataset.sizes[dim]) for dim in bare})
    ok = np.ones(len(fields), dtype=bool)
    chosen = normalise(selection)
    for key, ends in chosen.items():
        labels = _sample_labels(wide, key, fields.layout.sample)
        if labels is None:
            raise UsageError(
                f"selection by {key!r}: no such label of samples; "
                f"{_near(key, _sample_keys(wide, fields.layout.sample))}"
            )
        ok &= fields.along(labels.copy(data=match(labels.values, ends, key)).reset_coords(drop=True))
    if not ok.any():
        raise DataError(_nothing(format_selection(chosen), len(fields), wide, chosen, fields.layout.sample))
    return ok


def _near(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(names), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}"


def _nothing(text: str, n: int, ds: xr.Dataset, chosen: Mapping[str, tuple], sample: Sequence[str]) -> str:
    """The sentence about an empty selection, with what each key could have selected."""
    spans = []
    for key in chosen:
        labels = _sample_labels(ds, key, sample)
        labels = ds[key] if labels is None and key in ds.variables else labels
        values = np.asarray(labels.values).ravel() if labels is not None else np.zeros(0)
        if values.size:
            if values.dtype.kind in "iufM":
                spans.append(f"{key} is {plain(values.min())} to {plain(values.max())}")
            else:
                spans.append(f"{key} is {plain(values[0])} to {plain(values[-1])}")
    return f"{text} selects 0 of {n}" + (f"; {', '.join(spans)}" if spans else "")


def keep_labels(ds: xr.Dataset, select: str | Mapping[str, Any], roles: Roles) -> xr.Dataset:
    """The part of one file that a selection of samples and levels keeps, which may be nothing."""
    other = set(roles.space)
    sample = [str(dim) for dim in ds.dims if dim not in other]
    for key, ends in normalise(select).items():
        labels = _sample_labels(ds, key, sample)
        if labels is not None and labels.ndim == 1:
            ds = ds.isel({labels.dims[0]: np.flatnonzero(match(labels.values, ends, key))})
    return ds


def crop(
    fields: xr.Dataset,
    statics: xr.Dataset,
    wide: xr.Dataset,
    order: Order,
    select: str | Mapping[str, Any],
    roles: Roles,
    sample: tuple[str, ...],
    periodic: tuple[bool, ...],
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, Order, tuple[bool, ...]]:
    """Keep part of the samples, the levels or the domain.

    Raises:
        UsageError: A key is unknown.
        DataError: Nothing is selected.
    """
    flags = dict(zip(roles.space, periodic, strict=True))
    chosen = normalise(select)
    for key, ends in chosen.items():
        name = {
            "lat": roles.latitude,
            "latitude": roles.latitude,
            "lon": roles.longitude,
            "longitude": roles.longitude,
        }.get(key, key)
        name = name if name is not None and key not in fields.coords else key
        labels = _sample_labels(fields, name, sample)
        if labels is None and name in wide and set(wide[name].dims) <= set(sample):
            labels = wide[name]
        if labels is None and name in fields.dims:
            labels = fields[name] if name in fields.coords else xr.DataArray(np.arange(fields.sizes[name]), dims=name)
        if labels is None and name in fields.coords and set(fields[name].dims) <= set(roles.space):
            labels = fields[name]
        if labels is None:
            known = [*_sample_keys(fields, sample), *roles.space, *roles.level, *map(str, fields.coords)]
            raise UsageError(f"--select {key}: no such coordinate; {_near(key, list(dict.fromkeys(known)))}")
        ok = match(labels.values, ends, key, cyclic=name == roles.longitude)
        if not ok.any():
            n = labels.size
            raise DataError(_nothing(f"--select {format_selection({key: ends})}", n, fields, {name: ends}, sample))
        if labels.ndim > 1 and not set(labels.dims) <= set(roles.space):
            raise UsageError(f"--select {key}: it varies over {', '.join(map(str, labels.dims))}; select by those dims")
        for axis, dim in enumerate(map(str, labels.dims)):
            hits = np.flatnonzero(ok.any(axis=tuple(i for i in range(ok.ndim) if i != axis)))
            if dim in roles.space:
                fields, statics, order = _crop_space(fields, statics, order, dim, hits, flags)
            else:
                fields = fields.isel({dim: hits})
                wide = wide.isel({dim: hits}) if dim in wide.dims else wide
                statics = statics.isel({dim: hits}) if dim in statics.dims else statics
    return fields, statics, wide, order, tuple(flags.values())


def _crop_space(
    fields: xr.Dataset, statics: xr.Dataset, order: Order, dim: str, hits: np.ndarray, flags: dict[str, bool]
) -> tuple[xr.Dataset, xr.Dataset, Order]:
    """Crop one dim of space to the run that holds the hits; on a periodic dim the run may cross its end."""
    n = fields.sizes[dim]
    index = np.arange(hits[0], hits[-1] + 1)
    if hits.size == n:
        return fields, statics, order
    if flags[dim] and hits.size < index.size:
        start = hits[np.argmax(np.diff(np.concatenate([hits, [hits[0] + n]])))]
        first = hits[(np.searchsorted(hits, start) + 1) % hits.size]
        index = (first + np.arange(hits.size)) % n
    flags[dim] = False
    fields, statics = fields.isel({dim: index}), (statics.isel({dim: index}) if dim in statics.dims else statics)
    order = order.crop(dim, index)
    if dim in order.canonical and np.any(np.diff(index) < 0):
        from undrift.data.order import unwrap

        values = unwrap(order.canonical[dim])
        order.canonical[dim] = values
        fields = fields.assign_coords({dim: (dim, values, fields[dim].attrs)})
        statics = statics.assign_coords({dim: (dim, values, fields[dim].attrs)}) if dim in statics.dims else statics
    return fields, statics, order
