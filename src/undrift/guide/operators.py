"""What an instrument makes of a field: numbers, and the adjoint that carries such numbers back to fields."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from undrift.errors import check_kind, check_whole, described

__all__ = [
    "BlockMeans",
    "FourierModes",
    "Function",
    "Linear",
    "Linearised",
    "Mask",
    "Operator",
    "Points",
    "RegionalSums",
    "Scaled",
]


@dataclass(frozen=True)
class Linearised:
    """An operator near a field: its value there, (B, m), and its Jacobian H.

    Attributes:
        value: (B, m).
        push: ``v -> H v``, fields (B, C, *space) to numbers (B, m).
        pull: ``w -> H^T w``, numbers to fields.
    """

    value: Tensor
    push: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor], Tensor]


class Operator(ABC):
    """Fields (B, C, *space) to numbers (B, m), each row by itself."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The numbers of fields."""

    def linearised(self, x: Tensor) -> Linearised:
        """Value and Jacobian at x by autograd; differentiable by x where x requires a gradient and autograd is on."""
        tracked = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            at = x if tracked else x.detach().requires_grad_()
            value = self(at)
            weights = torch.zeros_like(value).requires_grad_()
            # H^T w is linear in w, and its own transposed Jacobian is H
            (carried,) = torch.autograd.grad(value, at, weights, create_graph=True)

        def push(fields: Tensor) -> Tensor:
            return _vjp(carried, weights, fields, tracked)

        def pull(values: Tensor) -> Tensor:
            return _vjp(value, at, values, tracked)

        return Linearised(value if tracked else value.detach(), push, pull)


def _vjp(of: Tensor, by: Tensor, weights: Tensor, tracked: bool) -> Tensor:
    keep = torch.is_grad_enabled() and (tracked or weights.requires_grad)
    (out,) = torch.autograd.grad(of, by, weights, retain_graph=True, create_graph=keep)
    return out


