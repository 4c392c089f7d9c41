"""The pairs of states that a training of lead times draws from."""

import logging

import numpy as np

from undrift.data.fields import Fields
from undrift.data.leads import Pairs
from undrift.errors import DataError
from undrift.tasks import LeadTime

__all__ = ["pairs_of"]

logger = logging.getLogger(__name__)

_LEAST = 8


def pairs_of(target: Fields, train: np.ndarray, task: LeadTime) -> Pairs:
    """The pairs of training states up to the longest lead.

    Raises:
        DataError: there are too few.
    """
    longest = task.steps(target)
    pairs = Pairs.of(target, train, task.past, longest)
    ends = int((pairs.reach > 0).sum())
    if ends < _LEAST:
        raise DataError(
            f"{ends} states of the training part follow others without a gap, expected at least {_LEAST}; hold out less"
        )
    if int(pairs.reach.max()) < longest:
        furthest = task.clock(target).text(int(pairs.reach.max()))
        raise DataError(
            f"no two states of the training part are {task.longest} apart without a gap; type --longest {furthest}"
        )
    logger.info("%d pairs of states up to %s apart train", pairs.count, task.longest)
    return pairs
