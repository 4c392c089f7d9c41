"""Paths that stay: increments add up, bridges have the law of Brownian motion, and the adaptive SDE follows them."""

import numpy as np
import torch

from undrift.denoise.exact import Gaussian
from undrift.infer.sample import sample
from undrift.process import LinearLogSNR
from undrift.solve.brownian import BrownianPath
from undrift.solve.sde import ImprovedEuler
from undrift.solve.step_size import Adaptive

CPU = torch.device("cpu")


def at(*values):
    return torch.tensor(values, dtype=torch.float64, device=CPU)


def test_a_shorter_step_follows_the_same_path(measured):
    x = torch.zeros(2, 3, dtype=torch.float64)
    path = BrownianPath(x, seed=1)
    zero = at(0.0, 0.0)
    whole = path.increment(zero, at(0.5, 0.8))
    first = path.increment(zero, at(0.2, 0.3))
    rest = path.increment(at(0.2, 0.3), at(0.5, 0.8))
    off = (first + rest - whole).abs().max()
    measured(BrownianPath, "two increments of a step tried again", "the whole step's", 0, off, within=1e-14)
    again = BrownianPath(x, seed=1)
    torch.testing.assert_close(again.increment(zero, at(0.5, 0.8)), whole)
    assert not torch.equal(BrownianPath(x, seed=2).increment(zero, at(0.5, 0.8)), whole)


def test_increments_have_the_law_of_brownian_motion(measured):
    """W(1) first, then points inside it, whose covariance is the smaller of two times."""
    n = 400
    path = BrownianPath(torch.zeros(n, 50, dtype=torch.float64), seed=0)
    times = (1.0, 0.4, 0.1, 0.7)
    zero = torch.zeros(n, dtype=torch.float64)
    values = np.stack([path.increment(zero, zero + t).numpy().ravel() for t in times])
    found = values @ values.T / values.shape[1]
    expected = np.minimum.outer(times, times)
    error = np.sqrt((np.outer(times, times) + expected**2) / values.shape[1])
    off = (np.abs(found - expected) / error).max()
    measured(BrownianPath, "covariance at four times, standard errors", "min(s, t)", "4.5 at most", off, most=4.5)


def test_the_adaptive_sde_has_the_moments_and_smaller_tolerances_smaller_errors():
    """Gotta go fast on a Gaussian: moments within their standard errors at a small tolerance, rows stop by themselves."""
    variances = np.array([2.0, 0.3])
    mean = np.array([1.0, -0.5])
    process = LinearLogSNR(4.0, -5.0)
    denoiser = Gaussian(mean, variances, process)
    n = 300
    alpha, sigma = (float(v(at(1.0))[0]) for v in (process.alpha, process.sigma))
    z = np.random.default_rng(0).normal(size=(n, 2))
    x_1 = torch.tensor(alpha * mean + np.sqrt(alpha**2 * variances + sigma**2) * z)
    found = sample(denoiser, x_1, nfe=4000, solver=ImprovedEuler(), grid=Adaptive(0.02, 0.02), denoise=False)
    assert found.status == "done" and found.error is not None and (found.error > 0).all()
    alpha, sigma = (float(v(at(0.0))[0]) for v in (process.alpha, process.sigma))
    expected = alpha**2 * variances + sigma**2
    x = found.x.numpy()
    assert (np.abs(x.mean(0) - alpha * mean) < 4.5 * np.sqrt(expected / n)).all()
    assert (np.abs(x.var(0) / expected - 1) < 4.5 * np.sqrt(2 / n)).all()
    coarse = sample(denoiser, x_1[:50], nfe=4000, solver=ImprovedEuler(), grid=Adaptive(0.1, 0.1), denoise=False)
    fine = sample(denoiser, x_1[:50], nfe=4000, solver=ImprovedEuler(), grid=Adaptive(0.02, 0.02), denoise=False)
    assert coarse.nfe < fine.nfe / 2
    # a row's numbers do not depend on the rows beside it
    alone = sample(denoiser, x_1[:10], nfe=4000, solver=ImprovedEuler(), grid=Adaptive(0.1, 0.1), denoise=False)
    assert alone.nfe <= coarse.nfe
