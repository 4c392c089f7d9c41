"""Scores of forecasts by lead time: those of `evaluate`, at one lead after the other."""

__all__ = ["along_leads", "at_lead", "by_lead", "same_leads", "start_of", "starts_with_truth"]

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.errors import DataError
from undrift.progress import track
from undrift.verify.leads import LEAD, lead_text, start_name, valid_times
from undrift.verify.match import aligned_truth, axes_of, pair_samples
from undrift.verify.scores import common_variables, evaluate, sample_dims

_ONE_NUMBER = {"variable", "baseline", "bound"}
_SPECTRA = ("spectrum_ensemble", "spectrum_truth", "spectrum_ratio_baseline")


def by_lead(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    baselines: Mapping[str, xr.Dataset] | None = None,
    wet_threshold: float | Mapping[str, float] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Score forecasts along their lead time.

    Each lead is an ensemble whose samples are the starts, matched to the truth by the time that is forecast, and has
    the scores that :func:`undrift.verify.evaluate` gives it alone; intervals are of a block bootstrap over starts.
    Times that the truth lacks are left out and counted.

    Args:
        forecast: variables (realization, time, prediction_timedelta, *level, *space) with `valid_time`, which is
            time + prediction_timedelta where it is absent.
        truth: variables (time, *level, *space), may hold more.
        baselines: named forecasts of the same starts and leads, which may hold more; `dressed` as of `evaluate`.
        wet_threshold: as of `evaluate`.
        bootstrap: replicates over the starts, 0 for no intervals.
        seed: of rank ties, pairs of cells and the bootstrap.
        progress: show a progress bar on stderr.

    Returns:
        Along `variable` and `prediction_timedelta` each score of `evaluate` that is one number, with its interval:
        crps, rmse, bias, mae, spread, spread_skill and the others, and per `baseline` crps_baseline, rmse_baseline,
        skill and the others; spectrum_ratio(band) and spectrum_ratio_baseline(baseline, band), power of the members
        over that of the truth summed over octaves of wavelength, with coordinates shortest and longest in cells;
        n_starts(prediction_timedelta), 0 where scores are NaN because no start has a truth.

    Raises:
        DataError: no time that is forecast is in the truth, a baseline lacks a lead, or as of `evaluate`.
    """
    start_of(forecast)
    leads = forecast[LEAD].values
    counts = starts_with_truth(forecast, truth)
    same_leads(dict(baselines or {}), leads)
    parts = []
    with track("scoring", len(leads), enabled=progress) as tick:
        for k in np.flatnonzero(counts):
            tick(int(k))
            rivals = {name: at_lead(one.sel({LEAD: leads[[k]]}), 0) for name, one in (baselines or {}).items()}
            scores = evaluate(
                at_lead(forecast, int(k)), truth, baselines=rivals, wet_threshold=wet_threshold, bootstrap=bootstrap,
                seed=seed,
            )  # fmt: skip
            parts.append(_of_lead(scores))
    out = along_leads(parts, leads, counts)
    out["n_starts"] = (LEAD, counts)
    sample = axes_of(forecast, truth, common_variables(forecast, truth)).sample
    total = math.prod(forecast.sizes[dim] for dim in sample)
    return out.assign_attrs(by_lead=1, n_valid_times=total, n_valid_times_without_truth=total - int(counts.sum()))


def along_leads(parts: Sequence[xr.Dataset], leads: NDArray, counts: NDArray[np.intp]) -> xr.Dataset:
    """Scores of those leads that have a count as one Dataset, NaN at the others."""
    along = xr.DataArray(leads[counts > 0], dims=LEAD, name=LEAD)
    out = xr.concat(parts, along, combine_attrs="override", coords="minimal", compat="override")
    out = out.reindex({LEAD: leads}).transpose("variable", LEAD, "baseline", ..., missing_dims="ignore")
    out[LEAD].attrs = {"standard_name": "forecast_period"}
    return out


def start_of(forecast: xr.Dataset) -> str:
    """Name of the times at which forecasts start.

    Raises:
        DataError: there is no dim of leads, or no such time.
    """
    if LEAD not in forecast.dims or LEAD not in forecast.coords:
        raise DataError(f"forecasts have a dim and coordinate {LEAD}; got dims {', '.join(map(str, forecast.dims))}")
    found = start_name(forecast)
    if found not in forecast.coords:
        raise DataError("forecasts have no times at which they start: add the coordinate time")
    return found


def at_lead(forecast: xr.Dataset, k: int) -> xr.Dataset:
    """The forecasts of the k-th lead, labelled by the times that they are of."""
    start = start_of(forecast)
    if start not in forecast.dims:
        forecast = forecast.expand_dims(start)
    times = valid_times(forecast, start)[:, k]
    one = forecast.isel({LEAD: k}).drop_vars([LEAD, "valid_time"], errors="ignore")
    return one.assign_coords({start: (start, times)})


def starts_with_truth(forecast: xr.Dataset, truth: xr.Dataset) -> NDArray[np.intp]:
    """How many samples of each lead have a truth, (leads,).

    Raises:
        DataError: none has.
    """
    names = common_variables(forecast, truth)
    axes = axes_of(forecast, truth, names)
    on_truth = aligned_truth(truth, forecast, names, axes)
    levels = sorted({dim for name in names for dim in axes.level(forecast[name])})
    pairing = pair_samples(forecast, on_truth, axes.sample, sample_dims(on_truth, axes, names, levels))
    index = np.unravel_index(pairing.ensemble, [forecast.sizes[dim] for dim in axes.sample])
    counts = np.bincount(index[axes.sample.index(LEAD)], minlength=forecast.sizes[LEAD])
    if not counts.any():
        raise DataError(_nothing(forecast, truth, start_of(forecast)))
    return counts


def _nothing(forecast: xr.Dataset, truth: xr.Dataset, start: str) -> str:
    """The sentence about forecasts of times that the truth does not have."""
    one = forecast if start in forecast.dims else forecast.expand_dims(start)
    times = valid_times(one, start).ravel()
    theirs = truth[start].values.ravel() if start in truth.coords else np.zeros(0)
    span = f"it is of {theirs.min()} to {theirs.max()}" if theirs.size else f"it has no coordinate {start}"
    return f"the truth has none of the times that are forecast, {times.min()} to {times.max()}: {span}"


def same_leads(baselines: Mapping[str, xr.Dataset], leads: NDArray) -> None:
    """Refuse baselines that lack a lead.

    Raises:
        DataError: naming it.
    """
    for name, one in baselines.items():
        start_of(one)
        lacking = np.setdiff1d(leads, one[LEAD].values)
        if lacking.size:
            raise DataError(
                f"the baseline {name!r} lacks {lacking.size} of {leads.size} leads, first {lead_text(lacking[0])}"
            )


def _of_lead(scores: xr.Dataset) -> xr.Dataset:
    """What is kept of one lead: single numbers, and ratios of power within bands."""
    numbers = scores[[name for name, one in scores.data_vars.items() if set(one.dims) <= _ONE_NUMBER]]
    out = numbers.drop_vars(["wavenumber", "wavelength", "sample"], errors="ignore")
    return out.merge(_bands(scores[[name for name in _SPECTRA if name in scores]]), compat="override")


def _bands(spectra: xr.Dataset) -> xr.Dataset:
    """Power over that of the truth, summed over the wavenumbers of each octave of wavelength."""
    if spectra.sizes["wavenumber"] == 0:  # of a single cell
        return xr.Dataset()
    edges = _octaves(spectra["wavelength"].values)
    octave = np.searchsorted(edges, spectra["wavelength"].values * (1 + 1e-9), side="right") - 1
    kept = np.unique(octave)
    member = xr.DataArray((octave == kept[:, None]).astype(float), dims=("band", "wavenumber"))
    coords = {
        "band": [f"{edges[b]:g}-{edges[b + 1]:g} cells" for b in kept],
        "shortest": ("band", edges[kept]),
        "longest": ("band", edges[kept + 1]),
    }
    truth = (member * spectra["spectrum_truth"]).sum("wavenumber", skipna=False)
    out = {"spectrum_ratio": (member * spectra["spectrum_ensemble"]).sum("wavenumber", skipna=False) / truth}
    if "spectrum_ratio_baseline" in spectra:
        power = spectra["spectrum_ratio_baseline"] * spectra["spectrum_truth"]
        out["spectrum_ratio_baseline"] = (member * power).sum("wavenumber", skipna=False) / truth
    return xr.Dataset(out).drop_vars(["wavenumber", "wavelength"], errors="ignore").assign_coords(coords)


def _octaves(wavelength: NDArray) -> NDArray[np.float64]:
    """Edges 2, 4, 8, ... in cells, beyond the longest wavelength."""
    count = max(1, int(np.floor(np.log2(np.max(wavelength) * (1 + 1e-9)))))
    return np.exp2(np.arange(1, count + 2, dtype=np.float64))
