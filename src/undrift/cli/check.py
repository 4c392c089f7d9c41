"""``undrift check``."""

from __future__ import annotations

__all__ = ["check"]

import math
from typing import Any

from undrift.cli.options import (
    Covariates,
    Dims,
    DryRun,
    Factor,
    Future,
    Given,
    Holdout,
    Json,
    Longest,
    Members,
    Past,
    Periodic,
    Select,
    Static,
    Task,
    Variables,
    names,
    tell_reversed,
)
from undrift.cli.output import emit_json, facts, note, say
from undrift.errors import DataError, UsageError

_PROGRAM_MB = 300


def check(
    *data: str,
    task: Task = None,
    factor: Factor = None,
    past: Past = None,
    future: Future = None,
    members: Members = None,
    longest: Longest = None,
    given: Given = None,
    variables: Variables = None,
    static: Static = None,
    covariates: Covariates = None,
    dims: Dims = None,
    periodic: Periodic = None,
    select: Select = None,
    holdout: Holdout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Say what is wrong with files, and suggest how to train on them.

    Example: undrift check tas_*.nc --holdout 20%

    Without --task, what the data allow is suggested.

    Args:
        data: NetCDF, Zarr, NumPy or HDF5 files, or globs in quotes; PAIR.npz:hr is one variable of a file.
    """
    if not data:
        raise UsageError("no data is named; type undrift check FILE...")
    from undrift.config import Task as Defaults
    from undrift.config import refuse_idle_options
    from undrift.data.check import check as examine

    refuse_idle_options(
        {"factor": factor, "past": past, "future": future, "members": members, "longest": longest}, task, given
    )
    tell_reversed("--holdout", holdout)
    opening = {
        "dims": names(dims), "variables": names(variables), "static": names(static), "covariates": names(covariates),
        "periodic": names(periodic), "select": select,
    }  # fmt: skip
    if dry_run:
        plan = {"data": _plan(list(data), opening)}
        plan |= {"given": _plan(given, {"dims": names(dims)})} if given else {}
        emit_json(plan) if json else facts(plan)
        note("only a few samples were read (--dry-run)")
        return 0
    report = examine(
        list(data),
        task=task,
        factor=factor,
        past=past,
        future=Defaults().future if future is None else future,
        members=Defaults().members if members is None else members,
        longest=longest,
        given=given,
        holdout=holdout,
        **opening,
    )
    if json:
        emit_json(report.to_dict())
    else:
        say(report.text())
    return DataError.exit_code if report.severity == "error" else 0


def _plan(paths: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """What would be read of some files, as their metadata and the time for the first samples tell."""
    from undrift.data.fields import MEMORY_LIMIT
    from undrift.data.open import open_fields
    from undrift.data.scan import seconds_to_scan

    fields = open_fields(paths, **options)
    layout, cells = fields.layout, math.prod(fields.layout.shape)
    size = 4 * len(fields) * len(layout.channels) * cells
    return {
        "files": list(fields.sources),
        "samples": len(fields),
        "channels": {channel.label: dict(zip(layout.space, layout.shape)) for channel in layout.channels},
        "static": [str(name) for name in fields.static.data_vars],
        "covariates": list(fields.covariate_names),
        "bytes_to_read": size,
        "time": f"about {seconds_to_scan(fields):.2g} s to read all values",
        "memory_mb": round((size if size <= MEMORY_LIMIT else 0) / 2**20 + _PROGRAM_MB),
    }
