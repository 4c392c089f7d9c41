"""The state after a continuous lead time from an initial one."""

from dataclasses import dataclass

from undrift.data.fields import Fields
from undrift.data.leads import Clock, Lead, longest_steps
from undrift.data.static import PARTS_OF_TIME
from undrift.errors import UsageError
from undrift.tasks.pair import Pair

__all__ = ["LeadTime"]


@dataclass(frozen=True)
class LeadTime:
    """Draw the state after a lead time from an initial one, x(t + tau) given x(t), at any tau up to the longest.

    One model is trained on pairs of states of all leads that the record has, and is told the lead as a number
    (FluidDiff: Yang and Sommer 2023, https://arxiv.org/abs/2301.11661), so that it also draws at leads between the
    record's steps, and at any without those before.

    Args:
        longest: lead time: text such as "24h" or a timedelta where times are dates, a number where they are not.
        past: frames up to the initial state that are given.
    """

    longest: Lead | None = None
    past: int = 1
    name = "lead-time"

    def __post_init__(self) -> None:
        if self.longest is None:
            raise UsageError("say how far a lead time may reach: --longest 24h, or a number where times are numbers")
        if not isinstance(self.past, int) or self.past < 1:
            raise UsageError(f"past is {self.past!r}, expected a number of frames of at least 1, such as --past 1")

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """The states; which of them are given before which others is drawn when they are learned."""
        if given is not None:
            raise UsageError("--task lead-time takes no --given: what is given are states of DATA itself")
        self.steps(target)
        time = target.layout.time
        own = [n for n in target.covariate_names if n != time and n not in PARTS_OF_TIME]
        moving = [n for n in own if time in target.covariates[n].dims]
        warnings = [
            f"the covariate {name!r} changes along {time}: what is drawn has that of its initial state"
            for name in moving
        ]
        return Pair(target, None, None, [], warnings)

    def clock(self, target: Fields) -> Clock:
        """How leads are counted in a record."""
        return self._counted(target)[0]

    def steps(self, target: Fields) -> int:
        """The longest lead in whole steps of a record.

        Raises:
            DataError: it is shorter than one, or the record is.
        """
        return self._counted(target)[1]

    def _counted(self, target: Fields) -> tuple[Clock, int]:
        assert self.longest is not None
        return longest_steps(target, self.longest, self.past)
