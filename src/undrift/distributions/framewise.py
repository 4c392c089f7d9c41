"""A constraint of its own for each frame of windows, whose channels are frames of variables."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.frames import FRAME, later
from undrift.distributions.request import Request
from undrift.distributions.typed import Labels, Typed
from undrift.guide.constraints import Constraint
from undrift.tasks import Task, Window

__all__ = ["ConstraintOf", "EachFrame", "framewise", "of_samples", "of_starts"]

_VALID = "valid_time"


class EachFrame(Constraint):
    """Fields (B, V * F, *space), the frame varying fastest, whose frames (B, V, *space) satisfy constraints.

    Args:
        constraints: of each frame; None for one that is free.
        asked: which frames of which fields are constrained at all, (B or 1, F); all if None.
    """

    def __init__(self, constraints: Sequence[Constraint | None], asked: Tensor | None = None) -> None:
        self.constraints = tuple(constraints)
        self.asked = torch.ones(1, len(self.constraints), dtype=torch.bool) if asked is None else asked

    def _frames(self, x: Tensor) -> Iterator[tuple[int, Constraint, Tensor, Tensor]]:
        """Number, constraint, values (B, V, *space), and of which fields it is asked (B or 1,) of each frame."""
        frames = x.unflatten(1, (-1, len(self.constraints)))
        for k, constraint in enumerate(self.constraints):
            asked = self.asked[:, k].to(x.device)
            if constraint is not None and asked.any():
                yield k, constraint, frames[:, :, k], asked

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`undrift.guide.constraints.Constraint`."""
        count = len(self.constraints)
        if shape[1] % count:
            raise ValueError(f"fields are {shape}, expected a multiple of {count} channels: frames of variables")
        for constraint in self.constraints:
            if constraint is not None:
                constraint.check((shape[0], shape[1] // count, *shape[2:]))

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`undrift.guide.constraints.Constraint`."""
        out = list(x.unflatten(1, (-1, len(self.constraints))).unbind(2))
        for k, constraint, frame, asked in self._frames(x):
            out[k] = torch.where(asked.reshape(-1, *[1] * (x.ndim - 1)), constraint.nearest(frame), frame)
        return torch.stack(out, 2).flatten(1, 2)

    def relative(self, x: Tensor) -> Tensor:
        """The largest of all frames; see :class:`undrift.guide.constraints.Constraint`."""
        out = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _, constraint, frame, asked in self._frames(x):
            out = torch.maximum(out, torch.where(asked, constraint.relative(frame), 0.0))
        return out

    def in_units(self, scale: Tensor, offset: Tensor) -> "EachFrame":
        """See :class:`undrift.guide.constraints.Constraint`."""
        count = len(self.constraints)
        sizes, zeros = scale.unflatten(0, (-1, count)), offset.unflatten(offset.ndim - scale.ndim, (-1, count))
        axis = zeros.ndim - sizes.ndim + 1
        parts = [
            None if c is None else c.in_units(sizes[:, k], zeros.select(axis, k))
            for k, c in enumerate(self.constraints)
        ]
        return EachFrame(parts, self.asked)


ConstraintOf = Callable[[Sequence[int]], Constraint]
"""The constraint of fields (B, C, *space), given which sample each of them is of."""


def of_samples(wanted: Constraint | Typed, request: Request, codec: Codec, shell: Shell, task: Task) -> ConstraintOf:
    """The constraint of samples that are asked for; of windows what was typed holds for the frames that are asked.

    Of states after lead times it is that of the time that they are of, not of the initial one.
    """
    if isinstance(wanted, Constraint):
        return lambda rows: wanted
    sizes = [request.labels.sizes[d] for d in request.dims]

    def labels(i: int) -> dict[str, Any]:
        index = dict(zip(request.dims, np.unravel_index(i, sizes)))
        of_each = {str(n): c for n, c in request.labels.coords.items() if set(c.dims) <= set(index)}
        out = {n: c.values[tuple(index[d] for d in c.dims)] for n, c in of_each.items()}
        return out | {str(of_each[_VALID].dims[0]): out[_VALID]} if _VALID in out else out

    def of_windows(rows: Sequence[int]) -> Constraint:
        each = {i: labels(i) for i in set(rows)}
        asked = {i: _asked(request, i, codec) for i in each}
        lead, before = shell.coords[FRAME], max(window.past - 1, 0)
        frames = [{i: _later(one, time, k - before, lead) for i, one in each.items()} for k in range(window.frames)]
        return framewise(wanted, [[at[i] for i in rows] for at in frames], np.stack([asked[i] for i in rows]))

    if not isinstance(task, Window):
        return lambda rows: wanted.wanted([labels(i) for i in rows])
    window, time = task, codec.layout.time
    return of_windows


def of_starts(
    wanted: Constraint | Typed, starts: np.ndarray, dim: str, shell: Shell, task: Window, steps: int
) -> Callable[[int], ConstraintOf]:
    """The constraint of windows of forecasts, of single frames' fields, by the number of the window."""
    lead = shell.coords[FRAME]

    def of_block(block: int) -> ConstraintOf:
        numbers = block * task.future + 1 + np.arange(task.future)
        asked = np.concatenate([np.zeros(task.past, bool), numbers <= steps])

        def of_rows(rows: Sequence[int]) -> Constraint:
            if isinstance(wanted, Constraint):
                return EachFrame([wanted if one else None for one in asked])
            times = [later(starts[list(rows)], int(n), lead) for n in numbers]
            frames = [[{dim: t} for t in one] for one in [starts[list(rows)]] * task.past + times]
            return framewise(wanted, frames, np.broadcast_to(asked, (len(rows), len(asked))))

        return of_rows

    return of_block


def framewise(wanted: Typed, frames: Sequence[Sequence[Labels]], asked: np.ndarray) -> EachFrame:
    """What was typed for each frame that is asked.

    Args:
        wanted: what was typed.
        frames: labels of each frame of each field, [F][B].
        asked: (B, F).
    """
    parts: list[Constraint | None] = []
    for k, rows in enumerate(frames):
        some = np.flatnonzero(asked[:, k])
        known = [row if asked[b, k] else rows[some[0]] for b, row in enumerate(rows)] if some.size else []
        parts.append(wanted.wanted(known) if known else None)
    return EachFrame(parts, torch.from_numpy(np.array(asked, dtype=bool)))


def _asked(request: Request, i: int, codec: Codec) -> np.ndarray:
    """Which frames of a window lack a value that could be there, (F,)."""
    if request.known is None:
        return np.ones(codec.layout.frames, bool)
    lacking = np.isnan(request.known(np.array([i]))[0]) & ~codec.mask
    return lacking.reshape(-1, codec.layout.frames, *codec.layout.shape).any((0, *range(2, lacking.ndim + 1)))


def _later(labels: dict[str, Any], time: str | None, frames: int, lead: xr.DataArray) -> dict[str, Any]:
    """Labels with the time so many frames on."""
    if time not in labels:
        return labels
    return {**labels, time: later(np.array([labels[time]]), frames, lead)[0]}
