"""`evaluate`: an ensemble against the truth, its baselines and its training data."""

__all__ = ["Job", "Side", "common_variables", "evaluate", "is_dressed", "labels_of_channels", "prepared", "sample_dims"]

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.layout import Channel, plain
from undrift.errors import DataError, UsageError
from undrift.progress import track
from undrift.verify.law import Law
from undrift.verify.marginal import QUANTILES, histogram, wet_threshold
from undrift.verify.match import (
    Axes,
    Pairing,
    aligned_truth,
    axes_of,
    describe_rows,
    order_of_labels,
    pair_samples,
    same_cells,
    same_units,
    sample_labels,
    single,
)
from undrift.verify.memorise import nearest_training
from undrift.verify.paired import Paired
from undrift.verify.shift import law_shift
from undrift.verify.spectra import Spectrum
from undrift.verify.stream import Reader, blocks
from undrift.verify.weights import area_weights

log = logging.getLogger(__name__)

_BINS = 60
Values = dict[str, tuple[tuple[str, ...], NDArray]]


@dataclass(frozen=True)
class Side:
    """One dataset on the ensemble's cells, with the samples of it that are used."""

    dataset: xr.Dataset
    realization: str | None
    sample: tuple[str, ...]
    rows: NDArray[np.intp]
    what: str

    def reader(self, name: str, axes: Axes, level: tuple[str, ...]) -> Reader:
        """Its values of one variable, sample by sample."""
        return Reader(self.dataset[name], self.realization, self.sample, level, axes.space, self.rows, self.what)


@dataclass(frozen=True)
class _Channel:
    """The scores of one channel, a variable at its levels."""

    label: str
    units: str
    values: Values


@dataclass(frozen=True)
class Job:
    """What all variables share."""

    axes: Axes
    ensemble: Side
    truth: Side
    baselines: dict[str, Side]
    pairing: Pairing
    labels: list[str]
    order: NDArray[np.intp]
    weights: NDArray
    spectrum: Spectrum
    bootstrap: int
    seed: int


