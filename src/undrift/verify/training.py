"""Was the training long enough: what the losses of its validations say."""

__all__ = ["under_trained"]

from collections.abc import Sequence

import numpy as np

_FEW_STEPS = 200  # the demo's loss is 0.947 after a training of 75 steps and 0.877 after one of 1350
_GAIN = 0.01


def under_trained(
    history: Sequence[tuple[int, float | None]],
    images: int | None = None,
    samples: int | None = None,
    members: int = 1,
) -> bool | None:
    """Whether more training would have helped, None where no validation says.

    The learning rate falls to nothing at the end, so that the last losses are flat in any training and prove nothing.
    A training was too short where the best validation is the last one and there were fewer than 200 steps, or not each
    sample was seen once, or the loss fell by more than 1 % over the last third of the steps. Below 200 steps an earlier
    best proves nothing either, unless the loss rose by more than 1 % from it. Steps and samples are those of one
    network: what several share is divided among them.

    Args:
        history: (step, validation loss) in order, None for a loss that was not finite.
        images: samples seen in training, counted each time.
        samples: samples that there are to train on.
        members: networks that shared the steps.
    """
    known = [(step, loss) for step, loss in history if loss is not None and np.isfinite(loss)]
    if not known:
        return None
    last, final = known[-1]
    best = min(loss for _, loss in known)
    margin = _GAIN * abs(best)
    if last < _FEW_STEPS * members:
        return final <= best + margin
    if final > best:
        return False
    if images is not None and samples is not None and images < samples * members:
        return True
    early = [loss for step, loss in known if step <= 2 * last / 3]
    return not early or min(early) - best > margin
