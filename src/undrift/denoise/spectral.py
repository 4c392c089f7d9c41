"""The Gaussian guess of fields whose waves are independent: what a record knows of large fields.

Along each axis the waves are those of Fourier where it is periodic, and cosines (of the DCT, whose fields are mirrored
at the ends) where it is not. Each channel has a variance ``P`` for each wave, so that the denoiser of the guess is
Wiener's filter,

    x_hat = P / (P + r^2) y,    posterior variance = P r^2 / (P + r^2),    y = x + r z.

What a network adds is in units of the posterior's standard deviation at each wave: an error of a tenth is a tenth of the
small scales as of the large ones, though their power is smaller by five decades. In the units of the field, as with a
white guess, it would bury them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SpectralGuess", "fit_spectral", "rings", "waves"]

_LEAST = 1e-9  # of a channel's mean power
_FEW = 10  # fields that the power of a ring counts for, beside that of a wave
_EVEN = 0.5  # power of the posterior's standard deviation by which waves count in training: 0 as in the field, 1 alike


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


def _pairs(shape: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.intp]:
    """A number for each wave of a domain, (*shape), that is the same for sine and cosine."""
    out = np.zeros((1,) * len(shape), dtype=int)
    for axis, (n, p) in enumerate(zip(shape, periodic)):
        along = np.unique(waves(n, p)[1], return_inverse=True)[1]
        out = out * n + along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return out


class SpectralGuess(nn.Module):
    """A Gaussian of independent waves.

    Args:
        power: variance of each wave, (C, *space).
        periodic: which axes are, (len(space),).
        gain: what the waves of drawn fields are multiplied by, (C, *space), so that they have the record's power; 1 if
            None.
    """

    power: Tensor
    periodic: Tensor
    gain: Tensor

    def __init__(self, power: Tensor, periodic: Tensor | Sequence[bool], gain: Tensor | None = None) -> None:
        super().__init__()
        power = power.to(torch.float64)
        self.register_buffer("power", power)
        self.register_buffer("periodic", torch.as_tensor(periodic, dtype=torch.bool, device=power.device))
        self.register_buffer("gain", torch.ones_like(power) if gain is None else gain.to(torch.float64))
        for axis, (size, cyclic) in enumerate(zip(power.shape[1:], self.periodic.tolist())):
            basis = torch.from_numpy(waves(size, cyclic)[0]).to(power.device)
            self.register_buffer(f"waves_{axis}", basis, persistent=False)

    def total(self, size: int) -> Tensor:
        """Mean variance of a cell."""
        return self.power.sum() / size

    def posterior_variance(self, ratio: Tensor, size: int) -> Tensor:
        """Mean of ``P r^2 / (P + r^2)``, for ratios (B,) -> (B,)."""
        return self._posterior(ratio).flatten(1).sum(1) / size

    def gains(self, ratio: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of each wave ``P / (P + r^2)``, and the posterior's standard deviation over its root mean square."""
        posterior = self._posterior(ratio)
        mean = posterior.flatten(1).mean(1).reshape(-1, *[1] * (self.power.ndim))
        tail = posterior / ratio.reshape(mean.shape) ** 2
        return tail.to(dtype), (posterior / mean).sqrt().to(dtype)

    def shrink(self, y: Tensor, tail: Tensor, gain: Tensor) -> Tensor:
        """:meth:`denoise` with known :meth:`gains`, of each row or of all."""
        return self.filtered(y, tail)

    def denoise(self, y: Tensor, ratio: Tensor) -> Tensor:
        """``E[x | y]`` for y (B, C, *space) and ratios (B,)."""
        return self.filtered(y, self.gains(ratio, y.dtype)[0])

    def added(self, f: Tensor, gain: Tensor) -> Tensor:
        """What a network adds to the guess, in units of c_out: its numbers with the posterior's spectrum."""
        return self.filtered(f, gain)

    def weighed(self, error: Tensor, gain: Tensor) -> Tensor:
        """Errors in units of c_out as they count in training: those of small scales more than their size.

        Of any positive weights of the waves the conditional mean is the minimiser.
        """
        weight = gain**-_EVEN
        norm = (weight * gain).square().flatten(1).mean(1).rsqrt().reshape(-1, *[1] * self.power.ndim)
        return self.filtered(error, weight * norm)

    def finished(self, x: Tensor) -> Tensor:
        """Drawn fields with the power of the record's."""
        return self.filtered(x, self.gain.to(x.dtype)[None])

    def filtered(self, x: Tensor, factor: Tensor) -> Tensor:
        """Fields (B, C, *space) with each wave multiplied by its factor, (1 or B, C, *space)."""
        return self._turned(factor * self._turned(x, 0), 1)

    def spectrum(self, x: Tensor) -> Tensor:
        """Amplitudes of the waves, (B, C, *space)."""
        return self._turned(x, 0)

    def _turned(self, x: Tensor, which: int) -> Tensor:
        """Into waves along each axis (0), or back (1)."""
        for axis in range(self.power.ndim - 1):
            basis = getattr(self, f"waves_{axis}").to(x.dtype)
            x = torch.movedim(torch.movedim(x, axis + 2, -1) @ (basis.T if which == 0 else basis), -1, axis + 2)
        return x

    def _posterior(self, ratio: Tensor) -> Tensor:
        square = ratio.reshape(-1, *[1] * self.power.ndim) ** 2
        return self.power * square / (self.power + square)


def fit_spectral(
    fields: NDArray[np.floating], weight: NDArray[np.floating], periodic: Sequence[bool]
) -> tuple[SpectralGuess, dict[str, float]]:
    """Fit the guess to clean fields: the mean power of waves of the same frequencies, whatever their phase.

    Of few fields it is drawn to that of the ring of waves of one frequency.

    Args:
        fields: (n, C, *space), centred by construction.
        weight: same shape; only channels of which all cells count are used.
        periodic: which axes are.

    Returns:
        The guess, and facts: as of :func:`undrift.denoise.guess.fit_guess`, with no modes.
    """
    shape = fields.shape[2:]
    ring, pair = rings(shape, periodic).ravel(), _pairs(shape, periodic).ravel()
    blank = SpectralGuess(torch.ones(fields.shape[1:], dtype=torch.float64, device="cpu"), periodic)
    power = np.ones(fields.shape[1:])
    for channel in range(len(power)):
        whole = (weight[:, channel] > 0).reshape(len(fields), -1).all(1)
        if not whole.any():
            continue
        x = torch.from_numpy(np.ascontiguousarray(fields[whole, channel], dtype=np.float64))[:, None]
        square = blank.spectrum(x)[:, 0].square().mean(0).numpy().ravel()
        own, near = ((np.bincount(at, square) / np.maximum(np.bincount(at), 1))[at] for at in (pair, ring))
        mean = (len(x) * own + _FEW * near) / (len(x) + _FEW)
        power[channel] = np.maximum(mean, _LEAST * square.mean() + 1e-12).reshape(shape)
    guess = SpectralGuess(torch.from_numpy(power), periodic)
    facts = {"modes": 0, "white": 0.5 * (1 + np.log(power.mean())), "loss": 0.5 * (1 + np.log(power).mean())}
    return guess, {k: float(v) for k, v in facts.items()}
