"""The local stage of the linear predictor: the fine cells of one coarse block from the coarse cells around it.

One set of coefficients serves the whole domain, so that a few samples suffice for it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stencil", "StencilSums"]

Array = NDArray[np.float64]
_RADIUS = 2


class Stencil:
    """Coefficients (F, C * factor^d) from a coarse neighbourhood and the covariates to one block of fine cells."""

    def __init__(self, coefficients: Array, factor: Sequence[int], radius: int, periodic: Sequence[bool]) -> None:
        self.coefficients, self.factor = coefficients, tuple(factor)
        self.radius, self.periodic = radius, tuple(periodic)

    def shrunk(self, weight: float) -> "Stencil":
        """The same with all coefficients times ``weight``."""
        return Stencil(weight * self.coefficients, self.factor, self.radius, self.periodic)

    @staticmethod
    def neighbourhoods(
        coarse: Array, features: Array, radius: int, periodic: Sequence[bool], one: Array | None = None
    ) -> Array:
        """(n, *coarse space, F), F = G (2 radius + 1)^d + K + 1; the last is ``one`` (n,), ones by default."""
        dims = coarse.ndim - 2
        padded = coarse
        for axis, wrap in enumerate(periodic):
            width = [(0, 0)] * coarse.ndim
            width[axis + 2] = (radius, radius)
            padded = np.pad(padded, width, mode="wrap" if wrap else "edge")
        window = (2 * radius + 1,) * dims
        view = np.lib.stride_tricks.sliding_window_view(padded, window, axis=tuple(range(2, 2 + dims)))
        view = np.moveaxis(view, 1, 1 + dims).reshape(len(coarse), *coarse.shape[2:], -1)
        last = np.ones((len(features), 1)) if one is None else one[:, None]
        extra = np.concatenate([features, last], 1)
        extra = np.broadcast_to(extra[(slice(None),) + (None,) * dims], (*view.shape[:-1], extra.shape[1]))
        return np.concatenate([view, extra], -1)

    @staticmethod
    def to_blocks(fine: Array, factor: Sequence[int]) -> Array:
        """(n, C, *space) -> (n, *coarse space, C * factor^d)."""
        n, c, *space = fine.shape
        split = [size for total, f in zip(space, factor) for size in (total // f, f)]
        dims = len(space)
        order = [0, *(2 + 2 * i for i in range(dims)), 1, *(3 + 2 * i for i in range(dims))]
        blocks = fine.reshape(n, c, *split).transpose(order)
        return blocks.reshape(*blocks.shape[: 1 + dims], -1)

    @staticmethod
    def from_blocks(blocks: Array, factor: Sequence[int], channels: int) -> Array:
        """Inverse of :meth:`to_blocks`."""
        n, *coarse = blocks.shape[:-1]
        dims = len(coarse)
        parts = blocks.reshape(n, *coarse, channels, *factor)
        order = [0, 1 + dims, *(axis for i in range(dims) for axis in (1 + i, 2 + dims + i))]
        return parts.transpose(order).reshape(n, channels, *(c * f for c, f in zip(coarse, factor)))

    def predict(self, coarse: Array, features: Array, one: Array | None = None) -> Array:
        """Fine fields (n, C, *space), linear in (coarse, features, one); ``one`` is 1 for a sample."""
        channels = self.coefficients.shape[1] // int(np.prod(self.factor))
        x = self.neighbourhoods(coarse, features, self.radius, self.periodic, one)
        return self.from_blocks(x @ self.coefficients, self.factor, channels)


class StencilSums:
    """The normal equations of the stencil, summed by fold.

    Args:
        number: folds.
        factor: fine cells per coarse cell for each space dim.
        periodic: for each space dim.
    """

    def __init__(self, number: int, factor: Sequence[int], periodic: Sequence[bool]) -> None:
        self.number, self.factor, self.periodic = number, factor, periodic
        self.grams: list[Array | float] = [0.0] * number
        self.rights: list[Array | float] = [0.0] * number

    def add(self, fold: int, coarse: Array, features: Array, left: Array) -> None:
        """Add samples of a fold and what the base leaves of them (n, C, *space), but for blocks with a missing cell."""
        x = Stencil.neighbourhoods(coarse, features, _RADIUS, self.periodic)
        y = Stencil.to_blocks(left, self.factor)
        whole = np.isfinite(y).all(-1)
        x, y = (v.reshape(-1, v.shape[-1]) if whole.all() else v[whole] for v in (x, y))
        self.grams[fold] += x.T @ x
        self.rights[fold] += x.T @ y

    def solve(self) -> list[Stencil]:
        """One stencil without each fold and, last, the one of all."""
        gram, right = sum(self.grams), sum(self.rights)
        assert isinstance(gram, np.ndarray) and isinstance(right, np.ndarray)
        out = []
        for k in range(self.number + 1):
            g, r = (gram, right) if k == self.number else (gram - self.grams[k], right - self.rights[k])
            ridge = max(1e-6 * np.trace(g) / len(g), 1e-12) * np.eye(len(g))
            out.append(Stencil(np.linalg.solve(g + ridge, r), self.factor, _RADIUS, self.periodic))
        return out
