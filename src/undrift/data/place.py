"""Given values on the cells, levels and variables of a model of windows; what is nowhere given is asked.

Cells are placed by their coordinates: a part of the domain, or some of its cells. Where the given cells lie between
those of the model their values are interpolated, and count as known all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.curvilinear import local_cell, unit_vectors
from undrift.data.fields import Fields
from undrift.data.grid import SAME, Grid
from undrift.data.layout import Channel, Layout, plain
from undrift.data.regrid import Regridder, cells_apart, find_channel, grid_of, same_units
from undrift.errors import DataError

__all__ = ["Placed", "place_given"]


@dataclass(frozen=True)
class Placed:
    """How given data come to the cells of a model.

    Attributes:
        shape: of the model's fields, (C, *space).
        channels: of the model that are given; sources: the same channels among those that are offered.
        cells: for each given cell the model's, counted along all dims of space, -1 outside of its domain; or None.
        regridder: where the given cells are others.
        warnings: what the user should know.
    """

    shape: tuple[int, ...]
    channels: list[int]
    sources: list[int]
    cells: np.ndarray | None
    regridder: Regridder | None
    warnings: list[str] = field(default_factory=list)

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """(n, C offered, *offered space) -> (n, C, *space), NaN where nothing is given."""
        out = np.full((len(array), *self.shape), np.nan, np.float32)
        values = array[:, self.sources]
        if self.cells is None:
            out[:, self.channels] = values if self.regridder is None else self.regridder(values)
            return out
        flat, inside = out.reshape(*out.shape[:2], -1), self.cells >= 0
        at = (slice(None), np.array(self.channels)[:, None], self.cells[inside][None])
        flat[at] = values.reshape(*values.shape[:2], -1)[:, :, inside]
        return out


def place_given(given: Fields, layout: Layout, coords: xr.Dataset | Mapping[Any, Any]) -> Placed:
    """Find where given data belong.

    Args:
        given: what is offered: some of the variables, levels and cells.
        layout: of single frames of the model.
        coords: its coordinates of space.

    Raises:
        DataError: nothing of what is given is the model's, units differ (nothing is converted), or the cells cannot be
            brought together.
    """
    offered = _with_scalar_levels(given, layout)
    found = [(i, find_channel(c, offered)) for i, c in enumerate(layout.channels)]
    pairs = [(i, offered.channels.index(other)) for i, other in found if other is not None]
    if not pairs:
        have, want = (", ".join(c.label for c in one.channels[:8]) for one in (offered, layout))
        raise DataError(f"the given data have {have}, expected some of {want}")
    for name in dict.fromkeys(layout.channels[i].variable for i, _ in pairs):
        was, is_ = layout.units.get(name, ""), given.layout.units.get(name, "")
        if not same_units(was, is_):
            raise DataError(
                f"{name!r} was trained with units {was or 'none'!r} and is given in {is_ or 'none'!r}: convert it, "
                f"or correct the attribute units (undrift does not guess)"
            )
    used = {source for _, source in pairs}
    lost = [c.label for j, c in enumerate(offered.channels) if j not in used and c.variable in layout.variables]
    warnings = [f"not used, for the model has no such level: {', '.join(lost[:8])}"] if lost else []
    have, want = Grid.of(given), grid_of(layout, coords)
    cells, regridder = None, None
    if not have.same(want):
        cells = _cells(have, want)
        regridder = None if cells is not None else _regridder(have, want)
    if regridder is not None:
        warnings.append(
            f"the given cells are not those of the model: {cells_apart(have, want)}; interpolated values count as known"
        )
    elif cells is not None and (cells < 0).all():
        raise DataError(f"the given data are of another region than in training: {cells_apart(have, want)}")
    shape = (len(layout.channels), *layout.shape)
    return Placed(shape, [i for i, _ in pairs], [j for _, j in pairs], cells, regridder, warnings)


def _with_scalar_levels(given: Fields, layout: Layout) -> Layout:
    """The layout of what is given, where a level that was selected, and is a scalar coordinate, is one of its own."""
    scalars = {str(n): plain(c.values[()]) for n, c in given.dataset.coords.items() if not c.dims}

    def labelled(channel: Channel) -> Channel:
        more = [(d, scalars[d]) for d in layout.level.get(channel.variable, ()) if d in scalars]
        return replace(channel, level=(*channel.level, *more))

    return replace(given.layout, channels=tuple(labelled(c) for c in given.layout.channels))


def _cells(have: Grid, want: Grid) -> np.ndarray | None:
    """The model's cell of each given one, counted along all dims, (*given shape,) flattened; None where they differ."""
    if len(have.shape) != len(want.shape):
        return None
    if have.curvilinear or want.curvilinear:
        return _points(have, want) if have.curvilinear and want.curvilinear and len(want.shape) == 2 else None
    if set(have.roles) != set(want.roles):
        return None
    at: list[Any] = [None] * len(want.shape)
    for i, role in enumerate(want.roles):
        j = have.roles.index(role)
        a, b = have.axes[j], want.axes[i]
        if a is None or b is None:
            if have.shape[j] != want.shape[i]:
                return None
            place = np.arange(want.shape[i])
        else:
            place = _along(a, b, role == "lon")
        if place is None:
            return None
        at[i] = place.reshape([-1 if k == j else 1 for k in range(len(have.shape))])
    inside = np.logical_and.reduce(np.broadcast_arrays(*[a >= 0 for a in at]))
    flat = np.ravel_multi_index(np.broadcast_arrays(*[np.maximum(a, 0) for a in at]), want.shape)
    return np.where(inside, flat, -1).ravel()


def _along(have: np.ndarray, want: np.ndarray, longitude: bool) -> np.ndarray | None:
    """The place of each coordinate, -1 beyond the ends; None where one lies between two places."""
    step = float(np.median(np.abs(np.diff(want)))) if want.size > 1 else 1.0
    away = have[:, None] - want
    away = (away + 180.0) % 360.0 - 180.0 if longitude else away
    near = np.abs(away).argmin(1)
    at = np.abs(away[np.arange(have.size), near]) <= SAME * step
    span, low = float(np.ptp(want)), float(want.min())
    beyond = (have - low + SAME * step) % 360.0 > span + 2 * SAME * step if longitude else np.zeros(have.size, bool)
    if not longitude:
        beyond = (have < low - SAME * step) | (have > low + span + SAME * step)
    if longitude and span + 1.5 * step > 360.0:
        beyond[:] = False  # all the way round
    return np.where(at, near, -1) if (at | beyond).all() else None


def _points(have: Grid, want: Grid) -> np.ndarray | None:
    """As :func:`_cells` by the latitudes and longitudes of single cells."""
    from scipy.spatial import KDTree

    target = unit_vectors(*want.points())
    known = np.isfinite(target).all(-1)
    cell = float(np.nanmedian(local_cell(target.reshape(*want.shape, 3))))
    points = unit_vectors(*have.points())
    asked = np.isfinite(points).all(-1)
    distance, near = KDTree(target[known]).query(points[asked])
    out = np.full(len(points), -1)
    out[asked] = np.where(distance <= SAME * cell, np.flatnonzero(known)[near], -1)
    return out if (distance <= SAME * cell).all() else None


def _regridder(have: Grid, want: Grid) -> Regridder:
    try:
        return Regridder(have, want)
    except DataError as error:
        raise DataError(f"the given data are of another region or grid than in training: {error}") from error
