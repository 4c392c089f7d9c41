"""The contract of a solver: it steps, and the loop that calls it is :func:`undrift.infer.sample.sample`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, described
from undrift.process import Process

__all__ = ["Draws", "Evaluate", "Solver", "State"]

Evaluate = Callable[[Tensor, Tensor], Estimate]
Draws = Callable[[int], Tensor]


@dataclass(frozen=True)
class State:
    """Where a solver is.

    Attributes:
        x: the noisy field, (B, C, *space).
        history: what the solver remembers of the last steps, the newest first.
        error: difference to a solution of lower order that the last step found beside its own, same shape as x, where
            the solver has one.
    """

    x: Tensor
    history: tuple[Any, ...] = ()
    error: Tensor | None = None


class Solver(ABC):
    """A step from one time to the next.

    Attributes:
        order: of convergence: of the end point for solvers of the ODE, weak for those of the SDE.
        stochastic: whether steps draw noise.
        evaluations: calls of the denoiser in one step.
        any_gaussian: whether the noise that is added may be coloured as z is; else z has to be white.
        adaptive: whether every step estimates its error, so that steps may be chosen by it.
    """

    order: float
    stochastic: bool = False
    evaluations: int = 1
    any_gaussian: bool = False
    adaptive: bool = False

    @property
    def least(self) -> int:
        """Evaluations that one step needs."""
        return self.evaluations

    def steps(self, nfe: int) -> int:
        """Steps that so many evaluations allow."""
        return nfe // self.evaluations

    def init(self, x: Tensor) -> State:
        """The state at the start."""
        return State(x)

    @abstractmethod
    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """One step from t to s <= t.

        Args:
            f: ``f(x_t, t) -> Estimate``.
            state: where the solver is.
            process: the noising process.
            t: time of the state, float64, a scalar or (B,).
            s: time to reach, likewise.
            draw: ``draw(stage)`` is standard normal noise of the shape of x, the same for the same stage of this step.
        """


def check_solver(solver: Solver) -> None:
    """A solver with an order.

    Raises:
        TypeError: of another kind, or without.
    """
    check_kind(Solver, "Heun(), of undrift.solve.runge_kutta", solver=solver)
    order = getattr(solver, "order", None)
    if not isinstance(order, int | float):
        raise TypeError(f"order of {type(solver).__name__} is {described(order)}, expected a number, such as order = 1")


def checked(state: State, x: Tensor, solver: Solver) -> State:
    """What a step made, which may be of somebody's own, of a field x.

    Raises:
        TypeError: it is no State.
        ValueError: its field has another shape.
    """
    name = type(solver).__name__
    if not isinstance(state, State):
        raise TypeError(f"a step of {name} made {described(state)}, expected a State, such as State(x)")
    if state.x.shape != x.shape:
        raise ValueError(f"a step of {name} made {tuple(state.x.shape)} of {tuple(x.shape)}, expected the same shape")
    return state


def no_noise(stage: int) -> Tensor:
    """In place of draws, for solvers of the ODE."""
    raise TypeError("a solver with stochastic = False drew noise; if it adds noise, set stochastic = True in its class")


def by_row(
    rows: Tensor, t: Tensor, s: Tensor, one: Callable[[Tensor, Tensor], State], rest: Callable[[Tensor, Tensor], State]
) -> State:
    """A step of one kind for some rows and of another for the rest: each row's is what it would be alone.

    Where there are rows of both kinds it takes the evaluations of both steps.

    Args:
        rows: which take the first, bool, a scalar or (B,).
        t: time of the state, a scalar or (B,).
        s: time to reach, likewise.
        one: ``one(t, s)``, harmless to all rows; it estimates no error, which is 0 where others do.
        rest: ``rest(t, s)``, in which the rows that are not its own stay where it does no harm.
    """
    if bool(rows.all()):
        return one(t, s)
    if not bool(rows.any()):
        return rest(t, s)
    still = t.expand_as(rows)[~rows][0]
    first, other = one(t, s), rest(torch.where(rows, still, t), torch.where(rows, still, s))
    mine = along(rows.double(), other.x) > 0
    error = None if other.error is None else torch.where(mine, 0.0, other.error)
    return replace(other, x=torch.where(mine, first.x, other.x), error=error)
