"""The U-Net: any number of channels, one to three space dimensions, any size, padding of its own on every axis."""

from __future__ import annotations

__all__ = ["UNet"]

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from undrift.errors import UsageError
from undrift.nets.embed import ConditionEmbedding
from undrift.nets.layers import CONVOLUTIONS, PADDINGS, Conv, ResidualBlock, pad_axis


class UNet(nn.Module):
    """A U-Net with additive skips and feature-wise conditioning on a noise label and a vector.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: number of space dimensions, 1, 2 or 3.
        channels: channels of each level, finest first; each level after the first halves every axis.
        blocks: residual blocks per level on the way down, and again on the way up.
        vector_features: length of the vector condition, 0 for none.
        padding: "zeros", "reflect" or "circular" for each axis; zeros by default.
        dropout: share of features dropped in each block while training.
        embedding: length of the embedding of the noise label and vector.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        space: int,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        vector_features: int = 0,
        padding: Sequence[str] | None = None,
        dropout: float = 0.0,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        padding = ("zeros",) * space if padding is None else tuple(padding)
        if space not in CONVOLUTIONS:
            raise UsageError(f"space={space}: the U-Net works in 1, 2 or 3 space dimensions")
        if len(padding) != space or not set(padding) <= set(PADDINGS):
            raise UsageError(f"padding={padding}: give one of {', '.join(PADDINGS)} for each of {space} axes")
        self.space, self.padding, self.channels = space, padding, tuple(channels)
        self.stride = 2 ** (len(self.channels) - 1)
        self.vector_features = vector_features
        self.embed = ConditionEmbedding(embedding, vector_features)
        self.first = Conv(in_channels, channels[0], padding)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.grow = nn.ModuleList()
        conv = CONVOLUTIONS[space]
        for level, width in enumerate(self.channels):
            for way in (self.down, self.up):
                way.append(nn.ModuleList([ResidualBlock(width, embedding, padding, dropout) for _ in range(blocks)]))
            if level:
                self.shrink.append(conv(self.channels[level - 1], width, 2, stride=2, device="cpu"))
                self.grow.append(conv(width, self.channels[level - 1], 1, device="cpu"))
        self.last = Conv(channels[0], out_channels, padding, zero=True)

    def forward(self, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Evaluate the net.

        Args:
            x: (B, in_channels, *space).
            t: noise labels of order one, (B,).
            vector: (B, vector_features), or none where the net has no vector condition.

        Returns:
            (B, out_channels, *space), exactly zero for a fresh net.
        """
        sizes = x.shape[2:]
        x, crop = self._fit(x)
        embedding = self.embed(t, vector)
        x = self.first(x)
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            if level + 1 < len(self.up):
                x = skips[level] + F.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, embedding)
        x = self.last(F.silu(x))
        for axis, (start, size) in enumerate(zip(crop, sizes), start=2):
            if x.shape[axis] != size:
                x = x.narrow(axis, start, size)
        return x

    def _fit(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """Pad every axis to a multiple of the coarsest stride; returns also where the first cell then is."""
        starts = []
        for axis, mode in enumerate(self.padding, start=2):
            missing = -x.shape[axis] % self.stride
            if mode == "circular" and missing:
                missing += self.stride  # keeps the seam of the wrapped copy away from the cells that are returned
            starts.append(missing // 2)
            x = pad_axis(x, axis, missing // 2, missing - missing // 2, mode)
        return x, starts
