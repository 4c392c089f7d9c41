"""Layers of the U-Net in one, two or three space dimensions."""

from __future__ import annotations

__all__ = ["PADDINGS", "Conv", "ResidualBlock", "groups_of", "kept", "pad_axis"]

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.nets.embed import RowLinear

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADDINGS = ("zeros", "reflect", "circular")


def pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Lengthen one axis of x, however short it is.

    Args:
        x: any tensor.
        axis: the axis to lengthen.
        before: cells to add at its beginning.
        after: cells to add at its end.
        mode: "zeros", "reflect" (the edge cell is not repeated) or "circular".

    Returns:
        x with ``before + after`` more cells on the axis.
    """
    if before == 0 and after == 0:
        return x
    size = x.shape[axis]
    if mode == "zeros":
        axis = axis % x.ndim
        return F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [before, after])
    index = torch.arange(-before, size + after, device=x.device)
    if mode == "circular":
        index = index.remainder(size)
    else:
        period = max(2 * (size - 1), 1)
        index = index.remainder(period)
        index = torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
    return x.index_select(axis, index)


class Conv(nn.Module):
    """A convolution of odd kernel that keeps the size, with its own kind of padding on every axis."""

    def __init__(self, inputs: int, outputs: int, padding: Sequence[str], kernel: int = 3, zero: bool = False) -> None:
        super().__init__()
        self.padding = tuple(padding)
        self.halo = kernel // 2
        own = tuple(self.halo if mode == "zeros" else 0 for mode in padding)
        self.conv = CONVOLUTIONS[len(own)](inputs, outputs, kernel, padding=own, device="cpu")
        if zero:
            nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *space) -> (B, outputs, *space)."""
        if self.halo:
            for axis, mode in enumerate(self.padding, start=2):
                if mode != "zeros":
                    x = pad_axis(x, axis, self.halo, self.halo, mode)
        return self.conv(x)


def groups_of(channels: int) -> int:
    """Groups of a norm with at least 16 channels each."""
    return max(g for g in range(1, max(channels // 16, 1) + 1) if channels % g == 0)


def kept(scale: Tensor, dropout: float) -> Tensor:
    """Which channels of which sample stay while training, 0 or 1 / (1 - dropout), of the shape of scale."""
    return torch.empty_like(scale).bernoulli_(1 - dropout) / (1 - dropout)


class ResidualBlock(nn.Module):
    """x + conv(act(conv(scale norm(x) + shift))), where scale and shift come from the embedding.

    On CPUs the norms and activations of a U-Net easily take a third of the time of its convolutions, hence one of each
    and hard swish, which follows SiLU within 0.15 at a third of its cost. The group norm has at least 16 channels per
    group, below which torch's backward pass is several times slower on channels-last tensors.

    Dropout drops whole channels of a sample, on their way into the block's first convolution: neighbouring cells
    predict each other, so that dropping single cells regularises little, and the draw is of B C numbers only.
    """

    def __init__(self, channels: int, embedding: int, padding: Sequence[str], dropout: float = 0.0) -> None:
        super().__init__()
        self.groups = groups_of(channels)
        self.film = RowLinear(embedding, 2 * channels, device="cpu")
        self.first = Conv(channels, channels, padding)
        self.second = Conv(channels, channels, padding)
        self.dropout = dropout
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, *space), (B, E) -> (B, C, *space)."""
        scale, shift = self._film(x, embedding)
        y = F.group_norm(x, self.groups)
        if torch.is_grad_enabled():
            return x + self.second(F.hardswish(self.first(torch.addcmul(shift, y, scale))))
        y = F.hardswish(self.first(torch.addcmul(shift, y, scale, out=y)), inplace=True)
        return self.second(y).add_(x)

    def _film(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of every channel of every sample, (B, C, 1, ...) each, dropout included."""
        film = self.film(embedding).to(x.dtype)
        scale, shift = film.view(*film.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        scale = 1 + scale
        if self.training and self.dropout:
            keep = kept(scale, self.dropout)
            return scale * keep, shift * keep
        return scale, shift

    def operations(self, cells: int) -> int:
        """Multiply-adds of one sample of so many cells."""
        return self.film.weight.numel() + cells * (self.first.conv.weight.numel() + self.second.conv.weight.numel())
