"""The linear predictor: what a ridge regression makes of all that is given.

A generative model that does not beat a one-second ridge has no business; so undrift's models are trained on what the
ridge leaves over. Three stages, each kept only where blocked cross-validation says that it helps:

1. the base: interpolation of the given field of the same variable (or 0);
2. a stencil: the fine cells of one coarse block from the coarse cells around it, one set of coefficients for the whole
   domain;
3. a ridge from *all* given coarse cells and covariates to every cell of what stages 1 and 2 leave; where nothing is
   given it is the mean.

Training uses **out-of-fold** predictions: each sample is predicted by coefficients fitted without its contiguous fold.
Residuals of the samples that a ridge was fitted on are too small, and a model trained on them is over-confident. A
missing target counts as the mean of its cell.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Given", "LinearPredictor", "folds"]

Array = NDArray[np.float64]
_BLOCK = 64  # samples a block while streaming
_PENALTIES = np.geomspace(1e-7, 1, 29)  # in units of the largest eigenvalue
_SHRINKAGE = (0.5, 1.0)  # weights of the stencil that are tried; half is the mean of the predictors with and without
_PROBE_CELLS = 4096  # cells that choose the penalty
_MEMORY = 2e8  # numbers in all sets of coefficients together


def folds(count: int, number: int) -> NDArray[np.intp]:
    """Contiguous folds: the fold of each of ``count`` samples in the order of the record."""
    number = max(2, min(number, count))
    return np.repeat(np.arange(number), [len(part) for part in np.array_split(np.arange(count), number)])


@dataclass(frozen=True)
class Given:
    """What the predictor is given for some samples.

    Attributes:
        base: starting guess on the fine grid, (n, C, *space).
        coarse: given fields on their own grid, standardised, finite, (n, G, *coarse space); or None.
        features: covariates, standardised, (n, K).
    """

    base: Array
    coarse: Array | None
    features: Array

    def flat(self) -> Array:
        """All given numbers side by side, (n, p)."""
        parts = [self.features] if self.coarse is None else [self.coarse.reshape(len(self.coarse), -1), self.features]
        return np.concatenate(parts, 1)


class _Ridge:
    """``y = mean_y + (x - mean_x) rotation coefficients``, coefficients (k, P) in principal directions of x."""

    def __init__(self, mean_x: Array, rotation: Array, mean_y: Array, coefficients: NDArray[np.float32]) -> None:
        self.mean_x, self.rotation, self.mean_y, self.coefficients = mean_x, rotation, mean_y, coefficients

    def project(self, x: Array) -> Array:
        return (x - self.mean_x) @ self.rotation

    def predict(self, x: Array, cells: NDArray[np.intp] | slice = slice(None)) -> Array:
        return self.mean_y[cells] + self.project(x) @ self.coefficients[:, cells].astype(np.float64)


class _Stencil:
    """Coefficients (F, C * factor^d) from a coarse neighbourhood and the covariates to one block of fine cells."""

    def __init__(self, coefficients: Array, factor: Sequence[int], radius: int, periodic: Sequence[bool]) -> None:
        self.coefficients, self.factor = coefficients, tuple(factor)
        self.radius, self.periodic = radius, tuple(periodic)

    def shrunk(self, weight: float) -> "_Stencil":
        """The same with all coefficients times ``weight``."""
        return _Stencil(weight * self.coefficients, self.factor, self.radius, self.periodic)

    @staticmethod
    def neighbourhoods(coarse: Array, features: Array, radius: int, periodic: Sequence[bool]) -> Array:
        """(n, *coarse space, F), F = G (2 radius + 1)^d + K + 1."""
        dims = coarse.ndim - 2
        padded = coarse
        for axis, wrap in enumerate(periodic):
            width = [(0, 0)] * coarse.ndim
            width[axis + 2] = (radius, radius)
            padded = np.pad(padded, width, mode="wrap" if wrap else "edge")
        window = (2 * radius + 1,) * dims
        view = np.lib.stride_tricks.sliding_window_view(padded, window, axis=tuple(range(2, 2 + dims)))
        view = np.moveaxis(view, 1, 1 + dims).reshape(len(coarse), *coarse.shape[2:], -1)
        extra = np.concatenate([features, np.ones((len(features), 1))], 1)
        extra = np.broadcast_to(extra[(slice(None),) + (None,) * dims], (*view.shape[:-1], extra.shape[1]))
        return np.concatenate([view, extra], -1)

    @staticmethod
    def to_blocks(fine: Array, factor: Sequence[int]) -> Array:
        """(n, C, *space) -> (n, *coarse space, C * factor^d)."""
        n, c, *space = fine.shape
        split = [size for total, f in zip(space, factor) for size in (total // f, f)]
        dims = len(space)
        order = [0, *(2 + 2 * i for i in range(dims)), 1, *(3 + 2 * i for i in range(dims))]
        blocks = fine.reshape(n, c, *split).transpose(order)
        return blocks.reshape(*blocks.shape[: 1 + dims], -1)

    @staticmethod
    def from_blocks(blocks: Array, factor: Sequence[int], channels: int) -> Array:
        """Inverse of :meth:`to_blocks`."""
        n, *coarse = blocks.shape[:-1]
        dims = len(coarse)
        parts = blocks.reshape(n, *coarse, channels, *factor)
        order = [0, 1 + dims, *(axis for i in range(dims) for axis in (1 + i, 2 + dims + i))]
        return parts.transpose(order).reshape(n, channels, *(c * f for c, f in zip(coarse, factor)))

    def predict(self, given: Given) -> Array:
        assert given.coarse is not None
        channels = self.coefficients.shape[1] // int(np.prod(self.factor))
        x = self.neighbourhoods(given.coarse, given.features, self.radius, self.periodic)
        return self.from_blocks(x @ self.coefficients, self.factor, channels)


Reader = Callable[[NDArray[np.intp]], tuple[Given, Array]]


def _blocks(count: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count))


class LinearPredictor:
    """The three stages, fitted once on all samples and once without each fold.

    Attributes:
        stages: names of the stages in use.
        scores: cross-validated mean squared error of each stage tried, in latent units.
    """

    def __init__(
        self,
        stencils: list[_Stencil] | None,
        ridges: list[_Ridge] | None,
        scores: dict[str, float],
        shape: Sequence[int],
    ) -> None:
        self.stencils, self.ridges, self.scores, self.shape = stencils, ridges, scores, tuple(shape)

    @property
    def stages(self) -> list[str]:
        """Names of the stages in use."""
        return ["base"] + ["stencil"] * bool(self.stencils) + ["ridge"] * bool(self.ridges)

    def predict(
        self, given: Given, fold: NDArray[np.intp] | None = None, window: Sequence[slice] | None = None
    ) -> Array:
        """Prediction, (n, C, *space) or the window of it.

        Args:
            given: what is given.
            fold: fold of each sample, whose coefficients were fitted without it; None for those fitted on all.
            window: part of space.
        """
        shape = self.shape
        window = tuple(window) if window is not None else (slice(None),) * (len(shape) - 1)
        out = given.base[(slice(None), slice(None), *window)].copy()
        cells = np.arange(int(np.prod(shape))).reshape(shape)[(slice(None), *window)].ravel()
        which = np.full(len(out), -1) if fold is None else fold
        for k in np.unique(which):
            rows = np.flatnonzero(which == k)
            part = Given(given.base[rows], None if given.coarse is None else given.coarse[rows], given.features[rows])
            if self.stencils:
                out[rows] += self.stencils[k].predict(part)[(slice(None), slice(None), *window)]
            if self.ridges:
                out[rows] += self.ridges[k].predict(part.flat(), cells).reshape(out[rows].shape)
        return out

    @classmethod
    def fit(
        cls,
        read: Reader,
        fold: NDArray[np.intp],
        *,
        factor: Sequence[int] | None,
        periodic: Sequence[bool],
    ) -> "LinearPredictor":
        """Fit all stages.

        Args:
            read: ``read(rows) -> (Given, target (n, C, *space))`` for rows of the training part; a missing target is
                NaN.
            fold: contiguous fold of each training sample.
            factor: fine cells per coarse cell for each space dim, None where the grids are not nested.
            periodic: for each space dim.
        """
        given, target = read(np.arange(1))
        shape = target.shape[1:]
        count = len(fold)
        number = int(fold.max()) + 1
        base_error = _mean_square(read, count, lambda given, rows: given.base)
        scores = {"base": base_error}
        starts: list[list[_Stencil] | None] = [None]
        if factor is not None and given.coarse is not None:
            whole = _fit_stencils(read, fold, number, factor, periodic)
            starts += [[stencil.shrunk(weight) for stencil in whole] for weight in _SHRINKAGE]
        ridged = count > 2 * number
        best = cls(None, None, {}, shape)
        for weight, start in zip((0.0, *_SHRINKAGE), starts):
            trials = {f"stencil x {weight:g}": cls(start, None, {}, shape)} if start else {}
            if ridged:
                ridges = _fit_ridges(read, fold, number, cls(start, None, {}, shape))
                trials[f"stencil x {weight:g} + ridge" if start else "ridge"] = cls(start, ridges, {}, shape)
            for name, trial in trials.items():
                scores[name] = _mean_square(read, count, lambda given, rows: trial.predict(given, fold[rows]))  # noqa: B023
                if scores[name] <= min(scores.values()):
                    best = trial
        return cls(best.stencils, best.ridges, scores, shape)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold the whole predictor."""
        out: dict[str, np.ndarray] = {}
        for i, s in enumerate(self.stencils or []):
            out[f"stencil_{i}"] = s.coefficients
        if self.stencils:
            s = self.stencils[0]
            out["stencil_facts"] = np.array([s.radius, *s.factor, *s.periodic], dtype=np.int64)
        for i, r in enumerate(self.ridges or []):
            out |= {f"ridge_{i}_mean_x": r.mean_x, f"ridge_{i}_rotation": r.rotation}
            out |= {f"ridge_{i}_mean_y": r.mean_y, f"ridge_{i}_coefficients": r.coefficients}
        return out

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, np.ndarray], scores: dict[str, float], shape: Sequence[int]
    ) -> "LinearPredictor":
        """Inverse of :meth:`to_arrays`."""
        stencils = ridges = None
        if "stencil_facts" in arrays:
            facts = [int(v) for v in arrays["stencil_facts"]]
            dims = (len(facts) - 1) // 2
            factor, periodic = facts[1 : 1 + dims], [bool(v) for v in facts[1 + dims :]]
            number = sum(k.startswith("stencil_") for k in arrays) - 1
            stencils = [_Stencil(arrays[f"stencil_{i}"], factor, facts[0], periodic) for i in range(number)]
        if "ridge_0_mean_x" in arrays:
            names = ("mean_x", "rotation", "mean_y", "coefficients")
            number = sum(k.endswith("_rotation") for k in arrays)
            ridges = [_Ridge(*(arrays[f"ridge_{i}_{n}"] for n in names)) for i in range(number)]
        return cls(stencils, ridges, scores, shape)


