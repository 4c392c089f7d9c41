"""The loop: objective, gradient, average, validation, checkpoint.

A step is a function of the settings' seed and the step's number alone, so a training by steps that was killed anywhere
and resumed ends with the same bits as one that was not. A training by wall clock spends what is left of its budget and
never begins what would not fit.
"""

from __future__ import annotations

__all__ = ["train"]

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from undrift.errors import Interrupted, UndriftError
from undrift.objective.players import players
from undrift.tasks.batch import Batch
from undrift.train.checkpoint import Checkpoints
from undrift.train.log import MetricsLog
from undrift.train.prefetch import Prefetch
from undrift.train.resume import take_up
from undrift.train.run import RunDirectory
from undrift.train.schedule import learning_rate
from undrift.train.settings import Progress, Settings, Trained, to_record
from undrift.train.signals import Stop
from undrift.train.state import TrainState
from undrift.train.step import Objective, Outcome, Tally, take_step, validate
from undrift.train.weights import load_state

logger = logging.getLogger(__name__)

TOO_MANY_SKIPPED = 10
LINES = 200  # of the log, about, in a whole training
SECONDS_BETWEEN_PROGRESS = 0.25


def train(
    net: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    *,
    settings: Settings,
    validation: Sequence[Batch] | None = None,
    run: RunDirectory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a network.

    Args:
        net: The network; moved to ``device`` and trained in place.
        objective: ``objective(batch, net, key) -> (loss of each sample (B,), diagnostics)``, drawing from ``key`` only.
        batches: The batch of a step, a function of the step's number alone.
        settings: How long and how.
        validation: Batches that choose the best average and tell when to stop; never the holdout.
        run: Where checkpoints and metrics go, already entered; its ``resume`` says whether to go on. Without one,
            nothing is saved and signals are not caught.
        device: Where to train.
        progress: Told about four times a second how far it is.
        identity: JSON-able tree of what must be the same on a resume: configuration, fingerprint of the data. Values
            named ``steps`` or ``budget`` may differ: there the settings decide.

    Returns:
        The averaged weights and the facts.

    Raises:
        Interrupted: A signal came; the state is saved.
        UsageError: A resume with another configuration or other data.
        CheckpointError: A resume of what cannot be read.
        UndriftError: The loss was not finite ten times in a row, weights are NaN, or the disk is full.
    """
    begun = time.perf_counter()
    device = torch.device(device)
    state = TrainState(net.to(device), settings, players(objective))
    told = {"settings": to_record(settings), "identity": dict(identity or {})}
    checkpoints = Checkpoints(run.checkpoints) if run is not None else None
    kept = None
    if run is not None and checkpoints is not None and run.resume:
        kept = take_up(state, run, checkpoints, settings, told)
    if state.counters.stop is not None:
        if run is not None and not run.finished:
            MetricsLog(run.metrics, kept).close()
        if run is not None and run.finished:
            run.tidy()
            logger.warning(
                "%s is finished (%s, step %d): nothing left to do; a larger --budget or --steps goes on with it",
                run.path, state.counters.stop, state.counters.step,
            )  # fmt: skip
        return _trained(state, was_finished=True)
    with (
        MetricsLog(run.metrics if run is not None else None, kept) as log,
        Prefetch(batches, state.counters.step) as ahead,
    ):
        loop = _Loop(state, objective, settings, validation, run, checkpoints, device, progress, log, told)
        if run is None:
            loop.go(ahead, None, begun)
        else:
            with Stop() as stop:
                loop.go(ahead, stop, begun)
    return replace(_trained(state), log=log.lines)


class _Loop:
    """The parts of one training between start and end; ``train`` is the way in."""

    def __init__(
        self,
        state: TrainState,
        objective: Objective,
        settings: Settings,
        validation: Sequence[Batch] | None,
        run: RunDirectory | None,
        checkpoints: Checkpoints | None,
        device: torch.device,
        progress: Progress | None,
        log: MetricsLog,
        told: Mapping[str, Any],
    ) -> None:
        self.state, self.objective, self.settings, self.device = state, objective, settings, device
        self.validation, self.progress, self.log, self.told = validation, progress, log, told
        self.run = run
        self.checkpoints = checkpoints
        self.tally = Tally()
        self.saved = self.shown = self.logged = self.mark = time.perf_counter()
        self.next_validation = self.rate = self.busy = 0.0
        self.loss: float | None = None
        self.recent: deque[float] = deque([state.clock.step] * (state.counters.step > 0), maxlen=9)

    def go(self, ahead: Prefetch, stop: Stop | None, begun: float) -> None:
        """Run to the end, or to a signal."""
        state, settings = self.state, self.settings
        counters, clock = state.counters, state.clock
        clock.parts += 1
        clock.startup += time.perf_counter() - begun
        self.mark = time.perf_counter()
        self.next_validation = self._share() + settings.validate_every
        while (reason := self._done()) is None:
            before = clock.trained
            batch = ahead.take(last=counters.step + 1 == settings.steps)
            rate = learning_rate(self._share(middle=True), settings.learning_rate, settings.warmup)
            outcome = take_step(
                state, self.objective, batch.to(self.device), rate=rate, clip=settings.clip, seed=settings.seed,
                device=self.device,
            )  # fmt: skip
            self._tick()
            took = clock.trained - before
            self.recent.append(took)
            clock.step = median(self.recent)  # the first steps of a process are slow, and say nothing
            self.rate, self.busy = rate, self.busy + took
            self._note(outcome, len(batch))
            if self._validation_due():
                self._validate()
            self._maybe_save(stop)
        if self.validation and (not counters.history or counters.history[-1][0] != counters.step):
            self._validate()
        counters.stop = reason
        self._flush()
        self._save()
        self._show(force=True)
        if stop is not None and stop.name is not None:
            raise Interrupted(f"{stop.name}: the training is complete and saved; --resume writes the result")

    def _tick(self) -> None:
        """Count the time since the last look as training."""
        now = time.perf_counter()
        self.state.clock.trained += now - self.mark
        self.mark = now

    def _share(self, middle: bool = False) -> float:
        """Used share of the training, at the beginning or the middle of the step to come."""
        counters, clock, settings = self.state.counters, self.state.clock, self.settings
        if settings.steps is not None:
            return (counters.step + 0.5 * middle) / settings.steps
        assert settings.budget is not None
        return (clock.trained + 0.5 * middle * clock.step) / settings.budget

    def _validation_seconds(self) -> float:
        if not self.validation:
            return 0.0
        # Before the first: a forward pass is about a third of a step.
        return self.state.clock.validation or 0.4 * self.state.clock.step * len(self.validation)

    def _done(self) -> str | None:
        """Why there is no further step, or None."""
        counters, clock, settings = self.state.counters, self.state.clock, self.settings
        if settings.patience is not None and counters.since_best >= settings.patience and self._worse():
            return "patience"
        if settings.steps is not None:
            return "steps" if counters.step >= settings.steps else None
        assert settings.budget is not None
        needed = clock.step + self._validation_seconds()
        return "budget" if counters.step > 0 and clock.trained + needed > settings.budget else None

    def _worse(self) -> bool:
        """Whether the last validation is as much worse than the best as the settings ask for."""
        best, last = self.state.counters.best_loss, self.state.counters.history[-1][1]
        return best is None or last is None or last >= best + self.settings.worse

    def _validation_due(self) -> bool:
        counters, clock, settings = self.state.counters, self.state.clock, self.settings
        if not self.validation:
            return False
        if settings.steps is not None:
            every = max(1, round(settings.validate_every * settings.steps))
            return counters.step % every == 0
        assert settings.budget is not None
        # The last one, at the end, has to fit too.
        fits = clock.trained + 2 * self._validation_seconds() + clock.step <= settings.budget
        return self._share() >= self.next_validation and fits

    def _validate(self) -> None:
        """Measure the average, and keep it if it is the best so far."""
        assert self.validation is not None
        counters, clock = self.state.counters, self.state.clock
        self._flush()
        before = clock.trained
        loss, means = validate(
            self.state.average.net, self.objective, self.validation, seed=self.settings.seed, device=self.device
        )
        finite = bool(np.isfinite(loss))
        counters.history.append((counters.step, loss if finite else None))
        if finite and (counters.best_loss is None or loss < counters.best_loss):
            counters.best_loss, counters.best_step, counters.since_best = loss, counters.step, 0
            self.state.keep_best()
        else:
            counters.since_best += 1
        self._tick()
        clock.validation = clock.trained - before
        # At most about a tenth of a budget goes to validation.
        costly = 10 * clock.validation / self.settings.budget if self.settings.budget is not None else 0.0
        self.next_validation = self._share() + max(self.settings.validate_every, costly)
        self.log.write("validation", counters.step, clock.trained, {"loss": loss, "validation": loss, **means})

    def _note(self, outcome: Outcome, images: int) -> None:
        """Log and show a step; stop after too many that were skipped."""
        counters, settings = self.state.counters, self.settings
        self.tally.add({"loss": outcome.loss, "grad_norm": outcome.gradient_norm, **outcome.diagnostics})
        self.tally.add({"images": images})
        if not outcome.good:
            logger.warning(
                "step %d skipped: loss %g, gradient norm %g", counters.step, outcome.loss, outcome.gradient_norm
            )
        if counters.skipped_in_row >= TOO_MANY_SKIPPED:
            first = counters.step - counters.skipped_in_row
            saved = (
                f"the checkpoints in {self.run.checkpoints} are kept" if self.run is not None else "nothing was saved"
            )
            self._flush()
            raise UndriftError(
                f"the loss or its gradient was not finite {TOO_MANY_SKIPPED} times in a row, in the batches {first} to "
                f"{counters.step - 1}; {saved}. Look for extreme values with `undrift check`, or lower learning_rate"
            )
        if settings.steps is not None:
            due = counters.step % max(1, settings.steps // LINES) == 0
        else:
            assert settings.budget is not None
            due = self.mark - self.logged >= settings.budget / LINES
        if due:
            self._flush()
        self._show()

    def _flush(self) -> None:
        """Write the means since the last line."""
        counters, clock = self.state.counters, self.state.clock
        if not self.tally.count:
            return
        steps = float(self.tally.count["images"])
        means = self.tally.take()
        speed = float(means.pop("images")) * steps / max(self.busy, 1e-9)
        facts = {"lr": self.rate, "images_per_s": speed, "skipped": counters.step - counters.good, **means}
        self.log.write("train", counters.step, clock.trained, facts)
        self.loss = float(means["loss"])
        self.logged, self.busy = time.perf_counter(), 0.0

    def _show(self, force: bool = False) -> None:
        now = time.perf_counter()
        if self.progress is None or (now - self.shown < SECONDS_BETWEEN_PROGRESS and not force):
            return
        self.shown = now
        counters, clock = self.state.counters, self.state.clock
        share = 1.0 if counters.stop is not None else min(1.0, self._share())
        validation = counters.history[-1][1] if counters.history else None
        facts = {"step": counters.step, "seconds": clock.trained, "loss": self.loss, "validation": validation}
        self.progress(share, facts)

    def _maybe_save(self, stop: Stop | None) -> None:
        """Save when it is time, and on a signal, which then ends the loop."""
        counters, settings = self.state.counters, self.settings
        signalled = stop is not None and stop.name is not None
        if settings.save_steps is not None:
            due = counters.step % settings.save_steps == 0
        else:
            due = time.perf_counter() - self.saved >= settings.save_every
        # While steps are being skipped the checkpoints from before are worth more than a new one.
        due = due and counters.skipped_in_row == 0
        if self.run is not None and (due or signalled):
            self._flush()
            self._save()
        if signalled and self.run is not None:
            assert stop is not None
            raise Interrupted(
                f"stopped by {stop.name} after step {counters.step}; the state is saved in {self.run.path}: "
                "requeue to continue, with --resume"
            )

    def _save(self) -> None:
        """Write a checkpoint; the time for it is apart."""
        if self.checkpoints is None:
            return
        self._tick()
        self.state.refuse_nan()
        record = {**self.state.record(), **self.told, "log_bytes": self.log.size}
        self.checkpoints.save(self.state.counters.step, self.state.tensors(), record)
        self.saved = time.perf_counter()
        self.state.clock.saving += self.saved - self.mark
        self.mark = self.saved


def _trained(state: TrainState, was_finished: bool = False) -> Trained:
    """Put the best weights into the average's module, and the facts beside them."""
    counters, clock = state.counters, state.clock
    if state.best is not None:
        load_state(state.average.net, state.best)
    return Trained(
        net=state.average.net.eval(),
        steps=counters.step,
        seconds=clock.trained,
        startup_seconds=clock.startup,
        saving_seconds=clock.saving,
        images=counters.images,
        images_per_second=counters.images / max(clock.trained, 1e-9),
        skipped=counters.step - counters.good,
        stop=counters.stop or "",
        best_step=counters.best_step,
        best_loss=counters.best_loss,
        history=list(counters.history),
        parts=clock.parts,
        was_finished=was_finished,
    )
