"""Steps that draw x_s from its law given x_t and an estimate of x: DDPM's and DDIM's."""

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.errors import check_number
from undrift.process import Process
from undrift.solve.solver import Draws, Evaluate, Solver, State

__all__ = ["DDIM", "Ancestral"]


class Ancestral(Solver):
    """DDPM's ancestral sampling: ``x_s ~ q(x_s | x_t, x)`` with the estimate in place of x.

    Ho et al. (2020), https://arxiv.org/abs/2006.11239, algorithm 2 and section 3.2. With the first two no noise is
    added by a step that ends at clean data.

    Args:
        variance: of the step: "posterior", that of ``q(x_s | x_t, x)`` (right for data at one point); "upper", that of
            ``q(x_t | x_s)`` (right for white data of a process that preserves variance); or "learned", the posterior's
            and what is not known of x, with the estimate's own variance (Bao et al. 2022, "Analytic-DPM",
            https://arxiv.org/abs/2201.06503): for white noise, as that variance is of each cell by itself.
    """

    stochastic = True
    order = 1

    def __init__(self, variance: str = "posterior") -> None:
        if variance not in ("posterior", "upper", "learned"):
            raise ValueError(f"variance is {variance!r}, expected 'posterior', 'upper' or 'learned'")
        self.variance, self.any_gaussian = variance, variance != "learned"

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`.

        Raises:
            ValueError: the variance is learned, and the denoiser gives none.
        """
        estimate, law = f(state.x, t), process.posterior(s, t)
        kept, clean, variance = (along(v, state.x) for v in (law.from_noisy, law.from_clean, law.variance))
        if self.variance == "upper":
            upper = torch.where(process.clean(s), 0.0, process.transition(s, t).variance)
            variance = along(upper, state.x)
        elif self.variance == "learned":
            if estimate.variance is None:
                raise ValueError(
                    "the variance is to be learned, and this denoiser gives none; use variance='posterior'"
                )
            variance = variance + clean**2 * estimate.variance.clamp(min=0)
        return State(kept * state.x + clean * estimate.x + variance.sqrt() * draw(0))


class DDIM(Solver):
    """Denoising diffusion implicit models: a family from the ODE to DDPM.

        x_s = alpha_s x + sqrt(sigma_s^2 - v) z + sqrt(v) noise,   v = eta^2 variance of q(x_s | x_t, x)

    (Song et al. 2020, "Denoising diffusion implicit models", https://arxiv.org/abs/2010.02502, eq. 12 and 16).

    Args:
        eta: 0 for the ODE (Euler's method in the ratio), 1 for DDPM's noise.
    """

    order = 1
    any_gaussian = True

    def __init__(self, eta: float = 0.0) -> None:
        check_number(eta=eta)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta is {eta}, expected a number from 0 to 1")
        self.eta, self.stochastic = float(eta), eta > 0

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        estimate = f(state.x, t)
        variance = self.eta**2 * process.posterior(s, t).variance
        towards = (process.sigma(s) ** 2 - variance).clamp(min=0).sqrt()
        x = along(process.alpha(s), state.x) * estimate.x + along(towards, state.x) * estimate.z
        if self.stochastic:
            x = x + along(variance.sqrt(), state.x) * draw(0)
        return State(torch.where(along((s == t).double(), state.x) > 0, state.x, x))
