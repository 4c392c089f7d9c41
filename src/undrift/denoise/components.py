"""What exact denoisers share: components that are Gaussian given x_t, each weighed by how well it explains x_t.

Student's noise is Gaussian given its scale, and the scale is integrated over by quadrature.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_label
from undrift.denoise.estimate import Estimate
from undrift.denoise.scales import Scales
from undrift.process import EDM, Coloured, Noise, Process, StudentT, White
from undrift.tasks.batch import Condition

__all__ = ["ComponentDenoiser", "Components"]


@dataclass(frozen=True)
class Components:
    """Posterior means of x and z and variance of x, (B, ..., K, D), and log of weight times density, (B, ..., K)."""

    x: Tensor
    z: Tensor
    variance: Tensor
    log: Tensor


class ComponentDenoiser(Denoiser):
    """A denoiser by what each of K Gaussian components makes of x_t.

    Args:
        process: the noising process, EDM if None.
        noise: the law of z, white if None.
    """

    def __init__(self, process: Process | None, noise: Noise | None) -> None:
        self.process, self.noise = process or EDM(), noise or White()
        if not isinstance(self.noise, White | Coloured | StudentT):
            kind = type(self.noise).__name__
            raise ValueError(f"the noise is {kind}, expected White, Coloured or StudentT, which have a closed form")

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless x_t may have this shape, (B, ...)."""

    @abstractmethod
    def components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """What each component makes of x_t (B, D), for alpha (B,) and sigma (B, ...)."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; computed in float64."""
        flat, alpha, sigma = self._rows(x_t, t)
        found = [torch.empty_like(flat) for _ in range(3)]
        for rows, scale, log_weight in self._scales(flat, alpha, sigma):
            s = sigma[rows] if scale is None else sigma[rows, None] * scale
            parts = self.components(flat[rows], alpha[rows], s)
            log_joint = parts.log if log_weight is None else parts.log + log_weight[..., None]
            share = torch.softmax(log_joint.flatten(1), 1).reshape(log_joint.shape)[..., None]
            inner = tuple(range(1, share.ndim - 1))
            x = (share * parts.x).sum(inner)
            away = parts.x - x.reshape(-1, *[1] * len(inner), x.shape[1])
            found[0][rows] = x
            found[1][rows] = (share * parts.z * (1.0 if scale is None else scale[..., None, None])).sum(inner)
            found[2][rows] = (share * (parts.variance + away**2)).sum(inner)
        x, z, variance = (v.reshape(x_t.shape).to(x_t.dtype) for v in found)
        return Estimate(x, z, self.process, t, self.noise, variance)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Log-density of x_t at times t, in nats, float64, (B,)."""
        flat, alpha, sigma = self._rows(x_t, t)
        out = torch.empty_like(flat[:, 0])
        for rows, scale, log_weight in self._scales(flat, alpha, sigma):
            s = sigma[rows] if scale is None else sigma[rows, None] * scale
            log_joint = self.components(flat[rows], alpha[rows], s).log
            if log_weight is not None:
                log_joint = log_joint + log_weight[..., None]
            out[rows] = torch.logsumexp(log_joint.flatten(1), 1)
        return out

    def _rows(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t as (B, D) in float64, and alpha and sigma of each row."""
        check_label(t)
        self.check(tuple(x_t.shape))
        flat = x_t.flatten(1).double()
        t = t.to(torch.float64).expand(len(flat))
        return flat, self.process.alpha(t), self.process.sigma(t)

    def _scales(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Scales:
        """Rows, with the scales of the noise and the logs of their weights where the noise has one."""

        def log_density(rows: slice, scale: Tensor) -> Tensor:
            return torch.logsumexp(self.components(x_t[rows], alpha[rows], sigma[rows, None] * scale).log, -1)

        dof = self.noise.dof if isinstance(self.noise, StudentT) else None
        return Scales(len(x_t), dof, log_density, x_t.device)
