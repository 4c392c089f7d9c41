"""Laws of the time at which a network is trained.

A law is a quantile function. The quantiles of a batch are stratified unless that is declined (the low-discrepancy
sampler of Kingma et al. 2021, appendix I.1, https://arxiv.org/abs/2107.00630): one uniform shift, then equal steps,
which lowers the variance of the loss and leaves its mean.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from undrift.process import Process

__all__ = ["LogNormal", "Times", "Uniform"]


class Times(ABC):
    """A law of times.

    Args:
        low_discrepancy: whether quantiles are stratified over the batch; independent if not.
    """

    def __init__(self, low_discrepancy: bool = True) -> None:
        self.low_discrepancy = low_discrepancy

    @abstractmethod
    def at(self, quantile: Tensor, process: Process) -> Tensor:
        """Times at quantiles in (0, 1), float64, of the same shape."""

    def __call__(self, count: int, process: Process, generator: torch.Generator) -> Tensor:
        """Times, float64, (count,), in random order."""
        device = generator.device
        if not self.low_discrepancy:
            return self.at(torch.rand(count, generator=generator, dtype=torch.float64, device=device), process)
        shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
        steps = torch.randperm(count, generator=generator, device=device)
        return self.at((steps + shift) / count, process)


class Uniform(Times):
    """Uniform between two times.

    Args:
        start: the least, that of the process if None.
        stop: the greatest, likewise.
        low_discrepancy: see :class:`Times`.

    Raises:
        ValueError: the times are not in order; when drawn, if they are not those of the process.
    """

    def __init__(self, start: float | None = None, stop: float | None = None, low_discrepancy: bool = True) -> None:
        super().__init__(low_discrepancy)
        if start is not None and stop is not None and not start <= stop:
            raise ValueError(f"start is {start} and stop {stop}, expected start <= stop")
        self.start, self.stop = start, stop

    def ends(self, process: Process) -> tuple[float, float]:
        """The least and the greatest time."""
        start = process.t_min if self.start is None else self.start
        stop = process.t_max if self.stop is None else self.stop
        if not process.t_min <= start <= stop <= process.t_max:
            raise ValueError(
                f"times are from {start:g} to {stop:g}, expected a part of [{process.t_min:g}, {process.t_max:g}]"
            )
        return start, stop

    def at(self, quantile: Tensor, process: Process) -> Tensor:
        """See :class:`Times`."""
        start, stop = self.ends(process)
        return start + (stop - start) * quantile


class LogNormal(Times):
    """``log(sigma / alpha) ~ N(mean, std^2)`` (Karras et al. 2022, section 5, https://arxiv.org/abs/2206.00364).

    Args:
        mean: of the logarithm.
        std: of the logarithm; 0 for one noise level.
        low_discrepancy: see :class:`Times`.

    Raises:
        ValueError: std is below 0.
    """

    def __init__(self, mean: float = -0.6, std: float = 1.4, low_discrepancy: bool = True) -> None:
        super().__init__(low_discrepancy)
        if not std >= 0:
            raise ValueError(f"std is {std}, expected at least 0, such as 1.4")
        self.mean = mean
        self.std = std

    def at(self, quantile: Tensor, process: Process) -> Tensor:
        """See :class:`Times`; beyond the process, its end."""
        log_ratio = self.mean + self.std * math.sqrt(2) * torch.erfinv(2 * quantile.clamp(1e-6, 1 - 1e-6) - 1)
        return process.t_of_ratio(log_ratio.exp()).clamp(process.t_min, process.t_max)
