"""Chunks that a Zarr store should have and has not."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undrift.errors import DataError

__all__ = ["MissingChunks", "missing_chunks"]


@dataclass(frozen=True)
class MissingChunks:
    """Chunks of one variable without a file.

    Attributes:
        total: Chunks in the grid.
        missing: Grid positions without a file, in a part of the domain that other samples have.
        masked: Grid positions without a file in parts of the domain that no sample has (a mask that was never written).
        first: The key of the first missing chunk.
        fill: What the store gives for them.
    """

    total: int
    missing: int
    masked: int
    first: str
    fill: Any


def missing_chunks(path: Path, variables: Iterable[str], space: int) -> dict[str, MissingChunks]:
    """Compare the keys of a Zarr store (format 2 or 3, in a directory) with the grid of its chunks.

    Args:
        path: The store.
        variables: Names of arrays.
        space: How many trailing dimensions are space.

    Raises:
        DataError: The metadata of an array cannot be read.
    """
    out = {}
    for name in variables:
        found = _one(path / name, space)
        if found is not None:
            out[name] = found
    return out


def _one(array: Path, space: int) -> MissingChunks | None:
    grid = _grid(array)
    if grid is None:
        return None
    shape, chunk, prefix, separator, fill = grid
    counts = [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]
    total = math.prod(counts)
    if total > 5_000_000:
        return None
    stored = {str(file.relative_to(array)).replace("\\", "/") for file in array.rglob("*") if file.is_file()}
    absent, present_space = [], set()
    for position in itertools.product(*map(range, counts)):
        key = separator.join([*prefix, *map(str, position)]) if position else (prefix[0] if prefix else "0")
        if key in stored:
            present_space.add(position[len(position) - space :])
        else:
            absent.append((position, key))
    if not absent:
        return None
    holes = [(p, k) for p, k in absent if p[len(p) - space :] in present_space]
    if not present_space:
        holes = absent
    return MissingChunks(total, len(holes), len(absent) - len(holes), (holes or absent)[0][1], fill)


def _grid(array: Path) -> tuple[list[int], list[int], list[str], str, Any] | None:
    """Shape, chunk shape, key prefix, separator and fill value of an array; None if it is kept some other way."""
    try:
        if (array / "zarr.json").exists():
            meta = json.loads((array / "zarr.json").read_text())
            encoding = meta.get("chunk_key_encoding", {"name": "default"})
            options = encoding.get("configuration", {})
            v2 = encoding["name"] == "v2"
            separator = options.get("separator", "." if v2 else "/")
            grid = meta["chunk_grid"]["configuration"]["chunk_shape"]
            return meta["shape"], grid, [] if v2 else ["c"], separator, meta.get("fill_value")
        if (array / ".zarray").exists():
            meta = json.loads((array / ".zarray").read_text())
            return meta["shape"], meta["chunks"], [], meta.get("dimension_separator", "."), meta.get("fill_value")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{array}: the metadata of this Zarr array cannot be read ({str(error)[:150]})") from error
    return None
