"""What a model is, for people to read."""

from typing import TYPE_CHECKING, Any

from undrift.model.versions import versions_of
from undrift.nets.members import member_of, number_of

if TYPE_CHECKING:
    from undrift.model.field_model import FieldModel

__all__ = ["described"]

# Facts that are not told of the training; old runs hold a judgement of their own, by the criteria of their time.
_APART = ("history", "fingerprint", "parameters", "static", "still_improving")


def described(model: "FieldModel") -> dict[str, Any]:
    """The task, the data, the codec, the network and the training, JSON-able."""
    layout = model.codec.layout
    return {
        "task": model.config.task.name,
        "cells per given cell": None if model.codec.factor is None else list(model.codec.factor),
        "data": model.config.data.model_dump(exclude_defaults=True),
        "variables": {c.label: layout.units.get(c.variable, "") for c in layout.channels},
        "grid": dict(zip(layout.space, layout.shape)),
        "periodic": [d for d, p in zip(layout.space, layout.periodic) if p],
        "transforms": {c.label: t.kind for c, t in zip(layout.channels, model.codec.transforms)},
        "block means kept of": [c.label for c, kept in zip(layout.channels, model.codec.conserves) if kept],
        "static": model.facts.get("static", []),
        "covariates": model.codec.covariates.names,
        "linear predictor": {
            "stages": [*model.codec.predictor.stages, *(["curve"] if model.codec.curves else [])],
            "channels": model.codec.predictor.described([c.label for c in layout.channels]),
        },
        **({} if model.codec.lead_laws is None else {"lead times": model.codec.lead_laws.described()}),
        "network": {
            "kind": model.config.net.kind if model._rebuilt() else "own",
            "members": number_of(model.net),
            "channels": list(getattr(member_of(model.net, 0), "channels", [])),
            "parameters of each": sum(p.numel() for p in member_of(model.net, 0).parameters()),
        },
        "training": {
            **{k: v for k, v in model.facts.items() if k not in _APART},
            "still_improving": model.under_trained(),
        },
        "fingerprint": model.facts.get("fingerprint"),
        **versions_of(model.parts.versions),
        "run": None if model.run is None else str(model.run),
    }  # fmt: skip
