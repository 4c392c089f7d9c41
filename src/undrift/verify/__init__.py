"""Verification: is the ensemble right, sharp and calibrated; no torch."""

__all__ = [
    "Finding",
    "by_lead",
    "evaluate",
    "nearest_training",
    "rain_by_lead",
    "rain_thresholds",
    "read_scores",
    "sequence_scores",
    "to_table",
    "verdict",
    "write_scores",
]

from undrift.verify.finding import Finding
from undrift.verify.forecast import by_lead
from undrift.verify.memorise import nearest_training
from undrift.verify.rain import rain_by_lead, rain_thresholds
from undrift.verify.scores import evaluate
from undrift.verify.sequence import sequence_scores
from undrift.verify.table import read_scores, to_table, write_scores
from undrift.verify.verdict import verdict
