"""``undrift report`` of what is of parameters: nested runs and densities of tables."""

from __future__ import annotations

__all__ = ["is_of_parameters", "report_parameters"]

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.cli.output import emit_json, say
from undrift.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from undrift.report.page import Section

_POSTERIOR, _RUN, _PRIOR = "posterior.nc", "run.nc", "prior.nc"


def is_of_parameters(run: str) -> bool:
    """Whether a folder is a nested run or a density of parameters."""
    from undrift.model.density_model import is_density
    from undrift.train.run import is_nested

    return is_nested(Path(run)) or is_density(run)


def report_parameters(
    run: str, *, truth: list[str] | None, out: str, realizations: int | None, seed: int, overwrite: bool,
    verify: bool, json: bool,
) -> int:  # fmt: skip
    """Write the page about a nested run or a density, and tell its verdict."""
    from undrift.report.page import write_page
    from undrift.train.run import is_nested

    typed = ["--truth", *truth] if truth else []
    typed += [] if realizations is None else ["--realizations", str(realizations)]
    typed += ["--seed", str(seed)] if seed else []
    again = shlex.join(["undrift", "report", run, *typed, "--out", out])
    if is_nested(Path(run)):
        if truth or realizations is not None or seed:
            raise UsageError(f"{run} is a nested run, of which nothing is drawn; type undrift report {run} --out {out}")
        section = _nested(run, again)
    else:
        section = _density(run, truth, realizations, seed, verify, again)
    write_page(out, [section], title=f"undrift: {Path(run).name}", overwrite=overwrite)
    if json:
        emit_json({"run": run, "out": out, "verdict": section.verdict})
    else:
        for line in section.verdict:
            say(line)
        say(f"the report: {out}")
    return 0


def _nested(run: str, again: str) -> Section:
    """What the page shows of a nested run."""
    import xarray as xr

    from undrift.model.marginals import marginals_of_nested
    from undrift.report.nested import nested_section

    folder = Path(run)
    for name in (_POSTERIOR, _RUN):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name} is absent: the run has not ended; type undrift nested PROBLEM.py --out {run} --resume"
            )
    posterior, points = (xr.load_dataset(folder / name) for name in (_POSTERIOR, _RUN))
    marginals = None
    if (folder / _PRIOR).is_file():  # runs of older versions have none
        marginals = marginals_of_nested(posterior, xr.load_dataset(folder / _PRIOR))
    title = folder.resolve().name
    return nested_section(posterior, points, title=title, commands=[again], marginals=marginals)


def _density(
    run: str, truth: list[str] | None, realizations: int | None, seed: int, verify: bool, again: str
) -> Section:
    """What the page shows of a density of a table."""
    import numpy as np

    from undrift.cli.options import set_threads
    from undrift.cli.report import trained_by
    from undrift.model.density_model import load_density
    from undrift.model.density_scores import score_density, unseen_rows
    from undrift.report.corner import Samples
    from undrift.report.density import calibration_part, density_verdict, likelihood_part, samples_part, training_part
    from undrift.report.page import Section

    if truth and len(truth) > 1:
        raise UsageError(f"got {len(truth)} files with --truth; a density is compared with the rows of one table")
    set_threads()
    model = load_density(run, verify=verify)
    facts, held = model.describe(), unseen_rows(model, truth or ())
    chosen = {} if realizations is None else {"draws": realizations}
    scores = score_density(model, held, seed=seed, **chosen)
    names, labels, told = facts["names"], facts["labels"], facts["given_names"]
    rows = Samples("unseen rows", held.values, held.weights)
    if told:
        rows = Samples("unseen rows", scores.rows, np.ones(len(scores.rows)))
    draws = Samples("draws", scores.draws, np.ones(len(scores.draws)))
    parts = [
        likelihood_part(scores.log_likelihood, scores.two_sample, facts),
        samples_part(rows, draws, names, labels),
    ]
    verdict = density_verdict(scores.log_likelihood, scores.two_sample, facts, own=not truth)
    if scores.ranks is not None and scores.distance_ranks is not None:
        part, sentence = calibration_part(scores.ranks, scores.distance_ranks, scores.number, names, labels)
        parts.append(part)
        verdict.append(sentence)
    curve = training_part(model.log, facts["estimator"])
    parts += [] if curve is None else [curve]
    asked = f"Asked: {', '.join(names)}{', given ' + ', '.join(told) if told else ''}."
    tested = f"Tested on {len(held.values)} rows of {Path(held.source).name} that training has not seen."
    fitted = f"Fitted by {_method(facts)}: {facts['reason']}."
    fitted += f" It begins at {facts['base']}." if facts.get("base") else ""
    shown = {key: facts[key] for key in ("estimator", "rows", "effective", "held out", "training") if key in facts}
    shown["training"] = {key: value for key, value in facts.get("training", {}).items() if key != "history"}
    return Section(
        title=Path(run).resolve().name, question=[asked, fitted, tested], verdict=verdict, parts=parts,
        facts={**shown, "commands": [*trained_by(run), again]}, notes=list(facts["remarks"]),
    )  # fmt: skip


def _method(facts: Mapping[str, Any]) -> str:
    shares = facts.get("training", {}).get("shares")
    return " and ".join(f"{w:.0%} of a {name}" for name, w in shares.items()) if shares else facts["estimator"]
