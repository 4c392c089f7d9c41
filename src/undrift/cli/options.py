"""What several verbs share: the forms of their options, the configuration they add up to, and the number of threads."""

from __future__ import annotations

__all__ = [
    "Constraints",
    "Covariates",
    "Dequantize",
    "Device",
    "Dims",
    "DryRun",
    "Factor",
    "Flag",
    "Future",
    "Given",
    "Holdout",
    "Json",
    "LogProb",
    "Longest",
    "Many",
    "Members",
    "Nfe",
    "NoVerify",
    "Past",
    "Periodic",
    "Seed",
    "Select",
    "Settings",
    "Static",
    "Task",
    "Truth",
    "Variables",
    "ensemble_asked",
    "names",
    "refuse_existing",
    "resolve",
    "samples_of",
    "set_threads",
    "settings",
    "tell_reversed",
]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from undrift.errors import UsageError

if TYPE_CHECKING:
    from undrift.config import Config

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is typed."""
Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable="")]
"""One or more words after one option: ``--given a.nc b.nc``."""
Settings = Annotated[list[str] | None, Parameter(name="--set", negative_iterable="")]
"""``--set section.key=value``, as often as needed."""

# What check and train have in common: which samples, and what is given of them.

Task = Annotated[
    Literal["downscale", "emulate", "enrich", "window", "lead-time", "density"] | None,
    Parameter(
        help="downscale (fine fields from coarse ones), emulate (fields from numbers such as a year), enrich "
        "(members of an ensemble from others of the same date), window (any part of consecutive frames from any "
        "other), lead-time (the state after any lead from an initial one) or density (the law of the columns of a "
        "table)."
    ),
]
Estimator = Annotated[
    Literal["auto", "flow-matching", "diffusion", "nsf", "kde", "mixture", "gp"] | None,
    Parameter(help="Of --task density: nsf is a spline flow, gp is of columns of log-densities. Default auto."),
]
Coupling = Annotated[
    Literal["independent", "ot", "conditional-ot"] | None,
    Parameter(
        help="Of --estimator flow-matching: rows are paired with where the flow begins by chance, by optimal transport "
        "or, with --covariates, by transport among rows of like covariates. Default independent."
    ),
]
Base = Annotated[
    str | None,
    Parameter(
        help="Of --estimator flow-matching: a table of another law with the columns of DATA, whose rows take the place "
        "of noise; such a flow has no log-density. Or the run of a density, whose draws do: then it has one."
    ),
]
IgnoreRows = Annotated[
    float | None,
    Parameter(
        help="Share of each chain that is left out at its beginning, or number of rows if 1 or more; of chains of "
        "--base too. Default 0."
    ),
]
Bounds = Annotated[
    str | None,
    Parameter(
        help="Ranges of parameters, as a=0/1,b=0/N with N where open, or a file of lines NAME LOW HIGH. Default those "
        "of the file beside a chain."
    ),
]
Past = Annotated[
    int | None,
    Parameter(help="Frames up to the present, of a window or given before a lead time. Default 4 of a window, else 1."),
]
Longest = Annotated[
    str | None, Parameter(help="The longest lead time, as 24h; a number where times are numbers. For --task lead-time.")
]
Future = Annotated[int | None, Parameter(help="Frames of a window after the present. Default 8.")]
Members = Annotated[int | None, Parameter(help="Members of a date that one more is given, to enrich. Default 2.")]
Factor = Annotated[
    int | None,
    Parameter(
        help="Fine cells per coarse cell along each side, when what is given is the block mean of DATA. Default 4 for "
        "downscaling; with windows the coarse sequence is given beside frames."
    ),
]
Given = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        negative_iterable="",
        help="Files of what is given, on any grid, joined on time with DATA; PAIR.npz:lr is one variable of a file.",
    ),
]
Variables = Annotated[str | None, Parameter(help="Names to take, as a,b. Default all fields; of a table all columns.")]
Static = Annotated[
    str | None,
    Parameter(
        help="Files or names of variables without sample dims that condition the model, as orography.nc or z,lsm."
    ),
]
Covariates = Annotated[str | None, Parameter(help="Names of numbers per sample that are given, as year,scenario.")]
Dims = Annotated[str | None, Parameter(help="Names of the axes for NumPy and HDF5, as sample,z,y,x.")]
Periodic = Annotated[
    str | None,
    Parameter(
        help="Spatial dims that close on themselves, as x or y,x; none for no dim. Default a global longitude. Of a "
        "table the columns that do, such as angles, with their --bounds."
    ),
]
Select = Annotated[str | None, Parameter(help="Part of the data, as lat=35/60,lon=-10/30 (inclusive).")]
Holdout = Annotated[
    str | None,
    Parameter(
        help="Samples kept out of training, as year=2070/2099,scenario=E1 (both must hold) or 20%. Default 20%: the "
        "end of the record; of a table 10% of its rows, at random."
    ),
]

# What the verbs that draw have in common.

Seed = Annotated[int, Parameter(help="Fixes every random draw.")]
Nfe = Annotated[
    int | None,
    Parameter(
        help="Network evaluations per realization. Default sample.nfe of RUN, 10 unless it was set; with --observe "
        "steps, twice as many."
    ),
]
Constraints = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        negative_iterable="",
        help="What fields satisfy, one or more of: means=COARSE.nc (means over blocks of cells), integral=SUMS.nc "
        "(weighted sums, its variable 'value' says what they are), divergence=u,v (none), and bounds in quotes such as "
        "'0<=pr<=50'.",
    ),
]
Device = Annotated[str, Parameter(help="auto, cpu or cuda:0.")]
NoVerify = Annotated[bool, Parameter(negative="", show_default=False, help="Read RUN although a checksum differs.")]
DryRun = Annotated[
    bool,
    Parameter(
        name="--dry-run",
        negative="",
        show_default=False,
        help="Print shapes, memory and time where it is known; write nothing.",
    ),
]
Json = Annotated[bool, Parameter(negative="", show_default=False, help="Print one JSON object.")]

# What the verbs that score have in common.

Truth = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        negative_iterable="",
        help="Files of the truth; they may hold more than the ensemble and are matched by coordinates.",
    ),
]
LogProb = Annotated[
    list[int] | None,
    Parameter(
        consume_multiple=True,
        negative_iterable="",
        help="How likely held-out fields are, of a model that emulates or downscales: the log-density of so many, "
        "spread over the held-out part; 10 if no number is typed. Each takes seconds.",
    ),
]
Dequantize = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="For log-densities: spread values that lie on even steps, as packed data do, over their steps.",
    ),
]


def samples_of(typed: list[int]) -> int:
    """How many held-out fields --log-prob asks for."""
    if len(typed) > 1:
        raise UsageError(f"got --log-prob {' '.join(map(str, typed))}, expected one number of held-out fields")
    return typed[0] if typed else 10


def names(text: str | None) -> list[str] | None:
    """Split ``a,b`` into names; None stays None ("not said")."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def settings(items: list[str] | None) -> dict[str, str]:
    """Read the words after ``--set`` as a table from dotted key to text.

    Raises:
        UsageError: A word without ``=``, or a key given twice with different values.
    """
    result: dict[str, str] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"got --set {item!r}, expected --set section.key=value, such as --set train.batch=8")
        if result.setdefault(key.strip(), value) != value:
            raise UsageError(f"--set {key.strip()} is given twice, as {result[key.strip()]!r} and as {value!r}")
    return result


