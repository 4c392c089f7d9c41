"""How good an ensemble is: files or datasets in, scores out, with a run also against its baselines."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from undrift import verify
from undrift.config import valid_seed
from undrift.data.ensemble import open_ensemble
from undrift.data.frames import FRAME, asked_frames
from undrift.data.members import left_out
from undrift.data.open import open_fields
from undrift.errors import DataError, UsageError, suggests_options
from undrift.tasks import Window
from undrift.verify.leads import LEAD
from undrift.verify.match import Axes, Pairing, aligned_truth, axes_of, pair_samples, same_units

if TYPE_CHECKING:
    from undrift.model.field_model import FieldModel

__all__ = ["evaluate", "open_truth"]

_BLOCK_MB = 64  # of each side that is held at once
_COPIES = 6
_FEW = 5  # samples that are scored to say how long all will take
_PROGRAM_MB = 400


@suggests_options
def evaluate(
    ensemble: str | Path | xr.Dataset,
    truth: str | Path | Sequence[str | Path] | xr.Dataset,
    *,
    run: "str | Path | FieldModel | None" = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    baselines: Mapping[str, xr.Dataset] | None = None,
    train: xr.Dataset | None = None,
    given: xr.Dataset | None = None,
    wet_threshold: float | Mapping[str, float] | None = None,
    thresholds: Sequence[float] = (),
    bootstrap: int = 200,
    seed: int = 0,
    dry_run: bool = False,
    progress: bool = True,
) -> Any:
    """Score an ensemble; `undrift.verify.evaluate` says how and lists the scores.

    Forecasts, which have a dim prediction_timedelta, are scored by lead time: see `undrift.verify.by_lead`.

    Args:
        ensemble: a path (NetCDF, Zarr), or a Dataset with dims (realization, *sample, *level, *space).
        truth: paths or a Dataset; may hold more than the ensemble, and is matched by coordinates.
        run: a run directory or its model, for baselines and training data where they are not given here. Its
            baselines are of the held-out samples: an ensemble of others is scored without them.
        out: file to write the scores to, .json or .nc.
        overwrite: replace ``out``.
        baselines: named ensembles on the same samples.
        train: training fields; then memorisation is measured.
        given: what the ensemble was conditioned on.
        wet_threshold: least value that counts as wet, for all variables or by name.
        thresholds: of events whose forecasts are scored by `undrift.verify.rain_by_lead`, and of spells of sequences
            (`undrift.verify.sequence_scores`), for all variables in their units; by default 0.1, 1 and 5 mm/h for those
            of precipitation.
        bootstrap: replicates of the block bootstrap behind the intervals, 0 for none.
        seed: of rank ties, pairs of cells and the bootstrap.
        dry_run: return shapes, matched samples and sizes instead.
        progress: show on stderr what is being done.

    Returns:
        Dataset of scores along ``variable``, or with ``dry_run`` what would be done.

    Raises:
        DataError: a file cannot be read, or ensemble and truth do not agree in variables, cells or units.
        UsageError: an argument cannot be used.
    """
    valid_seed(seed)
    _refuse(out, overwrite or dry_run)
    model = _model(run)
    with _opened(ensemble) as members:
        reference = open_truth(truth)
        if dry_run:
            return _plan(members, reference, model)
        options: dict[str, Any] = {"wet_threshold": wet_threshold, "bootstrap": bootstrap, "seed": seed}
        options["progress"] = progress
        if LEAD in members.dims:
            scores, absent = _of_forecasts(members, reference, model, baselines, thresholds, options)
        else:
            options["given"] = given
            scores, absent = _of_samples(members, reference, model, baselines, train, thresholds, options)
        scores = scores.load()  # coordinates may still be in the file
    if absent:
        scores.attrs["baselines_absent"] = "; ".join(absent)
    if out is not None:
        verify.write_scores(scores, out)
    return scores


def _of_forecasts(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    model: "FieldModel | None",
    baselines: Mapping[str, xr.Dataset] | None,
    thresholds: Sequence[float],
    options: Mapping[str, Any],
) -> tuple[xr.Dataset, list[str]]:
    """Scores by lead time, and a sentence on each baseline that there is not."""
    absent: list[str] = []
    if model is not None and baselines is None:
        baselines, absent = _forecast_baselines(model, forecast, truth)
    forecast, truth = left_out(forecast, truth)
    scores = verify.by_lead(forecast, truth, baselines=baselines, **options)
    of_rain = {"baselines": baselines, "bootstrap": options["bootstrap"], "seed": options["seed"]}
    return _with_rain(scores, forecast, truth, thresholds, of_rain), absent


def _of_samples(
    members: xr.Dataset,
    truth: xr.Dataset,
    model: "FieldModel | None",
    baselines: Mapping[str, xr.Dataset] | None,
    train: xr.Dataset | None,
    thresholds: Sequence[float],
    options: Mapping[str, Any],
) -> tuple[xr.Dataset, list[str]]:
    """Scores of samples or of the frames of windows, and a sentence on each baseline that there is not."""
    members, truth = left_out(members, truth)
    if FRAME in members.dims:
        members, truth = asked_frames(members, truth)
    absent: list[str] = []
    own = baselines is not None
    if model is not None:
        frames = isinstance(model.task, Window) and FRAME not in members.dims
        train = (_frames_of(model) if frames else model.training_data()) if train is None else train
        if baselines is None:
            baselines, absent = (_baselines_of_frames if frames else _baselines)(model, members, options["progress"])
    if FRAME in members.dims:
        asked = {FRAME: members[FRAME].values}
        baselines = {k: b.sel(asked) if FRAME in b.dims else b for k, b in (baselines or {}).items()}
        train = train.sel(asked) if train is not None and FRAME in train.dims else train
    try:
        scores = verify.evaluate(members, truth, baselines=baselines, train=train, **options)
    except DataError as error:
        if model is None or own:
            raise
        # What is wrong with the ensemble itself comes up again.
        scores = verify.evaluate(members, truth, train=train, **options)
        baselines, absent = {}, [f"no baseline of the run: {error}"]
    return _with_time(scores, members, truth, thresholds, baselines, options["seed"]), absent


def _frames_of(model: "FieldModel") -> xr.Dataset:
    """The frames that trained a model of windows."""
    from undrift.model.frames import training_frames

    return training_frames(model)


def _baselines_of_frames(
    model: "FieldModel", ensemble: xr.Dataset, progress: bool
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Those of a model of windows for single frames: where a coarse sequence is all that they are given."""
    from undrift.model.frames import frame_baselines

    if model.codec.given_layout is None:
        return {}, ["no baseline of the run: they are of windows, and the ensemble is of single frames"]
    return frame_baselines(model.baselines(progress), str(model.codec.layout.time)), model.absent_baselines()


