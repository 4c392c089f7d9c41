"""Maps of one sample: given, truth, realizations, mean and spread, all that share units in one colour scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import AutoLocator, FuncFormatter, MaxNLocator, NullLocator

from undrift.report.geometry import Axis, degrees_text, plan_axes, space_of, thin
from undrift.report.picture import Picture, new_figure, render
from undrift.report.style import (
    MODEL,
    TRUTH,
    Scale,
    label,
    look,
    number,
    plain,
    power_of,
    scale_for,
    scaled_tick,
    short_ticks,
    tick,
    with_power,
)

__all__ = ["MapSet", "draw_departures", "draw_groups", "draw_sample"]


@dataclass
class MapSet:
    """The panels of one sample with their colour bars; `scales` tells each panel's scale by its title.

    Bars that are `under` belong to one panel each, in the panels' order.
    """

    panels: list[Picture] = field(default_factory=list)
    bars: list[Picture] = field(default_factory=list)
    scales: dict[str, Scale] = field(default_factory=dict)
    caption: str = ""
    heading: str = ""
    wide: bool = False
    under: list[Picture] = field(default_factory=list)


def draw_sample(
    truth: xr.DataArray | None,
    members: xr.DataArray,
    given: xr.DataArray | None,
    *,
    space: tuple[str, ...],
    member: str = "realization",
    caption: str = "",
    realizations: int = 3,
    scale: Scale | None = None,
    dpi: int = 150,
    apart: bool = False,
) -> MapSet:
    """Draw one sample of one channel.

    Args:
        truth: (*space) the verifying field, or None.
        members: (realization, *space) the ensemble; its name and attributes label the figure.
        given: (*space of its own grid) what the ensemble was conditioned on, or None.
        space: the space dimensions of truth and members, (z,) y, x.
        member: the dimension of realizations.
        caption: which sample this is.
        realizations: how many members to show.
        scale: the shared scale where several samples are drawn in the same one.
        dpi: dots per CSS inch of 100 px.
        apart: whether the truth is a sample of its own, not the counterpart of the members.
    """
    name, attrs = members.name, members.attrs
    shown = [members.isel({member: m}) for m in range(min(realizations, members.sizes[member]))]
    mean, spread = members.mean(member, skipna=False), members.std(member, ddof=1, skipna=False)
    names = {} if truth is None else {"A true sample" if apart else "Truth": truth}
    names |= {f"Realization {m + 1}": f for m, f in enumerate(shown)} | {"Ensemble mean": mean}
    shared = given is not None and _units(given) == _units(members)
    if given is not None:
        names = {"Given": given} | names
    pool = [f.values for n, f in names.items() if n != "Given" or shared]
    scale = scale or scale_for(name, attrs, pool)
    scales = dict.fromkeys(names, scale)
    if given is not None and not shared:
        scales["Given"] = scale_for(given.name, given.attrs, [given.values])
    names["Ensemble spread"] = spread
    spread_attrs = {**attrs, "long_name": f"Spread of {scale.label.split(' [')[0]}"}
    scales["Ensemble spread"] = scale_for(name, spread_attrs, [spread.values], kind="score")
    if len(space) == 1:
        return MapSet([_lines(truth, members, given, space, scale, dpi)], [], scales, caption, wide=True)
    result = MapSet(scales=scales, caption=caption)
    with look():
        for title, values in names.items():
            own = space if title != "Given" else space_of(values, space)
            result.panels.append(_map(values, own, scales[title], title, caption, dpi, mean))
        for one, about in _bars(scales):
            result.bars.append(_bar(one, about, dpi))
    return result


def draw_departures(
    truth: xr.DataArray | None, members: xr.DataArray, *, space: tuple[str, ...], member: str, dpi: int = 150
) -> MapSet:
    """What the ensemble leaves open: truth and two realizations less the ensemble mean, in one scale about zero."""
    mean = members.mean(member, skipna=False)
    fields = {} if truth is None else {"Truth − mean": truth - mean}
    fields |= {
        f"Realization {m + 1} − mean": members.isel({member: m}) - mean for m in range(min(2, members.sizes[member]))
    }
    name = label(members.name, {k: v for k, v in members.attrs.items() if k != "units"})
    attrs = {"long_name": f"Departure of {name}", "units": _units(members)}
    scale = scale_for(members.name, attrs, [f.values for f in fields.values()], kind="diverging")
    result = MapSet(scales=dict.fromkeys(fields, scale))
    with look():
        result.panels = [_map(f, space, scale, title, "", dpi, mean) for title, f in fields.items()]
        result.bars = [_bar(scale, ", ".join(fields), dpi)]
    return result


def draw_groups(
    groups: Sequence[tuple[Mapping[str, xr.DataArray], Mapping, str]], space: tuple[str, ...], *, dpi: int = 150
) -> list[MapSet]:
    """Maps of scores, each group in one scale of its own.

    Args:
        groups: ({title: (*space) values}, attributes of the scale, its kind); groups without fields are left out.
        space: the space dimensions.
        dpi: dots per 100 CSS pixels.

    Returns:
        One MapSet of all the maps; in one dimension their line plots. Nothing where there is no field.
    """
    result = MapSet(wide=len(space) == 1)
    with look():
        for fields, attrs, kind in groups:
            known = {t: f for t, f in fields.items() if np.isfinite(f.values).any()}
            if not known:
                continue
            scale = scale_for("", attrs, [f.values for f in known.values()], kind=kind)
            result.scales |= dict.fromkeys(known, scale)
            if len(space) == 1:
                result.panels += [_profile(f, space[0], scale, t, dpi) for t, f in known.items()]
            else:
                result.panels += [_map(f, space, scale, t, "", dpi) for t, f in known.items()]
                result.under += [_bar(scale, t, dpi) for t in known]
    return [result] if result.panels else []


def _units(values: xr.DataArray) -> str:
    return str(values.attrs.get("units", "")).strip()


def _bars(scales: Mapping[str, Scale]) -> list[tuple[Scale, str]]:
    """Each different scale once, with the names of the panels that it serves."""
    groups: dict[int, tuple[Scale, list[str]]] = {}
    for name, scale in scales.items():
        groups.setdefault(id(scale), (scale, []))[1].append(name)
    return [(scale, ", ".join(names)) for scale, names in groups.values()]


def _map(
    values: xr.DataArray,
    space: tuple[str, ...],
    scale: Scale,
    title: str,
    about: str,
    dpi: int,
    like: xr.DataArray | None = None,
) -> Picture:
    """One panel; `like` is the field whose window it takes where both are in degrees or in the same named axes."""
    values = thin(values, space)
    y, x = plan_axes(values, space)
    (bottom, top), (left, right) = window = _window(y, x)
    if like is not None:
        ly, lx = plan_axes(like, space_of(like, space))
        if (ly.label, lx.label) == (y.label, x.label) and "(cell)" not in lx.label:
            window = _window(ly, lx)
            if x.degrees:
                x = replace(x, values=x.values + 360 * round((np.mean(window[1]) - (left + right) / 2) / 360))
    (bottom, top), (left, right) = window
    stretch = wide_cell(y, x)
    axes = _panel((top - bottom) * stretch / (right - left), named=not (y.degrees and x.degrees))
    cells = values.transpose(*space).values
    if x.values.ndim == 1:
        axes.pcolormesh(_edges(x), _edges(y), cells, cmap=scale.cmap, norm=scale.norm)
    else:
        axes.pcolormesh(x.values, y.values, cells, cmap=scale.cmap, norm=scale.norm, shading="nearest")
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor=scale.cmap.get_bad())
    axes.set_aspect(stretch, adjustable="box")
    for spine in axes.spines.values():
        spine.set_visible(True)
    _label_axes(axes, y, x)
    if y.degrees and x.degrees:
        _coastlines(axes)
    finite = values.values[np.isfinite(values.values)]
    span = f"from {number(finite.min())} to {number(finite.max())}" if finite.size else "with no valid cell"
    alt = f"Map of {title.lower()}: {scale.label}, {span}{', ' + about if about else ''}."
    return render(axes.get_figure(), alt, title=title, dpi=dpi)


def _panel(tall: float, *, named: bool) -> Axes:
    """Axes of a panel 3 inches wide with room for ticks, and for the names of axes where there are any."""
    left, low, rest = (0.6, 0.42, 0.09) if named else (0.5, 0.24, 0.09)
    wide = 3.0 - left - rest
    height = float(np.clip(wide * tall, 0.7, 4.2))
    figure = new_figure(3.0, low + height + rest, constrained=False)
    return figure.add_axes((left / 3.0, low / (low + height + rest), wide / 3.0, height / (low + height + rest)))


def _edges(axis: Axis) -> np.ndarray:
    """Borders of the cells of a 1-D axis, half way between centres; latitudes stop at the poles."""
    centres = axis.values
    if centres.size == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    return np.clip(edges, -90, 90) if axis.degrees == "N" else edges


def _window(y: Axis, x: Axis) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lowest and highest y and x that the cells reach."""
    ends = []
    for axis in (y, x):
        edges = _edges(axis) if axis.values.ndim == 1 else axis.values
        ends.append((float(edges.min()), float(edges.max())))
    return ends[0], ends[1]


