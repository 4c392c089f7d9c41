"""Constraints on fields, each a closed convex set by the projection onto it.

A projection moves a field x to the nearest one that satisfies the constraint. For linear constraints ``A x = b`` it is

    P x = x + A^T (A A^T)^{-1} (b - A x),

which leaves all that is orthogonal to the rows of A as it was. With ``x = offset + scale u`` the same constraint on the
numbers u of a network is ``A scale u = b - A offset``: :meth:`Constraint.in_units` gives it, with its own nearest u.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor

from undrift.errors import check_kind

__all__ = ["Bounds", "CoarseMeans", "Constraint", "Integral", "Linear"]

_LEAST_SQUARE = 1e-10  # of the part of a row of unit length that the rows before it do not span


class Constraint(ABC):
    """A property of fields that holds or does not, in the units in which the fields are."""

    def project(self, x: Tensor) -> Tensor:
        """The nearest fields that satisfy the constraint, by the sum of squares over cells.

        Computed in float64, returned in the dtype of x, and differentiable.

        Args:
            x: fields, (B, C, *space).

        Raises:
            ValueError: fields of another shape than the constraint is for.
        """
        self.check(tuple(x.shape))
        return self.nearest(x.double()).to(x.dtype)

    def residual(self, x: Tensor) -> Tensor:
        """How far fields (B, C, *space) are from it, relative to the size of its terms: float64, (B,), 0 if it holds.

        Raises:
            ValueError: fields of another shape than the constraint is for.
        """
        self.check(tuple(x.shape))
        return self.relative(x.double())

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless fields may have this shape, (B, C, *space)."""

    @abstractmethod
    def nearest(self, x: Tensor) -> Tensor:
        """:meth:`project` of fields in float64 that fit."""

    @abstractmethod
    def relative(self, x: Tensor) -> Tensor:
        """:meth:`residual` of fields in float64 that fit."""

    @abstractmethod
    def in_units(self, scale: Tensor, offset: Tensor) -> "Constraint":
        """The constraint on u that ``x = offset + scale u`` satisfies this one.

        Args:
            scale: above 0, of a whole field, (C, *space).
            offset: (C, *space), or (B, C, *space) where each row has its own.
        """


