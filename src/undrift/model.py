"""One object: labelled samples in, a distribution of labelled fields out."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import nn

import undrift
from undrift.config import Config, apply_settings, dump_config, load_config, parse_duration
from undrift.data.codec import Codec, Predicted
from undrift.data.codec_file import Shell, load_codec, save_codec
from undrift.data.ensemble import open_ensemble
from undrift.data.fields import Fields
from undrift.data.open import open_fields
from undrift.data.select import sample_mask
from undrift.data.write import EnsembleWriter
from undrift.denoise.guess import GaussianGuess
from undrift.distributions.baselines import Dressed, QuantileMap, fit_baselines
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.regression import fit_regression, predict
from undrift.distributions.request import Request, labels_of, request_at, request_from, template
from undrift.errors import CheckpointError, DataError, UsageError
from undrift.nets.unet import UNet
from undrift.objective.denoising import DenoisingScoreMatching
from undrift.process import EDM, Key, normal
from undrift.progress import track
from undrift.tasks import Downscale, Emulate, Task, task_of
from undrift.tasks.batch import Condition
from undrift.train.log import read_metrics
from undrift.train.loop import train
from undrift.train.manifest import read_manifest, verify_manifest
from undrift.train.prepare import (
    Problem,
    batches,
    build_net,
    device_of,
    guess_of,
    precision_of,
    prepare,
    settings_of,
    to_condition,
)  # fmt: skip
from undrift.train.run import RunDirectory, staged
from undrift.train.weights import load_state, load_tensors, save_tensors

__all__ = ["FieldModel", "fit", "load"]

logger = logging.getLogger(__name__)

_CALIBRATION_SAMPLES = 64
_CALIBRATION_MEMBERS = 2
_CALIBRATION_NUMBERS = 4_000_000  # drawn in all, members x samples x channels x cells
_CALIBRATION_RANGE = (0.25, 4.0)  # of the variance

Data = str | Path | Sequence[str | Path] | xr.Dataset | xr.DataArray | np.ndarray


def _paths(data: Any) -> list[str]:
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, list | tuple):
        return [str(p) for p in data if isinstance(p, str | Path)]
    return []


def _words(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [w.strip() for w in value.split(",") if w.strip()] if isinstance(value, str) else [str(v) for v in value]


def _text(value: str | Mapping[str, Any] | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    ends = {k: v if isinstance(v, tuple | list) else (v,) for k, v in value.items()}
    return ",".join(f"{k}={'/'.join(str(e) for e in v)}" for k, v in ends.items())


def _config(
    data: Data, task: str | Task, factor: int | None, given: Any, variables: Any, static: Any, covariates: Any, dims:
        Any,
    periodic: Any, select: Any, holdout: Any, crop: str | int | None, budget: str | float | None, steps: int | None,
    baselines: bool | None, device: str | None, config: str | Path | None, settings: Mapping[str, object] | None,
    seed: int | None,
) -> Config:  # fmt: skip
    """The resolved configuration: the file, then the arguments, then ``set``."""
    if budget is not None and steps is not None:
        raise UsageError("both budget and steps say how long to train; give one")
    base = load_config(config) if config is not None else Config()
    kind = task if isinstance(task, str) else task.name
    if isinstance(task, Downscale) and factor is None:
        factor = task.factor
    asked: dict[str, object | None] = {
        "data.paths": _paths(data) or None,
        "data.given": _paths(given) or None,
        "data.variables": _words(variables) or None,
        "data.static": _words(static) or None,
        "data.covariates": _words(covariates) or None,
        "data.dims": _words(dims) or None,
        "data.periodic": _words(periodic) or None,
        "data.select": _text(select),
        "data.holdout": _text(holdout),
        "task.name": kind,
        "task.factor": factor,
        "train.crop": None if crop is None else (crop if crop == "auto" else int(crop)),
        "train.budget": None if budget is None else parse_duration(budget),
        "train.steps": steps,
        "train.baselines": baselines,
        "train.device": device,
        "train.seed": seed,
    }
    resolved = apply_settings(base, {k: v for k, v in asked.items() if v is not None})
    resolved = apply_settings(resolved, dict(settings or {}))
    if resolved.train.steps is not None and budget is None:
        resolved.train.budget = None
    if resolved.train.steps is None and resolved.train.budget is None:
        resolved.train.budget = 180.0
    return resolved


def _open(config: Config, data: Data | None, given: Data | None) -> tuple[Fields, Fields | None]:
    """The fields of a configuration; objects are taken where the configuration has no paths."""
    d = config.data
    source = list(d.paths) if d.paths else data
    if source is None:
        raise DataError("the run was trained on data in memory; pass them again: undrift.load(run, data=...)")
    target = open_fields(
        source, dims=d.dims or None, variables=d.variables or None, static=d.static or None,
        covariates=d.covariates or None, periodic=d.periodic or None, select=d.select,
    )  # fmt: skip
    beside = list(d.given) if d.given else given
    other = None if beside is None else open_fields(beside, dims=d.dims or None, periodic=d.periodic or None)
    return target, other


def fit(
    data: Data,
    *,
    task: str | Task = "downscale",
    factor: int | None = None,
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
    config: str | Path | None = None,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    net: nn.Module | None = None,
) -> "FieldModel | dict[str, Any]":
    """Train a distribution of fields.

    Args:
        data: samples: a path, glob or list of them (NetCDF, Zarr, NumPy, HDF5), or an xarray object or array.
        task: "downscale", "emulate", or a task such as ``undrift.Downscale(factor=4)``.
        factor: fine cells per coarse cell when what is given is the mean of the data over blocks; 4 by default.
        given: what is given, where it is a dataset of its own, joined on the labels of the samples.
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
        config: TOML file with any of the settings.
        set: single settings, such as ``{"train.batch": 8}``.
        seed: of all that is drawn.
        out: run directory.
        resume: go on with the run in ``out``.
        overwrite: replace the run in ``out`` once the new one is complete.
        dry_run: return shapes, sizes and times instead of training.
        progress: show a progress bar on stderr.
        net: a module of ``(x, t, vector)`` to take the place of the U-Net; such a model is kept in memory only.

    Returns:
        The trained model, or with ``dry_run`` what would be done.
    """
    begun = time.perf_counter()
    resolved = _config(
        data, task, factor, given, variables, static, covariates, dims, periodic, select, holdout, crop, budget, steps,
        baselines, device, config, set, seed,
    )  # fmt: skip
    if net is not None and out is not None:
        raise UsageError(
            "a run directory cannot rebuild a network of your own; leave out= away and keep its weights yourself"
        )
    where = device_of(resolved.train.device)
    target, beside = _open(resolved, data, given)
    work = task if isinstance(task, Downscale | Emulate) else task_of(resolved.task.name, resolved.task.factor)
    if dry_run:
        return _plan(prepare(target, beside, work, resolved), resolved, where)
    if out is None:
        return _fit(prepare(target, beside, work, resolved), resolved, where, None, progress, begun, net)
    with RunDirectory(out, overwrite=overwrite, resume=resume) as run:
        if not (resume and (run.path / "config.toml").exists()):
            dump_config(resolved, run.path / "config.toml")
        return _fit(prepare(target, beside, work, resolved), resolved, where, run, progress, begun, None)


def _plan(problem: Problem, config: Config, device: torch.device) -> dict[str, Any]:
    example = problem.encode(problem.fit_rows[:1])
    net = build_net(problem.codec, config, example, len(problem.fit_rows))
    layout = problem.codec.layout
    size = sum(p.numel() for p in net.parameters())
    window = [min(problem.crop or n, n) for n in layout.shape]
    t = config.train
    return {
        "task": config.task.name,
        "samples": {k: len(getattr(problem.split, k)) for k in ("train", "holdout", "gap")},
        "target": {c.label: list(layout.shape) for c in layout.channels},
        "given": None if problem.codec.given_layout is None else
                 {c.label: list(problem.codec.given_layout.shape) for c in problem.codec.given_layout.channels},
        "covariates": problem.codec.covariates.names,
        "transforms": {c.label: x.kind for c, x in zip(layout.channels, problem.codec.transforms)},
        "window": window,
        "network": {"channels": list(net.channels), "parameters": size},
        "memory_mb": round((16 * size + 4 * 60 * t.batch * math.prod(window) * net.channels[0]) / 2**20 + 400),
        "time": f"{t.steps} steps" if t.steps else f"{t.budget:g} s of training",
        "device": str(device),
    }  # fmt: skip


def _told(title: str, progress: bool) -> Iterator[Callable[[float, Mapping[str, Any]], None]]:
    with track(title, 1.0, enabled=progress) as tick:
        yield lambda share, facts: tick(share, "" if facts.get("loss") is None else f"loss {facts['loss']:.4f}")


def _fit(
    problem: Problem, config: Config, device: torch.device, run: RunDirectory | None, progress: bool, begun: float,
    own: nn.Module | None,
) -> "FieldModel":  # fmt: skip
    example = problem.encode(problem.fit_rows[:1])
    net = own if own is not None else build_net(problem.codec, config, example, len(problem.fit_rows))
    precision = precision_of(config.train.precision, device)
    guess, folded, guessed = guess_of(problem, config)
    objective = DenoisingScoreMatching(EDM(), folded.to(device), precision=precision)
    batch, stop = batches(problem, config)
    identity = {
        "config": config.model_dump(
            mode="json", exclude={"train": {"device", "save_every", "save_steps"}, "sample": True}
        ),
        "data": problem.pair.target.fingerprint,
        "given": None if problem.pair.given is None else problem.pair.given.fingerprint,
    }
    preparing = time.perf_counter() - begun
    for tell in _told("training", progress):
        trained = train(
            net, objective, batch, settings=settings_of(config), validation=stop, run=run, device=device, progress=tell,
            identity=identity,
        )  # fmt: skip
    facts = trained.to_dict() | {"preparing_seconds": preparing, "guess": guessed}
    model = FieldModel(config, problem.codec, Shell.of(problem.pair.target), trained.net, guess.to(device), device)
    model.given_shell = None if problem.pair.given is None else Shell.of(problem.pair.given)
    model.problem = problem
    if run is not None and trained.was_finished and run.finished:
        return load(run.path, device=str(device), data=None)._with(problem)
    began = time.perf_counter()
    facts["spread"] = model._calibrate(problem)
    facts["calibrating_seconds"] = time.perf_counter() - began
    if config.train.baselines:
        began = time.perf_counter()
        for tell in _told("baseline", progress):
            rival = fit_regression(problem, config, device, tell)
        facts["regression"] = {
            "seconds": time.perf_counter() - began, "steps": rival.steps, "best_loss": rival.best_loss
        }  # fmt: skip
        model.twin = rival.net
    model.dressed = model._dress(problem, precision)
    model.facts = facts | {"samples": {k: len(getattr(problem.split, k)) for k in ("train", "holdout", "gap")}}
    model.facts["fingerprint"] = identity["data"]
    model.facts["parameters"] = sum(p.numel() for p in trained.net.parameters())
    if run is not None:
        model.run = run.path
        if run.metrics.exists():
            with run.metrics.open("a") as log:
                log.write(json.dumps({"kind": "summary", "step": trained.steps, **_jsonable(facts)}) + "\n")
        with run.publish(extra=model._extra()) as folder:
            model._write(folder)
    return model


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda v: v.item() if isinstance(v, np.generic) else str(v)))


class FieldModel:
    """A distribution of labelled fields; made by :func:`fit` or :func:`load`.

    Attributes:
        config: the resolved configuration.
        codec: from fields to the network's numbers and back.
        net: the trained network.
        run: the run directory, or None.
        facts: how training went.
    """

    def __init__(
        self, config: Config, codec: Codec, shell: Shell, net: nn.Module, guess: GaussianGuess, device: torch.device
    ) -> None:
        self.config, self.codec, self.shell, self.net, self.guess, self.device = (
            config,
            codec,
            shell,
            net,
            guess,
            device,
        )
        self.given_shell: Shell | None = None
        self.twin: nn.Module | None = None
        self.dressed: dict[str, Dressed] = {}
        self.facts: dict[str, Any] = {}
        self.run: Path | None = None
        self.problem: Problem | None = None
        self._data: tuple[Any, Any] = (None, None)

    def _with(self, problem: Problem) -> Self:
        self.problem = problem
        return self

    @property
    def _problem(self) -> Problem:
        """The data of the run, opened again where the model was loaded."""
        if self.problem is None:
            target, given = _open(self.config, *self._data)
            work = task_of(self.config.task.name, self.config.task.factor)
            from undrift.train.prepare import reopen

            self.problem = reopen(target, given, work, self.config, self.codec)
            found, stored = self.problem.pair.target.fingerprint, self.facts.get("fingerprint")
            if stored and found != stored:
                logger.warning("the data differ from those of training: %s now, %s then", found[:12], stored[:12])
        return self.problem

    # drawing

    def sample(
        self,
        given: Data | None = None,
        *,
        holdout: bool = False,
        at: str | Mapping[str, Any] | None = None,
        realizations: int | slice | str | None = None,
        seed: int = 0,
        nfe: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
        dry_run: bool = False,
    ) -> Any:
        """Draw an ensemble.

        Args:
            given: what is given: files, a Dataset, or the output of :meth:`holdout_given`.
            holdout: draw for the samples that training left out.
            at: labels of samples, such as "year=2085,scenario=E1": for an emulator the covariates, else which
                samples of what is given.
            realizations: how many (20 unless the configuration says otherwise), or which (``slice(100, 200)``,
                "100:200"): bitwise the same slice of a whole ensemble.
            seed: of the noise; realization n of a sample is fixed by (seed, n, labels of the sample).
            nfe: network evaluations per realization (10 unless the configuration says otherwise).
            out: file to stream to, ``.nc`` or ``.zarr``; the result is then opened lazily.
            overwrite: replace ``out``.
            progress: show a progress bar.
            dry_run: return sizes and an estimate instead.

        Returns:
            Dataset with dims (realization, *sample, *level, *space), coordinates, units and attributes of the data.
        """
        nfe = self.config.sample.nfe if nfe is None else nfe
        realizations = self.config.sample.realizations if realizations is None else realizations
        request = self._request(given, holdout, at)
        numbers = np.arange(*_realizations(realizations))
        share = request.warn()
        attrs = {
            "source": f"undrift {undrift.__version__}", "undrift_seed": seed, "undrift_nfe": nfe,
            "given_out_of_range": share,
        }  # fmt: skip
        labelled = template(request, self.codec, self.shell, numbers, {**attrs, **self._attrs()})
        if dry_run:
            return self._sampling_plan(request, numbers, nfe, labelled, streamed=out is not None)
        if out is None:
            return self._collect(request, numbers, seed, nfe, labelled, progress)
        with EnsembleWriter(out, labelled, overwrite, sample=request.dims) as writer:
            for rows, i, block in self._draw(request, numbers, seed, nfe, progress):
                writer.write(rows, slice(i, i + 1), {k: v[:, None] for k, v in block.items()})
        return open_ensemble(out)

    def _sampling_plan(
        self, request: Request, numbers: np.ndarray, nfe: int, labelled: xr.Dataset, *, streamed: bool
    ) -> dict[str, Any]:
        """Sizes of an ensemble, and memory and time as one micro batch with one network call tells."""
        micro, rows = self.config.sample.micro_batch, len(request) * len(numbers)
        calls = math.ceil(rows / micro) * nfe
        plan = {
            "dims": {str(k): int(v) for k, v in labelled.sizes.items()},
            "bytes": int(labelled.nbytes),
            "network_calls": calls,
        }
        seconds = []
        for evaluations in (1, 1, 2) if rows else ():  # the first warms up
            began = time.perf_counter()
            next(self._draw(request, numbers[:micro], 0, evaluations, False))
            seconds.append(time.perf_counter() - began)
        if seconds:
            call = max(seconds[2] - seconds[1], 0.1 * seconds[1])
            plan["seconds"] = round(calls * call + calls / nfe * max(seconds[1] - call, 0), 2)
        width = max(getattr(self.net, "channels", (64,)))
        numbers_held = micro * math.prod(self.codec.layout.shape) * (8 * width + 12 * len(self.codec.layout.channels))
        held = 0 if streamed else labelled.nbytes
        plan["memory_mb"] = round((4 * numbers_held + held) / 2**20 + 400)
        return plan

    def _attrs(self) -> dict[str, Any]:
        problem = self.facts.get("still_improving")
        layout = self.codec.layout
        periodic = [d for d, p in zip(layout.space, layout.periodic) if p]
        return {
            "still_improving": int(bool(problem)),
            "space_dims": " ".join(layout.space),
            "periodic_dims": " ".join(periodic),
        }

    def _request(self, given: Data | None, holdout: bool, at: str | Mapping[str, Any] | None) -> Request:
        if holdout and given is not None:
            raise UsageError("both given and holdout say what is given; give one")
        if given is not None:
            dims = self.config.data.dims or None
            fields = given if isinstance(given, Fields) else open_fields(given, dims=dims)  # type: ignore[arg-type]
            return request_from(fields, self.codec, self.given_shell, at)
        if self.codec.given_layout is None and not holdout:
            if at is None:
                raise UsageError("say for which covariates: --at year=2085,scenario=E1, or --holdout")
            return request_at(at, self.codec)
        if not holdout:
            raise UsageError(
                "say what is given: --given COARSE.nc, or --holdout for the samples that training left out"
            )
        return self._holdout_request(at)

    def _holdout_request(self, at: str | Mapping[str, Any] | None) -> Request:
        from undrift.train.prepare import covariates_of

        pair = self._problem.pair.select(self._problem.split.holdout)
        if at is not None:
            pair = pair.select(np.flatnonzero(sample_mask(pair.target, at)))
        # noise and output belong to the labels of the target, also where those of what is given differ a little
        labels, dims = labels_of(pair.target)
        digests = [pair.target.label_digest(i) for i in range(len(pair.target))]
        request = Request(labels, dims, digests, None, {})
        if pair.given is not None:
            offer = request_from(pair.given, self.codec, self.given_shell, None, covariates=False)
            request.offered, request.outside = offer.offered, offer.outside
        work = task_of(self.config.task.name, self.config.task.factor)
        covariates = covariates_of(pair.target, work)
        request.covariates = covariates
        request.outside |= self.codec.covariates.outside(covariates)
        return request

    def _draw(
        self, request: Request, numbers: np.ndarray, seed: int, nfe: int, progress: bool
    ) -> Iterator[tuple[slice, int, dict[str, np.ndarray]]]:
        """Blocks (positions of realizations, sample, values per variable in the user's order)."""
        micro = self.config.sample.micro_batch
        law = self._law()
        layout = self.codec.layout

        @lru_cache(maxsize=micro)
        def encoded(i: int) -> tuple[Any, Predicted]:
            rows = np.array([i])
            values = {k: v[rows] for k, v in request.covariates.items()}
            offered = None if request.offered is None else request.offered(rows)
            return self.codec.encode(None, None, rows, covariates=values, offered=offered)

        items = [(i, r) for i in range(len(request)) for r in range(len(numbers))]
        with track("drawing", len(items), enabled=progress) as tick:
            for start in range(0, len(items), micro):
                part = items[start : start + micro]
                z = np.stack([
                    np.stack([
                        normal(Key(seed, "base", int(numbers[r]), request.digests[i], c.label), layout.shape)
                        for c in layout.channels
                    ])
                    for i, r in part
                ]).astype(np.float32)  # fmt: skip
                conditions = [to_condition(encoded(i)[0]) for i, _ in part]
                joined = Condition.concatenate(conditions).to(self.device)
                x = law.sample(joined, torch.from_numpy(z).to(self.device), nfe=nfe).cpu().numpy()
                for i in dict.fromkeys(i for i, _ in part):
                    at = [k for k, (j, _) in enumerate(part) if j == i]
                    values = self.codec.decode(x[at], encoded(i)[1])
                    first = part[at[0]][1]
                    yield slice(first, first + len(at)), i, self._variables(values)
                tick(start + len(part))

    def _law(self) -> Diffusion:
        precision = precision_of(self.config.train.precision, self.device)
        return Diffusion(self.net, self.guess, precision=precision, micro_batch=self.config.sample.micro_batch)

    def _variables(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """(n, C, *space) canonical -> variable -> (n, *level, *space) in the user's order."""
        layout = self.codec.layout
        for dim, positions in self.shell.order.positions.items():
            if dim in layout.space:
                values = np.take(values, np.argsort(positions), axis=2 + layout.space.index(dim))
        out = {}
        for name in layout.variables:
            part = values[:, layout.channels_of(name)]
            levels = [self.shell.coords.sizes[d] for d in layout.level.get(name, ())]
            out[name] = part.reshape(len(values), *levels, *part.shape[2:])
        return out

    def _collect(
        self, request: Request, numbers: np.ndarray, seed: int, nfe: int, labelled: xr.Dataset, progress: bool
    ) -> xr.Dataset:
        sizes = [request.labels.sizes[d] for d in request.dims]
        flat = {
            str(k): np.empty((len(numbers), math.prod(sizes), *v.shape[1 + len(sizes) :]), np.float32)
            for k, v in labelled.data_vars.items()
        }
        for rows, i, block in self._draw(request, numbers, seed, nfe, progress):
            for name, values in block.items():
                flat[name][rows, i] = values
        shaped = {k: v.reshape(len(numbers), *sizes, *v.shape[2:]) for k, v in flat.items()}
        return labelled.assign({k: labelled[k].copy(data=v) for k, v in shaped.items()})

    # the held-out samples

    def holdout_truth(self) -> xr.Dataset:
        """The samples that training left out, on the target's grid."""
        held = self._problem.pair.target.select(self._problem.split.holdout)
        return held.restore(held.dataset)

    def holdout_given(self) -> xr.Dataset | None:
        """What is given for them, or None."""
        given = self._problem.pair.given
        if given is None:
            return None
        held = given.select(self._problem.split.holdout)
        return held.restore(held.dataset)

    def training_data(self) -> xr.Dataset:
        """The samples that trained."""
        used = self._problem.pair.target.select(self._problem.split.train)
        return used.restore(used.dataset)

    def baselines(self) -> dict[str, xr.Dataset]:
        """Dressed baselines for the held-out samples, each an ensemble of error quantiles."""
        problem, codec = self._problem, self.codec
        rows = problem.split.holdout
        points: dict[str, list[np.ndarray]] = {name: [] for name in self.dressed}
        precision = precision_of(self.config.train.precision, self.device)
        for row in rows:
            at = np.array([row])
            values = {k: v[at] for k, v in problem.covariates.items()}
            encoded, linear = codec.encode(None, problem.pair.given, at, covariates=values)
            for name, dressed in self.dressed.items():
                points[name].append(self._point(name, dressed, at, encoded, linear, precision))
        low, high = self._bounds()
        held = problem.pair.target.select(rows)
        request = Request(*labels_of(held), [""] * len(rows), None, {})
        out = {}
        for name, dressed in self.dressed.items():
            members = dressed.ensemble(np.concatenate(points[name]), low, high)
            shell = template(
                request, codec, self.shell, np.arange(len(members)), {"dressed": "quantiles", "note": dressed.note}
            )
            flat = self._variables(members.reshape(-1, *members.shape[2:]))
            out[name] = shell.assign({k: shell[k].copy(data=v.reshape(shell[k].shape)) for k, v in flat.items()})
        return out

    def _calibrate(self, problem: Problem) -> list[float]:
        """Scale each channel's residuals so that drawn ones have the mean square of out-of-fold ones.

        A network that is not trained to the end adds its own errors to the variance, some 20 % after a minute or two.
        The same training samples stand on both sides, so that calm and lively ones cancel.
        """
        members, law = _CALIBRATION_MEMBERS, self._law()
        rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
        size = len(self.codec.layout.channels) * math.prod(self.codec.layout.shape)
        count = max(4, min(_CALIBRATION_SAMPLES, len(rows), _CALIBRATION_NUMBERS // (members * size)))
        micro = self.config.sample.micro_batch
        items = [
            (int(row), m) for row in rows[np.linspace(0, len(rows) - 1, count).astype(int)] for m in range(members)
        ]
        true, drawn = np.zeros(len(self.codec.layout.channels)), np.zeros(len(self.codec.layout.channels))
        for start in range(0, len(items), micro):
            part = items[start : start + micro]
            encoded = [problem.encode(np.array([row]), draw=np.random.default_rng(row)) for row, _ in part]
            x, weight = (
                np.concatenate([v for e in encoded if (v := getattr(e, k)) is not None]) for k in ("x", "weight")
            )
            z = np.stack([normal(Key(0, "calibrate", m, str(row)), x.shape[1:]) for row, m in part]).astype(np.float32)
            condition = Condition.concatenate([to_condition(e) for e in encoded]).to(self.device)
            r = law.sample(condition, torch.from_numpy(z).to(self.device), nfe=self.config.sample.nfe).cpu().numpy()
            axes = (0, *range(2, x.ndim))
            true += (weight * x**2).sum(axes)
            drawn += (weight * r**2).sum(axes)
        factor = np.clip(np.where(drawn > 0, true / np.maximum(drawn, 1e-12), 1.0), *_CALIBRATION_RANGE) ** 0.5
        self.codec.scale = self.codec.scale * factor.reshape(-1, *[1] * len(self.codec.layout.space))
        return [float(v) for v in factor]

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low = np.array([-np.inf if t.lower is None else t.lower for t in self.codec.transforms])
        return low, np.array([np.inf if t.upper is None else t.upper for t in self.codec.transforms])

    def _interpolated(self, rows: np.ndarray, problem: Problem) -> np.ndarray | None:
        """What is given on the target's grid in the data's units (n, C, *space), or None where no channel is given."""
        codec = self.codec
        if problem.pair.given is None or codec.regridder is None or any(b is None for b in codec.base):
            return None
        fine = codec.regridder(problem.pair.given.read(rows).astype(np.float64))
        return fine[:, [b for b in codec.base if b is not None]]

    def _point(
        self, name: str, dressed: Dressed, at: np.ndarray, encoded: Any, linear: Predicted, precision: torch.dtype
    ) -> np.ndarray:
        """One baseline's prediction for one held-out sample, (1, C, *space)."""
        if name == "climatology":
            return dressed.state["mean"][None]
        if name == "linear predictor":
            return self.codec.decode(0.0, linear)
        if name == "regression":
            assert self.twin is not None
            return self.codec.decode(predict(self.twin, encoded, linear.mean.shape[1], self.device, precision), linear)
        point = self._interpolated(at, self._problem)
        assert point is not None
        if name == "quantile mapping":
            point = QuantileMap(dressed.state["source"], dressed.state["target"])(point)
        return point

    def _dress(self, problem: Problem, precision: torch.dtype) -> dict[str, Dressed]:
        """Baselines with the errors that they make on training samples they were not fitted on."""
        rows, codec = problem.split.train, self.codec
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(int))]
        values = {k: v[rows] for k, v in problem.covariates.items()}
        fold = problem.fold[rows]
        linear = []
        for start in range(0, len(rows), 64):
            at = slice(start, start + 64)
            part = {k: v[at] for k, v in values.items()}
            _, mean = codec.encode(None, problem.pair.given, rows[at], covariates=part, fold=fold[at])
            linear.append(codec.decode(0.0, mean))
        truth = problem.pair.target.read(rows)
        out = dict(fit_baselines(truth, fold, self._interpolated(rows, problem), np.concatenate(linear)))
        if self.twin is not None:
            from undrift.distributions.baselines import dress
            from undrift.distributions.regression import errors_of

            errors = errors_of(self.twin, problem, self.device, precision)
            out["regression"] = Dressed(dress(errors), {}, "the same network as a regression, trained as long")
        return out

    # on disk

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a run directory that :func:`load` reads."""
        folder = Path(path)
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} exists; pass overwrite=True to replace it")
        if not isinstance(self.net, UNet):
            raise UsageError("a run directory cannot rebuild a network of your own; keep its weights yourself")
        with staged(folder, self._extra()) as stage:
            self._write(stage)

    def _extra(self) -> dict[str, Any]:
        net = self.net
        shape = {}
        if isinstance(net, UNet):
            shape = {"channels": list(net.channels), "in_channels": self._in_channels()}
        return {"facts": _jsonable(self.facts), "network": shape, "fingerprint": self.facts.get("fingerprint")}

    def _in_channels(self) -> int:
        return int(next(v for k, v in self.net.state_dict().items() if k.startswith("first.") and v.ndim > 1).shape[1])

    def _write(self, folder: Path) -> None:
        dump_config(self.config, folder / "config.toml")
        save_tensors(folder / "model.safetensors", self.net.state_dict())
        save_tensors(folder / "guess.safetensors", self.guess.state_dict())
        if self.twin is not None:
            save_tensors(folder / "regression.safetensors", self.twin.state_dict())
        save_codec(folder / "codec.nc", self.codec, self.shell, self.given_shell)
        arrays: dict[str, Any] = {}
        for name, dressed in self.dressed.items():
            for key, value in {"members": dressed.members, **dressed.state}.items():
                label = f"{name}__{key}".replace(" ", "_")
                arrays[label] = ([f"{label}_{i}" for i in range(value.ndim)], value.astype(np.float32))
        notes = json.dumps({name: dressed.note for name, dressed in self.dressed.items()})
        encoding = {k: {"zlib": True, "complevel": 1} for k in arrays}
        xr.Dataset(arrays, attrs={"notes": notes}).to_netcdf(folder / "baselines.nc", encoding=encoding)

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of the training's log."""
        path = None if self.run is None else self.run / "metrics.jsonl"
        return read_metrics(path) if path is not None and path.exists() else []

    def describe(self) -> dict[str, Any]:
        """What ``undrift inspect`` prints."""
        layout = self.codec.layout
        return {
            "task": self.config.task.model_dump(),
            "data": self.config.data.model_dump(exclude_defaults=True),
            "variables": {c.label: layout.units.get(c.variable, "") for c in layout.channels},
            "grid": dict(zip(layout.space, layout.shape)),
            "periodic": [d for d, p in zip(layout.space, layout.periodic) if p],
            "transforms": {c.label: t.kind for c, t in zip(layout.channels, self.codec.transforms)},
            "covariates": self.codec.covariates.names,
            "linear predictor": {"stages": self.codec.predictor.stages, "mean squared error":
            self.codec.predictor.scores}, "network": {"channels": list(getattr(self.net, "channels", [])), "parameters":
            self.facts.get("parameters")},
            "training": {k: v for k, v in self.facts.items() if k not in ("history", "fingerprint", "parameters")},
            "fingerprint": self.facts.get("fingerprint"),
            "versions": {"undrift": undrift.__version__, "torch": torch.__version__.split("+")[0], "numpy":
            np.__version__}, "run": None if self.run is None else str(self.run),
        }  # fmt: skip


def _realizations(value: int | slice | str) -> tuple[int, int]:
    if isinstance(value, str):
        start, colon, stop = value.partition(":")
        if not (stop if colon else start).isdigit():
            raise UsageError(f"realizations is {value!r}, expected a number such as 20 or a range such as 100:200")
        value = slice(int(start or 0), int(stop)) if colon else int(value)
    first, last = (value.start or 0, value.stop) if isinstance(value, slice) else (0, value)
    if isinstance(value, slice) and value.step not in (None, 1):
        raise UsageError(
            f"realizations is {value}, whose step is not 1; draw slice({first}, {last}) and take a part of it"
        )
    if last is None or first < 0 or last <= first:
        raise UsageError(f"realizations is {value}, expected at least one, such as 20 or slice(100, 200)")
    return int(first), int(last)


def load(
    run: str | Path, *, verify: bool = True, device: str = "auto", data: Data | None = None, given: Data | None = None
) -> FieldModel:
    """Read a run directory.

    Args:
        run: the directory.
        verify: compare the checksums of all files first.
        device: where the network goes.
        data: the training data again, for a run trained on data in memory; only the held-out samples need them.
        given: likewise.

    Raises:
        CheckpointError: there is no complete run, or a file differs from what was written.
    """
    path = Path(run)
    if not path.is_dir():
        raise CheckpointError(f"{path} is no run directory; expected one as undrift train --out writes it")
    verify_manifest(path, verify=verify)
    manifest = read_manifest(path)
    config = load_config(path / "config.toml")
    where = device_of(device)
    codec, shell, given_shell = load_codec(path / "codec.nc")
    extra = manifest.get("extra", manifest)
    net = _rebuild(codec, config, extra["network"])
    load_state(net, load_tensors(path / "model.safetensors"), str(path / "model.safetensors"))
    net.to(where).eval()
    parts = load_tensors(path / "guess.safetensors")
    guess = GaussianGuess(parts["modes"], parts["variances"], float(parts["floor"])).to(where)
    model = FieldModel(config, codec, shell, net, guess, where)
    model.given_shell, model.facts, model.run = given_shell, extra["facts"], path
    model._data = (data, given)
    if (path / "regression.safetensors").exists():
        model.twin = _rebuild(codec, config, extra["network"])
        load_state(model.twin, load_tensors(path / "regression.safetensors"), str(path / "regression.safetensors"))
        model.twin.to(where).eval()
    model.dressed = _load_dressed(path / "baselines.nc")
    return model


def _load_dressed(path: Path) -> dict[str, Dressed]:
    with xr.open_dataset(path) as ds:
        ds = ds.load()
    out = {}
    for name, note in json.loads(ds.attrs["notes"]).items():
        prefix = name.replace(" ", "_") + "__"
        parts = {str(k).removeprefix(prefix): v.values for k, v in ds.data_vars.items() if str(k).startswith(prefix)}
        out[name] = Dressed(parts.pop("members"), parts, note)
    return out


def _rebuild(codec: Codec, config: Config, shape: Mapping[str, Any]) -> UNet:
    layout = codec.layout
    return UNet(
        shape["in_channels"],
        len(layout.channels),
        space=len(layout.space),
        channels=tuple(shape["channels"]),
        blocks=config.net.blocks,
        vector_features=codec.covariates.width,
        padding=tuple("circular" if p else "zeros" for p in layout.periodic),
        dropout=config.net.dropout,
    )
