"""Guidance: denoisers around a denoiser that know more than it does."""

from undrift.guide.bounded import BoundedMeans
from undrift.guide.classifier import ClassifierGuidance, NoisyClassifier
from undrift.guide.classifier_free import ClassifierFree
from undrift.guide.constrained import Constrained
from undrift.guide.constraints import Bounds, CoarseMeans, Constraint, Integral, Linear
from undrift.guide.divergence import DivergenceFree, DivergenceFreeWith
from undrift.guide.kalman import Kalman
from undrift.guide.observe import Observation
from undrift.guide.operators import BlockMeans, FourierModes, Function, Mask, Points, RegionalSums, Scaled
from undrift.guide.posterior import DPS, MMPS, PiGDM
from undrift.guide.replacement import Replacement
from undrift.guide.together import Together

__all__ = [
    "DPS",
    "MMPS",
    "BlockMeans",
    "BoundedMeans",
    "Bounds",
    "ClassifierFree",
    "ClassifierGuidance",
    "CoarseMeans",
    "Constrained",
    "Constraint",
    "DivergenceFree",
    "DivergenceFreeWith",
    "FourierModes",
    "Function",
    "Integral",
    "Kalman",
    "Linear",
    "Mask",
    "NoisyClassifier",
    "Observation",
    "PiGDM",
    "Points",
    "RegionalSums",
    "Replacement",
    "Scaled",
    "Together",
]