class CoarseMeans(Constraint):
    """Means over blocks of cells equal those of a coarse field: mass is kept.

    Args:
        means: the coarse field, (B or 1, C, *coarse); a block of which it is NaN is free.
        factor: cells of a block along each dim of space.
        weights: of the cells in the means, such as areas, at least 0, (*space) or (C, *space); equal if None.

    Raises:
        ValueError: shapes that do not fit, weights below 0, or a block that has a mean and no weight.
    """

    def __init__(self, means: Tensor, factor: Sequence[int], weights: Tensor | None = None) -> None:
        self.factor = tuple(factor)
        check_kind(Tensor, "torch.as_tensor(means)", means=means)
        if means.ndim != 2 + len(self.factor) or min(self.factor) < 1:
            raise ValueError(
                f"means are {tuple(means.shape)} and factor is {self.factor}, expected (B, C, *coarse) and a whole "
                "number above 0 for each dim of coarse"
            )
        self.means = means.double()
        space = tuple(n * f for n, f in zip(means.shape[2:], self.factor))
        cells = torch.ones(space, dtype=torch.float64, device=means.device) if weights is None else weights.double()
        if tuple(cells.shape) not in (space, (means.shape[1], *space)) or not (cells >= 0).all():
            raise ValueError(
                f"weights are {tuple(cells.shape)}, expected numbers of at least 0, {space} or (C, *space)"
            )
        cells = cells.expand(1, means.shape[1], *space)
        total = self._sums(cells)
        if ((total == 0) & ~self.means.isnan()).any():
            raise ValueError("a block has a mean and only cells of weight 0; expected NaN for its mean")
        self._set(cells / self._over(total.clamp(min=1e-300)))

    def _set(self, coefficients: Tensor) -> None:
        """``sum over a block of coefficients x = means``."""
        self.coefficients = coefficients
        self.gain = coefficients / self._over(self._sums(coefficients**2).clamp(min=1e-300))

    def in_blocks(self, x: Tensor) -> Tensor:
        """Fields (B, C, *space) as (B, C, *coarse, cells of a block)."""
        count = len(self.factor)
        split = [part for n, f in zip(x.shape[2:], self.factor) for part in (n // f, f)]
        order = [0, 1, *range(2, 2 + 2 * count, 2), *range(3, 3 + 2 * count, 2)]
        return x.reshape(*x.shape[:2], *split).permute(order).flatten(2 + count)

    def out_of_blocks(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`in_blocks`."""
        count = len(self.factor)
        coarse = x.shape[2 : 2 + count]
        order = [0, 1, *(i for axis in range(count) for i in (2 + axis, 2 + count + axis))]
        space = [n * f for n, f in zip(coarse, self.factor)]
        return x.unflatten(-1, self.factor).permute(order).reshape(*x.shape[:2], *space)

    def _sums(self, x: Tensor) -> Tensor:
        """Sums over blocks, (B, C, *coarse)."""
        return self.in_blocks(x).sum(-1)

    def _over(self, coarse: Tensor) -> Tensor:
        """A number of each block at all of its cells, (B, C, *space)."""
        return self.out_of_blocks(coarse[..., None].expand(*coarse.shape, math.prod(self.factor)))

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        _check(shape, len(self.means), tuple(self.coefficients.shape[1:]), "the block means")

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`."""
        gap = self.means.to(x.device) - self._sums(self.coefficients.to(x.device) * x)
        return x + self.gain.to(x.device) * self._over(torch.where(self.free(x), 0.0, gap))

    def relative(self, x: Tensor) -> Tensor:
        """Largest error of a block, over the largest mean; see :class:`Constraint`."""
        means, terms, free = self.means.to(x.device), self.coefficients.to(x.device) * x, self.free(x)
        error = torch.where(free, 0.0, (self._sums(terms) - means).abs())
        return _share(error, torch.where(free, 0.0, torch.maximum(self._sums(terms.abs()), means.abs())))

    def rows(self) -> Tensor:
        """The coefficients of each mean as a field, (m, C, *space)."""
        count = self.means[0].numel()
        one = torch.eye(count, dtype=torch.float64, device=self.means.device).reshape(count, *self.means.shape[1:])
        return self.coefficients * self._over(one)

    def gap(self, x: Tensor) -> Tensor:
        """What each mean lacks, (B, m); NaN for a block that is free."""
        return (self.means.to(x.device) - self._sums(self.coefficients.to(x.device) * x)).flatten(1)

    def free(self, x: Tensor) -> Tensor:
        """Which blocks have no mean to keep, (B or 1, C, *coarse)."""
        return self.means.isnan().to(x.device)

    def in_units(self, scale: Tensor, offset: Tensor) -> "CoarseMeans":
        """See :class:`Constraint`."""
        scale, offset = _units(scale, offset, self.coefficients.shape[1:])
        made = CoarseMeans.__new__(CoarseMeans)
        made.factor, made.means = self.factor, self.means - self._sums(self.coefficients * offset)
        made._set(self.coefficients * scale)
        return made


class Linear(Constraint):
    """Linear equations, ``operator x = values``, x with its numbers in one row.

    Args:
        operator: (m, D), D the numbers of a field: a tensor, an array, or sparse, of torch or scipy. Its rows may not
            depend on each other. The (m, m) products of its rows are kept as their Cholesky factor.
        values: (m,), or (B, m) where each row has its own.

    Raises:
        ValueError: shapes that do not fit, or rows that are 0 or depend on the rows before them.
    """

    def __init__(self, operator: Any, values: ArrayLike | Tensor) -> None:
        matrix = _matrix(operator)
        values = torch.as_tensor(values, dtype=torch.float64, device=matrix.device)
        if matrix.ndim != 2 or values.ndim not in (1, 2) or values.shape[-1] != matrix.shape[0]:
            raise ValueError(
                f"operator and values are {tuple(matrix.shape)} and {tuple(values.shape)}, expected (m, D) and (m,)"
            )
        lengths = (matrix * matrix).sum(1)
        lengths = (lengths.to_dense() if lengths.is_sparse else lengths).sqrt()
        if not (lengths > 0).all():
            raise ValueError(f"row {int((~(lengths > 0)).nonzero()[0])} of the operator is 0 or NaN, expected numbers")
        self.operator = _rows_times(matrix, 1 / lengths)
        self.values = (values / lengths).reshape(-1, len(lengths))
        self.transposed = self.operator.t().coalesce() if self.operator.is_sparse else self.operator.T
        self.root = _root(_gram(self.operator), self.values)

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        if math.prod(shape[1:]) != self.operator.shape[1] or len(self.values) not in (1, shape[0]):
            raise ValueError(
                f"fields are {shape}, expected {self.operator.shape[1]} numbers in each, and {len(self.values)} rows "
                "or one set of values for all"
            )

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`."""
        flat, root = x.flatten(1), self.root.to(x.device)
        operator, transposed, values = (v.to(x.device) for v in (self.operator, self.transposed, self.values))
        for _ in range(2):  # the second takes away what rounding left of the first
            gap = values - _times(operator, flat)
            flat = flat + _times(transposed, torch.cholesky_solve(gap.T, root).T)
        return flat.reshape(x.shape)

    def relative(self, x: Tensor) -> Tensor:
        """Largest error of an equation, over the largest sum of its terms' sizes; see :class:`Constraint`."""
        flat, operator, values = x.flatten(1), self.operator.to(x.device), self.values.to(x.device)
        size = torch.maximum(_times(abs(operator), flat.abs()), values.abs())
        return _share((_times(operator, flat) - values).abs(), size)

    def in_units(self, scale: Tensor, offset: Tensor) -> "Linear":
        """See :class:`Constraint`."""
        scale, offset = _units(scale, offset, scale.shape)
        values = self.values - _times(self.operator, offset.flatten(1))
        return Linear(_rows_times(self.transposed, scale.flatten()).t(), values)


class Integral(Linear):
    """Weighted sums of a field over regions, or over all of it, equal numbers.

    Args:
        weights: of each cell in each sum, (m, C, *space), such as areas within a region, and 0 beyond it.
        values: the sums, (m,), or (B, m) where each row has its own.

    Raises:
        ValueError: as of :class:`Linear`.
    """

    def __init__(self, weights: Tensor, values: ArrayLike | Tensor) -> None:
        check_kind(Tensor, "torch.as_tensor(weights)", weights=weights)
        super().__init__(weights.flatten(1), values)
        self.shape = tuple(weights.shape[1:])

    def rows(self) -> Tensor:
        """The weights of each sum as a field, each of unit length, (m, C, *space)."""
        return self.operator.reshape(-1, *self.shape)

    def gap(self, x: Tensor) -> Tensor:
        """What each sum lacks, (B, m), in units of the length of its weights."""
        return self.values.to(x.device) - _times(self.operator.to(x.device), x.flatten(1))

    def in_units(self, scale: Tensor, offset: Tensor) -> "Integral":
        """See :class:`Constraint`."""
        scale, offset = _units(scale, offset, self.shape)
        return Integral(self.rows() * scale, self.values - _times(self.operator, offset.flatten(1)))

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        _check(shape, len(self.values), self.shape, "the weights of the integrals")


class Bounds(Constraint):
    """``low <= x <= high``, cell by cell.

    Args:
        low: a number, or a tensor that broadcasts with fields (B, C, *space); None for no bound.
        high: likewise.

    Raises:
        ValueError: neither is given, or low is above high.
    """

    def __init__(self, low: float | Tensor | None = None, high: float | Tensor | None = None) -> None:
        if low is None and high is None:
            raise ValueError("bounds have neither low nor high, expected at least one")
        self.low = _number(-math.inf if low is None else low)
        self.high = _number(math.inf if high is None else high)
        if not (self.low <= self.high).all():
            raise ValueError("low is above high or NaN, expected low <= high everywhere")

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        bounds = torch.broadcast_shapes(self.low.shape, self.high.shape)
        if len(bounds) > len(shape) or any(n not in (1, m) for n, m in zip(bounds[::-1], shape[::-1])):
            raise ValueError(f"fields are {shape}, expected a shape with which the bounds' {tuple(bounds)} broadcast")

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`."""
        return torch.minimum(torch.maximum(x, self.low.to(x.device)), self.high.to(x.device))

    def relative(self, x: Tensor) -> Tensor:
        """Largest distance beyond a bound, over the largest number of the field; see :class:`Constraint`."""
        return _share((self.nearest(x) - x).abs(), x.abs())

    def in_units(self, scale: Tensor, offset: Tensor) -> "Bounds":
        """See :class:`Constraint`."""
        scale, offset = _units(scale, offset, scale.shape)
        return Bounds((self.low - offset) / scale, (self.high - offset) / scale)


def _check(shape: tuple[int, ...], rows: int, expected: tuple[int, ...], of: str) -> None:
    """Refuse fields that are not (rows, or any where rows is 1, then expected)."""
    if shape[1:] != expected or rows not in (1, shape[0]):
        first = "B" if rows == 1 else rows
        raise ValueError(f"fields are {shape}, expected {(first, *expected)}, those of {of}")


def _share(error: Tensor, size: Tensor) -> Tensor:
    """Largest error of each row over the largest size, (B,); 0 where there is no error."""
    largest, most = error.flatten(1).amax(1), size.flatten(1).amax(1)
    return torch.where(largest == 0, 0.0, largest / most)


def _units(scale: Tensor, offset: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Scale (1, C, *space) and offset (B or 1, C, *space), float64."""
    shape = tuple(shape)
    if tuple(scale.shape) != shape or not (scale > 0).all() or tuple(offset.shape[offset.ndim - len(shape) :]) != shape:
        raise ValueError(
            f"scale and offset are {tuple(scale.shape)} and {tuple(offset.shape)}, expected numbers above 0, {shape}, "
            "and an offset of each of these cells"
        )
    return scale.double()[None], offset.double().reshape(-1, *shape)


def _number(value: float | Tensor) -> Tensor:
    """In float64, where it is, or on the CPU."""
    return value.double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")


def _matrix(operator: Any) -> Tensor:
    """Float64, dense or sparse in coordinates."""
    if sparse.issparse(operator):
        found = operator.tocoo()
        index = torch.as_tensor(np.stack([found.row, found.col]), dtype=torch.long, device="cpu")
        values = torch.as_tensor(found.data, dtype=torch.float64, device="cpu")
        return torch.sparse_coo_tensor(index, values, found.shape, check_invariants=True).coalesce()
    tensor = operator if isinstance(operator, Tensor) else torch.as_tensor(np.asarray(operator), device="cpu")
    tensor = tensor.double()
    return tensor if tensor.layout == torch.strided else tensor.to_sparse_coo().coalesce()


def _times(matrix: Tensor, rows: Tensor) -> Tensor:
    """A matrix (m, n), dense or sparse, times each of some rows (B, n): (B, m)."""
    return (matrix @ rows.T).T if matrix.is_sparse else rows @ matrix.T


def _rows_times(matrix: Tensor, factors: Tensor) -> Tensor:
    """Each row of a matrix times its factor."""
    if not matrix.is_sparse:
        return matrix * factors[:, None]
    index = matrix.indices()
    values = matrix.values() * factors[index[0]]
    return torch.sparse_coo_tensor(index, values, matrix.shape, is_coalesced=True, check_invariants=False)


def _gram(matrix: Tensor) -> Tensor:
    """Products of its rows, (m, m), dense."""
    if not matrix.is_sparse:
        return matrix @ matrix.T
    row, column = matrix.indices().cpu().numpy()
    rows = sparse.csr_array((matrix.values().cpu().numpy(), (row, column)), shape=tuple(matrix.shape))
    return torch.from_numpy((rows @ rows.T).toarray()).to(matrix.device)


def _root(gram: Tensor, values: Tensor) -> Tensor:
    """Cholesky factor of the products of rows of unit length, whose diagonal is what a row adds to those before it."""
    root, _ = torch.linalg.cholesky_ex(gram)
    added = torch.diagonal(root)
    short = ~(added**2 > _LEAST_SQUARE)  # after the first, or NaN, nothing that follows has a meaning
    if not short.any():
        return root
    row = int(short.nonzero()[0])
    before = root[:row, :row]
    mix = torch.cholesky_solve(gram[:row, row, None], before)[:, 0]
    away = float((values[:, row] - values[:, :row] @ mix).abs().max() / values.abs().max().clamp(min=1e-300))
    agrees = "says the same, leave it out" if away < 1e-6 else "contradicts them, so no field satisfies all"
    raise ValueError(f"row {row} of the operator is a sum of multiples of the rows before it, and {agrees}")
