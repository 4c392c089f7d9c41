"""Joint laws of the two ends of a path, (x, z), and the noise that a bridge adds between them."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from undrift.errors import check_kind, check_number
from undrift.process.noise import Empirical, Noise, White

__all__ = ["Bridge", "ConditionalOT", "Coupling", "DataToData", "Independent", "MinibatchOT"]


class Coupling(ABC):
    """Pairs each clean field of a batch with an end of its path.

    What is learned by flow matching carries the law of z into that of x whatever the coupling, as long as nothing is
    given: with something given, c, it carries the law of z given c into that of x given c, and the sampler begins from
    that of z. So z may not depend on c, as it does where it is chosen by x (``knows_x``) and not by c too
    (``heeds_given``). What needs z to be noise that does not know x (denoising score matching, transitions, the
    likelihood bound) is the capability ``independent``.

    Attributes:
        independent: whether z is noise that does not know x.
        knows_x: whether z is chosen by x, as of any coupling that does not say that it is not.
        heeds_given: whether z that is chosen by x has the same law whatever is given.
        noise: the law of z by itself.
    """

    independent: bool
    knows_x: bool = True
    heeds_given: bool = False
    noise: Noise

    @abstractmethod
    def __call__(self, x: Tensor, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        """The other ends z of a batch x, both (B, ...), with which (B, K) is given."""


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

    def __call__(self, x: Tensor, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
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

    def __call__(self, x: Tensor, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
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

    def __call__(self, x: Tensor, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        """See :class:`Coupling`."""
        z = self.base(x, generator)
        return _taken(z, _nearest(x, z))


class ConditionalOT(Coupling):
    """The z of another coupling, matched to the x of the batch among those of like conditions.

    Each x_i comes with what is given, c_i, and each drawn z_i stands for the same c_i, of which it knows nothing; the
    z_j that x_i has in the end make ``sum_i |x_i - z_j|^2 + w |c_i - c_j|^2`` least. Where c is a class, w is infinite:
    only the z of rows of one class change places, and z is independent of c as without a coupling. Where c is a number,
    w is that of which a share of all pairs is worth a change,

        share = mean_ij [ |x_i - z_j|^2 + w |c_i - c_j|^2 <= |x_i - z_i|^2 ],

    so that the z of one c are from near it, and their law differs the less from that of all z the smaller the share
    and the larger the batch are. Cheng & Schwing (2025), "The curse of conditions", https://arxiv.org/abs/2503.10636
    (there w is sought by bisection; it is a quantile of ``(|x_i - z_i|^2 - |x_i - z_j|^2) / |c_i - c_j|^2``).

    Args:
        base: where the z are from, white noise if None; they may not know x.
        share: of the pairs that are worth a change, in (0, 1]; None: conditions are classes, and only equal ones match.
    """

    independent = False
    heeds_given = True

    def __init__(self, base: Coupling | None = None, share: float | None = None) -> None:
        self.base = Independent() if base is None else base
        check_kind(Coupling, "Independent(noise)", base=self.base)
        if self.base.knows_x:
            raise ValueError(f"base is {type(self.base).__name__}, whose z know x; expected such as Independent(noise)")
        if share is not None:
            check_number(share=share)
            if not 0 < share <= 1:
                raise ValueError(f"share is {share}, expected above 0 and at most 1, such as 0.05, or None for classes")
        self.share, self.noise = share, self.base.noise

    def __call__(self, x: Tensor, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        """See :class:`Coupling`.

        Raises:
            ValueError: nothing is given, or no two rows have the same class.
        """
        if given is None:
            raise ValueError("ConditionalOT matches by what is given, and nothing is; use MinibatchOT()")
        z, given = self.base(x, generator), given.flatten(1).double()
        columns = np.arange(len(x))
        if self.share is None:
            _, which = torch.unique(given, dim=0, return_inverse=True)
            if len(x) > 1 and int(which.max()) == len(x) - 1:
                raise ValueError(
                    f"ConditionalOT matches rows of one class, and what is given differs in all {len(x)} rows; "
                    "type ConditionalOT(share=0.05) for conditions that are numbers"
                )
            for one in which.unique():
                rows = (which == one).nonzero().flatten()
                found = _nearest(x[rows], z[rows])
                columns[rows.cpu().numpy()] = rows.cpu().numpy()[found]
        else:
            cost, apart = _squares(x, z), _squares(given, given)
            weight = condition_weight(cost, apart, self.share)
            columns = linear_sum_assignment(cost + weight * apart)[1]
        return _taken(z, columns)


def condition_weight(cost: NDArray[np.float64], apart: NDArray[np.float64], share: float) -> float:
    """The least w >= 0 with at most a share of pairs for which ``cost_ij + w apart_ij <= cost_ii``.

    Args:
        cost: (n, n), at least 0.
        apart: (n, n), at least 0, 0 on the diagonal.
        share: of all pairs. Pairs that are not apart have their say whatever w is: where they are more than the share,
            w is that beyond which no other pair has.
    """
    gain = np.diag(cost)[:, None] - cost
    others = apart > 0
    limit = np.sort(gain[others] / apart[others])[::-1]  # a pair is worth it up to this w
    left = int(share * cost.size) - int(((gain >= 0) & ~others).sum())
    if left >= len(limit):
        return 0.0
    return max(float(np.nextafter(limit[max(left, 0)], np.inf)), 0.0)


def _nearest(x: Tensor, z: Tensor) -> NDArray[np.intp]:
    """Which z each x has where the summed squared distance is least; on a line the one of its own rank."""
    if x[0].numel() > 1:
        return linear_sum_assignment(_squares(x, z))[1]
    columns = np.empty(len(x), np.intp)
    columns[x.flatten().argsort().cpu().numpy()] = z.flatten().argsort().cpu().numpy()
    return columns


def _taken(z: Tensor, columns: NDArray[np.intp]) -> Tensor:
    return z[torch.as_tensor(columns, device=z.device)]


def _squares(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Squared distances of all rows, (n, m)."""
    return (torch.cdist(a.flatten(1).double(), b.flatten(1).double()) ** 2).cpu().numpy()


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
