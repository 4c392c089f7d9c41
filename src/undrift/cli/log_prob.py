"""``undrift log-prob``."""

from __future__ import annotations

__all__ = ["log_prob", "numbers_of"]

import math
from typing import TYPE_CHECKING

from undrift.cli.options import Dequantize, Device, Flag, Json, NoVerify, Seed, refuse_existing, set_threads
from undrift.cli.output import emit_json, note, say
from undrift.cli.stopping import stopped_saying
from undrift.errors import UsageError

if TYPE_CHECKING:
    import xarray as xr

    from undrift.model import DensityModel


def log_prob(
    run: str,
    data: str,
    /,
    *,
    out: str,
    given: str | None = None,
    at: str | None = None,
    probes: int | None = None,
    tolerance: float | None = None,
    dequantize: Dequantize = False,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Flag = False,
    no_verify: NoVerify = False,
    json: Json = False,
) -> int:
    """Write the log-density of the rows of a table, or of fields, in nats in their units.

    Example: undrift log-prob RUN chain.csv --out F.nc

    Of fields: undrift log-prob RUN maps.nc --at scenario=E1 --out F.nc

    OUT has log_prob and log_prob_error for each row or field; a row outside
    the bounds has -inf.

    Args:
        run: The run directory of a density (train --task density), or of fields that are emulated or downscaled.
        data: The table or chain, whose weights are not used; or the fields, on the cells of training.
        out: File to write, F.nc or F.csv.
        given: Table of what is given, one row for each of DATA or one for all; by default columns of DATA. Of fields
            the file of what is given, with the same labels.
        at: What is given, one for all rows, as x0=1.5,x1=2, or for all fields, as scenario=E1.
        probes: Random signs that estimate the trace, of fields. Default 16; the error falls with their root.
        tolerance: Of the steps of the ODE, in nats a field. Default 1.
        overwrite: Replace OUT once the new one is complete.
    """
    if not out.endswith((".nc", ".csv")):
        raise UsageError(f"got --out {out}, expected a name that ends in .nc or .csv")
    refuse_existing(out, overwrite)
    with stopped_saying(lambda: f"nothing was written to {out}; type the same command again"):
        from undrift.cli.runs import open_any
        from undrift.data.rows import write_rows
        from undrift.model import DensityModel

        set_threads()
        model = open_any(run, verify=not no_verify, device=device)
        if isinstance(model, DensityModel):
            idle = {
                "probes": probes is not None, "tolerance": tolerance is not None, "dequantize": dequantize,
                "seed": seed,
            }  # fmt: skip
            found, of = _rows(model, data, given, at, [name for name, typed in idle.items() if typed]), "rows"
        else:
            counts = {"probes": 16 if probes is None else probes, "tolerance": 1.0 if tolerance is None else tolerance}
            found = model.log_prob(data, given, at=at, seed=seed, dequantize=dequantize, **counts)
            of = "fields"
        write_rows(found, out)
    _tell(found, of, out, json)
    return 0


def _tell(found: xr.Dataset, of: str, out: str, json: bool) -> None:
    """Say how many log-densities there are, their mean, and of how many there is none."""
    value, missed = found.log_prob, found.attrs.get("not_converged", 0)
    outside, unknown = int((value == -math.inf).sum()), int(value.isnull().sum())
    inside, error = value.where(value > -math.inf), float(found.log_prob_error.max())
    mean = float(inside.mean()) if inside.notnull().any() else -math.inf if outside else math.nan
    if json:
        emit_json({
            "out": out, of: value.size, "outside": outside, "not a number": unknown, "not converged": missed,
            "mean": mean, "largest error": error,
        })  # fmt: skip
        return
    counts = [f"{count} with {what}" for count, what in ((outside, "-inf"), (unknown, "NaN")) if count]
    if inside.notnull().any():
        counts.append(f"{'of the others ' if counts else ''}mean {mean:.4f} nats, largest error {error:.2g}")
    say(f"{out}: {value.size} {of}, {'; '.join(counts)}")
    if missed:
        advice = "" if of == "rows" else "; type a larger --tolerance, or in Python nfe=1024 for more steps"
        note(
            f"{missed} of {value.size} {of} miss the tolerance of {found.attrs['tolerance']:g} nats, as their "
            f"log_prob_error says{advice}"
        )


def _rows(model: DensityModel, data: str, given: str | None, at: str | None, idle: list[str]) -> xr.Dataset:
    """The log-density of the rows of a table."""
    if idle:
        raise UsageError(f"got --{idle[0]}, of models of fields; the run is a density of parameters")
    return model.log_prob(data, given, at=None if at is None else numbers_of(at))


def numbers_of(text: str) -> dict[str, float]:
    """``x0=1.5,x1=2`` as numbers by name."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise UsageError(f"got --at {text}, expected names and numbers, such as --at x0=1.5,x1=2") from None
