"""Downscaling: the fine field given the coarse one."""

from dataclasses import dataclass

from undrift.data.cut import coarsened, trimmed
from undrift.data.fields import Fields
from undrift.data.members import given_to
from undrift.errors import UsageError
from undrift.tasks.pair import Pair, join_given

__all__ = ["Downscale"]


@dataclass(frozen=True)
class Downscale:
    """Draw the fine field given the coarse one.

    What is given is the mean of the target over blocks of ``factor`` cells along each space dim, or, where a dataset
    is given beside the target, that one: on any grid, of any variables, and with all members of a date at once where
    it is an ensemble and the target none. The means are plain ones, each cell counting
    alike whatever its area; what is given when drawing should be made so too.

    Args:
        factor: fine cells per coarse cell along each space dim.
    """

    factor: int = 4
    name = "downscale"

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise UsageError(f"factor is {self.factor}, expected at least 1; type --factor 4")

    def pair(self, target: Fields, given: Fields | None = None) -> Pair:
        """Target and given, sample by sample."""
        if given is not None:
            return join_given(target, given_to(target, given))
        fine, notes = trimmed(target, self.factor)
        return Pair(fine, coarsened(fine, self.factor), (self.factor,) * len(fine.layout.space), notes)
