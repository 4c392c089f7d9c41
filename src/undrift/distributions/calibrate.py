"""Calibration of the spread: what the network draws gets the variance of what it was trained on, or its spectrum."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from undrift.data.encoded import Predicted
from undrift.data.waves import rings
from undrift.denoise.windows import WindowGuess
from undrift.distributions.diffusion import Diffusion
from undrift.nets.members import number_of
from undrift.process import Key, normal
from undrift.tasks.batch import Condition
from undrift.train.batches import to_condition
from undrift.train.problem import Problem

__all__ = ["calibrate"]

_SAMPLES = 64
_MEMBERS = 2
_NUMBERS = 4_000_000  # drawn in all, members x samples x channels x cells
_RANGE = (0.25, 4.0)  # of the variance
_GAINS = (0.3, 5.0)  # of a ring of waves
_WAVE_NUMBERS = 12_000_000  # drawn in all
_FEW = 100  # waves that speak for the variance of all rings, beside those of a ring itself


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
        return _calibrate_waves(law, law.guess, problem, device, nfe)
    codec, channels = problem.codec, len(problem.codec.layout.channels)
    true, drawn = np.zeros(channels), np.zeros(channels)
    for part in _drawn(law, problem, device, nfe, lambda row, m: problem.past(row) if m % 2 == 0 else None):
        axes = (0, *range(2, part.x.ndim))
        true += (part.weight * part.x**2).sum(axes)
        drawn += (part.weight * part.r**2).sum(axes)
    factor = np.clip(np.where(drawn > 0, true / np.maximum(drawn, 1e-12), 1.0), *_RANGE) ** 0.5
    codec.widened(factor)
    return [float(v) for v in factor]


@dataclass(frozen=True)
class _Drawn:
    """Training samples, (n, C, *space) each: their rows, residuals, drawn ones, weights, and what was predicted."""

    rows: np.ndarray
    x: np.ndarray
    r: np.ndarray
    weight: np.ndarray
    predicted: Predicted


def _drawn(
    law: Diffusion,
    problem: Problem,
    device: torch.device,
    nfe: int,
    known: Callable[[np.ndarray, int], np.ndarray | None],
    numbers: int = _NUMBERS,
) -> Iterator[_Drawn]:
    """Training samples beside what is drawn given what is known of them."""
    codec, micro = problem.codec, law.micro_batch
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    size = len(codec.layout.channels) * math.prod(codec.layout.shape)
    count = max(4, min(_SAMPLES, len(rows), numbers // (_MEMBERS * size)))
    items = [(int(row), m) for row in rows[np.linspace(0, len(rows) - 1, count).astype(int)] for m in range(_MEMBERS)]
    members = number_of(law.net)
    turns = [(k, s) for k in range(members) for s in range(0, len(items[k::members]), micro)]
    for k, start in turns:
        part = items[k::members][start : start + micro]
        at = [np.array([row]) for row, _ in part]
        told = [known(row, m) for row, (_, m) in zip(at, part)]
        encoded, predicted = zip(
            *(problem.predicted(row, draw=np.random.default_rng(int(row[0])), known=k) for row, k in zip(at, told))
        )
        x, weight = (np.concatenate([getattr(e, name) for e in encoded]) for name in ("x", "weight"))
        z = np.stack([normal(Key(0, "calibrate", m, str(row)), x.shape[1:]) for row, m in part]).astype(np.float32)
        condition = Condition.concatenate([to_condition(e) for e in encoded]).to(device)
        r = law.sample(condition, torch.from_numpy(z).to(device), nfe=nfe, member=k).cpu().numpy()
        mean, std = (np.concatenate([getattr(p, name) for p in predicted]) for name in ("mean", "std"))
        yield _Drawn(np.concatenate(at), x, r, weight, Predicted(mean, std))


def _calibrate_waves(
    law: Diffusion, guess: WindowGuess, problem: Problem, device: torch.device, nfe: int
) -> list[float]:
    """The gain of each ring of waves, where the usual frames are asked and where anything else is.

    What is drawn is the linear prediction M of an anomaly and the residual R of it. The gain g of R is the one with
    which their sum has the power of the record's anomalies T in each frame,

        |M|^2 + 2 g M R + g^2 |R|^2 = |T|^2:

    then windows that are drawn one after the other neither gain nor lose power. A sampler of few steps leaves out what
    is smaller than its last noise, a network adds errors of its own, and a prediction that goes too far leaves
    residuals that lean against it.
    """
    layout = problem.codec.layout
    ring = rings(layout.shape, layout.periodic).ravel()
    channels, modes = len(layout.channels), np.bincount(ring)
    asked, spread = guess.asked.cpu().numpy(), np.ones(channels)
    for part, known, which, share in (
        (guess.other, lambda row, m: None, np.ones_like(asked), 0.5),
        (guess.usual, lambda row, m: problem.past(row), asked, 1.0),
    ):
        sums, fields = np.zeros((4, channels, len(modes))), 0
        for drawn in _drawn(law, problem, device, nfe, known, int(share * _WAVE_NUMBERS)):
            usual = np.concatenate([problem.predicted(row[None], known=problem.nothing(row[None]))[1].mean
                                    for row in drawn.rows])  # fmt: skip
            mean, std = (drawn.predicted.mean - usual) * drawn.weight, drawn.predicted.std * drawn.weight
            total, mean, left = (
                part.spectrum(torch.from_numpy(v)).numpy().reshape(len(usual), channels, -1)
                for v in (mean + std * drawn.x, mean, std * drawn.r)
            )
            products = (total**2, mean**2, mean * left, left**2)
            sums += [[np.bincount(ring, one, len(modes)) for one in product.sum(0)] for product in products]
            fields += len(usual)
        gain = _gains(sums, layout.frames, fields * modes, which)
        spread = np.where(which, (gain * sums[3]).sum(1) / np.maximum(sums[3].sum(1), 1e-300), spread)
        part.gain *= torch.from_numpy(gain[:, ring].reshape(part.gain.shape)).to(part.gain)
    return [float(v) for v in spread]


def _gains(sums: np.ndarray, frames: int, count: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Gains of rings (C, R): of few waves that of all frames of a variable, and of those that of all rings.

    Args:
        sums: |T|^2, |M|^2, M R and |R|^2, (4, C, R).
        frames: of a variable, which are channels in a row.
        count: waves in each ring, of all samples, (R,).
        which: channels that are asked, (C,).
    """

    def solved(total: np.ndarray, mean: np.ndarray, cross: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        drawn = np.maximum(drawn, 1e-300)
        root = np.sqrt(np.maximum(cross**2 + drawn * (total - mean), 0))
        return np.clip((root - cross) / drawn, *_GAINS)

    grouped = (sums * which[:, None]).reshape(4, -1, frames, sums.shape[2]).sum(2)
    group, whole = solved(*grouped), solved(*grouped.sum(2, keepdims=True))
    group = (count * group + _FEW * whole) / (count + _FEW)
    mixed = (count * solved(*sums) + _FEW * np.repeat(group, frames, 0)) / (count + _FEW)
    return np.where(which[:, None], mixed, 1.0)
