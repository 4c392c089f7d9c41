"""Windows of frames for networks of single frames: frames become samples, and are told apart by their numbers."""

from __future__ import annotations

__all__ = ["Frames"]

from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.errors import UsageError, check_whole


@dataclass(frozen=True)
class Frames:
    """Which channels of a window are which frames.

    Channels are groups of ``frames`` each, the frame varying fastest, but for the static ones, which all frames share.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out, all in groups.
        frames: frames of a window.
        static: positions of the channels without frames among those that come in.

    Raises:
        UsageError: the channels are no whole groups.
    """

    in_channels: int
    out_channels: int
    frames: int
    static: range = range(0)

    def __post_init__(self) -> None:
        check_whole(in_channels=self.in_channels, out_channels=self.out_channels, frames=self.frames)
        first, last = self.static.start, self.static.stop
        if self.frames < 1 or self.out_channels < 1 or self.static.step != 1 or not 0 <= first <= last:
            raise UsageError(
                f"frames={self.frames}, out_channels={self.out_channels}, static={self.static}: expected at least one "
                "frame and one channel, and static channels side by side, such as static=range(8, 10)"
            )
        moving = self.in_channels - len(self.static)
        if last > self.in_channels or moving % self.frames or first % self.frames or self.out_channels % self.frames:
            raise UsageError(
                f"in_channels={self.in_channels}, of which static={self.static}, and out_channels={self.out_channels}: "
                f"but for the static ones, expected groups of {self.frames} channels, one for each frame"
            )

    @property
    def seen(self) -> int:
        """Channels that come in of one frame, the static ones among them."""
        return (self.in_channels - len(self.static)) // self.frames + len(self.static)

    @property
    def answered(self) -> int:
        """Channels that go out of one frame."""
        return self.out_channels // self.frames

    def folded(self, x: Tensor) -> Tensor:
        """(B, in_channels, *space) -> (B frames, seen, *space), the static channels last."""
        first, last = self.static.start, self.static.stop
        moving = torch.cat([x[:, :first], x[:, last:]], 1).unflatten(1, (-1, self.frames))
        still = x[:, first:last, None].expand(-1, -1, self.frames, *x.shape[2:])
        return torch.cat([moving, still], 1).transpose(1, 2).flatten(0, 1)

    def unfolded(self, y: Tensor) -> Tensor:
        """(B frames, answered, *space) -> (B, out_channels, *space)."""
        return y.unflatten(0, (-1, self.frames)).transpose(1, 2).flatten(1, 2)

    def told(self, t: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """Labels (B,) and vectors (B, V) of each frame; its number is a 1 among more features, (B frames, ...)."""
        number = torch.eye(self.frames, device=t.device, dtype=t.dtype).repeat(len(t), 1)
        if vector is None:
            return t.repeat_interleave(self.frames), number
        return t.repeat_interleave(self.frames), torch.cat([vector.repeat_interleave(self.frames, 0), number], 1)
