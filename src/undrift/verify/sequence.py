"""Scores in time of ensembles of a sequence: autocorrelation and spells of members beside those of the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.cf import is_timelike
from undrift.data.frames import single_steps
from undrift.errors import DataError
from undrift.verify.scores import Job, Side, common_variables, labels_of_channels, prepared
from undrift.verify.stream import Reader, blocks
from undrift.verify.temporal import Autocorrelation, Spells, spell_distance, spell_mean

__all__ = ["sequence_scores"]

_QUANTILES = (0.1, 0.9)
_MEMBERS = 20  # read at most, evenly spaced
_LEAST = 8  # frames
_NUMBERS = 20_000_000  # that quantiles are of, at most

Values = dict[str, tuple[tuple[str, ...], NDArray]]


def sequence_scores(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    *,
    baselines: Mapping[str, xr.Dataset] | None = None,
    thresholds: Sequence[float] = (),
    seed: int = 0,
) -> xr.Dataset | None:
    """Lag-1 autocorrelation and spells of the members and of the truth.

    The ensemble has one dim of samples with more than one label, which is a time; those of its times that the truth has
    are one step apart.

    Args:
        ensemble: variables (realization, time, *level, *space).
        truth: the same without members; more times and cells do no harm.
        baselines: named ensembles on the same samples.
        thresholds: in the units of the data: spells of more, and of at most, each. Beside them, for each cell, spells
            above the 90 % quantile and below the 10 % quantile of truth and members together: beyond its own quantiles
            a sequence is shorter than its like is.
        seed: of the pairing of samples.

    Returns:
        Along `variable` (channels): autocorrelation_truth, autocorrelation_ensemble (means over cells, by area),
        autocorrelation_spread (between members), autocorrelation_baseline(baseline); autocorrelation_truth_map,
        autocorrelation_ensemble_map(*space); of spells, in frames, spell_truth, spell_ensemble(spell), their mean
        lengths, spell_distance(spell), the Wasserstein distance of the lengths of all members from the truth's,
        spell_distance_expected(spell), the mean one of a member from the others, and spell_baseline,
        spell_distance_baseline(baseline, spell). None where the samples are no sequence.
    """
    few = _few(ensemble)
    names = common_variables(few, truth)
    rivals = {name: _few(one) for name, one in (baselines or {}).items()}
    job = prepared(few, truth, names, rivals, 0, seed)
    order = _order(job)
    if order is None:
        return None
    job = replace(
        job,
        ensemble=_ordered(job.ensemble, order),
        truth=_ordered(job.truth, order),
        baselines={name: _ordered(side, order) for name, side in job.baselines.items()},
    )
    channels = [(label, values) for name in names for label, values in _variable(job, name, tuple(thresholds)).items()]
    data = {}
    for key, (dims, _) in channels[0][1].items():
        stacked = np.stack([values[key][1] for _, values in channels])
        if dims == ("cell",):
            stacked, dims = stacked.reshape(len(channels), *job.axes.shape), job.axes.space
        data[key] = (("variable", *dims), stacked)
    coords = {"variable": [label for label, _ in channels], "spell": _labels(thresholds)}
    if rivals:
        coords["baseline"] = list(rivals)
    return xr.Dataset(data, coords)


def _few(ds: xr.Dataset) -> xr.Dataset:
    """So many members at most."""
    dim = next((d for d in ("realization", "number", "member", "ensemble", "sample") if d in ds.dims), None)
    if dim is None or ds.sizes[dim] <= _MEMBERS:
        return ds
    return ds.isel({dim: np.linspace(0, ds.sizes[dim] - 1, _MEMBERS).astype(int)})


def _order(job: Job) -> NDArray[np.intp] | None:
    """The samples in the order of time; None where they are no sequence without gaps."""
    dims, rows, data = job.axes.sample, job.ensemble.rows, job.ensemble.dataset
    several = [d for d in dims if data.sizes[d] > 1]
    if job.pairing.by == "nothing" or len(several) != 1 or several[0] not in data.coords:
        return None
    at = np.unravel_index(rows, [data.sizes[d] for d in dims])[dims.index(several[0])]
    times = data[several[0]].values[at]
    if len(rows) < _LEAST or not is_timelike(times):
        return None
    order = np.argsort(times, kind="stable")
    try:
        steps, _ = single_steps(times[order])
    except DataError:
        return None
    return order if (steps == 1).all() else None


def _ordered(side: Side, order: NDArray[np.intp]) -> Side:
    return replace(side, rows=side.rows[order])


def _labels(thresholds: Sequence[float]) -> list[str]:
    """Of the kinds of spells, in the order in which :class:`_Track` has them."""
    low, high = _QUANTILES
    own = [f"{side} {value:g}" for value in thresholds for side in ("above", "up to")]
    return [f"below q{100 * low:.0f}", f"above q{100 * high:.0f}", *own]


@dataclass
class _Track:
    """What is gathered of one channel of one side."""

    low: NDArray
    high: NDArray
    thresholds: tuple[float, ...]
    frames: int
    weights: NDArray
    memory: Autocorrelation = field(default_factory=Autocorrelation)
    spells: list[Spells] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spells = [Spells(self.frames, self.weights) for _ in range(2 + 2 * len(self.thresholds))]

    def add(self, x: NDArray) -> None:
        """The next frames (members, n, cells)."""
        self.memory.add(x)
        events = [x < self.low, x > self.high]
        for threshold in self.thresholds:
            events += [x > threshold, x <= threshold]
        for spells, event in zip(self.spells, events):
            spells.add(event)

    def autocorrelation(self) -> NDArray:
        """Of each member, the mean over cells by area, (members,)."""
        values = self.memory.value()
        known = self.weights * np.isfinite(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (known * np.nan_to_num(values)).sum(-1) / known.sum(-1)


def _variable(job: Job, name: str, thresholds: tuple[float, ...]) -> dict[str, Values]:
    """Scores of all channels of one variable, by label."""
    level = job.axes.level(job.ensemble.dataset[name])
    labels = labels_of_channels(job.ensemble.dataset, name, level)
    sides = {"ensemble": job.ensemble, "truth": job.truth, **{f"baseline {k}": v for k, v in job.baselines.items()}}
    readers = {key: side.reader(name, job.axes, level) for key, side in sides.items()}
    truth = readers["truth"]
    frames = len(truth)
    low, high, known = _thresholds(readers["ensemble"], truth)
    tracks = {
        key: [_Track(low[k], high[k], thresholds, frames, job.weights * known[k]) for k in range(len(labels))]
        for key in readers
    }
    for part in blocks(list(readers.values())):
        for key, reader in readers.items():
            values = reader.read(part)
            for k, track in enumerate(tracks[key]):
                track.add(values[:, :, k])
    return {label: _scores({key: of[k] for key, of in tracks.items()}) for k, label in enumerate(labels)}


def _thresholds(ours: Reader, truth: Reader) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """Quantiles of all members and the truth, and the cells that are never missing, each (levels, cells)."""
    every = max(1, len(truth) * truth.levels * truth.cells * (ours.members + 1) // _NUMBERS)
    known, some = np.ones((truth.levels, truth.cells), bool), list[NDArray]()
    for part in blocks([ours, truth]):
        for reader in (ours, truth):
            values = reader.read(part)
            known &= np.isfinite(values).all((0, 1))
            some.append(values[:, ::every].astype(np.float32).reshape(-1, *known.shape))
    low, high = np.quantile(np.nan_to_num(np.concatenate(some)), _QUANTILES, axis=0)
    return low, high, known


def _scores(tracks: dict[str, _Track]) -> Values:
    """Of one channel."""
    ours, truth = tracks["ensemble"], tracks["truth"]
    rivals = [track for key, track in tracks.items() if key.startswith("baseline ")]
    mine = ours.autocorrelation()
    out: Values = {
        "autocorrelation_truth": ((), truth.autocorrelation()[0]),
        "autocorrelation_ensemble": ((), mine.mean()),
        "autocorrelation_spread": ((), mine.std(ddof=1) if len(mine) > 1 else np.array(np.nan)),
        "autocorrelation_truth_map": (("cell",), truth.memory.value()[0]),
        "autocorrelation_ensemble_map": (("cell",), ours.memory.value().mean(0)),
    }
    counts, seen = [s.counts() for s in ours.spells], [s.counts()[0] for s in truth.spells]
    out["spell_truth"] = ("spell",), np.array([spell_mean(one) for one in seen])
    out["spell_ensemble"] = ("spell",), np.array([spell_mean(c.sum(0)) for c in counts])
    out["spell_distance"] = ("spell",), np.array([spell_distance(c.sum(0), one) for c, one in zip(counts, seen)])
    apart = [[spell_distance(c.sum(0) - one, one) for one in c] for c in counts]
    out["spell_distance_expected"] = ("spell",), np.array([np.mean(values) for values in apart])
    if rivals:
        theirs = [[s.counts().sum(0) for s in track.spells] for track in rivals]
        out["autocorrelation_baseline"] = ("baseline",), np.array([t.autocorrelation().mean() for t in rivals])
        out["spell_baseline"] = ("baseline", "spell"), np.array([[spell_mean(c) for c in of] for of in theirs])
        out["spell_distance_baseline"] = (
            ("baseline", "spell"),
            np.array([[spell_distance(c, one) for c, one in zip(of, seen)] for of in theirs]),
        )
    return out
