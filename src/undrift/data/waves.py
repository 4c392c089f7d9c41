"""Waves on grids: those of Fourier along periodic axes, cosines along others."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["pairs", "rings", "turned", "waves"]


@cache
def waves(size: int, periodic: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal waves along an axis, (size, size) one a row, and their frequencies in cycles a cell, (size,)."""
    at, rows, frequencies = np.arange(size), [], []
    if not periodic:
        basis = np.cos(np.pi * np.outer(np.arange(size), at + 0.5) / size) * np.sqrt(2 / size)
        basis[0] /= np.sqrt(2)
        return basis, np.arange(size) / (2 * size)
    for k in range(size // 2 + 1):
        angle = 2 * np.pi * k * at / size
        for wave in (np.cos(angle), np.sin(angle)):
            if (norm := np.sqrt((wave**2).sum())) > 1e-6:
                rows.append(wave / norm)
                frequencies.append(k / size)
    return np.array(rows), np.array(frequencies)


def rings(shape: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.intp]:
    """The ring of each wave of a domain, (*shape): its frequency in cycles along the longest axis, rounded."""
    along = [waves(n, p)[1].reshape([-1 if i == k else 1 for k in range(len(shape))])
             for i, (n, p) in enumerate(zip(shape, periodic))]  # fmt: skip
    return np.rint(max(shape) * np.sqrt(sum(f**2 for f in along))).astype(int)


def pairs(shape: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.intp]:
    """A number for each wave of a domain, (*shape), that is the same for sine and cosine."""
    out = np.zeros((1,) * len(shape), dtype=int)
    for axis, (n, p) in enumerate(zip(shape, periodic)):
        along = np.unique(waves(n, p)[1], return_inverse=True)[1]
        out = out * n + along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return out


def turned(x: NDArray[np.floating], periodic: Sequence[bool], *, back: bool = False) -> NDArray[np.floating]:
    """Amplitudes of the waves of fields (..., *space), of the same shape; or fields of amplitudes."""
    for axis, cyclic in enumerate(periodic, start=x.ndim - len(periodic)):
        basis = waves(x.shape[axis], cyclic)[0].astype(x.dtype)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ (basis if back else basis.T), -1, axis)
    return x
