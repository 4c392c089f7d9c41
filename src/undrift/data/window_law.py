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

from undrift.data.waves import rings, turned

__all__ = ["WindowLaw", "WindowLaws", "fit_window_laws"]

Array = NDArray[np.floating]
_MODES = 24  # maps at most
_AMPLITUDES = 400  # maps x frames at most: their posterior takes a cube of it
_COUPLED = (0, 4, 8, 16)  # maps that are predicted from each other's past, tried by cross-validation
_COMMON = (0.1, 0.3, 0.6)  # tried likewise, see WindowLaw.fit
_SCORED = 20  # windows of a fold at most
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
        periodic: which dims are.
        waves: share of each ring of waves in what the maps leave, (V, R), or None.
        rings: its correlation in time, (V, R, T, T): small waves are forgotten sooner.
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
    _frames: dict[bytes, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False)
    _precision: Array | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, a: Array, modes: Array, left: "Left", coupled: int, common: float) -> Self:
        """From the amplitudes of windows, maps, and what maps leave of windows that they do not know.

        Args:
            a: the amplitudes, (n, T, K).
            modes: the maps.
            left: moments of what maps leave.
            coupled: how many leading maps know of each other.
            common: how far the correlations in time of the amplitudes are drawn to the mean one, and what they know of
                each other to nothing, from 0 to 1.
        """
        n, frames, count = a.shape
        lags = range(frames)
        pairs = [np.einsum("ntk,ntl->kl", a[:, : frames - k], a[:, k:], optimize=True) for k in lags]
        pairs = [pair / (n * (frames - k)) for k, pair in enumerate(pairs)]
        power = np.diag(pairs[0]) if count else np.zeros(0)
        root = np.sqrt(np.minimum(left.held / np.maximum(power, 1e-30), 1))  # maps explain most of their own windows
        pairs, power = [pair * np.outer(root, root) for pair in pairs], power * root**2
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
        share, in_rings = left.of_rings()
        return cls(modes, _positive(covariance), left.own, left.correlation(), left.alike, waves=share, rings=in_rings)

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
        return mean + self.gone_on(np.moveaxis(e, 0, 1), ahead), variance

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
            ahead, left = zip(*(_carried(c, known) for c in self.correlation))
            return np.stack(ahead), np.stack(left)
        found = [[_carried(c, known) for c in each] for each in self.rings]
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
        none = {"modes": np.zeros((0, own.size)), "waves": None, "rings": None, "_frames": {}, "_precision": None}
        return replace(self, own=own, space=cut.shape[1:], **none)

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
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], name: str, space: Sequence[int], periodic: Sequence[bool]
    ) -> Self:
        """Inverse of :meth:`to_arrays`, on a grid."""
        modes, covariance, own, correlation = (
            arrays[f"{name}_{part}"].astype(np.float64) for part in ("modes", "covariance", "own", "correlation")
        )
        waves, in_rings = (arrays.get(f"{name}_{part}") for part in ("waves", "rings"))
        alike = float(arrays[f"{name}_alike"])
        return cls(modes, covariance, own, correlation, alike, tuple(space), tuple(periodic), waves, in_rings)


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
        held: variance of what they explain, of each map, (K,).
        lagged: mean product at each lag, (V, T).
        alike: mean size of the correlation between two cells.
        count: windows.
        rings: mean product at each lag of the waves of each ring, over the variance of all, (V, R, T), or None.
    """

    own: Array
    held: Array
    lagged: Array
    alike: float
    count: int
    rings: Array | None = None

    @classmethod
    def of(cls, r: Array, modes: Array, space: Sequence[int] = (), periodic: Sequence[bool] = ()) -> Self:
        """Of windows (n, V, T, cells) beside maps that were found without them, on a grid if it is told."""
        n, variables, frames, cells = r.shape
        flat = np.moveaxis(r, 2, 1).reshape(n * frames, -1)
        a = flat @ modes.T
        e = (flat - a @ modes).reshape(n, frames, variables, cells)
        lagged = [[(e[:, : frames - k, v] * e[:, k:, v]).mean() for k in range(frames)] for v in range(variables)]
        some = e[:, 0].reshape(n, -1)[:, np.linspace(0, variables * cells - 1, _PAIRED).astype(int)]
        some = some[:, some.std(0) > 0]
        pairs = np.abs(np.corrcoef(some.T)) if some.shape[1] > 1 and n > 2 else np.zeros((1, 1))
        alike = (pairs.sum() - len(pairs)) / max(len(pairs) * (len(pairs) - 1), 1) if len(pairs) > 1 else 0.0
        own = (e**2).mean((0, 1))
        in_rings = _in_rings(e / np.sqrt(np.maximum(own, 1e-30)), space, periodic) if space and frames > 1 else None
        return cls(own, (a**2).mean(0), np.array(lagged), float(alike), n, in_rings)

    @classmethod
    def mean(cls, parts: Sequence["Left"]) -> Self:
        """Of several."""
        count = sum(p.count for p in parts)
        names = ("own", "held", "lagged")
        own, held, lagged = (np.sum([getattr(p, name) * (p.count / count) for p in parts], 0) for name in names)
        alike = sum(p.alike * p.count / count for p in parts)
        some = [p.rings * (p.count / count) for p in parts if p.rings is not None]
        return cls(own, held, lagged, alike, count, np.sum(some, 0) if some else None)

    def correlation(self) -> Array:
        """In time, (V, T, T)."""
        frames = self.lagged.shape[1]
        at = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
        return np.stack([_positive(row[at]) for row in self.lagged / np.maximum(self.lagged[:, :1], 1e-30)])

    def of_rings(self) -> tuple[Array | None, Array | None]:
        """Share of each ring, (V, R), and its correlation in time, (V, R, T, T)."""
        if self.rings is None:
            return None, None
        share, frames = np.maximum(self.rings[..., 0], 1e-12), self.rings.shape[2]
        at = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
        found = np.stack([[_positive(row[at]) for row in each] for each in self.rings / share[..., None]])
        return share / share.sum(1, keepdims=True), found


def _in_rings(e: Array, space: Sequence[int], periodic: Sequence[bool]) -> Array:
    """Mean products at each lag of the waves of each ring of standardised fields (n, T, V, cells), (V, R, T)."""
    n, frames, variables, cells = e.shape
    ring = rings(space, periodic).ravel()
    y = turned(e.reshape(n, frames, variables, *space), periodic).reshape(e.shape)
    out = [(y[:, : frames - k] * y[:, k:]).mean((0, 1)) for k in range(frames)]
    return np.stack([[np.bincount(ring, one) for one in each] for each in out], -1) / cells


def fit_window_laws(
    r: Array, fold: NDArray[np.intp], *, maps: bool, periodic: Sequence[bool] | None = None
) -> tuple[WindowLaws, dict[tuple[int, int, float], float]]:
    """The law without each fold and, last, that of all windows.

    How many maps there are, how many are coupled and how common the correlations are is chosen by cross-validation.

    Args:
        r: standardised residuals (n, V, T, *space), 0 where missing.
        fold: contiguous fold of each window.
        maps: False where parts of the domain are learned: then cells go on in time, each on its own.
        periodic: which axes of space are; waves go on in time, each ring on its own, if it is told.

    Returns:
        The laws, and the error of each (maps, coupled, common) tried: the mean logarithm of mean squares.
    """
    space, frames, number = r.shape[3:], r.shape[2], int(fold.max()) + 1
    r = r.reshape(*r.shape[:3], -1)
    grid = (space, periodic) if maps and periodic is not None else ()
    most = min(_MODES, _AMPLITUDES // frames) if maps else 0
    folds = [fold == k for k in range(number)]
    all_modes = [_modes(r[part], most) for part in (*(~f for f in folds), slice(None))]
    counts = sorted({min(len(modes) for modes in all_modes), *(c for c in (0,) if frames > 1)})
    amplitudes = [_amplitudes(r, modes[: counts[-1]]) for modes in all_modes]
    found: dict[int, list[Left]] = {}
    errors: dict[tuple[int, int, float], float] = {}

    def law(k: int, count: int, coupled: int, common: float) -> WindowLaw:
        left = Left.mean([one for j, one in enumerate(found[count]) if j != k])
        mine = amplitudes[k][..., :count] if k == number else amplitudes[k][~folds[k], :, :count]
        law = WindowLaw.fit(mine, all_modes[k][:count], left, coupled, common)
        return replace(law, space=space, periodic=tuple(periodic or ()))

    for count in counts:
        found[count] = [Left.of(r[f], all_modes[k][:count], *grid) for k, f in enumerate(folds)]
        if frames == 1:
            errors[count, 0, 1.0] = 0.0
            continue
        some = [np.flatnonzero(f)[:: max(1, int(f.sum()) // _SCORED)] for f in folds]
        beside = [_beside(r[at], amplitudes[k][at, :, :count], law(k, count, 0, 1.0)) for k, at in enumerate(some)]
        tried = [(c, m) for c in sorted({min(c, count) for c in _COUPLED}) for m in _COMMON] if count else [(0, 1.0)]
        for coupled, common in tried:
            per_fold = [
                _errors(law(k, count, coupled, common), amplitudes[k][at, :, :count], beside[k])
                for k, at in enumerate(some)
            ]
            errors[count, coupled, common] = float(np.log(np.mean(per_fold, 0)).mean())
    best = min(errors, key=lambda choice: errors[choice])
    return WindowLaws([law(k, *best) for k in range(number + 1)]), errors


def _amplitudes(r: Array, modes: Array) -> Array:
    """Of maps in windows (n, V, T, cells), (n, T, K)."""
    maps = modes.reshape(len(modes), r.shape[1], r.shape[3])
    return np.stack([np.tensordot(r[:, :, t], maps, ((1, 2), (1, 2))) for t in range(r.shape[2])], 1)


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


def _scored(frames: int) -> list[NDArray[np.bool_]]:
    """The frames that are known where laws are compared: the first half, and both ends."""
    return [
        k for k in (np.arange(frames) < (frames + 1) // 2, np.isin(np.arange(frames), [0, frames - 1])) if not k.all()
    ]


def _beside(r: Array, a: Array, law: WindowLaw) -> list[float]:
    """Mean squares of what is not known of the maps' rest of windows (n, V, T, cells), for each scored mask."""
    e = r - np.moveaxis((a @ law.modes).reshape(*a.shape[:2], r.shape[1], r.shape[3]), 2, 1)
    out = []
    for known in _scored(law.frames):
        ahead = law.ahead(known)[0]
        out.append(float(np.mean([((law.gone_on(x[:, known], ahead) - x)[:, ~known] ** 2).mean() for x in e])))
    return out


def _errors(law: WindowLaw, a: Array, beside: Sequence[float]) -> list[float]:
    """Mean squared errors, for each scored mask, of windows of amplitudes (n, T, K), with those of the maps' rest."""
    n, frames, count = a.shape
    out = []
    for known, rest in zip(_scored(frames), beside):
        which = np.repeat(known, count)
        flat = a.reshape(n, -1)
        cross = law.covariance[which]
        off = flat[:, which] @ np.linalg.solve(cross[:, which], cross[:, ~which]) - flat[:, ~which]
        out.append(rest + float((off**2).sum() / (n * (~known).sum() * law.own.size)))
    return out
