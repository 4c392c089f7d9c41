"""Fitting the codec: transforms, masks, standardisation and the law of what is given.

What it predicts of the latents is fitted by :mod:`undrift.data.prediction_fit`.
"""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from undrift.data.anamorphosis_fit import fit_anamorphosis
from undrift.data.codec import Codec, base_channels
from undrift.data.conserve import block_means, in_blocks
from undrift.data.covariates import Covariates
from undrift.data.fields import Fields
from undrift.data.given_law import GivenLaw
from undrift.data.grid import Grid, Regridder
from undrift.data.lead_law import LeadLaws, fit_lead_laws
from undrift.data.leads import Clock, places_of
from undrift.data.linear import folds
from undrift.data.member_law import MemberLaw
from undrift.data.members import date_of, one_member
from undrift.data.motion_fit import fit_motion
from undrift.data.prediction_fit import fit_prediction
from undrift.data.predictors import Predictors
from undrift.data.scan import block_step
from undrift.data.season import fit_season
from undrift.data.texture_fit import fit_texture
from undrift.data.transforms import Moments, Transform, fit_transform
from undrift.data.window_fit import fit_window_laws
from undrift.data.window_law import WindowLaws
from undrift.errors import DataError, UsageError

__all__ = ["fit_codec"]

logger = logging.getLogger(__name__)

_BLOCK = 64
_YEAR = 365.2425 * 86400.0
_FEW_YEARS = 2.0  # of a record whose folds are of several pieces: no other year knows the season that is left out
_FOLD_PIECES = 3
_WHOLE = 0.95  # year at least whose seasons are known: one that ends sooner has some that nobody has seen
_LAW_NUMBERS = 20_000_000  # read for the law of what is given, samples x channels x cells
_LAW_SAMPLES, _LAW_LEAST = 500, 20  # of what is given: read at most, and without gaps at least
_WINDOW_NUMBERS = 60_000_000  # read for the law of windows, windows x channels x cells
_PIECES = 10  # of a record that is too long to be read as a whole
_AS_GIVEN = 1e-3  # of its standard deviation: how far what is given may be from a block's mean
_ROUNDED = 1e-6  # of its largest size, likewise
_PARTLY = 0.01  # blocks known in part, beside those known as a whole: what is given is then a mean of something else


