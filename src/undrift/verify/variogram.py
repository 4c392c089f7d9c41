"""Variogram score over pairs of neighbouring cells: does the ensemble have the right joint structure."""

__all__ = ["draw_pairs", "variogram_score"]

from itertools import product

import numpy as np
from numpy.typing import NDArray


def draw_pairs(
    shape: tuple[int, ...],
    periodic: tuple[bool, ...],
    valid: NDArray[np.bool_],
    *,
    count: int = 256,
    reach: int = 3,
    seed: int = 0,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Seeded pairs of cells within a few grid steps of each other.

    Args:
        shape: sizes of space.
        periodic: per axis, whether pairs may wrap.
        valid: (cells,) cells that may be drawn (not masked).
        count: number of pairs; all of them where there are fewer.
        reach: largest offset along an axis, in grid steps.
        seed: of the draw.

    Returns:
        First and second flat cell index and the distance in grid steps, each (pairs,).
    """
    rng = np.random.default_rng([seed, 0x7661])
    reaches = [min(reach, size - 1) for size in shape]
    offsets: NDArray[np.intp] = np.array(
        [o for o in product(*(range(-r, r + 1) for r in reaches)) if o > (0,) * len(shape)]
    )
    cells = np.flatnonzero(valid)
    if cells.size == 0 or offsets.size == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0)
    if cells.size * len(offsets) <= 20_000:
        order = rng.permutation(cells.size * len(offsets))
    else:
        order = rng.integers(cells.size * len(offsets), size=20_000)
    first = np.asarray(cells[order // len(offsets)])
    step = np.asarray(offsets[order % len(offsets)])
    there = np.stack(np.unravel_index(first, shape), axis=-1) + step
    size = np.array(shape)
    inside = np.all(((there >= 0) & (there < size)) | np.array(periodic), axis=-1)
    second = np.asarray(np.ravel_multi_index(tuple((there % size).T), shape))
    keep = np.flatnonzero(inside & valid[second] & (first != second))
    pair = np.sort(np.stack([first[keep], second[keep]], axis=-1), axis=-1)
    keep = keep[np.sort(np.unique(pair, axis=0, return_index=True)[1])][:count]
    return first[keep], second[keep], np.sqrt(np.square(step[keep]).sum(axis=-1).astype(np.float64))


def variogram_score(
    truth_first: NDArray,
    truth_second: NDArray,
    first: NDArray,
    second: NDArray,
    weights: NDArray,
    order: float = 0.5,
    fair: bool = True,
) -> NDArray[np.float64]:
    r"""Variogram score of order p over pairs of cells, per sample.

    .. math:: \sum_{ij} w_{ij} \Big(|y_i - y_j|^p - \frac1M \sum_m |x_{m,i} - x_{m,j}|^p\Big)^2 \Big/ \sum_{ij} w_{ij}

    (Scheuerer and Hamill 2015, doi:10.1175/MWR-D-14-00269.1.) The fair form subtracts the sampling variance of the
    mean over members, so that ensembles of different size compare.

    Args:
        truth_first: (n, pairs) truth at the first cell of each pair.
        truth_second: (n, pairs) truth at the second.
        first: (M, n, pairs) members at the first cell.
        second: (M, n, pairs) members at the second.
        weights: (n, pairs); zero leaves a pair out.
        order: p.
        fair: subtract the sampling variance of the mean over members.

    Returns:
        (n,) scores; NaN where no pair has weight.
    """
    members = first.shape[0]
    observed = np.abs(truth_first - truth_second) ** order
    drawn = np.abs(first - second) ** order
    square = np.square(observed - drawn.mean(axis=0))
    if fair and members > 1:
        square = square - drawn.var(axis=0, ddof=1) / members
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights * square).sum(axis=-1) / weights.sum(axis=-1)
