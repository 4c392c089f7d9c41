"""Trainings that are at their best long before their time is over: done again, with a schedule that ends there.

The learning rate falls over the whole of a training. One that has learned few rows by heart after a tenth of its budget
is stopped with the rate at its peak; about as many steps in which it falls to zero learn more of the law.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from undrift.train.settings import Settings, Trained

__all__ = ["annealed"]

Net = TypeVar("Net")
_MOST = 3
_LONGER = 1.3  # than until the best: with a falling rate rows are learned by heart later
_OF_TIME = 0.9  # that is left
_FEWEST, _LEAST = 0.5, 20  # of the steps until the best, and steps, below which it is not worth while


def annealed(once: Callable[[Settings], tuple[Net, Trained]], settings: Settings) -> tuple[Net, Trained]:
    """What a training gives, or the same training ended by a falling rate where it validates better, and so on.

    Args:
        once: a training from its beginning, by settings.
        settings: of the first. By steps, or where its last validation is not worse than its best by what the settings
            say, it is the only one.
    """
    net, found = once(settings)
    if settings.budget is None:
        return net, found
    left = settings.budget - found.seconds
    for _ in range(_MOST):
        steps = _next_steps(found, settings.worse, left)
        if steps is None:
            break
        other, again = once(replace(settings, budget=None, steps=steps, patience=None))
        left -= again.seconds
        if again.best_loss is None or found.best_loss is None or again.best_loss >= found.best_loss:
            break
        net, found = other, again
    return net, found


def _next_steps(found: Trained, worse: float, left: float) -> int | None:
    """Of a training that ends where this one was at its best, within the seconds left; None where there is no need."""
    last = found.history[-1][1] if found.history else None
    if found.best_step is None or found.best_loss is None or (last is not None and last < found.best_loss + worse):
        return None
    steps = min(round(_LONGER * found.best_step), int(_OF_TIME * left * found.steps / found.seconds))
    return steps if steps >= max(_LEAST, _FEWEST * found.best_step) else None
