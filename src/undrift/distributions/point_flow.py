"""Densities of points that a perceptron learns: by flow matching, or as a diffusion.

Both learn the same thing, a field of velocities that carries white noise to the law of the points, and both have its
density by the change of variables (:mod:`undrift.infer.density`). A diffusion is learned at noise levels around those
where the law is undecided (Karras et al. 2022, https://arxiv.org/abs/2206.00364); a flow on straight lines from noise
to points (Lipman et al. 2023, https://arxiv.org/abs/2210.02747), which may be matched to cross less (Tong et al. 2023,
https://arxiv.org/abs/2302.00482).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.distributions.points import condition_of, in_parts, validation_of
from undrift.infer import log_prob, sample
from undrift.nets import MLP
from undrift.objective import EDMWeight, FlowMatching, LogNormal, ScoreMatching
from undrift.process import EDM, Process, RectifiedFlow
from undrift.solve.grid import EvenTime
from undrift.tasks.batch import Condition
from undrift.train.settings import Progress, Settings, Trained
from undrift.train.tensors import fit

__all__ = ["PointFlow", "fit_point_flow"]

Array = NDArray[np.float64]
_BATCH = 1024
_EMBEDDING, _HIGHEST = 12, 6.0  # a network that is smooth in time has its density in few steps
_NFE = 64  # of a draw
_LEAST = 1e-4  # noise where the density of straight lines begins
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
    """

    kind: str
    net: MLP
    tolerance: float = 1e-3

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        return self.net.sizes["size"]

    @property
    def denoiser(self) -> Preconditioned:
        """The denoiser of the network."""
        return _denoiser(self.kind, self.net)

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, D)."""
        denoiser = self.denoiser
        process = denoiser.process
        sigma = float(process.sigma(torch.tensor(process.t_max, dtype=torch.float64)))
        parts = []
        for x, told in in_parts(z, given):
            parts.append(sample(denoiser, sigma * x, _told(told), nfe=_NFE).x.numpy())
        return np.concatenate(parts).astype(np.float64) if parts else np.empty((0, self.numbers))

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each."""
        values, errors = [], []
        denoiser = self.denoiser
        t = torch.tensor(denoiser.process.t_max, dtype=torch.float64)
        sigma = float(denoiser.process.sigma(t))

        def base(x: Tensor, t: Tensor) -> Tensor:  # of what is drawn, which is the law that this is the density of
            return denoiser.noise.log_prob(x / sigma) - self.numbers * math.log(sigma)

        for x, told in in_parts(y, given):
            found = log_prob(
                denoiser, x, _told(told), tolerance=self.tolerance, grid=EvenTime(), base=base, least=_LEAST
            )
            values.append(found.log_prob.numpy())
            errors.append(found.error.numpy())
        return np.concatenate(values), np.concatenate(errors)

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D), by central differences."""
        out = np.empty_like(y)
        for i, away in enumerate(_STEP * np.eye(self.numbers)):
            told = None if given is None else np.concatenate([given, given])
            above, below = np.split(self.log_prob(np.concatenate([y + away, y - away]), told)[0], 2)
            out[:, i] = (above - below) / (2 * _STEP)
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        facts = {"flow": np.array(int(self.kind == "flow-matching"))}
        facts |= {f"shape_{name}": np.array(value) for name, value in self.net.sizes.items()}
        return facts | {f"net.{name}": value.numpy() for name, value in self.net.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        net = MLP(**{name.removeprefix("shape_"): v.item() for name, v in arrays.items() if name.startswith("shape_")})
        state = {n.removeprefix("net."): torch.from_numpy(v) for n, v in arrays.items() if n.startswith("net.")}
        net.load_state_dict(state)
        return cls("flow-matching" if int(arrays["flow"]) else "diffusion", net.eval())


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
        progress: see :func:`undrift.train.loop.train`.
    """
    torch.manual_seed(settings.seed)
    features = 0 if given is None else given.shape[1]
    net = MLP(y.shape[1], width=width, layers=layers, vector_features=features, embedding=_EMBEDDING, highest=_HIGHEST)
    denoiser = _denoiser(kind, net)
    objective = FlowMatching() if kind == "flow-matching" else ScoreMatching(EDMWeight(1.0), LogNormal(*_LEVELS))
    x, odds = torch.from_numpy(y).float(), torch.from_numpy(weights)
    condition = condition_of(given)
    keep = torch.from_numpy(~left_out)
    validation = validation_of(x, condition, odds * ~keep, settings.seed)
    found = fit(
        net, objective, x[keep], condition.index(keep), odds=odds[keep], model=denoiser, settings=settings,
        batch=_BATCH, validation=validation, progress=progress,
    )  # fmt: skip
    return PointFlow(kind, net), found


def _process(kind: str) -> Process:
    return RectifiedFlow() if kind == "flow-matching" else EDM(sigma_min=_SIGMAS[0], sigma_max=_SIGMAS[1])


def _denoiser(kind: str, net: MLP) -> Preconditioned:
    return Preconditioned(net, _process(kind), GaussianGuess())


def _told(given: Tensor | None) -> Condition:
    return Condition() if given is None else Condition(vectors={"given": given})
