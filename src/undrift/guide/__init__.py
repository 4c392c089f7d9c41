"""Denoisers around a denoiser: what is observed steers what is drawn."""

from undrift.guide.observe import Observation
from undrift.guide.operators import BlockMeans, FourierModes, Function, Mask, Points, RegionalSums
from undrift.guide.posterior import DPS, MMPS, PiGDM

__all__ = [
    "DPS",
    "MMPS",
    "BlockMeans",
    "FourierModes",
    "Function",
    "Mask",
    "Observation",
    "PiGDM",
    "Points",
    "RegionalSums",
]
