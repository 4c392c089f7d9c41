"""What several verbs share: the forms of their options, the configuration they add up to, and the number of threads."""

from __future__ import annotations

__all__ = ["Flag", "Many", "Settings", "names", "resolve", "set_threads", "settings"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from undrift.errors import UsageError

if TYPE_CHECKING:
    from undrift.config import Config

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is typed."""
Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable="")]
"""One or more words after one option: ``--given a.nc b.nc``."""
Settings = Annotated[list[str] | None, Parameter(name="--set", negative_iterable="")]
"""``--set section.key=value``, as often as needed."""


def names(text: str | None) -> list[str] | None:
    """Split ``a,b`` into names; None stays None ("not said")."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def settings(items: list[str] | None) -> dict[str, str]:
    """Read the words after ``--set`` as a table from dotted key to text.

    Raises:
        UsageError: A word without ``=``, or a key given twice with different values.
    """
    result: dict[str, str] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"got --set {item!r}, expected --set section.key=value, such as --set train.batch=8")
        if result.setdefault(key.strip(), value) != value:
            raise UsageError(f"--set {key.strip()} is given twice, as {result[key.strip()]!r} and as {value!r}")
    return result


def resolve(
    base: Config | None, file: str | Path | None, flags: Mapping[str, object], items: list[str] | None
) -> Config:
    """Add up a configuration: the base, then the file, then the flags, then ``--set``; the later one wins.

    Args:
        base: What holds where nothing else is said, such as the configuration of the run that is resumed.
        file: A TOML file, of which only the keys that it holds count.
        flags: Dotted key to the value of a flag; None means that it was not typed.
        items: The words after ``--set``.
    """
    from undrift.config import Config, apply_settings, load_config

    config = (base or Config()).model_copy(deep=True)
    if file is not None:
        top = load_config(file)
        for section in top.model_fields_set:
            part = getattr(top, section)
            for key in part.model_fields_set:
                setattr(getattr(config, section), key, getattr(part, key))
    config = apply_settings(config, {key: value for key, value in flags.items() if value is not None})
    return apply_settings(config, settings(items))


def set_threads() -> None:
    """Give torch the number of threads that the scheduler or the user gave this process.

    ``OMP_NUM_THREADS`` counts first, then ``SLURM_CPUS_PER_TASK``; without them torch decides.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                raise UsageError(f"the environment has {variable}={text!r}, expected a whole number of threads")
            import torch

            torch.set_num_threads(int(text))
            return
