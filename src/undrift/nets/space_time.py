"""The U-Net of windows: convolutions in space, frame by frame, and frames that look at each other.

The convolutions have the same weights for every frame; between them frames are mixed at each cell, by a short
convolution at the finest level and by attention at the coarser ones, where cells are few (Ho et al. 2022, "Video
diffusion models", https://arxiv.org/abs/2204.03458, section 3.1).
"""

from __future__ import annotations

__all__ = ["FrameAttention", "FrameConv", "SpaceTimeUNet"]

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.nets.attention import Attention
from undrift.nets.ends import check_input
from undrift.nets.frames import Frames
from undrift.nets.layers import Conv, groups_of
from undrift.nets.unet import UNet


class FrameConv(nn.Module):
    """x + W (x of the frame before, x, x of the frame after); the first and the last stand beside themselves."""

    def __init__(self, channels: int, frames: int, space: int) -> None:
        super().__init__()
        self.frames = frames
        self.mix = Conv(3 * channels, channels, ("zeros",) * space, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B frames, C, *space) -> the same shape; the embedding has no say."""
        y = x.movedim(1, -1).unflatten(0, (-1, self.frames))
        before, after = torch.cat([y[:, :1], y[:, :-1]], 1), torch.cat([y[:, 1:], y[:, -1:]], 1)
        return x + self.mix(torch.cat([before, y, after], -1).flatten(0, 1).movedim(-1, 1))

    def operations(self, cells: int) -> int:
        """Multiply-adds of one frame of so many cells."""
        return cells * self.mix.conv.weight.numel()


class FrameAttention(nn.Module):
    """x + attention(norm(x)) over the frames of each cell."""

    def __init__(self, channels: int, frames: int, space: int) -> None:
        super().__init__()
        self.groups = groups_of(channels)
        self.attend = Attention(channels, frames, (False,) * space, over="frames")

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B frames, C, *space) -> the same shape; the embedding has no say."""
        return x + self.attend(F.group_norm(x, self.groups))

    def operations(self, cells: int) -> int:
        """Multiply-adds of one frame of so many cells."""
        return self.attend.operations(cells)


class SpaceTimeUNet(nn.Module):
    """A U-Net of windows of frames, which come as groups of channels, the frame varying fastest.

    Of space it keeps what :class:`undrift.nets.unet.UNet` keeps: any size, padding of its own on every axis, zero when
    fresh, samples that do not know their neighbours. Frames are told apart by their numbers, beside the vector
    condition, and by how far they are from each other.

    Args:
        in_channels: channels of the input: groups of ``frames``, and the static ones.
        out_channels: channels of the output: groups of ``frames``.
        space: number of space dimensions, 1, 2 or 3.
        frames: frames of a window.
        static: positions of the input's channels that have no frames.
        channels: channels of each level, finest first; each level after the first halves every axis of space.
        blocks: residual blocks per level on the way down, and as many on the way up; one number, or one per level.
        vector_features: length of the vector condition, 0 for none.
        padding: "zeros", "reflect" or "circular" for each axis; zeros by default.
        dropout: probability with which each block drops a channel of a frame while training.
        embedding: length of the embedding of the noise label, vector and frame, even.

    Raises:
        UsageError: for numbers that make no net.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        space: int,
        frames: int,
        static: range = range(0),
        channels: Sequence[int] = (32, 64, 128),
        blocks: int | Sequence[int] = 1,
        vector_features: int = 0,
        padding: Sequence[str] | None = None,
        dropout: float = 0.0,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        self.window = Frames(in_channels, out_channels, frames, static)
        self.in_channels, self.out_channels, self.space = in_channels, out_channels, space
        self.vector_features = vector_features
        self.net = UNet(
            self.window.seen,
            self.window.answered,
            space=space,
            channels=channels,
            blocks=blocks,
            vector_features=vector_features + frames,
            padding=padding,
            dropout=dropout,
            embedding=embedding,
        )
        self.channels, self.padding, self.stride = self.net.channels, self.net.padding, self.net.stride
        for way in (self.net.down, self.net.up):
            for level, blocks_of_level in enumerate(way):
                coarse = level or len(self.channels) == 1
                mixer = (FrameAttention if coarse else FrameConv)(self.channels[level], frames, space)
                cast(nn.ModuleList, blocks_of_level).append(mixer)

    @property
    def dropout(self) -> float:
        """Probability with which each block drops a channel of a frame while training."""
        return self.net.dropout

    def set_dropout(self, dropout: float) -> None:
        """Drop channels with another probability from now on."""
        self.net.set_dropout(dropout)

    def flops(self, shape: Sequence[int]) -> int:
        """Floating-point operations of one evaluation of (B, *space), a multiply-add counted as 2."""
        return self.net.flops((shape[0] * self.window.frames, *shape[1:]))

    def held(self, sizes: Sequence[int]) -> int:
        """Numbers of the finest level, of one sample, and as many again for what stands between frames."""
        return 2 * self.window.frames * math.prod(sizes) * self.channels[0]

    def forward(self, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Evaluate the net.

        Args:
            x: (B, in_channels, *space), of any sizes.
            t: noise labels of order one, (B,).
            vector: (B, vector_features), or none where the net has no vector condition.

        Returns:
            (B, out_channels, *space).

        Raises:
            UsageError: where the shapes are not those the net was made for.
        """
        check_input("space-time U-Net", x, self.in_channels, self.space, vector, self.vector_features)
        return self.window.unfolded(self.net(self.window.folded(x), *self.window.told(t, vector)))