class Linear(Operator):
    """A linear operator A."""

    def adjoint(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """``A^T w`` of numbers (B, m), fields of a shape (B, C, *space): ``<A x, w> = <x, A^T w>``."""
        with torch.enable_grad():
            start = torch.zeros(tuple(shape), dtype=values.dtype, device=values.device, requires_grad=True)
            image = self(start)
        return _vjp(image, start, values, False)

    def linearised(self, x: Tensor) -> Linearised:
        """See :class:`Operator`: the Jacobian is A everywhere."""
        return Linearised(self(x), self, lambda values: self.adjoint(values, x.shape))


class Mask(Linear):
    """The cells that a mask marks.

    Args:
        mask: bool, (C, *space), or (*space) for all channels alike.
    """

    def __init__(self, mask: Tensor) -> None:
        check_kind(Tensor, "torch.tensor(mask)", mask=mask)
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask is {mask.dtype}, expected bool; write mask > 0.5")
        self.mask = mask

    def __call__(self, x: Tensor) -> Tensor:
        """Cells in the order of the field, channel by channel."""
        if self.mask.shape not in (x.shape[1:], x.shape[2:]):
            raise ValueError(
                f"the mask is {tuple(self.mask.shape)}, expected {tuple(x.shape[1:])} or {tuple(x.shape[2:])}"
            )
        return x[:, self.mask.to(x.device).expand(x.shape[1:])]


class BlockMeans(Linear):
    """Means over blocks of cells, each cell of the same weight.

    Args:
        factor: cells of a block along each dim of space, or along all.
    """

    def __init__(self, factor: int | Sequence[int]) -> None:
        for one in factor if isinstance(factor, Sequence) and not isinstance(factor, str) else (factor,):
            check_whole(1, factor=one)
        self.factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        """Blocks in the order of the field, channel by channel."""
        space = x.shape[2:]
        factors = (self.factor,) * len(space) if isinstance(self.factor, int) else tuple(self.factor)
        if len(factors) != len(space) or any(n % f for n, f in zip(space, factors)):
            raise ValueError(f"fields have {tuple(space)} cells, expected multiples of the factor {self.factor}")
        blocks = [size for n, f in zip(space, factors) for size in (n // f, f)]
        inner = tuple(range(3, 2 + len(blocks), 2))
        return x.reshape(*x.shape[:2], *blocks).mean(inner).flatten(1)


class Points(Linear):
    """Values at points, interpolated linearly along each dim between centres of cells, or those of the nearest cells.

    Args:
        positions: in cells, 0 at the centre of the first, (m, dims of space).
        channels: of each point, (m,); the first if None.
        periodic: whether the field goes on from its last cell to its first, for each dim or for all.
        nearest: the nearest cell in place of interpolation.
    """

    def __init__(
        self,
        positions: Tensor,
        channels: Tensor | None = None,
        *,
        periodic: bool | Sequence[bool] = False,
        nearest: bool = False,
    ) -> None:
        check_kind(Tensor, "torch.tensor(positions)", positions=positions)
        if positions.ndim != 2 or not torch.isfinite(positions).all():
            raise ValueError(f"positions are {tuple(positions.shape)}, expected finite numbers (m, dims of space)")
        self.positions = positions.to(torch.float64)
        self.channels = torch.zeros_like(positions[:, 0]).long() if channels is None else channels.long()
        if self.channels.shape != positions.shape[:1]:
            raise ValueError(f"channels are {tuple(self.channels.shape)}, expected ({len(positions)},)")
        self.periodic = (periodic,) * positions.shape[1] if isinstance(periodic, bool) else tuple(periodic)
        self.nearest = nearest

    def __call__(self, x: Tensor) -> Tensor:
        """One number a point."""
        cells, weights = self._corners(x.shape)
        values = x.flatten(1)[:, cells.to(x.device)]
        return (values * weights.to(values)).sum(1)

    def _corners(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Numbers of the cells around each point in the flat field, and their weights, (corners, m)."""
        space, at = shape[2:], self.positions.round() if self.nearest else self.positions
        if at.shape[1] != len(space) or len(self.periodic) != len(space):
            raise ValueError(
                f"positions and periodic have {at.shape[1]} and {len(self.periodic)} dims, not {len(space)}"
            )
        if not ((self.channels >= 0) & (self.channels < shape[1])).all():
            raise ValueError(f"channels reach to {int(self.channels.max())}, expected 0 to {shape[1] - 1}")
        low = at.floor().long()
        for n, periodic, there in zip(space, self.periodic, at.T):
            if not periodic and not ((there >= 0) & (there <= n - 1)).all():
                raise ValueError(
                    f"positions reach from {float(there.min()):g} to {float(there.max()):g}, "
                    f"expected 0 to {n - 1} in a dim that is not periodic"
                )
        cells, weights = [], []
        for corner in product((0, 1), repeat=len(space)):
            number, weight = self.channels, torch.ones_like(at[:, 0])
            for dim, (n, upper) in enumerate(zip(space, corner)):
                share = at[:, dim] - low[:, dim]
                # a point on the last centre has no cell beyond it, and needs none: the weight is 0
                number = number * n + (low[:, dim] + upper) % n
                weight = weight * (share if upper else 1 - share)
            cells.append(number)
            weights.append(weight)
        return torch.stack(cells), torch.stack(weights)


class Scaled(Linear):
    """A linear operator of fields in other units: ``A (scale x)``.

    Args:
        operator: A.
        scale: of each cell, (C, *space), or a number.
    """

    def __init__(self, operator: Linear, scale: Tensor | float) -> None:
        check_kind(Linear, "Points(positions)", operator=operator)
        self.operator, self.scale = operator, torch.as_tensor(scale)

    def __call__(self, x: Tensor) -> Tensor:
        """The numbers of the fields in the operator's units."""
        return self.operator(x * self.scale.to(x))


class FourierModes(Linear):
    """Amplitudes of waves on a periodic grid, orthonormal: ``A A^T = 1``.

    Of a field of N cells, ``sqrt(2 / N) sum_j cos(k j) x_j`` and ``-sqrt(2 / N) sum_j sin(k j) x_j``, the real and the
    imaginary part of the discrete Fourier transform; of a wavenumber that is its own opposite, which has no imaginary
    part, ``sqrt(1 / N) sum_j cos(k j) x_j`` alone.

    Args:
        wavenumbers: whole cycles along each dim of space, (k, dims); of k and -k, which say the same, only one.
    """

    def __init__(self, wavenumbers: Tensor) -> None:
        check_kind(Tensor, "torch.tensor(wavenumbers)", wavenumbers=wavenumbers)
        if wavenumbers.ndim != 2 or wavenumbers.is_floating_point():
            raise ValueError(
                f"wavenumbers are {tuple(wavenumbers.shape)} of {wavenumbers.dtype}, "
                "expected integers (k, dims of space)"
            )
        self.wavenumbers = wavenumbers.long()

    def __call__(self, x: Tensor) -> Tensor:
        """Of each channel the real parts, and then the imaginary parts of the waves that have one."""
        at, opposite = self._places(x.shape[2:])
        dims = tuple(range(2, x.ndim))
        modes = torch.fft.fftn(x, dim=dims, norm="ortho").flatten(2)[..., at.to(x.device)]
        own = (at == opposite).to(x.device)
        parts = torch.where(own, modes.real, 2**0.5 * modes.real), 2**0.5 * modes.imag[..., ~own]
        return torch.cat(parts, -1).flatten(1)

    def _places(self, space: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Places of the waves in the flat transform, and of their opposites."""
        if self.wavenumbers.shape[1] != len(space):
            raise ValueError(f"wavenumbers have {self.wavenumbers.shape[1]} dims, expected {len(space)}")
        at = opposite = torch.zeros_like(self.wavenumbers[:, 0])
        for n, k in zip(space, self.wavenumbers.T):
            at, opposite = at * n + k % n, opposite * n + -k % n
        if len(torch.minimum(at, opposite).unique()) < len(at):
            raise ValueError("wavenumbers name a wave twice, on this grid or as k and -k; expected each once")
        return at, opposite


class RegionalSums(Linear):
    """Weighted sums over the field.

    Args:
        weights: (m, C, *space).
    """

    def __init__(self, weights: Tensor) -> None:
        check_kind(Tensor, "torch.tensor(weights)", weights=weights)
        self.weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        """One number for each field of weights."""
        if self.weights.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"weights are {tuple(self.weights.shape)}, expected (m, {', '.join(map(str, x.shape[1:]))})"
            )
        return x.flatten(1) @ self.weights.to(x).flatten(1).T


class Function(Operator):
    """Any function that autograd can differentiate, twice where guides are stacked.

    Args:
        function: fields (B, C, *space) to numbers (B, ...), each row by itself.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        if not callable(function):
            raise TypeError(
                f"the function is {described(function)}, expected one of fields, such as lambda x: x.mean((2, 3))"
            )
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        """The numbers, flat.

        Raises:
            ValueError: not as many rows as x.
        """
        out = self.function(x)
        if out.ndim < 1 or len(out) != len(x):
            raise ValueError(f"the function made {tuple(out.shape)} of {len(x)} fields, expected ({len(x)}, ...)")
        return out.reshape(len(x), -1)
