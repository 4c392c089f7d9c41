"""``undrift forecast``."""

from __future__ import annotations

__all__ = ["forecast"]

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
)
from undrift.cli.output import tell_drawn
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError


def forecast(
    run: str,
    /,
    *,
    given: Many = None,
    coarse: Many = None,
    out: str,
    init: str = "LAST",
    lead: str | None = None,
    steps: int | None = None,
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
    """Forecast from given frames, window after window.

    Example: undrift forecast RUN --given t2m.nc --init 2019-03-26/2019-03-30/12h --lead 24h --out FC.zarr

    The result has dims realization, time (of the start) and prediction_timedelta,
    and the coordinate valid_time. A .zarr is gone on with by the same command
    after a stop.

    Args:
        run: The run directory, of --task window.
        given: Files with the frames up to each start.
        coarse: Files with coarse frames, also of times ahead, for a run trained with --factor or --given.
        out: File to write, FC.zarr or FC.nc.
        init: Which frames to begin with: LAST, times with commas, or START/END/EVERY.
        lead: How far, as 48h or 10d.
        steps: How many frames, in place of --lead.
        realizations: How many, as 50, or which, as 100:200. Default 50.
        overwrite: Replace OUT once the new one is complete.
    """
    if not given:
        raise UsageError("say what is known: --given FRAMES.nc, with the frames up to each start")
    which = ensemble_asked(out, nfe, overwrite or dry_run, seed, realizations)
    gone_on = "type the same command again to go on" if out.rstrip("/").endswith(".zarr") else "nothing was written"
    with stopped_saying(lambda: f"{out} is not complete; {gone_on}"):
        from undrift.cli.runs import open_run

        set_threads()
        result = open_run(run, verify=not no_verify, device=device).forecast(
            given, coarse=coarse or None, init=init, lead=lead, steps=steps, constraint=constraint, realizations=which,
            seed=seed, nfe=nfe, out=out, overwrite=overwrite, dry_run=dry_run,
        )  # fmt: skip
    tell_drawn(result, out, json)
    return 0
