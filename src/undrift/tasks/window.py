"""Windows of frames, any part of which may be given or asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from undrift.data.cut import coarsened, trimmed
from undrift.data.fields import Fields
from undrift.data.frames import FRAME, windows_of
from undrift.data.layout import plain
from undrift.errors import DataError, UsageError
from undrift.tasks.pair import Pair, join_given

__all__ = ["Window"]

_KINDS = {"past": 4, "future": 1, "ends": 2, "frames": 2, "nothing": 1, "region": 1, "points": 1, "variables": 1}
_KINDS |= {"mixed": 1}
"""How often each kind of mask is drawn, in parts of their sum; those that a layout does not allow are left out."""
_COARSE = {"nothing": 3}
_OFFERED = {"whole": 12, "nothing": 3, "past": 1, "frames": 1, "region": 1, "variables": 1}
"""Likewise of a coarse sequence: mostly all of it is given."""
_DENSEST = 0.2  # share of the cells that is known at most where points are given
_LEAST_SIDE = 0.25  # of a region, as a share of the domain's side


@dataclass(frozen=True)
class Window:
    """Draw any part of a window of frames given any other: forecast, hindcast, interpolate, infill, emulate.

    With a ``factor``, or a dataset that is given beside the target, the coarse sequence of a window is given too: that
    is downscaling in time.

    One model is trained on masks that are drawn anew at each step (Voleti et al. 2022, MCVD,
    https://arxiv.org/abs/2205.09853): the whole past, the whole future, both ends, some frames, a region, points, some
    of the variables or levels, a part of these or these and a part of the others, or nothing is given.

    Args:
        past: frames up to the present.
        future: frames after it.
        factor: fine cells per coarse cell along each space dim, of the block means of all frames, which are given;
            None where no coarse sequence is, or one of a dataset of its own.
    """

    past: int = 4
    future: int = 8
    factor: int | None = None
    name = "window"

    def __post_init__(self) -> None:
        for name in ("past", "future"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"{name} is {value!r}, expected a number of frames such as --{name} 4")
        if self.past + self.future < 1:
            raise UsageError("a window of no frames: give --past or --future of at least 1")
        if self.factor is not None and self.factor < 1:
            raise UsageError(f"factor is {self.factor}, expected at least 1; type --factor 4")

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.past + self.future

    @property
    def usual(self) -> str:
        """What is given unless told otherwise."""
        return "past" if self.past and self.future else "nothing"

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """Windows of the target, and of the coarse sequence where there is one.

        What is given of the target's own windows is drawn when they are learned.
        """
        if given is not None:
            return self._beside(target, given)
        if self.factor is None:
            windows, notes = windows_of(target, self.past, self.future)
            return Pair(windows, None, None, notes)
        fine, cut = trimmed(target, self.factor)
        windows, notes = windows_of(fine, self.past, self.future)
        coarse, _ = windows_of(coarsened(fine, self.factor), self.past, self.future)
        return Pair(windows, coarse, (self.factor,) * len(fine.layout.space), [*cut, *notes])

    def _beside(self, target: Fields, given: Fields) -> Pair:
        """Windows of the target and of a coarse sequence of its own, of the same times."""
        windows, notes = windows_of(target, self.past, self.future)
        coarse, _ = windows_of(given, self.past, self.future)
        ours, theirs = (w.dataset[FRAME].values for w in (windows, coarse))
        if len(ours) > 1 and (ours.dtype.kind != theirs.dtype.kind or (ours != theirs).any()):
            steps = [f"{plain(v[1] - v[0])}{' s' * (v.dtype.kind == 'm')}" for v in (ours, theirs)]
            raise DataError(
                f"frames of DATA are {steps[0]} apart and those that are given {steps[1]}; give a coarse sequence of "
                "the same times"
            )
        pair = join_given(windows, coarse)
        return replace(pair, notes=[*notes, *pair.notes])

    def frames_known(self, what: str) -> np.ndarray:
        """Which frames are given, (frames,), by a name (past, future, ends, nothing) or numbers such as "0,6".

        Raises:
            UsageError: it is none of them.
        """
        known = np.zeros(self.frames, dtype=bool)
        if what == "past":
            known[: self.past] = True
        elif what == "future":
            known[self.past :] = True
        elif what == "ends":
            known[[0, -1]] = True
        elif what != "nothing":
            try:
                known[[int(part) for part in what.split(",")]] = True
            except (ValueError, IndexError):
                raise UsageError(
                    f"got {what!r} as the frames that are known, expected past, future, ends, nothing or numbers from "
                    f"0 to {self.frames - 1}, such as 0,{self.frames - 1}"
                ) from None
        return known

    def draw(
        self,
        shape: Sequence[int],
        count: int,
        rng: np.random.Generator,
        variables: Sequence[str] | None = None,
        coarse: bool = False,
    ) -> np.ndarray:
        """What is known of so many windows (C, *space) = ``shape``, each by a mask of a kind of its own.

        Args:
            shape: of a window, the frame varying fastest among its channels.
            count: of windows.
            rng: draws the masks.
            variables: name of the variable of each channel of one frame; each is one of its own by default.
            coarse: whether a coarse sequence is given: then nothing fine is known the more often, as each fine one
                begins.
        """
        number, usual = shape[0] // self.frames, _KINDS | (_COARSE if coarse else {})
        groups = np.unique(list(variables or map(str, range(number))), return_inverse=True)[1]
        kinds = {k: v for k, v in usual.items() if self._allowed(k, number)}
        chances = np.array(list(kinds.values()), dtype=np.float64)
        names = rng.choice(list(kinds), size=count, p=chances / chances.sum())
        out = np.stack([self._mask(str(name), groups, tuple(shape[1:]), rng) for name in names])
        return out.reshape(count, *shape)

    def offer(self, shape: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """What is given of so many coarse windows (G, *coarse) = ``shape``, each by a mask of a kind of its own."""
        number = shape[0] // self.frames
        kinds = {k: v for k, v in _OFFERED.items() if self._allowed(k, number)}
        chances = np.array(list(kinds.values()), dtype=np.float64)
        names = rng.choice(list(kinds), size=count, p=chances / chances.sum())
        out = np.ones((count, *shape), dtype=bool)
        for i in np.flatnonzero(names != "whole"):
            out[i] = self._mask(str(names[i]), np.arange(number), tuple(shape[1:]), rng).reshape(shape)
        return out

    def _allowed(self, kind: str, variables: int) -> bool:
        needs = {
            "past": self.past > 0 and self.future > 0,
            "future": self.past > 0 and self.future > 0,
            "ends": self.frames > 2,
            "frames": self.frames > 2,
            "variables": variables > 1,
            "mixed": variables > 1,
        }
        return needs.get(kind, True)

    def _mask(self, kind: str, groups: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """One mask, (channels of a frame, frames, *space), given the variable that each channel is of."""
        variables = len(groups)
        out = np.zeros((variables, self.frames, *shape), dtype=bool)
        if kind in ("past", "future", "ends", "nothing"):
            out[:, self.frames_known(kind)] = True
        elif kind == "frames":
            out[:, rng.permutation(self.frames)[: rng.integers(1, self.frames)]] = True
        elif kind == "variables":
            out[_some(groups, rng)] = True
        elif kind == "mixed":
            others = [k for k in _KINDS if k not in ("nothing", "variables", "mixed") and self._allowed(k, variables)]
            part = self._mask(str(rng.choice(others)), groups, shape, rng)
            out[_some(groups, rng)] = True
            out = out & part if rng.random() < 0.5 else out | part
        elif kind == "points":
            out[:] = rng.random(shape) < _DENSEST * rng.random() ** 2
        else:
            sides = [max(1, int(n * rng.uniform(_LEAST_SIDE, 1))) for n in shape]
            corner = [int(rng.integers(0, n - side + 1)) for n, side in zip(shape, sides)]
            box = tuple(slice(c, c + side) for c, side in zip(corner, sides))
            out[(slice(None), slice(None), *box)] = True
            if rng.random() < 0.5:
                out = ~out
        return out


def _some(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some channels, not all: whole variables or, as often where these have levels, any."""
    count = int(groups.max()) + 1
    whole = 1 < count < len(groups) and rng.random() < 0.5
    of = groups if whole else np.arange(len(groups))
    number = int(of.max()) + 1
    return np.isin(of, rng.permutation(number)[: rng.integers(1, number)])
