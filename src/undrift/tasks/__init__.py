"""What is given and what is asked."""

from undrift.errors import UsageError
from undrift.tasks.downscale import Downscale
from undrift.tasks.emulate import Emulate
from undrift.tasks.enrich import Enrich
from undrift.tasks.window import Window

__all__ = ["TASKS", "Downscale", "Emulate", "Enrich", "Task", "Window", "task_of"]

Task = Downscale | Emulate | Enrich | Window
TASKS: dict[str, type[Task]] = {"downscale": Downscale, "emulate": Emulate, "enrich": Enrich, "window": Window}


def task_of(name: str, factor: int = 4, past: int = 4, future: int = 8, members: int = 2) -> Task:
    """The task of a name, as the command line and ``config.toml`` give it."""
    if name not in TASKS:
        raise UsageError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    made = {
        "downscale": lambda: Downscale(factor),
        "emulate": Emulate,
        "enrich": lambda: Enrich(members),
        "window": lambda: Window(past, future),
    }
    return made[name]()
