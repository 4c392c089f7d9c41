"""What an objective brings besides the network: networks of its own, stepped in turn with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from undrift.tasks.batch import Batch

__all__ = ["Player", "after_step", "players"]


@dataclass(frozen=True)
class Player:
    """A network of an objective's own: a critic with its loss, or a teacher that only follows.

    An objective names them in its attribute ``players``, a mapping by name. Before each step of the network each of
    them takes one of its own, with an optimiser of its own; all are saved with a checkpoint, and in validation they are
    in evaluation mode. An objective that has a method ``after_step(net)`` is told of each step that changed the
    network.

    Attributes:
        net: the network, on the device of the training.
        loss: ``loss(batch, model, key) -> (loss of each sample (B,), diagnostics)``, of which the gradient by this
            network alone is used; None for one that the objective moves by itself.
    """

    net: nn.Module
    loss: Callable[[Batch, Any, int], tuple[Tensor, Mapping[str, Any]]] | None = None


def players(objective: object) -> Mapping[str, Player]:
    """The players of an objective by name, none where it names none.

    Raises:
        TypeError: the objective has neither ``players`` nor ``after_step``, but something of nearly that name.
    """
    for name in ("players", "after_step"):
        alike = [other for other in dir(objective) if other.startswith(name[0])]
        near = get_close_matches(name, alike, n=1, cutoff=0.85)
        if near and near != [name]:
            raise TypeError(
                f"{type(objective).__name__} has {near[0]!r}, which no training looks at; did you mean {name!r}?"
            )
    return getattr(objective, "players", {})


def after_step(objective: object, net: nn.Module) -> None:
    """Tell an objective that wants to know that the network has changed."""
    told = getattr(objective, "after_step", None)
    if told is not None:
        told(net)
