"""Denoisers in closed form: Gaussians, mixtures, Gaussian random fields, each also given a noisy linear observation.

For one component ``x ~ N(m, C)`` and white noise, in the eigenvectors of C and with its eigenvalues v,

    x_t ~ N(alpha m, alpha^2 v + sigma^2),
    E[x | x_t] = m + alpha v / (alpha^2 v + sigma^2) (x_t - alpha m),
    E[z | x_t] = sigma / (alpha^2 v + sigma^2) (x_t - alpha m),

neither of which divides by alpha or sigma: both ends are exact. Components are weighed by how well they explain x_t.
Student's noise is Gaussian given its scale, and the scale is integrated over by quadrature.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.scales import Scales
from undrift.process import EDM, Coloured, Noise, Process, StudentT, White
from undrift.tasks.batch import Condition

__all__ = ["Gaussian", "GaussianRandomField", "Mixture"]


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(torch.float64)
    return torch.as_tensor(values, dtype=torch.float64, device="cpu")


def _eigen(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, (K, D), and eigenvectors as columns, (K, D, D), of what has to be a covariance up to rounding."""
    size = covariances.abs().amax((-2, -1), keepdim=True).clamp(min=1e-300)
    off = float(((covariances - covariances.mT).abs() / size).max())
    if not off <= 1e-10:
        raise ValueError(f"a covariance and its transpose differ by {off:.2g} of its largest entry, expected the same")
    variances, bases = torch.linalg.eigh(covariances)
    least = float((variances / size[..., 0]).min())
    if least < -1e-10:
        raise ValueError(f"a covariance has an eigenvalue of {least:.2g} of its largest entry, expected 0 or more")
    return variances.clamp(min=0.0), bases


@dataclass(frozen=True)
class _Components:
    """Posterior means of x and z and variance of x, (B, ..., K, D), and log of weight times density, (B, ..., K)."""

    x: Tensor
    z: Tensor
    variance: Tensor
    log: Tensor


