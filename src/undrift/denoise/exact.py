"""Denoisers in closed form: Gaussians, mixtures, Gaussian random fields, each also given a noisy linear observation.

For one component ``x ~ N(m, C)`` and white noise, in the eigenvectors of C and with its eigenvalues v,

    x_t ~ N(alpha m, alpha^2 v + sigma^2),
    E[x | x_t] = m + alpha v / (alpha^2 v + sigma^2) (x_t - alpha m),
    E[z | x_t] = sigma / (alpha^2 v + sigma^2) (x_t - alpha m),

neither of which divides by alpha or sigma: both ends are exact. In noise of covariance N the same holds in the
generalised eigenvectors, ``C g = v N g``, as whose amplitudes the noise is white.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from undrift.denoise.components import ComponentDenoiser, Components
from undrift.errors import check_number
from undrift.process import Coloured, Noise, Process

__all__ = ["Gaussian", "GaussianRandomField", "Mixture"]


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.to(torch.float64)
    return torch.as_tensor(values, dtype=torch.float64, device="cpu")


def _check_finite(**values: Tensor) -> None:
    for name, numbers in values.items():
        if not bool(torch.isfinite(numbers).all()):
            raise ValueError(f"{name} has NaN or infinite numbers, expected finite ones")


def _eigen(covariances: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Generalised eigenvalues v, (K, D), eigenvectors G and their duals ``N^-1 G`` as columns, (K, D, D).

    ``C = G v G'`` and ``N = G G'``, of a C that has to be a covariance up to rounding, in noise of covariance N. What
    rounding makes of an eigenvalue of 0, up to D times 2e-16 of the largest, is 0.
    """
    _check_finite(covariances=covariances)
    size = covariances.abs().amax((-2, -1), keepdim=True).clamp(min=1e-300)
    off = float(((covariances - covariances.mT).abs() / size).max())
    if not off <= 1e-10:
        raise ValueError(f"a covariance and its transpose differ by {off:.2g} of its largest entry, expected the same")
    root = _root(noise, covariances[0], 0.5)
    whitener = _root(noise, covariances[0], -0.5)
    white = whitener @ covariances @ whitener
    variances, bases = torch.linalg.eigh((white + white.mT) / 2)
    least = float((variances / white.abs().amax((-2, -1)).clamp(min=1e-300)[:, None]).min())
    if least < -1e-10:
        raise ValueError(f"a covariance has an eigenvalue of {least:.2g} of its largest entry, expected 0 or more")
    rounding = variances.shape[1] * torch.finfo(torch.float64).eps * variances.amax(1, keepdim=True)
    return torch.where(variances > rounding, variances, 0.0), root @ bases, whitener @ bases


def _root(noise: Noise, like: Tensor, exponent: float) -> Tensor:
    """A power of the covariance of the noise, (D, D), of as many fields on its grid as there are numbers for."""
    basis = torch.eye(len(like), dtype=torch.float64, device=like.device)
    if not isinstance(noise, Coloured):
        return basis
    cells = noise.power.numel()
    if len(like) % cells:
        raise ValueError(
            f"the noise is {tuple(noise.power.shape)}, expected cells that {len(like)} numbers are a multiple of"
        )
    return noise.filtered(basis.reshape(len(like), -1, *noise.power.shape), exponent).reshape(basis.shape)


