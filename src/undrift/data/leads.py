"""Pairs of states of a record and the lead time between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import xarray as xr

from undrift.config import parse_duration
from undrift.data.fields import Fields
from undrift.data.frames import later, single_steps
from undrift.errors import DataError, UsageError

__all__ = ["Clock", "Lead", "Pairs", "lead_lines", "leads_of", "longest_steps", "places_of", "starts_in"]

Lead = str | float | np.timedelta64 | timedelta
"""A lead time: text such as ``"90min"``, a timedelta, or a number where times are numbers."""

_MONTH = 30.436875 * 86400e9  # nanoseconds
_ZERO = re.compile(r"0+(\.0*)?\s*[a-zA-Z]*")
_APART = 10**6  # steps between frames of which none follows the other
_SERIES = 10**9


@dataclass(frozen=True)
class Clock:
    """How the lead times of a record are counted: everything inside counts them in steps of the record.

    Attributes:
        step: from one frame to the next: nanoseconds of dates, else a number in the unit of the times.
        dates: whether times are dates.
        months: of a frame, where steps are not all alike, as those of months, and leads are numbers of frames; else 0.
    """

    step: float = 1.0
    dates: bool = False
    months: int = 0

    @classmethod
    def of(cls, times: np.ndarray | None) -> Clock:
        """That of the times of a record, ascending; of positions where there are none.

        Raises:
            DataError: there are fewer than two, or they do not ascend.
        """
        if times is None:
            return cls()
        _, step = single_steps(times)
        dates = times.dtype.kind == "M" or times.dtype == object
        months = 0
        if dates and step > 0.9 * _MONTH:
            since = np.array([np.timedelta64(d) for d in np.diff(times)]).astype("timedelta64[ns]").astype(np.float64)
            months = 0 if np.allclose(since / step, np.round(since / step), rtol=0, atol=1e-6) else round(step / _MONTH)
        return cls(step, dates, months)

    def steps(self, lead: Lead) -> float:
        """A lead in steps, 0 or more.

        Raises:
            UsageError: it is no duration where times are dates, or no number where they are not.
        """
        if not self.dates or self.months:
            unit = "frames, as steps are not all alike" if self.months else "a number, as the times are"
            try:
                number = float(lead)  # pyright: ignore[reportArgumentType]
            except (TypeError, ValueError):
                number = np.nan
            if isinstance(lead, bool) or not np.isfinite(number) or number < 0:
                raise UsageError(f"got the lead time {lead!r}, expected {unit}; type 2 or 2.5")
            return number if self.months else number / self.step
        if isinstance(lead, np.timedelta64 | timedelta):
            return float(np.timedelta64(lead) / np.timedelta64(1, "ns")) / self.step
        text = str(lead).strip()
        if _ZERO.fullmatch(text):
            return 0.0
        if text.replace(".", "", 1).isdigit():
            raise UsageError(f"got the lead time {text}, expected one with its unit; type {text}h")
        return parse_duration(text) * 1e9 / self.step

    def lead(self, steps: float) -> Any:
        """A number of steps as a timedelta64, or as a number where times are none."""
        if self.dates and not self.months:
            return np.timedelta64(round(steps * self.step), "ns")
        return float(steps) if self.months else float(steps * self.step)

    def after(self, times: np.ndarray, steps: float) -> np.ndarray:
        """Times moved on by a number of steps; between those of months on the straight line."""
        if self.months:
            lead, whole = xr.DataArray([0, 1], dims="frame", attrs={"months": self.months}), int(np.floor(steps))
            before, after = (later(times, n, lead) for n in (whole, whole + 1))
            return before if steps == whole else before + (after - before) * (steps - whole)
        if not self.dates:
            return times + self.lead(steps)
        if times.dtype == object:
            return times + timedelta(microseconds=steps * self.step / 1e3)
        return times + self.lead(steps)

    def text(self, steps: float) -> str:
        """A lead as it is typed: ``6h``, ``90min`` or a number."""
        lead = self.lead(steps)
        if not isinstance(lead, np.timedelta64):
            return f"{lead:g}"
        seconds = float(lead / np.timedelta64(1, "s"))
        size, unit = next(((n, u) for n, u in ((3600, "h"), (60, "min")) if seconds % n == 0), (1, "s"))
        return f"{seconds / size:g}{unit}"

    def to_array(self) -> np.ndarray:
        """Numbers that hold it."""
        return np.array([self.step, self.dates, self.months], dtype=np.float64)

    @classmethod
    def from_array(cls, numbers: np.ndarray) -> Clock:
        """Inverse of :meth:`to_array`."""
        return cls(float(numbers[0]), bool(numbers[1]), int(numbers[2]))


def places_of(fields: Fields) -> np.ndarray:
    """Of each sample its place along time in whole steps; far apart where a gap or another series lies between."""
    time, store = fields.layout.time, fields._store
    if time is None:
        raise DataError("lead times need a time, and the data have none; name the dims with --dims time,y,x")
    axis = fields.layout.sample.index(time)
    coords = list(np.unravel_index(fields._base(np.arange(len(fields))), store.sizes))
    along, steps = coords[axis], np.arange(store.sizes[axis])
    if time in fields._dataset.coords and len(steps) > 1:
        apart = single_steps(fields._dataset[time].values)[0]
        steps = np.concatenate([[0], np.cumsum(np.where(apart > 0, apart, _APART))])
    coords[axis] = np.zeros_like(along)
    return steps[along] + _SERIES * np.ravel_multi_index(coords, store.sizes)


@dataclass(frozen=True)
class Pairs:
    """States that follow others of the same part of a record without a gap.

    Attributes:
        rows: samples that take part, in the order of time within each series.
        rank: of each sample of the record its place among ``rows``, -1 where it takes no part.
        reach: of each sample of the record how many steps before it an initial state may lie, (N,).
        past: frames up to the initial state that are given.
    """

    rows: np.ndarray
    rank: np.ndarray
    reach: np.ndarray
    past: int

    @classmethod
    def of(cls, fields: Fields, rows: np.ndarray, past: int, longest: int) -> Pairs:
        """All pairs of samples in ``rows`` up to so many steps apart, with nothing missing from ``rows`` between."""
        place = places_of(fields)
        rows = rows[np.argsort(place[rows], kind="stable")]
        number = np.arange(len(rows))
        begun = np.concatenate([[True], np.diff(place[rows]) != 1])
        behind = number - np.maximum.accumulate(np.where(begun, number, 0))
        rank, reach = np.full(len(fields), -1), np.zeros(len(fields), dtype=int)
        rank[rows] = number
        reach[rows] = np.clip(behind - (past - 1), 0, longest)
        return cls(rows, rank, reach, past)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.reach.sum())

    def draw(self, asked: np.ndarray, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """Of each asked sample a lag, uniform over those that it may have, and what is given of it.

        Args:
            asked: samples that some initial state is before.
            rng: None for the longest lag of each.

        Returns:
            The given samples (n, past), the initial state last, and the lags in steps (n,).
        """
        reach = np.maximum(self.reach[asked], 1)
        lags = reach if rng is None else 1 + np.floor(rng.random(len(asked)) * reach).astype(int)
        return self.before(asked, lags), lags

    def before(self, asked: np.ndarray, lags: np.ndarray) -> np.ndarray:
        """The samples (n, past) that are given of others at lags in steps, the initial state last."""
        back = lags[:, None] + np.arange(self.past - 1, -1, -1)
        return self.rows[np.maximum(self.rank[asked][:, None] - back, 0)]


def starts_in(fields: Fields, past: int, clock: Clock) -> np.ndarray:
    """The samples (n, past) of each state that has so many frames up to it, the state last.

    Raises:
        DataError: frames are no step of the model apart.
    """
    every = np.arange(len(fields))
    if past == 1:
        return every[:, None]
    times = fields.times()
    step = clock.step if times is None or len(np.unique(times)) < 2 else Clock.of(np.unique(times)).step
    if abs(step / clock.step - 1) > 0.2:
        raise DataError(
            f"the given frames are {step / clock.step:.3g} steps of the model apart, and it is given {past} in a row"
        )
    pairs = Pairs.of(fields, every, 1, past - 1)
    ends = every[pairs.reach == past - 1]
    return pairs.rows[pairs.rank[ends][:, None] - np.arange(past - 1, -1, -1)]


def longest_steps(fields: Fields, longest: Lead, past: int) -> tuple[Clock, int]:
    """How leads are counted in a record, and the longest in its whole steps.

    Raises:
        DataError: there is no time, or the longest lead is shorter than a step or longer than the record.
        UsageError: it cannot be read.
    """
    time = fields.layout.time
    if time is None:
        raise DataError("lead times need a time, and the data have none; name the dims with --dims time,y,x")
    clock = Clock.of(fields._dataset[time].values if time in fields._dataset.coords else None)
    steps = int(clock.steps(longest) + 1e-9)
    if steps < 1:
        raise DataError(f"the longest lead, {longest}, is shorter than a step of the record, {clock.text(1)}")
    size = fields._store.sizes[fields.layout.sample.index(time)]
    if steps > size - past:
        raise DataError(
            f"the longest lead, {longest}, is {steps} steps, and the record has {size} frames along {time}; "
            f"type --longest {clock.text(max(size - past, 1))} or less"
        )
    return clock, steps


def lead_lines(fields: Fields, longest: Lead, past: int, rows: np.ndarray | None) -> Iterator[tuple[str, str]]:
    """What a check says of leads: severity and sentence.

    Args:
        fields: the record.
        longest: lead.
        past: frames that are given.
        rows: samples that train; all if None.
    """
    try:
        clock, steps = longest_steps(fields, longest, past)
    except DataError as error:
        yield "error", str(error)
        return
    place = places_of(fields)
    pairs = Pairs.of(fields, np.arange(len(fields)) if rows is None else rows, past, steps)
    most = int(pairs.reach.max())
    if most < steps:
        yield "error", f"no two states that train are {longest} apart without a gap; type --longest {clock.text(most)}"
        return
    given = "the one before" if past == 1 else f"{past} frames before"
    apart = f"{pairs.count} pairs of states up to {clock.text(steps)} ({steps} steps) apart train"
    yield "info", f"lead-time: {apart}; a state is drawn at any lead, given {given}"
    gaps = int((np.diff(np.sort(place)) > 1).sum())
    if gaps:
        yield "note", f"the record has {gaps} gap{'s' if gaps > 1 else ''} or series apart, which no pair crosses"


def leads_of(wanted: str | Lead | Sequence[Lead], clock: Clock, longest: int) -> np.ndarray:
    """Leads in steps, ascending, each once, from text such as ``"3h,6h,90min"`` or a sequence.

    Raises:
        UsageError: one is 0, or beyond the longest that a model was trained for.
    """
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    parts = list(parts) if isinstance(parts, Sequence | np.ndarray) else [parts]
    if not parts:
        raise UsageError(f"no lead time is given; type --lead {clock.text(longest)}")
    out = []
    for part in parts:
        steps, most = clock.steps(part), clock.text(longest)
        if steps <= 0:
            raise UsageError(f"got the lead time {part}, which is the initial state itself; give leads up to {most}")
        if steps > longest * (1 + 1e-9):
            raise UsageError(
                f"got the lead time {part}, and the model was trained up to {most}; give shorter ones, or train with "
                f"--longest {str(part).replace(' ', '')}"
            )
        out.append(steps)
    return np.unique(np.round(out, 9))
