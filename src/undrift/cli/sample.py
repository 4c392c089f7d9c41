"""``undrift sample``."""

from __future__ import annotations

__all__ = ["sample"]

from pathlib import Path

from undrift.cli.options import Flag, Many, set_threads
from undrift.cli.output import emit_json, facts, note, say
from undrift.errors import UsageError


def sample(
    run: str,
    /,
    *,
    out: str,
    given: Many = None,
    holdout: Flag = False,
    at: str | None = None,
    realizations: str | None = None,
    seed: int = 0,
    nfe: int | None = None,
    device: str = "auto",
    overwrite: Flag = False,
    no_verify: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
) -> int:
    """Draw an ensemble from a run.

    Example: undrift sample RUN --given coarse.nc --realizations 100 --out ENS.nc

    Realization n holds the same numbers in whatever batch, slice or order it
    is drawn.

    Args:
        run: The run directory.
        out: File to write, ENS.nc or ENS.zarr.
        given: Files of what is given, in the units of training; another grid is interpolated.
        holdout: Draw for the samples that training left out.
        at: Only these samples, as year=2085,scenario=E1; an emulator needs nothing else.
        realizations: How many, as 20, or which, as 100:200 (the end is not drawn): a slice of a whole run, bit for bit.
            Default 20, unless RUN was trained with another sample.realizations.
        seed: Fixes every random draw.
        nfe: Network evaluations per realization. Default 10, unless RUN was trained with another sample.nfe.
        device: auto, cpu or cuda:0.
        overwrite: Replace OUT once the new one is complete.
        no_verify: Read RUN although a checksum differs.
        dry_run: Print shapes, memory and time, and write nothing.
        json: Print one JSON object.
    """
    if given and holdout:
        raise UsageError("--given and --holdout both say what is given; type one of them")
    if not out.rstrip("/").endswith((".nc", ".zarr")):
        raise UsageError(f"got --out {out}, expected a name that ends in .nc or .zarr")
    if nfe is not None and nfe < 1:
        raise UsageError(f"got --nfe {nfe}, expected at least 1")
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} exists; type --overwrite to replace it, or another --out")
    members = None if realizations is None else realizations_of(realizations)
    from undrift.cli.runs import open_run

    set_threads()
    model = open_run(run, verify=not no_verify, device=device)
    default = model.config.sample
    result = model.sample(
        given,
        holdout=holdout,
        at=at,
        realizations=default.realizations if members is None else members,
        seed=seed,
        nfe=default.nfe if nfe is None else nfe,
        out=out,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if isinstance(result, dict):
        emit_json(result) if json else facts(result)
        note("nothing was written (--dry-run)")
        return 0
    sizes = {str(name): size for name, size in result.sizes.items()}
    result.close()
    if json:
        emit_json({"out": out, "variables": list(result.data_vars), "sizes": sizes, "attrs": result.attrs})
    else:
        say(f"{out}: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    return 0


def realizations_of(text: str) -> int | slice:
    """Read ``20`` or ``100:200``.

    Raises:
        UsageError: It is neither, or it is empty.
    """
    start, colon, stop = text.partition(":")
    try:
        first, last = (int(start or 0), int(stop)) if colon else (0, int(start))
    except ValueError:
        raise UsageError(
            f"got --realizations {text}, expected a number such as 20 or a range such as 100:200"
        ) from None
    if first < 0 or last <= first:
        raise UsageError(f"got --realizations {text}, which is no realization at all; type 20 or 100:200")
    return slice(first, last) if colon else last
