"""Noising processes and keyed noise."""

from undrift.process.noise import Key, normal, uniform
from undrift.process.process import EDM, Process, Transition

__all__ = ["EDM", "Key", "Process", "Transition", "normal", "uniform"]
