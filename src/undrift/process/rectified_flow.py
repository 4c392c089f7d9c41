"""The process of flow matching: a straight line from data to noise."""

import torch
from torch import Tensor

from undrift.process.process import Process

__all__ = ["RectifiedFlow"]


class RectifiedFlow(Process):
    """``alpha = 1 - t``, ``sigma = t``.

    Liu et al. (2022), "Flow straight and fast", https://arxiv.org/abs/2209.03003, and the optimal-transport path of
    Lipman et al. (2022), "Flow matching for generative modeling", https://arxiv.org/abs/2210.02747, both with their
    time reversed: here t = 0 is data, and the velocity ``z - x`` points from data to noise.
    """

    t_min = 0.0
    t_max = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        """``1 - t``."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """``t``."""
        return t.clone()

    def alpha_dot(self, t: Tensor) -> Tensor:
        """-1."""
        return torch.full_like(t, -1.0)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """``sigmoid(-lambda / 2)``."""
        return torch.sigmoid(-log_snr / 2)
