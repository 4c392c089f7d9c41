"""From noise to fields."""

from undrift.infer.sample import Draw, sample

__all__ = ["Draw", "sample"]
