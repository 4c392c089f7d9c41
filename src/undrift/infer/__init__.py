"""From noise to fields, and how probable fields are."""

from undrift.infer.density import Density, log_prob
from undrift.infer.sample import Draw, sample

__all__ = ["Density", "Draw", "log_prob", "sample"]
