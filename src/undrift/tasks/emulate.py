"""Emulation: the field given covariates."""

from dataclasses import dataclass

from undrift.data.fields import Fields
from undrift.errors import UsageError
from undrift.tasks.pair import Pair

__all__ = ["Emulate"]


@dataclass(frozen=True)
class Emulate:
    """Draw the field given covariates of the sample alone, such as (year, scenario)."""

    name = "emulate"

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """The target; nothing else is given but its covariates."""
        if given is not None:
            raise UsageError("--task emulate takes covariates and no --given; type --task downscale for a given field")
        return Pair(target, None, None)
