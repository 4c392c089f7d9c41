"""The numbers of forecasts by lead time, as a table of each field."""

from __future__ import annotations

import numpy as np
import xarray as xr

from undrift.report.style import number, units_text
from undrift.report.tables import Cell, Column, Row, Table
from undrift.verify.leads import LEAD, lead_text

__all__ = ["lead_tables"]

_FIELDS = 6
_ROWS = 24


def lead_tables(scores: xr.Dataset) -> list[Table]:
    """A table of each field: a row for each lead, with the CRPS of the model and of its baselines, best in bold.

    Of more than 24 leads some are left out, and the table says so.
    """
    return [_table(scores.sel(variable=name), str(name)) for name in scores["variable"].values[:_FIELDS]]


def _table(one: xr.Dataset, name: str) -> Table:
    bases = [str(b) for b in one["baseline"].values] if "crps_baseline" in one else []
    bases = [b for b in bases if np.isfinite(one["crps_baseline"].sel(baseline=b).values).any()]
    units = units_text(one["units"].item()) if "units" in one.coords else ""
    unit = f"[{units}]" if units and units != "1" else ""
    events = [float(v) for v in one["threshold"].values] if "csi" in one and one["csi"].notnull().any() else []
    columns = [
        Column("lead"),
        Column("starts"),
        Column("CRPS", unit),
        *(Column(b, f"CRPS {unit}".strip()) for b in bases),
    ]
    columns += [Column("RMSE of mean", unit), Column("bias", unit), Column("spread / skill", "1 is calibrated")]
    columns += [Column(f"CSI \u2265 {number(v)}", unit) for v in events]
    count = one.sizes[LEAD]
    shown = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).round().astype(int))
    rows = [_row(one.isel({LEAD: int(k)}), bases, events) for k in shown]
    table = Table(f"{name}: forecasts by lead time; of CRPS the least is in bold.", columns, rows)
    if len(shown) < count:
        table.notes.append(f"{len(shown)} of {count} leads; `undrift evaluate --out` writes all.")
    if any(cell.interval for row in rows for cell in row.cells):
        table.notes.append("Small figures: 95 % intervals from a bootstrap over blocks of starts.")
    return table


def _row(at: xr.Dataset, bases: list[str], events: list[float]) -> Row:
    lead = lead_text(at[LEAD].values)
    values = {b: float(at["crps_baseline"].sel(baseline=b)) for b in bases}
    least = np.nanmin([float(at["crps"]), *values.values()]) if np.isfinite(float(at["crps"])) else np.nan
    cells = [
        Cell(str(int(at["n_starts"]))),
        _cell(at, "crps", lead, best=float(at["crps"]) == least),
        *(
            _cell(at.sel(baseline=b), "crps_baseline", lead, best=values[b] == least, of=f";baseline={b}")
            for b in bases
        ),
        *(_cell(at, key, lead) for key in ("rmse", "bias", "spread_skill")),
        *(_cell(at.sel(threshold=v), "csi", lead, of=f";threshold={v:g}") for v in events),
    ]
    return Row(lead, cells)


def _cell(at: xr.Dataset, key: str, lead: str, *, best: bool = False, of: str = "") -> Cell:
    value = float(at[key]) if key in at else float("nan")
    if not np.isfinite(value):
        return Cell("\u2013")
    interval = ""
    if f"{key}_interval" in at and key != "crps_baseline":
        low, high = (float(at[f"{key}_interval"].sel(bound=b)) for b in ("lower", "upper"))
        interval = f"{number(low)} to {number(high)}" if np.isfinite([low, high]).all() else ""
    return Cell(number(value), repr(value), f"{key};lead={lead}{of}", interval, best)
