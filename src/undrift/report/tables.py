"""The numbers of the report: every one is taken from the scores as it is, and rounded only as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from undrift.report.style import number, units_text

__all__ = [
    "Cell",
    "Column",
    "Row",
    "Table",
    "calibration_table",
    "law_table",
    "overview_table",
    "score_table",
    "sequence_table",
    "shift_table",
]


@dataclass(frozen=True)
class Cell:
    """One number: as text, exactly, the score it is (a key for machines), its interval, whether it is the best."""

    text: str
    exact: str = ""
    key: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A heading and the small print under it."""

    name: str
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """A named row; the model's own row is set apart."""

    name: str
    cells: list[Cell]
    model: bool = False


@dataclass
class Table:
    """Rows of numbers under headings."""

    caption: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def cell(scores: xr.Dataset, key: str, *, best: bool = False, step: float = 0.0, **at: str | float) -> Cell:
    """The number `key` of one channel's scores at the labels `at`, with its interval where there is one.

    `step` is a difference that the text must still show; three significant digits where it is 0.
    """
    if key not in scores:
        return Cell("–")
    value = float(scores[key].sel(at))
    interval = ""
    if f"{key}_interval" in scores:
        low, high = (float(scores[f"{key}_interval"].sel(at).sel(bound=b)) for b in ("lower", "upper"))
        interval = f"{number(low)} to {number(high)}" if np.isfinite([low, high]).all() else ""
    name = ";".join([key, *(f"{k}={v}" for k, v in at.items())])
    return Cell(number(value, _digits(value, step)), repr(value), name, interval, best)


def _digits(value: float, step: float) -> int:
    """Significant digits, at least three, at which a change of `value` by `step` is seen."""
    if not (step > 0 and np.isfinite(value) and value != 0):
        return 3
    return int(np.clip(1 + np.floor(np.log10(abs(value))) - np.floor(np.log10(step)), 3, 9))


def baselines_of(scores: xr.Dataset) -> list[str]:
    """Names of the baselines that have a prediction, best CRPS first."""
    if "crps_baseline" not in scores:
        return []
    values = scores["crps_baseline"].values
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    return [str(scores["baseline"].values[i]) for i in order if np.isfinite(values[i])]


def score_table(scores: xr.Dataset, units: str) -> Table | None:
    """The model and its baselines, best first; None where nothing was matched.

    Args:
        scores: of one channel.
        units: of the field.
    """
    if "crps" not in scores:
        return None
    names = baselines_of(scores)
    best = {key: _best(scores, key, names) for key in ("crps", "rmse", "variogram")}
    rows = [Row("This model", [
        cell(scores, "crps", best=best["crps"] is None), Cell("–"),
        cell(scores, "rmse", best=best["rmse"] is None),
        cell(scores, "variogram", best=best["variogram"] is None), Cell("–"),
    ], model=True)]  # fmt: skip
    for name in names:
        rows.append(Row(name, [
            cell(scores, "crps_baseline", best=best["crps"] == name, baseline=name),
            cell(scores, "skill", baseline=name),
            cell(scores, "rmse_baseline", best=best["rmse"] == name, baseline=name),
            cell(scores, "variogram_baseline", best=best["variogram"] == name, baseline=name),
            cell(scores, "variogram_skill", baseline=name),
        ]))  # fmt: skip
    unit = f"[{units}]" if units and units != "1" else ""
    columns = [
        Column("", ""),
        Column("CRPS", unit),
        Column("model's skill", "1 − CRPS ratio"),
        Column("RMSE of mean", unit),
        Column("variogram score", "order ½"),
        Column("model's skill", "1 − ratio"),
    ]
    samples, members = scores.attrs.get("n_samples", "?"), scores.attrs.get("n_realizations", "?")
    if not names:  # skill is against a baseline
        columns = [columns[i] for i in (0, 1, 3, 4)]
        rows = [Row(row.name, [cell(scores, k) for k in ("crps", "rmse", "variogram")], row.model) for row in rows]
    better = "lower is better" + (" but in skill, where higher is" if names else "")
    cells = ", cells weighted by area" if scores.attrs.get("weights") == "area" else ""
    table = Table(f"Scores over {samples} samples with {members} realizations each{cells}; {better}.", columns, rows)
    table.notes.append(
        "CRPS: the fair one, the same on average for any number of realizations. Variogram score: how well differences "
        "between neighbouring cells are told."
    )
    if names:
        table.notes.append(
            "Baselines are dressed with their own cross-validated errors. Skill above 0 means that the model is better."
        )
    if any(c.interval for row in rows for c in row.cells):
        best_of = " Best in bold." if names else ""
        table.notes.append(f"Small figures: 95 % intervals from a bootstrap over blocks of samples.{best_of}")
    return table


