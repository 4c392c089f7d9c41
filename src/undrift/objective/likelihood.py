"""Bounds of the negative log-likelihood, term by term.

For noise levels ``t_0 < ... < t_n`` the generative chain ``p(x_n) prod p(x_{i-1} | x_i) p(x | x_0)`` gives
(Sohl-Dickstein et al. 2015, https://arxiv.org/abs/1503.03585; Ho et al. 2020,
https://arxiv.org/abs/2006.11239, eq. 5)

    -log p(x) <= KL(q(x_n | x) || N(0, sigma_n^2)) + sum_i KL(q(x_{i-1} | x_i, x) || p(x_{i-1} | x_i))
                 - E log p(x | x_0).

All terms are in nats and sums over the known cells of a sample; bits per dimension are ``nats / (cells log 2)``.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, described
from undrift.objective.matching import Loss
from undrift.objective.times import Uniform
from undrift.objective.weights import Likelihood
from undrift.process import Process, White
from undrift.tasks.batch import Batch

__all__ = ["ContinuousVLB", "DiscreteVLB", "Terms", "bits_per_dimension"]


@dataclass(frozen=True)
class Terms:
    """The bound of each sample, in nats, each (B,).

    Attributes:
        prior: ``KL(q(x_T | x) || p(x_T))``.
        diffusion: the sum, or integral, over the noise levels between.
        reconstruction: ``-log p(x | x_0)``.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """The bound of ``-log p(x)``."""
        return self.prior + self.diffusion + self.reconstruction


def bits_per_dimension(nats: Tensor, weight: Tensor) -> Tensor:
    """``nats / (known cells log 2)``, (B,)."""
    return nats / (weight.flatten(1).sum(1).clamp(min=1) * math.log(2))


def _sum(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).double().flatten(1).sum(1)


def _prior(x: Tensor, weight: Tensor, process: Process, t: float) -> Tensor:
    """``KL(N(alpha x, sigma^2) || N(0, sigma^2)) = alpha^2 x^2 / (2 sigma^2)`` at the greatest noise."""
    end = torch.tensor(t, dtype=torch.float64, device=x.device)
    return _sum(x**2 * along(process.log_snr(end).exp() / 2, x), weight)


class _Bound:
    """What both bounds share: the denoiser has white noise."""

    def _noisy(self, x: Tensor, t: Tensor, process: Process, generator: torch.Generator) -> Tensor:
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return along(process.alpha(t), x) * x + along(process.sigma(t), x) * z

    def _generator(self, batch: Batch, model: Denoiser, key: int, ends: tuple[float, float]) -> torch.Generator:
        check_denoiser(model, "model")
        if not isinstance(model.noise, White):
            raise TypeError(f"the noise is {type(model.noise).__name__}, expected white noise: the bound is that of it")
        process, (start, stop) = model.process, ends
        if not process.t_min <= start <= stop <= process.t_max:
            raise ValueError(
                f"noise levels are at t from {start:g} to {stop:g}, expected a part of "
                f"[{process.t_min:g}, {process.t_max:g}]"
            )
        if bool(process.clean(torch.tensor(start, dtype=torch.float64))):
            raise ValueError(f"sigma is 0 at t = {start:g}, where the bound is infinite; begin later, such as at 1e-3")
        return torch.Generator(batch.x.device).manual_seed(key)


