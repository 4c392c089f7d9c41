"""Processes whose noise grows geometrically beside data that stay as they are, and the sub-VP process."""

import math

import torch
from torch import Tensor

from undrift.errors import check_number, check_whole
from undrift.process.process import Process
from undrift.process.variance_preserving import LinearBeta

__all__ = ["NCSN", "VE", "SubVP"]


class VE(Process):
    """The VE SDE: ``alpha = 1``, ``sigma = sigma_min (sigma_max / sigma_min)^t``.

    Song et al. (2021), "Score-based generative modeling through SDEs", https://arxiv.org/abs/2011.13456, eq. 9 and
    appendix C. ``sigma(0) = sigma_min`` is not 0: a run ends with a denoising.

    Args:
        sigma_min: smallest noise.
        sigma_max: largest noise.
    """

    t_min = 0.0
    t_max = 1.0

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        check_number(sigma_min=sigma_min, sigma_max=sigma_max)
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"sigma_min, sigma_max are {sigma_min}, {sigma_max}, expected 0 < sigma_min < sigma_max")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._growth = math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """``sigma_min (sigma_max / sigma_min)^t``."""
        return self.sigma_min * torch.exp(self._growth * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``sigma log(sigma_max / sigma_min)``."""
        return self._growth * self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """``log(sigma / sigma_min) / log(sigma_max / sigma_min)``."""
        return (-log_snr / 2 - math.log(self.sigma_min)) / self._growth


class NCSN(VE):
    """VE with the geometric levels of a noise-conditional score network, which annealed Langevin dynamics visits.

    Song & Ermon (2019), "Generative modeling by estimating gradients of the data distribution",
    https://arxiv.org/abs/1907.05600, section 4.

    Args:
        sigma_min: smallest level.
        sigma_max: largest level.
        levels: how many.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 1.0, levels: int = 10) -> None:
        super().__init__(sigma_min, sigma_max)
        check_whole(2, levels=levels)
        self.levels = levels

    @property
    def nodes(self) -> Tensor:
        """Times of the levels, ascending, float64, (levels,)."""
        return torch.linspace(0, 1, self.levels, dtype=torch.float64, device="cpu")


class SubVP(Process):
    """The sub-VP SDE: the alpha of :class:`LinearBeta` with ``sigma = 1 - alpha^2``.

    Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 12 and appendix C. sigma is 0 at t = 0 and smooth there.

    Args:
        beta_min: rate of the noise at t = 0.
        beta_max: at t = 1.
    """

    t_min = 0.0
    t_max = 1.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self._vp = LinearBeta(beta_min, beta_max)

    def alpha(self, t: Tensor) -> Tensor:
        """``exp(-B / 2)``."""
        return torch.exp(-self._vp.total(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        """``1 - exp(-B)``."""
        return -torch.expm1(-self._vp.total(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """``-beta alpha / 2``."""
        return -self._vp.beta(t) * self.alpha(t) / 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``beta exp(-B)``."""
        return self._vp.beta(t) * torch.exp(-self._vp.total(t))

    def log_snr(self, t: Tensor) -> Tensor:
        """``-2 log(2 sinh(B / 2))``."""
        total = self._vp.total(t)
        return -total - 2 * (-torch.expm1(-total)).log()

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """From ``B = 2 asinh(ratio / 2)``."""
        return self._vp.t_of_total(2 * torch.asinh(torch.exp(-log_snr / 2) / 2))
