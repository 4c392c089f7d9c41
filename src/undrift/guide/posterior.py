"""Denoisers given an observation: each adds to the score what it takes for the gradient of log p(y | x_t).

With ``y = A(x) + N(0, S)``, ``x_hat = E[x | x_t]``, its Jacobian J by x_t, and H that of A at x_hat, all of them are

    grad log p(y | x_t) = J^T H^T w,

and differ in w. If ``x | x_t`` were Gaussian of covariance V, and A linear, it would be exactly ``(S + H V H^T) w =
y - A(x_hat)``.

Guides go around guides: around one, a pullback differentiates through the pullback within it.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, Pullback
from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, check_number, check_whole
from undrift.guide.conjugate import solve
from undrift.guide.observe import Observation
from undrift.process import White
from undrift.tasks.batch import Condition

__all__ = ["DPS", "MMPS", "Guide", "PiGDM"]

_LAST_RATIO = 1e7  # beyond it x_t says nothing of x, and J / alpha is 0 / 0 where alpha is 0


class Guide(Denoiser):
    """A denoiser given an observation, by a gradient that is added to its score.

    Args:
        denoiser: of white noise.
        observation: of what it draws.

    Raises:
        TypeError: the denoiser's noise is not white, or something else was given than a denoiser and an observation.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation) -> None:
        check_kind(Denoiser, "Denoiser.from_callable(network, process=...)", denoiser=denoiser)
        check_kind(Observation, "Observation(operator, observed, std)", observation=observation)
        if not isinstance(denoiser.noise, White):
            raise TypeError(
                f"the noise is {type(denoiser.noise).__name__}, expected a denoiser of white noise, whose score a "
                f"{type(self).__name__} can add to"
            )
        self.denoiser, self.observation = denoiser, observation
        self.process, self.noise = denoiser.process, denoiser.noise
        self._last = float(self.process.t_of_ratio(torch.tensor(_LAST_RATIO, dtype=torch.float64, device="cpu")))

    @abstractmethod
    def gradient(self, estimate: Estimate, back: Pullback) -> Tensor:
        """Gradient of log p(y | x_t) by x_t, (B, C, *space), from the estimate and ``g -> J^T g``."""

    def _estimated(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> tuple[Estimate, Pullback]:
        """The estimate of the denoiser within, and what carries gradients back through it."""
        return self.denoiser.pullback(x_t, t, condition)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; where alpha is 0, the limit."""
        late = self._last < self.process.t_max and bool((t > self._last).any())
        near = t.clamp(max=self._last) if late else t
        estimate, back = self._estimated(x_t, near, condition)
        found = estimate.shift(self.gradient(estimate, back))
        if not late:
            return found
        alpha, sigma = (along(v(t), x_t) for v in (self.process.alpha, self.process.sigma))
        return replace(found, t=t, z=torch.where(along(t, x_t) > self._last, (x_t - alpha * found.x) / sigma, found.z))


class DPS(Guide):
    """Diffusion posterior sampling (Chung et al. 2022, https://arxiv.org/abs/2209.14687, algorithm 1).

    The algorithm is DDPM's, and each of its steps is moved by

        -zeta / |y - A(x_hat)| grad |y - A(x_hat)|^2,

    whatever the noise of y: its draws come near to y, and are no draws of the posterior. DDPM's step to s has x_hat
    times ``c = alpha_s (1 - exp(lambda_t - lambda_s))``; here x_hat is moved by that over c, which is the same in its
    steps and has a meaning in those of any solver. The authors' code takes the gradient of the norm: its zeta is twice
    this one.

    Args:
        denoiser: see :class:`Guide`.
        observation: its std is not used.
        scale: zeta.
        steps: the number of even steps in t that the scale is for, 1000 in the paper.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation, scale: float = 1.0, steps: int = 1000) -> None:
        super().__init__(denoiser, observation)
        check_whole(1, steps=steps)
        check_number(scale=scale)
        self.scale, self.steps = scale, steps

    def gradient(self, estimate: Estimate, back: Pullback) -> Tensor:
        """See :class:`Guide`."""
        near = self.observation.operator.linearised(estimate.x)
        misfit = self.observation.misfit(near.value)
        size = misfit.norm(dim=1, keepdim=True).clamp(min=torch.finfo(misfit.dtype).tiny)
        alpha, precision = _levels(estimate)
        clean, _ = _last_step(estimate, self.steps)
        return along(alpha * precision / clean, estimate.x) * back(near.pull(2 * self.scale / size * misfit), last=True)


class PiGDM(Guide):
    """Pseudoinverse guidance (Song et al. 2023, https://openreview.net/forum?id=9_gsMA8MRKQ).

    ``V = r^2`` with ``r^2 = v sigma^2 / (alpha^2 v + sigma^2)``, what is left to know of white data of variance v; with
    v = 1 and a process that preserves variance, ``sigma^2``. v = 0 is what DPS is without its steps.

    The published sampler does more than add to the score: it moves each of its steps by ``alpha_s alpha_t r^2`` times
    the gradient (https://github.com/NVlabs/RED-diff, algos/pgdm.py). ``steps`` gives it that weight.

    Args:
        denoiser: see :class:`Guide`.
        observation: what is known.
        variance: v, of the data.
        steps: the number of even steps in t of that sampler, with DDPM's noise (eta = 1); None to add to the score.
        iterations: of conjugate gradients, which need no evaluations of the denoiser.
        tolerance: of each row, relative; see :func:`undrift.guide.conjugate.conjugate_gradients`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        variance: float = 1.0,
        steps: int | None = None,
        *,
        iterations: int = 100,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__(denoiser, observation)
        check_whole(1, steps=1 if steps is None else steps, iterations=iterations)
        check_number(variance=variance, tolerance=tolerance)
        if variance < 0:
            raise ValueError(f"variance is {variance}, expected at least 0")
        self.variance, self.steps = variance, steps
        self.iterations, self.tolerance = iterations, tolerance

    def gradient(self, estimate: Estimate, back: Pullback) -> Tensor:
        """See :class:`Guide`."""
        alpha, precision = _levels(estimate)
        left = self.variance / (alpha**2 * precision * self.variance + 1)
        found = _matched(self, estimate, back, lambda fields: along(left, fields) * fields)
        if self.steps is None:
            return found
        clean, alpha_s = _last_step(estimate, self.steps)
        return along(alpha**2 * precision * left * alpha_s / clean, found) * found


class MMPS(Guide):
    """Moment matching posterior sampling (Rozet et al. 2024, https://arxiv.org/abs/2405.13712).

    ``V = sigma^2 / alpha J``, the covariance of x given x_t by Tweedie's formula: the draws of a Gaussian law given a
    linear observation are those of its posterior. J, symmetric for a denoiser that is a mean in white noise, is applied
    transposed: once for each iteration of conjugate gradients, and once more.

    Args:
        denoiser: see :class:`Guide`.
        observation: what is known.
        iterations: of conjugate gradients at most.
        tolerance: of each row, relative; see :func:`undrift.guide.conjugate.conjugate_gradients`. A row that does not
            reach it keeps the iterate of least residual, and a RuntimeWarning says so.
    """

    def __init__(
        self, denoiser: Denoiser, observation: Observation, *, iterations: int = 50, tolerance: float = 1e-4
    ) -> None:
        super().__init__(denoiser, observation)
        check_whole(1, iterations=iterations)
        check_number(tolerance=tolerance)
        self.iterations, self.tolerance = iterations, tolerance

    def gradient(self, estimate: Estimate, back: Pullback) -> Tensor:
        """See :class:`Guide`."""
        alpha, sigma = estimate.process.alpha(estimate.t), estimate.process.sigma(estimate.t)
        return _matched(self, estimate, back, lambda fields: along(sigma**2 / alpha, fields) * back(fields))


def _matched(guide: PiGDM | MMPS, estimate: Estimate, back: Pullback, covariance: Callable[[Tensor], Tensor]) -> Tensor:
    """``J^T H^T (S + H V H^T)^-1 (y - A(x_hat))`` for a product with V."""
    near, observation = guide.observation.operator.linearised(estimate.x), guide.observation
    misfit = observation.misfit(near.value)
    errors = observation.variance(misfit)

    def matrix(values: Tensor) -> Tensor:
        return errors * values + near.push(covariance(near.pull(values)))

    return back(near.pull(solve(matrix, misfit, guide.iterations, guide.tolerance)), last=True)


def _levels(estimate: Estimate) -> tuple[Tensor, Tensor]:
    """Alpha and ``1 / sigma^2``, 0 where sigma is 0: nothing moves a field that is known; float64, (B,)."""
    sigma = estimate.process.sigma(estimate.t)
    return estimate.process.alpha(estimate.t), torch.where(sigma > 0, sigma**-2, 0.0)


def _last_step(estimate: Estimate, steps: int) -> tuple[Tensor, Tensor]:
    """What x_hat is multiplied by in DDPM's step to s = t - 1 / steps, and alpha_s; to clean data at the end."""
    process, t = estimate.process, estimate.t
    s = t - 1 / steps
    ends = s < process.t_min - 1e-9
    s = s.clamp(min=process.t_min)
    return torch.where(ends, 1.0, process.posterior(s, t).from_clean), torch.where(ends, 1.0, process.alpha(s))
