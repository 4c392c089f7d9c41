"""Maps of one sample: given, truth, realizations, mean and spread, all that share units in one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import AutoLocator, FuncFormatter, MaxNLocator, NullLocator

from undrift.report.geometry import Axis, Frame, frame_of, plan_axes, thin
from undrift.report.picture import Picture, new_figure, render
from undrift.report.style import MODEL, TRUTH, Scale, look, number, plain, scale_for

__all__ = ["MapSet", "draw_sample", "draw_single"]


@dataclass
class MapSet:
    """The panels of one sample with their colour bars; `scales` tells each panel's scale by its title."""

    panels: list[Picture] = field(default_factory=list)
    bars: list[Picture] = field(default_factory=list)
    scales: dict[str, Scale] = field(default_factory=dict)
    caption: str = ""
    heading: str = ""


def draw_sample(
    truth: xr.DataArray,
    members: xr.DataArray,
    given: xr.DataArray | None,
    *,
    frame: Frame,
    caption: str = "",
    realizations: int = 3,
    scale: Scale | None = None,
    dpi: int = 150,
) -> MapSet:
    """Draw one sample of one channel.

    Args:
        truth: (*space) the verifying field; its attributes carry name and units. May be all NaN where none exists.
        members: (realization, *space) the ensemble.
        given: (*space of its own grid) what the ensemble was conditioned on, or None.
        frame: the roles of the dimensions, of which `space` is used.
        caption: which sample this is.
        realizations: how many members to show.
        scale: the shared scale where several samples are drawn in the same one.
        dpi: dots per CSS inch of 100 px.
    """
    axis = next(str(d) for d in members.dims if d not in frame.space)
    shown = [members.isel({axis: m}) for m in range(min(realizations, members.sizes[axis]))]
    mean, spread = members.mean(axis, skipna=False), members.std(axis, ddof=1, skipna=False)
    names = {"Truth": truth} | {f"Realization {m + 1}": f for m, f in enumerate(shown)} | {"Ensemble mean": mean}
    shared = given is not None and _units(given) == _units(truth)
    if given is not None:
        names = {"Given": given} | names
    pool = [f.values for n, f in names.items() if n != "Given" or shared]
    scale = scale or scale_for(truth.name, truth.attrs, pool)
    scales = dict.fromkeys(names, scale)
    if given is not None and not shared:
        scales["Given"] = scale_for(given.name, given.attrs, [given.values])
    names["Ensemble spread"] = spread
    spread_attrs = {**truth.attrs, "long_name": f"Spread of {scale.label.split(' [')[0]}"}
    scales["Ensemble spread"] = scale_for(truth.name, spread_attrs, [spread.values], kind="score")
    if len(frame.space) == 1:
        return MapSet([_lines(truth, members, given, frame, scale, dpi)], [], scales, caption)
    result = MapSet(scales=scales, caption=caption)
    with look():
        for name, values in names.items():
            space = frame.space if name != "Given" else frame_of(values, frame.space).space
            result.panels.append(_map(values, space, scales[name], name, caption, dpi))
        for one, about in _bars(scales):
            result.bars.append(_bar(one, about, dpi))
    return result


def draw_single(values: xr.DataArray, frame: Frame, scale: Scale, title: str, *, dpi: int = 150) -> MapSet:
    """One map on its own, with its colour bar: a score by cell, or a profile in one dimension."""
    with look():
        if len(frame.space) == 1:
            return MapSet([_profile(values, frame.space[0], scale, title, dpi)], [], {title: scale})
        panel = _map(values, frame.space, scale, title, "", dpi)
        return MapSet([panel], [_bar(scale, title, dpi)], {title: scale})


def _units(values: xr.DataArray) -> str:
    return str(values.attrs.get("units", "")).strip()


def _bars(scales: Mapping[str, Scale]) -> list[tuple[Scale, str]]:
    """Each different scale once, with the names of the panels that it serves."""
    groups: dict[int, tuple[Scale, list[str]]] = {}
    for name, scale in scales.items():
        groups.setdefault(id(scale), (scale, []))[1].append(name)
    return [(scale, ", ".join(names)) for scale, names in groups.values()]


