"""Which samples train and which are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from undrift.data.fields import Fields
from undrift.data.members import date_of
from undrift.data.scan import Scan, Suspects, Suspicious, bit_sums, block_step
from undrift.errors import DataError, UsageError

__all__ = ["Split", "fill_values", "overlapping", "split"]


@dataclass
class Split:
    """Positions of samples, ascending, in the Fields that were split.

    Attributes:
        train: What trains; exact duplicates are kept once, the first.
        holdout: What tests.
        gap: What is left out between the two.
        text: What was asked, in words.
        warnings: What the user should know.
        duplicates: How many samples were left out of train as duplicates.
    """

    train: np.ndarray
    holdout: np.ndarray
    gap: np.ndarray
    text: str
    warnings: list[str] = field(default_factory=list)
    duplicates: int = 0


def split(fields: Fields, holdout: str | None = None, scan: Scan | None = None) -> Split:
    """Split samples into those that train and those that test.

    Args:
        fields: Samples.
        holdout: A share such as "20%" (the default), taken from the end of the record after a gap of one decorrelation
            time, or a selection such as "year=2070/2099,scenario=E1", for which everything else trains.
        scan: Of these samples, also before cells were trimmed, where there was one: values are not all read again.

    Raises:
        UsageError: The text cannot be read.
        DataError: Nothing is held out, or nothing is left for training.
    """
    text = (holdout or "20%").strip()
    n = len(fields)
    share = re.fullmatch(r"(\d+(?:\.\d*)?)\s*%", text)
    if share:
        held, gap = _end_of_record(fields, float(share[1]) / 100.0, text)
    else:
        from undrift.data.select import sample_mask

        held, gap = np.flatnonzero(sample_mask(fields, text)), np.zeros(0, dtype=np.int64)
    gap = np.union1d(gap, overlapping(fields, held))
    dates = date_of(fields, np.arange(n))
    gap = np.union1d(gap, np.setdiff1d(np.flatnonzero(np.isin(dates, dates[held])), held))  # members of held dates
    train = np.setdiff1d(np.arange(n), np.concatenate([held, gap]))
    if train.size == 0:
        raise DataError(f"--holdout {text} leaves none of {n} samples for training; hold out fewer")
    result = Split(train, held, gap, text)
    _once(fields, result, scan or fields._scan)
    return result


def overlapping(fields: Fields, held: np.ndarray) -> np.ndarray:
    """Positions of windows that are not held out and have a frame of one that is."""
    layout = fields.layout
    if layout.frames == 1:
        return np.zeros(0, dtype=np.int64)
    sizes, axis = fields._store.sizes, layout.sample.index(layout.time or layout.sample[-1])
    coords = list(np.unravel_index(fields._base(np.arange(len(fields))), sizes))
    position, coords[axis] = coords[axis], np.zeros_like(coords[axis])
    group = np.ravel_multi_index(coords, sizes)
    out = []
    for g in np.unique(group[held]):
        mine, theirs = np.flatnonzero(group == g), np.sort(position[held][group[held] == g])
        after = np.searchsorted(theirs, position[mine] - layout.frames + 1)
        near = (after < theirs.size) & (theirs[np.minimum(after, theirs.size - 1)] < position[mine] + layout.frames)
        out.append(mine[near])
    return np.setdiff1d(np.concatenate(out) if out else np.zeros(0, dtype=np.int64), held)


def _end_of_record(fields: Fields, share: float, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the end of the record along time (or the first sample dim), and of the gap before it."""
    if not 0.0 < share < 1.0:
        raise UsageError(f"--holdout {text}: give a share between 0% and 100%")
    sizes = fields._store.sizes
    dim = fields.layout.time or fields.layout.sample[0]
    axis = fields.layout.sample.index(dim)
    position = np.unravel_index(fields._base(np.arange(len(fields))), sizes)[axis]
    steps = np.unique(position)
    count = max(1, round(share * steps.size))
    if steps.size - count < 1:
        raise DataError(f"--holdout {text}: there are {steps.size} samples along {dim}; hold out fewer or name them")
    before = steps[: steps.size - count]
    lag = decorrelation(fields, np.flatnonzero(np.isin(position, before)), position)
    least = 1 if fields.layout.time is not None else 0
    lag = min(max(lag, least), max(least, round(0.1 * steps.size)), before.size - 1)
    gap = before[before.size - lag :]
    return np.flatnonzero(np.isin(position, steps[-count:])), np.flatnonzero(np.isin(position, gap))


def decorrelation(fields: Fields, samples: np.ndarray, position: np.ndarray) -> int:
    """Steps after which the spatial mean and the leading variability have decorrelated to 1/e; 0 if at once.

    Args:
        fields: Samples.
        samples: Positions of the samples to use.
        position: For every sample its place along time.
    """
    series = _series(fields, samples, position)
    return max((_efolding(s) for s in series), default=0)