def _best(scores: xr.Dataset, key: str, names: Sequence[str]) -> str | None:
    """The baseline that has the smallest score, None where the model has."""
    rivals = [(float(scores[f"{key}_baseline"].sel(baseline=n)), n) for n in names if f"{key}_baseline" in scores]
    rivals = [pair for pair in rivals if np.isfinite(pair[0])]
    if not rivals or min(rivals)[0] >= float(scores[key]):
        return None
    return min(rivals)[1]


def calibration_table(scores: xr.Dataset, units: str) -> Table | None:
    """Is the ensemble as wide as its errors; None where nothing was matched."""
    if "spread_skill" not in scores:
        return None
    unit = f" [{units}]" if units and units != "1" else ""
    noise = float(scores["reliability_noise"]) if "reliability_noise" in scores else float("nan")
    rows = [
        Row("Spread / skill", [cell(scores, "spread_skill"), Cell("1")]),
        Row(f"Spread{unit}", [cell(scores, "spread"), Cell("that of the errors")]),
        Row(f"Bias of the mean{unit}", [cell(scores, "bias"), Cell("0")]),
        Row(f"Mean absolute error of the mean{unit}", [cell(scores, "mae"), Cell("small")]),
        Row(
            "Reliability index of ranks",
            [
                cell(scores, "reliability_index"),
                Cell(f"up to {number(noise)} by chance" if np.isfinite(noise) else "0"),
            ],
        ),
    ]
    members = int(scores.attrs.get("n_realizations", 0))
    caption = "Calibration of the ensemble."
    if members > 1:
        caption += (
            f" Spread / skill: spread over RMSE, times √({members + 1}/{members}) as the mean of {members} errs too."
        )
    return Table(caption, [Column(""), Column("measured"), Column("ideal")], rows)


def law_table(scores: xr.Dataset, units: str) -> Table | None:
    """Quantiles of all values, and the shares of zeros and of wet cells where there are any."""
    if "quantiles_truth" not in scores:
        return None
    rows = []
    unit = f" [{units}]" if units and units != "1" else ""
    known = scores["quantiles_truth"].values
    step = float(np.nanmax(known) - np.nanmin(known)) / 1000 if np.isfinite(known).any() else 0.0
    for q in scores["quantile"].values.tolist():
        cells = [cell(scores, f"quantiles_{side}", step=step, quantile=q) for side in _SIDES]
        rows.append(Row(f"{100 * q:g} % quantile{unit}", cells))
    rainy = bool(_any_between(scores, "zero_fraction"))
    if rainy:
        rows.append(Row("Share of exact zeros", [cell(scores, f"zero_fraction_{side}") for side in _SIDES]))
        least = float(scores["wet_threshold"]) if "wet_threshold" in scores else 0.0
        text = f"Wet share (at least {number(least)}{' ' + units if units else ''})" if least else "Share above zero"
        rows.append(Row(text, [cell(scores, f"wet_fraction_{side}") for side in _SIDES]))
    columns = [Column(""), Column("truth"), Column("ensemble")]
    return Table("Distribution of all values, over cells (by area), samples and realizations.", columns, rows)


