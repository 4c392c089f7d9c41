"""The scale of Student's noise, integrated over: Gaussian given the scale, with a weight for each."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from undrift.process.noise import stirling_rest

__all__ = ["Scales"]

LogDensity = Callable[[slice, Tensor], Tensor]
_NODES = 256
_ZOOMS = 40
_RANGE = 120.0  # of log precision on either side of 0, where the search begins
_LOST = 42.0  # nats below the greatest integrand: 1e-18 of it
_CHUNK = 64  # rows at a time


class Scales:
    """Nodes and log-weights over the scale ``w^{-1/2}``, ``w ~ Gamma(D/2, rate D/2)``, given each row's x_t.

    The integrand over ``log w`` is smooth and dies away at both ends, so the trapezoidal rule on the part that matters
    converges faster than any power (Trefethen & Weideman 2014, doi:10.1137/130932132).

    Iterating gives (rows, scale (B, nodes), log-weight (B, nodes)), or (all rows, None, None) of noise without a scale.

    Args:
        count: rows.
        dof: D, None where the noise has no scale.
        log_density: of given rows at scales (B, n) -> (B, n).
        device: of the rows.
    """

    def __init__(self, count: int, dof: float | None, log_density: LogDensity, device: torch.device) -> None:
        self.count, self.dof, self.log_density, self.device = count, dof, log_density, device

    def __iter__(self) -> Iterator[tuple[slice, Tensor | None, Tensor | None]]:
        if self.dof is None:
            yield slice(0, self.count), None, None
            return
        for start in range(0, self.count, _CHUNK):
            rows = slice(start, min(start + _CHUNK, self.count))
            low = torch.full((rows.stop - rows.start, 1), -_RANGE, dtype=torch.float64, device=self.device)
            high, steps = -low, torch.linspace(0, 1, _NODES, dtype=torch.float64, device=self.device)
            for _ in range(_ZOOMS):
                log_w = low + (high - low) * steps
                there = self._integrand(rows, log_w)
                matters = there > there.max(1, keepdim=True).values - _LOST
                first = (matters.int().argmax(1, keepdim=True) - 1).clamp(min=0)
                last = (_NODES - matters.flip(1).int().argmax(1, keepdim=True)).clamp(max=_NODES - 1)
                low, high, before = log_w.gather(1, first), log_w.gather(1, last), high - low
                if ((high - low) > 0.8 * before).all():
                    break
            log_w = low + (high - low) * steps
            yield rows, torch.exp(-log_w / 2), self._log_prior(log_w) + ((high - low) / (_NODES - 1)).log()

    def _log_prior(self, log_w: Tensor) -> Tensor:
        """Log-density of log w, ``h^h / Gamma(h) exp(h (log w - w))`` with h = D / 2."""
        assert self.dof is not None
        half = self.dof / 2
        near = log_w**2 * (-1 / 2 - log_w / 6 * (1 + log_w / 4 * (1 + log_w / 5 * (1 + log_w / 6))))
        fall = torch.where(log_w.abs() < 1e-2, near, log_w - torch.expm1(log_w))  # log w - w + 1
        return 0.5 * math.log(half / (2 * math.pi)) - stirling_rest(half) + half * fall

    def _integrand(self, rows: slice, log_w: Tensor) -> Tensor:
        return self._log_prior(log_w) + self.log_density(rows, torch.exp(-log_w / 2))
