"""``undrift check``."""

from __future__ import annotations

__all__ = ["check"]

from typing import Literal

from undrift.cli.options import Flag, Many, names
from undrift.cli.output import emit_json, say
from undrift.errors import DataError, UsageError


def check(
    *data: str,
    task: Literal["downscale", "emulate"] | None = None,
    factor: int = 4,
    given: Many = None,
    variables: str | None = None,
    static: str | None = None,
    covariates: str | None = None,
    dims: str | None = None,
    periodic: str | None = None,
    select: str | None = None,
    holdout: str | None = None,
    json: Flag = False,
) -> int:
    """Say what is wrong with files, and suggest how to train on them.

    Example: undrift check tas_*.nc --holdout 20%

    Args:
        data: NetCDF, Zarr, NumPy or HDF5 files, or globs in quotes.
        task: What the model is for; without it, what the data allows is suggested.
        factor: Fine cells per coarse cell along each side, when downscaling from area means.
        given: Files of what is given, on any grid, joined on time with DATA.
        variables: Names to take, as a,b; without it all fields.
        static: Files or names of variables without sample dims that condition the model, as orography.nc or z,lsm.
        covariates: Names of numbers per sample that are given, as year,scenario.
        dims: Names of the axes for NumPy and HDF5, as sample,z,y,x.
        periodic: Spatial dims that close on themselves, as x or y,x; none for no dim.
        select: Part of the data, as lat=35/60,lon=-10/30 (inclusive).
        holdout: Samples kept for testing, as year=2070/2099,scenario=E1 or 20%.
        json: Print one JSON object.
    """
    if not data:
        raise UsageError("no data is named; type undrift check FILE...")
    from undrift.data.check import check as examine

    report = examine(
        list(data),
        task=task,
        factor=factor,
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
