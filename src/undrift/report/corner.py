"""Corner plots: the marginals of weighted samples of parameters, one by one and in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from undrift.report.picture import Picture, new_figure, render
from undrift.report.plots import captioned
from undrift.report.style import MODEL, TRUTH, look, plain

__all__ = ["Samples", "corner", "enclosing", "parameter_label"]

MOST = 8  # parameters that are told apart at the width of a page
MASSES = (0.683, 0.954)
_BINS, _SMOOTH = 40, 1.3  # of each side of a pair, and the bins that a contour is smoothed by
_REACH = 0.001  # of the mass that an axis leaves out at each end

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Weighted samples (n, D) and what they are called."""

    name: str
    values: Floats
    weights: Floats


def parameter_label(name: str, label: str, limit: int = 40) -> str:
    """What an axis is called: LaTeX where there is some that can be set, else the name literally."""
    if label and label != name and len(label) <= 3 * limit:
        try:
            MathTextParser("path").parse(f"${label}$")
        except ValueError:
            pass
        else:
            return f"${label}$"
    return plain(name, limit)


def enclosing(density: Floats, masses: Sequence[float]) -> Floats:
    """Levels of a density on equal cells above which lie these shares of its mass, in rising order of the level."""
    ordered = np.sort(density.ravel())[::-1]
    total = np.cumsum(ordered)
    return np.sort([ordered[np.searchsorted(total, mass * total[-1])] for mass in masses])


def corner(
    parts: Sequence[Samples], names: Sequence[str], labels: Sequence[str], *, title: str, dpi: int = 150
) -> Picture:
    """A triangle of marginals: histograms on the diagonal, contours of 68 % and 95 % of the mass below it.

    Args:
        parts: one or two samples of the same D parameters: filled and in the model's colour, then a black line.
        names: of the parameters (D,).
        labels: their LaTeX without dollar signs (D,).
        title: of the picture.
        dpi: dots per 100 CSS pixels.
    """
    count = min(len(names), MOST)
    shown = [parameter_label(name, label, 14 if count > 3 else 24) for name, label in zip(names, labels, strict=True)]
    limits = [_limits(parts, i) for i in range(count)]
    with look():
        side = float(np.clip(2.6 * count, 4.2, 11.0))
        figure = new_figure(side, side)
        grid = figure.subplots(count, count, squeeze=False, sharex="col")
        for i in range(count):
            for j in range(count):
                axes = grid[i, j]
                if j > i:
                    axes.set_axis_off()
                    continue
                for k, part in enumerate(parts):
                    if i == j:
                        _histogram(axes, part, i, limits[i], first=k == 0)
                    else:
                        _contours(axes, part, (j, i), (limits[j], limits[i]), first=k == 0)
                _dress(axes, i, j, count, limits, shown)
        figure.align_labels()
        if len(parts) > 1:
            lines = [Line2D([], [], color=colour, lw=2) for colour in (MODEL, TRUTH)]
            figure.legend(lines, [plain(part.name) for part in parts], loc="upper right", fontsize=10)
    text = "Diagonal: density of each parameter. Below: contours that enclose 68 % and 95 % of each pair."
    if len(parts) > 1:
        text += f" Blue: {parts[0].name}; black: {parts[1].name}."
    if count < len(names):
        text += f" The first {count} of {len(names)} parameters."
    alt = f"{title} of {', '.join(names[:count])}. {text}"
    return captioned(render(figure, alt, title=title, dpi=dpi), text)


def _limits(parts: Sequence[Samples], column: int) -> tuple[float, float]:
    """What an axis shows: all but a thousandth of each sample at each end, and a margin."""
    ends = []
    for part in parts:
        order = np.argsort(part.values[:, column])
        total = np.cumsum(part.weights[order])
        at = np.searchsorted(total, np.array([_REACH, 1 - _REACH]) * total[-1])
        ends.append(part.values[order, column][np.minimum(at, len(order) - 1)])
    low, high = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
    margin = 0.1 * (high - low) or max(abs(high), 1.0) * 1e-6
    return float(low - margin), float(high + margin)


def _histogram(axes: Axes, part: Samples, column: int, limits: tuple[float, float], *, first: bool) -> None:
    bins = int(np.clip(np.sqrt(_effective(part)) / 1.5, 12, _BINS))
    height, edges = np.histogram(part.values[:, column], bins, limits, weights=part.weights / part.weights.sum())
    height = height / np.diff(edges)
    if first:
        axes.stairs(height, edges, color=MODEL, fill=True, alpha=0.35, lw=0)
    axes.stairs(height, edges, color=MODEL if first else TRUTH, lw=1.4)


def _contours(
    axes: Axes, part: Samples, columns: tuple[int, int], limits: tuple[tuple[float, float], ...], *, first: bool
) -> None:
    bins = int(np.clip(_effective(part) ** 0.4, 20, _BINS))
    x, y = (part.values[:, column] for column in columns)
    table, x_edges, y_edges = np.histogram2d(x, y, bins, limits, weights=part.weights)
    smooth = gaussian_filter(table.T, _SMOOTH, mode="nearest")
    levels = np.unique(enclosing(smooth, MASSES))
    if len(levels) < 2 or not levels[0] > 0:
        axes.scatter(x, y, s=1, color=MODEL if first else TRUTH)
        return
    middle = [(edges[1:] + edges[:-1]) / 2 for edges in (x_edges, y_edges)]
    if first:
        axes.contourf(*middle, smooth, [*levels, smooth.max() * 1.01], colors=["#b9d7ea", "#5aa5d3"])
    axes.contour(*middle, smooth, levels, colors=MODEL if first else TRUTH, linewidths=1.2)


def _effective(part: Samples) -> float:
    return float(part.weights.sum() ** 2 / np.square(part.weights).sum())


def _dress(axes: Axes, i: int, j: int, count: int, limits: list[tuple[float, float]], shown: list[str]) -> None:
    """Limits, and ticks and labels at the left and below alone."""
    axes.set_xlim(limits[j])
    axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    axes.tick_params(axis="x", labelrotation=35 if count > 3 else 0, labelbottom=i == count - 1)
    if i == j:
        axes.set_yticks([])
        axes.set_ylim(0, None)
        axes.spines["left"].set_visible(False)
    else:
        axes.set_ylim(limits[i])
        axes.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
        axes.tick_params(axis="y", labelleft=j == 0)
    if i == count - 1:
        axes.set_xlabel(shown[j])
    if j == 0 and i > 0:
        axes.set_ylabel(shown[i])