def resolve(
    base: Config | None, file: str | Path | None, arguments: Mapping[str, object], items: list[str] | None
) -> Config:
    """Add up a configuration: the base, then the file, then the options, then ``--set``; the later one wins.

    Args:
        base: What holds where nothing else is said, such as the configuration of the run that is resumed.
        file: A TOML file, of which only the keys that it holds count.
        arguments: Options by name; None means that one was not typed.
        items: The words after ``--set``.
    """
    from undrift.config import Config, apply_arguments, apply_settings, load_config, overlaid

    config = base or Config()
    if file is not None:
        config = overlaid(config, load_config(file))
    return apply_settings(apply_arguments(config, arguments), settings(items))


def tell_reversed(option: str, text: str | None) -> None:
    """Say how a range is read whose ends were typed the other way round."""
    if text is None or "=" not in text:
        return
    from undrift.cli.output import note
    from undrift.data.select import parse_selection

    for key, ends in parse_selection(text).items():
        if len(ends) == 2 and all(ends) and not key.lower().startswith("lon") and _after(*ends):
            note(f"{option} {key}={ends[0]}/{ends[1]} is read as {key}={ends[1]}/{ends[0]}")


def _after(first: str, last: str) -> bool:
    """Whether a number or date lies after another one; text of other kinds is left to those who know the labels."""
    try:
        return float(first) > float(last)
    except ValueError:
        return first[:4].isdigit() and last[:4].isdigit() and first > last


def refuse_existing(out: str, overwrite: bool) -> None:
    """Refuse to replace what is there unless asked to."""
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} exists; type --overwrite to replace it, or another --out")


def ensemble_asked(out: str, nfe: int | None, overwrite: bool, seed: int, realizations: str | None) -> slice | None:
    """Which realizations are asked for, None for the usual ones.

    Refuses a name that no ensemble can have or that is taken, a number of evaluations below 1, and what is no seed.
    """
    if not out.rstrip("/").endswith((".nc", ".zarr", ".csv")):
        raise UsageError(f"got --out {out}, expected a name that ends in .nc or .zarr, of parameters in .nc or .csv")
    if nfe is not None and nfe < 1:
        raise UsageError(f"got --nfe {nfe}, expected at least 1")
    refuse_existing(out, overwrite)
    from undrift.config import parse_realizations, valid_seed

    valid_seed(seed)
    return None if realizations is None else parse_realizations(realizations)


def set_threads() -> None:
    """Give torch the number of threads that the scheduler or the user gave this process.

    ``OMP_NUM_THREADS`` counts first, then ``SLURM_CPUS_PER_TASK``; without them torch decides.
    """
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                raise UsageError(f"the environment has {variable}={text!r}, expected a whole number of threads")
            import torch

            torch.set_num_threads(int(text))
            return
