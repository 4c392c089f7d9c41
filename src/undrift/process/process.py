"""Noising processes: how a clean field becomes noise.

Every process is Gaussian, ``x_t = alpha(t) x + sigma(t) z`` with ``z ~ N(0, 1)``, and is fixed by the two functions
``alpha`` and ``sigma`` of the time label ``t``; ``t = 0`` is data. Methods compute in
``lambda = log(alpha^2 / sigma^2)`` or in a function of it, so that ``t`` remains a label.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EDM", "Process", "Transition"]


@dataclass(frozen=True)
class Transition:
    """The law ``q(x_t | x_s) = N(alpha x_s, variance)`` for ``s < t``."""

    alpha: Tensor
    variance: Tensor


class Process(ABC):
    """A pair ``(alpha, sigma)`` on ``[t_min, t_max]`` within [0, 1].

    All methods take and return float64 tensors of any shape, on the device of their argument.
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

    @abstractmethod
    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which ``sigma / alpha`` equals ``ratio``."""

    def ratio(self, t: Tensor) -> Tensor:
        """``sigma / alpha``, the noise level in units of the clean field (``exp(-lambda / 2)``)."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t) = log(alpha^2 / sigma^2)``, strictly decreasing; infinite where sigma is 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of :meth:`log_snr`."""
        return self.t_of_ratio(torch.exp(-log_snr / 2))

    def transition(self, s: Tensor, t: Tensor) -> Transition:
        """``alpha_{t|s} = alpha_t / alpha_s`` and ``sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2``.

        Kingma et al. (2021), "Variational Diffusion Models", https://arxiv.org/abs/2107.00630, eq. 20.
        """
        alpha = self.alpha(t) / self.alpha(s)
        return Transition(alpha, self.sigma(t) ** 2 - (alpha * self.sigma(s)) ** 2)


class EDM(Process):
    """Noise is added to the data as it is: ``alpha = 1``, ``sigma = t / (1 - t)``.

    The law of Karras et al. (2022), "Elucidating the Design Space of Diffusion-Based Generative Models",
    https://arxiv.org/abs/2206.00364, whose own label is sigma itself. The label here is ``t = sigma / (1 + sigma)``: it
    is smooth, has ``sigma(0) = 0``, and makes a straight line from data to noise of the rescaled ``(1 - t) x_t``.

    Args:
        sigma_max: largest noise, in standard deviations of the data.
    """

    def __init__(self, sigma_max: float = 80.0) -> None:
        self.sigma_max = float(sigma_max)
        self.t_min = 0.0
        self.t_max = self.sigma_max / (1 + self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the clean field: 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """``t / (1 - t)``."""
        return t / (1 - t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``1 / (1 - t)^2``."""
        return (1 - t) ** -2

    def t_of_ratio(self, ratio: Tensor) -> Tensor:
        """``ratio / (1 + ratio)``."""
        return ratio / (1 + ratio)
