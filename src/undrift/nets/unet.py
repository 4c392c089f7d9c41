"""The U-Net: any number of channels, one to three space dimensions, any size, padding of its own on every axis.

Residual blocks with one norm and one activation each, additive skips and feature-wise modulation by an embedding of the
noise label and of the vector condition (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597; Ho et al. 2020,
https://arxiv.org/abs/2006.11239). The layers are chosen for the speed of a training step on CPUs, where what stands
between the convolutions costs as much as they do unless it is kept small: no concatenation, no second norm, no copy.
"""

from __future__ import annotations

__all__ = ["UNet"]

import math
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from undrift.errors import UsageError
from undrift.nets.embed import ConditionEmbedding
from undrift.nets.ends import channels_last, check_dropout, check_input, cropped, padding_of
from undrift.nets.layers import CONVOLUTIONS, Conv, ResidualBlock, pad_axis


class UNet(nn.Module):
    """A U-Net with additive skips and feature-wise conditioning on a noise label and a vector.

    On an axis with "circular" padding whose size is a multiple of ``stride``, rolling the input by a multiple of
    ``stride`` cells rolls the output. A fresh net returns exactly zero. In evaluation mode the result of a sample does
    not depend on its neighbours in the batch nor on its position.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: number of space dimensions, 1, 2 or 3.
        channels: channels of each level, finest first; each level after the first halves every axis.
        blocks: residual blocks per level on the way down, and as many on the way up; one number, or one per level.
        vector_features: length of the vector condition, 0 for none.
        padding: "zeros", "reflect" or "circular" for each axis; zeros by default.
        dropout: probability with which each block drops a channel of a sample while training.
        embedding: length of the embedding of the noise label and vector, even.

    Raises:
        UsageError: for numbers that make no net.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        space: int,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int | Sequence[int] = 2,
        vector_features: int = 0,
        padding: Sequence[str] | None = None,
        dropout: float = 0.0,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        padding = padding_of("U-Net", space, padding)
        counts = (blocks,) * len(channels) if isinstance(blocks, int) else tuple(blocks)
        if not channels or min(channels) < 1:
            raise UsageError(f"channels={list(channels)}: give one positive number per level, such as [32, 64, 128]")
        if len(counts) != len(channels) or min(counts) < 1:
            raise UsageError(f"blocks={blocks}: give one positive number, or one for each of {len(channels)} levels")
        self.in_channels, self.out_channels, self.space = in_channels, out_channels, space
        self.channels, self.blocks, self.padding = tuple(channels), counts, padding
        self.vector_features, self.embedding = vector_features, embedding
        self.stride = 2 ** (len(channels) - 1)

        conv = CONVOLUTIONS[space]
        self.embed = ConditionEmbedding(embedding, vector_features)
        self.first = Conv(in_channels, channels[0], padding)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for width, count in zip(self.channels, counts):
            for way in (self.down, self.up):
                way.append(nn.ModuleList(ResidualBlock(width, embedding, padding) for _ in range(count)))
        for fine, coarse in zip(self.channels[:-1], self.channels[1:]):
            self.shrink.append(conv(fine, coarse, 2, stride=2, device="cpu"))
            self.grow.append(conv(coarse, fine, 1, device="cpu"))
        self.last = Conv(channels[0], out_channels, padding, kernel=1, zero=True)
        self.set_dropout(dropout)

    def set_dropout(self, dropout: float) -> None:
        """Drop channels with another probability from now on."""
        check_dropout(dropout)
        self.dropout = dropout
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.dropout = dropout

    def flops(self, shape: Sequence[int]) -> int:
        """Floating-point operations of one evaluation, a multiply-add counted as 2; norms and the like are left out.

        Args:
            shape: (B, *space) of the input.

        Returns:
            The operations of all convolutions and linear layers.
        """
        batch, *sizes = shape
        cells = math.prod(self._padded(size, mode) for size, mode in zip(sizes, self.padding))

        def weights(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters() if p.ndim > 1)

        total = weights(self.embed) + cells * (weights(self.first) + weights(self.last))
        for level, blocks in enumerate(zip(self.down, self.up)):
            here = cells // 2 ** (self.space * level)
            if level:
                total += here * (weights(self.shrink[level - 1]) + weights(self.grow[level - 1]))
            for block in (*cast(nn.ModuleList, blocks[0]), *cast(nn.ModuleList, blocks[1])):
                total += cast(ResidualBlock, block).operations(here)
        return 2 * batch * total

    def held(self, sizes: Sequence[int]) -> int:
        """Numbers of the finest level, of one sample."""
        return math.prod(sizes) * self.channels[0]

    def forward(self, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Evaluate the net.

        Args:
            x: (B, in_channels, *space), of any sizes.
            t: noise labels of order one, such as ``atan(sigma / (alpha sigma_data))``, (B,).
            vector: (B, vector_features), or none where the net has no vector condition.

        Returns:
            (B, out_channels, *space).

        Raises:
            UsageError: where the shapes are not those the net was made for.
        """
        check_input("U-Net", x, self.in_channels, self.space, vector, self.vector_features)
        sizes = x.shape[2:]
        x, starts = self._fit(x)
        x = self._levels(self.first(channels_last(x)), self.embed(t, vector))
        return cropped(self.last(x), starts, sizes)

    def _levels(self, x: Tensor, embedding: Tensor) -> Tensor:
        """All residual blocks, down and up, (B, channels[0], *space) -> the same shape."""
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(x)
                x = self.shrink[level - 1](x)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, embedding)
        for level in reversed(range(len(self.up))):
            for block in cast(nn.ModuleList, self.up[level]):
                x = block(x, embedding)
            if level:
                x = F.interpolate(self.grow[level - 1](x), scale_factor=2.0, mode="nearest").add_(skips.pop())
        return x

    def _padded(self, size: int, mode: str) -> int:
        """The size of an axis inside the net, a multiple of the coarsest stride."""
        missing = -size % self.stride
        if mode == "circular" and missing:
            missing += self.stride  # keeps the seam of the wrapped copy away from the cells that are returned
        return size + missing

    def _fit(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """Pad every axis to a multiple of the coarsest stride; returns also where the first cell then is."""
        starts = []
        for axis, mode in enumerate(self.padding, start=2):
            missing = self._padded(x.shape[axis], mode) - x.shape[axis]
            starts.append(missing // 2)
            x = pad_axis(x, axis, missing // 2, missing - missing // 2, mode)
        return x, starts
