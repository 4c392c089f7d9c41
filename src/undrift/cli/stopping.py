"""What a verb leaves and says when it is stopped."""

from __future__ import annotations

__all__ = ["stopped_saying"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from undrift.train.signals import ended_by_signals


@contextmanager
def stopped_saying(advice: Callable[[], str]) -> Iterator[None]:
    """Within the block, a signal that stops the process puts away what is half-written, and says what to do next.

    Args:
        advice: What to type next, asked for after all was put away.

    Raises:
        Interrupted: SIGTERM or SIGUSR1 came.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    try:
        with ended_by_signals(advice):
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice()) from None
