"""The training curve, over time and by noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from undrift.report.picture import Picture, new_figure, render
from undrift.report.plots import SIZE, captioned, log_ticks
from undrift.report.style import INK, MODEL, count, look, number

__all__ = ["training_plots"]


# Edges of log(sigma / alpha) between the bins of a list of losses by noise; those of undrift.objective.denoising, which
# cannot be imported here because it needs torch.
LOG_RATIO_EDGES = (-4.0, -2.5, -1.5, -0.5, 0.5, 1.5, 3.0)


_NEAR_ONE = " A network that adds nothing to the Gaussian guess it starts from is near 1."


def training_plots(
    metrics: Sequence[Mapping], *, dpi: int = 150, loss: str = "denoising loss", about: str = _NEAR_ONE
) -> list[Picture]:
    """Loss against time, and by noise level.

    Args:
        metrics: rows of metrics.jsonl in their order; each may hold kind ("train", "validation"; others are left out),
            step, seconds, loss, validation, baseline and loss_by_noise: a list over the bins of `LOG_RATIO_EDGES`, or
            {noise level: loss}.
        dpi: dots per 100 CSS pixels where a plot becomes a PNG.
        loss: its name on the axis.
        about: a sentence at the end of the caption.
    """
    rows = [r for r in metrics if isinstance(r, Mapping) and _real(r.get("step"))]
    rows = [r for r in rows if r.get("kind", "train") in ("train", "validation")]
    if sum(_real(r.get("loss")) for r in rows) < 2:
        return []
    with look():
        pictures = [_loss_curve(rows, dpi, loss, about)]
        by_noise = _noise_curve(rows, dpi)
    return pictures + ([by_noise] if by_noise else [])


def _real(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _series(rows: Sequence[Mapping], key: str, clock: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(r[clock], r[key]) for r in rows if _real(r.get(key)) and _real(r.get(clock))]
    return (np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], float))


def _loss_curve(rows: Sequence[Mapping], dpi: int, loss: str, about: str) -> Picture:
    clock = "seconds" if all(_real(r.get("seconds")) for r in rows) else "step"
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    x, y = _series([r for r in rows if r.get("kind") != "validation"], "loss", clock)
    if not x.size:  # a short run may have been logged by its validations only
        x, y = _series(rows, "loss", clock)
    smooth = _smooth(y)
    if len(y) > 30:
        axes.plot(x, y, color=MODEL, lw=0.6, alpha=0.35)
    axes.plot(x, smooth, color=MODEL, label="training loss")
    vx, vy = _series(rows, "validation", clock)
    if vx.size:
        axes.plot(vx, vy, "o--", color="#d55e00", ms=4, mfc="white", label="validation loss")
    _, base = _series(rows, "baseline", clock)
    if base.size:
        axes.axhline(base[-1], color=INK, lw=1, ls=(0, (1, 1.5)), label="baseline's loss")
    positive = np.concatenate([y, vy])
    if positive.size and positive.min() > 0:
        _loss_axis(axes, positive)
        if smooth.size > 5 and not _narrow(positive):
            low, high = positive.min(), np.quantile(positive, 0.98)
            axes.set_ylim(low / 1.1, high * 1.2)
    axes.set_xlabel("training time [s]" if clock == "seconds" else "step")
    axes.set_ylabel(loss)
    axes.grid(axis="y")
    axes.legend()
    steps, last = int(rows[-1]["step"]), vy[-1] if vy.size else float("nan")
    text = f"Loss over {count(steps)} steps: {number(smooth[0])} at first, {number(smooth[-1])} at the end"
    text += f", validation {number(last)}." if vy.size else "."
    text += about
    return captioned(render(figure, text, title="Training curve", dpi=dpi, vector=True), text)


def _loss_axis(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis where the losses span a decade or so; else a linear one, whose ticks are told apart."""
    if _narrow(values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v, 2)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _narrow(values: np.ndarray) -> bool:
    return bool(values.max() < 12 * values.min())


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a twentieth of the record, so that the trend of a noisy loss is seen."""
    width = max(len(values) // 20, 1)
    total = np.cumsum(np.concatenate([[0.0], values]))
    low = np.maximum(np.arange(len(values)) - width, 0)
    high = np.minimum(np.arange(len(values)) + width + 1, len(values))
    return (total[high] - total[low]) / np.maximum(high - low, 1)


def _noise_curve(rows: Sequence[Mapping], dpi: int) -> Picture | None:
    checked = [r for r in rows if r.get("kind") == "validation" and _levels(r.get("loss_by_noise"))]
    kept = [(r["step"], levels) for r in checked or rows if (levels := _levels(r.get("loss_by_noise")))]
    if not kept:
        return None
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    for order, i in enumerate(sorted({0, (len(kept) - 1) // 2, len(kept) - 1})):
        step, levels = kept[i]
        shade = {0: "#9aa4af", 1: "#5aa5d3"}.get(order, MODEL) if i != len(kept) - 1 else MODEL
        axes.plot(
            list(levels),
            list(levels.values()),
            "o-",
            ms=3.5,
            color=shade,
            label=f"step {count(int(step))}",
        )
    values = np.array([v for _, levels in kept for v in levels.values()])
    if values.min() > 0:
        _loss_axis(axes, values)
    if min(kept[-1][1]) > 0:
        axes.set_xscale("log")
        log_ticks(axes, x=True)
    axes.set_xlabel("noise level σ / α")
    axes.set_ylabel("denoising loss")
    axes.grid(axis="y")
    axes.legend()
    text = f"{'Validation' if checked else 'Training'} loss by noise level, early to late in training."
    return captioned(render(figure, text, title="Loss by noise level", dpi=dpi, vector=True), text)


def _centres() -> list[float]:
    """Noise levels sigma / alpha in the middle of the bins; the open ones reach as far as their neighbours."""
    edges = np.array(LOG_RATIO_EDGES)
    ends = np.concatenate([[2 * edges[0] - edges[1]], edges, [2 * edges[-1] - edges[-2]]])
    return np.exp((ends[1:] + ends[:-1]) / 2).tolist()


def _levels(value: object) -> dict[float, float]:
    """{noise level: loss} from a mapping or a list of pairs, in increasing noise; empty where it is neither."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(p, Sequence) and len(p) == 2 for p in value)
    ):
        pairs = list(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        pairs = list(zip(_centres() if len(value) == len(LOG_RATIO_EDGES) + 1 else range(1, len(value) + 1), value))
    else:
        return {}
    try:
        numbers = sorted((float(k), float(v)) for k, v in pairs if v is not None)
    except (TypeError, ValueError):
        return {}
    return {k: v for k, v in numbers if np.isfinite(v)}
