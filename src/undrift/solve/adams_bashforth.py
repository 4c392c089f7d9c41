"""Adams-Bashforth steps on the velocity of the straight path.

With ``u = sigma / (alpha + sigma)`` the field ``y = x_t / (alpha + sigma) = (1 - u) x + u z`` obeys, along the
probability-flow ODE, ``dy / du = z_hat - x_hat``: the velocity of rectified flow (Liu et al. 2022,
https://arxiv.org/abs/2209.03003, with their time reversed) for any process. A step of order k integrates the polynomial
through the last k velocities exactly, for steps of any size (Hairer, Norsett, Wanner 1993, "Solving Ordinary
Differential Equations I", section III.5).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.denoiser import Estimate
from undrift.process import Process

__all__ = ["AdamsBashforth", "State"]


@dataclass(frozen=True)
class State:
    """Where a solver is.

    Attributes:
        x: the noisy field, (B, C, *space).
        history: (u, velocity) of the last steps, the newest first.
    """

    x: Tensor
    history: tuple[tuple[float, Tensor], ...] = ()


def weights(nodes: list[float], start: float, stop: float) -> list[float]:
    """Integrals from start to stop of the nodes' Lagrange polynomials: ``sum w_i f(nodes_i)`` is f's interpolant's."""
    origin = torch.tensor(nodes, dtype=torch.float64, device="cpu") - start
    powers = torch.arange(len(nodes), dtype=torch.float64, device="cpu")
    moments = (stop - start) ** (powers + 1) / (powers + 1)
    vandermonde = origin[None, :] ** powers[:, None]
    return torch.linalg.solve(vandermonde, moments).tolist()


class AdamsBashforth:
    """Explicit multistep solver, one evaluation a step, started at rising order.

    The first step is of order one and the second of order two: order 3 as a whole needs a first step of ``h^(3/2)``,
    as :class:`undrift.solve.grid.UniformBridge` has it; on equal steps it is 2.

    Args:
        order: 1 (Euler in u), 2 or 3.
    """

    stochastic = False

    def __init__(self, order: int = 3) -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order is {order}, expected 1, 2 or 3")
        self.order = order

    def init(self, x: Tensor) -> State:
        """The state at the start."""
        return State(x)

    def step(
        self, f: Callable[[Tensor, Tensor], Estimate], state: State, process: Process, t: Tensor, s: Tensor
    ) -> State:
        """One step from t to s < t.

        Args:
            f: ``f(x_t, t) -> Estimate``.
            state: where the solver is.
            process: the noising process.
            t: time of the state, float64 scalar.
            s: time to reach, float64 scalar.
        """
        alpha_t, sigma_t, alpha_s, sigma_s = (
            float(v) for v in (process.alpha(t), process.sigma(t), process.alpha(s), process.sigma(s))
        )
        u_t, u_s = sigma_t / (alpha_t + sigma_t), sigma_s / (alpha_s + sigma_s)
        estimate = f(state.x, t)
        history = ((u_t, estimate.z - estimate.x), *state.history)[: self.order]
        y = state.x / (alpha_t + sigma_t)
        for weight, (_, velocity) in zip(weights([u for u, _ in history], u_t, u_s), history):
            y = y + weight * velocity
        return State((alpha_s + sigma_s) * y, history[: self.order - 1])
