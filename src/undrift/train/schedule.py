"""The learning rate as a function of the share of the training that is used up."""

from __future__ import annotations

__all__ = ["learning_rate"]

import math


def learning_rate(share: float, peak: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, eq. 5).

    https://arxiv.org/abs/1608.03983

    Args:
        share: Used share of the training, steps or seconds, in [0, 1]; taken at the middle of a step no step is lost to
            a rate of zero. What lies outside is clipped.
        peak: The largest rate.
        warmup: Share of the training over which the rate rises, in [0, 1).
    """
    share = min(max(share, 0.0), 1.0)
    if share < warmup:
        return peak * share / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
