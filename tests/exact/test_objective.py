"""Denoising score matching: its minimiser is the conditional mean, and its value there is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from undrift.denoise.guess import FoldedGuess, GaussianGuess
from undrift.objective.denoising import LOG_RATIO_EDGES, DenoisingScoreMatching, Regression
from undrift.objective.matching import mean_of_known
from undrift.objective.times import LogNormal
from undrift.process import EDM
from undrift.tasks.batch import Batch, Condition

CPU = torch.device("cpu")
COVARIANCE = np.array([[2.0, 0.9, 0.2], [0.9, 1.0, -0.3], [0.2, -0.3, 0.5]])
FLOOR = 0.8


class Linear(torch.nn.Module):
    """F = weights (c_in y): the loss is quadratic in the weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x, t, vector):
        return x @ self.weights.T


def fixed(sigma):
    return lambda count, process, generator: torch.full((count,), sigma / (1 + sigma), dtype=torch.float64, device=CPU)


def gaussian_batch(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3)) @ np.linalg.cholesky(COVARIANCE).T
    x = torch.from_numpy(x)[:, None]
    return Batch(x, Condition(), torch.ones_like(x), torch.zeros(n, dtype=torch.long))


def objective(sigma, floor=FLOOR):
    return DenoisingScoreMatching(EDM(), FoldedGuess([GaussianGuess(floor=floor)]), fixed(sigma))


def preconditioning(sigma):
    return FLOOR / (FLOOR + sigma**2), sigma * math.sqrt(FLOOR / (FLOOR + sigma**2)), 1 / math.sqrt(FLOOR + sigma**2)


