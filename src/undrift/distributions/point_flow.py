"""Densities of points that a perceptron learns: by flow matching, or as a diffusion.

Both learn the same thing, a field of velocities that carries white noise to the law of the points, and both have its
density by the change of variables (:mod:`undrift.infer.density`). A diffusion is learned at noise levels around those
where the law is undecided (Karras et al. 2022, https://arxiv.org/abs/2206.00364); a flow on straight lines from noise
to points (Lipman et al. 2023, https://arxiv.org/abs/2210.02747), which may be matched to cross less (Tong et al. 2023,
https://arxiv.org/abs/2302.00482). A flow may begin at the rows of another table in place of noise: then it draws, and
carries rows to rows, and has a density only where that of the rows is known.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.distributions.again import annealed
from undrift.distributions.base import Base
from undrift.distributions.pairing import coupling_of, paired
from undrift.distributions.points import condition_of, in_parts, validation_of
from undrift.errors import UsageError
from undrift.infer import log_prob, sample
from undrift.nets import MLP
from undrift.objective import EDMWeight, FlowMatching, LogNormal, ScoreMatching
from undrift.process import EDM, Coupling, Process, RectifiedFlow
from undrift.solve.grid import EvenTime, TimeGrid
from undrift.solve.solver import Solver
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Batch, Condition
from undrift.train.settings import Progress, Settings, Trained
from undrift.train.tensors import fit

__all__ = ["TOLERANCE", "PointFlow", "fit_point_flow"]

Array = NDArray[np.float64]
TOLERANCE = 1e-3  # of a log-density, in nats
_BATCH = 1024
_WEIGHT = EDMWeight(1.0)
_EMBEDDING, _HIGHEST = 12, 6.0  # a network that is smooth in time has its density in few steps
_NFE = 64  # of a draw
_LEAST = 1e-4  # noise where the density of straight lines begins
_FIRST = 8  # steps of the coarsest run: of four, a row in thirty was off by twice the tolerance where a law has edges
_PAIRS, _MATCHING = 32_768, 0.2  # that are matched, and the share of a budget after which no more are
_STEP = 0.01  # of the differences that are a score
_SIGMAS = (0.002, 30.0)  # of a diffusion of points of unit scale
_LEVELS = (-2.0, 1.6)  # mean and deviation of the logarithm of the noise levels that a diffusion is learned at


@dataclass(frozen=True)
class PointFlow:
    """A density of points (n, D) of unit scale, and of what is given (n, K).

    Attributes:
        kind: "diffusion" or "flow-matching".
        net: of which it is made.
        tolerance: of a log-density, in nats.
        base: rows where a flow begins; white noise if None.
    """

    kind: str
    net: MLP
    tolerance: float = TOLERANCE
    base: Base | None = None

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        return self.net.sizes["size"] if self.base is None else self.base.numbers

    @property
    def denoiser(self) -> Preconditioned:
        """The denoiser of the network."""
        return _denoiser(self.kind, self.net, self.base)

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, numbers)."""
        if self.base is not None:
            return self._carried(self.base.drawn(z), given)
        process = _process(self.kind)
        return self._carried(float(process.sigma(torch.tensor(process.t_max, dtype=torch.float64))) * z, given)

    def transport(
        self,
        x: Array,
        given: Array | None = None,
        *,
        nfe: int = _NFE,
        solver: Solver | None = None,
        grid: TimeGrid | Adaptive | None = None,
    ) -> Array:
        """Where the flow carries points (n, D) of the law of its base, (n, D); see :func:`undrift.infer.sample`.

        Raises:
            UsageError: it begins at noise.
        """
        if self.base is None:
            raise UsageError(
                "the flow begins at noise, so that it carries no rows; fit with a base, the table of another law"
            )
        return self._carried(self.base.seen(x), given, nfe, solver, grid)

    def _carried(
        self,
        start: Array,
        given: Array | None,
        nfe: int = _NFE,
        solver: Solver | None = None,
        grid: TimeGrid | Adaptive | None = None,
    ) -> Array:
        denoiser, parts = self.denoiser, []
        for x, told in in_parts(start, given):
            parts.append(sample(denoiser, x, _told(told), nfe=nfe, solver=solver, grid=grid).x.numpy())
        return np.concatenate(parts).astype(np.float64) if parts else np.empty((0, start.shape[1]))

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each.

        Raises:
            UsageError: the flow begins at rows of a table.
        """
        if self.base is not None and self.base.law is None:
            raise UsageError(
                "the flow begins at the rows of a table, whose density is not known, so that it has none; fit with a "
                "density as base, or without a base, for a log-density"
            )
        values, errors = [], []
        denoiser = _denoiser(self.kind, self.net, None)  # the motion is the same wherever it began
        t = torch.tensor(denoiser.process.t_max, dtype=torch.float64)
        sigma = float(denoiser.process.sigma(t))

        def base(x: Tensor, t: Tensor) -> Tensor:  # of what is drawn, which is the law that this is the density of
            if self.base is None:
                start = denoiser.noise.log_prob(x / sigma)
            else:
                start = torch.from_numpy(self.base.log_prob(x.double().numpy() / sigma)[0])
            return start - x.shape[1] * math.log(sigma)

        for x, told in in_parts(y, given):
            found = log_prob(
                denoiser,
                x,
                _told(told),
                tolerance=self.tolerance,
                grid=EvenTime(),
                base=base,
                least=_LEAST,
                first=_FIRST,
            )
            values.append(found.log_prob.numpy())
            doubt = 0.0 if self.base is None else self.base.log_prob(found.end.numpy() / sigma)[1]
            errors.append(found.error.numpy() + doubt)
        return np.concatenate(values), np.concatenate(errors)

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D), by central differences."""
        out = np.empty_like(y)
        for i, away in enumerate(_STEP * np.eye(self.net.sizes["size"])):
            told = None if given is None else np.concatenate([given, given])
            above, below = np.split(self.log_prob(np.concatenate([y + away, y - away]), told)[0], 2)
            out[:, i] = (above - below) / (2 * _STEP)
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        facts = {"flow": np.array(int(self.kind == "flow-matching"))}
        facts |= {f"shape_{name}": np.array(value) for name, value in self.net.sizes.items()}
        facts |= {} if self.base is None else self.base.to_arrays()
        return facts | {f"net.{name}": value.numpy() for name, value in self.net.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        net = MLP(**{name.removeprefix("shape_"): v.item() for name, v in arrays.items() if name.startswith("shape_")})
        state = {n.removeprefix("net."): torch.from_numpy(v) for n, v in arrays.items() if n.startswith("net.")}
        net.load_state_dict(state)
        base = Base.from_arrays(arrays) if "base_rows" in arrays else None
        return cls("flow-matching" if int(arrays["flow"]) else "diffusion", net.eval(), base=base)


def fit_point_flow(
    kind: str,
    y: Array,
    weights: Array,
    given: Array | None,
    *,
    left_out: NDArray[np.bool_],
    settings: Settings,
    width: int = 256,
    layers: int = 4,
    sinusoids: int = 0,
    coupling: str = "independent",
    base: Base | None = None,
    progress: Progress | None = None,
) -> tuple[PointFlow, Trained]:
    """Learn the density of weighted points.

    Args:
        kind: "diffusion" or "flow-matching".
        y: points of unit scale, (n, D).
        weights: of each, (n,).
        given: what is given with each, (n, K), or None.
        left_out: points that only tell when to stop, (n,).
        settings: how long.
        width: of the perceptron.
        layers: of the perceptron.
        sinusoids: of each number of a point that the perceptron sees.
        coupling: of points with where the flow begins, one of :data:`undrift.distributions.pairing.COUPLINGS`. Those by
            transport match 32,768 pairs before the training, of rows that are drawn by their weights; none is begun
            after a fifth of a budget, of which half at least is left for the training.
        base: rows where the flow begins, noise if None.
        progress: see :func:`undrift.train.loop.train`.

    Raises:
        UsageError: a coupling that does not go with what is given.
    """
    features = 0 if given is None else given.shape[1]
    pairing = coupling_of(coupling, None if base is None else torch.from_numpy(base.rows), given)
    x, odds, condition = torch.from_numpy(y).float(), torch.from_numpy(weights), condition_of(given)
    keep = torch.from_numpy(~left_out)
    if pairing.knows_x:
        validation, seen, settings = _matched(pairing, x, odds, condition, keep, settings)
        objective, rest = FlowMatching(), {"z": seen.z}
    else:
        validation = validation_of(x, condition, odds * ~keep, settings.seed)
        objective = FlowMatching(pairing) if kind == "flow-matching" else ScoreMatching(_WEIGHT, LogNormal(*_LEVELS))
        seen, rest = Batch.of(x[keep], condition.index(keep)), {"odds": odds[keep]}

    def once(settings: Settings) -> tuple[MLP, Trained]:
        torch.manual_seed(settings.seed)
        net = MLP(
            y.shape[1], width=width, layers=layers, vector_features=features, embedding=_EMBEDDING, highest=_HIGHEST,
            sinusoids=sinusoids,
        )  # fmt: skip
        return net, fit(
            net, objective, seen.x, seen.condition, model=_denoiser(kind, net, base), settings=settings, batch=_BATCH,
            validation=validation, progress=progress, **rest,
        )  # fmt: skip

    net, found = annealed(once, settings)
    return PointFlow(kind, net, base=base), found


def _matched(
    coupling: Coupling, x: Tensor, odds: Tensor, condition: Condition, keep: Tensor, settings: Settings
) -> tuple[list[Batch] | None, Batch, Settings]:
    """Pairs of points that are left out, those of the others, and what is left of the time."""
    begun, number = time.monotonic(), _PAIRS if settings.steps is None else min(_PAIRS, settings.steps * _BATCH)
    given, parts = condition.vector(), []
    for which, pairs, seed in ((~keep, _BATCH, settings.seed + 1), (keep, number, settings.seed)):
        if not bool((odds[which] > 0).any()):
            parts.append(None)
            continue
        told = None if given is None else given[which]
        seconds = None if settings.budget is None else _MATCHING * settings.budget - (time.monotonic() - begun)
        rows, z = paired(coupling, x[which], odds[which], told, number=pairs, seed=seed, seconds=seconds)
        parts.append(Batch.of(x[which][rows], condition.index(which).index(rows), z=z))
    if settings.budget is not None:
        left = settings.budget - (time.monotonic() - begun)
        settings = replace(settings, budget=max(left, settings.budget / 2))  # one matching may take longer than all
    left_out, seen = parts
    return None if left_out is None else [left_out], seen, settings


def _process(kind: str) -> Process:
    return RectifiedFlow() if kind == "flow-matching" else EDM(sigma_min=_SIGMAS[0], sigma_max=_SIGMAS[1])


def _denoiser(kind: str, net: MLP, base: Base | None) -> Preconditioned:
    return Preconditioned(net, _process(kind), GaussianGuess(), noise=None if base is None else base.noise)


def _told(given: Tensor | None) -> Condition:
    return Condition() if given is None else Condition(vectors={"given": given})
