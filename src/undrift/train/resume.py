"""Going on with a training: the newest whole state, and whether it is of the same training.

That is judged twice: by the settings before any data are read, and by all that is known before the state is taken up.
"""

from __future__ import annotations

__all__ = ["refuse_other_settings", "take_up"]

import logging
from collections.abc import Mapping
from typing import Any

import torch

from undrift.errors import CheckpointError, UsageError
from undrift.train.checkpoint import STATE, Checkpoints, read_record, read_state
from undrift.train.manifest import read_manifest, verify_manifest
from undrift.train.run import RunDirectory, changes
from undrift.train.settings import Settings
from undrift.train.state import TrainState

logger = logging.getLogger(__name__)


def take_up(
    state: TrainState, run: RunDirectory, checkpoints: Checkpoints, settings: Settings, told: Mapping[str, Any]
) -> int:
    """Restore the newest whole state of a run; returns the bytes of its log that belong to it."""
    found = _newest(run, checkpoints)
    if found is None:
        logger.warning("%s has no checkpoint yet: beginning anew", run.path)
        return 0
    tensors, record = found
    old = record.get("settings", {})
    _refuse(run, record.get("identity", {}), old, told)
    state.restore(tensors, record)
    if settings.larger_than(old):
        state.counters.stop = None
        state.counters.since_best = 0
    # What was written of a complete result, a summary after its last checkpoint too, goes with it.
    complete = read_manifest(run.path)["files"].get(run.metrics.name, {}) if run.complete else {}
    return max(int(record.get("log_bytes", 0)), int(complete.get("bytes", 0)))


def refuse_other_settings(run: RunDirectory, told: Mapping[str, Any]) -> None:
    """Refuse to go on with a training of other settings, without reading its tensors or any data.

    What is damaged or absent is left to `take_up`.

    Args:
        run: The run, which need not be entered.
        told: As of `take_up`; what its ``identity`` leaves out, such as the data, is not judged.

    Raises:
        UsageError: The settings differ.
    """
    checkpoints = Checkpoints(run.checkpoints)
    states = [checkpoints.directory(step) / STATE for step in reversed(checkpoints.steps())] + [run.path / STATE]
    for path in states:
        try:
            record = read_record(path)
        except CheckpointError:
            continue
        identity = {name: value for name, value in record.get("identity", {}).items() if name in told["identity"]}
        _refuse(run, identity, record.get("settings", {}), told)
        return


def _refuse(run: RunDirectory, identity: Mapping[str, Any], old: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Raise where the training is another than the one that was saved."""
    differences = changes(identity, told["identity"]) or changes(old, told["settings"])
    for name in ("steps", "budget"):
        before, now = old.get(name), told["settings"][name]
        if (before is None) != (now is None) or (before is not None and now < before):
            told_of = ["absent" if value is None else f"{value:g}" for value in (before, now)]
            differences.append(f"{name}: was {told_of[0]}, now {told_of[1]}")
    if differences:
        raise UsageError(
            f"--resume {run.path} with other settings or data:\n  "
            + "\n  ".join(differences)
            + "\nA larger --budget or --steps is the one change that goes on; otherwise --overwrite, or begin another "
            f"run with this one's network: --fork {run.path} --out ANOTHER"
        )


def _newest(run: RunDirectory, checkpoints: Checkpoints) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The latest of the checkpoints and the finished state that is whole."""
    pairs, faults = [], []
    try:
        pairs.append(checkpoints.newest())
    except CheckpointError as error:
        faults.append(error)
    if run.complete:
        try:
            verify_manifest(run.path, names=[STATE])
            pairs.append(read_state(run.path / STATE))
        except CheckpointError as error:
            faults.append(error)
    found = [pair for pair in pairs if pair is not None]
    if faults and not found:
        raise faults[-1]
    for error in faults:
        logger.warning("going on without what is damaged: %s", error)
    return max(found, key=lambda pair: pair[1]["counters"]["step"], default=None)
