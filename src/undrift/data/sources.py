"""Reading of files and arrays into datasets, with one sentence for whatever is wrong with them."""

from __future__ import annotations

import glob
import math
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from undrift.data.cf import role_of_name
from undrift.data.dims import suggest_dims
from undrift.data.netcdf import groups, open_dataset
from undrift.errors import DataError

__all__ = ["expand", "from_array", "load_npy", "read_path", "sniff", "split_variable"]

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_ERRORS = (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError, ImportError)


def expand(data: str | Path | Sequence[str | Path]) -> list[Path]:
    """Paths and globs as a sorted list of existing paths, each with the ``:variable`` that was typed after it.

    Raises:
        DataError: A path does not exist, or a pattern matches nothing.
    """
    out: list[Path] = []
    for item in [data] if isinstance(data, str | Path) else data:
        text = str(item)
        if Path(text).exists():
            out.append(Path(text))
            continue
        base, variable = split_variable(text)
        if variable:
            out += [Path(f"{path}:{variable}") for path in expand(base)]
            continue
        if not glob.has_magic(text):
            near = sorted(p.name for p in Path(text).parent.glob("*"))[:200] if Path(text).parent.is_dir() else []
            raise DataError(f"{text}: no such file or directory{_near(Path(text).name, near)}")
        found = sorted(Path(p) for p in glob.glob(text, recursive=True))
        if not found:
            raise DataError(f"{text}: no file matches this pattern; quote it and try `ls {text}`")
        out += found
    if not out:
        raise DataError("no data given; name at least one file")
    return list(dict.fromkeys(out))


def split_variable(path: str | Path) -> tuple[str, str]:
    """``pair.npz:lr`` as the file and one variable of it; "" where none is named."""
    base, _, variable = str(path).rpartition(":")
    there = base and not Path(path).exists() and (Path(base).exists() or glob.has_magic(base))
    return (base, variable) if there and variable and "/" not in variable else (str(path), "")


