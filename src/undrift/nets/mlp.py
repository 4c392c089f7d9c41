"""A multilayer perceptron of points, for laws of a few numbers."""

from __future__ import annotations

__all__ = ["MLP"]

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.errors import UsageError, check_whole
from undrift.nets.embed import HIGHEST_FREQUENCY, fourier_features


class MLP(nn.Module):
    """Hidden layers of one width with SiLU, fed with the point, sinusoids of the label, and the vector condition.

    The last layer begins at zero. Parameters are float32, made on the CPU.

    Args:
        size: numbers of a point, D.
        width: of the hidden layers.
        layers: hidden layers.
        vector_features: numbers of the vector condition.
        embedding: sinusoids of the label, even; see :func:`undrift.nets.embed.fourier_features`.
        highest: frequency of the fastest of them: the lower, the smoother in time is what the network says.

    Raises:
        UsageError: a size that is not positive, or an odd embedding.
    """

    def __init__(
        self,
        size: int,
        width: int = 256,
        layers: int = 3,
        vector_features: int = 0,
        embedding: int = 32,
        highest: float = HIGHEST_FREQUENCY,
    ) -> None:
        super().__init__()
        check_whole(size=size, width=width, layers=layers, vector_features=vector_features, embedding=embedding)
        if min(size, width, layers) < 1 or vector_features < 0:
            raise UsageError(f"size={size}, width={width}, layers={layers}: expected whole numbers of at least 1")
        if embedding < 4 or embedding % 2:
            raise UsageError(f"embedding={embedding}: it must be an even number of at least 4, such as 32")
        self.embedding, self.highest = embedding, highest
        self.sizes = {"size": size, "width": width, "layers": layers, "vector_features": vector_features,
                      "embedding": embedding, "highest": highest}  # fmt: skip
        widths = [size + embedding + vector_features, *[width] * layers, size]
        self.layers = nn.ModuleList(nn.Linear(a, b, device="cpu") for a, b in itertools.pairwise(widths))
        for layer in self.layers:
            # torch's own start loses a factor of three a layer, and laws of high symmetry are then hardly learned
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.layers[-1].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Points (B, D), labels of order one (B,) and the vector condition (B, V) to (B, D)."""
        parts = [x, fourier_features(t, self.embedding, self.highest).to(x.dtype)]
        h = torch.cat(parts if vector is None else [*parts, vector.to(x.dtype)], 1)
        for layer in self.layers[:-1]:
            h = F.silu(layer(h))
        return self.layers[-1](h)
