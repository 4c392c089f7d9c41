"""How much of what a network says beyond the Gaussian guess is taken."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["RATIOS", "Trusted"]

RATIOS = tuple(math.exp(k) for k in range(-4, 5))
"""Ratios sigma / alpha between which the trust is linear in the label ``arctan(sigma / alpha)``."""


class Trusted(nn.Module):
    """A network whose output is multiplied by a number of its noise.

    Args:
        net: see :class:`undrift.denoise.precondition.Preconditioned`.
        trust: from 0, the guess alone, to 1, at each of :data:`RATIOS`; that of the nearest beyond them.
    """

    def __init__(self, net: nn.Module, trust: Sequence[float]) -> None:
        super().__init__()
        self.net, self.trust = net, tuple(trust)

    def forward(self, x: Tensor, label: Tensor, vector: Tensor | None) -> Tensor:
        """The network's output (B, C, *space) times the trust."""
        labels = torch.tensor([math.atan(r) for r in RATIOS], dtype=torch.float64, device=label.device)
        trust = torch.tensor(self.trust, dtype=torch.float64, device=label.device)
        after = torch.bucketize(label.double(), labels).clamp(1, len(RATIOS) - 1)
        share = ((label - labels[after - 1]) / (labels[after] - labels[after - 1])).clamp(0, 1)
        weight = torch.lerp(trust[after - 1], trust[after], share)
        return weight.to(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1)) * self.net(x, label, vector)