def _near(word: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, [str(name) for name in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_path(path: Path, dims: tuple[str, ...] | None, variables: Sequence[str] | None, chunks: Any) -> xr.Dataset:
    """One file or store as a lazily read, CF-decoded dataset.

    Args:
        path: An existing file or directory, ``file:variable`` for one variable of it and what has fewer dims.
        dims: The user's names of dimensions, needed where the file has none.
        variables: The variables asked for, read alone from .npz.
        chunks: What xarray takes: None reads without dask.

    Raises:
        DataError: The file is damaged, of another kind than it says, or of a kind that cannot be read.
    """
    base, variable = split_variable(path)
    path = Path(base)
    kind = sniff(path)
    if variable and kind == "npy":
        raise DataError(f"{path}: is one array without a name; type it without :{variable}")
    variables = [variable] if variable else variables
    if kind == "npy":
        name = _name(
            path.stem if chunks is None else re.sub(r"[-_.]*\d+$", "", path.stem)
        )  # one of several: run_01, run_02
        return from_array(load_npy(path), dims, name=name, source=str(path))
    if kind == "npz":
        return _read_npz(path, dims, variables)
    engine = {"zarr": "zarr", "hdf5": None, "netcdf3": "netcdf4", "unknown": None}[kind]
    ds = _open(path, engine, chunks)
    if kind == "netcdf3":
        _check_netcdf3_size(path, ds)
    if not ds.data_vars:
        raise DataError(f"{path}: holds no variable at its top level{_groups(path, kind)}")
    if variable:
        ds = _alone(ds, variable, path)
    return name_dims(ds, dims, str(path))


def _alone(ds: xr.Dataset, variable: str, path: Path) -> xr.Dataset:
    """One variable, with those that have fewer dims than it."""
    if variable not in ds.data_vars:
        raise DataError(f"{path}: has no variable {variable!r}; there are {', '.join(map(str, ds.data_vars))}")
    return ds[[name for name, v in ds.data_vars.items() if name == variable or v.ndim < ds[variable].ndim]]


def _groups(path: Path, kind: str) -> str:
    """The groups of a file, for a sentence about one without variables at its root."""
    if kind == "zarr":
        names = sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    else:
        names = groups(path)
    what = (
        "type --task density for its posterior" if "posterior" in names else "copy one of them into a file of its own"
    )
    return f", only groups ({', '.join(names[:8])}); {what}" if names else ""


def sniff(path: Path) -> str:
    """What a path is, by its first bytes: zarr, hdf5, netcdf3, npy or npz.

    Raises:
        DataError: It is nothing that undrift reads.
    """
    if path.is_dir():
        if any((path / mark).exists() for mark in _ZARR_MARKS):
            return "zarr"
        inside = sorted(p.name for p in path.iterdir())[:3]
        hint = f"it holds {', '.join(inside)}; to read the files in it type '{path}/*.nc'" if inside else "it is empty"
        raise DataError(f"{path}: is a directory and no Zarr store; {hint}")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        return "npz" if path.suffix != ".zip" else "zarr"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05"):
        return "netcdf3"
    if head.startswith(b"GRIB"):
        raise DataError(f"{path}: is GRIB; convert it first, for example `cdo -f nc copy {path} {path.stem}.nc`")
    if not any(byte < 9 for byte in head):
        start = head[:40].decode("utf-8", "replace").splitlines()[0]
        raise DataError(f"{path}: is text (it starts {start!r}) and no NetCDF, Zarr, HDF5 or NumPy file")
    raise DataError(f"{path}: is no NetCDF, Zarr, HDF5 or NumPy file (its first bytes are {head[:8]!r})")


def _open(path: Path, engine: Any, chunks: Any) -> xr.Dataset:
    """Open with xarray; undecodable times are left as numbers, and files without dimension names get phony ones."""
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "BEST_EFFORT")  # file systems without locks are common on clusters
    tries: list[dict[str, Any]]
    if engine is None:
        tries = [{"engine": "netcdf4"}, {"engine": "h5netcdf", "backend_kwargs": {"phony_dims": "access"}}]
    elif engine == "zarr":
        tries = [{"engine": "zarr", "backend_kwargs": {"consolidated": None}}]
    else:
        tries = [{"engine": engine}]
    failure: BaseException | None = None
    for options in tries:
        for decode in (True, False):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    common = {"chunks": chunks, "decode_times": decode, "decode_timedelta": False}
                    if options["engine"] == "netcdf4":
                        ds = open_dataset(path, **common)
                    else:
                        ds = xr.open_dataset(_store(path, engine), **common, **options)
                if not decode:
                    ds.attrs["undrift_undecoded_times"] = 1
                return ds
            except _ERRORS as error:
                failure = failure or error
                if "time" not in str(error).lower():
                    break
    kind = {"zarr": "Zarr store", None: "NetCDF or HDF5 file"}.get(engine, "NetCDF file")
    reason = str(failure).split("\n")[0][:200]
    raise DataError(
        f"{path}: cannot be read as a {kind} ({type(failure).__name__}: {reason}); it may be truncated or damaged"
    )


def _store(path: Path, engine: Any) -> Any:
    """What xarray opens: the path, or the zipped Zarr store in it."""
    if engine == "zarr" and path.is_file():
        from zarr.storage import ZipStore

        return ZipStore(path, mode="r")
    return path


def _check_netcdf3_size(path: Path, ds: xr.Dataset) -> None:
    """Refuse a classic file that is shorter than its header says; the C library would fill the rest with zeros."""
    need = sum(
        int(np.prod(v.shape, dtype=np.int64)) * np.dtype(v.encoding.get("dtype", v.dtype)).itemsize
        for v in ds.variables.values()
        if np.dtype(v.encoding.get("dtype", v.dtype)).kind in "biufS"
    )
    have = path.stat().st_size
    if have < need:
        raise DataError(f"{path}: is truncated: {have} bytes where its header asks for at least {need}; copy it again")


def name_dims(ds: xr.Dataset, dims: tuple[str, ...] | None, source: str) -> xr.Dataset:
    """Give the user's names to the dimensions of a dataset: by position, unless they already are its names."""
    phony = any(str(dim).startswith("phony_dim") for dim in ds.dims)
    if dims is None:
        if phony:
            shapes = {str(name): v.shape for name, v in ds.data_vars.items()}
            biggest = max(shapes, key=lambda name: (len(shapes[name]), math.prod(shapes[name])))
            raise DataError(
                f"{source}: the dimensions have no names ({biggest} has shape {shapes[biggest]}); "
                f"say what they are, for example {suggest_dims(shapes[biggest], source)}"
            )
        return ds
    if set(dims) <= set(map(str, ds.dims)):
        return ds
    old = next((list(map(str, v.dims)) for v in ds.data_vars.values() if v.ndim == len(dims)), None)
    if not phony and old is not None:
        return ds.rename({a: b for a, b in zip(old, dims, strict=True) if a != b})
    arrays: dict[str, xr.Variable] = {}
    for name, array in ds.data_vars.items():
        named = _dims_for(array.shape, dims, ds, str(name))
        if named is not None:
            variable = array.variable.copy(deep=False)
            variable.dims = named
            arrays[str(name)] = variable
    if not any(len(v.dims) == len(dims) for v in arrays.values()):
        shapes = ", ".join(f"{name} {tuple(map(str, v.dims))} {v.shape}" for name, v in list(ds.data_vars.items())[:5])
        raise DataError(f"{source}: --dims {','.join(dims)} names {len(dims)} dimensions; there are {shapes}")
    return _dataset(arrays, source)


def _dims_for(shape: Sequence[int], dims: tuple[str, ...], like: Any, name: str) -> tuple[str, ...] | None:
    """Names for an array of as many dims as named; fewer are the leading samples or the trailing space; else None."""
    del like, name
    if len(shape) == len(dims):
        return dims
    space = [d for d in dims if role_of_name(d) in ("x", "y", "z")]
    sample = [d for d in dims if role_of_name(d) not in ("x", "y", "z", "level")]
    if len(shape) == len(space) and len(shape) > 1:
        return tuple(space)
    if 1 <= len(shape) <= len(sample):
        return tuple(sample[: len(shape)])
    return None


def _dataset(arrays: dict[str, xr.Variable], source: str) -> xr.Dataset:
    """A dataset of variables; fields that disagree about a size are an error, lesser arrays are left out."""
    full = max(v.ndim for v in arrays.values())
    fields = {name: v for name, v in arrays.items() if v.ndim == full}
    sizes: dict[Any, tuple[int, str]] = {}
    for name, v in fields.items():
        for dim, n in zip(v.dims, v.shape, strict=True):
            if dim in sizes and sizes[dim][0] != n:
                other = sizes[dim][1]
                raise DataError(
                    f"{source}: {other!r} {fields[other].shape} and {name!r} {v.shape} are on different grids; "
                    f"choose one with --variables {name}, or name it after the file: {source}:{name}"
                )
            sizes[dim] = (n, name)
    keep = {
        name: v
        for name, v in arrays.items()
        if name in fields or all(sizes.get(dim, (0, ""))[0] == n for dim, n in zip(v.dims, v.shape, strict=True))
    }
    return xr.Dataset(keep)


def from_array(array: np.ndarray, dims: tuple[str, ...] | None, *, name: str, source: str) -> xr.Dataset:
    """A plain array as a dataset with one variable.

    Raises:
        DataError: No dims given (the sentence has the line to type), a wrong number of them, or values that are no
            numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{source}: holds {array.dtype} values; fields must be real numbers")
    if array.ndim < 2:
        raise DataError(f"{source}: has shape {array.shape}; fields need a dim of samples and at least one of space")
    if dims is None:
        raise DataError(
            f"{source}: NumPy arrays have no names of dimensions; got shape {array.shape}; "
            f"say what they are, for example {suggest_dims(array.shape, source)}"
        )
    if len(dims) != array.ndim:
        raise DataError(
            f"{source}: --dims {','.join(dims)} names {len(dims)} dimensions and the shape is {array.shape}; "
            f"type for example {suggest_dims(array.shape, source)}"
        )
    return xr.Dataset({name: (dims, array)})


def _name(stem: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in stem) or "field"


def _npy_header(file: BinaryIO, source: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and header length of an .npy stream, refusing objects."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise DataError(f"{source}: is a damaged NumPy file ({str(error)[:150]})") from error
    if dtype.hasobject:
        raise DataError(f"{source}: holds Python objects, which undrift never unpickles; save plain numbers")
    return shape, dtype, file.tell()


def load_npy(path: Path) -> np.ndarray:
    """An .npy file as a memory map; a DataError for objects, and for a header that claims more than the file has."""
    with path.open("rb") as file:
        shape, dtype, offset = _npy_header(file, str(path))
    need = offset + math.prod(shape) * dtype.itemsize
    have = path.stat().st_size
    if have < need:
        raise DataError(f"{path}: claims shape {shape} of {dtype} ({need} bytes) and has {have} bytes; it is truncated")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_npz(path: Path, dims: tuple[str, ...] | None, variables: Sequence[str] | None) -> xr.Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {}
            for info in archive.infolist():
                source = f"{path}[{info.filename.removesuffix('.npy')}]"
                with archive.open(info) as file:
                    shape, dtype, offset = _npy_header(file, source)  # pyright: ignore[reportArgumentType]
                if offset + math.prod(shape) * dtype.itemsize > info.file_size:
                    raise DataError(
                        f"{source}: claims shape {shape} of {dtype} and has {info.file_size} bytes; it is damaged"
                    )
                shapes[info.filename.removesuffix(".npy")] = (shape, dtype)
        numbers = {name: shape for name, (shape, dtype) in shapes.items() if dtype.kind in "biuf" and len(shape) > 0}
        if not numbers:
            raise DataError(f"{path}: holds no array of numbers")
        absent = [name for name in variables or () if name not in shapes]
        if absent and len(absent) == len(variables or ()):
            raise DataError(f"{path}: has no array {absent[0]!r}; there are {', '.join(numbers)}")
        if dims is None:
            names = [name for name in variables or () if name in numbers] or list(numbers)
            biggest = max(names, key=lambda name: (len(numbers[name]), math.prod(numbers[name])))
            listing = ", ".join(f"{name} {shape}" for name, shape in numbers.items())
            raise DataError(
                f"{path}: NumPy arrays have no names of dimensions; got {listing}; "
                f"say what they are, for example {suggest_dims(numbers[biggest], str(path))}"
            )
        wanted = {
            name: shape
            for name, shape in numbers.items()
            if not variables or name in variables or len(shape) < len(dims)
        }
        arrays: dict[str, xr.Variable] = {}
        with np.load(path, allow_pickle=False) as archive:
            for name, shape in wanted.items():
                named = _dims_for(shape, dims, None, name)
                if named is not None:
                    arrays[name] = xr.Variable(named, archive[name])
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is a damaged .npz archive ({str(error)[:150]})") from error
    if not any(v.ndim == len(dims) for v in arrays.values()):
        listing = ", ".join(f"{name} {shape}" for name, shape in numbers.items())
        raise DataError(f"{path}: --dims {','.join(dims)} names {len(dims)} dimensions; there are {listing}")
    return _dataset(arrays, str(path))
