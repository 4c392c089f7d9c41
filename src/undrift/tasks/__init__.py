"""What is given and what is asked."""

from undrift.data.leads import Lead
from undrift.errors import UsageError
from undrift.tasks.density import Density
from undrift.tasks.downscale import Downscale
from undrift.tasks.emulate import Emulate
from undrift.tasks.enrich import Enrich
from undrift.tasks.lead_time import LeadTime
from undrift.tasks.window import Window

__all__ = ["TASKS", "Density", "Downscale", "Emulate", "Enrich", "LeadTime", "Task", "Window", "task_of"]

Task = Downscale | Emulate | Enrich | Window | LeadTime
TASKS: dict[str, type[Task]] = {
    "downscale": Downscale, "emulate": Emulate, "enrich": Enrich, "window": Window, "lead-time": LeadTime,
}  # fmt: skip


def task_of(
    name: str,
    factor: int | None = None,
    past: int | None = None,
    future: int = 8,
    members: int = 2,
    longest: Lead | None = None,
) -> Task:
    """The task of a name, as the command line and ``config.toml`` give it.

    Without a factor, downscaling is by 4 and windows are given no coarse sequence.
    """
    if name not in TASKS:
        raise UsageError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    made = {
        "downscale": lambda: Downscale(4 if factor is None else factor),
        "emulate": Emulate,
        "enrich": lambda: Enrich(members),
        "window": lambda: Window(4 if past is None else past, future, factor),
        "lead-time": lambda: LeadTime(longest, 1 if past is None else past),
    }
    return made[name]()
