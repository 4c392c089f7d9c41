"""Matching on paths ``x_t = alpha x + sigma z``: of the denoiser, of the score without its noise, of the velocity.

The minimiser over all functions of the denoising loss is ``E[x | x_t]``, so the score is ``-E[z | x_t] / sigma``,
whatever the positive weight and the law of t (Vincent 2011, doi:10.1162/NECO_a_00142). Losses are means over the known
cells of a sample, sums over samples are left to the loop.
"""

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, check_whole
from undrift.objective.times import LogNormal, Times, Uniform
from undrift.objective.weights import EDMWeight, Weight, positive
from undrift.process import Bridge, Coupling, Independent
from undrift.tasks.batch import Batch

__all__ = ["FlowMatching", "ImplicitScoreMatching", "ScoreMatching", "mean_of_known"]

Loss = tuple[Tensor, dict[str, Tensor]]


def mean_of_known(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over all dims but the first, (B,)."""
    return (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)


class _OnPaths:
    """What the objectives share: the ends of a path for each sample."""

    times: Times
    coupling: Coupling | None = None
    takes_pairs: bool = False

    def _ends(self, batch: Batch, model: Denoiser, generator: torch.Generator) -> Estimate:
        """The clean fields, the other ends of their paths, and times.

        Raises:
            ValueError: the coupling's law of z is not that in which the denoiser believes, or z is chosen by x though
                something is given, see :class:`undrift.process.Coupling`; or the batch comes with a z that is not for
                this objective.
        """
        check_denoiser(model, "model")
        if batch.z is not None:
            self._check_pairs()
            return Estimate(
                batch.x, batch.z, model.process, self.times(len(batch), model.process, generator), model.noise
            )
        coupling = Independent(model.noise) if self.coupling is None else self.coupling
        condition = {**batch.condition.fields, **batch.condition.vectors}
        given = list(condition.values())
        if given and coupling.knows_x and not coupling.heeds_given:
            raise ValueError(
                f"the coupling is {type(coupling).__name__}, whose z knows x, and {next(iter(condition))!r} is given: "
                "its z would depend on what is given, and that of a draw does not; use FlowMatching(), another "
                "coupling that does not know x, or ConditionalOT"
            )
        if not coupling.noise.is_law_of(model.noise):
            one, other = type(coupling.noise).__name__, type(model.noise).__name__
            raise ValueError(
                f"the noise of the coupling is {one}, and that of the denoiser {'another ' * (one == other)}{other}; "
                "give the denoiser noise=coupling.noise"
            )
        t = self.times(len(batch), model.process, generator)
        told = torch.cat([values.flatten(1) for values in given], 1) if given else None
        return Estimate(batch.x, coupling(batch.x, generator, told), model.process, t, model.noise)

    def _check_pairs(self) -> None:
        if not self.takes_pairs or self.coupling is not None:
            reason = "has a coupling of its own" if self.takes_pairs else "needs z that does not know x"
            raise ValueError(f"the batch has its z, and {type(self).__name__} {reason}; use FlowMatching()")


class ScoreMatching(_OnPaths):
    """Denoising score matching, ``w(t) mean (x_hat - x)^2``.

    Args:
        weight: of the noise levels; EDM's if None.
        times: law of t, log-normal if None.
        coupling: of x and z, independent with the denoiser's law of noise if None.
    """

    def __init__(
        self, weight: Weight | None = None, times: Times | None = None, coupling: Coupling | None = None
    ) -> None:
        weight, times = EDMWeight() if weight is None else weight, LogNormal() if times is None else times
        check_kind(Weight, "EDMWeight()", weight=weight)
        check_kind(Times, "LogNormal()", times=times)
        if coupling is not None:
            check_kind(Coupling, "MinibatchOT()", coupling=coupling)
        if coupling is not None and not coupling.independent:
            raise ValueError(
                f"the coupling is {type(coupling).__name__}, whose z is no independent noise: score matching then "
                "has another minimiser; use FlowMatching"
            )
        self.weight, self.times, self.coupling = weight, times, coupling

    def __call__(self, batch: Batch, model: Denoiser, key: int) -> Loss:
        """Loss of each sample (B,), and its mean without the weight as ``squared_error``."""
        ends = self._ends(batch, model, torch.Generator(batch.x.device).manual_seed(key))
        x, t, process = ends.x, ends.t, ends.process
        x_t = along(process.alpha(t), x) * x + along(process.sigma(t), x) * ends.z
        error = mean_of_known((model(x_t, t, batch.condition).x - x) ** 2, batch.weight)
        weight = positive(self.weight(process, t), t).to(x.dtype)
        return weight * error, {"squared_error": error.detach().mean()}


class ImplicitScoreMatching(_OnPaths):
    """Score matching that needs no noise drawn to compare with: ``v(t) mean (s^2 + 2 ds/dx)``.

    Hyvarinen (2005), https://jmlr.org/papers/v6/hyvarinen05a.html, twice his J, at the noisy field x_t.
    With the exact trace by one derivative for each cell, or sliced by random directions u of independent signs,
    ``u . grad(u . s)``, whose mean is the trace (Song et al. 2019, https://arxiv.org/abs/1905.07088, that of reduced
    variance). ``v = w sigma^4 / alpha^2``: up to a constant it is :class:`ScoreMatching` of the same weight.

    Args:
        weight: of the noise levels, as of ScoreMatching; EDM's if None.
        times: law of t, log-normal if None.
        slices: directions; None is the exact trace.
    """

    def __init__(self, weight: Weight | None = None, times: Times | None = None, slices: int | None = None) -> None:
        if slices is not None:
            check_whole(1, slices=slices)
        self.weight, self.times = EDMWeight() if weight is None else weight, LogNormal() if times is None else times
        check_kind(Weight, "EDMWeight()", weight=self.weight)
        check_kind(Times, "LogNormal()", times=self.times)
        self.slices = slices

    def __call__(self, batch: Batch, model: Denoiser, key: int) -> Loss:
        """Loss of each sample (B,), which may be below 0, and the mean trace over cells as ``trace``."""
        generator = torch.Generator(batch.x.device).manual_seed(key)
        ends = self._ends(batch, model, generator)
        x, t, process = ends.x, ends.t, ends.process
        alpha, sigma = process.alpha(t), process.sigma(t)
        x_t = (along(alpha, x) * x + along(sigma, x) * ends.z).detach().requires_grad_()
        with torch.enable_grad():
            score = model(x_t, t, batch.condition).score
            trace = self._trace(score * batch.weight, x_t, generator)
        known = batch.weight.flatten(1).sum(1).clamp(min=1)
        weight = positive(self.weight(process, t) * sigma**4 / alpha**2, t).to(x.dtype)
        loss = weight * (mean_of_known(score**2, batch.weight) + 2 * trace / known)
        return loss, {"trace": (trace / known).detach().mean()}

    def _trace(self, score: Tensor, x_t: Tensor, generator: torch.Generator) -> Tensor:
        """``sum_i d s_i / d x_i``, (B,), that a loss can be differentiated through."""
        shape, total = x_t.shape, x_t.new_zeros(len(x_t))
        cells = x_t[0].numel()
        for i in range(self.slices or cells):
            if self.slices is None:
                u = torch.zeros(shape, dtype=x_t.dtype, device=x_t.device)
                u.flatten(1)[:, i] = 1
            else:
                u = torch.randint(2, shape, generator=generator, device=x_t.device).to(x_t.dtype) * 2 - 1
            (row,) = torch.autograd.grad((score * u).sum(), x_t, create_graph=True)
            total = total + (row * u).flatten(1).sum(1)
        return total / (self.slices or 1)


class FlowMatching(_OnPaths):
    """``mean (velocity_hat - (alpha' x + sigma' z + gamma' w))^2`` on paths between the two ends of a coupling.

    Lipman et al. (2023), https://arxiv.org/abs/2210.02747, eq. 14; Albergo et al. (2023),
    https://arxiv.org/abs/2303.08797, with the bridge; time runs towards noise here, so theirs is minus this velocity.
    The minimiser is the velocity of the flow that carries one law into the other, whatever the coupling; with something
    given, of a coupling whose z does not know x, or heeds what is given. A batch may bring its z with it.

    Args:
        coupling: of x and z, independent with the denoiser's law of noise if None.
        bridge: noise between the ends, none if None.
        times: law of t, uniform if None.
    """

    takes_pairs = True

    def __init__(
        self, coupling: Coupling | None = None, bridge: Bridge | None = None, times: Times | None = None
    ) -> None:
        self.coupling, self.bridge, self.times = coupling, bridge, Uniform() if times is None else times
        check_kind(Times, "Uniform()", times=self.times)
        if coupling is not None:
            check_kind(Coupling, "MinibatchOT()", coupling=coupling)
        if bridge is not None:
            check_kind(Bridge, "Bridge(0.1)", bridge=bridge)

    def __call__(self, batch: Batch, model: Denoiser, key: int) -> Loss:
        """Loss of each sample (B,)."""
        generator = torch.Generator(batch.x.device).manual_seed(key)
        ends = self._ends(batch, model, generator)
        x, t, process = ends.x, ends.t, ends.process
        x_t = along(process.alpha(t), x) * x + along(process.sigma(t), x) * ends.z
        velocity = ends.velocity
        if self.bridge is not None:
            w = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x_t = x_t + along(self.bridge.gamma(t), x) * w
            velocity = velocity + along(self.bridge.gamma_dot(t), x) * w
        return mean_of_known((model(x_t, t, batch.condition).velocity - velocity) ** 2, batch.weight), {}
