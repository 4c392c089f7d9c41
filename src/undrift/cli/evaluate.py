"""``undrift evaluate``."""

from __future__ import annotations

__all__ = ["evaluate"]

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from undrift.cli.options import Flag
from undrift.cli.output import emit_json, say, table
from undrift.errors import UsageError


def evaluate(
    ensemble: str,
    /,
    *,
    truth: Annotated[list[str], Parameter(consume_multiple=True, negative_iterable="")],
    run: str | None = None,
    out: str | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    overwrite: Flag = False,
    json: Flag = False,
) -> int:
    """Score an ensemble against the truth.

    Example: undrift evaluate ENS.nc --truth tas_2081-2100.nc --run RUN --out scores.json

    Scores: fair CRPS and its skill against baselines, RMSE of the mean,
    spread/skill, rank histogram, variogram score, spectra, marginals. Where no
    sample of TRUTH has the coordinates of one of ENSEMBLE, distributions are
    compared and no CRPS is given.

    Args:
        ensemble: NetCDF or Zarr with a dim realization (number, member, ensemble and sample are read too).
        truth: Files of the truth; they may hold more than ENS and are matched by coordinates.
        run: The run directory, for its baselines and its training data (is the model memorising?).
        out: File to write the scores to, scores.json or scores.nc.
        bootstrap: Replicates of the block bootstrap behind the intervals; 0 for none.
        seed: Fixes every random draw.
        overwrite: Replace OUT.
        json: Print one JSON object.
    """
    if out is not None:
        if Path(out).suffix not in (".json", ".nc"):
            raise UsageError(f"got --out {out}, expected a name that ends in .json or .nc")
        if Path(out).exists() and not overwrite:
            raise UsageError(f"{out} exists; type --overwrite to replace it, or another --out")
    from undrift.cli.runs import open_run, open_truth, score, score_rows
    from undrift.data.ensemble import open_ensemble
    from undrift.verify import to_table, verdict, write_scores

    members = open_ensemble(ensemble)
    model = open_run(run, device="cpu") if run else None
    scores = score(members, open_truth(truth), model, bootstrap=bootstrap, seed=seed)
    findings = verdict(scores)
    if out is not None:
        write_scores(scores, out)
    if json:
        emit_json(
            {
                "ensemble": ensemble,
                "truth": truth,
                "run": run,
                "out": out,
                "attrs": scores.attrs,
                "scores": to_table(scores),
                "verdict": [{"topic": one.topic, "level": one.level, "text": one.text} for one in findings],
            }
        )
        return 0
    for finding in findings:
        say(f"{finding.level + ':':<6}{finding}")
    table(score_rows(scores))
    if out is not None:
        say(f"all scores: {out}")
    return 0
