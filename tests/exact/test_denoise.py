"""Denoisers: the Gaussian guess against explicit matrices, and EDM's table."""

import numpy as np
import pytest
import torch

from undrift.denoise.guess import FoldedGuess, GaussianGuess, fit_guess
from undrift.denoise.precondition import Preconditioned, coefficients
from undrift.process import EDM, RectifiedFlow
from undrift.process.process import Process
from undrift.tasks.batch import Condition

CPU = torch.device("cpu")
RNG = np.random.default_rng
RATIOS = [0.05, 0.7, 12.0]


def modes_and_covariance(size=12, k=3, floor=0.4, seed=0):
    q, _ = np.linalg.qr(RNG(seed).normal(size=(size, size)))
    variances = np.array([5.0, 2.0, 0.1][:k])
    modes = q[:, :k].T.astype(np.float32).astype(np.float64)
    covariance = modes.T @ np.diag(variances) @ modes + floor * (np.eye(size) - modes.T @ modes)
    return GaussianGuess(torch.from_numpy(modes), torch.from_numpy(variances), floor), covariance


@pytest.mark.parametrize("r", RATIOS)
def test_guess_is_the_posterior_of_its_covariance(r, agrees):
    guess, c = modes_and_covariance()
    y = RNG(1).normal(size=(4, 2, 2, 3))
    ratio = torch.full((4,), r, dtype=torch.float64, device=CPU)
    gain = c @ np.linalg.inv(c + r**2 * np.eye(12))
    expected = (y.reshape(4, -1) @ gain.T).reshape(y.shape)
    found, dense = guess.denoise(torch.from_numpy(y), ratio), "conditioning in numpy"
    agrees(GaussianGuess, "E[x | y], modes in float32", dense, found, expected, rtol=2e-6, atol=2e-6)
    posterior = np.full(4, np.trace(c - gain @ c) / 12)
    agrees(GaussianGuess, "posterior variance", dense, guess.posterior_variance(ratio, 12), posterior, rtol=1e-6)
    agrees(GaussianGuess, "mean variance", dense, guess.total(12), np.trace(c) / 12, rtol=1e-9)


def test_each_row_has_its_own_noise():
    guess, _ = modes_and_covariance()
    y = torch.from_numpy(RNG(1).normal(size=(3, 1, 12)))
    ratio = torch.tensor(RATIOS, dtype=torch.float64, device=CPU)
    together = guess.denoise(y, ratio)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], guess.denoise(y[i : i + 1], ratio[i : i + 1]))


class Recorder(torch.nn.Module):
    """A network that returns a fixed multiple of its first channel and remembers what it saw."""

    def __init__(self, channels=1, factor=0.3):
        super().__init__()
        self.channels, self.factor, self.seen = channels, factor, None

    def forward(self, x, t, vector):
        self.seen = (x, t, vector)
        return self.factor * x[:, : self.channels]


