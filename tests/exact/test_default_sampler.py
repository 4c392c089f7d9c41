"""What a caller of ``sample`` gets who chooses nothing but the number of evaluations, beside the flow in closed form."""

import numpy as np
import torch

from undrift.denoise.exact import Gaussian
from undrift.infer import sample
from undrift.process import EDM

STDS, MEAN = np.array([0.3, 1.0, 2.0]), np.array([0.5, -1.0, 2.0])
BUDGETS = (10, 20, 40, 80, 160, 320)


def errors(budgets, sigma_min=0.0):
    """Largest distance from the end of the flow of a Gaussian, denoised where the flow ends at noise.

    ``x_t = m + sqrt(std^2 + sigma_min^2) / sqrt(std^2 + sigma_max^2) (x_1 - m)``, and of it E[x | x_t].
    """
    x_1 = 80 * np.random.default_rng(0).normal(size=(20, 3))
    end = STDS**2 + sigma_min**2
    expected = MEAN + STDS**2 / end * (x_1 - MEAN) * np.sqrt(end / (STDS**2 + 80**2))
    law = Gaussian(MEAN, STDS**2, EDM(80.0, sigma_min))
    draws = [sample(law, torch.tensor(x_1), nfe=nfe) for nfe in budgets]
    assert [(d.nfe, d.status) for d in draws] == [(nfe, "done") for nfe in budgets]
    return [np.abs(d.x.numpy() - expected).max() for d in draws]


def test_the_default_converges_to_the_flow_with_order_three(measured):
    found = dict(zip(BUDGETS, errors(BUDGETS)))
    measured(sample, "error of 10 evaluations", "flow of a Gaussian", "≤ 0.05", found[10], most=0.05)
    measured(sample, "error of 320 evaluations", "flow of a Gaussian", "≤ 1e-6", found[320], most=1e-6)
    slope = np.log2(found[80] / found[320]) / 2
    measured(sample, "order, 80 to 320 evaluations", "3, that of its solver", "≥ 2.85", slope, least=2.85)


def test_a_run_that_ends_at_noise_ends_with_a_denoising(measured):
    (error,) = errors([321], 0.2)
    measured(sample, "error, sigma_min 0.2, 321 evaluations", "E[x | x_t] after the flow", "≤ 1e-6", error, most=1e-6)
