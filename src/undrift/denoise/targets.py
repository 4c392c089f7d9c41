"""What a network may predict, and how x and z follow from it.

Every target is a combination of the two unknowns, so with the tie between them all are rows of one linear system,

    [ alpha  sigma ] [x]   [ x_t     ]
    [ p_x    p_z   ] [z] = [ scale F ],     x = (p_z x_t - sigma scale F) / det,   z = (alpha scale F - p_x x_t) / det,

with ``det = alpha p_z - sigma p_x``. Where it is 0 the prediction says nothing of one of the two: of x at alpha = 0 for
a network that predicts the noise, of z at sigma = 0 for one that predicts the data.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, check_number
from undrift.process import Noise, Process

__all__ = ["Eps", "F", "LearnedRange", "Mean", "Score", "Target", "V", "Velocity", "X", "named", "target"]

_CHECKED = 1025  # times at which a target is checked, the middle among them


class Target(ABC):
    """What a network predicts, ``F = (p_x x + p_z z) / scale``.

    Attributes:
        parts: how many times the channels of a field a prediction has.
    """

    parts: int = 1

    @abstractmethod
    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(p_x, p_z, scale)`` at times t, float64, finite at both ends."""

    def of(self, x: Tensor, z: Tensor, process: Process, t: Tensor) -> Tensor:
        """What is predicted of known x and z, (B, ...)."""
        p_x, p_z, scale = (along(v, x) for v in self.row(process, t))
        return (p_x * x + p_z * z) / scale

    def solve(self, prediction: Tensor, x_t: Tensor, process: Process, t: Tensor, noise: Noise) -> Estimate:
        """X and z from a prediction, (B, ...), at the noisy field x_t."""
        p_x, p_z, scale = self.row(process, t)
        alpha, sigma = process.alpha(t), process.sigma(t)
        det = alpha * p_z - sigma * p_x
        x = along(p_z / det, x_t) * x_t - along(sigma * scale / det, x_t) * prediction
        z = along(alpha * scale / det, x_t) * prediction - along(p_x / det, x_t) * x_t
        return Estimate(x, z, process, t, noise)


class Eps(Target):
    """The noise z (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 11)."""

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        return torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t)


class X(Target):
    """The clean field x."""

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        return torch.ones_like(t), torch.zeros_like(t), torch.ones_like(t)


class V(Target):
    """``alpha z - sigma x`` (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512, appendix D)."""

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        return -process.sigma(t), process.alpha(t), torch.ones_like(t)


class Velocity(Target):
    """``d x_t / d t = alpha' x + sigma' z``, towards noise: flow matching with time reversed."""

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        return process.alpha_dot(t), process.sigma_dot(t), torch.ones_like(t)


class Score(Target):
    """``-z / sigma``, the score of white noise (Song & Ermon 2019, https://arxiv.org/abs/1907.05600)."""

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        return torch.zeros_like(t), -torch.ones_like(t), process.sigma(t)


class F(Target):
    """EDM's F, of unit variance: ``x = c_skip x_t / alpha + c_out F``.

    Karras et al. (2022), https://arxiv.org/abs/2206.00364, eq. 7 and table 1, for ``x_t / alpha`` and
    ``sigma / alpha``: ``F = (sigma x - alpha sigma_data^2 z) / (sigma_data sqrt(sigma^2 + alpha^2 sigma_data^2))``.

    Args:
        sigma_data: standard deviation of the data.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        check_number(sigma_data=sigma_data)
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is {sigma_data}, expected a number above 0")
        self.sigma_data = float(sigma_data)

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        norm = torch.hypot(sigma, alpha * self.sigma_data)
        return sigma / (self.sigma_data * norm), -alpha * self.sigma_data / norm, torch.ones_like(t)


class Mean(Target):
    """The mean of ``q(x_s | x_t, x)`` (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 7 and 8).

    Args:
        previous: the time s before t, t_min at least; at t = t_min the mean is x itself, as at DDPM's last step.
    """

    def __init__(self, previous: Callable[[Tensor], Tensor]) -> None:
        self.previous = previous

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Target`."""
        law = process.posterior(self.previous(t).clamp(min=process.t_min), t)
        last = t <= process.t_min
        p_x = torch.where(last, 1.0, law.from_noisy * process.alpha(t) + law.from_clean)
        return p_x, torch.where(last, 0.0, law.from_noisy * process.sigma(t)), torch.ones_like(t)