def _series(fields: Fields, samples: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
    """Per channel and member, the detrended spatial mean and leading principal component along time."""
    other = fields._base(samples)
    sizes, axis = fields._store.sizes, fields.layout.sample.index(fields.layout.time or fields.layout.sample[0])
    coords = list(np.unravel_index(other, sizes))
    coords[axis] = np.zeros_like(coords[axis])
    group = np.ravel_multi_index(coords, sizes)
    budget = max(1, int(2e8 // (4 * len(fields.layout.channels) * np.prod(fields.layout.shape))))
    out: list[np.ndarray] = []
    for g in np.unique(group)[:4]:
        rows = samples[group == g]
        rows = rows[np.argsort(position[rows], kind="stable")][-min(budget, 4000) :]
        if rows.size < 8:
            continue
        values = fields.read(rows)
        every = max(1, round((np.prod(fields.layout.shape) / 200) ** (1 / len(fields.layout.shape))))
        stride = tuple(slice(None, None, every) for _ in fields.layout.shape)
        for c in range(values.shape[1]):
            block = values[(slice(None), c)].reshape(rows.size, -1)
            mean = block.mean(axis=1, dtype=np.float64)
            for i in np.flatnonzero(np.isnan(mean)):
                known = block[i][np.isfinite(block[i])]
                mean[i] = known.mean(dtype=np.float64) if known.size else np.nan
            keep = np.isfinite(mean)
            if keep.sum() < 8:
                continue
            mean = mean[keep]
            thin = values[(slice(None), c, *stride)].reshape(rows.size, -1).astype(np.float64)[keep]
            thin = np.where(np.isfinite(thin), thin, 0.0)
            thin = _detrend(thin)
            out += [_detrend(mean[:, None])[:, 0], _leading(thin)]
    return out


def _detrend(series: np.ndarray) -> np.ndarray:
    """Residuals of a straight line along the first axis."""
    t = np.linspace(-1.0, 1.0, series.shape[0])
    basis = np.stack([np.ones_like(t), t], axis=1)
    return series - basis @ np.linalg.lstsq(basis, series, rcond=None)[0]


def _leading(series: np.ndarray) -> np.ndarray:
    """The leading principal component of (time, cells), by power iteration from the sample that varies most."""
    pattern = series[np.argmax((series**2).sum(axis=1))]
    for _ in range(30):
        norm = np.sqrt((pattern**2).sum())
        if norm == 0.0:
            break
        pattern = series.T @ (series @ (pattern / norm))
    return series @ pattern


def _efolding(series: np.ndarray) -> int:
    """The first lag at which the autocorrelation is below 1/e, less one: the steps that still are correlated."""
    n = series.size
    if n < 4 or not np.any(series):
        return 0
    power = np.abs(np.fft.rfft(series - series.mean(), 2 * n)) ** 2
    correlation = np.fft.irfft(power)[:n]
    if correlation[0] <= 0:
        return 0
    below = np.flatnonzero(correlation / correlation[0] < np.exp(-1.0))
    return int(below[0]) if below.size and below[0] > 1 else (0 if below.size else n)


def _bare(sample: np.ndarray) -> bool:
    """Whether each channel (C, *space) has one value or none, as rain on a dry day: two such days are no copies."""
    for channel in sample:
        known = channel[np.isfinite(channel)]
        if known.size and known.min() < known.max():
            return False
    return True


def _once(fields: Fields, result: Split, scan: Scan | None) -> None:
    """Leave exact duplicates out of train, and warn of fill values and of held-out samples that also train."""
    samples = np.concatenate([result.train, result.holdout])
    sums, suspicious = _sums(fields, samples, scan)
    result.warnings += map(str, suspicious)
    digests = _digests(fields, samples, sums)
    seen: set[bytes] = set()
    keep = []
    for i in result.train.tolist():
        digest = digests.get(i)
        if digest is None or digest not in seen:
            keep.append(i)
        if digest is not None:
            seen.add(digest)
    result.duplicates = result.train.size - len(keep)
    result.train = np.asarray(keep, dtype=np.int64)
    if result.duplicates:
        result.warnings.append(f"{result.duplicates} training samples repeat another exactly and are used once")
    shared = [i for i in result.holdout.tolist() if digests.get(i) in seen]
    if shared:
        result.warnings.append(
            f"{len(shared)} of {result.holdout.size} held-out samples also are in training, the first at "
            f"{fields.label_digest(shared[0])}: scores on them mean nothing"
        )


def fill_values(fields: Fields, samples: np.ndarray) -> list[Suspicious]:
    """What looks like undeclared fill values among some samples."""
    return _sums(fields, samples, fields._scan)[1]


def _sums(fields: Fields, samples: np.ndarray, scan: Scan | None) -> tuple[np.ndarray, list[Suspicious]]:
    """Bit sums of samples, and what looks like fill values: from the scan, where there was one, else in one pass."""
    if scan is not None:
        return scan.bit_sums[samples], scan.suspicious
    sums, suspects = [], Suspects(len(fields.layout.channels))
    for _, block in _read(fields, samples):
        sums.append(bit_sums(block))
        suspects.look(block)
    return np.concatenate(sums), suspects.found([c.label for c in fields.layout.channels])


def _digests(fields: Fields, samples: np.ndarray, sums: np.ndarray) -> dict[int, bytes]:
    """Digests of those samples that may have a copy: only they are read again."""
    _, which, counts = np.unique(sums, return_inverse=True, return_counts=True)
    out: dict[int, bytes] = {}
    for part, block in _read(fields, samples[counts[which] > 1]):
        for i, sample in zip(part.tolist(), block, strict=True):
            if not _bare(sample):
                out[i] = hashlib.blake2b(sample.tobytes(), digest_size=16).digest()
    return out


def _read(fields: Fields, samples: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Samples and their values, in blocks of bounded memory."""
    size = 4 * len(fields.layout.channels) * int(np.prod(fields.layout.shape))
    step = block_step(fields, max(1, (32 << 20) // max(size, 1)))
    for start in range(0, samples.size, step):
        part = samples[start : start + step]
        yield part, fields.read(part)
