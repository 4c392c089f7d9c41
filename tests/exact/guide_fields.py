"""A Gaussian random field that was observed, in numpy, and the guides that observe it."""

import numpy as np
import pytest
import torch

from undrift.denoise.exact import GaussianRandomField
from undrift.guide import BlockMeans, FourierModes, Mask, Observation, Points, RegionalSums
from undrift.infer import sample
from undrift.process import EDM, LinearBeta, RectifiedFlow

CPU = torch.device("cpu")
SPACE, CELLS = (4, 6), 24
RNG = np.random.default_rng(0)
RADIUS = np.hypot(*np.meshgrid(np.fft.fftfreq(4), np.fft.fftfreq(6), indexing="ij"))
POWER = np.maximum(RADIUS, 1 / 6) ** -2.0
POWER /= POWER.mean()
BASIS = np.eye(CELLS).reshape(CELLS, *SPACE)
COVARIANCE = np.fft.ifft2(np.fft.fft2(BASIS) * POWER).real.reshape(CELLS, CELLS)
TRUTH = np.linalg.cholesky(COVARIANCE) @ RNG.normal(size=CELLS)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, device=CPU)


def fields(values):
    return tensor(values).reshape(-1, 1, *SPACE)


OPERATORS = {
    "mask": Mask(torch.tensor(RNG.uniform(size=SPACE) > 0.7, device=CPU)),
    "block means": BlockMeans(2),
    "points": Points(tensor(RNG.uniform(0, 4, (5, 2))), periodic=True),
    "waves": FourierModes(torch.tensor([[0, 0], [1, 0], [1, 2], [2, 3]], device=CPU)),
    "regional sums": RegionalSums(tensor(RNG.normal(size=(3, 1, *SPACE)))),
}
LEVELS = (0.1, 1.0)
PROCESSES = {"EDM": EDM(), "rectified flow": RectifiedFlow(), "VP": LinearBeta()}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
each_level = pytest.mark.parametrize("std", LEVELS)
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def prior(process):
    return GaussianRandomField(tensor(POWER), process)


def problem(operator, std, seed=1):
    """The operator's matrix, what was observed, and the observation."""
    matrix = operator(fields(BASIS)).T.numpy()
    observed = matrix @ TRUTH + std * np.random.default_rng(seed).normal(size=len(matrix))
    return matrix, observed, Observation(operator, tensor(observed), std)


def posterior(matrix, observed, errors, covariance=COVARIANCE):
    """Mean and covariance of the field given the observation, of errors of a covariance."""
    gain = np.linalg.solve(matrix @ covariance @ matrix.T + errors, matrix @ covariance).T
    return gain @ observed, covariance - gain @ matrix @ covariance


def estimate(x_t, alpha, sigma, mean, covariance):
    """E[x | x_t] of a Gaussian, row by row."""
    return np.array(
        [
            mean + a * covariance @ np.linalg.solve(a**2 * covariance + s**2 * np.eye(CELLS), x - a * mean)
            for x, a, s in zip(x_t, alpha, sigma)
        ]
    )


def noisy(process, times=(0.02, 0.3, 0.6, 0.9), seed=2):
    t = tensor(times)
    spread = (process.alpha(t) ** 2 + process.sigma(t) ** 2).sqrt().numpy()
    return t, np.random.default_rng(seed).normal(size=(len(times), CELLS)) * spread[:, None]


EXACT = {"iterations": 200, "tolerance": 1e-11}


def affine(denoiser, **options):
    """Matrix and offset of the map from x_1 to what is drawn, by its columns."""
    start = np.concatenate([np.zeros((1, CELLS)), np.eye(CELLS)])
    drawn = sample(denoiser, fields(start), **options)
    assert drawn.status == "done"
    out = drawn.x.flatten(1).numpy()
    return (out[1:] - out[0]).T, out[0]


def step(solver, denoiser, process, x, t, s, noise):
    """One step of many rows, with noise that is given."""

    def evaluate(x_t, at):
        return denoiser(x_t, at.expand(len(x_t)))

    state = solver.init(fields(x))
    return solver.step(evaluate, state, process, t, s, lambda stage: fields(noise)).x.flatten(1).numpy()
