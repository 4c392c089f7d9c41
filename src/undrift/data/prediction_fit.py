"""Fitting what a codec predicts of the latents: the linear predictor, its curves, scale and amplitude of what is left.

Values at a point mass (dry cells) have no latent of their own: the linear predictor is fitted with their conditional
means given what was predicted before (Tobit by expectation-maximisation).
"""

from collections.abc import Callable

import numpy as np

from undrift.data.amplitude import choose_weights, curvature
from undrift.data.censored import expected
from undrift.data.codec import Codec
from undrift.data.curves import Curve, fit_curve
from undrift.data.linear import Given, Reader, spread
from undrift.data.predictors import Designs, Predictors
from undrift.data.training_part import TrainingPart, in_blocks_of

__all__ = ["fit_prediction"]

_BLOCK = 64
_TOBIT_PASSES = 2
_AMPLITUDE_SAMPLES = 400
_AMPLITUDE_CELLS = 2048
_CURVE_CELLS = 256
_POOLED = 10.0  # weight of the pooled variance in a cell's scale, in samples

Parts = Callable[[np.ndarray], tuple[Given, np.ndarray]]  # what is given and the latents of training samples


def fit_prediction(
    codec: Codec, training: TrainingPart, linear: bool, lively: bool = True, damped: bool = True
) -> None:
    """Fit all of it and leave it in the codec, which is standardised already.

    Args:
        codec: its predictor, curves, scale and amplitude are set, and the degree of its covariates.
        training: the samples.
        linear: False leaves the prediction at its base.
        lively: whether the amplitude of what is left may depend on the state.
        damped: whether the linear predictor is drawn to the mean where that predicts left-out folds better.
    """
    fold = training.fold

    def parts(at: np.ndarray) -> tuple[Given, np.ndarray]:
        which, raw = training.rows[at], None
        if training.given is not None and codec.given is not None:
            raw = codec.given.filled(training.given.read(which).astype(np.float64), None)
        given, _ = codec.predictors(raw, training.told(at), len(at))
        return given, codec.latents(training.target.read(which), codec.seasons(given.features))

    def read(at: np.ndarray) -> tuple[Given, np.ndarray]:
        part, u = parts(at)
        if first:
            return part, _started(codec, u)[0]
        before = codec.predict(part, fold[at])
        return part, expected(u, before.mean, before.std, codec.low, codec.high)[0]

    censored = any(t.kind in ("censored", "bounded") for t in codec.transforms)
    designs: Designs = {}  # of what is given, which is the same in every pass
    for number in range(_TOBIT_PASSES + 1 if censored else 1):
        first = number == 0
        if linear and first:
            codec.predictor, designs = _best_degree(codec, read, fold, damped)
        elif linear:
            codec.predictor = _predictors(codec, read, fold, designs, damped)
        else:
            codec.predictor = Predictors.base((len(codec.transforms), *codec.layout.shape))
        codec.scale = _scale(codec, parts, fold, first)
    if linear:
        codec.curves = _curves(codec, parts, fold)
    if codec.curves:
        codec.scale = _scale(codec, parts, fold, first=not censored)
    if lively:
        codec.amplitude = _amplitude(codec, parts, fold)
    if codec.amplitude.any():
        codec.scale = _scale(codec, parts, fold, first=not censored)


