"""The loop that turns noise into a field."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, Estimate
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.grid import UniformBridge
from undrift.tasks.batch import Condition

__all__ = ["Draw", "sample"]


@dataclass(frozen=True)
class Draw:
    """The end of a run of the sampler.

    Attributes:
        x: the field, (B, C, *space).
        nfe: evaluations of the denoiser.
        status: "done" or "non-finite".
    """

    x: Tensor
    nfe: int
    status: str


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x_1: Tensor,
    condition: Condition | None = None,
    *,
    nfe: int = 10,
    solver: AdamsBashforth | None = None,
    grid: UniformBridge | None = None,
) -> Draw:
    """Integrate the probability-flow ODE from the largest noise to the data.

    Args:
        denoiser: the denoiser.
        x_1: start at ``t_max``, (B, C, *space), a draw of ``sigma(t_max) z``.
        condition: what is given, one row for each of x_1.
        nfe: evaluations of the denoiser.
        solver: Adams-Bashforth of order 3 on the straight path's velocity if None.
        grid: :class:`UniformBridge` if None.

    Returns:
        The fields and the run's facts; a field that left the finite numbers is reported in ``status``, never silently.
    """
    if nfe < 1:
        raise ValueError(f"nfe is {nfe}, expected at least 1")
    condition = condition or Condition()
    solver = solver or AdamsBashforth()
    times = (grid or UniformBridge())(denoiser.process, nfe, x_1.device)
    calls = 0

    def evaluate(x_t: Tensor, t: Tensor) -> Estimate:
        nonlocal calls
        calls += 1
        return denoiser(x_t, t.expand(len(x_t)), condition)

    state = solver.init(x_1)
    for t, s in pairwise(times):
        state = solver.step(evaluate, state, denoiser.process, t, s)
    finite = bool(torch.isfinite(state.x).all())
    return Draw(state.x, calls, "done" if finite else "non-finite")
