"""Attention over frames or over cells, which knows how far apart they are and not where.

Softmax(q k / sqrt(d)) v of several heads (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), with queries and keys
turned by angles that grow along each axis, so that their product depends on the difference of positions only (Su et al.
2021, "RoFormer", https://arxiv.org/abs/2104.09864, equation 16). On an axis that closes on itself the angles close too.
"""

from __future__ import annotations

__all__ = ["Attention", "angles", "heads_of", "turned"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from undrift.nets.layers import Conv

_SLOWEST = 1 / 64  # radians from one position to the next; the fastest pair turns by 1
_HEAD = 32  # channels


def heads_of(channels: int) -> int:
    """Heads of about 32 channels each."""
    return max(h for h in range(1, max(channels // _HEAD, 1) + 1) if channels % h == 0)


def angles(sizes: Sequence[int], pairs: int, periodic: Sequence[bool]) -> Tensor:
    """By how much each pair of channels is turned at each position.

    The pairs are shared among the axes. Along an axis their angles grow by 1 to 1/64 a position; on one that is
    periodic each goes round the nearest whole number of times, at least once.

    Args:
        sizes: positions of each axis.
        pairs: of channels of a head.
        periodic: whether each axis closes on itself.

    Returns:
        Angles (positions, pairs), float64, the last axis varying fastest.
    """
    parts = []
    for axis, (size, closes) in enumerate(zip(sizes, periodic)):
        own = pairs // len(sizes) + (axis < pairs % len(sizes))
        speed = _SLOWEST ** torch.linspace(0, 1, own, dtype=torch.float64, device="cpu")
        if closes:
            speed = 2 * math.pi / size * (speed * size / (2 * math.pi)).round().clamp(min=1)
        along = torch.arange(size, dtype=torch.float64, device="cpu")[:, None] * speed
        shape = [1] * len(sizes) + [own]
        shape[axis] = size
        parts.append(along.view(shape).expand(*sizes, own))
    return torch.cat(parts, -1).flatten(0, -2)


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Channels i and pairs + i of x (..., positions, d) turned by angles (positions, pairs), d // 2 pairs."""
    pairs = angle.shape[-1]
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    one, two, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return torch.cat([one * cos - two * sin, one * sin + two * cos, rest], -1)


class Attention(nn.Module):
    """Each cell looks at the same cell of all frames, or at all cells of its frame, (B frames, C, *space).

    Written as matrix products, for they are faster here than fused kernels where few look at few.

    Args:
        channels: C.
        frames: that follow each other in the batch.
        periodic: whether each axis of space closes on itself.
        over: "frames" or "space".
    """

    def __init__(self, channels: int, frames: int, periodic: Sequence[bool], over: str) -> None:
        super().__init__()
        self.frames, self.periodic, self.over = frames, tuple(periodic), over
        self.heads = heads_of(channels)
        flat = ("zeros",) * len(self.periodic)
        self.ask = Conv(channels, 3 * channels, flat, kernel=1)
        self.tell = Conv(channels, channels, flat, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B frames, C, *space) -> the same shape."""
        sizes, each, in_frames = x.shape[2:], x.shape[1] // self.heads, self.over == "space"
        y = self.ask(x).movedim(1, -1).reshape(-1, self.frames, math.prod(sizes), 3, self.heads, each)
        # queries, keys and values of all that look at each other: (3, B, frames or cells, heads, cells or frames, each)
        y = y.permute(3, 0, 1, 4, 2, 5) if in_frames else y.permute(3, 0, 2, 4, 1, 5)
        places, closes = (sizes, self.periodic) if in_frames else ((self.frames,), (False,))
        q, k = turned(y[:2], angles(places, each // 2, closes).to(x.device))
        y = (each**-0.5 * (q @ k.transpose(-1, -2))).softmax(-1).to(y.dtype) @ y[2]
        y = y.permute(0, 1, 3, 2, 4) if in_frames else y.permute(0, 3, 1, 2, 4)
        return self.tell(y.reshape(len(x), *sizes, x.shape[1]).movedim(-1, 1))

    def operations(self, cells: int) -> int:
        """Multiply-adds of one frame of so many cells."""
        channels = self.tell.conv.in_channels
        return cells * channels * (4 * channels + 2 * (cells if self.over == "space" else self.frames))
