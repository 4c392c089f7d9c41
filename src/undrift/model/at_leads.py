"""States after lead times of the part that training left out, and their scores by lead."""

from typing import Any

import numpy as np
import xarray as xr

from undrift.data.fields import Fields
from undrift.data.leads import Pairs
from undrift.errors import DataError
from undrift.model.evaluation import evaluate
from undrift.model.field_model import FieldModel
from undrift.tasks import LeadTime
from undrift.verify.forecast import at_lead
from undrift.verify.leads import LEAD, lead_text

__all__ = ["held_states", "middle_lead"]

_STARTS = 24


def held_states(model: FieldModel, most: int = _STARTS) -> tuple[Fields, list[Any]]:
    """States spread over the held-out part that the longest lead after them is in too, and the usual leads.

    With each state come the frames that are given before it.

    Raises:
        DataError: there is none.
    """
    task, target, held = model.task, model.problem.pair.target, model.problem.split.holdout
    assert isinstance(task, LeadTime)
    steps = task.steps(target)
    pairs = Pairs.of(target, held, task.past, steps)
    ends = held[pairs.reach[held] == steps]
    if not len(ends):
        raise DataError(f"the held-out part has no two states {task.longest} apart; hold out more, or give an ensemble")
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, most).astype(int))]
    laws = model.codec.lead_laws
    assert laws is not None
    states = target.select(np.unique(pairs.before(ends, np.full(len(ends), steps))))
    return states, [laws.clock.lead(float(lead)) for lead in laws.usual]


def middle_lead(
    model: FieldModel, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, list[str]]:
    """Scores by lead of a forecast, and those of its middle lead as of an ensemble of fields.

    Returns:
        The ensemble at that lead, its scores, the scores by lead, and what a reader should know of them.
    """
    try:
        rivals, absent = model.forecast_baselines(forecast)
    except DataError:
        rivals, absent = model.forecast_baselines(forecast, truth)
    by_lead = evaluate(forecast, truth, baselines=rivals, progress=False)
    counts: Any = by_lead["n_starts"].values
    scored = np.flatnonzero(counts)
    k = int(scored[(len(scored) - 1) // 2])
    ensemble = at_lead(forecast, k)
    at = {name: at_lead(one, k) for name, one in rivals.items()}
    scores = evaluate(ensemble, truth, baselines=at, train=model.training_data(), progress=False)
    scores.attrs["baselines_absent"] = "; ".join(absent)
    lead = lead_text(forecast[LEAD].values[k])
    notes = [
        f"Maps and scores are of states {lead} after the initial ones; the curves by lead time are of up to "
        f"{int(counts.max())} initial states of the held-out part."
    ]
    return ensemble, scores, by_lead, notes
