"""The process of EDM: noise is added to the data as it is."""

import torch
from torch import Tensor

from undrift.errors import check_number
from undrift.process.process import Process

__all__ = ["EDM"]

_LARGEST = 1e12  # sigma that its label still tells to four digits


class EDM(Process):
    """``alpha = 1``, ``sigma = t / (1 - t)``.

    The law of Karras et al. (2022), "Elucidating the Design Space of Diffusion-Based Generative Models",
    https://arxiv.org/abs/2206.00364, whose own label is sigma itself. The label here is ``t = sigma / (1 + sigma)``: it
    is smooth, has ``sigma(0) = 0``, and makes a straight line from data to noise of the rescaled ``(1 - t) x_t``.

    Args:
        sigma_max: largest noise, in standard deviations of the data, at most 1e12.
        sigma_min: smallest noise.
    """

    def __init__(self, sigma_max: float = 80.0, sigma_min: float = 0.0) -> None:
        check_number(sigma_max=sigma_max, sigma_min=sigma_min)
        if not 0 <= sigma_min < sigma_max:
            raise ValueError(f"sigma_min, sigma_max are {sigma_min}, {sigma_max}, expected 0 <= sigma_min < sigma_max")
        if sigma_max > _LARGEST:
            raise ValueError(f"sigma_max is {sigma_max:g}, expected {_LARGEST:g} at most: its t is rounded to 1")
        self.sigma_max, self.sigma_min = float(sigma_max), float(sigma_min)
        self.t_min = self.sigma_min / (1 + self.sigma_min)
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

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """``sigmoid(-lambda / 2)``."""
        return torch.sigmoid(-log_snr / 2)
