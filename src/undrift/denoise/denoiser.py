"""The denoiser: what is known of the clean field and of the noise, given the noisy field."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from undrift.process import Process
from undrift.tasks.batch import Condition

__all__ = ["Denoiser", "Estimate"]


@dataclass(frozen=True)
class Estimate:
    """The pair of posterior means ``x = E[x | x_t]`` and ``z = E[z | x_t]``, tied by ``x_t = alpha x + sigma z``.

    Attributes:
        x: estimate of the clean field, (B, C, *space).
        z: estimate of the noise, same shape.
    """

    x: Tensor
    z: Tensor


class Denoiser(Protocol):
    """Anything that turns a noisy field into an :class:`Estimate`; guidance and tiling wrap one in another."""

    process: Process

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Estimate:
        """Estimate the clean field and the noise.

        Args:
            x_t: noisy field, (B, C, *space).
            t: time labels, float64, (B,).
            condition: what is given.
        """
        ...
