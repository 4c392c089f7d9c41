"""The report as one HTML file that loads nothing, runs no script and can be attached to a review."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import xarray as xr
from jinja2 import Environment
from markupsafe import Markup

from undrift.errors import UsageError
from undrift.report.channel import Channel, Limits, Source, channel_maps, score_maps
from undrift.report.lead_table import lead_tables
from undrift.report.leads import lead_plots
from undrift.report.picture import Picture
from undrift.report.plots import score_plots
from undrift.report.style import count, number, units_text
from undrift.report.tables import (
    Table,
    calibration_table,
    law_table,
    overview_table,
    score_table,
    sequence_table,
    shift_table,
)
from undrift.report.training import training_plots

__all__ = ["Part", "Section", "write_page"]

MOST_BYTES = 5_000_000
_ATTRIBUTION = (
    "title",
    "institution",
    "source",
    "license",
    "licence",
    "references",
    "attribution",
    "comment",
    "history",
)
_LADDER = (Limits(150, 6, 3), Limits(110, 6, 3), Limits(90, 4, 2), Limits(72, 2, 1), Limits(60, 1, 1))


@dataclass
class Part:
    """A heading with what stands under it, in this order: words, tables, a wide picture each, and plots in columns."""

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    wide: list[Picture] = field(default_factory=list)
    plots: list[Picture] = field(default_factory=list)


@dataclass
class Section:
    """One trained model and task, as the page shows it.

    Attributes:
        title: its heading.
        question: lines that say what was asked, and of what data.
        scores: what `undrift.evaluate` returned, or None.
        ensemble: fields with dims (realization, *sample, *level, *space), opened lazily; or None.
        truth: the same without realization; or None. Samples are matched by label where both have labels.
        given: what the ensemble was conditioned on, on its own grid; or None.
        verdict: sentences for the top of the page.
        by_lead: scores of forecasts by lead time, or None.
        metrics: rows of metrics.jsonl: step, seconds, loss, validation, loss_by_noise.
        facts: data, fingerprint, versions, seeds, sizes, times; `commands` are shown as how to reproduce it.
        notes: further lines at the section's end.
        warnings: lines that stand before the figures.
        parts: of what is no field, such as a density of parameters.
    """

    title: str
    question: list[str] = field(default_factory=list)
    scores: xr.Dataset | None = None
    ensemble: xr.Dataset | None = None
    truth: xr.Dataset | None = None
    given: xr.Dataset | None = None
    verdict: list[str] = field(default_factory=list)
    by_lead: xr.Dataset | None = None
    metrics: list[dict] = field(default_factory=list)
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def write_page(
    path: str | os.PathLike, sections: list[Section], *, title: str = "undrift report", overwrite: bool = True
) -> Path:
    """Write the report.

    Args:
        path: the HTML file to write; it appears whole or not at all.
        sections: one for each trained model, in the order of the page.
        title: the page's heading.
        overwrite: whether an existing file may be replaced.

    Returns:
        The path written. Pictures are made coarser, and then fewer, until the page is below 5 MB.

    Raises:
        UsageError: there is no section, or the file exists and may not be replaced.
    """
    target = Path(path)
    if not sections:
        raise UsageError("The report needs at least one section; got none.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; add --overwrite to replace it.")
    html = ""
    fields = sum(min(_count_fields(s), _LADDER[0].channels) for s in sections)
    for limits in _LADDER if fields <= 10 else _LADDER[1:]:
        html = _page(sections, title, limits)
        if len(html.encode()) < MOST_BYTES:
            break
    _write(target, html)
    return target


def _count_fields(section: Section) -> int:
    return 0 if section.scores is None else int(section.scores.sizes.get("variable", 0))


def _page(sections: list[Section], title: str, limits: Limits) -> str:
    here = resources.files("undrift.report")
    environment = Environment(autoescape=True, trim_blocks=False)
    template = environment.from_string(here.joinpath("page.html").read_text("utf-8"))
    return template.render(
        title=title,
        css=Markup(here.joinpath("page.css").read_text("utf-8")),  # ours, no text from outside
        version=_version(),
        byline=f"undrift {_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        sections=[_section(s, i + 1, limits) for i, s in enumerate(sections)],
    )


def _section(section: Section, order: int, limits: Limits) -> SimpleNamespace:
    source = Source(section)
    channels = [
        _channel(source, variable, level, limits, first=i == 0)
        for i, (variable, level) in enumerate(source.channels[: limits.channels])
    ]
    left = len(source.channels) - len(channels)
    commands = section.facts.get("commands", "")
    leads = [] if section.by_lead is None else lead_plots(section.by_lead, dpi=limits.dpi)
    training = training_plots(section.metrics, dpi=limits.dpi)
    anchors = [(f"s{order}", section.title)]
    anchors += [(f"s{order}c{i + 1}", c.title) for i, c in enumerate(channels)] if len(channels) > 1 else []
    anchors += [(f"s{order}p{i + 1}", part.title) for i, part in enumerate(section.parts)]
    anchors += [(f"s{order}leads", "By lead time")] * bool(leads)
    anchors += [(f"s{order}training", "Training")] * bool(training)
    anchors += [(f"s{order}reproduce", "How to reproduce it")] * bool(commands)
    return SimpleNamespace(
        title=section.title,
        question=section.question,
        verdict=section.verdict,
        warnings=section.warnings,
        channels=channels,
        parts=section.parts,
        overview=overview_table(section.scores) if section.scores is not None else None,
        left_out=f"{left} further fields are not shown; their scores are in the scores file." if left else "",
        leads=leads,
        lead_tables=[] if section.by_lead is None else lead_tables(section.by_lead),
        training=training,
        commands=commands if isinstance(commands, str) else "\n".join(map(str, _listed(commands))),
        facts=[(k.replace("_", " "), v) for k, v in _flat(section.facts) if k != "commands"] + _attribution(section),
        notes=section.notes,
        links=[SimpleNamespace(id=i, text=t) for i, t in anchors],
    )


def _channel(source: Source, variable: str, level: Mapping[str, int], limits: Limits, *, first: bool) -> Channel:
    """One field: two samples of the section's first field, one of the others."""
    channel = Channel(source.title(variable, level))
    if source.ensemble is not None:
        channel.maps = channel_maps(source, variable, level, limits, 2 if first else 1)
    scores = source.scores_of(variable, level)
    if scores is not None:
        attrs = source.attrs_of(variable)
        units = units_text(attrs.get("units", scores["units"].item() if "units" in scores.coords else ""))
        makers = (score_table, calibration_table, sequence_table, shift_table, law_table)
        channel.tables = [t for make in makers if (t := make(scores, units)) is not None]
        channel.plots = score_plots(scores, units, variable, dpi=limits.dpi)
        channel.score_maps = score_maps(scores, attrs, source.axes.space, limits) if source.axes else []
    return channel


def _listed(value: object) -> list:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) else [value]


def _flat(facts: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as pairs of text, in its order."""
    pairs: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += (
                _flat(value, f"{name}, ")
                if any(isinstance(v, Mapping) for v in value.values())
                else [(name, ", ".join(f"{k} {_text(v)}" for k, v in value.items()))]
            )
        elif value is not None and value != "" and value != []:
            pairs.append((name, _text(value)))
    return pairs


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(_text(v) for v in value) if isinstance(value, list | tuple | set) else str(value)


def _attribution(section: Section) -> list[tuple[str, str]]:
    """What the data say of their origin and licence, first come first."""
    pairs: dict[str, str] = {}
    for name, data in (("data", section.truth), ("given", section.given)):
        for key in _ATTRIBUTION if data is not None else ():
            value = str(data.attrs.get(key, "")).strip() if data is not None else ""
            if value and value not in pairs.values():
                pairs[f"{name}: {key}"] = value if len(value) < 600 else value[:599] + "…"
    return list(pairs.items())


def _version() -> str:
    try:
        return version("undrift")
    except PackageNotFoundError:
        return "unknown"


def _write(target: Path, html: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(html)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