@pytest.mark.parametrize("sigma", [0.02, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_white_guess_is_the_preconditioning_of_edm(sigma, sigma_data, agrees):
    """Karras et al. 2022, table 1: c_skip, c_out, c_in written down anew."""
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / np.sqrt(sigma**2 + sigma_data**2)
    c_in = 1 / np.sqrt(sigma**2 + sigma_data**2)
    net = Recorder()
    x = RNG(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    condition = Condition({"given": torch.full((2, 2, 4, 4), 7.0)}, {"year": torch.ones(2, 3)})
    t = torch.full((2,), sigma / (1 + sigma), dtype=torch.float64, device=CPU)
    guess = GaussianGuess(floor=sigma_data**2)
    estimate = Preconditioned(net, EDM(), guess)(torch.from_numpy(x), t, condition)
    expected = c_skip * x + c_out * 0.3 * c_in * x
    table = "Karras et al. (2022), table 1"
    agrees(Preconditioned, "x around a network, float32", table, estimate.x, expected, rtol=2e-5, atol=1e-6)
    seen, label, vector = net.seen
    np.testing.assert_allclose(seen[:, :1].numpy(), c_in * x, rtol=1e-5)
    assert (seen[:, 1:] == 7).all() and (vector == 1).all()
    np.testing.assert_allclose(label.numpy(), np.arctan(sigma), rtol=1e-6)
    got = torch.cat(coefficients(guess, torch.tensor([sigma], dtype=torch.float64), 16))
    agrees(coefficients, "c_in, c_out", table, got, [c_in, c_out], rtol=1e-12)


class Cosine(Process):
    """alpha = cos, sigma = sin: a process whose alpha is not 1, for the rescaling in between."""

    t_min, t_max = 0.0, 0.99

    def alpha(self, t):
        return torch.cos(t * torch.pi / 2)

    def sigma(self, t):
        return torch.sin(t * torch.pi / 2)

    def alpha_dot(self, t):
        return -torch.pi / 2 * self.sigma(t)

    def sigma_dot(self, t):
        return torch.pi / 2 * self.alpha(t)

    def t_of_ratio(self, ratio):
        return torch.atan(ratio) * 2 / torch.pi


@pytest.mark.parametrize("process", [EDM(), Cosine()], ids=["edm", "cosine"])
def test_the_estimate_explains_the_noisy_field(process, agrees):
    """x_t = alpha x + sigma z, with x and z of the same Estimate; and x is the guess's plus c_out F."""
    guess, c = modes_and_covariance()
    net = Recorder()
    x_t = torch.from_numpy(RNG(2).normal(size=(3, 1, 12)))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, device=CPU)
    estimate = Preconditioned(net, process, guess)(x_t, t, Condition())
    alpha, sigma = process.alpha(t)[:, None, None], process.sigma(t)[:, None, None]
    torch.testing.assert_close(alpha * estimate.x + sigma * estimate.z, x_t, rtol=1e-9, atol=1e-9)
    for i in range(3):
        a, s = float(alpha[i]), float(sigma[i])
        y, r = x_t[i].numpy().ravel() / a, s / a
        gain = c @ np.linalg.inv(c + r**2 * np.eye(12))
        c_out = np.sqrt(np.trace(c - gain @ c) / 12)
        expected = gain @ y + c_out * 0.3 * y / np.sqrt(r**2 + np.trace(c) / 12)
        found = estimate.x[i, 0]
        agrees(
            Preconditioned, "x around a network, with modes", "dense posterior", found, expected, rtol=3e-6, atol=3e-6
        )


def test_the_estimate_of_pure_noise():
    """alpha = 0: the guess knows its mean, 0, and F sees the noise itself."""
    guess, c = modes_and_covariance()
    x_t = torch.from_numpy(RNG(2).normal(size=(2, 1, 12)))
    t = torch.ones(2, dtype=torch.float64, device=CPU)
    estimate = Preconditioned(Recorder(), RectifiedFlow(), guess)(x_t, t)
    np.testing.assert_allclose(estimate.x.numpy(), 0.3 * np.sqrt(np.trace(c) / 12) * x_t.numpy(), rtol=1e-6)
    np.testing.assert_allclose(estimate.z.numpy(), x_t.numpy(), rtol=1e-6)


def test_the_fitted_guess_finds_the_modes_of_a_gaussian(measured):
    """Three strong modes over white noise: the fitted covariance is near the true one where the white one is not."""
    size, n = 40, 600
    rng = RNG(0)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    variances = np.array([30.0, 12.0, 6.0, *[0.5] * (size - 3)])
    c = q @ np.diag(variances) @ q.T
    fields = rng.normal(size=(n, size)) @ (q * np.sqrt(variances)).T
    guess, folded, facts = fit_guess(fields, np.repeat(np.arange(5), n // 5))
    assert facts["modes"] >= 3 and facts["loss"] < facts["white"]
    identity = torch.eye(size, dtype=torch.float64)[:, None]
    for r in (0.3, 2.0):
        exact = c @ np.linalg.inv(c + r**2 * np.eye(size))
        got = guess.denoise(identity, torch.full((size,), r, dtype=torch.float64))[:, 0].numpy()
        white = np.trace(c) / size / (np.trace(c) / size + r**2) * np.eye(size)
        left = np.linalg.norm(got - exact) / np.linalg.norm(white - exact)
        measured(
            fit_guess, f"distance from the posterior, ratio {r:g}", "that of a white guess", "≤ 0.35", left, most=0.35
        )
    # its likelihood is that of an explicit Gaussian, in nats per dimension and up to log(2 pi) / 2
    assert float(guess.total(size)) == pytest.approx((fields**2).sum() / fields.size, rel=1e-5)
    assert not torch.equal(folded.of(0).modes, folded.of(1).modes)


def test_a_guess_without_a_fold_has_not_seen_it(measured):
    rng = RNG(1)
    fields = rng.normal(size=(60, 30)) @ np.diag(np.linspace(3, 0.3, 30))
    fold = np.repeat(np.arange(5), 12)
    _, folded, facts = fit_guess(fields, fold)
    assert facts["modes"] > 0
    changed = fields.copy()
    changed[fold == 2] = rng.normal(size=(12, 30)) @ np.diag(np.linspace(0.3, 3, 30))
    _, again, _ = fit_guess(changed, fold)
    kept = min(len(folded.of(2).modes), len(again.of(2).modes))
    moved = (again.of(2).modes[:kept] - folded.of(2).modes[:kept]).abs().max()
    measured(FoldedGuess, "change of a fold's guess", "other fields in that fold", 0, moved, within=1e-12)
    assert not torch.allclose(again.of(1).modes[:kept], folded.of(1).modes[:kept], atol=1e-3)


def test_the_variance_of_a_mode_is_that_of_held_out_fields(measured):
    """On a short record the components' own eigenvalues are far too large; the fitted ones are the held-out moments."""
    rng = RNG(2)
    n, size = 60, 50
    fold = np.repeat(np.arange(5), n // 5)
    fields = rng.normal(size=(n, size)) * np.where(np.arange(size) < 4, 4.0, 1.0)
    guess, _, facts = fit_guess(fields, fold)
    held = np.zeros(40)
    for k in range(5):
        _, _, vt = np.linalg.svd(fields[fold != k], full_matrices=False)
        held += ((fields[fold == k] @ vt[:40].T) ** 2).sum(0) / n
    kept = facts["modes"]
    assert 2 <= kept <= 10
    away = float(guess.variances.sum()) / held[:kept].sum()
    measured(fit_guess, "variance of the modes", "that of held-out fields", 1, away, within=0.02)
    own = np.linalg.svd(fields, compute_uv=False)[:kept] ** 2 / n
    assert own.sum() > 1.1 * float(guess.variances.sum())
    assert float(guess.total(size)) == pytest.approx((fields**2).mean(), rel=1e-9)


def test_white_fields_get_a_white_guess():
    fields = RNG(0).normal(size=(200, 30)) * 0.7
    guess = fit_guess(fields, np.repeat(np.arange(5), 40))[0]
    y = torch.from_numpy(RNG(1).normal(size=(1, 1, 30)))
    got = guess.denoise(y, torch.tensor([0.5], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(got, 0.49 / (0.49 + 0.25) * y.numpy(), rtol=0.12, atol=0.02)


def test_what_was_remembered_in_inference_mode_serves_a_gradient():
    guess, c = modes_and_covariance()
    denoiser, x_t = Preconditioned(Recorder(), EDM(), guess), torch.from_numpy(RNG(2).normal(size=(2, 1, 12)))
    t = torch.tensor(0.5, dtype=torch.float64, device=CPU)  # sigma = 1
    with torch.inference_mode():
        denoiser(x_t.clone(), t.expand(2))
    _, back = denoiser.pullback(x_t, t.expand(2))
    gain = c @ np.linalg.inv(c + np.eye(12))
    c_out = np.sqrt(np.trace(c - gain @ c) / 12)
    whole = gain + 0.3 * c_out / np.sqrt(1 + np.trace(c) / 12) * np.eye(12)
    np.testing.assert_allclose(back(x_t).numpy().reshape(2, 12), x_t.numpy().reshape(2, 12) @ whole, atol=3e-6)
