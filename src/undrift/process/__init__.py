"""Noising processes and keyed noise."""

from undrift.process.noise import Key, normal, seed_of, uniform
from undrift.process.process import EDM, Process, Transition

__all__ = ["EDM", "Key", "Process", "Transition", "normal", "seed_of", "uniform"]
