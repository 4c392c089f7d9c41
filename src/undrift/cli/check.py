"""``undrift check``."""

from __future__ import annotations

__all__ = ["check"]

from undrift.cli.options import (
    Covariates,
    Dims,
    Factor,
    Given,
    Holdout,
    Json,
    Periodic,
    Select,
    Static,
    Task,
    Variables,
    names,
)
from undrift.cli.output import emit_json, say
from undrift.errors import DataError, UsageError


def check(
    *data: str,
    task: Task = None,
    factor: Factor = None,
    given: Given = None,
    variables: Variables = None,
    static: Static = None,
    covariates: Covariates = None,
    dims: Dims = None,
    periodic: Periodic = None,
    select: Select = None,
    holdout: Holdout = None,
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
    from undrift.data.check import check as examine

    report = examine(
        list(data),
        task=task,
        factor=Defaults().factor if factor is None else factor,
        given=given,
        variables=names(variables),
        static=names(static),
        covariates=names(covariates),
        dims=names(dims),
        periodic=names(periodic),
        select=select,
        holdout=holdout,
    )
    if json:
        emit_json(report.to_dict())
    else:
        say(report.text())
    return DataError.exit_code if report.severity == "error" else 0
