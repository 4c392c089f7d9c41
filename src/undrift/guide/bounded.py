"""Block means and bounds at once: the nearest rain that keeps its mass.

Of one block with coefficients a, the nearest y to u with ``sum a y = c`` and ``low <= y <= high`` is

    y = clip(u + level a, low, high),

with the one level at which the sum, which is piecewise linear in it and never falls, is c (Held, Wolfe & Crowder 1974,
doi:10.1007/BF01580223, for a = 1). Newton's method, kept between the levels that were too low and too high, finds it in
a few rounds for all blocks together, where alternating projections take hundreds.
"""

import torch
from torch import Tensor

from undrift.errors import UndriftError, check_kind
from undrift.guide.constraints import Bounds, CoarseMeans, Constraint

__all__ = ["BoundedMeans"]

_ROUNDS = 200
_ROUNDING = 1e-14
_NEAR = 1e-6  # by which a mean may be beyond what the bounds allow, relative to the largest


class BoundedMeans(Constraint):
    """Fields within bounds whose blocks have given means, exactly both.

    Args:
        means: the means.
        bounds: the bounds.
    """

    def __init__(self, means: CoarseMeans, bounds: Bounds) -> None:
        check_kind(CoarseMeans, "CoarseMeans(means, factor)", means=means)
        check_kind(Bounds, "Bounds(low=0.0)", bounds=bounds)
        self.means, self.bounds = means, bounds

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`undrift.guide.constraints.Constraint`."""
        self.means.check(shape)
        self.bounds.check(shape)

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`undrift.guide.constraints.Constraint`.

        Raises:
            UndriftError: a mean that no field within the bounds has.
        """
        cells = self.means.in_blocks
        a, u = cells(self.means.coefficients.to(x.device)), cells(x)
        low, high = (cells(b.to(x.device).expand(x.shape)) for b in (self.bounds.low, self.bounds.high))
        wanted = self._reachable(a, low, high, self.means.means.to(x.device))
        level = _level(u.detach(), a, low, high, wanted)
        y = _clipped(u + level * a, low, high)
        slope = (a**2 * (y == u + level * a)).sum(-1, keepdim=True)
        gap = wanted - (a * y).sum(-1, keepdim=True)  # 0 up to rounding: it carries the derivative of the level
        level = level + torch.where((slope > 0) & ~wanted.isnan(), gap / slope.clamp(min=1e-300), 0.0)
        return self.means.out_of_blocks(_clipped(u + level * a, low, high))

    def relative(self, x: Tensor) -> Tensor:
        """The larger of both; see :class:`undrift.guide.constraints.Constraint`."""
        return torch.maximum(self.means.relative(x), self.bounds.relative(x))

    def in_units(self, scale: Tensor, offset: Tensor) -> "BoundedMeans":
        """See :class:`undrift.guide.constraints.Constraint`."""
        return BoundedMeans(self.means.in_units(scale, offset), self.bounds.in_units(scale, offset))

    def _reachable(self, a: Tensor, low: Tensor, high: Tensor, means: Tensor) -> Tensor:
        """The means, those beyond the bounds by rounding put onto them, (B, C, *coarse, 1)."""
        least, most = (torch.where(a > 0, a * b, 0.0).sum(-1) for b in (low, high))
        sizes = torch.cat([v.flatten() for v in (means, least, most)])
        near = _NEAR * sizes.abs().nan_to_num(0.0, 0.0, 0.0).max()
        beyond = (means < least - near) | (means > most + near)
        if beyond.any():
            worst = means.expand(beyond.shape)[beyond][0]
            raise UndriftError(f"no field within the bounds has a mean of {float(worst):.4g} over a block")
        return torch.minimum(torch.maximum(means, least), most)[..., None]


def _clipped(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


@torch.no_grad()
def _level(u: Tensor, a: Tensor, low: Tensor, high: Tensor, wanted: Tensor) -> Tensor:
    """At which ``sum a clip(u + level a)`` is what is wanted, (..., 1); 0 where that is NaN."""
    level = torch.zeros_like(u[..., :1])
    below, above = torch.full_like(level, -torch.inf), torch.full_like(level, torch.inf)
    rounding = _ROUNDING * ((a * u.abs()).sum(-1, keepdim=True) + wanted.abs())
    for _ in range(_ROUNDS):
        free = u + level * a
        y = _clipped(free, low, high)
        gap = wanted - (a * y).sum(-1, keepdim=True)
        goes_on = gap.abs() > rounding  # not where it is NaN
        if not goes_on.any():
            break
        below, above = torch.where(gap > 0, level, below), torch.where(gap < 0, level, above)
        slope = (a**2 * (y == free)).sum(-1, keepdim=True)
        new = level + gap / slope
        stuck = goes_on & (slope == 0)
        if stuck.any():  # all cells are at bounds: on to where the first of them leaves its own
            new = torch.where(stuck, _leaves(u, a, low, high, free, gap), new)
        new = torch.where((new > below) & (new < above), new, (below + above) / 2)
        level = torch.where(goes_on, new, level)
    return level


def _leaves(u: Tensor, a: Tensor, low: Tensor, high: Tensor, free: Tensor, gap: Tensor) -> Tensor:
    """A Newton step from the level at which the next cell leaves its bound, by its slope alone, (..., 1)."""
    up = gap > 0
    moves = (a > 0) & torch.where(up, free < low, free > high)
    away = torch.where(moves, (torch.where(up, low, high) - free).abs() / a, torch.inf)
    first = away.argmin(-1, keepdim=True)
    step = away.gather(-1, first)
    level = ((free - u) / a).gather(-1, first)
    return level + torch.where(up, step, -step) + gap / a.expand(away.shape).gather(-1, first) ** 2
