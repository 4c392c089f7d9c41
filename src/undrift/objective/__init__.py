"""Objectives: what a network is trained to make small."""

from undrift.objective.classification import CrossEntropy
from undrift.objective.dropping import Dropping
from undrift.objective.likelihood import ContinuousVLB, DiscreteVLB, Terms, bits_per_dimension
from undrift.objective.matching import FlowMatching, ImplicitScoreMatching, ScoreMatching
from undrift.objective.players import Player
from undrift.objective.times import LogNormal, Times, Uniform
from undrift.objective.weights import SNR, EDMWeight, Likelihood, MinSNR, Simple, Weight

__all__ = [
    "SNR",
    "ContinuousVLB",
    "CrossEntropy",
    "DiscreteVLB",
    "Dropping",
    "EDMWeight",
    "FlowMatching",
    "ImplicitScoreMatching",
    "Likelihood",
    "LogNormal",
    "MinSNR",
    "Player",
    "ScoreMatching",
    "Simple",
    "Terms",
    "Times",
    "Uniform",
    "Weight",
    "bits_per_dimension",
]
