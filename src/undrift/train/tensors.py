"""Fitting on plain tensors: no files and no labels, by the same loop."""

from __future__ import annotations

__all__ = ["fit"]

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from undrift.objective.players import after_step, players
from undrift.tasks.batch import Batch, Condition
from undrift.train.loop import train
from undrift.train.settings import Progress, Settings, Trained
from undrift.train.step import Diagnostics, key_of
from undrift.train.weights import load_state

_Loss = Callable[[Batch, Any, int], tuple[Tensor, Diagnostics]]


def fit(
    net: nn.Module,
    objective: _Loss,
    x: Tensor,
    condition: Condition | None = None,
    *,
    weight: Tensor | None = None,
    model: object | None = None,
    settings: Settings,
    batch: int = 256,
    progress: Progress | None = None,
) -> Trained:
    """Train a network in place; at the end it has the averaged weights and is in evaluation mode.

    Args:
        net: the network, on the device of x.
        objective: ``objective(batch, model, key) -> (loss of each sample (B,), diagnostics)``, see
            :mod:`undrift.objective`.
        x: samples, (n, ...).
        condition: what is given, one row for each of x.
        weight: 1 where x is known, else 0, of the shape of x; everywhere 1 if None. A set of few is one of many of
            which some are not known.
        model: what the objective is told of the network, such as a denoiser around it; the network itself if None.
        settings: how long, by steps or by wall clock, and how.
        batch: samples in a step, drawn with replacement by the step's number.
        progress: see :func:`undrift.train.loop.train`.

    Raises:
        ValueError: x has no samples, the condition another number of rows, or the weight another shape.
        UndriftError: the loss was not finite ten times in a row.
    """
    if len(x) == 0 or not x.is_floating_point():
        raise ValueError(f"x is {tuple(x.shape)} of {x.dtype}, expected samples (n, ...) of real numbers")
    if weight is not None and weight.shape != x.shape:
        raise ValueError(f"weight is {tuple(weight.shape)}, expected the shape of x, {tuple(x.shape)}")
    given = condition or Condition()
    for name, values in {**given.fields, **given.vectors}.items():
        if len(values) != len(x):
            raise ValueError(f"{name!r} has {len(values)} rows, expected {len(x)}, one for each of x")

    def batches(number: int) -> Batch:
        generator = torch.Generator(x.device).manual_seed(key_of(settings.seed, "rows", number))
        rows = torch.randint(len(x), (batch,), generator=generator, device=x.device)
        return Batch.of(x[rows], given.index(rows), None if weight is None else weight[rows])

    found = train(net, _Around(objective, model), batches, settings=settings, device=x.device, progress=progress)
    load_state(net, found.net.state_dict())
    net.eval()
    return found


class _Around:
    """An objective that is told of a model around the network in place of the network."""

    def __init__(
        self, objective: Callable[[Batch, Any, int], tuple[Tensor, Diagnostics]], model: object | None
    ) -> None:
        self.objective, self.model = objective, model
        self.players = {
            name: replace(player, loss=player.loss and _Around(player.loss, model))
            for name, player in players(objective).items()
        }

    def __call__(self, batch: Batch, net: nn.Module, key: int) -> tuple[Tensor, Diagnostics]:
        return self.objective(batch, net if self.model is None else self.model, key)

    def after_step(self, net: nn.Module) -> None:
        after_step(self.objective, net)
