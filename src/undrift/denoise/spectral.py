"""The Gaussian guess of fields of which training sees parts: its covariance is alike everywhere.

Where windows of a domain are learned there is no room for principal components of the whole; what a part of the domain
and the whole share is the power spectrum. In an orthonormal basis of cosines (waves along periodic axes)

    C = D' diag(P_c(|k|)) D,

with the power P_c of channel c at the wavenumber |k|, in cycles a cell. Cosines are the waves of a field that is
mirrored at its ends (Strang 1999, doi:10.1137/S0036144598336745), so that opposite ends know nothing of each other.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.denoise.guess import GaussianGuess

__all__ = ["SpectralGuess", "basis_of", "fit_spectral", "wavenumbers"]

_BINS_AN_OCTAVE = 3
_LEAST = 1e-6  # of a channel's mean power


def basis_of(size: int, periodic: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal rows (size, size) of cosines, or of waves, and their cycles a cell."""
    at = np.arange(size)
    if not periodic:
        rows = np.cos(np.pi * np.outer(at, at + 0.5) / size) * np.sqrt(2 / size)
        rows[0] /= np.sqrt(2)
        return rows, at / (2 * size)
    number = (at + 1) // 2
    phase = 2 * np.pi * np.outer(number, at) / size
    rows = np.where((at % 2 == 1)[:, None], np.cos(phase), -np.sin(phase)) * np.sqrt(2 / size)
    rows[0] = 1 / np.sqrt(size)
    if size % 2 == 0:
        rows[-1] /= np.sqrt(2)
    return rows, number / size


def wavenumbers(shape: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.float64]:
    """|k| of each mode of a grid, (*shape)."""
    along = [basis_of(n, wrap)[1] for n, wrap in zip(shape, periodic)]
    return np.sqrt(sum(k**2 for k in np.meshgrid(*along, indexing="ij")))


class SpectralGuess(GaussianGuess):
    """A Gaussian whose covariance has the eigenvalues ``powers[c, bin of |k|]``.

    Args:
        powers: of each channel and bin, (C, K).
        edges: between the bins, ascending, (K - 1,), in cycles a cell.
        share: of the modes of a training window in each bin, (K,).
        periodic: of each space axis.
    """

    powers: Tensor
    edges: Tensor
    share: Tensor
    periodic: Tensor

    def __init__(self, powers: Tensor, edges: Tensor, share: Tensor, periodic: Tensor) -> None:
        super().__init__()
        self.register_buffer("powers", powers.to(torch.float64))
        self.register_buffer("edges", edges.to(torch.float64))
        self.register_buffer("share", share.to(torch.float64))
        self.register_buffer("periodic", periodic.to(torch.bool))
        self._grids: dict[tuple, tuple[list[Tensor], Tensor]] = {}

    def total(self, size: int) -> Tensor:
        """Mean eigenvalue of C in a training window."""
        return (self.powers * self.share).sum(1).mean()

    def posterior_variance(self, ratio: Tensor, size: int) -> Tensor:
        """Mean eigenvalue of ``C r^2 (C + r^2)^{-1}`` in a training window, for ratios (B,) -> (B,)."""
        square = ratio[:, None, None] ** 2
        return (self.powers * square / (self.powers + square) * self.share).sum(2).mean(1)

    def gains(self, ratio: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What ``C (C + r^2)^{-1}`` multiplies each channel and bin by, (B, C, K), and no modes, (B, 0)."""
        gain = self.powers / (self.powers + ratio[:, None, None] ** 2)
        return gain.to(dtype), gain[:, 0, :0].to(dtype)

    def shrink(self, y: Tensor, tail: Tensor, gain: Tensor) -> Tensor:
        """``C (C + r^2)^{-1} y`` for y (B, C, *space) with known :meth:`gains`, of each row or of all."""
        bases, bins = self._grid(y)
        out = y
        for axis, basis in enumerate(bases):
            out = _along(out, basis, axis + 2)
        out = out * tail[:, :, bins]
        for axis, basis in enumerate(bases):
            out = _along(out, basis.T, axis + 2)
        return out

    def _grid(self, y: Tensor) -> tuple[list[Tensor], Tensor]:
        """The basis along each axis, and the bin of each mode, (*space)."""
        shape = tuple(y.shape[2:])
        key = (shape, y.dtype, y.device)
        if key not in self._grids:
            periodic = self.periodic.tolist()
            with torch.inference_mode(False):
                bases = [torch.from_numpy(basis_of(n, wrap)[0]).to(y) for n, wrap in zip(shape, periodic)]
                k = torch.from_numpy(wavenumbers(shape, periodic)).to(y.device)
                self._grids[key] = bases, torch.bucketize(k, self.edges)
        return self._grids[key]


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A matrix applied along an axis."""
    return (x.transpose(axis, -1) @ matrix.T).transpose(axis, -1)


def fit_spectral(
    fields: Sequence[tuple[NDArray[np.floating], NDArray[np.bool_]]], window: Sequence[int], periodic: Sequence[bool]
) -> SpectralGuess:
    """The guess with the mean spectra of fields.

    Args:
        fields: (C, *space) each, centred by construction, and which of its channels count, (C,).
        window: cells of a training window along each axis.
        periodic: of each axis.
    """
    shape = fields[0][0].shape[1:]
    k, own = wavenumbers(shape, periodic), wavenumbers(window, periodic)
    lowest, highest = k[k > 0].min(), max(k.max(), own.max())
    edges = np.exp2(np.arange(np.log2(lowest) + 0.5, np.log2(highest), 1 / _BINS_AN_OCTAVE))
    bins = np.searchsorted(edges, k)
    modes = np.bincount(bins.ravel(), minlength=len(edges) + 1)
    total, count = np.zeros((len(fields[0][0]), len(modes))), np.zeros(len(fields[0][0]))
    for field, counts in fields:
        amplitude = field.astype(np.float64)
        for axis, (n, wrap) in enumerate(zip(shape, periodic)):
            amplitude = np.moveaxis(np.moveaxis(amplitude, axis + 1, -1) @ basis_of(n, wrap)[0].T, -1, axis + 1)
        for c in np.flatnonzero(counts):
            total[c] += np.bincount(bins.ravel(), (amplitude[c] ** 2).ravel(), len(modes))
            count[c] += 1
    powers = total / np.maximum(modes * count[:, None], 1)
    there = np.flatnonzero(modes)
    nearest = there[np.abs(np.arange(len(modes))[:, None] - there).argmin(1)]
    powers = np.where(count[:, None] > 0, powers[:, nearest], 1.0)
    powers = np.maximum(powers, _LEAST * powers.mean(1, keepdims=True) + 1e-12)
    share = np.bincount(np.searchsorted(edges, own).ravel(), minlength=len(modes)) / own.size
    numbers = (torch.from_numpy(np.ascontiguousarray(v)) for v in (powers, edges, share))
    return SpectralGuess(*numbers, torch.tensor(list(periodic)))
