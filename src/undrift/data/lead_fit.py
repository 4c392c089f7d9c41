"""Fitting the law of states after a lead time, from lagged products of a record without each fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from undrift.data.lead_law import LeadLaw, LeadLaws
from undrift.data.leads import Clock
from undrift.data.linear import spread
from undrift.data.window_fit import leading_maps
from undrift.data.window_law import positive

__all__ = ["fit_lead_laws"]

Array = NDArray[np.floating]
Rows = NDArray[np.intp]
_MODES = 32  # maps at most
_COUPLED = (0, 4, 8, 16, 32)  # maps that are predicted from each other, tried by cross-validation
_COMMON = (0.0, 0.1, 0.3, 0.6)  # how far amplitudes are drawn to a common correlation, tried likewise
_SCORED = 60  # pairs of a fold and lag at most
_LAGS = 5  # that are scored
_EACH, _KNOTS = 24, 48  # steps up to which each has a regression of its own, and how many have one at most
_INFLATION = (0.1, 16.0)


@dataclass
class _Moments:
    """Of one choice of maps, without one fold: lagged products of amplitudes, and of what the maps leave.

    Attributes:
        modes: the maps.
        lagged: of amplitudes at lag m, E[a(t + m) a(t)'], by m.
        own: variance of each cell of what is left, (C, cells).
        beside: correlation of what is left at lag m, (C,), by m.
    """

    modes: Array
    lagged: dict[int, Array]
    own: Array
    beside: dict[int, Array]

    def law(self, knots: NDArray[np.intp], past: int, coupled: int, common: float) -> LeadLaw:
        """The law of a choice, its errors not yet measured."""
        count, power = len(self.modes), np.diag(self.lagged[0])
        alone = ~np.eye(count, dtype=bool)
        alone[:coupled, :coupled] = False

        def drawn(lag: int) -> Array:
            mean = np.trace(self.lagged[lag]) / max(power.sum(), 1e-30)
            return (1 - common) * np.where(alone, 0.0, self.lagged[lag]) + common * mean * np.diag(power)

        moment = {lag: drawn(lag) for lag in self.lagged}
        frames = range(past)
        blocks = [[moment[p - q] if p >= q else moment[q - p].T for q in frames] for p in frames]
        covariance = positive(np.block(blocks))
        cross = [np.concatenate([moment[int(k) + past - 1 - p] for p in frames], 1) for k in knots]
        gains = np.stack([np.linalg.solve(covariance, c.T).T if count else c for c in cross])
        gains[0] = np.eye(count * past)[-count:] if count else gains[0]
        one = covariance[-count:, -count:] if count else np.zeros((0, 0))
        generator = np.linalg.solve(one, moment[1].T).T if count else one
        lags = np.abs(np.subtract.outer(np.arange(past), np.arange(past)))
        table = np.stack([self.beside[m] for m in range(past)], -1)
        correlation = np.stack([positive(row[lags]) for row in table])
        ahead = np.stack([np.stack([self.beside[int(k) + past - 1 - p] for p in frames], -1) for k in knots])
        ahead = np.linalg.solve(correlation[None], ahead[..., None])[..., 0]
        ahead[0] = np.eye(past)[-1]
        decay = np.clip(self.beside[1], 1e-3, 1.0)
        inflation = np.ones((len(knots), len(self.own)))
        return LeadLaw(self.modes, knots, gains, covariance, generator, self.own, ahead, correlation, decay, inflation)


@dataclass
class _Record:
    """States in the order of time: residuals (n, C, cells), places, folds."""

    r: Array
    place: NDArray[np.intp]
    fold: NDArray[np.intp]
    past: int

    def pairs(self, lag: int, within: int | None = None, without: int | None = None) -> tuple[Rows, Rows]:
        """Rows of states and of those so many steps later, within one fold or outside of one."""
        wanted = self.place + lag
        later = np.minimum(np.searchsorted(self.place, wanted), len(self.place) - 1)
        good = self.place[later] == wanted
        if within is not None:
            good &= (self.fold == within) & (self.fold[later] == within)
        if without is not None:
            good &= (self.fold != without) & (self.fold[later] != without)
        return np.flatnonzero(good), later[good]

    def scored(self, lag: int, within: int) -> tuple[Rows, Rows]:
        """Some of the rows (n, P) of given states within a fold, and of the states so many steps later."""
        first, last = self.pairs(lag + self.past - 1, within=within)
        some = spread(len(first), _SCORED)
        given = first[some][:, None] + np.arange(self.past)
        whole = (self.place[given] == self.place[first[some]][:, None] + np.arange(self.past)).all(1)
        return given[whole], last[some][whole]


def fit_lead_laws(
    r: Array, place: NDArray[np.intp], fold: NDArray[np.intp], clock: Clock, longest: int, past: int, *, maps: bool
) -> tuple[LeadLaws, dict[tuple[int, int, float], float]]:
    """The law without each fold and, last, that of all states.

    How many maps there are, how many are coupled and how far their correlations are drawn to a common one is chosen by
    cross-validation.

    Args:
        r: standardised residuals (n, C, *space) in the order of time, 0 where missing.
        place: whole steps of each, ascending, far apart where a gap lies between.
        fold: contiguous fold of each.
        clock: how leads are counted.
        longest: lead in steps.
        past: states that are given.
        maps: False where parts of the domain are learned: then cells go on in time, each on its own.

    Returns:
        The laws, and the error of each (maps, coupled, common) tried: the mean logarithm of mean squares.
    """
    space, number = r.shape[2:], int(fold.max()) + 1
    record = _Record(r.reshape(*r.shape[:2], -1), place, fold, past)
    knots = _knots(longest)
    lags = sorted({int(k) + p for k in knots for p in range(past)} | {0, 1})
    most = _MODES if maps else 0
    modes = [leading_maps(record.r[fold != k][:, :, None], most) for k in range(number)]
    modes.append(leading_maps(record.r[:, :, None], most))
    counts = sorted({0, min(len(m) for m in modes)})
    scored = np.unique(np.round(np.geomspace(1, longest, _LAGS)).astype(int))
    errors: dict[tuple[int, int, float], float] = {}
    moments = {count: _moments(record, [m[:count] for m in modes], lags) for count in counts}
    few = np.unique(np.concatenate([[0], scored]))
    for count in counts:
        for coupled in sorted({min(c, count) for c in _COUPLED}):
            for common in _COMMON if count else (0.0,):
                laws = [moments[count][k].law(few, past, coupled, common) for k in range(number)]
                found = [[_mean(_squares(law, record, int(lag), k)) for lag in scored] for k, law in enumerate(laws)]
                errors[count, coupled, common] = _score(np.array(found))
    count, coupled, common = min(errors, key=lambda choice: errors[choice])
    laws = [moments[count][k].law(knots, past, coupled, common) for k in range(number + 1)]
    inflation = _inflation(laws, record)
    return LeadLaws([replace(law, inflation=inflation) for law in laws], clock, space), errors


def _knots(longest: int) -> NDArray[np.intp]:
    """Leads that have a regression: each step, or fewer of the longer ones."""
    if longest <= _KNOTS:
        return np.arange(longest + 1)
    rest = np.round(np.geomspace(_EACH, longest, _KNOTS - _EACH)).astype(int)
    return np.unique(np.concatenate([np.arange(_EACH + 1), rest]))


def _moments(record: _Record, modes: Sequence[Array], lags: Sequence[int]) -> list[_Moments]:
    """Of the record without each fold, and of all of it."""
    number = len(modes) - 1
    flat = record.r.reshape(len(record.r), -1)
    channels = record.r.shape[1]
    # what maps leave of states that they were found without, summed by fold: squares of cells, products by lag
    squares, products, sizes = [], [], []
    for k in range(number):
        inside = record.fold == k
        e = (flat[inside] - (flat[inside] @ modes[k].T) @ modes[k]).reshape(-1, *record.r.shape[1:])
        at = np.cumsum(inside) - 1
        squares.append((e**2).sum(0))
        pairs = [record.pairs(lag, within=k) for lag in lags]
        products.append([(e[at[j]] * e[at[i]]).sum((0, 2)) for i, j in pairs])
        sizes.append([len(i) for i, _ in pairs])
    products, sizes = np.array(products).reshape(number, len(lags), channels), np.array(sizes, dtype=np.float64)
    states = np.bincount(record.fold, minlength=number)
    out = []
    for k in range(number + 1):
        a, others = flat @ modes[k].T, np.arange(number) != k
        lagged = {}
        for lag in lags:
            i, j = record.pairs(lag, without=k if k < number else None)
            lagged[lag] = a[j].T @ a[i] / max(len(i), 1)
        own = sum(squares[o] for o in np.flatnonzero(others)) / max(int(states[others].sum()), 1)
        mean = products[others].sum(0) / np.maximum(sizes[others].sum(0), 1)[:, None]
        beside = {lag: mean[m] / np.maximum(mean[0], 1e-30) for m, lag in enumerate(lags)}
        out.append(_Moments(modes[k], lagged, np.asarray(own), beside))
    return out


def _squares(law: LeadLaw, record: _Record, lag: int, k: int) -> Array:
    """Squared errors (n, C, cells) of some pairs within a fold at a lag."""
    given, later = record.scored(lag, k)
    r = record.r[given]
    return (law.given(r, np.ones(r.shape, dtype=bool), float(lag))[0] - record.r[later]) ** 2


def _mean(squares: Array) -> float:
    return float(squares.mean()) if len(squares) else np.nan


def _score(squares: Array) -> float:
    """Mean logarithm over lags of mean squares over folds (folds, lags)."""
    known = np.isfinite(squares)
    mean = np.where(known, squares, 0).sum(0) / np.maximum(known.sum(0), 1)
    return float(np.log(np.maximum(mean[known.any(0)], 1e-30)).mean()) if known.any() else 0.0


def _inflation(laws: Sequence[LeadLaw], record: _Record) -> Array:
    """Squared out-of-fold errors over the variance that a law expects, at its knots, (L, C)."""
    knots, channels = laws[-1].knots, record.r.shape[1]
    out = np.full((len(knots), channels), np.nan)
    for m, lag in enumerate(knots[1:], start=1):
        seen, expected = np.zeros(channels), np.zeros(channels)
        for k, law in enumerate(laws[:-1]):
            squares = _squares(law, record, int(lag), k)
            seen += squares.sum((0, 2))
            expected += len(squares) * (law.at(float(lag)).std ** 2).sum(-1)
        out[m] = np.where(expected > 0, seen / np.maximum(expected, 1e-30), np.nan)
    known = np.isfinite(out).all(1)
    if not known.any():
        return np.ones_like(out)
    at = [int(np.argmin(np.where(known, np.abs(knots - k), np.inf))) for k in knots]
    return np.clip(out[at], *_INFLATION)
