"""A denoiser whose x_hat satisfies a constraint, and z_hat with it so that both still make up x_t."""

from collections.abc import Callable

from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate
from undrift.errors import check_kind
from undrift.guide.constraints import Constraint
from undrift.tasks.batch import Condition

__all__ = ["Constrained"]

_Units = Callable[[Tensor], Tensor]


class Constrained(Denoiser):
    """A denoiser whose x satisfies a constraint: ``x <- to_latent(project(to_data(x)))``.

    Where the noise and the posterior of x given x_t are white and the constraint is linear, this is
    ``E[x | x_t, A x = b]``. Else it is the nearest guess to an estimate that does not know the constraint. A linear
    constraint then holds at the end of a run of the ODE up to rounding, others up to the steps: project the end once
    more, in float64.

    Args:
        denoiser: the denoiser.
        constraint: in data units; for ``x_data = offset + scale x`` rather ``constraint.in_units(scale, offset)``,
            which finds the x nearest in the denoiser's units, and no ``to_data``.
        to_data: from the denoiser's units to those of the data; the same if None.
        to_latent: its inverse.

    Raises:
        ValueError: one of the two maps without the other.
        TypeError: an argument of another kind.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        constraint: Constraint,
        *,
        to_data: _Units | None = None,
        to_latent: _Units | None = None,
    ) -> None:
        check_denoiser(denoiser)
        check_kind(Constraint, "Bounds(low=0.0)", constraint=constraint)
        if (to_data is None) != (to_latent is None):
            raise ValueError("one of to_data and to_latent is given, expected both or none")
        self.denoiser, self.process, self.noise = denoiser, denoiser.process, denoiser.noise
        self.constraint, self.to_data, self.to_latent = constraint, to_data, to_latent

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`."""
        found = self.denoiser(x_t, t, condition)
        return found.with_x(self._projected(found.x))

    def _projected(self, x: Tensor) -> Tensor:
        if self.to_data is None or self.to_latent is None:
            return self.constraint.project(x)
        return self.to_latent(self.constraint.project(self.to_data(x))).to(x.dtype)
