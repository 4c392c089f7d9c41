"""Linear predictors side by side: each channel from all that is given, or from its own variable alone.

One penalty for all channels is that of the one with the largest errors, and what is given of one variable is mostly
noise to another that is given too. So each channel has a predictor, penalty and inputs of its own, those that blocked
cross-validation prefers; of a sequence each frame is predicted from its own, from its neighbours too, or from all. More
than a few channels, and training parts that are too large to be held, are predicted by one for all channels: it has one
set of directions, and reads its samples fewer times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.linear import Given, LinearPredictor, Reader, design_of
from undrift.data.ridge import Design, blocks

__all__ = ["Designs", "Part", "Predictors"]

Array = NDArray[np.float64]
Designs = dict[tuple[int, ...] | None, Design]
_HELD = 5e7  # numbers of the training part, target and given, up to which it is held while fitting
_REACHES = (0, 1)  # frames of a sequence from that which is predicted, tried beside all of them
_APART = 8  # channels that have predictors of their own at most


@dataclass(frozen=True)
class Part:
    """A predictor of some channels.

    Attributes:
        channels: of the target.
        inputs: channels of what is given, None for all.
        predictor: what predicts them from these.
    """

    channels: tuple[int, ...]
    inputs: tuple[int, ...] | None
    predictor: LinearPredictor

    def of(self, given: Given) -> Given:
        """What the predictor is given."""
        return _restricted(given, self.channels, self.inputs)


class Predictors:
    """Predictors of all channels.

    Args:
        parts: every channel is in one of them.
        shape: (C, *space).
    """

    def __init__(self, parts: Sequence[Part], shape: Sequence[int]) -> None:
        self.parts, self.shape = list(parts), tuple(shape)

    @classmethod
    def base(cls, shape: Sequence[int]) -> Self:
        """No more than the base that is given."""
        channels = tuple(range(shape[0]))
        return cls([Part(channels, None, LinearPredictor(None, None, {}, shape))], shape)

    @property
    def stages(self) -> list[str]:
        """Names of the stages in use by any channel."""
        used = [part.predictor.stages for part in self.parts]
        return [name for name in ("base", "stencil", "ridge") if any(name in names for names in used)]

    @property
    def error(self) -> float:
        """Cross-validated mean squared error, in latent units."""
        return float(np.mean([min(p.predictor.scores.values()) for p in self.parts for _ in p.channels]))

    def described(self, names: Sequence[str]) -> dict[str, object]:
        """Of each channel, by name: its stages and inputs, and the cross-validated mean squared errors that chose."""
        told: dict[str, object] = {}
        for part in self.parts:
            number = 0 if part.inputs is None else len(part.inputs)
            used = (
                "its own field" if number == 1 else f"{number} of the given fields" if number else "all that is given"
            )
            one = {"stages": part.predictor.stages, "from": used}
            told |= {names[i]: {**one, "mean squared error": dict(part.predictor.scores)} for i in part.channels}
        return {name: told[name] for name in names}

    def predict(
        self, given: Given, fold: NDArray[np.intp] | None = None, window: Sequence[slice] | None = None
    ) -> Array:
        """Prediction, (n, C, *space) or the window of it; see :meth:`LinearPredictor.predict`."""
        if len(self.parts) == 1:
            return self.parts[0].predictor.predict(self.parts[0].of(given), fold, window)
        found = [(p.channels, p.predictor.predict(p.of(given), fold, window)) for p in self.parts]
        out = np.empty((len(given.base), self.shape[0], *found[0][1].shape[2:]))
        for channels, values in found:
            out[:, channels] = values
        return out

    @classmethod
    def fit(
        cls,
        read: Reader,
        fold: NDArray[np.intp],
        base: Sequence[int | None],
        *,
        factor: Sequence[int] | None,
        periodic: Sequence[bool],
        designs: Designs,
        frames: int = 1,
        damped: bool = True,
    ) -> Self:
        """Fit all of them.

        Args:
            read: as of :meth:`LinearPredictor.fit`.
            fold: contiguous fold of each training sample.
            base: for each target channel the given channel of the same variable, or None.
            factor: fine cells per coarse cell for each space dim, None where the grids are not nested.
            periodic: for each space dim.
            designs: those of inputs that were fitted before from the same given numbers; new ones are added.
            frames: of a sequence, the fastest to vary among the channels of both.
            damped: as of :meth:`LinearPredictor.fit`.
        """
        given, target = read(np.arange(1))
        shape = target.shape[1:]
        numbers = target.size + given.base.size + (0 if given.coarse is None else given.coarse.size)
        held = numbers * len(fold) <= _HELD
        if held:
            read = _held(read, len(fold))

        def fitted(channels: tuple[int, ...], inputs: tuple[int, ...] | None) -> Part:
            def part(rows: NDArray[np.intp]) -> tuple[Given, Array]:
                given, target = read(rows)
                return _restricted(given, channels, inputs), target[:, channels]

            if inputs not in designs:
                designs[inputs] = design_of(part, fold, int(np.prod(shape)))
            found = LinearPredictor.fit(
                part, fold, factor=factor, periodic=periodic, design=designs[inputs], damped=damped
            )
            return Part(channels, inputs, found)

        alone = shape[0] == 1 and (given.coarse is None or given.coarse.shape[1] == 1)
        if frames > 1 and held and given.coarse is not None:
            near = [_near(shape[0], given.coarse.shape[1], frames, reach) for reach in _REACHES]
            tried = [[(tuple(range(shape[0])), None)], *near]
            return min((cls([fitted(*one) for one in parts], shape) for parts in tried), key=lambda found: found.error)
        if alone or not held or shape[0] > _APART:
            return cls([fitted(tuple(range(shape[0])), None)], shape)
        parts = []
        for channel, own in enumerate(base):
            tried = [fitted((channel,), None)]
            if own is not None and given.coarse is not None and given.coarse.shape[1] > 1:
                tried.append(fitted((channel,), (own,)))
            parts.append(min(tried, key=lambda part: min(part.predictor.scores.values())))
        return cls(parts, shape)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold all of them."""
        return {f"{i}_{k}": v for i, part in enumerate(self.parts) for k, v in part.predictor.to_arrays().items()}

    def to_list(self) -> list[dict[str, object]]:
        """What the arrays do not hold, JSON-able."""
        return [{"channels": p.channels, "inputs": p.inputs, "scores": p.predictor.scores} for p in self.parts]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], facts: Sequence[Mapping], shape: Sequence[int]) -> Self:
        """Inverse of :meth:`to_arrays` and :meth:`to_list`."""
        parts = []
        for i, one in enumerate(facts):
            channels = tuple(one["channels"])
            inputs = None if one["inputs"] is None else tuple(one["inputs"])
            mine = {k.removeprefix(f"{i}_"): v for k, v in arrays.items() if k.startswith(f"{i}_")}
            size = (len(channels), *shape[1:])
            parts.append(Part(channels, inputs, LinearPredictor.from_arrays(mine, one["scores"], size)))
        return cls(parts, shape)


