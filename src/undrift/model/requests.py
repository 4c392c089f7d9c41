"""From what is typed to what is asked of a model: which fields are given, and which samples are drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.data.fields import Fields
from undrift.data.frames import single_frames_of
from undrift.data.leads import Lead
from undrift.data.open import open_fields
from undrift.distributions.coarse import CoarseFrames, coarse_frames
from undrift.distributions.lead_time import request_after
from undrift.distributions.request import Request, request_at, request_from, request_holdout
from undrift.distributions.sequence import CoarseSequence, sequence_of
from undrift.distributions.windows import request_stations, request_windows
from undrift.errors import UsageError
from undrift.model.opening import Data, named
from undrift.tasks import LeadTime, Window

if TYPE_CHECKING:
    from undrift.model.field_model import FieldModel

__all__ = ["coarse_from", "frames_from", "knows_coarse", "request_of", "sequence_from", "task_of_forecast"]


def knows_coarse(model: "FieldModel") -> bool:
    """Whether the model is of windows whose coarse sequence is given."""
    return isinstance(model.task, Window) and model.codec.given_layout is not None


def sequence_from(
    model: "FieldModel", given: Data | Fields, at: str | Mapping[str, Any] | None, fine: Data | None = None
) -> CoarseSequence:
    """The coarse sequence that is given, and the fine frames that are known beside it."""
    task, parts = model.task, model.parts
    assert isinstance(task, Window) and parts.given_shell is not None
    fields = given if isinstance(given, Fields) else open_fields(given, dims=model.config.data.dims or None)
    known = None if fine is None else frames_from(model, fine)
    return sequence_of(fields, model.codec, parts.shell, parts.given_shell, task, at, known)


def frames_from(model: "FieldModel", given: Data | None) -> Fields:
    """Single frames of given data, or of the run's own."""
    if given is None:
        return single_frames_of(model.problem.pair.target)
    names = list(model.codec.layout.variables)
    given = named(given, model.config, names)
    fields = open_fields(given, dims=model.config.data.dims or None)
    own = [v for v in names if v in fields.layout.variables]
    if set(own) == set(fields.layout.variables) or not own:
        return fields
    return open_fields(given, dims=model.config.data.dims or None, variables=own)


def coarse_from(model: "FieldModel", coarse: Data | None) -> CoarseFrames | None:
    """The coarse frames that windows of a forecast are given, where training had such."""
    if not knows_coarse(model):
        if coarse is not None:
            raise UsageError(
                "coarse frames are for a model of windows that are given a coarse sequence; train it with --factor 4"
            )
        return None
    assert isinstance(model.task, Window) and model.parts.given_shell is not None
    fields = None if coarse is None else open_fields(coarse, dims=model.config.data.dims or None)
    return coarse_frames(fields, model.codec, model.parts.given_shell, model.task.frames)


def task_of_forecast(model: "FieldModel") -> Window:
    """The task of a model that can forecast; tells what to type where it cannot."""
    task = model.task
    if isinstance(task, LeadTime):
        raise UsageError(
            "a forecast goes on window after window, and this model draws any lead at once; type "
            "undrift sample RUN --given INIT.nc --lead 3h,6h --out FC.nc"
        )
    if not isinstance(task, Window):
        raise UsageError(
            f"a forecast needs a model of windows, and this one's task is {task.name}; train one "
            "with --task window --past 4 --future 8"
        )
    return task


def request_of(
    model: "FieldModel",
    given: Data | Fields | None,
    holdout: bool,
    at: str | Mapping[str, Any] | None,
    know: str | None = None,
    observe: str | Path | None = None,
    lead: Lead | Sequence[Lead] | None = None,
) -> Request:
    """What is asked of a model by the arguments of :meth:`FieldModel.sample`; tells which do not go together."""
    if isinstance(model.task, LeadTime):
        if observe is not None or know is not None:
            name = "know" if observe is None else "observe"
            raise UsageError(f"{name} needs a model of windows, and this one's task is lead-time; leave {name} out")
        return _after(model, given, holdout, at, lead)
    if lead is not None:
        raise UsageError(f"lead={lead!r} is for a model of lead times, and this one's task is {model.task.name}")
    if observe is not None:
        if given is not None or holdout or at is not None:
            raise UsageError("observe says what is known by itself; leave given, holdout and at out")
        return _from_stations(model, observe)
    if holdout and given is not None:
        raise UsageError("both given and holdout say what is given; give one")
    if holdout:
        return request_holdout(model.problem, model.parts.given_shell, at, know)
    if know is not None:
        raise UsageError("know says which frames of held-out windows are given; use it with holdout")
    return _from_labels(model, at) if given is None else _from_given(model, given, at)


def _from_stations(model: "FieldModel", observe: str | Path) -> Request:
    """Windows of which stations saw something."""
    task = model.task
    if not isinstance(task, Window):
        raise UsageError(
            f"observe needs a model of windows that may be given nothing, and this one's task is "
            f"{task.name}; train one with --task window --past 0 --future 1"
        )
    if knows_coarse(model):
        raise UsageError("observe needs a model of windows that is given no coarse sequence; train without --factor")
    return request_stations(observe, model.codec, model.parts.shell, task, model.codec.layout.time or "sample")


def _from_given(model: "FieldModel", given: Data | Fields, at: str | Mapping[str, Any] | None) -> Request:
    """Samples of what is given, or windows that are known in part."""
    task = model.task
    if not isinstance(given, Fields):
        given = named(given, model.config, model.codec.layout.variables) if isinstance(task, Window) else given
        given = open_fields(given, dims=model.config.data.dims or None)
    if isinstance(task, Window):
        return request_windows(given, model.codec, model.parts.shell, task, at)
    return request_from(given, model.codec, model.parts.given_shell, at)


def _from_labels(model: "FieldModel", at: str | Mapping[str, Any] | None) -> Request:
    """Samples with covariates, of a model that is given nothing else."""
    if model.codec.given_layout is not None:
        raise UsageError("say what is given: --given COARSE.nc, or --holdout for the samples that training left out")
    if isinstance(model.task, Window):
        raise UsageError("say what is given: --given LAST.nc, what is NaN or absent there is asked, or --holdout")
    if at is None:
        raise UsageError("say for which covariates: --at year=2085,scenario=E1, or --holdout")
    return request_at(at, model.codec)


def _after(
    model: "FieldModel", given: Data | Fields | None, holdout: bool, at: str | Mapping[str, Any] | None,
    lead: Lead | Sequence[Lead] | None,
) -> Request:  # fmt: skip
    """States after lead times from given ones, or from those of the held-out part."""
    if holdout == (given is not None):
        raise UsageError("say which states to begin with: --given INIT.nc, or --holdout; one of them")
    if given is None:
        states = model.problem.pair.target.select(model.problem.split.holdout)
    else:
        states = given if isinstance(given, Fields) else open_fields(given, dims=model.config.data.dims or None)
    return request_after(states, model.codec, model.parts.shell, at, lead, usual=holdout)
