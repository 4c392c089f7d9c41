"""Durations, realizations and seeds as they are typed."""

from __future__ import annotations

__all__ = ["parse_duration", "parse_realizations", "valid_seed"]

import math
import re
from numbers import Integral
from typing import Any

from undrift.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)", re.IGNORECASE)


def parse_duration(value: str | float) -> float:
    """Read a duration, the same way wherever one is typed.

    Args:
        value: Text such as ``90s``, ``3m``, ``2min``, ``2h``, ``1h30m``, or a number of seconds.

    Returns:
        The duration in seconds, positive and finite.

    Raises:
        UsageError: The text is no duration, or it is not positive.
    """
    advice = "type a duration such as 90s, 3m, 2h or 1h30m"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UsageError(f"got the duration {value!r}; {advice}")
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise UsageError(f"got the duration {text!r}; {advice}") from None
        seconds = sum(float(number) * _UNITS[unit[0].lower()] for number, unit in parts)
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"got the duration {text!r}, expected one longer than zero and finite; {advice}")
    return seconds


def parse_realizations(value: int | slice | str) -> slice:
    """Read which realizations are meant, the same way wherever they are named.

    Args:
        value: How many (20, "20"), or which ("100:200" or a slice; the end is not among them).

    Returns:
        The slice of a whole ensemble.

    Raises:
        UsageError: It is no number and no range, or it is empty.
    """
    start: Any = 0
    stop: Any = value
    step: Any = None
    if isinstance(value, slice):
        start, stop, step = value.start or 0, value.stop, value.step
    elif isinstance(value, str):
        first, colon, last = (word.strip() for word in value.partition(":"))
        words = [first or "0", last] if colon else ["0", first]
        if all(word.isdecimal() for word in words):
            start, stop = (int(word) for word in words)
    whole = isinstance(start, Integral) and isinstance(stop, Integral) and step in (None, 1)
    if not whole or not 0 <= int(start) < int(stop):
        raise UsageError(f"got --realizations {value}, expected a number such as 20 or a range such as 100:200")
    return slice(int(start), int(stop))


def valid_seed(seed: int) -> int:
    """The seed, where noise can be keyed by it.

    Raises:
        UsageError: It is no whole number from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise UsageError(f"got the seed {seed}, expected a whole number of at least 0, such as --seed 0")
    return int(seed)
