"""Signals that end a training in good order."""

from __future__ import annotations

__all__ = ["Stop"]

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Stop:
    """Within the block, SIGTERM, SIGUSR1 (a batch system's time limit) and the first Ctrl-C are noted, not obeyed.

    The one who works looks at ``name`` between two steps. A second Ctrl-C raises KeyboardInterrupt at once. The
    handlers that were there before come back at the end. Outside of the main thread, where Python has no signals,
    nothing is caught.

    Attributes:
        name: The first signal that came, such as ``SIGTERM``, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
                if hasattr(signal, name):  # Windows has no SIGUSR1
                    number = signal.Signals[name]
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.name == "SIGINT"
        if again:
            raise KeyboardInterrupt
        if self.name is None or number == signal.SIGINT:
            self.name = signal.Signals(number).name
        if number == signal.SIGINT:
            # Not print: a handler may interrupt one that holds the stream's lock.
            os.write(2, b"\nundrift: saving after this step; press Ctrl-C again to stop at once\n")
