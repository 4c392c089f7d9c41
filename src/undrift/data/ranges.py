"""Hard bounds and names of parameters, as the small text files beside a chain say them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from undrift.errors import DataError, UsageError

__all__ = ["read_paramnames", "read_ranges", "spoken_bounds", "typed_bounds"]

_YES, _NO = ("t", "true", "periodic"), ("f", "false", "n")
Ranges = tuple[dict[str, tuple[float, float]], set[str]]


def read_ranges(path: Path) -> Ranges:
    """Bounds by name and the names that are periodic, of lines ``name low high [periodic]`` with N where open.

    Raises:
        DataError: the file cannot be read, or a line has another form.
    """
    bounds: dict[str, tuple[float, float]] = {}
    periodic: set[str] = set()
    for number, line in _lines(path):
        words = line.split()
        try:
            if len(words) not in (3, 4):
                raise ValueError(f"{len(words)} words")
            bounds[words[0]] = _pair(words[1:3])
            if _turns(words[3:]):
                periodic.add(words[0])
        except ValueError as error:
            raise DataError(
                f"{path}: line {number} is {line.strip()!r} ({error}), expected a name, a lower and an upper bound, N "
                "where there is none, and periodic where they are one place"
            ) from None
    return bounds, periodic


def spoken_bounds(bounds: Mapping[str, Sequence[Any]]) -> Ranges:
    """The same of a mapping such as ``{"a": (0, None), "phase": (0, 360, "periodic")}``.

    Raises:
        UsageError: a value is no pair of rising numbers.
    """
    known, periodic = {}, set()
    for name, pair in bounds.items():
        try:
            words = list(pair)
            if isinstance(pair, str) or len(words) not in (2, 3):
                raise ValueError
            known[str(name)] = _pair(words[:2])
            if _turns(words[2:]):
                periodic.add(str(name))
        except (TypeError, ValueError):
            raise UsageError(
                f"the bounds of {name!r} are {pair!r}, expected a lower and an upper number, as (0, 1), None where open"
            ) from None
    return known, periodic


def typed_bounds(text: str) -> dict[str, tuple[float, float]]:
    """Bounds by name of text such as ``a=0/1,b=0/N``, N where open.

    Raises:
        UsageError: a part has another form.
    """
    known = {}
    for part in text.split(","):
        name, _, pair = part.rpartition("=")
        try:
            low, high = pair.split("/")
            if not name.strip() or name.strip() in known:
                raise ValueError
            known[name.strip()] = _pair([low.strip(), high.strip()])
        except ValueError:
            raise UsageError(
                f"got {part.strip()!r} among the bounds, expected each name once with a lower and an upper number, as "
                "a=0/1,b=0/N with N where open, or the name of a file"
            ) from None
    return known


def _pair(words: Sequence[Any]) -> tuple[float, float]:
    low, high = (
        open_end if word is None or word == "N" else float(word)
        for word, open_end in zip(words, (-math.inf, math.inf), strict=True)
    )
    if not low <= high:
        raise ValueError(f"{low:g} is not below {high:g}")
    return low, high


def _turns(words: Sequence[Any]) -> bool:
    word = str(words[0]).lower() if words else "f"
    if word not in _YES + _NO:
        raise ValueError(f"{words[0]!r} is neither periodic nor false")
    return word in _YES


def read_paramnames(path: Path) -> tuple[list[str], dict[str, str], set[str]]:
    """Names in the order of the columns, LaTeX by name, and the names that a star marks as derived.

    Raises:
        DataError: the file cannot be read, or a name is there twice.
    """
    names, labels, derived = [], {}, set()
    for number, line in _lines(path):
        word, *label = line.split(maxsplit=1)
        name = word.rstrip("*")
        if name in names:
            raise DataError(f"{path}: line {number} names {name!r} again, expected each parameter once")
        names.append(name)
        if word != name:
            derived.add(name)
        if label and label[0].strip():
            labels[name] = label[0].strip()
    return names, labels, derived


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without those that are empty or comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({getattr(error, 'strerror', None) or error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line
