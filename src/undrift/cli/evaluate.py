"""``undrift evaluate``."""

from __future__ import annotations

__all__ = ["evaluate"]

from pathlib import Path

from undrift.cli.options import DryRun, Flag, Json, Seed, Truth, refuse_existing, set_threads
from undrift.cli.output import emit_json, facts, note, say
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError


def evaluate(
    ensemble: str,
    /,
    *,
    truth: Truth = None,
    run: str | None = None,
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
            directory of a density of a table: the log-likelihood of TRUTH's rows, by default of those held out.
        run: The run directory, for its baselines and its training data (is the model memorising?).
        out: File to write the scores to, scores.json or scores.nc.
        thresholds: Of events in forecasts, as 0.5,2 in the units of the data. Default of rain 0.1, 1 and 5 mm/h.
        bootstrap: Replicates of the block bootstrap behind the intervals; 0 for none.
        overwrite: Replace OUT.
    """
    from undrift.train.run import is_nested

    if (Path(ensemble) / "config.toml").is_file() or is_nested(Path(ensemble)):
        others = {
            "run": run, "out": out, "thresholds": thresholds, "bootstrap": bootstrap != 200, "seed": seed,
            "overwrite": overwrite, "dry-run": dry_run,
        }  # fmt: skip
        return _density(ensemble, truth, [name for name, value in others.items() if value], json)
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


def _density(run: str, truth: list[str] | None, idle: list[str], json: bool) -> int:
    """The log-likelihood of rows of a table."""
    from undrift.cli.runs import open_any
    from undrift.model import DensityModel

    model = open_any(run, device="cpu")
    if not isinstance(model, DensityModel):
        raise UsageError(f"{run} is a model of fields; what is scored are ensembles that undrift sample draws from it")
    if idle:
        raise UsageError(f"got --{idle[0]}, of ensembles of fields; of a density type --truth and --json alone")
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
