"""Processes of one's own: from (alpha, sigma), or from drift and diffusion, as plain functions of t.

Both are checked when they are made, and are used wherever a built-in one is.
"""

import torch
from torch import Tensor

from undrift.errors import check_number, described
from undrift.process.check import check_process
from undrift.process.panels import Function, Integral
from undrift.process.process import Process

__all__ = ["FromSDE", "FromSchedule"]


class FromSchedule(Process):
    """``alpha`` and ``sigma`` as functions; derivatives by automatic differentiation, the inverse by bisection.

    Args:
        alpha: function of float64 tensors of any shape, made of torch operations, or a number, a constant.
        sigma: likewise.
        t_min: smallest time.
        t_max: largest time.

    Raises:
        ValueError: a value that is negative or not finite, a derivative that is infinite at an end, as that of sqrt(t)
            at 0, or a ratio alpha / sigma that does not fall everywhere.
        TypeError: neither a function of tensors nor a number.
    """

    def __init__(
        self, alpha: Function | float, sigma: Function | float, t_min: float = 0.0, t_max: float = 1.0
    ) -> None:
        _check_times(t_min, t_max)
        self.t_min, self.t_max = float(t_min), float(t_max)
        self._alpha, self._sigma = _function("alpha", alpha, True), _function("sigma", sigma, True)
        check_process(self)

    def alpha(self, t: Tensor) -> Tensor:
        """The function that was given."""
        return _value(self._alpha, t)

    def sigma(self, t: Tensor) -> Tensor:
        """The function that was given."""
        return _value(self._sigma, t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Its derivative."""
        return _slope(self._alpha, t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Its derivative."""
        return _slope(self._sigma, t)


class FromSDE(Process):
    """The process of the forward SDE ``dx = f(t) x dt + g(t) dw`` that begins at t = 0 with the data.

        alpha = exp(A),  A = integral of f,    sigma^2 = alpha^2 integral of g^2 / alpha^2

    (Song et al. 2021, https://arxiv.org/abs/2011.13456, appendix B; Sarkka & Solin 2019, "Applied stochastic
    differential equations"), integrated to about 1e-13.

    Args:
        drift: f, a smooth function of float64 tensors of any shape on [0, t_max], or a number, a constant.
        diffusion: g, likewise, above 0 but at single times.
        t_min: smallest time, above 0, where sigma is 0.
        t_max: largest time.

    Raises:
        ValueError: a function that is not finite or not smooth, or without noise.
        TypeError: neither a function of tensors nor a number.
    """

    def __init__(
        self, drift: Function | float, diffusion: Function | float, t_min: float = 1e-5, t_max: float = 1.0
    ) -> None:
        _check_times(t_min, t_max)
        if t_min == 0:
            raise ValueError("t_min is 0, where sigma is 0 and its derivative infinite; expected a small number")
        self.t_min, self.t_max = float(t_min), float(t_max)
        drift, diffusion = _function("drift", drift, False), _function("diffusion", diffusion, False)
        self._drift, self._diffusion = drift, diffusion
        self._log_alpha = Integral(drift, self.t_min, self.t_max, "drift")

        def rate(t: Tensor) -> Tensor:
            return _value(diffusion, t) ** 2 * torch.exp(-2 * self._log_alpha(t))

        self._ratio_squared = Integral(rate, self.t_min, self.t_max, "diffusion")
        check_process(self)

    def alpha(self, t: Tensor) -> Tensor:
        """``exp(A)``."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """``alpha sqrt(integral of g^2 / alpha^2)``."""
        return self.alpha(t) * self.ratio(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """``f alpha``."""
        return _value(self._drift, t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """``f sigma + g^2 / (2 sigma)``."""
        sigma = self.sigma(t)
        return _value(self._drift, t) * sigma + _value(self._diffusion, t) ** 2 / (2 * sigma)

    def log_snr(self, t: Tensor) -> Tensor:
        """``-log(integral of g^2 / alpha^2)``."""
        return -self._ratio_squared(t).log()

    def ratio(self, t: Tensor) -> Tensor:
        """``sqrt(integral of g^2 / alpha^2)``."""
        return self._ratio_squared(t).sqrt()


def _check_times(t_min: float, t_max: float) -> None:
    check_number(t_min=t_min, t_max=t_max)
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"t_min, t_max are {t_min}, {t_max}, expected 0 <= t_min < t_max <= 1")


def _function(name: str, f: Function | float, differentiated: bool) -> Function:
    """A function of times, or the constant one of a number, that has been tried."""
    if not callable(f):
        try:
            check_number(**{name: f})
        except ValueError:
            raise TypeError(
                f"{name} is {described(f)}, expected a function of t, such as lambda t: 1 - t, or a number"
            ) from None
        constant = float(f)
        return lambda t: torch.full_like(t, constant)
    t = torch.linspace(0.25, 0.75, 7, dtype=torch.float64, device="cpu", requires_grad=differentiated)
    try:
        _value(f, t)
    except Exception as error:  # whatever a function of somebody's own may raise
        raise TypeError(
            f"{name} fails on a tensor of times, expected a function made of torch operations, such as torch.cos(t), "
            f"with a value for each time ({' '.join(str(error).split())})"
        ) from error
    return f


def _value(f: Function, t: Tensor) -> Tensor:
    return torch.as_tensor(f(t), dtype=torch.float64, device=t.device).broadcast_to(t.shape)


def _slope(f: Function, t: Tensor) -> Tensor:
    """D f / d t of each element."""
    with torch.enable_grad():
        x = t.detach().requires_grad_()
        value = _value(f, x)
        if not value.requires_grad:  # a constant
            return torch.zeros_like(t)
        return torch.autograd.grad(value.sum(), x)[0]
