"""Fitting the codec: transforms, masks, standardisation, the linear predictor, scale and amplitude of what it leaves.

Values at a point mass (dry cells) have no latent of their own: the linear predictor is fitted with their conditional
means given what it predicted before (Tobit by expectation-maximisation).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import norm

from undrift.data.amplitude import choose_weights, curvature
from undrift.data.codec import Codec, base_channels
from undrift.data.conserve import block_means, in_blocks
from undrift.data.covariates import Covariates
from undrift.data.fields import Fields
from undrift.data.given_law import GivenLaw
from undrift.data.grid import Grid, Regridder
from undrift.data.linear import Given, LinearPredictor, design_of, folds
from undrift.data.ridge import Design
from undrift.data.scan import block_step
from undrift.data.transforms import Moments, Transform, fit_transform
from undrift.errors import DataError

__all__ = ["fit_codec"]

logger = logging.getLogger(__name__)

_BLOCK = 64
_TOBIT_PASSES = 2
_AMPLITUDE_SAMPLES = 400
_AMPLITUDE_CELLS = 2048
_LAW_NUMBERS = 20_000_000  # read for the law of what is given, samples x channels x cells
_LAW_SAMPLES, _LAW_LEAST = 500, 20  # of what is given: read at most, and without gaps at least
_AS_GIVEN = 1e-3  # of its standard deviation: how far what is given may be from a block's mean
_ROUNDED = 1e-6  # of its largest size, likewise
_PARTLY = 0.01  # blocks known in part, beside those known as a whole: what is given is then a mean of something else
_POOLED = 10.0  # weight of the pooled variance in a cell's scale, in samples


def _below(threshold: np.ndarray, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of N(mean, std^2) below a threshold."""
    a = (threshold - mean) / std
    ratio = np.exp(norm.logpdf(a) - log_ndtr(a))
    return mean - std * ratio, std**2 * np.clip(1 - a * ratio - ratio**2, 1e-6, 1)


