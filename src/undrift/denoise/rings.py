"""The Gaussian guess of fields of which training sees parts: its covariance is alike everywhere.

Where windows of a domain are learned there is no room for principal components of the whole; what a part of the domain
and the whole share is the power spectrum. In an orthonormal basis of cosines (waves along periodic axes)

    C = D' diag(P_c(|k|)) D,

with the power P_c of channel c at the wavenumber |k|, in cycles a cell.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.data.texture import BINS_AN_OCTAVE, spectra_of, wavenumbers
from undrift.data.waves import waves
from undrift.denoise.guess import GaussianGuess
from undrift.tasks.batch import Condition

__all__ = ["RingGuess", "fit_rings"]


class RingGuess(GaussianGuess):
    """A Gaussian whose covariance has the eigenvalues ``powers[c, bin of |k|]``.

    Args:
        powers: of each channel and bin, (C, K).
        edges: between the bins, ascending, (K - 1,), in cycles a cell.
        share: of the modes of a training window in each bin, (K,).
        periodic: of each space axis.
        gain: what the modes of drawn fields are multiplied by, (2, C, K), so that they have the record's power: in
            cells that the motion of the past does not reach, and in those it does. 1 if None.
        tails: quantiles of what is drawn with these, ascending, and of the record's residuals, (2, Q): drawn values
            are carried from the one to the other and beyond them go on beside, for residuals of rain have longer tails
            above than below. None: as they are.
    """

    powers: Tensor
    edges: Tensor
    share: Tensor
    periodic: Tensor
    gain: Tensor
    tails: Tensor

    def __init__(
        self,
        powers: Tensor,
        edges: Tensor,
        share: Tensor,
        periodic: Tensor,
        gain: Tensor | None = None,
        tails: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("powers", powers.to(torch.float64))
        self.register_buffer("edges", edges.to(torch.float64))
        self.register_buffer("share", share.to(torch.float64))
        self.register_buffer("periodic", periodic.to(torch.bool))
        gain = torch.ones(2, *powers.shape, device=powers.device) if gain is None else gain
        self.register_buffer("gain", gain.to(torch.float64))
        tails = torch.tensor([[-1.0, 1.0]] * 2, device=powers.device) if tails is None else tails
        self.register_buffer("tails", tails.to(torch.float64))
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
        return self.filtered(y, tail)

    def filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        """Fields (B, C, *space) whose amplitudes are multiplied by the factor of their bin, (1 or B, C, K)."""
        return self._back(self._turned(x) * factor[:, :, self._grid(x)[1]])

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """Drawn fields with the power of the record's, where they are reached and elsewhere, and with its quantiles."""
        x = self.gained(x, condition.fields.get("reached"))
        drawn, true = self.tails.to(x.dtype)
        inside = x.contiguous().clamp(float(drawn[0]), float(drawn[-1]))
        after = torch.bucketize(inside, drawn).clamp(1, len(drawn) - 1)
        share = (inside - drawn[after - 1]) / (drawn[after] - drawn[after - 1])
        return torch.lerp(true[after - 1], true[after], share) + (x - inside)

    def gained(self, x: Tensor, reached: Tensor | None) -> Tensor:
        """Fields (B, C, *space) with the gain of each mode, that of cells which are reached where they are above 0."""
        other, there = self.gain.to(x.dtype)[:, None]
        out = self.filtered(x, other)
        return out if reached is None else torch.where(reached > 0, self.filtered(x, there), out)

    def energies(self, x: Tensor, reached: Tensor) -> Tensor:
        """Sums of the squares of fields (B, C, *space) within each octave, given to its bins, (2, C, K).

        Args:
            x: the fields.
            reached: cells that are counted second, of the same shape; the others are first.
        """
        amplitudes, octave, out = self._turned(x), self._grid(x)[1] // BINS_AN_OCTAVE, torch.zeros_like(self.gain)
        for k in octave.unique():
            square = self._back(amplitudes * (octave == k)).square()
            sums = torch.stack([(square * at).transpose(0, 1).flatten(1).sum(1) for at in (~reached, reached)])
            out[:, :, BINS_AN_OCTAVE * k : BINS_AN_OCTAVE * (k + 1)] = sums.to(out)[:, :, None]
        return out

    def waves_in(self, x: Tensor) -> Tensor:
        """Number of modes of a field of (B, C, *space) in the octave of each bin, (K,)."""
        octaves = torch.bincount(self._grid(x)[1].flatten() // BINS_AN_OCTAVE, minlength=self.powers.shape[1])
        return octaves[torch.arange(self.powers.shape[1], device=octaves.device) // BINS_AN_OCTAVE]

    def _turned(self, x: Tensor) -> Tensor:
        """Amplitudes of the modes, (B, C, *space)."""
        for axis, basis in enumerate(self._grid(x)[0]):
            x = _along(x, basis, axis + 2)
        return x

    def _back(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`_turned`."""
        for axis, basis in enumerate(self._grid(x)[0]):
            x = _along(x, basis.T, axis + 2)
        return x

    def amplitudes(self) -> "RingGuess":
        """The guess of one amplitude in each bin, of (B, C, K) in place of fields."""
        return _Amplitudes(self.powers, self.edges, self.share, self.periodic)

    def _grid(self, y: Tensor) -> tuple[list[Tensor], Tensor]:
        """The basis along each axis, and the bin of each mode, (*space)."""
        shape = tuple(y.shape[2:])
        key = (shape, y.dtype, y.device)
        if key not in self._grids:
            periodic = self.periodic.tolist()
            with torch.inference_mode(False):
                bases = [torch.from_numpy(waves(n, wrap)[0]).to(y) for n, wrap in zip(shape, periodic)]
                k = torch.from_numpy(wavenumbers(shape, periodic)).to(y.device)
                self._grids[key] = bases, torch.bucketize(k, self.edges)
        return self._grids[key]


class _Amplitudes(RingGuess):
    def filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A matrix applied along an axis."""
    return (x.transpose(axis, -1) @ matrix.T).transpose(axis, -1)


def fit_rings(
    fields: Sequence[tuple[NDArray[np.floating], NDArray[np.bool_]]], window: Sequence[int], periodic: Sequence[bool]
) -> RingGuess:
    """The guess with the mean spectra of fields.

    Args:
        fields: (C, *space) each, centred by construction, and which of its channels count, (C,).
        window: cells of a training window along each axis.
        periodic: of each axis.
    """
    powers, edges = spectra_of(fields, periodic)
    own = np.searchsorted(edges, wavenumbers(window, periodic)).ravel()
    share = np.bincount(own, minlength=powers.shape[1]) / own.size
    return RingGuess(torch.from_numpy(powers), torch.from_numpy(edges), torch.from_numpy(share), torch.tensor(periodic))
