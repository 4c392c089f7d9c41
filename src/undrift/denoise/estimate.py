"""What is known of the clean field and of the noise, given the noisy field."""

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from undrift.process import Noise, Process, White

__all__ = ["Estimate", "along"]


def along(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of each row, (B,) or a scalar, in the dtype of fields (B, ...) and ready to multiply them."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values.to(x.dtype)


@dataclass(frozen=True)
class Estimate:
    """The pair ``x = E[x | x_t]`` and ``z = E[z | x_t]``, tied by ``x_t = alpha x + sigma z``.

    Attributes:
        x: estimate of the clean field, (B, C, *space).
        z: estimate of the noise, same shape.
        process: the noising process.
        t: time labels, float64, (B,) or a scalar.
        noise: the law of z.
        variance: posterior variance of each cell of x, same shape, where the denoiser knows it.
        kind: "mean" of what x and z may be, or "end", one end point of the path through x_t.
    """

    x: Tensor
    z: Tensor
    process: Process
    t: Tensor
    noise: Noise = field(default_factory=White)
    variance: Tensor | None = None
    kind: str = "mean"

    @property
    def velocity(self) -> Tensor:
        """``E[d x_t / d t | x_t] = alpha' x + sigma' z``: towards noise, whatever the law of z."""
        return (
            along(self.process.alpha_dot(self.t), self.x) * self.x
            + along(self.process.sigma_dot(self.t), self.z) * self.z
        )

    @property
    def score(self) -> Tensor:
        """``grad log p(x_t) = -C^{-1} z / sigma`` of Gaussian noise of covariance C (Vincent 2011).

        Raises:
            TypeError: the noise is not Gaussian, or x is an end point and no mean.
        """
        if self.kind != "mean":
            raise TypeError("an end point has no score: it is no mean over the fields that x_t may be from")
        return -self.noise.whitened(self.z) / along(self.process.sigma(self.t), self.z)

    def shift(self, gradient: Tensor) -> Self:
        """The estimate whose score is greater by a gradient, at the same x_t: white noise only.

        ``z -= sigma gradient`` and ``x += sigma^2 / alpha gradient``; where alpha is 0, and the gradient with it, x
        stays.

        Raises:
            TypeError: the noise is not white, or x is an end point and no mean.
        """
        if self.kind != "mean":
            raise TypeError(
                "an end point has no score that can be shifted: it is no mean over the fields x_t may be from"
            )
        if not isinstance(self.noise, White):
            raise TypeError(f"{type(self.noise).__name__} noise has no score that can be shifted; expected white noise")
        sigma = along(self.process.sigma(self.t), self.x)
        ratio = along(self.process.ratio(self.t), self.x)
        return replace(
            self,
            x=self.x + (sigma * ratio).nan_to_num(posinf=0.0) * gradient,
            z=self.z - sigma * gradient,
            variance=None,
        )

    def with_x(self, x: Tensor) -> Self:
        """The estimate with another x, and the z that ties it to the same x_t: ``z += alpha / sigma (old x - x)``.

        Where sigma is 0 nothing ties z to x, and z stays; so it does where alpha is 0.
        """
        pull = along((1 / self.process.ratio(self.t)).nan_to_num(posinf=0.0), self.x)
        return replace(self, x=x, z=self.z + pull * (self.x - x), variance=None)
