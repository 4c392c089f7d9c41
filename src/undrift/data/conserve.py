"""Fields whose blocks have the means that are given.

What is given is often the mean of the target over blocks of cells, and a drawn field should keep it: no rain falls
where the block is dry. The latents of a block are shifted together by the one number that gives their decoded values
this mean. For a variable without bounds that adds a constant; for rain it makes the fewest wet cells dry, or the
wettest dry cells wet.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import elementwise

from undrift.data.transforms import Transform

__all__ = ["block_means", "conserved", "in_blocks", "over_blocks"]


def in_blocks(x: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    """(..., *space) as (..., *coarse, cells of a block) for blocks of ``factor`` cells along each dim."""
    k = len(factor)
    lead, space = x.shape[: x.ndim - k], x.shape[x.ndim - k :]
    split = x.reshape(*lead, *(n for size, f in zip(space, factor) for n in (size // f, f)))
    inner = [len(lead) + 2 * i + 1 for i in range(k)]
    moved = np.moveaxis(split, inner, range(split.ndim - k, split.ndim))
    return moved.reshape(*moved.shape[: moved.ndim - k], -1)


def _out_of_blocks(x: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    """Inverse of :func:`in_blocks`."""
    k = len(factor)
    split = x.reshape(*x.shape[:-1], *factor)
    coarse = x.shape[-1 - k : -1]
    outer = x.ndim - 1 - k
    back = np.moveaxis(split, range(split.ndim - k, split.ndim), [outer + 2 * i + 1 for i in range(k)])
    return back.reshape(*x.shape[:outer], *(n * f for n, f in zip(coarse, factor)))


def over_blocks(x: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    """A value of each block (..., *coarse) at all of its cells, (..., *space)."""
    return _out_of_blocks(np.broadcast_to(x[..., None], (*x.shape, int(np.prod(factor)))), factor)


def block_means(x: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    """Means (..., *coarse) of the known cells of each block of fields (..., *space), NaN where none is known."""
    cells = in_blocks(x, factor)
    known = np.isfinite(cells)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, cells, 0).sum(-1) / np.maximum(count, 1), np.nan)


def conserved(
    u: np.ndarray,
    means: np.ndarray,
    factor: Sequence[int],
    transform: Transform,
    mask: np.ndarray,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Latents of one channel shifted block by block so that the decoded values have these means.

    Args:
        u: latents, (n, *space).
        means: in the data's units, (n, *coarse); a block of which it is NaN stays as it is.
        factor: cells of a block along each dim.
        transform: of the channel.
        mask: cells that have no value and count in no mean, (*space).
        known: values in the data's units that take the place of what is decoded, NaN elsewhere, (n, *space): the other
            cells of their blocks have what is left of the means.
    """
    counted = np.broadcast_to(in_blocks(~mask, factor), (*means.shape, int(np.prod(factor))))
    if known is not None:
        means, counted = _left(means, counted, in_blocks(known.astype(np.float64), factor))
    cells = in_blocks(u, factor)
    wanted = np.isfinite(means) & counted.any(-1)
    low, high = transform.lower, transform.upper
    dry = wanted & (means <= (-np.inf if low is None else low))
    full = wanted & (means >= (np.inf if high is None else high))
    inside = wanted & ~dry & ~full
    shift = np.zeros(means.shape)
    shift[dry], shift[full] = -np.inf, np.inf
    shift[inside] = _shift(cells[inside], counted[inside], means[inside], transform)
    return _out_of_blocks(cells + shift[..., None], factor)


def _left(means: np.ndarray, counted: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (n, *coarse) of the counted cells of blocks that are not known, and which these are (n, *coarse, cells)."""
    asked = counted & ~np.isfinite(known)
    total = means * counted.sum(-1) - np.where(counted & ~asked, known, 0).sum(-1)
    return total / np.maximum(asked.sum(-1), 1), asked


def _shift(cells: np.ndarray, counted: np.ndarray, means: np.ndarray, transform: Transform) -> np.ndarray:
    """What is added to the latents (n, cells) of each block so that their counted values have these means (n,)."""
    share = counted / counted.sum(-1, keepdims=True)
    level = transform.continuous(means)
    if transform.kind == "standard":
        return level - (share * cells).sum(-1)

    def excess(shift: np.ndarray, block: np.ndarray) -> np.ndarray:
        return (share[block] * transform.decode(cells[block] + shift[..., None])).sum(-1) - means[block]

    # with all cells below the level, and with all above it
    least = level - np.where(counted, cells, -np.inf).max(-1) - 1e-6
    most = level - np.where(counted, cells, np.inf).min(-1) + 1e-6
    tolerances = {"xatol": 1e-9, "xrtol": 0.0, "fatol": 0.0, "frtol": 0.0}
    return elementwise.find_root(excess, (least, most), args=(np.arange(len(means)),), tolerances=tolerances).x
