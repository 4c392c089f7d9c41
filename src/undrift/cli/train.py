"""``undrift train``."""

from __future__ import annotations

__all__ = ["command_line", "train"]

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from undrift.cli.options import (
    Base,
    Bounds,
    Coupling,
    Covariates,
    Dims,
    DryRun,
    Estimator,
    Factor,
    Flag,
    Future,
    Given,
    Holdout,
    IgnoreRows,
    Json,
    Longest,
    Members,
    Past,
    Periodic,
    Select,
    Settings,
    Static,
    Task,
    Variables,
    resolve,
    set_threads,
    tell_reversed,
)
from undrift.cli.output import emit_json, facts, note
from undrift.cli.stopping import stopped_saying
from undrift.errors import CheckpointError, UsageError
from undrift.train.signals import ended_by_signals

if TYPE_CHECKING:
    from undrift.config import Config


def train(
    *data: str,
    out: str,
    task: Task = None,
    factor: Factor = None,
    past: Past = None,
    future: Future = None,
    members: Members = None,
    longest: Longest = None,
    estimator: Estimator = None,
    ignore_rows: IgnoreRows = None,
    dequantize: Annotated[bool | None, Parameter(negative="", show_default=False)] = None,
    bounds: Bounds = None,
    coupling: Coupling = None,
    base: Base = None,
    given: Given = None,
    variables: Variables = None,
    static: Static = None,
    covariates: Covariates = None,
    dims: Dims = None,
    periodic: Periodic = None,
    select: Select = None,
    holdout: Holdout = None,
    crop: str | None = None,
    budget: str | None = None,
    steps: int | None = None,
    baselines: Annotated[bool | None, Parameter(negative="", show_default=False)] = None,
    device: str | None = None,
    config: str | None = None,
    set_: Settings = None,
    seed: int | None = None,
    fork: str | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train a model on files and write a run directory.

    Example: undrift train tas_*.nc --task downscale --factor 4 --holdout 20% --budget 3m --out RUN

    What is typed here wins over --config, and --set wins over both. Default task: downscale.

    Args:
        data: NetCDF, Zarr, NumPy or HDF5 files, or globs in quotes; PAIR.npz:hr is one variable of a file.
            With --resume or --fork they may be left out.
        out: The run directory to write.
        dequantize: Of --task density: spread values that lie on even steps, as counts do, over their steps.
        crop: Cells along each side of a training window, or auto. Default auto.
        budget: Wall clock of the training loop, as 90s, 3m or 2h; all of it is used unless train.patience is set.
            Default 3m.
        steps: Number of training steps, in place of --budget; such a run repeats bit for bit.
        baselines: Also train the same net as a regression, to be scored beside the model; costs the budget again.
        device: auto, cpu or cuda:0. Default auto.
        config: TOML file with any of the settings of RUN/config.toml.
        set_: One setting, as train.batch=8; may be repeated.
        seed: Fixes every random draw. Default 0.
        fork: Begin with the network of this run, and its options where no others are typed; RUN is a run of its own.
            The regression of --baselines begins anew.
        resume: Go on from the last checkpoint of RUN; with a larger --budget or --steps a finished run goes on.
        overwrite: Replace RUN once the new run is complete.
    """
    arguments = {
        "data": list(data) or None, "task": task, "factor": factor, "past": past, "future": future,
        "members": members, "longest": longest, "estimator": estimator, "ignore_rows": ignore_rows,
        "dequantize": dequantize, "bounds": bounds, "coupling": coupling, "base": base, "given": given,
        "variables": variables,
        "static": static, "covariates": covariates, "dims": dims, "periodic": periodic, "select": select,
        "holdout": holdout, "crop": crop, "budget": budget, "steps": steps, "baselines": baselines, "device": device,
        "seed": seed, "fork": fork,
    }  # fmt: skip
    resolved = _resolved(arguments, set_, config, out, resume, overwrite)
    described = _trained(resolved, out, resume, overwrite, dry_run)
    if json:
        emit_json(described)
    else:
        facts(described)
        note("nothing was written (--dry-run)" if dry_run else f"next: {_next(resolved, out)}")
    return 0


def _next(config: Config, out: str) -> str:
    """The line that is typed after a training."""
    if config.task.name != "density":
        return shlex.join(["undrift", "report", out])
    at = ",".join(f"{name}=VALUE" for name in config.data.covariates)
    return shlex.join(["undrift", "sample", out, *(["--at", at] if at else []), "--out", "DRAWS.csv"])


def _resolved(
    arguments: dict[str, Any], settings: list[str] | None, file: str | None, out: str, resume: bool, overwrite: bool
) -> Config:
    """What is to be trained, from all that was typed."""
    if not any((arguments["task"], file, resume, arguments["fork"])) and len(arguments["data"] or ()) == 1:
        from undrift.data.table import is_table

        if is_table(arguments["data"][0]):
            arguments["task"] = "density"
    if resume and overwrite:
        raise UsageError("--resume keeps RUN and --overwrite replaces it; type one of them")
    from undrift.config import refuse_idle_options

    resolved = resolve(_base(out, resume, arguments["fork"]), file, arguments, settings)
    if resume and resolved.task.name == "density":
        raise UsageError(
            f"a density is fitted in one go, so that there is nothing to resume; type --overwrite to fit {out} anew"
        )
    refuse_idle_options(arguments, resolved.task.name, resolved.data.given)
    if resume and not Path(out).exists():
        raise CheckpointError(f"{out} does not exist, so there is nothing to resume; leave --resume out to begin")
    if not resolved.data.paths:
        raise UsageError("no data is named; type undrift train FILE... --out RUN")
    return resolved


def _trained(config: Config, out: str, resume: bool, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    """Train, and describe the model; with ``dry_run`` what would be done."""
    mark = _mark(out)
    if config.task.name == "density":
        with stopped_saying(lambda: f"nothing was written to {out}; type the same command again"):
            return _described(config, out, resume, overwrite, dry_run)
    # Before torch is imported, which takes seconds; the training loop has handlers of its own.
    with ended_by_signals(lambda: "nothing was written" if dry_run else _again(config, out, overwrite, mark)):
        return _described(config, out, resume, overwrite, dry_run)


def _described(config: Config, out: str, resume: bool, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    tell_reversed("--holdout", config.data.holdout)
    from undrift.model import fit_config

    set_threads()
    model = fit_config(config, out=out, resume=resume, overwrite=overwrite, dry_run=dry_run)
    return model if isinstance(model, dict) else model.describe()


def _mark(out: str) -> int | None:
    """When a run was begun in a directory."""
    mark = Path(out) / ".undrift"
    return mark.stat().st_mtime_ns if mark.is_file() else None


def _again(config: Config, out: str, overwrite: bool, mark: int | None) -> str:
    """What to type after a stop; where nothing was begun yet, a directory is left that ``--resume`` begins anew."""
    from undrift.config import dump_config
    from undrift.train.run import begin

    run = Path(out)
    if not run.exists():
        begin(run)
        dump_config(config, run / "config.toml")
    elif overwrite and _mark(out) == mark:
        return f"{out} is as it was; type the same command again"
    return f"type the same command with --resume{' in place of --overwrite' if overwrite else ''} to go on"


def _base(out: str, resume: bool, fork: str | None) -> Config | None:
    """What a run that is gone on with, or begun from, says of itself holds, where nothing else is typed."""
    from undrift.config import forked, load_config

    stored = Path(out) / "config.toml"
    if not (resume and stored.is_file()):
        return None if fork is None else forked(fork)
    from undrift.train.manifest import verify_manifest

    if stored.with_name("manifest.json").is_file():
        verify_manifest(stored.parent, names=[stored.name])
    return load_config(stored)


def command_line(config: Config, out: str) -> str:
    """Spell a configuration as the command that trains it again: options, and the rest as ``--set``."""
    from undrift.config import ARGUMENTS, Config

    default = Config()
    words = ["undrift", "train", *config.data.paths, "--task", config.task.name]
    if config.task.name != "emulate" and config.task.factor is not None and not config.data.given:
        words += ["--factor", str(config.task.factor)]
    for name, key in ARGUMENTS.items():
        value, usual = (getattr(getattr(one, key.split(".")[0]), key.split(".")[1]) for one in (config, default))
        if value == usual or name in ("data", "task", "factor"):
            continue
        if name == "given":
            words += ["--given", *value]
        elif name == "budget":
            words += ["--budget", f"{value:g}s"]
        else:
            text = ",".join(value) if isinstance(value, list) else str(value)
            words += [f"--{name}"] if value is True else [f"--{name}", text]
    for section in Config.model_fields:
        for name, value in getattr(config, section).model_dump().items():
            if f"{section}.{name}" in ARGUMENTS.values() or value == getattr(getattr(default, section), name):
                continue
            for part, item in value.items() if isinstance(value, dict) else [("", value)]:
                text = ",".join(map(str, item)) if isinstance(item, list) else str(item)
                words += ["--set", f"{section}.{name}{'.' if part else ''}{part}={text}"]
    return shlex.join([*words, "--out", out])
