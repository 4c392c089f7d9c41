"""Explicit Runge-Kutta methods, in any frame: a method is a table of numbers.

Hairer, Norsett & Wanner (1993), "Solving Ordinary Differential Equations I", with step
``h = u(s) - u(t) < 0``:

    k_i = v(y + h sum_j a_ij k_j, u + c_i h),   y <- y + h sum_i b_i k_i.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.process import Process
from undrift.solve.ancestral import DDIM
from undrift.solve.frames import Frame, Ratio, Straight
from undrift.solve.solver import Draws, Evaluate, Solver, State, by_row

__all__ = ["DORMAND_PRINCE", "EULER", "HEUN", "KUTTA", "MIDPOINT", "Euler", "Heun", "RungeKutta", "Tableau"]


@dataclass(frozen=True)
class Tableau:
    """A method.

    Attributes:
        a: rows of the stages from the second on, below the diagonal.
        b: weights of the stages.
        order: of convergence.
        other: weights of an embedded solution of lower order, whose distance estimates the error.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    other: tuple[float, ...] | None = None

    @property
    def c(self) -> tuple[float, ...]:
        """Where the stages are, in shares of the step."""
        return (0.0, *(sum(row) for row in self.a))


EULER = Tableau((), (1.0,), 1)
HEUN = Tableau(((1.0,),), (0.5, 0.5), 2, (1.0, 0.0))
MIDPOINT = Tableau(((0.5,),), (0.0, 1.0), 2, (1.0, 0.0))
KUTTA = Tableau(((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4)
DORMAND_PRINCE = Tableau(  # Dormand & Prince 1980, doi:10.1016/0771-050X(80)90013-3; RK5(4)7M
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    5,
    (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
)


class RungeKutta(Solver):
    """An explicit Runge-Kutta method.

    A stage where sigma is 0 asks what is known of a clean field, which no network was trained for: a step that ends
    there is one of Euler's, as in algorithm 1 of Karras et al. (2022), https://arxiv.org/abs/2206.00364. A step from
    or to where the clock is infinite, as that of the ratio where alpha is 0, is DDIM's. Neither estimates its error.

    Args:
        tableau: the method.
        frame: what is integrated, :class:`undrift.solve.frames.Straight` if None.
    """

    def __init__(self, tableau: Tableau, frame: Frame | None = None) -> None:
        self.tableau, self.frame = tableau, frame or Straight()
        self.order, self.evaluations, self.adaptive = tableau.order, len(tableau.b), tableau.other is not None

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`; t and s may differ from row to row."""

        def finite(t: Tensor, s: Tensor) -> State:
            euler, own = (partial(self._step, tableau, f, state.x, process) for tableau in (EULER, self.tableau))
            return by_row(process.clean(s) & (self.evaluations > 1), t, s, euler, own)

        def ddim(t: Tensor, s: Tensor) -> State:
            return DDIM().step(f, state, process, t, s, draw)

        infinite = torch.isinf(self.frame.clock(process, t)) | torch.isinf(self.frame.clock(process, s))
        return by_row(infinite, t, s, ddim, finite)

    def _step(self, tableau: Tableau, f: Evaluate, x: Tensor, process: Process, t: Tensor, s: Tensor) -> State:
        frame = self.frame
        start, stop = frame.clock(process, t), frame.clock(process, s)
        y = x / along(frame.scale(process, t), x)
        h = along(stop - start, y)
        slopes: list[Tensor] = []
        for row, c in zip(((), *tableau.a), tableau.c):
            at = t if c == 0 else s if c == 1 else frame.time(process, start + c * (stop - start))
            inner = y + h * _sum(row, slopes) if row else y
            slopes.append(self.slope(f(inner * along(frame.scale(process, at), y), at), process, at))
        scale = along(frame.scale(process, s), y)
        error = None
        if tableau.other is not None:
            error = scale * h * _sum([b - other for b, other in zip(tableau.b, tableau.other)], slopes)
        return State(scale * (y + h * _sum(tableau.b, slopes)), error=error)

    def slope(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """``dy / du``."""
        a, b = self.frame.velocity(process, t)
        return along(a, estimate.x) * estimate.x + along(b, estimate.z) * estimate.z


class Euler(RungeKutta):
    """Euler's method; in the frame of the ratio it is DDIM without noise.

    Args:
        frame: what is integrated, :class:`undrift.solve.frames.Straight` if None.
    """

    def __init__(self, frame: Frame | None = None) -> None:
        super().__init__(EULER, frame)


class Heun(RungeKutta):
    """Heun's method of order 2 with the churn of EDM: noise is added before each step.

    Karras et al. (2022), https://arxiv.org/abs/2206.00364, algorithm 2, for any process: churn raises the ratio
    ``sigma / alpha`` by a factor ``1 + gamma``, ``gamma = min(churn, sqrt(2) - 1)`` where the ratio is between
    the two bounds. Without churn it is their algorithm 1.

    The first step too is theirs with :class:`undrift.process.EDM`, above sigma_max. Time goes to 1 at most, so with a
    process that ends there the noise is raised to its end at most, and the first step adds none.

    Steps in ``sigma / alpha`` have to be many where it ends high. Of Gaussian data of deviation 2, ten steps of the
    default grid make a deviation of 2.7 from a ratio of 150 (``LinearBeta(0.1, 20)``), of 4.5 from 2000, and further up
    it grows with the ratio, as does the draw's ``error``; with ``frame=Straight()`` it is 1.97 from any.

    Args:
        churn: their S_churn over the number of steps: gamma of each step.
        low: their S_tmin.
        high: their S_tmax.
        inflation: their S_noise.
        frame: what is integrated, :class:`undrift.solve.frames.Ratio` if None.

    Raises:
        ValueError: churn or inflation below 0, or bounds out of order.
    """

    def __init__(
        self,
        churn: float = 0.0,
        low: float = 0.0,
        high: float = float("inf"),
        inflation: float = 1.0,
        frame: Frame | None = None,
    ) -> None:
        super().__init__(HEUN, frame or Ratio())
        if not churn >= 0:
            raise ValueError(f"churn is {churn}, expected at least 0")
        if not 0 <= low <= high:
            raise ValueError(f"low, high are {low}, {high}, expected 0 <= low <= high")
        if not inflation >= 0:
            raise ValueError(f"inflation is {inflation}, expected at least 0, such as 1.003")
        self.churn, self.low, self.high, self.inflation = min(churn, 2**0.5 - 1), low, high, inflation
        self.stochastic = churn > 0
        self.adaptive = not self.stochastic  # churn is no part of one Brownian path, which a rejected step would need

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        if self.stochastic:
            ratio = process.ratio(t)
            here = (ratio >= self.low) & (ratio <= self.high)
            raised = process.t_of_ratio(ratio * (1 + self.churn * here.double())).clamp(max=1)
            law = process.transition(t, raised)
            noise = along(self.inflation * law.variance.clamp(min=0).sqrt(), state.x) * draw(0)
            state, t = State(along(law.alpha, state.x) * state.x + noise), raised
        return super().step(f, state, process, t, s, draw)


def _sum(weights: tuple[float, ...] | list[float], parts: list[Tensor]) -> Tensor:
    out = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:]):
        if weight:
            out = out + weight * part
    return out
