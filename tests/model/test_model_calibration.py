"""The scale of the residuals is that of what training left out of fold, whatever the network adds."""

import numpy as np
import pytest
from model_fields import fields, tiny_fit

from undrift.distributions.calibrate import calibrate


class Loud:
    """A law that draws white noise of a known standard deviation."""

    net, guess, micro_batch = None, None, 8

    def __init__(self, std):
        self.std = std

    def sample(self, condition, z, nfe, member):
        return self.std * z


@pytest.mark.parametrize("std", [0.7, 1.0, 1.4])
def test_drawn_residuals_get_the_mean_square_of_out_of_fold_ones(std):
    model = tiny_fit(fields(), steps=2)
    problem = model.problem
    before = model.codec.scale.copy()
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    x = np.concatenate([problem.encode(np.array([row])).x for row in rows])
    (factor,) = calibrate(Loud(std), problem, model.device, nfe=2)
    numbers = 2 * len(rows) * x[0].size  # drawn; the mean square of n normal numbers is known to sqrt(2 / n)
    expected = np.sqrt((x**2).mean()) / std
    assert factor == pytest.approx(expected, rel=4 * np.sqrt(0.5 / numbers))
    np.testing.assert_allclose(model.codec.scale, before * factor, rtol=1e-12)


def test_samples_near_those_that_stop_the_training_do_not_train():
    """Residuals that stay alike for some days: as many days before and after the stopping blocks are left out."""
    smooth = fields(120)
    noise = np.random.default_rng(3).normal(size=(120, 8, 12))
    slow = np.zeros_like(noise)
    for i in range(1, 120):
        slow[i] = 0.8 * slow[i - 1] + 0.6 * noise[i]
    smooth["tas"] = smooth["tas"] + 2 * slow.astype(np.float32)
    problem = tiny_fit(smooth, steps=2).problem
    assert 2 <= problem.memory <= 8  # 0.8^lag falls below 1/e at 4.5
    distance = np.abs(problem.fit_rows[:, None] - problem.stop_rows).min()
    assert distance == problem.memory
    white = tiny_fit(fields(120), steps=2).problem
    assert white.memory == 1
