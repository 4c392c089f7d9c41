"""A sentence of a verdict."""

__all__ = ["Finding", "Level"]

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "info", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict.

    Attributes:
        topic: "skill", "calibration", "bias", "distribution", "memorisation", "spectrum", "range", "training" or
            "matching".
        level: "good", "warn" where the reader should know, "bad" where the ensemble should not be used as it is,
            "info" otherwise.
        text: the sentence.
    """

    topic: str
    level: Level
    text: str

    def __str__(self) -> str:
        return self.text
