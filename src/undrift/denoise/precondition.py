"""Denoisers around a network: what a network of unit-variance input and output has to be wrapped in.

With ``y = x_t / alpha`` and ``r = sigma / alpha`` (so that ``y = x + r z``), a Gaussian guess ``x ~ N(0, C)`` has the exact denoiser
``C (C + r^2)^{-1} y`` and the posterior variance ``C r^2 (C + r^2)^{-1}``. The network learns what the guess leaves over,

    x_hat = C (C + r^2)^{-1} y + c_out(r) F(c_in(r) y, c_noise(r), condition),
    c_out^2 = mean eigenvalue of C r^2 (C + r^2)^{-1},     c_in^2 = 1 / (r^2 + mean eigenvalue of C).

With ``C = sigma_data^2`` this is EDM's preconditioning (Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364):
``c_skip = sigma_data^2 / (r^2 + sigma_data^2)`` and ``c_out = r sigma_data / sqrt(r^2 + sigma_data^2)``. Known modes of C, the
empirical orthogonal functions of the field, make the untrained denoiser that of a Gaussian field with these modes.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from undrift.denoise.denoiser import Estimate
from undrift.nets.precision import evaluate
from undrift.process import Process
from undrift.tasks.batch import Condition

__all__ = ["GaussianGuess", "Preconditioned"]


class GaussianGuess(nn.Module):
    """A Gaussian with covariance ``C = U diag(variances) U' + floor (1 - U U')``.

    Args:
        modes: orthonormal rows U', (k, D), D = C * cells; None or k = 0 for white.
        variances: their variances, (k,).
        floor: variance of all other directions.
    """

    modes: Tensor
    variances: Tensor
    floor: Tensor

    def __init__(self, modes: Tensor | None = None, variances: Tensor | None = None, floor: float = 1.0) -> None:
        super().__init__()
        device = torch.device("cpu") if modes is None else modes.device
        if modes is None or variances is None:
            modes, variances = torch.zeros(0, 1, device=device), torch.zeros(0, device=device)
        self.register_buffer("modes", modes.to(torch.float32))
        self.register_buffer("variances", variances.to(torch.float64))
        self.register_buffer("floor", torch.tensor(floor, dtype=torch.float64, device=device))

    def total(self, size: int) -> Tensor:
        """Mean eigenvalue of C over ``size`` dimensions."""
        return self.floor + (self.variances - self.floor).sum() / size

    def posterior_variance(self, ratio: Tensor, size: int) -> Tensor:
        """Mean eigenvalue of ``C r^2 (C + r^2)^{-1}``, for ratios (B,) -> (B,)."""
        square = ratio[:, None] ** 2
        tail = self.floor * square / (self.floor + square)
        head = self.variances * square / (self.variances + square)
        return tail[:, 0] + (head - tail).sum(1) / size

    def denoise(self, y: Tensor, ratio: Tensor) -> Tensor:
        """``C (C + r^2)^{-1} y`` for y (B, C, *space) and ratios (B,)."""
        square = ratio[:, None] ** 2
        tail = self.floor / (self.floor + square)
        flat = rearrange(y, "b ... -> b (...)")
        out = tail.to(y.dtype) * flat
        if len(self.variances):
            gain = (self.variances / (self.variances + square) - tail).to(y.dtype)
            out = out + (gain * (flat @ self.modes.T)) @ self.modes
        return out.reshape(y.shape)


class Preconditioned:
    """The denoiser of a network that predicts EDM's F.

    Args:
        net: ``net(x (B, in, *space), label (B,), vector (B, K) | None) -> (B, C, *space)``.
        process: the noising process.
        guess: the Gaussian guess; white with unit variance if None.
        precision: dtype of the network's arithmetic; all else is float32 and coefficients float64.
    """

    def __init__(
        self, net: nn.Module, process: Process, guess: GaussianGuess, precision: torch.dtype = torch.float32
    ) -> None:
        self.net = net
        self.process = process
        self.guess = guess
        self.precision = precision

    def residual(self, y: Tensor, ratio: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """The guess's estimate, ``c_out`` (B, 1, ..) and the network's F, all for ``y = x + ratio z``."""
        size = y[0].numel()
        shape = (-1,) + (1,) * (y.ndim - 1)
        c_in = (ratio**2 + self.guess.total(size)).rsqrt().to(y.dtype).reshape(shape)
        c_out = self.guess.posterior_variance(ratio, size).sqrt().to(y.dtype).reshape(shape)
        inputs = [c_in * y]
        fields = condition.stacked()
        if fields is not None:
            inputs.append(fields)
        label = torch.atan(ratio).to(y.dtype)
        f = evaluate(self.net, self.precision, torch.cat(inputs, 1), label, condition.vector())
        return self.guess.denoise(y, ratio), c_out, f

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`."""
        shape = (-1,) + (1,) * (x_t.ndim - 1)
        ratio = self.process.ratio(t)
        y = x_t / self.process.alpha(t).to(x_t.dtype).reshape(shape)
        linear, c_out, f = self.residual(y, ratio, condition)
        x = linear + c_out * f
        return Estimate(x, (y - x) / ratio.to(x_t.dtype).reshape(shape))