def _expected(
    u: np.ndarray, mean: np.ndarray, std: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Latents with those at a point mass replaced by conditional means, and the conditional variances (0 elsewhere)."""
    dry, wet = np.isneginf(u), np.isposinf(u)
    if not (dry.any() or wet.any()):
        return u, np.zeros_like(u)
    mean, std, low, high = (np.broadcast_to(v, u.shape) for v in (mean, std, low, high))
    out, variance = u.copy(), np.zeros_like(u)
    out[dry], variance[dry] = _below(low[dry], mean[dry], std[dry])
    m, v = _below(-high[wet], -mean[wet], std[wet])
    out[wet], variance[wet] = -m, v
    return out, variance


def _chunks(fields: Fields, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in blocks that end where the file's chunks end, so that no chunk is unpacked twice."""
    step = block_step(fields, _BLOCK)
    ends = np.flatnonzero(np.diff(rows // step)) + 1
    yield from (part for part in np.split(rows, ends) if len(part))


def _moments(fields: Fields, rows: np.ndarray) -> tuple[list[Moments], np.ndarray]:
    """Streamed sums of each channel, and the cells (C, *space) that never have a value, both over these rows alone."""
    out = [Moments() for _ in fields.layout.channels]
    never = np.ones((len(out), *fields.layout.shape), dtype=bool)
    for part in _chunks(fields, rows):
        block = fields.read(part)
        never &= np.isnan(block).all(0)
        for i, moments in enumerate(out):
            moments.update(block[:, i])
    return out, never


class _Running:
    """Mean and variance per cell, streamed, NaN left out."""

    def __init__(self) -> None:
        self.n = self.s1 = self.s2 = np.zeros(())

    def add(self, block: np.ndarray) -> None:
        known = np.isfinite(block)
        values = np.where(known, block, 0.0)
        self.n, self.s1, self.s2 = self.n + known.sum(0), self.s1 + values.sum(0), self.s2 + (values**2).sum(0)

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Per cell; the standard deviation at least a tenth of its channel's mean one."""
        n = np.maximum(self.n, 1)
        mean = self.s1 / n
        variance = np.maximum(self.s2 / n - mean**2, 0)
        axes = tuple(range(1, variance.ndim))
        pooled = np.sqrt(variance.mean(axes, keepdims=True))
        return mean, np.maximum(np.sqrt(variance), np.maximum(0.1 * pooled, 1e-6))


def _statics(target: Fields, mask: np.ndarray) -> np.ndarray:
    """Standardised static fields, position along each axis (cyclic where periodic), and the mask where there is one."""
    layout = target.layout
    parts = []
    for name in target.static.data_vars:
        da = target.static[name]
        if not set(layout.space) <= set(da.dims) or da.dtype.kind not in "iufb":
            continue
        values = da.transpose(..., *layout.space).values.reshape(-1, *layout.shape).astype(np.float64)
        for v in values:
            std = np.nanstd(v)
            parts.append(np.nan_to_num((v - np.nanmean(v)) / (std if std > 0 else 1.0)))
    for axis, (size, periodic) in enumerate(zip(layout.shape, layout.periodic)):
        at = (np.arange(size) + 0.5) / size
        waves = [np.cos(2 * np.pi * at), np.sin(2 * np.pi * at)] if periodic else [2 * at - 1]
        for wave in waves:
            parts.append(
                np.broadcast_to(wave.reshape([-1 if i == axis else 1 for i in range(len(layout.shape))]), layout.shape)
            )
    if mask.any():
        parts += list(1.0 - mask)
    return np.stack(parts).astype(np.float32)


def fit_codec(
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    *,
    factor: Sequence[int] | None,
    covariates: Mapping[str, np.ndarray],
    transforms: Mapping[str, str] | None = None,
    number_of_folds: int = 5,
    linear: bool = True,
) -> tuple[Codec, np.ndarray]:
    """Fit everything from the training part.

    Args:
        target: what is asked.
        given: what is given, sample by sample the same.
        rows: positions of the training samples, in the order of the record.
        factor: fine cells per coarse cell and dim where the grids are nested.
        covariates: name -> value of each sample of ``target`` (all, not only the rows).
        transforms: variable -> kind, "auto" where absent.
        number_of_folds: contiguous folds of the out-of-fold residuals.
        linear: False leaves the prediction at its base: interpolation, or nothing.

    Returns:
        The codec and the fold of each row.
    """
    layout, given_layout = target.layout, None if given is None else given.layout
    chosen, mask = _transforms(target, rows, transforms or {})
    base = base_channels(layout, given_layout)
    given_transforms: list[Transform] = []
    extra: dict[str, np.ndarray] = {}
    if given is not None:
        given_transforms, extra = _given_transforms(given, rows, {b: t for t, b in zip(chosen, base) if b is not None})
    shape = (len(chosen), *layout.shape)
    blank = {"mask": mask, "scale": np.ones(shape), "mean": np.zeros(shape), "std": np.ones(shape)}
    blank |= {"static": _statics(target, mask), "linear": np.array(int(linear)), **extra}
    codec = Codec(
        layout=layout,
        given_layout=given_layout,
        regridder=None if given is None else Regridder(Grid.of(given), Grid.of(target)),
        transforms=chosen,
        given_transforms=given_transforms,
        covariates=Covariates.fit({k: v[rows] for k, v in covariates.items()}),
        predictor=LinearPredictor(None, None, {}, shape),
        arrays=blank,
    )
    fold = folds(len(rows), number_of_folds)
    _standardise(codec, target, given, rows, factor)
    if given is not None:
        codec.given_law = _given_law(codec, given, rows)
    _fit_predictor(codec, target, given, rows, fold, factor, covariates, linear)
    codec.static = np.concatenate([codec.static, _geography(codec)]).astype(np.float32)
    return codec, fold


def _geography(codec: Codec) -> np.ndarray:
    """What the record tells of each cell, standardised: its mean beside what is given, and its scale, (2 C, *space).

    Coasts and mountains show in both, and nothing else that the network is given has them.
    """
    usual = codec.mean.copy()
    for channel, source in enumerate(codec.base):
        if source is not None and codec.given_mean is not None:
            usual[channel] -= codec.given_mean[source]
    out = np.concatenate([usual, np.log(codec.scale)])
    axes = tuple(range(1, out.ndim))
    spread = out.std(axes, keepdims=True)
    return (out - out.mean(axes, keepdims=True)) / np.where(spread > 1e-6, spread, 1.0)


def _transforms(target: Fields, rows: np.ndarray, wanted: Mapping[str, str]) -> tuple[list[Transform], np.ndarray]:
    """The transform of each channel, and the cells that never have a value."""
    layout = target.layout
    unknown = sorted(set(wanted) - set(layout.variables))
    if unknown:
        raise DataError(f"codec.transforms names {unknown[0]!r}, and the variables are {', '.join(layout.variables)}")
    moments, mask = _moments(target, rows)
    chosen = [
        fit_transform(wanted.get(c.variable, "auto"), m, c.label, layout.units.get(c.variable, ""))
        for c, m in zip(layout.channels, moments)
    ]
    return chosen, mask


def _given_transforms(
    given: Fields, rows: np.ndarray, same: Mapping[int, Transform]
) -> tuple[list[Transform], dict[str, np.ndarray]]:
    """The transform of each given channel, that of the target where it is the ``same``, and the channels' ranges."""
    layout = given.layout
    moments, _ = _moments(given, rows)
    out = [
        same[i] if i in same else fit_transform("auto", m, f"given {c.label}", layout.units.get(c.variable, ""))
        for i, (c, m) in enumerate(zip(layout.channels, moments))
    ]
    return out, {"given_low": np.array([m.low for m in moments]), "given_high": np.array([m.high for m in moments])}


def _standardise(
    codec: Codec, target: Fields, given: Fields | None, rows: np.ndarray, factor: Sequence[int] | None
) -> None:
    """Means and standard deviations per cell of what the network and the predictor see, and which means are kept."""
    latent, coarse, fine = _Running(), _Running(), _Running()
    codec.factor = None if factor is None else tuple(factor)
    codec.conserves = np.array([factor is not None and b is not None for b in codec.base])
    blocks = np.zeros((2, len(codec.base)), dtype=int)
    for part in _chunks(target, rows):
        values = target.read(part)
        latents = codec.latents(values)
        codec.patchy |= bool((np.isnan(latents) & ~codec.mask).any())
        latent.add(np.clip(latents, codec.low, codec.high))
        if given is not None:
            raw = given.read(part).astype(np.float64)
            blocks += _check_means(codec, values, raw)
            c, f, missing = codec.given_latents(raw)
            codec.gappy |= bool(missing.any())
            coarse.add(c)
            fine.add(f)
    whole, partly = blocks
    for i in np.flatnonzero(codec.conserves & (partly > _PARTLY * whole)):
        name, share = target.layout.channels[i].label, partly[i] / (whole[i] + partly[i])
        logger.info(
            "drawn fields need not keep the block means of %s: %.0f %% are of cells in part missing", name, 100 * share
        )
    codec.conserves &= (whole > 0) & (partly <= _PARTLY * whole)
    codec.mean, codec.std = latent.mean_std()
    if given is not None:
        codec.given_mask = np.asarray(coarse.n == 0)
        codec.given_mean, codec.given_std = fine.mean_std()
        mean, std = coarse.mean_std()
        codec.coarse_mean = mean
        axes = tuple(range(1, std.ndim))  # one scale a channel keeps the ridge's penalty even in space
        codec.coarse_std = np.sqrt((std**2).mean(axes, keepdims=True))


def _check_means(codec: Codec, values: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Strike channels of which what is given is not the mean over blocks.

    Returns:
        How many blocks with a given value are known as a whole, and how many in part, (2, C).
    """
    seen = np.zeros((2, len(codec.base)), dtype=int)
    for i in np.flatnonzero(codec.conserves):
        assert codec.factor is not None
        given, cells = raw[:, codec.base[i]], in_blocks(np.isfinite(values[:, i]), codec.factor)
        there = np.isfinite(given) & cells.any(-1)
        whole = there & (cells | in_blocks(codec.mask[i], codec.factor)).all(-1)
        seen[:, i] = whole.sum(), (there & ~whole).sum()
        if whole.any():
            means = block_means(values[:, i].astype(np.float64), codec.factor)[whole]
            near = _AS_GIVEN * given[whole].std() + _ROUNDED * np.abs(given[whole]).max()
            codec.conserves[i] = np.abs(means - given[whole]).max() <= near
    return seen


def _given_law(codec: Codec, given: Fields, rows: np.ndarray) -> GivenLaw:
    """The law of what is given, from samples without gaps where there are enough of them."""
    assert codec.coarse_mean is not None and codec.coarse_std is not None
    most = min(len(rows), _LAW_SAMPLES, max(2 * _LAW_LEAST, _LAW_NUMBERS // codec.coarse_mean.size))
    some = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]
    parts, gaps = [], []
    for part in _chunks(given, some):
        raw = given.read(part).astype(np.float64)
        latent = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(codec.given_transforms)], 1)
        parts.append(((latent - codec.coarse_mean) / codec.coarse_std).reshape(len(part), -1))
        gaps.append(codec.gaps(raw).reshape(len(part), -1).any(1))
    z, whole = np.nan_to_num(np.concatenate(parts)), ~np.concatenate(gaps)
    return GivenLaw.fit(z[whole] if whole.sum() >= _LAW_LEAST else z)


def _fit_predictor(
    codec: Codec,
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    fold: np.ndarray,
    factor: Sequence[int] | None,
    covariates: Mapping[str, np.ndarray],
    linear: bool,
) -> None:
    """The linear predictor and the scale, by expectation-maximisation where there are point masses."""

    def parts(at: np.ndarray) -> tuple[Given, np.ndarray]:
        which = rows[at]
        raw = None if given is None else codec.filled(given.read(which).astype(np.float64), None)
        return codec.predictors(raw, {k: v[which] for k, v in covariates.items()}, len(which))[0], codec.latents(
            target.read(which)
        )

    censored = any(t.kind in ("censored", "bounded") for t in codec.transforms)
    current: LinearPredictor | None = None
    design: Design | None = None  # of what is given, which is the same in every pass
    for _ in range(_TOBIT_PASSES + 1 if censored else 1):
        previous, scale = current, codec.scale

        def read(
            at: np.ndarray, previous: LinearPredictor | None = previous, scale: np.ndarray = scale
        ) -> tuple[Given, np.ndarray]:
            part, u = parts(at)
            if previous is None:  # from the thresholds on: a start far beyond them would drown what varies
                return part, np.clip(u, codec.low, codec.high)
            return part, _expected(u, previous.predict(part, fold[at]), scale, codec.low, codec.high)[0]

        if linear and previous is None:
            current, design = _best_degree(codec, read, fold, factor)
        elif linear:
            current = LinearPredictor.fit(read, fold, factor=factor, periodic=codec.layout.periodic, design=design)
        else:
            current = LinearPredictor(None, None, {}, (len(codec.transforms), *codec.layout.shape))
        codec.predictor = current
        codec.scale = _scale(codec, parts, fold, first=previous is None)
    codec.amplitude = _amplitude(codec, parts, fold)
    if codec.amplitude.any():
        codec.scale = _scale(codec, parts, fold, first=not censored)


def _amplitude(codec: Codec, parts: Any, fold: np.ndarray) -> np.ndarray:
    """Weights of the features of the amplitude for each channel, (C, 3), from some samples and cells."""
    rows = np.unique(np.linspace(0, len(fold) - 1, min(len(fold), _AMPLITUDE_SAMPLES)).astype(int))
    blocks = np.array_split(rows, -(-len(rows) // _BLOCK))
    if codec.given_layout is not None:
        _fit_activity(codec, [parts(at)[0] for at in blocks])
    cells = int(np.prod(codec.layout.shape))
    some = np.unique(np.linspace(0, cells - 1, min(cells, _AMPLITUDE_CELLS)).astype(int))
    features, squares = [], []
    for at in blocks:
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        expected, variance = _expected(u, predicted.mean, predicted.std, codec.low, codec.high)
        square = ((expected - predicted.mean) ** 2 + variance) / predicted.std**2
        columns = [v.reshape(*v.shape[:2], -1) for v in (*codec.liveliness(part, predicted.mean), square)]
        columns = [np.broadcast_to(v, (*v.shape[:2], cells))[:, :, some] for v in columns]
        features.append(np.stack(columns[:3], -1))
        squares.append(columns[3])
    x, y = np.concatenate(features), np.concatenate(squares)
    known = np.isfinite(y)
    which = np.broadcast_to(fold[rows, None], y[:, 0].shape)
    channels = range(len(codec.transforms))
    return np.stack([choose_weights(x[:, c][known[:, c]], y[:, c][known[:, c]], which[known[:, c]]) for c in channels])


def _fit_activity(codec: Codec, given: Sequence[Given]) -> None:
    """Mean activity of each given channel, and the usual pattern of the local one."""
    assert codec.given_layout is not None
    coarse = np.concatenate([part.coarse for part in given if part.coarse is not None])
    square = curvature(coarse, codec.given_layout.periodic) ** 2
    codec.activity_mean = np.maximum(square.mean((0, *range(2, square.ndim))), 1e-12)
    near = [codec.activity(part)[1].sum(0) for part in given]
    codec.activity_centre = np.sum(near, 0) / len(coarse)


def _best_degree(
    codec: Codec, read: Any, fold: np.ndarray, factor: Sequence[int] | None
) -> tuple[LinearPredictor, Design]:
    """The predictor with the degree of the trends that cross-validation prefers (left in the codec's covariates).

    Also the design that it was fitted with.
    """
    degrees = (1, 2, 3) if any(part.kind != "category" for part in codec.covariates.parts) else (1,)
    best: tuple[float, int, LinearPredictor, Design] | None = None
    for degree in degrees:
        codec.covariates.degree = degree
        design = design_of(read, fold)
        found = LinearPredictor.fit(read, fold, factor=factor, periodic=codec.layout.periodic, design=design)
        error = min(found.scores.values())
        if best is None or error < best[0]:
            best = error, degree, found, design
    assert best is not None
    codec.covariates.degree = best[1]
    return best[2], best[3]


def _scale(codec: Codec, parts: Any, fold: np.ndarray, first: bool) -> np.ndarray:
    """Standard deviation per cell of out-of-fold residuals of amplitude 1, shrunk to the channel's mean variance."""
    total = np.zeros(codec.scale.shape)
    count = np.zeros(codec.scale.shape)
    for start in range(0, len(fold), _BLOCK):
        at = np.arange(start, min(start + _BLOCK, len(fold)))
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        expected, variance = np.clip(u, codec.low, codec.high), np.zeros(1)
        if not first:
            expected, variance = _expected(u, predicted.mean, predicted.std, codec.low, codec.high)
        known = np.isfinite(expected)
        square = ((expected - predicted.mean) ** 2 + variance) * (codec.scale / predicted.std) ** 2
        total += np.where(known, square, 0).sum(0)
        count += known.sum(0)
    axes = tuple(range(1, total.ndim))
    pooled = total.sum(axes, keepdims=True) / np.maximum(count.sum(axes, keepdims=True), 1)
    variance = (total + _POOLED * pooled) / (count + _POOLED)
    return np.sqrt(np.maximum(variance, 1e-12))
