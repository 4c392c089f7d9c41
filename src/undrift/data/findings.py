"""What is wrong with fields: units, time, missing values, constants, extremes, repeated samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from undrift.data.cf import is_timelike
from undrift.data.fields import Fields
from undrift.data.layout import plain
from undrift.data.linear import spread
from undrift.data.scan import Scan
from undrift.data.tidy import steps
from undrift.data.transforms import Moments, choose
from undrift.data.units import same_units

__all__ = [
    "Line",
    "Looks",
    "correlated_steps",
    "describe_step",
    "extremes",
    "fill_findings",
    "look",
    "missing",
    "time_axis",
    "unit_findings",
]

Line = tuple[str, str]
"""(severity, sentence): severity is "info", "note", "warning" or "error"."""

ROBUST_SIGMAS = 8.0
_SUBSAMPLE = 1 << 20
_KNOWN = 0.8  # share of the samples in which a cell is known that tells the decorrelation time

_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("K", 100.0, 400.0, "temperatures in K lie between 100 and 400"),
    ("degC", -120.0, 100.0, "temperatures in degC lie between -120 and 100"),
    ("%", -1.0, 150.0, "percentages lie between 0 and 100"),
    ("kg m-2 s-1", -1.0, 1.0, "rates of rain in kg m-2 s-1 are below 1 (86400 mm/day)"),
    ("hPa", -2000.0, 2000.0, "pressures in hPa are below 2000"),
)


class Looks:
    """A sample of the values of one variable, and the transform that they ask for.

    Attributes:
        kind: name of the transform, see `undrift.data.transforms`.
        zeros: share of exact zeros; ones: of exact ones.
        median, sigma: robust centre and scale (interquartile range / 1.349).
    """

    def __init__(self, values: np.ndarray, low: float, high: float) -> None:
        values = values[np.isfinite(values)].astype(np.float64)
        moments = Moments()
        moments.update(values)
        if values.size:
            moments.low, moments.high = low, high
        self.kind = choose(moments)
        self.zeros = float(np.mean(values == 0)) if values.size else 0.0
        self.ones = float(np.mean(values == 1)) if values.size else 0.0
        values = values[values != 0] if self.padded else values
        q1, self.median, q3 = np.quantile(values, [0.25, 0.5, 0.75]) if values.size else (np.nan,) * 3
        self.sigma = float(q3 - q1) / 1.349
        self.far = int((np.abs(values - self.median) > ROBUST_SIGMAS * self.sigma).sum()) if self.sigma > 0 else 0
        self.size = values.size

    @property
    def padded(self) -> bool:
        """Whether zeros among values of both signs look like cells without data."""
        return self.kind == "standard" and 0.05 < self.zeros < 1


def look(fields: Fields, scan: Scan) -> dict[str, Looks]:
    """Looks of every variable, from at most a million values of samples at even distances."""
    layout = fields.layout
    per_sample = max(1, len(layout.channels) * int(np.prod(layout.shape)))
    count = int(np.clip(_SUBSAMPLE // per_sample, min(4, len(fields)), len(fields)))
    block = fields.read(spread(len(fields), count))
    out = {}
    for name in layout.variables:
        channels = layout.channels_of(name)
        values = block[:, channels].ravel()
        values = values[:: max(1, values.size // _SUBSAMPLE)]
        low = float(np.nanmin(scan.minimum[channels], initial=np.inf))
        high = float(np.nanmax(scan.maximum[channels], initial=-np.inf))
        out[name] = Looks(values, low, high)
    return out


def unit_findings(fields: Fields, scan: Scan) -> Iterator[Line]:
    """Units that are missing, or that the values contradict."""
    layout = fields.layout
    bare = [name for name in layout.variables if not layout.units.get(name)]
    if bare:
        yield "note", f"no units: {', '.join(bare)}; sampling later compares units, so give them an attribute 'units'"
    for name in layout.variables:
        unit, channels = layout.units.get(name, ""), layout.channels_of(name)
        if scan.empty[channels].all():
            continue
        low, high = float(np.nanmin(scan.minimum[channels])), float(np.nanmax(scan.maximum[channels]))
        mean = float(np.nanmean(scan.mean[channels]))
        for known, least, most, why in _RANGES:
            if unit and same_units(unit, known) and not least <= mean <= most and not _anomaly(fields, name):
                hint = " (in degC, or anomalies?)" if known == "K" and -120 < mean < 100 else ""
                yield (
                    "warning",
                    f"{name} is in {unit!r} with values {low:.4g} to {high:.4g}{hint}: {why}; check the units",
                )
        if unit and same_units(unit, "%") and low >= 0 and high <= 1:
            yield "warning", f"{name} is in {unit!r} with values {low:.4g} to {high:.4g}: a fraction, not a percentage?"
        if name.lower() in ("pr", "precip", "tp", "rain", "huss", "hus", "clt", "siconc") and low < 0:
            share = "tiny" if -low < 1e-6 * max(high, 1e-30) else "real"
            yield (
                "warning",
                f"{name} should not be negative and goes down to {low:.3g} ({share}): set those to 0 if they are noise",
            )


def _anomaly(fields: Fields, name: str) -> bool:
    """Whether the name or its attributes speak of differences from something."""
    attrs = fields.dataset[name].attrs
    text = " ".join([name, *(str(attrs.get(key, "")) for key in ("long_name", "standard_name", "cell_methods"))])
    return any(word in text.lower() for word in ("anom", "difference", "deviation", "bias", "increment", "tendency"))


def correlated_steps(fields: Fields, position: np.ndarray, cells: int = 200) -> tuple[int, int]:
    """Steps over which the values of single cells stay correlated, once a cubic trend, year and day are taken out.

    Args:
        fields: samples.
        position: of each sample its place along time.
        cells: how many cells are looked at.

    Returns:
        The first lag at which the autocorrelation, averaged over cells, is below 1/e, less one; 0 if at once. And the
        number of samples that were looked at: the first ones, as many as are read in a moment.
    """
    layout = fields.layout
    axis = layout.sample.index(layout.time or layout.sample[0])
    other = [tuple(str(v) for i, v in enumerate(fields.labels(s).values()) if i != axis) for s in range(len(fields))]
    rows = np.array([i for i, key in enumerate(other) if key == other[0]])
    room = max(64, 16 * _SUBSAMPLE // (len(layout.channels) * int(np.prod(layout.shape))))
    rows = rows[np.argsort(position[rows], kind="stable")][: min(room, 4000)]
    every = max(1, round((np.prod(layout.shape) / cells) ** (1 / len(layout.shape))))
    stride = tuple(slice(None, None, every) for _ in layout.shape)
    block = fields.read(rows)[(slice(None), slice(None), *stride)].reshape(rows.size, -1).astype(np.float64)
    known = np.isfinite(block)
    block, known = block[:, known.mean(axis=0) >= _KNOWN], known[:, known.mean(axis=0) >= _KNOWN]
    block = np.where(known, block, np.where(known, block, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    stamps = fields.times()
    times = np.arange(rows.size) if stamps is None else stamps[rows]
    t = np.concatenate([[0.0], np.cumsum(steps(times))])
    trend = np.linspace(-1.0, 1.0, rows.size) if t[-1] == 0 else 2 * t / t[-1] - 1
    basis = [trend**k for k in range(4 if rows.size >= 40 else 2)]
    if is_timelike(times):
        for period in (8765.8, 24.0):  # hours; where the record resolves them and is about as long
            if rows.size > 2 and np.median(np.diff(t)) < period / 4 and t[-1] >= 0.9 * period:
                basis += [f(2 * np.pi * k * t / period) for k in (1, 2) for f in (np.sin, np.cos)]
    columns = np.stack(basis, axis=1)
    if rows.size < 8 or block.shape[1] == 0 or columns.shape[1] > rows.size // 2:
        return 0, rows.size
    left = block - columns @ np.linalg.lstsq(columns, block, rcond=None)[0]
    left = left[:, left.std(axis=0) > 1e-9 * (np.abs(block).max(axis=0) + 1e-30)]
    if left.shape[1] == 0:
        return 0, rows.size
    power = np.abs(np.fft.rfft(left / left.std(axis=0), 2 * rows.size, axis=0)) ** 2
    correlation = np.fft.irfft(power.mean(axis=1))[: rows.size]
    below = np.flatnonzero(correlation < correlation[0] * np.exp(-1.0))
    return (max(0, int(below[0]) - 1) if below.size else int(rows.size)), rows.size


def describe_step(times: np.ndarray) -> str:
    """The usual step in words ("1 day", "6 hours", "1 month"), or the number that it is."""
    if times.size < 2:
        return "single"
    step = float(np.median(np.abs(steps(times))))
    if not is_timelike(times):
        return f"{step:g}"
    for hours, unit in ((8760.0, "year"), (730.0, "month"), (24.0, "day"), (1.0, "hour"), (1 / 60, "minute")):
        count = step / hours
        if count > 0.91:
            number = round(count) if abs(count - round(count)) < 0.05 * max(count, 1) else round(count, 2)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{step * 3600:g} seconds"


def time_axis(fields: Fields) -> Iterator[Line]:
    """Range, calendar, gaps, duplicates and order of time."""
    layout = fields.layout
    if layout.time in fields.dataset.dims and layout.time not in fields.dataset.coords:
        yield "info", f"{layout.time} has no coordinate: its {fields.dataset.sizes[layout.time]} steps count in order"
        return
    if layout.time is None or layout.time not in fields.dataset.coords:
        yield "info", f"no time: samples are independent along {', '.join(layout.sample)}"
        return
    axis = fields.dataset[layout.time]
    times = np.unique(axis.values) if axis.ndim == 1 else np.unique(np.asarray(fields.times()))
    calendar = ""
    if is_timelike(times):
        name = getattr(times[0], "calendar", "") or "standard"
        calendar = f", {name} calendar"
    first, last = plain(times[0]), plain(times[-1])
    yield "info", f"{layout.time}: {first} to {last}, {times.size} steps of {describe_step(times)}{calendar}"
    counts = fields.counts
    if counts.get("unsorted_times"):
        yield (
            "warning",
            f"{layout.time} is not in order ({counts['unsorted_times']} steps back); undrift sorts the samples",
        )
    if counts.get("duplicate_times"):
        yield (
            "warning",
            f"{counts['duplicate_times']} values of {layout.time} occur twice with identical fields; used once",
        )
    if times.size > 2:
        step = steps(times)
        usual = float(np.median(step))
        gaps = np.flatnonzero(step > 1.5 * usual)
        if gaps.size:
            lost = int(np.round(step[gaps] / usual - 1).sum())
            where = ", ".join(f"after {plain(times[i])}" for i in gaps[:3]) + (", ..." if gaps.size > 3 else "")
            missing = f"{lost} step{'s are' if lost > 1 else ' is'} missing"
            yield "warning", f"{gaps.size} gap{'s' * (gaps.size > 1)} in {layout.time} ({missing}): {where}"
        short = int((step < 0.5 * usual).sum())
        if short:
            yield "warning", f"{short} steps of {layout.time} are shorter than half of the usual {describe_step(times)}"


def missing(fields: Fields, scan: Scan) -> Iterator[Line]:
    """NaN per variable: the mask, whole frames, and the rest; infinities; channels without values or with one."""
    layout, n = fields.layout, len(fields)
    for name in layout.variables:
        channels = layout.channels_of(name)
        infinite = int(scan.inf[channels].sum())
        if infinite:
            c = next(c for c in channels if scan.inf[c])
            labels = ", ".join(f"{k}={plain(v)}" for k, v in fields.labels(int(scan.first_inf[c])).items())
            text = f"{layout.channels[c].label} has {infinite} infinite values, first at {labels}"
            yield "error", f"{text}: replace them by NaN where data are missing"
        cells = scan.always_nan[channels].size
        mask = int(scan.always_nan[channels].sum())
        frames = int(scan.missing[:, channels].all(axis=1).sum())
        rest, size = int(scan.occasional_nan[channels].sum()), n * cells
        words = []
        if mask and mask < cells:
            words.append(f"a mask of {mask} of {cells} cells ({mask / cells:.1%}; missing in the output too)")
        if frames and frames < n:
            words.append(f"{frames} of {n} frames wholly missing (left out of training, generated on output)")
        if rest:
            words.append(f"{rest} other values missing ({rest / size:.2%}; left out of the loss, generated on output)")
        if words:
            lot = rest > 0.1 * size or frames > 0.2 * n
            yield "warning" if lot else "note", f"{name}: " + "; ".join(words)
    for c, channel in enumerate(layout.channels):
        if scan.empty[c]:
            yield "error", f"{channel.label} has no value at all: leave it out with --variables or --select"
        elif scan.constant[c]:
            text = f"{channel.label} is constant ({scan.minimum[c]:g}) and cannot be learned"
            yield "error", f"{text}: leave it out with --variables or --select, or give it as --static"


def fill_findings(scan: Scan) -> Iterator[Line]:
    """Undeclared fill values; huge ones would drown all others."""
    for found in scan.suspicious:
        yield "error" if abs(found.value) >= 1e15 else "warning", str(found)


def extremes(fields: Fields, scan: Scan, looks: dict[str, Looks]) -> Iterator[Line]:
    """Undeclared fill values, and values far beyond all others."""
    yield from fill_findings(scan)
    flagged = {found.channel for found in scan.suspicious}
    layout = fields.layout
    for name in layout.variables:
        seen = looks[name]
        if seen.padded:
            yield (
                "note",
                f"{seen.zeros:.1%} of {name} are exact zeros among other values: if they mean no data, make them NaN",
            )
        channels = [c for c in layout.channels_of(name) if layout.channels[c].label not in flagged]
        if seen.kind != "standard" or not seen.sigma > 0 or not channels or len(layout.channels_of(name)) > 1:
            continue
        away = {v: abs(v - seen.median) / seen.sigma for c in channels for v in (scan.minimum[c], scan.maximum[c])}
        value, sigmas = max(away.items(), key=lambda item: item[1])
        if sigmas > ROBUST_SIGMAS:
            share = f"{seen.far / max(seen.size, 1):.2g} of the values lie" if seen.far else "few values lie"
            rare = seen.far < 1e-4 * seen.size
            text = (
                f"{name} reaches {value:.5g}, {sigmas:.0f} robust standard deviations from its median {seen.median:.4g}"
            )
            severity = "warning" if rare and sigmas > 2 * ROBUST_SIGMAS else "note"
            yield severity, f"{text} ({share} beyond {ROBUST_SIGMAS:g})"
