"""One step of training, one validation, and the keys that make both a function of the step's number alone."""

from __future__ import annotations

__all__ = ["Diagnostics", "Objective", "Outcome", "Tally", "key_of", "private_rng", "take_step", "validate"]

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from undrift.errors import UndriftError
from undrift.objective.players import after_step, players
from undrift.tasks.batch import Batch
from undrift.train.optimizer import AdamW
from undrift.train.state import TrainState

Diagnostics = Mapping[str, Tensor | float]
Objective = Callable[[Batch, nn.Module, int], tuple[Tensor, Diagnostics]]
"""``objective(batch, net, key) -> (loss of each sample (B,), named diagnostics)``."""


def key_of(seed: int, purpose: str, number: int) -> int:
    """A key of 63 bits from (seed, purpose, number), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def private_rng(key: int, device: torch.device) -> Iterator[None]:
    """Within the block the global generators, which dropout draws from, begin at ``key``; then they are as before."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(key)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(key)
        yield


@contextmanager
def _evaluation(nets: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block the networks are in evaluation mode; then each of their modules is in its own again."""
    modes = {module: module.training for net in nets for module in net.modules()}
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass
class Tally:
    """Means of what was measured since the last line of the log; NaN counts as not measured."""

    total: dict[str, np.ndarray] = field(default_factory=dict)
    count: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, values: Diagnostics, weight: float = 1.0) -> None:
        """Take in numbers and tensors by name."""
        for name, value in values.items():
            array = value.detach().double().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value, float)
            known = np.isfinite(array)
            self.total[name] = self.total.get(name, 0.0) + weight * np.where(known, array, 0.0)
            self.count[name] = self.count.get(name, 0.0) + weight * known

    def take(self) -> dict[str, np.ndarray]:
        """The means so far, NaN where nothing was measured; begins anew."""
        with np.errstate(invalid="ignore"):
            means = {name: np.asarray(self.total[name] / self.count[name]) for name in self.total}
        self.total, self.count = {}, {}
        return means


@dataclass(frozen=True)
class Outcome:
    """What a step gave: loss, norm of the gradient before clipping, diagnostics, and whether the weights changed."""

    loss: float
    gradient_norm: float
    diagnostics: Diagnostics
    good: bool


@dataclass(frozen=True)
class _Pace:
    """What all steps of one number share."""

    number: int
    rate: float
    clip: float
    seed: int
    device: torch.device


def take_step(
    state: TrainState, objective: Objective, batch: Batch, *, rate: float, clip: float, seed: int, device: torch.device
) -> Outcome:
    """One step of each of the objective's players, then of the network and its average.

    A loss or gradient that is not finite changes nothing of the network whose it is.
    """
    counters = state.counters
    pace = _Pace(counters.step, rate, clip, seed, device)
    played = {
        name: _stepped(state.players[name].net, optimizer, state.players[name].loss, state.net, batch, name, pace)
        for name, optimizer in state.optimizers.items()
    }
    own = _stepped(state.net, state.optimizer, objective, state.net, batch, "", pace)
    if own.good:
        counters.good += 1
        with torch.no_grad():
            after_step(objective, state.net)
        state.average.update(state.net, counters.good)
    good = own.good and all(one.good for one in played.values())
    counters.skipped_in_row = 0 if good else counters.skipped_in_row + 1
    counters.step += 1
    counters.images += len(batch)
    losses = {f"{name}_loss": one.loss for name, one in played.items()}
    return Outcome(own.loss, own.gradient_norm, {**losses, **own.diagnostics}, good)


def _stepped(
    net: nn.Module, optimizer: AdamW, loss: Objective | None, model: nn.Module, batch: Batch, who: str, pace: _Pace
) -> Outcome:
    """One step of one network down its own loss."""
    assert loss is not None
    net.train()
    model.train()
    optimizer.zero_grad()
    norm = math.nan
    with private_rng(key_of(pace.seed, f"dropout {who}".strip(), pace.number), pace.device):
        losses, diagnostics = loss(batch, model, key_of(pace.seed, f"objective {who}".strip(), pace.number))
        importance = getattr(batch, "importance", None)  # own objectives have batches of their own
        mean = (losses if importance is None else losses * importance).mean()
        value = float(mean.detach())
        if math.isfinite(value):
            if mean.requires_grad:
                mean.backward()
            if all(weight.grad is None for weight in net.parameters()):
                raise UndriftError(
                    f"the loss of {who or 'the network'} does not depend on its weights: expected a model made around "
                    "the same network, whose weights are trainable (net.requires_grad_())"
                )
            norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), pace.clip))
    good = math.isfinite(value) and math.isfinite(norm)
    if good:
        optimizer.step(pace.rate)
    return Outcome(value, norm, diagnostics, good)


@torch.no_grad()
def validate(
    net: nn.Module, objective: Objective, batches: Sequence[Batch], *, seed: int, device: torch.device
) -> tuple[float, dict[str, np.ndarray]]:
    """Mean loss over the samples of the batches, each with its own fixed key, and the means of the diagnostics.

    The network and the objective's players are in evaluation mode meanwhile.
    """
    nets = [net, *(player.net for player in players(objective).values())]
    total, count, tally = 0.0, 0, Tally()
    with _evaluation(nets):
        for number, batch in enumerate(batches):
            key = key_of(seed, "validation", number)
            with private_rng(key, device):
                losses, diagnostics = objective(batch.to(device), net, key)
            total += float(losses.double().sum())
            count += len(batch)
            tally.add(diagnostics, len(batch))
    return total / max(count, 1), tally.take()
