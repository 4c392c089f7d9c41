"""Adams-Bashforth methods in any frame.

A step of order k integrates the polynomial through the last k slopes exactly, for steps of any size (Hairer, Norsett &
Wanner 1993, "Solving Ordinary Differential Equations I", section III.5).
"""

import math

import numpy as np
import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind
from undrift.process import Process
from undrift.solve.frames import Frame, Straight
from undrift.solve.multistep import Multistep

__all__ = ["AdamsBashforth", "weights"]


def weights(nodes: list[float], start: float, stop: float) -> list[float]:
    """Integrals from start to stop of the nodes' Lagrange polynomials: ``sum w_i f(nodes_i)`` is f's interpolant's."""
    origin = np.asarray(nodes) - start
    powers = np.arange(len(nodes))
    moments = (stop - start) ** (powers + 1) / (powers + 1)
    return np.linalg.solve(origin[None, :] ** powers[:, None], moments).tolist()


class AdamsBashforth(Multistep):
    """Explicit multistep solver of the slope ``dy / du`` of a frame.

    The first step is of order one and the second of order two: order 3 as a whole needs a first step of ``h^(3/2)``,
    as :class:`undrift.solve.grid.ShortFirst` has it; on equal steps it is 2.

    Args:
        order: 1 (Euler's method), 2 or 3.
        frame: what is integrated, :class:`undrift.solve.frames.Straight` if None.
    """

    def __init__(self, order: int = 3, frame: Frame | None = None) -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order is {order}, expected 1, 2 or 3")
        super().__init__(order)
        self.frame = Straight() if frame is None else frame
        check_kind(Frame, "Straight()", frame=self.frame)

    def quantity(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """``dy / du``."""
        a, b = (along(v, estimate.x) for v in self.frame.velocity(process, t))
        return a * estimate.x + b * estimate.z

    def holds(self, process: Process, t: Tensor, s: Tensor) -> bool:
        """Where the clock is finite."""
        return all(math.isfinite(float(self.frame.clock(process, end))) for end in (t, s))

    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """See :class:`undrift.solve.multistep.Multistep`."""
        *nodes, stop = self.frame.clock(process, torch.cat([times, s[None]])).tolist()
        scale_t, scale_s = self.frame.scale(process, torch.stack([times[0], s])).tolist()
        known = [node for node in nodes if math.isfinite(node)]
        none = [0.0] * (len(nodes) - len(known))
        return scale_s / scale_t, [*(scale_s * w for w in weights(known, known[0], stop)), *none]