def wide_cell(y: Axis, x: Axis) -> float:
    """Height of a unit of y over the width of a unit of x: 1 / cos(latitude) in degrees, the cells' shape if unlike."""
    if y.degrees == "N" and x.degrees == "E":
        return 1 / max(float(np.cos(np.deg2rad(np.clip(np.mean(y.values), -75, 75)))), 0.3)
    spans = [float(np.ptp(a.values)) or 1.0 for a in (y, x)]
    shape = [a.values.shape[0] if a.values.ndim == 1 else a.values.shape[i] for i, a in enumerate((y, x))]
    alike = spans[0] / spans[1] / (max(shape[0] - 1, 1) / max(shape[1] - 1, 1))
    return 1.0 if 0.2 < alike < 5 else 1.0 / alike


def _label_axes(axes: Axes, y: Axis, x: Axis) -> None:
    for one, set_label, ticker in ((x, axes.set_xlabel, axes.xaxis), (y, axes.set_ylabel, axes.yaxis)):
        steps = [1, 2, 3, 5, 10] if np.ptp(one.values) < 40 else [1, 1.5, 2, 3, 4.5, 6, 10]
        ticker.set_major_locator(MaxNLocator(4, steps=steps if one.degrees else None))
        if one.degrees:
            ticker.set_major_formatter(FuncFormatter(partial(_degree_tick, sign=one.degrees)))
        else:
            set_label(plain(one.label, 30))


