"""Given an observation, by the gain of a Gaussian that is known beside the network.

Moment matching takes the covariance of x given x_t from the network's Jacobian times ``sigma^2 / alpha``: where the
noise is large, what is small in the Jacobian and wrong is large in the covariance, and need not be one. The Gaussian
guess that a network is trained around has its covariance in closed form, fitted to held-out fields.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, Pullback
from undrift.denoise.estimate import Estimate, along
from undrift.denoise.guess import GaussianGuess
from undrift.errors import check_kind
from undrift.guide.observe import Observation
from undrift.guide.operators import Linear
from undrift.guide.posterior import Guide
from undrift.tasks.batch import Condition

__all__ = ["Kalman"]

_JITTER = 1e-10  # of the mean variance, against numbers that determine each other


class Kalman(Guide):
    """The estimate moved by the Kalman gain of a Gaussian guess ``x ~ N(0, C)``.

    With ``r = sigma / alpha``, x given x_t is taken for Gaussian about the denoiser's x_hat, of the guess's covariance:

        x_hat + V A^T (S + A V A^T)^-1 (y - A x_hat),    V = C r^2 (C + r^2)^-1.

    That is the posterior of Gaussian data of covariance C, as :class:`undrift.guide.MMPS` has it, without gradients of
    the network: a step costs one evaluation. White, ``C = 1``, it has the weights of PiGDM. A is applied to the modes
    of C once, and each time takes a matrix of as many rows as there are numbers.

    Args:
        denoiser: of white noise.
        observation: of a linear operator A, with errors of covariance S.
        guess: C, in the units of the fields that the denoiser knows.

    Raises:
        TypeError: the noise is not white, the operator is not linear, or something else was given than these.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation, guess: GaussianGuess) -> None:
        super().__init__(denoiser, observation)
        check_kind(GaussianGuess, "that of a Preconditioned, or GaussianGuess()", guess=guess)
        check_kind(Linear, "Points(positions); MMPS takes others", operator=observation.operator)
        self.guess = guess
        self._known: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def gradient(self, estimate: Estimate, back: Pullback) -> Tensor:
        """See :class:`undrift.guide.posterior.Guide`; ``J = alpha / sigma^2 V`` is the guess's too."""
        operator, alpha = self.observation.operator, estimate.process.alpha(estimate.t)
        assert isinstance(operator, Linear)
        ratio = estimate.process.sigma(estimate.t) / alpha
        misfit = self.observation.misfit(operator(estimate.x))
        weights = self._solved(misfit, ratio, estimate.x.shape[1:])
        moved = self.guess.denoise(operator.adjoint(weights, estimate.x.shape), ratio)
        return moved / along(alpha, moved)

    def _estimated(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> tuple[Estimate, Pullback]:
        return self.denoiser(x_t, t, condition), _no_pullback

    def _solved(self, misfit: Tensor, ratio: Tensor, shape: Sequence[int]) -> Tensor:
        """``(S + A V A^T)^-1`` times numbers (B, m)."""
        gram, modes = self._carried(misfit, shape)
        one = ratio[:1] if bool((ratio == ratio[0]).all()) else ratio
        one = one.to(gram)
        tail, gain = self.guess.gains(one, torch.float64)
        left = tail[..., None] * gram + modes.T @ (gain[..., None] * modes)
        system = one[:, None, None] ** 2 * left
        system = system + torch.diag_embed(self.observation.variance(gram).expand(len(gram)))
        mean = system.diagonal(dim1=1, dim2=2).mean(1)
        system = system + _JITTER * mean[:, None, None] * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky(system)
        return torch.cholesky_solve(misfit.to(gram)[..., None], factor)[..., 0].to(misfit)

    def _carried(self, like: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """``A A^T`` (m, m), and A of the modes (k, m), float64; of fields of one shape they are remembered."""
        if self._known is None or self._known[0] != tuple(shape):
            operator = self.observation.operator
            assert isinstance(operator, Linear)
            eye = torch.eye(like.shape[1], dtype=torch.float64, device=like.device)
            with torch.no_grad():
                gram = operator(operator.adjoint(eye, (len(eye), *shape)))
                modes = self.guess.modes.to(eye)
                modes = operator(modes.reshape(-1, *shape)) if len(modes) else eye[:0]
            self._known = tuple(shape), gram, modes
        return self._known[1:]


def _no_pullback(gradient: Tensor, last: bool = False) -> Tensor:
    raise AssertionError("a Kalman guide needs no gradients of its denoiser")
