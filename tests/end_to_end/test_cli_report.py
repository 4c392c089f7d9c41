"""`undrift report` on runs as users have them: old, short, with strange names, with a truth of its own."""

from pathlib import Path
from types import SimpleNamespace

import xarray as xr

import undrift
from undrift.cli.report import _note_training

KEPT = Path(__file__).parents[1] / "data" / "run_0_1" / "run"


def noted(**facts):
    """What the scores are told of a training with these facts."""
    scores = xr.Dataset(attrs={"still_improving": 0})
    _note_training(scores, SimpleNamespace(facts=facts))
    return scores.attrs


def test_a_run_of_three_steps_is_under_trained_whatever_it_says_itself():
    """The kept run was written when three steps passed for enough."""
    model = undrift.load(KEPT, device="cpu")
    assert model.facts["still_improving"] is False
    told = noted(**model.facts)
    assert told["still_improving"] == 1 and told["trained_for"] == "3 steps, 0.51 passes over 47 samples"


def test_without_validations_nothing_is_said_of_the_training():
    assert noted(steps=5000, history=[]) == {}
    assert noted(steps=5000, history=[[2500, 0.9], [5000, 0.9001]])["still_improving"] == 0
