"""The run directory: who may write to it, what becomes of an older result, and the last act of a training.

```
RUN/config.toml  model.safetensors  state.safetensors  codec.nc  metrics.jsonl  manifest.json (last)
RUN/checkpoints/step-00000200/     while training
RUN/regression/                    while the regression of --baselines trains
RUN.lock                           while a process works on RUN
RUN.replaced/                      the result that --overwrite replaces, until the new one is complete
```
"""

from __future__ import annotations

__all__ = ["RunDirectory", "begin", "changes", "is_nested", "refuse_no_run", "staged"]

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from undrift.errors import CheckpointError, Interrupted, UsageError
from undrift.train.durable import disk_full, out_of_space, remove_tree, sync, sync_directory
from undrift.train.lock import Lock
from undrift.train.manifest import NAME as MANIFEST
from undrift.train.manifest import read_manifest, verify_manifest, write_manifest

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
REGRESSION = "regression"
STATE = "state.safetensors"
_MARK = ".undrift"


def _empty(path: Path) -> bool:
    return not any(path.iterdir())


def begin(path: Path) -> None:
    """Make a run directory that ``--resume`` begins anew."""
    path.mkdir(parents=True, exist_ok=True)
    (path / _MARK).write_text("A run directory of undrift.\n")


def _is_run(path: Path) -> bool:
    """Whether a directory is ours to replace; names such as checkpoints/ and config.toml are other programs' too."""
    if (path / _MARK).is_file() or _empty(path):
        return True
    try:
        return "undrift" in read_manifest(path)
    except CheckpointError:
        return False


def is_nested(path: Path) -> bool:
    """Whether ``undrift nested`` wrote a directory, which has no manifest as its state grows."""
    return (path / "settings.json").is_file() and not _marked(path)


def refuse_no_run(path: Path) -> None:
    """Refuse to read a directory in which no training ever began, and name the runs in it or around it.

    Raises:
        CheckpointError: It is no run directory, finished or not.
    """
    if _marked(path):
        return
    if is_nested(path):
        raise CheckpointError(
            f"{path} was written by undrift nested and is no model: type undrift report {path} for its evidence and "
            f"posterior, or undrift train {path / 'chain'} --task density --out DENSITY for a density of its draws "
            f"(the files {path / 'chain.txt'} and {path / 'posterior.nc'})"
        )
    why = f"it has no {MANIFEST}, and undrift train --out did not write it" if path.exists() else "it does not exist"
    fault = f"{path} is no run directory: {why}"
    above = next((folder for folder in path.absolute().parents[:3] if _marked(folder)), None)
    within = sorted(str(folder) for folder in path.iterdir() if _marked(folder)) if path.is_dir() else []
    if above is not None:
        raise CheckpointError(f"{fault}; it is in the run {above}: type that")
    if within:
        raise CheckpointError(f"{fault}; the runs in it are {', '.join(within)}: type one of them")
    raise CheckpointError(f"{fault}; type the name that was typed after --out")


def _marked(path: Path) -> bool:
    return (path / _MARK).is_file() or (path / MANIFEST).is_file()


