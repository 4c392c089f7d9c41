"""``undrift report``."""

from __future__ import annotations

__all__ = ["report", "section_of"]

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from undrift.cli.options import Flag, set_threads
from undrift.cli.output import emit_json, facts, note, say, table
from undrift.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr

    from undrift.model import FieldModel
    from undrift.report.page import Section


def report(
    run: str,
    /,
    *,
    ensemble: str | None = None,
    truth: Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable="")] = None,
    out: str = "report.html",
    realizations: int = 20,
    seed: int = 0,
    nfe: int = 10,
    device: str = "auto",
    overwrite: Flag = False,
    no_verify: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
) -> int:
    """Draw, score and write one HTML page about a run.

    Example: undrift report RUN --out report.html

    Alone, RUN draws the samples that training left out and is scored on them.
    The page needs no other file and no network.

    Args:
        run: The run directory.
        ensemble: An ensemble that was drawn before, to be shown in place of a new one.
        truth: Files of the truth of --ensemble; matched by coordinates.
        out: The page to write.
        realizations: How many are drawn for each sample.
        seed: Fixes every random draw.
        nfe: Network evaluations per realization.
        device: auto, cpu or cuda:0.
        overwrite: Replace OUT.
        no_verify: Read RUN although a checksum differs.
        dry_run: Print shapes, memory and time of the drawing, and write nothing.
        json: Print one JSON object with the scores and the verdict.
    """
    if (ensemble is None) != (truth is None):
        raise UsageError("--ensemble and --truth belong together; without both, the held-out samples are drawn")
    if realizations < 2:
        raise UsageError(f"got --realizations {realizations}; a spread needs at least 2")
    if not out.endswith((".html", ".htm")):
        raise UsageError(f"got --out {out}, expected a name that ends in .html")
    if Path(out).exists() and not overwrite and not dry_run:
        raise UsageError(f"{out} exists; type --overwrite to replace it, or another --out")
    from undrift.cli.runs import open_run, open_truth, score, score_rows, wanted_truth
    from undrift.data.ensemble import open_ensemble
    from undrift.report.page import write_page
    from undrift.verify import to_table, verdict

    set_threads()
    model = open_run(run, verify=not no_verify, device=device)
    draw = partial(model.sample, holdout=True, realizations=realizations, seed=seed, nfe=nfe)
    if dry_run:
        plan = draw(dry_run=True) if ensemble is None else model.describe()
        emit_json(dict(plan)) if json else facts(dict(plan))
        note("nothing was written (--dry-run)")
        return 0
    # Streamed to disk, so that a long record needs no more memory than a short one.
    with tempfile.TemporaryDirectory(prefix="undrift-") as folder:
        if ensemble is None:
            reference = wanted_truth(model)
            path = Path(folder) / "holdout.nc"
            draw(out=path)
            given = model.holdout_given()
        else:
            reference, path, given = open_truth(truth or []), Path(ensemble), None
        members = open_ensemble(path)
        scores = score(members, reference, model)
        findings = verdict(scores)
        section = section_of(
            model, members, reference, given, scores, title=Path(run).name, commands=_commands(run, out)
        )
        write_page(out, [section], title=f"undrift: {Path(run).name}", overwrite=overwrite)
        members.close()
    if json:
        emit_json(
            {
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
    say(f"the report: {out}")
    return 0


def section_of(
    model: FieldModel,
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    given: xr.Dataset | None,
    scores: xr.Dataset,
    *,
    title: str,
    commands: Sequence[str],
) -> Section:
    """Put together what the page shows of one model."""
    from undrift.report.page import Section
    from undrift.verify import verdict

    described = model.describe()
    findings = verdict(scores)
    return Section(
        title=title,
        question=_question(model, truth),
        scores=scores,
        ensemble=ensemble,
        truth=truth,
        given=given,
        baselines=model.baselines(),
        verdict=[finding.text for finding in findings],
        warnings=[finding.text for finding in findings if finding.topic == "range"],
        metrics=model.metrics(),
        facts={**described, "commands": list(commands)},
    )


def _question(model: FieldModel, truth: xr.Dataset) -> list[str]:
    """What was asked of which data, in words."""
    config = model.config
    names = ", ".join(_named(truth[name]) for name in truth.data_vars)
    if config.task.name == "downscale":
        source = "the fields of another dataset" if config.data.given else f"area means over {config.task.factor} cells"
        asked = f"{names} on the fine grid, given {source}"
    else:
        asked = f"{names}, given {', '.join(config.data.covariates) or 'nothing but the law of the data'}"
    counts = model.facts.get("samples", {})
    trained = f" Trained on {counts['train']} samples." if "train" in counts else ""
    held = f"{counts['holdout']} samples" if "holdout" in counts else "samples"
    lines = [
        f"Asked: {asked}.",
        f"Grid: {_grid(model, truth)}.{trained}",
        f"Tested on {held} that training has not seen ({config.data.holdout or 'the last 20%'}).",
    ]
    told = [
        (name, str(truth.attrs.get(name, "")).strip()) for name in ("title", "source", "institution", "attribution")
    ]
    return lines + [f"{name.capitalize()} of the data: {text[:500]}" for name, text in told if text]


def _named(da: xr.DataArray) -> str:
    """``tas (near-surface air temperature, K)``."""
    title = da.attrs.get("long_name") or str(da.attrs.get("standard_name", "")).replace("_", " ")
    inside = ", ".join(str(part) for part in (title, da.attrs.get("units")) if part)
    return f"{da.name} ({inside})" if inside else str(da.name)


def _grid(model: FieldModel, truth: xr.Dataset) -> str:
    """``36 x 48 cells, lat 15 to 58.75, lon 225 to 313.1``."""
    layout = model.codec.layout
    parts = [f"{' x '.join(str(size) for size in layout.shape)} cells"]
    names = dict.fromkeys([*layout.space, *(n for n in (layout.latitude, layout.longitude) if n)])
    for name in names:
        if name in truth.coords and truth[name].dtype.kind in "iuf" and truth[name].size:
            parts.append(f"{name} {float(truth[name].min()):.5g} to {float(truth[name].max()):.5g}")
    return ", ".join(parts)


def _commands(run: str, out: str) -> list[str]:
    from undrift.cli.train import command_line
    from undrift.config import load_config

    stored = Path(run) / "config.toml"
    lines: list[Any] = [command_line(load_config(stored), run)] if stored.is_file() else []
    return [*lines, f"undrift report {run} --out {out}"]
