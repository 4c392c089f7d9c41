"""Frames: in which scale and against which clock the probability-flow ODE is integrated.

Along the ODE ``dx_t / dt = alpha' x + sigma' z`` (x and z the posterior means) a rescaled field ``y = x_t / scale``
moves against a clock u(t) by

    dy / du = a(t) x + b(t) z,

another combination of the two. The flow is the same in every frame; how far it is from a straight line in u is not, and
so the error of a solver is not.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from undrift.process import Process

__all__ = ["Angle", "Frame", "Plain", "Ratio", "Straight"]


class Frame(ABC):
    """A scale and a clock. All methods take and return float64 tensors of one shape."""

    @abstractmethod
    def clock(self, process: Process, t: Tensor) -> Tensor:
        """u(t), increasing towards noise."""

    @abstractmethod
    def time(self, process: Process, clock: Tensor) -> Tensor:
        """t(u)."""

    @abstractmethod
    def scale(self, process: Process, t: Tensor) -> Tensor:
        """``x_t / y``."""

    @abstractmethod
    def velocity(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(a, b)`` of ``dy / du = a x + b z``."""


class Plain(Frame):
    """``y = x_t``, ``u = t``: the ODE as it is written."""

    def clock(self, process: Process, t: Tensor) -> Tensor:
        """T."""
        return t

    def time(self, process: Process, clock: Tensor) -> Tensor:
        """U."""
        return clock

    def scale(self, process: Process, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def velocity(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha', sigma')``."""
        return process.alpha_dot(t), process.sigma_dot(t)


class Ratio(Frame):
    """``y = x_t / alpha``, ``u = sigma / alpha``: ``dy / du = z``.

    The frame of DDIM (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 14) and of EDM (Karras et al. 2022,
    https://arxiv.org/abs/2206.00364, algorithm 1). Infinite where there is nothing but noise: a run from there begins
    with a step of DDIM.
    """

    def clock(self, process: Process, t: Tensor) -> Tensor:
        """``sigma / alpha``."""
        return torch.where(process.pure_noise(t), torch.inf, process.ratio(t))

    def time(self, process: Process, clock: Tensor) -> Tensor:
        """The inverse."""
        return process.t_of_ratio(clock)

    def scale(self, process: Process, t: Tensor) -> Tensor:
        """Alpha."""
        return process.alpha(t)

    def velocity(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(0, 1)``."""
        return torch.zeros_like(t), torch.ones_like(t)


class Straight(Frame):
    """``y = x_t / (alpha + sigma)``, ``u = sigma / (alpha + sigma)``: ``dy / du = z - x``.

    The path ``y = (1 - u) x + u z`` of rectified flow (Liu et al. 2022, https://arxiv.org/abs/2209.03003, with their
    time reversed) for any process, finite at both ends.
    """

    def clock(self, process: Process, t: Tensor) -> Tensor:
        """``sigma / (alpha + sigma)``."""
        sigma = process.sigma(t)
        return sigma / (process.alpha(t) + sigma)

    def time(self, process: Process, clock: Tensor) -> Tensor:
        """The inverse."""
        return process.t_of_ratio(clock / (1 - clock))

    def scale(self, process: Process, t: Tensor) -> Tensor:
        """``alpha + sigma``."""
        return process.alpha(t) + process.sigma(t)

    def velocity(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(-1, 1)``."""
        return torch.full_like(t, -1.0), torch.ones_like(t)


class Angle(Frame):
    """``y = x_t / sqrt(alpha^2 + sigma^2)``, ``u = atan2(sigma, alpha)``: ``dy / du = cos(u) z - sin(u) x``.

    The v of Salimans & Ho (2022), https://arxiv.org/abs/2202.00512, for any process, finite at both ends. For Gaussian
    data of unit variance y does not move at all.
    """

    def clock(self, process: Process, t: Tensor) -> Tensor:
        """``atan2(sigma, alpha)``."""
        return torch.atan2(process.sigma(t), process.alpha(t))

    def time(self, process: Process, clock: Tensor) -> Tensor:
        """The inverse."""
        return process.t_of_ratio(torch.tan(clock))

    def scale(self, process: Process, t: Tensor) -> Tensor:
        """``sqrt(alpha^2 + sigma^2)``."""
        return torch.hypot(process.alpha(t), process.sigma(t))

    def velocity(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(-sin(u), cos(u))``."""
        angle = self.clock(process, t)
        return -torch.sin(angle), torch.cos(angle)