class Mixture(ComponentDenoiser):
    """A mixture of K Gaussians in D dimensions; fields of any shape with D numbers are taken.

    Args:
        means: (K, D).
        stds: standard deviations along the axes, (K, D); of each component, (K,) or (K, 1); or a number.
        weights: positive, (K,), of any sum; equal if None.
        process: the noising process, EDM if None.
        covariances: (K, D, D), in place of ``stds``.
        noise: the law of z: white (if None), coloured (then fields are on its grid), or Student's, of PFGM++.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, weights or standard deviations that are not
            above 0, covariances that are not symmetric or have a negative eigenvalue, or a noise of another kind.
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
        super().__init__(process, noise)
        self.means = _tensor(means)
        if self.means.ndim != 2:
            raise ValueError(f"means are {tuple(self.means.shape)}, expected (components, dimensions)")
        _check_finite(means=self.means)
        count = len(self.means)
        self.weights = torch.ones_like(self.means[:, 0]) if weights is None else _tensor(weights)
        if self.weights.shape != (count,) or not (self.weights > 0).all():
            raise ValueError(f"weights are {tuple(self.weights.shape)}, expected {count} numbers above 0")
        _check_finite(weights=self.weights)
        self.weights = self.weights / self.weights.sum()
        if (stds is None) == (covariances is None):
            raise ValueError("expected either stds or covariances")
        if covariances is None:
            spread = _tensor(1.0 if stds is None else stds)
            if not (spread > 0).all():
                raise ValueError("stds has numbers that are not above 0")
            _check_finite(stds=spread)
            spread = spread[:, None] if spread.ndim == 1 else spread
            if spread.ndim and spread.shape not in ((count, 1), self.means.shape):
                raise ValueError(
                    f"stds are {tuple(spread.shape)}, expected ({count},), {tuple(self.means.shape)} or a number"
                )
            self.variances = (spread**2).broadcast_to(self.means.shape)
            covariances = torch.diag_embed(self.variances) if isinstance(self.noise, Coloured) else None
        self.bases: Tensor | None = None  # G, columns, (K, D, D); None for the axes
        if covariances is not None:
            self.variances, self.bases, self.duals = _eigen(_tensor(covariances), self.noise)
        self.log_det = torch.zeros_like(self.weights)  # log |det G|
        if self.bases is not None:
            self.log_det = torch.linalg.slogdet(self.bases).logabsdet

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

        Raises:
            ValueError: shapes that do not fit, numbers that are not finite, or an observation far from every component.
        """
        a, y = _tensor(operator), _tensor(observed)
        if a.ndim != 2 or a.shape[1] != self.means.shape[1] or y.shape != a.shape[:1]:
            raise ValueError(
                f"operator and observed are {tuple(a.shape)} and {tuple(y.shape)}, "
                f"expected (m, {self.means.shape[1]}) and (m,)"
            )
        _check_finite(operator=a, observed=y)
        check_number(std=std)
        if not std > 0:
            raise ValueError(f"std is {std}, expected a number above 0")
        covariances = self.covariances()
        innovation = a @ covariances @ a.T + std**2 * torch.eye(len(y), dtype=torch.float64, device=y.device)
        root, failed = torch.linalg.cholesky_ex(innovation)
        if bool(failed.any()):
            raise ValueError(
                f"std is {std}, too small for rows of the operator that say the same; expected a larger one"
            )
        misfit = y - self.means @ a.T
        gain = torch.cholesky_solve(a @ covariances, root).mT  # (K, D, m)
        whitened = torch.linalg.solve_triangular(root, misfit[..., None], upper=False)[..., 0]
        log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1)
        weights = torch.softmax(self.weights.log() - 0.5 * (whitened**2).sum(-1) - log_det, 0)
        kept = weights > 0
        if not bool(kept.any()):
            raise ValueError(
                "observed is too far from what every component makes of it, expected values near one of them"
            )
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

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`undrift.denoise.components.ComponentDenoiser`."""
        if math.prod(shape[1:]) != self.means.shape[1]:
            raise ValueError(f"x_t is {shape}, expected {self.means.shape[1]} numbers a row")

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """See :class:`undrift.denoise.components.ComponentDenoiser`.

        Raises:
            ValueError: sigma is 0 at one of the times, and a covariance singular: there is no density.
        """
        if bool((self.variances == 0).any()) and bool((self.process.sigma(t.to(torch.float64)) == 0).any()):
            raise ValueError("sigma(t) is 0 and a covariance singular: there is no density; ask for it at a later t")
        return super().log_prob(x_t, t)

    def components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """See :class:`undrift.denoise.components.ComponentDenoiser`."""
        means, variances = self.means.to(x_t.device), self.variances.to(x_t.device)
        a = alpha.reshape(-1, *[1] * (sigma.ndim - 1))[..., None, None]
        s = sigma[..., None, None]
        away = x_t.reshape(len(x_t), *[1] * sigma.ndim, -1) - a * means
        if self.bases is not None:
            bases, duals = self.bases.to(x_t.device), self.duals.to(x_t.device)
            away = torch.einsum("kij,...ki->...kj", duals, away)
        total = a**2 * variances + s**2
        certain = total == 0  # neither data nor noise vary: x = x_t / alpha, and there is no density
        total = torch.where(certain, 1.0, total)
        log_density = -0.5 * (away**2 / total + total.log() + np.log(2 * np.pi)).sum(-1)
        x = torch.where(certain, 1 / a, a * variances / total) * away
        z, variance = s / total * away, variances * s**2 / total
        if self.bases is not None:
            x, z = (torch.einsum("kij,...kj->...ki", bases, v) for v in (x, z))
            variance = torch.einsum("kij,...kj->...ki", bases**2, variance)
        return Components(means + x, z, variance, log_density + (self.weights.log() - self.log_det).to(x_t.device))


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
        _check_finite(mean=mean, covariance=covariance)
        if covariance.ndim == 1 and not (covariance > 0).all():
            raise ValueError(f"covariance has a variance of {float(covariance.min()):.4g}, expected numbers above 0")
        if covariance.ndim == 1:
            super().__init__(mean[None], covariance.sqrt()[None], None, process, noise=noise)
        else:
            super().__init__(mean[None], None, None, process, covariances=covariance[None], noise=noise)


class GaussianRandomField(ComponentDenoiser):
    """A stationary Gaussian field of mean 0 on a periodic grid, by its power spectrum.

    Args:
        power: spectrum, ``E |FFT(x)_k|^2 = cells * power_k``, see :class:`undrift.process.Coloured`, (*space).
        process: the noising process, EDM if None.
        noise: the law of z: white (if None), coloured on the same grid, or Student's, of PFGM++.
    """

    def __init__(self, power: Tensor, process: Process | None = None, *, noise: Noise | None = None) -> None:
        super().__init__(process, noise)
        self.law = Coloured(power)
        if isinstance(self.noise, Coloured) and self.noise.power.shape != self.law.power.shape:
            raise ValueError(
                f"the noise is {tuple(self.noise.power.shape)}, expected {tuple(self.law.power.shape)} cells"
            )

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean draws, float64, (count, *space)."""
        return self.law.draw((count, *self.law.power.shape), generator)

    def conditioned(self, operator: ArrayLike | Tensor, observed: ArrayLike | Tensor, std: float) -> Mixture:
        """The field given ``observed = operator x + std N(0, 1)``, see :meth:`Mixture.conditioned`."""
        return self.dense().conditioned(operator, observed, std)

    def dense(self) -> Gaussian:
        """The same law with its covariance written out, for small grids."""
        covariance = _root(self.law, self.law.power.flatten(), 1.0)
        return Gaussian(
            torch.zeros_like(covariance[0]), (covariance + covariance.T) / 2, self.process, noise=self.noise
        )

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`undrift.denoise.components.ComponentDenoiser`; every leading dim holds fields of their own."""
        space = tuple(self.law.power.shape)
        if shape[1:][-len(space) :] != space:
            raise ValueError(f"x_t is {shape}, expected a last part of {space} cells")

    def components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """See :class:`undrift.denoise.components.ComponentDenoiser`: one component, whose eigenvectors are waves."""
        data = self.law.power.to(x_t.device)
        noise = self.noise.power.to(x_t.device) if isinstance(self.noise, Coloured) else torch.ones_like(data)
        inner = [1] * (sigma.ndim - 1)
        a, s = alpha.reshape(-1, *inner, *[1] * (data.ndim + 1)), sigma.reshape(*sigma.shape, *[1] * (data.ndim + 1))
        dims, shape = tuple(range(-data.ndim, 0)), (*sigma.shape, 1, x_t.shape[1])
        fields = x_t.reshape(len(x_t), *inner, -1, *data.shape)
        total, modes = a**2 * data + s**2 * noise, torch.fft.fftn(fields, dim=dims)
        x, z = (torch.fft.ifftn(modes * g, dim=dims).real for g in (a * data / total, s * noise / total))
        power = modes.abs() ** 2 / data.numel()
        log = -0.5 * (power / total + total.log() + np.log(2 * np.pi)).flatten(sigma.ndim).sum(-1)
        variance = (data * noise * s**2 / total).mean(dims, keepdim=True)
        x, z, variance = (v.expand(*sigma.shape, *fields.shape[sigma.ndim :]).reshape(shape) for v in (x, z, variance))
        return Components(x, z, variance, log[..., None])
