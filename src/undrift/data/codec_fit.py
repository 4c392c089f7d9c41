"""Fitting the codec: transforms, masks and standardisation, and then in turn what its parts know.

What it predicts of the latents is fitted by :mod:`undrift.data.prediction_fit`, the laws of what that leaves by
:mod:`undrift.data.residual_laws`, :mod:`undrift.data.motion_fit` and :mod:`undrift.data.texture_fit`.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from undrift.data.anamorphosis_fit import fit_anamorphosis
from undrift.data.codec import Codec
from undrift.data.conserve import block_means, in_blocks
from undrift.data.covariates import Covariates
from undrift.data.fields import Fields
from undrift.data.given_fit import fit_given, fit_given_law
from undrift.data.layout import base_channels
from undrift.data.leads import Clock
from undrift.data.linear import folds
from undrift.data.members import date_of, one_member
from undrift.data.motion_fit import fit_motion
from undrift.data.prediction_fit import fit_prediction
from undrift.data.predictors import Predictors
from undrift.data.residual_laws import lead_laws_of, season_of, window_laws_of
from undrift.data.streamed import Running, chunks, moments_of
from undrift.data.texture_fit import fit_texture
from undrift.data.training_part import TrainingPart
from undrift.data.transforms import Transform, fit_transform
from undrift.errors import DataError, UsageError

__all__ = ["fit_codec"]

logger = logging.getLogger(__name__)

_YEAR = 365.2425 * 86400.0
_FEW_YEARS = 2.0  # of a record whose folds are of several pieces: no other year knows the season that is left out
_FOLD_PIECES = 3
_WHOLE = 0.95  # year at least whose seasons are known: one that ends sooner has some that nobody has seen
_AS_GIVEN = 1e-3  # of its standard deviation: how far what is given may be from a block's mean
_ROUNDED = 1e-6  # of its largest size, likewise
_PARTLY = 0.01  # blocks known in part, beside those known as a whole: what is given is then a mean of something else


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
    cycles: Collection[str] = (),
    windows: bool = False,
    maps: bool = True,
    leads: tuple[Clock, int, int] | None = None,
    past: int = 0,
    motion: bool | None = False,
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
        cycles: covariates of which only the time of year and day counts.
        windows: whether samples are windows of which any part may be given.
        maps: whether their law, or that of leads, knows of patterns over the whole domain.
        leads: of states after a lead: how leads are counted, the longest in steps, and how many states are given.
        past: frames of a window that are up to its present.
        motion: whether what is after them is predicted by their motion; None: where that is better, and no maps are
            known.

    Returns:
        The codec and the fold of each row.

    Raises:
        UsageError: motion is wanted, and samples are not windows that show any.
    """
    if motion and not 1 < past < target.layout.frames:
        raise UsageError(
            "codec.motion=true carries on windows of at least 2 past frames; type --task window --past 2 or more, or "
            "leave it out"
        )
    told = Covariates.fit({k: v[rows] for k, v in covariates.items()}, cycles)
    codec = _blank(target, given, rows, transforms or {}, told, linear)
    years = _years(codec.covariates) if cycles else 0.0
    if windows and years and maps and given is None and not motion:
        fit_anamorphosis(codec, target, rows, covariates)
    dates, at = np.unique(date_of(target, rows), return_inverse=True)
    fold = folds(len(dates), number_of_folds, _FOLD_PIECES if windows and 0 < years < _FEW_YEARS else 1)[at]
    part = TrainingPart(target, given, rows, fold, covariates)
    _standardise(codec, part, factor)
    if given is not None and codec.given is not None:
        codec.given.law = fit_given_law(codec.given, given, rows)
    lively = given is not None or not (windows or leads)
    # a cycle of the year that is damped is a bias of each season, in which emulations would stay
    damped = not (windows and years)
    fit_prediction(codec, part, linear, lively=lively, damped=damped)
    if windows and years:
        codec.season = season_of(codec, part).astype(np.float32)
    if windows:
        _fit_window_laws(codec, part, maps=maps, linear=linear, past=past, motion=motion)
    if leads is not None:
        codec.lead_laws = lead_laws_of(codec, part, maps and linear, *leads)
    codec.static = np.concatenate([codec.static, _geography(codec)]).astype(np.float32)
    return codec, fold


def _blank(
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    wanted: Mapping[str, str],
    covariates: Covariates,
    linear: bool,
) -> Codec:
    """A codec with its transforms and nothing else that is fitted."""
    chosen, mask = _transforms(target, rows, wanted, rounded=given is None)
    of_given = None
    if given is not None:
        base = base_channels(target.layout, one_member(given.layout))
        of_given = fit_given(given, target, rows, {b: t for t, b in zip(chosen, base) if b is not None})
    shape = (len(chosen), *target.layout.shape)
    arrays = {"mask": mask, "scale": np.ones(shape), "mean": np.zeros(shape), "std": np.ones(shape)}
    arrays |= {"static": _statics(target, mask), "linear": np.array(int(linear))}
    return Codec(
        layout=target.layout,
        transforms=chosen,
        given=of_given,
        covariates=covariates,
        predictor=Predictors.base(shape),
        arrays=arrays,
    )


