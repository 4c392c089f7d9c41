"""One field of a section: its maps, its tables and its plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from undrift.data import layout as data
from undrift.data.layout import plain as plain_label
from undrift.report.geometry import central, space_of
from undrift.report.maps import MapSet, draw_departures, draw_groups, draw_sample
from undrift.report.picture import Picture
from undrift.report.samples import Sample, axes_for, choose_samples, counterpart, given_for, on_cells, sample_dims, take
from undrift.report.style import label, number, scale_for, units_text
from undrift.verify.match import Axes

if TYPE_CHECKING:
    from undrift.report.page import Section

__all__ = ["Channel", "Limits", "Source", "channel_maps", "score_maps"]


@dataclass(frozen=True)
class Limits:
    """What the page may spend: dots per 100 CSS pixels, fields a section, realizations a map."""

    dpi: int
    channels: int
    realizations: int


@dataclass
class Channel:
    """All that the page shows of one field."""

    title: str
    tables: list = field(default_factory=list)
    maps: list[MapSet] = field(default_factory=list)
    plots: list[Picture] = field(default_factory=list)
    score_maps: list[MapSet] = field(default_factory=list)


class Source:
    """The data of a section with the roles of their dimensions and the pairs of samples, found once."""

    def __init__(self, section: Section) -> None:
        self.ensemble, self.truth, self.given = section.ensemble, section.truth, section.given
        self.scores = section.scores
        self.channels: list[tuple[str, dict[str, int]]] = []
        self.axes: Axes | None = None
        if self.ensemble is None:
            known = [str(v) for v in self.scores["variable"].values] if self.scores is not None else []
            self.channels = [(name, {}) for name in known]
            return
        self.axes, names = axes_for(self.ensemble, self.truth)
        if self.truth is not None:
            self.truth = on_cells(self.truth, self.ensemble, names, self.axes)
        for name in names:
            level = self.axes.level(self.ensemble[name])
            for at in np.ndindex(*(self.ensemble.sizes[d] for d in level)):
                self.channels.append((name, dict(zip(level, map(int, at), strict=True))))
        self.truth_pairs = counterpart(self.truth, self.ensemble, self.axes) if self.truth is not None else {}
        self.given_pairs = counterpart(self.given, self.ensemble, self.axes) if self.given is not None else {}

    def title(self, variable: str, level: Mapping[str, int]) -> str:
        """`tas: air temperature [K], plev 85000`."""
        text = label(variable, self.attrs_of(variable))
        head = text if text.split(" [")[0] == variable else f"{variable}: {text}"
        return ", ".join([head, *self.level_text(level)])

    def level_text(self, level: Mapping[str, int]) -> list[str]:
        """Each level's label as text."""
        coords = self.ensemble.coords if self.ensemble is not None else {}
        return [
            f"{d} {plain_label(coords[d].values[i])} {coords[d].attrs.get('units', '')}".strip()
            if d in coords
            else f"{d} {i}"
            for d, i in level.items()
        ]

    def scores_of(self, variable: str, level: Mapping[str, int]) -> xr.Dataset | None:
        """The scores of one field, None where there are none."""
        if self.scores is None:
            return None
        coords = self.ensemble.coords if self.ensemble is not None else {}
        at = tuple((d, plain_label(coords[d].values[i]) if d in coords else i) for d, i in level.items())
        name = data.Channel(variable, at).label
        return self.scores.sel(variable=name) if name in self.scores["variable"].values else None

    def attrs_of(self, variable: str) -> dict:
        """The variable's attributes, the truth's before the ensemble's."""
        attrs = dict(self.ensemble[variable].attrs) if self.ensemble is not None else {}
        return attrs | (dict(self.truth[variable].attrs) if self.truth is not None else {})


