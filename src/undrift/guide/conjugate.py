"""Linear systems of each row, solved by products with their matrix alone."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["conjugate_gradients", "solve"]

_ORDERS = 2


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """``matrix^-1 right`` of each row by itself, and how far it is off.

    Hestenes & Stiefel (1952), doi:10.6028/jres.049.044. A row ends when its residual is ``tolerance`` times its right
    side, or where the matrix is found not to be positive; of its iterates that of least residual is returned, so that a
    matrix that is not quite symmetric, of a network, makes it no worse than 0.

    Args:
        matrix: (B, m) to (B, m), each row by itself.
        right: (B, m).
        iterations: at most.
        tolerance: of the residual's norm, relative to that of the right side.

    Returns:
        The solution (B, m), and the norm of the residual over that of the right side, (B,).
    """
    x, left, along = torch.zeros_like(right), right, right
    squares = size = (right**2).sum(1)
    best, least = x, squares
    active = squares > tolerance**2 * size
    for _ in range(iterations):
        if not bool(active.any()):
            break
        image = matrix(along)
        curvature = (along * image).sum(1)
        active = active & (curvature > 0)
        step = torch.where(active, squares / curvature, 0.0)[:, None]
        x, left = x + step * along, left - step * image
        found = (left**2).sum(1)
        better = active & (found < least)
        best, least = torch.where(better[:, None], x, best), torch.where(better, found, least)
        along = left + torch.where(active, found / squares, 0.0)[:, None] * along
        squares, active = found, active & (found > tolerance**2 * size)
    return best, torch.where(size > 0, (least / size).sqrt(), 0.0)


def solve(
    matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float, order: int = 0
) -> Tensor:
    """``matrix^-1 right`` of each row, which autograd can differentiate twice, by what the matrix is made of too.

    A step of Newton's method, ``x + M^-1 (b - M x)``, moves a solution by nothing and gives it one more derivative; its
    own gradient is a solution with the transposed matrix, for which M is taken. Rows that are not solved warn.

    Args:
        matrix: see :func:`conjugate_gradients`, as the next three.
        right: (B, m).
        iterations: at most.
        tolerance: relative.
        order: derivatives that were taken before.

    Raises:
        RuntimeError: a third derivative may be asked for.
    """
    with torch.no_grad():
        x, off = conjugate_gradients(matrix, right, iterations, tolerance)
        if not bool((off <= tolerance).all()):
            warnings.warn(
                f"conjugate gradients are {float(off.max()):.2g} off after {iterations} iterations or fewer, expected "
                f"{tolerance:.2g}; give more iterations or a larger tolerance, or put an MMPS inside of a DPS",
                RuntimeWarning,
                stacklevel=2,
            )
    if not torch.is_grad_enabled():
        return x
    if order >= _ORDERS:
        raise RuntimeError(
            "a third derivative of a guide is asked for, expected two at most: three guides around each other can "
            "sample, two be differentiated; give one guide an Observation of all that is known"
        )
    for _ in range(_ORDERS):
        left = right - matrix(x)
        if not left.requires_grad:
            break
        left.register_hook(lambda gradient: solve(matrix, gradient, iterations, tolerance, order + 1))
        x = x + (left - left.detach())
    return x
