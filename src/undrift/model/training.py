"""From samples to a trained model."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from undrift.config import Config, config_text, dump_config, load_config
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.memory import ACTIVATIONS
from undrift.data.table import is_table
from undrift.denoise.guess import FoldedGuess, GaussianGuess
from undrift.distributions.calibrate import calibrate
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.regression import fit_regression
from undrift.distributions.rivals import Rivals
from undrift.errors import UsageError, suggests_options
from undrift.model.density_model import DensityModel
from undrift.model.density_training import fit_density_config
from undrift.model.field_model import FieldModel, load
from undrift.model.files import Parts, facts_of, plain, write_files
from undrift.model.fork import begin_with
from undrift.model.opening import Data, base_of, configure, open_data
from undrift.nets.members import member_of, number_of
from undrift.objective.denoising import DenoisingScoreMatching, Regression
from undrift.process import EDM
from undrift.progress import track
from undrift.tasks import Density, Downscale, Task, Window, task_of
from undrift.tasks.batch import Batch
from undrift.train.batches import batches, to_batch
from undrift.train.device import device_of, precision_of
from undrift.train.durable import write_text
from undrift.train.guesses import guess_of
from undrift.train.log import read_metrics
from undrift.train.loop import train
from undrift.train.network import Net, build_net, chosen, completed, left_open
from undrift.train.prepare import prepare
from undrift.train.problem import Problem
from undrift.train.resume import refuse_other_settings
from undrift.train.run import RunDirectory
from undrift.train.settings import Progress, settings_of, to_record
from undrift.train.step import private_rng
from undrift.train.trust import fit_trust

__all__ = ["fit", "fit_config"]

logger = logging.getLogger(__name__)

_PLAN_SAMPLES = 64  # read to say what would be trained
_BUDGET = 180.0  # seconds, where nothing says how long


@suggests_options
def fit(
    data: Data,
    *,
    task: str | Task | Density | None = None,
    factor: int | None = None,
    past: int | None = None,
    future: int | None = None,
    members: int | None = None,
    longest: str | float | None = None,
    estimator: str | None = None,
    ignore_rows: float | None = None,
    dequantize: bool | None = None,
    bounds: Mapping[str, Sequence[float | str | None]] | str | None = None,
    coupling: str | None = None,
    base: Any = None,
    given: Data | None = None,
    variables: str | Sequence[str] | None = None,
    static: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    dims: str | Sequence[str] | None = None,
    periodic: str | Sequence[str] | None = None,
    select: str | Mapping[str, Any] | None = None,
    holdout: str | Mapping[str, Any] | None = None,
    crop: str | int | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    baselines: bool | None = None,
    device: str | None = None,
    fork: str | Path | None = None,
    config: str | Path | None = None,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    net: nn.Module | None = None,
) -> "FieldModel | DensityModel | dict[str, Any]":
    """Train a distribution of fields.

    Args:
        data: samples: a path, glob or list of them (NetCDF, Zarr, NumPy, HDF5), or an xarray object or array.
        task: "downscale" (the default), "emulate", "enrich", "window", "lead-time", or a task such as
            ``undrift.Downscale(factor=4)``; "density" or ``undrift.Density(estimator="nsf")`` of a table of parameters,
            which is the default of a table: a pandas DataFrame, samples of anesthetic, a CSV file, a chain.
        past: frames of a window up to the present, 4 by default; before a lead time those that are given, 1 by default.
        future: frames of a window after it, 8 by default.
        members: members of a date that one more is given when an ensemble is enriched, 2 by default.
        longest: lead time such as "24h", a number where times are numbers.
        estimator: of a density: "flow-matching", "diffusion", "nsf", "kde", "mixture", "gp" (of
            log-densities that come with the samples) or "auto", the default.
        ignore_rows: share of each chain that is left out at its beginning, or number of rows if 1 or more.
        dequantize: spread values that lie on even steps, as counts and packed data do, over their steps.
        bounds: of parameters, name -> (low, high), None where open, or a file of ranges; see :class:`Density`.
        coupling: of the density by flow matching, "independent", "ot" or "conditional-ot"; see :class:`Density`.
        base: of the density by flow matching, a table, or a density, whose rows or draws take the place of noise; see
            :class:`Density`.
        factor: fine cells per coarse cell when what is given is the mean of the data over blocks: 4 by default for
            downscaling; with windows the coarse sequence is given beside masked frames.
        given: what is given, where it is a dataset of its own, joined on the labels of the samples; ``pair.npz:lr`` is
            one variable of a file.
        variables: names to take; all by default.
        static: names of variables without sample dims, or a file of such, that condition the model.
        covariates: names of coordinates over sample dims that are given.
        dims: names of the axes of arrays, such as "sample,y,x".
        periodic: space dims whose ends are neighbours.
        select: part of the data, such as "lat=35/60".
        holdout: samples kept out of training, such as "year=2070/2099,scenario=E1" or "20%" (the default).
        crop: cells along each side of a training window, or "auto".
        budget: wall clock of the training loop, such as "3m" (the default) or seconds.
        steps: number of steps, in place of a budget; such a training repeats bit for bit.
        baselines: also train the same network as a regression, for the same budget again.
        device: "auto", "cpu" or "cuda:0".
        fork: run with whose network the training begins, and whose options hold where no others are given; the
            regression of ``baselines`` begins anew.
        config: TOML file with any of the settings.
        set: single settings, such as ``{"train.batch": 8}``.
        seed: of all that is drawn.
        out: run directory.
        resume: go on with the run in ``out``.
        overwrite: replace the run in ``out`` once the new one is complete.
        dry_run: return shapes, sizes and times instead of training.
        progress: show a progress bar on stderr.
        net: a module of ``(x, t, vector)`` to take the place of ours; such a model is kept in memory only.

    Returns:
        The trained model, or with ``dry_run`` what would be done.
    """
    if task is None and config is None and fork is None and dims is None and is_table(data):
        task = "density"
    arguments = {
        "factor": factor, "past": past, "future": future, "members": members, "longest": longest, "given": given,
        "estimator": estimator, "ignore_rows": ignore_rows, "dequantize": dequantize,
        "bounds": bounds, "coupling": coupling, "base": base,
        "variables": variables, "static": static, "covariates": covariates,
        "dims": dims, "periodic": periodic, "select": select, "holdout": holdout, "crop": crop, "budget": budget,
        "steps": steps, "baselines": baselines, "device": device, "seed": seed,
        "fork": None if fork is None else str(fork),
    }  # fmt: skip
    return fit_config(
        configure(data, task, config, set, arguments), data=data, given=given, base=base_of(task, base), out=out,
        resume=resume, overwrite=overwrite, dry_run=dry_run, progress=progress, net=net,
    )  # fmt: skip


def fit_config(
    config: Config,
    *,
    data: Data | None = None,
    given: Data | None = None,
    base: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    net: nn.Module | None = None,
) -> "FieldModel | DensityModel | dict[str, Any]":
    """What :func:`fit` does, from a resolved configuration; data without paths are passed beside it."""
    if config.task.name == "density":
        if net is not None or resume:
            raise UsageError("the density of a table is fitted in one go, by a net of ours; leave net and resume out")
        return fit_density_config(
            config, data=data, base=base, out=out, overwrite=overwrite, dry_run=dry_run, progress=progress
        )
    if base is not None:
        raise UsageError("got base, where the density of a table begins; leave it out, or pass task='density'")
    begun = time.perf_counter()
    if net is not None and out is not None:
        raise UsageError(
            "a run directory cannot rebuild a network of your own; leave out= away and keep its weights yourself"
        )
    config = _settled(config)
    if net is not None and config.train.fork is not None:
        raise UsageError(f"fork={config.train.fork} begins with the network of that run, net= with one of yours")
    if net is not None and config.net.members not in (None, 1):
        raise UsageError(
            f"net.members={config.net.members} shares a training among networks of ours; leave it out beside net="
        )
    if net is not None:
        config.net.members = 1
    if resume and out is not None:
        _look_ahead(RunDirectory(out, overwrite=overwrite, resume=True), config)
    device = device_of(config.train.device, tell=True)
    target, beside = open_data(config, data, given)
    task = task_of(**config.task.model_dump())
    if dry_run:
        return _plan(prepare(target, beside, task, config, samples=_PLAN_SAMPLES), config, device)
    if out is None:
        problem = _prepared(target, beside, task, config, progress)
        parts = _fit(problem, chosen(problem, config), device, None, progress, begun, net)
        assert parts is not None
        return FieldModel(parts, device, problem=problem)
    with RunDirectory(out, overwrite=overwrite, resume=resume) as run:
        if not (resume and (run.path / "config.toml").exists()):
            dump_config(config, run.path / "config.toml")
        problem = _prepared(target, beside, task, config, progress)
        stored = run.path / "config.toml"
        before = stored.read_text(encoding="utf-8")
        config = chosen(problem, config, load_config(stored))
        if not run.complete:
            write_text(stored, config_text(config))
        try:
            parts = _fit(problem, config, device, run, progress, begun, None)
        except UsageError:
            if not run.complete:
                write_text(stored, before)  # a --resume that is refused changes nothing
            raise
        if parts is None:
            return load(run.path, device=str(device), data=data, given=given)
        _publish(parts, run)
        return FieldModel(parts, device, run=run.path, problem=problem)


def _prepared(target: Fields, beside: Fields | None, task: Task, config: Config, progress: bool) -> Problem:
    with track("preparing", None, enabled=progress):
        problem = prepare(target, beside, task, config)
    crop, shape = config.train.crop, problem.codec.layout.shape
    if crop != "auto" and problem.crop is None:
        size = " x ".join(map(str, shape))
        logger.info("--crop %s is no smaller than the field of %s: the whole field is used", crop, size)
    return problem


def _settled(config: Config) -> Config:
    """A configuration that says how long to train: by steps, or by a budget, which it gets where it has neither."""
    config = config.model_copy(deep=True)
    if config.task.name == "downscale" and config.task.factor is None:
        config.task.factor = Downscale().factor
    t = config.train
    if t.steps is not None and t.budget is not None:
        raise UsageError(
            f"train.budget={t.budget:g}s and train.steps={t.steps} both say how long to train; give one of them: "
            f"--budget {t.budget:g}s or --steps {t.steps}, which drops the other"
        )
    if t.steps is None and t.budget is None:
        t.budget = _BUDGET
    return config


def _plan(problem: Problem, config: Config, device: torch.device) -> dict[str, Any]:
    config = chosen(problem, config)
    nets = build_net(problem, config)
    net, layout = cast(Net, member_of(nets, 0)), problem.codec.layout
    size = sum(p.numel() for p in nets.parameters())
    window = [min(problem.crop or n, n) for n in layout.shape]
    t = config.train
    return {
        "task": config.task.name,
        "samples": {k: len(getattr(problem.split, k)) for k in ("train", "holdout", "gap")},
        "target": {c.label: list(layout.shape) for c in layout.channels},
        "given": None if problem.codec.given_layout is None else
                 {c.label: list(problem.codec.given_layout.shape) for c in problem.codec.given_layout.channels},
        "static": [str(name) for name in problem.pair.target.static.data_vars],
        "covariates": problem.codec.covariates.names,
        "transforms": {c.label: x.kind for c, x in zip(layout.channels, problem.codec.transforms)},
        "window": window,
        "network": {"kind": config.net.kind, "members": number_of(nets), "channels": list(net.channels),
                    "parameters of each": size // number_of(nets), "dropout": net.dropout},
        "memory_mb": round((16 * size + ACTIVATIONS * t.batch * net.held(window)) / 2**20 + 400),
        "time": (f"{t.steps} steps, about {t.steps * _step_seconds(problem, config, net, device):.2g} s" if t.steps
                 else f"{t.budget:g} s of training")
                + (", and as much again for the regression of --baselines" if t.baselines else ""),
        "device": str(device),
    }  # fmt: skip


def _step_seconds(problem: Problem, config: Config, net: nn.Module, device: torch.device) -> float:
    """Seconds that the network takes for a step of training: those of the second of two, with a white guess."""
    rows = np.resize(np.flatnonzero(problem.fold >= 0), config.train.batch)
    crop = problem.crop
    window = None if crop is None else tuple(slice(0, min(crop, n)) for n in problem.codec.layout.shape)
    batch = to_batch(problem.encode(rows, window), problem.fold[rows]).to(device)
    guess = FoldedGuess([GaussianGuess()] * (int(problem.fold.max()) + 1)).to(device)
    objective = DenoisingScoreMatching(EDM(), guess, precision=precision_of(config.train.precision, device))
    net, began = net.to(device).train(), 0.0
    for _ in range(2):
        began = time.perf_counter()
        with private_rng(0, device):
            loss = objective(batch, net, 0)[0].mean()
            loss.backward()
            float(loss.detach())  # waits for the device
    return time.perf_counter() - began


@contextmanager
def _told(title: str, progress: bool) -> Iterator[Progress]:
    """A progress bar as the training loop speaks to it."""
    with track(title, 1.0, enabled=progress) as tick:
        yield lambda share, facts: tick(share, "" if facts.get("loss") is None else f"loss {facts['loss']:.4f}")


def _fit(
    problem: Problem, config: Config, device: torch.device, run: RunDirectory | None, progress: bool, begun: float,
    own: nn.Module | None,
) -> Parts | None:  # fmt: skip
    """Train, calibrate and dress; no parts where the run was finished before."""
    net = own if own is not None else build_net(problem, config)
    if config.train.fork is not None and not (run is not None and run.begun):
        begin_with(net, problem, config)
    precision = precision_of(config.train.precision, device)
    with track("preparing batches", None, enabled=progress):
        guess, folded, guessed = guess_of(problem, config)
        batch, stop = batches(problem, config)
    guess = guess.to(device)
    objective = DenoisingScoreMatching(EDM(), folded.to(device), precision=precision)
    identity = _identity(problem, config)
    preparing = time.perf_counter() - begun
    if own is not None:
        _check_net(own, batch(0).to(device), precision)
    with _told("training", progress) as tell:
        trained = train(
            net, objective, batch, settings=settings_of(config), validation=stop, run=run, device=device, progress=tell,
            identity=identity,
        )  # fmt: skip
    if run is not None and trained.was_finished and run.finished:
        return None
    facts = trained.to_dict() | {"preparing_seconds": preparing, "guess": guessed, "grid": "short first"}
    began = time.perf_counter()
    sample = config.sample
    law = Diffusion(trained.net, guess, precision=precision, micro_batch=sample.micro_batch)
    with track("calibrating", None, enabled=progress):
        facts["spread"] = calibrate(law, problem, device, nfe=sample.nfe)
    if isinstance(problem.task, Window):
        facts["trust"] = fit_trust(trained.net, objective, problem, device, seed=config.train.seed)
    facts["calibrating_seconds"] = time.perf_counter() - began
    rivals = Rivals(problem.codec, device, precision)
    if config.train.baselines:
        with _told("baseline", progress) as tell:
            twin = fit_regression(problem, config, device, run=run, identity=identity, progress=tell)
        rivals.twin = twin.net
        seconds = twin.startup_seconds + twin.seconds + twin.saving_seconds
        facts["regression"] = {"seconds": seconds, "steps": twin.steps, "best_loss": twin.best_loss}
    with track("dressing baselines", None, enabled=progress):
        rivals.fit(problem)
    facts["samples"] = {k: len(getattr(problem.split, k)) for k in ("train", "holdout", "gap")}
    facts["fingerprint"] = identity["data"]
    facts["parameters"] = sum(p.numel() for p in trained.net.parameters())
    pair = problem.pair
    facts["static"] = [str(name) for name in pair.target.static.data_vars]
    given_shell = None if pair.given is None else Shell.of(pair.given)
    return Parts(config, problem.codec, Shell.of(pair.target), given_shell, trained.net, guess, rivals, facts)


def _check_net(net: nn.Module, batch: Batch, precision: torch.dtype) -> None:
    """Ask a network of the user's once for an answer to zeros, before anything is trained.

    Raises:
        UsageError: It fails, or its answer has another shape than the fields.
    """
    mode, expected = net.training, tuple(batch.x.shape)
    blank, fields, vector = torch.zeros_like(batch.x), batch.condition.stacked(), batch.condition.vector()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            got = tuple(Regression(precision).predict(blank, batch.condition, net.to(blank.device).eval()).shape)
    except Exception as error:
        channels = expected[1] + (0 if fields is None else fields.shape[1])
        raise UsageError(
            f"net={type(net).__name__} fails on x {(expected[0], channels, *expected[2:])}, t {expected[:1]}, "
            f"vector {None if vector is None else tuple(vector.shape)}: {error}"
        ) from error
    finally:
        net.train(mode)
    if got != expected:
        raise UsageError(f"net={type(net).__name__} returns {got}, expected {expected}, the shape of what is asked")


def _look_ahead(run: RunDirectory, config: Config) -> None:
    """Refuse a ``resume`` with other settings before the data are read; what the data tell is judged when they are."""
    stored = run.path / "config.toml"
    if not (run.begun and stored.is_file()):
        return
    kept = load_config(stored)
    config = completed(config, kept)
    if config.net.kind != kept.net.kind or not left_open(config):
        told = {"settings": to_record(settings_of(config)), "identity": {"config": _told_config(config)}}
        refuse_other_settings(run, told)


def _told_config(config: Config) -> dict[str, Any]:
    """The settings that must be the same for a training to be gone on with."""
    free = {"train": {"device", "save_every", "save_steps"}, "sample": True, "density": True}
    return config.model_dump(mode="json", exclude=free)


def _identity(problem: Problem, config: Config) -> dict[str, Any]:
    """What must be the same for a training to be gone on with."""
    given = problem.pair.given
    return {
        "config": _told_config(config),
        "data": problem.pair.target.fingerprint,
        "given": None if given is None else given.fingerprint,
    }


def _publish(parts: Parts, run: RunDirectory) -> None:
    """Write the result of a run; its log ends with the losses of the regression and a summary."""
    lines = [{**line, "kind": f"regression {line.get('kind')}"} for line in read_metrics(run.regression().metrics)]
    lines.append({"kind": "summary", "step": parts.facts["steps"], **plain(parts.facts)})
    if run.metrics.exists():
        with run.metrics.open("a") as log:
            log.writelines(json.dumps(line) + "\n" for line in lines)
    with run.publish(extra=facts_of(parts)) as folder:
        write_files(parts, folder)
