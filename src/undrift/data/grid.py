"""Grids as coordinates, and the linear operator from one to another.

Points are matched by their coordinates, never by index; longitudes are compared modulo 360. An axis coarser than the
target is interpolated linearly; one that is at least 1.6 times finer is averaged over the target's cells, since picking
single points of it would alias. The operator is a sparse matrix, made once and used for every sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from undrift.data.cf import recognise
from undrift.data.curvilinear import curvilinear_weights, local_cell, unit_vectors
from undrift.data.layout import Layout
from undrift.errors import DataError

__all__ = ["Grid", "Regridder", "axis_weights"]

FINER = 1.0 / 1.6
SAME = 1e-3  # of a cell


@dataclass(frozen=True)
class Grid:
    """Where the cells of a field are.

    Attributes:
        space: dims of space in the order of the arrays, (z,) y, x.
        shape: their sizes.
        axes: per dim its 1-D coordinate, or None where it has none (cells are then taken to fill the same box).
        periodic: per dim, whether its ends are neighbours.
        latitude: of the cells in degrees, 2-D over the last two dims; None unless the grid is curvilinear.
        longitude: likewise.
        roles: per dim "lat", "lon" or its name.
    """

    space: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[np.ndarray | None, ...]
    periodic: tuple[bool, ...]
    latitude: np.ndarray | None
    longitude: np.ndarray | None
    roles: tuple[str, ...]

    @classmethod
    def of(cls, data: Any, layout: Layout | None = None) -> Grid:
        """The grid of Fields, or of a dataset with (or, by its names and attributes, without) a layout."""
        if layout is None and hasattr(data, "layout"):
            data, layout = data.dataset, data.layout
        if layout is None:
            roles = recognise(data)
            space, lat, lon = roles.space, roles.latitude, roles.longitude
            periodic = tuple(False for _ in space)
        else:
            space, lat, lon, periodic = layout.space, layout.latitude, layout.longitude, layout.periodic
        if not space:
            raise DataError(f"no dims of space are recognised in {list(data.sizes)}; name them with --dims time,y,x")
        two = lat is not None and lon is not None and data[lat].ndim == 2
        axes, names = [], []
        for dim in space:
            known = dim in data.coords and data[dim].dtype.kind in "iuf"
            axes.append(np.asarray(data[dim].values, np.float64) if known else None)
            names.append("lat" if dim == lat else "lon" if dim == lon else dim)
        return cls(
            space=tuple(space),
            shape=tuple(int(data.sizes[d]) for d in space),
            axes=tuple(axes),
            periodic=tuple(periodic),
            latitude=data[lat].transpose(*space[-2:]).values.astype(np.float64) if two and lat else None,
            longitude=data[lon].transpose(*space[-2:]).values.astype(np.float64) if two and lon else None,
            roles=tuple(names),
        )

    @property
    def curvilinear(self) -> bool:
        """Whether latitude and longitude are 2-D."""
        return self.latitude is not None

    @property
    def geographic(self) -> bool:
        """Whether latitude and longitude are known."""
        return self.curvilinear or {"lat", "lon"} <= set(self.roles)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every cell of the last two dims, flattened."""
        if self.latitude is not None and self.longitude is not None:
            return self.latitude.ravel(), self.longitude.ravel()
        lat = self.axes[self.roles.index("lat")]
        lon = self.axes[self.roles.index("lon")]
        assert lat is not None and lon is not None
        latitude_first = self.roles.index("lat") < self.roles.index("lon")
        grid = np.meshgrid(lat, lon, indexing="ij") if latitude_first else np.meshgrid(lat, lon)
        return grid[0].ravel(), grid[1].ravel()

    def same(self, other: Grid) -> bool:
        """Whether both have the same cells in the same order, within a thousandth of a cell (longitudes modulo 360)."""
        if self.shape != other.shape:
            return False
        if self.curvilinear and other.curvilinear:
            mine, theirs = self.points(), other.points()
            cell = np.nanmedian(local_cell(unit_vectors(*other.points()).reshape(*other.shape[-2:], 3)))
            near = np.linalg.norm(unit_vectors(*mine) - unit_vectors(*theirs), axis=-1) <= SAME * cell
            flat = bool(np.all(near | ~np.isfinite(mine[0]) & ~np.isfinite(theirs[0])))
            pairs = list(zip(self.axes, other.axes, self.roles))[:-2]
        elif self.curvilinear or other.curvilinear:
            return False
        else:
            flat, pairs = True, list(zip(self.axes, other.axes, self.roles))
            if self.geographic and other.geographic and self.roles != other.roles:
                return False
        return flat and all(_same_axis(a, b, role) for a, b, role in pairs)


