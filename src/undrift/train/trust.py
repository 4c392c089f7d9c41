"""The trust in a network where nothing is given, from blocks of the record that it was not trained on."""

import numpy as np
import torch
from torch import nn

from undrift.data.linear import spread
from undrift.denoise.trust import RATIOS
from undrift.nets.members import number_of
from undrift.objective.denoising import DenoisingScoreMatching
from undrift.train.batches import to_batch
from undrift.train.problem import Problem
from undrift.train.step import key_of

__all__ = ["fit_trust"]

_SAMPLES = 64
_BATCH = 16


@torch.no_grad()
def fit_trust(
    net: nn.Module, objective: DenoisingScoreMatching, problem: Problem, device: torch.device, *, seed: int
) -> list[float]:
    """What the network's correction counts for at each of :data:`undrift.denoise.trust.RATIOS`, from 0 to 1.

    Of all multiples w F of the correction that with the least squared error on samples that choose when to stop,
    ``w = <F, truth - guess> / <F, F>`` in units of the correction. A network that was trained on all kinds of masks
    may do worse than the guess where nothing is given; then w tends to 0.

    Args:
        net: trained.
        objective: that it was trained by, on the same device.
        problem: of windows.
        device: of both.
        seed: of the noise.
    """
    net.eval()
    rows = problem.stop_rows[spread(len(problem.stop_rows), _SAMPLES)]
    members, sums = number_of(net), np.zeros((len(RATIOS), 2))
    for number, start in enumerate(range(0, len(rows), _BATCH)):
        at = rows[start : start + _BATCH]
        batch = to_batch(problem.encode(at, known=problem.nothing(at)), problem.fold[at], number % members).to(device)
        for k, ratio in enumerate(RATIOS):
            sums[k] += objective.alignment(batch, net, ratio, key_of(seed, f"trust {number}", k))
    return [float(w) for w in np.clip(sums[:, 0] / np.maximum(sums[:, 1], 1e-12), 0.0, 1.0)]