def _map(values: xr.DataArray, space: tuple[str, ...], scale: Scale, title: str, about: str, dpi: int) -> Picture:
    values, note = _slice(values, space)
    space = space[-2:]
    values = thin(values, space)
    y, x = plan_axes(values, space)
    tall, wide = _extent(y, x)
    figure = new_figure(3.0, float(np.clip(3.0 * tall / wide, 1.1, 4.2)) + 0.25)
    axes = figure.add_subplot()
    axes.pcolormesh(
        x.values, y.values, values.transpose(*space).values, cmap=scale.cmap, norm=scale.norm, shading="nearest"
    )
    axes.set_aspect(wide_cell(y, x), adjustable="box")
    axes.set_facecolor(scale.cmap.get_bad())
    for spine in axes.spines.values():
        spine.set_visible(True)
    _label_axes(axes, y, x)
    if y.degrees and x.degrees:
        _coastlines(axes)
    finite = values.values[np.isfinite(values.values)]
    span = f"from {number(finite.min())} to {number(finite.max())}" if finite.size else "with no valid cell"
    alt = f"Map of {title.lower()}: {scale.label}, {span}{', ' + about if about else ''}{note}."
    return render(figure, alt, title=title + note, dpi=dpi)


def _slice(values: xr.DataArray, space: tuple[str, ...]) -> tuple[xr.DataArray, str]:
    """The central slice of a volume, and the words that say so."""
    note = ""
    for dim in space[:-2]:
        middle = values.sizes[dim] // 2
        at = number(float(values[dim][middle])) if dim in values.coords else str(middle)
        values, note = values.isel({dim: middle}), f"{note} (slice {dim} = {at})"
    return values, note


def wide_cell(y: Axis, x: Axis) -> float:
    """Height of a unit of y over the width of a unit of x: 1 / cos(latitude) in degrees, the cells' shape if unlike."""
    if y.degrees == "N" and x.degrees == "E":
        return 1 / max(float(np.cos(np.deg2rad(np.clip(np.mean(y.values), -75, 75)))), 0.3)
    spans = [float(np.ptp(a.values)) or 1.0 for a in (y, x)]
    shape = [a.values.shape[0] if a.values.ndim == 1 else a.values.shape[i] for i, a in enumerate((y, x))]
    alike = spans[0] / spans[1] / (max(shape[0] - 1, 1) / max(shape[1] - 1, 1))
    return 1.0 if 0.2 < alike < 5 else 1.0 / alike


def _extent(y: Axis, x: Axis) -> tuple[float, float]:
    return (float(np.ptp(y.values)) or 1.0) * wide_cell(y, x), float(np.ptp(x.values)) or 1.0


def _label_axes(axes: Axes, y: Axis, x: Axis) -> None:
    for one, set_label, ticker in ((x, axes.set_xlabel, axes.xaxis), (y, axes.set_ylabel, axes.yaxis)):
        ticker.set_major_locator(MaxNLocator(4, steps=[1, 1.5, 2, 3, 4.5, 5, 6, 10] if one.degrees else None))
        if one.degrees:
            ticker.set_major_formatter(FuncFormatter(_degree_text(one.degrees)))
        else:
            set_label(plain(one.label, 30))


def _degree_text(sign: str):  # noqa: ANN202 - a matplotlib tick function
    def text(value: float, _position: int | None = None) -> str:
        if sign == "E":
            value = (value + 180) % 360 - 180
            if abs(abs(value) - 180) < 1e-9 or value == 0:
                return f"{abs(value):g}°"
        side = {"N": "NS", "E": "EW"}[sign][int(value < 0)]
        return "0°" if value == 0 else f"{round(abs(value), 6):g}°{side}"

    return text


