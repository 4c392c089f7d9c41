"""Laws of the time at which a network is trained."""

import math

import torch
from torch import Tensor

from undrift.process import Process

__all__ = ["LogNormal"]


class LogNormal:
    """``log(sigma / alpha) ~ N(mean, std^2)`` (Karras et al. 2022, section 5, https://arxiv.org/abs/2206.00364).

    Draws are stratified over the batch (Kingma et al. 2021, appendix I.1, https://arxiv.org/abs/2107.00630): one
    uniform shift, then equal steps through the quantiles, which lowers the variance of the loss.
    """

    def __init__(self, mean: float = -0.6, std: float = 1.4) -> None:
        self.mean = mean
        self.std = std

    def __call__(self, count: int, process: Process, generator: torch.Generator) -> Tensor:
        """Times, float64, (count,), in random order."""
        device = generator.device
        shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
        steps = torch.randperm(count, generator=generator, device=device)
        quantile = ((steps + shift) / count).clamp(1e-6, 1 - 1e-6)
        log_ratio = self.mean + self.std * math.sqrt(2) * torch.erfinv(2 * quantile - 1)
        return process.t_of_ratio(log_ratio.exp()).clamp(max=process.t_max)