def _started(codec: Codec, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of latents (n, C, *space) at point masses before anything is predicted.

    After an anamorphosis the latents of each cell are standard normal; else they begin at their thresholds, since a
    start far beyond them would drown what varies.
    """
    if codec.anamorphosis is None:
        return np.clip(u, codec.low, codec.high), np.zeros(1)
    return expected(u, np.zeros(u.shape), np.ones(u.shape), codec.low, codec.high)


def _curves(codec: Codec, parts: Parts, fold: np.ndarray) -> dict[int, Curve]:
    """The curves of the channels that have any, from some samples and cells."""
    which = [i for i, t in enumerate(codec.transforms) if t.kind != "standard" and codec.base[i] is not None]
    if not which:
        return {}
    rows = spread(len(fold), _AMPLITUDE_SAMPLES)
    some = spread(int(np.prod(codec.layout.shape)), _CURVE_CELLS)
    found: dict[int, list[list[np.ndarray]]] = {i: [] for i in which}
    for at in in_blocks_of(rows):
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        for i in which:
            columns = (codec.own(part, i), u[:, i], predicted.mean[:, i], predicted.std[:, i])
            columns = [v.reshape(len(at), -1)[:, some] for v in columns]
            found[i].append([*columns, np.broadcast_to(fold[at, None], columns[0].shape)])
    curves = {}
    for i in which:
        columns = [np.concatenate(v).ravel() for v in zip(*found[i])]
        known = ~np.isnan(columns[0]) & ~np.isnan(columns[1])
        own, u, mean, std, folds = (v[known] for v in columns)
        low, high = codec.transforms[i].thresholds
        curve = fit_curve(own, u, mean, std, folds, folds=int(fold.max()) + 1, low=low, high=high)
        if curve is not None:
            curves[i] = curve
    return curves


def _amplitude(codec: Codec, parts: Parts, fold: np.ndarray) -> np.ndarray:
    """Weights of the features of the amplitude for each channel, (C, 3), from some samples and cells."""
    rows = spread(len(fold), _AMPLITUDE_SAMPLES)
    blocks = list(in_blocks_of(rows))
    if codec.given_layout is not None:
        _fit_activity(codec, [parts(at)[0] for at in blocks])
    cells = int(np.prod(codec.layout.shape))
    some = spread(cells, _AMPLITUDE_CELLS)
    features, squares = [], []
    for at in blocks:
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        latents, variance = expected(u, predicted.mean, predicted.std, codec.low, codec.high)
        square = ((latents - predicted.mean) ** 2 + variance) / predicted.std**2
        columns = [v.reshape(*v.shape[:2], -1) for v in (*codec.liveliness(part, predicted.mean), square)]
        columns = [np.broadcast_to(v, (*v.shape[:2], cells))[:, :, some] for v in columns]
        features.append(np.stack(columns[:3], -1))
        squares.append(columns[3])
    x, y = np.concatenate(features), np.concatenate(squares)
    known = np.isfinite(y)
    which = np.broadcast_to(fold[rows, None], y[:, 0].shape)
    channels = range(len(codec.transforms))
    return np.stack([choose_weights(x[:, c][known[:, c]], y[:, c][known[:, c]], which[known[:, c]]) for c in channels])


def _fit_activity(codec: Codec, given: list[Given]) -> None:
    """Mean activity of each given channel, and the usual pattern of the local one."""
    assert codec.given_layout is not None
    coarse = np.concatenate([part.coarse for part in given if part.coarse is not None])
    square = curvature(coarse, codec.given_layout.periodic) ** 2
    codec.activity_mean = np.maximum(square.mean((0, *range(2, square.ndim))), 1e-12)
    near = [codec.activity(part)[1].sum(0) for part in given]
    codec.activity_centre = np.sum(near, 0) / len(coarse)


def _predictors(codec: Codec, read: Reader, fold: np.ndarray, designs: Designs, damped: bool) -> Predictors:
    frames = 1 if codec.given_layout is None else codec.layout.frames
    return Predictors.fit(
        read,
        fold,
        codec.base,
        factor=codec.factor,
        periodic=codec.layout.periodic,
        designs=designs,
        frames=frames,
        damped=damped,
    )


def _best_degree(codec: Codec, read: Reader, fold: np.ndarray, damped: bool) -> tuple[Predictors, Designs]:
    """The predictors with the degree of the trends that cross-validation prefers (left in the codec's covariates).

    Also the designs that they were fitted with.
    """
    trends = any(part.kind != "category" and part.trend for part in codec.covariates.parts)
    degrees = (1, 2, 3) if trends else (1,)
    best: tuple[int, Predictors, Designs] | None = None
    for degree in degrees:
        codec.covariates.degree = degree
        designs: Designs = {}
        found = _predictors(codec, read, fold, designs, damped)
        if best is None or found.error < best[1].error:
            best = degree, found, designs
    assert best is not None
    codec.covariates.degree = best[0]
    return best[1], best[2]


def _scale(codec: Codec, parts: Parts, fold: np.ndarray, first: bool) -> np.ndarray:
    """Standard deviation per cell of out-of-fold residuals of amplitude 1, shrunk to the channel's mean variance."""
    total = np.zeros(codec.scale.shape)
    count = np.zeros(codec.scale.shape)
    for start in range(0, len(fold), _BLOCK):
        at = np.arange(start, min(start + _BLOCK, len(fold)))
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        if first:
            latents, variance = _started(codec, u)
        else:
            latents, variance = expected(u, predicted.mean, predicted.std, codec.low, codec.high)
        known = np.isfinite(latents)
        square = ((latents - predicted.mean) ** 2 + variance) * (codec.scale / predicted.std) ** 2
        total += np.where(known, square, 0).sum(0)
        count += known.sum(0)
    axes = tuple(range(1, total.ndim))
    pooled = total.sum(axes, keepdims=True) / np.maximum(count.sum(axes, keepdims=True), 1)
    variance = (total + _POOLED * pooled) / (count + _POOLED)
    return np.sqrt(np.maximum(variance, 1e-12))
