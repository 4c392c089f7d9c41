"""Scores of rain by lead time: events above thresholds, and the CRPS of block means, block maxima and hourly sums."""

__all__ = [
    "BLOCKS",
    "SCALES",
    "hourly_forecast",
    "hourly_truth",
    "over_blocks",
    "rain_by_lead",
    "rain_thresholds",
    "steps_in_an_hour",
]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.layout import plain
from undrift.errors import UsageError
from undrift.verify.bootstrap import block_length, interval, replicate_counts
from undrift.verify.events import contingency, critical_success, fraction_terms
from undrift.verify.forecast import along_leads, at_lead, by_lead, same_leads, start_of, starts_with_truth
from undrift.verify.leads import LEAD, valid_times
from undrift.verify.marginal import canonical_units, wet_threshold
from undrift.verify.match import aligned_truth, axes_of, same_cells
from undrift.verify.scores import Job, common_variables, labels_of_channels, prepared
from undrift.verify.stream import blocks

SCALES = (1, 5, 17)
BLOCKS = (4, 16)
_RATES = (0.1, 1.0, 5.0)  # mm/h
_HOUR = np.timedelta64(1, "h")
_OF_CRPS = ("crps", "crps_interval", "crps_baseline", "crps_baseline_interval", "skill", "skill_interval")


def rain_thresholds(array: xr.DataArray) -> tuple[float, ...]:
    """0.1, 1 and 5 mm/h in the units of precipitation; none where the units are of something else."""
    hints = [str(array.name), str(array.attrs.get("standard_name", "")), str(array.attrs.get("long_name", ""))]
    daily = wet_threshold(str(array.attrs.get("units", "")), hints)
    return () if daily is None else tuple(24 * daily * rate for rate in _RATES)


