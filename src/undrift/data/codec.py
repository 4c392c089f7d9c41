"""From labelled fields to residuals of unit scale, and back.

A field x becomes

    r = (T(x) - linear prediction) / (scale a),

where T is each variable's transform, the prediction is made from what is given, the scale is the standard deviation
per cell of out-of-fold residuals, and the amplitude a says how lively they are in this state. Missing cells become 0
with weight 0. Values at a point mass (dry cells) have no latent of their own: the linear predictor is fitted with their
conditional means (Tobit by expectation-maximisation) and training draws them anew at each step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import norm

from undrift.data.amplitude import Activity, choose_weights, curvature, log_amplitude
from undrift.data.covariates import Covariates
from undrift.data.fields import Fields
from undrift.data.grid import Grid, Regridder
from undrift.data.layout import Layout
from undrift.data.linear import Given, LinearPredictor, folds
from undrift.data.transforms import Moments, Transform, fit_transform
from undrift.errors import DataError

__all__ = ["Codec", "Encoded", "Predicted", "fit_codec"]

_BLOCK = 64
_TOBIT_PASSES = 2
_AMPLITUDE_SAMPLES = 400
_AMPLITUDE_CELLS = 2048
_POOLED = 10.0  # weight of the pooled variance in a cell's scale, in samples


@dataclass(frozen=True)
class Encoded:
    """Windows of samples as numbers.

    Attributes:
        x: residuals (n, C, *window), 0 where missing; None when only the given is asked for.
        weight: 1 where x is known, else 0.
        fields: what is given on the target's grid, by name, (n, c, *window).
        vector: covariates, (n, K).
    """

    x: np.ndarray | None
    weight: np.ndarray | None
    fields: dict[str, np.ndarray]
    vector: np.ndarray


@dataclass(frozen=True)
class Predicted:
    """What is known of latents before a network is asked.

    Attributes:
        mean: the linear prediction, (n, C, *window).
        std: standard deviation of what it leaves over, same shape.
    """

    mean: np.ndarray
    std: np.ndarray

    def __getitem__(self, index: Any) -> "Predicted":
        """Part of both."""
        return Predicted(self.mean[index], self.std[index])


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


class Codec:
    """All that turns fields into the network's numbers and back; made by :func:`fit_codec`.

    Attributes:
        layout: of the target.
        given_layout: of what is given, or None.
        transforms: one per target channel; given_transforms: one per given channel.
        mask: target cells that never have a value, (C, *space).
        given_mask: given cells that never had a value, (G, *coarse), or None.
        predictor: the linear predictor of the latents.
        scale: (C, *space).
        amplitude: weights of the features of the amplitude, (C, 3); zeros where residuals are equally lively always.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        given_layout: Layout | None,
        regridder: Regridder | None,
        transforms: Sequence[Transform],
        given_transforms: Sequence[Transform],
        covariates: Covariates,
        predictor: LinearPredictor,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.layout, self.given_layout, self.regridder = layout, given_layout, regridder
        self.transforms, self.given_transforms = list(transforms), list(given_transforms)
        self.covariates, self.predictor = covariates, predictor
        self.mask = arrays["mask"].astype(bool)
        self.scale = arrays["scale"]
        self.mean, self.std = arrays["mean"], arrays["std"]  # of latents per cell, to standardise what the network sees
        self.given_mean, self.given_std = arrays.get("given_mean"), arrays.get("given_std")
        self.coarse_mean, self.coarse_std = arrays.get("coarse_mean"), arrays.get("coarse_std")
        self.static = arrays["static"]
        self.given_low, self.given_high = arrays.get("given_low"), arrays.get("given_high")
        self.given_mask = None if "given_mask" not in arrays else arrays["given_mask"].astype(bool)
        self.gappy = bool(arrays.get("gappy", np.zeros(())))
        self.linear = bool(arrays.get("linear", np.ones(())))
        self.base = _base_channels(layout, given_layout)
        self.amplitude = arrays.get("amplitude", np.zeros((len(transforms), 3)))
        self.activity_mean, self.activity_centre = arrays.get("activity_mean"), arrays.get("activity_centre")
        self.low = np.array([t.thresholds[0] for t in transforms]).reshape(-1, *[1] * len(layout.space))
        self.high = np.array([t.thresholds[1] for t in transforms]).reshape(-1, *[1] * len(layout.space))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that, with the layouts and transforms, make the codec again."""
        out = {"mask": self.mask.astype(np.int8), "scale": self.scale, "mean": self.mean, "std": self.std}
        out |= {"static": self.static, "gappy": np.array(int(self.gappy)), "linear": np.array(int(self.linear))}
        out["amplitude"] = self.amplitude
        names = ("given_mean", "given_std", "coarse_mean", "coarse_std", "given_low", "given_high")
        for name in (*names, "activity_mean", "activity_centre"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        if self.given_mask is not None:
            out["given_mask"] = self.given_mask.astype(np.int8)
        return out

    # what is given

    def given_latents(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Given values (n, G, *coarse) as latents on both grids, and where the fine ones are missing."""
        assert self.regridder is not None
        fine_raw = self.regridder(raw)
        coarse = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(self.given_transforms)], 1)
        fine = np.stack([t.continuous(fine_raw[:, i]) for i, t in enumerate(self.given_transforms)], 1)
        return coarse, fine, ~np.isfinite(fine)

    def predictors(
        self, raw: np.ndarray | None, values: Mapping[str, np.ndarray], count: int
    ) -> tuple[Given, np.ndarray | None]:
        """What the linear predictor is given, and the given latents on the target's grid."""
        shape = self.layout.shape
        base = np.zeros((count, len(self.layout.channels), *shape))
        features = self.covariates.basis(values, count)
        if raw is None:
            return Given(base, None, features), None
        coarse, fine, missing = self.given_latents(raw)
        assert self.coarse_mean is not None and self.coarse_std is not None and self.given_mean is not None
        for channel, source in enumerate(self.base):
            if source is not None:
                base[:, channel] = np.where(missing[:, source], self.mean[channel], fine[:, source])
        standard = np.nan_to_num((coarse - self.coarse_mean) / self.coarse_std)
        return Given(base, standard, features), fine

    def liveliness(self, part: Given, mean: np.ndarray, window: Sequence[slice]) -> tuple[np.ndarray, ...]:
        """The three features of the amplitude, see :func:`undrift.data.amplitude.log_amplitude`."""
        cut = (slice(None), slice(None), *window)
        level = (mean - self.mean[None][cut]) / self.std[None][cut]
        if part.coarse is None or self.activity_mean is None:
            return np.zeros(level.shape[:2]), np.zeros_like(level), level
        assert self.regridder is not None and self.given_layout is not None
        activity = Activity(self.base, self.given_layout.periodic, self.regridder, self.activity_mean)
        whole, near = activity(part.coarse)
        if self.activity_centre is not None:
            near = near - self.activity_centre
        return whole, near[cut], level

    def predict(self, part: Given, fold: np.ndarray | None = None, window: Sequence[slice] | None = None) -> Predicted:
        """The linear prediction and the standard deviation of what it leaves over."""
        window = tuple(window) if window is not None else (slice(None),) * len(self.layout.space)
        mean = self.predictor.predict(part, fold, window)
        std = np.broadcast_to(self.scale[None][(slice(None), slice(None), *window)], mean.shape)
        if self.amplitude.any():
            std = std * np.exp(0.5 * log_amplitude(self.amplitude, *self.liveliness(part, mean, window)))
        return Predicted(mean, std)

    def encode(
        self,
        target: Fields | None,
        given: Fields | None,
        rows: np.ndarray,
        *,
        covariates: Mapping[str, np.ndarray],
        fold: np.ndarray | None = None,
        window: Sequence[slice] | None = None,
        draw: np.random.Generator | None = None,
        offered: np.ndarray | None = None,
    ) -> tuple[Encoded, Predicted]:
        """Windows of samples.

        Args:
            target: the target, None when it is not known.
            given: what is given on the trained grid, or pass its values as ``offered``.
            rows: positions of samples in both.
            covariates: name -> values of these rows.
            fold: fold of each row for out-of-fold predictions; None for the final predictor.
            window: part of space.
            draw: generator of the latents at point masses.
            offered: given values (n, G, *coarse).

        Returns:
            The numbers, and what is predicted of the latents.
        """
        raw = offered if offered is not None or given is None else given.read(rows).astype(np.float64)
        part, fine = self.predictors(raw, covariates, len(rows))
        window = tuple(window) if window is not None else (slice(None),) * len(self.layout.space)
        cut = (slice(None), slice(None), *window)
        prediction = self.predict(part, fold, window)
        fields = self._fields(fine, prediction.mean, cut, len(rows))
        x = weight = None
        if target is not None:
            x, weight = self.residual(target.read(rows, window), prediction, window, draw)
        vector = self.covariates.vector(covariates, len(rows)).astype(np.float32)
        return Encoded(x, weight, fields, vector), prediction

    def residual(
        self,
        raw: np.ndarray,
        prediction: Predicted,
        window: Sequence[slice],
        draw: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals and weights of windows (n, C, *window) in the data's units, given what is predicted of them."""
        u = self.latents(raw)
        r = (u - prediction.mean) / prediction.std
        for sign, at in ((1.0, np.isneginf(u)), (-1.0, np.isposinf(u))):
            if at.any():
                bound = np.broadcast_to(self.low if sign > 0 else self.high, u.shape)
                a = sign * ((bound - prediction.mean) / prediction.std)[at]
                share = 0.5 if draw is None else draw.random(a.shape) * (1 - 2e-12) + 1e-12
                r[at] = sign * np.clip(ndtri(share * ndtr(a)), -8, 8)
        # masked cells are learned to be 0, which is what the sampler's network then meets beside every coast
        weight = np.isfinite(r)
        r = np.where(weight, r, 0)
        weight |= self.mask[(slice(None), *window)][None]
        return r.astype(np.float32), weight.astype(np.float32)

    def _fields(
        self, fine: np.ndarray | None, prediction: np.ndarray, cut: tuple[slice, ...], count: int
    ) -> dict[str, np.ndarray]:
        out = {}
        if fine is not None:
            assert self.given_mean is not None and self.given_std is not None
            part = (fine - self.given_mean) / self.given_std
            part = _without_level(part, self.given_transforms)[cut]
            out["given"] = np.nan_to_num(part).astype(np.float32)
            if self.gappy:
                out["known"] = np.isfinite(part).all(1, keepdims=True).astype(np.float32)
        out["linear"] = ((prediction - self.mean[None][cut]) / self.std[None][cut]).astype(np.float32)
        static = np.broadcast_to(self.static[None][cut], (count, *self.static[None][cut].shape[1:]))
        out["static"] = static.astype(np.float32)
        return out

    # what is asked

    def latents(self, raw: np.ndarray) -> np.ndarray:
        """Target values (n, C, *space) as latents, -inf and inf at point masses, NaN where missing."""
        return np.stack([t.encode(raw[:, i]) for i, t in enumerate(self.transforms)], 1)

    def decode(self, r: np.ndarray | float, prediction: Predicted) -> np.ndarray:
        """Residuals (n, C, *space), or 0 for what is predicted, as values in the target's units, NaN in the mask."""
        u = prediction.mean + prediction.std * np.asarray(r, dtype=np.float64)
        x = np.stack([t.decode(u[:, i]) for i, t in enumerate(self.transforms)], 1)
        x[np.broadcast_to(self.mask, x.shape)] = np.nan
        return x.astype(np.float32)

    def outside(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) outside the range that their channel had in training, a share per channel."""
        if self.given_low is None or self.given_high is None:
            return np.zeros(0)
        shape = (-1,) + (1,) * (raw.ndim - 2)
        low, high = self.given_low.reshape(shape), self.given_high.reshape(shape)
        beyond = (raw < low) | (raw > high)
        known = np.isfinite(raw)
        axes = (0, *range(2, raw.ndim))
        return (beyond & known).sum(axes) / np.maximum(known.sum(axes), 1)


def _without_level(x: np.ndarray, transforms: Sequence[Transform]) -> np.ndarray:
    """Standardised fields (n, C, *space) less their mean over the whole domain, for channels without bounds.

    The linear predictor knows the level and extrapolates it; a network shown a level that training never had does not.
    """
    axes = tuple(range(2, x.ndim))
    known = np.isfinite(x)
    level = np.where(known, x, 0).sum(axes, keepdims=True) / np.maximum(known.sum(axes, keepdims=True), 1)
    free = np.array([t.kind == "standard" for t in transforms]).reshape(-1, *[1] * len(axes))
    return x - np.where(free, level, 0)


def _base_channels(layout: Layout, given: Layout | None) -> list[int | None]:
    """For each target channel the given channel of the same variable, level and units."""
    out: list[int | None] = []
    for channel in layout.channels:
        match = None
        for i, other in enumerate(given.channels if given is not None else ()):
            if other == channel and given is not None:
                same = given.units.get(other.variable, "") == layout.units.get(channel.variable, "")
                match = i if same else match
        out.append(match)
    return out


def _moments(fields: Fields, rows: np.ndarray) -> tuple[list[Moments], np.ndarray]:
    """Streamed sums of each channel, and the cells (C, *space) that never have a value, both over these rows alone."""
    out = [Moments() for _ in fields.layout.channels]
    never = np.ones((len(out), *fields.layout.shape), dtype=bool)
    for start in range(0, len(rows), _BLOCK):
        block = fields.read(rows[start : start + _BLOCK])
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
    layout = target.layout
    wanted = dict(transforms or {})
    unknown = sorted(set(wanted) - set(layout.variables))
    if unknown:
        raise DataError(f"codec.transforms names {unknown[0]!r}, and the variables are {', '.join(layout.variables)}")
    target_moments, mask = _moments(target, rows)
    chosen = [
        fit_transform(wanted.get(c.variable, "auto"), m, c.label, layout.units.get(c.variable, ""))
        for c, m in zip(layout.channels, target_moments)
    ]
    given_layout = given.layout if given is not None else None
    given_transforms: list[Transform] = []
    extra: dict[str, np.ndarray] = {}
    regridder = None
    base = _base_channels(layout, given_layout)
    if given is not None:
        given_moments, _ = _moments(given, rows)
        for i, (c, m) in enumerate(zip(given.layout.channels, given_moments)):
            same = [t for t, b in zip(chosen, base) if b == i]
            given_transforms.append(
                same[0]
                if same
                else fit_transform("auto", m, f"given {c.label}", given.layout.units.get(c.variable, ""))
            )
        extra["given_low"] = np.array([m.low for m in given_moments])
        extra["given_high"] = np.array([m.high for m in given_moments])
        regridder = Regridder(Grid.of(given), Grid.of(target))
    fitted = Covariates.fit({k: v[rows] for k, v in covariates.items()})
    space = layout.shape
    blank = {"mask": mask, "scale": np.ones((len(chosen), *space)), "mean": np.zeros((len(chosen), *space))}
    blank |= {"std": np.ones((len(chosen), *space)), "static": _statics(target, mask), **extra}
    blank["linear"] = np.array(int(linear))
    codec = Codec(
        layout=layout, given_layout=given_layout, regridder=regridder, transforms=chosen,
        given_transforms=given_transforms,
        covariates=fitted, predictor=LinearPredictor(None, None, {}, (len(chosen), *space)), arrays=blank,
    )  # fmt: skip
    fold = folds(len(rows), number_of_folds)
    _standardise(codec, target, given, rows)
    _fit_predictor(codec, target, given, rows, fold, factor, covariates, linear)
    return codec, fold


def _standardise(codec: Codec, target: Fields, given: Fields | None, rows: np.ndarray) -> None:
    """Means and standard deviations per cell of what the network and the predictor see."""
    latent, coarse, fine = _Running(), _Running(), _Running()
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        latent.add(np.clip(codec.latents(target.read(part)), codec.low, codec.high))
        if given is not None:
            c, f, missing = codec.given_latents(given.read(part).astype(np.float64))
            codec.gappy |= bool(missing.any())
            coarse.add(c)
            fine.add(f)
    codec.mean, codec.std = latent.mean_std()
    if given is not None:
        codec.given_mask = np.asarray(coarse.n == 0)
        codec.given_mean, codec.given_std = fine.mean_std()
        mean, std = coarse.mean_std()
        codec.coarse_mean = mean
        axes = tuple(range(1, std.ndim))  # one scale a channel keeps the ridge's penalty even in space
        codec.coarse_std = np.sqrt((std**2).mean(axes, keepdims=True))


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
        raw = None if given is None else given.read(which).astype(np.float64)
        return codec.predictors(raw, {k: v[which] for k, v in covariates.items()}, len(which))[0], codec.latents(
            target.read(which)
        )

    censored = any(t.kind in ("censored", "bounded") for t in codec.transforms)
    current: LinearPredictor | None = None
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
            current = _best_degree(codec, read, fold, factor)
        elif linear:
            current = LinearPredictor.fit(read, fold, factor=factor, periodic=codec.layout.periodic)
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
    blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
    whole = (slice(None),) * len(codec.layout.space)
    if codec.given_layout is not None:
        given = [parts(at)[0] for at in blocks]
        square = [curvature(part.coarse, codec.given_layout.periodic) ** 2 for part in given]
        codec.activity_mean = np.maximum(np.concatenate(square).mean((0, *range(2, square[0].ndim))), 1e-12)
        near = [codec.liveliness(part, codec.predict(part, fold[at]).mean, whole)[1] for part, at in zip(given, blocks)]
        codec.activity_centre = np.concatenate(near).mean(0)
    cells = int(np.prod(codec.layout.shape))
    some = np.unique(np.linspace(0, cells - 1, min(cells, _AMPLITUDE_CELLS)).astype(int))
    features: list[list[np.ndarray]] = [[] for _ in codec.transforms]
    squares: list[list[np.ndarray]] = [[] for _ in codec.transforms]
    for at in blocks:
        part, u = parts(at)
        predicted = codec.predict(part, fold[at])
        expected, variance = _expected(u, predicted.mean, predicted.std, codec.low, codec.high)
        square = ((expected - predicted.mean) ** 2 + variance) / predicted.std**2
        activity, near, level = codec.liveliness(part, predicted.mean, whole)
        for c in range(len(codec.transforms)):
            flat = [v[:, c].reshape(len(at), -1)[:, some] for v in (near, level, square)]
            across = np.broadcast_to(activity[:, c, None], flat[0].shape)
            features[c].append(np.stack([across, flat[0], np.clip(flat[1], -3, 3)], -1))
            squares[c].append(flat[2])
    out = []
    for c in range(len(codec.transforms)):
        x, y = np.concatenate(features[c]), np.concatenate(squares[c])
        known = np.isfinite(y)
        which = np.broadcast_to(fold[rows][:, None], y.shape)
        out.append(choose_weights(x[known], y[known], which[known]))
    return np.stack(out)


def _best_degree(codec: Codec, read: Any, fold: np.ndarray, factor: Sequence[int] | None) -> LinearPredictor:
    """The predictor with the degree of the trends that cross-validation prefers; left in the codec's covariates."""
    degrees = (1, 2, 3) if any(part.kind != "category" for part in codec.covariates.parts) else (1,)
    found: dict[int, LinearPredictor] = {}
    for degree in degrees:
        codec.covariates.degree = degree
        found[degree] = LinearPredictor.fit(read, fold, factor=factor, periodic=codec.layout.periodic)
    codec.covariates.degree = min(found, key=lambda degree: min(found[degree].scores.values()))
    return found[codec.covariates.degree]


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
