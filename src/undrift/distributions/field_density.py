"""The log-density of a diffusion's fields, of the cells that have values."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.distributions.diffusion import Diffusion
from undrift.infer.density import log_prob
from undrift.nets.members import member_of, number_of
from undrift.process import Key, normal
from undrift.tasks.batch import Condition

__all__ = ["KnownCells", "LogDensity", "field_log_prob", "gaussian_log_prob"]


class KnownCells(Denoiser):
    """A denoiser of the cells that have values, as rows of numbers (B, N).

    A cell that never has one is 0 in training, and the flow carries it from 0 to noise along a ray: it is ``sigma(t)``
    times one standard normal number all along, and no dimension of the density.

    Args:
        denoiser: of whole fields.
        cells: which have values, bool, (C, *space).
        noise: the numbers of the others, (C, *space).
    """

    def __init__(self, denoiser: Denoiser, cells: Tensor, noise: Tensor) -> None:
        self.denoiser, self.cells, self.absent = denoiser, cells, noise
        self.process = denoiser.process

    def _whole(self, x: Tensor, others: Tensor | float) -> Tensor:
        out = torch.zeros(len(x), *self.cells.shape, dtype=x.dtype, device=x.device) + others
        return out.masked_scatter(self.cells, x)

    def _noisy(self, x_t: Tensor, t: Tensor) -> Tensor:
        sigma = self.process.sigma(t).to(x_t.dtype).reshape(-1, *[1] * self.cells.ndim)
        return self._whole(x_t, sigma * self.absent.to(x_t.dtype))

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; x_t is (B, N)."""
        found = self.denoiser(self._noisy(x_t, t), t, condition)
        return replace(found, x=found.x[:, self.cells], z=found.z[:, self.cells])

    def linear_part(self, x_t: Tensor, t: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor] | None:
        """The block of these cells."""
        part = self.denoiser.linear_part(self._noisy(x_t, t), t)
        if part is None:
            return None
        multiplied, diagonal = part
        return lambda v: multiplied(self._whole(v, 0.0))[:, self.cells], diagonal[:, self.cells]


@dataclass(frozen=True)
class LogDensity:
    """Log-densities of fields in the numbers of the network, float64, (B,) each.

    Attributes:
        value: nats.
        discretisation, trace, base, truncation: the terms of its error, see :class:`undrift.infer.density.Density`.
        nfe: calls of the denoisers.
    """

    value: Tensor
    discretisation: Tensor
    trace: Tensor
    base: Tensor
    truncation: Tensor
    nfe: int

    @property
    def error(self) -> Tensor:
        """Estimate of the error, nats, (B,)."""
        return self.discretisation + self.trace + self.base + self.truncation


def field_log_prob(
    law: Diffusion,
    x: Tensor,
    condition: Condition,
    cells: Tensor,
    *,
    probes: int,
    tolerance: float,
    nfe: int,
    seed: int,
) -> LogDensity:
    """Log-density of fields (B, C, *space) at the cells (C, *space) that have values.

    Of several networks, by which realizations are drawn in turn, it is that of their mixture with equal weights. The
    network runs in float32, for its slopes are asked.
    """
    was_training = law.net.training
    law.net.eval()
    found = []
    for k in range(number_of(law.net)):
        denoiser: Denoiser = Preconditioned(member_of(law.net, k), law.process, law.guess)
        fields = x
        if not bool(cells.all()):
            noise = torch.from_numpy(normal(Key(seed, "absent", k), tuple(cells.shape))).to(x.device)
            denoiser, fields = KnownCells(denoiser, cells, noise), x[:, cells]
        found.append(log_prob(denoiser, fields, condition, probes=probes, tolerance=tolerance, nfe=nfe, seed=seed))
    law.net.train(was_training)
    values = torch.stack([one.log_prob for one in found])
    share = torch.softmax(values, 0)
    value = torch.logsumexp(values, 0) - torch.log(torch.tensor(float(len(found)), dtype=torch.float64))
    terms = ("discretisation", "trace", "base", "truncation")
    errors = {name: (share * torch.stack([getattr(one, name) for one in found])).sum(0) for name in terms}
    return LogDensity(value, **errors, nfe=sum(one.nfe for one in found))


def gaussian_log_prob(guess: GaussianGuess, x: Tensor, cells: Tensor) -> Tensor:
    """Log-density of fields (B, C, *space) at the cells (C, *space) under the guess alone, nats, float64, (B,).

    With W the modes (k, N) at these N cells, ``C = f + W' (V - f) W``; by the lemmas of Sylvester and Woodbury, with
    ``M = 1 + (V - f) W W' / f``,

        log det C = N log f + log det M,     y' C^{-1} y = (y' y - (W y)' M^{-1} (V - f) W y / f) / f.
    """
    y, floor = x[:, cells].double(), guess.floor
    squares, log_det = y.square().sum(1), y.shape[1] * floor.log()
    if len(guess.variances):
        modes, above = guess.modes.double()[:, cells.flatten()], guess.variances - floor
        inner = torch.eye(len(above), dtype=y.dtype, device=y.device) + above[:, None] * (modes @ modes.T) / floor
        along = y @ modes.T
        squares = squares - (along * torch.linalg.solve(inner, (above * along).T).T).sum(1) / floor
        log_det = log_det + torch.linalg.slogdet(inner).logabsdet
    return -0.5 * (squares / floor + log_det + y.shape[1] * math.log(2 * math.pi))
