"""Guidance by the gradient of a classifier of noisy fields."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, check_number
from undrift.process import Process, White
from undrift.tasks.batch import Condition

__all__ = ["ClassifierGuidance", "NoisyClassifier"]

_LARGEST_RATIO = 1000.0


class ClassifierGuidance(Denoiser):
    """A denoiser whose score is greater by ``scale grad log p(label | x_t)``.

    With the true classifier and scale 1 it is the score of ``p(x_t | label)`` by Bayes' rule (Song et al. 2021,
    https://arxiv.org/abs/2011.13456, eq. 14); a larger scale sharpens the class (Dhariwal & Nichol 2021,
    https://arxiv.org/abs/2105.05233, section 4). x moves by ``sigma^2 / alpha`` times the gradient, which is 0
    where alpha is: there the product is that of where ``sigma / alpha`` is 1000.

    Args:
        denoiser: the denoiser.
        logits: ``(x_t (B, ...), t (B,)) -> (B, K)``, logarithms of the probabilities up to a number for each row, such
            as a :class:`NoisyClassifier`.
        label: the class asked for, of all rows, or (B,).
        scale: of the gradient.

    Raises:
        TypeError: the noise is not white.
    """

    def __init__(
        self, denoiser: Denoiser, logits: Callable[[Tensor, Tensor], Tensor], label: int | Tensor, scale: float = 1.0
    ) -> None:
        check_denoiser(denoiser)
        check_number(scale=scale)
        self.denoiser, self.process, self.noise = denoiser, denoiser.process, denoiser.noise
        if not isinstance(self.noise, White):
            raise TypeError(
                f"the noise is {type(self.noise).__name__}, expected white noise, whose score is -z / sigma"
            )
        self.logits, self.label, self.scale = logits, label, float(scale)
        self.last = self.process.t_of_ratio(torch.tensor(_LARGEST_RATIO, dtype=torch.float64, device="cpu"))

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`.

        Raises:
            ValueError: the logits have not a row for each of x_t, or no such class.
            TypeError: x is an end point and no mean.
        """
        found = self.denoiser(x_t, t, condition)
        if found.kind != "mean":
            raise TypeError("an end point has no score to guide: it is no mean over the fields that x_t may be from")
        wanted = torch.is_grad_enabled()  # then the gradient may be differentiated itself
        with torch.enable_grad():
            at = x_t if x_t.requires_grad else x_t.detach().requires_grad_()
            near = torch.minimum(t, self.last.to(t.device))
            chosen = self._log_probability(self.logits(at, near), len(x_t))
            (gradient,) = torch.autograd.grad(chosen.sum(), at, create_graph=wanted)
        step = self.scale * self.process.sigma(near) * self.process.ratio(near)
        return found.with_x(found.x + along(step, x_t) * gradient)

    def _log_probability(self, logits: Tensor, rows: int) -> Tensor:
        label = torch.as_tensor(self.label, dtype=torch.long, device=logits.device).expand(rows)
        if logits.ndim != 2 or len(logits) != rows or not ((label >= 0) & (label < logits.shape[1])).all():
            raise ValueError(
                f"logits are {tuple(logits.shape)}, expected ({rows}, K) with a K above the label {int(label.max())}"
            )
        return torch.log_softmax(logits, 1)[torch.arange(rows, device=logits.device), label]


class NoisyClassifier:
    """The logits of a network at a noisy field, whatever the process: ``net(c_in x_t, atan(sigma / alpha))``.

    ``c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2)``, so that the network sees numbers of order one at all times
    (Karras et al. 2022, https://arxiv.org/abs/2206.00364, table 1). :class:`undrift.objective.CrossEntropy` trains it.

    Args:
        net: ``net(x (B, ...), label (B,)) -> (B, K)``.
        process: the noising process.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, net: Callable[[Tensor, Tensor], Any], process: Process, sigma_data: float = 1.0) -> None:
        check_kind(Process, "RectifiedFlow()", process=process)
        check_number(sigma_data=sigma_data)
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is {sigma_data}, expected a number above 0")
        self.net, self.process, self.sigma_data = net, process, float(sigma_data)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits (B, K) of fields (B, ...) at times (B,)."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        c_in = (alpha**2 * self.sigma_data**2 + sigma**2).rsqrt()
        return self.net(along(c_in, x_t) * x_t, torch.atan2(sigma, alpha).to(x_t.dtype))
