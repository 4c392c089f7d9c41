"""Curves by lead time of forecasts: CRPS beside the baselines, spread/skill, scales, and events of rain."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from undrift.report.picture import Picture, new_figure, render
from undrift.report.plots import BAND, SIZE, captioned
from undrift.report.style import MODEL, TRUTH, line_style, look, number, plain, short_ticks, units_text
from undrift.verify.leads import LEAD, lead_text

__all__ = ["lead_axis", "lead_plots"]

_FIELDS = 6
_UNITS = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("days", 86400.0))


def lead_plots(scores: xr.Dataset, *, dpi: int = 150) -> list[Picture]:
    """The curves of each field, each with what to look for under it.

    Args:
        scores: by lead time, as `undrift.evaluate` makes them of forecasts.
        dpi: dots per 100 CSS pixels.
    """
    names = [str(name) for name in scores["variable"].values]
    pictures = []
    with look():
        for name in names[:_FIELDS]:
            one = scores.sel(variable=name)
            drawn = [_crps(one, name, dpi), _spread(one, name, dpi), _scales(one, name, dpi), _events(one, name, dpi)]
            pictures += [picture for picture in drawn if picture is not None]
    return pictures


def lead_axis(scores: xr.Dataset) -> tuple[np.ndarray, str]:
    """Leads as numbers in a unit of which the longest is some, and the words beside the axis."""
    leads = scores[LEAD].values
    if leads.dtype.kind != "m":
        return leads.astype(np.float64), "lead [steps]"
    seconds = leads / np.timedelta64(1, "s")
    unit, size = next(((u, s) for u, s in reversed(_UNITS) if seconds.max() >= 4 * s), _UNITS[0])
    return seconds / size, f"lead [{unit}]"


def _framed(axes: Axes, scores: xr.Dataset) -> np.ndarray:
    """The leads, with the axis of them set."""
    x, text = lead_axis(scores)
    margin = 0.03 * (x.max() - x.min()) or 0.5
    axes.set_xlim(x.min() - margin, x.max() + margin)
    axes.set_xlabel(text)
    axes.grid(axis="y")
    return x


def _band(axes: Axes, scores: xr.Dataset, name: str, x: np.ndarray) -> None:
    """Shade the 95 % interval of a score of the model."""
    if f"{name}_interval" in scores:
        low, high = (scores[f"{name}_interval"].sel(bound=b).values for b in ("lower", "upper"))
        axes.fill_between(x, low, high, color=MODEL, alpha=0.2, lw=0)


def _crps(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    if not np.isfinite(scores["crps"].values).any():
        return None
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    x = _framed(axes, scores)
    units = units_text(scores["units"].item() if "units" in scores.coords else "")
    for i, base in enumerate(scores["baseline"].values if "baseline" in scores.dims else []):
        style = {**line_style(i), "lw": 1.2, "ms": 4}
        axes.plot(x, scores["crps_baseline"].sel(baseline=base).values, label=plain(base, 26), **style)
    _band(axes, scores, "crps", x)
    axes.plot(x, scores["crps"].values, color=MODEL, lw=2, label="ensemble")
    axes.set_ylim(bottom=0)
    short_ticks(axes.yaxis, f"CRPS [{units}]" if units and units != "1" else "CRPS")
    axes.legend(fontsize=8)
    text = _against(scores)
    return captioned(render(figure, f"{name}: {text}", title=f"{name}: CRPS by lead time", dpi=dpi), text)


def _against(scores: xr.Dataset) -> str:
    """Which baseline is nearest at the first and the last lead."""
    text = "Fair CRPS over all starts, lower is better; shading: 95 % interval over the starts."
    if "skill" not in scores:
        return text
    known = np.flatnonzero(np.isfinite(scores["skill"].values).any(axis=scores["skill"].dims.index("baseline")))
    for k in dict.fromkeys(known[[0, -1]].tolist() if known.size else []):
        skill = scores["skill"].isel({LEAD: k})
        base = str(scores["baseline"].values[int(np.nanargmin(skill.values))])
        share = float(skill.min())
        verb = "below" if share >= 0 else "above"
        text += f" At {lead_text(scores[LEAD].values[k])} it is {number(100 * abs(share), 2)} % {verb} that of {base},"
        text += " the best baseline."
    return text


def _spread(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    values = scores["spread_skill"].values
    if not np.isfinite(values).any():
        return None
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    x = _framed(axes, scores)
    axes.axhline(1, color=TRUTH, lw=0.9)
    _band(axes, scores, "spread_skill", x)
    axes.plot(x, values, "o-", color=MODEL, ms=4)
    axes.set_ylim(min(0.5, 0.9 * np.nanmin(values)), max(1.5, 1.1 * np.nanmax(values)))
    axes.set_ylabel("spread / RMSE of the mean")
    text = f"1 is calibrated at any number of members; {number(np.nanmin(values))} to {number(np.nanmax(values))} here."
    text += " Below the line the ensemble is too sure, above it too cautious; shading: 95 % interval."
    return captioned(render(figure, f"{name}: {text}", title=f"{name}: spread/skill by lead time", dpi=dpi), text)


def _scales(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    if "spectrum_ratio" not in scores or not np.isfinite(scores["spectrum_ratio"].values).any():
        return None
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    x = _framed(axes, scores)
    axes.axhspan(*BAND, color="#e8f1e9", lw=0, zorder=0)
    axes.axhline(1, color=TRUTH, lw=0.9)
    for i, band in enumerate(scores["band"].values):
        style = {**line_style(i), "lw": 1.3, "ms": 4}
        axes.plot(x, scores["spectrum_ratio"].sel(band=band).values, label=plain(band), **style)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    low, high = (f(scores["spectrum_ratio"].values) for f in (np.nanmin, np.nanmax))
    axes.set_ylim(min(0.5, 0.9 * low) if low > 0 else 0.1, max(2.0, 1.1 * high))
    axes.set_ylabel("power / that of the truth")
    axes.legend(fontsize=8, title="wavelength", title_fontsize=8)
    text = f"Power of the members within octaves of wavelength; green: {BAND[0]}–{BAND[1]}."
    text += " What falls with the lead is blurred, what rises is noise."
    return captioned(render(figure, f"{name}: {text}", title=f"{name}: scales by lead time", dpi=dpi), text)


def _events(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    if "csi" not in scores or not np.isfinite(scores["csi"].values).any():
        return None
    figure = new_figure(SIZE[0], 4.6)
    top, low = figure.subplots(2, 1, sharex=True)
    _framed(top, scores)
    x = _framed(low, scores)
    top.set_xlabel("")
    scale = int(scores["scale"].values[len(scores["scale"]) // 2])
    units = units_text(scores["units"].item() if "units" in scores.coords else "")
    for i, threshold in enumerate(scores["threshold"].values):
        style = {**line_style(i), "lw": 1.3, "ms": 4}
        at = scores.sel(threshold=threshold)
        top.plot(x, at["csi"].values, label=plain(f"≥ {threshold:.3g} {units}"), **style)
        low.plot(x, at["fss"].sel(scale=scale).values, **style)
    for axes, text in ((top, "CSI"), (low, f"FSS, {scale} cells")):
        axes.set_ylim(0, 1)
        axes.set_ylabel(text)
    top.legend(fontsize=8)
    text = (
        "Events of at least each threshold: critical success index of the members, and fractions skill score of their "
    )
    text += f"share in neighbourhoods of {scale} cells. 1 is best."
    return captioned(render(figure, f"{name}: {text}", title=f"{name}: events by lead time", dpi=dpi), text)
