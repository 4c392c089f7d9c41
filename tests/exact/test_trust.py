"""Trust in a network beside the Gaussian guess: its closed form for a Gaussian law."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from undrift.denoise.guess import FoldedGuess, GaussianGuess
from undrift.denoise.precondition import coefficients
from undrift.denoise.trust import RATIOS, Trusted
from undrift.objective.denoising import DenoisingScoreMatching
from undrift.process import EDM
from undrift.tasks.batch import Batch, Condition

CPU = torch.device("cpu")
SIZE, ROWS, VARIANCE = 24, 200, 4.0


def batch():
    """White fields of variance 4."""
    x = 2 * torch.randn(ROWS, 1, SIZE, generator=torch.Generator().manual_seed(0))
    return Batch(x, Condition(), torch.ones_like(x), torch.zeros(ROWS, dtype=torch.long, device=CPU), 0)


class Answer(nn.Module):
    """So many times what is missing beside a guess of variance 1, or noise of its own."""

    def __init__(self, times, noise=0.0):
        super().__init__()
        self.times, self.noise = times, noise

    def forward(self, x, label, vector):
        ratio = torch.tan(label.double())
        c_in, c_out = coefficients(GaussianGuess(), ratio, SIZE)
        missing = VARIANCE / (VARIANCE + ratio**2) - 1 / (1 + ratio**2)
        right = (missing / c_out / c_in)[:, None, None] * x
        return (self.times * right + self.noise * torch.sin(1e4 * x)).to(x.dtype)


def trust(net, guess, ratio):
    objective = DenoisingScoreMatching(EDM(), FoldedGuess([guess]))
    cross, power = objective.alignment(batch(), net, ratio, key=1)
    return cross / power


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_trust_by_least_squares(ratio, measured):
    """Of what is missing beside a guess of a fourth of the variance: 1, and 1 / 2 where the network says it twice."""
    power = VARIANCE + ratio**2  # of y, so that w is uncertain by about 1 / sqrt(numbers) of the residual over F
    missing = VARIANCE / power - 1 / (1 + ratio**2)
    error = math.sqrt(VARIANCE * ratio**2 / power / (missing**2 * power) / (ROWS * SIZE))
    for times in (1.0, 2.0):
        found = trust(Answer(times), GaussianGuess(), ratio)
        measured(DenoisingScoreMatching, f"trust in {times:g} times the truth", "1 over it", 1 / times, found,
                 within=4 * error / times)  # fmt: skip


def test_noise_beside_an_exact_guess_is_not_trusted(measured):
    found = trust(Answer(0.0, noise=1.0), GaussianGuess(floor=VARIANCE), 1.0)
    error = math.sqrt(2 / (ROWS * SIZE))  # F^2 is 1 / 2 on average, and the wanted F has unit variance
    measured(DenoisingScoreMatching, "trust in noise", "0", 0, found, within=4 * error)


def test_the_output_is_multiplied_by_the_trust_at_its_noise(agrees):
    values = [0.1, 0.9, 0.3, 0.5, 1.0, 0.0, 0.2, 0.7, 0.4]
    labels = np.arctan(np.concatenate([[1e-3], RATIOS, [0.2, 0.9, 8.0, 80.0]]))
    x = torch.ones(len(labels), 1, 3, dtype=torch.float64, device=CPU)
    found = Trusted(Answer(1.0), values)(x, torch.from_numpy(labels), None)
    plain = Answer(1.0)(x, torch.from_numpy(labels), None)
    expected = np.interp(labels, np.arctan(RATIOS), values)[:, None, None] * plain.numpy()
    agrees(Trusted, "output", "numpy's interp of the trust", found, expected, rtol=1e-12)
