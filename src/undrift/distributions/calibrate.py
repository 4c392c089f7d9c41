"""Calibration of the spread: what the network draws gets the variance of what it was trained on, or its spectrum."""

import numpy as np
import torch

from undrift.denoise.rings import RingGuess
from undrift.denoise.windows import WindowGuess
from undrift.distributions.calibrate_rings import calibrate_rings
from undrift.distributions.calibrate_waves import calibrate_waves
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.drawn import drawn_of, items_of
from undrift.train.problem import Problem

__all__ = ["calibrate"]

_NUMBERS = 4_000_000  # drawn in all, members x samples x channels x cells
_RANGE = (0.25, 4.0)  # of the variance


def calibrate(law: Diffusion, problem: Problem, device: torch.device, *, nfe: int) -> list[float]:
    """Scale each channel's residuals so that drawn ones have the mean square of out-of-fold ones.

    A network that is not trained to the end adds its own errors to the variance, some 20 % after a minute or two.
    The same training samples stand on both sides, so that calm and lively ones cancel.

    Args:
        law: of the residuals, in units of the codec's scale.
        problem: the training data; the scale of its codec is changed.
        device: of the law.
        nfe: network evaluations of each draw.

    Returns:
        The factor of each channel's scale.
    """
    if isinstance(law.guess, WindowGuess):
        return calibrate_waves(law, law.guess, problem, device, nfe)
    if isinstance(law.guess, RingGuess):
        return calibrate_rings(law, law.guess, problem, device, nfe)
    codec, channels = problem.codec, len(problem.codec.layout.channels)
    true, drawn = np.zeros(channels), np.zeros(channels)
    told = lambda row, m: problem.past(row) if m % 2 == 0 else None  # noqa: E731
    for part in drawn_of(law, problem, device, nfe, told, items_of(problem, _NUMBERS)):
        axes = (0, *range(2, part.x.ndim))
        true += (part.weight * part.x**2).sum(axes)
        drawn += (part.weight * part.r**2).sum(axes)
    factor = np.clip(np.where(drawn > 0, true / np.maximum(drawn, 1e-12), 1.0), *_RANGE) ** 0.5
    codec.widened(factor)
    return [float(v) for v in factor]
