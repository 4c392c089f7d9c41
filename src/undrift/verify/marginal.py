"""One-point statistics: quantiles, histograms, and the share of zeros and of wet cells."""

__all__ = ["QUANTILES", "canonical_units", "histogram", "weighted_quantile", "wet_threshold"]

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)

_ALIASES = {"day": "d", "days": "d", "hr": "h", "hour": "h", "hours": "h", "sec": "s", "second": "s", "seconds": "s"}
_ALIASES |= {"kelvin": "K", "degK": "K", "celsius": "degC", "Celsius": "degC", "C": "degC", "°C": "degC"}
_ALIASES |= {"deg_C": "degC", "degrees_celsius": "degC", "degree_Celsius": "degC", "degrees_Celsius": "degC"}
_PER_MM_DAY = {
    "d-1 mm1": 1.0,
    "d-1 kg1 m-2": 1.0,
    "mm1 s-1": 1.0 / 86400,
    "kg1 m-2 s-1": 1.0 / 86400,
    "h-1 mm1": 1.0 / 24,
    "h-1 kg1 m-2": 1.0 / 24,
}
_DEPTH_PER_MM_DAY = {"m1 s-1": 1e-3 / 86400, "d-1 m1": 1e-3}
_RAIN = re.compile(r"precip|rain|snowfall|^pr$|^prec|^tp$", re.IGNORECASE)


def canonical_units(text: str) -> str:
    """One spelling for units that mean the same: "mm/day", "mm d-1" and "mm day**-1" are all "d-1 mm1"."""
    cleaned = text.strip().replace("**", "").replace("^", "").replace("·", " ").replace("*", " ")
    powers: dict[str, int] = {}
    for position, part in enumerate(cleaned.split("/")):
        for token in re.sub(r"\bper\b", " ", part).split():
            found = re.fullmatch(r"([A-Za-z_%°]+)([+-]?\d+)?", token)
            if not found:
                return text.strip()
            name = _ALIASES.get(found[1], found[1])
            powers[name] = powers.get(name, 0) + (-1 if position else 1) * int(found[2] or 1)
    return " ".join(f"{name}{power}" for name, power in sorted(powers.items()) if power)


def wet_threshold(units: str, names: Sequence[str] = ()) -> float | None:
    """1 mm/day in the given units of precipitation, None where the units are of something else.

    "m s-1" is precipitation only where a name (of the variable, its standard_name or long_name) says so: it is wind
    otherwise.
    """
    canonical = canonical_units(units)
    if canonical in _PER_MM_DAY:
        return _PER_MM_DAY[canonical]
    if any(_RAIN.search(name) for name in names):
        return _DEPTH_PER_MM_DAY.get(canonical)
    return None


def weighted_quantile(values: NDArray, weights: NDArray, q: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """Quantiles of weighted values, linear between the midpoints of their weights (Hazen's plotting position)."""
    if values.size == 0:
        return np.full(len(q), np.nan)
    order = np.argsort(values, kind="stable")
    sorted_values, sorted_weights = np.asarray(values, np.float64)[order], np.asarray(weights, np.float64)[order]
    positive = sorted_weights > 0
    sorted_values, sorted_weights = sorted_values[positive], sorted_weights[positive]
    position = (np.cumsum(sorted_weights) - sorted_weights / 2) / sorted_weights.sum()
    return np.interp(np.asarray(q), position, sorted_values)


def histogram(values: NDArray, weights: NDArray, edges: NDArray) -> NDArray[np.float64]:
    """Share of the weight within each bin: (bins,), summing to 1 where all values lie within the edges."""
    return np.histogram(values, edges, weights=weights)[0] / max(float(weights.sum()), np.finfo(float).tiny)