def shift_table(scores: xr.Dataset, units: str) -> Table | None:
    """How far two laws without counterparts lie apart; None where there are counterparts."""
    if "mean_shift" not in scores:
        return None
    rows = [
        Row("Mean less that of the truth", [cell(scores, "mean_shift"), Cell("0")]),
        Row("Standard deviation over that of the truth", [cell(scores, "deviation_ratio"), Cell("1")]),
    ]
    for q in scores["quantile"].values.tolist():
        rows.append(
            Row(
                f"{100 * q:g} % quantile less that of the truth",
                [cell(scores, "quantile_shift", quantile=q), Cell("0")],
            )
        )
    unit = f"{number(float(scores['truth_deviation']))} {units}".strip()
    caption = f"Ensemble against truth, differences in standard deviations of the truth over samples ({unit})."
    return Table(caption, [Column(""), Column("measured"), Column("ideal")], rows)


def sequence_table(scores: xr.Dataset, units: str) -> Table | None:
    """Is the ensemble as steady in time as the truth; None where the samples are no sequence."""
    if "autocorrelation_truth" not in scores or not np.isfinite(float(scores["autocorrelation_truth"])):
        return None
    sides, named = ["truth", "ensemble"], [""]
    columns = [Column(""), Column("truth"), Column("ensemble"), Column("apart"), Column("by chance")]
    memory = [cell(scores, f"autocorrelation_{side}", step=1e-4) for side in sides]
    rows = [Row("Lag-1 autocorrelation", [*memory, Cell("–"), Cell("–")])]
    for spell in map(str, scores["spell"].values):
        keys = ("spell_truth", "spell_ensemble", "spell_distance", "spell_distance_expected")
        rows.append(Row(f"Spells {spell} [frames]", [cell(scores, key, spell=spell) for key in keys]))
    for name in baselines_of(scores) if "autocorrelation_baseline" in scores else ():
        named.append(f"{name} {number(float(scores['autocorrelation_baseline'].sel(baseline=name)), 4)}")
    table = Table("In time: how alike neighbouring frames are, and how long spells last, in the mean.", columns, rows)
    table.notes.append(
        "Spells: frames in a row beyond a quantile of the cell. Apart: area between the distribution functions of "
        "their lengths; by chance: that of a realization from the others."
    )
    if named[1:]:
        table.notes.append(f"Lag-1 autocorrelation of the baselines: {', '.join(named[1:])}.")
    return table


_SIDES = ("truth", "ensemble")


def _any_between(scores: xr.Dataset, key: str) -> bool:
    return any(f"{key}_{side}" in scores and float(scores[f"{key}_{side}"]) > 1e-3 for side in _SIDES)


def overview_table(scores: xr.Dataset) -> Table | None:
    """All channels in one table, those that have no figures included."""
    if "crps" not in scores or scores.sizes.get("variable", 1) < 2:
        return None
    rows = []
    for name in scores["variable"].values:
        one = scores.sel(variable=name)
        rivals = baselines_of(one)
        cells = [cell(one, "crps", best=not rivals or _best(one, "crps", rivals) is None)]
        if rivals:
            cells += [
                Cell(rivals[0]),
                cell(one, "crps_baseline", baseline=rivals[0]),
                cell(one, "skill", baseline=rivals[0]),
            ]
        cells += [cell(one, "spread_skill"), cell(one, "reliability_index")]
        units = units_text(one["units"].item()) if "units" in one.coords else ""
        rows.append(Row(f"{name} [{units}]" if units and units != "1" else str(name), cells))
    has = "crps_baseline" in scores
    columns = [Column(""), Column("CRPS")]
    columns += [Column("best baseline"), Column("its CRPS"), Column("skill against it")] if has else []
    columns += [Column("spread / skill"), Column("reliability index")]
    return Table("All fields.", columns, rows)
