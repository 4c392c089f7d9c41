"""The linear predictor of windows: what is asked of a window given any part of it, as a Gaussian knows it.

A window r (V variables x T frames x cells, standardised residuals) is a few maps whose amplitudes go on in time, and
what they leave of each cell, which goes on in time too:

    r[v, t, i] = sum_k a[t, k] E[k, v, i] + e[v, t, i],
    cov(a[s, k], a[t, l]) = S[s k, t l],    cov(e[v, s, i], e[v, t, i]) = own[v, i] R[v][s, t].

The maps E are the empirical orthogonal functions of single frames. The amplitudes of the leading ones are predicted
from each other's past, those of the rest from their own: a covariance between all of them learns the record by heart.
Where whole frames are given their amplitudes are known; where parts of frames are, their posterior is that of factor
analysis (Bishop 2006, "Pattern Recognition and Machine Learning", section 12.2), in which the e of known cells and
frames count for as many independent ones as their correlations leave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["WindowLaw", "WindowLaws", "fit_window_laws"]

Array = NDArray[np.floating]
_MODES = 24  # maps at most
_AMPLITUDES = 400  # maps x frames at most: their posterior takes a cube of it
_COUPLED = (0, 4, 8, 16)  # maps that are predicted from each other's past, tried by cross-validation
_COMMON = (0.1, 0.3, 0.6)  # tried likewise, see WindowLaw.fit
_SCORED = 20  # windows of a fold at most
_TRANSLATED = 6  # likewise, where some variables are given others, which takes longer
_RIDGE = 1e-3  # of an amplitude's variance, against frames that determine each other
_LEAST_STD = 0.02
_PAIRED = 200  # cells whose correlations say how alike cells are
_PATTERNS = 32  # of frames in which a cell is known, for which e is carried on in time
_KEPT = 64  # masks of whole frames whose coefficients are kept


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
    """

    modes: Array
    covariance: Array
    own: Array
    correlation: Array
    alike: float = 0.0
    space: tuple[int, ...] = ()
    _frames: dict[bytes, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False)
    _precision: Array | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, r: Array, modes: Array, left: "Left", coupled: int, common: float) -> Self:
        """From windows (n, V, T, cells), 0 where missing, maps, and what maps leave of windows that they do not know.

        Args:
            r: the windows.
            modes: the maps.
            left: moments of what maps leave.
            coupled: how many leading maps know of each other.
            common: how far the correlations in time of the amplitudes are drawn to the mean one, and what they know of
                each other to nothing, from 0 to 1.
        """
        n, _, frames, _ = r.shape
        a = (np.moveaxis(r, 2, 1).reshape(n * frames, -1) @ modes.T).reshape(n, frames, -1)
        count, lags = a.shape[2], range(frames)
        pairs = [np.einsum("ntk,ntl->kl", a[:, : frames - k], a[:, k:], optimize=True) for k in lags]
        pairs = [pair / (n * (frames - k)) for k, pair in enumerate(pairs)]
        power = np.diag(pairs[0]) if count else np.zeros(0)
        alone = ~np.eye(count, dtype=bool)
        alone[:coupled, :coupled] = False
        covariance = np.zeros((frames, count, frames, count))
        for k, pair in enumerate(pairs):
            mean = np.trace(pair) / max(power.sum(), 1e-30)
            pair = (1 - common) * np.where(alone, 0.0, pair) + common * mean * np.diag(power)
            for t in range(frames - k):
                covariance[t, :, t + k] = pair
                covariance[t + k, :, t] = pair.T
        covariance = covariance.reshape(frames * count, frames * count)
        return cls(modes, _positive(covariance), left.own, left.correlation(), left.alike)

    @property
    def frames(self) -> int:
        """T."""
        return self.correlation.shape[-1]

    def given(self, r: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Mean and standard deviation of one window (V, T, cells) given its known part.

        Where it is known they are its value and 1.
        """
        ever = (self.own > 0)[:, None]
        whole, some = (known | ~ever).all((0, 2)), (known & ever).any((0, 2))
        mean, variance = self._by_frames(r, np.asarray(whole)) if (whole == some).all() else self._by_cells(r, known)
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
        return mean + np.einsum("vtf,fvc->vtc", ahead, e), variance

    def _coefficients(self, known: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """Of all amplitudes from known ones, of e from known frames (V, T, F), and the variances (V, T, cells)."""
        count = len(self.modes)
        which = np.repeat(known, count)
        cross = self.covariance[:, which]
        gain = np.linalg.solve(cross[which], cross.T).T if which.any() else cross
        posterior = self.covariance - gain @ cross.T
        ahead, left = zip(*(_carried(c, known) for c in self.correlation))
        return gain, np.stack(ahead), self._variance(posterior) + self.own[:, None] * np.stack(left)[..., None]

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
        for v in range(variables):
            e = r[v] - mean[v]
            patterns, where = np.unique(known[v], axis=1, return_inverse=True)
            most = np.argsort(-np.bincount(where.ravel()))[:_PATTERNS]
            variance[v] += self.own[v]
            for p in most:
                pattern, at = patterns[:, p], np.flatnonzero(where.ravel() == p)
                if pattern.any():
                    ahead, left = _carried(self.correlation[v], pattern)
                    mean[v][:, at] += ahead @ e[np.ix_(pattern, at)]
                    variance[v][:, at] += self.own[v][at] * (left - 1)[:, None]
        return mean, variance

    def part(self, window: Sequence[slice]) -> "WindowLaw":
        """The law on a part of space (itself for the whole of it)."""
        if all(s == slice(None) for s in window):
            return self
        cut = self.own.reshape(len(self.own), *self.space)[(slice(None), *window)]
        own = cut.reshape(len(cut), -1)
        return replace(self, modes=np.zeros((0, own.size)), own=own, space=cut.shape[1:], _frames={}, _precision=None)

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {
            f"{name}_modes": self.modes.astype(np.float32),
            f"{name}_covariance": self.covariance,
            f"{name}_own": self.own,
            f"{name}_correlation": self.correlation,
            f"{name}_alike": np.array(self.alike),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str, space: Sequence[int]) -> Self:
        """Inverse of :meth:`to_arrays`, on a grid."""
        modes, covariance, own, correlation = (
            arrays[f"{name}_{part}"].astype(np.float64) for part in ("modes", "covariance", "own", "correlation")
        )
        return cls(modes, covariance, own, correlation, float(arrays[f"{name}_alike"]), tuple(space))


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


def _positive(covariance: Array) -> Array:
    """The nearest covariance with no direction below the ridge of its diagonal."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale)) if len(scale) else (scale, covariance)
    return (vectors * (np.maximum(values, 0) + _RIDGE)) @ vectors.T * np.outer(scale, scale)


def _carried(correlation: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Coefficients of all frames from known ones, (T, F), and the share of the variance that is left, (T,)."""
    cross = correlation[:, known]
    ahead = np.linalg.solve(cross[known], cross.T).T if known.any() else cross
    return ahead, np.maximum(np.diag(correlation) - (ahead * cross).sum(1), 0)


def _effective(correlation: Array, known: NDArray[np.bool_]) -> float:
    """Known frames for each that is independent, at least 1."""
    part = correlation[np.ix_(known, known)]
    return max(1.0, float(np.abs(part).sum() / len(part))) if known.any() else 1.0


@dataclass(frozen=True)
class Left:
    """Moments of what maps leave of windows.

    Attributes:
        own: variance of each cell, (V, cells).
        lagged: mean product at each lag, (V, T).
        alike: mean size of the correlation between two cells.
        count: windows.
    """

    own: Array
    lagged: Array
    alike: float
    count: int

    @classmethod
    def of(cls, r: Array, modes: Array) -> Self:
        """Of windows (n, V, T, cells) beside maps that were found without them."""
        n, variables, frames, cells = r.shape
        flat = np.moveaxis(r, 2, 1).reshape(n * frames, -1)
        e = (flat - (flat @ modes.T) @ modes).reshape(n, frames, variables, cells)
        lagged = [[(e[:, : frames - k, v] * e[:, k:, v]).mean() for k in range(frames)] for v in range(variables)]
        some = e[:, 0].reshape(n, -1)[:, np.linspace(0, variables * cells - 1, _PAIRED).astype(int)]
        some = some[:, some.std(0) > 0]
        pairs = np.abs(np.corrcoef(some.T)) if some.shape[1] > 1 and n > 2 else np.zeros((1, 1))
        alike = (pairs.sum() - len(pairs)) / max(len(pairs) * (len(pairs) - 1), 1) if len(pairs) > 1 else 0.0
        return cls((e**2).mean((0, 1)), np.array(lagged), float(alike), n)

    @classmethod
    def mean(cls, parts: Sequence["Left"]) -> Self:
        """Of several."""
        count = sum(p.count for p in parts)
        own, lagged = (sum(getattr(p, name) * (p.count / count) for p in parts) for name in ("own", "lagged"))
        alike = sum(p.alike * p.count / count for p in parts)
        return cls(np.asarray(own), np.asarray(lagged), alike, count)

    def correlation(self) -> Array:
        """In time, (V, T, T)."""
        frames = self.lagged.shape[1]
        at = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
        return np.stack([_positive(row[at]) for row in self.lagged / np.maximum(self.lagged[:, :1], 1e-30)])


def fit_window_laws(
    r: Array, fold: NDArray[np.intp], *, maps: bool
) -> tuple[WindowLaws, dict[tuple[int, int, float], float]]:
    """The law without each fold and, last, that of all windows.

    How many maps there are, how many are coupled and how common the correlations are is chosen by cross-validation: of
    frames given others, and of variables given others, which maps alone know of.

    Args:
        r: standardised residuals (n, V, T, *space), 0 where missing.
        fold: contiguous fold of each window.
        maps: False where parts of the domain are learned: then cells go on in time, each on its own.

    Returns:
        The laws, and the error of each (maps, coupled, common) tried: the mean logarithm of mean squares.
    """
    space, frames, number = r.shape[3:], r.shape[2], int(fold.max()) + 1
    r = r.reshape(*r.shape[:3], -1)
    most = min(_MODES, _AMPLITUDES // frames) if maps else 0
    without = [r[fold != k] for k in range(number)]
    all_modes = [_modes(part, most) for part in [*without, r]]
    counts = sorted({min(most, len(all_modes[-1])), *(c for c in (0,) if frames > 1)})
    found: dict[int, list[Left]] = {}
    errors: dict[tuple[int, int, float], float] = {}

    def law(k: int, count: int, coupled: int, common: float) -> WindowLaw:
        others = [left for j, left in enumerate(found[count]) if j != k]
        windows = r if k == number else without[k]
        return replace(WindowLaw.fit(windows, all_modes[k][:count], Left.mean(others), coupled, common), space=space)

    for count in counts:
        found[count] = [Left.of(r[fold == k], all_modes[k][:count]) for k in range(number)]
        tried = (
            [(c, m) for c in sorted({min(c, count) for c in _COUPLED}) for m in _COMMON]
            if frames > 1 and count
            else [(0, 1.0)]
        )
        between: list[list[float]] = [[] for _ in range(number)]
        if len(counts) > 1 and r.shape[1] > 1:
            between = [_translated(law(k, count, *tried[-1]), r[fold == k]) for k in range(number)]
        for coupled, common in tried:
            ahead = [_errors(law(k, count, coupled, common), r[fold == k]) for k in range(number)]
            per_fold = [a + b for a, b in zip(ahead, between)]
            errors[count, coupled, common] = float(np.log(np.mean(per_fold, 0)).mean())
    best = min(errors, key=lambda choice: errors[choice])
    return WindowLaws([law(k, *best) for k in range(number + 1)]), errors


def _modes(r: Array, most: int) -> Array:
    """Leading maps of single frames, (K, V cells), from the first and last frame of each window."""
    ends = r[:, :, [0, -1] if r.shape[2] > 1 else [0]]
    flat = np.moveaxis(ends, 2, 1).reshape(-1, r.shape[1] * r.shape[3])
    flat = flat[:: max(1, len(flat) // 1500)]
    most = min(most, len(flat) // 4, flat.shape[1] // 4)
    if most < 1:
        return np.zeros((0, flat.shape[1]))
    if len(flat) > flat.shape[1]:
        return np.linalg.eigh(flat.T @ flat)[1][:, : -most - 1 : -1].T
    values, vectors = np.linalg.eigh(flat @ flat.T)
    lead = slice(None, -most - 1, -1)
    return (vectors[:, lead] / np.sqrt(np.maximum(values[lead], 1e-30))).T @ flat


def _translated(law: WindowLaw, r: Array) -> list[float]:
    """Mean squared errors of every second variable or level given the others, and of these given those."""
    out = []
    for part in (0, 1):
        known = np.arange(r.shape[1]) % 2 == part
        full = np.broadcast_to(known[:, None, None], r.shape[1:])
        some = r[:: max(1, len(r) // _TRANSLATED)]
        out.append(float(np.mean([((law.given(x, full)[0] - x)[~known] ** 2).mean() for x in some])))
    return out


def _errors(law: WindowLaw, r: Array) -> list[float]:
    """Mean squared errors of the second half from the first, and of what is between the ends, of some windows."""
    frames, out = law.frames, []
    if frames == 1:
        return [1.0]
    for known in (np.arange(frames) < (frames + 1) // 2, np.isin(np.arange(frames), [0, frames - 1])):
        if not known.all():
            full = np.broadcast_to(known[None, :, None], r.shape[1:])
            some = r[:: max(1, len(r) // _SCORED)]
            out.append(float(np.mean([((law.given(x, full)[0] - x)[:, ~known] ** 2).mean() for x in some])))
    return out
