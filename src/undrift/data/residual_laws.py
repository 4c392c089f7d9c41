"""Fitting the laws of out-of-fold residuals: with the time of year, within windows, and after leads."""

import logging
import math
from collections.abc import Iterator

import numpy as np

from undrift.data.codec import Codec
from undrift.data.lead_fit import fit_lead_laws
from undrift.data.lead_law import LeadLaws
from undrift.data.leads import Clock, places_of
from undrift.data.linear import spread
from undrift.data.season import fit_season
from undrift.data.training_part import TrainingPart, in_blocks_of
from undrift.data.window_fit import fit_window_laws
from undrift.data.window_law import WindowLaws

__all__ = ["lead_laws_of", "season_of", "window_laws_of"]

logger = logging.getLogger(__name__)

_NUMBERS = 60_000_000  # read for a law, windows x channels x cells
_LEAST = 20  # windows
_PIECES = 10  # of a record that is too long to be read as a whole


def season_of(codec: Codec, part: TrainingPart) -> np.ndarray:
    """How the variance of out-of-fold residuals goes with the time of year."""
    draw = None if codec.anamorphosis is None else np.random.default_rng(0)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for at in in_blocks_of(np.arange(len(part))):
            encoded, _ = part.encode(codec, at, draw)
            assert encoded.x is not None and encoded.weight is not None
            cycle = codec.covariates.basis(part.told(at), len(at))[:, :4]
            yield cycle, np.where(encoded.weight > 0, encoded.x, np.nan)

    return fit_season(blocks(), codec.layout.frames, codec.layout.periodic)


def window_laws_of(codec: Codec, part: TrainingPart, maps: bool) -> WindowLaws:
    """The law of windows, from out-of-fold residuals of some of them."""
    frames, shape = codec.layout.frames, codec.layout.shape
    size = len(codec.layout.channels) * math.prod(shape)
    some = spread(len(part), max(_LEAST, _NUMBERS // size))
    r = part.residuals(codec, some).reshape(len(some), -1, frames, *shape)
    laws, errors = fit_window_laws(r, part.fold[some], maps=maps, periodic=codec.layout.periodic)
    if len(errors) > 1:
        _tell("windows", errors)
    return laws


def lead_laws_of(codec: Codec, part: TrainingPart, maps: bool, clock: Clock, longest: int, past: int) -> LeadLaws:
    """The law of states after a lead, from out-of-fold residuals of the record, or of pieces of a long one."""
    place = places_of(part.target)[part.rows]
    order = np.argsort(place, kind="stable")
    size = len(codec.layout.channels) * math.prod(codec.layout.shape)
    most = max(_NUMBERS // size, _PIECES * (longest + past))
    if len(order) > most:
        first = np.linspace(0, len(order) - most // _PIECES, _PIECES).astype(int)
        order = order[np.unique(np.concatenate([np.arange(f, f + most // _PIECES) for f in first]))]
    r = part.residuals(codec, order)
    laws, errors = fit_lead_laws(r, place[order], part.fold[order], clock, longest, past, maps=maps)
    _tell("states", errors)
    return laws


def _tell(what: str, errors: dict[tuple[int, int, float], float]) -> None:
    """Which of the laws that were tried is the best."""
    maps, coupled, common = min(errors, key=lambda choice: errors[choice])
    logger.info("%s are predicted by %d maps, %d of them coupled, drawn together by %g", what, maps, coupled, common)
