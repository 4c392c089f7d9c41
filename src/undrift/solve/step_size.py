"""How long the steps of a run are: a grid that is known before, or steps that are chosen by their error."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.process import Key, Process, normal
from undrift.solve.brownian import BrownianPath
from undrift.solve.frames import Frame, Plain
from undrift.solve.solver import Solver, State

__all__ = ["Adaptive", "Control", "Fixed"]

_CLIP = (0.2, 5.0)  # of the change of a step's length


class Control(ABC):
    """What the loop asks: whether it goes on, from where to where, and what comes of a step.

    Attributes:
        t: where the next step begins, a scalar or (B,); after the last one, where the field is.
        s: where it ends.
        number: steps tried.
        accepted: steps that moved any row.
        goes_on: whether there is a step to take.
        status: "done", or of a run that has not reached its end "not converged", or "non-finite" where its last step
            was not finite.
    """

    t: Tensor
    s: Tensor
    number: int = 0
    accepted: int = 0
    goes_on: bool = True
    status: str = "not converged"

    def draw(self, x: Tensor, seed: int, stage: int) -> Tensor:
        """Standard normal noise of the shape of x for a stage of the step, by seed, row, step and stage."""
        rows = [normal(Key(seed, f"step {self.number}", row, stage=stage), x.shape[1:]) for row in range(len(x))]
        return torch.stack([torch.from_numpy(row) for row in rows]).to(x.device, x.dtype)

    @abstractmethod
    def settled(self, before: State, trial: State, calls: int) -> tuple[State, Tensor | None]:
        """The state after the step, and each row's estimated error, (B,), where there is one."""


class Fixed(Control):
    """The steps of a grid.

    Args:
        times: decreasing, float64, (steps + 1,).
    """

    def __init__(self, times: Tensor) -> None:
        self.times = times
        self.t, self.s = times[0], times[1]

    def settled(self, before: State, trial: State, calls: int) -> tuple[State, Tensor | None]:
        """See :class:`Control`."""
        self.number += 1
        self.accepted += 1
        if self.number == len(self.times) - 1:
            self.t, self.goes_on, self.status = self.s, False, "done"
        else:
            self.t, self.s = self.times[self.number], self.times[self.number + 1]
        return trial, None if trial.error is None else _size(trial.error)


