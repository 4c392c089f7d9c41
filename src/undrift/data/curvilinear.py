"""Interpolation between grids whose latitude and longitude are 2-D."""

from __future__ import annotations

from typing import Any

import numpy as np

from undrift.errors import DataError

__all__ = ["curvilinear_weights", "local_cell", "unit_vectors"]


def unit_vectors(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, (..., 3)."""
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=-1)


def local_cell(xyz: np.ndarray) -> np.ndarray:
    """Diagonal of the cell around each point of a 2-D grid on the unit sphere; (ny, nx, 3) -> (ny, nx).

    A side along which there is one cell counts as 0.
    """
    long = [axis for axis in (0, 1) if xyz.shape[axis] > 1]
    sides = [np.linalg.norm(np.gradient(xyz, axis=axis), axis=-1) for axis in long]
    return np.hypot(*[*sides, *np.zeros((2, *xyz.shape[:2]))][:2])


def curvilinear_weights(latitude: np.ndarray, longitude: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> Any:
    """Barycentric weights of points in the triangles of a source with 2-D latitude and longitude.

    The triangulation is made in the plane of latitude and longitude, stretched to the scale of the middle latitude;
    linear functions of both are reproduced. Points outside of it take the nearest value, up to half a cell. Where the
    source is one cell across, values are linear along it and the same across it.
    """
    from scipy import sparse
    from scipy.spatial import Delaunay, KDTree

    if min(latitude.shape) < 2:
        return _row_weights(latitude.ravel(), longitude.ravel(), lat, lon)
    good, wanted = np.isfinite(latitude.ravel()), np.isfinite(lat) & np.isfinite(lon)
    xyz = unit_vectors(latitude.ravel(), longitude.ravel())
    cell = local_cell(xyz.reshape(*latitude.shape, 3)).ravel()
    columns = np.flatnonzero(good & np.isfinite(longitude.ravel()))
    if columns.size < 4 or not wanted.any():
        raise DataError("the 2-D latitude and longitude of the given data or of the target are all missing")
    far, near = KDTree(xyz[columns]).query(unit_vectors(lat[wanted], lon[wanted]))
    nearest = columns[near]
    size = np.where(np.isfinite(cell[nearest]), cell[nearest], np.nanmedian(cell))
    beyond = far > 0.55 * size
    if beyond.any():
        worst = np.flatnonzero(wanted)[np.argmax(far / size)]
        distance, side = np.rad2deg((far / size).max() * np.median(size)), np.rad2deg(np.median(size))
        raise DataError(
            f"{int(beyond.sum())} of {beyond.size} cells of the target lie outside of the given data, the farthest at "
            f"latitude {lat[worst]:.4g}, longitude {lon[worst]:.4g}, about {distance:.3g} degrees from the nearest "
            f"cell (cells are {side:.3g} degrees across): give data that cover it, or ask for less with --select"
        )
    centre, stretch = _plane(lat[wanted], lon[wanted])
    slat = latitude.ravel()[columns]
    slon = (longitude.ravel()[columns] - centre + 180.0) % 360.0 - 180.0
    seam = [(slon > 150, -360.0), (slon < -150, 360.0)]  # neighbours across the seam, for sources that go round
    slat = np.concatenate([slat, *(slat[m] for m, _ in seam)])
    columns = np.concatenate([columns, *(columns[m] for m, _ in seam)])
    slon = np.concatenate([slon, *(slon[m] + shift for m, shift in seam)])
    mesh = Delaunay(np.stack([slat, slon * stretch], axis=-1))
    points = np.stack([lat[wanted], ((lon[wanted] - centre + 180.0) % 360.0 - 180.0) * stretch], axis=-1)
    simplex = mesh.find_simplex(points, tol=1e-9)
    inside = simplex >= 0
    affine = mesh.transform[simplex[inside]]
    partial = np.einsum("nij,nj->ni", affine[:, :2], points[inside] - affine[:, 2])
    bary = np.clip(np.concatenate([partial, 1 - partial.sum(axis=1, keepdims=True)], axis=1), 0, None)
    bary /= bary.sum(axis=1, keepdims=True)
    bary[np.abs(bary - np.round(bary)) < 1e-9] = np.round(bary[np.abs(bary - np.round(bary)) < 1e-9])
    rows = np.flatnonzero(wanted)
    data = np.concatenate([bary.ravel(), np.ones(int((~inside).sum()))])
    at = np.concatenate([np.repeat(rows[inside], 3), rows[~inside]])
    to = np.concatenate([columns[mesh.simplices[simplex[inside]]].ravel(), nearest[~inside]])
    return sparse.csr_matrix((data, (at, to)), shape=(lat.size, int(np.prod(latitude.shape))))


def _plane(lat: np.ndarray, lon: np.ndarray) -> tuple[float, float]:
    """Of some points the middle longitude, and the length of a degree of longitude in degrees of latitude."""
    centre = np.rad2deg(np.arctan2(*unit_vectors(lat, lon).mean(axis=0)[1::-1]))
    return float(centre), max(0.05, float(np.cos(np.deg2rad(np.median(lat)))))


def _row_weights(latitude: np.ndarray, longitude: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> Any:
    """Weights of points beside a single row of cells, by their nearest place on the line through the cells' centres.

    How wide the cells are is not known: the points must lie on both sides of the line alike, as those do whose means
    the cells are.
    """
    from scipy import sparse

    columns = np.flatnonzero(np.isfinite(latitude) & np.isfinite(longitude))
    rows = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if not columns.size or not rows.size:
        raise DataError("the 2-D latitude and longitude of the given data or of the target are all missing")
    centre, stretch = _plane(lat[rows], lon[rows])
    line = latitude[columns] + 1j * stretch * ((longitude[columns] - centre + 180.0) % 360.0 - 180.0)
    points = lat[rows] + 1j * stretch * ((lon[rows] - centre + 180.0) % 360.0 - 180.0)
    single = columns.size == 1
    if single:
        line, columns = np.repeat(line, 2), np.repeat(columns, 2)
    sides = np.diff(line)
    units = np.where(sides == 0, 1, sides)
    segment, foot = np.zeros(rows.size, np.int64), np.full(rows.size, np.inf, complex)
    for k, (start, side, unit) in enumerate(zip(line[:-1], sides, units)):
        near = start + np.clip(((points - start) / unit).real, 0, 1) * side
        closer = np.abs(points - near) < np.abs(points - foot)
        segment, foot = np.where(closer, k, segment), np.where(closer, near, foot)
    along = ((points - line[segment]) / units[segment]).real
    beyond = np.maximum(np.where(segment == 0, -along, 0), np.where(segment == sides.size - 1, along - 1, 0)).max()
    away = points - foot
    lopsided = np.abs(away.mean()) > 0.2 * max(np.abs(away).max(), 0.05 * np.abs(sides).max())
    if lopsided or (beyond > 0.55 and not single):
        raise DataError(
            "the target does not lie on both sides of the given data, which are one cell across with 2-D latitude and "
            "longitude: give data of two cells or more along each side that cover it, or type a smaller --factor"
        )
    part = np.clip(along, 0, 1)
    part = np.where(np.abs(part - np.round(part)) < 1e-9, np.round(part), part)
    to = np.concatenate([columns[segment], columns[segment + 1]])
    where = (np.tile(rows, 2), to)
    out = sparse.csr_matrix((np.concatenate([1 - part, part]), where), shape=(lat.size, latitude.size))
    out.eliminate_zeros()
    return out
