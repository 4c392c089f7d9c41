"""Signals that end a training in good order."""

from __future__ import annotations

__all__ = ["Stop", "ended_by_signals"]

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from undrift.errors import Interrupted

_GRACE = 5.0  # seconds


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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from or while which it came."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def ended_by_signals(advice: Callable[[], str]) -> Iterator[None]:
    """Within the block, SIGTERM and SIGUSR1 raise `Interrupted` where no `Stop` notes them.

    What is being written is then put away by those who write it, as after any error. They get the time to: signals that
    follow within five seconds are ignored. A later one raises again, since an error that is raised within a library may
    be lost there.

    Args:
        advice: What to type next, asked for after all was put away.

    Raises:
        Interrupted: A signal came.
    """
    raised: list[Interrupted] = []
    quiet_until = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal quiet_until
        if time.monotonic() >= quiet_until:
            quiet_until = time.monotonic() + _GRACE
            raised.append(Interrupted(f"stopped by {signal.Signals(number).name}"))
            raise raised[-1]

    numbers = [signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except BaseException as error:
        # A library on the way may have made another error of it, or have lost it long before this one.
        if not any(cause in raised for cause in _causes(error)):
            raise
        raise Interrupted(f"{raised[0]}; {advice()}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
