"""The Gaussian guess of fields whose waves are independent: what a record knows of large fields.

Along each axis the waves are those of Fourier where it is periodic, and cosines (of the DCT, whose fields are mirrored
at the ends) where it is not. At each wave the channels have a covariance, of the variances P of each and correlations
that all waves of a ring of one frequency share. In the directions of its eigenvectors, of variances L, the denoiser is
Wiener's filter,

    x_hat = L / (L + r^2) y,    posterior variance = L r^2 / (L + r^2),    y = x + r z.

What a network adds is in units of the posterior's standard deviation in each direction: an error of a tenth is a tenth
of the small scales as of the large ones, though their power is smaller by five decades, and of the change from frame to
frame as of their mean. In the units of the field, as with a white guess, it would bury them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from undrift.data.waves import pairs, rings, turned, waves
from undrift.tasks.batch import Condition

__all__ = ["SpectralGuess", "fit_spectral"]

_LEAST = 1e-9  # of a channel's mean power
_FEW = 10  # fields that the power of a ring counts for beside that of a wave, and the mean correlation of each channel
_FLOOR = 1e-4  # least eigenvalue of correlations
_EVEN = 0.5  # power of the posterior's standard deviation by which waves count in training: 0 as in the field, 1 alike


class SpectralGuess(nn.Module):
    """A Gaussian of independent waves.

    Args:
        power: variance of each wave, (C, *space), the same of sines and cosines.
        periodic: which axes are, (len(space),).
        correlation: of the channels in each ring, (rings, C, C); they are independent if None.
        gain: what the waves of drawn fields are multiplied by, (C, *space), so that they have the record's power; 1 if
            None.
        offset: the mean that a network adds to drawn fields, as coefficients (1 + F, C, *space) of 1 and of the first F
            covariates; 0 if None.
        cells: what the cells of drawn fields are multiplied by, (C, *space); 1 if None.
    """

    power: Tensor
    periodic: Tensor
    gain: Tensor
    offset: Tensor
    cells: Tensor
    correlation: Tensor | None
    variances: Tensor
    axes: Tensor | None

    def __init__(
        self,
        power: Tensor,
        periodic: Tensor | Sequence[bool],
        correlation: Tensor | None = None,
        gain: Tensor | None = None,
        offset: Tensor | None = None,
        cells: Tensor | None = None,
    ) -> None:
        super().__init__()
        power = power.to(torch.float64)
        self.register_buffer("power", power)
        self.register_buffer("periodic", torch.as_tensor(periodic, dtype=torch.bool, device=power.device))
        self.register_buffer("gain", torch.ones_like(power) if gain is None else gain.to(torch.float64))
        self.register_buffer("offset", torch.zeros_like(power)[None] if offset is None else offset.to(torch.float64))
        self.register_buffer("cells", torch.ones_like(power) if cells is None else cells.to(torch.float64))
        self.register_buffer("correlation", correlation)
        shape, cyclic = power.shape[1:], self.periodic.tolist()
        for axis, (size, one) in enumerate(zip(shape, cyclic)):
            basis = torch.from_numpy(waves(size, one)[0]).to(power.device)
            self.register_buffer(f"waves_{axis}", basis, persistent=False)
        variances, axes = power, None
        if correlation is not None:
            unique = np.unique(pairs(shape, cyclic), return_index=True, return_inverse=True)[1:]
            found = (rings(shape, cyclic).ravel(), *unique)
            place, first, where = (torch.from_numpy(v).to(power.device) for v in found)
            std = power.flatten(1).T[first].sqrt()  # (waves, C)
            covariance = correlation.to(torch.float64)[place[first]] * std[:, :, None] * std[:, None]
            values, vectors = torch.linalg.eigh(covariance)
            values = values.clamp(min=1e-12)
            variances = values[where.ravel()].T.reshape(power.shape)
            axes = vectors.to(torch.float32)[where.ravel()]
        self.register_buffer("variances", variances.contiguous(), persistent=False)
        self.register_buffer("axes", axes, persistent=False)

    def total(self, size: int) -> Tensor:
        """Mean variance of a cell."""
        return self.power.sum() / size

    def posterior_variance(self, ratio: Tensor, size: int) -> Tensor:
        """Mean of ``L r^2 / (L + r^2)``, for ratios (B,) -> (B,)."""
        return self._posterior(ratio).flatten(1).sum(1) / size

    def gains(self, ratio: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """In each direction ``L / (L + r^2)``, and the posterior's standard deviation over its root mean square."""
        posterior = self._posterior(ratio)
        mean = posterior.flatten(1).mean(1).reshape(-1, *[1] * self.power.ndim)
        tail = posterior / ratio.reshape(mean.shape) ** 2
        return tail.to(dtype), (posterior / mean).sqrt().to(dtype)

    def shrink(self, y: Tensor, tail: Tensor, gain: Tensor) -> Tensor:
        """:meth:`denoise` with known :meth:`gains`, of each row or of all."""
        return self.filtered(y, tail)

    def estimate(self, y: Tensor, f: Tensor, tail: Tensor, gain: Tensor, c_out: Tensor) -> Tensor:
        """The guess and what a network's numbers f add to it: :meth:`shrink` and ``c_out`` :meth:`added` in one."""
        return self._back(tail * self._directions(y) + c_out * gain * self._directions(f))

    def denoise(self, y: Tensor, ratio: Tensor) -> Tensor:
        """``E[x | y]`` for y (B, C, *space) and ratios (B,)."""
        return self.filtered(y, self.gains(ratio, y.dtype)[0])

    def parts(self, condition: Condition, rows: int) -> list[tuple["SpectralGuess", Tensor]]:
        """Each guess that rows (B,) of a batch have, and which they are: itself, and all."""
        return [(self, torch.ones(rows, dtype=torch.bool, device=self.power.device))]

    def added(self, f: Tensor, gain: Tensor) -> Tensor:
        """What a network adds to the guess, in units of c_out: its numbers with the posterior's covariance."""
        return self.filtered(f, gain)

    def weighed(self, error: Tensor, gain: Tensor) -> Tensor:
        """Errors in units of c_out as they count in training: small ones more than their size.

        Of any positive weights of the directions the conditional mean is the minimiser.
        """
        weight = gain**-_EVEN
        norm = (weight * gain).square().flatten(1).mean(1).rsqrt().reshape(-1, *[1] * self.power.ndim)
        return self.filtered(error, weight * norm)

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """Drawn fields without the mean that a network adds, and with the power of the record's.

        Args:
            x: the fields, (B, C, *space).
            condition: of the fields, whose covariates the mean goes with.
        """
        terms, vector = self.offset.to(x.dtype), condition.vector()
        for term, value in zip(terms[1:], () if vector is None else vector.T.to(x.dtype)):
            x = x - value.reshape(-1, *[1] * (x.ndim - 1)) * term
        return self.cells.to(x.dtype) * self.fields(self.gain.to(x.dtype) * self.spectrum(x - terms[0]))

    def filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        """Fields (B, C, *space) multiplied by a factor in each direction, (1 or B, C, *space)."""
        return self._back(factor * self._directions(x))

    def spectrum(self, x: Tensor) -> Tensor:
        """Amplitudes of the waves, (B, C, *space)."""
        return self._turned(x, forward=True)

    def _directions(self, x: Tensor) -> Tensor:
        """Amplitudes in the directions of independent numbers, (B, C, *space)."""
        x = self.spectrum(x)
        if self.axes is None:
            return x
        return (x.flatten(2).permute(2, 0, 1) @ self.axes.to(x.dtype)).permute(1, 2, 0).reshape(x.shape)

    def _back(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`_directions`."""
        if self.axes is not None:
            x = (x.flatten(2).permute(2, 0, 1) @ self.axes.mT.to(x.dtype)).permute(1, 2, 0).reshape(x.shape)
        return self.fields(x)

    def fields(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`spectrum`."""
        return self._turned(x, forward=False)

    def _turned(self, x: Tensor, forward: bool) -> Tensor:
        for axis in range(self.power.ndim - 1):
            basis = getattr(self, f"waves_{axis}").to(x.dtype)
            x = torch.movedim(torch.movedim(x, axis + 2, -1) @ (basis.T if forward else basis), -1, axis + 2)
        return x

    def _posterior(self, ratio: Tensor) -> Tensor:
        square = ratio.reshape(-1, *[1] * self.power.ndim) ** 2
        return self.variances * square / (self.variances + square)


def fit_spectral(
    fields: NDArray[np.floating], periodic: Sequence[bool], asked: NDArray[np.bool_], *, coupled: bool
) -> tuple[SpectralGuess, dict[str, float]]:
    """Fit the guess to clean fields: the mean power of waves of the same frequencies, and correlations in rings.

    Of few fields the power is drawn to that of the ring, and correlations are to the mean ones of all waves.

    Args:
        fields: (n, C, *space), centred by construction.
        periodic: which axes are.
        asked: channels that are, (C,); of the others nothing is learned.
        coupled: whether channels are correlated.

    Returns:
        The guess, and facts: as of :func:`undrift.denoise.guess.fit_guess`, with no modes.
    """
    n, channels, *shape = fields.shape
    ring, pair = rings(shape, periodic).ravel(), pairs(shape, periodic).ravel()
    power, amplitudes = np.ones((channels, ring.size)), []
    for channel in np.flatnonzero(asked):
        y = turned(np.ascontiguousarray(fields[:, channel], dtype=np.float64), periodic).reshape(n, -1)
        square = (y**2).mean(0)
        own, near = ((np.bincount(at, square) / np.maximum(np.bincount(at), 1))[at] for at in (pair, ring))
        power[channel] = np.maximum((n * own + _FEW * near) / (n + _FEW), _LEAST * square.mean() + 1e-12)
        if coupled:
            amplitudes.append((y / np.sqrt(power[channel])).astype(np.float32))
    correlation = None
    if coupled:
        correlation = np.tile(np.eye(channels), (int(ring.max()) + 1, 1, 1))
        which = np.ix_(np.arange(len(correlation)), np.flatnonzero(asked), np.flatnonzero(asked))
        correlation[which] = _correlations(np.stack(amplitudes, 1), ring)
    guess = SpectralGuess(
        torch.from_numpy(power.reshape(channels, *shape)),
        periodic,
        None if correlation is None else torch.from_numpy(correlation),
    )
    variances = guess.variances.numpy()
    facts = {"modes": 0, "white": 0.5 * (1 + np.log(power.mean())), "loss": 0.5 * (1 + np.log(variances).mean())}
    return guess, {k: float(v) for k, v in facts.items()}


def _correlations(y: NDArray[np.floating], ring: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of channels in each ring, (rings, C, C), from standardised amplitudes (n, C, waves)."""
    count = int(ring.max()) + 1
    products, number = np.zeros((count, y.shape[1], y.shape[1])), np.zeros(count)
    for k in range(count):
        at = y[:, :, ring == k].astype(np.float64)
        products[k], number[k] = np.einsum("niw,njw->ij", at, at, optimize=True), len(y) * at.shape[2]
    mean = products.sum(0) / number.sum()
    few = _FEW * y.shape[1]
    out = (products + few * mean) / (number + few)[:, None, None]
    scale = np.sqrt(np.einsum("kii->ki", out))
    out = out / (scale[:, :, None] * scale[:, None])
    return (1 - _FLOOR) * out + _FLOOR * np.eye(y.shape[1])
