"""One object: labelled samples in, a distribution of labelled fields out; and how good its ensembles are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from undrift.model.density_model import DensityModel
    from undrift.model.evaluation import evaluate
    from undrift.model.field_model import FieldModel, load
    from undrift.model.training import fit, fit_config

__all__ = ["DensityModel", "FieldModel", "evaluate", "fit", "fit_config", "load"]

# Imported when first asked for: scores without a run do without torch.
_HOMES = {
    "DensityModel": "density_model", "FieldModel": "field_model", "evaluate": "evaluation", "fit": "training",
    "fit_config": "training", "load": "field_model",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'undrift.model' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"undrift.model.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
