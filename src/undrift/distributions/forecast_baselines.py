"""Rivals of a forecast: simple forecasts, each dressed with the errors that it makes at each lead.

Errors are of starts within the training record, by predictors that were fitted without the block of time around the
start. See :mod:`undrift.distributions.baselines` for the dress.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from undrift.data.motion import carried, motion
from undrift.distributions.baselines import MEMBERS, dress
from undrift.distributions.climatology import fit_climatologies
from undrift.distributions.eof_ridge import fit_eof_ridges
from undrift.distributions.record import Block, Known, Record, blocks_of, known_at

__all__ = ["ForecastBaseline", "fit_forecast_baselines", "lagrangian", "persistence"]

_STARTS = 200  # whose errors dress a baseline
_NUMBERS = 50_000_000  # of such errors, at most
_BATCH = 8

Predictor = Callable[[Known], np.ndarray]


@dataclass(frozen=True)
class ForecastBaseline:
    """A simple forecast and members of its own errors.

    Attributes:
        predict: forecasts (n, leads, C, *space) from what is known.
        members: of its errors, (members, leads, C, *space).
        note: in words.
    """

    predict: Predictor
    members: np.ndarray
    note: str


def persistence(known: Known) -> np.ndarray:
    """The last frame at every lead."""
    return np.repeat(known.past[:, None, :, -1], len(known.steps), axis=1)


def lagrangian(periodic: Sequence[bool]) -> Predictor:
    """The last frame carried on along the motion of the past frames (Lagrangian persistence)."""

    def predict(known: Known) -> np.ndarray:
        steps = [int(step) for step in known.steps]
        out = [carried(past[:, -1], motion(past, periodic), periodic, steps) for past in known.past]
        return np.stack(out)

    return predict


def fit_forecast_baselines(
    record: Record, past: int, steps: np.ndarray, periodic: Sequence[bool]
) -> tuple[dict[str, ForecastBaseline], list[str]]:
    """Persistence, Lagrangian persistence, climatology and EOF ridge, and a sentence on each that there is not.

    Args:
        record: of the training part, in the data's units.
        past: frames that are known.
        steps: of the leads, ascending.
        periodic: of each space axis.

    Raises:
        DataError: the record has no frames in a row for one forecast.
    """
    blocks = blocks_of(record, past, steps)
    climatologies = fit_climatologies(record, blocks)
    year, day = climatologies[-1].cycles
    told = f"mean of the training part, with {year} harmonics of the year and {day} of the day"
    found: dict[str, tuple[list[Predictor], str]] = {
        "persistence": ([persistence] * len(blocks), "the last frame"),
        "climatology": ([lambda known, c=c: c(known.valid) for c in climatologies], told),
    }
    absent = []
    if past > 1:
        moved = [lagrangian(periodic)] * len(blocks)
        found["Lagrangian persistence"] = moved, "the last frame carried on along the motion of the past ones"
    else:
        absent.append("no Lagrangian persistence: one past frame shows no motion; train with --past 2 or more")
    ridges = fit_eof_ridges(record, blocks, climatologies, past, steps)
    if ridges is None:
        absent.append("no EOF ridge: the training part has too few starts outside a block of time")
    else:
        found["EOF ridge"] = list(ridges), "ridge among the leading EOFs, from the past frames"
    out = {}
    for name, (predictors, note) in found.items():
        members = dressed_by_lead(errors_by_lead(record, blocks, predictors, past, steps))
        out[name] = ForecastBaseline(predictors[-1], members, note)
    return out, absent


def errors_by_lead(
    record: Record, blocks: Sequence[Block], predictors: Sequence[Predictor], past: int, steps: np.ndarray
) -> np.ndarray:
    """Errors (n, leads, C, *space) of forecasts that start in each block, by the predictor without that block."""
    size = len(steps) * int(np.prod(record.values.shape[1:]))
    most = max(MEMBERS, min(_STARTS, _NUMBERS // size))
    every = blocks[-1].starts
    chosen = every[np.unique(np.linspace(0, len(every) - 1, most).astype(int))]
    errors = []
    for block, predict in zip(blocks[:-1], predictors):
        rows = np.intersect1d(block.starts, chosen)
        for at in (rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)):
            known, truth = known_at(record, at, past, steps)
            errors.append((truth - predict(known)).astype(np.float32))
    return np.concatenate(errors)


def dressed_by_lead(errors: np.ndarray) -> np.ndarray:
    """Members (members, leads, C, *space) of errors (n, leads, C, *space), each lead of its own."""
    return np.stack([dress(errors[:, lead]) for lead in range(errors.shape[1])], axis=1)
