"""What a caller names, as a configuration and as opened data."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.config import (
    Config,
    apply_arguments,
    apply_settings,
    forked,
    load_config,
    overlaid,
    refuse_idle_options,
)
from undrift.data.dims import parse_dims
from undrift.data.fields import Fields
from undrift.data.open import open_fields
from undrift.data.ranges import spoken_bounds
from undrift.data.sources import from_array, read_path
from undrift.errors import DataError, UsageError
from undrift.tasks import Density, Task

__all__ = ["Data", "configure", "named", "open_data"]

Data = str | Path | Sequence[str | Path] | xr.Dataset | xr.DataArray | np.ndarray


def paths_of(data: object) -> list[str]:
    """The paths among what may be data; none of an object in memory."""
    if isinstance(data, str | Path):
        return [str(data)]
    return [str(p) for p in data if isinstance(p, str | Path)] if isinstance(data, list | tuple) else []


def _selection(value: object) -> object:
    """``{"year": (2070, 2099), "scenario": "E1"}`` as the text ``year=2070/2099,scenario=E1``."""
    if not isinstance(value, Mapping):
        return value
    ends = {k: v if isinstance(v, tuple | list) else (v,) for k, v in value.items()}
    return ",".join(f"{k}={'/'.join(str(e) for e in v)}" for k, v in ends.items())


def _lead(value: object) -> object:
    """A longest lead as text: a timedelta in seconds, a number as it is."""
    if isinstance(value, np.timedelta64 | timedelta):
        return f"{np.timedelta64(value) / np.timedelta64(1, 's'):g}s"
    return value if value is None else str(value)


def _bounds(value: object) -> object:
    """Bounds of parameters as what a configuration takes: a path as text, and pairs as lists with N where open."""
    if not isinstance(value, Mapping):
        return value if value is None else str(value)
    known, periodic = spoken_bounds(value)
    return {
        name: [*("N" if np.isinf(end) else float(end) for end in ends), *(["periodic"] if name in periodic else [])]
        for name, ends in known.items()
    }


def _names(argument: str, value: object) -> object:
    """One name, a text of several, or a sequence of names, as what a configuration takes."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, Iterable):
        raise UsageError(f"got {argument}={value!r}, expected names, such as {argument}='a,b' or {argument}=['a', 'b']")
    return [str(v) for v in value]


def configure(
    data: Data,
    task: str | Task | Density | None,
    config: str | Path | None,
    settings: Mapping[str, object] | None,
    arguments: Mapping[str, Any],
) -> Config:
    """The resolved configuration of `undrift.fit`: the file, then the arguments, then the single settings."""
    base = Config() if arguments["fork"] is None else forked(arguments["fork"])
    if arguments["fork"] is not None and not paths_of(data):
        base.data.paths, base.data.given = [], []  # what is passed is in their place
    base = base if config is None else overlaid(base, load_config(config))
    name = task if task is None or isinstance(task, str) else task.name
    given = dict(arguments, task=name, data=paths_of(data) or None, given=paths_of(arguments["given"]) or None)
    given["base"] = next(iter(paths_of(arguments["base"])), None)  # a table in memory is passed beside
    refuse_idle_options(given, name or base.task.name, arguments["given"] is not None or base.data.given)
    for one in () if task is None or isinstance(task, str) else dataclasses.fields(task):
        said, beside = getattr(task, one.name), given[one.name]
        if beside is not None and said is not None and (one.name == "base" or beside != said):
            raise UsageError(f"got {one.name}={beside!r} beside {task!r}; leave one of them out")
        given[one.name] = said if beside is None else beside
    given["base"] = next(iter(paths_of(given["base"])), None)
    given["longest"] = _lead(given["longest"])
    for name in ("select", "holdout"):
        given[name] = _selection(given[name])
    given["bounds"] = _bounds(given["bounds"])
    for name in ("variables", "static", "covariates", "dims", "periodic"):
        given[name] = _names(name, given[name])
    return apply_settings(apply_arguments(base, given), dict(settings or {}))


def base_of(task: str | Task | Density | None, base: Any) -> Any:
    """Where a flow begins, of the argument or of the task; None of a path, which the configuration has.

    Raises:
        UsageError: both name one.
    """
    said = task.base if isinstance(task, Density) else None
    if said is not None and base is not None:
        raise UsageError("got base= beside the base of the task; leave one of them out")
    found = said if base is None else base
    return None if paths_of(found) else found


def open_data(config: Config, data: Data | None, given: Data | None) -> tuple[Fields, Fields | None]:
    """The target's fields and those of what is given; objects are taken where the configuration has no paths."""
    d = config.data
    source = list(d.paths) if d.paths else data
    if source is None:
        raise DataError("the run was trained on data in memory; pass them again: undrift.load(run, data=...)")
    target = open_fields(
        source, dims=d.dims or None, variables=d.variables or None, static=d.static or None,
        covariates=d.covariates or None, periodic=d.periodic or None, select=d.select,
    )  # fmt: skip
    beside = list(d.given) if d.given else given
    other = None if beside is None else open_fields(beside, dims=d.dims or None, periodic=d.periodic or None)
    return target, other


def named(given: Data, config: Config, variables: Sequence[str]) -> Data:
    """What is given to a model of windows; a .npy or an array has no name, and gets that of the one variable."""
    dims, paths = parse_dims(config.data.dims or None), paths_of(given)
    if len(variables) > 1 or dims is None:
        return given
    if len(paths) == 1 and paths[0].endswith(".npy") and Path(paths[0]).is_file():
        ds = read_path(Path(paths[0]), dims, None, None)
        return ds.rename({next(iter(ds.data_vars)): variables[0]})
    return from_array(given, dims, name=variables[0], source="given") if isinstance(given, np.ndarray) else given
