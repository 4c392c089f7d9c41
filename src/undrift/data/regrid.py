"""What is given, brought to where and when it is wanted: another grid, other time stamps, other spellings of units."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cftime
import numpy as np
import xarray as xr

from undrift.data.cf import is_timelike
from undrift.data.fields import Fields
from undrift.data.grid import SAME, Grid, Regridder
from undrift.data.layout import Layout, plain
from undrift.data.linear import spread
from undrift.data.units import same_units
from undrift.errors import DataError

__all__ = [
    "Grid",
    "Match",
    "Regridder",
    "cells_apart",
    "find_channel",
    "grid_of",
    "join",
    "match_given",
    "regrid",
    "same_units",
]

_EAGER_BYTES = 256 << 20
_OTHER_END = ", as where blocks of cells are trimmed at the other end"
_GREGORIAN = {"standard", "gregorian", "proleptic_gregorian"}


def regrid(
    source: Fields | xr.Dataset,
    target: Fields | xr.Dataset,
    *,
    layout: Layout | None = None,
    target_layout: Layout | None = None,
) -> xr.Dataset:
    """Interpolates every variable over space to the target's grid, by coordinates.

    Args:
        source: what is given. Variables without all dims of space are kept as they are.
        target: where it is wanted; only its coordinates matter.
        layout: the source's layout, if it is a plain dataset; else its dims are recognised by names and attributes.
        target_layout: likewise of the target.

    Returns:
        The dataset on the target's dims and coordinates of space, with other coordinates and attributes kept. Large
        data stay lazy.

    Raises:
        DataError: the target lies outside of the source by more than half a source cell, or the grids cannot be
            related.
    """
    have, want = Grid.of(source, layout), Grid.of(target, target_layout)
    data = source.dataset if isinstance(source, Fields) else source
    like = target.dataset if isinstance(target, Fields) else target
    move = Regridder(have, want)
    coords = {n: c for n, c in like.coords.items() if c.dims and set(c.dims) <= set(want.space)}
    rename = {old: f"{old}__source" for old in have.space}  # the core dims may have other sizes under one name
    out: dict[Any, xr.DataArray] = {}
    for name, da in data.data_vars.items():
        if not set(have.space) <= set(da.dims):
            out[name] = da
            continue
        bare = da.drop_vars([c for c in da.coords if set(da[c].dims) & set(have.space)]).rename(rename)
        core = [rename[d] for d in have.space]
        if bare.chunks is None and bare.nbytes > _EAGER_BYTES:
            bare = bare.chunk({d: -1 if d in core else "auto" for d in bare.dims})
        elif bare.chunks is not None:
            bare = bare.chunk(dict.fromkeys(core, -1))
        out[name] = xr.apply_ufunc(
            move,
            bare,
            input_core_dims=[core],
            output_core_dims=[list(want.space)],
            dask="parallelized",
            output_dtypes=[bare.dtype if bare.dtype.kind == "f" else np.float64],
            dask_gufunc_kwargs={"output_sizes": dict(zip(want.space, want.shape))},
            keep_attrs=True,
        )
    return xr.Dataset(out, attrs=data.attrs).assign_coords(coords)


def join(target: Fields, given: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Pairs the samples of two datasets by their labels.

    Dates of different calendars are compared by year, month and day, those of one calendar by their distance. Yearly,
    monthly and daily data match where they fall into the same year, month or day, whatever the stamp within it; other
    steps match the nearest date within less than half of the finer step. Numbers match within 1e-5 of their spacing,
    text exactly. Given data that lack a sample dim are the same for all of its labels.

    Returns:
        (target_i, given_i): positions of samples with equal labels, ascending in `target_i`.

    Raises:
        DataError: nothing matches (both ranges are printed), or `given` has sample dims that the target lacks.
    """
    mine, theirs = _labels(target), _labels(given)
    time = (target.layout.time, given.layout.time)
    if time[0] and time[1] and time[0] != time[1]:
        theirs[time[0]] = theirs.pop(time[1])
    extra = [d for d in theirs if d not in mine and len(set(map(str, theirs[d]))) > 1]
    if extra:
        raise DataError(
            f"the given data have the sample dim {extra[0]!r}, which the target {list(mine)} lacks: choose one with "
            f"--select {extra[0]}={plain(theirs[extra[0]][0])}"
        )
    shared = [d for d in mine if d in theirs]
    if not shared:
        raise DataError(
            f"the target's samples are over {list(mine)}, the given ones over {list(theirs)}: nothing to join on"
        )
    mine_keys, their_keys = [], []
    for dim in shared:
        a, b = _codes(mine[dim], theirs[dim])
        mine_keys.append(a)
        their_keys.append(b)
    place: dict[tuple[int, ...], int] = {}
    for i, key in enumerate(zip(*their_keys)):
        place.setdefault(tuple(map(int, key)), i)
    place = {key: i for key, i in place.items() if min(key) >= 0}
    pairs = [(i, place[key]) for i, key in enumerate(tuple(map(int, k)) for k in zip(*mine_keys)) if key in place]
    if not pairs:
        spans = "; ".join(f"{d}: target {_range(mine[d])}, given {_range(theirs[d])}" for d in shared)
        raise DataError(f"no sample of the given data matches one of the target ({spans})")
    ti, gi = np.array(pairs, np.int64).T
    return ti, gi


