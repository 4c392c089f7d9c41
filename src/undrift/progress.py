"""Progress with an estimate of the time left, on stderr: a bar in a terminal, else a line every ten seconds.

```python
with track("training", total=180.0) as tick:
    tick(12.5, "loss 0.41")     # how much of the total is done, and what else to show
with track("scoring", total=None):  # nobody knows how much there is: only for how long it has been going on
    ...
```

Trackers nest: one that is opened inside another (a training inside a demo) is shown below it, so whoever does the work
needs not know who called.
"""

from __future__ import annotations

__all__ = ["Tick", "clock", "track"]

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tick = Callable[..., None]
"""``tick(done, note="", left=None)``: the amount done so far (not the increment), a few words, and the seconds left
where the caller knows them better than the pace so far."""

SECONDS_BETWEEN_LINES = 10.0


def clock(seconds: float) -> str:
    """Write a duration as ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class _Tracker:
    """One piece of work: how much of it is done, and since when."""

    last_line = 0.0  # of all trackers together

    def __init__(self, title: str, total: float | None, bar: Any) -> None:
        self.title, self.bar = title, bar
        self.total = None if total is None else max(float(total), 1e-12)
        self.start = time.monotonic()
        self.first: float | None = None
        self.done, self.note = 0.0, ""
        self.told: float | None = None
        self.task = bar.add_task(title, total=self.total, note="", eta="") if bar is not None else None

    def left(self) -> float | None:
        """Seconds left as the caller told, else at the pace so far; None before there is a pace."""
        if self.told is not None:
            return self.told
        first = self.first or 0.0
        if self.total is None or self.done <= first:
            return None
        return (time.monotonic() - self.start) * (self.total - self.done) / (self.done - first)

    def text(self) -> str:
        if self.total is None:
            return f"{self.title}, {clock(time.monotonic() - self.start)} so far"
        share = 100 * min(1.0, self.done / self.total)
        parts = [f"{self.title} {share:.0f} %", self.eta(), self.note]
        return ", ".join(part for part in parts if part)

    def eta(self) -> str:
        left = self.left()
        return "" if left is None else f"{clock(left)} left"

    def tick(self, done: float, note: str = "", left: float | None = None) -> None:
        if self.total is not None and self.first is None:
            # A resumed run begins part of the way: that part says nothing about the pace.
            self.first = float(done) if done > 0.02 * self.total else 0.0
        self.done, self.note, self.told = float(done), note or self.note, left
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, note=self.note, eta=self.eta())
        else:
            self.line()

    def line(self) -> None:
        """Off a terminal: a line about all trackers, where the last one is long ago."""
        if time.monotonic() - _Tracker.last_line >= SECONDS_BETWEEN_LINES:
            _Tracker.last_line = time.monotonic()
            print("undrift: " + " > ".join(t.text() for t in _open or [self]), file=sys.stderr, flush=True)


_open: list[_Tracker] = []


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
    )


def _lines(tracker: _Tracker, over: threading.Event) -> None:
    while not over.wait(1.0):
        tracker.line()


@contextmanager
def track(title: str, total: float | None, *, enabled: bool = True) -> Iterator[Tick]:
    """Show how far a piece of work is while the block runs.

    Args:
        title: A word or two, such as ``training``.
        total: The amount that makes it complete, in any unit (steps, seconds, samples). None where nobody can tell:
            such a piece of work needs no ticks.
        enabled: False shows nothing.

    Yields:
        ``tick(done, note="", left=None)``, cheap enough to be called at every step.
    """
    if not enabled:
        yield lambda done, note="", left=None: None
        return
    outer = _open[-1].bar if _open else None
    bar = outer
    if not _open and sys.stderr.isatty():
        bar = _bar()
        bar.start()
    tracker = _Tracker(title, total, bar)
    if not _open:
        _Tracker.last_line = tracker.start
    _open.append(tracker)
    over = threading.Event()
    if bar is None:  # a line is due where ticks are far between, too
        threading.Thread(target=_lines, args=(tracker, over), daemon=True).start()
    try:
        yield tracker.tick
    finally:
        over.set()
        _open.remove(tracker)
        if bar is not None:
            bar.remove_task(tracker.task)
            if bar is not outer:
                bar.stop()
