"""Scores as rows, and scores on disk."""

__all__ = ["read_scores", "to_table", "write_scores"]

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.netcdf import open_dataset, write_dataset
from undrift.data.rows import renamed
from undrift.errors import DataError, UsageError
from undrift.verify.leads import LEAD, lead_text

_SCHEMA = 1


def to_table(scores: xr.Dataset) -> list[dict[str, Any]]:
    """One row per number that stands for a whole variable (and baseline, and lead), with its interval.

    Returns:
        Rows with `variable` and `baseline` ("" where it is of none), `score`, `value`, `lower`, `upper` (None where
        unknown) and `units` ("" for ratios); of scores by lead time also `lead`, such as "6 h".
    """
    rows: list[dict[str, Any]] = []
    for name, array in scores.data_vars.items():
        if str(name).endswith("_interval") or not set(array.dims) <= {"variable", "baseline", LEAD}:
            continue
        bounds = scores.get(f"{name}_interval")
        for index in np.ndindex(*array.shape):
            at = dict(zip(array.dims, index))
            one = array.isel(at)
            low, high = (None, None) if bounds is None else (_plain(v) for v in bounds.isel(at).values)
            units = str(one["units"].values) if "units" in one.coords else ""
            lead = {"lead": lead_text(one[LEAD].values[()])} if LEAD in at else {}
            rows.append(
                {
                    "variable": str(one["variable"].values) if "variable" in at else "",
                    **lead,
                    "baseline": str(one["baseline"].values) if "baseline" in at else "",
                    "score": str(name),
                    "value": _plain(one.values[()]),
                    "lower": low,
                    "upper": high,
                    "units": _units_of(str(name), units),
                }
            )
    return rows


def _units_of(score: str, units: str) -> str:
    """The units of a score: those of the data, their root for the variogram score of order 1/2, none for ratios."""
    return units if score.removesuffix("_baseline") in _WITH_UNITS else ""


_WITH_UNITS = {"crps", "rmse", "bias", "mae", "spread", "wet_threshold", "variogram", "truth_deviation"}


def _plain(value: Any) -> Any:
    """A number that JSON can hold; NaN and infinity become None."""
    item = value.item() if hasattr(value, "item") else value
    return None if isinstance(item, float) and not math.isfinite(item) else item


def _listed(array: xr.DataArray) -> dict[str, Any]:
    values = array.values
    if values.dtype.kind == "M":
        values = values.astype("datetime64[s]").astype(str)
    if values.dtype.kind == "m":
        seconds = values / np.timedelta64(1, "s")
        return {"dims": list(map(str, array.dims)), "shape": list(values.shape), "values": seconds.ravel().tolist(),
                "seconds": True}  # fmt: skip
    flat = [_plain(value) for value in values.astype(object).ravel()]
    flat = [value if value is None or isinstance(value, int | float | str) else str(value) for value in flat]
    return {"dims": list(map(str, array.dims)), "shape": list(values.shape), "values": flat}


def write_scores(scores: xr.Dataset, path: str | Path) -> Path:
    """Write scores to .json (with the table) or .nc, under another name first and then renamed.

    Raises:
        UsageError: for another suffix.
    """
    path = Path(path)
    if path.suffix not in (".json", ".nc"):
        raise UsageError(f"scores are written to .json or .nc, not to {path.name!r}")
    with renamed(path) as partial:
        if path.suffix == ".json":
            content = {
                "schema": _SCHEMA,
                "attrs": {str(key): _plain(value) for key, value in scores.attrs.items()},
                "table": to_table(scores),
                "coords": {str(name): _listed(array) for name, array in scores.coords.items()},
                "scores": {str(name): _listed(array) for name, array in scores.data_vars.items()},
            }
            partial.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
        else:
            write_dataset(scores, partial)
    return path


def read_scores(path: str | Path) -> xr.Dataset:
    """The scores that `write_scores` wrote.

    Raises:
        DataError: where the file is neither.
    """
    path = Path(path)
    try:
        if path.suffix == ".nc":
            with open_dataset(path) as opened:
                return opened.load()
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [{name: _array(one) for name, one in content[key].items()} for key in ("scores", "coords")]
        return xr.Dataset(parts[0], parts[1], content["attrs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no scores of undrift: {error}") from error


def _array(one: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    values = one["values"]
    if all(isinstance(value, str) for value in values) and values:
        array = np.array(values)
    else:
        array = np.array([np.nan if value is None else value for value in values])
    if one.get("seconds"):
        array = (1e9 * array).round().astype("timedelta64[ns]")
    return one["dims"], array.reshape(one["shape"])