def _with_time(
    scores: xr.Dataset,
    members: xr.Dataset,
    truth: xr.Dataset,
    thresholds: Sequence[float],
    baselines: Mapping[str, xr.Dataset] | None,
    seed: int,
) -> xr.Dataset:
    """Scores with those in time, where the samples are a sequence."""
    rain = {verify.rain_thresholds(members[name]) for name in members.data_vars if name in truth.data_vars}
    found = tuple(thresholds) or (rain.pop() if len(rain) == 1 else ())
    more = None
    if FRAME not in members.dims:
        more = verify.sequence_scores(members, truth, thresholds=found, baselines=baselines, seed=seed)
    if more is not None:
        return scores.merge(more, compat="override", combine_attrs="override")
    if thresholds:
        raise UsageError(
            "thresholds are of forecasts and of sequences, and the ensemble has no dim prediction_timedelta and no dim "
            "of times without a gap"
        )
    return scores


def _with_rain(
    scores: xr.Dataset, forecast: xr.Dataset, truth: xr.Dataset, thresholds: Sequence[float], options: dict[str, Any]
) -> xr.Dataset:
    """Scores by lead with those of events, of the variables that have thresholds."""
    wanted: dict[tuple[float, ...], list[str]] = {}
    for name in (str(name) for name in forecast.data_vars if name in truth.data_vars):
        found = tuple(thresholds) or verify.rain_thresholds(forecast[name])
        if found:
            wanted.setdefault(found, []).append(name)
    if len(wanted) > 1:
        raise UsageError(
            f"variables of rain are in several units: {[*wanted.values()]}; give thresholds, or score apart"
        )
    for found, names in wanted.items():
        rain = verify.rain_by_lead(forecast[names], truth, found, **options)
        scores = scores.merge(rain.reindex(variable=scores["variable"]), compat="override", combine_attrs="override")
    return scores


