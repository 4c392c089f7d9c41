"""Windows of frames, any part of which may be given or asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undrift.data.fields import Fields
from undrift.data.frames import windows_of
from undrift.errors import UsageError
from undrift.tasks.pair import Pair

__all__ = ["Window"]

_KINDS = {"past": 4, "future": 1, "ends": 2, "frames": 2, "nothing": 1, "region": 1, "points": 1, "variables": 1}
_KINDS |= {"mixed": 1}
"""How often each kind of mask is drawn, in parts of their sum; those that a layout does not allow are left out."""
_DENSEST = 0.2  # share of the cells that is known at most where points are given
_LEAST_SIDE = 0.25  # of a region, as a share of the domain's side


@dataclass(frozen=True)
class Window:
    """Draw any part of a window of frames given any other: forecast, hindcast, interpolate, infill, emulate.

    One model is trained on masks that are drawn anew at each step (Voleti et al. 2022, MCVD,
    https://arxiv.org/abs/2205.09853): the whole past, the whole future, both ends, some frames, a region, points, some
    of the variables or levels, a part of these or these and a part of the others, or nothing is given.

    Args:
        past: frames up to the present.
        future: frames after it.
    """

    past: int = 4
    future: int = 8
    name = "window"

    def __post_init__(self) -> None:
        for name in ("past", "future"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"{name} is {value!r}, expected a number of frames such as --{name} 4")
        if self.past + self.future < 1:
            raise UsageError("a window of no frames: give --past or --future of at least 1")

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.past + self.future

    @property
    def usual(self) -> str:
        """What is given unless told otherwise."""
        return "past" if self.past and self.future else "nothing"

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """Windows of the target; what is given of them is drawn when they are learned."""
        if given is not None:
            raise UsageError(
                "--task window takes no --given: what is given are frames, variables and cells of DATA itself"
            )
        windows, notes = windows_of(target, self.past, self.future)
        return Pair(windows, None, None, notes)

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
        self, shape: Sequence[int], count: int, rng: np.random.Generator, variables: Sequence[str] | None = None
    ) -> np.ndarray:
        """What is known of so many windows (C, *space) = ``shape``, each by a mask of a kind of its own.

        Args:
            shape: of a window, the frame varying fastest among its channels.
            count: of windows.
            rng: draws the masks.
            variables: name of the variable of each channel of one frame; each is one of its own by default.
        """
        number = shape[0] // self.frames
        groups = np.unique(list(variables or map(str, range(number))), return_inverse=True)[1]
        kinds = {k: v for k, v in _KINDS.items() if self._allowed(k, number)}
        chances = np.array(list(kinds.values()), dtype=np.float64)
        names = rng.choice(list(kinds), size=count, p=chances / chances.sum())
        out = np.stack([self._mask(str(name), groups, tuple(shape[1:]), rng) for name in names])
        return out.reshape(count, *shape)

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
