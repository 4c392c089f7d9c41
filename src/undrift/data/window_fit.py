"""Fitting the law of windows: maps, their amplitudes' covariance, and how what they leave goes on in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.across import Across, correlated, fit_across
from undrift.data.waves import rings, turned
from undrift.data.window_law import WindowLaw, WindowLaws, positive

__all__ = ["Left", "fit_law", "fit_window_laws", "leading_maps"]

Array = NDArray[np.floating]
_MODES = 24  # maps at most
_AMPLITUDES = 400  # maps x frames at most: their posterior takes a cube of it
_COUPLED = (0, 4, 8, 16)  # maps that are predicted from each other's past, tried by cross-validation
_COMMON = (0.1, 0.3, 0.6)  # tried likewise, see fit_law
_SCORED = 20  # windows of a fold at most
_NONE = 1e-300  # an error of nothing has a logarithm too
_IN_PARTS = 6  # likewise, where parts of frames are given, which takes longer
_VARIES = 1e-6  # of the largest deviation of a cell: less is the rounding of a cell that is always the same
_PAIRED = 200  # cells whose correlations say how alike cells are


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
        products: mean product of the variables of a cell, (cells, V, V).
    """

    own: Array
    held: Array
    lagged: Array
    alike: float
    count: int
    rings: Array | None = None
    products: Array | None = None

    @classmethod
    def of(cls, r: Array, modes: Array, space: Sequence[int] = (), periodic: Sequence[bool] = ()) -> Self:
        """Of windows (n, V, T, cells) beside maps that were found without them, on a grid if it is told."""
        n, variables, frames, cells = r.shape
        flat = np.moveaxis(r, 2, 1).reshape(n * frames, -1)
        a = flat @ modes.T
        e = (flat - a @ modes).reshape(n, frames, variables, cells)
        lagged = [[(e[:, : frames - k, v] * e[:, k:, v]).mean() for k in range(frames)] for v in range(variables)]
        some = e[:, 0].reshape(n, -1)[:, np.linspace(0, variables * cells - 1, _PAIRED).astype(int)]
        varies = some.std(0, dtype=np.float64)
        some = some[:, varies > _VARIES * varies.max()]
        pairs = np.abs(np.corrcoef(some.T)) if some.shape[1] > 1 and n > 2 else np.zeros((1, 1))
        alike = (pairs.sum() - len(pairs)) / max(len(pairs) * (len(pairs) - 1), 1) if len(pairs) > 1 else 0.0
        own = (e**2).mean((0, 1))
        in_rings = _in_rings(e / np.sqrt(np.maximum(own, 1e-30)), space, periodic) if space and frames > 1 else None
        products = np.einsum("ntvc,ntwc->cvw", e, e, optimize=True) / (n * frames)
        maps = modes.reshape(-1, variables, cells)  # which take their share of what is independent too
        products += np.einsum("kvc,kwc,cvw->cvw", maps, maps, (own[:, None] + own).T / 2, optimize=True)
        return cls(own, (a**2).mean(0), np.array(lagged), float(alike), n, in_rings, products)

    @classmethod
    def mean(cls, parts: Sequence["Left"]) -> Self:
        """Of several."""
        count = sum(p.count for p in parts)
        names = ("own", "held", "lagged")
        own, held, lagged = (np.sum([getattr(p, name) * (p.count / count) for p in parts], 0) for name in names)
        alike = sum(p.alike * p.count / count for p in parts)
        in_rings, products = (
            np.sum([getattr(p, name) * (p.count / count) for p in parts], 0)
            if all(getattr(p, name) is not None for p in parts)
            else None
            for name in ("rings", "products")
        )
        return cls(own, held, lagged, alike, count, in_rings, products)

    def correlation(self) -> Array:
        """In time, (V, T, T)."""
        frames = self.lagged.shape[1]
        at = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
        return np.stack([positive(row[at]) for row in self.lagged / np.maximum(self.lagged[:, :1], 1e-30)])

    def of_rings(self) -> tuple[Array | None, Array | None]:
        """Share of each ring, (V, R), and its correlation in time, (V, R, T, T)."""
        if self.rings is None:
            return None, None
        share, frames = np.maximum(self.rings[..., 0], 1e-12), self.rings.shape[2]
        at = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
        found = np.stack([[positive(row[at]) for row in each] for each in self.rings / share[..., None]])
        return share / share.sum(1, keepdims=True), found


def _in_rings(e: Array, space: Sequence[int], periodic: Sequence[bool]) -> Array:
    """Mean products at each lag of the waves of each ring of standardised fields (n, T, V, cells), (V, R, T)."""
    n, frames, variables, cells = e.shape
    ring = rings(space, periodic).ravel()
    y = turned(e.reshape(n, frames, variables, *space), periodic).reshape(e.shape)
    out = [(y[:, : frames - k] * y[:, k:]).mean((0, 1)) for k in range(frames)]
    return np.stack([[np.bincount(ring, one) for one in each] for each in out], -1) / cells