def channel_maps(source: Source, variable: str, level: Mapping[str, int], limits: Limits, count: int) -> list[MapSet]:
    """Maps of up to `count` samples of one field, all in one colour scale."""
    assert source.ensemble is not None and source.axes is not None
    axes, at = source.axes, dict(level)
    members = source.ensemble[variable].isel(at)
    truth = source.truth[variable].isel(at) if source.truth is not None else None
    truth_dims = sample_dims(source.truth, axes) if source.truth is not None else []
    given = given_for(source.given, variable, level, str(members.attrs.get("units", "")))
    attrs = source.attrs_of(variable)
    fields, note = [], ""
    for sample in choose_samples(members, truth, axes, source.truth_pairs, truth_dims)[:count]:
        shown = _array(take(members, axes.sample, sample.ensemble)).load()
        true = _array(take(truth, truth_dims, sample.truth or 0)).load() if truth is not None else None
        known = None
        if given is not None and source.given is not None and sample.ensemble in source.given_pairs:
            dims = [d for d in sample_dims(source.given, axes) if d in given.dims]
            known = _array(take(given, dims, source.given_pairs[sample.ensemble])).load()
        shown, note = central(shown.assign_attrs(attrs), axes.space)
        true = central(true, axes.space)[0].assign_attrs(attrs) if true is not None else None
        known = central(known, space_of(known, axes.space))[0] if known is not None else None
        fields.append((sample, true, shown, known))
    space = axes.space[-2:]
    pool = [f.values for _, t, m, _ in fields for f in (t, m) if f is not None]
    scale = scale_for(variable, attrs, pool)
    result = []
    for sample, true, shown, known in fields:
        drawn = draw_sample(
            true, shown, known, space=space, member=str(axes.realization),
            caption=note + _caption(sample, source, attrs),
            realizations=limits.realizations, scale=scale, dpi=limits.dpi, apart=sample.truth is None,
        )  # fmt: skip
        drawn.heading = f"{sample.why}: {'number ' * sample.text.isdigit()}{sample.text}" if sample.text else sample.why
        result.append(drawn)
        if len(result) == 1 and len(space) > 1 and sample.truth is not None and not scale.log:
            apart = draw_departures(true, shown, space=space, member=str(axes.realization), dpi=limits.dpi)
            apart.heading = "The same sample less its ensemble mean"
            apart.caption = "Truth should look like one more realization: as rough, as large, as connected."
            result.append(apart)
    return result


def score_maps(scores: xr.Dataset, attrs: Mapping, space: tuple[str, ...], limits: Limits) -> list[MapSet]:
    """Where the ensemble is good: errors and spread in one scale, bias about zero; free-running, mean and deviation."""
    units = {"units": str(attrs.get("units", ""))}

    def fields(names: Mapping[str, str]) -> dict[str, xr.DataArray]:
        kept = {t: scores[k] for t, k in names.items() if k in scores and set(space) <= set(scores[k].dims)}
        return {t: central(f, space)[0] for t, f in kept.items()}

    errors = fields({"CRPS": "crps_map", "RMSE of the mean": "rmse_map", "Spread": "spread_map"})
    bias = fields(
        {"Bias of the mean": "bias_map"} if errors else {"Mean less that of the truth": "mean_difference_map"}
    )
    ratio = fields({} if errors else {"Deviation over that of the truth": "std_ratio_map"})
    groups = [
        (errors, {"long_name": "CRPS, RMSE, spread", **units}, "score"),
        (bias, {"long_name": next(iter(bias), ""), **units}, "diverging"),
        (ratio, {"long_name": "ratio of standard deviations"}, "ratio"),
    ]
    drawn = draw_groups(groups, space[-2:], dpi=limits.dpi)
    for one in drawn:
        one.heading = "Where it is good" if errors else "Where the laws differ"
        first = next(iter((errors or bias).values()))
        one.caption = "The slice in the middle. " if first.ndim < len(space) else ""
        one.caption += (
            "At each cell, over all samples. In a calibrated ensemble the spread looks like the RMSE of the mean."
            if errors
            else "At each cell, over all samples and realizations."
        )
    return drawn


def _array(value: xr.DataArray | xr.Dataset) -> xr.DataArray:
    assert isinstance(value, xr.DataArray)
    return value


def _caption(sample: Sample, source: Source, attrs: Mapping) -> str:
    why = {
        "A typical sample": "The sample of median CRPS",
        "A hard sample": "The sample nine tenths up the order of CRPS",
    }.get(sample.why, "")
    units = units_text(attrs.get("units", ""))
    text = f"{why} ({number(sample.crps)}{' ' + units if units else ''}, plain mean over cells). " if why else ""
    text += "Fields that share units share one colour scale; the spread has its own."
    if sample.truth is None and source.truth is not None:
        text += " The ensemble is free-running: the truth shown is one of its samples, "
        text += "not the counterpart of these realizations."
    return text
