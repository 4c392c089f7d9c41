"""From data to what a network is trained on: paired, split, encoded."""

import logging

import numpy as np

from undrift.config import Config
from undrift.data.coarse_fit import fit_coarse_law
from undrift.data.codec import Codec
from undrift.data.codec_fit import fit_codec
from undrift.data.cut import begun_with
from undrift.data.fields import Fields
from undrift.data.linear import spread
from undrift.data.members import date_of
from undrift.data.split import fill_values, split
from undrift.data.windows import auto_crop
from undrift.errors import DataError, UsageError
from undrift.tasks import LeadTime, Task, Window
from undrift.train.pairs import pairs_of
from undrift.train.problem import Problem
from undrift.train.stop_rows import keep_apart, stop_rows

__all__ = ["prepare", "reopen"]

logger = logging.getLogger(__name__)


def covariates_of(fields: Fields, task: Task) -> dict[str, np.ndarray]:
    """The covariates asked; an emulator without any takes the labels of its samples."""
    if fields.covariate_names:
        return {name: fields.covariate(name) for name in fields.covariate_names}
    if isinstance(task, Window | LeadTime):
        times = fields.times()
        dated = times is not None and (times.dtype.kind == "M" or hasattr(times[0], "calendar"))
        return {str(fields.layout.time): times} if times is not None and dated else {}
    if task.name != "emulate":
        return {}
    labelled = [dim for dim in fields.layout.sample if dim in fields.dataset.coords]
    return {dim: fields.along(fields._dataset[dim].reset_coords(drop=True)) for dim in labelled}


def prepare(target: Fields, given: Fields | None, task: Task, config: Config, *, samples: int | None = None) -> Problem:
    """Pair, split and encode.

    Args:
        target: what is asked.
        given: what is given, where it is a dataset of its own.
        task: pairs the two.
        config: of the run.
        samples: fit the codec to so many at most, spread over the record: enough to say what would be trained.
    """
    pair = task.pair(target if given is None else begun_with(target, given), given)
    whole = split(pair.target, config.data.holdout)
    for sentence in pair.notes:
        logger.info("%s", sentence)
    for sentence in [*pair.target.warnings, *pair.warnings, *whole.warnings]:
        logger.warning("%s", sentence)
    train = whole.train
    if len(train) < 8:
        raise DataError(f"{len(train)} samples are left for training, expected at least 8; hold out less")
    if samples is not None:
        train = train[spread(len(train), samples)]
    if given is not None and pair.given is not None:
        for found in fill_values(pair.given, np.concatenate([train, whole.holdout])):
            logger.warning("given: %s", found)
    covariates = covariates_of(pair.target, task)
    coarse = pair.given if isinstance(task, Window) else None
    if coarse is not None and config.codec.motion:
        raise UsageError(
            "codec.motion=true carries on the past frames of windows and knows nothing of the coarse ones that they "
            "are given; leave it out, or train without --factor and --given"
        )
    codec, fold = fit_codec(
        pair.target,
        pair.given,
        train,
        factor=pair.factor,
        covariates=covariates,
        transforms=config.codec.transforms,
        number_of_folds=config.codec.folds,
        linear=config.codec.linear,
        cycles=() if pair.target.covariate_names else tuple(covariates) if isinstance(task, Window | LeadTime) else (),
        windows=isinstance(task, Window),
        maps=_crop(config.train.crop, pair.target) is None,
        leads=(task.clock(pair.target), task.steps(pair.target), task.past) if isinstance(task, LeadTime) else None,
        past=task.past if isinstance(task, Window) else 0,
        motion=config.codec.motion if coarse is None else False,
    )
    if isinstance(task, Window) and coarse is not None:
        fit_coarse_law(
            codec, coarse, train, covariates=covariates, transforms=config.codec.transforms,
            number_of_folds=config.codec.folds, linear=config.codec.linear, past=task.past,
            cycles=() if pair.target.covariate_names else tuple(covariates),
        )  # fmt: skip
    folds = np.full(len(pair.target), -1)
    folds[train] = fold
    crop = _crop(config.train.crop, pair.target)
    problem = Problem(pair, whole, whole.train, whole.train[:0], codec, folds, covariates, crop, task)
    if isinstance(task, LeadTime):
        problem.pairs = pairs_of(pair.target, whole.train, task)
    if samples is None:
        keep_apart(problem)
        problem.keep()
    return problem


def reopen(target: Fields, given: Fields | None, task: Task, config: Config, codec: Codec) -> Problem:
    """The problem of a run that is trained, around its codec; nothing is fitted."""
    pair = task.pair(target, given)
    whole = split(pair.target, config.data.holdout)
    all_folds = np.full(len(pair.target), -1)
    dates = date_of(pair.target, whole.train)
    stop = whole.train[np.isin(dates, stop_rows(np.unique(dates), pair.target.layout.frames))]
    covariates = covariates_of(pair.target, task)
    return Problem(pair, whole, np.setdiff1d(whole.train, stop), stop, codec, all_folds, covariates, None, task)


def _crop(wanted: str | int, fields: Fields) -> int | None:
    shape = fields.layout.shape
    if wanted == "auto":
        return auto_crop(shape)
    size = int(wanted)
    if size < 8:
        raise UsageError(f"crop is {size}, expected at least 8 cells or auto")
    return size if size < max(shape) else None
