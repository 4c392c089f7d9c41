"""What the verbs print: plain lines and tables for people, one JSON object for programs."""

from __future__ import annotations

__all__ = ["amount", "emit_json", "facts", "note", "plain", "say", "table", "tell_drawn"]

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """Turn numpy numbers, arrays, dates, paths and datasets into what JSON can hold; nan and inf become null."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "data_vars"):
        return {str(name): plain(array) for name, array in value.data_vars.items()}
    if hasattr(value, "dims") and hasattr(value, "values"):
        return plain(value.values) if not value.dims else {"dims": list(value.dims), "values": plain(value.values)}
    if hasattr(value, "tolist") and getattr(getattr(value, "dtype", None), "kind", "O") not in "mMO":
        return plain(value.tolist())
    if hasattr(value, "ndim") and value.ndim:
        return [plain(item) for item in value]
    return str(value)


def emit_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False))


def say(text: str = "") -> None:
    """Print a line of the result on stdout."""
    print(text)


def note(text: str) -> None:
    """Print a line beside the result on stderr."""
    print(f"undrift: {text}", file=sys.stderr, flush=True)


def facts(values: Mapping[str, Any], indent: int = 0) -> None:
    """Print nested names and values, one a line."""
    width = max((len(str(key)) for key in values), default=0)
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            print(f"{' ' * indent}{key}")
            facts(value, indent + 2)
        else:
            print(f"{' ' * indent}{key!s:<{width}}  {_cell(value)}")


def table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Print rows with common columns; numbers are aligned and given three significant digits."""
    if not rows:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows for key in row))
    grid = Table(title=Text(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        grid.add_column(Text(str(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(row.get(column))) for column in columns))
    # A pipe has no width: columns must not be folded there at 80 cells.
    Console(width=None if sys.stdout.isatty() else 200).print(grid)


def amount(size: float) -> str:
    """Write a number of bytes as ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _digits(value: float) -> str:
    """Three significant digits, the last zeros too: 1.00 says more than 1."""
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "-" if not math.isfinite(value) else _digits(value)
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value) or "-"
    return str(value)


def tell_drawn(result: Any, out: str, json: bool) -> None:
    """Say what an ensemble on disk holds, and close it; or, of a dry run, what it would be."""
    if isinstance(result, dict):
        emit_json(result) if json else facts(result)
        note("nothing was written (--dry-run)")
        return
    sizes = {str(name): size for name, size in result.sizes.items()}
    result.close()
    if json:
        emit_json({"out": out, "variables": list(result.data_vars), "sizes": sizes, "attrs": result.attrs})
    else:
        say(f"{out}: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
