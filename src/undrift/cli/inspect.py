"""``undrift inspect``."""

from __future__ import annotations

__all__ = ["inspect"]

from pathlib import Path

from undrift.cli.options import Json, NoVerify
from undrift.cli.output import emit_json, facts
from undrift.errors import CheckpointError


def inspect(run: str, /, *, no_verify: NoVerify = False, json: Json = False) -> int:
    """Show what a run directory holds.

    Task, data, network, training, and whether its files are intact.

    Example: undrift inspect RUN

    Args:
        run: The run directory.
    """
    from undrift.cli.runs import open_any

    described = open_any(run, verify=not no_verify, device="cpu").describe()
    described["files"] = _files(run, verified=not no_verify)
    if json:
        emit_json(described)
    else:
        facts(described)
    return 0


def _files(run: str, *, verified: bool) -> str:
    """Whether the files are those that were written; where that was not looked at on opening, it is now."""
    from undrift.train.manifest import read_manifest, verify_manifest

    names = list(read_manifest(Path(run))["files"])
    damaged = []
    for name in [] if verified else names:
        try:
            verify_manifest(Path(run), names=[name])
        except CheckpointError:
            damaged.append(name)
    if damaged:
        return f"{len(damaged)} of {len(names)} differ from what was written: {', '.join(damaged)}"
    return f"intact: all {len(names)} have the checksums of the manifest"
