"""What is wrong with data, what undrift would make of them, and the line to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cut import begun_with, trimmed
from undrift.data.described import facts_of, possible_covariates, shape_lines, transform_lines
from undrift.data.fields import Fields
from undrift.data.findings import Line, correlated_steps, extremes, look, missing, time_axis, unit_findings
from undrift.data.layout import plain
from undrift.data.leads import lead_lines
from undrift.data.members import ensemble_of, given_to
from undrift.data.memory import memory_line
from undrift.data.open import Data, open_fields
from undrift.data.regrid import join
from undrift.data.scan import Scan
from undrift.data.split import Split, split
from undrift.data.task_lines import member_lines, task_lines, window_lines
from undrift.data.train_line import train_line
from undrift.errors import DataError, UsageError, suggests_options

__all__ = ["Report", "check"]

FEW = 20
_FACTOR = 4  # unless it is typed


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
    _refuse_options(task, given, longest)
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
        "window": lambda: window_lines(fields, past, future),
        "enrich": lambda: member_lines(fields, members),
        "lead-time": lambda: lead_lines(fields, str(longest), past, None if parts is None else parts.train),
    }
    for line in lines.get(task, lambda: task_lines(fields, task, cells, other))():
        report.add(*line)
    if task == "window" and (coarse is not None or other is not None):
        for line in task_lines(fields, task, cells, other):
            report.add(*line)
    report.add(*memory_line(fields))
    report.facts["task"] = task
    if report.severity != "error":
        options = {
            "--factor": None if coarse is None or given is not None else str(coarse),
            "--given": given, "--variables": variables, "--static": static, "--covariates": covariates, "--dims": dims,
            "--periodic": periodic, "--select": select,
        }  # fmt: skip
        options |= {
            "emulate": {"--covariates": covariates or ",".join(possible_covariates(fields)) or None},
            "window": {"--past": str(past), "--future": str(future)},
            "enrich": {"--members": str(members)},
            "lead-time": {"--longest": longest, "--past": str(past) if past > 1 else None},
        }.get(task, {})
        report.suggested = train_line(data, task, options, parts.text if parts else holdout)
    return report


def _refuse_options(task: str | None, given: Data | None, longest: str | None) -> None:
    """Refuse options that cannot be used."""
    if task not in (None, "downscale", "emulate", "enrich", "window", "lead-time"):
        raise UsageError(f"--task {task}: expected downscale, emulate, enrich, window or lead-time")
    if task == "lead-time" and given is not None:
        raise UsageError("--task lead-time takes no --given: what is given are states of DATA itself")
    if task == "lead-time" and longest is None:
        raise UsageError("say how far a lead time may reach: --longest 24h, or a number where times are numbers")


def _values(fields: Fields, report: Report) -> bool:
    """Add what the dims and all values tell; whether the values are finite, so that more can be told."""
    for line in shape_lines(fields):
        report.add(*line)
    for warning in fields.warnings:
        if not any(word in warning for word in ("gaps", "not in order", "occurred twice")):  # said better by time_axis
            report.add("warning", warning)
    scan = fields.scan()
    infinite = bool(scan.inf.any())
    looks = {} if infinite else look(fields, scan)
    for line in (*unit_findings(fields, scan), *time_axis(fields), *missing(fields, scan)):
        report.add(*line)
    report.facts = facts_of(fields, looks)
    if not infinite:
        for line in (*extremes(fields, scan, looks), *transform_lines(looks)):
            report.add(*line)
    return not infinite


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
