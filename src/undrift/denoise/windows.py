"""The guess of windows: one of what usually is asked, whose frames are coupled, and one of anything else."""

import torch
from torch import Tensor, nn

from undrift.data.window_gaps import are_few
from undrift.denoise.spectral import SpectralGuess
from undrift.tasks.batch import Condition

__all__ = ["WindowGuess"]


class WindowGuess(nn.Module):
    """A guess for each row of a batch, by what is asked of it.

    Frames that are given are not noisy, and a guess in which they go with the others would take them for 0: only where
    all of the usual frames are asked, and no others, are they known to go together. A few cells that the given frames
    lack are asked beside them: of these nothing more is known than their spread (`undrift.data.window_gaps`).

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
            ever = torch.ones_like(flat[0]) if self.never is None else ~self.never.flatten(1)
            cells = int(ever[~self.asked].sum())
            missing = (flat & ever)[:, ~self.asked].sum((1, 2)).tolist()
            few = torch.tensor([are_few(count, cells) for count in missing], device=flat.device)
            usual = flat[:, self.asked].flatten(1).all(1) & few
        return [(guess, at) for guess, at in ((self.usual, usual), (self.other, ~usual)) if bool(at.any())]