class DiscreteVLB(_Bound):
    """The bound on the noise levels of a chain.

    The steps' laws are ``p(x_s | x_t) = q(x_s | x_t, x_hat)`` with the posterior's variance, or, where the denoiser
    knows its own variance, that of ``E q`` cell by cell (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672,
    section 3.1). The last law is ``p(x | x_0) = N(x_hat, sigma_0^2)``, as DDPM's last step is. As an objective it draws
    one step for each sample, times their number: the mean is the bound.

    Args:
        times: noise levels, increasing, (n + 1,): such as ``process.nodes``; all above sigma = 0.
    """

    def __init__(self, times: Tensor) -> None:
        if not isinstance(times, Tensor):
            raise TypeError(f"times is {described(times)}, expected a tensor (n + 1,), such as process.nodes")
        if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
            raise ValueError("times are not increasing, expected at least two noise levels in order")
        self.times = times.to(torch.float64)

    def __call__(self, batch: Batch, model: Denoiser, key: int) -> Loss:
        """``steps * KL`` of one step of each sample and the two ends, nats over known cells, (B,)."""
        generator = self._generator(batch, model, key, (float(self.times[0]), float(self.times[-1])))
        steps, times = len(self.times) - 1, self.times.to(batch.x.device)
        shift = torch.rand((), generator=generator, dtype=torch.float64, device=batch.x.device)
        order = torch.randperm(len(batch), generator=generator, device=batch.x.device)
        i = ((order + shift) / len(batch) * steps).long().clamp(max=steps - 1)
        diffusion = steps * self._step(batch, model, times[i], times[i + 1], generator)
        terms = Terms(
            _prior(batch.x, batch.weight, model.process, float(times[-1])),
            diffusion,
            self._reconstruction(batch, model, float(times[0]), generator),
        )
        bits = bits_per_dimension(terms.total.detach(), batch.weight)
        cells = batch.weight.flatten(1).sum(1).clamp(min=1)
        return terms.total / cells, {"bits_per_dimension": bits.mean()}

    @torch.no_grad()
    def terms(self, batch: Batch, model: Denoiser, key: int) -> tuple[Terms, Tensor]:
        """All terms, and the KL of each step, (B, n), the least noise first."""
        generator = self._generator(batch, model, key, (float(self.times[0]), float(self.times[-1])))
        times = self.times.to(batch.x.device)
        each = [
            self._step(batch, model, s.expand(len(batch)), t.expand(len(batch)), generator)
            for s, t in itertools.pairwise(times)
        ]
        steps = torch.stack(each, 1)
        prior = _prior(batch.x, batch.weight, model.process, float(times[-1]))
        return Terms(prior, steps.sum(1), self._reconstruction(batch, model, float(times[0]), generator)), steps

    def _reconstruction(self, batch: Batch, model: Denoiser, t: float, generator: torch.Generator) -> Tensor:
        """``-log N(x; x_hat, sigma^2)`` at the least noise, (B,)."""
        at = torch.full((len(batch),), t, dtype=torch.float64, device=batch.x.device)
        found = model(self._noisy(batch.x, at, model.process, generator), at, batch.condition)
        variance = along(model.process.sigma(at) ** 2, batch.x)
        return _sum(((batch.x - found.x) ** 2 / variance + (2 * math.pi * variance).log()) / 2, batch.weight)

    def _step(self, batch: Batch, model: Denoiser, s: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """``KL(q(x_s | x_t, x) || p(x_s | x_t))``, (B,)."""
        found: Estimate = model(self._noisy(batch.x, t, model.process, generator), t, batch.condition)
        law = model.process.posterior(s, t)
        error = along(law.from_clean, batch.x) ** 2 * (batch.x - found.x) ** 2
        variance = along(law.variance, batch.x)
        ours = variance if found.variance is None else variance + along(law.from_clean, batch.x) ** 2 * found.variance
        ratio = variance / ours
        return _sum((ratio - 1 - ratio.log() + error / ours) / 2, batch.weight)


class ContinuousVLB(_Bound):
    """The bound in the limit of many levels, ``-1/2 integral SNR'(t) E || x - x_hat ||^2 dt`` between the two ends.

    Kingma et al. (2021), https://arxiv.org/abs/2107.00630, eq. 11 and 15. It depends on the process through its ends
    only, and so does its minimiser.

    Args:
        times: law of t, uniform: of the times where it is drawn the integral is taken, those of the process if None.
    """

    def __init__(self, times: Uniform | None = None) -> None:
        self.times = Uniform() if times is None else times
        check_kind(Uniform, "Uniform()", times=self.times)

    def __call__(self, batch: Batch, model: Denoiser, key: int) -> Loss:
        """The bound per known cell with one time for each sample, nats, (B,)."""
        terms = self._terms(batch, model, self._generator(batch, model, key, self.times.ends(model.process)))
        bits = bits_per_dimension(terms.total.detach(), batch.weight)
        cells = batch.weight.flatten(1).sum(1).clamp(min=1)
        return terms.total / cells, {"bits_per_dimension": bits.mean()}

    @torch.no_grad()
    def terms(self, batch: Batch, model: Denoiser, key: int) -> Terms:
        """The three terms with one time for each sample."""
        return self._terms(batch, model, self._generator(batch, model, key, self.times.ends(model.process)))

    def _reconstruction(self, batch: Batch, model: Denoiser, t: float, generator: torch.Generator) -> Tensor:
        """``-log N(x; x_t / alpha, r^2)`` at the least noise (Kingma et al., eq. 8, of values that are continuous)."""
        at = torch.full((len(batch),), t, dtype=torch.float64, device=batch.x.device)
        x_t = self._noisy(batch.x, at, model.process, generator)
        ratio = model.process.ratio(at)
        error = (x_t / along(model.process.alpha(at), x_t) - batch.x) / along(ratio, x_t)
        return _sum(error**2 / 2 + along(ratio.log() + math.log(2 * math.pi) / 2, x_t), batch.weight)

    def _terms(self, batch: Batch, model: Denoiser, generator: torch.Generator) -> Terms:
        process = model.process
        start, stop = self.times.ends(process)
        t = self.times(len(batch), process, generator)
        found = model(self._noisy(batch.x, t, process, generator), t, batch.condition)
        weight = (stop - start) * Likelihood()(process, t)
        diffusion = weight * _sum((found.x - batch.x) ** 2, batch.weight)
        return Terms(
            _prior(batch.x, batch.weight, process, stop),
            diffusion,
            self._reconstruction(batch, model, start, generator),
        )
