"""Several constraints at once, by Dykstra's alternating projections.

Boyle & Dykstra (1986), doi:10.1007/978-1-4613-9940-7_3: with ``p_i = 0`` at first, one round is, for each i in turn,

    y = P_i(x + p_i),    p_i <- x + p_i - y,    x <- y,

and x tends to the nearest point of the intersection, where plain alternation (all p 0) finds only some point of it.
"""

import torch
from torch import Tensor

from undrift.errors import UndriftError, check_kind, check_number, check_whole
from undrift.guide.constraints import Constraint

__all__ = ["Together"]


class Together(Constraint):
    """The nearest field that satisfies all of several constraints: the last of them to rounding.

    A row ends when the root of the sum of the squared changes of all p_i in a round is below ``tolerance`` times the
    length of the field (Birgin & Raydan 2005, doi:10.1137/03060062X: the change of x alone may stall long before).

    Args:
        *constraints: two or more.
        tolerance: relative, see above.
        rounds: at most.

    Raises:
        ValueError: no constraints, or a tolerance that is not above 0.
    """

    def __init__(self, *constraints: Constraint, tolerance: float = 1e-8, rounds: int = 2000) -> None:
        check_number(tolerance=tolerance)
        check_whole(1, rounds=rounds)
        for constraint in constraints:
            check_kind(Constraint, "Bounds(low=0.0)", constraint=constraint)
        if not constraints or not tolerance > 0:
            raise ValueError(
                f"{len(constraints)} constraints and tolerance {tolerance}, expected at least one and a number above 0"
            )
        self.constraints, self.tolerance, self.rounds = constraints, tolerance, rounds

    def check(self, shape: tuple[int, ...]) -> None:
        """See :class:`Constraint`."""
        for constraint in self.constraints:
            constraint.check(shape)

    def nearest(self, x: Tensor) -> Tensor:
        """See :class:`Constraint`.

        Raises:
            UndriftError: a row did not end within ``rounds``, as where no field satisfies all.
        """
        wide = (-1, *[1] * (x.ndim - 1))
        pulls = [torch.zeros_like(x) for _ in self.constraints]
        goes_on = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for _ in range(self.rounds):
            y, changed = x, torch.zeros_like(x[:, 0].flatten(1)[:, 0])
            for i, constraint in enumerate(self.constraints):
                nearer = constraint.nearest(y + pulls[i])
                pull = y + pulls[i] - nearer
                changed = changed + ((pull - pulls[i]).detach() ** 2).flatten(1).sum(1)
                y, pulls[i] = nearer, pull
            x = torch.where(goes_on.reshape(wide), y, x)  # a row that has ended does not wait for others
            size = (x.detach() ** 2).flatten(1).sum(1)
            goes_on = goes_on & (changed > self.tolerance**2 * size)
            if not goes_on.any():
                return x
        worst = float(self.relative(x.detach()).max())
        raise UndriftError(
            f"{len(self.constraints)} constraints have a relative residual of {worst:.2g} after {self.rounds} rounds; "
            "expected constraints that one field can satisfy, or more rounds, or a larger tolerance"
        )

    def relative(self, x: Tensor) -> Tensor:
        """The largest of all; see :class:`Constraint`."""
        return torch.stack([constraint.relative(x) for constraint in self.constraints]).amax(0)

    def in_units(self, scale: Tensor, offset: Tensor) -> "Together":
        """See :class:`Constraint`."""
        parts = (constraint.in_units(scale, offset) for constraint in self.constraints)
        return Together(*parts, tolerance=self.tolerance, rounds=self.rounds)
