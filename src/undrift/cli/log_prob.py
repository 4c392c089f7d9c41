"""``undrift log-prob``."""

from __future__ import annotations

__all__ = ["log_prob", "numbers_of"]

from undrift.cli.options import Flag, Json, NoVerify, refuse_existing, set_threads
from undrift.cli.output import emit_json, say
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError


def log_prob(
    run: str,
    data: str,
    /,
    *,
    out: str,
    given: str | None = None,
    at: str | None = None,
    overwrite: Flag = False,
    no_verify: NoVerify = False,
    json: Json = False,
) -> int:
    """Write the log-density of the rows of a table, in nats in its units.

    Example: undrift log-prob RUN chain.csv --out F.nc

    OUT has log_prob and log_prob_error for each row; a row outside the bounds
    has -inf.

    Args:
        run: The run directory of a density (train --task density).
        data: The table or chain; weights are not used.
        out: File to write, F.nc or F.csv.
        given: Table of what is given, one row for each of DATA or one for all. Default the columns of DATA.
        at: What is given, one for all rows, as x0=1.5,x1=2.
        overwrite: Replace OUT once the new one is complete.
    """
    if not out.endswith((".nc", ".csv")):
        raise UsageError(f"got --out {out}, expected a name that ends in .nc or .csv")
    refuse_existing(out, overwrite)
    told = None if at is None else numbers_of(at)
    with stopped_saying(lambda: f"nothing was written to {out}; type the same command again"):
        from undrift.cli.runs import open_any
        from undrift.data.rows import write_rows
        from undrift.model import DensityModel

        set_threads()
        model = open_any(run, verify=not no_verify, device="cpu")
        if not isinstance(model, DensityModel):
            raise UsageError(f"{run} is a model of fields; log-prob is of densities of tables, train --task density")
        found = model.log_prob(data, given, at=told)
        write_rows(found, out)
    mean, error = float(found.log_prob.mean()), float(found.log_prob_error.max())
    if json:
        emit_json({"out": out, "rows": found.sizes["sample"], "mean": mean, "largest error": error})
    else:
        say(f"{out}: {found.sizes['sample']} rows, mean {mean:.4f} nats, largest error {error:.2g}")
    return 0


def numbers_of(text: str) -> dict[str, float]:
    """``x0=1.5,x1=2`` as numbers by name."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise UsageError(f"got --at {text}, expected names and numbers, such as --at x0=1.5,x1=2") from None
