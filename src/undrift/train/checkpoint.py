"""Checkpoints: ``checkpoints/step-00000200/`` with ``state.safetensors`` and a manifest, whole or not there.

A checkpoint is written under another name, synced, and renamed as the last act. The newest that proves whole is read;
the last two are kept, so a file that the disk lost after the rename costs one interval and not the run.
"""

from __future__ import annotations

__all__ = ["STATE", "Checkpoints", "read_record", "read_state", "write_state"]

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from undrift.errors import CheckpointError
from undrift.train.durable import disk_full, out_of_space, remove_tree, sync_directory
from undrift.train.manifest import verify_manifest, write_manifest
from undrift.train.weights import load_tensors, read_metadata, save_tensors

logger = logging.getLogger(__name__)

STATE = "state.safetensors"
_WHOLE = re.compile(r"step-(\d{8,})")
_PARTIAL = re.compile(r"step-\d{8,}.*\.tmp")


def write_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write all that an exact resume needs into one file: tensors, and counters as JSON in its header."""
    save_tensors(path, tensors, {"undrift": json.dumps(record, allow_nan=False)})


def read_record(path: Path) -> dict[str, Any]:
    """Read the counters of what ``write_state`` wrote, and no tensor.

    Raises:
        CheckpointError: It is absent, damaged, or holds no state of a training.
    """
    try:
        record = json.loads(read_metadata(path)["undrift"])
    except (KeyError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("counters"), dict):
        raise CheckpointError(f"{path} holds no state of a training")
    return record


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``write_state`` wrote.

    Raises:
        CheckpointError: It is absent, damaged, or holds no state of a training.
    """
    record = read_record(path)
    return load_tensors(path), record


@dataclass
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        root: The directory that holds them.
        keep: How many are kept.
        good: Steps whose checkpoints this process wrote or read.
    """

    root: Path
    keep: int = 2
    good: list[int] = field(default_factory=list)

    def directory(self, step: int) -> Path:
        """The directory of a step's checkpoint."""
        return self.root / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint of a final name, ascending; it may still prove broken."""
        if not self.root.is_dir():
            return []
        found = (_WHOLE.fullmatch(path.name) for path in self.root.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _partial(self) -> list[Path]:
        return [path for path in self.root.iterdir() if _PARTIAL.fullmatch(path.name)] if self.root.is_dir() else []

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step and remove what is older than the last ``keep`` and what is broken.

        Raises:
            UndriftError: The disk is full; what was saved before is intact.
        """
        final = self.directory(step)
        part = self.root / f"{final.name}.{os.getpid()}.tmp"
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            part.mkdir()
            write_state(part / STATE, tensors, record)
            write_manifest(part, [STATE], {"step": step})
            sync_directory(part)
            if final.exists():
                os.rename(final, part.with_name(f"{final.name}.{os.getpid()}.gone.tmp"))
            os.rename(part, final)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if disk_full(error):
                needed = sum(tensor.nbytes for tensor in tensors.values())
                raise out_of_space(final, needed, "what was saved before is intact") from None
            raise
        sync_directory(self.root)
        self.good = [*[good for good in self.good if good != step], step][-self.keep :]
        self._prune()
        return final

    def _prune(self) -> None:
        for path in self._partial():
            shutil.rmtree(path, ignore_errors=True)
        for step in self.steps():
            if step not in self.good:
                remove_tree(self.directory(step))

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and record of the newest checkpoint that is whole; None where none was ever finished.

        Raises:
            CheckpointError: There are checkpoints and none of them is whole.
        """
        for path in self._partial():
            logger.warning("%s was not finished when the process ended: ignored, and removed at the next save", path)
        steps = self.steps()
        faults: list[str] = []
        for index, step in enumerate(reversed(steps)):
            directory = self.directory(step)
            try:
                verify_manifest(directory, names=[STATE])
                tensors, record = read_state(directory / STATE)
            except CheckpointError as error:
                faults.append(str(error))
                logger.warning("%s is not whole: falling back to the one before. %s", directory, error)
                continue
            self.good = sorted(steps[: len(steps) - index])[-self.keep :]
            if faults:
                logger.warning("going on from %s", directory)
            return tensors, record
        if faults:
            raise CheckpointError(f"no checkpoint in {self.root} is whole. {faults[0]}")
        return None
