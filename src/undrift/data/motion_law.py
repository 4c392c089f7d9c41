"""The linear predictor of frames that move: what the past frames, carried on along their motion, tell of later ones.

The last frame u (latents, at their bounds where they are beyond) is taken apart into octaves by Gaussian filters G,

    u = (u - G_1 u) + (G_1 u - G_2 u) + (G_2 u - G_4 u) + ... + G_S u,

and each is carried on along the motion of the past frames, as cascades of rain are (S-PROG: Seed 2003,
doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2). A frame that is ``lead`` steps ahead is

    N(c + sum_b w_b (carried u_b), std^2),    0 <= w_b <= 1,

with c, w and std of each lead: small scales are forgotten first, and none grows. Cells into which the motion carries
what was outside the domain, or was missing, have a c, w and std of their own; what they are given is the nearest that
is known. Values at a point mass count by their conditional means (Tobit by expectation-maximisation).
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

__all__ = ["Ahead", "MotionLaw", "MotionLaws", "fit_motion_laws", "octaves"]

Array = NDArray[np.floating]
_CELLS = 500  # of a window, drawn for the fit
_NUMBERS = 40_000_000  # cells x leads x octaves of the fit, at most
_PASSES = 40  # of expectation-maximisation, at most
_SETTLED = 1e-3  # change of the standard deviation between two of them at which it ends
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
        inside: whether that was within the domain and known, (leads, *space).
    """

    mean: np.ndarray
    last: np.ndarray
    inside: np.ndarray

    def part(self, window: Sequence[slice]) -> "Ahead":
        """A part of space."""
        cut = (slice(None), *window)
        return Ahead(self.mean[(slice(None), *cut)], self.last[(slice(None), *cut)], self.inside[cut])


def octaves(frame: Array, periodic: Sequence[bool]) -> Array:
    """Latents (V, *space) without gaps as octaves, finest first, (V, bands, *space); they add up to the latents."""
    side, sigma, smooth = min(frame.shape[1:]), 1.0, [frame]
    while 4 * sigma <= side:
        smoother = frame
        for axis, wrap in enumerate(periodic):
            mode = "wrap" if wrap else "nearest"
            smoother = scipy.ndimage.gaussian_filter1d(smoother, sigma, axis=axis + 1, mode=mode)
        smooth.append(smoother)
        sigma *= 2
    return np.stack([a - b for a, b in itertools.pairwise(smooth)] + smooth[-1:], axis=1)


def _filled(frame: Array) -> tuple[Array, NDArray[np.bool_]]:
    """A frame (V, *space), the nearest known value where one is missing, and where all of its variables are known."""
    known = np.isfinite(frame)
    out = frame.copy()
    for v, there in zip(out, known):
        if there.any() and not there.all():
            nearest = scipy.ndimage.distance_transform_edt(~there, return_distances=False, return_indices=True)
            v[...] = v[tuple(np.asarray(nearest))]
        elif not there.any():
            v[...] = 0.0
    return out, np.asarray(known.all(0))


def carried_octaves(
    past: Array, leads: int, periodic: Sequence[bool]
) -> Iterator[tuple[Array, Array, NDArray[np.bool_]]]:
    """Of each lead the octaves (V, bands, *space), the last frame (V, *space), and where it was inside (*space).

    Args:
        past: latents (V, P, *space), NaN where missing.
        leads: frames ahead.
        periodic: of each space axis.
    """
    moved = motion(past, periodic)
    last, known = _filled(past[:, -1])
    bands = octaves(last, periodic)
    shape = last.shape[1:]
    channels = np.concatenate([bands.reshape(-1, *shape), last, known[None]]).astype(np.float64)
    for at in origins(moved, periodic, range(1, leads + 1)):
        within = [np.ones(shape, bool) if p else (x >= -0.5) & (x <= n - 0.5) for x, p, n in zip(at, periodic, shape)]
        found = picked(channels, at, periodic)
        size = len(bands.reshape(-1, *shape))
        yield found[:size].reshape(bands.shape), found[size:-1], np.all(within, 0) & (found[-1] > 0.5)


