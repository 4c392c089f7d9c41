"""Neural spline flows, by zuko (Durkan et al. 2019, https://arxiv.org/abs/1906.04032)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from undrift.distributions.again import annealed
from undrift.distributions.points import condition_of, in_parts, validation_of
from undrift.errors import needs_extra
from undrift.tasks.batch import Batch
from undrift.train.settings import Progress, Settings, Trained
from undrift.train.tensors import fit

__all__ = ["SplineFlow", "fit_spline_flow"]

Array = NDArray[np.float64]
_BATCH = 1024
_NEAR = 0.1
_SHAPE = {"transforms": 4, "bins": 8, "hidden": 128}


@dataclass(frozen=True)
class SplineFlow:
    """A density of points (n, D) of unit scale, and of what is given (n, K).

    Attributes:
        net: zuko's flow.
        shape: of it, see :func:`fit_spline_flow`.
    """

    net: nn.Module
    shape: Mapping[str, int]

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        return self.shape["size"]

    @torch.no_grad()
    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, D)."""
        parts = [self._law(told).transform.inv(x).double().numpy() for x, told in in_parts(z, given)]
        return np.concatenate(parts) if parts else np.empty((0, self.numbers))

    @torch.no_grad()
    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its error, that of float32."""
        parts = [self._law(told).log_prob(x).double().numpy() for x, told in in_parts(y, given)]
        found = np.concatenate(parts) if parts else np.empty(0)
        return found, np.abs(found) * float(np.finfo(np.float32).eps) * self.numbers

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        out = []
        for x, told in in_parts(y, given):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(self._law(told).log_prob(x).sum(), x)
            out.append(gradient.double().numpy())
        return np.concatenate(out) if out else np.empty((0, self.numbers))

    def _law(self, given: Tensor | None) -> Any:
        return self.net(given)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        shape = {f"shape_{name}": np.array(value) for name, value in self.shape.items()}
        return shape | {f"net.{name}": value.numpy() for name, value in self.net.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        shape = {name.removeprefix("shape_"): int(v) for name, v in arrays.items() if name.startswith("shape_")}
        net = _flow(**shape)
        state = {n.removeprefix("net."): torch.from_numpy(v) for n, v in arrays.items() if n.startswith("net.")}
        net.load_state_dict(state)
        return cls(net.eval(), shape)


def _flow(size: int, given: int, transforms: int, bins: int, hidden: int) -> nn.Module:
    with needs_extra("bayes", "a spline flow"):
        from zuko.flows import NSF
    net = NSF(size, given, transforms=transforms, bins=bins, hidden_features=(hidden, hidden))
    with torch.no_grad():
        for name, values in net.named_parameters():
            if ".phi." in name:  # splines of one number begin far from the identity, those that networks make near it
                values *= _NEAR
    return net


def fit_spline_flow(
    y: Array,
    weights: Array,
    given: Array | None,
    *,
    left_out: NDArray[np.bool_],
    settings: Settings,
    progress: Progress | None = None,
) -> tuple[SplineFlow, Trained]:
    """Maximise the likelihood of weighted points.

    Args:
        y: points of unit scale, (n, D).
        weights: of each, (n,).
        given: what is given with each, (n, K), or None.
        left_out: points that only tell when to stop, (n,).
        settings: how long.
        progress: see :func:`undrift.train.loop.train`.
    """
    shape = {"size": y.shape[1], "given": 0 if given is None else given.shape[1], **_SHAPE}

    def loss(batch: Batch, model: Any, key: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return -model(batch.condition.vector()).log_prob(batch.x), {}

    x, keep = torch.from_numpy(y).float(), torch.from_numpy(~left_out)
    odds, condition = torch.from_numpy(weights), condition_of(given)
    validation = validation_of(x, condition, odds * ~keep, settings.seed)

    def once(settings: Settings) -> tuple[nn.Module, Trained]:
        torch.manual_seed(settings.seed)
        net = _flow(**shape)
        return net, fit(
            net, loss, x[keep], condition.index(keep), odds=odds[keep], settings=settings, batch=_BATCH,
            validation=validation, progress=progress,
        )  # fmt: skip

    net, found = annealed(once, settings)
    return SplineFlow(net, shape), found
