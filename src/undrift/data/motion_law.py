"""The linear predictor of frames that move: what the past frames, carried on along their motion, tell of later ones.

Turned round in time, the first frames after the past tell of those before them, by a law of its own.

The last frame u (latents, at their bounds where they are beyond) is taken apart into octaves by Gaussian filters G,

    u = (u - G_1 u) + (G_1 u - G_2 u) + (G_2 u - G_4 u) + ... + G_S u,

(and what its mean is beyond its bounds into pairs of octaves), and each is carried on along the motion of the past
frames, as cascades of rain are (S-PROG: Seed 2003, doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2). A frame that
is ``lead`` steps ahead is

    N(c + sum_b w_b (carried u_b), (std a^p)^2),    0 <= w_b <= 1,    0 <= p <= 1,    a^2 = carried G_16 (u - G_8 u)^2,

with c, w, std and p of each lead: small scales are forgotten first, none grows, and less is known where the frame is
rough. Cells into which the motion carries what was outside the domain, or was missing, have numbers of their own; what
they are given is the nearest that is known. Values at a point mass count by their conditional means (Tobit by
expectation-maximisation).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from undrift.data.censored import expected
from undrift.data.motion import motion, origins, picked

__all__ = ["Ahead", "MotionLaw", "MotionLaws", "fit_motion_laws", "octaves", "roughness"]

Array = NDArray[np.floating]
_CELLS = 500  # of a window, drawn for the fit
_NUMBERS = 40_000_000  # cells x leads x octaves of the fit, at most
_PASSES = 40  # of expectation-maximisation, at most
_SETTLED = 1e-3  # change of the standard deviation between two of them at which it ends
_FINE = 4  # octaves, which G_8 takes away: their size around a cell is the roughness
_AROUND = 16.0  # cells
_SMOOTH = 0.1  # of the mean roughness: the least that counts
_POWERS = np.linspace(0, 1, 21)  # of the roughness, tried
_RIDGE = 1e-6  # of an octave's power, against octaves that determine each other
_LEAST_STD = 0.02
_WHOLE = 0.9  # of the cells that ever have a value: known in each past frame, for it to show its motion
_KEPT = 4  # pasts whose forecasts are kept: members of an ensemble share one


@dataclass(frozen=True)
class Ahead:
    """What is predicted of the frames after a past.

    Attributes:
        mean: of the latents, (V, leads, *space), float32.
        last: the last frame carried on, likewise.
        rough: its roughness, likewise.
        inside: whether that was within the domain and known, (leads, *space).
        back: whether time is turned round: the frames before are predicted, the latest first.
    """

    mean: np.ndarray
    last: np.ndarray
    rough: np.ndarray
    inside: np.ndarray
    back: bool = False

    def part(self, window: Sequence[slice]) -> "Ahead":
        """A part of space."""
        cut = (slice(None), *window)
        mean, last, rough = (v[(slice(None), *cut)] for v in (self.mean, self.last, self.rough))
        return Ahead(mean, last, rough, self.inside[cut], self.back)


def octaves(frame: Array, periodic: Sequence[bool]) -> Array:
    """Latents (V, *space) without gaps as octaves, finest first, (V, bands, *space); they add up to the latents."""
    side, sigma, smooth = min(frame.shape[1:]), 1.0, [frame]
    while 4 * sigma <= side:
        smooth.append(_smooth(frame, sigma, periodic))
        sigma *= 2
    return np.stack([a - b for a, b in itertools.pairwise(smooth)] + smooth[-1:], axis=1)


def roughness(bands: Array, periodic: Sequence[bool]) -> Array:
    """Size of the finest octaves of (V, bands, *space) around each cell, (V, *space)."""
    fine = bands[:, : min(_FINE, bands.shape[1] - 1)].sum(1)
    return np.sqrt(np.maximum(_smooth(fine**2, min(_AROUND, min(fine.shape[1:]) / 4), periodic), 0))


def _smooth(frame: Array, sigma: float, periodic: Sequence[bool]) -> Array:
    """(V, *space) after a Gaussian filter of sigma cells."""
    for axis, wrap in enumerate(periodic):
        mode = "wrap" if wrap else "nearest"
        frame = scipy.ndimage.gaussian_filter1d(frame, sigma, axis=axis + 1, mode=mode)
    return frame


def _filled(frame: Array) -> tuple[Array, NDArray[np.bool_]]:
    """A frame (V, *space), the nearest known value where one is missing, and where all of its variables are known."""
    known = ~np.isnan(frame)
    out = frame.copy()
    for v, there in zip(out, known):
        if there.any() and not there.all():
            nearest = scipy.ndimage.distance_transform_edt(~there, return_distances=False, return_indices=True)
            v[...] = v[tuple(np.asarray(nearest))]
        elif not there.any():
            v[...] = 0.0
    return out, np.asarray(known.all(0))


def _apart(u: Array, low: Array, high: Array, periodic: Sequence[bool]) -> tuple[Array, Array, Array]:
    """A frame (V, *space) of latents without gaps: within its bounds, its bands and its roughness.

    Where it is beyond a bound it is at its mean there, as N(0, 1) has it: how far from all rain a dry cell is shows in
    the bands of what that adds.
    """
    bounds = [v.reshape(-1, *[1] * (u.ndim - 1)) for v in (low, high)]
    within = np.clip(u, *bounds)
    beyond = expected(u, np.zeros(1), np.ones(1), *bounds)[0] - within
    fine, wide = octaves(within, periodic), octaves(beyond, periodic)
    pairs = np.add.reduceat(wide, np.arange(0, wide.shape[1], 2), axis=1)
    return within, np.concatenate([fine, pairs], 1), roughness(fine, periodic)


def carried_octaves(
    past: Array, low: Array, high: Array, leads: int, periodic: Sequence[bool]
) -> Iterator[tuple[Array, Array, Array, NDArray[np.bool_]]]:
    """Of each lead the octaves (V, bands, *space), last frame and roughness (V, *space), and what was inside (*space).

    Args:
        past: latents (V, P, *space), -inf and inf at point masses, NaN where missing.
        low: threshold of the lower point mass of each variable, (V,).
        high: that of the upper one.
        leads: frames ahead.
        periodic: of each space axis.
    """
    bounds = [v.reshape(-1, *[1] * (past.ndim - 1)) for v in (low, high)]
    moved = motion(np.clip(past, *bounds), periodic)
    filled, known = _filled(past[:, -1])
    last, bands, rough = _apart(filled, low, high, periodic)
    shape = last.shape[1:]
    channels = np.concatenate([bands.reshape(-1, *shape), last, rough, known[None]]).astype(np.float64)
    for at in origins(moved, periodic, range(1, leads + 1)):
        within = [np.ones(shape, bool) if p else (x >= -0.5) & (x <= n - 0.5) for x, p, n in zip(at, periodic, shape)]
        found = picked(channels, at, periodic)
        ends = np.cumsum([len(bands) * bands.shape[1], len(last), len(rough)])
        carried, frame, roughs, reached = np.split(found, ends)
        yield carried.reshape(bands.shape), frame, roughs, np.all(within, 0) & (reached[0] > 0.5)


@dataclass(frozen=True)
class MotionLaw:
    """The Gaussian of frames ahead, of each variable, lead and side: 0 where what comes was inside, 1 where outside.

    Attributes:
        weights: of the octaves, finest first, (V, leads, 2, bands).
        constant: c, (V, leads, 2).
        std: (V, leads, 2).
        power: p, (V, leads, 2).
        least: roughness that counts at least, (V,).
        low: threshold of the lower point mass, (V,).
        high: that of the upper one.
        past: frames that are given.
    """

    weights: Array
    constant: Array
    std: Array
    power: Array
    least: Array
    low: Array
    high: Array
    past: int
    _made: dict[bytes, Ahead] = field(default_factory=dict, repr=False)

    @property
    def frames(self) -> int:
        """Of a window."""
        return self.past + self.std.shape[1]

    def ahead(self, past: Array, periodic: Sequence[bool]) -> Ahead:
        """What is predicted from past latents (V, P, *space), -inf and inf at point masses, NaN where missing."""
        key = past.tobytes()
        if key not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = self._ahead(past, periodic)
        return self._made[key]

    def _ahead(self, past: Array, periodic: Sequence[bool]) -> Ahead:
        means, lasts, roughs, insides = [], [], [], []
        space = (1,) * (past.ndim - 2)
        carried = carried_octaves(past, self.low, self.high, self.weights.shape[1], periodic)
        for lead, (bands, last, rough, inside) in enumerate(carried):
            sides = []
            for side in (0, 1):
                weights = self.weights[:, lead, side].reshape(*bands.shape[:2], *space)
                sides.append((weights * bands).sum(1) + self.constant[:, lead, side].reshape(-1, *space))
            means.append(np.where(inside, *sides))
            lasts.append(last)
            roughs.append(np.maximum(rough, self.least.reshape(-1, *space)))
            insides.append(inside)
        mean, last, rough = (np.stack(v, 1).astype(np.float32) for v in (means, lasts, roughs))
        return Ahead(mean, last, rough, np.stack(insides))

    def spread(self, ahead: Ahead) -> Array:
        """Standard deviation (V, leads, *space) of what the prediction leaves over."""
        ones = [1] * (ahead.inside.ndim - 1)
        std, power = (
            np.where(ahead.inside, *(v[:, :, side].reshape(*v.shape[:2], *ones) for side in (0, 1)))
            for v in (self.std, self.power)
        )
        return std * ahead.rough**power

    def widened(self, factor: np.ndarray) -> "MotionLaw":
        """The law with its standard deviations times a factor of each frame, (V, T)."""
        return replace(self, std=self.std * factor[:, self.past :, None])

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {
            f"{name}_weights": self.weights,
            f"{name}_constant": self.constant,
            f"{name}_std": self.std,
            f"{name}_power": self.power,
            f"{name}_least": self.least,
            f"{name}_low": self.low,
            f"{name}_high": self.high,
            f"{name}_past": np.array(self.past),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Self:
        """Inverse of :meth:`to_arrays`."""
        parts = (arrays[f"{name}_{part}"] for part in ("weights", "constant", "std", "power", "least", "low", "high"))
        return cls(*parts, past=int(arrays[f"{name}_past"]))


class MotionLaws:
    """The law of frames ahead: one without each fold of the record, and that of all.

    Args:
        laws: the last is that of all.
        periodic: of each space axis.
        back: likewise of the frames of the past given those after it, time turned round; empty where they are too few.
    """

    def __init__(self, laws: Sequence[MotionLaw], periodic: Sequence[bool], back: Sequence[MotionLaw] = ()) -> None:
        self.laws, self.periodic, self.back = list(laws), tuple(periodic), list(back)

    def of(self, fold: int | None, back: bool = False) -> MotionLaw:
        """The law that was fitted without a fold; None for that of all."""
        return (self.back if back else self.laws)[-1 if fold is None else fold]

    def turned(self, window: np.ndarray, back: bool) -> np.ndarray:
        """The frames of a window (V, T, ...) that a law is of, time turned round where it goes ``back``."""
        return window[:, self.of(None, True).frames - 1 :: -1] if back else window

    def seen(self, past: np.ndarray, mask: NDArray[np.bool_], fold: NDArray[np.intp] | None) -> list[Ahead | None]:
        """What the past, or else what is after it, tells of each window; None where neither is whole.

        Args:
            past: the windows, (n, V T, *space), of latents, NaN where not given.
            mask: cells that never have a value, (V T, *space).
            fold: fold of each, whose law was fitted without it; None for that of all.
        """
        out: list[Ahead | None] = []
        for i, window in enumerate(past):
            split, found = (-1, self.of(None).frames, *window.shape[1:]), None
            for back in (False, True)[: 1 + bool(self.back)]:
                law = self.of(None if fold is None else int(fold[i]), back)
                frames, never = (self.turned(v.reshape(split), back)[:, : law.past] for v in (window, mask))
                axes = tuple(range(2, frames.ndim))
                if found is None and ((~np.isnan(frames)).sum(axes) >= _WHOLE * (~never).sum(axes)).all():
                    found = replace(law.ahead(frames, self.periodic), back=back)
            out.append(found)
        return out

    def put(
        self,
        ahead: Sequence[Ahead | None],
        there: NDArray[np.bool_],
        fold: NDArray[np.intp] | None,
        mean: np.ndarray,
        std: np.ndarray,
    ) -> tuple[np.ndarray, NDArray[np.bool_]]:
        """Put what the past tells in the place of means and standard deviations of latents (n, V T, *window).

        Args:
            ahead: what it tells of each window.
            there: which latents are given and stay, same shape.
            fold: as of :meth:`seen`.
            mean: changed in place.
            std: likewise.

        Returns:
            The last frame carried on to each frame, and where it was inside the domain and known; same shape.
        """
        carried, reached = np.zeros(mean.shape, np.float32), np.zeros(mean.shape, dtype=bool)
        for i, found in enumerate(ahead):
            if found is None:
                continue
            law = self.of(None if fold is None else int(fold[i]), found.back)
            split = (-1, self.of(None).frames, *mean.shape[2:])
            known, *parts = (self.turned(v[i].reshape(split), found.back) for v in (there, mean, std, carried, reached))
            told = (found.mean, law.spread(found), found.last, found.inside)
            for part, values in zip(parts, told):
                np.copyto(part[:, law.past :], values, where=~known[:, law.past :])
        return carried, reached

    def widened(self, factor: np.ndarray) -> "MotionLaws":
        """The laws with their standard deviations times a factor of each frame, (V, T)."""
        back = [law.widened(self.turned(factor, True)) for law in self.back]
        return MotionLaws([law.widened(factor) for law in self.laws], self.periodic, back)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold the laws of all."""
        return self.of(None).to_arrays("motion") | (self.of(None, True).to_arrays("back") if self.back else {})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], periodic: Sequence[bool]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        back = [MotionLaw.from_arrays(arrays, "back")] if "back_weights" in arrays else []
        return cls([MotionLaw.from_arrays(arrays, "motion")], periodic, back)


