"""How the report looks: colours, colour scales, fonts and the text of labels.

One `Scale` is made for all the fields of a figure that share units; its colour map follows from what the numbers are
(`kind_of`). Line colours are Okabe and Ito's, told apart with any colour vision (https://jfly.uni-koeln.de/color/),
and every line also has its own dash and marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize, PowerNorm
from matplotlib.ticker import FuncFormatter

__all__ = [
    "INK",
    "MODEL",
    "TRUTH",
    "Scale",
    "count",
    "kind_of",
    "label",
    "line_style",
    "long_name",
    "look",
    "number",
    "plain",
    "power_of",
    "scale_for",
    "scaled_tick",
    "short_ticks",
    "tick",
    "units_text",
    "with_power",
]

INK = "#1b1f24"
TRUTH = "#000000"
MODEL = "#0072b2"
_OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#7a4fa3", "#666666")
_DASHES = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (8, 2)), (0, (2, 1, 1, 1)), "-")
_MARKERS = ("s", "^", "D", "v", "P", "X", "*")
# White to dark blue with CIELAB lightness linear from 100 to 18: rain, of which there is mostly none.
_WHITE_BLUE = (
    *("#ffffff", "#ceeef0", "#9cdbe6", "#67c7df", "#23b1d8", "#1399c6"),
    *("#0082b4", "#056a9f", "#00548d", "#003e79", "#192958"),
)
# Straw to dark green, lightness from 98 to 20: spread and scores, of which little is good.
_STRAW_GREEN = (
    *("#fcfaea", "#e3e7b4", "#c5d492", "#a4c274", "#81b05d", "#5e9d4c"),
    *("#3b8a3f", "#117636", "#006134", "#004c2f", "#003926"),
)
_MAPS = {
    "temperature": "inferno",
    "sequential": "viridis",
    "diverging": "RdBu_r",
    "ratio": "PuOr_r",
}
_RAIN = re.compile(r"precip|rainfall|rain_rate|snowfall", re.IGNORECASE)
_RAIN_NAMES = {"pr", "tp", "rr", "prc", "prsn", "rain", "precip", "prectot"}
_ANOMALY = re.compile(r"anomal|tendency|difference|departure|overdensity", re.IGNORECASE)
_UNIT = re.compile(r"([^\W\d_]+|%|°[CF])(?:\*\*|\^)?([+-]?\d+)?")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+")
_KELVIN = {"k", "kelvin", "degc", "deg_c", "celsius", "°c", "degrees_celsius", "degf"}


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib settings of the report, for the length of a `with` block."""
    settings: dict = {
        "figure.dpi": 100,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#59606a",
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.grid": False,
        "grid.color": "#e3e6ea",
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.7,
        "svg.fonttype": "path",
        "svg.hashsalt": "undrift",
        "path.simplify": True,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(settings):
        yield


def plain(text: object, limit: int = 80) -> str:
    """Text as matplotlib will show it literally: no mathematics, no control characters, at most `limit` long."""
    clean = "".join(c if c.isprintable() else " " for c in str(text))
    clean = clean if len(clean) <= limit else clean[: limit - 1] + "…"
    return clean.replace("$", r"\$")


def label(name: object, attrs: Mapping, *, limit: int = 60) -> str:
    """`Long name [units]` from CF attributes, the name itself where there is no long name."""
    text = long_name(attrs) or str(name)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    units = units_text(attrs.get("units", ""))
    return f"{text} [{units}]" if units and units != "1" else text


def long_name(attrs: Mapping) -> str:
    """What a variable is called for people: its long_name, else its standard_name, with spaces between the words."""
    text = str(attrs.get("long_name") or attrs.get("standard_name") or "")
    return text if " " in text else text.replace("_", " ")


def units_text(units: object) -> str:
    """Units as they are printed: `mm s-1` as `mm s⁻¹`, unbroken at the end of a line; other spellings as they are."""
    text = str(units).strip()
    tokens = [_UNIT.fullmatch(token) for token in text.split()]
    if not all(tokens):
        return text
    return "\u00a0".join(found[1] + (found[2] or "").translate(_RAISED) for found in tokens if found)


def power_of(most: float) -> int:
    """The power of ten to take out of the ticks of an axis that reaches to `most`; 0 where they are short without."""
    size = int(np.floor(np.log10(most))) if np.isfinite(most) and most > 0 else 0
    return size if size < -3 or size > 5 else 0


def with_power(text: str, power: int) -> str:
    """`rain [mm s⁻¹]` as `rain [10⁻⁵ mm s⁻¹]`, so that no tick and no corner of a plot has to say it."""
    if not power:
        return text
    factor = f"10{str(power).translate(_RAISED)}"
    if text.endswith("]") and " [" in text:
        head, _, units = text.rpartition(" [")
        return f"{head} [{factor}\u00a0{units}"
    return f"{text} [{factor}]"


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant figures, as short as they allow; a dash where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = int(np.floor(np.log10(abs(value))))
    if size < -4 or size >= 6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:.{max(digits - 1 - size, 0)}f}".replace("-", "−")


