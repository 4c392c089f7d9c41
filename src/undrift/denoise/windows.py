"""The guess of windows: one of what usually is asked, whose frames are coupled, and one of anything else."""

import torch
from torch import Tensor, nn

from undrift.denoise.spectral import SpectralGuess
from undrift.tasks.batch import Condition

__all__ = ["WindowGuess"]


class WindowGuess(nn.Module):
    """A guess for each row of a batch, by what is asked of it.

    Frames that are given are not noisy, and a guess in which they go with the others would take them for 0: only where
    all of the usual frames are asked, and no others, are they known to go together.

    Args:
        usual: where the usual channels are asked.
        other: of anything else.
        asked: the usual channels, (C,).
        never: cells that never have a value, which are always asked and tell nothing of the frame, (C, *space); None
            where all have.
    """

    asked: Tensor
    never: Tensor | None

    def __init__(self, usual: SpectralGuess, other: SpectralGuess, asked: Tensor, never: Tensor | None = None) -> None:
        super().__init__()
        self.usual, self.other = usual, other
        self.register_buffer("asked", asked.to(torch.bool))
        self.register_buffer("never", None if never is None else never.to(torch.bool))

    def parts(self, condition: Condition, rows: int) -> list[tuple[SpectralGuess, Tensor]]:
        """Each guess that is needed, and the rows of it as a mask (B,)."""
        asked = condition.fields.get("asked")
        if asked is None:
            usual = self.asked.all().expand(rows)
        else:
            flat = asked.flatten(2) > 0
            given = ~(flat if self.never is None else flat & ~self.never.flatten(1)).any(2)
            usual = torch.where(self.asked, flat.all(2), given).all(1)
        return [(guess, at) for guess, at in ((self.usual, usual), (self.other, ~usual)) if bool(at.any())]
