"""Ensembles on disk: streamed in blocks, complete or not there.

An ensemble is written beside its final name (`.ENS.nc.partial-<pid>`), marked `complete: "true"`, synced and only then
renamed, so that a file under its final name is never half of something. NetCDF gets zlib and fletcher32, Zarr (v3)
gets zstd and crc32c on every array: one flipped bit is a read error instead of a wrong number. A finished Zarr has
consolidated metadata: any reader has all in one read, and the variables in the order of the template. Memory is that
of one block and a bounded chunk cache, whatever the number of realizations.
"""

__all__ = ["EnsembleWriter", "open_ensemble"]

import contextlib
import errno
import itertools
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.ensemble import open_ensemble
from undrift.data.stores import BlockLog, NetCDFStore, ZarrStore
from undrift.errors import DataError, IncompleteError, UndriftError, UsageError

log = logging.getLogger(__name__)

Indexer = int | slice | Sequence[int] | np.ndarray
CHUNK_BYTES = 1 << 20
_LOG = ".blocks.jsonl"


class EnsembleWriter:
    """Writes an ensemble block by block to `.nc` or `.zarr`; a context manager.

    Args:
        path: where the ensemble goes; the suffix `.nc` or `.zarr` chooses the format. Parents are created.
        template: what it will look like: every variable with dims (realization, *sample, *level, *space), all
            coordinates and attributes. The values of its variables are never read: lazy zeros will do.
        overwrite: replace an existing result, which stays in place until the new one is complete.
        sample: the dims that count samples, in the order in which they are flattened; by default those that follow
            `realization` and are not level or space, which only `sample` can tell: needed for flattened indices only.
        resume: text of what is written, for `.zarr`: what was written of the same before, by a process that was killed,
            is kept and told by :meth:`written`. Blocks have to be of whole chunks.
        chunks: chunk length per dim. By default whole levels and space, and as many realizations and then
            samples as make about 1 MiB. Blocks of whole chunks are written fastest.

    Raises:
        UsageError: the suffix is unknown, or the path exists without `overwrite`.
        UndriftError: the disk is full, or the path cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        template: xr.Dataset,
        overwrite: bool = False,
        *,
        sample: Sequence[str] | None = None,
        chunks: Mapping[str, int] | None = None,
        resume: str | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".nc", ".zarr"):
            raise UsageError(f"cannot write {self.path}: expected a name that ends in .nc or .zarr, e.g. --out ENS.nc")
        self.overwrite = overwrite
        self._refuse_existing()
        self.template = _tidy(template)
        self.sample = tuple(sample or ())
        self._sizes = {str(d): int(n) for d, n in template.sizes.items()}
        self.chunks = {name: _chunks(da, self.sample, chunks or {}) for name, da in self.template.data_vars.items()}
        resumable = resume is not None and self.path.suffix == ".zarr"
        self.partial = self.path.with_name(f".{self.path.name}.partial-{'resumable' if resumable else os.getpid()}")
        self._ledger = {name: np.zeros(_ledger_shape(da, self.sample), bool) for name, da in template.data_vars.items()}
        self._store: NetCDFStore | ZarrStore | None = None
        self._log = BlockLog(self.partial / _LOG, resume or "") if resumable else None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._log is not None and self._log.begun()
            for stale in sorted(self.path.parent.glob(f".{self.path.name}.partial-*")):
                if not (kept and stale == self.partial):
                    log.warning("%s is left from a run that did not finish; it is not used and may be deleted", stale)
            if not kept:
                _remove(self.partial)
            kind = NetCDFStore if self.path.suffix == ".nc" else ZarrStore
            self._store = (
                ZarrStore.again(self.partial, self.template) if kept else kind(self.partial, self.template, self.chunks)
            )
            for name, region in self._log.open() if self._log is not None else ():
                self._ledger[name][region[: self._ledger[name].ndim]] = True
        except (OSError, RuntimeError) as error:
            self.abort()
            raise self._explain(error) from error

    def write(
        self,
        realizations: int | slice,
        samples: Mapping[str, Indexer] | Indexer | None,
        block: Mapping[Any, Any],
    ) -> None:
        """Writes one block.

        Args:
            realizations: positions along `realization`.
            samples: positions of samples: a dict of dim -> slice or int; or None for all;
                or flattened indices (an int, a slice or a sequence) in the order of `sample`.
            block: per variable, values of shape (n_realizations, *sample sizes or n flattened samples, *level, *space).
                Variables that it lacks are left for another call.

        Raises:
            DataError: a variable or a shape does not fit the template.
            UndriftError: the disk is full or fails.
        """
        if self._store is None:
            raise UsageError(f"the writer of {self.path} is closed")
        rows = _as_slice(realizations, self._sizes["realization"], "realization")
        flat = samples is not None and not isinstance(samples, Mapping)
        named: dict[str, Indexer] = {} if flat or samples is None else dict(samples)  # type: ignore[arg-type]
        places = self._unravel(samples) if flat else [(None, named)]
        for name, values in block.items():
            if name not in self.template:
                raise DataError(f"variable {name!r} is not in the template of {self.path.name}: {list(self.template)}")
            values = np.asarray(values.values if isinstance(values, xr.DataArray) else values)
            if flat and (values.ndim < 2 or values.shape[1] != sum(p.stop - p.start for p, _ in places if p)):
                raise DataError(
                    f"a block of {name!r} has shape {values.shape}: the samples announced are its second axis"
                )
            for part, place in places:
                self._write_one(str(name), rows, place, values if part is None else values[:, part])

    def _write_one(self, name: str, rows: slice, place: Mapping[str, Indexer], values: np.ndarray) -> None:
        """Writes one hyperrectangle of one variable."""
        dims = [str(d) for d in self.template[name].dims]
        unknown = set(place) - set(dims)
        if unknown:
            raise DataError(f"{sorted(unknown)} are not dims of {name!r}, which has {dims}")
        at = {d: _as_slice(place.get(d), self._sizes[d], d) for d in dims}
        region = tuple(rows if d == "realization" else at[d] for d in dims)
        shape = tuple(s.stop - s.start for s in region)
        loose = tuple(n for n, d in zip(shape, dims) if not isinstance(place.get(d), int | np.integer))
        if values.shape not in (shape, loose):
            raise DataError(
                f"a block of {name!r} has shape {values.shape}, but {shape} was announced ({', '.join(dims)})"
            )
        try:
            assert self._store is not None
            self._store.write(name, region, values.reshape(shape))
            if self._log is not None:
                self._log.add(name, region)
        except (OSError, RuntimeError) as error:
            raise self._explain(error) from error
        self._ledger[name][region[: self._ledger[name].ndim]] = True

    def _unravel(self, samples: Any) -> list[tuple[slice, dict[str, Indexer]]]:
        """Flattened sample indices -> (where in the block, positions per dim) of each run of neighbours."""
        if not self.sample:
            raise UsageError("flattened sample indices need EnsembleWriter(..., sample=(dims that count samples))")
        sizes = tuple(self._sizes[d] for d in self.sample)
        total = int(np.prod(sizes))
        index = np.arange(total)[samples] if isinstance(samples, slice) else np.atleast_1d(np.asarray(samples))
        if index.size and (index.min() < 0 or index.max() >= total):
            raise UsageError(f"sample indices {index.min()}..{index.max()} are not within 0..{total - 1}")
        # runs of neighbours along the last sample dim go in one piece
        breaks = np.flatnonzero((np.diff(index) != 1) | (index[1:] % sizes[-1] == 0)) + 1
        places: list[tuple[slice, dict[str, Indexer]]] = []
        for run in np.split(np.arange(index.size), breaks) if index.size else []:
            start = [int(i) for i in np.unravel_index(index[run[0]], sizes)]
            at: dict[str, Indexer] = dict(zip(self.sample, start))
            at[self.sample[-1]] = slice(start[-1], start[-1] + run.size)
            places.append((slice(int(run[0]), int(run[-1]) + 1), at))
        return places

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Attributes of the result that are known once it is written."""
        if self._store is not None:
            self._store.annotate(attrs)

    def noted(self, name: str, absent: Any) -> Any:
        """An attribute that :meth:`annotate` gave to a result that is gone on with."""
        return absent if self._store is None else self._store.attributes().get(name, absent)

    def written(self, realization: int, samples: Mapping[str, int | slice]) -> bool:
        """Whether all variables have the fields of a realization at some samples already, see ``resume``."""
        for name, done in self._ledger.items():
            dims = [str(d) for d in self.template[name].dims[: done.ndim]]
            if not done[tuple(realization if d == "realization" else samples.get(d, slice(None)) for d in dims)].all():
                return False
        return True

    def missing(self) -> list[str]:
        """What was never written, one short text per variable (empty when complete)."""
        out = []
        for name, done in self._ledger.items():
            if not done.all():
                first = tuple(int(i) for i in np.argwhere(~done)[0])
                dims = self.template[name].dims[: done.ndim]
                where = ", ".join(f"{d}={i}" for d, i in zip(dims, first))
                out.append(f"{name}: {int((~done).sum())} of {done.size} fields, the first at {where}")
        return out

    def close(self) -> None:
        """Marks the result complete, syncs it and gives it its name.

        Raises:
            IncompleteError: a block was never written; what there is stays under the partial name.
        """
        if self._store is None:
            return
        missing = self.missing()
        try:
            self._store.finish(complete=not missing)
            self._store = None
            if self._log is not None:
                self._log.close(remove=not missing)
            _sync(self.partial)
            if missing:
                raise IncompleteError(
                    f"{self.path} is incomplete ({'; '.join(missing)}); what there is was left in {self.partial}"
                )
            self._rename()
        except (OSError, RuntimeError) as error:
            self.abort()
            raise self._explain(error) from error

    def abort(self) -> None:
        """Drops what was written unless it can be gone on with; the existing result, if any, is untouched."""
        if self._store is not None:
            with contextlib.suppress(Exception):
                self._store.finish(complete=False)
            self._store = None
        if self._log is not None:
            self._log.close(remove=False)
            return
        try:
            _remove(self.partial)
        except OSError:
            log.warning("%s could not be removed; it is a partial result", self.partial)

    def __enter__(self) -> "EnsembleWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _refuse_existing(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise UsageError(f"{self.path} exists already: choose another name or add --overwrite")

    def _rename(self) -> None:
        """Puts the finished result in place of whatever was there."""
        self._refuse_existing()
        if self.path.is_dir():  # a directory cannot be replaced in one step: the old one steps aside
            aside = self.path.with_name(f".{self.path.name}.old-{os.getpid()}")
            os.replace(self.path, aside)
            try:
                os.replace(self.partial, self.path)
            except OSError:
                os.replace(aside, self.path)
                raise
            _remove(aside)
        else:
            os.replace(self.partial, self.path)
        _sync_folder(self.path.parent)

    def _explain(self, error: Exception) -> UndriftError:
        """One sentence for a failed write, with the bytes needed where the disk is full."""
        need = sum(int(da.dtype.itemsize) * da.size for da in self.template.data_vars.values())
        folder = next((p for p in self.path.absolute().parents if p.exists()), Path("/"))
        free = shutil.disk_usage(folder).free
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # netCDF reports a full disk as a plain "HDF error": the free space tells
        if full or ("HDF" in str(error) and free < 2 * CHUNK_BYTES):
            return UndriftError(
                f"no space left on disk while writing {self.path}: up to {need:,} bytes are needed, {free:,} are free"
            )
        return UndriftError(f"cannot write {self.path}: {error}")