class RunDirectory:
    """A run directory that this process, and no other, writes to while the block runs.

    Args:
        path: The directory; made where it is absent.
        overwrite: Replace an older run. It is kept as ``RUN.replaced`` until the new one is complete, and comes back
            where the new one fails, other than by a signal, before its first checkpoint.
        resume: Go on with the run that is there.

    Raises:
        UsageError: Something is there and neither ``overwrite`` nor ``resume`` was given, it is no run, or another
            process works on it.
        CheckpointError: ``resume`` of a directory that is not there.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, resume: bool = False) -> None:
        if overwrite and resume:
            raise UsageError("both --overwrite and --resume were given: one starts anew, the other goes on; give one")
        self.path = Path(path).absolute()
        self.overwrite = overwrite
        self.resume = resume
        self._lock = Lock(self.path.with_name(self.path.name + ".lock"))
        self._moved = False
        self._made = False

    @property
    def old(self) -> Path:
        """Where the result that is being replaced is kept."""
        return self.path.with_name(self.path.name + ".replaced")

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def metrics(self) -> Path:
        """The file of the measured values."""
        return self.path / "metrics.jsonl"

    @property
    def complete(self) -> bool:
        """Whether there is a result to load; a training may be going on with it."""
        return (self.path / MANIFEST).is_file()

    @property
    def finished(self) -> bool:
        """Whether there is a result and no checkpoint of a later step."""
        if not self.complete:
            return False
        try:
            published = read_manifest(self.path).get("step")
        except CheckpointError:
            return False
        return max(self._steps(), default=-1) <= (published if isinstance(published, int) else -1)

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from."""
        return self.complete or bool(self._steps())

    def _steps(self) -> list[int]:
        return sorted((int(path.name[5:]) for path in self.checkpoints.glob("step-*[0-9]")), reverse=True)

    def _whole(self) -> tuple[int, Path] | None:
        """The last checkpoint that is whole: its step and its state."""
        for step in self._steps():
            folder = self.checkpoints / f"step-{step:08d}"
            try:
                verify_manifest(folder, names=[STATE])
            except CheckpointError:
                continue
            return step, folder / STATE
        return None

    def _refuse(self) -> None:
        """Look before anything is made or moved."""
        path = self.path
        if self.resume and not path.is_dir():
            raise CheckpointError(f"--resume: {path} does not exist, so there is nothing to go on with; check --out")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; --out takes the name of a directory")
        if path.is_dir() and not _is_run(path):
            raise UsageError(f"{path} exists and is not a run of undrift: it is left alone; give another --out")
        if path.is_dir() and not _empty(path) and not (self.overwrite or self.resume):
            raise UsageError(
                f"{path} exists: pass --resume to go on with it, --overwrite to replace it, or another --out"
            )

    def __enter__(self) -> Self:
        self._refuse()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.held_on_failure():
            self._refuse()  # what was free before the lock was had may be taken now
            if self.overwrite and self.path.is_dir() and not _empty(self.path):
                self._put_aside()
            self._made = not self.path.is_dir() or _empty(self.path)
            begin(self.path)
            self.checkpoints.mkdir(exist_ok=True)
            sync_directory(self.path.parent)
        return self

    def _put_aside(self) -> None:
        if not self.old.exists() or self.complete:
            remove_tree(self.old)
            os.rename(self.path, self.old)
            self._moved = True
        else:
            # A complete result waits in RUN.replaced; what is here never got that far.
            remove_tree(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A stop by a signal promises that --resume goes on.
            started = self.complete or bool(self._steps()) or isinstance(error, Interrupted)
            if kind is not None and not started and self._moved:
                remove_tree(self.path)
                os.rename(self.old, self.path)
            elif kind is not None and not started and self._made and not self.metrics.exists():
                remove_tree(self.path)  # a mistake in the options leaves nothing that is in the way of the next try
        finally:
            self._lock.release()

    def regression(self) -> RunDirectory:
        """Where the regression of this run has its own checkpoints until the result is published; goes on if begun."""
        path = self.path / REGRESSION
        return RunDirectory(path, resume=path.is_dir())

    @contextmanager
    def publish(self, extra: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """As ``staged``, for the result of this run.

        The state of the last checkpoint is among the files; then the checkpoints and ``RUN.replaced`` are removed.
        """
        last = self._whole()
        with staged(self.path, {**(extra or {}), "step": -1 if last is None else last[0]}) as stage:
            if last is not None:
                _link(last[1], stage / STATE)
            yield stage
        self.tidy()

    def tidy(self) -> None:
        """Remove what a complete result has no use for: checkpoints, the result it replaced, parts of killed writes."""
        remove_tree(self.checkpoints)
        remove_tree(self.path / REGRESSION)
        _sweep(self.path)
        if self.old.is_dir() and _is_run(self.old):
            remove_tree(self.old)


@contextmanager
def staged(directory: Path, extra: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Write the files of a result so that a reader finds all of them or is told that it is unfinished.

    The block writes into the directory that it is given. Then each file is synced, the old manifest removed, the files
    renamed into place, and the new manifest, of these and of all files that were there, written last.

    Raises:
        UndriftError: The disk is full; a result that was there is intact.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stage = directory / f".stage.{os.getpid()}.tmp"
    _sweep(directory)
    stage.mkdir()
    try:
        yield stage
        names = sorted(path.name for path in stage.iterdir())
        for name in names:
            sync(stage / name)
        (directory / MANIFEST).unlink(missing_ok=True)
        for name in names:
            os.replace(stage / name, directory / name)
        sync_directory(directory)
        files = [path.name for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")]
        write_manifest(directory, [name for name in files if name != MANIFEST and not name.endswith(".tmp")], extra)
    except OSError as error:
        if disk_full(error):
            needed = sum(path.stat().st_size for path in stage.iterdir()) if stage.is_dir() else 0
            raise out_of_space(directory, needed, "what was saved before is intact") from None
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(directory: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in [*directory.glob(".stage.*.tmp"), *directory.glob(f"{CHECKPOINTS}.*.tmp")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(f"{MANIFEST}.*.tmp"):
        path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flat(tree: object, prefix: str = "") -> dict[str, str]:
    if isinstance(tree, Mapping) and tree:
        parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix: json.dumps(tree, sort_keys=True, default=str)}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two trees of JSON-able values, a line each; ``budget`` and ``steps`` may differ.

    Whether those two grew is looked at where their meaning is known, in ``undrift.train.loop``.
    """
    before, now = _flat(old), _flat(new)
    names = [name for name in {**before, **now} if name.rsplit(".", 1)[-1] not in ("budget", "steps")]
    return [
        f"{name}: was {before.get(name, 'absent')}, now {now.get(name, 'absent')}"
        for name in names
        if before.get(name) != now.get(name)
    ]
