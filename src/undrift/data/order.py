"""The canonical order of latitude and longitude, and the way back to the order in which the data came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from undrift.errors import DataError

__all__ = ["Order", "canonical_order", "is_global", "refuse_repeated", "span", "unwrap"]

_OPEN = 10.0  # degrees without cells that are the outside of a region, and no hole in a global grid


def unwrap(longitude: np.ndarray) -> np.ndarray:
    """Longitudes in degrees with jumps of 360 removed, so that 350, 355, 0, 5 become 350, 355, 360, 365.

    A region that was sorted across the seam, such as 0, 5, 350, 355, is put together again: 360, 365, 350, 355. Other
    longitudes that are strictly monotone are returned as they are.
    """
    lon = np.asarray(longitude, dtype=np.float64)
    if lon.size < 2:
        return lon
    step = np.diff(lon)
    if np.all(step > 0):
        return _joined(lon)
    if np.all(step < 0):
        return _joined(lon[::-1])[::-1]
    wrapped = (step + 180.0) % 360.0 - 180.0
    out = lon[0] + np.concatenate([[0.0], np.cumsum(wrapped)])
    return lon + 360.0 * np.round((out - lon) / 360.0)


def _joined(lon: np.ndarray) -> np.ndarray:
    """Ascending longitudes; those before a gap that is wider than the way round move to its other side."""
    step = np.diff(lon)
    gap, seam = int(step.argmax()), lon[0] + 360.0 - lon[-1]
    usual = np.median(step)
    if lon.size < 4 or seam <= 0 or seam > 1.5 * usual or step[gap] < 3 * usual:
        return lon
    return np.concatenate([lon[: gap + 1] + 360.0, lon[gap + 1 :]])


def span(longitude: np.ndarray) -> tuple[float, float]:
    """Western and eastern end of longitudes of any shape: -10 and 10, not 0 and 359, for a region across Greenwich."""
    lon = np.asarray(longitude, dtype=np.float64)
    lon = lon[np.isfinite(lon)]
    low, high = float(lon.min(initial=np.inf)), float(lon.max(initial=-np.inf))
    round_ = np.sort(lon % 360.0)
    gaps = np.diff(round_, append=round_[:1] + 360.0)
    widest = float(gaps.max(initial=0.0))
    if widest < _OPEN or high - low <= 360.0 - widest + 1e-6:
        return low, high
    first = float(round_[(int(gaps.argmax()) + 1) % lon.size])
    first -= 360.0 if first + 360.0 - widest > 360.0 else 0.0
    return first, first + 360.0 - widest


def is_global(longitude: np.ndarray) -> bool:
    """Whether equally spaced longitudes go once around: size times step is 360 within a thousandth of a step."""
    lon = np.asarray(longitude, dtype=np.float64)
    if lon.ndim != 1 or lon.size < 3 or not np.isfinite(lon).all():
        return False
    steps = np.diff(lon)
    step = (lon[-1] - lon[0]) / (lon.size - 1)
    even = np.allclose(steps, step, rtol=0, atol=max(1e-3 * abs(step), 1e-4))
    return bool(even and step > 0 and abs(lon.size * step - 360.0) <= max(1e-3 * step, 4e-5 * lon.size))


def _eastward(longitude: np.ndarray) -> np.ndarray:
    """Global longitudes between 0 and 360: whatever meridian the data begin with, the same draws are made for them."""
    lon = np.asarray(longitude, dtype=np.float64)
    rounding = 0.36 / lon.size  # a thousandth of a step
    return lon - 360.0 * np.floor((lon + rounding) / 360.0)


@dataclass(frozen=True)
class Order:
    """How canonical coordinates were made from the user's, for each dimension that was changed.

    Attributes:
        positions: Per dimension the user's position of each canonical cell, ``canonical = user[positions]``.
        canonical: Per dimension the canonical coordinate values.
        original: Per dimension the user's coordinate values, in the user's order.
    """

    positions: dict[str, np.ndarray] = field(default_factory=dict)
    canonical: dict[str, np.ndarray] = field(default_factory=dict)
    original: dict[str, np.ndarray] = field(default_factory=dict)

    def apply(self, ds: xr.Dataset) -> xr.Dataset:
        """The dataset in canonical order (it must have the user's order and sizes)."""
        for dim, index in self.positions.items():
            if dim not in ds.dims:
                continue
            ds = ds.isel({dim: _as_slice(index)})
            if dim in ds.coords:
                ds = ds.assign_coords({dim: (dim, self.canonical[dim], ds[dim].attrs, ds[dim].encoding)})
        return ds

    def restore(self, ds: xr.Dataset) -> xr.Dataset:
        """The dataset in the user's order and with the user's coordinate values.

        Cells are recognised by their coordinates, so part of the domain is restored too. Coordinates on another grid (a
        coarsened one) keep their values, in the direction and the range of longitudes of the user's.
        """
        for dim in self.positions:
            if dim in ds.dims and dim in ds.coords:
                ds = self._restore_dim(ds, dim)
        return ds

    def _restore_dim(self, ds: xr.Dataset, dim: str) -> xr.Dataset:
        have = np.asarray(ds[dim].values, dtype=np.float64)
        canonical, original = self.canonical[dim], self.original[dim]
        attrs, encoding = ds[dim].attrs, ds[dim].encoding
        where = np.abs(np.asarray(canonical, dtype=np.float64)[None, :] - have[:, None])
        nearest = where.argmin(axis=1)
        spacing = np.abs(np.diff(canonical)).min() if canonical.size > 1 else 1.0
        if np.all(where[np.arange(have.size), nearest] <= 1e-3 * spacing):
            positions = self.positions[dim][nearest]
            order = np.argsort(positions, kind="stable")
            values = original[positions[order]]
        else:
            values = have
            if np.any(original != canonical[np.argsort(self.positions[dim])]):  # longitudes were unwrapped
                values = (have - original.min()) % 360.0 + original.min()
            steps = np.diff(original.astype(np.float64))
            if np.all(steps > 0) or np.all(steps < 0):
                order = np.argsort(values if np.all(steps > 0) else -values, kind="stable")
            else:
                falling = self.positions[dim][0] > self.positions[dim][-1]
                order = np.arange(have.size)[:: -1 if falling else 1]
            values = values[order]
        return ds.isel({dim: _as_slice(order)}).assign_coords({dim: (dim, values, attrs, encoding)})

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; ``from_dict`` is its inverse."""
        return {
            dim: {
                "positions": self.positions[dim].tolist(),
                "canonical": self.canonical[dim].tolist(),
                "original": self.original[dim].tolist(),
                "dtype": str(self.original[dim].dtype),
            }
            for dim in self.positions
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Order:
        """The order that ``to_dict`` wrote."""
        return cls(
            positions={dim: np.asarray(item["positions"], dtype=np.int64) for dim, item in given.items()},
            canonical={dim: np.asarray(item["canonical"], dtype=item["dtype"]) for dim, item in given.items()},
            original={dim: np.asarray(item["original"], dtype=item["dtype"]) for dim, item in given.items()},
        )

    def crop(self, dim: str, index: np.ndarray) -> Order:
        """The order after only the canonical cells ``index`` of a dimension are kept."""
        if dim not in self.positions:
            return self
        kept = self.positions[dim][index]
        rank = np.argsort(np.argsort(kept, kind="stable"), kind="stable")
        return Order(
            {**self.positions, dim: rank},
            {**self.canonical, dim: self.canonical[dim][index]},
            {**self.original, dim: self.original[dim][np.sort(kept)]},
        )


def canonical_order(ds: xr.Dataset, latitude: str | None, longitude: str | None) -> Order:
    """The order that makes 1-D latitudes ascend, and 1-D longitudes ascend without a jump, global ones from 0."""
    order = Order()
    for name in (latitude, longitude):
        if name is None or name not in ds.coords or ds[name].dims != (name,):
            continue
        original = np.asarray(ds[name].values)
        if original.dtype.kind not in "iuf":
            continue
        values = unwrap(original) if name == longitude else original
        if name == longitude and is_global(np.sort(values)):
            values = _eastward(values)
        positions = np.argsort(values, kind="stable")
        order.positions[name] = positions
        order.original[name] = original
        order.canonical[name] = values[positions].astype(original.dtype)
    return order


def refuse_repeated(ds: xr.Dataset, order: Order, space: Sequence[str], latitude: str | None, where: str) -> None:
    """Raises DataError where coordinates of a canonical grid are not numbers or occur twice.

    Those beside a 2-D latitude only count cells and are not looked at.
    """
    if latitude is not None and ds[latitude].ndim == 2:
        return
    for dim in space:
        if dim not in ds.coords or ds[dim].dtype.kind not in "iuf":
            continue
        values = np.asarray(ds[dim].values, dtype=np.float64)
        original = order.original.get(dim, values)
        odd = original[~np.isfinite(original)]
        if odd.size:
            raise DataError(
                f"{where}: the coordinate {dim} is {odd[0]:g} in {odd.size} of {values.size} cells; correct it in the "
                "file, or remove the coordinate"
            )
        known, counts = np.unique(values, return_counts=True)
        if counts.max(initial=1) > 1:
            raise DataError(
                f"{where}: the coordinate {dim} has the value {known[counts.argmax()]:g} {_times(counts.max())}; each "
                "cell needs its own, so correct it in the file or leave the repeated cells out"
            )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are a run up or down, which keeps lazy arrays cheap."""
    n = index.size
    if n > 0 and np.array_equal(index, np.arange(index[0], index[0] + n)):
        return slice(int(index[0]), int(index[0]) + n)
    if n > 0 and np.array_equal(index, np.arange(index[0], index[0] - n, -1)):
        stop = int(index[0]) - n
        return slice(int(index[0]), None if stop < 0 else stop, -1)
    return index
