"""Covariates of a sample as numbers: dates, numbers and names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import cftime
import numpy as np

from undrift.data.layout import plain
from undrift.errors import DataError

__all__ = ["Covariate", "Covariates"]

_DAY = 86400.0
_YEAR = 365.2425 * _DAY


def _seconds(values: np.ndarray) -> np.ndarray:
    """Seconds since 1970 of datetimes or cftime dates; days of other calendars count as they are."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[ms]").astype(np.float64) / 1e3
    first = values.ravel()[0]
    epoch = type(first)(1970, 1, 1, calendar=first.calendar)
    return np.array([(v - epoch).total_seconds() for v in values.ravel()])


def _year_share(values: np.ndarray) -> np.ndarray:
    """Share of the year that has passed, in [0, 1)."""
    if values.dtype.kind == "M":
        year = values.astype("datetime64[Y]")
        return (values - year.astype(values.dtype)) / ((year + 1).astype(values.dtype) - year.astype(values.dtype))
    clock = [(v.hour + v.minute / 60 + v.second / 3600) / 24 for v in values.ravel()]
    length = [360 if v.calendar == "360_day" else 365 + _is_leap(v) for v in values.ravel()]
    return (np.array([v.dayofyr - 1 for v in values.ravel()]) + np.array(clock)) / np.array(length)


def _is_leap(date: Any) -> bool:
    return bool(cftime.is_leap_year(date.year, calendar=date.calendar))


@dataclass(frozen=True)
class Covariate:
    """One covariate's way to numbers.

    Attributes:
        name: its name.
        kind: "number", "category" or "date".
        mean: of the number, or of the date in seconds.
        std: likewise.
        categories: names, in the order in which training met them.
        harmonics: for dates, which cycles the record resolves: "year", "day".
        low: least value in training (of a number, or of a date in seconds).
        high: greatest value in training.
        calendar: of dates that are no datetime64, such as "noleap".
        trend: whether dates count beside their cycles.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()
    harmonics: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    calendar: str = ""
    trend: bool = True

    @classmethod
    def fit(cls, name: str, values: np.ndarray, trend: bool = True) -> Self:
        """Learn from the training part."""
        if values.dtype.kind == "M" or (values.dtype.kind == "O" and hasattr(values.ravel()[0], "calendar")):
            seconds = _seconds(values)
            span = float(np.ptp(seconds))
            steps = np.diff(np.unique(seconds))
            cycles = ["year"] if span > 0.6 * _YEAR else []
            if len(steps) and np.median(steps) < 0.9 * _DAY and span > 0.6 * _DAY:
                cycles.append("day")
            return cls(
                name, "date", float(seconds.mean()), max(span / np.sqrt(12), 1.0), harmonics=tuple(cycles),
                low=float(seconds.min()), high=float(seconds.max()),
                calendar="" if values.dtype.kind == "M" else str(values.ravel()[0].calendar), trend=trend,
            )  # fmt: skip
        if values.dtype.kind in "iufb":
            v = values.astype(np.float64)
            if not np.isfinite(v).all():
                raise DataError(f"covariate {name!r} has {int((~np.isfinite(v)).sum())} missing or infinite values")
            return cls(name, "number", float(v.mean()), float(v.std()) or 1.0, low=float(v.min()), high=float(v.max()))
        return cls(name, "category", categories=tuple(dict.fromkeys(str(plain(v)) for v in values)))

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """(n, k) numbers of order one for the network."""
        if self.kind == "number":
            return ((values.astype(np.float64) - self.mean) / self.std)[:, None]
        if self.kind == "date":
            parts = [(_seconds(values) - self.mean) / self.std] if self.trend else []
            for cycle in self.harmonics:
                phase = _year_share(values) if cycle == "year" else (_seconds(values) % _DAY) / _DAY
                for k in (1, 2):
                    parts += [np.cos(2 * np.pi * k * phase), np.sin(2 * np.pi * k * phase)]
            return np.stack(parts, 1) if parts else np.zeros((len(values), 0))
        names = [str(plain(v)) for v in values]
        unknown = sorted(set(names) - set(self.categories))
        if unknown:
            raise DataError(f"{self.name} is {unknown[0]!r}, and training met only {', '.join(self.categories)}")
        return np.array([[float(n == c) for c in self.categories] for n in names])

    def outside(self, values: np.ndarray) -> float:
        """Share of values outside the training range."""
        if self.kind == "category" or not self.trend:
            return 0.0
        v = _seconds(values) if self.kind == "date" else values.astype(np.float64)
        return float(((v < self.low) | (v > self.high)).mean())


class Covariates:
    """All covariates together.

    Args:
        parts: the covariates, in the order asked.
        degree: of the polynomials in trends that a linear predictor is given.
    """

    def __init__(self, parts: Sequence[Covariate], degree: int = 1) -> None:
        self.parts = list(parts)
        self.degree = degree

    @classmethod
    def fit(cls, values: Mapping[str, np.ndarray], cycles: Collection[str] = ()) -> Self:
        """Learn from the training part, name -> one value per sample; of ``cycles`` only the time of year and day."""
        return cls([Covariate.fit(name, v, name not in cycles) for name, v in values.items()])

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [part.name for part in self.parts]

    @property
    def width(self) -> int:
        """Length of the vector."""
        return sum(
            len(p.categories) if p.kind == "category" else p.trend + 4 * len(p.harmonics) if p.kind == "date" else 1
            for p in self.parts
        )

    def vector(self, values: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        """(n, K) numbers for the network."""
        return np.concatenate([np.zeros((count, 0)), *(p.numbers(values[p.name]) for p in self.parts)], 1)

    def basis(self, values: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        """(n, F) features for a linear predictor: powers of trends, harmonics, names, trends by name."""
        trends, groups, rest = [], [], []
        for part in self.parts:
            numbers = part.numbers(values[part.name])
            if part.kind == "category":
                groups.append(numbers)
            elif part.trend:
                trends.append(numbers[:, :1])
                rest.append(numbers[:, 1:])
            else:
                rest.append(numbers)
        powers = range(1, self.degree + 1)
        out = [np.zeros((count, 0)), *(t**k for k in powers for t in trends), *rest, *groups]
        for group in groups:
            for trend in trends:
                out += [group * trend**k for k in powers]
        return np.concatenate(out, 1)

    def outside(self, values: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Share of values outside the training range, by name, where there is any."""
        shares = {p.name: p.outside(values[p.name]) for p in self.parts}
        return {name: share for name, share in shares.items() if share > 0}

    def to_list(self) -> list[dict[str, Any]]:
        """JSON-able form."""
        return [asdict(part) for part in self.parts]

    @classmethod
    def from_list(cls, parts: Sequence[Mapping[str, Any]]) -> Self:
        """Inverse of :meth:`to_list`."""
        fixed = [{**p, "categories": tuple(p["categories"]), "harmonics": tuple(p["harmonics"])} for p in parts]
        return cls([Covariate(**p) for p in fixed])
