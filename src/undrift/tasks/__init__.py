"""What is given and what is asked."""

from undrift.errors import UsageError
from undrift.tasks.downscale import Downscale
from undrift.tasks.emulate import Emulate

__all__ = ["TASKS", "Downscale", "Emulate", "Task", "task_of"]

Task = Downscale | Emulate
TASKS: dict[str, type[Task]] = {"downscale": Downscale, "emulate": Emulate}


def task_of(name: str, factor: int = 4) -> Task:
    """The task of a name, as the command line and ``config.toml`` give it."""
    if name not in TASKS:
        raise UsageError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    return Downscale(factor) if name == "downscale" else Emulate()
