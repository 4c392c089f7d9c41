"""The line to type next, of ``undrift train``."""

import shlex
from collections.abc import Sequence
from typing import Any

__all__ = ["train_line"]


def train_line(data: Any, task: str, options: dict[str, Any], holdout: str | None) -> str:
    """The train line, quoted for a shell."""

    def words(value: Any) -> list[str]:
        if isinstance(value, str) or hasattr(value, "__fspath__"):
            return [str(value)]
        return [str(v) for v in value] if isinstance(value, Sequence) else ["DATA"]

    line = ["undrift", "train", *words(data), "--task", task]
    for option, value in options.items():
        if value is None or (isinstance(value, Sequence) and not value):
            continue
        parts = words(value)
        if option == "--given":
            for part in parts:
                line += [option, part]
        else:
            line += [option, ",".join(parts)]
    line += ["--holdout", holdout or "20%", "--budget", "3m", "--out", "RUN"]
    return shlex.join(line)