class Mixture(Denoiser):
    """A mixture of K Gaussians in D dimensions; fields of any shape with D numbers are taken.

    Args:
        means: (K, D).
        stds: standard deviations along the axes, (K, D); of each component, (K,) or (K, 1); or a number.
        weights: positive, (K,), of any sum; equal if None.
        process: the noising process, EDM if None.
        covariances: (K, D, D), in place of ``stds``.
        noise: the law of z: white (if None), or Student's, of PFGM++.

    Raises:
        ValueError: shapes that do not fit, weights or standard deviations that are not above 0, or covariances that
            are not symmetric or have a negative eigenvalue.
    """

    def __init__(
        self,
        means: ArrayLike | Tensor,
        stds: ArrayLike | Tensor | float | None = None,
        weights: ArrayLike | Tensor | None = None,
        process: Process | None = None,
        *,
        covariances: ArrayLike | Tensor | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.process, self.noise = process or EDM(), noise or White()
        if isinstance(self.noise, Coloured):
            raise ValueError(
                "the noise is coloured: GaussianRandomField has it, mixtures take white or Student's noise"
            )
        self.means = _tensor(means)
        if self.means.ndim != 2:
            raise ValueError(f"means are {tuple(self.means.shape)}, expected (components, dimensions)")
        count = len(self.means)
        self.weights = torch.ones_like(self.means[:, 0]) if weights is None else _tensor(weights)
        if self.weights.shape != (count,) or not (self.weights > 0).all():
            raise ValueError(f"weights are {tuple(self.weights.shape)}, expected {count} numbers above 0")
        self.weights = self.weights / self.weights.sum()
        self.bases: Tensor | None = None  # eigenvectors as columns, (K, D, D); None for the axes
        if (stds is None) == (covariances is None):
            raise ValueError("expected either stds or covariances")
        if covariances is not None:
            self.variances, self.bases = _eigen(_tensor(covariances))
        else:
            spread = _tensor(1.0 if stds is None else stds)
            if not (spread > 0).all():
                raise ValueError("stds has numbers that are not above 0")
            spread = spread[:, None] if spread.ndim == 1 else spread
            if spread.ndim and spread.shape not in ((count, 1), self.means.shape):
                raise ValueError(
                    f"stds are {tuple(spread.shape)}, expected ({count},), {tuple(self.means.shape)} or a number"
                )
            self.variances = (spread**2).broadcast_to(self.means.shape)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; computed in float64."""
        flat, alpha, sigma = self._rows(x_t, t)
        found = [torch.empty_like(flat) for _ in range(3)]
        for rows, scale, log_weight in self._scales(flat, alpha, sigma):
            s = sigma[rows] if scale is None else sigma[rows, None] * scale
            parts = self._components(flat[rows], alpha[rows], s)
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
            log_joint = self._components(flat[rows], alpha[rows], s).log
            if log_weight is not None:
                log_joint = log_joint + log_weight[..., None]
            out[rows] = torch.logsumexp(log_joint.flatten(1), 1)
        return out

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean draws, float64, (count, D)."""
        device = generator.device
        which = torch.multinomial(self.weights.to(device), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64, device=device)
        spread = self.variances.sqrt().to(device)[which] * noise
        if self.bases is not None:
            spread = torch.einsum("bij,bj->bi", self.bases.to(device)[which], spread)
        return self.means.to(device)[which] + spread

    def conditioned(self, operator: ArrayLike | Tensor, observed: ArrayLike | Tensor, std: float) -> "Mixture":
        """The mixture given ``observed = operator x + std N(0, 1)``.

        Args:
            operator: (m, D).
            observed: (m,).
            std: of the observation's errors, above 0.
        """
        a, y = _tensor(operator), _tensor(observed)
        if a.ndim != 2 or a.shape[1] != self.means.shape[1] or y.shape != a.shape[:1]:
            raise ValueError(
                f"operator and observed are {tuple(a.shape)} and {tuple(y.shape)}, "
                f"expected (m, {self.means.shape[1]}) and (m,)"
            )
        if not std > 0:
            raise ValueError(f"std is {std}, expected a number above 0")
        covariances = self.covariances()
        innovation = a @ covariances @ a.T + std**2 * torch.eye(len(y), dtype=torch.float64, device=y.device)
        root = torch.linalg.cholesky(innovation)
        misfit = y - self.means @ a.T
        gain = torch.cholesky_solve(a @ covariances, root).mT  # (K, D, m)
        whitened = torch.linalg.solve_triangular(root, misfit[..., None], upper=False)[..., 0]
        log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1)
        weights = torch.softmax(self.weights.log() - 0.5 * (whitened**2).sum(-1) - log_det, 0)
        kept = weights > 0
        means = self.means + torch.einsum("kdm,km->kd", gain, misfit)
        posterior = covariances - gain @ (a @ covariances)
        variances, bases = torch.linalg.eigh((posterior + posterior.mT) / 2)
        posterior = bases * variances.clamp(min=0.0)[:, None, :] @ bases.mT  # an exact observation leaves only rounding
        return Mixture(means[kept], None, weights[kept], self.process, covariances=posterior[kept], noise=self.noise)

    def covariances(self) -> Tensor:
        """Of each component, (K, D, D)."""
        if self.bases is None:
            return torch.diag_embed(self.variances)
        return self.bases * self.variances[:, None, :] @ self.bases.mT

    def _rows(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t as (B, D) in float64, and alpha and sigma of each row."""
        flat = x_t.flatten(1).double()
        if flat.shape[1] != self.means.shape[1]:
            raise ValueError(f"x_t is {tuple(x_t.shape)}, expected {self.means.shape[1]} numbers a row")
        t = t.to(torch.float64).expand(len(flat))
        return flat, self.process.alpha(t), self.process.sigma(t)

    def _components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> "_Components":
        """What each component makes of x_t (B, D), for sigma (B, ...)."""
        means, variances, weights = (v.to(x_t.device) for v in (self.means, self.variances, self.weights))
        a = alpha.reshape(-1, *[1] * (sigma.ndim - 1))[..., None, None]
        s = sigma[..., None, None]
        away = x_t.reshape(len(x_t), *[1] * sigma.ndim, -1) - a * means
        bases = None if self.bases is None else self.bases.to(x_t.device)
        if bases is not None:
            away = torch.einsum("kij,...ki->...kj", bases, away)
        total = a**2 * variances + s**2
        log_density = -0.5 * (away**2 / total + total.log() + np.log(2 * np.pi)).sum(-1)
        x, z, variance = a * variances / total * away, s / total * away, variances * s**2 / total
        if bases is not None:
            x, z = (torch.einsum("kij,...kj->...ki", bases, v) for v in (x, z))
            variance = torch.einsum("kij,...kj->...ki", bases**2, variance)
        return _Components(means + x, z, variance, log_density + weights.log())

    def _scales(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> "Scales":
        """Rows, with the scales of the noise and the logs of their weights where the noise has one."""

        def log_density(rows: slice, scale: Tensor) -> Tensor:
            return torch.logsumexp(self._components(x_t[rows], alpha[rows], sigma[rows, None] * scale).log, -1)

        dof = self.noise.dof if isinstance(self.noise, StudentT) else None
        return Scales(len(x_t), dof, log_density, x_t.device)


class Gaussian(Mixture):
    """One Gaussian with any covariance.

    Args:
        mean: (D,).
        covariance: (D, D), or the variances along the axes, (D,).
        process: the noising process, EDM if None.
        noise: the law of z, white if None.
    """

    def __init__(
        self,
        mean: ArrayLike | Tensor,
        covariance: ArrayLike | Tensor,
        process: Process | None = None,
        *,
        noise: Noise | None = None,
    ) -> None:
        mean, covariance = _tensor(mean), _tensor(covariance)
        if mean.ndim != 1 or covariance.shape not in ((len(mean),), (len(mean), len(mean))):
            raise ValueError(
                f"mean and covariance are {tuple(mean.shape)} and {tuple(covariance.shape)}, "
                "expected (D,) and (D, D) or (D,)"
            )
        if covariance.ndim == 1 and not (covariance > 0).all():
            raise ValueError(f"covariance has a variance of {float(covariance.min()):.4g}, expected numbers above 0")
        if covariance.ndim == 1:
            super().__init__(mean[None], covariance.sqrt()[None], None, process, noise=noise)
        else:
            super().__init__(mean[None], None, None, process, covariances=covariance[None], noise=noise)


class GaussianRandomField(Denoiser):
    """A stationary Gaussian field of mean 0 on a periodic grid, by its power spectrum.

    Args:
        power: spectrum, ``E |FFT(x)_k|^2 = cells * power_k``, see :class:`undrift.process.Coloured`, (*space).
        process: the noising process, EDM if None.
        noise: the law of z: white (if None) or coloured on the same grid.
    """

    def __init__(self, power: Tensor, process: Process | None = None, *, noise: Noise | None = None) -> None:
        self.law = Coloured(power)
        self.process, self.noise = process or EDM(), noise or White()
        if not self.noise.gaussian:
            raise ValueError("the noise of a Gaussian random field is white or coloured, expected one of the two")
        if isinstance(self.noise, Coloured) and self.noise.power.shape != self.law.power.shape:
            raise ValueError(
                f"the noise is {tuple(self.noise.power.shape)}, expected {tuple(self.law.power.shape)} cells"
            )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; every leading dim holds fields of their own."""
        data, noise, alpha, sigma = self._spectra(x_t, t)
        gain = 1 / (alpha**2 * data + sigma**2 * noise)
        dims = self._dims
        modes = torch.fft.fftn(x_t.double(), dim=dims)
        x, z = (
            torch.fft.ifftn(modes * g, dim=dims).real.to(x_t.dtype) for g in (alpha * data * gain, sigma * noise * gain)
        )
        return Estimate(x, z, self.process, t, self.noise)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Log-density of x_t at times t, in nats, float64, (B,)."""
        data, noise, alpha, sigma = self._spectra(x_t, t)
        total = (alpha**2 * data + sigma**2 * noise).expand(x_t.shape)
        power = torch.fft.fftn(x_t.double(), dim=self._dims).abs() ** 2 / self.law.power.numel()
        return -0.5 * (power / total + total.log() + np.log(2 * np.pi)).flatten(1).sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean draws, float64, (count, *space)."""
        return self.law.draw((count, *self.law.power.shape), generator)

    def conditioned(self, operator: ArrayLike | Tensor, observed: ArrayLike | Tensor, std: float) -> Mixture:
        """The field given ``observed = operator x + std N(0, 1)``, see :meth:`Mixture.conditioned`.

        Raises:
            ValueError: the noise of the process is coloured.
        """
        if isinstance(self.noise, Coloured):
            raise ValueError("the noise is coloured, and observations are taken with white noise only")
        return self.dense().conditioned(operator, observed, std)

    def dense(self) -> Gaussian:
        """The same law with its covariance written out, for small grids and white noise."""
        if isinstance(self.noise, Coloured):
            raise ValueError("the noise is coloured: there is no Gaussian with such noise, use the field itself")
        cells = self.law.power.numel()
        basis = torch.eye(cells, dtype=torch.float64, device=self.law.power.device)
        covariance = self.law.filtered(basis.reshape(cells, *self.law.power.shape), 1.0).reshape(cells, cells)
        return Gaussian(torch.zeros_like(covariance[0]), (covariance + covariance.T) / 2, self.process)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-self.law.power.ndim, 0))

    def _spectra(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Spectra of data and noise, and alpha and sigma ready to multiply them."""
        data = self.law.power.to(x_t.device)
        noise = self.noise.power.to(x_t.device) if isinstance(self.noise, Coloured) else torch.ones_like(data)
        t = t.to(torch.float64).expand(len(x_t)).reshape(-1, *[1] * (x_t.ndim - 1))
        return data, noise, self.process.alpha(t), self.process.sigma(t)