class Regridder:
    """The linear operator from a source grid to a target grid.

    Args:
        source: the grid of what is given.
        target: the grid on which it is wanted.

    Attributes:
        identity: the grids are the same; arrays come back as they are.
        interpolates: some value is interpolated, and so is no value nor mean over a cell of the source.
        notes: sentences on what is done.

    Raises:
        DataError: the target reaches beyond the source by more than half a source cell, or the two cannot be related.
    """

    def __init__(self, source: Grid, target: Grid) -> None:
        self.source, self.target = source, target
        self.notes: list[str] = []
        empty = [dim for dim, size in zip(source.space, source.shape) if size == 0]
        if empty:
            raise DataError(f"the given data have no cells along {empty[0]!r}")
        self._order = list(range(len(source.shape)))
        self.identity, self.interpolates = source.same(target), False
        self.weights: Any = None if self.identity else self._build()

    def _build(self) -> Any:
        from scipy import sparse

        source, target = self.source, self.target
        if source.geographic != target.geographic and (source.geographic or target.geographic):
            have, lack = ("given data", "target") if source.geographic else ("target", "given data")
            raise DataError(
                f"the {have} have latitude and longitude and the {lack} have none: they cannot be brought together"
            )
        if len(source.shape) != len(target.shape):
            raise DataError(
                f"the given data have {len(source.shape)} dims of space {source.space}, the target {target.space}"
            )
        if source.curvilinear or target.curvilinear:
            lat, lon = target.points()
            if source.latitude is not None and source.longitude is not None:
                flat = curvilinear_weights(source.latitude, source.longitude, lat, lon)
            else:
                flat = _point_weights(source, lat, lon)
            rest, self.interpolates = range(len(source.shape) - 2), True
            self.notes.append(
                "interpolated linearly between 2-D grids" if source.curvilinear else "interpolated bilinearly"
            )
            parts = [*(self._axis(i, i) for i in rest), flat]
        else:
            self._order = [
                source.roles.index(role) if role in source.roles else i for i, role in enumerate(target.roles)
            ]
            if sorted(self._order) != list(range(len(self._order))):
                raise DataError(
                    f"the given data lie over {source.space}, the target over {target.space}: name them alike"
                )
            parts = [self._axis(i, j) for i, j in enumerate(self._order)]
        out = parts[0]
        for part in parts[1:]:
            out = sparse.kron(out, part, format="csr")
        return sparse.csr_matrix(out)

    def _axis(self, i: int, j: int) -> Any:
        """Weights along target axis i from source axis j."""
        source, target = self.source, self.target
        have, want, name = source.axes[j], target.axes[i], target.space[i]
        periodic = source.periodic[j] and target.periodic[i]
        if have is None or want is None:
            n, m = source.shape[j], target.shape[i]
            ratio = max(n, m) / min(n, m)
            if not np.isclose(ratio, round(ratio)):
                raise DataError(
                    f"{name!r} has no coordinates and {n} cells in the given data, {m} in the target, which are no "
                    "multiples of one another: give both files coordinates"
                )
            have, want = (np.arange(n) + 0.5) / n, (np.arange(m) + 0.5) / m
            if n != m:
                self.notes.append(f"{name!r} has no coordinates: both grids are taken to fill the same box")
        weights, how = axis_weights(have, want, name, longitude=target.roles[i] == "lon", periodic=periodic)
        if how == "mean":
            self.notes.append(f"{name!r} is finer in the given data: averaged over the cells of the target")
        elif not (weights.data == 1).all():
            self.interpolates = True
        return weights

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Brings fields to the target's grid.

        Args:
            array: (..., *source shape), NaN = missing.

        Returns:
            (..., *target shape) of the same float dtype. A cell is NaN where less than half of its weight
            falls on values that are not missing; else the weights of those are scaled to sum to 1.
        """
        array = np.asarray(array)
        if self.weights is None:
            return array
        lead = array.shape[: array.ndim - len(self.source.shape)]
        if array.shape[len(lead) :] != self.source.shape:
            raise DataError(f"an array of shape {array.shape} does not end with the grid's {self.source.shape}")
        if self._order != sorted(self._order):
            array = np.moveaxis(array, [len(lead) + j for j in self._order], range(len(lead), array.ndim))
        rows = array.reshape(-1, self.weights.shape[1])
        kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
        out = np.empty((rows.shape[0], self.weights.shape[0]), kind)
        step = max(1, (1 << 24) // max(self.weights.shape))
        for start in range(0, rows.shape[0], step):
            out[start : start + step] = self._apply(rows[start : start + step])
        return out.reshape(*lead, *self.target.shape)

    def _apply(self, rows: np.ndarray) -> np.ndarray:
        assert self.weights is not None
        valid = ~np.isnan(rows)
        if valid.all():
            return (self.weights @ rows.T).T
        total = (self.weights @ np.where(valid, rows, 0.0).T).T
        share = (self.weights @ valid.T.astype(np.float64)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(share < 0.5 - 1e-9, np.nan, np.where(share > 1 - 1e-9, total, total / share))


def axis_weights(
    source: np.ndarray, target: np.ndarray, name: str, *, longitude: bool = False, periodic: bool = False
) -> tuple[Any, str]:
    """Weights (target size, source size) along one axis.

    Args:
        source: coordinates of the source in any order.
        target: coordinates wanted.
        name: what to call the axis in errors.
        longitude: compare modulo 360; goes round where no gap is wider than 1.5 cells.
        periodic: the ends are neighbours, at the distance of the mean step.

    Returns:
        The weights, and "linear" or "mean".

    Raises:
        DataError: source values repeat, or the target lies outside by more than half a source cell.
    """
    from scipy import sparse

    have, want, index = _beside(source, target, name, longitude, periodic)
    if (
        have.size > 1
        and want.size > 1
        and np.median(np.diff(have)) <= FINER * np.median(np.abs(np.diff(np.sort(want))))
    ):
        return _overlap(have, want, index, source.size), "mean"
    left, right, part = _bracket(have, want, index)
    rows = np.arange(want.size)
    where = (np.concatenate([rows, rows]), np.concatenate([left, right]))
    out = sparse.csr_matrix((np.concatenate([1 - part, part]), where), shape=(want.size, source.size))
    out.eliminate_zeros()
    return out, "linear"


def _beside(
    source: np.ndarray, target: np.ndarray, name: str, longitude: bool, periodic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ascending source with its neighbours across the seam, target moved beside it, positions in the source)."""
    index, have, want, period = _unroll(source, target, longitude, periodic)
    if have.size == 1:
        # the mean of all target cells holds for each of them; of another single cell the width is not known
        if abs(want.mean() - have[0]) > max(SAME * np.ptp(want), 1e-6 * max(1.0, abs(have[0]))):
            raise DataError(
                f"the given data have the one {name} {have[0]:g}; the target has {want.min():g} to {want.max():g}"
            )
        return have, want, index
    if np.diff(have).min() <= 0:
        raise DataError(f"{name!r} of the given data has the value {have[np.argmin(np.diff(have))]:g} twice")
    if period is not None:
        have = np.concatenate([have[-1:] - period, have, have[:1] + period])
        index = np.concatenate([index[-1:], index, index[:1]])
    _refuse_outside(have, want, name, np.diff(have))
    return have, want, index