@dataclass(frozen=True)
class MotionLaw:
    """The Gaussian of frames ahead, of each variable, lead and side: 0 where what comes was inside, 1 where outside.

    Attributes:
        weights: of the octaves, finest first, (V, leads, 2, bands).
        constant: c, (V, leads, 2).
        std: (V, leads, 2).
        past: frames that are given.
    """

    weights: Array
    constant: Array
    std: Array
    past: int
    _made: dict[bytes, Ahead] = field(default_factory=dict, repr=False)

    @property
    def frames(self) -> int:
        """Of a window."""
        return self.past + self.std.shape[1]

    def ahead(self, past: Array, periodic: Sequence[bool]) -> Ahead:
        """What is predicted from past latents (V, P, *space), NaN where missing."""
        key = past.tobytes()
        if key not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = self._ahead(past, periodic)
        return self._made[key]

    def _ahead(self, past: Array, periodic: Sequence[bool]) -> Ahead:
        means, lasts, insides = [], [], []
        space = (1,) * (past.ndim - 2)
        for lead, (bands, last, inside) in enumerate(carried_octaves(past, self.weights.shape[1], periodic)):
            sides = []
            for side in (0, 1):
                weights = self.weights[:, lead, side].reshape(*bands.shape[:2], *space)
                sides.append((weights * bands).sum(1) + self.constant[:, lead, side].reshape(-1, *space))
            means.append(np.where(inside, *sides))
            lasts.append(last)
            insides.append(inside)
        mean, last = (np.stack(v, 1).astype(np.float32) for v in (means, lasts))
        return Ahead(mean, last, np.stack(insides))

    def spread(self, inside: NDArray[np.bool_]) -> Array:
        """Standard deviation (V, leads, *space) of what the prediction leaves over."""
        std = self.std.reshape(*self.std.shape, *[1] * (inside.ndim - 1))
        return np.where(inside, std[:, :, 0], std[:, :, 1])

    def widened(self, factor: np.ndarray) -> "MotionLaw":
        """The law with its standard deviations times a factor of each frame, (V, T)."""
        return replace(self, std=self.std * factor[:, self.past :, None])

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {
            f"{name}_weights": self.weights,
            f"{name}_constant": self.constant,
            f"{name}_std": self.std,
            f"{name}_past": np.array(self.past),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Self:
        """Inverse of :meth:`to_arrays`."""
        weights, constant, std = (arrays[f"{name}_{part}"] for part in ("weights", "constant", "std"))
        return cls(weights, constant, std, int(arrays[f"{name}_past"]))


class MotionLaws:
    """The law of frames ahead: one without each fold of the record, and that of all.

    Args:
        laws: the last is that of all.
        periodic: of each space axis.
    """

    def __init__(self, laws: Sequence[MotionLaw], periodic: Sequence[bool]) -> None:
        self.laws, self.periodic = list(laws), tuple(periodic)

    def of(self, fold: int | None) -> MotionLaw:
        """The law that was fitted without a fold; None for that of all."""
        return self.laws[-1 if fold is None else fold]

    def seen(self, past: np.ndarray, mask: NDArray[np.bool_], fold: NDArray[np.intp] | None) -> list[Ahead | None]:
        """What the past tells of each window (n, V T, *space) of latents, NaN where not given; None for no whole past.

        Args:
            past: the windows.
            mask: cells that never have a value, (V T, *space).
            fold: fold of each, whose law was fitted without it; None for that of all.
        """
        out: list[Ahead | None] = []
        for i, window in enumerate(past):
            law = self.of(None if fold is None else int(fold[i]))
            split = (-1, law.frames, *window.shape[1:])
            there, never = np.isfinite(window).reshape(split)[:, : law.past], mask.reshape(split)[:, : law.past]
            axes = tuple(range(2, there.ndim))
            whole = bool((there.sum(axes) >= _WHOLE * (~never).sum(axes)).all())
            out.append(law.ahead(window.reshape(split)[:, : law.past], self.periodic) if whole else None)
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
            law = self.of(None if fold is None else int(fold[i]))
            known, *parts = (
                v[i].reshape(-1, law.frames, *mean.shape[2:]) for v in (there, mean, std, carried, reached)
            )
            told = (found.mean, law.spread(found.inside), found.last, found.inside)
            for part, values in zip(parts, told):
                np.copyto(part[:, law.past :], values, where=~known[:, law.past :])
        return carried, reached

    def widened(self, factor: np.ndarray) -> "MotionLaws":
        """The laws with their standard deviations times a factor of each frame, (V, T)."""
        return MotionLaws([law.widened(factor) for law in self.laws], self.periodic)


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
    parts: list[list[tuple[Array, Array, Array]]] = []  # windows, leads: octaves (V, bands, cells), side, latents
    draw = np.random.default_rng(0)
    for window in windows:
        space = window.shape[2:]
        bounds = [v.reshape(-1, *[1] * (window.ndim - 1)) for v in (low, high)]
        known = np.clip(window[:, :past], *bounds)
        leads, cells = window.shape[1] - past, int(np.prod(space))
        few = min(cells, _CELLS, max(100, _NUMBERS // (len(fold) * leads * 8 * len(window))))
        rows = []
        for lead, (bands, _, inside) in enumerate(carried_octaves(known, leads, periodic)):
            at = draw.integers(0, cells, few)
            flat = bands.reshape(*bands.shape[:2], -1)[:, :, at].astype(np.float32)
            rows.append((flat, ~inside.ravel()[at], window[:, past + lead].reshape(len(window), -1)[:, at]))
        parts.append(rows)
    number = int(fold.max()) + 1
    laws = []
    for k in range(number + 1):
        some = [part for part, f in zip(parts, fold) if f != k]
        laws.append(_fitted(some, past, low, high))
    return MotionLaws(laws, periodic)


def _fitted(parts: list, past: int, low: Array, high: Array) -> MotionLaw:
    """The law from windows of cells."""
    leads, (variables, bands) = len(parts[0]), parts[0][0][0].shape[:2]
    weights, constant = np.zeros((variables, leads, 2, bands)), np.zeros((variables, leads, 2))
    std = np.zeros_like(constant)
    for lead in range(leads):
        x, outside, u = (np.concatenate([p[lead][i] for p in parts], axis=-1) for i in range(3))
        for v in range(variables):
            bounds = float(low[v]), float(high[v])
            both = _regressed(x[v], u[v], *bounds)
            for side, which in enumerate((~outside, outside)):
                rows = which & np.isfinite(x[v]).all(0)
                found = _regressed(x[v][:, rows], u[v][rows], *bounds) if rows.sum() >= 50 * bands else both
                weights[v, lead, side], constant[v, lead, side], std[v, lead, side] = found
    return MotionLaw(weights, constant, std, past)


def _regressed(x: Array, u: Array, low: float, high: float) -> tuple[Array, float, float]:
    """Weights in [0, 1] of x (bands, n), constant and standard deviation of latents u (n,) that may be at bounds."""
    there = ~np.isnan(u)
    x, u = x[:, there].astype(np.float64), u[there]
    if len(u) < 2:
        return np.zeros(len(x)), 0.0, 1.0
    centre = x.mean(1)
    x = x - centre[:, None]
    gram = x @ x.T
    root = np.linalg.cholesky(gram + _RIDGE * (np.diag(np.diag(gram)) + np.eye(len(x)) * max(np.trace(gram), 1e-6)))
    e, variance, weights, mean, std = np.clip(u, low, high), np.zeros_like(u), np.zeros(len(x)), 0.0, 1.0
    for _ in range(_PASSES):
        mean, before = float(e.mean()), std
        weights = lsq_linear(root.T, np.linalg.solve(root, x @ (e - mean)), (0, 1), method="bvls").x
        predicted = mean + weights @ x
        std = max(float(np.sqrt(((e - predicted) ** 2 + variance).mean())), _LEAST_STD)
        if not np.isinf(u).any() or abs(std - before) < _SETTLED * std:
            break
        e, variance = expected(u, predicted, np.full_like(u, std), low, high)
    return weights, mean - float(weights @ centre), std
