"""Calibration of large fields: the energy of each octave, where the motion of the past reaches and elsewhere."""

import numpy as np
import torch

from undrift.data.texture import BINS_AN_OCTAVE
from undrift.denoise.rings import RingGuess
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.drawn import drawn_of, items_of
from undrift.train.problem import Problem

__all__ = ["calibrate_rings"]

_RANGE = (0.25, 4.0)  # of the variance
_NUMBERS = 12_000_000  # drawn in all, members x samples x channels x cells
_FEW = 100  # waves that speak for the variance of all octaves, beside those of an octave itself


def calibrate_rings(law: Diffusion, guess: RingGuess, problem: Problem, device: torch.device, nfe: int) -> list[float]:
    """The scale of each channel, and the gain of each of its octaves beyond it, where the past reaches and elsewhere.

    What is drawn has there the energy of out-of-fold residuals: frames that usually are asked given the others, and
    these given nothing. Where motion brings the past, wide waves are known and small ones are left, and elsewhere all
    are: a guess of one spectrum has too much of the one and too little of the other. Of few waves the factor is that of
    the channel.
    """
    codec, channels = problem.codec, len(problem.codec.layout.channels)
    sums, count = np.zeros((2, *guess.gain.shape)), np.zeros(guess.gain.shape)
    usual = np.zeros(channels, bool)
    for known, share in ((lambda row, m: problem.past(row), 1.0), (lambda row, m: problem.nothing(row), 0.3)):
        for part in drawn_of(law, problem, device, nfe, known, items_of(problem, int(share * _NUMBERS))):
            asked = (part.weight.reshape(len(part.x), channels, -1).any((0, 2)) & ~usual)[:, None]
            x, r, reached = (torch.from_numpy(v).to(device) for v in (part.weight * part.x, part.r, part.reached))
            r = torch.where(torch.from_numpy(part.weight).to(device) > 0, r, 0)
            sums += asked * np.stack([guess.energies(v, reached).cpu().numpy() for v in (x, r)])
            side = reached.transpose(0, 1).flatten(1).double().mean(1).cpu().numpy()
            count += asked * len(x) * guess.waves_in(x).cpu().numpy() * np.stack([1 - side, side])[:, :, None]
        usual |= count.any((0, 2))
    ratio = lambda true, drawn: np.clip(true / np.maximum(drawn, 1e-300), *_RANGE) ** 0.5  # noqa: E731
    octaves = sums[..., ::BINS_AN_OCTAVE]
    factor = ratio(*octaves.sum((1, 3)))
    gain = (count * ratio(*sums) / factor[:, None] + _FEW) / (count + _FEW)
    guess.gain *= torch.from_numpy(gain).to(guess.gain)
    codec.widened(factor)
    return [float(v) for v in factor]
