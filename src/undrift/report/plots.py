"""Line plots of one field's scores: spectra, ranks, spread against error, distribution, skill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from undrift.report.picture import Picture, new_figure, render
from undrift.report.style import MODEL, TRUTH, line_style, look, number, plain, short_ticks, tick
from undrift.report.tables import baselines_of

__all__ = ["SIZE", "captioned", "log_ticks", "score_plots"]

SIZE = (5.4, 3.6)
BAND = (0.8, 1.25)


def captioned(picture: Picture, caption: str) -> Picture:
    """The same picture with words under it."""
    return replace(picture, caption=caption)


def log_ticks(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Decades written as plain numbers."""
    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            axis.set_major_locator(LogLocator(10, numticks=6))
            axis.set_major_formatter(FuncFormatter(tick))
            axis.set_minor_formatter(NullFormatter())


def score_plots(scores: xr.Dataset, units: str, name: str, *, dpi: int = 150) -> list[Picture]:
    """All plots that the scores of one channel allow, each with what to look for under it.

    Args:
        scores: of one channel.
        units: of the field.
        name: of the field, for the words that replace the pictures.
        dpi: dots per 100 CSS pixels where a plot becomes a PNG.
    """
    unit = _bracketed(units)
    with look():
        drawn = [
            _spectra(scores, units, name, dpi),
            _ranks(scores, name, dpi),
            _spread_error(scores, unit, name, dpi),
            _distribution(scores, units, name, dpi),
            _skill(scores, name, dpi),
            _by_sample(scores, units, name, dpi),
        ]
    return [p for p in drawn if p is not None]


def _bracketed(units: str, power: str = "") -> str:
    """`` [K]``, or a power of the units; nothing where there are none."""
    if not units or units == "1":
        return ""
    return f" [{units if not power or units.isalpha() else f'({units})'}{power}]"


def _spectra(scores: xr.Dataset, units: str, name: str, dpi: int) -> Picture | None:
    if "spectrum_truth" not in scores or scores.sizes["wavenumber"] < 2:
        return None
    x = scores["wavelength"].values
    truth, ours, ratio = (scores[f"spectrum_{k}"].values for k in ("truth", "ensemble", "ratio"))
    if not np.isfinite(truth).any() or not np.nanmax(truth) > 0:
        return None
    figure = new_figure(SIZE[0], 4.6)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
    top.plot(x, truth, color=TRUTH, lw=2, label="truth")
    top.plot(x, ours, color=MODEL, label="ensemble")
    low.axhspan(*BAND, color="#e8f1e9", lw=0, zorder=0)
    low.axhline(1, color=TRUTH, lw=0.9)
    if "spectrum_ratio_interval" in scores:
        bounds = [scores["spectrum_ratio_interval"].sel(bound=b).values for b in ("lower", "upper")]
        low.fill_between(x, *bounds, color=MODEL, alpha=0.2, lw=0)
    for i, base in enumerate(baselines_of(scores) if "spectrum_ratio_baseline" in scores else []):
        style = {**line_style(i), "lw": 1.1, "marker": ""}
        values = scores["spectrum_ratio_baseline"].sel(baseline=base).values
        top.plot(x, values * truth, label=plain(base, 24), **style)
        low.plot(x, values, **style)
    low.plot(x, ratio, color=MODEL)
    top.set(xscale="log", yscale="log")
    positive = truth[np.isfinite(truth) & (truth > 0)]
    top.set_ylim(positive.min() / 8, positive.max() * 3)
    finite = ratio[np.isfinite(ratio)]
    low.set_ylim(
        min(0.4, 0.9 * finite.min()) if finite.size else 0.4,
        float(np.clip(1.1 * finite.max(), 1.6, 4)) if finite.size else 1.6,
    )
    low.set_xlim(x.max(), min(x.min(), 2.0))
    low.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    low.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    low.xaxis.set_minor_locator(NullLocator())
    low.set_xlabel("wavelength [cells]")
    low.set_ylabel("ratio to truth")
    top.set_ylabel(plain(f"power{_bracketed(units, '²')}"))
    log_ticks(top, y=True)
    top.legend(fontsize=8)
    inside = (ratio >= BAND[0]) & (ratio <= BAND[1])
    kind = scores.attrs.get("spectrum", "isotropic")
    text = f"Power spectrum ({kind}). The ensemble's power over the truth's is within {BAND[0]}–{BAND[1]} (green) at "
    text += f"{int(inside.sum())} of {len(ratio)} wavenumbers"
    text += "; shading: 95 % interval." if "spectrum_ratio_interval" in scores else "."
    return captioned(render(figure, f"{name}: {text}", title="Scales", dpi=dpi, vector=True), text)


