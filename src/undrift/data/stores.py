"""What an ensemble is written to: a NetCDF file or a Zarr folder, and the log of the blocks that are on disk."""

__all__ = ["BlockLog", "NetCDFStore", "ZarrStore"]

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array
import netCDF4
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from undrift.data.netcdf import LOCK, write_dataset

CACHE_BYTES = 32 << 20


class BlockLog:
    """Which blocks are on disk: a line each, after the block, headed by what is written."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.file: Any = None

    def begun(self) -> bool:
        """Whether there is one of the same text."""
        try:
            with self.path.open() as lines:
                return json.loads(lines.readline()) == self.text
        except (OSError, ValueError):
            return False

    def open(self) -> list[tuple[str, tuple[slice, ...]]]:
        """Begin or go on; returns the blocks that are there, a line that was cut short left out."""
        found, begun = [], self.path.exists()
        if begun:
            for line in self.path.read_text().splitlines()[1:]:
                with contextlib.suppress(ValueError):
                    name, *region = json.loads(line)
                    found.append((name, tuple(slice(*part) for part in region)))
        self.file = self.path.open("a")
        self.file.write("\n" if begun else json.dumps(self.text) + "\n")
        self.file.flush()
        return found

    def add(self, name: str, region: tuple[slice, ...]) -> None:
        """A block that was written."""
        self.file.write(json.dumps([name, *([s.start, s.stop] for s in region)]) + "\n")
        self.file.flush()

    def close(self, remove: bool) -> None:
        """Leave it; ``remove`` it from a result that is complete."""
        if self.file is not None:
            self.file.close()
            self.file = None
        if remove:
            self.path.unlink(missing_ok=True)


class NetCDFStore:
    """The NetCDF side of the writer: coordinates by xarray, fields by netCDF4."""

    def __init__(self, path: Path, template: xr.Dataset, chunks: Mapping[Any, tuple[int, ...]]) -> None:
        coords = template.drop_vars(list(template.data_vars))
        encoding = {
            name: {"fletcher32": True, "zlib": True, "complevel": 1}
            for name, c in coords.variables.items()
            if c.ndim and (c.dtype.kind in "iufmM" or (c.dtype.kind == "O" and not isinstance(c.values.flat[0], str)))
        }
        write_dataset(coords.assign_attrs(complete="false"), path, encoding=encoding)
        with LOCK:
            self._define(path, template, chunks)

    def _define(self, path: Path, template: xr.Dataset, chunks: Mapping[Any, tuple[int, ...]]) -> None:
        """Open the file and define its fields."""
        self.file = netCDF4.Dataset(path, "a")
        if "coordinates" in self.file.ncattrs():
            self.file.delncattr("coordinates")
        for name, da in template.data_vars.items():
            for dim, size in zip(da.dims, da.shape):
                if dim not in self.file.dimensions:
                    self.file.createDimension(str(dim), size)
            kind = np.dtype(da.dtype)
            fill = kind.type(np.nan) if kind.kind == "f" else False
            create: Any = self.file.createVariable
            options = {"zlib": True, "complevel": 1, "shuffle": True, "fletcher32": True}
            variable = create(str(name), kind, da.dims, chunksizes=chunks[name], fill_value=fill, **options)
            variable.set_var_chunk_cache(size=CACHE_BYTES, nelems=1009, preemption=1.0)
            variable.setncatts({k: v for k, v in da.attrs.items() if v is not None})
            aux = [str(c) for c in da.coords if c not in da.dims]
            if aux:
                variable.setncattr("coordinates", " ".join(aux))

    def write(self, name: str, region: tuple[slice, ...], values: np.ndarray) -> None:
        """Put values into a part of a variable."""
        with LOCK:
            self.file.variables[name][region] = values

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Add attributes of the whole."""
        with LOCK:
            self.file.setncatts(dict(attrs))

    def attributes(self) -> dict[str, Any]:
        """Attributes of the whole."""
        with LOCK:
            return {name: self.file.getncattr(name) for name in self.file.ncattrs()}

    def finish(self, complete: bool) -> None:
        """Say whether it is complete, and close it."""
        with LOCK:
            self.file.setncattr("complete", "true" if complete else "false")
            self.file.close()


class ZarrStore:
    """The Zarr side of the writer: metadata and coordinates by xarray, fields by zarr."""

    def __init__(self, path: Path, template: xr.Dataset, chunks: Mapping[Any, tuple[int, ...]]) -> None:
        encoding: dict[Any, dict[str, Any]] = {
            name: {"compressors": (ZstdCodec(level=3), Crc32cCodec())} for name in template.variables
        }
        for name, da in template.data_vars.items():
            encoding[name]["chunks"] = chunks[name]
            if da.dtype.kind == "f":
                encoding[name]["_FillValue"] = np.nan
        lazy = template.assign(  # one task each, never computed: a graph of every chunk would grow with the ensemble
            {
                name: (da.dims, dask.array.zeros(da.shape, dtype=da.dtype, chunks=da.shape), da.attrs)
                for name, da in template.data_vars.items()
            }
        )
        with zarr.config.set({"array.write_empty_chunks": True}):  # a time of 0 after its epoch is a chunk too
            lazy.assign_attrs(complete="false").to_zarr(
                path, mode="w-", compute=False, zarr_format=3, consolidated=False, encoding=encoding, safe_chunks=False
            )
        self._open(path, template)

    @classmethod
    def again(cls, path: Path, template: xr.Dataset) -> "ZarrStore":
        """What another process began."""
        out = cls.__new__(cls)
        out._open(path, template)
        return out

    def _open(self, path: Path, template: xr.Dataset) -> None:
        # a chunk of NaN must be on disk too: an absent chunk then always means a lost one
        with zarr.config.set({"array.write_empty_chunks": True}):
            self.group = zarr.open_group(path, mode="r+", use_consolidated=False)
            self.arrays: dict[str, Any] = {str(name): self.group[str(name)] for name in template.data_vars}
        self.path, self.names = path, [str(name) for name in template.variables]

    def write(self, name: str, region: tuple[slice, ...], values: np.ndarray) -> None:
        """Put values into a part of a variable."""
        self.arrays[name][region] = values

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Add attributes of the whole."""
        self.group.attrs.update(dict(attrs))

    def attributes(self) -> dict[str, Any]:
        """Attributes of the whole."""
        return dict(self.group.attrs)

    def finish(self, complete: bool) -> None:
        """Say whether it is complete, and close it."""
        self.group.attrs["complete"] = "true" if complete else "false"
        # as zarr.consolidate_metadata, which warns of format 3 whatever the reader, and sorts by name
        metadata = {name: json.loads((self.path / name / "zarr.json").read_text()) for name in self.names}
        root = self.path / "zarr.json"
        inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
        root.write_text(json.dumps(json.loads(root.read_text()) | {"consolidated_metadata": inline}, indent=2))
