"""``undrift evaluate``."""

from __future__ import annotations

__all__ = ["evaluate"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

from undrift.cli.options import (
    Dequantize,
    DryRun,
    Flag,
    Json,
    LogProb,
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
    from undrift.model import DensityModel, FieldModel


def evaluate(
    ensemble: str,
    /,
    *,
    truth: Truth = None,
    run: str | None = None,
    log_prob: LogProb = None,
    dequantize: Dequantize = False,
    out: str | None = None,
    thresholds: str | None = None,
    bootstrap: int = 200,
    seed: Seed = 0,
    overwrite: Flag = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Score an ensemble against the truth.

    Example: undrift evaluate ENS.nc --truth tas_2081-2100.nc --run RUN --out scores.json

    Scores: fair CRPS and its skill against baselines, RMSE of the mean,
    spread/skill, rank histogram, variogram score, spectra, marginals. Where no
    sample of TRUTH has the coordinates of one of ENSEMBLE, distributions are
    compared and no CRPS is given. A forecast is scored lead by lead, matched by
    the time that is forecast.

    Args:
        ensemble: NetCDF or Zarr with a dim realization (number, member, ensemble and sample are read too). Or the run
            directory of a density of a table: the log-likelihood of TRUTH's rows, by default of those held out; or,
            with --log-prob, of a model that emulates or downscales: that of held-out fields.
        run: The run directory, for its baselines and its training data (is the model memorising?).
        out: File to write the scores to, scores.json or scores.nc.
        thresholds: Of events in forecasts, as 0.5,2 in the units of the data. Default of rain 0.1, 1 and 5 mm/h.
        bootstrap: Replicates of the block bootstrap behind the intervals; 0 for none.
        overwrite: Replace OUT.
    """
    from undrift.train.run import is_nested

    if (Path(ensemble) / "config.toml").is_file() or is_nested(Path(ensemble)):
        idle = {
            "run": run, "out": out, "thresholds": thresholds, "bootstrap": bootstrap != 200, "overwrite": overwrite,
            "dry-run": dry_run, "seed": seed and log_prob is None, "dequantize": dequantize and log_prob is None,
        }  # fmt: skip
        typed = [name for name, value in idle.items() if value]
        return _likelihood(ensemble, truth, typed, log_prob, {"seed": seed, "dequantize": dequantize}, json)
    if log_prob is not None or dequantize:
        raise UsageError(
            f"--{'dequantize' if log_prob is None else 'log-prob'} is of the log-density of held-out fields of a run, "
            f"and {ensemble} is no run; type undrift evaluate RUN --log-prob"
        )
    if not truth:
        raise UsageError(f"got no --truth to score {ensemble} against; type --truth FILE")
    if out is not None:
        if Path(out).suffix not in (".json", ".nc"):
            raise UsageError(f"got --out {out}, expected a name that ends in .json or .nc")
        refuse_existing(out, overwrite or dry_run)
    from undrift.config import valid_seed

    valid_seed(seed)
    wanted = _numbers(thresholds)
    with stopped_saying(lambda: f"nothing was written{f' to {out}' if out else ''}; type the same command again"):
        from undrift.cli.runs import open_run, tell_scores
        from undrift.model import evaluate as score

        if run:  # its regression is a network
            set_threads()
        model = open_run(run, device="cpu") if run else None
        scores = score(
            ensemble, truth or [], run=model, out=out, overwrite=overwrite, bootstrap=bootstrap, seed=seed,
            thresholds=wanted, dry_run=dry_run,
        )  # fmt: skip
    if dry_run:
        emit_json(scores) if json else facts(scores)
        note("nothing was written (--dry-run)")
        return 0
    tell_scores(scores, {"ensemble": ensemble, "truth": truth, "run": run, "out": out}, json)
    if out is not None and not json:
        say(f"all scores: {out}")
    return 0


def _numbers(text: str | None) -> list[float]:
    """``0.5,2`` as numbers."""
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"got --thresholds {text}, expected numbers with commas between them, such as 0.5,2") from None


def _likelihood(
    run: str, truth: list[str] | None, idle: list[str], samples: list[int] | None, how: dict[str, Any], json: bool
) -> int:
    """The log-likelihood of what a run has not seen."""
    from undrift.cli.runs import open_any
    from undrift.model import DensityModel

    model = open_any(run, device="cpu")
    if isinstance(model, DensityModel):
        if idle or samples is not None:
            raise UsageError(f"got --{[*idle, 'log-prob'][0]}, of fields; of a density type --truth and --json alone")
        return _of_rows(model, run, truth, json)
    if samples is None:
        raise UsageError(
            f"{run} is a model of fields; what is scored are ensembles that undrift sample draws from it, or with "
            "--log-prob how likely held-out fields are"
        )
    if truth or idle:
        raise UsageError(
            f"got --{'truth' if truth else idle[0]}, of ensembles; of held-out fields type --log-prob, --seed, "
            "--dequantize and --json alone, and of other fields undrift log-prob RUN DATA"
        )
    return _of_fields(model, run, samples_of(samples), how, json)


def _of_fields(model: FieldModel, run: str, samples: int, how: dict[str, Any], json: bool) -> int:
    """The log-likelihood of held-out fields."""
    set_threads()
    with stopped_saying(lambda: "nothing was found yet; type the same command again"):
        found = model.evaluate(samples, **how)
    if json:
        emit_json({"run": run, **found})
        return 0
    say(
        f"log-likelihood {found['log_likelihood']:.2f} +- {found['standard_error']:.2f} nats a field, numerical error "
        f"{found['numerical_error']:.2g} ({found['samples']} held-out fields of {found['numbers']} values)"
    )
    say(f"{found['nats_per_value']:.4f} nats and {found['bits_per_value']:.4f} bits a value (log p and -log2 p)")
    say(
        f"the Gaussian that the network corrects has {found['gaussian']['log_likelihood']:.2f}: it gains "
        f"{found['gain']:.2f} +- {found['gain_error']:.2f} nats a field"
    )
    if found["left_out"]:
        say(f"{found['left_out']} more lack values and are left out")
    return 0


def _of_rows(model: DensityModel, run: str, truth: list[str] | None, json: bool) -> int:
    """The log-likelihood of rows of a table."""
    if truth and len(truth) != 1:
        raise UsageError(f"got {len(truth)} files with --truth; a density is scored by the rows of one table")
    found = model.evaluate(truth[0] if truth else None)
    if json:
        emit_json({"run": run, **found})
    else:
        of = ("one row" if found["rows"] == 1 else f"{found['rows']} rows") + (
            f", {found['outside']} more outside the bounds" if found["outside"] else ""
        )
        error = "" if found["standard_error"] is None else f" +- {found['standard_error']:.4f}"
        say(f"log-likelihood {found['log_likelihood']:.4f}{error} nats a row ({of})")
    return 0