def _near(channels: int, inputs: int, frames: int, reach: int) -> list[tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """For each frame its channels, and the given channels of frames no farther from it than so many."""
    return [
        (
            tuple(range(t, channels, frames)),
            tuple(i for i in range(inputs) if abs(i % frames - t) <= reach),
        )
        for t in range(frames)
    ]


def _restricted(given: Given, channels: tuple[int, ...], inputs: tuple[int, ...] | None) -> Given:
    """What is given to the predictor of some channels."""
    coarse = given.coarse if given.coarse is None or inputs is None else given.coarse[:, inputs]
    base = given.base if len(channels) == given.base.shape[1] else given.base[:, channels]
    return Given(base, coarse, given.features)


def _held(read: Reader, count: int) -> Reader:
    """The same reader with all samples in memory."""
    parts = [read(rows) for rows in blocks(np.arange(count))]
    base, features = (np.concatenate([getattr(p[0], name) for p in parts]) for name in ("base", "features"))
    some = [p[0].coarse for p in parts if p[0].coarse is not None]
    coarse = np.concatenate(some) if some else None
    target = np.concatenate([p[1] for p in parts])

    def held(rows: NDArray[np.intp]) -> tuple[Given, Array]:
        return Given(base[rows], None if coarse is None else coarse[rows], features[rows]), target[rows]

    return held
