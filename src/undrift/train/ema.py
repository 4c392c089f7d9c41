r"""Power-law average of the weights.

(Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", section 3.1 and appendix C,
https://arxiv.org/abs/2312.02696.)
The average after time t (counted in steps) weighs the past by a power of its age since the beginning:

    mean(t) = (g + 1) / t^(g+1)  *  integral_0^t  tau^g  w(tau)  d tau.

With w constant on each step, w(tau) = w_k for tau in (k-1, k], this is, exactly and without bias from the start,

    mean_n = beta_n mean_(n-1) + (1 - beta_n) w_n,      beta_n = (1 - 1/n)^(g+1),

since the factors telescope: w_k has the weight (1 - beta_k) prod_(j>k) beta_j = (k^(g+1) - (k-1)^(g+1)) / n^(g+1).
beta_1 = 0, so the initial weights never enter, but those of a network whose first step comes later.
In u = tau / t the profile is the Beta(g + 1, 1) law, with standard
deviation

    width = sqrt(g + 1) / ((g + 2) sqrt(g + 3)),

the same share of the training however long that is: nothing has to be known of the budget in advance.
"""

from __future__ import annotations

__all__ = ["PowerAverage", "exponent_of_width"]

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from undrift.errors import UsageError

WIDEST = math.sqrt(1 / 12)


def exponent_of_width(width: float) -> float:
    """Exponent g of the power law whose profile has the given standard deviation, a share of the training.

    It is the largest root of (g + 1) = width^2 (g + 2)^2 (g + 3); width 0 keeps the last weights only (g infinite).

    Raises:
        UsageError: The width lies outside [0, sqrt(1/12)], the width of the plain mean.
    """
    if not 0 <= width <= WIDEST:
        raise UsageError(f"ema is {width}; expected a width in [0, {WIDEST:.4f}], a share of the training such as 0.05")
    if width == 0:
        return math.inf
    precision = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - precision, 12.0 - precision])
    return max(0.0, float(roots.real.max()))


class PowerAverage:
    """The power-law average of a network's parameters, in its own module.

    Parameters of less than 32 bits are averaged in float32. Buffers are those of the network.

    Args:
        net: The network; it is copied.
        width: Standard deviation of the profile as a share of the training; 0 keeps the last weights.
    """

    def __init__(self, net: nn.Module, width: float) -> None:
        self.exponent = exponent_of_width(width)
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        for module in self.net.modules():
            for name, value in module._parameters.items():
                if value is not None and value.dtype in (torch.float16, torch.bfloat16):
                    value.data = value.data.float()
                    module._parameters[name] = value

    def decay(self, n: int) -> float:
        """beta_n of the n-th update, n >= 1."""
        return (1 - 1 / n) ** (self.exponent + 1)

    @torch.no_grad()
    def update(self, net: nn.Module, n: int) -> None:
        """Take in the weights after the n-th step, n = 1, 2, ..."""
        ours: list[Tensor] = list(self.net.parameters())
        theirs = [new.detach().to(old.dtype) for old, new in zip(ours, net.parameters(), strict=True)]
        torch._foreach_lerp_(ours, theirs, 1 - self.decay(n))  # pyright: ignore[reportPrivateImportUsage]
        for old, new in zip(self.net.buffers(), net.buffers(), strict=True):
            old.copy_(new)
