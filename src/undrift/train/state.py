"""All that a training carries from one step to the next, as tensors and counters."""

from __future__ import annotations

__all__ = ["Clock", "Counters", "TrainState"]

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from undrift.errors import CheckpointError, UndriftError
from undrift.objective.players import Player
from undrift.train.ema import PowerAverage
from undrift.train.optimizer import AdamW
from undrift.train.settings import Settings
from undrift.train.weights import check_names, load_state


@dataclass
class Counters:
    """What is counted; a function of the number of steps alone when training by steps.

    Attributes:
        step: Steps begun and ended, the skipped ones too.
        good: Steps that changed the weights.
        skipped_in_row: Steps skipped since the last good one.
        images: Samples seen.
        best_step: Step of the best validation.
        best_loss: Its loss.
        since_best: Validations since then.
        history: [step, validation loss].
        stop: Why the training is at its end, or None while it is not.
    """

    step: int = 0
    good: int = 0
    skipped_in_row: int = 0
    images: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    since_best: int = 0
    history: list[tuple[int, float | None]] = field(default_factory=list)
    stop: str | None = None


@dataclass
class Clock:
    """Seconds of all parts of a run, and what a step and a validation take.

    Attributes:
        trained: In the loop, without saving.
        startup: From the calls to the first steps.
        saving: Writing checkpoints.
        step: A recent step.
        validation: The last validation.
        parts: Number of processes.
    """

    trained: float = 0.0
    startup: float = 0.0
    saving: float = 0.0
    step: float = 0.0
    validation: float = 0.0
    parts: int = 0


class TrainState:
    """Network, its average, the best of the averages so far, optimiser, counters and clock; the objective's players.

    Args:
        net: The network, on its device; it is trained in place.
        settings: How the training is to go.
        players: Networks of the objective's own by name, each with an optimiser of the same settings.
    """

    def __init__(self, net: nn.Module, settings: Settings, players: Mapping[str, Player] | None = None) -> None:
        self.net = net
        self.players = dict(players or {})
        self.optimizers = {
            name: AdamW(player.net, settings.weight_decay, settings.betas)
            for name, player in self.players.items()
            if player.loss is not None
        }
        self.average = PowerAverage(net, settings.ema)
        self.best: dict[str, Tensor] | None = None
        self.optimizer = AdamW(net, settings.weight_decay, settings.betas)
        self.counters = Counters()
        self.clock = Clock()

    def keep_best(self) -> None:
        """Remember the average as the best so far."""
        self.best = {name: value.detach().clone() for name, value in self.average.net.state_dict().items()}

    def refuse_nan(self) -> None:
        """Raise where a weight is not finite.

        Raises:
            UndriftError: With the names of the first five.
        """
        bad = [
            f"{part}.{name}"
            for part, net in (
                ("net", self.net),
                ("average", self.average.net),
                *((name, player.net) for name, player in self.players.items()),
            )
            for name, value in net.state_dict().items()
            if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ]
        if bad:
            raise UndriftError(
                f"weights are NaN or infinite after step {self.counters.step} ({', '.join(bad[:5])}): the checkpoint "
                "is refused, the one before is kept. A smaller learning_rate usually helps"
            )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as they are, not copied."""
        out = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        out |= {f"average.{name}": value for name, value in self.average.net.state_dict().items()}
        out |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        for name, player in self.players.items():
            own = {f"net.{key}": value for key, value in player.net.state_dict().items()}
            own |= self.optimizers[name].tensors() if name in self.optimizers else {}
            out |= {f"player {name}.{key}": value for key, value in own.items()}
        return out | self.optimizer.tensors()

    def record(self) -> dict[str, Any]:
        """Counters and clock as JSON-able values."""
        return {"counters": asdict(self.counters), "clock": asdict(self.clock)}

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Take up where ``tensors`` and ``record`` were saved.

        Raises:
            CheckpointError: They are of another network; nothing is changed then.
        """
        expected = self.tensors()
        if any(name.startswith("best.") for name in tensors):
            expected |= {f"best.{name}": value for name, value in self.average.net.state_dict().items()}
        check_names(expected, tensors, "the checkpoint")
        parts = _parts(tensors)
        for name, player in self.players.items():
            own = _parts(parts[f"player {name}"])
            load_state(player.net, own["net"])
            if name in self.optimizers:
                self.optimizers[name].restore(own)
        load_state(self.net, parts["net"])
        load_state(self.average.net, parts["average"])
        self.optimizer.restore(parts)
        if "best" in parts:
            average = self.average.net.state_dict()
            self.best = {name: torch.empty_like(average[name]).copy_(value) for name, value in parts["best"].items()}
        self.counters = _rebuild(Counters, record["counters"])
        self.counters.history = [(int(step), loss) for step, loss in self.counters.history]
        self.clock = _rebuild(Clock, record["clock"])


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by what stands before the first dot of their names."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts


def _rebuild(kind: type[Any], values: Mapping[str, Any]) -> Any:
    names = {item.name for item in fields(kind)}
    if set(values) != names:
        raise CheckpointError(f"the checkpoint's counters are {sorted(values)}; expected {sorted(names)}")
    return kind(**values)
