"""Denoising score matching of a network by folds, in the units of its output.

The minimiser over all functions of ``E || x_hat(x_t, t) - x ||^2`` is ``E[x | x_t]``, whatever the positive weight
and the law of t (Vincent 2011,
doi:10.1162/NECO_a_00142). The weight ``1 / c_out^2`` makes the loss that of a regression of unit variance at each
noise level (Karras et al. 2022, eq. 8, https://arxiv.org/abs/2206.00364).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from undrift.denoise.guess import FoldedGuess, GaussianGuess, SpectralGuess
from undrift.denoise.precondition import Preconditioned, coefficients
from undrift.nets.members import member_of
from undrift.nets.precision import evaluate
from undrift.objective.matching import mean_of_known
from undrift.objective.times import LogNormal
from undrift.process import Process
from undrift.tasks.batch import Batch, Condition

__all__ = ["DenoisingScoreMatching", "Regression"]

LOG_RATIO_EDGES = (-4.0, -2.5, -1.5, -0.5, 0.5, 1.5, 3.0)


class DenoisingScoreMatching:
    """Mean over known cells of ``(F - (x - linear) / c_out)^2``, in which waves may count as the guess says.

    Args:
        process: the noising process.
        guess: the Gaussian guesses of the preconditioning, one for each fold.
        times: law of t.
        precision: dtype of the network's arithmetic.
    """

    def __init__(
        self,
        process: Process,
        guess: FoldedGuess,
        times: Callable[[int, Process, torch.Generator], Tensor] | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.process = process
        self.guess = guess
        self.times = times or LogNormal()
        self.precision = precision

    def __call__(self, batch: Batch, net: nn.Module, key: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each sample (B,) and ``loss_by_noise`` over bins of log(sigma / alpha), NaN where empty."""
        x = batch.x
        generator = torch.Generator(x.device).manual_seed(key)
        ratio = self.process.ratio(self.times(len(batch), self.process, generator))
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        y = batch.condition.blanked(x + ratio.to(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1)) * z)
        groups = self.guess.groups(batch.fold, batch.condition)
        c_in, c_out, linear, gains = self._guessed(y, ratio, groups)
        f = Preconditioned.network(member_of(net, batch.member), c_in * y, ratio, batch.condition, self.precision)
        wanted = (x - linear) / c_out
        squares = torch.empty_like(x)
        for (guess, rows), gain in zip(groups, gains):
            error = batch.weight[rows].sqrt() * (guess.added(f[rows], gain) - wanted[rows])
            squares[rows] = guess.weighed(error, gain) ** 2
        loss = squares.flatten(1).sum(1) / batch.weight.flatten(1).sum(1).clamp(min=1)
        edges = torch.tensor(LOG_RATIO_EDGES, dtype=ratio.dtype, device=x.device)
        bins = torch.bucketize(ratio.log(), edges)
        count = torch.zeros(len(edges) + 1, dtype=loss.dtype, device=x.device)
        total = count.index_add(0, bins, loss.detach())
        return loss, {"loss_by_noise": total / count.index_add(0, bins, torch.ones_like(loss.detach()))}

    def alignment(self, batch: Batch, net: nn.Module, ratio: float, key: int) -> tuple[float, float]:
        """Sums of ``A (x - linear) / c_out`` and ``A^2`` over known cells, of a batch in noise of one ratio.

        A is what the network adds to the guess, in units of c_out.
        """
        x, ratios = batch.x, torch.full((len(batch),), ratio, dtype=torch.float64, device=batch.x.device)
        generator = torch.Generator(x.device).manual_seed(key)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        y = batch.condition.blanked(x + ratio * z)
        groups = self.guess.groups(batch.fold, batch.condition)
        c_in, c_out, linear, gains = self._guessed(y, ratios, groups)
        f = Preconditioned.network(member_of(net, batch.member), c_in * y, ratios, batch.condition, self.precision)
        wanted, added = (x - linear) / c_out, torch.empty_like(x)
        for (guess, rows), gain in zip(groups, gains):
            added[rows] = guess.added(f[rows], gain)
        return float((batch.weight * added * wanted).sum()), float((batch.weight * added**2).sum())

    def _guessed(
        self, y: Tensor, ratio: Tensor, groups: list[tuple[GaussianGuess | SpectralGuess, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """``c_in``, ``c_out`` (B, 1, ..) and the estimate (B, C, *space) of the guess without the row's fold; gains."""
        parts = [torch.empty_like(y[:, :1].flatten(1)[:, :1]) for _ in range(2)]
        linear, gains = torch.empty_like(y), []
        shape = (-1,) + (1,) * (y.ndim - 1)
        for guess, rows in groups:
            for part, value in zip(parts, coefficients(guess, ratio[rows], y[0].numel())):
                part[rows] = value.to(y.dtype)[:, None]
            tail, gain = guess.gains(ratio[rows], y.dtype)
            linear[rows] = guess.shrink(y[rows], tail, gain)
            gains.append(gain)
        return parts[0].reshape(shape), parts[1].reshape(shape), linear, gains


class Regression:
    """Mean squared error of the network as a plain predictor: the rival that a generative model has to beat.

    Args:
        precision: dtype of the network's arithmetic.
    """

    def __init__(self, precision: torch.dtype = torch.float32) -> None:
        self.precision = precision

    def __call__(self, batch: Batch, net: nn.Module, key: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each sample (B,); ``key`` is not used, nothing is drawn."""
        guess = self.predict(torch.zeros_like(batch.x), batch.condition, member_of(net, batch.member))
        return mean_of_known((guess - batch.x) ** 2, batch.weight), {}

    def predict(self, blank: Tensor, condition: Condition, net: nn.Module) -> Tensor:
        """The network at zero input (B, C, *space) and zero noise label."""
        fields = condition.stacked()
        inputs = blank if fields is None else torch.cat([blank, fields], 1)
        return evaluate(net, self.precision, inputs, blank.new_zeros(len(blank)), condition.vector())
