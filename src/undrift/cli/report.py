"""``undrift report``."""

from __future__ import annotations

__all__ = ["report", "section_of", "trained_by"]

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.cli.options import (
    Dequantize,
    Device,
    DryRun,
    Flag,
    Json,
    LogProb,
    Nfe,
    NoVerify,
    Seed,
    Truth,
    refuse_existing,
    samples_of,
    set_threads,
)
from undrift.cli.output import emit_json, facts, note, say
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr

    from undrift.model import FieldModel
    from undrift.report.page import Part, Section

# Streamed to disk, so that a long record needs no more memory than a short one. NetCDF refuses names that Zarr has.
_STREAMED = "holdout.zarr"
_TOGETHER = "--ensemble and --truth belong together; without both, the held-out samples are drawn"


def report(
    run: str,
    /,
    *,
    ensemble: str | None = None,
    truth: Truth = None,
    out: str = "report.html",
    realizations: int | None = None,
    seed: Seed = 0,
    nfe: Nfe = None,
    log_prob: LogProb = None,
    dequantize: Dequantize = False,
    device: Device = "auto",
    overwrite: Flag = False,
    no_verify: NoVerify = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Draw, score and write one HTML page about a run.

    Example: undrift report RUN --out report.html

    Alone, RUN draws the samples that training left out and is scored on them; of
    --task window also forecasts from starts among them, scored by lead time;
    of --task lead-time the states after some of them, likewise.
    The page needs no other file and no network.

    Args:
        run: The run directory.
        ensemble: An ensemble that was drawn before, to be shown in place of a new one, with its --truth.
        out: The page to write.
        realizations: How many are drawn for each sample. Default sample.realizations of RUN, 20 unless it was set.
        overwrite: Replace OUT.
    """
    if ensemble is not None and truth is None:
        raise UsageError(_TOGETHER)
    if not out.endswith((".html", ".htm")):
        raise UsageError(f"got --out {out}, expected a name that ends in .html")
    refuse_existing(out, overwrite or dry_run)
    _enough(realizations)
    with stopped_saying(lambda: f"nothing was written to {out}; type the same command again"):
        from undrift.cli.report_table import is_of_parameters, report_parameters

        if is_of_parameters(run):
            unheeded = {"ensemble": ensemble, "nfe": nfe, "log-prob": log_prob is not None, "dry-run": dry_run}
            _refuse(run, [name for name, value in unheeded.items() if value])
            return report_parameters(
                run, truth=truth, out=out, realizations=realizations, seed=seed, overwrite=overwrite,
                verify=not no_verify, json=json,
            )  # fmt: skip
        if (ensemble is None) != (truth is None):
            raise UsageError(_TOGETHER)
        from undrift.cli.runs import open_run, tell_scores
        from undrift.model import evaluate as scored

        set_threads()
        model = open_run(run, verify=not no_verify, device=device)
        _enough(realizations or model.config.sample.realizations)
        drawn = {"realizations": realizations, "seed": seed, "nfe": nfe}
        draw = partial(model.sample, **_asked(model), **drawn)
        if dry_run:
            plan = _plan(model, draw) if ensemble is None else scored(ensemble, truth or [], run=model, dry_run=True)
        else:
            chosen = {"--realizations": realizations, "--seed": seed or None, "--nfe": nfe}
            typed = [word for name, value in chosen.items() if value is not None for word in (name, str(value))]
            more, also = _likelihood(model, log_prob, seed, dequantize)
            if ensemble is not None:
                scores = _of_an_ensemble(model, ensemble, truth or [], run, also, out, overwrite, more)
            else:
                scores = _of_a_drawing(model, drawn, run, [*typed, *also], out, overwrite, more)
    if dry_run:
        emit_json(plan) if json else facts(plan)
        note("nothing was written (--dry-run)")
        return 0
    tell_scores(scores, {"run": run, "out": out}, json)
    if not json:
        say(f"the report: {out}")
    return 0


def _likelihood(
    model: FieldModel, typed: list[int] | None, seed: int, dequantize: bool
) -> tuple[tuple[Part, list[str]] | None, list[str]]:
    """How likely held-out fields are, where that is asked, and the options that asked for it.

    Where they have no density the page says why.
    """
    from undrift.errors import DataError
    from undrift.report.density import field_likelihood
    from undrift.report.page import Part

    if typed is None:
        if dequantize:
            raise UsageError("--dequantize is of log-densities; type --log-prob with it")
        return None, []
    samples = samples_of(typed)
    words = ["--log-prob", str(samples), *["--dequantize"] * dequantize]
    try:
        part, sentence = field_likelihood(model.evaluate(samples, seed=seed, dequantize=dequantize))
    except (DataError, UsageError) as error:
        return (Part("Likelihood", [f"Held-out fields have no log-density that is known: {error}."]), []), words
    return (part, [sentence]), words


def _of_an_ensemble(
    model: FieldModel, ensemble: str, truth: list[str], run: str, also: list[str], out: str, overwrite: bool,
    more: tuple[Part, list[str]] | None,
) -> xr.Dataset:  # fmt: skip
    """The page about an ensemble that was drawn before; returns the scores."""
    from undrift.model.evaluation import open_truth

    typed, reference = ["--ensemble", ensemble, "--truth", *truth, *also], open_truth(truth)
    given = _held_given(model)
    return _write(model, Path(ensemble), reference, given, run, typed, out, overwrite, own=False, likelihood=more)


def _plan(model: FieldModel, draw: Callable[..., Any]) -> dict[str, Any]:
    """What the page about the held-out samples would take."""
    from undrift.cli.runs import wanted_truth

    wanted_truth(model)
    return draw(dry_run=True, out=_STREAMED) | {
        "besides": "making and scoring the baselines, forecasts by lead time, and the page: not in these seconds"
    }


def _of_a_drawing(
    model: FieldModel, drawn: dict[str, Any], run: str, typed: Sequence[str], out: str, overwrite: bool,
    more: tuple[Part, list[str]] | None,
) -> xr.Dataset:  # fmt: skip
    """The page about the held-out samples, which are drawn for it; returns the scores."""
    from undrift.cli.runs import wanted_truth

    with tempfile.TemporaryDirectory(prefix="undrift-") as folder:
        truth, path = wanted_truth(model), Path(folder) / _STREAMED
        model.sample(**_asked(model), out=path, **drawn).close()
        by_lead, notes = _by_lead(model, drawn)
        given = _held_given(model)
        return _write(
            model, path, truth, given, run, typed, out, overwrite, by_lead=by_lead, notes=notes, likelihood=more
        )  # fmt: skip


def _asked(model: FieldModel) -> dict[str, Any]:
    """What is drawn: the samples that training left out, or states after some of them at a few leads."""
    from undrift.tasks import LeadTime

    if not isinstance(model.task, LeadTime):
        return {"holdout": True}
    from undrift.model.at_leads import held_states

    states, leads = held_states(model)
    return {"given": states, "lead": leads}


def _by_lead(model: FieldModel, drawn: dict[str, Any]) -> tuple[xr.Dataset | None, list[str]]:
    """Scores of forecasts of the held-out part, of a model of windows, and what a reader should know of them."""
    from undrift.errors import DataError
    from undrift.model.hindcast import hindcast_scores
    from undrift.tasks import Window

    if not isinstance(model.task, Window) or not (model.task.past and model.task.future):
        return None, []
    try:
        scores = hindcast_scores(model, **drawn)
    except DataError as error:
        return None, [f"No curves by lead time: {error}."]
    starts = int(scores["n_starts"].max())
    notes = [f"Curves by lead time are of {starts} forecasts that start within the held-out part, window after window."]
    if model.codec.given_layout is not None:
        notes.append("They are given the fine frames up to their start, and no coarse frame.")
    absent = scores.attrs.get("baselines_absent", "")
    return scores, [*notes, *(f"{text[:1].upper()}{text[1:]}." for text in absent.split("; ") if text)]


def _refuse(run: str, options: list[str]) -> None:
    if options:
        raise UsageError(f"got --{options[0]}, of models of fields; {run} is of parameters: leave it out")


def _enough(realizations: int | None) -> None:
    if realizations is not None and realizations < 2:
        raise UsageError(f"got --realizations {realizations}; a spread needs at least 2")


def _write(
    model: FieldModel, path: Path, truth: xr.Dataset, given: xr.Dataset | None, run: str, typed: Sequence[str],
    out: str, overwrite: bool, own: bool = True, by_lead: xr.Dataset | None = None, notes: Sequence[str] = (),
    likelihood: tuple[Part, list[str]] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Score an ensemble on disk and write the page about it and the options that made it; returns the scores.

    Where it is not `own`, it was drawn before and of whatever samples.
    """
    from undrift.cli.runs import score
    from undrift.data.ensemble import open_ensemble
    from undrift.data.frames import FRAME, asked_frames
    from undrift.data.members import left_out
    from undrift.model.at_leads import middle_lead
    from undrift.report.page import write_page
    from undrift.verify import verdict
    from undrift.verify.leads import LEAD

    with open_ensemble(path) as opened:
        if LEAD in opened.dims:
            members, scores, by_lead, more = middle_lead(model, opened, truth)
            notes = [*notes, *more]
        else:
            members, truth = left_out(opened, truth)
            members, truth = asked_frames(members, truth) if FRAME in members.dims else (members, truth)
            scores = score(members, truth, model)
        again = shlex.join(["undrift", "report", run, *typed, "--out", out])
        title, commands = Path(run).name, [*trained_by(run), again]
        section = section_of(model, members, truth, given, scores, title=title, commands=commands, own=own)
        section.by_lead, section.notes = by_lead, [*section.notes, *notes]
        if by_lead is not None:
            findings = verdict(by_lead.assign_attrs(baselines_absent=""))  # which the notes tell
            section.verdict += [f"{finding.level}: {finding.text}" for finding in findings]
        if likelihood is not None:
            section.parts.append(likelihood[0])
            section.verdict += likelihood[1]
        write_page(out, [section], title=f"undrift: {title}", overwrite=overwrite)
    return scores


def section_of(
    model: FieldModel,
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    given: xr.Dataset | None,
    scores: xr.Dataset,
    *,
    title: str,
    commands: Sequence[str],
    own: bool = True,
) -> Section:
    """Put together what the page shows of one model; an ensemble that is `own` is of the samples it left out."""
    from undrift.report.page import Section
    from undrift.report.samples import axes_for
    from undrift.report.words import paired_by_label, provenance
    from undrift.verify import verdict

    axes, _ = axes_for(ensemble, truth)
    if given is not None and not own and not paired_by_label(given, ensemble, axes):
        given = None  # what is given for other samples
    _note_training(scores, model)
    findings = verdict(scores)
    return Section(
        title=title,
        question=_question(model, ensemble, truth, scores, own),
        scores=scores,
        ensemble=ensemble,
        truth=truth,
        given=given,
        verdict=[f"{finding.level}: {finding.text}" for finding in findings],
        warnings=[finding.text for finding in findings if finding.topic == "range"],
        metrics=model.metrics(),
        facts={**provenance(model.describe()), "commands": list(commands)},
    )


def _note_training(scores: xr.Dataset, model: FieldModel) -> None:
    """Put into the scores whether the training was long enough, judged anew: an ensemble may be older than criteria."""
    from undrift.nets.members import number_of
    from undrift.report.style import count

    judged, nets = model.under_trained(), number_of(model.net)
    scores.attrs.pop("still_improving", None)
    if judged is None:
        return
    images, samples = model.facts.get("images"), model.facts.get("samples", {}).get("train")
    text = f"{count(model.facts['steps'])} steps"
    if nets > 1:
        text += f" shared by {nets} networks"
    if images and samples:
        text += f", {images / samples / nets:.2g} passes{' of each' if nets > 1 else ''} over {count(samples)} samples"
    scores.attrs["still_improving"] = int(judged)
    scores.attrs["trained_for"] = text


def _question(model: FieldModel, ensemble: xr.Dataset, truth: xr.Dataset, scores: xr.Dataset, own: bool) -> list[str]:
    """What was asked of which data, in words."""
    from undrift.report.samples import axes_for
    from undrift.report.words import files_text, grid_text, record_text, tested_text
    from undrift.tasks import Downscale, Window

    config, (axes, shown) = model.config, axes_for(ensemble, truth)
    names = ", ".join(_named(name, {**ensemble[name].attrs, **truth[name].attrs}) for name in shown)
    if isinstance(model.task, Downscale):
        asked = f"{names} on the fine grid, given {_coarse(model, model.task.factor)}"
    elif config.task.name == "enrich":
        asked = f"further members of {names}, given {config.task.members} others of the same date"
    elif isinstance(model.task, Window):
        asked = f"{names} in {model.task.future} frames, given the {model.task.past} before them"
        if model.codec.given_layout is not None:
            asked += f" and {_coarse(model, model.task.factor)} of all frames"
    elif config.task.name == "lead-time":
        asked = f"{names} after any lead time up to {config.task.longest}, given an initial state"
    else:
        asked = f"{names}, given {', '.join(config.data.covariates) or 'nothing but the law of the data'}"
    counts, rule = model.facts.get("samples", {}), config.data.holdout or "the last 20%"
    used, levels = model.training_data(), [d for dims in model.codec.layout.level.values() for d in dims]
    record = record_text(used, model.codec.layout.sample, (*axes.space, *levels))
    trained = f"{counts['train']} samples" if "train" in counts else "samples"
    trained = f"Trained on {trained}{' of ' + files_text(config.data.paths) if config.data.paths else ''}"
    if own:
        held = f"{counts['holdout']} samples" if "holdout" in counts else "samples"
        tested = f"Tested on {held} that training has not seen ({rule})."
    else:
        tested = tested_text(ensemble, axes, scores, model.holdout_truth(), used, rule)
    lines = [f"Asked: {asked}.", f"Grid: {grid_text(ensemble, axes)}.", f"{trained}{': ' + record if record else ''}."]
    told = [
        (name, str(truth.attrs.get(name, "")).strip()) for name in ("title", "source", "institution", "attribution")
    ]
    return [*lines, tested] + [f"{name.capitalize()} of the data: {text[:500]}" for name, text in told if text]


def _coarse(model: FieldModel, factor: int | None) -> str:
    """The coarse fields that a model is given, in words."""
    from undrift.report.words import files_text

    if model.config.data.given:
        return f"the fields of another dataset ({files_text(model.config.data.given)})"
    return f"the means over blocks of {factor} cells along each side"


def _held_given(model: FieldModel) -> xr.Dataset | None:
    """What is given for the held-out samples, of several members their mean."""
    from undrift.data.members import MEMBER

    given = model.holdout_given()
    return given.mean(MEMBER, keep_attrs=True) if given is not None and MEMBER in given.dims else given


def _named(name: str, attrs: Mapping) -> str:
    """``tas (near-surface air temperature, K)``."""
    from undrift.report.style import long_name, units_text

    inside = ", ".join(part for part in (long_name(attrs), units_text(attrs.get("units", ""))) if part)
    return f"{name} ({inside})" if inside else name


def trained_by(run: str) -> list[str]:
    """The line that trains the run again."""
    from undrift.cli.train import command_line
    from undrift.config import load_config

    stored = Path(run) / "config.toml"
    return [command_line(load_config(stored), run)] if stored.is_file() else []
