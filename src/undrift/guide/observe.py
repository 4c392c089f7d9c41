"""What was observed, and how well."""

import torch
from torch import Tensor

from undrift.errors import check_kind
from undrift.guide.operators import Operator

__all__ = ["Observation"]


class Observation:
    """``observed = operator(x) + std N(0, 1)``, in the units of the fields that the denoiser knows.

    Args:
        operator: fields (B, C, *space) to numbers (B, m).
        observed: the numbers, (m,), or of each row its own, (B, m).
        std: standard deviation of their errors, a number or (m,), 0 or more.

    Raises:
        TypeError: the operator is none, or what was observed is no tensor.
        ValueError: shapes that do not fit, numbers that are not finite, or a std below 0.
    """

    def __init__(self, operator: Operator, observed: Tensor, std: float | Tensor) -> None:
        check_kind(Operator, "BlockMeans(factor), or Function(lambda x: ...)", operator=operator)
        check_kind(Tensor, "torch.tensor(observed)", observed=observed)
        self.operator, self.observed = operator, observed
        self.std = torch.as_tensor(std, dtype=torch.float64, device=observed.device)
        if observed.ndim not in (1, 2) or self.std.shape not in ((), observed.shape[-1:]):
            raise ValueError(
                f"observed and std are {tuple(observed.shape)} and {tuple(self.std.shape)}, "
                "expected (m,) or (B, m), and a number or (m,)"
            )
        if not torch.isfinite(observed).all():
            raise ValueError("observed has numbers that are not finite; leave them out of the operator and of it")
        if not (self.std >= 0).all() or not torch.isfinite(self.std).all():
            raise ValueError(f"std reaches {float(self.std.min()):.4g}, expected finite numbers of 0 or more")

    def misfit(self, value: Tensor) -> Tensor:
        """``observed - value`` of what the operator made of fields, (B, m)."""
        expected = self.observed.shape if self.observed.ndim == 2 else (len(value), *self.observed.shape)
        if value.shape != expected:
            raise ValueError(f"the operator made {tuple(value.shape)}, and observed is {tuple(self.observed.shape)}")
        return self.observed.to(value) - value

    def variance(self, like: Tensor) -> Tensor:
        """Of the errors, () or (m,), in the dtype of numbers (B, m)."""
        return (self.std**2).to(like)