def _tidy(template: xr.Dataset) -> xr.Dataset:
    """The template with `realization` described, and without encodings of the files that it came from."""
    if "realization" not in template.dims:
        raise DataError(f"an ensemble needs the dim 'realization', the template has {list(template.sizes)}")
    out = template.drop_encoding()
    for name, variable in template.variables.items():
        keep = {k: v for k, v in variable.encoding.items() if k in ("units", "calendar")}
        out[name].encoding = keep if variable.dtype.kind in "mMO" else {}
    if "realization" not in out.coords:
        out = out.assign_coords(realization=np.arange(out.sizes["realization"]))
    out["realization"].attrs.setdefault("standard_name", "realization")
    for name, coord in out.coords.items():
        if coord.dtype.kind == "U":  # both formats write strings of any length as objects
            out = out.assign_coords({name: coord.astype(object)})
            out[name].attrs = dict(coord.attrs)
    return out


def _chunks(da: xr.DataArray, sample: Sequence[str], given: Mapping[str, int]) -> tuple[int, ...]:
    """Chunk lengths: whole fields, and realizations and then samples until about 1 MiB.

    Samples are drawn one after the other with all of their realizations, and scored so.
    """
    dims = [str(d) for d in da.dims]
    inner = [d for d in dims if d != "realization" and d not in sample] if sample else dims[-2:]
    size = {d: int(da.sizes[d]) if d in inner else 1 for d in dims}
    room = CHUNK_BYTES // max(1, int(np.prod(list(size.values()))) * da.dtype.itemsize)
    for dim in ["realization", *reversed([d for d in dims if d != "realization" and d not in inner])]:
        size[dim] = max(1, min(int(da.sizes[dim]), room))
        room //= size[dim]
    return tuple(max(1, min(int(given.get(d, size[d])), int(da.sizes[d]))) for d in dims)