def evaluate(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    *,
    baselines: Mapping[str, xr.Dataset] | None = None,
    train: xr.Dataset | None = None,
    given: xr.Dataset | None = None,
    wet_threshold: float | Mapping[str, float] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Score an ensemble.

    Truth and baselines may hold more samples and cells than the ensemble and are matched to it by coordinates. With
    no common sample (a free-running climate) the laws are compared: spectra, marginals and maps of mean and
    deviation, and there is no CRPS. Missing values of either side are left out of both; data are read in blocks of
    samples, so lazily opened ensembles may be larger than memory.

    Args:
        ensemble: variables (realization, *sample, *level, *space); number, member, ensemble and sample are accepted.
        truth: the same without members.
        baselines: named ensembles on the same samples. With the attribute `dressed = "quantiles"` their members are
            equal-probability quantiles and get the CRPS of the discrete law, otherwise the fair one.
        train: training fields; then memorisation is measured.
        given: what the ensemble was conditioned on; the share outside the range of the variable of that name in
            `train` is noted.
        wet_threshold: least value that counts as wet, for all variables or by name; 1 mm/day by default where the
            units are of precipitation, any positive value elsewhere.
        bootstrap: replicates of the block bootstrap over samples, 0 for no intervals.
        seed: of rank ties, pairs of cells and the bootstrap.
        progress: show a progress bar on stderr.

    Returns:
        Scores along `variable` (channels such as "ta[plev=50000]"). With attribute `matched = 1`: crps, rmse, bias,
        mae, spread, spread_skill, variogram, each also as `<score>_interval(bound, ...)` at 95 %; reliability_index
        with reliability_expected and reliability_noise (its mean and 95 % quantile by chance); rank_histogram(rank);
        binned_spread, binned_rmse, binned_share(spread_bin); skill, variogram_skill, crps_baseline, rmse_baseline,
        variogram_baseline(baseline); crps_sample(sample); crps_map, rmse_map, spread_map, bias_map(*space). With
        `matched = 0`: mean_shift, deviation_ratio, quantile_shift(quantile) in units of truth_deviation, the truth's
        standard deviation over samples, with intervals. Always:
        spectrum_truth, spectrum_ensemble, spectrum_ratio(wavenumber) with coordinate wavelength in cells,
        quantiles_*(quantile), histogram_*(bin), zero_fraction_*, wet_fraction_* (NaN where wetness means nothing),
        mean_difference_map, std_ratio_map(*space).

    Raises:
        DataError: variables, cells or units that do not agree, several truths of one sample, infinite values.
        UsageError: a negative number of replicates.
    """
    if bootstrap < 0:
        raise UsageError(f"bootstrap must be 0 or more replicates, not {bootstrap}")
    names = common_variables(ensemble, truth)
    job = prepared(ensemble, truth, names, dict(baselines or {}), bootstrap, seed)
    channels: list[_Channel] = []
    with track("scoring", len(names), enabled=progress) as tick:
        for place, name in enumerate(names):
            threshold = _threshold(wet_threshold, ensemble[name], truth[name], name)
            units = str(ensemble[name].attrs.get("units", truth[name].attrs.get("units", "")))
            scored = _score_variable(job, name, threshold, lambda share, before=place: tick(before + share))
            channels += [_Channel(label, units, values) for label, values in scored.items()]
        scores = _assemble(job, ensemble, channels)
        if train is not None:
            seen, rows = single(truth, job.axes), (job.pairing.ensemble, job.pairing.truth)
            scores.update(nearest_training(ensemble[names], train, truth=seen, rows=rows, seed=seed))
    scores.attrs |= _remarks(ensemble, names, given, train)
    return scores


def _remarks(
    ensemble: xr.Dataset, names: list[str], given: xr.Dataset | None, train: xr.Dataset | None
) -> dict[str, Any]:
    """What a reader of the scores has to know beside them."""
    told = {key: ensemble.attrs[key] for key in ("given_out_of_range", "still_improving") if key in ensemble.attrs}
    skipped = [str(name) for name in ensemble.data_vars if name not in names]
    if skipped:
        told["variables_without_truth"] = " ".join(skipped)
    if given is not None and train is not None and "given_out_of_range" not in told:
        share = _out_of_range(given, train)
        if share is not None:
            told["given_out_of_range"] = share
    return told


def common_variables(ensemble: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """The variables of both, in the order of the ensemble.

    Raises:
        DataError: there is none, or their units differ.
    """
    names = [str(name) for name in ensemble.data_vars if name in truth.data_vars]
    if not names:
        ours, theirs = (", ".join(map(str, ds.data_vars)) or "none" for ds in (ensemble, truth))
        raise DataError(f"ensemble and truth have no variable in common: the ensemble has {ours}, the truth {theirs}")
    for name in names:
        same_units(ensemble[name], truth[name], name, "truth")
    return names


def prepared(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    names: list[str],
    baselines: dict[str, xr.Dataset],
    bootstrap: int,
    seed: int,
) -> Job:
    """Find the axes, match samples and cells, and lay out the grid's weights and spectrum."""
    axes = axes_of(ensemble, truth, names)
    levels = sorted({dim for name in names for dim in axes.level(ensemble[name])})
    dims = (*levels, *axes.space)
    on_truth = aligned_truth(truth, ensemble, names, axes)
    truth_sample = sample_dims(on_truth, axes, names, levels)
    pairing = pair_samples(ensemble, on_truth, axes.sample, truth_sample)
    matched = pairing.by != "nothing"
    ens_rows = pairing.ensemble if matched else np.arange(_count(ensemble, axes.sample))
    truth_rows = pairing.truth if matched else np.arange(_count(on_truth, truth_sample))
    sides: dict[str, Side] = {}
    for label, baseline in baselines.items() if matched else ():
        sides[label] = _baseline_side(label, baseline, ensemble, names, axes, dims, pairing)
    texts = sample_labels(ensemble, axes.sample)
    grid = [
        (tuple(map(str, ensemble[name].dims)), ensemble[name].values) if name else None
        for name in (axes.latitude, axes.longitude)
    ]
    weights = area_weights(axes.space, axes.shape, grid[0], grid[1])
    return Job(
        axes,
        Side(ensemble, axes.realization, axes.sample, ens_rows, "the ensemble"),
        Side(on_truth, None, truth_sample, truth_rows, "the truth"),
        sides,
        pairing,
        describe_rows(texts, axes.sample, ens_rows),
        order_of_labels(texts, axes.sample, ens_rows),
        weights.ravel(),
        Spectrum(axes.shape, axes.periodic, weights),
        bootstrap,
        seed,
    )


def sample_dims(truth: xr.Dataset, axes: Axes, names: list[str], levels: list[str]) -> tuple[str, ...]:
    """The truth's sample dims: those of the ensemble first, then what is left but levels and space."""
    dims = [str(dim) for dim in truth[names[0]].dims if all(dim in truth[name].dims for name in names)]
    mine = [dim for dim in axes.sample if dim in dims]
    return tuple(mine + [dim for dim in dims if dim not in (*mine, *axes.space) and dim not in levels])


def _count(ds: xr.Dataset, dims: tuple[str, ...]) -> int:
    return int(np.prod([ds.sizes[dim] for dim in dims], dtype=int))


def _baseline_side(
    label: str,
    baseline: xr.Dataset,
    ensemble: xr.Dataset,
    names: list[str],
    axes: Axes,
    dims: tuple[str, ...],
    pairing: Pairing,
) -> Side:
    """One baseline on the samples and cells of the ensemble."""
    what = f"the baseline {label!r}"
    lacking = [name for name in names if name not in baseline.data_vars]
    if lacking:
        raise DataError(f"{what} lacks {', '.join(lacking)}, which the ensemble has")
    for name in names:
        same_units(ensemble[name], baseline[name], name, f"baseline {label!r}")
    realization = next((str(d) for d in baseline[names[0]].dims if d in (axes.realization, "realization")), None)
    sample = tuple(dim for dim in axes.sample if dim in baseline.dims)
    found = pair_samples(ensemble, baseline, axes.sample, sample)
    place = dict(zip(found.ensemble.tolist(), found.truth.tolist()))
    missing = [row for row in pairing.ensemble.tolist() if row not in place]
    if missing:
        first = describe_rows(sample_labels(ensemble, axes.sample), axes.sample, np.array(missing[:1]))[0]
        raise DataError(f"{what} lacks {len(missing)} of {pairing.ensemble.size} samples, first {first}")
    rows = np.array([place[row] for row in pairing.ensemble.tolist()], np.intp)
    return Side(same_cells(baseline, ensemble, dims, axes, what), realization, sample, rows, what)


def _threshold(asked: float | Mapping[str, float] | None, ours: xr.DataArray, theirs: xr.DataArray, name: str) -> float:
    """The wet threshold of one variable, in its units."""
    if isinstance(asked, Mapping):
        asked = asked.get(name)
    if asked is not None:
        return float(asked)
    attrs = {**theirs.attrs, **ours.attrs}
    hints = [name, str(attrs.get("standard_name", "")), str(attrs.get("long_name", ""))]
    return wet_threshold(str(attrs.get("units", "")), hints) or 0.0


def _score_variable(job: Job, name: str, wet: float, tell: Callable[[float], None]) -> dict[str, Values]:
    """Scores of all channels of one variable, by label; ``tell`` hears the share that is done."""
    axes, matched = job.axes, job.pairing.by != "nothing"
    level = axes.level(job.ensemble.dataset[name])
    labels = labels_of_channels(job.ensemble.dataset, name, level)
    ours = job.ensemble.reader(name, axes, level)
    truth = job.truth.reader(name, axes, level)
    others = {label: side.reader(name, axes, level) for label, side in job.baselines.items()}
    truth_labels = job.labels if matched else [f"truth {row}" for row in range(len(truth))]
    grid = (job.spectrum, job.weights)
    ens_laws = [Law(*grid, job.labels, ours.members, wet, job.seed, not matched) for _ in labels]
    truth_laws = [Law(*grid, truth_labels, 1, wet, job.seed, not matched) for _ in labels]
    if not matched:
        _stream_law(ours, ens_laws, lambda share: tell(share / 2))
        _stream_law(truth, truth_laws, lambda share: tell((1 + share) / 2))
        return {
            label: _law_scores(a, b, wet) | law_shift(a, b, job.weights, job.bootstrap, job.seed)
            for label, a, b in zip(labels, ens_laws, truth_laws)
        }
    dressed = {label: is_dressed(side.dataset) for label, side in job.baselines.items()}
    paired = [
        Paired(job.spectrum, job.weights, job.labels, ours.members, axes.periodic, dressed, job.seed) for _ in labels
    ]
    for part in blocks([ours, truth, *others.values()]):
        tell(part.start / len(ours))
        drawn, seen = ours.read(part), truth.read(part)[0]
        rivals = {label: reader.read(part) for label, reader in others.items()}
        for k in range(len(labels)):
            valid = np.isfinite(seen[:, k]) & np.isfinite(drawn[:, :, k]).all(axis=0)
            y, x = np.where(valid, seen[:, k], 0.0), np.where(valid, drawn[:, :, k], 0.0)
            paired[k].add(part, y, x, valid, {label: values[:, :, k] for label, values in rivals.items()})
            ens_laws[k].add(part, x, valid)
            truth_laws[k].add(part, y[None], valid)
    return {
        label: _law_scores(a, b, wet) | pair.scores(job.order, job.bootstrap, b.spectra, a.spectra)
        for label, a, b, pair in zip(labels, ens_laws, truth_laws, paired)
    }


def _stream_law(reader: Reader, laws: list[Law], tell: Callable[[float], None]) -> None:
    for part in blocks([reader]):
        tell(part.start / len(reader))
        values = reader.read(part)
        for k, law in enumerate(laws):
            valid = np.asarray(np.isfinite(values[:, :, k]).all(axis=0))
            law.add(part, np.where(valid, values[:, :, k], 0.0), valid)


def is_dressed(baseline: xr.Dataset) -> bool:
    """Whether its members are quantiles of equal probability."""
    return baseline.attrs.get("dressed") == "quantiles"


def labels_of_channels(ds: xr.Dataset, name: str, level: tuple[str, ...]) -> list[str]:
    """Labels of a variable's channels, the last level dim varying fastest."""
    labels = [Channel(name)]
    for dim in level:
        values = ds[dim].values if dim in ds.coords else np.arange(ds.sizes[dim])
        labels = [Channel(name, (*one.level, (dim, plain(value)))) for one in labels for value in values]
    return [one.label for one in labels]


def _law_scores(ours: Law, truth: Law, wet: float) -> Values:
    """Comparison of two laws: marginals, spectra, maps."""
    values = np.concatenate([ours.values[0], truth.values[0]])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spectra = [law.spectra[np.isfinite(law.spectra).all(axis=1)] for law in (ours, truth)]
        mean = [one.mean(axis=0) if len(one) else np.full(ours.spectra.shape[1], np.nan) for one in spectra]
        ratio = mean[0] / mean[1]
        std_ratio = ours.std_map / truth.std_map
    q = np.array(QUANTILES)
    zeros = (ours.zero_fraction, truth.zero_fraction)
    wets = (ours.wet_fraction, truth.wet_fraction) if wet != 0.0 or any(zeros) else (np.nan, np.nan)
    return {
        "spectrum_ensemble": (("wavenumber",), mean[0]),
        "spectrum_truth": (("wavenumber",), mean[1]),
        "spectrum_ratio": (("wavenumber",), ratio),
        "quantiles_ensemble": (("quantile",), ours.quantiles(q)),
        "quantiles_truth": (("quantile",), truth.quantiles(q)),
        "histogram_edges": (("edge",), edges),
        "histogram_ensemble": (("bin",), histogram(*ours.values, edges)),
        "histogram_truth": (("bin",), histogram(*truth.values, edges)),
        "zero_fraction_ensemble": ((), np.array(zeros[0])),
        "zero_fraction_truth": ((), np.array(zeros[1])),
        "wet_fraction_ensemble": ((), np.array(wets[0])),
        "wet_fraction_truth": ((), np.array(wets[1])),
        "wet_threshold": ((), np.array(wet)),
        "mean_difference_map": (("cell",), ours.mean_map - truth.mean_map),
        "std_ratio_map": (("cell",), std_ratio),
    }


def _assemble(job: Job, ensemble: xr.Dataset, channels: list[_Channel]) -> xr.Dataset:
    """One labelled Dataset of the scores of all channels."""
    axes = job.axes
    matched = job.pairing.by != "nothing"
    data: dict[str, Any] = {}
    for name, (dims, _) in channels[0].values.items():
        stacked = np.stack([one.values[name][1] for one in channels])
        if dims == ("cell",):
            stacked, dims = stacked.reshape(len(channels), *axes.shape), axes.space
        data[name] = (("variable", *dims), stacked)
    coords: dict[str, Any] = {
        "variable": [one.label for one in channels],
        "units": ("variable", [one.units for one in channels]),
        "wavenumber": job.spectrum.wavenumber,
        "wavelength": ("wavenumber", job.spectrum.wavelength, {"units": "cells"}),
        "quantile": list(QUANTILES),
    }
    for name, coord in ensemble.coords.items():
        if set(coord.dims) <= set(axes.space) and coord.dims:
            coords[str(name)] = coord.variable
    coords["bound"] = ["lower", "upper"]
    if matched:
        coords["sample"] = job.labels
        if job.baselines:
            coords["baseline"] = list(job.baselines)
    members = 1 if axes.realization is None else int(ensemble.sizes[axes.realization])
    attrs = {
        "matched": int(matched),
        "matched_by": job.pairing.by,
        "n_samples": len(job.labels),
        "n_samples_without_truth": _count(ensemble, axes.sample) - len(job.labels),
        "n_realizations": members,
        "spectrum": job.spectrum.kind,
        "bootstrap": job.bootstrap,
        "seed": job.seed,
        "weights": "area" if axes.latitude else "equal",
    }
    scores = xr.Dataset(data, coords, attrs)
    short = scores["wavelength"].values >= 2.0 - 1e-9
    return scores.isel(wavenumber=np.flatnonzero(short))


def _out_of_range(given: xr.Dataset, train: xr.Dataset) -> float | None:
    """Share of given values outside the range of the training values of that variable."""
    outside = total = 0.0
    for name in given.data_vars:
        if name in train.data_vars:
            low, high = float(train[name].min()), float(train[name].max())
            values = given[name]
            outside += float(((values < low) | (values > high)).sum())
            total += float(values.notnull().sum())
    return outside / total if total else None
