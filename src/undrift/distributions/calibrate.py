"""Calibration of the spread: what the network draws gets the variance of what it was trained on."""

import math

import numpy as np
import torch

from undrift.data.codec import Encoded
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


def calibrate(law: Diffusion, problem: Problem, device: torch.device, *, nfe: int, micro_batch: int) -> list[float]:
    """Scale each channel's residuals so that drawn ones have the mean square of out-of-fold ones.

    A network that is not trained to the end adds its own errors to the variance, some 20 % after a minute or two.
    The same training samples stand on both sides, so that calm and lively ones cancel.

    Args:
        law: of the residuals, in units of the codec's scale.
        problem: the training data; the scale of its codec is changed.
        device: of the law.
        nfe: network evaluations of each draw.
        micro_batch: fields in each call.

    Returns:
        The factor of each channel's scale.
    """
    codec = problem.codec
    channels = len(codec.layout.channels)
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    size = channels * math.prod(codec.layout.shape)
    count = max(4, min(_SAMPLES, len(rows), _NUMBERS // (_MEMBERS * size)))
    items = [(int(row), m) for row in rows[np.linspace(0, len(rows) - 1, count).astype(int)] for m in range(_MEMBERS)]
    true, drawn = np.zeros(channels), np.zeros(channels)
    members = number_of(law.net)
    turns = [(k, s) for k in range(members) for s in range(0, len(items[k::members]), micro_batch)]
    for k, start in turns:
        part = items[k::members][start : start + micro_batch]
        encoded = [_encoded(problem, row, m) for row, m in part]
        x, weight = (np.concatenate([v for e in encoded if (v := getattr(e, k)) is not None]) for k in ("x", "weight"))
        z = np.stack([normal(Key(0, "calibrate", m, str(row)), x.shape[1:]) for row, m in part]).astype(np.float32)
        condition = Condition.concatenate([to_condition(e) for e in encoded]).to(device)
        r = law.sample(condition, torch.from_numpy(z).to(device), nfe=nfe, member=k).cpu().numpy()
        axes = (0, *range(2, x.ndim))
        true += (weight * x**2).sum(axes)
        drawn += (weight * r**2).sum(axes)
    factor = np.clip(np.where(drawn > 0, true / np.maximum(drawn, 1e-12), 1.0), *_RANGE) ** 0.5
    codec.widened(factor)
    return [float(v) for v in factor]


def _encoded(problem: Problem, row: int, member: int) -> Encoded:
    """A training sample; of windows what usually is given of them, and what a drawn mask gives, in turn."""
    at = np.array([row])
    return problem.encode(at, draw=np.random.default_rng(row), known=problem.past(at) if member % 2 == 0 else None)
