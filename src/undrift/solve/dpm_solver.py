"""DPM-Solver of order 1 to 3: single steps, several evaluations each."""

from functools import partial

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.process import Process
from undrift.solve.ancestral import DDIM
from undrift.solve.solver import Draws, Evaluate, Solver, State, by_row

__all__ = ["DPMSolver"]


class DPMSolver(Solver):
    """Taylor expansions of z in lambda, integrated exactly.

    Lu et al. (2022), "DPM-Solver", https://arxiv.org/abs/2206.00927, eq. 3.7, DPM-Solver-2 (algorithm 1) and
    DPM-Solver-3, whose lambda is half of ours; the intermediate stages are at 1/2, or at 1/3 and 2/3, of the step in
    lambda. A step from or to where alpha or sigma is 0 is DDIM's, of order one, as lambda is infinite there.

    Args:
        order: 1 (DDIM), 2 or 3.
    """

    def __init__(self, order: int = 3) -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order is {order}, expected 1, 2 or 3")
        self.order = self.evaluations = order

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        infinite = process.pure_noise(t) | process.pure_noise(s) | process.clean(t) | process.clean(s)
        return by_row(
            infinite | (self.order == 1),
            t,
            s,
            lambda t, s: DDIM().step(f, state, process, t, s, draw),
            partial(self._step, f, state, process),
        )

    def _step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor) -> State:
        z, first = f(state.x, t).z, process.log_snr(t)
        h = (process.log_snr(s) - first) / 2
        if self.order == 2:
            middle = process.t_of_log_snr(first + h)
            u = self._moved(state.x, process, t, middle, [(process.ratio(middle) - process.ratio(t), z)])
            return State(self._moved(state.x, process, t, s, [(process.ratio(s) - process.ratio(t), f(u, middle).z)]))
        one, two = process.t_of_log_snr(first + 2 * h / 3), process.t_of_log_snr(first + 4 * h / 3)
        u = self._moved(state.x, process, t, one, [(process.ratio(one) - process.ratio(t), z)])
        change = f(u, one).z - z
        parts = [(process.ratio(two) - process.ratio(t), z), (-2 * process.ratio(two) * _phi(2 * h / 3), change)]
        u = self._moved(state.x, process, t, two, parts)
        change = f(u, two).z - z
        parts = [(process.ratio(s) - process.ratio(t), z), (-1.5 * process.ratio(s) * _phi(h), change)]
        return State(self._moved(state.x, process, t, s, parts))

    @staticmethod
    def _moved(x: Tensor, process: Process, t: Tensor, s: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """``alpha_s (x / alpha_t + sum of factor times field)``."""
        y = x / along(process.alpha(t), x)
        for factor, field in parts:
            y = y + along(factor, x) * field
        return along(process.alpha(s), x) * y


def _phi(h: Tensor) -> Tensor:
    """``(e^h - 1) / h - 1``, and 0 at 0."""
    return torch.where(h == 0, 0.0, torch.expm1(h) / torch.where(h == 0, 1.0, h) - 1)
