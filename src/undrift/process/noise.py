"""Laws of the noise z in ``x_t = alpha x + sigma z``.

What holds for any law: the velocity of the probability flow, ``alpha' E[x | x_t] + sigma' E[z | x_t]``, and so every
solver of the ODE. What holds for Gaussian noise only (the score as ``-C^{-1} E[z | x_t] / sigma``, transitions, SDEs,
Langevin steps) is the declared capability ``gaussian``; asking a law without it for it raises.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from scipy.special import gammaincinv
from torch import Tensor

from undrift.errors import check_number, check_whole, described

__all__ = ["Coloured", "Empirical", "Noise", "StudentT", "White"]


class Noise(ABC):
    """A law of z."""

    gaussian: bool

    @abstractmethod
    def draw(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draws, (B, ...) = ``shape``, on the generator's device."""

    def is_law_of(self, other: "Noise") -> bool:
        """Whether another noise has the same law: it is of the same class, with the same numbers."""
        if type(self) is not type(other):
            return False
        pairs = ((value, vars(other)[name]) for name, value in vars(self).items())
        return all(a is b or (a.equal(b.to(a.device)) if isinstance(a, Tensor) else a == b) for a, b in pairs)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of whole fields, nats, float64, (B,)."""
        raise TypeError(f"{type(self).__name__} noise has no log_prob; expected one, or give the base of the density")

    def whitened(self, z: Tensor) -> Tensor:
        """``C^{-1} z`` for Gaussian noise of covariance C, (B, ...): the score is ``-C^{-1} E[z | x_t] / sigma``."""
        raise TypeError(f"{type(self).__name__} noise is not Gaussian: it has no score and no transitions, only a flow")


class White(Noise):
    """Independent standard normal numbers."""

    gaussian = True

    def draw(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """See :class:`Noise`."""
        return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=generator.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """``-(|z|^2 + D log(2 pi)) / 2``."""
        return -0.5 * (z.double() ** 2 + math.log(2 * math.pi)).flatten(1).sum(1)

    def whitened(self, z: Tensor) -> Tensor:
        """Z itself."""
        return z


class Coloured(Noise):
    """A stationary Gaussian field on a periodic grid, by its power spectrum.

    With wavenumbers k of the discrete Fourier transform, ``E |FFT(z)_k|^2 = cells * power_k``: the variance of a cell
    is the mean of ``power``, and ``power = 1`` is white.

    Args:
        power: at each wavenumber in the order of ``torch.fft.fftfreq``, above 0 and even in k, (*space); as
            :meth:`isotropic` makes it.
    """

    gaussian = True

    def __init__(self, power: Tensor) -> None:
        if not isinstance(power, Tensor):
            raise TypeError(f"power is {described(power)}, expected a tensor (*space), as Coloured.isotropic makes it")
        power = power.to(torch.float64)
        if not (torch.isfinite(power) & (power > 0)).all():
            raise ValueError("power has values that are not above 0, expected a finite spectrum above 0")
        dims = tuple(range(power.ndim))
        if not torch.allclose(power, power.flip(dims).roll((1,) * power.ndim, dims), rtol=1e-12, atol=0):
            raise ValueError("power at k differs from that at -k, expected a spectrum that is even in k")
        self.power = power

    @classmethod
    def isotropic(cls, shape: Sequence[int], slope: float) -> "Coloured":
        """``power ~ |k|^slope`` with unit variance, the mean at the power of the smallest wavenumber.

        Args:
            shape: cells along each dim.
            slope: of the spectrum of modes; -2 is that of Brownian motion in one dim.
        """
        check_number(slope=slope)
        if not isinstance(shape, Sequence) or not shape:
            raise ValueError(f"shape is {described(shape)}, expected the cells along each dim, such as (32, 32)")
        for cells in shape:
            check_whole(1, cells=cells)
        frequencies = [torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") for n in shape]
        radius = sum((f**2 for f in torch.meshgrid(*frequencies, indexing="ij")), torch.zeros((), device="cpu")).sqrt()
        power = radius.clamp(min=1 / max(shape)) ** slope
        return cls(power / power.mean())

    def draw(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """See :class:`Noise`; the last dims are those of the grid."""
        white = torch.randn(tuple(shape), generator=generator, dtype=torch.float64, device=generator.device)
        return self.filtered(white, 0.5).to(dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """``-(z C^{-1} z + log det C + D log(2 pi)) / 2``, the determinant the product of the powers."""
        z = z.double()
        squares = z * self.filtered(z, -1.0) + self.power.to(z.device).log()
        return -0.5 * (squares + math.log(2 * math.pi)).flatten(1).sum(1)

    def whitened(self, z: Tensor) -> Tensor:
        """See :class:`Noise`."""
        return self.filtered(z, -1.0)

    def filtered(self, z: Tensor, exponent: float) -> Tensor:
        """``C^exponent z``, (B, ..., *space); transformed in float32 at least."""
        dims = tuple(range(-self.power.ndim, 0))
        if z.shape[z.ndim - self.power.ndim :] != self.power.shape:
            raise ValueError(f"fields are {tuple(z.shape)}, expected a last part of {tuple(self.power.shape)} cells")
        gain = self.power.to(z.device) ** exponent
        modes = torch.fft.fftn(z.to(torch.promote_types(z.dtype, torch.float32)), dim=dims)
        return torch.fft.ifftn(modes * gain, dim=dims).real.to(z.dtype)


class Empirical(Noise):
    """A data set in the place of noise, of which nothing is known but its fields: no score and no density.

    Args:
        fields: (n, ...), drawn with replacement.
    """

    gaussian = False

    def __init__(self, fields: Tensor) -> None:
        if not isinstance(fields, Tensor) or fields.ndim < 2 or not fields.is_floating_point() or not len(fields):
            raise ValueError(f"the other data set is {described(fields)}, expected a tensor (n, ...) of real numbers")
        if not bool(torch.isfinite(fields).all()):
            raise ValueError("the other data set has NaN or infinite numbers, expected finite ones")
        self.fields = fields

    def draw(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """See :class:`Noise`.

        Raises:
            ValueError: fields of another shape are asked.
        """
        if tuple(shape[1:]) != tuple(self.fields.shape[1:]):
            raise ValueError(
                f"fields are {tuple(shape[1:])}, those of the other data set {tuple(self.fields.shape[1:])}"
            )
        rows = torch.randint(len(self.fields), (shape[0],), generator=generator, device=generator.device)
        return self.fields.to(generator.device, dtype)[rows]


class StudentT(Noise):
    """The noise of PFGM++: all numbers of a field over one common random scale, ``z = g / sqrt(chi2_D / D)``.

    Xu et al. (2023), "PFGM++: unlocking the potential of physics-inspired generative models",
    https://arxiv.org/abs/2302.04265, perturb x by a vector of uniform direction and radius R with density proportional
    to ``R^{N-1} / (R^2 + r^2)^{(N+D)/2}``, ``r = sigma sqrt(D)`` (their perturbation kernel). Then ``R^2 / r^2`` is a
    ratio of two chi-squares of N and D degrees, so that R / sigma is the length of a multivariate Student t with D
    degrees: one law, whatever sigma. ``D = 1`` is the Poisson flow of Xu et al. (2022),
    https://arxiv.org/abs/2209.11178; ``D -> infinity`` is white noise.

    Args:
        dof: D, the number of added dimensions, 0.1 or more: of fewer so much of the law lies beyond the largest number
            of float64 that draws meet it (of 0.1, and in float32, one in six thousand; of 1 one in 1e38).
    """

    gaussian = False

    def __init__(self, dof: float) -> None:
        if dof == math.inf:
            raise ValueError("dof is inf, expected a finite number; the limit is White()")
        check_number(dof=dof)
        if not dof >= 0.1:
            raise ValueError(f"dof is {dof}, expected 0.1 or more: the draws of fewer are beyond the largest numbers")
        self.dof = float(dof)

    def draw(self, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """See :class:`Noise`; each row has its own scale."""
        normal = torch.randn(tuple(shape), generator=generator, dtype=torch.float64, device=generator.device)
        share = torch.rand(shape[0], generator=generator, dtype=torch.float64, device=generator.device)
        share = share.clamp(min=2.0**-54)  # 0 stands for all below 2^-53
        scale = self.scale(share).reshape(-1, *[1] * (len(shape) - 1))
        return (normal * scale).to(dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """The multivariate t, with N numbers in a field: ``-(D + N) / 2 log(1 + |z|^2 / D)`` and its constant."""
        z, half = z.double().flatten(1), self.dof / 2
        more = z.shape[1] / 2
        # Gamma(half + more) / Gamma(half) / half^more, without the digits that large gammas would lose
        ratio = (half + more - 0.5) * math.log1p(more / half) - more + stirling_rest(half + more) - stirling_rest(half)
        return ratio - more * math.log(2 * math.pi) - (half + more) * torch.log1p((z**2).sum(1) / self.dof)

    def scale(self, share: Tensor) -> Tensor:
        """``1 / sqrt(chi2_D / D)`` at quantiles of chi2_D, (B,): what all numbers of a field are multiplied by."""
        half = gammaincinv(self.dof / 2, share.cpu().numpy())
        return torch.tensor(half * 2 / self.dof, dtype=torch.float64, device=share.device).rsqrt()


def stirling_rest(v: float) -> float:
    """``log Gamma(v) - (v - 1/2) log v + v - log(2 pi) / 2``, which falls as ``1 / (12 v)``, to 1e-13.

    Abramowitz & Stegun (1964), eq. 6.1.41, from where its last term is below that.
    """
    if v < 30:
        return math.lgamma(v) - (v - 0.5) * math.log(v) + v - 0.5 * math.log(2 * math.pi)
    return (1 / 12 - (1 / 360 - 1 / (1260 * v**2)) / v**2) / v
