"""Denoisers around a network: what a network of unit-variance input and output has to be wrapped in.

With ``y = x_t / alpha`` and ``r = sigma / alpha`` (so that ``y = x + r z``), a Gaussian guess ``x ~ N(0, C)`` has the
exact denoiser
``C (C + r^2)^{-1} y`` and the posterior variance ``C r^2 (C + r^2)^{-1}``. The network learns what the guess leaves
over,

    x_hat = C (C + r^2)^{-1} y + c_out(r) F(c_in(r) y, c_noise(r), condition),
    c_out^2 = mean eigenvalue of C r^2 (C + r^2)^{-1},     c_in^2 = 1 / (r^2 + mean eigenvalue of C).

With ``C = sigma_data^2`` this is EDM's preconditioning (Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364):
``c_skip = sigma_data^2 / (r^2 + sigma_data^2)`` and ``c_out = r sigma_data / sqrt(r^2 + sigma_data^2)``. Known modes
of C, the
empirical orthogonal functions of the field, make the untrained denoiser that of a Gaussian field with these modes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.guess import GaussianGuess, Guess, SpectralGuess, by_rows
from undrift.nets.precision import evaluate
from undrift.process import Noise, Process, White
from undrift.tasks.batch import Condition

__all__ = ["Preconditioned", "coefficients"]

_REMEMBERED = 256  # times
_LEAST_ALPHA = 1e-12  # in place of 0, where y is infinite: what follows has its limit


def coefficients(guess: GaussianGuess | SpectralGuess, ratio: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """``c_in`` and ``c_out`` for ratios (B,), float64."""
    return (ratio**2 + guess.total(size)).rsqrt(), guess.posterior_variance(ratio, size).sqrt()


class Preconditioned(Denoiser):
    """The denoiser of a network that predicts EDM's F.

    Args:
        net: ``net(x (B, in, *space), label (B,), vector (B, K) | None) -> (B, C, *space)``.
        process: the noising process.
        guess: the Gaussian guess; white with unit variance if None.
        precision: dtype of the network's arithmetic; all else is float32 and coefficients float64.
        noise: the law of z, white if None; of another one of mean 0 and mean square 1 the coefficients hold too.
    """

    def __init__(
        self,
        net: nn.Module,
        process: Process,
        guess: Guess,
        precision: torch.dtype = torch.float32,
        noise: Noise | None = None,
    ) -> None:
        self.noise = White() if noise is None else noise
        self.net = net
        self.process = process
        self.guess = guess
        self.precision = precision
        self._known: dict[tuple, _Numbers] = {}

    @staticmethod
    def network(net: nn.Module, scaled: Tensor, ratio: Tensor, condition: Condition, precision: torch.dtype) -> Tensor:
        """The network's F for ``c_in y`` (B, C, *space), with what is given as further channels."""
        fields = condition.stacked()
        inputs = scaled if fields is None else torch.cat([scaled, fields], 1)
        return evaluate(
            net, precision, inputs, torch.atan(ratio).to(scaled.dtype).expand(len(scaled)), condition.vector()
        )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`."""
        condition = condition or Condition()
        guesses, rows = zip(*self.guess.parts(condition, len(x_t)))
        parts = [self._numbers(guess, x_t, t) for guess in guesses]
        numbers = parts[0]
        y = x_t / numbers.alpha
        seen = condition.blanked(y)
        c_in = by_rows([n.c_in for n in parts], rows)
        f = self.network(self.net, c_in * seen, numbers.ratio, condition, self.precision)
        found = [guess.estimate(seen, f, n.tail, n.gain, n.c_out) for guess, n in zip(guesses, parts)]
        x = condition.blanked(by_rows(found, rows))
        return Estimate(x, (y - x) / numbers.divisor, self.process, t, self.noise)

    def linear_part(self, x_t: Tensor, t: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor] | None:
        """That of the guess, where it is one Gaussian with known modes."""
        guess = self.guess
        if type(guess) is not GaussianGuess:
            return None
        n = self._numbers(guess, x_t, t)
        diagonal = guess.diagonal(n.tail, n.gain, x_t.shape[1:])
        return lambda v: guess.shrink(v, n.tail, n.gain) / n.alpha, diagonal / n.alpha.double()

    def _numbers(self, guess: GaussianGuess | SpectralGuess, x_t: Tensor, t: Tensor) -> "_Numbers":
        """All that depends on the times alone; of one time for all rows it is remembered, for the next micro-batch."""
        if t.stride() != (0,):
            return self._found(guess, x_t, t)
        versions = (buffer._version for buffer in guess.buffers())
        key = (float(t[0]), x_t.shape[1:], x_t.dtype, x_t.device, id(guess), *versions)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            with torch.inference_mode(False):  # what is remembered may be needed by a gradient later
                self._known[key] = self._found(guess, x_t, t[:1].clone())
        return self._known[key]

    def _found(self, guess: GaussianGuess | SpectralGuess, x_t: Tensor, t: Tensor) -> "_Numbers":
        alpha = self.process.alpha(t).clamp(min=_LEAST_ALPHA)
        ratio = self.process.sigma(t) / alpha
        c_in, c_out = coefficients(guess, ratio, x_t[0].numel())
        shape = (-1,) + (1,) * (x_t.ndim - 1)
        alpha, divisor, c_in, c_out = (v.to(x_t.dtype).reshape(shape) for v in (alpha, ratio, c_in, c_out))
        tail, gain = guess.gains(ratio, x_t.dtype)
        return _Numbers(ratio, alpha, divisor, c_in, c_out, tail, gain)


@dataclass(frozen=True)
class _Numbers:
    """Of each row, or of all: ratio (B,), what multiplies fields, (B, 1, ...), and the guess's gains."""

    ratio: Tensor
    alpha: Tensor
    divisor: Tensor
    c_in: Tensor
    c_out: Tensor
    tail: Tensor
    gain: Tensor
