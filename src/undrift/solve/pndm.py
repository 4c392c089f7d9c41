"""Pseudo-numerical methods: classical formulas for z, moved by DDIM's step."""

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.process import Process
from undrift.solve.ancestral import DDIM
from undrift.solve.solver import Draws, Evaluate, Solver, State

__all__ = ["PNDM"]

_WEIGHTS = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


class PNDM(Solver):
    """Liu et al. (2022), "Pseudo numerical methods for diffusion models on manifolds", https://arxiv.org/abs/2202.09778.

    The weights of equal steps whatever the steps are: of order 4 on a grid with equal steps in ``sigma / alpha``, of
    order 2 on any other smooth grid. Begun by three of their pseudo Runge-Kutta steps of four evaluations each, or
    (PLMS) with rising order and one evaluation a step: then of order 2. A step from or to where alpha is 0, and
    sigma / alpha infinite, is DDIM's and not remembered; one that ends where sigma is 0 is always of PLMS.

    Args:
        warm_up: begin with Runge-Kutta steps.
    """

    def __init__(self, warm_up: bool = True) -> None:
        self.warm_up, self.order = warm_up, 4 if warm_up else 2

    @property
    def least(self) -> int:
        """See :class:`undrift.solve.solver.Solver`."""
        return 4 if self.warm_up else 1

    def steps(self, nfe: int) -> int:
        """See :class:`undrift.solve.solver.Solver`; the first three steps have four evaluations."""
        return nfe if not self.warm_up else nfe - 9 if nfe >= 12 else nfe // 4

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        if bool((process.pure_noise(t) | process.pure_noise(s)).any()):
            return DDIM().step(f, state, process, t, s, draw)
        first = f(state.x, t).z
        history = (first, *state.history)[:4]
        if self.warm_up and len(history) < 4 and not bool(process.clean(s).any()):
            middle = process.t_of_ratio((process.ratio(t) + process.ratio(s)) / 2)
            second = f(self._moved(state.x, first, process, t, middle), middle).z
            third = f(self._moved(state.x, second, process, t, middle), middle).z
            fourth = f(self._moved(state.x, third, process, t, s), s).z
            z = (first + 2 * second + 2 * third + fourth) / 6
        else:
            z = sum((w * v for w, v in zip(_WEIGHTS[len(history) - 1], history)), torch.zeros_like(first))
        return State(self._moved(state.x, z, process, t, s), history[:3])

    @staticmethod
    def _moved(x: Tensor, z: Tensor, process: Process, t: Tensor, s: Tensor) -> Tensor:
        """DDIM's step, their transfer: ``x_s / alpha_s = x_t / alpha_t + (rho_s - rho_t) z``."""
        y = x / along(process.alpha(t), x) + along(process.ratio(s) - process.ratio(t), x) * z
        return along(process.alpha(s), x) * y
