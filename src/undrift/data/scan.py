"""One pass over all values: what is missing, infinite, constant or suspicious, with moments in float64."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from undrift.data.fields import Fields

__all__ = ["Scan", "Suspects", "Suspicious", "bit_sums", "block_step", "scan", "seconds_to_scan"]

_BLOCK_BYTES = 16 << 20
_HUGE = 1e15
_SENTINELS = np.array(
    [
        s * v
        for v in (99.0, 99.9, 99.99, 999.0, 999.9, 9999.0, 9999.9, 99999.0, 32766.0, 32767.0, 32768.0)
        for s in (1, -1)
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class Suspicious:
    """A value that looks like an undeclared fill value: ``count`` times ``value`` in a channel, far from all others."""

    channel: str
    value: float
    count: int

    def __str__(self) -> str:
        return (
            f"{self.channel} has {self.count} times {self.value:g}, which looks like an undeclared fill value: set the "
            "attribute _FillValue, or replace it by NaN"
        )


@dataclass
class Scan:
    """What one pass over the values found; C channels in the order of the layout, N samples.

    Attributes:
        count: Finite values per channel (C,).
        nan: NaN per channel (C,); the sum of ``mask_nan``, ``frame_nan`` and ``occasional_nan``.
        mask_nan: NaN in cells that are NaN in all samples, per channel (C,).
        frame_nan: NaN in samples that are wholly missing, outside the mask, per channel (C,).
        occasional_nan: All other NaN per channel (C,).
        inf: Infinite values per channel (C,); also values beyond float32.
        first_inf: Per channel the position of the first sample with an infinite value, -1 for none (C,).
        minimum: Least finite value per channel (C,), NaN where there is none; maximum, mean and std likewise. The std
            is that of all values about their one mean (divided by n).
        constant: Whether all finite values of a channel are equal (C,).
        empty: Whether a channel has no finite value (C,).
        always_nan: Cells that are NaN in all samples (C, *space).
        missing: Samples in which a channel has no finite value (N, C).
        bit_sums: Sum of the bit patterns of each sample (N,), which samples that are not equal seldom share.
        suspicious: Undeclared fill values.
    """

    count: np.ndarray
    nan: np.ndarray
    mask_nan: np.ndarray
    frame_nan: np.ndarray
    occasional_nan: np.ndarray
    inf: np.ndarray
    first_inf: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    constant: np.ndarray
    empty: np.ndarray
    always_nan: np.ndarray
    missing: np.ndarray
    bit_sums: np.ndarray
    suspicious: list[Suspicious] = field(default_factory=list)


class Suspects:
    """Extremes of each channel that look like fill values, counted block by block, and the range of the others."""

    def __init__(self, channels: int) -> None:
        self.counts: list[dict[float, int]] = [{} for _ in range(channels)]
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)

    def look(self, block: np.ndarray) -> None:
        """Add samples (n, C, ...) without infinities."""
        for c in range(block.shape[1]):
            values = block[:, c]
            low, high = float(values.min()), float(values.max())
            if np.isnan(low):
                values = values[~np.isnan(values)]
                if not values.size:
                    continue
                low, high = float(values.min()), float(values.max())
            self.add(c, values, low, high)

    def add(self, c: int, values: np.ndarray, low: float, high: float) -> None:
        """Add finite values of a channel that lie between low and high."""
        rest = values
        for _ in range(8):
            extreme = next((v for v in (low, high) if abs(v) >= _HUGE or np.float32(v) in _SENTINELS), None)
            if extreme is None:
                break
            hits = rest == np.float32(extreme)
            self.counts[c][extreme] = self.counts[c].get(extreme, 0) + int(hits.sum())
            rest = rest[~hits]
            if rest.size == 0:
                return
            low, high = float(rest.min()), float(rest.max())
        self.low[c] = min(self.low[c], low)
        self.high[c] = max(self.high[c], high)

    def found(self, labels: list[str]) -> list[Suspicious]:
        """Those that are far from all other values; a channel of one value is constant, not filled, unless huge."""
        out = []
        for label, counts, low, high in zip(labels, self.counts, self.low, self.high, strict=True):
            span = max(high - low, 1e-6 * max(abs(low), abs(high), 1e-30)) if high >= low else 0.0
            single = len(counts) == 1 and high < low
            for value, count in counts.items():
                far = high < low or value < low - span or value > high + span
                if abs(value) >= _HUGE or (far and not single):
                    out.append(Suspicious(label, value, count))
        return out


class _Sums:
    """Running sums about a first guess of the mean, which keeps 300 K with a std of 1e-3 K exact."""

    def __init__(self, channels: int, cells: int, samples: int) -> None:
        self.shift = np.full(channels, np.nan)
        self.n = np.zeros(channels, dtype=np.int64)
        self.nan = np.zeros(channels, dtype=np.int64)
        self.inf = np.zeros(channels, dtype=np.int64)
        self.first_inf = np.full(channels, -1, dtype=np.int64)
        self.s1 = np.zeros(channels)
        self.s2 = np.zeros(channels)
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)
        self.seen = np.zeros((channels, cells), dtype=bool)
        self.missing = np.zeros((samples, channels), dtype=bool)
        self.bit_sums = np.zeros(samples, dtype=np.uint64)
        self.suspects = Suspects(channels)

    def add(self, start: int, block: np.ndarray) -> None:
        """Add samples (n, C, cells) that begin at position start."""
        self.bit_sums[start : start + len(block)] = bit_sums(block)
        for c in range(block.shape[1]):
            self._add_channel(start, c, np.ascontiguousarray(block[:, c]))

    def _add_channel(self, start: int, c: int, x: np.ndarray) -> None:
        low, high = float(x.min()), float(x.max())
        if np.isfinite(low) and np.isfinite(high):
            self.seen[c] = True
            values = x
        else:
            finite = np.isfinite(x)
            bad = np.isinf(x)
            infs = int(bad.sum())
            if infs:
                self.inf[c] += infs
                if self.first_inf[c] < 0:
                    self.first_inf[c] = start + int(np.flatnonzero(bad.any(axis=1))[0])
            self.nan[c] += x.size - int(finite.sum()) - infs
            self.seen[c] |= (~np.isnan(x)).any(axis=0)
            empty = np.isnan(x).all(axis=1)
            self.missing[start : start + x.shape[0], c] = empty
            values = x[finite]
            if values.size == 0:
                return
            low, high = float(values.min()), float(values.max())
        self.n[c] += values.size
        self.low[c], self.high[c] = min(self.low[c], low), max(self.high[c], high)
        self.suspects.add(c, values, low, high)
        if np.isnan(self.shift[c]):
            self.shift[c] = float(values.mean(dtype=np.float64))
        centred = values.astype(np.float64)
        centred -= self.shift[c]
        flat = centred.ravel()
        self.s1[c] += flat.sum()
        self.s2[c] += np.einsum("i,i->", flat, flat)


def scan(fields: Fields) -> Scan:
    """Stream once over all values of fields.

    One thread reads while another counts. Also fills ``fields.counts``: ``n_nan`` per variable and ``suspicious``.

    Raises:
        DataError: A file cannot be read.
    """
    layout = fields.layout
    cells = int(np.prod(layout.shape))
    n, channels = len(fields), len(layout.channels)
    sums = _Sums(channels, cells, n)
    step = block_step(fields, max(1, _BLOCK_BYTES // max(4 * channels * cells, 1)))
    starts = range(0, n, step)
    whole = tuple(slice(None) for _ in layout.space)
    store = fields._store
    keep = np.empty((n, channels, *layout.shape), np.float32) if store.wants_memory and fields._index is None else None

    def load(start: int) -> np.ndarray:
        index = fields._base(np.arange(start, min(start + step, n)))
        if keep is None:
            return store.read(index, whole, allow_inf=True)
        keep[start : start + index.size] = store.read_files(index, whole)
        return keep[start : start + index.size]

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(load, 0)
        for start in starts:
            block = pending.result()
            if start + step < n:
                pending = pool.submit(load, start + step)
            sums.add(start, block.reshape(block.shape[0], channels, cells))
    if keep is not None:
        store.remember(keep, finite=not sums.inf.any())
    result = _finish(sums, n, layout.shape, [channel.label for channel in layout.channels])
    _record(fields.counts, fields, result)
    return result


def seconds_to_scan(fields: Fields) -> float:
    """Seconds that ``scan`` will take, as the first of its blocks tells; the values are not kept."""
    layout, n = fields.layout, len(fields)
    channels, cells = len(layout.channels), int(np.prod(layout.shape))
    step = min(n, block_step(fields, max(1, _BLOCK_BYTES // max(4 * channels * cells, 1))))
    whole = tuple(slice(None) for _ in layout.space)
    fields._store.read_files(fields._base([0]), whole)  # opening the file is no measure of the rest
    began = time.perf_counter()
    block = fields._store.read_files(fields._base(np.arange(step)), whole)
    _Sums(channels, cells, step).add(0, block.reshape(step, channels, cells))
    return (time.perf_counter() - began) * n / step


def bit_sums(block: np.ndarray) -> np.ndarray:
    """Sum of the bit patterns of each sample of a block (n, C, ...) of float32, exact in any order."""
    return np.ascontiguousarray(block).reshape(len(block), -1).view(np.uint32).sum(axis=1, dtype=np.uint64)


def block_step(fields: Fields, least: int) -> int:
    """Samples per block: whole chunks of the files along the last sample dim, so that none is unpacked twice."""
    last = fields.layout.sample[-1]
    chunks = [1]
    for name in fields.layout.variables:
        preferred = fields._dataset[name].encoding.get("preferred_chunks") or {}
        chunks.append(int(preferred.get(last, 1)))
    chunk = max(chunks)
    step = -(-least // chunk) * chunk
    return step if step <= 16 * least or step <= 64 else least


def _finish(sums: _Sums, n: int, shape: tuple[int, ...], labels: list[str]) -> Scan:
    with np.errstate(invalid="ignore", divide="ignore"):
        delta = sums.s1 / sums.n
        mean = sums.shift + delta
        std = np.sqrt(np.maximum(sums.s2 / sums.n - delta**2, 0.0))
    empty = sums.n == 0
    constant = ~empty & (sums.low == sums.high)
    always = ~sums.seen
    hidden = always.sum(axis=1)
    mask_nan = hidden * n
    frames = sums.missing.sum(axis=0)
    frame_nan = frames * (always.shape[1] - hidden)
    return Scan(
        count=sums.n,
        nan=sums.nan,
        mask_nan=mask_nan,
        frame_nan=frame_nan,
        occasional_nan=sums.nan - mask_nan - frame_nan,
        inf=sums.inf,
        first_inf=sums.first_inf,
        minimum=np.where(empty, np.nan, sums.low),
        maximum=np.where(empty, np.nan, sums.high),
        mean=mean,
        std=np.where(constant, 0.0, std),
        constant=constant,
        empty=empty,
        always_nan=always.reshape(len(labels), *shape),
        missing=sums.missing,
        bit_sums=sums.bit_sums,
        suspicious=sums.suspects.found(labels),
    )


def _record(counts: dict[str, Any], fields: Fields, result: Scan) -> None:
    layout = fields.layout
    counts["n_nan"] = {name: int(result.nan[layout.channels_of(name)].sum()) for name in layout.variables}
    counts["suspicious"] = {s.channel: {"value": s.value, "count": s.count} for s in result.suspicious}