def _fit_window_laws(
    codec: Codec, part: TrainingPart, *, maps: bool, linear: bool, past: int, motion: bool | None
) -> None:
    """The law of windows, that of their motion where it is told or wanted, and their texture where they have any.

    After an anamorphosis the law is that of latents as they are drawn where it is dry, which takes a texture of what no
    window tells.
    """
    frames = codec.layout.frames
    textured = frames > 1 and any(t.kind in ("censored", "bounded") for t in codec.transforms)
    if textured and codec.anamorphosis is not None:
        codec.texture = fit_texture(codec, part, past)
    codec.window_laws = window_laws_of(codec, part, maps and linear)
    if 1 < past < frames and (motion or (motion is None and not maps)):
        codec.motion_laws = fit_motion(codec, part, past, motion)
    if textured:
        codec.texture = fit_texture(codec, part, past)


def _years(covariates: Covariates) -> float:
    """Years that a record spans whose time of year is a covariate, and alone; 0 of less than one, and of others."""
    dates = [p for p in covariates.parts if "year" in p.harmonics and not p.trend]
    years = (dates[0].high - dates[0].low) / _YEAR if len(dates) == len(covariates.parts) == 1 else 0.0
    return years if years >= _WHOLE else 0.0


def _geography(codec: Codec) -> np.ndarray:
    """What the record tells of each cell, standardised: its mean beside what is given, and its scale, (2 C, *space).

    Coasts and mountains show in both, and nothing else that the network is given has them. Frames have them alike.
    """
    usual = codec.mean.copy()
    for channel, source in enumerate(codec.base):
        if source is not None and codec.given is not None:
            usual[channel] -= codec.given.mean[source]
    frames = codec.layout.frames
    usual, scale = (v.reshape(-1, frames, *v.shape[1:]).mean(1) for v in (usual, np.log(codec.scale)))
    out = np.concatenate([usual, scale])
    axes = tuple(range(1, out.ndim))
    spread = out.std(axes, keepdims=True)
    return (out - out.mean(axes, keepdims=True)) / np.where(spread > 1e-6, spread, 1.0)


def _transforms(
    target: Fields, rows: np.ndarray, wanted: Mapping[str, str], *, rounded: bool
) -> tuple[list[Transform], np.ndarray]:
    """The transform of each channel, and the cells that never have a value."""
    layout = target.layout
    unknown = sorted(set(wanted) - set(layout.variables))
    if unknown:
        raise DataError(f"codec.transforms names {unknown[0]!r}, and the variables are {', '.join(layout.variables)}")
    moments, mask = moments_of(target, rows)
    chosen = [
        fit_transform(wanted.get(c.variable, "auto"), m, c.label, layout.units.get(c.variable, ""), rounded=rounded)
        for c, m in zip(layout.channels, moments)
    ]
    return chosen, mask


def _standardise(codec: Codec, training: TrainingPart, factor: Sequence[int] | None) -> None:
    """Means and standard deviations per cell of what the network and the predictor see, and which means are kept."""
    target, given = training.target, training.given
    latent, coarse, fine = Running(), Running(), Running()
    codec.factor = None if factor is None else tuple(factor)
    codec.conserves = np.array([factor is not None and b is not None and codec.members == 1 for b in codec.base])
    blocks = np.zeros((2, len(codec.base)), dtype=int)
    for part in chunks(target, training.rows):
        values = target.read(part)
        features = codec.covariates.basis({k: v[part] for k, v in training.covariates.items()}, len(part))
        latents = codec.latents(values, codec.seasons(features))
        codec.patchy |= bool((np.isnan(latents) & ~codec.mask).any())
        latent.add(np.clip(latents, codec.low, codec.high))
        if given is not None and codec.given is not None:
            raw = given.read(part).astype(np.float64)
            blocks += _check_means(codec, values, raw)
            c, f, missing = codec.given.latents(raw)
            codec.given.gappy |= bool(missing.any())
            coarse.add(codec.given.singly(c))
            fine.add(codec.given.singly(f))
    whole, partly = blocks
    for i in np.flatnonzero(codec.conserves & (partly > _PARTLY * whole)):
        name, share = target.layout.channels[i].label, partly[i] / (whole[i] + partly[i])
        logger.info(
            "drawn fields need not keep the block means of %s: %.0f %% are of cells in part missing", name, 100 * share
        )
    codec.conserves &= (whole > 0) & (partly <= _PARTLY * whole)
    codec.mean, codec.std = latent.mean_std()
    if codec.given is not None:
        codec.given.mask = np.asarray(coarse.n == 0)
        codec.given.mean, codec.given.std = fine.mean_std()
        codec.given.coarse_mean, std = coarse.mean_std()
        axes = tuple(range(1, std.ndim))  # one scale a channel keeps the ridge's penalty even in space
        codec.given.coarse_std = np.sqrt((std**2).mean(axes, keepdims=True))


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
