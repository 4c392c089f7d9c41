"""Brownian paths that are drawn where they are asked for, and stay."""

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.process import Key, normal

__all__ = ["BrownianPath"]


class BrownianPath:
    """Standard Brownian motion of every cell of every row, each row at times of its own.

    A value between two known ones is drawn from the Brownian bridge between them, so that a step that is tried again
    with another length follows the same path (Gaines & Lyons 1997, doi:10.1137/S0036139995286515).

    Args:
        x: fields, (B, ...), whose shape, dtype and device the path has.
        seed: of its numbers: a row's path depends on its position and on the times at which it was asked for.
    """

    def __init__(self, x: Tensor, seed: int) -> None:
        self.like, self.seed, self.drawn = x, seed, 0
        self.times = torch.zeros(1, len(x), dtype=torch.float64, device=x.device)  # (known, B)
        self.values = torch.zeros_like(x)[None]  # (known, B, ...)

    def increment(self, start: Tensor, stop: Tensor) -> Tensor:
        """``W(stop) - W(start)`` for times (B,); what is before ``start`` is forgotten."""
        first = self._at(start)
        last = self._at(stop)
        needed = (self.times >= start).any(1)
        self.times, self.values = self.times[needed], self.values[needed]
        return last - first

    def _at(self, time: Tensor) -> Tensor:
        """W at times (B,), drawn if it is not known."""
        before, after = self.times <= time, self.times >= time
        low = torch.where(before, self.times, -torch.inf).max(0)
        high = torch.where(after, self.times, torch.inf).min(0)
        rows = torch.arange(len(time), device=time.device)
        below, above = self.values[low.indices, rows], self.values[high.indices, rows]
        known, open_end = low.values == time, torch.isinf(high.values)
        span = torch.where(open_end, 1.0, high.values - low.values)
        share = torch.where(open_end | known, 0.0, (time - low.values) / torch.where(span == 0, 1.0, span))
        variance = torch.where(open_end, time - low.values, share * (high.values - time).nan_to_num(posinf=0.0))
        variance = torch.where(known, 0.0, variance)
        value = (
            below + along(share, below) * (above - below) + along(variance.clamp(min=0).sqrt(), below) * self._noise()
        )
        self.times = torch.cat([self.times, time[None]])
        self.values = torch.cat([self.values, value[None]])
        return value

    def _noise(self) -> Tensor:
        x = self.like
        rows = [normal(Key(self.seed, f"path {self.drawn}", row), x.shape[1:]) for row in range(len(x))]
        self.drawn += 1
        return torch.stack([torch.from_numpy(row) for row in rows]).to(x.device, x.dtype)
