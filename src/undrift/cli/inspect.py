"""``undrift inspect``."""

from __future__ import annotations

__all__ = ["inspect"]

from undrift.cli.options import Json, NoVerify
from undrift.cli.output import emit_json, facts


def inspect(run: str, /, *, no_verify: NoVerify = False, json: Json = False) -> int:
    """Show what a run directory holds.

    Task, data, network, training, and whether its files are intact.

    Example: undrift inspect RUN

    Args:
        run: The run directory.
    """
    from undrift.cli.runs import open_run

    described = open_run(run, verify=not no_verify, device="cpu").describe()
    if json:
        emit_json(described)
    else:
        facts(described)
    return 0
