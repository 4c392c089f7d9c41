"""Noising processes, the laws of their noise, the joint laws of their ends, and keyed numbers."""

from undrift.process.check import check_process
from undrift.process.coupling import Bridge, ConditionalOT, Coupling, DataToData, Independent, MinibatchOT
from undrift.process.custom import FromSchedule, FromSDE
from undrift.process.discrete_betas import DiscreteBetas
from undrift.process.edm import EDM
from undrift.process.keyed import Key, normal, uniform
from undrift.process.noise import Coloured, Empirical, Noise, StudentT, White
from undrift.process.process import Posterior, Process, Transition
from undrift.process.rectified_flow import RectifiedFlow
from undrift.process.variance_exploding import NCSN, VE, SubVP
from undrift.process.variance_preserving import Cosine, LinearBeta, LinearLogSNR, VariancePreserving

__all__ = [
    "EDM",
    "NCSN",
    "VE",
    "Bridge",
    "Coloured",
    "ConditionalOT",
    "Cosine",
    "Coupling",
    "DataToData",
    "DiscreteBetas",
    "Empirical",
    "FromSDE",
    "FromSchedule",
    "Independent",
    "Key",
    "LinearBeta",
    "LinearLogSNR",
    "MinibatchOT",
    "Noise",
    "Posterior",
    "Process",
    "RectifiedFlow",
    "StudentT",
    "SubVP",
    "Transition",
    "VariancePreserving",
    "White",
    "check_process",
    "normal",
    "uniform",
]
