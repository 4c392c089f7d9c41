"""Files and roots that hold chains of parameters: CSV, NumPy, NetCDF, and the text that samplers write."""

from __future__ import annotations

import difflib
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from undrift.data.chain_objects import columns_of_object, from_samples, load_extra
from undrift.data.columns import Columns
from undrift.data.csv_table import read_csv
from undrift.data.ranges import read_paramnames, read_ranges
from undrift.data.sources import load_npy, sniff
from undrift.errors import DataError

__all__ = ["read_chain_path"]

_ZERO = 1e30  # minus the logarithm of 0 in the chains of CosmoMC
_NOT_SAMPLED = ("minuslogprior", "chi2")  # columns that Cobaya writes after the parameters


def read_chain_path(path: Path) -> Columns:
    """What a path holds: a file by its kind, else the chains whose names begin with it.

    Raises:
        DataError: there is nothing, or what is there cannot be read.
    """
    path = Path(re.sub(r"_(dead|phys_live)-birth\.txt$", "", str(path)))
    if nested := _nested_reader(str(path)):
        return _nested(path, nested)
    if not path.is_file() and (chains := _chain_files(path)):
        return _chains(path, chains)
    if path.exists():
        return _file(path)
    folder = path.parent
    near = sorted({re.split(r"[_.]", p.name)[0] for p in folder.glob("*")}) if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, near, n=1)
    raise DataError(
        f"{path}: no such file, and no chain of that root, such as {path.name}_1.txt, {path.name}.1.txt, "
        f"{path.name}.txt or {path.name}_dead-birth.txt"
        + (f"; did you mean {str(folder / close[0])!r}?" if close else "")
    )


def _file(path: Path) -> Columns:
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_csv(path)
    if path.suffix.lower() == ".txt":
        root = re.sub(r"([_.]\d+)?\.txt$", "", str(path))
        return _chains(Path(root), [path])
    kind = sniff(path)
    if kind == "npy":
        return columns_of_object(load_npy(path), str(path))
    if kind == "npz":
        return _archive(path)
    from undrift.data.chain_datasets import read_netcdf

    return read_netcdf(path)


def _archive(path: Path) -> Columns:
    """One array (n, D) of an .npz file, or its columns (n,) by name."""
    import pandas as pd

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as arrays of numbers ({str(error)[:150]})") from error
    shapes = {array.shape for array in arrays.values()}
    if len(arrays) == 1 and len(next(iter(shapes))) == 2:
        return columns_of_object(next(iter(arrays.values())), str(path))
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        listing = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"{path}: has {listing or 'nothing'}, expected one array (n, D) or columns (n,) by name")
    return columns_of_object(pd.DataFrame(arrays), str(path))


def _nested_reader(root: str) -> str | None:
    """The reader of anesthetic for a nested run of that root, None where there is none."""
    marks = {
        "polychord": f"{root}_dead-birth.txt",
        "multinest": f"{root}dead-birth.txt",
        "multinest ": f"{root}ev.dat",
        "ultranest": f"{root}/info/results.json",
        "nestedfit": f"{root}/nf_output_points.txt",
    }
    return next((name.strip() for name, mark in marks.items() if Path(mark).is_file()), None)


def _nested(path: Path, kind: str) -> Columns:
    """A nested run, whose weights anesthetic finds from the order of births and deaths."""
    from importlib import import_module

    load_extra("anesthetic", f"the nested run {path}")
    reader = getattr(import_module(f"anesthetic.read.{kind}"), f"read_{kind}")
    for suffix in ("_dead-birth.txt", "_phys_live-birth.txt") if kind == "polychord" else ():
        part = Path(f"{path}{suffix}")
        if part.is_file() and part.stat().st_size:
            names = _named(path)[0]
            _matrix(part, len(names) + 2 if names else None, "log-likelihood and birth log-likelihood")
    try:
        samples = reader(str(path))
    except (ValueError, OSError, KeyError, IndexError, TypeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise DataError(f"{path}: cannot be read as a run of {kind} ({reason}); it may be truncated") from error
    return _beside(path, from_samples(samples, str(path)), _named(path)[2])


def _chain_files(root: Path) -> list[Path]:
    """Numbered files of a root in their order, else the one without a number."""
    if not root.parent.is_dir():
        return []
    for separator in ("_", "."):
        form = re.compile(re.escape(root.name + separator) + r"(\d+)\.txt")
        found = [(int(m[1]), p) for p in root.parent.iterdir() if (m := form.fullmatch(p.name))]
        if found:
            return [p for _, p in sorted(found)]
    alone = root.with_name(root.name + ".txt")
    return [alone] if alone.is_file() else []


def _chains(root: Path, paths: list[Path]) -> Columns:
    """Chains in the form of GetDist: weight, minus the log-posterior, parameters."""
    names, labels, derived = _named(root)
    names = names or _header(paths[0])
    parts = [_matrix(p, len(names) + 2 if names else None, "weight and minus log-posterior") for p in paths]
    widths = {part.shape[1] for part, _ in parts}
    if len(widths) > 1 or min(widths) < 3:
        got = ", ".join(f"{p.name} {part.shape[1]}" for p, (part, _) in zip(paths, parts, strict=True))
        raise DataError(
            f"{root}: columns of its chains: {got}; expected the same number in each, of at least 3: weight, minus "
            "log-posterior and the parameters"
        )
    data = np.concatenate([part for part, _ in parts])
    names = names or [f"x{i}" for i in range(data.shape[1] - 2)]
    log_posterior = np.where(data[:, 1] >= _ZERO, -np.inf, -data[:, 1])
    columns = Columns(
        source=str(root),
        values=dict(zip(names, data[:, 2:].T, strict=True)),
        parameters=tuple(n for n in names if not n.startswith(_NOT_SAMPLED)),
        chain=np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts]),
        line=np.concatenate([lines for _, lines in parts]),
        origins=tuple(str(p) for p in paths),
        word="line",
        labels=labels,
        weights=data[:, 0],
        log_likelihood=log_posterior,
        log_posterior=log_posterior,
        sequential=True,
    )
    return _beside(root, columns, derived)


