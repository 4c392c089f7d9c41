"""Fitting on plain tensors: no files and no labels, by the same loop."""

from __future__ import annotations

__all__ = ["fit"]

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from undrift.errors import check_kind, check_whole, described, suggests_options
from undrift.objective.players import after_step, players
from undrift.tasks.batch import Batch, Condition, check_finite, check_rows
from undrift.train.loop import train
from undrift.train.settings import Progress, Settings, Trained
from undrift.train.step import Diagnostics, key_of
from undrift.train.weights import load_state

_Loss = Callable[[Batch, Any, int], tuple[Tensor, Diagnostics]]


@suggests_options
def fit(
    net: nn.Module,
    objective: _Loss,
    x: Tensor,
    condition: Condition | None = None,
    *,
    weight: Tensor | None = None,
    odds: Tensor | None = None,
    z: Tensor | None = None,
    model: object | None = None,
    settings: Settings,
    batch: int = 256,
    validation: Sequence[Batch] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a network in place; at the end it has the averaged weights and is in evaluation mode.

    Args:
        net: the network, on the device of x.
        objective: ``objective(batch, model, key) -> (loss of each sample (B,), diagnostics)``, see
            :mod:`undrift.objective`.
        x: samples, (n, C, *space) or (n, D), in the dtype of the network.
        condition: what is given, one row for each of x.
        weight: 1 where x is known, else 0, of the shape of x; everywhere 1 if None. A set of few is one of many of
            which some are not known. Where it is 0, x may be NaN.
        odds: how often each sample is drawn, (n,), up to a factor: the weights of a weighted sample; all alike if None.
        z: the other end of the path of each sample, of the shape of x, where they are matched before; see
            :class:`undrift.tasks.batch.Batch`.
        model: what the objective is told of the network, such as a denoiser around it; the network itself if None.
        settings: how long, by steps or by wall clock, and how.
        batch: samples in a step, drawn with replacement by the step's number.
        validation: batches that choose the best average and tell when to stop, see :class:`Settings`.
        progress: see :func:`undrift.train.loop.train`.

    Raises:
        ValueError: x has no samples or is not finite where it is known, the condition another number of rows, the
            weight, the odds or z another shape, the odds no number above 0, or the batch no sample.
        TypeError: an argument of another kind.
        UndriftError: the loss was not finite ten times in a row, or does not depend on the network.
    """
    check_kind(nn.Module, "fit(net, objective, x, ...)", net=net)
    if isinstance(objective, type) or not callable(objective):
        raise TypeError(f"objective is {described(objective)}, expected a function or an object; type FlowMatching()")
    check_kind(Settings, "Settings(steps=2000), of undrift.train.settings", settings=settings)
    check_whole(1, batch=batch)
    check_rows("x", x, condition)
    if weight is not None:
        _check_weight(weight, x)
    if z is not None:
        _check_ends(z, x)
    known, advice = None if weight is None else weight > 0, "finite numbers, or weight=torch.isfinite(x).float()"
    check_finite("x", x, condition, known, advice)
    given, x = condition or Condition(), torch.where(torch.isfinite(x), x, 0.0)
    below = None if odds is None else _below(odds, x)

    def batches(number: int) -> Batch:
        generator = torch.Generator(x.device).manual_seed(key_of(settings.seed, "rows", number))
        if below is None:
            rows = torch.randint(len(x), (batch,), generator=generator, device=x.device)
        else:
            drawn = torch.rand(batch, generator=generator, device=x.device, dtype=torch.float64)
            rows = torch.searchsorted(below, drawn * below[-1], right=True).clamp(max=len(x) - 1)
        some = None if weight is None else weight[rows]
        return Batch.of(x[rows], given.index(rows), some, None if z is None else z[rows])

    found = train(
        net, _Around(objective, model), batches, settings=settings, validation=validation, device=x.device,
        progress=progress,
    )  # fmt: skip
    load_state(net, found.net.state_dict())
    net.eval()
    return found


def _below(odds: Tensor, x: Tensor) -> Tensor:
    """Running sums of the odds, float64, (n,)."""
    if not isinstance(odds, Tensor) or odds.shape != (len(x),):
        got = tuple(odds.shape) if isinstance(odds, Tensor) else described(odds)
        raise ValueError(f"odds is {got}, expected one number for each sample, ({len(x)},), as a tensor")
    if not bool((odds >= 0).all() and odds.isfinite().all() and (odds > 0).any()):
        raise ValueError("odds has numbers below 0 or not finite, or no number above 0")
    return odds.to(x.device, torch.float64).cumsum(0)


def _check_ends(z: Tensor, x: Tensor) -> None:
    if not isinstance(z, Tensor) or z.shape != x.shape:
        got = tuple(z.shape) if isinstance(z, Tensor) else described(z)
        raise ValueError(f"z is {got}, expected the shape of x, {tuple(x.shape)}, as a tensor")
    check_finite("z", z, None)


def _check_weight(weight: Tensor, x: Tensor) -> None:
    if not isinstance(weight, Tensor) or weight.shape != x.shape:
        got = tuple(weight.shape) if isinstance(weight, Tensor) else described(weight)
        raise ValueError(f"weight is {got}, expected the shape of x, {tuple(x.shape)}, as a tensor")
    if not bool((weight >= 0).all()) or not bool((weight > 0).any()):
        raise ValueError("weight has numbers below 0 or NaN, or no number above; expected 1 where x is known, else 0")


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