def rain_by_lead(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    thresholds: Sequence[float],
    *,
    scales: Sequence[int] = SCALES,
    sizes: Sequence[int] = BLOCKS,
    baselines: Mapping[str, xr.Dataset] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Scores that matter of rain, along `variable` and `prediction_timedelta`, matched as by `by_lead`.

    Args:
        forecast: variables (realization, time, prediction_timedelta, *level, *space).
        truth: variables (time, *level, *space).
        thresholds: in the units of the data; an event is a value of at least so much.
        scales: cells along each side of neighbourhoods, odd; those larger than the domain are left out.
        sizes: cells along each side of blocks; those larger than the domain are left out.
        baselines: named forecasts of the same starts and leads.
        bootstrap: replicates over the starts.
        seed: of the bootstrap.

    Returns:
        csi(threshold), the critical success index, its table summed over members; fss(threshold, scale), the fractions
        skill score, of the share of members; crps_mean(block) and crps_max(block), CRPS of means and maxima over blocks
        without a missing cell; crps_hour, where a lead step is a part of an hour, CRPS of sums over the hour before
        each whole hour (of rates: their mean, which is the sum in units without the hour). Each with `_interval`, with
        `_baseline`; skill_mean, skill_max, skill_hour are against the baselines.

    Raises:
        UsageError: an even scale.
        DataError: as of `by_lead`.
    """
    even = [scale for scale in scales if scale % 2 == 0 or scale < 1]
    if even:
        raise UsageError(f"got a neighbourhood of {even[0]} cells, expected an odd number, such as 5")
    names = common_variables(forecast, truth)
    axes, forecast = axes_of(forecast, truth, names), forecast[names]
    truth = aligned_truth(truth, forecast, names, axes)[names]
    rivals = {
        k: same_cells(v, forecast, axes.space, axes, f"the baseline {k!r}")[names] for k, v in (baselines or {}).items()
    }
    same_leads(rivals, forecast[LEAD].values)
    out = _events(forecast, truth, thresholds, scales, rivals, bootstrap, seed)
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    for kind in ("mean", "max"):
        parts = []
        for size in (size for size in sizes if size <= min(axes.shape)):
            ensemble, seen, *others = (
                over_blocks(ds, axes.space, size, kind) for ds in (forecast, truth, *rivals.values())
            )
            scored = by_lead(ensemble, seen, baselines=dict(zip(rivals, others)), **options)
            parts.append(_renamed(scored, kind).expand_dims(block=[size]))
        if parts:
            out = out.merge(_joined(parts, "block"), combine_attrs="override", compat="override")
    parts_of_hour = steps_in_an_hour(forecast[LEAD].values)
    if parts_of_hour:
        ensemble, seen = hourly_forecast(forecast, parts_of_hour), hourly_truth(forecast, truth, parts_of_hour)
        if seen is not None:
            others = {
                name: hourly_forecast(one.sel({LEAD: forecast[LEAD]}), parts_of_hour) for name, one in rivals.items()
            }
            scored = _renamed(by_lead(ensemble, seen, baselines=others, **options), "hour")
            out = out.merge(scored.reindex({LEAD: out[LEAD]}), combine_attrs="override", compat="override")
    return out.transpose("variable", LEAD, "baseline", ..., missing_dims="ignore")


def _joined(parts: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(parts, dim, coords="minimal", compat="override", combine_attrs="override")


def _renamed(scores: xr.Dataset, kind: str) -> xr.Dataset:
    """The CRPS and skill of a derived field under names of their own."""
    kept = [name for name in _OF_CRPS if name in scores]
    names = {name: name.replace("crps", f"crps_{kind}").replace("skill", f"skill_{kind}") for name in kept}
    return scores[kept].drop_vars(["band", "shortest", "longest"], errors="ignore").rename(names)


def over_blocks(ds: xr.Dataset, space: Sequence[str], size: int, kind: str) -> xr.Dataset:
    """Means or maxima over whole blocks of ``size`` cells along each dim of space, NaN where a cell is missing."""
    coarse, known = (one.coarsen(dict.fromkeys(space, size), boundary="trim") for one in (ds, ds.notnull()))
    return _with_attrs(getattr(coarse, kind)().where(known.all()), ds)


def _with_attrs(derived: xr.Dataset, ds: xr.Dataset) -> xr.Dataset:
    for name in ds.data_vars:
        derived[name].attrs = dict(ds[name].attrs)
    return derived.assign_attrs(ds.attrs)


def steps_in_an_hour(leads: NDArray) -> int | None:
    """How many lead steps an hour has, None where it has one, or no whole number, or leads are fewer or not regular."""
    if leads.dtype.kind != "m" or len(leads) < 2:
        return None
    step = leads[1] - leads[0]
    regular = (np.diff(leads) == step).all() and leads[0] == step
    count = _HOUR / step if step > np.timedelta64(0) else 0.0
    return int(count) if regular and count == int(count) and 1 < count <= len(leads) else None


def _summed(parts: xr.Dataset, dim: str, count: int) -> xr.Dataset:
    """Sums over a dim; of rates the means, which are their sums in units without the hour."""
    mean = parts.mean(dim, skipna=False)
    for name in mean.data_vars:
        units = canonical_units(str(parts[name].attrs.get("units", ""))).split()
        if not {"h-1", "d-1", "s-1"} & set(units):
            mean[name] = mean[name] * count
    return _with_attrs(mean, parts)


def hourly_forecast(forecast: xr.Dataset, count: int) -> xr.Dataset:
    """Forecasts of sums over each hour, of ``count`` lead steps, labelled by its end."""
    hours = forecast.sizes[LEAD] // count
    ends = forecast[LEAD].values[count - 1 :: count][:hours]
    whole = forecast.isel({LEAD: slice(0, hours * count)}).drop_vars([LEAD, "valid_time"], errors="ignore")
    parts = whole.coarsen({LEAD: count}).construct({LEAD: (LEAD, "part")})
    return _summed(parts, "part", count).assign_coords({LEAD: ends})


def hourly_truth(forecast: xr.Dataset, truth: xr.Dataset, count: int) -> xr.Dataset | None:
    """Sums over the same hours of the truth, labelled by their ends; None where no hour has all of its frames."""
    start = start_of(forecast)
    wide = forecast if start in forecast.dims else forecast.expand_dims(start)
    hours = forecast.sizes[LEAD] // count
    times = valid_times(wide, start)[:, : hours * count].reshape(-1, count)
    place = {plain(time): row for row, time in enumerate(truth[start].values)}
    rows = np.array([[place.get(plain(time), -1) for time in part] for part in times])
    _, first = np.unique(times[:, -1], return_index=True)
    kept = first[(rows[first] >= 0).all(axis=1)]
    if not kept.size:
        return None
    index = xr.DataArray(rows[kept], dims=("hour", "part"))
    sums = _summed(truth.drop_vars(start).isel({start: index}), "part", count)
    return sums.rename(hour=start).assign_coords({start: times[kept, -1]})


def _events(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    thresholds: Sequence[float],
    scales: Sequence[int],
    rivals: Mapping[str, xr.Dataset],
    bootstrap: int,
    seed: int,
) -> xr.Dataset:
    """CSI and FSS of all variables and leads."""
    counts, leads = starts_with_truth(forecast, truth), forecast[LEAD].values
    names = [str(name) for name in forecast.data_vars]
    parts = []
    for k in np.flatnonzero(counts):
        others = {name: at_lead(one.sel({LEAD: leads[[k]]}), 0) for name, one in rivals.items()}
        job = prepared(at_lead(forecast, int(k)), truth, names, others, bootstrap, seed)
        fit = [scale for scale in scales if scale <= min(job.axes.shape)]
        parts.append(_joined([_of_variable(job, name, list(thresholds), fit) for name in names], "variable"))
    return along_leads(parts, leads, counts)


def _of_variable(job: Job, name: str, thresholds: list[float], scales: list[int]) -> xr.Dataset:
    """CSI and FSS of all channels of one variable at one lead."""
    axes = job.axes
    level = axes.level(job.ensemble.dataset[name])
    labels = labels_of_channels(job.ensemble.dataset, name, level)
    sides = {"": job.ensemble, **job.baselines}
    readers = {key: side.reader(name, axes, level) for key, side in sides.items()}
    truth = job.truth.reader(name, axes, level)
    shape = (len(labels), len(job.labels), len(thresholds))
    table = {key: np.zeros((3, *shape)) for key in sides}
    terms = {key: np.zeros((2, *shape, len(scales))) for key in sides}
    for part in blocks([truth, *readers.values()]):
        seen, drawn = truth.read(part)[0], {key: reader.read(part) for key, reader in readers.items()}
        for c in range(len(labels)):
            valid = np.isfinite(seen[:, c]) & np.isfinite(drawn[""][:, :, c]).all(axis=0)
            for key, values in drawn.items():
                common = valid & np.isfinite(values[:, :, c]).all(axis=0)
                grid = common.reshape(-1, *axes.shape)
                for t, threshold in enumerate(thresholds):
                    observed, events = seen[:, c] >= threshold, values[:, :, c] >= threshold
                    table[key][:, c, part, t] = contingency(observed, events, job.weights * common)
                    share = events.mean(axis=0).reshape(grid.shape)
                    for s, scale in enumerate(scales):
                        terms[key][:, c, part, t, s] = fraction_terms(
                            observed.reshape(grid.shape), share, scale, axes.periodic, grid
                        )
    channels = [
        _scored(job, *({key: sums[:, c] for key, sums in one.items()} for one in (table, terms)))
        for c in range(len(labels))
    ]
    out = _joined(channels, "variable")
    return out.assign_coords(variable=labels, threshold=thresholds, scale=scales)


def _scored(job: Job, table: Mapping[str, NDArray], terms: Mapping[str, NDArray]) -> xr.Dataset:
    """Scores of one channel from its sums per sample, with bootstrap intervals over the samples in order."""
    samples, order = len(job.labels), job.order
    block = block_length(terms[""][0].reshape(samples, -1).sum(axis=1)[order])
    counts = replicate_counts(samples, block, job.bootstrap if samples > 2 else 0, job.seed)
    counts = np.concatenate([np.ones((1, samples)), counts])
    dims = {"csi": ("threshold",), "fss": ("threshold", "scale")}
    found: dict[str, dict[str, NDArray]] = {}
    for key in table:
        hits, misses, alarms = (np.tensordot(counts, v[order], 1) for v in table[key])
        away, most = (np.tensordot(counts, v[order], 1) for v in terms[key])
        fss = 1 - np.divide(away, most, out=np.full_like(most, np.nan), where=most > 0)
        found[key] = {"csi": critical_success(hits, misses, alarms), "fss": fss}
    out = {}
    for name, along in dims.items():
        ours = found[""][name]
        out[name], out[f"{name}_interval"] = (along, ours[0]), (("bound", *along), interval(ours[1:]))
        rivals = [found[key][name] for key in found if key]
        if rivals:
            stacked = np.stack(rivals, axis=1)
            out[f"{name}_baseline"] = (("baseline", *along), stacked[0])
            out[f"{name}_baseline_interval"] = (("bound", "baseline", *along), interval(stacked[1:]))
    coords = {"bound": ["lower", "upper"]} | ({"baseline": list(job.baselines)} if job.baselines else {})
    return xr.Dataset(out, coords)
