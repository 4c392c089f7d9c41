"""Cross-entropy of a classifier of noisy fields."""

from collections.abc import Callable

import torch
from torch import Tensor

from undrift.denoise.estimate import along
from undrift.errors import check_kind
from undrift.objective.times import Times, Uniform
from undrift.process import Noise, Process, White
from undrift.tasks.batch import Batch

__all__ = ["CrossEntropy"]


class CrossEntropy:
    """``-sum_c q_c log softmax(logits(x_t, t))_c``, q the label: at its least the softmax is ``p(c | x_t)``.

    The classifier of Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix I.1, and Dhariwal & Nichol (2021),
    https://arxiv.org/abs/2105.05233, section 4. Cross-entropy is a proper score: it is least at the true
    probabilities, so that a classifier which reaches it is calibrated (Gneiting & Raftery 2007,
    doi:10.1198/016214506000001437).

    Args:
        process: the noising process.
        label: name of the vector of the condition that holds q, one-hot or probabilities, (B, K).
        times: law of t, uniform if None.
        noise: the law of z, white if None.
    """

    def __init__(
        self, process: Process, label: str = "label", times: Times | None = None, noise: Noise | None = None
    ) -> None:
        self.process, self.label = process, label
        self.times, self.noise = Uniform() if times is None else times, White() if noise is None else noise
        check_kind(Process, "RectifiedFlow()", process=process)
        check_kind(Times, "Uniform()", times=self.times)
        check_kind(Noise, "White()", noise=self.noise)

    def __call__(
        self, batch: Batch, model: Callable[[Tensor, Tensor], Tensor], key: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each sample (B,), nats, and the share of rows whose likeliest class is right as ``accuracy``.

        Args:
            batch: x and its label.
            model: ``(x_t, t (B,)) -> logits (B, K)``, such as a :class:`undrift.guide.NoisyClassifier`.
            key: of the times and the noise.

        Raises:
            ValueError: no such vector, no probabilities in it, or logits of another shape.
        """
        x, process = batch.x, self.process
        q = _probabilities(batch, self.label)
        generator = torch.Generator(x.device).manual_seed(key)
        t = self.times(len(batch), process, generator)
        z = self.noise.draw(x.shape, generator, x.dtype)
        logits = model(along(process.alpha(t), x) * x + along(process.sigma(t), x) * z, t)
        if logits.shape != q.shape:
            raise ValueError(
                f"logits are {tuple(logits.shape)}, expected the shape of {self.label!r}, {tuple(q.shape)}"
            )
        right = (logits.argmax(1) == q.argmax(1)).to(x.dtype)
        return -(q.to(logits.dtype) * torch.log_softmax(logits, 1)).sum(1), {"accuracy": right.mean()}


def _probabilities(batch: Batch, label: str) -> Tensor:
    """The label of each row, (B, K)."""
    if label not in batch.condition.vectors:
        known = ", ".join(batch.condition.vectors) or "none"
        raise ValueError(f"the condition has no vector {label!r}, expected the classes there; its vectors: {known}")
    q = batch.condition.vectors[label]
    if not ((q >= 0).all() and ((q.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(f"{label!r} has rows that are no probabilities, expected one-hot labels or rows of sum 1")
    return q
