"""Integrals of functions of time, to the last digits, as functions of time."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

__all__ = ["Function", "Integral"]

Function = Callable[[Tensor], Tensor | float]
_DEGREE = 16
_NODES = chebyshev.chebpts2(_DEGREE + 1)  # with both ends, so that no jump hides between two panels
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))
_TOLERANCE = 1e-13  # of a panel's last coefficients, relative to its largest
_HALVINGS = 24


class Integral:
    """``F(t) = integral of f from 0 to t`` for 0 <= t <= 1, by Chebyshev polynomials on panels.

    The panels double in length from the first on, so that F has its relative accuracy at small times too, and are
    halved where the coefficients of f have not died away (Trefethen, "Approximation theory and approximation practice",
    chapters 3 and 19).

    Args:
        f: smooth function of times, float64 tensors of any shape on the CPU.
        first: length of the first panel.
        last: end of the last one.
        name: of f, for errors.

    Raises:
        ValueError: f is not finite somewhere, or not resolved.
    """

    def __init__(self, f: Function, first: float, last: float, name: str) -> None:
        edges, coefficients = [0.0], []
        waiting = _doubling(first, last)[::-1]
        while waiting:
            a, b = waiting.pop()
            found = _expansion(f, a, b, name)
            if np.abs(found[-2:]).max() > _TOLERANCE * max(np.abs(found).max(), 1e-300):
                if b - a < last * 2.0**-_HALVINGS and b - a < first * 2.0**-_HALVINGS:
                    raise ValueError(f"{name} is not smooth enough to be integrated near t = {a:.6g}")
                waiting += [((a + b) / 2, b), (a, (a + b) / 2)]
                continue
            coefficients.append(chebyshev.chebint(found, lbnd=-1) * (b - a) / 2)
            edges.append(b)
        self._edges = torch.tensor(edges, dtype=torch.float64, device="cpu")
        ends = np.array([c.sum() for c in coefficients])
        before = np.concatenate([[0.0], np.cumsum(ends)[:-1]])
        self._before = torch.tensor(before, dtype=torch.float64, device="cpu")
        self._coefficients = torch.tensor(np.stack(coefficients, -1), dtype=torch.float64, device="cpu")

    def __call__(self, t: Tensor) -> Tensor:
        """F(t), same shape and device, by Clenshaw's recurrence."""
        edges, before, coefficients = (v.to(t.device) for v in (self._edges, self._before, self._coefficients))
        at = (torch.searchsorted(edges, t.detach().contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        first = edges[at]
        x = 2 * (t - first) / (edges[at + 1] - first) - 1
        zeroth, *others = coefficients[:, at].unbind()
        one, two = torch.zeros_like(t), torch.zeros_like(t)
        for c in reversed(others):
            one, two = torch.addcmul(c - two, x, one, value=2), one
        return before[at] + zeroth + x * one - two


def _doubling(first: float, last: float) -> list[tuple[float, float]]:
    """Panels (0, first), (first, 2 first), ... up to last."""
    edges = [0.0, first]
    while 2 * edges[-1] < last:
        edges.append(2 * edges[-1])
    return list(zip(edges, [*edges[1:], last]))


def _expansion(f: Function, a: float, b: float, name: str) -> np.ndarray:
    """Chebyshev coefficients of f on [a, b], (degree + 1,)."""
    t = torch.tensor((a + b) / 2 + (b - a) / 2 * _NODES, dtype=torch.float64, device="cpu")
    values = torch.as_tensor(f(t), dtype=torch.float64, device="cpu").detach().broadcast_to(t.shape).numpy()
    if not np.isfinite(values).all():
        wrong = values[~np.isfinite(values)][0]
        raise ValueError(f"{name} is {wrong} near t = {(a + b) / 2:.6g}, expected a finite number")
    return _TO_COEFFICIENTS @ values
