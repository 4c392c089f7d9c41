"""Calibration of the spread: what the network draws gets the variance of what it was trained on, or its spectrum."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from undrift.data.waves import rings
from undrift.denoise.windows import WindowGuess
from undrift.distributions.diffusion import Diffusion
from undrift.nets.members import number_of
from undrift.process import Key, normal
from undrift.tasks.batch import Condition
from undrift.train.prepare import Problem, to_condition

__all__ = ["calibrate"]

_SAMPLES = 64
_MEMBERS = 2
_NUMBERS = 4_000_000  # drawn in all, members x samples x channels x cells
_RANGE = (0.25, 4.0)  # of the variance
_WAVE_RANGE = (0.1, 30.0)  # of that of a ring of waves
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
    for x, r, weight in _drawn(law, problem, device, nfe, lambda row: None):
        axes = (0, *range(2, x.ndim))
        true += (weight * x**2).sum(axes)
        drawn += (weight * r**2).sum(axes)
    factor = np.clip(np.where(drawn > 0, true / np.maximum(drawn, 1e-12), 1.0), *_RANGE) ** 0.5
    codec.scale = codec.scale * factor.reshape(-1, *[1] * len(codec.layout.space))
    return [float(v) for v in factor]


def _drawn(
    law: Diffusion,
    problem: Problem,
    device: torch.device,
    nfe: int,
    known: Callable[[np.ndarray], np.ndarray | None],
    numbers: int = _NUMBERS,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Residuals of training samples, drawn ones and weights, (n, C, *space) each, of what is known of a row."""
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
        encoded = [problem.encode(row, draw=np.random.default_rng(int(row[0])), known=known(row)) for row in at]
        x, weight = (np.concatenate([v for e in encoded if (v := getattr(e, k)) is not None]) for k in ("x", "weight"))
        z = np.stack([normal(Key(0, "calibrate", m, str(row)), x.shape[1:]) for row, m in part]).astype(np.float32)
        condition = Condition.concatenate([to_condition(e) for e in encoded]).to(device)
        yield x, law.sample(condition, torch.from_numpy(z).to(device), nfe=nfe, member=k).cpu().numpy(), weight


def _calibrate_waves(
    law: Diffusion, guess: WindowGuess, problem: Problem, device: torch.device, nfe: int
) -> list[float]:
    """The gain of each ring of waves of each variable, where the usual frames are asked and where all are.

    A sampler of few steps leaves out what is smaller than its last noise, and a network adds errors of its own.
    """
    layout = problem.codec.layout
    ring = rings(layout.shape, layout.periodic).ravel()
    modes, groups = np.bincount(ring), len(layout.channels) // layout.frames
    asked, spread = guess.asked.cpu().numpy(), np.ones(len(layout.channels))
    for part, known, which, share in (
        (guess.other, problem.nothing, np.ones_like(asked), 0.25),
        (guess.usual, problem.past, asked, 1.0),
    ):
        power, fields = np.zeros((2, len(layout.channels), len(modes))), 0
        for x, r, _ in _drawn(law, problem, device, nfe, known, int(share * _WAVE_NUMBERS)):
            for kind, values in enumerate((x, r)):
                square = part.spectrum(torch.from_numpy(values).to(part.power)).square().sum(0)
                power[kind] += [np.bincount(ring, c) for c in square.cpu().numpy().reshape(len(square), -1)]
            fields += len(x)
        together = (power * which[:, None]).reshape(2, groups, layout.frames, -1).sum(2)
        true, drawn = np.maximum(together, 1e-12)
        whole = true.sum(1, keepdims=True) / drawn.sum(1, keepdims=True)
        count = fields * modes
        square = np.clip((count * true / drawn + _FEW * whole) / (count + _FEW), *_WAVE_RANGE)
        gain = np.where(which[:, None], np.repeat(square**0.5, layout.frames, 0), 1.0)
        spread = np.where(which, np.repeat(whole[:, 0] ** 0.5, layout.frames), spread)
        part.gain *= torch.from_numpy(gain[:, ring].reshape(part.gain.shape)).to(part.gain)
    return [float(v) for v in spread]