def _beside(root: Path, columns: Columns, derived: set[str]) -> Columns:
    """Bounds of the file beside a chain; what it fixes, and what is derived, is no parameter."""
    path = next((p for p in (Path(f"{root}.ranges"), Path(f"{root}.bounds")) if p.is_file()), None)
    if path is not None:
        bounds, periodic = read_ranges(path)
    elif (info := _cobaya_file(root)) is not None:
        from undrift.data.cobaya import read_cobaya

        bounds, periodic, labels, more = read_cobaya(info)
        columns, derived = replace(columns, labels={**labels, **columns.labels}), derived | more
    else:
        bounds, periodic = {}, set()
    fixed = {name for name, (low, high) in bounds.items() if low == high}
    kept = tuple(n for n in columns.parameters if n not in derived | fixed)
    return replace(columns, parameters=kept, bounds=bounds, periodic=tuple(sorted(periodic)))


def _cobaya_file(root: Path) -> Path | None:
    known = (Path(f"{root}.updated.yaml"), Path(f"{root}__full.yaml"))
    return next((p for p in known if p.is_file()), None)


def _named(root: Path) -> tuple[list[str], dict[str, str], set[str]]:
    """Names, labels and what is derived, as .paramnames says; all empty where there is none."""
    path = next((p for p in (Path(f"{root}.paramnames"), Path(f"{root}.paramnames.txt")) if p.is_file()), None)
    return read_paramnames(path) if path is not None else ([], {}, set())


def _header(path: Path) -> list[str]:
    """The names that a first line "# weight minuslogpost a b" gives to the columns after the second."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    words = first.removeprefix("#").split()
    return words[2:] if first.startswith("#") and words[:1] == ["weight"] else []


def _matrix(path: Path, width: int | None, lead: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Numbers of a text file and the line of each row.

    Raises:
        DataError: a line has another number of columns than the first, or than there are names, or a word is no number.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            texts = [(number, line) for number, line in enumerate(file, 1) if line.split("#", 1)[0].strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if not texts:
        raise DataError(f"{path}: holds no rows")
    if width is not None and (got := len(texts[0][1].split("#", 1)[0].split())) != width:
        raise DataError(
            f"{path}: line {texts[0][0]} has {got} columns, expected {width}: {width - 2} names are known beside "
            f"{lead}; correct the .paramnames file or the chain"
        )
    try:
        data = np.loadtxt([line for _, line in texts], ndmin=2)
    except ValueError:
        raise _wrong_line(path, texts) from None
    return data, np.array([number for number, _ in texts])


def _wrong_line(path: Path, texts: list[tuple[int, str]]) -> DataError:
    """The first line that is not as the first one."""
    width = len(texts[0][1].split("#", 1)[0].split())
    for number, line in texts:
        words = line.split("#", 1)[0].split()
        if len(words) != width:
            return DataError(
                f"{path}: line {number} has {len(words)} columns, expected {width} as line {texts[0][0]} has; the file "
                "may be cut off there"
            )
        for word in words:
            try:
                float(word)
            except ValueError:
                return DataError(f"{path}: line {number} has {word[:40]!r}, expected a number")
    return DataError(f"{path}: cannot be read as rows of numbers")
