"""Training with and without what is given, in one network."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from undrift.errors import check_number
from undrift.objective.players import after_step, players
from undrift.process import Key, uniform
from undrift.tasks.batch import Batch

__all__ = ["Dropping"]


class Dropping:
    """An objective of which some rows are given nothing, so that the network learns the unconditional law too.

    Ho & Salimans (2022), https://arxiv.org/abs/2207.12598, algorithm 1.

    Args:
        objective: any, see :mod:`undrift.objective`.
        probability: with which a row's condition is dropped, see :meth:`undrift.tasks.batch.Condition.drop`.
    """

    def __init__(
        self, objective: Callable[[Batch, Any, int], tuple[Tensor, Mapping[str, Any]]], probability: float = 0.1
    ) -> None:
        check_number(probability=probability)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability}, expected a number from 0 to 1")
        self.objective, self.probability = objective, float(probability)
        self.players = {
            name: replace(player, loss=player.loss and Dropping(player.loss, probability))
            for name, player in players(objective).items()
        }

    def __call__(self, batch: Batch, model: Any, key: int) -> tuple[Tensor, Mapping[str, Any]]:
        """As of the objective; which rows are dropped is drawn by a key of its own, apart from its times and noise."""
        share = torch.from_numpy(uniform(Key(key, "dropped"), (len(batch),))).to(batch.x.device)
        condition = batch.condition.drop(share < self.probability)
        return self.objective(replace(batch, condition=condition), model, key)

    def after_step(self, net: Any) -> None:
        """Told to the objective."""
        after_step(self.objective, net)
