"""Weights of the noise levels.

Every objective here is a mean of ``w(t) || x_hat - x ||^2``, in units of the clean field: since
``alpha (x_hat - x) = -sigma (z_hat - z)``, an error of any other target is the same error in other units, and a choice
of target for the loss is a choice of weight. ``SNR = alpha^2 / sigma^2``.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from undrift.denoise.targets import F, Target, named
from undrift.process import Process

__all__ = ["SNR", "EDMWeight", "Likelihood", "MinSNR", "Simple", "Weight"]


class Weight(ABC):
    """A factor of ``|| x_hat - x ||^2`` at each time."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """``w(t)``, float64, of the shape of t."""


class Simple(Weight):
    """The plain squared error of what a network predicts: with ``p_x, p_z`` and scale of the target's row.

    With ``det = alpha p_z - sigma p_x``, ``F_hat - F = det / (scale sigma) (x - x_hat)``; w is that factor squared.
    For "eps" it is L_simple of DDPM (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 14), ``w = SNR``; for "x",
    1; for "v", ``SNR + 1`` on processes of unit variance (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512).

    Args:
        predicts: the target whose error is meant, see :func:`undrift.denoise.targets.named`.
    """

    def __init__(self, predicts: str | Target = "eps") -> None:
        self.target = named(predicts)

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """See :class:`Weight`."""
        p_x, p_z, scale = self.target.row(process, t)
        sigma = process.sigma(t)
        return ((process.alpha(t) * p_z - sigma * p_x) / (scale * sigma)) ** 2


class SNR(Weight):
    """``w = SNR + offset`` (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512, section 4).

    Args:
        offset: 1 is their "SNR + 1".
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = float(offset)

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """See :class:`Weight`."""
        return process.log_snr(t).exp() + self.offset


class MinSNR(Weight):
    """``w = min(SNR, most)`` (Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4).

    Args:
        most: their gamma.
    """

    def __init__(self, most: float = 5.0) -> None:
        if not most > 0:
            raise ValueError(f"most is {most}, expected a number above 0 such as 5")
        self.most = float(most)

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """See :class:`Weight`."""
        return process.log_snr(t).exp().clamp(max=self.most)


class EDMWeight(Simple):
    """``w = (r^2 + sigma_data^2) / (r sigma_data)^2 = SNR + 1 / sigma_data^2``, the plain error of EDM's F.

    Karras et al. (2022), https://arxiv.org/abs/2206.00364, table 1, ``lambda(sigma) = 1 / c_out^2``.

    Args:
        sigma_data: standard deviation of the data.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        super().__init__(F(sigma_data))


class Likelihood(Weight):
    """``w = -lambda'(t) SNR / 2``: the integral over t bounds the negative log-likelihood.

    Kingma et al. (2021), https://arxiv.org/abs/2107.00630, eq. 15 (``-SNR' / 2``); in terms of the score it is
    ``g^2 / 2`` (Song et al. 2021, "Maximum likelihood training of score-based diffusion models",
    https://arxiv.org/abs/2101.09258, theorem 1).
    """

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """See :class:`Weight`."""
        return -process.log_snr_dot(t) * process.log_snr(t).exp() / 2


def positive(weight: Tensor, t: Tensor) -> Tensor:
    """A weight that is finite, or one sentence.

    Raises:
        ValueError: it is not, as where sigma is 0; the law of t has to stay away from there.
    """
    if not bool(torch.isfinite(weight).all()):
        at = float(t[~torch.isfinite(weight)][0])
        raise ValueError(
            f"the weight is infinite at t = {at:g}, where alpha or sigma is 0; use a law of times that stays away, "
            "such as Uniform(1e-3, 0.999)"
        )
    return weight