def _bar(scale: Scale, about: str, dpi: int) -> Picture:
    figure = new_figure(3.0, 0.62)
    axes = figure.add_subplot()
    bar = figure.colorbar(
        ScalarMappable(scale.norm, scale.cmap), cax=axes, orientation="horizontal", extend=scale.extend
    )
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    if not scale.log:
        bar.locator = AutoLocator() if scale.norm.__class__.__name__ == "Normalize" else MaxNLocator(5)
        bar.update_ticks()
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.set_label(plain(scale.label, 60), fontsize=9 if len(scale.label) < 44 else 7.5)
    low, high = scale.limits
    alt = f"Colour scale of {about}: {scale.label}, from {number(low)} to {number(high)}."
    return render(figure, alt, title=about, dpi=dpi)


def _lines(
    truth: xr.DataArray, members: xr.DataArray, given: xr.DataArray | None, frame: Frame, scale: Scale, dpi: int
) -> Picture:
    """A sample in one dimension: members thin, mean and truth thick, a band of two spreads, given as points."""
    (dim,) = frame.space
    (x,) = plan_axes(truth, frame.space)
    values = np.asarray(members.transpose(..., dim).values, dtype=np.float64).reshape(-1, members.sizes[dim])
    mean, spread = values.mean(0), values.std(0, ddof=1)
    with look():
        figure = new_figure(7.2, 3.2)
        axes = figure.add_subplot()
        axes.fill_between(
            x.values, mean - 2 * spread, mean + 2 * spread, color=MODEL, alpha=0.15, lw=0, label="mean ± 2 spreads"
        )
        for m, line in enumerate(values[:3]):
            axes.plot(x.values, line, color=MODEL, lw=0.7, alpha=0.7, label="realizations 1–3" if m == 0 else None)
        axes.plot(x.values, mean, color=MODEL, label="ensemble mean")
        axes.plot(x.values, truth.values, color=TRUTH, lw=1.4, label="truth")
        if given is not None and _units(given) == _units(truth):
            (gx,) = plan_axes(given, frame_of(given, frame.space).space)
            axes.plot(gx.values, given.values, "o", ms=4, mfc="none", color="#d55e00", label="given")
        axes.set_xlabel(plain(x.label))
        axes.set_ylabel(plain(scale.label))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=3)
        return render(figure, f"Line plot of given, truth and realizations: {scale.label}.", dpi=dpi, vector=True)


def _profile(values: xr.DataArray, dim: str, scale: Scale, title: str, dpi: int) -> Picture:
    (x,) = plan_axes(values, (dim,))
    figure = new_figure(5.0, 2.8)
    axes = figure.add_subplot()
    axes.plot(x.values, values.values, color=MODEL)
    axes.set_xlabel(plain(x.label))
    axes.set_ylabel(plain(scale.label))
    return render(figure, f"{title} along {x.label}: {scale.label}.", title=title, dpi=dpi, vector=True)


def _coastlines(axes: Axes) -> None:
    """Coastlines where cartopy has them on disk; nothing is fetched, for a report must not need the network."""
    x_range, y_range = axes.get_xlim(), axes.get_ylim()
    for line in _coast():
        for shift in (0, 360):
            if line[:, 0].max() + shift > x_range[0] and line[:, 0].min() + shift < x_range[1]:
                axes.plot(line[:, 0] + shift, line[:, 1], color="#14181c", lw=0.6, scalex=False, scaley=False)
    axes.set_xlim(x_range)
    axes.set_ylim(y_range)


@lru_cache(maxsize=1)
def _coast() -> tuple[np.ndarray, ...]:
    try:
        import cartopy  # pyright: ignore[reportMissingImports]
        from cartopy.io import shapereader  # pyright: ignore[reportMissingImports]

        for key in ("pre_existing_data_dir", "data_dir"):
            for path in sorted(
                Path(cartopy.config[key]).glob("shapefiles/natural_earth/physical/ne_50m_coastline.shp")
            ):
                return tuple(np.asarray(g.coords)[:, :2] for g in shapereader.Reader(str(path)).geometries())
    except Exception:  # noqa: BLE001 - coastlines are an ornament; whatever is wrong with cartopy, the map stands
        return ()
    return ()
