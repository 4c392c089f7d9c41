"""What data are: their samples, grid, channels and transforms, in sentences and in plain numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from undrift.data.cf import is_timelike
from undrift.data.fields import Fields
from undrift.data.findings import Line, Looks
from undrift.data.layout import plain
from undrift.data.order import span
from undrift.data.tidy import steps

__all__ = ["facts_of", "possible_covariates", "shape_lines", "transform_lines"]


def shape_lines(fields: Fields) -> Iterator[Line]:
    """Samples, grid, channels, static fields and covariates."""
    layout, data = fields.layout, fields.dataset
    sizes = " x ".join(f"{dim} {data.sizes[dim]}" for dim in layout.sample if dim in data.sizes)
    files = len(fields.sources)
    yield "info", f"{len(fields)} samples ({sizes}) from {files} source{'s' if files > 1 else ''}"
    grid = " x ".join(f"{dim} {n}" for dim, n in zip(layout.space, layout.shape))
    kind = "no latitude and longitude"
    if layout.latitude and layout.longitude and layout.latitude in data.coords:
        lat, lon = data[layout.latitude].values, data[layout.longitude].values
        two = "2-D " if np.ndim(lat) == 2 else ""
        west, east = span(lon)
        kind = f"{two}latitude {np.nanmin(lat):.4g} to {np.nanmax(lat):.4g}, longitude {west:.4g} to {east:.4g}"
    loops = [dim for dim, flag in zip(layout.space, layout.periodic) if flag]
    yield "info", f"grid {grid} ({kind}), {'periodic along ' + ', '.join(loops) if loops else 'not periodic'}"
    labels = [channel.label for channel in layout.channels]
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    yield "info", f"{len(labels)} channel{'s' if len(labels) > 1 else ''}: {shown}"
    if fields.static.data_vars:
        yield "info", f"static, conditions the model: {', '.join(map(str, fields.static.data_vars))}"
    if fields.covariate_names:
        yield "info", f"covariates: {', '.join(fields.covariate_names)}"
    elif found := possible_covariates(fields):
        yield "info", f"possible covariates: --covariates {','.join(found)}"


def possible_covariates(fields: Fields) -> list[str]:
    """Labels that may condition a model: other sample dims, the year, and the hours and days that the record spans."""
    layout = fields.layout
    out = [d for d in layout.sample if d != layout.time and d in fields.dataset.coords and fields.dataset[d].size > 1]
    if layout.time is None or layout.time not in fields.dataset.coords:
        return out
    times = np.asarray(fields.dataset[layout.time].values)
    if not is_timelike(times):
        return [layout.time, *out]
    if times.size < 2:
        return out
    span, step = abs(float(np.sum(steps(times)))), float(np.median(np.abs(steps(times))))
    parts = [("year", span > 3 * 8760), ("dayofyear", span > 60 * 24 and step < 4000), ("hour", step < 23.5)]
    return [*(name for name, there in parts if there), *out]


def transform_lines(looks: dict[str, Looks]) -> Iterator[Line]:
    """The transform of each variable and why."""
    why = {
        "standard": lambda s: "values of either sign or far from zero",
        "power": lambda s: "positive, cube root",
        "censored": lambda s: f"{s.zeros:.1%} exact zeros, drawn and decoded as such",
        "bounded": lambda s: f"within [0, 1]; {s.zeros:.1%} exact zeros, {s.ones:.1%} exact ones",
    }
    for name, seen in looks.items():
        yield "info", f"transform of {name}: {seen.kind} ({why[seen.kind](seen)})"


def facts_of(fields: Fields, looks: dict[str, Looks]) -> dict[str, Any]:
    """Plain numbers for --json."""
    counts = {k: v for k, v in fields.counts.items() if isinstance(v, int | float | str | dict | list)}
    return {
        "layout": fields.layout.to_dict(),
        "samples": len(fields),
        "static": [str(name) for name in fields.static.data_vars],
        "transforms": {name: seen.kind for name, seen in looks.items()},
        "zeros": {name: seen.zeros for name, seen in looks.items()},
        "counts": _plain(counts),
    }


def _plain(value: Any) -> Any:
    """Nested containers of what JSON can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return plain(value) if value is not None else None
