"""Which windows a training draws: evenly, or more of those with rain."""

from collections.abc import Mapping

import numpy as np

from undrift.data.codec import Codec
from undrift.data.fields import Fields
from undrift.data.importance import Importance, amounts_of
from undrift.data.windows import Windows
from undrift.errors import UsageError

__all__ = ["source_of"]

_WET = 0.5  # of the draws goes with the amount of rain


def source_of(
    codec: Codec,
    target: Fields,
    rows: np.ndarray,
    windows: Windows,
    share: float | None,
    covariates: Mapping[str, np.ndarray],
) -> Windows | Importance:
    """What draws the windows of a training.

    Args:
        codec: of the fields.
        target: the fields.
        rows: samples that are drawn from.
        windows: that draws them evenly.
        share: of the draws that goes with the amount of rain; None: half of those of windows of frames with rain.
        covariates: name -> value of each sample of the fields.

    Raises:
        UsageError: a share is asked for, and there is nothing like rain.
    """
    rainy = any(t.kind == "censored" for t in codec.transforms)
    if share is None:
        share = _WET if rainy and codec.layout.frames > 1 else 0.0
    if not share:
        return windows
    if not rainy:
        raise UsageError(f"train.wet={share:g}, and no variable has a point mass at 0, as rain has; leave it out")
    return Importance(windows, amounts_of(codec, target, rows, covariates), share)
