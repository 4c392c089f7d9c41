"""Guidance by the difference of a conditional and an unconditional estimate."""

from dataclasses import replace

from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate
from undrift.errors import check_number
from undrift.tasks.batch import Condition

__all__ = ["ClassifierFree"]


class ClassifierFree(Denoiser):
    """``z = (1 + w) z(x_t, c) - w z(x_t)`` and x likewise: the score of ``p(x_t | c) (p(x_t | c) / p(x_t))^w``.

    Ho & Salimans (2022), https://arxiv.org/abs/2207.12598, eq. 6, whose w it is: 0 is the conditional law, and the
    weight that begins at 1 in other papers is 1 + w. At t > 0 the guided law is not the noised law of that at t = 0, so
    that samples are not of ``p(x | c)^{1+w} / p(x)^w`` but only go that way.

    Args:
        denoiser: trained with what is given and, in some rows, without: see :class:`undrift.objective.Dropping`.
            Without is :meth:`undrift.tasks.batch.Condition.drop`.
        weight: w, above -1: -1 would be the unconditional law.
    """

    def __init__(self, denoiser: Denoiser, weight: float) -> None:
        check_denoiser(denoiser)
        check_number(weight=weight)
        if not weight > -1:
            raise ValueError(f"weight is {weight}, expected a number above -1; 0 is the conditional law")
        self.denoiser, self.weight = denoiser, float(weight)
        self.process, self.noise = denoiser.process, denoiser.noise

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`; two evaluations.

        Raises:
            ValueError: nothing is given.
        """
        if condition is None or not (condition.fields or condition.vectors):
            raise ValueError("nothing is given, expected a condition with the fields or vectors that guide")
        given, without = (self.denoiser(x_t, t, one) for one in (condition, condition.drop()))
        w = self.weight
        return replace(given, x=(1 + w) * given.x - w * without.x, z=(1 + w) * given.z - w * without.z, variance=None)
