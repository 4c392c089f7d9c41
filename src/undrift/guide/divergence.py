"""Vector fields without divergence on a periodic grid.

With the wavenumbers k of the discrete Fourier transform the divergence of v is ``i k . v_k``, and the nearest field
without it has ``v_k - k (k . v_k) / |k|^2``: the projection of Helmholtz and Leray (Chorin 1968,
doi:10.1090/S0025-5718-1968-0242392-2). The derivative of the wave at the Nyquist frequency of an axis is 0 at all of
its nodes, so that its k is 0 (Trefethen 2000, "Spectral methods in MATLAB", chapter 3).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from undrift.errors import check_kind
from undrift.guide.constraints import CoarseMeans, Constraint, Integral

__all__ = ["DivergenceFree", "DivergenceFreeWith"]

_CUTOFF = 1e-10  # of the products of rows: below it what they ask for is what zero divergence asks for already
_NEAR = 1e-5  # by which it may differ from that, relative to the largest value


class DivergenceFree(Constraint):
    """Zero divergence, periodic along all of its axes, with spectral derivatives.

    Args:
        channels: of the components, the i-th along the i-th of the last dims: for (u, v) in channels 0 and 1 of fields
            (B, C, y, x), v is along y and it is (1, 0).
        spacing: of the grid along each of these dims, in one unit.

    Raises:
        ValueError: not 2 or 3 channels, each once, or not a spacing above 0 for each.
    """

    def __init__(self, channels: Sequence[int], spacing: Sequence[float]) -> None:
        self.channels, self.spacing = list(channels), tuple(float(h) for h in spacing)
        count = len(self.channels)
        if count not in (2, 3) or len(set(self.channels)) < count or len(self.spacing) != count:
            raise ValueError(
                f"channels are {self.channels} and spacing is {self.spacing}, expected 2 or 3 of each, no channel twice"
            )
        if min(self.channels) < 0 or not min(self.spacing) > 0:
            raise ValueError(
                f"channels are {self.channels} and spacing is {self.spacing}, expected channels counted from 0 and "
                "spacings above 0"
            )
        self.dims = tuple(range(-count, 0))
        self.scale = torch.ones(count, dtype=torch.float64, device="cpu")  # of each component, and what is added to it
        self.offset = torch.zeros(1, count, *[1] * count, dtype=torch.float64, device="cpu")

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        if len(shape) < 2 + len(self.channels) or shape[1] <= max(self.channels):
            raise ValueError(
                f"fields are {shape}, expected (B, C, *space) with {max(self.channels) + 1} channels and "
                f"{len(self.channels)} dims of space or more"
            )

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`."""
        waves, modes = self._modes(x)
        scale = self.scale.tolist()
        square = sum(((s * k) ** 2 for s, k in zip(scale, waves)), torch.zeros((), device=x.device))
        share = self._divergence(waves, modes) / torch.where(square > 0, square, 1.0)
        sizes = x.shape[x.ndim - len(waves) :]
        out = x.clone()
        for channel, s, k in zip(self.channels, scale, waves):
            out[:, channel] -= torch.fft.irfftn(s * k * share, sizes, self.dims)
        return out

    def relative(self, x: Tensor) -> Tensor:
        """Root mean square of the divergence, over that of ``|k| |v_k|``; see :class:`Constraint`."""
        waves, modes = self._modes(x)
        count = torch.full(modes[0].shape[-1:], 2.0, dtype=torch.float64, device=x.device)
        count[0] = 1  # of waves and those at -k, which only the last axis leaves out
        if x.shape[-1] % 2 == 0:
            count[-1] = 1
        square = sum(k**2 for k in waves)
        error = (count * self._divergence(waves, modes).abs() ** 2).flatten(1).sum(1)
        size = (count * square * sum(m.abs() ** 2 for m in modes)).flatten(1).sum(1)
        return torch.where(error == 0, 0.0, error / size).sqrt()

    def in_units(self, scale: Tensor, offset: Tensor) -> "DivergenceFree":
        """See :class:`Constraint`; the scale of each component has to be the same at all cells.

        Raises:
            ValueError: it is not.
        """
        parts = scale.double()[self.channels].flatten(1)
        if not (parts == parts[:, :1]).all() or not (parts > 0).all():
            raise ValueError(
                "the scale of a component differs between cells or is not above 0, under which the nearest field is "
                "no product of waves; expected one number for each, or Constrained(..., to_data=..., to_latent=...)"
            )
        made = DivergenceFree(self.channels, self.spacing)
        fields = offset.double().reshape(-1, *scale.shape)[:, self.channels]
        wide = self.scale.reshape(-1, *[1] * (fields.ndim - 2))
        made.scale, made.offset = self.scale * parts[:, 0].cpu(), self.offset.to(fields) + wide.to(fields) * fields
        return made

    def homogeneous(self) -> "DivergenceFree":
        """The same without an offset: the fields that may be added to those that satisfy this."""
        made = DivergenceFree(self.channels, self.spacing)
        made.scale = self.scale
        return made

    def _modes(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Wavenumbers along each axis, ready to broadcast, and the transform of each component, (B, ..., *half)."""
        count, sizes = len(self.channels), x.shape[x.ndim - len(self.channels) :]
        waves, modes = [], []
        for axis, (channel, size, h) in enumerate(zip(self.channels, sizes, self.spacing)):
            fftfreq = torch.fft.rfftfreq if axis == count - 1 else torch.fft.fftfreq
            k = 2 * math.pi * fftfreq(size, h, dtype=torch.float64, device=x.device)
            if size % 2 == 0:
                k[size // 2] = 0
            waves.append(k.reshape([-1 if i == axis else 1 for i in range(count)]))
            v = float(self.scale[axis]) * x[:, channel] + self.offset[:, axis].to(x.device)
            modes.append(torch.fft.rfftn(v, dim=self.dims))
        return waves, modes

    @staticmethod
    def _divergence(waves: list[Tensor], modes: list[Tensor]) -> Tensor:
        """``k . v_k``."""
        return torch.stack([k * m for k, m in zip(waves, modes)]).sum(0)


class DivergenceFreeWith(Constraint):
    """Zero divergence and coarse means, or integrals, at once and exactly.

    With P the projection onto zero divergence, ``P x + P A^T (A P A^T)^+ (b - A P x)``: the rows of A, each without
    its divergence, are kept as a matrix (m, cells). Fluxes that zero divergence makes equal have to be given as equal.

    Args:
        free: zero divergence.
        equations: the means, none of them NaN, or the integrals.

    Raises:
        ValueError: a free block, or values that no field without divergence has.
    """

    def __init__(self, free: DivergenceFree, equations: CoarseMeans | Integral) -> None:
        check_kind(DivergenceFree, "DivergenceFree(channels, spacing)", free=free)
        check_kind((CoarseMeans, Integral), "CoarseMeans(means, factor)", equations=equations)
        self.free, self.equations = free, equations
        rows = equations.rows()
        free.check(tuple(rows.shape))
        self.rows = free.homogeneous().nearest(rows).flatten(1)
        sizes, basis = torch.linalg.eigh(self.rows @ self.rows.T)
        kept = sizes > _CUTOFF * sizes[-1]
        self.inverse = basis[:, kept] / sizes[kept] @ basis[:, kept].T
        self._check_values(rows, basis[:, ~kept])

    def _check_values(self, rows: Tensor, idle: Tensor) -> None:
        """Along what zero divergence fixes already the values have to be what it fixes them to."""
        count = max(len(self.free.offset), len(self.equations.gap(rows[:1])))
        gap = self.equations.gap(self.free.nearest(torch.zeros_like(rows[:1]).expand(count, *rows.shape[1:])))
        if not torch.isfinite(gap).all():
            raise ValueError("a mean is NaN, expected one for each block, or Together(CoarseMeans, DivergenceFree)")
        away = float((gap @ idle).abs().max()) if idle.numel() else 0.0
        if away > _NEAR * float(gap.abs().max()):
            raise ValueError(
                f"no field without divergence has these values: they are {away:.2g} from those of the nearest one; "
                "expected means whose fluxes are equal wherever zero divergence makes them equal"
            )

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        self.free.check(shape)
        self.equations.check(shape)

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`."""
        y = self.free.nearest(x)
        move = self.equations.gap(y) @ self.inverse.to(x.device) @ self.rows.to(x.device)
        return y + move.reshape(x.shape)

    def relative(self, x: Tensor) -> Tensor:
        """The larger of both; see :class:`Constraint`."""
        return torch.maximum(self.free.relative(x), self.equations.relative(x))

    def in_units(self, scale: Tensor, offset: Tensor) -> "DivergenceFreeWith":
        """See :class:`Constraint`."""
        return DivergenceFreeWith(self.free.in_units(scale, offset), self.equations.in_units(scale, offset))
