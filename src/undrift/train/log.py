"""``metrics.jsonl``: what a training measured, one JSON object a line.

Every line has ``kind`` ("train", "validation", or what the caller names), ``step`` and ``seconds`` (of training, all
parts of a resumed run together). Numbers that are not finite are null. Writing is best effort: a log that cannot be
written never stops a training.
"""

from __future__ import annotations

__all__ = ["MetricsLog", "read_metrics"]

import json
import logging
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

logger = logging.getLogger(__name__)


def _plain(value: object) -> object:
    """JSON without NaN, from numbers, arrays and tensors."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # type: ignore[union-attr]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class MetricsLog:
    """Appends lines to a file.

    Attributes:
        lines: Those of a log without a file.

    Args:
        path: The file, or None to keep the lines in memory.
        keep: Bytes of the file that belong to what is gone on with; later lines are of a future that did not come to be
            and are cut off, so that a resumed run has none twice. None keeps all.
    """

    def __init__(self, path: Path | None, keep: int | None = None) -> None:
        self.path = path
        self._file: TextIO | None = None
        self.lines: list[dict[str, Any]] = []
        if path is not None:
            try:
                if keep is not None and path.exists() and path.stat().st_size > keep:
                    os.truncate(path, keep)
                self._file = path.open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                self._give_up(error)

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def _give_up(self, error: OSError) -> None:
        logger.warning("%s cannot be written (%s): training goes on without it", self.path, error.strerror)
        self.close()

    def write(self, kind: str, step: int, seconds: float, values: Mapping[str, object]) -> None:
        """Append one line."""
        if self._file is None and self.path is not None:
            return
        line = {"kind": kind, "step": step, "seconds": round(seconds, 3), **{k: _plain(v) for k, v in values.items()}}
        if self._file is None:
            self.lines.append(line)
            return
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file; later lines are dropped."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a ``metrics.jsonl`` in order; one that was cut short is left out, a missing file is empty."""
    if not path.exists():
        return []
    return [line for text in path.read_bytes().splitlines() if (line := _line(text)) is not None]
