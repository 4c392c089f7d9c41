"""What each task would make of data: what is given and what is asked, or why it cannot be."""

from collections.abc import Iterator

from undrift.data.fields import Fields
from undrift.data.findings import Line, fill_findings
from undrift.data.frames import windows_of
from undrift.data.layout import no_block
from undrift.data.members import others_of
from undrift.data.regrid import Grid, Regridder, join
from undrift.errors import DataError, UsageError

__all__ = ["member_lines", "task_lines", "window_lines"]


def task_lines(fields: Fields, task: str, factor: int, other: Fields | None) -> Iterator[Line]:
    """What would be given: a coarse grid by block means, joined files, or covariates."""
    layout = fields.layout
    if other is not None:
        yield from _given(fields, other)
        return
    if task == "emulate":
        yield "info", "emulate: maps are drawn given covariates and static fields only"
        return
    if factor < 2:
        raise UsageError(f"--factor {factor}: expected a whole number of at least 2")
    if any(n < factor for n in layout.shape):
        yield "error", no_block(layout, factor)
        return
    coarse = [n // factor for n in layout.shape]
    low, high = " x ".join(map(str, coarse)), " x ".join(str(c * factor) for c in coarse)
    plain_means = "; the means are plain ones, not weighted by area" if layout.latitude else ""
    yield "info", f"{task} x{factor}: given {low} block means, asked {high}{plain_means}"
    beyond = {d: n % factor for d, n in zip(layout.space, layout.shape) if n % factor}
    if beyond:
        cut = ", ".join(f"{n} cell{'s' if n > 1 else ''} along {d}" for d, n in beyond.items())
        yield "note", f"the size is no multiple of {factor}: the far edge is trimmed by {cut}"
        for dim, flag in zip(layout.space, layout.periodic):
            if flag and dim in beyond:
                text = f"{dim} is periodic, and trimming opens the circle: choose a --factor that divides its size"
                yield "warning", text


def window_lines(fields: Fields, past: int, future: int) -> Iterator[Line]:
    """How many windows of frames there are."""
    try:
        windows, notes = windows_of(fields, past, future)
    except DataError as error:
        yield "error", str(error)
        return
    yield "info", f"window: {len(windows)} windows of {past} + {future} frames, any part of which may be given"
    yield from (("note", note) for note in notes)


def member_lines(fields: Fields, members: int) -> Iterator[Line]:
    """What a member would be given."""
    try:
        others_of(fields, members)
    except DataError as error:
        yield "error", str(error)
        return
    size = fields.dataset.sizes[fields.layout.sample[-1]]
    yield "info", f"enrich: each of {size} members along {fields.layout.sample[-1]} given {members} others of its date"


def _given(fields: Fields, other: Fields) -> Iterator[Line]:
    """How many samples join with what is given, and what is done to its grid."""
    for warning in other.warnings:
        yield "note", f"given: {warning}"
    for severity, text in fill_findings(other.scan()):
        yield severity, f"given: {text}"
    n = len(fields)
    try:
        mine, _ = join(fields, other)
        names = ", ".join(c.label for c in other.layout.channels[:8])
        yield "info", f"given: {names}; {mine.size} of {n} samples joined"
        if mine.size < 0.5 * n:
            yield "warning", f"only {mine.size} of {n} samples have something given; the others are not used"
    except DataError as error:
        yield "error", str(error)
    try:
        move = Regridder(Grid.of(other), Grid.of(fields))
        size = " x ".join(map(str, other.layout.shape))
        yield "info", f"given grid {size}: {'the same' if move.identity else 'regridded to that of the data'}"
        for note in move.notes:
            yield "note", f"given: {note}"
        if static := [str(name) for name in other.static.data_vars if name not in fields.static.data_vars]:
            yield "info", f"given, static, conditions the model: {', '.join(static)}"
    except DataError as error:
        yield "error", f"the given data do not fit: {error}"
