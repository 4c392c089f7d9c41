"""Calibration of large fields: the energy of octaves, where the motion of the past reaches and elsewhere, and tails."""

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from undrift.data.texture import BINS_AN_OCTAVE
from undrift.denoise.rings import RingGuess
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.drawn import drawn_of, items_of
from undrift.train.problem import Problem

__all__ = ["calibrate_rings"]

_RANGE = (0.25, 4.0)  # of the variance
_NUMBERS = 12_000_000  # drawn in all, members x samples x channels x cells
_LEVELS = 15  # of quantiles, from the median up
_FURTHEST = 3.5  # of them, in standard deviations of a normal law
_BEYOND = 300  # numbers at least beyond the furthest
_FEW = 100  # waves that speak for the variance of all octaves, beside those of an octave itself


def calibrate_rings(law: Diffusion, guess: RingGuess, problem: Problem, device: torch.device, nfe: int) -> list[float]:
    """The scale of each channel, and the gain of each of its octaves beyond it, where the past reaches and elsewhere.

    What is drawn has there the energy of out-of-fold residuals: frames that usually are asked given the others, and
    these given nothing. Where motion brings the past, wide waves are known and small ones are left, and elsewhere all
    are: a guess of one spectrum has too much of the one and too little of the other. Of few waves the factor is that of
    the channel. Then drawn values get the upper quantiles of out-of-fold residuals: the rain that motion did not tell
    of falls in few places and much of it, which a network learns late.
    """
    codec, channels = problem.codec, len(problem.codec.layout.channels)
    sums, count = np.zeros((2, *guess.gain.shape)), np.zeros(guess.gain.shape)
    usual, first = np.zeros(channels, bool), list[tuple[torch.Tensor, ...]]()
    for known, share in ((lambda row, m: problem.past(row), 1.0), (lambda row, m: problem.nothing(row), 0.3)):
        for part in drawn_of(law, problem, device, nfe, known, items_of(problem, int(share * _NUMBERS))):
            asked = (part.weight.reshape(len(part.x), channels, -1).any((0, 2)) & ~usual)[:, None]
            x, r, reached = (torch.from_numpy(v).to(device) for v in (part.weight * part.x, part.r, part.reached))
            r = torch.where(torch.from_numpy(part.weight).to(device) > 0, r, 0)
            sums += asked * np.stack([guess.energies(v, reached).cpu().numpy() for v in (x, r)])
            side = reached.transpose(0, 1).flatten(1).double().mean(1).cpu().numpy()
            count += asked * len(x) * guess.waves_in(x).cpu().numpy() * np.stack([1 - side, side])[:, :, None]
            if not usual.any():
                first.append((x, r, reached, torch.from_numpy(part.weight > 0).to(device)))
        usual |= count.any((0, 2))
    ratio = lambda true, drawn: np.clip(true / np.maximum(drawn, 1e-300), *_RANGE) ** 0.5  # noqa: E731
    octaves = sums[..., ::BINS_AN_OCTAVE]
    factor = ratio(*octaves.sum((1, 3)))
    gain = (count * ratio(*sums) / factor[:, None] + _FEW) / (count + _FEW)
    guess.gain *= torch.from_numpy(gain).to(guess.gain)
    _fit_tails(guess, first, torch.from_numpy(factor).to(guess.gain))
    codec.widened(factor)
    return [float(v) for v in factor]


def _fit_tails(guess: RingGuess, parts: list[tuple[torch.Tensor, ...]], factor: torch.Tensor) -> None:
    """The quantiles of residuals in units of their new scale, and of drawn ones, over all frames that are asked.

    From the median up: residuals below it are most often of dry cells, whose latents are drawn and were never seen.
    """
    true, drawn = [], []
    for x, r, reached, asked in parts:
        scale = factor.to(x).reshape(-1, *[1] * (x.ndim - 2))
        true.append((x / scale)[asked].cpu().numpy())
        drawn.append(guess.gained(r, reached)[asked].cpu().numpy())
    number = sum(map(len, true))
    if number < 4 * _BEYOND:
        return
    furthest = min(_FURTHEST, float(ndtri(1 - _BEYOND / number)))
    levels = ndtr(np.linspace(0, furthest, _LEVELS))
    tails = np.stack([np.quantile(np.concatenate(v), levels) for v in (drawn, true)])
    if (np.diff(tails) > 0).all():
        guess.tails = torch.from_numpy(tails).to(guess.gain)
