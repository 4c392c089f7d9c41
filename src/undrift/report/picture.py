"""A drawn figure as it stands in the page: a data URI with its size and the words that replace it."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

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
            data = _bytes(figure, format="svg", metadata={"Date": None, "Creator": None})
            if len(data) <= _SVG_MOST:
                return Picture(_uri("image/svg+xml", data), alt, width, height, title)
        data = _bytes(figure, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return Picture(_uri("image/png", data), alt, width, height, title)


def _bytes(figure: Figure, **options: object) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
