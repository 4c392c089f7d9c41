"""Embedding of the noise label and of the vector condition."""

from __future__ import annotations

__all__ = ["ConditionEmbedding", "RowLinear", "fourier_features"]

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.errors import UsageError

HIGHEST_FREQUENCY = 64.0


def fourier_features(t: Tensor, count: int, highest: float = HIGHEST_FREQUENCY) -> Tensor:
    """Sinusoids of a bounded label, ``cos(w_k t)`` and ``sin(w_k t)`` with w_k geometric from 1 to ``highest``.

    The label is meant to be of order one, like ``atan2(sigma, alpha sigma_data)`` in [0, pi/2]: the slowest wave is
    monotone on that range and the fastest, unless told otherwise, resolves steps of about 0.01.

    Args:
        t: labels, (B,).
        count: number of features, even and at least 4.
        highest: frequency of the fastest wave.

    Returns:
        Features, (B, count), float32.
    """
    steps = torch.linspace(0.0, 1.0, count // 2, device=t.device, dtype=torch.float32)
    phase = t.float()[:, None] * torch.exp(math.log(highest) * steps)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class RowLinear(nn.Linear):
    """A linear layer whose every row is bitwise the same wherever in the batch it stands.

    MKL's matrix products treat the last rows of a batch that is no multiple of 4 in another order of summation; the
    same product as a convolution of one cell does not.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return F.conv1d(input[..., None], self.weight[..., None], self.bias).squeeze(-1)


class ConditionEmbedding(nn.Module):
    """One embedding of the noise label t and of the vector condition, (B,) and (B, V) -> (B, features).

    Computed in float32 under any autocast, for it is tiny and small noise labels must stay apart.
    """

    def __init__(self, features: int, vector_features: int = 0) -> None:
        super().__init__()
        if features < 4 or features % 2:
            raise UsageError(f"embedding={features}: it must be an even number of at least 4, such as 128")
        self.features = features
        self.vector_features = vector_features
        self.first = RowLinear(features + vector_features, features, device="cpu")
        self.second = RowLinear(features, features, device="cpu")

    def forward(self, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Embed the noise label and the vector condition; the last activation is applied.

        Args:
            t: noise labels, (B,).
            vector: (B, vector_features), or none where the net has no vector condition.

        Returns:
            The embedding, (B, features), float32.
        """
        with torch.autocast(device_type=t.device.type, enabled=False):
            x = fourier_features(t, self.features)
            if vector is not None:
                x = torch.cat([x, vector.float()], dim=1)
            return F.silu(self.second(F.silu(self.first(x))))
