"""A multilayer perceptron of points, for laws of a few numbers."""

from __future__ import annotations

__all__ = ["MLP"]

import itertools
import math

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
        sinusoids: sines and cosines of each number of the point, of wavelengths 8, 4, 2, ...: edges and fine structure
            are learned sooner (Tancik et al. 2020, https://arxiv.org/abs/2006.10739), and smooth laws later. Their
            weights begin at zero.

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
        sinusoids: int = 0,
    ) -> None:
        super().__init__()
        check_whole(
            size=size, width=width, layers=layers, vector_features=vector_features, embedding=embedding,
            sinusoids=sinusoids,
        )  # fmt: skip
        if min(size, width, layers) < 1 or min(vector_features, sinusoids) < 0:
            raise UsageError(
                f"size={size}, width={width}, layers={layers}: expected whole numbers of at least 1, and "
                f"vector_features={vector_features}, sinusoids={sinusoids} of at least 0"
            )
        if embedding < 4 or embedding % 2:
            raise UsageError(f"embedding={embedding}: it must be an even number of at least 4, such as 32")
        self.embedding, self.highest, self.sinusoids = embedding, highest, sinusoids
        self.sizes = {"size": size, "width": width, "layers": layers, "vector_features": vector_features,
                      "embedding": embedding, "highest": highest, "sinusoids": sinusoids}  # fmt: skip
        widths = [size + embedding + vector_features, *[width] * layers, size]
        self.layers = nn.ModuleList(nn.Linear(a, b, device="cpu") for a, b in itertools.pairwise(widths))
        for layer in self.layers:
            # torch's own start loses a factor of three a layer, and laws of high symmetry are then hardly learned
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.layers[-1].weight)  # pyright: ignore[reportArgumentType]
        if sinusoids:
            self.waves = nn.Linear(2 * sinusoids * size, width, bias=False, device="cpu")
            nn.init.zeros_(self.waves.weight)
            self._turns: Tensor
            self.register_buffer("_turns", math.pi / 4 * 2.0 ** torch.arange(sinusoids, device="cpu"), persistent=False)

    def forward(self, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
        """Points (B, D), labels of order one (B,) and the vector condition (B, V) to (B, D)."""
        parts = [x, fourier_features(t, self.embedding, self.highest).to(x.dtype)]
        first, *middle, last = self.layers
        h = first(torch.cat(parts if vector is None else [*parts, vector.to(x.dtype)], 1))
        if self.sinusoids:
            turns = (x[:, :, None] * self._turns).flatten(1)
            h = h + self.waves(torch.cat([turns.sin(), turns.cos()], 1))
        for layer in middle:
            h = layer(F.silu(h))
        return last(F.silu(h))
