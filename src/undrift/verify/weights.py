"""Area weights of the cells of a grid, from its coordinates."""

__all__ = ["area_weights", "cell_areas", "latitude_weights"]

import numpy as np
from numpy.typing import NDArray


def latitude_weights(latitude: NDArray) -> NDArray[np.float64]:
    """Area of each latitude band, from the midpoints between latitudes.

    The band between two edges has the area `sin(upper) - sin(lower)` per radian of longitude. On evenly spaced
    latitudes this is cos(latitude) times a constant; a row at a pole gets its cap and not zero, and the bands of a
    globe sum to 2 exactly. Where latitudes are not monotone the weights are cos(latitude).

    Args:
        latitude: (n,) degrees north.

    Returns:
        (n,) weights, positive, not normalised.
    """
    lat = np.asarray(latitude, np.float64)
    step = np.diff(lat)
    if lat.size == 1 or not (np.all(step > 0) or np.all(step < 0)):
        return np.maximum(np.cos(np.deg2rad(lat)), 0.0)
    edges = np.concatenate([[lat[0] - step[0] / 2], lat[:-1] + step / 2, [lat[-1] + step[-1] / 2]])
    return np.abs(np.diff(np.sin(np.deg2rad(np.clip(edges, -90.0, 90.0)))))


def cell_areas(latitude: NDArray, longitude: NDArray) -> NDArray[np.float64]:
    """Relative area of the cells of a curvilinear grid, |dr/di x dr/dj| on the unit sphere.

    It is right for any projection (a Lambert or rotated-pole grid has nearly equal cells, where cos(latitude) would
    be wrong) and proportional to cos(latitude) where the grid is a mesh of latitudes and longitudes.

    Args:
        latitude: (y, x) degrees north.
        longitude: (y, x) degrees east.

    Returns:
        (y, x) weights, not normalised.
    """
    lat, lon = np.deg2rad(np.asarray(latitude, np.float64)), np.deg2rad(np.asarray(longitude, np.float64))
    position = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    if min(lat.shape) < 2 or not np.isfinite(position).all():
        return np.maximum(np.nan_to_num(np.cos(lat)), 0.0)
    along_y, along_x = np.gradient(position, axis=(0, 1))
    return np.linalg.norm(np.cross(along_y, along_x), axis=-1)


def area_weights(
    space: tuple[str, ...],
    shape: tuple[int, ...],
    latitude: tuple[tuple[str, ...], NDArray] | None = None,
    longitude: tuple[tuple[str, ...], NDArray] | None = None,
) -> NDArray[np.float64]:
    """Weights of all cells, mean 1: area on geographic grids, equal where no latitude is known.

    Args:
        space: names of the space dims, as ("lat", "lon").
        shape: their sizes.
        latitude: (dims, values) of the latitude coordinate, 1-D or 2-D.
        longitude: the same for longitude; used on 2-D grids only.

    Returns:
        (*shape) weights.
    """
    weights = np.ones(shape)
    if latitude is not None:
        dims, values = latitude
        two_d = len(dims) == 2 and longitude is not None and longitude[0] == dims
        if len(dims) == 1:
            areas = latitude_weights(values)
        else:
            areas = cell_areas(values, longitude[1]) if two_d and longitude else np.cos(np.deg2rad(values))
        order = sorted(range(len(dims)), key=lambda k: space.index(dims[k]))
        areas = np.transpose(areas, order)
        weights = weights * areas.reshape([shape[k] if name in dims else 1 for k, name in enumerate(space)])
    return weights / weights.mean()