_Cells = tuple[Array, Array, Array, Array]  # octaves (V, bands, cells), roughness, side (cells,) and latents (V, cells)


def fit_motion_laws(
    windows: Iterator[Array],
    fold: NDArray[np.intp],
    *,
    past: int,
    low: Array,
    high: Array,
    periodic: Sequence[bool],
) -> MotionLaws:
    """The law without each fold and, last, that of all windows.

    Args:
        windows: latents (V, T, *space) of each, -inf and inf at point masses, NaN where missing.
        fold: contiguous fold of each.
        past: frames that are given.
        low: threshold of the lower point mass of each variable, (V,).
        high: that of the upper one.
        periodic: of each space axis.
    """
    number, near = int(fold.max()) + 1, 0
    parts: tuple[list[list[_Cells]], list[list[_Cells]]] = [], []  # of each window and lead, on and back
    draw, again = np.random.default_rng(0), np.random.default_rng(1)
    for window in windows:
        parts[0].append(_cells(window, past, low, high, periodic, len(fold), draw))
        near = min(window.shape[1] - past, max(past, 2))
        if near > 1:
            parts[1].append(_cells(window[:, past + near - 1 :: -1], near, low, high, periodic, len(fold), again))
    laws: list[list[MotionLaw]] = [[], []]
    for k in range(number + 1):
        for some, given, found in zip(parts, (past, near), laws):
            if some:
                found.append(_fitted([part for part, f in zip(some, fold) if f != k], given, low, high))
    return MotionLaws(laws[0], periodic, laws[1])