def fit_law(
    a: Array,
    modes: Array,
    left: "Left",
    coupled: int,
    common: float,
    space: Sequence[int],
    periodic: Sequence[bool],
    alike: float | None = None,
) -> WindowLaw:
    """From the amplitudes of windows, maps, and what maps leave of windows that they do not know.

    Args:
        a: the amplitudes, (n, T, K).
        modes: the maps.
        left: moments of what maps leave.
        coupled: how many leading maps know of each other.
        common: how far the correlations in time of the amplitudes are drawn to the mean one, and what they know of
            each other to nothing, from 0 to 1.
        space: cells along each dim.
        periodic: which dims are.
        alike: how far the correlations of what maps leave between the variables of a cell are drawn to those of the
            mean cell, from 0 to 1; None where variables tell nothing of each other.
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
    covariance = positive(covariance.reshape(frames * count, frames * count))
    share, in_rings = left.of_rings()
    across = None
    if alike is not None and left.products is not None:
        across = Across(correlated(left.products, alike).astype(np.float32).astype(np.float64))
    on = (tuple(space), tuple(periodic))
    # the same numbers as from a file
    maps, own, correlation = modes.astype(np.float32), left.own, left.correlation()
    maps, own, correlation = (v.astype(np.float64) for v in (maps, own, correlation))
    return WindowLaw(maps, covariance, own, correlation, left.alike, *on, share, in_rings, across)


def fit_window_laws(
    r: Array, fold: NDArray[np.intp], *, maps: bool, periodic: Sequence[bool] | None = None
) -> tuple[WindowLaws, dict[tuple[int, int, float], float]]:
    """The law without each fold and, last, that of all windows.

    How many maps there are, how many are coupled and how common the correlations are is chosen by cross-validation: of
    frames given others, and, of several variables, of variables and of regions given others.

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
    all_modes = [leading_maps(r[part], most) for part in (*(~f for f in folds), slice(None))]
    counts = sorted({min(len(modes) for modes in all_modes), *(c for c in (0,) if frames > 1)})
    amplitudes = [_amplitudes(r, modes[: counts[-1]]) for modes in all_modes]
    found: dict[int, list[Left]] = {}
    alike: dict[int, float | None] = {}
    errors: dict[tuple[int, int, float], float] = {}

    def law(k: int, count: int, coupled: int, common: float) -> WindowLaw:
        left = Left.mean([one for j, one in enumerate(found[count]) if j != k])
        mine = amplitudes[k][..., :count] if k == number else amplitudes[k][~folds[k], :, :count]
        return fit_law(mine, all_modes[k][:count], left, coupled, common, space, periodic or (), alike[count])

    for count in counts:
        found[count] = [Left.of(r[f], all_modes[k][:count], *grid) for k, f in enumerate(folds)]
        products = [one.products for one in found[count] if one.products is not None]
        alike[count] = fit_across(products, [one.count for one in found[count]]) if r.shape[1] > 1 < number else None
        if frames == 1:
            errors[count, 0, 1.0] = 0.0
            continue
        some = [np.flatnonzero(f)[:: max(1, int(f.sum()) // _SCORED)] for f in folds]
        beside = [_beside(r[at], amplitudes[k][at, :, :count], law(k, count, 0, 1.0)) for k, at in enumerate(some)]
        tried = [(c, m) for c in sorted({min(c, count) for c in _COUPLED}) for m in _COMMON] if count else [(0, 1.0)]
        between: list[list[float]] = [[] for _ in folds]
        if len(counts) > 1 and r.shape[1] > 1:
            between = [_parts(law(k, count, *tried[-1]), r[at]) for k, at in enumerate(some)]
        for coupled, common in tried:
            per_fold = [
                _errors(law(k, count, coupled, common), amplitudes[k][at, :, :count], beside[k]) + between[k]
                for k, at in enumerate(some)
            ]
            errors[count, coupled, common] = float(np.log(np.maximum(np.mean(per_fold, 0), _NONE)).mean())
    best = min(errors, key=lambda choice: errors[choice])
    return WindowLaws([law(k, *best) for k in range(number + 1)]), errors


def _amplitudes(r: Array, modes: Array) -> Array:
    """Of maps in windows (n, V, T, cells), (n, T, K)."""
    maps = modes.reshape(len(modes), r.shape[1], r.shape[3])
    return np.stack([np.tensordot(r[:, :, t], maps, ((1, 2), (1, 2))) for t in range(r.shape[2])], 1)


def leading_maps(r: Array, most: int) -> Array:
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


def _parts(law: WindowLaw, r: Array) -> list[float]:
    """Mean squared errors of every second variable or level given the others, these given those, and half the cells."""
    variables, cells = np.arange(r.shape[1])[:, None, None], np.arange(r.shape[3])
    some, out = r[:: max(1, len(r) // _IN_PARTS)], []
    for known in (variables % 2 == 0, variables % 2 == 1, cells < r.shape[3] // 2):
        known = np.broadcast_to(known, r.shape[1:])
        out.append(float(np.mean([((law.given(x, known)[0] - x)[~known] ** 2).mean() for x in some])))
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