class LearnedRange(Target):
    """A target, and after its channels as many that say the variance of DDPM's step.

    Nichol & Dhariwal (2021), https://arxiv.org/abs/2102.09672, eq. 15, with their v in [-1, 1] as in their code:
    ``log S = (1 + v) / 2 log b + (1 - v) / 2 log b'``, b the variance of ``q(x_t | x_s)`` and b' that of
    ``q(x_s | x_t, x)``. Since ``S = b' + from_clean^2 var(x | x_t)``, it is the estimate's ``variance`` that is found:
    :class:`undrift.solve.ancestral.Ancestral` with ``variance="learned"`` makes it S again on these steps, and what is
    right for others on others; :class:`undrift.objective.DiscreteVLB` trains it. Where b' is 0 it is b.

    Args:
        predicts: the target of the first half.
        previous: the time s before t, t_min at least, as of :class:`Mean`.
    """

    parts = 2

    def __init__(self, predicts: str | Target, previous: Callable[[Tensor], Tensor]) -> None:
        self.target, self.previous = named(predicts), previous

    def row(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """That of the first half, see :class:`Target`."""
        return self.target.row(process, t)

    def solve(self, prediction: Tensor, x_t: Tensor, process: Process, t: Tensor, noise: Noise) -> Estimate:
        """See :class:`Target`; the prediction is (B, 2 C, ...)."""
        first, v = prediction.chunk(2, 1)
        found = self.target.solve(first, x_t, process, t, noise)
        s = self.previous(t).clamp(min=process.t_min)
        last = t <= process.t_min
        law = process.posterior(torch.where(last, t, s), t)
        most = torch.where(last, process.sigma(t) ** 2, process.transition(s, t).variance)
        least = torch.where(law.variance > 0, law.variance, most)
        step = (along((most / least).log() / 2, v) * (1 + v)).exp() * along(least, v)
        clean = torch.where(last, 1.0, law.from_clean)
        return replace(found, variance=(step - along(law.variance, v)) / along(clean**2, v))


_NAMED = {"eps": Eps(), "x": X(), "v": V(), "velocity": Velocity(), "score": Score(), "F": F()}


def named(predicts: str | Target) -> Target:
    """A target by its name: "eps", "x", "v", "velocity", "score", "F" (with EDM's sigma_data of 0.5), or itself.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a target.
    """
    if isinstance(predicts, str) and predicts not in _NAMED:
        raise ValueError(f"predicts is {predicts!r}, expected one of {', '.join(_NAMED)}, or a Target")
    found = _NAMED[predicts] if isinstance(predicts, str) else predicts
    check_kind(Target, "predicts='eps'", predicts=found)
    return found


def target(predicts: str | Target, process: Process) -> Target:
    """A target by its name, see :func:`named`, checked against the process.

    Args:
        predicts: the name, or a target.
        process: the noising process.

    Raises:
        ValueError: an unknown name, or a prediction that says nothing of x where the process has no signal, or nothing
            but x_t at a time between its ends.
    """
    found = named(predicts)
    end = torch.tensor(process.t_max, dtype=torch.float64, device="cpu")
    p_x, p_z, _ = found.row(process, end)
    if abs(float(process.alpha(end) * p_z - process.sigma(end) * p_x)) < 1e-12 * float(process.sigma(end)):
        name = repr(predicts) if isinstance(predicts, str) else type(predicts).__name__
        raise ValueError(
            f"a network that predicts {name} says nothing of x at t = {process.t_max:g}, where alpha is 0; "
            "use a target such as 'v', or a process that ends before, such as Cosine(t_max=0.995)"
        )
    _check_between(found, process)
    return found


def _check_between(found: Target, process: Process) -> None:
    """The determinant keeps its sign between the ends of the process."""
    t = torch.linspace(process.t_min, process.t_max, _CHECKED, dtype=torch.float64, device="cpu")[1:-1]
    p_x, p_z, _ = found.row(process, t)
    det = process.alpha(t) * p_z - process.sigma(t) * p_x
    lost = (det * torch.sign(det[-1]) <= 0).nonzero()
    if len(lost):
        raise ValueError(
            f"a network that predicts {type(found).__name__} says no more than x_t near t = {float(t[lost[-1]]):.3g}, "
            "where p_x / p_z is alpha / sigma; use a target such as 'v'"
        )
