"""The denoiser: from a noisy field to an estimate of the clean field and of the noise."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate
from undrift.denoise.targets import Target, target
from undrift.process import Noise, Process, White
from undrift.tasks.batch import Condition

__all__ = ["Denoiser", "FromCallable"]

Pullback = Callable[[Tensor], Tensor]


class Denoiser(ABC):
    """Anything that turns a noisy field into an :class:`Estimate`; guidance and tiling wrap one in another.

    Attributes:
        process: the noising process.
        noise: the law of z.
    """

    process: Process
    noise: Noise = White()

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """Estimate the clean field and the noise.

        Args:
            x_t: noisy field, (B, C, *space).
            t: time labels, float64, (B,).
            condition: what is given.
        """

    def pullback(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Estimate, Pullback]:
        """The estimate, and what carries a gradient by its x back to one by x_t.

        Arguments as of a call. The second is ``g -> J^T g`` with ``J = d x / d x_t``, for g of the shape of x, and may
        be used many times.
        """
        with torch.enable_grad():
            start = x_t.detach().requires_grad_()
            found = self(start, t, condition)

        def back(gradient: Tensor) -> Tensor:
            (out,) = torch.autograd.grad(found.x, start, gradient, retain_graph=True)
            return out

        variance = None if found.variance is None else found.variance.detach()
        return replace(found, x=found.x.detach(), z=found.z.detach(), variance=variance), back

    @staticmethod
    def from_callable(
        fn: Callable[..., Tensor],
        *,
        predicts: str | Target = "eps",
        process: Process,
        label: Callable[[Tensor], Tensor] | None = None,
        noise: Noise | None = None,
    ) -> "FromCallable":
        """Anyone's network as a denoiser, see :class:`FromCallable`."""
        return FromCallable(fn, predicts=predicts, process=process, label=label, noise=noise)


class FromCallable(Denoiser):
    """The denoiser of a network, or of any function.

    Args:
        fn: ``fn(x_t (B, C, ...), label (B,)) -> (B, parts C, ...)``, parts of the target, 1 for all but
            :class:`undrift.denoise.targets.LearnedRange`; a condition its third argument where one is given.
        predicts: what it returns: "eps", "x", "v", "velocity", "score", "F", or a
            :class:`undrift.denoise.targets.Target`.
        process: the noising process that it was trained with.
        label: what it is told of the time, from t (B,): ``process.sigma`` for networks of EDM, ``process.step_index``
            of :class:`undrift.process.DiscreteBetas` for those of DDPM; t itself if None.
        noise: the law of its noise, white if None.

    Raises:
        ValueError: an unknown target, or one that does not determine x at t_max.
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        *,
        predicts: str | Target,
        process: Process,
        label: Callable[[Tensor], Tensor] | None = None,
        noise: Noise | None = None,
    ) -> None:
        self.fn, self.process, self.noise = fn, process, noise or White()
        self.target = target(predicts, process)
        self.label = label or (lambda t: t)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`Denoiser`.

        Raises:
            ValueError: the function's output has not the shape of its input.
        """
        given = (condition,) if condition is not None and (condition.fields or condition.vectors) else ()
        label = self.label(t).to(torch.promote_types(x_t.dtype, torch.float32))
        prediction = self.fn(x_t, label, *given).to(x_t.dtype)
        expected = (len(x_t), self.target.parts * x_t.shape[1], *x_t.shape[2:])
        if prediction.shape != expected:
            raise ValueError(f"the network made {tuple(prediction.shape)} of {tuple(x_t.shape)}, expected {expected}")
        return self.target.solve(prediction, x_t, self.process, t, self.noise)
