"""The skeleton of linear multistep methods: they differ in what they remember and in its weights."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.process import Process
from undrift.solve.solver import Draws, Evaluate, Solver, State

__all__ = ["Multistep"]

_REMEMBERED = 1024  # steps


class Multistep(Solver):
    """``x_s = keep x_t + sum_i weight_i q_i`` with the quantities q of the last steps, the newest first.

    Started at rising order from the first step on; one evaluation a step; t and s are the same for all rows. A step
    from or to pure noise for which there is no formula is DDIM's, ``x_s = alpha_s x + sigma_s z``.

    Args:
        order: how many quantities are used at most.
    """

    def __init__(self, order: int) -> None:
        self.order = self.length = order
        self._plans: dict[tuple[int, tuple[float, ...], float], tuple[Process, _Plan | None]] = {}

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
        return not bool(process.pure_noise(t) | process.pure_noise(s))

    def noise(self, process: Process, t: Tensor, s: Tensor) -> float:
        """Standard deviation of the noise that the step adds."""
        return 0.0

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        estimate = f(state.x, t)
        history = ((float(t), self.quantity(estimate, process, t)), *state.history)[: self.length]
        kept = history[: self.length - 1]
        plan = self._planned(process, tuple(time for time, _ in history), float(s))
        if plan is None:
            x = along(process.alpha(s), state.x) * estimate.x + along(process.sigma(s), state.x) * estimate.z
            return State(x, kept)
        x = plan.keep * state.x
        for weight, (_, q) in zip(plan.weights, history):
            x = x.add(q, alpha=weight)
        error = None
        if plan.error:
            error = plan.error[-1] * history[-1][1]
            for weight, (_, q) in zip(plan.error[:-1], history):
                error = error.add(q, alpha=weight)
        if self.stochastic:
            x = x + plan.noise * draw(0)
        return State(x, kept, error)

    def _planned(self, process: Process, times: tuple[float, ...], s: float) -> "_Plan | None":
        """The numbers of a step, None where no formula holds: remembered, as all micro-batches take the same steps."""
        key = (id(process), times, s)
        if key not in self._plans:
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            self._plans[key] = (process, self._plan(process, times, s))  # the process is kept, and its id with it
        return self._plans[key][1]

    def _plan(self, process: Process, times: tuple[float, ...], s: float) -> "_Plan | None":
        nodes = torch.tensor(times, dtype=torch.float64, device="cpu")
        end = torch.tensor(s, dtype=torch.float64, device="cpu")
        if not self.holds(process, nodes[0], end):
            return None
        keep, weights = self.coefficients(process, nodes, end)
        error: tuple[float, ...] = ()
        if len(times) > 1:
            _, lower = self.coefficients(process, nodes[:-1], end)
            error = tuple(weight - other for weight, other in zip(weights, [*lower, 0.0]))
        return _Plan(keep, tuple(weights), error, self.noise(process, nodes[0], end) if self.stochastic else 0.0)


@dataclass(frozen=True)
class _Plan:
    """Weights of the quantities, and of what the oldest adds to the formula without it, the error."""

    keep: float
    weights: tuple[float, ...]
    error: tuple[float, ...]
    noise: float
