"""Enrichment: further members given some members of the same date."""

from dataclasses import dataclass

from undrift.data.fields import Fields
from undrift.data.members import ensemble_of, others_of
from undrift.errors import UsageError
from undrift.tasks.pair import Pair

__all__ = ["Enrich"]


@dataclass(frozen=True)
class Enrich:
    """Draw one more member of a date given others of it, as SEEDS (Li et al. 2024, https://arxiv.org/abs/2306.14066).

    In training each member is asked given others of its date, which and in which order is drawn anew at each step: the
    law does not depend on the order of what is given. All members of a date train, or all are held out.

    Args:
        members: how many are given, at most; those that are missing when drawing are drawn first, by the law of what
            is given.
    """

    members: int = 2
    name = "enrich"

    def __post_init__(self) -> None:
        if not isinstance(self.members, int) or self.members < 1:
            raise UsageError(f"members is {self.members!r}, expected at least 1; type --members 2")

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """Each member, and others of its date."""
        if given is not None:
            raise UsageError("--task enrich takes no --given: what is given are other members of DATA itself")
        asked = ensemble_of(target)
        return Pair(asked, others_of(asked, self.members), (1,) * len(asked.layout.space))
