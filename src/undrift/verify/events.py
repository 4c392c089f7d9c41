"""Forecasts of events, such as rain above a threshold: hits, and fractions of neighbourhoods."""

__all__ = ["contingency", "critical_success", "fraction_terms", "fractions"]

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray


def fractions(
    share: NDArray, scale: int, periodic: Sequence[bool], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Mean over the neighbourhood of each cell, ``scale`` cells along each side.

    Cells beyond an end that is not periodic, and those that are not valid, are no part of a neighbourhood.

    Args:
        share: (..., *space) of 0 and 1, or probabilities.
        scale: odd number of cells, at most those of the domain on a periodic axis.
        periodic: of each space axis.
        valid: broadcastable to the share, all where None.
    """
    share = np.asarray(share, np.float64)
    kept = np.broadcast_to(1.0 if valid is None else valid.astype(np.float64), share.shape)
    total, mass = share * kept, np.array(kept)
    for axis, wrap in enumerate(periodic, start=share.ndim - len(periodic)):
        mode = "wrap" if wrap else "constant"
        total, mass = (scipy.ndimage.uniform_filter1d(v, scale, axis, mode=mode) for v in (total, mass))
    return np.clip(total / np.maximum(mass, 0.5 / scale ** len(periodic)), 0.0, 1.0)


def fraction_terms(
    truth: NDArray[np.bool_],
    probability: NDArray,
    scale: int,
    periodic: Sequence[bool],
    valid: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Sums over cells of the squared difference of fractions, and of their squares: FSS is 1 less their ratio.

    .. math:: FSS = 1 - \sum (p - o)^2 \Big/ \left(\sum p^2 + \sum o^2\right)

    with the observed fraction o and that of the forecast p of each neighbourhood (Roberts and Lean 2008,
    doi:10.1175/2007MWR2123.1, equations 5 to 7); p of an ensemble is the mean over its members.

    Args:
        truth: whether the event was observed, (n, *space).
        probability: share of the members that have it, (n, *space).
        scale: cells along each side of a neighbourhood, odd.
        periodic: of each space axis.
        valid: cells that count, (n, *space).

    Returns:
        Both sums per sample, (n,).
    """
    observed, forecast = (fractions(v, scale, periodic, valid) * valid for v in (truth, probability))
    space = tuple(range(1, valid.ndim))
    return np.square(forecast - observed).sum(space), (np.square(forecast) + np.square(observed)).sum(space)


def contingency(
    truth: NDArray[np.bool_], events: NDArray[np.bool_], weights: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight of hits, misses and false alarms, the mean over members.

    Args:
        truth: whether the event was observed, (n, cells).
        events: whether members have it, (M, n, cells).
        weights: of the cells, 0 where they do not count, (n, cells).

    Returns:
        Each per sample, (n,).
    """
    probability = events.mean(axis=0)
    hits = (weights * truth * probability).sum(axis=-1)
    return hits, (weights * truth).sum(axis=-1) - hits, (weights * ~truth * probability).sum(axis=-1)


def critical_success(hits: NDArray, misses: NDArray, alarms: NDArray) -> NDArray[np.float64]:
    """Critical success index, hits / (hits + misses + false alarms); NaN where nothing was observed or forecast."""
    total = np.asarray(hits + misses + alarms, np.float64)
    return np.divide(hits, total, out=np.full_like(total, np.nan), where=total > 0)
