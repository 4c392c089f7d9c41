"""The next batch is made while the network works on this one."""

from __future__ import annotations

__all__ = ["Prefetch"]

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from undrift.tasks.batch import Batch


class Prefetch:
    """Calls ``batches(step)`` one step ahead in one background thread; the batches and their order are the same.

    Args:
        batches: A function of the step alone.
        step: The first step that will be asked.
    """

    def __init__(self, batches: Callable[[int], Batch], step: int) -> None:
        self._batches = batches
        self._step = step
        default = torch.get_default_device()
        # torch's default device is the thread's own; a thread that lacks it would hide a tensor made without device.
        begin = (lambda: torch.set_default_device(default)) if default.type != "cpu" else None
        self._thread = ThreadPoolExecutor(1, "undrift-batches", initializer=begin)
        self._next: Future[Batch] | None = None

    def take(self, last: bool = False) -> Batch:
        """The batch of the next step; ``last`` makes none ahead."""
        future = self._next or self._thread.submit(self._batches, self._step)
        self._step += 1
        self._next = None
        if not last:
            batch = future.result()
            self._next = self._thread.submit(self._batches, self._step)
            return batch
        return future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=kind is None, cancel_futures=True)
