"""The skeleton of linear multistep methods: they differ in what they remember and in its weights."""

from abc import abstractmethod

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.process import Process
from undrift.solve.solver import Draws, Evaluate, Solver, State

__all__ = ["Multistep"]


class Multistep(Solver):
    """``x_s = keep x_t + sum_i weight_i q_i`` with the quantities q of the last steps, the newest first.

    Started at rising order from the first step on; one evaluation a step; t and s are the same for all rows. A step
    from or to alpha = 0 for which there is no formula is DDIM's, ``x_s = alpha_s x + sigma_s z``.

    Args:
        order: how many quantities are used at most.
    """

    def __init__(self, order: int) -> None:
        self.order = self.length = order

    @abstractmethod
    def quantity(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """What is remembered of an evaluation, (B, ...)."""

    @abstractmethod
    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """Keep, and the weights of the quantities at ``times``, (k,), the newest first, for the step to s.

        Those at times that are at infinity in the formula's own variable are 0.
        """

    def holds(self, process: Process, t: Tensor, s: Tensor) -> bool:
        """Whether the formula is finite between t and s; else the step is DDIM's."""
        return float(process.alpha(t)) > 0 and float(process.alpha(s)) > 0

    def noise(self, process: Process, t: Tensor, s: Tensor) -> float:
        """Standard deviation of the noise that the step adds."""
        return 0.0

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        estimate = f(state.x, t)
        history = ((t, self.quantity(estimate, process, t)), *state.history)[: self.length]
        kept = history[: self.length - 1]
        if not self.holds(process, t, s):
            x = along(process.alpha(s), state.x) * estimate.x + along(process.sigma(s), state.x) * estimate.z
            return State(x, kept)
        times = torch.stack([time for time, _ in history])
        keep, weights = self.coefficients(process, times, s)
        x = keep * state.x
        for weight, (_, q) in zip(weights, history):
            x = x + weight * q
        error = None
        if len(history) > 1:
            _, lower = self.coefficients(process, times[:-1], s)
            error = weights[-1] * history[-1][1]
            for weight, other, (_, q) in zip(weights, lower, history):
                error = error + (weight - other) * q
        if self.stochastic:
            x = x + self.noise(process, t, s) * draw(0)
        return State(x, kept, error)
