"""What is wrong with data, what undrift would make of them, and the line to type next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.config import Config
from undrift.data.cf import is_timelike
from undrift.data.cut import begun_with, trimmed
from undrift.data.fields import MEMORY_LIMIT, Fields
from undrift.data.findings import (
    Line,
    Looks,
    correlated_steps,
    extremes,
    fill_findings,
    look,
    missing,
    time_axis,
    unit_findings,
)
from undrift.data.frames import windows_of
from undrift.data.layout import no_block, plain
from undrift.data.leads import lead_lines
from undrift.data.members import ensemble_of, given_to, others_of
from undrift.data.open import Data, open_fields
from undrift.data.order import span
from undrift.data.regrid import Grid, Regridder, join
from undrift.data.scan import Scan
from undrift.data.split import Split, split
from undrift.data.tidy import steps
from undrift.data.windows import auto_crop
from undrift.errors import DataError, UsageError, suggests_options

__all__ = ["ACTIVATIONS", "Report", "check"]

FEW = 20
ACTIVATIONS = 90  # bytes of a cell and channel of the finest level, as measured in float32; bfloat16 takes half of it
_FACTOR = 4  # unless it is typed
_FITTING, _FITTING_MOST = 40, 800_000_000  # bytes of a cell and channel while the linear predictors are fitted, at most
_ENCODING = 250  # bytes of a cell and channel of up to 64 whole samples while preparing, as measured


@dataclass
class Report:
    """The outcome of `check`.

    Attributes:
        lines: (severity, sentence) with severity "info", "note", "warning" or "error", in the order of reading.
        suggested: the `undrift train` line, "" where errors forbid it.
        facts: the numbers behind the sentences, as plain values.
    """

    lines: list[Line] = field(default_factory=list)
    suggested: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> str:
        """The worst severity of all lines."""
        order = ("info", "note", "warning", "error")
        return max((line[0] for line in self.lines), key=order.index, default="info")

    def add(self, severity: str, text: str) -> None:
        """Adds one sentence, once."""
        if all(text != old for _, old in self.lines):
            self.lines.append((severity, text))

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        lines = [{"severity": severity, "text": text} for severity, text in self.lines]
        return {"severity": self.severity, "lines": lines, "suggested": self.suggested, **self.facts}

    def text(self) -> str:
        """The report for a terminal, one sentence a line and the command last."""
        head = [f"{severity}: {text}" for severity, text in self.lines]
        return "\n".join([*head, *(["", self.suggested] if self.suggested else [])])


@suggests_options
def check(
    data: Data,
    *,
    task: str | None = None,
    factor: int | None = None,
    past: int | None = None,
    future: int = 8,
    members: int = 2,
    longest: str | None = None,
    given: Data | None = None,
    variables: str | Sequence[str] | None = None,
    static: str | Sequence[str] | None = None,
    covariates: str | Sequence[str] | None = None,
    dims: str | Sequence[str] | None = None,
    periodic: str | Sequence[str] | None = None,
    select: str | None = None,
    holdout: str | None = None,
) -> Report:
    """Looks at all values once and says what is wrong and what would be made of them.

    Args:
        data: paths, globs, a Dataset or an array, as of `open_fields`.
        task: "downscale", "emulate", "enrich", "window" or "lead-time"; by default which of the first two the data
            allow.
        factor: fine cells per coarse cell along each side: 4 by default for downscaling; windows with one are given the
            coarse sequence.
        past: frames of a window up to the present (4 by default), or given before a lead time (1).
        future: frames of a window after it.
        members: members of a date that one more is given.
        longest: lead time, such as "24h".
        given: what is given, on any grid, joined on the labels of the samples.
        variables: names of the fields; all by default.
        static: names or a file of variables that condition the model.
        covariates: names of labels or numbers per sample that are given.
        dims: names of the dims of arrays.
        periodic: dims of space whose ends are neighbours.
        select: what to keep, such as "lat=35/60".
        holdout: what tests, such as "20%" or "year=2070/2099,scenario=E1".

    Raises:
        DataError: the data cannot be opened at all. What is merely wrong with them is a line of severity "error".
        UsageError: an option cannot be used.
    """
    if task not in (None, "downscale", "emulate", "enrich", "window", "lead-time"):
        raise UsageError(f"--task {task}: expected downscale, emulate, enrich, window or lead-time")
    if task == "lead-time" and given is not None:
        raise UsageError("--task lead-time takes no --given: what is given are states of DATA itself")
    if task == "lead-time" and longest is None:
        raise UsageError("say how far a lead time may reach: --longest 24h, or a number where times are numbers")
    past = past if past is not None else 1 if task == "lead-time" else 4
    fields = open_fields(
        data, dims=dims, variables=variables, static=static, covariates=covariates, periodic=periodic, select=select
    )
    fields = ensemble_of(fields) if task == "enrich" else fields
    report = Report()
    if not _values(fields, report):
        return report
    cells = _FACTOR if factor is None else factor
    task = task or ("downscale" if given is not None or min(fields.layout.shape) >= 2 * cells else "emulate")
    coarse = {"downscale": cells, "window": factor}.get(task)
    other = None if given is None else given_to(fields, open_fields(given, dims=dims, periodic=periodic))
    parts = _samples(*_asked(fields, coarse, other), holdout, report)
    lines = {
        "window": lambda: _windows(fields, past, future),
        "enrich": lambda: _members(fields, members),
        "lead-time": lambda: lead_lines(fields, str(longest), past, None if parts is None else parts.train),
    }
    for line in lines.get(task, lambda: _task(fields, task, cells, other))():
        report.add(*line)
    if task == "window" and (coarse is not None or other is not None):
        for line in _task(fields, task, cells, other):
            report.add(*line)
    report.add(*_memory(fields))
    report.facts["task"] = task
    if report.severity != "error":
        options = {
            "--factor": None if coarse is None or given is not None else str(coarse),
            "--given": given, "--variables": variables, "--static": static, "--covariates": covariates, "--dims": dims,
            "--periodic": periodic, "--select": select,
        }  # fmt: skip
        if task == "emulate" and not covariates:
            options["--covariates"] = ",".join(_covariates(fields)) or None
        if task == "window":
            options |= {"--past": str(past), "--future": str(future)}
        if task == "enrich":
            options["--members"] = str(members)
        if task == "lead-time":
            options |= {"--longest": longest, "--past": str(past) if past > 1 else None}
        report.suggested = _command(data, task, options, parts.text if parts else holdout)
    return report


def _values(fields: Fields, report: Report) -> bool:
    """Add what the dims and all values tell; whether the values are finite, so that more can be told."""
    for line in _shape(fields):
        report.add(*line)
    for warning in fields.warnings:
        if not any(word in warning for word in ("gaps", "not in order", "occurred twice")):  # said better by time_axis
            report.add("warning", warning)
    scan = fields.scan()
    infinite = bool(scan.inf.any())
    looks = {} if infinite else look(fields, scan)
    for line in (*unit_findings(fields, scan), *time_axis(fields), *missing(fields, scan)):
        report.add(*line)
    report.facts = _facts(fields, looks)
    if not infinite:
        for line in (*extremes(fields, scan, looks), *_transforms(looks)):
            report.add(*line)
    return not infinite


def _shape(fields: Fields) -> Iterator[Line]:
    """Samples, grid, channels, static fields and covariates."""
    layout, data = fields.layout, fields.dataset
    sizes = " x ".join(f"{dim} {data.sizes[dim]}" for dim in layout.sample if dim in data.sizes)
    files = len(fields.sources)
    yield "info", f"{len(fields)} samples ({sizes}) from {files} source{'s' if files > 1 else ''}"
    grid = " x ".join(f"{dim} {n}" for dim, n in zip(layout.space, layout.shape))
    kind = "no latitude and longitude"
    if layout.latitude and layout.longitude and layout.latitude in data.coords:
        lat, lon = data[layout.latitude].values, data[layout.longitude].values
        two = "2-D " if np.ndim(lat) == 2 else ""
        west, east = span(lon)
        kind = f"{two}latitude {np.nanmin(lat):.4g} to {np.nanmax(lat):.4g}, longitude {west:.4g} to {east:.4g}"
    loops = [dim for dim, flag in zip(layout.space, layout.periodic) if flag]
    yield "info", f"grid {grid} ({kind}), {'periodic along ' + ', '.join(loops) if loops else 'not periodic'}"
    labels = [channel.label for channel in layout.channels]
    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    yield "info", f"{len(labels)} channel{'s' if len(labels) > 1 else ''}: {shown}"
    if fields.static.data_vars:
        yield "info", f"static, conditions the model: {', '.join(map(str, fields.static.data_vars))}"
    if fields.covariate_names:
        yield "info", f"covariates: {', '.join(fields.covariate_names)}"
    elif found := _covariates(fields):
        yield "info", f"possible covariates: --covariates {','.join(found)}"


def _covariates(fields: Fields) -> list[str]:
    """Labels that may condition a model: other sample dims, the year, and the hours and days that the record spans."""
    layout = fields.layout
    out = [d for d in layout.sample if d != layout.time and d in fields.dataset.coords and fields.dataset[d].size > 1]
    if layout.time is None or layout.time not in fields.dataset.coords:
        return out
    times = np.asarray(fields.dataset[layout.time].values)
    if not is_timelike(times):
        return [layout.time, *out]
    if times.size < 2:
        return out
    span, step = abs(float(np.sum(steps(times)))), float(np.median(np.abs(steps(times))))
    parts = [("year", span > 3 * 8760), ("dayofyear", span > 60 * 24 and step < 4000), ("hour", step < 23.5)]
    return [*(name for name, there in parts if there), *out]


def _transforms(looks: dict[str, Looks]) -> Iterator[Line]:
    """The transform of each variable and why."""
    why = {
        "standard": lambda s: "values of either sign or far from zero",
        "power": lambda s: "positive, cube root",
        "censored": lambda s: f"{s.zeros:.1%} exact zeros, drawn and decoded as such",
        "bounded": lambda s: f"within [0, 1]; {s.zeros:.1%} exact zeros, {s.ones:.1%} exact ones",
    }
    for name, seen in looks.items():
        yield "info", f"transform of {name}: {seen.kind} ({why[seen.kind](seen)})"


def _asked(fields: Fields, factor: int | None, other: Fields | None) -> tuple[Fields, Scan]:
    """The samples that training pairs with what is given, on its cells, and their part of the scan."""
    seen = fields.scan()
    if other is not None:
        target = begun_with(fields, other)
        try:
            mine, _ = join(target, other)
        except DataError:  # a line of its own says so
            return fields, seen
        return target.select(mine), replace(seen, bit_sums=seen.bit_sums[mine])
    if factor is not None and 2 <= factor <= min(fields.layout.shape):
        return trimmed(fields, factor)[0], seen
    return fields, seen


def _samples(fields: Fields, seen: Scan, holdout: str | None, report: Report) -> Split | None:
    """Effective samples, duplicates and the holdout; adds its lines."""
    n = len(fields)
    if n < 2:
        report.add("error", "there is 1 sample: a distribution cannot be learned from it")
        return None
    try:
        parts = split(fields, holdout, seen)
    except DataError as error:
        if holdout is not None:
            raise
        report.add("error", str(error))
        return None
    gap = f", {parts.gap.size} between are left out" if parts.gap.size else ""
    report.add("info", f"holdout {parts.text}: {parts.train.size} samples train, {parts.holdout.size} test{gap}")
    for warning in parts.warnings:
        report.add("warning", warning)
    lag, looked = 0, n
    if fields.layout.time is not None:
        lag, looked = correlated_steps(fields, _places(fields))
    effective = (n - parts.duplicates) / (1 + 2 * lag)
    report.facts |= {"decorrelation_steps": lag, "effective_samples": round(effective, 1)}
    part = f", as {looked} of {n} samples show" if looked < n else ""
    text = f"about {effective:.0f} effective samples"
    text += f" (cells stay correlated over {lag} steps{part})" if lag else ""
    if effective < FEW:
        report.add("warning", f"{text}: few to learn a distribution from; add data if you can")
    else:
        report.add("info", text)
    report.facts |= {"train": int(parts.train.size), "holdout": int(parts.holdout.size), "duplicates": parts.duplicates}
    return parts


def _places(fields: Fields) -> np.ndarray:
    """Of each sample its place along time, by date or, where time has no coordinate, by position."""
    times = fields.times()
    if times is None:
        dim = str(fields.layout.time)
        return fields.along(xr.DataArray(np.arange(fields.dataset.sizes[dim]), dims=dim))
    return np.unique(np.array([str(plain(t)) for t in times]), return_inverse=True)[1]


def _task(fields: Fields, task: str, factor: int, other: Fields | None) -> Iterator[Line]:
    """What would be given: a coarse grid by block means, joined files, or covariates."""
    layout = fields.layout
    if other is not None:
        yield from _given(fields, other)
        return
    if task == "emulate":
        yield "info", "emulate: maps are drawn given covariates and static fields only"
        return
    if factor < 2:
        raise UsageError(f"--factor {factor}: expected a whole number of at least 2")
    if any(n < factor for n in layout.shape):
        yield "error", no_block(layout, factor)
        return
    coarse = [n // factor for n in layout.shape]
    low, high = " x ".join(map(str, coarse)), " x ".join(str(c * factor) for c in coarse)
    plain_means = "; the means are plain ones, not weighted by area" if layout.latitude else ""
    yield "info", f"{task} x{factor}: given {low} block means, asked {high}{plain_means}"
    beyond = {d: n % factor for d, n in zip(layout.space, layout.shape) if n % factor}
    if beyond:
        cut = ", ".join(f"{n} cell{'s' if n > 1 else ''} along {d}" for d, n in beyond.items())
        yield "note", f"the size is no multiple of {factor}: the far edge is trimmed by {cut}"
        for dim, flag in zip(layout.space, layout.periodic):
            if flag and dim in beyond:
                text = f"{dim} is periodic, and trimming opens the circle: choose a --factor that divides its size"
                yield "warning", text


def _windows(fields: Fields, past: int, future: int) -> Iterator[Line]:
    """How many windows of frames there are."""
    try:
        windows, notes = windows_of(fields, past, future)
    except DataError as error:
        yield "error", str(error)
        return
    yield "info", f"window: {len(windows)} windows of {past} + {future} frames, any part of which may be given"
    yield from (("note", note) for note in notes)


def _members(fields: Fields, members: int) -> Iterator[Line]:
    """What a member would be given."""
    try:
        others_of(fields, members)
    except DataError as error:
        yield "error", str(error)
        return
    size = fields.dataset.sizes[fields.layout.sample[-1]]
    yield "info", f"enrich: each of {size} members along {fields.layout.sample[-1]} given {members} others of its date"


def _given(fields: Fields, other: Fields) -> Iterator[Line]:
    """How many samples join with what is given, and what is done to its grid."""
    for warning in other.warnings:
        yield "note", f"given: {warning}"
    for severity, text in fill_findings(other.scan()):
        yield severity, f"given: {text}"
    n = len(fields)
    try:
        mine, _ = join(fields, other)
        names = ", ".join(c.label for c in other.layout.channels[:8])
        yield "info", f"given: {names}; {mine.size} of {n} samples joined"
        if mine.size < 0.5 * n:
            yield "warning", f"only {mine.size} of {n} samples have something given; the others are not used"
    except DataError as error:
        yield "error", str(error)
    try:
        move = Regridder(Grid.of(other), Grid.of(fields))
        size = " x ".join(map(str, other.layout.shape))
        yield "info", f"given grid {size}: {'the same' if move.identity else 'regridded to that of the data'}"
        for note in move.notes:
            yield "note", f"given: {note}"
        if static := [str(name) for name in other.static.data_vars if name not in fields.static.data_vars]:
            yield "info", f"given, static, conditions the model: {', '.join(static)}"
    except DataError as error:
        yield "error", f"the given data do not fit: {error}"


def _memory(fields: Fields) -> Line:
    """Rough memory for training; a warning where it is more than half of the machine's."""
    layout = fields.layout
    cells, channels = int(np.prod(layout.shape)), len(layout.channels)
    data = 4 * len(fields) * channels * cells
    held = data if data <= MEMORY_LIMIT else 0
    how = "kept in memory" if held else "read from disk as needed"
    preparing = _ENCODING * min(len(fields), 64) * channels * cells
    preparing += min(_FITTING * len(fields) * channels * cells, _FITTING_MOST)
    crop = auto_crop(layout.shape)
    window = [min(n, crop or n) for n in layout.shape]
    usual = Config().train.batch
    width = 16 if len(fields) < 100 else 64  # what training chooses for a small record, and at most for others

    def total(batch: int) -> float:
        network = ACTIVATIONS * width * batch * int(np.prod(window))
        return (held + max(preparing, network)) / 1e9 + 0.5  # half a GB for Python, torch and xarray

    text = f"{data / 1e9:.3g} GB as float32 ({how}); training takes roughly {total(usual):.2g} GB of memory"
    room = _machine_memory() / 1e9
    if total(usual) <= room / 2:
        return "info", text
    small = next((n for n in (8, 4, 2, 1) if total(n) <= room / 2), None)
    if preparing / 1e9 + 0.5 > room / 2:
        less = f"--select {layout.space[0]}=FROM/TO for a part of the domain"
    else:
        less = f"--set train.batch={small}" if small else "--crop 32, windows of so many cells along each side"
    return "warning", f"{text}, and this machine has {room:.2g} GB: add {less}"


