"""Verification: is the ensemble right, sharp and calibrated; no torch."""

__all__ = [
    "Finding",
    "TwoSample",
    "Uniformity",
    "by_lead",
    "c2st",
    "coverage",
    "coverage_band",
    "evaluate",
    "nearest_training",
    "posterior_ranks",
    "rain_by_lead",
    "rain_thresholds",
    "read_scores",
    "sequence_scores",
    "tarp_places",
    "tarp_ranks",
    "to_table",
    "uniformity",
    "verdict",
    "write_scores",
]

from undrift.verify.c2st import TwoSample, c2st
from undrift.verify.calibration import (
    Uniformity,
    coverage,
    coverage_band,
    posterior_ranks,
    tarp_places,
    tarp_ranks,
    uniformity,
)
from undrift.verify.finding import Finding
from undrift.verify.forecast import by_lead
from undrift.verify.memorise import nearest_training
from undrift.verify.rain import rain_by_lead, rain_thresholds
from undrift.verify.scores import evaluate
from undrift.verify.sequence import sequence_scores
from undrift.verify.table import read_scores, to_table, write_scores
from undrift.verify.verdict import verdict
