"""A drawn figure as it stands in the page: a data URI with its size and the words that replace it."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

__all__ = ["Picture", "new_figure", "render"]

_SVG_MOST = 60_000  # bytes; above this a PNG is the smaller


@dataclass(frozen=True)
class Picture:
    """An inline image: `uri` holds all of it, `alt` says what it shows, `width` x `height` in CSS pixels."""

    uri: str
    alt: str
    width: int
    height: int
    title: str = ""
    caption: str = ""


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """A figure of `width` x `height` CSS inches (100 px each) that belongs to no window and no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def render(
    figure: Figure | SubFigure | None, alt: str, *, title: str = "", dpi: int = 150, vector: bool = False
) -> Picture:
    """Write a figure into a `Picture`: an optimised PNG at `dpi`, or SVG for line drawings where that is small."""
    assert isinstance(figure, Figure)
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in scripts the font lacks
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        if vector:
            data = _svg(figure)
            if len(data) <= _SVG_MOST:
                return Picture(_uri("image/svg+xml", data), alt, width, height, title)
        data = _png(figure, dpi)
    return Picture(_uri("image/png", data), alt, width, height, title)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _png(figure: Figure, dpi: int) -> bytes:
    """A PNG of 256 colours of its own: a third of the bytes of true colour, which maps of one scale do not need."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")  # pyright: ignore[reportArgumentType]
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
