"""Does the model draw new fields or repeat its training data: distances to the nearest training field."""

__all__ = ["nearest_distances", "nearest_training"]

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.verify.law import seeded
from undrift.verify.match import axes_of, same_cells
from undrift.verify.stream import Reader, blocks

_MOST_TRAIN, _MOST_QUERIES, _MOST_CELLS = 5000, 2000, 4096
_SAME = 1e-4  # standard deviations: fields nearer than this are one field, up to the rounding of a file
_MOST_KNOWN = 0.1


def nearest_distances(queries: NDArray, train: NDArray) -> NDArray[np.float64]:
    """Distances to the two nearest rows of `train`: (n, d) and (N, d) -> (n, 2), per root of d; inf where none."""
    square = np.square(queries).sum(1)[:, None] + np.square(train).sum(1) - 2.0 * queries @ train.T
    square = np.sort(np.maximum(square, 0.0), axis=1)[:, :2]
    if square.shape[1] < 2:
        square = np.pad(square, ((0, 0), (0, 2 - square.shape[1])), constant_values=np.inf)
    return np.sqrt(square / queries.shape[1])


def nearest_training(
    ensemble: xr.Dataset,
    train: xr.Dataset,
    *,
    truth: xr.Dataset,
    rows: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Distance of members to their nearest training field, beside that of the truth.

    Fields are anomalies from the training mean in units of the training deviation, per cell. A model that has learnt
    the law draws members as far from the training data as unseen truths are; one that repeats its training data draws
    them nearer. A copy shows as a nearest neighbour three times nearer than the second nearest.

    Args:
        ensemble: members.
        train: training fields on the same grid.
        truth: unseen fields.
        rows: flat samples of ensemble and of truth to use; all where None or empty.
        seed: of the choice of rows and cells where there are very many.

    Returns:
        memorisation: median member distance / median truth distance, NaN where more than a tenth of the truths are
        training fields themselves, for then there is nothing unseen to compare with; memorisation_known: that share;
        memorisation_copies: share of members that are copies; memorisation_member and memorisation_truth: the two
        medians in standard deviations.
    """
    names = [str(name) for name in ensemble.data_vars if name in train.data_vars and name in truth.data_vars]
    if not names:
        return xr.Dataset()
    axes = axes_of(ensemble, truth, names)
    dims = (*sorted({dim for name in names for dim in axes.level(ensemble[name])}), *axes.space)
    ours, theirs = rows if rows is not None and rows[0].size else (None, None)
    matrices: list[NDArray] = []
    for source, pick, what in ((train, None, "train"), (truth, theirs, "truth"), (ensemble, ours, "ensemble")):
        on_grid = source if what == "ensemble" else same_cells(source, ensemble, dims, axes, f"the {what}")
        member = axes.realization if axes.realization in on_grid.dims else None
        matrices.append(_matrix(on_grid, names, axes.space, member, ensemble, axes.level, pick, what, seed))
    return _compared(*matrices)


def _compared(train: NDArray, truth: NDArray, ensemble: NDArray) -> xr.Dataset:
    """What the fields of :func:`nearest_training` say, each (rows, cells); nothing where no cell or no row is left."""
    known = np.isfinite(train).all(0) & np.isfinite(truth).any(0) & np.isfinite(ensemble).any(0)
    train, truth, ensemble = train[:, known], truth[:, known], ensemble[:, known]
    mean, deviation = train.mean(0), train.std(0)
    keep = deviation > 0
    if not keep.any():
        return xr.Dataset()

    def scaled(matrix: NDArray) -> NDArray:
        return ((matrix - mean) / np.where(keep, deviation, 1.0))[:, keep]

    def whole(matrix: NDArray) -> NDArray:
        return matrix[np.isfinite(matrix[:, keep]).all(1)]

    base = np.unique(scaled(train), axis=0)  # a field that occurs twice would hide its own copies
    truth, ensemble = whole(truth), whole(ensemble)
    member, unseen = (nearest_distances(scaled(fields), base) for fields in (ensemble, truth))
    if not len(member) or not len(unseen):
        return xr.Dataset()
    # A field of one value, such as a day without rain, occurs again without having been seen.
    leaked = (unseen[:, 0] < _SAME) & (np.nanstd(truth, axis=1) > 0)
    share = float(leaked.mean())
    ours, theirs = float(np.median(member[:, 0])), float(np.median(unseen[:, 0]))
    if share <= _MOST_KNOWN:
        theirs = float(np.median(unseen[~leaked, 0]))
    return xr.Dataset(
        {
            "memorisation": ((), ours / theirs if theirs > _SAME and share <= _MOST_KNOWN else np.nan),
            "memorisation_known": ((), share),
            "memorisation_copies": ((), float((member[:, 0] < member[:, 1] / 3.0).mean())),
            "memorisation_member": ((), ours),
            "memorisation_truth": ((), theirs),
        }
    )


def _matrix(
    ds: xr.Dataset,
    names: Sequence[str],
    space: tuple[str, ...],
    realization: str | None,
    ensemble: xr.Dataset,
    level_of: Callable[[xr.DataArray], tuple[str, ...]],
    rows: NDArray[np.intp] | None,
    what: str,
    seed: int,
) -> NDArray[np.float64]:
    """Fields as rows, at most some thousand rows and cells: (rows, cells of all channels)."""
    columns: list[NDArray] = []
    for name in names:
        level = tuple(dim for dim in level_of(ensemble[name]) if dim in ds[name].dims)
        sample = tuple(str(d) for d in ds[name].dims if d not in (*level, *space, realization))
        count = int(np.prod([ds.sizes[dim] for dim in sample], dtype=int))
        pick = np.arange(count) if rows is None else rows
        most = _MOST_TRAIN if what == "train" else _MOST_QUERIES
        if pick.size > most:
            pick = np.sort(seeded(seed, "nearest", what).choice(pick, most, False))
        reader = Reader(ds[name], realization, sample, level, space, pick, f"the {what}")
        width = reader.levels * reader.cells
        cells = np.arange(width)
        if width > _MOST_CELLS:
            cells = np.sort(seeded(seed, "nearest cells", name).choice(width, _MOST_CELLS, False))
        members = max(1, min(reader.members, _MOST_QUERIES // max(1, len(reader))))
        parts = [reader.read(part)[:members].reshape(members, -1, width)[..., cells] for part in blocks([reader])]
        columns.append(np.concatenate(parts, axis=1).reshape(-1, cells.size))
    return np.concatenate(columns, axis=1)
