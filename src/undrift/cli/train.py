"""``undrift train``."""

from __future__ import annotations

__all__ = ["arguments", "command_line", "train"]

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from undrift.cli.options import Flag, Many, Settings, names, resolve, set_threads
from undrift.cli.output import emit_json, facts, note
from undrift.errors import CheckpointError, Interrupted, UsageError

if TYPE_CHECKING:
    from undrift.config import Config


def train(
    *data: str,
    out: str,
    task: Literal["downscale", "emulate"] | None = None,
    factor: int | None = None,
    given: Many = None,
    variables: str | None = None,
    static: str | None = None,
    covariates: str | None = None,
    dims: str | None = None,
    periodic: str | None = None,
    select: str | None = None,
    holdout: str | None = None,
    crop: str | None = None,
    budget: str | None = None,
    steps: int | None = None,
    baselines: Annotated[bool | None, Parameter(negative="", show_default=False)] = None,
    device: str | None = None,
    config: str | None = None,
    set_: Settings = None,
    seed: int | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
) -> int:
    """Train a model on files and write a run directory.

    Example: undrift train tas_*.nc --task downscale --factor 4 --holdout 20% --budget 3m --out RUN

    What is typed here wins over --config, and --set wins over both.

    Args:
        data: NetCDF, Zarr, NumPy or HDF5 files, or globs in quotes. With --resume they may be left out.
        out: The run directory to write.
        task: downscale (fine fields from coarse ones) or emulate (fields from numbers such as a year). Default
            downscale.
        factor: Fine cells per coarse cell along each side, when what is given is the area mean of DATA. Default 4.
        given: Files of what is given, on any grid, joined on time with DATA.
        variables: Names to take, as a,b. Default all fields.
        static: Files or names of variables without sample dims that condition the model, as orography.nc or z,lsm.
        covariates: Names of numbers per sample that are given, as year,scenario.
        dims: Names of the axes for NumPy and HDF5, as sample,z,y,x.
        periodic: Spatial dims that close on themselves, as x or y,x; none for no dim. Default a global longitude.
        select: Part of the data, as lat=35/60,lon=-10/30 (inclusive).
        holdout: Samples kept out of training, as year=2070/2099,scenario=E1 (both must hold) or 20%. Default 20%:
            the end of the record.
        crop: Cells along each side of a training window, or auto. Default auto.
        budget: Wall clock of the training loop, as 90s, 3m or 2h. Default 3m.
        steps: Number of training steps, in place of --budget; such a run repeats bit for bit.
        baselines: Also train the same net as a regression, to be scored beside the model; costs the budget again.
        device: auto, cpu or cuda:0. Default auto.
        config: TOML file with any of the settings of RUN/config.toml.
        set_: One setting, as train.batch=8; may be repeated.
        seed: Fixes every random draw. Default 0.
        resume: Go on from the last checkpoint of RUN; with a larger --budget or --steps a finished run goes on.
        overwrite: Replace RUN once the new run is complete.
        dry_run: Print shapes, memory and time, and write nothing.
        json: Print one JSON object.
    """
    if resume and overwrite:
        raise UsageError("--resume keeps RUN and --overwrite replaces it; type one of them")
    if budget is not None and steps is not None:
        raise UsageError("--budget and --steps both say how long to train; type one of them")
    flags = {
        "data.paths": list(data) or None,
        "data.given": given,
        "data.variables": names(variables),
        "data.static": names(static),
        "data.covariates": names(covariates),
        "data.dims": names(dims),
        "data.periodic": names(periodic),
        "data.select": select,
        "data.holdout": holdout,
        "task.name": task,
        "task.factor": factor,
        "train.crop": crop,
        "train.budget": budget,
        "train.steps": steps,
        "train.baselines": baselines,
        "train.device": device,
        "train.seed": seed,
    }
    resolved = resolve(_base(out, resume, budget, steps), config, flags, set_)
    if resume and not Path(out).exists():
        raise CheckpointError(f"{out} does not exist, so there is nothing to resume; leave --resume out to begin")
    if not resolved.data.paths:
        raise UsageError("no data is named; type undrift train FILE... --out RUN")
    from undrift.model import fit

    set_threads()
    with _heeding_signals():
        model = fit(**arguments(resolved), out=out, resume=resume, overwrite=overwrite, dry_run=dry_run)
    described = model if isinstance(model, dict) else model.describe()
    if json:
        emit_json(described)
    else:
        facts(described)
        note("nothing was written (--dry-run)" if dry_run else f"next: undrift report {out}")
    return 0


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """Before and after the training loop, which has its own handlers, a batch system's signals end the run with 75."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}; type the same command with --resume to go on")

    numbers = [signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _base(out: str, resume: bool, budget: str | None, steps: int | None) -> Config | None:
    """What a resumed run says of itself holds, where nothing else is typed."""
    stored = Path(out) / "config.toml"
    if not (resume and stored.is_file()):
        return None
    from undrift.config import load_config

    base = load_config(stored)
    if budget is not None:
        base.train.steps = None
    if steps is not None:
        base.train.budget = None
    return base


def arguments(config: Config) -> dict[str, Any]:
    """Spell a configuration as the arguments of `undrift.fit`; settings that have no argument go to ``set``."""
    from undrift.config import Config

    given, train = config.data, config.train
    taken = {"budget", "steps", "crop", "baselines", "seed", "device"}
    default = Config()
    rest = {
        f"{section}.{key}": value
        for section in ("codec", "net", "train", "sample")
        for key, value in getattr(config, section).model_dump().items()
        if value != getattr(getattr(default, section), key) and not (section == "train" and key in taken)
    }
    return {
        "data": given.paths,
        "task": config.task.name,
        "factor": config.task.factor,
        "given": given.given or None,
        "variables": given.variables or None,
        "static": given.static or None,
        "covariates": given.covariates or None,
        "dims": given.dims or None,
        "periodic": given.periodic or None,
        "select": given.select,
        "holdout": given.holdout,
        "crop": train.crop,
        "budget": train.budget,
        "steps": train.steps,
        "baselines": train.baselines,
        "device": train.device,
        "seed": train.seed,
        "set": rest or None,
    }


def command_line(config: Config, out: str) -> str:
    """Spell a configuration as the command that trains it again."""
    from undrift.config import Config

    default, words = Config(), ["undrift", "train", *config.data.paths]
    words += ["--task", config.task.name]
    if config.task.name == "downscale" and not config.data.given:
        words += ["--factor", str(config.task.factor)]
    if config.data.given:
        words += ["--given", *config.data.given]
    for name in ("variables", "static", "covariates", "dims", "periodic"):
        if getattr(config.data, name):
            words += [f"--{name}", ",".join(getattr(config.data, name))]
    for name in ("select", "holdout"):
        if getattr(config.data, name):
            words += [f"--{name}", getattr(config.data, name)]
    if config.train.steps is not None:
        words += ["--steps", str(config.train.steps)]
    elif config.train.budget is not None:
        words += ["--budget", f"{config.train.budget:g}s"]
    words += ["--baselines"] if config.train.baselines else []
    for name in ("crop", "device", "seed"):
        if getattr(config.train, name) != getattr(default.train, name):
            words += [f"--{name}", str(getattr(config.train, name))]
    for key, value in sorted((arguments(config)["set"] or {}).items()):
        items = value.items() if isinstance(value, dict) else [("", value)]
        for part, item in items:
            text = ",".join(map(str, item)) if isinstance(item, list) else str(item)
            words += ["--set", f"{key}{'.' if part else ''}{part}={text}"]
    return shlex.join([*words, "--out", out])
