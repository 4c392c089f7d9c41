"""Distributions from samples of physical fields: train, draw and score calibrated ensembles."""

__all__ = [
    "CheckpointError",
    "DataError",
    "Downscale",
    "Emulate",
    "Enrich",
    "FieldModel",
    "IncompleteError",
    "Interrupted",
    "LeadTime",
    "UndriftError",
    "UsageError",
    "Window",
    "__version__",
    "check",
    "evaluate",
    "fit",
    "load",
    "nested",
]

from typing import TYPE_CHECKING

from undrift.errors import CheckpointError, DataError, IncompleteError, Interrupted, UndriftError, UsageError

if TYPE_CHECKING:
    from undrift.data.check import check
    from undrift.infer.nested import nested
    from undrift.model import FieldModel, evaluate, fit, load
    from undrift.tasks.downscale import Downscale
    from undrift.tasks.emulate import Emulate
    from undrift.tasks.enrich import Enrich
    from undrift.tasks.lead_time import LeadTime
    from undrift.tasks.window import Window

__version__ = "0.1.0"

# Imported when first asked for: `import undrift` and `undrift --help` must not wait for torch.
_HOMES = {
    "Downscale": "undrift.tasks.downscale",
    "Emulate": "undrift.tasks.emulate",
    "Enrich": "undrift.tasks.enrich",
    "LeadTime": "undrift.tasks.lead_time",
    "Window": "undrift.tasks.window",
    "FieldModel": "undrift.model",
    "check": "undrift.data.check",
    "evaluate": "undrift.model",
    "fit": "undrift.model",
    "load": "undrift.model",
    "nested": "undrift.infer.nested",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'undrift' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
