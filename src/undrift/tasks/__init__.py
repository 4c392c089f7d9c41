"""What is given and what is asked."""

from undrift.errors import UsageError
from undrift.tasks.downscale import Downscale
from undrift.tasks.emulate import Emulate
from undrift.tasks.window import Window

__all__ = ["TASKS", "Downscale", "Emulate", "Task", "Window", "task_of"]

Task = Downscale | Emulate | Window
TASKS: dict[str, type[Task]] = {"downscale": Downscale, "emulate": Emulate, "window": Window}


def task_of(name: str, factor: int | None = None, past: int = 4, future: int = 8) -> Task:
    """The task of a name, as the command line and ``config.toml`` give it.

    Without a factor, downscaling is by 4 and windows are given no coarse sequence.
    """
    if name not in TASKS:
        raise UsageError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    if name == "downscale":
        return Downscale() if factor is None else Downscale(factor)
    return Emulate() if name == "emulate" else Window(past, future, factor)