def _baselines(model: "FieldModel", ensemble: xr.Dataset, progress: bool) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Those of a run that were given what an ensemble was (of windows the frames asked), and a sentence on others."""
    found, absent = model.baselines(progress), model.absent_baselines()
    if not isinstance(model.task, Window):
        return found, absent
    usual = model.task.frames_known(model.task.usual)
    asked, told = model.parts.shell.coords[FRAME].values[~usual], ensemble.attrs
    if np.array_equal(ensemble[FRAME].values, asked) and not (told.get("variables_given") or told.get("part_given")):
        return found, absent
    lost = [name for name in ("linear predictor", "regression") if found.pop(name, None) is not None]
    frames = f"frames {' '.join(map(str, np.flatnonzero(usual)))}" if usual.any() else "nothing"
    given = f"are given {frames}, and the ensemble was given other parts"
    return found, [*absent, *(f"no {name}: the baselines {given}" for name in lost)]


def _forecast_baselines(
    model: "FieldModel", forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Those of the forecasts of a run, which begin with frames of its own data, or of the truth where they are not."""
    try:
        return model.forecast_baselines(forecast)
    except DataError:
        try:
            return model.forecast_baselines(forecast, truth)
        except DataError as error:
            return {}, [f"no baseline: {error}"]


def open_truth(truth: str | Path | Sequence[str | Path] | xr.Dataset) -> xr.Dataset:
    """Open the files of a truth lazily, in their own order and labels; a Dataset is one already.

    Raises:
        DataError: they are absent or cannot be read.
    """
    if isinstance(truth, xr.Dataset):
        return truth
    if not isinstance(truth, str | Path | Sequence):
        raise UsageError(f"the truth is a {type(truth).__name__}, expected paths or an xarray.Dataset")
    paths = [truth] if isinstance(truth, str | Path) else list(truth)
    fields = open_fields(paths[0] if len(paths) == 1 else paths)
    return fields.restore(fields.dataset)


def _refuse(out: str | Path | None, overwrite: bool) -> None:
    """Look at the name of a file before anything is computed."""
    if out is None:
        return
    if Path(out).suffix not in (".json", ".nc"):
        raise UsageError(f"got out={str(out)!r}, expected a name that ends in .json or .nc")
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} exists; pass overwrite=True to replace it, or another out=")


def _model(run: "str | Path | FieldModel | None") -> "FieldModel | None":
    if not isinstance(run, str | Path):
        return run
    from undrift.model.field_model import FieldModel, load

    model = load(run, device="cpu")
    if not isinstance(model, FieldModel):
        raise UsageError(f"{run} is a density of parameters, and what is scored are fields; type undrift inspect {run}")
    return model


@contextmanager
def _opened(ensemble: str | Path | xr.Dataset) -> Iterator[xr.Dataset]:
    """An ensemble lazily; what is opened here is closed again."""
    if isinstance(ensemble, xr.Dataset):
        yield ensemble
    elif isinstance(ensemble, str | Path):
        with open_ensemble(ensemble) as members:
            yield members
    else:
        raise UsageError(f"the ensemble is a {type(ensemble).__name__}, expected a path or an xarray.Dataset")