def exact_gain(sigma):
    return COVARIANCE @ np.linalg.inv(COVARIANCE + sigma**2 * np.eye(3))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_minimiser_is_the_exact_denoiser(sigma, measured):
    n = 40_000
    batch, loss = gaussian_batch(n), objective(sigma)

    def total(flat):
        return loss(batch, Linear(flat.reshape(3, 3)), key=1)[0].mean()

    zero = torch.zeros(9, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(total, zero)
    hessian = torch.autograd.functional.hessian(total, zero)
    weights = torch.linalg.solve(hessian, -gradient).reshape(3, 3).numpy()
    c_skip, c_out, c_in = preconditioning(sigma)
    gain = c_skip * np.eye(3) + c_out * c_in * weights
    posterior = COVARIANCE - exact_gain(sigma) @ COVARIANCE
    spread = np.linalg.inv(COVARIANCE + sigma**2 * np.eye(3))
    error = np.sqrt(np.outer(np.diag(posterior), np.diag(spread)) / n)  # of least squares
    worst = (np.abs(gain - exact_gain(sigma)) / (error + 2e-7)).max()
    of = f"minimiser, sigma {sigma:g}"
    measured(DenoisingScoreMatching, of, "gain of a Gaussian (standard errors)", "≤ 4.5", worst, most=4.5)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_loss_at_the_exact_denoiser_is_what_cannot_be_explained(sigma, measured):
    n = 40_000
    c_skip, c_out, c_in = preconditioning(sigma)
    weights = (exact_gain(sigma) - c_skip * np.eye(3)) / (c_out * c_in)
    loss, facts = objective(sigma)(gaussian_batch(n), Linear(torch.from_numpy(weights)), key=2)
    posterior = COVARIANCE - exact_gain(sigma) @ COVARIANCE
    expected = np.trace(posterior) / 3 / c_out**2
    away = (float(loss.mean()) - expected) / (float(loss.std()) / math.sqrt(n))
    of = f"value at the exact denoiser, sigma {sigma:g}"
    measured(DenoisingScoreMatching, of, "posterior variance (standard errors)", 0, away, within=4.5)
    bins = facts["loss_by_noise"].numpy()
    at = np.searchsorted(LOG_RATIO_EDGES, math.log(sigma))
    assert bins[at] == pytest.approx(float(loss.mean()))
    assert np.isnan(np.delete(bins, at)).all()


def test_a_fresh_network_begins_at_the_loss_of_the_guess():
    """With the true variance as guess and F = 0, white data give a loss of one at each noise level."""
    n = 20_000
    x = torch.from_numpy(math.sqrt(FLOOR) * np.random.default_rng(0).normal(size=(n, 1, 3)))
    batch = Batch(x, Condition(), torch.ones_like(x), torch.zeros(n, dtype=torch.long))
    for sigma in (0.05, 1.0, 20.0):
        loss, _ = objective(sigma)(batch, Linear(torch.zeros(3, 3, dtype=torch.float64)), key=3)
        assert abs(float(loss.mean()) - 1) < 4.5 * float(loss.std()) / math.sqrt(n)


def test_missing_cells_have_no_part():
    batch = gaussian_batch(64)
    weight = torch.ones_like(batch.x)
    weight[:, :, 1] = 0
    weights = torch.zeros(3, 3, dtype=torch.float64)
    loss = objective(1.0)
    full = loss(batch, Linear(weights), key=4)[0]
    part = loss(Batch(batch.x, batch.condition, weight, batch.fold), Linear(weights), key=4)[0]
    with_nonsense = batch.x.clone()
    with_nonsense[:, :, 1] = 1e3
    again = loss(Batch(with_nonsense, batch.condition, weight, batch.fold), Linear(weights), key=4)[0]
    torch.testing.assert_close(part, again)
    assert not torch.allclose(part, full)
    none = loss(Batch(batch.x, batch.condition, torch.zeros_like(weight), batch.fold), Linear(weights), key=4)[0]
    assert (none == 0).all()


def test_a_row_is_preconditioned_by_the_guess_without_its_fold():
    batch = gaussian_batch(6)
    guesses = [GaussianGuess(floor=0.5), GaussianGuess(floor=2.0)]
    net = Linear(torch.eye(3, dtype=torch.float64))
    fold = torch.tensor([0, 1, 0, 1, 1, 0])
    got = DenoisingScoreMatching(EDM(), FoldedGuess(guesses), fixed(0.7))(
        Batch(batch.x, batch.condition, batch.weight, fold), net, key=5
    )[0]
    for k, guess in enumerate(guesses):
        alone = DenoisingScoreMatching(EDM(), FoldedGuess([guess]), fixed(0.7))(batch, net, key=5)[0]
        torch.testing.assert_close(got[fold == k], alone[fold == k])
        assert not torch.allclose(got[fold != k], alone[fold != k])


def test_the_key_fixes_all_draws():
    batch, net = gaussian_batch(8), Linear(torch.eye(3, dtype=torch.float64))
    loss = DenoisingScoreMatching(EDM(), FoldedGuess([GaussianGuess()]))
    a, b, c = (loss(batch, net, key)[0] for key in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_loss_by_noise_is_the_mean_over_each_bin():
    batch, net = gaussian_batch(500), Linear(torch.eye(3, dtype=torch.float64))
    t = []

    def times(count, process, generator):
        t.append(LogNormal()(count, process, generator))
        return t[-1]

    loss, facts = DenoisingScoreMatching(EDM(), FoldedGuess([GaussianGuess()]), times)(batch, net, key=1)
    log_ratio = np.log(t[0].numpy() / (1 - t[0].numpy()))
    at = np.digitize(log_ratio, LOG_RATIO_EDGES)
    for i, value in enumerate(facts["loss_by_noise"].tolist()):
        if (at == i).any():
            assert value == pytest.approx(float(loss.numpy()[at == i].mean()))
        else:
            assert math.isnan(value)


@pytest.mark.parametrize(("mean", "std"), [(-0.6, 1.4), (-1.2, 1.2)])
def test_the_law_of_times_is_log_normal_and_stratified(mean, std, measured):
    law, process = LogNormal(mean, std), EDM()
    t = law(256, process, torch.Generator("cpu").manual_seed(0)).numpy()
    assert t.dtype == np.float64
    u = stats.norm.cdf((np.log(t / (1 - t)) - mean) / std)
    offset = (np.sort(u) * 256 - np.arange(256))[np.sort(t) < process.t_max]
    np.testing.assert_allclose(offset, offset[0], atol=1e-6)  # one in each of 256 equal parts, at one place in it
    assert 0 <= offset[0] <= 1
    assert np.abs(np.corrcoef(np.arange(256), u)[0, 1]) < 4.5 / 16  # the order is random
    draws = np.concatenate([law(1, process, torch.Generator("cpu").manual_seed(i)).numpy() for i in range(400)])
    p = stats.kstest(stats.norm.cdf((np.log(draws / (1 - draws)) - mean) / std), "uniform").pvalue
    measured(
        LogNormal, f"p of log(sigma / alpha), {mean:g} ± {std:g}", "Kolmogorov and Smirnov", "≥ 1e-4", p, least=1e-4
    )
    one = LogNormal(mean, 0.0)(16, process, torch.Generator("cpu").manual_seed(0)).numpy()
    np.testing.assert_allclose(np.log(one / (1 - one)), mean, atol=1e-12)
    with pytest.raises(ValueError, match=f"std is {-std}, expected at least 0"):
        LogNormal(mean, -std)
    far = LogNormal(8.0, 1.0)(64, process, torch.Generator("cpu").manual_seed(0))
    assert float(far.max()) == process.t_max


def test_regression_is_the_mean_squared_error_at_no_input(agrees):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 1, 5))).float()
    weight = torch.ones_like(x)
    weight[0, 0, :2] = 0
    given = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 1, 5))).float()

    class Copy(torch.nn.Module):
        def forward(self, x, t, vector):
            assert (x[:, :1] == 0).all() and (t == 0).all()
            return 0.5 * x[:, 1:]

    batch = Batch(x, Condition({"given": given}), weight, torch.zeros(4, dtype=torch.long))
    loss, facts = Regression()(batch, Copy(), key=0)
    square = (0.5 * given - x).numpy() ** 2
    expected = [square[0, 0, 2:].mean(), *square[1:, 0].mean(1)]
    agrees(Regression, "mean over known cells, float32", "numpy's mean", loss, expected, rtol=1e-5)
    known = mean_of_known(torch.from_numpy(square), weight)
    agrees(mean_of_known, "of four fields, float32", "numpy's mean", known, expected, rtol=1e-5)
    assert facts == {}