def count(value: int) -> str:
    """A whole number with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def tick(value: float, _position: int | None = None) -> str:
    """A tick of a logarithmic axis: short decimals where they are short, else powers of ten."""
    power = round(np.log10(value)) if value > 0 else 0
    if value > 0 and abs(np.log10(value) - power) < 1e-9 and not -4 < power < 5:
        return "10" + str(power).translate(_RAISED)
    return f"{value:.3g}"


def scaled_tick(value: float, _position: int | None = None, *, power: int) -> str:
    """A tick in units of a power of ten."""
    return f"{value / 10.0**power:.4g}".replace("-", "−")


def short_ticks(axis: Axis, text: str) -> None:
    """Label an axis whose limits are set, with the power of ten of its ticks in the label."""
    power = power_of(float(np.abs(axis.get_view_interval()).max()))
    if power:
        axis.set_major_formatter(FuncFormatter(partial(scaled_tick, power=power)))
    axis.set_label_text(plain(with_power(text, power)))


def line_style(order: int) -> dict[str, object]:
    """Colour, dash and marker of the `order`-th baseline."""
    i = order % len(_OTHERS)
    return {"color": _OTHERS[i], "linestyle": _DASHES[i], "marker": _MARKERS[i]}


@dataclass(frozen=True)
class Scale:
    """One colour scale: the map, its norm, which ends are cut, and the text beside the bar."""

    cmap: Colormap
    norm: Normalize
    extend: str
    label: str

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that have a colour of their own."""
        assert self.norm.vmin is not None and self.norm.vmax is not None
        return float(self.norm.vmin), float(self.norm.vmax)

    @property
    def log(self) -> bool:
        """Whether equal steps of colour are equal factors."""
        return isinstance(self.norm, LogNorm)


def kind_of(name: object, attrs: Mapping, values: np.ndarray) -> str:
    """What a field is, as far as its colours go: rain, temperature, diverging, logarithmic or sequential.

    Args:
        name: the variable's name.
        attrs: its attributes (standard_name, long_name, units are read).
        values: finite numbers of the field, any shape, in `units`.
    """
    text = f"{attrs.get('standard_name', '')} {attrs.get('long_name', '')}"
    units = str(attrs.get("units", "")).strip().lower()
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if (_RAIN.search(text) or str(name).lower() in _RAIN_NAMES) and low >= 0:
        return "rain"
    if _ANOMALY.search(text) and low < 0 < high:
        return "diverging"
    if units in _KELVIN or "temperature" in text.lower():
        return "temperature"
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        return "diverging"
    if low > 0 and np.quantile(values, 0.995) > 100 * np.quantile(values, 0.005):
        return "logarithmic"
    return "sequential"


def scale_for(name: object, attrs: Mapping, fields: list[np.ndarray], *, kind: str | None = None) -> Scale:
    """The one scale of all `fields`: their pooled 0.2 % and 99.8 % quantiles, ends beyond them marked as cut.

    Args:
        name: the variable's name.
        attrs: its attributes, for the label and the kind.
        fields: arrays of any shapes that share units; NaN is left out.
        kind: one of `kind_of`'s answers, "score" (from zero) or "ratio" (about one), where it is not to be guessed.
    """
    values = np.concatenate([np.asarray(f, dtype=np.float64).ravel() for f in fields] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    kind = kind or kind_of(name, attrs, values)
    low, high = np.quantile(values, [0.002, 0.998]) if values.size else (0.0, 1.0)
    logarithmic = kind in ("logarithmic", "ratio")
    if kind == "ratio":
        positive = values[values > 0]
        most = float(np.exp(np.quantile(np.abs(np.log(positive)), 0.99))) if positive.size else 2.0
        high = max(most, 1.05)
        low = 1 / high
    elif kind == "diverging":
        high = max(abs(low), abs(high))
        low = -high
    elif kind == "score" and values.size and low > 0 and high > 100 * low:
        logarithmic = True
    elif kind in ("rain", "score"):
        low = min(low, 0.0)
    if not high > low:
        pad = max(abs(high) * 1e-3, 1e-12)
        low, high = (low, high + pad) if kind in ("rain", "score", "logarithmic") else (low - pad, high + pad)
    if kind == "rain" and values.size and high > 6 * values.mean():
        norm: Normalize = PowerNorm(0.5, low, high)
    elif logarithmic and low > 0:
        norm = LogNorm(low, high)
    else:
        norm = Normalize(low, high)
    below, above = (values.min() < low, values.max() > high) if values.size else (False, False)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    return Scale(_colours(kind), norm, extend, label(name, attrs))


def _colours(kind: str) -> Colormap:
    if kind in ("rain", "score"):
        anchors = _WHITE_BLUE if kind == "rain" else _STRAW_GREEN
        cmap: Colormap = LinearSegmentedColormap.from_list(f"undrift_{kind}", list(anchors))
    else:
        cmap = mpl.colormaps[_MAPS.get(kind, "viridis")]
    return cmap.with_extremes(bad="#c9ccd1")
