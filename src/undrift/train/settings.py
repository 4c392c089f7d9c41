"""How a training is to go, and how it went."""

from __future__ import annotations

__all__ = ["Progress", "Settings", "Trained", "settings_of"]

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from undrift.config import Config
from undrift.errors import UsageError, check_number, check_whole

if TYPE_CHECKING:
    from torch import nn

Progress = Callable[[float, Mapping[str, Any]], None]
"""``progress(share, facts)``, called about four times a second with the used share and what is known now."""


@dataclass(frozen=True)
class Settings:
    """How a training is to go.

    Attributes:
        steps: Number of steps; either this or ``budget``. Such a training is reproducible to the bit.
        budget: Wall clock of the loop in seconds, validation within and saving apart.
        learning_rate: The peak.
        weight_decay: Of AdamW.
        betas: Of AdamW.
        warmup: Share of the training over which the learning rate rises.
        clip: Largest norm of the gradient.
        ema: Width of the weights' average as a share of the training, in [0, 0.288].
        validate_every: Share of the training between two validations.
        patience: Validations without a new best after which the training stops; None never stops early.
        worse: By how much the last validation has to be worse than the best for that.
        save_every: Seconds between checkpoints.
        save_steps: Steps between checkpoints, in place of seconds.
        seed: Of all that is drawn.
    """

    steps: int | None = None
    budget: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.05
    validate_every: float = 0.05
    patience: int | None = None
    worse: float = 0.0
    save_every: float = 60.0
    save_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.budget is None):
            raise UsageError(
                f"steps is {self.steps} and budget is {self.budget}: give one, --steps 2000 or --budget 3m"
            )
        whole = {"steps": self.steps, "patience": self.patience, "save_steps": self.save_steps, "seed": self.seed}
        check_whole(**{name: value for name, value in whole.items() if value is not None})
        check_number(**({} if self.budget is None else {"budget": self.budget}))
        check_number(False, **{name: getattr(self, name) for name in _NUMBERS})
        # Written so that NaN fails too.
        rules = {
            "steps": self.steps is None or self.steps >= 1,
            "budget": self.budget is None or self.budget > 0,
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "betas": all(0 <= beta < 1 for beta in self.betas),
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip > 0,
            "validate_every": self.validate_every > 0,
            "patience": self.patience is None or self.patience >= 1,
            "worse": self.worse >= 0,
            "save_every": self.save_every > 0,
            "save_steps": self.save_steps is None or self.save_steps >= 1,
        }
        for name, holds in rules.items():
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}, which is out of range: {_EXPECTED[name]}")

    def larger_than(self, old: Mapping[str, Any]) -> bool:
        """Whether there is more to do than by the settings of an earlier part."""
        return (self.steps or 0) > (old.get("steps") or 0) or (self.budget or 0) > (old.get("budget") or 0)


_NUMBERS = ("learning_rate", "weight_decay", "warmup", "clip", "ema", "validate_every", "worse", "save_every")
_EXPECTED = {
    "steps": "expected a whole number of at least 1",
    "budget": "expected seconds above 0",
    "learning_rate": "expected a number above 0",
    "weight_decay": "expected a number of at least 0",
    "betas": "expected two numbers in [0, 1)",
    "warmup": "expected a share in [0, 1)",
    "clip": "expected a number above 0",
    "validate_every": "expected a share above 0",
    "patience": "expected a whole number of at least 1, or none",
    "worse": "expected a number of at least 0",
    "save_every": "expected seconds above 0",
    "save_steps": "expected a whole number of at least 1, or none",
}


@dataclass
class Trained:
    """How a training went; all parts of a resumed run together.

    Attributes:
        net: The averaged weights: the best by validation, or the last where there is none; in evaluation mode.
        steps: Steps taken, skipped ones included.
        seconds: Wall clock of the loop with validation, without saving.
        startup_seconds: From the call to the first step.
        saving_seconds: Spent on checkpoints.
        images: Samples seen.
        images_per_second: ``images`` over ``seconds``.
        skipped: Steps left out because the loss or its gradient was not finite.
        stop: "steps", "budget" or "patience".
        best_step: Step of the best validation; None without validation.
        best_loss: Its loss.
        history: (step, validation loss), in order.
        parts: Number of processes that took part.
        was_finished: Nothing was done now: an earlier part had already come to the end.
        log: Lines of the log of a training without a run directory, see :mod:`undrift.train.log`.
    """

    net: nn.Module
    steps: int
    seconds: float
    startup_seconds: float
    saving_seconds: float
    images: int
    images_per_second: float
    skipped: int
    stop: str
    best_step: int | None
    best_loss: float | None
    history: list[tuple[int, float | None]] = field(default_factory=list)
    parts: int = 1
    was_finished: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The facts, JSON-able, without the network and the log."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("net", "log")}


def to_record(settings: Settings) -> dict[str, Any]:
    """The settings as JSON-able values; runs from before ``worse`` go on as those without it."""
    record = {**asdict(settings), "betas": list(settings.betas)}
    return record if settings.worse else {name: value for name, value in record.items() if name != "worse"}


def settings_of(config: Config) -> Settings:
    """How long and how the loop trains."""
    t = config.train
    return Settings(
        steps=t.steps,
        budget=None if t.steps is not None else t.budget,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup=t.warmup,
        clip=t.clip,
        ema=t.ema,
        patience=t.patience,
        save_every=t.save_every,
        save_steps=t.save_steps,
        seed=t.seed,
    )
