"""What nets share at both ends: which numbers make no net, which shapes go in, and how fields are laid out."""

from __future__ import annotations

__all__ = ["channels_last", "check_dropout", "check_input", "cropped", "padding_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

from undrift.errors import UsageError
from undrift.nets.layers import CONVOLUTIONS, PADDINGS

_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def padding_of(name: str, space: int, padding: Sequence[str] | None) -> tuple[str, ...]:
    """The padding of each axis, zeros by default; refuses what no net has."""
    if space not in CONVOLUTIONS:
        raise UsageError(f"space={space}: the {name} works in 1, 2 or 3 space dimensions")
    padding = ("zeros",) * space if padding is None else tuple(padding)
    if len(padding) != space or not set(padding) <= set(PADDINGS):
        raise UsageError(f"padding={padding}: give one of {', '.join(PADDINGS)} for each of {space} axes")
    return padding


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability, and 1, which would drop all."""
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout={dropout}: it is a probability, from 0 up to but not including 1")


def check_input(
    name: str, x: Tensor, in_channels: int, space: int, vector: Tensor | None, vector_features: int
) -> None:
    """Refuse shapes that are not those the net was made for."""
    if x.ndim != 2 + space or x.shape[1] != in_channels:
        axes = ", ".join(["B", str(in_channels), *["size"] * space])
        raise UsageError(f"the {name} got an input of shape {tuple(x.shape)}, but it was made for ({axes})")
    features = 0 if vector is None else vector.shape[-1]
    if features != vector_features:
        raise UsageError(f"the {name} got {features} vector features, but it was made for {vector_features}")


def channels_last(x: Tensor) -> Tensor:
    """Fields (B, C, *space) in the order in memory in which convolutions are fast."""
    layout = _LAYOUTS.get(x.ndim - 2)
    if layout is None or x.device.type not in ("cpu", "cuda"):
        return x
    return x.contiguous(memory_format=layout)


def cropped(x: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """So many cells along each axis of fields (B, C, *space)."""
    for axis, (start, size) in enumerate(zip(starts, sizes), start=2):
        x = x.narrow(axis, start, size)
    return x
