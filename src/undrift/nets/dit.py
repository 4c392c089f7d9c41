"""The transformer on patches of space, frame by frame, whose layers look over space and over frames in turn.

Scale, shift and gate of every layer come from the noise label and are zero at first ("adaLN-Zero", Peebles and Xie
2023, "Scalable diffusion models with transformers", https://arxiv.org/abs/2212.09748, section 3.2). Looking over space
and over frames in turn costs far less than looking over both at once (Ma et al. 2024, "Latte",
https://arxiv.org/abs/2401.03048, variant 1).
"""

from __future__ import annotations

__all__ = ["DiT", "DiTLayer"]

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.errors import UsageError, check_whole
from undrift.nets.attention import Attention
from undrift.nets.embed import ConditionEmbedding, RowLinear
from undrift.nets.ends import channels_last, check_dropout, check_input, cropped, padding_of
from undrift.nets.frames import Frames
from undrift.nets.layers import CONVOLUTIONS, Conv, kept, pad_axis

_WIDER = 4  # the perceptron of a layer


def modulation(layer: RowLinear, embedding: Tensor, x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Parts of (B, C, 1, ...) each, in the type of x (B, C, *space)."""
    numbers = layer(embedding).to(x.dtype)
    return numbers.view(*numbers.shape, *[1] * (x.ndim - 2)).chunk(parts, dim=1)


def normed(x: Tensor) -> Tensor:
    """Fields (B, C, *space) less their mean over the channels of each cell, over their standard deviation."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2], eps=1e-6).movedim(-1, 1)


class DiTLayer(nn.Module):
    """x + gate attention(scale norm(x) + shift), then the same of a perceptron; (B frames, C, *patches)."""

    def __init__(
        self, channels: int, embedding: int, frames: int, periodic: Sequence[bool], over: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        flat = ("zeros",) * len(periodic)
        self.film = RowLinear(embedding, 6 * channels, device="cpu")
        self.attend = Attention(channels, frames, periodic, over)
        self.widen = Conv(channels, _WIDER * channels, flat, kernel=1)
        self.narrow = Conv(_WIDER * channels, channels, flat, kernel=1)
        self.dropout = dropout
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B frames, C, *patches), (B frames, E) -> the shape of x."""
        shift, scale, gate, shift_2, scale_2, gate_2 = modulation(self.film, embedding, x, 6)
        x = x + gate * self.attend(torch.addcmul(shift, normed(x), 1 + scale))
        scale_2 = 1 + scale_2
        if self.training and self.dropout:
            stays = kept(scale_2, self.dropout)
            scale_2, shift_2 = scale_2 * stays, shift_2 * stays
        y = self.widen(torch.addcmul(shift_2, normed(x), scale_2))
        return x + gate_2 * self.narrow(F.hardswish(y))

    def operations(self, patches: int) -> int:
        """Multiply-adds of one frame of so many patches."""
        dense = self.widen.conv.weight.numel() + self.narrow.conv.weight.numel()
        return self.film.weight.numel() + self.attend.operations(patches) + patches * dense


class DiT(nn.Module):
    """A transformer on patches of space of single frames or of windows of frames.

    Any size goes in: what is missing to whole patches is padded, and cut off again. On an axis that is "circular" and
    of whole patches, rolling the input by a patch rolls the output. A fresh net returns exactly zero. In evaluation
    mode the result of a sample does not depend on its neighbours in the batch nor on its position.

    Args:
        in_channels: channels of the input: groups of ``frames``, the frame varying fastest, and the static ones.
        out_channels: channels of the output: groups of ``frames``.
        space: number of space dimensions, 1, 2 or 3.
        frames: frames of a window, 1 for single fields.
        static: positions of the input's channels that have no frames.
        channels: of each patch inside, one number.
        layers: of attention and perceptron; they look over space and over frames in turn, over space alone where there
            is one frame.
        patch: cells along each side of a patch.
        vector_features: length of the vector condition, 0 for none.
        padding: "zeros", "reflect" or "circular" for each axis, of what is missing to whole patches; zeros by default.
        dropout: probability with which each perceptron misses a channel of a frame while training.
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
        frames: int = 1,
        static: range = range(0),
        channels: Sequence[int] = (128,),
        layers: int = 6,
        patch: int = 4,
        vector_features: int = 0,
        padding: Sequence[str] | None = None,
        dropout: float = 0.0,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        padding = padding_of("DiT", space, padding)
        if len(channels) != 1 or channels[0] < 1:
            raise UsageError(f"channels={list(channels)}: a DiT has one width, give one positive number such as [128]")
        check_whole(1, layers=layers, patch=patch)
        self.window = Frames(in_channels, out_channels, frames, static)
        self.in_channels, self.out_channels, self.space = in_channels, out_channels, space
        self.channels, self.padding, self.patch, self.stride = tuple(channels), padding, patch, patch
        self.vector_features, self.embedding = vector_features, embedding
        (width,) = self.channels
        periodic = tuple(mode == "circular" for mode in padding)
        self.embed = ConditionEmbedding(embedding, vector_features + frames)
        self.first = CONVOLUTIONS[space](self.window.seen, width, patch, stride=patch, device="cpu")
        self.layers = nn.ModuleList(
            DiTLayer(width, embedding, frames, periodic, "frames" if frames > 1 and n % 2 else "space")
            for n in range(layers)
        )
        self.film = RowLinear(embedding, 2 * width, device="cpu")
        self.last = Conv(width, self.window.answered * patch**space, ("zeros",) * space, kernel=1, zero=True)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.set_dropout(dropout)

    def set_dropout(self, dropout: float) -> None:
        """Drop channels with another probability from now on."""
        check_dropout(dropout)
        self.dropout = dropout
        for layer in self.layers:
            cast(DiTLayer, layer).dropout = dropout

    def flops(self, shape: Sequence[int]) -> int:
        """Floating-point operations of one evaluation of (B, *space), a multiply-add counted as 2."""
        patches = self._patches(shape[1:])
        dense = self.embed.first.weight.numel() + self.embed.second.weight.numel() + self.film.weight.numel()
        ends = self.first.weight.numel() + self.last.conv.weight.numel()
        total = dense + patches * ends + sum(cast(DiTLayer, layer).operations(patches) for layer in self.layers)
        return 2 * shape[0] * self.window.frames * total

    def held(self, sizes: Sequence[int]) -> int:
        """Numbers of all layers, of one sample."""
        return self.window.frames * self._patches(sizes) * self.channels[0] * len(self.layers)

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
        check_input("DiT", x, self.in_channels, self.space, vector, self.vector_features)
        sizes, e = x.shape[2:], self.embed(*self.window.told(t, vector))
        x = self.window.folded(x)
        for axis, mode in enumerate(self.padding, start=2):
            x = pad_axis(x, axis, 0, -x.shape[axis] % self.patch, mode)
        x = self.first(channels_last(x))
        for layer in self.layers:
            x = layer(x, e)
        shift, scale = modulation(self.film, e, x, 2)
        y = self._cells(self.last(torch.addcmul(shift, normed(x), 1 + scale)))
        return self.window.unfolded(cropped(y, [0] * self.space, sizes))

    def _cells(self, y: Tensor) -> Tensor:
        """(B frames, answered patch^space, *patches) -> (B frames, answered, *space)."""
        sizes = [n * self.patch for n in y.shape[2:]]
        y = y.unflatten(1, (-1, *[self.patch] * self.space))
        order = [axis for i in range(self.space) for axis in (2 + self.space + i, 2 + i)]
        return y.permute(0, 1, *order).reshape(*y.shape[:2], *sizes)

    def _patches(self, sizes: Sequence[int]) -> int:
        """Patches of a frame."""
        return math.prod(-(-size // self.patch) for size in sizes)