def _degree_tick(value: float, _position: int | None = None, *, sign: str) -> str:
    return degrees_text(value, sign)


def _bar(scale: Scale, about: str, dpi: int) -> Picture:
    figure = new_figure(3.0, 0.6, constrained=False)
    axes = figure.add_axes((0.06, 0.68, 0.88, 0.26))
    bar = figure.colorbar(
        ScalarMappable(scale.norm, scale.cmap), cax=axes, orientation="horizontal", extend=scale.extend
    )
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    if scale.log:
        bar.set_ticks(_log_ticks(*scale.limits))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(tick))
    else:
        bar.locator = AutoLocator() if scale.norm.__class__.__name__ == "Normalize" else MaxNLocator(5)
        bar.update_ticks()
    low, high = scale.limits
    power = 0 if scale.log else power_of(max(abs(low), abs(high)))
    if power:
        bar.ax.xaxis.set_major_formatter(FuncFormatter(partial(scaled_tick, power=power)))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    text = with_power(scale.label, power)
    bar.set_label(plain(text, 66), fontsize=9 if len(text) < 44 else 7.5)
    alt = f"Colour scale of {about}: {scale.label}, from {number(low)} to {number(high)}."
    return render(figure, alt, title=about, dpi=dpi)


def _log_ticks(low: float, high: float) -> list[float]:
    """At most six round numbers between two positive limits."""
    if high < 8 * low:
        steps = [m * 10.0**p for p in range(-12, 13) for m in (1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)]
    else:
        steps = [m * 10.0**p for p in range(-30, 31) for m in ((1, 2, 5) if high < 200 * low else (1,))]
    inside = [s for s in steps if low <= s <= high]
    return inside[:: -(-len(inside) // 6)] if inside else [low, high]


def _lines(
    truth: xr.DataArray | None,
    members: xr.DataArray,
    given: xr.DataArray | None,
    space: tuple[str, ...],
    scale: Scale,
    dpi: int,
) -> Picture:
    """A sample in one dimension: members thin, mean and truth thick, a band of two spreads, given as points."""
    (dim,) = space
    (x,) = plan_axes(members, space)
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
        if truth is not None:
            axes.plot(x.values, truth.values, color=TRUTH, lw=1.4, label="truth")
        if given is not None and _units(given) == _units(members):
            (gx,) = plan_axes(given, space_of(given, space))
            axes.plot(gx.values, given.values, "o", ms=4, mfc="none", color="#d55e00", label="given")
        axes.set_xlabel(plain(x.label))
        short_ticks(axes.yaxis, scale.label)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=3)
        return render(figure, f"Line plot of given, truth and realizations: {scale.label}.", dpi=dpi, vector=True)


def _profile(values: xr.DataArray, dim: str, scale: Scale, title: str, dpi: int) -> Picture:
    (x,) = plan_axes(values, (dim,))
    figure = new_figure(5.0, 2.8)
    axes = figure.add_subplot()
    axes.plot(x.values, values.values, color=MODEL)
    axes.set_xlabel(plain(x.label))
    short_ticks(axes.yaxis, scale.label)
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
    except Exception:
        return ()
    return ()