def _ranks(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    if "rank_histogram" not in scores:
        return None
    share = scores["rank_histogram"].values
    count = len(share)
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    relative = share * count
    axes.bar(np.arange(count), relative, width=0.86 if count < 40 else 1.0, color="#7fb2d6", lw=0)
    axes.axhline(1, color=TRUTH, lw=1)
    expected = float(scores["reliability_expected"]) if "reliability_expected" in scores else float("nan")
    if np.isfinite(expected):
        # The index sums |f - 1/K|; for Gaussian deviations E|d| = sd sqrt(2/pi), so one bin's 95 % half width follows.
        half = 1.96 * expected * np.sqrt(np.pi / 2)
        axes.axhspan(1 - half, 1 + half, color="#f0b429", alpha=0.3, lw=0, zorder=2)
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_ylim(0, max(1.25 * np.nanmax(relative), 1.6))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("members below the truth")
    axes.set_ylabel("frequency / expected")
    index = number(float(scores["reliability_index"])) if "reliability_index" in scores else "–"
    text = f"Rank of the truth among {count - 1} members; reliability index (mean distance of a bar from 1) {index}"
    if "reliability_noise" in scores and np.isfinite(scores["reliability_noise"]):
        noise = number(float(scores["reliability_noise"]))
        text += f" (by chance alone {number(expected)}, 95 % of times below {noise})."
        text += " Yellow: where 95 % of a calibrated ensemble's bins lie."
    else:
        text += ". A calibrated ensemble is flat at 1; a U is too narrow, a dome too wide."
    return captioned(render(figure, f"{name}: {text}", title="Rank histogram", dpi=dpi, vector=True), text)


def _spread_error(scores: xr.Dataset, unit: str, name: str, dpi: int) -> Picture | None:
    if "binned_spread" not in scores:
        return None
    x, y = scores["binned_spread"].values, scores["binned_rmse"].values
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    most = 1.08 * max(x[known].max(), y[known].max())
    axes.plot([0, most], [0, most], color=TRUTH, lw=1, label="1 : 1")
    axes.plot(x[known], y[known], "o-", color=MODEL, ms=5)
    axes.set(xlim=(0, most), ylim=(0, most))
    short_ticks(axes.xaxis, f"predicted spread{unit}")
    short_ticks(axes.yaxis, f"RMSE of the mean{unit}")
    axes.legend(loc="best")
    ratio = number(float(scores["spread_skill"])) if "spread_skill" in scores else "–"
    text = (
        f"Error in {int(known.sum())} bins of predicted spread, each of the same area; spread/skill over all {ratio}."
    )
    text += " Above the line the ensemble is too sure, below it too cautious."
    return captioned(render(figure, f"{name}: {text}", title="Spread against error", dpi=dpi, vector=True), text)


def _distribution(scores: xr.Dataset, units: str, name: str, dpi: int) -> Picture | None:
    if "histogram_edges" not in scores:
        return None
    edges = scores["histogram_edges"].values
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    width = np.diff(edges)
    lines = (("truth", TRUTH, 2.0, "-"), ("ensemble", MODEL, 1.5, "-"))
    shares = {side: scores[f"histogram_{side}"].values / width for side, *_ in lines}
    floor = min((s[s > 0].min() for s in shares.values() if (s > 0).any()), default=np.inf)
    for side, colour, thick, dash in lines:
        heights = np.maximum(shares[side], floor / 9 if np.isfinite(floor) else 0)
        axes.stairs(heights, edges, color=colour, lw=thick, ls=dash, label=side, baseline=None)
    top = axes.get_ylim()[1]
    for side, colour, _, _ in lines:
        for q in (0.9, 0.99, 0.999):
            if f"quantiles_{side}" in scores and q in scores["quantile"].values:
                at = float(scores[f"quantiles_{side}"].sel(quantile=q))
                axes.plot([at], [1.02], marker="v", color=colour, ms=6 if side == "truth" else 4, ls="",
                          transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip
    axes.set_yscale("log")
    if np.isfinite(floor):
        axes.set_ylim(floor / 2, max(top, floor) * 3)
    log_ticks(axes, y=True)
    short_ticks(axes.xaxis, f"value{_bracketed(units)}")
    axes.set_ylabel(plain(f"density{_bracketed(units, '⁻¹')}"))
    axes.legend(loc="lower center")
    text = "All values of truth and ensemble, the tails on a logarithmic scale; triangles: 90, 99 and 99.9 % quantiles."
    return captioned(render(figure, f"{name}: {text}", title="Distribution", dpi=dpi, vector=True), text)


def _skill(scores: xr.Dataset, name: str, dpi: int) -> Picture | None:
    names = baselines_of(scores)[::-1]
    if not names or "skill" not in scores:
        return None
    figure = new_figure(SIZE[0], 1.3 + 0.42 * len(names))
    axes = figure.add_subplot()
    for i, base in enumerate(names):
        for shift, key, marker, colour in ((0.11, "skill", "o", MODEL), (-0.11, "variogram_skill", "s", "#d55e00")):
            if key not in scores:
                continue
            value = float(scores[key].sel(baseline=base))
            if f"{key}_interval" in scores:
                axes.plot(
                    scores[f"{key}_interval"].sel(baseline=base).values,
                    [i + shift] * 2,
                    color=colour,
                    lw=2.5,
                    alpha=0.5,
                )
            text = {"skill": "CRPS", "variogram_skill": "variogram score"}[key] if i == 0 else None
            axes.plot([value], [i + shift], marker, color=colour, ms=6, label=text, ls="")
    axes.axvline(0, color=TRUTH, lw=1)
    axes.set_yticks(range(len(names)), [plain(n, 26) for n in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %".replace("-", "−")))
    axes.set_xlabel("skill of the model against each baseline")
    axes.grid(axis="x")
    axes.legend(loc="best")
    text = "Right of 0 the model is better; bars: 95 % intervals."
    return captioned(render(figure, f"{name}: {text}", title="Skill", dpi=dpi, vector=True), text)


def _by_sample(scores: xr.Dataset, units: str, name: str, dpi: int) -> Picture | None:
    if "crps_sample" not in scores or scores.sizes["sample"] < 4:
        return None
    values = scores["crps_sample"].values
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    axes.plot(np.arange(len(values)), values, color=MODEL, lw=1.2, marker="o" if len(values) < 60 else "", ms=3.5)
    if "crps" in scores:
        axes.axhline(float(scores["crps"]), color=TRUTH, lw=0.9)
    labels = [str(s) for s in scores["sample"].values]
    where = np.arange(0, len(values), max(1, round((len(values) - 1) / 3)))
    dims, short = zip(*(_last_label(text) for text in labels), strict=True)
    axes.set_xticks(where, [plain(short[i], 20) for i in where])
    axes.set_xlabel(plain(dims[0]))
    axes.set_ylim(0, 1.08 * np.nanmax(values) if np.isfinite(values).any() else 1)
    short_ticks(axes.yaxis, f"CRPS{_bracketed(units)}")
    worst = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
    where = labels[worst].replace("T00:00:00", "")
    most = f"{number(float(values[worst]))} {units if units != '1' else ''}".strip()
    text = f"CRPS of each sample; line: over all. Worst: {where} ({most})."
    return captioned(render(figure, f"{name}: {text}", title="Over the samples", dpi=dpi, vector=True), text)


def _last_label(text: str) -> tuple[str, str]:
    """``scenario=E1, time=2095-10-20T00:00:00`` as the last dimension and its label: ``time`` and ``2095-10-20``."""
    name, equals, value = text.split(", ")[-1].partition("=")
    if not equals:
        return "sample", name
    return name, value.removesuffix(":00").removesuffix("T00:00").replace("T", " ")