def _plan(ensemble: xr.Dataset, truth: xr.Dataset, model: "FieldModel | None") -> dict[str, Any]:
    """What would be scored against what."""
    names = [str(name) for name in ensemble.data_vars if name in truth.data_vars]
    if not names:
        raise DataError(f"ensemble and truth have no variable in common: {[*ensemble.data_vars]}, {[*truth.data_vars]}")
    for name in names:
        same_units(ensemble[name], truth[name], name, "truth")
    axes = axes_of(ensemble, truth, names)
    truth = aligned_truth(truth, ensemble, names, axes)
    fixed = {axes.realization, *axes.space, *(dim for name in names for dim in axes.level(ensemble[name]))}
    dims = [str(dim) for dim in truth[names[0]].dims if dim not in fixed]
    dims.sort(key=lambda dim: dim not in axes.sample)
    pairing = pair_samples(ensemble, truth, axes.sample, dims)
    samples = math.prod(ensemble.sizes[dim] for dim in axes.sample)
    rivals = (
        {}
        if model is None or LEAD in ensemble.dims
        else {k: len(v.members) for k, v in model.parts.rivals.dressed.items()}
    )
    seconds = _seconds(ensemble[names], truth[names], axes, dims, pairing, rivals)
    besides = "" if model is None else ", and that of making the baselines and of a look at the training data"
    size = sum(ensemble[name].nbytes for name in names)
    held = len(rivals) * size / max(1, ensemble.sizes.get(axes.realization or "", 1))
    return {
        "ensemble": {name: dict(ensemble[name].sizes) for name in names},
        "truth": {name: dict(truth[name].sizes) for name in names},
        "samples": samples,
        "matched": len(pairing.ensemble),
        "matched by": pairing.by,
        "scores": "paired" if len(pairing.ensemble) else "of the distributions: no CRPS",
        "baselines": list(rivals),
        "bytes_to_read": size + sum(truth[name].nbytes for name in names),
        "time": f"about {seconds:.2g} s of scoring{besides}",
        "memory_mb": round(_PROGRAM_MB + _COPIES * max(_BLOCK_MB, 2 * size / max(1, samples) / 2**20) + held / 2**20),
    }


def _seconds(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    axes: Axes,
    dims: Sequence[str],
    pairing: Pairing,
    rivals: Mapping[str, int],
) -> float:
    """Seconds of scoring, as a few samples tell; ``rivals`` are baselines and how many members they have."""
    counts = [math.prod(ds.sizes[dim] for dim in over) for ds, over in ((ensemble, axes.sample), (truth, dims))]
    rows = [pairing.ensemble, pairing.truth] if len(pairing.ensemble) else [np.arange(min(counts))] * 2
    total = len(rows[0]) if len(pairing.ensemble) else max(counts)

    def took(count: int) -> float:
        drawn = _few(ensemble, axes.sample, rows[0][:count])
        seen = _few(truth, dims, np.unique(rows[1][:count]))  # once, however often it is forecast
        drawn.attrs |= {"space_dims": " ".join(axes.space)}
        like = {name: seen.expand_dims(realization=members) for name, members in rivals.items()}
        like = {name: one.assign_attrs(dressed="quantiles") for name, one in like.items()}
        began = time.perf_counter()
        verify.evaluate(drawn, seen, baselines=like, bootstrap=0)
        return time.perf_counter() - began

    took(1)  # warms up
    one, count = took(1), min(_FEW, len(rows[0]))
    return one if count < 2 else one + (total - 1) * max(0.0, took(count) - one) / (count - 1)


def _few(ds: xr.Dataset, dims: Sequence[str], rows: np.ndarray) -> xr.Dataset:
    """Some samples along one dim, without attributes of variables, which were looked at before."""
    at = np.unravel_index(rows, [ds.sizes[dim] for dim in dims]) if dims else ()
    part = ds.isel({dim: xr.DataArray(i, dims="pair") for dim, i in zip(dims, at)})
    return part.assign({str(name): array.drop_attrs() for name, array in part.data_vars.items()})
