"""Known cells of the estimate are what is known of them."""

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate
from undrift.tasks.batch import Condition

__all__ = ["Replacement"]


class Replacement(Denoiser):
    """A denoiser whose x is overridden on known cells, z recomputed.

    On known cells the flow is then the straight one from the noise to what is known, and all else sees these cells
    through x_t alone (Song et al. 2021, https://arxiv.org/abs/2011.13456, appendix I.2, whose known cells have noise of
    their own at each step). It ends at the known values, but other cells heed them less than the exact law given them
    does (Ho et al. 2022, https://arxiv.org/abs/2204.03458, section 3.1), unless cells are independent.

    Args:
        denoiser: the denoiser.
        known: values in the denoiser's units, (B or 1, C, *space).
        mask: where they are known, a bool tensor of the same shape; where they are not NaN if None.

    Raises:
        ValueError: shapes that differ, or a value that is known and NaN.
    """

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor | None = None) -> None:
        check_denoiser(denoiser)
        self.denoiser, self.process, self.noise = denoiser, denoiser.process, denoiser.noise
        self.known, self.mask = known, ~known.isnan() if mask is None else mask.bool()
        if self.mask.shape != known.shape or known[self.mask].isnan().any():
            raise ValueError(
                f"mask and known are {tuple(self.mask.shape)} and {tuple(known.shape)}, "
                "expected one shape and no NaN where the mask is true"
            )

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Estimate:
        """See :class:`undrift.denoise.denoiser.Denoiser`.

        Raises:
            ValueError: x_t has another shape than what is known.
        """
        if self.known.shape[1:] != x_t.shape[1:] or len(self.known) not in (1, len(x_t)):
            raise ValueError(
                f"known values are {tuple(self.known.shape)}, expected {tuple(x_t.shape)} or one row of it"
            )
        found = self.denoiser(x_t, t, condition)
        return found.with_x(torch.where(self.mask.to(x_t.device), self.known.to(x_t), found.x))
