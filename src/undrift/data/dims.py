"""Names of dimensions: what ``--dims`` says, and the line to type where it is missing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from undrift.data.cf import role_of_name
from undrift.errors import UsageError

__all__ = ["parse_dims", "suggest_dims"]

_READINGS = {
    2: ("sample,x",),
    3: ("sample,y,x",),
    4: ("sample,time,y,x", "sample,channel,y,x"),
    5: ("sample,channel,z,y,x", "sample,time,channel,y,x"),
}


def parse_dims(dims: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The names in ``--dims sample,z,y,x``.

    Raises:
        UsageError: A name is repeated or empty, or none is space.
    """
    if dims is None:
        return None
    names = tuple(name.strip() for name in (dims.split(",") if isinstance(dims, str) else dims))
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(f"--dims {','.join(names)}: names must be different and not empty, such as sample,y,x")
    if not any(role_of_name(name) in ("x", "y", "z") for name in names):
        raise UsageError(f"--dims {','.join(names)}: none is space; call the dimensions of space z, y, x")
    return names


def suggest_dims(shape: Sequence[int], source: str) -> str:
    """The line to type for an array of this shape, and another reading of it where there is one."""
    n = len(shape)
    names = _READINGS.get(max(n, 2)) or (",".join([*(f"sample{i}" for i in range(n - 3)), "channel", "y", "x"]),)
    if n == 4 and len(set(shape[1:])) == 1:
        names = ("sample,z,y,x", *names)
    command = f"undrift check {shlex.quote(source)} " if Path(source).exists() else ""
    other = f" (or {', or '.join(names[1:])})" if names[1:] else ""
    return f"{command}--dims {names[0]}{other}"