def _mean_square(read: Reader, count: int, predict: Callable[[Given, NDArray[np.intp]], Array]) -> float:
    total = n = 0.0
    for rows in _blocks(count):
        given, target = read(rows)
        total += float(np.nansum((target - predict(given, rows)) ** 2))
        n += float(np.isfinite(target).sum())
    return total / max(n, 1.0)


def _fit_stencils(
    read: Reader, fold: NDArray[np.intp], number: int, factor: Sequence[int], periodic: Sequence[bool], radius: int = 2
) -> list[_Stencil]:
    """Normal equations summed by fold; entry k leaves fold k out, the last entry uses all."""
    grams: list[Array] = []
    rights: list[Array] = []
    for rows in _blocks(len(fold)):
        given, target = read(rows)
        assert given.coarse is not None
        x = _Stencil.neighbourhoods(given.coarse, given.features, radius, periodic)
        y = _Stencil.to_blocks(target - given.base, factor)
        whole = np.isfinite(y).all(-1)  # a block with a missing cell is left out
        if not grams:
            grams = [np.zeros((x.shape[-1],) * 2) for _ in range(number)]
            rights = [np.zeros((x.shape[-1], y.shape[-1])) for _ in range(number)]
        for k in np.unique(fold[rows]):
            use = whole & (fold[rows] == k).reshape(-1, *[1] * (whole.ndim - 1))
            grams[k] += x[use].T @ x[use]
            rights[k] += x[use].T @ y[use]
    gram, right = sum(grams), sum(rights)
    assert isinstance(gram, np.ndarray) and isinstance(right, np.ndarray)
    out = []
    for k in range(number + 1):
        g, r = (gram, right) if k == number else (gram - grams[k], right - rights[k])
        ridge = max(1e-6 * np.trace(g) / len(g), 1e-12) * np.eye(len(g))
        out.append(_Stencil(np.linalg.solve(g + ridge, r), factor, radius, periodic))
    return out


