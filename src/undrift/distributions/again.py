"""Trainings that are at their best long before their time is over: done again, with a schedule that ends there.

The learning rate falls over the whole of a training. One that has learned few rows by heart after a tenth of its budget
is stopped with the rate at its peak; as many steps in which it falls to zero learn more of the law.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from undrift.train.settings import Settings, Trained

__all__ = ["annealed"]

Net = TypeVar("Net")
_LONGER = 1.3  # than until the best: with a falling rate rows are learned by heart later
_OF_TIME = 0.9  # that is left
_FEWEST = 0.5  # of the steps until the best, below which it is not worth while
_VALIDATIONS = 20


def annealed(once: Callable[[Settings], tuple[Net, Trained]], settings: Settings) -> tuple[Net, Trained]:
    """What a training gives, or the same training ended by a falling rate, whichever validates better.

    Args:
        once: a training from its beginning, by settings.
        settings: of the first. By steps, or where its patience lasts, it is the only one.
    """
    net, found = once(settings)
    if settings.budget is None or found.stop != "patience" or found.best_step is None or found.best_loss is None:
        return net, found
    time_for = int(_OF_TIME * (settings.budget - found.seconds) * found.steps / found.seconds)
    steps = min(round(_LONGER * found.best_step), time_for)
    if steps < max(1, _FEWEST * found.best_step):
        return net, found
    other, again = once(replace(settings, budget=None, steps=steps, patience=None, validate_every=1 / _VALIDATIONS))
    better = again.best_loss is not None and again.best_loss < found.best_loss
    return (other, again) if better else (net, found)
