"""The denoiser: from a noisy field to an estimate of the clean field and of the noise."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate
from undrift.denoise.targets import Target, target
from undrift.errors import check_kind, described
from undrift.process import Noise, Process, White
from undrift.process.check import check_ends
from undrift.tasks.batch import Condition

__all__ = ["Denoiser", "FromCallable"]


class Pullback(Protocol):
    """``g -> J^T g``; the last use frees what others would need, and its memory with it."""

    def __call__(self, gradient: Tensor, last: bool = False) -> Tensor:
        """Of the shape of the gradient."""
        ...


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
        be used many times, until it is told that a use is its last. Within another pullback, where x_t requires a
        gradient, both can be differentiated by it.
        """
        within = torch.is_grad_enabled() and x_t.requires_grad
        with torch.enable_grad():
            start = x_t if within else x_t.detach().requires_grad_()
            found = self(start, t, condition)

        def back(gradient: Tensor, last: bool = False) -> Tensor:
            kept, tracked = within or not last, within and torch.is_grad_enabled()
            (out,) = torch.autograd.grad(found.x, start, gradient, retain_graph=kept, create_graph=tracked)
            return out

        if within:
            return found, back
        variance = None if found.variance is None else found.variance.detach()
        return replace(found, x=found.x.detach(), z=found.z.detach(), variance=variance), back

    def linear_part(self, x_t: Tensor, t: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor] | None:
        """A symmetric matrix near ``d x / d x_t``: what multiplies fields (B, C, *space) by it, and its diagonal.

        None where none is known. The trace of the rest is what random signs have to estimate.
        """
        return None

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
        TypeError: an argument of another kind.
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
        self.fn, self.process, self.noise = fn, process, White() if noise is None else noise
        self.label = label or (lambda t: t)
        for name, given in (("fn", fn), ("label", self.label)):
            if isinstance(given, type) or not callable(given):
                raise TypeError(f"{name} is {described(given)}, expected a function of tensors or an nn.Module")
        check_denoiser(self)
        self.target = target(predicts, process)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`Denoiser`.

        Raises:
            ValueError: t is outside of [0, 1], the function fails on its input, or its output has not the shape of it.
            TypeError: x_t, t, the label or the output is no tensor of real numbers.
        """
        if not isinstance(x_t, Tensor):
            raise TypeError(f"x_t is {described(x_t)}, expected a tensor with a row for each field")
        check_label(t)
        given = (condition,) if condition is not None and (condition.fields or condition.vectors) else ()
        label = self.label(t)
        if not isinstance(label, Tensor):
            raise TypeError(f"label made {described(label)} of t, expected a tensor")
        prediction = self._predicted(x_t, label.to(torch.promote_types(x_t.dtype, torch.float32)), given)
        expected = (len(x_t), self.target.parts * x_t.shape[1], *x_t.shape[2:])
        if not isinstance(prediction, Tensor) or not prediction.is_floating_point():
            raise TypeError(
                f"the network made {described(prediction)}, expected a tensor {expected} of real numbers; of several "
                "outputs hand on the one that is meant, such as lambda x, t: net(x, t)[0]"
            )
        if prediction.shape != expected:
            raise ValueError(f"the network made {tuple(prediction.shape)} of {tuple(x_t.shape)}, expected {expected}")
        return self.target.solve(prediction.to(x_t.dtype), x_t, self.process, t, self.noise)

    def _predicted(self, x_t: Tensor, label: Tensor, given: tuple[Condition, ...]) -> object:
        """What the function makes; where it fails, with what it was handed."""
        try:
            return self.fn(x_t, label, *given)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, IndexError) as error:
            advice = "" if x_t.dtype == torch.float32 else "; for weights of float32 give fields.float()"
            reason, also = " ".join(str(error).split()), " and a Condition" * len(given)
            raise ValueError(
                f"the network fails on x_t {tuple(x_t.shape)} of {x_t.dtype} and label {tuple(label.shape)} of "
                f"{label.dtype}{also}{advice} ({reason})"
            ) from error


def check_label(t: Tensor) -> None:
    """Refuse a time that is none, such as a noise level.

    Raises:
        TypeError: no tensor.
        ValueError: outside of [0, 1], or NaN.
    """
    if not isinstance(t, Tensor):
        raise TypeError(f"t is {described(t)}, expected a tensor with a row for each field")
    if t.numel() == 0:
        return
    low, high = (v.item() for v in torch.aminmax(t.detach()))
    if not (low >= 0 and high <= 1):
        wrong = high if low >= 0 else low
        raise ValueError(
            f"t is {wrong:g}, expected a label in [0, 1]; for a noise level, sigma / alpha in float64, "
            "type process.t_of_ratio(sigma)"
        )


def check_denoiser(denoiser: Denoiser, name: str = "denoiser") -> None:
    """A denoiser, called ``name`` where it is given, whose process and noise are what they are to be.

    Raises:
        TypeError: one is of another kind, such as a network by itself, or the process has no ends.
        ValueError: the ends of the process are not those of an interval within [0, 1].
    """
    wrapped = "Denoiser.from_callable(net, predicts='velocity', process=RectifiedFlow())"
    check_kind(Denoiser, f"{name}={wrapped}", **{name: denoiser})
    check_kind(Process, "process=RectifiedFlow()", process=denoiser.process)
    check_ends(denoiser.process)
    check_kind(Noise, "noise=White()", noise=denoiser.noise)
