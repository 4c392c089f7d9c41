"""Fitting the law of frames that move, and whether it is better than that of windows."""

import logging
from collections.abc import Iterator

import numpy as np

from undrift.data.censored import surprise
from undrift.data.codec import Codec
from undrift.data.linear import spread
from undrift.data.motion_law import MotionLaws, fit_motion_laws
from undrift.data.training_part import TrainingPart

__all__ = ["fit_motion"]

logger = logging.getLogger(__name__)

_READ = 4_000_000_000 // 8  # numbers of latents that pass through the fit, at most
_SCORED = 12  # windows, spread over the record


def fit_motion(codec: Codec, part: TrainingPart, past: int, wanted: bool | None) -> MotionLaws | None:
    """The law of frames that move.

    None where that of windows says more of the frames ahead of left-out blocks, in nats a cell, and it is not
    ``wanted`` in any case.

    Args:
        codec: with its law of windows.
        part: the training windows.
        past: frames that are given.
        wanted: True for sure; None where it is better.
    """
    frames, shape = codec.layout.frames, codec.layout.shape
    size = len(codec.layout.channels) * int(np.prod(shape))
    some = spread(len(part), max(20, _READ // size // 20))

    def windows() -> Iterator[np.ndarray]:
        for at in some:
            yield codec.latents(part.target.read(part.rows[[at]]), None)[0].reshape(-1, frames, *shape)

    low, high = (v.ravel()[::frames] for v in (codec.low, codec.high))
    laws = fit_motion_laws(windows(), part.fold[some], past=past, low=low, high=high, periodic=codec.layout.periodic)
    if wanted:
        return laws
    errors = {}
    for name, one in (("motion", laws), ("windows", None)):
        codec.motion_laws = one
        errors[name] = _surprise(codec, part, past)
    codec.motion_laws = None
    better = errors["motion"] < errors["windows"]
    logger.info(
        "frames ahead are predicted %s: %.3f nats a cell, and %.3f without",
        "by their motion" if better else "without their motion; with it", errors["motion"], errors["windows"],
    )  # fmt: skip
    return laws if better else None


def _surprise(codec: Codec, part: TrainingPart, past: int) -> float:
    """Mean negative log-likelihood of frames ahead given those before, by laws without their fold."""
    frames, out = codec.layout.frames, []
    for at in spread(len(part), _SCORED)[:, None]:
        _, prediction = part.encode(codec, at, known=part.up_to(past, at))
        u = codec.latents(part.target.read(part.rows[at]), prediction.seasons)
        for channel in np.flatnonzero(np.arange(len(codec.layout.channels)) % frames >= past):
            there = ~np.isnan(u[0, channel])
            seen, mean, std = (v[0, channel][there] for v in (u, prediction.mean, prediction.std))
            low, high = codec.transforms[channel].thresholds
            out.append(surprise(seen, mean, std, low, high).mean())
    return float(np.nanmean(out))
