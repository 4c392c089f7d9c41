"""Time grids: where a solver stops on its way from noise to data."""

import torch
from torch import Tensor

from undrift.process import Process

__all__ = ["UniformBridge"]


class UniformBridge:
    """Equal steps in ``u = sigma / (alpha + sigma)``, from the largest noise to the data.

    In u the rescaled field ``x_t / (alpha + sigma)`` runs along straight lines ``(1 - u) x + u z``, so for data of unit scale the velocity
    changes as evenly as it can without knowing the data.
    """

    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """Times, float64, (steps + 1,), decreasing from ``t_max`` to ``t_min``."""
        ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64, device=device)
        ratio = process.ratio(ends)
        first, last = (ratio / (1 + ratio)).tolist()
        u = torch.linspace(first, last, steps + 1, dtype=torch.float64, device=device)
        t = process.t_of_ratio(u / (1 - u))
        t[0], t[-1] = process.t_max, process.t_min
        return t
