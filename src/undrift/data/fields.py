"""Canonical samples of fields, read lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from undrift.data.layout import Layout, plain
from undrift.data.order import Order
from undrift.errors import DataError

if TYPE_CHECKING:
    from undrift.data.scan import Scan

__all__ = ["MEMORY_LIMIT", "Fields", "coarsen"]

MEMORY_LIMIT = 1 << 30
"""Fields of fewer bytes than this (as float32) are kept in memory after the first read."""

_FINGERPRINT_BYTES = 256 << 20
_READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError, TypeError)


class _Store:
    """The whole dataset behind Fields and their subsets, with its values in memory once read."""

    def __init__(self, dataset: xr.Dataset, layout: Layout, sources: Sequence[str]) -> None:
        self.dataset = dataset
        self.layout = layout
        self.sources = list(sources)
        self.sizes = tuple(int(dataset.sizes[dim]) for dim in layout.sample)
        self.nbytes = 4 * int(np.prod(self.sizes, dtype=np.int64)) * len(layout.channels) * int(np.prod(layout.shape))
        self.memory: np.ndarray | None = None
        self.finite = False
        self._labels: dict[str, np.ndarray] = {}

    def label(self, dim: str, position: int) -> Any:
        """The label of a position along a sample dim, or the position where the dim has none."""
        if dim not in self.dataset.coords:
            return int(position)
        if dim not in self._labels:
            self._labels[dim] = self.dataset[dim].values
        return self._labels[dim][position]

    @property
    def wants_memory(self) -> bool:
        """Whether the values are small enough for memory and not there yet."""
        return self.memory is None and self.nbytes <= MEMORY_LIMIT

    def remember(self, values: np.ndarray, *, finite: bool) -> None:
        """Keep all values (N, C, *space) in memory."""
        self.memory, self.finite = values, finite

    def read(self, indices: np.ndarray, window: tuple[slice, ...], *, allow_inf: bool = False) -> np.ndarray:
        """Values (n, C, *space) of samples of the whole dataset."""
        if self.wants_memory:
            everything = np.arange(int(np.prod(self.sizes)))
            values = self.read_files(everything, tuple(slice(None) for _ in self.layout.space))
            self.remember(values, finite=not np.isinf(values).any())
        if self.memory is None:
            out = self.read_files(indices, window)
            if not allow_inf:
                self._refuse_inf(out, indices)
            return out
        if not allow_inf and not self.finite:
            self._refuse_inf(self.memory, np.arange(len(self.memory)))
        if indices.size and bool(np.all(np.diff(indices) == 1)):
            return self.memory[(slice(int(indices[0]), int(indices[-1]) + 1), slice(None), *window)].copy()
        return self.memory[(indices, slice(None), *window)]

    def read_files(self, indices: np.ndarray, window: tuple[slice, ...]) -> np.ndarray:
        """Read samples from the files: one slice per combination of the leading sample dims."""
        shape = [len(range(*part.indices(size))) for part, size in zip(window, self.layout.shape)]
        out = np.empty((len(indices), len(self.layout.channels), *shape), dtype=np.float32)
        if out.size == 0:
            return out
        coords = np.unravel_index(indices, self.sizes)
        lead = (
            np.ravel_multi_index(coords[:-1], self.sizes[:-1]) if len(self.sizes) > 1 else np.zeros(len(indices), int)
        )
        for group in np.unique(lead):
            rows = np.flatnonzero(lead == group)
            last, inverse = np.unique(coords[-1][rows], return_inverse=True)
            where: dict[str, Any] = {
                dim: int(c[rows[0]]) for dim, c in zip(self.layout.sample[:-1], coords[:-1], strict=True)
            }
            run = last.size == last[-1] - last[0] + 1
            where[self.layout.sample[-1]] = slice(int(last[0]), int(last[-1]) + 1) if run else last
            where |= dict(zip(self.layout.space, window, strict=True))
            block = self._block(where)
            out[rows] = block if np.array_equal(inverse, np.arange(last.size)) else block[inverse]
        return out

    def _block(self, where: dict[str, Any]) -> np.ndarray:
        """Samples along the last sample dim as (n, C, *space) float32."""
        parts = []
        last = self.layout.sample[-1]
        for name in self.layout.variables:
            array = self.dataset[name].isel(where)
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    values = np.asarray(array.values).astype(np.float32, copy=False)
            except _READ_ERRORS as error:
                raise DataError(
                    f"{', '.join(self.sources[:3])}: the values of {name!r} cannot be read "
                    f"({type(error).__name__}: {str(error)[:200]}); the file may be truncated or damaged, "
                    "copy or download it again"
                ) from error
            n = array.sizes[last]
            grid = values.shape[values.ndim - len(self.layout.space) :]
            parts.append(values.reshape(n, len(self.layout.channels_of(name)), *grid))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _refuse_inf(self, block: np.ndarray, indices: np.ndarray) -> None:
        """Raise if samples hold infinite values, naming variable, labels and count."""
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isfinite(block.sum(dtype=np.float64)):
                return
        bad = np.isinf(block)
        if not bad.any():
            return
        row, channel = (int(axis[0]) for axis in np.nonzero(bad)[:2])
        position = np.unravel_index(int(indices[row]), self.sizes)
        labels = [
            f"{dim}={plain(self.label(dim, int(i)))}" for dim, i in zip(self.layout.sample, position, strict=True)
        ]
        raise DataError(
            f"{', '.join(self.sources[:3])}: {self.layout.channels[channel].label} has "
            f"{int(bad[:, channel].sum())} infinite values (or beyond float32), first at "
            f"{', '.join(labels)}; replace them by NaN where data are missing"
        )


class Fields:
    """Canonical samples of fields: latitude ascending, longitudes without a jump, dims ordered (sample, level, space).

    Make them with ``open_fields``. Samples are counted over all sample dims, the last varying fastest.

    Attributes:
        layout: The roles of the dimensions and the channels.
        static: Variables without sample dims, canonical.
        covariates: What was asked as covariates; ``covariates[name]`` has sample dims only.
        covariate_names: Their names in the order asked.
        order: The way back to the order in which the data came.
        sources: The files, or what the data were.
        counts: What happened on the way: joined files, sorted or duplicate times, missing chunks; ``scan`` adds numbers
            of missing and suspicious values.
        warnings: Sentences that the user should read.
    """

    def __init__(
        self,
        dataset: xr.Dataset,
        layout: Layout,
        *,
        static: xr.Dataset | None = None,
        covariates: xr.Dataset | None = None,
        covariate_names: Sequence[str] = (),
        order: Order | None = None,
        sources: Sequence[str] = (),
        counts: dict[str, Any] | None = None,
        warnings: Sequence[str] = (),
        _store: _Store | None = None,
        _index: np.ndarray | None = None,
    ) -> None:
        self._store = _store if _store is not None else _Store(dataset, layout, sources)
        self._index = _index
        self._dataset = dataset
        self.layout = layout
        self.static = static if static is not None else xr.Dataset()
        self.covariates = covariates if covariates is not None else xr.Dataset()
        self.covariate_names = tuple(covariate_names)
        self.order = order if order is not None else Order()
        self.sources = list(sources)
        self.counts: dict[str, Any] = counts if counts is not None else {}
        self.warnings = list(warnings)
        self._fingerprint: str | None = None
        self._scan: Scan | None = None

    def __repr__(self) -> str:
        return (
            f"Fields({len(self)} samples over {', '.join(self.layout.sample)}; {len(self.layout.channels)} channels; "
            f"{' x '.join(map(str, self.layout.shape))} over {', '.join(self.layout.space)})"
        )

    def __len__(self) -> int:
        return int(np.prod(self._store.sizes)) if self._index is None else len(self._index)

    @property
    def dataset(self) -> xr.Dataset:
        """The fields as a Dataset; a subset that is no product of its sample dims is stacked along ``sample``.

        Of a subset the dims that have no coordinate get one, which says which samples these are.
        """
        if self._index is None:
            return self._dataset
        bare = [d for d in self.layout.sample if d not in self._dataset.coords]
        whole = self._dataset.assign_coords({d: (d, np.arange(self._dataset.sizes[d])) for d in bare})
        coords = np.unravel_index(self._index, self._store.sizes)
        unique = [np.unique(c) for c in coords]
        mesh = np.ravel_multi_index(np.meshgrid(*unique, indexing="ij"), self._store.sizes).ravel()
        if np.array_equal(mesh, self._index):
            return whole.isel(dict(zip(self.layout.sample, unique, strict=True)))
        where = {dim: xr.DataArray(c, dims="sample") for dim, c in zip(self.layout.sample, coords, strict=True)}
        return whole.isel(where)

    def _base(self, indices: Any) -> np.ndarray:
        """Positions in the whole dataset of samples of this subset."""
        index = np.atleast_1d(np.asarray(indices))
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        if index.size and (index.min() < -len(self) or index.max() >= len(self)):
            raise IndexError(f"sample {index.max()} of {len(self)}")
        index = np.where(index < 0, index + len(self), index)
        return index if self._index is None else self._index[index]

    def read(self, indices: Any, window: tuple[slice, ...] | None = None) -> np.ndarray:
        """Values of some samples.

        Args:
            indices: Positions of samples, or a boolean mask over them.
            window: One slice per space dim; the whole domain by default.

        Returns:
            Array (n, C, *space) of float32, NaN where data are missing.

        Raises:
            DataError: Values are infinite, or a file cannot be read.
        """
        whole = tuple(slice(None) for _ in self.layout.space)
        return self._store.read(self._base(indices), whole if window is None else tuple(window))

    def labels(self, index: int) -> dict[str, object]:
        """Labels of one sample, such as ``{"scenario": "A1B", "year": 1860}``; positions where dims have none."""
        coords = np.unravel_index(int(self._base(index)[0]), self._store.sizes)
        out: dict[str, object] = {}
        for dim, i in zip(self.layout.sample, coords, strict=True):
            label = self._store.label(dim, int(i))
            out[dim] = label.item() if isinstance(label, np.generic) and label.dtype.kind in "iufbUS" else label
        return out

    def label_digest(self, index: int) -> str:
        """Text of one sample's labels, whatever the order, file or dtype: ``scenario=A1B;year=1860``."""
        coords = np.unravel_index(int(self._base(index)[0]), self._store.sizes)
        words = []
        for dim, i in sorted(zip(self.layout.sample, coords, strict=True)):
            words.append(f"{dim}={plain(self._store.label(dim, int(i)))}")
        return ";".join(words)

    def along(self, array: xr.DataArray) -> np.ndarray:
        """A DataArray over (some) sample dims as one value per sample."""
        wide = array.broadcast_like(xr.Dataset(coords={d: self._dataset[d] for d in self.layout.sample}))
        flat = wide.transpose(*self.layout.sample).values.reshape(-1)
        return flat if self._index is None else flat[self._index]

    def covariate(self, name: str) -> np.ndarray:
        """One covariate as one value per sample (numbers, text or dates)."""
        return self.along(self.covariates[name].reset_coords(drop=True))

    def times(self) -> np.ndarray | None:
        """The time of each sample (datetime64, cftime objects or numbers), or None if there is no time."""
        if self.layout.time is None or self.layout.time not in self._dataset.coords:
            return None
        return self.along(self._dataset[self.layout.time].reset_coords(drop=True))

    def select(self, indices: Any) -> Fields:
        """A subset of the samples, which shares what is in memory."""
        return Fields(
            self._dataset,
            self.layout,
            static=self.static,
            covariates=self.covariates,
            covariate_names=self.covariate_names,
            order=self.order,
            sources=self.sources,
            counts=dict(self.counts),
            warnings=self.warnings,
            _store=self._store,
            _index=self._base(indices),
        )

    def restore(self, ds: xr.Dataset) -> xr.Dataset:
        """A canonical dataset in the user's order of latitudes and longitudes, with the user's coordinate values."""
        return self.order.restore(ds)

    def scan(self) -> Scan:
        """Count and measure all values in one pass (kept after the first call); see ``undrift.data.scan``."""
        if self._scan is None:
            from undrift.data.scan import scan

            self._scan = scan(self)
        return self._scan

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex of what the data are.

        It covers the layout as JSON, the labels of the samples, the coordinates of space as float64, and values as
        little-endian float32 with one pattern for NaN: all of them up to 256 MB, beyond that those of 256 samples at
        even distances. File names, times of change and the original order of latitudes are not part of it.
        """
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self)
        return self._fingerprint


def _fingerprint(fields: Fields) -> str:
    import json

    digest = hashlib.sha256(json.dumps(fields.layout.to_dict(), sort_keys=True, default=str).encode())
    for i in range(len(fields)):
        digest.update(fields.label_digest(i).encode())
    for name in dict.fromkeys([*fields.layout.space, fields.layout.latitude, fields.layout.longitude]):
        if name is not None and name in fields._dataset.coords and fields._dataset[name].dtype.kind in "iuf":
            digest.update(np.ascontiguousarray(fields._dataset[name].values, dtype="<f8").tobytes())
    per_sample = 4 * len(fields.layout.channels) * int(np.prod(fields.layout.shape))
    index = np.arange(len(fields))
    if per_sample * len(fields) > _FINGERPRINT_BYTES:
        index = np.unique(np.linspace(0, len(fields) - 1, 256).round().astype(np.int64))
    step = max(1, (32 << 20) // max(per_sample, 1))
    for start in range(0, len(index), step):
        block = fields.read(index[start : start + step])
        digest.update(np.where(np.isnan(block), np.float32(np.nan), block).astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def coarsen(array: np.ndarray, factor: int, space: int = 2) -> np.ndarray:
    """Mean over blocks of ``factor`` cells along each of the last ``space`` dims, leaving NaN out.

    Args:
        array: Array (..., *shape).
        factor: Cells per block and dim.
        space: How many trailing dims are space.

    Returns:
        Array (..., *(n // factor for n in shape)); cells beyond a multiple of the factor at the far edge are not
        used. A block without any value is NaN.

    Raises:
        DataError: A dim is smaller than the factor.
    """
    shape = array.shape[array.ndim - space :]
    if any(n < factor for n in shape):
        raise DataError(
            f"a grid of {shape} is smaller than the factor {factor}; choose a factor of at most {min(shape)}"
        )
    array = array[(..., *(slice(0, n - n % factor) for n in shape))]
    lead = array.shape[: array.ndim - space]
    blocks = array.reshape(*lead, *(m for n in shape for m in (n // factor, factor)))
    axes = tuple(len(lead) + 2 * i + 1 for i in range(space))
    mean = blocks.mean(axis=axes, dtype=np.float64)
    if np.isnan(mean).any():
        count = np.isfinite(blocks).sum(axis=axes)
        with np.errstate(invalid="ignore"):
            mean = np.where(count > 0, np.nansum(blocks, axis=axes, dtype=np.float64) / np.maximum(count, 1), np.nan)
    return mean.astype(array.dtype if array.dtype.kind == "f" else np.float64)