@dataclass(frozen=True)
class Adaptive:
    """Steps whose estimated error is below a tolerance, for each row by itself.

    A step is accepted where the root mean square over cells of ``error / (absolute + relative max(|x|, |x'|))`` is 1 at
    most; the next one is ``safety norm^(-exponent)`` times as long, between a fifth and five times (Hairer, Norsett &
    Wanner 1993, section II.4). The solver has to estimate the error of every step. Where a step of an SDE is rejected
    the path of its noise stays, and the shorter step follows it.

    The mean is over all numbers of a row, as :func:`undrift.infer.sample.sample` knows of no mask: cells of which
    nothing is asked count as others do, and a share q of them without an error lowers the norm by ``sqrt(1 - q)``.

    Attributes:
        relative: tolerance, one of the two may be 0.
        absolute: tolerance, in units of the data.
        first: length of the first step, in units of the solver's clock.
        safety: factor of the next step.
        exponent: one over the order if None.
        least: ratio sigma / alpha at which a run to clean data ends, with a denoising.

    Raises:
        ValueError: a tolerance below 0 or two of 0, or another number that is not above 0.
    """

    relative: float = 1e-3
    absolute: float = 1e-3
    first: float = 0.01
    safety: float = 0.9
    exponent: float | None = None
    least: float = 0.002

    def __post_init__(self) -> None:
        if not (self.relative >= 0 and self.absolute >= 0 and self.relative + self.absolute > 0):
            raise ValueError(
                f"relative, absolute are {self.relative}, {self.absolute}, expected at least 0 and one of them above"
            )
        for name in ("first", "safety", "exponent", "least"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, expected a number above 0")

    def begin(self, process: Process, x: Tensor, solver: Solver, most: int, seed: int) -> "_AdaptiveControl":
        """The control of one run of at most so many evaluations.

        Raises:
            ValueError: the solver does not estimate the error of every step, or its clock begins at infinity.
        """
        if not solver.adaptive:
            raise ValueError(
                f"{type(solver).__name__} estimates no error of each step, by which steps are chosen; "
                "use RungeKutta(DORMAND_PRINCE), Heun() without churn or ImprovedEuler(), or a grid"
            )
        return _AdaptiveControl(self, process, x, solver, most, seed)


class _AdaptiveControl(Control):
    def __init__(self, rule: Adaptive, process: Process, x: Tensor, solver: Solver, most: int, seed: int) -> None:
        self.rule, self.process, self.most, self.per_step = rule, process, most, solver.evaluations
        self.name = type(solver).__name__
        self.frame: Frame = getattr(solver, "frame", Plain())
        self.exponent = rule.exponent or 1 / solver.order
        ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64, device=x.device)
        if bool(process.clean(ends[1])):
            ends[1] = process.t_of_ratio(ends.new_tensor(rule.least))
        if bool(torch.isinf(self.frame.clock(process, ends[0]))):
            raise ValueError(
                f"the clock of {type(self.frame).__name__} is infinite at t_max of {type(process).__name__}, and steps "
                "are chosen by it; use frame=Straight()"
            )
        self.t, self.end = ends[0].expand(len(x)).clone(), ends[1]
        self.length = torch.full_like(self.t, rule.first)
        self.path = BrownianPath(x, seed) if solver.stochastic else None
        self._aim()

    def draw(self, x: Tensor, seed: int, stage: int) -> Tensor:
        if self.path is None:
            return super().draw(x, seed, stage)
        span = torch.where(self.t > self.s, self.t - self.s, 1.0)  # of rows that are done nothing is used
        return self.path.increment(self.process.t_max - self.t, self.process.t_max - self.s) / along(span.sqrt(), x)

    def settled(self, before: State, trial: State, calls: int) -> tuple[State, Tensor | None]:
        if trial.error is None:
            raise ValueError(f"a step of {self.name} made a State without an error, and says that it estimates one")
        size = self.rule.absolute + self.rule.relative * torch.maximum(before.x.abs(), trial.x.abs())
        norm = _size(trial.error / size).double()
        active = self.t > self.end
        accepted = active & (norm <= 1)
        x = torch.where(along(accepted.double(), before.x) > 0, trial.x, before.x)
        factor = (self.rule.safety * norm.clamp(min=1e-12) ** -self.exponent).clamp(*_CLIP).nan_to_num(nan=_CLIP[0])
        spans = self.frame.clock(self.process, self.t) - self.frame.clock(self.process, self.s)
        self.length = torch.where(active, spans * factor, self.length)
        self.t = torch.where(accepted, self.s, self.t)
        self.number += 1
        self.accepted += int(accepted.any())
        self._aim()
        left = bool((self.t > self.end).any())
        self.goes_on = left and calls + self.per_step <= self.most
        lost = bool((active & ~torch.isfinite(norm)).any())
        self.status = "done" if not left else "non-finite" if lost else "not converged"
        return State(x), torch.where(accepted, _size(trial.error), 0.0)

    def _aim(self) -> None:
        """The end of the next step of each row; rows that are done stay."""
        clock = self.frame.clock(self.process, self.t) - self.length
        last = self.frame.clock(self.process, self.end)
        s = self.frame.time(self.process, torch.maximum(clock, last))
        self.s = torch.where((clock <= last) | (self.t <= self.end), self.end.expand_as(s), s).minimum(self.t)


def _size(error: Tensor) -> Tensor:
    """Root mean square over the cells of each row, (B,)."""
    return error.flatten(1).square().mean(1).sqrt()