def _fit_ridges(read: Reader, fold: NDArray[np.intp], number: int, started: LinearPredictor) -> list[_Ridge]:
    """Ridges without each fold and, last, on all, with one penalty chosen on a subset of the cells."""
    count = len(fold)
    flat = np.concatenate([read(rows)[0].flat() for rows in _blocks(count)])
    size = int(np.prod(started.shape))
    cells = np.unique(np.linspace(0, size - 1, min(size, _PROBE_CELLS)).astype(np.intp))
    rank = int(max(1, min(count, flat.shape[1], _MEMORY / (number + 1) / size)))

    def left(k: int) -> Callable[[Given, NDArray[np.intp]], Array]:
        """What stages 1 and 2 of fold k predict."""
        return lambda given, rows: started.predict(given, np.full(len(rows), k))

    probes, bases = [], []
    for k in range(number + 1):
        keep = np.flatnonzero(fold != k)
        mean = flat[keep].mean(0)
        bases.append((keep, mean, *_principal(flat[keep] - mean, rank)))
        probes.append(_residuals(read, count, left(k if k < number else -1), cells))
    errors = np.zeros(len(_PENALTIES))
    for k in range(number):
        keep, mean, u, s, v = bases[k]
        test = np.flatnonzero(fold == k)
        y = probes[k][keep]
        known = np.isfinite(y)
        centre = np.where(known, y, 0).sum(0) / np.maximum(known.sum(0), 1)
        uy = u.T @ np.where(known, y - centre, 0)
        z = (flat[test] - mean) @ v
        for i, penalty in enumerate(_PENALTIES * s[0] ** 2):
            error = probes[k][test] - centre - (z * (s / (s**2 + penalty))) @ uy
            errors[i] += np.nansum(error**2)
    penalty = _PENALTIES[int(np.argmin(errors))]
    out = []
    for k, (keep, mean, u, s, v) in enumerate(bases):
        gain = s / (s**2 + penalty * s[0] ** 2)
        total, number_known = np.zeros(size), np.zeros(size)
        uy, seen = np.zeros((len(s), size)), np.zeros((len(s), size))
        row_of = np.full(count, -1)
        row_of[keep] = np.arange(len(keep))
        for rows in _blocks(count):
            rows = rows[row_of[rows] >= 0]
            if not len(rows):
                continue
            given, target = read(rows)
            y = (target - left(k if k < number else -1)(given, rows)).reshape(len(rows), -1)
            known = np.isfinite(y)
            y = np.where(known, y, 0)
            total, number_known = total + y.sum(0), number_known + known.sum(0)
            uy += u[row_of[rows]].T @ y
            seen += u[row_of[rows]].T @ known
        centre = total / np.maximum(number_known, 1)
        coefficients = gain[:, None] * (uy - seen * centre)
        out.append(_Ridge(mean, v, centre, coefficients.astype(np.float32)))
    return out


def _principal(x: Array, rank: int) -> tuple[Array, Array, Array]:
    """Singular vectors (n, k), values (k,) and directions (p, k) of x (n, p), k <= rank; one blank one where x is 0."""
    if not x.any():
        return np.zeros((len(x), 1)), np.ones(1), np.zeros((x.shape[1], 1))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank].T


def _residuals(
    read: Reader, count: int, predict: Callable[[Given, NDArray[np.intp]], Array], cells: NDArray[np.intp]
) -> Array:
    parts = []
    for rows in _blocks(count):
        given, target = read(rows)
        parts.append((target - predict(given, rows)).reshape(len(rows), -1)[:, cells])
    return np.concatenate(parts)
