"""Processes that preserve variance: ``alpha^2 + sigma^2 = 1``."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from undrift.errors import check_number
from undrift.process.process import Process

__all__ = ["Cosine", "LinearBeta", "LinearLogSNR", "VariancePreserving"]


class VariancePreserving(Process):
    """``alpha^2 = sigmoid(lambda)``, ``sigma^2 = sigmoid(-lambda)``: all follows from lambda, its slope and inverse."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t)``."""

    @abstractmethod
    def log_snr_dot(self, t: Tensor) -> Tensor:
        """D lambda / d t."""

    def alpha(self, t: Tensor) -> Tensor:
        """``sqrt(sigmoid(lambda))``."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """``sqrt(sigmoid(-lambda))``."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        """``alpha sigma^2 lambda' / 2``."""
        return self.alpha(t) * self.sigma(t) ** 2 * self.log_snr_dot(t) / 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``-sigma alpha^2 lambda' / 2``."""
        return -self.sigma(t) * self.alpha(t) ** 2 * self.log_snr_dot(t) / 2

    def ratio(self, t: Tensor) -> Tensor:
        """``exp(-lambda / 2)``."""
        return torch.exp(-self.log_snr(t) / 2)


class LinearBeta(VariancePreserving):
    """The VP SDE: ``log alpha = -B(t) / 2`` with ``B = beta_min t + (beta_max - beta_min) t^2 / 2``.

    Song et al. (2021), "Score-based generative modeling through SDEs", https://arxiv.org/abs/2011.13456, eq. 11 and
    appendix C; ``t_min`` is their smallest time, where sigma is not yet 0 and its derivative finite.

    ``sigma / alpha`` at t = 1 is about ``exp((beta_min + beta_max) / 4)``, 150 by default. Few steps in this ratio or
    in its logarithm (``Heun``, ``PNDM``, ``DPMSolver``; the grids of even log-SNR and of Karras) cannot span more than
    about 1000, a ``beta_max`` of 28; the default solver and grid span any.

    Args:
        beta_min: rate of the noise at t = 0.
        beta_max: at t = 1, see above.
        t_min: smallest time.
    """

    t_max = 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5) -> None:
        check_number(beta_min=beta_min, beta_max=beta_max, t_min=t_min)
        if not (0 <= beta_min <= beta_max and beta_max > 0):
            raise ValueError(f"beta_min, beta_max are {beta_min}, {beta_max}, expected 0 <= beta_min <= beta_max > 0")
        _check_start(t_min)
        self.beta_min, self.beta_max, self.t_min = float(beta_min), float(beta_max), float(t_min)

    def beta(self, t: Tensor) -> Tensor:
        """Rate of the noise, ``B'(t)``."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def total(self, t: Tensor) -> Tensor:
        """``B(t)``, the integral of beta."""
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def t_of_total(self, total: Tensor) -> Tensor:
        """The time at which B is ``total``: the positive root of the quadratic."""
        return 2 * total / (self.beta_min + (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * total).sqrt())

    def log_snr(self, t: Tensor) -> Tensor:
        """``-log(exp(B) - 1)``."""
        return -torch.expm1(self.total(t)).log()

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """``-beta / (1 - exp(-B))``."""
        return self.beta(t) / torch.expm1(-self.total(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """From ``B(t) = log(1 + exp(-lambda))``."""
        return self.t_of_total(torch.nn.functional.softplus(-log_snr, threshold=40.0))


class Cosine(VariancePreserving):
    """``alpha = cos(angle(t)) / cos(angle(0))`` with ``angle(t) = (t + offset) / (1 + offset) pi / 2``.

    Nichol & Dhariwal (2021), "Improved denoising diffusion probabilistic models", https://arxiv.org/abs/2102.09672,
    eq. 17, before it is cut into steps. ``alpha(1)`` is 0.

    Args:
        offset: keeps the first steps of noise from being too small; with 0 sigma is a sine.
        t_min: smallest time.
        t_max: largest time; below 1, such as 0.995, a network may predict the noise or the score.
    """

    def __init__(self, offset: float = 0.008, t_min: float = 1e-5, t_max: float = 1.0) -> None:
        check_number(offset=offset, t_min=t_min, t_max=t_max)
        if offset < 0:
            raise ValueError(f"offset is {offset}, expected at least 0")
        if not t_min < t_max <= 1:
            raise ValueError(f"t_max is {t_max}, expected a number above t_min = {t_min} and at most 1")
        self.t_max = float(t_max)
        _check_start(t_min)
        self.offset, self.t_min = float(offset), float(t_min)
        self._first = self.offset / (1 + self.offset) * math.pi / 2
        self._rate = math.pi / 2 / (1 + self.offset)

    def log_snr(self, t: Tensor) -> Tensor:
        """``2 log(alpha / sigma)``."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """``2 alpha' / (alpha sigma^2)``."""
        return 2 * self.alpha_dot(t) / (self.alpha(t) * self.sigma(t) ** 2)

    def alpha(self, t: Tensor) -> Tensor:
        """``cos(angle) / cos(first angle)``, as the sine of what is left of a right angle."""
        return torch.sin(self._rate * (1 - t)) / math.cos(self._first)

    def sigma(self, t: Tensor) -> Tensor:
        """``sqrt(sin(angle - first) sin(angle + first)) / cos(first)``, which is ``sqrt(1 - alpha^2)``."""
        product = torch.sin(self._rate * t) * torch.sin(self._rate * t + 2 * self._first)
        return product.sqrt() / math.cos(self._first)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """The derivative of the cosine."""
        return -self._rate * torch.cos(self._rate * (1 - t)) / math.cos(self._first)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``-alpha alpha' / sigma``."""
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """From ``sin^2(angle) = sigma^2 cos^2(first) + sin^2(first)``."""
        noise = torch.sigmoid(-log_snr) * math.cos(self._first) ** 2
        data = torch.sigmoid(log_snr).sqrt() * math.cos(self._first)
        angle = torch.atan2((noise + math.sin(self._first) ** 2).sqrt(), data)
        return (angle - self._first) / self._rate


class LinearLogSNR(VariancePreserving):
    """``lambda`` falls evenly from ``log_snr_max`` to ``log_snr_min``.

    The schedule at which Kingma et al. (2021), "Variational diffusion models", https://arxiv.org/abs/2107.00630, begin
    to learn theirs (a monotonic network, appendix H).

    Args:
        log_snr_max: at t = 0.
        log_snr_min: at t = 1.
    """

    t_min = 0.0
    t_max = 1.0

    def __init__(self, log_snr_max: float = 13.3, log_snr_min: float = -5.0) -> None:
        check_number(log_snr_max=log_snr_max, log_snr_min=log_snr_min)
        if not log_snr_min < log_snr_max:
            raise ValueError(f"log_snr_max, log_snr_min are {log_snr_max}, {log_snr_min}, expected the first above")
        self.log_snr_max, self.log_snr_min = float(log_snr_max), float(log_snr_min)

    def log_snr(self, t: Tensor) -> Tensor:
        """A straight line."""
        return self.log_snr_max + (self.log_snr_min - self.log_snr_max) * t

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """Its slope."""
        return torch.full_like(t, self.log_snr_min - self.log_snr_max)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of a straight line."""
        return (log_snr - self.log_snr_max) / (self.log_snr_min - self.log_snr_max)


def _check_start(t_min: float) -> None:
    if not 0 < t_min < 1:
        raise ValueError(
            f"t_min is {t_min}, expected a number between 0 and 1: at 0 the derivative of sigma is infinite"
        )