def _machine_memory() -> int:
    """Bytes of memory of the machine, or those that its control group may have."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(pages, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return pages


def _facts(fields: Fields, looks: dict[str, Looks]) -> dict[str, Any]:
    """Plain numbers for --json."""
    counts = {k: v for k, v in fields.counts.items() if isinstance(v, int | float | str | dict | list)}
    return {
        "layout": fields.layout.to_dict(),
        "samples": len(fields),
        "static": [str(name) for name in fields.static.data_vars],
        "transforms": {name: seen.kind for name, seen in looks.items()},
        "zeros": {name: seen.zeros for name, seen in looks.items()},
        "counts": _plain(counts),
    }


def _plain(value: Any) -> Any:
    """Nested containers of what JSON can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return plain(value) if value is not None else None


def _command(data: Any, task: str, options: dict[str, Any], holdout: str | None) -> str:
    """The train line, quoted for a shell."""

    def words(value: Any) -> list[str]:
        if isinstance(value, str) or hasattr(value, "__fspath__"):
            return [str(value)]
        return [str(v) for v in value] if isinstance(value, Sequence) else ["DATA"]

    line = ["undrift", "train", *words(data), "--task", task]
    for option, value in options.items():
        if value is None or (isinstance(value, Sequence) and not value):
            continue
        parts = words(value)
        if option == "--given":
            for part in parts:
                line += [option, part]
        else:
            line += [option, ",".join(parts)]
    line += ["--holdout", holdout or "20%", "--budget", "3m", "--out", "RUN"]
    return shlex.join(line)
