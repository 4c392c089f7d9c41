"""The process of DDPM, given at discrete steps, at every time between them."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from undrift.errors import described
from undrift.process.variance_preserving import VariancePreserving

__all__ = ["DiscreteBetas"]

_HALVINGS = 55  # of the time between two nodes


class DiscreteBetas(VariancePreserving):
    """``alpha^2 = prod (1 - beta_i)`` at ``t_i = i / N``, i = 1 .. N, and between them by interpolation of lambda.

    Ho et al. (2020), "Denoising diffusion probabilistic models", https://arxiv.org/abs/2006.11239, eq. 4. It is not
    :class:`LinearBeta`, its limit of many steps: at the last of DDPM's thousand steps alpha^2 differs by 7 %. lambda is
    interpolated by the monotone cubic of Fritsch & Carlson (1980), doi:10.1137/0717021, whose slope is continuous.

    ``t_min`` is ``t_1``: a run ends there with a denoising, as DDPM's last step does.

    Args:
        betas: variance added by each step, (N,); DDPM's, 1000 from 1e-4 to 0.02, if None.
    """

    t_max = 1.0

    def __init__(self, betas: Sequence[float] | np.ndarray | Tensor | None = None) -> None:
        try:
            values = np.linspace(1e-4, 0.02, 1000) if betas is None else np.asarray(betas, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"betas is {described(betas)}, expected two numbers or more between 0 and 1") from None
        if values.ndim != 1 or len(values) < 2 or not ((values > 0) & (values < 1)).all():
            raise ValueError(f"betas have shape {values.shape}, expected two numbers or more between 0 and 1")
        self.betas = torch.tensor(values, dtype=torch.float64, device="cpu")
        log_alpha_squared = np.cumsum(np.log1p(-values))
        steps = np.arange(1, len(values) + 1) / len(values)
        self.t_min = 1 / len(values)
        cubic = PchipInterpolator(steps, -np.log(np.expm1(-log_alpha_squared)))
        self._nodes = torch.tensor(steps, dtype=torch.float64, device="cpu")
        self._cubic = torch.tensor(np.ascontiguousarray(cubic.c), dtype=torch.float64, device="cpu")  # (4, N - 1)
        self._values = cubic(steps)

    @property
    def nodes(self) -> Tensor:
        """Times of the steps, ascending, float64, (N,)."""
        return self._nodes.clone()

    def step_index(self, t: Tensor) -> Tensor:
        """The label of t by which networks of DDPM are trained, ``N t - 1``: from 0 at t_1 to N - 1."""
        return t * len(self.betas) - 1

    def log_snr(self, t: Tensor) -> Tensor:
        """``log(alpha^2 / (1 - alpha^2))``."""
        return self._evaluated(t, self._interval(t))

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """The derivative of the cubic."""
        at = self._interval(t)
        a, b, c, _ = self._cubic.to(t.device)[:, at]
        x = t - self._nodes.to(t.device)[at]
        return (3 * a * x + 2 * b) * x + c

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Bisection between the two nodes; beyond the ends, the end."""
        ascending = torch.tensor(-self._values, dtype=torch.float64, device=log_snr.device)
        at = (torch.searchsorted(ascending, -log_snr.contiguous()) - 1).clamp(0, len(self.betas) - 2)
        nodes = self._nodes.to(log_snr.device)
        low, high = nodes[at], nodes[at + 1]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            later = self._evaluated(middle, at) > log_snr
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return (low + high) / 2

    def _interval(self, t: Tensor) -> Tensor:
        """Number of the node at or before t."""
        nodes = self._nodes.to(t.device)
        return (torch.searchsorted(nodes, t.detach().contiguous(), right=True) - 1).clamp(0, len(nodes) - 2)

    def _evaluated(self, t: Tensor, at: Tensor) -> Tensor:
        a, b, c, d = self._cubic.to(t.device)[:, at]
        x = t - self._nodes.to(t.device)[at]
        return ((a * x + b) * x + c) * x + d
