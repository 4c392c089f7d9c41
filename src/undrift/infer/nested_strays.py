"""Summits that lie below the contour as far as draws have seen them: a small mode would else die out.

A contour of nested sampling rises by what all points say together, so that a mode of few points is lost when its best
one happens to lie below, however high its summit (Feroz and Hobson 2008, arXiv:0704.3704, on modes). A point that is
higher than its nearest neighbours and below the contour is therefore climbed from: a Gaussian is fitted to the upper
half of the neighbours, its draws join, and so on until one is above the contour or the neighbours are level with the
point: its summit is below. Weights and evidence stay what they are, since the density of all draws is known.

Nearest neighbours tell a summit where points are dense, n >> 2^D: above `MOST_DIMENSIONS` nothing is done, and a narrow
mode off the main one may be missed there; more live points find more of them.
"""

from __future__ import annotations

__all__ = ["stray_summits"]

import numpy as np
from scipy.spatial import KDTree

from undrift.infer.gaussian_mixture import GaussianMixture, fit_gaussians

MOST = 20
MOST_DIMENSIONS = 6
WIDER = 3.0  # than the neighbours: a summit lies outside of those that were drawn
LEVEL = 0.5  # nats from a summit down to its neighbours: it is found


def stray_summits(y: np.ndarray, log_l: np.ndarray, contour: float) -> GaussianMixture | None:
    """A Gaussian about each of the highest summits below the contour, in equal shares; None where there is none.

    Args:
        y: points (n, D).
        log_l: their log-likelihoods (n,).
        contour: ln L.
    """
    held = np.flatnonzero(log_l > -np.inf)
    y, log_l, near = y[held], log_l[held], 4 * (y.shape[1] + 1)
    if y.shape[1] > MOST_DIMENSIONS or len(y) <= near:
        return None
    rows = np.asarray(KDTree(y).query(y, near)[1])  # of each point, itself the first
    values = log_l[rows]
    fall = log_l - values.min(axis=1)
    summits = np.flatnonzero((log_l < contour) & (log_l >= values.max(axis=1)) & (fall > LEVEL))
    summits = summits[np.argsort(-log_l[summits], kind="stable")][:MOST]
    if not len(summits):
        return None
    fits = []
    for summit in summits:
        upper = rows[summit][np.argsort(-values[summit], kind="stable")][: near // 2]
        fits.append(fit_gaussians(y[upper], np.ones(len(upper)), 1, rng=np.random.default_rng(0)))
    return GaussianMixture.together(fits, np.full(len(fits), 1 / len(fits))).widened(WIDER)
