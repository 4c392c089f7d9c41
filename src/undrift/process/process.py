"""Noising processes: how a clean field becomes noise.

Every process is ``x_t = alpha(t) x + sigma(t) z`` and is fixed by the two functions ``alpha`` and ``sigma`` of the time
label ``t``; ``t = 0`` is data and ``t = 1`` noise. Methods compute in ``lambda = log(alpha^2 / sigma^2)`` or in a
function of it, so that ``t`` remains a label.

``sigma(t_min)`` may be 0 or more, and ``alpha(t_max)`` may be 0. What is here is finite at both ends nevertheless, but
for what is infinite by nature: lambda where alpha or sigma is 0, and the drift where alpha is. A factor of 1e-12 of the
other, such as ``cos(pi / 2) = 6e-17``, is taken for 0 (:meth:`Process.pure_noise`, :meth:`Process.clean`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Posterior", "Process", "Transition"]

_ROUNDING = 1e-12  # of alpha beside sigma, or of sigma beside alpha: no more than 0 is, in float64
_PARTS, _ROUNDS = 16, 15  # 60 halvings of the interval of times: all the bits of a float64


@dataclass(frozen=True)
class Transition:
    """The law ``q(x_t | x_s) = N(alpha x_s, variance)`` for ``s <= t``."""

    alpha: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Posterior:
    """The law ``q(x_s | x_t, x) = N(from_noisy x_t + from_clean x, variance)`` for ``s <= t``."""

    from_noisy: Tensor
    from_clean: Tensor
    variance: Tensor


class Process(ABC):
    """A pair ``(alpha, sigma)`` on ``[t_min, t_max]`` within [0, 1].

    All methods take and return float64 tensors of any shape, on the device of their argument. Transitions, posteriors,
    drift and diffusion are those of Gaussian noise ``z``.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the clean field."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """D alpha / d t."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """D sigma / d t."""

    def pure_noise(self, t: Tensor) -> Tensor:
        """Whether x_t says nothing of x: alpha is at most 1e-12 sigma, bool."""
        return self.alpha(t) <= _ROUNDING * self.sigma(t)

    def clean(self, t: Tensor) -> Tensor:
        """Whether there is no noise in x_t: sigma is at most 1e-12 alpha, bool."""
        return self.sigma(t) <= _ROUNDING * self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t) = log(alpha^2 / sigma^2)``, strictly decreasing; infinite where alpha or sigma is 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """D lambda / d t."""
        return 2 * (self.alpha_dot(t) / self.alpha(t) - self.sigma_dot(t) / self.sigma(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of :meth:`log_snr`, by sections where a process has no closed form; beyond the ends, the end."""
        low, high = (torch.full_like(log_snr, end).unsqueeze(-1) for end in (self.t_min, self.t_max))
        shares = torch.arange(_PARTS + 1, dtype=torch.float64, device=log_snr.device) / _PARTS
        for _ in range(_ROUNDS):
            t = low + (high - low) * shares
            part = (self.log_snr(t[..., 1:-1]) > log_snr.unsqueeze(-1)).sum(-1, keepdim=True)
            low, high = t.gather(-1, part), t.gather(-1, part + 1)
        return ((low + high) / 2).squeeze(-1)

    def ratio(self, t: Tensor) -> Tensor:
        """``sigma / alpha``, the noise level in units of the clean field (``exp(-lambda / 2)``)."""
        return self.sigma(t) / self.alpha(t)

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which ``sigma / alpha`` equals ``ratio``."""
        return self.t_of_log_snr(-2 * ratio.log())

    def drift(self, t: Tensor) -> Tensor:
        """``f = alpha' / alpha`` of the forward SDE ``dx = f x dt + g dw``; infinite where alpha is 0.

        Song et al. (2021), "Score-based generative modeling through SDEs", https://arxiv.org/abs/2011.13456, eq. 5,
        with f and g from alpha and sigma as in Kingma et al. (2021), "Variational diffusion models",
        https://arxiv.org/abs/2107.00630, appendix D.
        """
        return self.alpha_dot(t) / self.alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """``g^2 = -sigma^2 lambda' = 2 sigma (sigma' - sigma alpha' / alpha)``, the same source."""
        sigma = self.sigma(t)
        return 2 * sigma * (self.sigma_dot(t) - sigma * self.drift(t))

    def transition(self, s: Tensor, t: Tensor) -> Transition:
        """``alpha_{t|s} = alpha_t / alpha_s`` and ``sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2``.

        Kingma et al. (2021), https://arxiv.org/abs/2107.00630, eq. 20-22; the variance is their
        ``-expm1(lambda_t - lambda_s) sigma_t^2``, which does not cancel.
        """
        same = s == t
        alpha = torch.where(same, 1.0, self.alpha(t) / self.alpha(s))
        return Transition(alpha, self._lost(s, t) * self.sigma(t) ** 2)

    def posterior(self, s: Tensor, t: Tensor) -> Posterior:
        """The law of x_s given x_t and x.

        Kingma et al. (2021), eq. 23-25: ``from_noisy = alpha_{t|s} sigma_s^2 / sigma_t^2``,
        ``from_clean = alpha_s sigma_{t|s}^2 / sigma_t^2``, ``variance = sigma_s^2 sigma_{t|s}^2 / sigma_t^2``.
        """
        lost, sigma_s = self._lost(s, t), self.sigma(s)
        kept = torch.where(s == t, 1.0, self.alpha(t) / self.alpha(s) * (sigma_s / self.sigma(t)) ** 2)
        return Posterior(kept, self.alpha(s) * lost, sigma_s**2 * lost)

    def _lost(self, s: Tensor, t: Tensor) -> Tensor:
        """Share of the variance of the noise at t that came after s, ``1 - exp(lambda_t - lambda_s)``; 0 for s = t."""
        return torch.where(s == t, 0.0, -torch.expm1(self.log_snr(t) - self.log_snr(s)))
