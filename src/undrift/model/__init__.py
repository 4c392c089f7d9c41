"""One object: labelled samples in, a distribution of labelled fields out."""

from undrift.model.field_model import FieldModel, load
from undrift.model.training import fit, fit_config

__all__ = ["FieldModel", "fit", "fit_config", "load"]
