"""``undrift sample``."""

from __future__ import annotations

__all__ = ["sample"]

from typing import TYPE_CHECKING

from undrift.cli.options import (
    Constraints,
    Device,
    DryRun,
    Flag,
    Json,
    Many,
    Nfe,
    NoVerify,
    Seed,
    ensemble_asked,
    set_threads,
    tell_reversed,
)
from undrift.cli.output import tell_drawn
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError

if TYPE_CHECKING:
    from undrift.model import DensityModel


def sample(
    run: str,
    /,
    *,
    out: str,
    given: Many = None,
    fine: Many = None,
    holdout: Flag = False,
    know: str | None = None,
    lead: str | None = None,
    observe: str | None = None,
    at: str | None = None,
    constraint: Constraints = None,
    realizations: str | None = None,
    seed: Seed = 0,
    nfe: Nfe = None,
    device: Device = "auto",
    overwrite: Flag = False,
    no_verify: NoVerify = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Draw an ensemble from a run.

    Example: undrift sample RUN --given coarse.nc --realizations 100 --out ENS.nc

    Realization n holds the same numbers in whatever batch, slice or order it
    is drawn.

    Args:
        run: The run directory.
        out: File to write, ENS.nc or ENS.zarr.
        given: Files of what is given, in the units of training; another grid is interpolated. Of windows trained with
            --factor or --given the coarse sequence, of any length; OUT.zarr is gone on with by the same command.
        fine: Files of fine frames that are known beside the coarse sequence of GIVEN, by their times: what is NaN or
            absent in them is asked.
        holdout: Draw for the samples that training left out.
        know: Which frames of held-out windows are given, of a model of windows: past (the default), future, ends,
            nothing, or numbers as 0,6.
        lead: Lead times after the initial states of GIVEN, as 3h,6h,90min, of a model of lead times; any up to its
            longest, also between the steps of its record.
        observe: Table (CSV) of what stations saw: columns lat, lon, time, a variable such as t2m, and t2m_error, the
            standard deviation of each value's error. A model of windows is conditioned on it without training.
        at: Only these samples, as year=2085,scenario=E1; an emulator needs nothing else.
        realizations: How many, as 20, or which, as 100:200 (the end is not drawn): a slice of a whole run, bit for bit.
            Default sample.realizations of RUN, 20 unless it was set.
        overwrite: Replace OUT once the new one is complete.
    """
    if given and holdout:
        raise UsageError("--given and --holdout both say what is given; type one of them")
    which = ensemble_asked(out, nfe, overwrite or dry_run, seed, realizations)
    tell_reversed("--at", at)
    with stopped_saying(lambda: f"nothing was written to {out}; type the same command again"):
        from undrift.cli.runs import open_any
        from undrift.model import DensityModel

        set_threads()
        model = open_any(run, verify=not no_verify, device=device)
        if isinstance(model, DensityModel):
            others = {
                "fine": fine, "holdout": holdout, "know": know, "lead": lead, "observe": observe,
                "constraint": constraint, "nfe": nfe, "dry-run": dry_run,
            }  # fmt: skip
            return _parameters(model, given, at, which, seed, out, [name for name, v in others.items() if v], json)
        if out.endswith(".csv"):
            raise UsageError(f"got --out {out}, expected a name that ends in .nc or .zarr: {run} is a model of fields")
        result = model.sample(
            given, fine=fine or None, holdout=holdout, know=know, lead=lead, observe=observe, at=at,
            constraint=constraint, realizations=which, seed=seed, nfe=nfe, out=out, overwrite=overwrite,
            dry_run=dry_run,
        )  # fmt: skip
    tell_drawn(result, out, json)
    return 0


def _parameters(
    model: DensityModel, given: list[str] | None, at: str | None, which: slice | None, seed: int, out: str,
    idle: list[str], json: bool,
) -> int:  # fmt: skip
    """Draw from a density of a table."""
    from undrift.cli.log_prob import numbers_of
    from undrift.data.rows import write_rows

    if idle or out.endswith(".zarr"):
        got = f"--{idle[0]}" if idle else f"--out {out}"
        raise UsageError(f"got {got}, of models of fields; the run is a density of parameters, drawn to .nc or .csv")
    if given is not None and len(given) != 1:
        raise UsageError(f"got {len(given)} files with --given; what is given to a density is one table")
    told = None if at is None else numbers_of(at)
    result = model.sample(given[0] if given else None, realizations=which, seed=seed, at=told)
    write_rows(result, out)
    tell_drawn(result, out, json)
    return 0
