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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undrift.data.ridge import PENALTIES, Design, PenaltyErrors, Ridge, blocks
from undrift.data.stencil import Stencil, StencilSums

__all__ = ["Given", "LinearPredictor", "Reader", "design_of", "folds", "spread"]

Array = NDArray[np.float64]
_SHRINKAGE = (0.5, 1.0)  # weights of the stencil that are tried; half is the mean of the predictors with and without
_PROBE_CELLS = 4096  # cells that choose the penalty
_MEMORY = 2e8  # numbers in all sets of coefficients together


def folds(count: int, number: int, pieces: int = 1) -> NDArray[np.intp]:
    """The fold of each of ``count`` samples in the order of the record: one contiguous piece of it, or several."""
    number = max(2, min(number, count))
    parts = np.array_split(np.arange(count), number * pieces)
    return np.repeat(np.arange(number * pieces) % number, [len(part) for part in parts])


def spread(number: int, most: int) -> np.ndarray:
    """So many evenly spaced positions at most."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))


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


Reader = Callable[[NDArray[np.intp]], tuple[Given, Array]]


class LinearPredictor:
    """The three stages, fitted once on all samples and once without each fold.

    Attributes:
        stages: names of the stages in use.
        scores: cross-validated mean squared error of each stage tried, in latent units.
    """

    def __init__(
        self,
        stencils: list[Stencil] | None,
        ridges: list[Ridge] | None,
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
                assert part.coarse is not None
                out[rows] += self.stencils[k].predict(part.coarse, part.features)[(slice(None), slice(None), *window)]
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
        design: Design | None = None,
        damped: bool = True,
    ) -> "LinearPredictor":
        """Fit all stages.

        Args:
            read: ``read(rows) -> (Given, target (n, C, *space))`` for rows of the training part; a missing target is
                NaN.
            fold: contiguous fold of each training sample.
            factor: fine cells per coarse cell for each space dim, None where the grids are not nested.
            periodic: for each space dim.
            design: of the same given numbers (:func:`design_of`), where something else was predicted from them before.
            damped: whether the ridge's penalty is chosen; it is the least one if not.
        """
        given, target = read(np.arange(1))
        shape = target.shape[1:]
        design = design or design_of(read, fold)
        stencils = None
        if factor is not None and given.coarse is not None:
            stencils = StencilSums(design.number, factor, periodic)
        sums = _Sums(read, design, shape, stencils)
        weights = (0.0, *_SHRINKAGE) if stencils is not None else (0.0,)
        penalties = None
        if len(fold) > 2 * design.number:
            penalties = sums.penalties(weights) if damped else [float(PENALTIES[0])] * len(weights)
        scores = sums.scores(weights, penalties)
        best = min(scores, key=lambda name: scores[name])
        at = next(i for i, names in enumerate(_names(weights)) if best in names)
        local = [stencil.shrunk(weights[at]) for stencil in sums.stencils] if weights[at] else None
        ridges = sums.ridges(weights[at], penalties[at]) if penalties is not None and "ridge" in best else None
        return cls(local, ridges, scores, shape)

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
            stencils = [Stencil(arrays[f"stencil_{i}"], factor, facts[0], periodic) for i in range(number)]
        if "ridge_0_mean_x" in arrays:
            names = ("mean_x", "rotation", "mean_y", "coefficients")
            number = sum(k.endswith("_rotation") for k in arrays)
            ridges = [Ridge(*(arrays[f"ridge_{i}_{n}"] for n in names)) for i in range(number)]
        return cls(stencils, ridges, scores, shape)


def design_of(read: Reader, fold: NDArray[np.intp], size: int | None = None) -> Design:
    """The principal directions of all that is given, which every fit from the same given numbers shares.

    ``size`` counts the cells of all that is predicted beside each other; by default those that ``read`` has.
    """
    flat = np.concatenate([read(rows)[0].flat() for rows in blocks(np.arange(len(fold)))])
    cells = read(np.arange(1))[1][0].size if size is None else size
    number = int(fold.max()) + 1
    return Design(flat, fold, int(max(1, _MEMORY / (number + 1) / cells)))


def _names(weights: Sequence[float]) -> list[tuple[str, str]]:
    """Names of the trials without and with a ridge for each weight of the stencil."""
    return [(f"stencil x {w:g}", f"stencil x {w:g} + ridge") if w else ("base", "ridge") for w in weights]


class _Sums:
    """What one fit knows of its training samples: sums over all of them, less those of one fold when that is asked.

    A fold's sums are made anew each time, so that few sets of (q, P) numbers are held at once, q numbers given and P
    cells. The stencils are linear: the sum of z times a stencil's predictions is the stencil's prediction for the sum
    of z times what is given, for which no sample is read; only samples with gaps are, since a cell that is missing does
    not count.

    Attributes:
        stencils: one without each fold and, last, that of all; empty where the grids are not nested.
    """

    def __init__(self, read: Reader, design: Design, shape: Sequence[int], stencils: StencilSums | None) -> None:
        self.read, self.design, self.shape = read, design, tuple(shape)
        size = int(np.prod(shape))
        self.zy, self.y, self.known = np.zeros((design.z.shape[1], size)), np.zeros(size), np.zeros(size)
        self.probe = spread(size, _PROBE_CELLS)
        counts = np.zeros(len(design.fold))
        for k in range(design.number):
            for rows in blocks(design.rows(k)):
                given, target = read(rows)
                if stencils is not None:
                    assert given.coarse is not None
                    stencils.add(k, given.coarse, given.features, target - given.base)
                y, known = _filled(target - given.base)
                self.zy += design.z[rows].T @ y
                self.y += y.sum(0)
                self.known += known.sum(0)
                counts[rows] = known.sum(1)
        self.ever = self.known > 0
        self.gaps = counts < self.ever.sum()
        self.stencils = stencils.solve() if stencils is not None else []

    def _stencil(self, k: int, given: Given) -> Array:
        """What the stencil of fold k predicts, (n, P)."""
        assert given.coarse is not None
        return self.stencils[k].predict(given.coarse, given.features).reshape(len(given.features), -1)

    def outside(self, k: int, weights: Sequence[float], cells: NDArray[np.intp] | slice) -> list[tuple[Array, Array]]:
        """What base and stencil leave of the samples outside fold k, for each weight of the stencil of that fold.

        The mean of it (P,), and the sum of z times its deviation from the mean (q, P).
        """
        cross, z_sum, x_sum, count = self.design.sums(k)
        zy, y, known = self.zy[:, cells], self.y[cells], self.known[cells]
        for rows in blocks(self.design.rows(k)):
            given, target = self.read(rows)
            part, there = (v[:, cells] for v in _filled(target - given.base))
            zy = zy - self.design.z[rows].T @ part
            y, known = y - part.sum(0), known - there.sum(0)
        zs, s = np.zeros((1, 1)), np.zeros(1)
        if self.stencils and any(weights):
            zs, s = self._stencil_of_sums(k, cross, z_sum, x_sum, count, cells)
        missing_z = np.zeros((1, 1))
        for rows in blocks(np.flatnonzero(self.gaps & (self.design.fold != k))):
            given, target = self.read(rows)
            missing = ~_filled(target)[1][:, cells]
            missing_z = missing_z + self.design.z[rows].T @ missing
            if self.stencils and any(weights):
                part = self._stencil(k, given)[:, cells] * missing
                zs, s = zs - self.design.z[rows].T @ part, s - part.sum(0)
        out = []
        for weight in weights:
            centre = self.ever[cells] * (y - weight * s) / np.maximum(known, 1)
            right = zy - weight * zs - (z_sum[:, None] - missing_z) * centre
            out.append((centre, right * self.ever[cells]))
        return out

    def _stencil_of_sums(
        self, k: int, cross: Array, z_sum: Array, x_sum: Array, count: int, cells: NDArray[np.intp] | slice
    ) -> tuple[Array, Array]:
        """Sums of z times the predictions of the stencil of fold k (q, P), and of the predictions (P,)."""
        flat, one = np.concatenate([cross, x_sum[None]]), np.append(z_sum, count)
        example = self.read(np.arange(1))[0].coarse
        assert example is not None
        coarse, features = flat[:, : example.size], flat[:, example.size :]
        fine = self.stencils[k].predict(coarse.reshape(-1, *example.shape[1:]), features, one)
        fine = fine.reshape(len(flat), -1)[:, cells]
        return fine[:-1], fine[-1]

    def penalties(self, weights: Sequence[float]) -> list[float]:
        """For each weight of the stencil the penalty that cross-validation prefers, on some of the cells."""
        cells = self.probe[self.ever[self.probe]]
        errors = np.zeros((len(weights), len(PENALTIES)))
        for k in range(self.design.number):
            sides = self.outside(k, weights, cells)
            trials = [PenaltyErrors(self.design, k, right) for _, right in sides]
            for rows in blocks(self.design.rows(k)):
                given, target = self.read(rows)
                left = (target - given.base).reshape(len(rows), -1)[:, cells]
                local = self._stencil(k, given)[:, cells] if any(weights) else np.zeros(1)
                for weight, (centre, _), trial in zip(weights, sides, trials):
                    trial.add(rows, left - weight * local - centre)
            errors += [trial.result() for trial in trials]
        return [float(PENALTIES[at]) for at in errors.argmin(1)]

    def scores(self, weights: Sequence[float], penalties: Sequence[float] | None) -> dict[str, float]:
        """Out-of-fold mean square of every trial."""
        total = {name: 0.0 for pair in _names(weights) for name in pair[: 1 if penalties is None else 2]}
        for k in range(self.design.number):
            sides = self.outside(k, weights, slice(None)) if penalties is not None else []
            for rows in blocks(self.design.rows(k)):
                given, target = self.read(rows)
                left = (target - given.base).reshape(len(rows), -1)
                local = self._stencil(k, given) if any(weights) else np.zeros(1)
                for i, (weight, names) in enumerate(zip(weights, _names(weights))):
                    error = left - weight * local
                    total[names[0]] += float(np.nansum(error**2))
                    if penalties is not None:
                        centre, right = sides[i]
                        error -= centre + self.design.hat(k, rows, penalties[i]) @ right
                        total[names[1]] += float(np.nansum(error**2))
        return {name: value / max(float(self.known.sum()), 1.0) for name, value in total.items()}

    def ridges(self, weight: float, penalty: float) -> list[Ridge]:
        """One ridge without each fold and, last, that of all."""
        out = []
        for k in range(self.design.number + 1):
            ((centre, right),) = self.outside(k, [weight], slice(None))
            out.append(self.design.ridge(k, right, centre, penalty))
        return out


def _filled(values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Samples as rows of cells (n, P) with 0 where missing, and where they are known."""
    flat = values.reshape(len(values), -1)
    known = np.isfinite(flat)
    return np.where(known, flat, 0.0), known
