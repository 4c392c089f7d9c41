"""Runs, and the scores of what was drawn from them."""

from __future__ import annotations

__all__ = ["lead_rows", "open_any", "open_run", "score", "score_rows", "tell_scores", "time_rows", "wanted_truth"]

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.cli.output import emit_json, say, table
from undrift.errors import CheckpointError, DataError, UsageError

if TYPE_CHECKING:
    import xarray as xr

    from undrift.model import DensityModel, FieldModel


def open_run(run: str, *, verify: bool = True, device: str = "auto") -> FieldModel:
    """Load the run directory of a model of fields.

    Raises:
        CheckpointError: There is none, or it is broken.
        UsageError: It is a density of parameters.
    """
    model = open_any(run, verify=verify, device=device)
    from undrift.model import FieldModel

    if not isinstance(model, FieldModel):
        raise UsageError(f"{run} is a density of parameters: type undrift sample, log-prob or inspect of it")
    return model


def open_any(run: str, *, verify: bool = True, device: str = "auto") -> FieldModel | DensityModel:
    """Load a run directory.

    Raises:
        CheckpointError: There is none, or it is broken.
    """
    path = Path(run)
    if not path.exists():
        raise CheckpointError(f"{run} does not exist; expected a run directory, as undrift train --out {run} writes it")
    if not path.is_dir():
        raise CheckpointError(f"{run} is a file; expected a run directory, as undrift train --out RUN writes it")
    from undrift.model import load

    return load(path, verify=verify, device=device)


def score(ensemble: xr.Dataset, truth: xr.Dataset, model: FieldModel, *, bootstrap: int = 200) -> xr.Dataset:
    """Score an ensemble, also against the baselines of its run and for memorisation."""
    from undrift.model import evaluate

    return evaluate(ensemble, truth, run=model, bootstrap=bootstrap)


def tell_scores(scores: xr.Dataset, head: Mapping[str, Any], json: bool) -> None:
    """Print the verdict and a table of scores, or one JSON object with what it is about at its head."""
    from undrift.verify import to_table, verdict

    findings = verdict(scores)
    if json:
        told = [{"topic": one.topic, "level": one.level, "text": one.text} for one in findings]
        emit_json({**head, "attrs": scores.attrs, "scores": to_table(scores), "verdict": told})
        return
    by_lead = bool(scores.attrs.get("by_lead"))
    if by_lead and (lost := scores.attrs["n_valid_times_without_truth"]):
        say(f"{lost} of {scores.attrs['n_valid_times']} times that are forecast have no truth: left out")
    for finding in findings:
        say(f"{finding.level + ':':<6}{finding}")
    table(lead_rows(scores) if by_lead else score_rows(scores))
    table(time_rows(scores))


def wanted_truth(model: FieldModel) -> xr.Dataset:
    """The truth of the samples that training left out.

    Raises:
        DataError: Nothing was left out.
    """
    truth = model.holdout_truth()
    if not any(truth.sizes.values()):
        raise DataError("training left no sample out: give --ensemble and --truth, or train with --holdout 20%")
    return truth


def score_rows(scores: xr.Dataset, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Rows for a table of people: the model first, then each baseline, per variable."""
    rows: list[dict[str, Any]] = []
    matched = bool(scores.attrs.get("matched", 0))
    for variable in scores["variable"].values:
        one = scores.sel(variable=variable)
        units = str(one["units"].values) if "units" in one.coords else ""
        head = {"variable": f"{variable} ({units})" if units else str(variable)}
        if not matched:
            apart = {"mean off by": f"{float(one['mean_shift']):+.2f} sd", "sd ratio": float(one["deviation_ratio"])}
            rows.append({**head, "method": "this model", **apart, "largest spectrum error": _spectrum_error(one)})
            continue
        rows.append(
            {
                **head,
                "method": "this model",
                "CRPS": float(one["crps"]),
                "RMSE of mean": float(one["rmse"]),
                "spread/skill": float(one["spread_skill"]),
                "variogram score": float(one["variogram"]),
            }
        )
        for name in one["baseline"].values if "baseline" in one.coords else ():
            base = one.sel(baseline=name)
            if not math.isfinite(float(base["crps_baseline"])):  # it has nothing to say of this variable
                continue
            rows.append(
                {
                    "variable": "",
                    "method": (names or {}).get(str(name), str(name)),
                    "CRPS": float(base["crps_baseline"]),
                    "RMSE of mean": float(base["rmse_baseline"]),
                    "variogram score": float(base["variogram_baseline"]),
                    "model better by": f"{100 * float(base['skill']):+.1f} %",
                }
            )
    return rows


def time_rows(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for a table of people: autocorrelation and mean lengths of spells; none where samples are no sequence."""
    rows: list[dict[str, Any]] = []
    for variable in scores["variable"].values if "autocorrelation_truth" in scores else ():
        one = scores.sel(variable=variable)
        sides = [("truth", one, "truth"), ("this model", one, "ensemble")]
        if "autocorrelation_baseline" in one:
            sides += [(str(name), one.sel(baseline=name), "baseline") for name in one["baseline"].values]
        for method, at, side in sides:
            row: dict[str, Any] = {"variable": str(variable) if side == "truth" else "", "method": method}
            memory = float(at[f"autocorrelation_{side}"])
            row["lag-1 autocorrelation"] = memory if math.isnan(memory) else f"{memory:.4f}"
            for spell in at["spell"].values:
                row[f"spells {spell} (frames)"] = float(at[f"spell_{side}"].sel(spell=spell))
            rows.append(row)
    return rows


def lead_rows(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for a table of people: each variable, lead by lead, with the CRPS of each baseline beside the model's."""
    from undrift.verify.leads import LEAD, lead_text

    rows: list[dict[str, Any]] = []
    for variable in scores["variable"].values:
        one = scores.sel(variable=variable)
        units = str(one["units"].values) if "units" in one.coords else ""
        for k, lead in enumerate(scores[LEAD].values):
            at = one.isel({LEAD: k})
            row = {
                "variable": (f"{variable} ({units})" if units else str(variable)) if k == 0 else "",
                "lead": lead_text(lead),
                "starts": int(at["n_starts"]),
                "CRPS": float(at["crps"]),
                "RMSE of mean": float(at["rmse"]),
                "bias": float(at["bias"]),
                "spread/skill": float(at["spread_skill"]),
            }
            for threshold in at["threshold"].values if "csi" in at else ():
                row[f"CSI {threshold:.3g}"] = float(at["csi"].sel(threshold=threshold))
            for name in at["baseline"].values if "baseline" in at.coords else ():
                row[f"CRPS of {name}"] = float(at["crps_baseline"].sel(baseline=name))
            rows.append(row)
    return rows


def _spectrum_error(one: xr.Dataset) -> str:
    import numpy as np

    ratio = one["spectrum_ratio"].values
    known = ratio[np.isfinite(ratio) & (ratio > 0)]
    return f"factor {np.exp(np.abs(np.log(known)).max()):.2f}" if known.size else "-"