def _chunks(fields: Fields, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in blocks that end where the file's chunks end, so that no chunk is unpacked twice."""
    step = block_step(fields, _BLOCK)
    ends = np.flatnonzero(np.diff(rows // step)) + 1
    yield from (part for part in np.split(rows, ends) if len(part))


def _moments(fields: Fields, rows: np.ndarray) -> tuple[list[Moments], np.ndarray]:
    """Streamed sums of each channel, and the cells (C, *space) that never have a value, both over these rows alone.

    The frames of a window share theirs.
    """
    frames, count = fields.layout.frames, len(fields.layout.channels)
    out = [Moments() for _ in range(count // frames)]
    never = np.ones((count, *fields.layout.shape), dtype=bool)
    for part in _chunks(fields, rows):
        block = fields.read(part)
        never &= np.isnan(block).all(0)
        for i, moments in enumerate(out):
            moments.update(block[:, i * frames : (i + 1) * frames])
    return [moments for moments in out for _ in range(frames)], never


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
    layout, given_layout = target.layout, None if given is None else given.layout
    if motion and not 1 < past < layout.frames:
        raise UsageError(
            "codec.motion=true carries on windows of at least 2 past frames; type --task window --past 2 or more, or "
            "leave it out"
        )
    chosen, mask = _transforms(target, rows, transforms or {}, rounded=given is None)
    base = base_channels(layout, None if given_layout is None else one_member(given_layout))
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
        covariates=Covariates.fit({k: v[rows] for k, v in covariates.items()}, cycles),
        predictor=Predictors.base(shape),
        arrays=blank,
    )
    years = _years(codec.covariates) if cycles else 0.0
    if windows and years and maps and given is None and not motion:
        fit_anamorphosis(codec, target, rows)
    dates, at = np.unique(date_of(target, rows), return_inverse=True)
    fold = folds(len(dates), number_of_folds, _FOLD_PIECES if windows and 0 < years < _FEW_YEARS else 1)[at]
    _standardise(codec, target, given, rows, factor)
    if given is not None:
        codec.given_law = _given_law(codec, given, rows)
    lively = given is not None or not (windows or leads)
    # a cycle of the year that is damped is a bias of each season, in which emulations would stay
    damped = not (windows and years)
    fit_prediction(codec, target, given, rows, fold, covariates, linear, lively=lively, damped=damped)
    if windows and years:
        codec.season = _season(codec, target, given, rows, fold, covariates).astype(np.float32)
    if windows:
        codec.window_laws = _window_laws(codec, target, given, rows, fold, covariates, maps and linear)
        if 1 < past < layout.frames and (motion or (motion is None and not maps)):
            codec.motion_laws = fit_motion(codec, target, given, rows, fold, covariates, past, motion)
        if layout.frames > 1 and any(t.kind in ("censored", "bounded") for t in chosen):
            codec.texture = fit_texture(codec, target, given, rows, fold, covariates, past)
    if leads is not None:
        codec.lead_laws = _lead_laws(codec, target, rows, fold, covariates, maps and linear, *leads)
    codec.static = np.concatenate([codec.static, _geography(codec)]).astype(np.float32)
    return codec, fold


def _years(covariates: Covariates) -> float:
    """Years that a record spans whose time of year is a covariate, and alone; 0 of less than one, and of others."""
    dates = [p for p in covariates.parts if "year" in p.harmonics and not p.trend]
    years = (dates[0].high - dates[0].low) / _YEAR if len(dates) == len(covariates.parts) == 1 else 0.0
    return years if years >= _WHOLE else 0.0


def _season(
    codec: Codec,
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    fold: np.ndarray,
    covariates: Mapping[str, np.ndarray],
) -> np.ndarray:
    """How the variance of out-of-fold residuals goes with the time of year."""

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for at in np.array_split(np.arange(len(rows)), -(-len(rows) // _BLOCK)):
            values = {k: v[rows[at]] for k, v in covariates.items()}
            encoded, _ = codec.encode(target, given, rows[at], covariates=values, fold=fold[at])
            assert encoded.x is not None and encoded.weight is not None
            yield codec.covariates.basis(values, len(at))[:, :4], np.where(encoded.weight > 0, encoded.x, np.nan)

    return fit_season(blocks(), codec.layout.frames, codec.layout.periodic)


def _window_laws(
    codec: Codec,
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    fold: np.ndarray,
    covariates: Mapping[str, np.ndarray],
    maps: bool,
) -> WindowLaws:
    """The law of windows, from out-of-fold residuals of some of them."""
    frames, shape = codec.layout.frames, codec.layout.shape
    size = len(codec.layout.channels) * math.prod(shape)
    some = np.unique(np.linspace(0, len(rows) - 1, max(20, min(len(rows), _WINDOW_NUMBERS // size))).astype(int))
    parts = []
    for at in np.array_split(some, -(-len(some) // _BLOCK)):
        values = {k: v[rows[at]] for k, v in covariates.items()}
        encoded, _ = codec.encode(target, given, rows[at], covariates=values, fold=fold[at])
        assert encoded.x is not None
        parts.append(encoded.x.reshape(len(at), -1, frames, *shape))
    laws, errors = fit_window_laws(np.concatenate(parts), fold[some], maps=maps, periodic=codec.layout.periodic)
    if len(errors) > 1:
        maps_, coupled, common = min(errors, key=lambda choice: errors[choice])
        logger.info(
            "windows are predicted by %d maps, %d of them coupled, drawn together by %g", maps_, coupled, common
        )
    return laws


def _lead_laws(
    codec: Codec,
    target: Fields,
    rows: np.ndarray,
    fold: np.ndarray,
    covariates: Mapping[str, np.ndarray],
    maps: bool,
    clock: Clock,
    longest: int,
    past: int,
) -> LeadLaws:
    """The law of states after a lead, from out-of-fold residuals of the record, or of pieces of a long one."""
    order = np.argsort(places_of(target)[rows], kind="stable")
    size = len(codec.layout.channels) * math.prod(codec.layout.shape)
    most = max(_WINDOW_NUMBERS // size, _PIECES * (longest + past))
    if len(order) > most:
        first = np.linspace(0, len(order) - most // _PIECES, _PIECES).astype(int)
        order = order[np.unique(np.concatenate([np.arange(f, f + most // _PIECES) for f in first]))]
    parts = []
    for at in np.array_split(order, -(-len(order) // _BLOCK)):
        values = {k: v[rows[at]] for k, v in covariates.items()}
        encoded, _ = codec.encode(target, None, rows[at], covariates=values, fold=fold[at])
        assert encoded.x is not None
        parts.append(encoded.x)
    place = places_of(target)[rows[order]]
    laws, errors = fit_lead_laws(np.concatenate(parts), place, fold[order], clock, longest, past, maps=maps)
    maps_, coupled, common = min(errors, key=lambda choice: errors[choice])
    logger.info("states are predicted by %d maps, %d of them coupled, drawn together by %g", maps_, coupled, common)
    return laws


def _geography(codec: Codec) -> np.ndarray:
    """What the record tells of each cell, standardised: its mean beside what is given, and its scale, (2 C, *space).

    Coasts and mountains show in both, and nothing else that the network is given has them. Frames have them alike.
    """
    usual = codec.mean.copy()
    for channel, source in enumerate(codec.base):
        if source is not None and codec.given_mean is not None:
            usual[channel] -= codec.given_mean[source]
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
    moments, mask = _moments(target, rows)
    chosen = [
        fit_transform(wanted.get(c.variable, "auto"), m, c.label, layout.units.get(c.variable, ""), rounded=rounded)
        for c, m in zip(layout.channels, moments)
    ]
    return chosen, mask


def _given_transforms(
    given: Fields, rows: np.ndarray, same: Mapping[int, Transform]
) -> tuple[list[Transform], dict[str, np.ndarray]]:
    """The transform of each given channel, that of the target where it is the ``same``, and the channels' ranges.

    Members, which are given in any order, have that of the first one.
    """
    layout, count = given.layout, given.layout.members
    moments, _ = _moments(given, rows)
    out = [
        same[i] if i in same else fit_transform("auto", m, f"given {c.label}", layout.units.get(c.variable, ""))
        for i, (c, m) in enumerate(zip(layout.channels[::count], moments[::count]))
    ]
    out = [transform for transform in out for _ in range(count)]
    return out, {"given_low": np.array([m.low for m in moments]), "given_high": np.array([m.high for m in moments])}


def _standardise(
    codec: Codec, target: Fields, given: Fields | None, rows: np.ndarray, factor: Sequence[int] | None
) -> None:
    """Means and standard deviations per cell of what the network and the predictor see, and which means are kept."""
    latent, coarse, fine = _Running(), _Running(), _Running()
    codec.factor = None if factor is None else tuple(factor)
    codec.conserves = np.array([factor is not None and b is not None and codec.members == 1 for b in codec.base])
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
            coarse.add(codec.singly(c))
            fine.add(codec.singly(f))
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


def _given_law(codec: Codec, given: Fields, rows: np.ndarray) -> GivenLaw | MemberLaw:
    """The law of what is given, from samples without gaps where there are enough of them."""
    assert codec.coarse_mean is not None and codec.coarse_std is not None
    most = min(len(rows), _LAW_SAMPLES, max(2 * _LAW_LEAST, _LAW_NUMBERS // codec.coarse_mean.size))
    some = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]
    parts, gaps = [], []
    for part in _chunks(given, some):
        raw = given.read(part).astype(np.float64)
        latent = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(codec.given_transforms)], 1)
        centre, width = codec.each(codec.coarse_mean), codec.each(codec.coarse_std)
        parts.append(((latent - centre) / width).reshape(len(part), -1))
        gaps.append(codec.gaps(raw).reshape(len(part), -1).any(1))
    z, whole = np.nan_to_num(np.concatenate(parts)), ~np.concatenate(gaps)
    z = z[whole] if whole.sum() >= _LAW_LEAST else z
    return GivenLaw.fit(z) if codec.members == 1 else MemberLaw.fit(z, codec.members, len(codec.coarse_mean))