def _bracket(have: np.ndarray, want: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left, right, part): the target is (1 - part) * source[left] + part * source[right]."""
    if have.size == 1:
        zero = np.zeros(want.size, np.int64)
        return zero, zero, np.zeros(want.size)
    right = np.clip(np.searchsorted(have, want), 1, have.size - 1)
    part = np.clip((want - have[right - 1]) / (have[right] - have[right - 1]), 0.0, 1.0)
    part = np.where(np.abs(part - np.round(part)) < 1e-6, np.round(part), part)  # 1e-7 of noise is no interpolation
    return index[right - 1], index[right], part


def _unroll(
    source: np.ndarray, target: np.ndarray, longitude: bool, periodic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float | None]:
    """(positions, ascending source, target moved beside it, period or None)."""
    have, want = np.asarray(source, np.float64), np.asarray(target, np.float64)
    period: float | None = None
    if longitude:
        have = have % 360.0
    index = np.argsort(have, kind="stable")
    have = have[index]
    if longitude:
        gaps = np.append(np.diff(have), have[0] + 360.0 - have[-1])
        cut = int(np.argmax(gaps))  # the seam goes where there are no data
        have = np.concatenate([have[cut + 1 :] - 360.0, have[: cut + 1]])
        index = np.concatenate([index[cut + 1 :], index[: cut + 1]])
        if have.size > 2 and gaps[cut] <= 1.5 * np.median(gaps):
            period = 360.0
        middle = have[0] + (have[-1] - have[0]) / 2
        want = (want - middle + 180.0) % 360.0 - 180.0 + middle
    elif periodic and have.size > 1:
        period = float(have.size * (have[-1] - have[0]) / (have.size - 1))
        want = (want - have[0]) % period + have[0]
    return index, have, want, period


def _refuse_outside(have: np.ndarray, want: np.ndarray, name: str, steps: np.ndarray) -> None:
    """Raises DataError where the target lies more than half a source cell (and a thousandth) outside."""
    for beyond, edge, cell, worst in (
        (have[0] - want.min(), have[0], steps[0], want.min()),
        (want.max() - have[-1], have[-1], steps[-1], want.max()),
    ):
        if beyond > (0.5 + SAME) * cell:
            raise DataError(
                f"the target's {name} reaches {worst:g}, {beyond:.4g} ({beyond / cell:.3g} cells) beyond the given "
                f"data, which end at {edge:g} with cells of {cell:.4g}: give data that cover it, or ask for less "
                "with --select"
            )


def _overlap(have: np.ndarray, want: np.ndarray, index: np.ndarray, size: int) -> Any:
    """Share of each source cell in each target cell, scaled to sum to 1."""
    from scipy import sparse

    order = np.argsort(want, kind="stable")
    edges, wide = _edges(have), _edges(want[order])
    rows, columns, data = [], [], []
    for row, low, high in zip(order, wide[:-1], wide[1:]):
        first = max(0, int(np.searchsorted(edges, low, side="right")) - 1)
        last = min(have.size, int(np.searchsorted(edges, high, side="left")))
        share = np.minimum(edges[first + 1 : last + 1], high) - np.maximum(edges[first:last], low)
        share = np.where(share > 1e-6 * (high - low), share, 0.0)
        rows += [row] * share.size
        columns += list(index[first:last])
        data += list(share / share.sum())
    out = sparse.csr_matrix((data, (rows, columns)), shape=(want.size, size))
    out.eliminate_zeros()
    return out


def _edges(values: np.ndarray) -> np.ndarray:
    """Cell edges midway between ascending centres."""
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[values[0] - (middle[0] - values[0])], middle, [values[-1] + (values[-1] - middle[-1])]])


def _point_weights(source: Grid, lat: np.ndarray, lon: np.ndarray) -> Any:
    """Bilinear weights of scattered points in a source with 1-D latitude and longitude."""
    from scipy import sparse

    i, j = source.roles.index("lat"), source.roles.index("lon")
    a, b = source.axes[i], source.axes[j]
    assert a is not None and b is not None
    first = _bracket(*_beside(a, lat, "latitude", False, False))
    second = _bracket(*_beside(b, lon, "longitude", True, False))
    if i > j:
        first, second = second, first
    width, rows = source.shape[-1], np.arange(lat.size)
    columns, data = [], []
    for y, share in ((first[0], 1 - first[2]), (first[1], first[2])):
        for x, part in ((second[0], 1 - second[2]), (second[1], second[2])):
            columns.append(y * width + x)
            data.append(share * part)
    where = (np.tile(rows, 4), np.concatenate(columns))
    out = sparse.csr_matrix((np.concatenate(data), where), shape=(lat.size, source.shape[-2] * width))
    out.eliminate_zeros()
    return out


def _same_axis(a: np.ndarray | None, b: np.ndarray | None, role: str) -> bool:
    """Whether two axes of equal size have the same values, within a thousandth of a cell."""
    if a is None or b is None:
        return a is None and b is None
    away = np.abs(a - b)
    if role == "lon":
        away = np.minimum(away % 360.0, -away % 360.0)
    cell = np.abs(np.diff(a)).min() if a.size > 1 else max(1.0, np.abs(a).max())
    return bool(np.all(away <= SAME * cell))