def _labels(fields: Fields) -> dict[str, np.ndarray]:
    """Per sample dim the label of every flattened sample."""
    rows = [fields.labels(i) for i in range(len(fields))]
    out = {}
    for dim in fields.layout.sample:
        column = np.empty(len(rows), object)
        column[:] = [row[dim] for row in rows]
        out[dim] = column
    return out


def _codes(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One integer per label, equal where labels match; -1 and -2 for given and target labels without a partner."""
    a, b = list(dict.fromkeys(mine.tolist())), list(dict.fromkeys(theirs.tolist()))
    if all(map(_is_date, a)) or all(map(_is_date, b)):
        codes_a, codes_b = _match_dates(a, b)
    elif all(isinstance(v, int | float | np.number) for v in [*a, *b]):
        codes_a, codes_b = _match_numbers(np.array(a, np.float64), np.array(b, np.float64))
    else:
        codes = {v: i for i, v in enumerate(map(str, a))}
        codes_a, codes_b = np.arange(len(a)), np.array([codes.get(str(v), -1) for v in b])
    at_a, at_b = dict(zip(a, codes_a)), dict(zip(b, codes_b))
    return np.array([at_a[v] for v in mine.tolist()]), np.array([at_b[v] for v in theirs.tolist()])


def _match_numbers(a: np.ndarray, b: np.ndarray, within: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Codes of numbers that agree within a share of the target's spacing."""
    ordered = np.sort(a)
    step = float(np.median(np.diff(ordered))) if a.size > 1 else max(1.0, abs(float(a[0])))
    order = np.argsort(a)
    right = np.clip(np.searchsorted(ordered, b), 1, max(1, a.size - 1))
    left = right - 1
    right = np.minimum(right, a.size - 1)
    near = np.where(np.abs(b - ordered[left]) <= np.abs(b - ordered[right]), left, right)
    ok = np.abs(b - ordered[near]) <= within * step
    return np.arange(a.size), np.where(ok, order[near], -1)


def _match_dates(a: list[Any], b: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of dates of any calendars (or of plain years)."""
    ymd_a, ymd_b = (np.array([_split(v) for v in values], np.float64) for values in (a, b))
    steps = [_step(ymd) for ymd in (ymd_a, ymd_b)]
    yearly, monthly, daily = (
        all(low <= s <= high for s in steps) for low, high in ((359, 367), (27.5, 32), (0.99, 1.01))
    )
    depth = 1 if yearly else 2 if monthly else 3 if daily else 0
    if depth:
        codes = {tuple(row[:depth]): i for i, row in enumerate(ymd_a)}
        return np.arange(len(a)), np.array([codes.get(tuple(row[:depth]), -1) for row in ymd_b])
    finer = min(s for s in (*steps, 1e9) if s > 0)
    calendar = _shared_calendar([*a, *b])
    days_a, days_b = _days(ymd_a, calendar), _days(ymd_b, calendar)
    order = np.argsort(days_a)
    ordered = days_a[order]
    right = np.clip(np.searchsorted(ordered, days_b), 0, len(a) - 1)
    left = np.maximum(right - 1, 0)
    near = np.where(np.abs(days_b - ordered[left]) < np.abs(days_b - ordered[right]), left, right)
    away = np.abs(days_b - ordered[near])
    codes_b = np.where(away < 0.499 * (finer if finer < 1e9 else 2e-3), order[near], -1)
    best: dict[int, int] = {}
    for i in np.argsort(away, kind="stable"):  # the nearest of several wins
        if codes_b[i] >= 0 and best.setdefault(int(codes_b[i]), int(i)) != i:
            codes_b[i] = -1
    return np.arange(len(a)), codes_b


def _split(value: Any) -> tuple[float, float, float, float]:
    """(year, month, day, share of the day) of datetime64, cftime or a plain year."""
    if isinstance(value, int | float | np.number) and not isinstance(value, np.datetime64):
        return float(value), 1.0, 1.0, 0.0
    if isinstance(value, np.datetime64):
        day = value.astype("M8[D]")
        y, m = value.astype("M8[Y]").astype(int) + 1970, value.astype("M8[M]").astype(int) % 12 + 1
        share = (value - day) / np.timedelta64(1, "D")
        return float(y), float(m), float((day - value.astype("M8[M]")).astype(int) + 1), float(share)
    seconds = value.hour * 3600 + value.minute * 60 + value.second + value.microsecond * 1e-6
    return float(value.year), float(value.month), float(value.day), seconds / 86400


def _shared_calendar(dates: list[Any]) -> str:
    """The calendar of all dates, or "" where there are several, which have no common length of a month."""
    names = {"standard" if isinstance(v, np.datetime64) else getattr(v, "calendar", "") for v in dates}
    if names <= _GREGORIAN and all(_split(v)[0] > 1582 for v in dates):
        return "standard"
    return names.pop() if len(names) == 1 else ""


def _days(ymd: np.ndarray, calendar: str) -> np.ndarray:
    """Days since 1970; without a calendar in a year of 12 x 31 days, where equal dates have equal numbers."""
    if calendar:
        midnights = [cftime.datetime(*map(int, row[:3]), calendar=calendar) for row in ymd]
        return np.asarray(cftime.date2num(midnights, "days since 1970-01-01", calendar=calendar)) + ymd[:, 3]
    return ymd[:, 0] * 372 + (ymd[:, 1] - 1) * 31 + ymd[:, 2] - 1 + ymd[:, 3]


def _step(ymd: np.ndarray) -> float:
    """The usual step in days (0 for a single date), true to about a day in a month."""
    if len(ymd) < 2:
        return 0.0
    days = np.sort(ymd[:, 0] * 365.25 + (ymd[:, 1] - 1) * 30.4375 + ymd[:, 2] + ymd[:, 3])
    step = float(np.median(np.diff(days)))
    return step


def _is_date(value: Any) -> bool:
    return isinstance(value, np.datetime64) or hasattr(value, "timetuple") or is_timelike(np.array([value], object))


def _range(values: np.ndarray) -> str:
    """First and last label, for errors."""
    texts = [str(plain(v)) for v in values.tolist()]
    return f"{texts[0]} to {texts[-1]}" if len(texts) > 1 else texts[0]


@dataclass(frozen=True)
class Match:
    """How given data are brought to what a model was trained with.

    Attributes:
        regridder: from the grid offered to the one trained with.
        channels: positions of the trained channels among the offered ones, -1 of those that are absent.
        notes: what is done that the user should know.
        warnings: what may be wrong.
    """

    regridder: Regridder
    channels: list[int]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """(n, C offered, *offered space) -> (n, C trained, *trained space), NaN in absent channels."""
        out, absent = self.regridder(array[:, self.channels]), np.array(self.channels) < 0
        out[:, absent] = np.nan
        return out


def match_given(
    given: Fields,
    layout: Layout,
    coords: xr.Dataset | Mapping[Any, Any],
    *,
    mask: np.ndarray | None = None,
    partly: bool = False,
) -> Match:
    """Compares what is given when sampling with what the model was trained with.

    Args:
        given: what is offered.
        layout: the layout of what was given in training: variables, units, levels and dims of space.
        coords: its coordinates of space.
        mask: always-missing cells in training, (*space) or (C, *space).
        partly: whether some of the variables and levels may be absent.

    Raises:
        DataError: a variable or level is absent, a unit differs (both are named; nothing is converted), or the region
            offered does not cover the one trained with.
    """
    absent = [c.label for c in layout.channels if not find_channel(c, given.layout)]
    if absent and not (partly and len(absent) < len(layout.channels)):
        offered = [c.label for c in given.layout.channels]
        near = difflib.get_close_matches(absent[0], offered, 1)
        hint = f"; did you mean to rename {near[0]!r}?" if near else ""
        raise DataError(
            f"the model was trained with {absent[0]!r}, which the given data lack: they have {offered[:8]}{hint}"
        )
    for name in (name for name in layout.variables if name in given.layout.variables):
        was, is_ = layout.units.get(name, ""), given.layout.units.get(name, "")
        if not same_units(was, is_):
            raise DataError(
                f"{name!r} was trained with units {was or 'none'!r} and is given in {is_ or 'none'!r}: convert it, "
                f"or correct the attribute units (undrift does not guess)"
            )
    have = Grid.of(given)
    want = grid_of(layout, coords)
    try:
        regridder = Regridder(have, want)
    except DataError as error:
        where = cells_apart(have, want) if len(have.shape) == len(want.shape) and min(have.shape) else ""
        why = f" ({where})" if where.endswith(_OTHER_END) else ""
        raise DataError(f"the given data are of another region or grid than in training{why}: {error}") from error
    why = "regridded, for the given cells are not those trained with"
    notes = [] if regridder.identity else [f"{why}: {cells_apart(have, want)}"]
    if absent:
        notes.append(f"absent, and drawn too: {', '.join(absent[:8])}")
    picks = [find_channel(c, given.layout) for c in layout.channels]
    at = [-1 if found is None else given.layout.channels.index(found) for found in picks]
    match = Match(regridder, at, [*notes, *regridder.notes])
    if mask is not None and len(given):
        values, there = match(given.read(spread(len(given), 8))), np.array(at) >= 0
        now, was_masked = np.isnan(values[:, there]).all(axis=0), np.broadcast_to(mask, values.shape[1:])[there]
        more, less = int((now & ~was_masked).sum()), int((~now & was_masked).sum())
        if more or less:
            match.warnings.append(
                f"the mask of what is given differs from training: {more} cells are missing now that had values, "
                f"{less} have values that were missing"
            )
    return match


def cells_apart(have: Grid, want: Grid) -> str:
    """Where the cells of two grids lie, as far as they differ, and whether blocks may have been begun elsewhere."""
    one, two = ("2-D" if grid.curvilinear else "1-D" for grid in (have, want))
    if one != two:
        return f"{one} latitudes and longitudes, expected {two}"
    said, shifted = [], True
    for i, (role, dim) in enumerate(zip(want.roles, want.space)):
        j = have.roles.index(role) if role in have.roles else i
        a, b = have.axes[j], want.axes[i]
        n, m = have.shape[j], want.shape[i]
        if a is None or b is None:
            if n != m:
                said.append(f"{n} along {dim}, expected {m}")
                shifted = False
            continue
        step = np.abs(b[-1] - b[0]) / (m - 1) if m > 1 else 1.0
        ends = a[[0, -1]] - b[[0, -1]]
        if role == "lon":
            ends = (ends + 180.0) % 360.0 - 180.0
        if n == m and (np.abs(ends) <= SAME * step).all():
            continue
        shifted &= n == m and bool(np.ptp(ends) <= 0.01 * step and np.abs(ends).max() < 0.999 * step)
        span, expected = (f"{v[0]:.7g} to {v[-1]:.7g}" for v in (a, b))
        sizes = f" ({n} and {m} cells)" if n != m else ""
        said.append(f"{dim} is {span}, expected {expected}{sizes}")
    if not said:
        return "they lie elsewhere"
    return " and ".join(said) + (_OTHER_END if shifted else "")


def find_channel(channel: Any, layout: Layout) -> Any:
    """The offered channel of the same variable and level (numbers within 1e-5), or None."""
    for other in layout.channels:
        if other.variable == channel.variable and len(other.level) == len(channel.level):
            pairs = zip(sorted(other.level), sorted(channel.level))
            if all(d == e and _close(v, w) for (d, v), (e, w) in pairs):
                return other
    return None


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return bool(np.isclose(a, b, rtol=1e-5, atol=0))
    return str(a) == str(b)


def grid_of(layout: Layout, coords: xr.Dataset | Mapping[Any, Any]) -> Grid:
    """The grid of a layout, with the coordinates of space where there are any."""
    like = coords if isinstance(coords, xr.Dataset) else xr.Dataset(coords=dict(coords))
    if set(layout.space) <= set(like.sizes):
        return Grid.of(like.assign_coords({}), layout)
    none: Sequence[None] = [None] * len(layout.space)
    return Grid(layout.space, layout.shape, tuple(none), layout.periodic, None, None, layout.space)