def _cells(
    window: Array, past: int, low: Array, high: Array, periodic: Sequence[bool], count: int, draw: np.random.Generator
) -> list[_Cells]:
    """Some cells of a window (V, T, *space), of so many windows, at each lead after so many frames."""
    space = window.shape[2:]
    leads, cells = window.shape[1] - past, int(np.prod(space))
    few = min(cells, _CELLS, max(100, _NUMBERS // (count * leads * 8 * len(window))))
    rows = []
    for lead, (bands, _, rough, inside) in enumerate(carried_octaves(window[:, :past], low, high, leads, periodic)):
        at = draw.integers(0, cells, few)
        columns = (v.reshape(*v.shape[: v.ndim - len(space)], -1)[..., at] for v in (bands, rough, ~inside))
        rows.append((*columns, window[:, past + lead].reshape(len(window), -1)[:, at]))
    return rows


def _fitted(parts: Sequence[Sequence[_Cells]], past: int, low: Array, high: Array) -> MotionLaw:
    """The law from cells of each window and lead."""
    leads, (variables, bands) = len(parts[0]), parts[0][0][0].shape[:2]
    weights = np.zeros((variables, leads, 2, bands))
    constant, std, power = np.zeros((3, variables, leads, 2))
    least = np.maximum(_SMOOTH * np.mean([p[0][1].mean(1) for p in parts], axis=0), 1e-6)
    for lead in range(leads):
        x, rough, side, u = (np.concatenate([p[lead][i] for p in parts], axis=-1) for i in range(4))
        for v in range(variables):
            a, bounds = np.maximum(rough[v], least[v]), (float(low[v]), float(high[v]))
            both = _regressed(x[v], a, u[v], *bounds)
            for outside in (0, 1):
                rows = side == outside
                few = rows.sum() < 50 * bands
                found = both if few else _regressed(x[v][:, rows], a[rows], u[v][rows], *bounds)
                for array, number in zip((weights, constant, std, power), found):
                    array[v, lead, outside] = number
    return MotionLaw(weights, constant, std, power, least, low, high, past)


def _regressed(x: Array, rough: Array, u: Array, low: float, high: float) -> tuple[Array, float, float, float]:
    """Weights in [0, 1] of x (bands, n), constant, std and power of latents u (n,) that may be at bounds.

    The squares q of residuals, and of what is not known of them, give the power: it minimises
    ``sum log s^2 + q / s^2`` with ``s = std rough^power``, in which the best std is known.
    """
    there = ~np.isnan(u)
    x, rough, u = x[:, there].astype(np.float64), rough[there].astype(np.float64), u[there]
    weights, constant, std, power = np.zeros(len(x)), 0.0, 1.0, 0.0
    if len(u) < 2:
        return weights, constant, std, power
    logs = np.log(rough)
    tried = np.exp(-2 * _POWERS[:, None] * logs)
    e, variance = np.clip(u, low, high), np.zeros_like(u)
    for _ in range(_PASSES):
        before, counts = std, rough ** (-2 * power)
        counts /= counts.mean()
        centre, middle = (x * counts).mean(1), float((e * counts).mean())
        away = x - centre[:, None]
        gram = (away * counts) @ away.T
        ridge = np.diag(np.diag(gram)) + np.eye(len(x)) * max(np.trace(gram), 1e-6)
        root = np.linalg.cholesky(gram + _RIDGE * ridge)
        pull = (away * counts) @ (e - middle)
        weights = lsq_linear(root.T, np.linalg.solve(root, pull), (0, 1), method="bvls").x
        constant = middle - float(weights @ centre)
        predicted = constant + weights @ x
        squares = (e - predicted) ** 2 + variance
        best = int(np.argmin(np.log((tried * squares).mean(1)) + 2 * _POWERS * logs.mean()))
        power, std = float(_POWERS[best]), max(float(np.sqrt((tried[best] * squares).mean())), _LEAST_STD)
        if abs(std - before) < _SETTLED * std:
            break
        e, variance = expected(u, predicted, std * rough**power, low, high)
    return weights, constant, std, power
