"""Joint laws of the two ends of a path, (x, z), and the noise that a bridge adds between them."""

import math
from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from undrift.errors import check_kind, check_number
from undrift.process.noise import Empirical, Noise, White

__all__ = ["Bridge", "Coupling", "DataToData", "Independent", "MinibatchOT"]


class Coupling(ABC):
    """Pairs each clean field of a batch with an end of its path.

    What is learned by flow matching carries the law of z into that of x whatever the coupling, as long as nothing is
    given: with something given, c, it carries the law of z given c into that of x given c, and the sampler begins from
    that of z. So z may not depend on c, as it does where it is chosen by x (``knows_x``). What needs z to be noise that
    does not know x (denoising score matching, transitions, the likelihood bound) is the capability ``independent``.

    Attributes:
        independent: whether z is noise that does not know x.
        knows_x: whether z is chosen by x, as of any coupling that does not say that it is not.
        noise: the law of z by itself.
    """

    independent: bool
    knows_x: bool = True
    noise: Noise

    @abstractmethod
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The other ends z of a batch x, both (B, ...)."""


class Independent(Coupling):
    """z is noise that does not know x.

    Args:
        noise: its law, white if None.
    """

    independent = True
    knows_x = False

    def __init__(self, noise: Noise | None = None) -> None:
        self.noise = White() if noise is None else noise
        check_kind(Noise, "White()", noise=self.noise)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Coupling`."""
        return self.noise.draw(x.shape, generator, x.dtype)


class DataToData(Coupling):
    """z is another field of a data set: a path leads from one law of data to another.

    Albergo & Vanden-Eijnden (2022), "Building normalizing flows with stochastic interpolants",
    https://arxiv.org/abs/2209.15571; Liu et al. (2022), https://arxiv.org/abs/2209.03003.

    The denoiser that is learned has the other data set for the law of its z, ``noise=coupling.noise``: what holds for
    white noise only is then refused.

    Args:
        other: fields, (n, ...), drawn with replacement.
    """

    independent = False
    knows_x = False

    def __init__(self, other: Tensor) -> None:
        self.noise = Empirical(other)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Coupling`."""
        return self.noise.draw(x.shape, generator, x.dtype).to(x.device)


class MinibatchOT(Coupling):
    """The z of another coupling, matched to the x of the batch so that the summed squared distance is least.

    Pooladian et al. (2023), "Multisample flow matching", https://arxiv.org/abs/2304.14772; Tong et al. (2023),
    "Improving and generalizing flow-based generative models with minibatch optimal transport",
    https://arxiv.org/abs/2302.00482. The marginal laws of x and z stay; paths cross less.
    What is learned has nothing given: the z that are matched to the x of one condition are not those of another.

    Args:
        base: where the z are from, white noise if None.
    """

    independent = False

    def __init__(self, base: Coupling | None = None) -> None:
        self.base = Independent() if base is None else base
        check_kind(Coupling, "Independent(noise)", base=self.base)
        self.noise = self.base.noise

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Coupling`."""
        z = self.base(x, generator)
        distance = torch.cdist(x.flatten(1).double(), z.flatten(1).double()) ** 2
        _, columns = linear_sum_assignment(distance.cpu().numpy())
        return z[torch.as_tensor(columns, device=z.device)]


class Bridge:
    """Noise between the ends, ``x_t = alpha x + sigma z + gamma(t) w`` with ``gamma = scale sin^2(pi t)``, w white.

    Albergo, Boffi & Vanden-Eijnden (2023), "Stochastic interpolants: a unifying framework for flows and diffusions",
    https://arxiv.org/abs/2303.08797, section 2 (this gamma is that of eq. 4.11; it and its slope are 0 at both ends).
    The velocity gains ``gamma' w``, and between the ends there is a score, ``-E[w | x_t] / gamma``, whatever z is.

    Args:
        scale: largest standard deviation of the noise.
    """

    def __init__(self, scale: float) -> None:
        check_number(scale=scale)
        if not scale > 0:
            raise ValueError(f"scale is {scale}, expected a number above 0")
        self.scale = float(scale)

    def gamma(self, t: Tensor) -> Tensor:
        """``scale sin^2(pi t)``."""
        return self.scale * torch.sin(math.pi * t) ** 2

    def gamma_dot(self, t: Tensor) -> Tensor:
        """``scale pi sin(2 pi t)``."""
        return self.scale * math.pi * torch.sin(2 * math.pi * t)
