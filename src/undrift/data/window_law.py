"""The linear predictor of windows: what is asked of a window given any part of it, as a Gaussian knows it.

A window r (V variables x T frames x cells, standardised residuals) is a few maps whose amplitudes go on in time, and
what they leave of each cell, which goes on in time too:

    r[v, t, i] = sum_k a[t, k] E[k, v, i] + e[v, t, i],
    cov(a[s, k], a[t, l]) = S[s k, t l],    cov(e[v, s, i], e[v, t, i]) = own[v, i] R[v][s, t].

The maps E are the empirical orthogonal functions of single frames. The amplitudes of the leading ones are predicted
from each other's past, those of the rest from their own: a covariance between all of them learns the record by heart.
Where whole frames are given their amplitudes are known; where parts of frames are, their posterior is that of factor
analysis (Bishop 2006, "Pattern Recognition and Machine Learning", section 12.2), in which the e of known cells and
frames count for as many independent ones as their correlations leave. Whole frames that lack a few cells get the mean
of these first (`undrift.data.window_gaps`). Where some variables of a cell are known and
others asked, their e tell of each other too (`undrift.data.across`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.across import Across
from undrift.data.waves import rings, turned
from undrift.data.window_gaps import are_few, gap_covariance, gap_means

__all__ = ["WindowLaw", "WindowLaws", "carried", "positive"]

Array = NDArray[np.floating]
_RIDGE = 1e-3  # of an amplitude's variance, against frames that determine each other
_LEAST_STD = 0.02
_PATTERNS = 32  # of frames in which a cell is known, for which e is carried on in time
_KEPT = 64  # masks of whole frames whose coefficients are kept
_KEPT_GAPS = 4  # likewise of whole frames that lack a few cells


@dataclass
class WindowLaw:
    """The Gaussian of a window.

    Attributes:
        modes: orthonormal maps E, (K, V cells).
        covariance: of the amplitudes, frame slowest, (T K, T K).
        own: variance of what the maps leave of each cell, (V, cells), 0 where there never is a value.
        correlation: of that in time, (V, T, T).
        alike: mean size of its correlation between two cells.
        space: cells along each dim.
        periodic: which dims are.
        waves: share of each ring of waves in what the maps leave, (V, R), or None.
        rings: its correlation in time, (V, R, T, T): small waves are forgotten sooner.
        across: its correlation between the variables of a cell, or None.
    """

    modes: Array
    covariance: Array
    own: Array
    correlation: Array
    alike: float = 0.0
    space: tuple[int, ...] = ()
    periodic: tuple[bool, ...] = ()
    waves: Array | None = None
    rings: Array | None = None
    across: Across | None = None
    _frames: dict[bytes, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False)
    _gaps: dict[bytes, tuple[Array, Array]] = field(default_factory=dict, repr=False)
    _precision: Array | None = field(default=None, repr=False)

    @property
    def frames(self) -> int:
        """T."""
        return self.correlation.shape[-1]

    def given(self, r: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Mean and standard deviation of one window (V, T, cells) given its known part.

        Where it is known they are its value and 1.
        """
        ever = (self.own > 0)[:, None]
        whole, some = (np.asarray(v) for v in ((known | ~ever).all((0, 2)), (known & ever).any((0, 2))))
        gaps = ~known & ever & some[:, None]
        if (whole == some).all():
            mean, variance = self._by_frames(r, whole)
        elif gaps.any() and self.rings is not None and are_few(int(gaps.sum()), int(some.sum() * ever.sum())):
            mean, variance = self._by_filled(r, gaps, some)
        else:
            mean, variance = self._by_cells(r, known)
        std = np.sqrt(np.maximum(variance, _LEAST_STD**2))
        return np.where(known, r, mean), np.where(known, 1.0, std)

    def _by_frames(self, r: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Given whole frames."""
        key = known.tobytes()
        if key not in self._frames:
            if len(self._frames) >= _KEPT:
                self._frames.clear()
            self._frames[key] = self._coefficients(known)
        gain, ahead, variance = self._frames[key]
        frames = np.moveaxis(r, 1, 0)[known]  # (F, V, cells)
        a = frames.reshape(len(frames), self.own.size) @ self.modes.T
        e = frames - (a @ self.modes).reshape(frames.shape)
        mean = (gain @ a.ravel()).reshape(self.frames, -1) @ self.modes
        mean = mean.reshape(self.frames, *self.own.shape).swapaxes(0, 1)
        return mean + self.gone_on(np.moveaxis(e, 0, 1), ahead), variance

    def _by_filled(self, r: Array, gaps: NDArray[np.bool_], frames: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Given whole frames that lack a few cells; see :mod:`undrift.data.window_gaps`."""
        key = gaps.tobytes() + frames.tobytes()
        if key not in self._gaps:
            if len(self._gaps) >= _KEPT_GAPS:
                self._gaps.clear()
            covariance, blank = gap_covariance(self, gaps, frames), np.zeros(r.shape)
            variance = self._by_frames(blank, frames)[1].copy()
            for column in np.linalg.cholesky(covariance).T:
                blank[gaps] = column
                variance += self._by_frames(blank, frames)[0] ** 2
            variance[gaps] = np.diag(covariance)
            self._gaps[key] = covariance, variance
        covariance, variance = self._gaps[key]
        filled = gap_means(self, r, gaps, frames, covariance)
        mean = self._by_frames(filled, frames)[0]
        return np.where(gaps, filled, mean), variance

    def _coefficients(self, known: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """Of all amplitudes from known ones, of e from known frames (V, T, F), and the variances (V, T, cells)."""
        count = len(self.modes)
        which = np.repeat(known, count)
        cross = self.covariance[:, which]
        gain = np.linalg.solve(cross[which], cross.T).T if which.any() else cross
        posterior = self.covariance - gain @ cross.T
        ahead, left = self.ahead(known)
        return gain, ahead, self._variance(posterior) + self.own[:, None] * left[..., None]

    def ahead(self, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Coefficients of e from known whole frames, (V, T, F) or (V, R, T, F), and the share that is left, (V, T)."""
        if self.rings is None or self.waves is None:
            ahead, left = zip(*(carried(c, known) for c in self.correlation))
            return np.stack(ahead), np.stack(left)
        found = [[carried(c, known) for c in each] for each in self.rings]
        ahead, left = (np.array([[one[k] for one in each] for each in found]) for k in (0, 1))
        return ahead, (self.waves[..., None] * left).sum(1)

    def gone_on(self, e: Array, ahead: Array) -> Array:
        """What maps leave of all frames, (V, T, cells), from known ones (V, F, cells)."""
        if ahead.ndim == 3:
            return np.einsum("vtf,vfc->vtc", ahead, e)
        std, ring = np.sqrt(np.maximum(self.own, 1e-30))[:, None], rings(self.space, self.periodic).ravel()
        y = turned((e / std * (self.own > 0)[:, None]).reshape(*e.shape[:2], *self.space), self.periodic)
        y = np.einsum("vwtf,vfw->vtw", ahead[:, ring], y.reshape(e.shape))
        return turned(y.reshape(*y.shape[:2], *self.space), self.periodic, back=True).reshape(y.shape) * std

    def _variance(self, posterior: Array) -> Array:
        """Variance of the maps' part of each cell, (V, T, cells), from the covariance of amplitudes."""
        count, out = len(self.modes), []
        for t in range(self.frames):
            block = posterior[t * count : (t + 1) * count, t * count : (t + 1) * count]
            out.append(((block @ self.modes) * self.modes).sum(0).reshape(self.own.shape))
        return np.stack(out, 1)

    def _by_cells(self, r: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Given parts of frames."""
        variables, frames, cells = r.shape
        count = len(self.modes)
        if self._precision is None:
            self._precision = np.linalg.inv(self.covariance) if count else np.zeros((0, 0))
        effective = [_effective(c, known[v].any(-1)) for v, c in enumerate(self.correlation)]
        effective = [f * (1 + self.alike * max(int(known[v].any(0).sum()) - 1, 0)) for v, f in enumerate(effective)]
        noise = np.maximum(self.own, 1e-4 * self.own.mean()) * np.array(effective)[:, None]
        precision, pull = self._precision.copy(), np.empty(frames * count)
        for t in range(frames):
            there = np.flatnonzero(known[:, t].ravel() & (self.own.ravel() > 0))
            maps = self.modes[:, there]
            weighed = maps / noise.ravel()[there]
            part = slice(t * count, (t + 1) * count)
            precision[part, part] += weighed @ maps.T
            pull[part] = weighed @ r[:, t].ravel()[there]
        posterior = np.linalg.inv(precision)
        mean = ((posterior @ pull).reshape(frames, count) @ self.modes).reshape(frames, variables, cells)
        mean, variance = mean.swapaxes(0, 1).copy(), self._variance(posterior)
        std = np.sqrt(np.maximum(self.own, max(1e-4 * self.own.mean(), 1e-30)))[:, None]
        e = (r - mean) / std
        told, left = self._in_time(e, known)
        if self.across is not None:
            told, left = self.across.told(e, known, told, left)
        return mean + std * told, variance + self.own[:, None] * left

    def _in_time(self, e: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Mean and share of the variance of what maps leave, from the known frames of each cell, (V, T, cells)."""
        told, share = np.zeros(e.shape), np.ones(e.shape)
        for v in range(len(e)):
            patterns, where = np.unique(known[v], axis=1, return_inverse=True)
            most = np.argsort(-np.bincount(where.ravel()))[:_PATTERNS]
            for p in most:
                pattern, at = patterns[:, p], np.flatnonzero(where.ravel() == p)
                if pattern.any():
                    ahead, left = carried(self.correlation[v], pattern)
                    told[v][:, at] = ahead @ e[v][np.ix_(pattern, at)]
                    share[v][:, at] = left[:, None]
        return told, share

    def part(self, window: Sequence[slice]) -> "WindowLaw":
        """The law on a part of space (itself for the whole of it)."""
        if all(s == slice(None) for s in window):
            return self
        cut = self.own.reshape(len(self.own), *self.space)[(slice(None), *window)]
        own = cut.reshape(len(cut), -1)
        none = {
            "modes": np.zeros((0, own.size)),
            "waves": None,
            "rings": None,
            "_frames": {},
            "_gaps": {},
            "_precision": None,
        }
        across = None if self.across is None else self.across.part(self.space, window)
        return replace(self, own=own, space=cut.shape[1:], across=across, **none)

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {
            f"{name}_modes": self.modes.astype(np.float32),
            f"{name}_covariance": self.covariance,
            f"{name}_own": self.own,
            f"{name}_correlation": self.correlation,
            f"{name}_alike": np.array(self.alike),
            **({} if self.waves is None else {f"{name}_waves": self.waves}),
            **({} if self.rings is None else {f"{name}_rings": self.rings}),
            **({} if self.across is None else {f"{name}_across": self.across.correlation.astype(np.float32)}),
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], name: str, space: Sequence[int], periodic: Sequence[bool]
    ) -> Self:
        """Inverse of :meth:`to_arrays`, on a grid."""
        modes, covariance, own, correlation = (
            arrays[f"{name}_{part}"].astype(np.float64) for part in ("modes", "covariance", "own", "correlation")
        )
        waves, in_rings, across = (arrays.get(f"{name}_{part}") for part in ("waves", "rings", "across"))
        alike, told = float(arrays[f"{name}_alike"]), None if across is None else Across(across.astype(np.float64))
        return cls(modes, covariance, own, correlation, alike, tuple(space), tuple(periodic), waves, in_rings, told)


class WindowLaws:
    """The law of windows: one without each fold of the record, and that of all.

    Args:
        laws: the last is that of all.
    """

    def __init__(self, laws: Sequence[WindowLaw]) -> None:
        self.laws = list(laws)

    def given(
        self, r: np.ndarray, known: NDArray[np.bool_], fold: NDArray[np.intp] | None, window: Sequence[slice]
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of windows given their known parts, (n, V T, *window).

        Args:
            r: standardised residuals, (n, V T, *window).
            known: same shape.
            fold: fold of each, whose law was fitted without it; None for that of all.
            window: part of space, which only laws without maps can be asked about.
        """
        mean, std = np.empty(r.shape), np.empty(r.shape)
        for i in range(len(r)):
            law = self.laws[-1 if fold is None else fold[i]].part(window)
            shape = (law.own.shape[0], law.frames, -1)
            found = law.given(r[i].reshape(shape).astype(np.float64), known[i].reshape(shape))
            mean[i], std[i] = (v.reshape(r.shape[1:]) for v in found)
        return mean, std


def positive(covariance: Array) -> Array:
    """The nearest covariance with no direction below the ridge of its diagonal."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale)) if len(scale) else (scale, covariance)
    return (vectors * (np.maximum(values, 0) + _RIDGE)) @ vectors.T * np.outer(scale, scale)


def carried(correlation: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Coefficients of all frames from known ones, (T, F), and the share of the variance that is left, (T,)."""
    cross = correlation[:, known]
    ahead = np.linalg.solve(cross[known], cross.T).T if known.any() else cross
    return ahead, np.maximum(np.diag(correlation) - (ahead * cross).sum(1), 0)


def _effective(correlation: Array, known: NDArray[np.bool_]) -> float:
    """Known frames for each that is independent, at least 1."""
    part = correlation[np.ix_(known, known)]
    return max(1.0, float(np.abs(part).sum() / len(part))) if known.any() else 1.0
