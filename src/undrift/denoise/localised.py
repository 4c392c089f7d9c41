"""Localisation: what a short record says of cells that are far from each other is mostly chance.

The correlation of two cells is known from n independent fields to about ``1 / sqrt(n)``, so that far ones, which are
truly small, are mostly noise. Each covariance is multiplied by a function of the distance that falls from 1 to 0
(Houtekamer & Mitchell 2001, doi:10.1175/1520-0493(2001)129<0123:ASEKFF>2.0.CO;2), and the leading eigenvectors of what
is left are smooth where principal components follow the noise.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaspari_cohn", "leading", "tapers"]

_MORE = 32  # directions beyond those asked
_PASSES = 3


def gaspari_cohn(distance: NDArray[np.floating]) -> NDArray[np.floating]:
    """The taper of distances in units of its half-width: 1 at 0, and 0 from 2 on.

    A hat convolved with itself in three dims, and so a correlation in up to three (Gaspari & Cohn 1999,
    doi:10.1002/qj.49712555417, eq. 4.10).
    """
    r = np.minimum(np.abs(distance), 2.0)
    near = (((-r / 4 + 1 / 2) * r + 5 / 8) * r - 5 / 3) * r**2 + 1
    far = ((((r / 12 - 1 / 2) * r + 5 / 8) * r + 5 / 3) * r - 5) * r + 4 - 2 / (3 * np.maximum(r, 1.0))
    return np.where(r < 1, near, np.maximum(far, 0.0))


def tapers(space: Sequence[int], periodic: Sequence[bool], half_width: float) -> NDArray[np.float32]:
    """The taper between all cells, (cells, cells).

    Args:
        space: cells along each dim.
        periodic: dims whose ends are neighbours.
        half_width: in cells.
    """
    square = np.zeros((1, 1))
    for size, closed in zip(space, periodic, strict=True):
        away = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
        away = np.minimum(away, size - away) if closed else away
        square = (square[:, None, :, None] + (away**2)[None, :, None, :]).reshape([len(square) * size] * 2)
    return gaspari_cohn(np.sqrt(square) / half_width).astype(np.float32)


def leading(
    fields: NDArray[np.floating], number: int, taper: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leading eigenvalues and orthonormal eigenvectors (number, D) of tapered covariances about 0.

    By subspace iteration (Halko, Martinsson & Tropp 2011, https://arxiv.org/abs/0909.4061, algorithm 4.4): of those
    that differ little in their eigenvalue the space is found.

    Args:
        fields: (n, D) with D = channels * cells, channels slowest.
        number: at most D.
        taper: (cells, cells), the same for all channels.
    """
    n, size = fields.shape
    cells = len(taper)
    flat = fields.astype(np.float32)
    covariance = (flat.T @ flat / n).reshape(size // cells, cells, size // cells, cells)
    covariance = (covariance * taper[:, None, :]).reshape(size, size)
    width = min(size, number + _MORE)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(size, width)).astype(np.float32))[0]
    for _ in range(_PASSES):
        basis = np.linalg.qr(covariance @ basis)[0]
    basis = basis.astype(np.float64)
    values, vectors = np.linalg.eigh(basis.T @ (covariance.astype(np.float64) @ basis))
    order = slice(None, -number - 1, -1)
    return values[order], (basis @ vectors[:, order]).T