def _ledger_shape(da: xr.DataArray, sample: Sequence[str]) -> tuple[int, ...]:
    """The leading dims whose fields are counted: realization and the sample dims, else the first two."""
    leading = list(itertools.takewhile(lambda d: d == "realization" or d in sample or not sample, da.dims))
    return tuple(int(da.sizes[d]) for d in (leading if sample else leading[:2]))


def _as_slice(at: Any, size: int, dim: str) -> slice:
    """A position or range along a dim -> slice with start and stop."""
    if at is None:
        return slice(0, size)
    if isinstance(at, int | np.integer):
        at = slice(int(at), int(at) + 1)
    elif not isinstance(at, slice):
        at = np.asarray(at)
        if at.size == 0 or (np.diff(at) != 1).any():
            raise UsageError(f"positions along {dim!r} must be a slice or consecutive, got {at.tolist()}")
        at = slice(int(at[0]), int(at[-1]) + 1)
    start, stop = at.start or 0, size if at.stop is None else at.stop
    if at.step not in (None, 1) or not 0 <= start <= stop <= size:
        raise UsageError(f"{dim}={start}:{stop} is outside of 0:{size}")
    return slice(start, stop)


def _remove(path: Path) -> None:
    """Deletes a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flushes a file, or every file and folder of a tree, to the disk."""
    if path.is_file():
        _sync_file(path)
    with ThreadPoolExecutor(8) as pool:
        for folder, _, names in os.walk(path):
            for _ in pool.map(_sync_file, [Path(folder, name) for name in names]):
                pass
            _sync_folder(Path(folder))


def _sync_file(path: Path) -> None:
    """Flushes one file."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
