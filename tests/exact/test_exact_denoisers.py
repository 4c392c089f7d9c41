"""Exact denoisers against dense conditioning, quadrature and Bayes' rule, written with numpy and scipy alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad, quad_vec
from scipy.special import logsumexp
from scipy.stats import gamma, multivariate_normal, multivariate_t, norm
from scipy.stats import t as student

from undrift.denoise.exact import Gaussian, GaussianRandomField, Mixture
from undrift.denoise.scales import Scales
from undrift.process import EDM, Coloured, Empirical, FromSchedule, RectifiedFlow, StudentT

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from implementations import PROCESSES

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(3, 4))
ROOTS = RNG.normal(size=(3, 4, 4))
COVARIANCES = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.1 * np.eye(4)
WEIGHTS = np.array([0.2, 0.5, 0.3])


def oracle(x_t, alpha, sigma, means=MEANS, covariances=COVARIANCES, weights=WEIGHTS, noise=None):
    """E[x | x_t], E[z | x_t] and log p(x_t) by conditioning joint Gaussians of (x, z, x_t)."""
    noise = np.eye(len(x_t)) if noise is None else noise
    logs, xs, zs = [], [], []
    for m, c, w in zip(means, covariances, weights):
        s = alpha**2 * c + sigma**2 * noise
        away = np.linalg.solve(s, x_t - alpha * m)
        logs.append(np.log(w) + multivariate_normal(alpha * m, s).logpdf(x_t))
        xs.append(m + alpha * c @ away)
        zs.append(sigma * noise @ away)
    share = np.exp(logs - logsumexp(logs))
    return share @ np.array(xs), share @ np.array(zs), logsumexp(logs)


def compare(agrees, denoiser, x_t, times, covariances, of):
    process, against = denoiser.process, f"dense conditioning, {of}"
    t = torch.tensor(times, dtype=torch.float64, device=CPU)
    found, logs = denoiser(torch.tensor(x_t), t), denoiser.log_prob(torch.tensor(x_t), t)
    expected = [
        oracle(row, float(process.alpha(at)), float(process.sigma(at)), covariances=covariances)
        for row, at in zip(x_t, t)
    ]
    x, z, log = (np.array(v) for v in zip(*expected))
    pairs = np.stack([found.x, found.z]), np.stack([x, z])
    agrees(Mixture, "x and z, every process", against, *pairs, rtol=1e-8, atol=1e-9)
    agrees(Mixture, "log-density, every process", against, logs, log, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("kind", ["covariances", "stds"])
def test_a_mixture_at_every_time_with_both_ends(process, kind, agrees):
    times = [process.t_min, process.t_max, *np.linspace(process.t_min, process.t_max, 5)[1:-1]]
    sigma = process.sigma(torch.tensor(times, dtype=torch.float64)).numpy()
    x_t = RNG.normal(size=(5, 4)) * (1 + sigma[:, None])
    if kind == "covariances":
        mixture = Mixture(MEANS, None, WEIGHTS, process, covariances=COVARIANCES)
        compare(agrees, mixture, x_t, times, COVARIANCES, "covariances")
    else:
        stds = np.sqrt(np.diagonal(COVARIANCES, axis1=1, axis2=2))
        diagonal = np.stack([np.diag(s**2) for s in stds])
        compare(agrees, Mixture(MEANS, stds, WEIGHTS, process), x_t, times, diagonal, "diagonal")


def test_the_score_is_the_gradient_of_the_log_density(agrees):
    mixture = Mixture(MEANS, None, WEIGHTS, RectifiedFlow(), covariances=COVARIANCES)
    x_t, t = torch.tensor(RNG.normal(size=(5, 4))), torch.full((5,), 0.4, dtype=torch.float64)
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x_t, t).sum(), x_t)
    score = mixture(x_t, t).score.detach()
    agrees(Mixture, "score", "gradient of the log-density", score, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dof", [1.0, 3.0, 40.0])
@pytest.mark.parametrize("process", [EDM(), RectifiedFlow()], ids=["EDM", "flow"])
def test_student_noise_against_quadrature_over_the_data(process, dof, agrees):
    """The integral over x of the mixture times the density of Student's t, not over the scale as the denoiser does."""
    means, stds, weights = np.array([-1.5, 0.7]), np.array([0.2, 0.6]), np.array([0.3, 0.7])
    mixture = Mixture(means[:, None], stds[:, None], weights, process, noise=StudentT(dof))
    got, expected = [], []
    for time in (0.1, 0.5, 0.8):
        t = torch.tensor(time, dtype=torch.float64)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        for x_t in (-3.0, 0.1, 4.0):

            def joint(x, power, x_t=x_t, alpha=alpha, sigma=sigma):
                density = sum(w * norm.pdf(x, m, s) for w, m, s in zip(weights, means, stds))
                return x**power * density * student.pdf((x_t - alpha * x) / sigma, dof) / sigma

            points = sorted([-1.5, 0.7, np.clip(x_t / alpha, -5, 5)])
            total, first = (
                quad(joint, -7, 7, args=(k,), points=points, epsabs=1e-15, epsrel=1e-13, limit=500)[0] for k in (0, 1)
            )
            at = torch.tensor([[x_t]], dtype=torch.float64)
            found = mixture(at, t[None])
            got.append([float(mixture.log_prob(at, t[None])), float(found.x)])
            expected.append([np.log(total), first / total])
            assert alpha * float(found.x) + sigma * float(found.z) == pytest.approx(x_t, abs=1e-10)
    of = f"log-density and x, Student's noise, D {dof:g}"
    agrees(Mixture, of, "scipy's quad over the data", got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dof", [5.0, 400.0])
def test_the_scales_integrate_the_law_of_students_scale(dof, agrees):
    """Powers of the scale over ``w ~ Gamma(D/2, rate D/2)``, without data to weigh it."""
    scales = Scales(1, dof, lambda rows, scale: torch.zeros_like(scale), CPU)
    _, scale, log_weight = next(iter(scales))
    found = [float((scale**k * log_weight.exp()).sum()) for k in (0, -2, 2)]
    agrees(Scales, "mean of 1, w and 1 / w", "gamma law", found, [1.0, 1.0, dof / (dof - 2)], rtol=1e-10)


def test_a_gaussian_by_dense_conditioning(agrees):
    t = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    x_t = RNG.normal(size=(4, 4))
    gaussian = Gaussian(MEANS[0], COVARIANCES[0], RectifiedFlow())
    found, logs = gaussian(torch.tensor(x_t), t), gaussian.log_prob(torch.tensor(x_t), t)
    expected = [oracle(row, 1 - float(at), float(at), MEANS[:1], COVARIANCES[:1], [1.0]) for row, at in zip(x_t, t)]
    x, z, log = (np.array(v) for v in zip(*expected))
    dense = "dense conditioning"
    agrees(Gaussian, "x and z, both ends", dense, np.stack([found.x, found.z]), np.stack([x, z]), rtol=1e-9, atol=1e-10)
    agrees(Gaussian, "log-density, both ends", dense, logs, log, rtol=1e-10, atol=1e-10)


def test_student_noise_in_many_dimensions_is_a_student_t_around_a_point(agrees):
    """Data at one point: the density of x_t is the multivariate t itself, proportional to (R^2 + r^2)^{-(N+D)/2}."""
    n, dof, sigma = 300, 5.0, 0.5
    point = Gaussian(np.zeros(n), np.full(n, 1e-16), EDM(), noise=StudentT(dof))
    x_t = RNG.normal(size=(4, n)) * np.array([0.1, 1.0, 3.0, 30.0])[:, None]
    t = torch.full((4,), sigma / (1 + sigma), dtype=torch.float64)
    got = point.log_prob(torch.tensor(x_t), t).numpy()
    radius2 = (x_t**2).sum(1)
    expected = -(n + dof) / 2 * np.log(radius2 + sigma**2 * dof)  # PFGM++, eq. 4, without its constant
    of = "log-density in 300 dimensions, D 5, less its first"
    agrees(Gaussian, of, "Xu et al. (2023), eq. 4", got - got[0], expected - expected[0], rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("dof", [1e8, 1e12, 1e15])
def test_many_added_dimensions_agree_with_white_noise(dof):
    x_t, t = torch.tensor(RNG.normal(size=(3, 4)) * 2), torch.full((3,), 0.6, dtype=torch.float64)
    one, other = (
        Mixture(MEANS, None, WEIGHTS, covariances=COVARIANCES, noise=noise) for noise in (None, StudentT(dof))
    )
    close = {"rtol": 100 / dof + 1e-10, "atol": 100 / dof + 1e-10}
    torch.testing.assert_close(one(x_t, t).x, other(x_t, t).x, **close)
    torch.testing.assert_close(one.log_prob(x_t, t), other.log_prob(x_t, t), **close)


@pytest.mark.parametrize("dof", [60.5, 400.0, 2e4])
def test_student_noise_around_a_point_has_all_digits_of_its_density(dof):
    """Where the prior of the scale is narrow, and its logarithm near 0 taken by a series."""
    point = Gaussian(np.zeros(3), np.full(3, 1e-30), RectifiedFlow(), noise=StudentT(dof))
    x_t, t = RNG.normal(size=(4, 3)), torch.full((4,), 0.5, dtype=torch.float64)
    expected = multivariate_t(np.zeros(3), 0.25 * np.eye(3), df=dof).logpdf(x_t)
    np.testing.assert_allclose(point.log_prob(torch.tensor(x_t), t).numpy(), expected, rtol=0, atol=2e-11)


@pytest.mark.parametrize("shape", [(16,), (4, 6)])
def test_a_random_field_is_the_gaussian_of_its_circulant_covariance(shape, agrees):
    power = Coloured.isotropic(shape, -2.0).power * 1.7
    field, cells = GaussianRandomField(power), int(np.prod(shape))
    # covariance from the definition: the inverse transform of the spectrum at every lag
    lag = np.fft.ifftn(power.numpy()).real
    index = np.stack(np.unravel_index(np.arange(cells), shape), -1)
    covariance = np.array([[lag[tuple((a - b) % shape)] for b in index] for a in index])
    t = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)
    x_t = RNG.normal(size=(3, cells)) * np.array([1, 1, 5])[:, None]
    at = torch.tensor(x_t).reshape(3, *shape)
    found, logs = field(at, t), field.log_prob(at, t)
    zero = np.zeros((1, cells))
    expected = [oracle(row, 1.0, float(s / (1 - s)), zero, covariance[None], [1.0]) for row, s in zip(x_t, t)]
    x, z, log = (np.array(v) for v in zip(*expected))
    pairs, dense = np.stack([found.x.flatten(1), found.z.flatten(1)]), f"dense covariance, {shape}"
    agrees(GaussianRandomField, "x and z", dense, pairs, np.stack([x, z]), rtol=1e-10, atol=1e-10)
    agrees(GaussianRandomField, "log-density", dense, logs, log, rtol=1e-10, atol=1e-8)


def test_a_random_field_in_coloured_noise(agrees):
    """Both covariances are circulant: dense conditioning with them."""
    data, noise = Coloured.isotropic((12,), -2.0), Coloured.isotropic((12,), -1.0)
    field = GaussianRandomField(data.power, RectifiedFlow(), noise=noise)
    basis = torch.eye(12, dtype=torch.float64)
    c, n = data.filtered(basis, 1.0).numpy(), noise.filtered(basis, 1.0).numpy()
    x_t, t = RNG.normal(size=12), 0.3
    s = 0.7**2 * c + 0.3**2 * n
    found = field(torch.tensor(x_t)[None], torch.tensor([t], dtype=torch.float64))
    away, dense = np.linalg.solve(s, x_t), "dense covariances"
    agrees(GaussianRandomField, "x, coloured noise", dense, found.x[0], 0.7 * c @ away, rtol=1e-10, atol=1e-10)
    agrees(GaussianRandomField, "score, coloured noise", dense, found.score[0], -away, rtol=1e-9, atol=1e-9)
    variance = np.diag(c - 0.7**2 * c @ np.linalg.solve(s, c))
    agrees(GaussianRandomField, "posterior variance, coloured noise", dense, found.variance[0], variance, rtol=1e-10)


def circulant(power):
    """The covariance of a one-dimensional spectrum, from its definition."""
    lag = np.fft.ifft(power).real
    return np.array([[lag[(i - j) % len(power)] for j in range(len(power))] for i in range(len(power))])


@pytest.mark.parametrize("kind", ["covariances", "stds", "two fields"])
def test_a_mixture_in_coloured_noise(kind, agrees):
    law = Coloured.isotropic((2,) if kind == "two fields" else (4,), -2.0)
    noise, t = circulant(law.power.numpy()), torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64)
    noise = np.kron(np.eye(2), noise) if kind == "two fields" else noise
    stds = np.sqrt(np.diagonal(COVARIANCES, axis1=1, axis2=2))
    spread = {"stds": stds} if kind == "stds" else {"covariances": COVARIANCES}
    covariances = np.stack([np.diag(s**2) for s in stds]) if kind == "stds" else COVARIANCES
    mixture = Mixture(MEANS, weights=WEIGHTS, process=RectifiedFlow(), noise=law, **spread)
    x_t = RNG.normal(size=(3, 4))
    found, logs = mixture(torch.tensor(x_t), t), mixture.log_prob(torch.tensor(x_t), t)
    expected = [oracle(row, 1 - float(at), float(at), covariances=covariances, noise=noise) for row, at in zip(x_t, t)]
    x, z, log = (np.array(v) for v in zip(*expected))
    of, dense = f"coloured noise, {kind}", "dense conditioning"
    agrees(Mixture, f"x and z, {of}", dense, np.stack([found.x, found.z]), np.stack([x, z]), rtol=1e-9, atol=1e-10)
    agrees(Mixture, f"log-density, {of}", dense, logs, log, rtol=1e-10, atol=1e-10)
    slope = torch.autograd.functional.jacobian(lambda v: mixture(v, t[1:2]).x[0], torch.tensor(x_t[1:2]))[:, 0]
    tweedie = torch.diagonal(slope @ torch.tensor(noise)) * 0.3**2 / 0.7
    agrees(Mixture, f"posterior variance, {of}", "slope of the mean", found.variance[1], tweedie, rtol=1e-8)
    np.testing.assert_allclose(mixture.covariances(), covariances, atol=1e-12)


def test_conditioned_in_coloured_noise(agrees):
    """First Bayes' rule for the observation, then for x_t, both dense; a Gaussian, a mixture and a random field."""
    data, law, t = Coloured.isotropic((4,), -3.0), Coloured.isotropic((4,), -1.0), 0.3
    noise, a, y, std = circulant(law.power.numpy()), RNG.normal(size=(2, 4)), np.array([0.3, -1.0]), 0.4
    x_t, options = RNG.normal(size=4), {"process": RectifiedFlow(), "noise": law}
    cases = {
        Mixture: (Mixture(MEANS, None, WEIGHTS, covariances=COVARIANCES, **options), MEANS, COVARIANCES, WEIGHTS),
        Gaussian: (Gaussian(MEANS[0], COVARIANCES[0], **options), MEANS[:1], COVARIANCES[:1], [1.0]),
        GaussianRandomField: (
            GaussianRandomField(data.power, **options),
            np.zeros((1, 4)),
            circulant(data.power.numpy())[None],
            [1.0],
        ),
    }
    for of, (denoiser, means, covariances, weights) in cases.items():
        inverses = [np.linalg.inv(np.linalg.inv(c) + a.T @ a / std**2) for c in covariances]
        centres = [v @ (np.linalg.solve(c, m) + a.T @ y / std**2) for v, c, m in zip(inverses, covariances, means)]
        evidence = [
            w * multivariate_normal(a @ m, a @ c @ a.T + std**2 * np.eye(2)).pdf(y)
            for w, m, c in zip(weights, means, covariances)
        ]
        share = np.array(evidence) / np.sum(evidence)
        x, z, log = oracle(x_t, 1 - t, t, centres, inverses, share, noise)
        posterior, at = denoiser.conditioned(a, y, std), torch.tensor([t], dtype=torch.float64)
        found, logs = posterior(torch.tensor(x_t)[None], at), posterior.log_prob(torch.tensor(x_t)[None], at)
        got, expected = np.stack([found.x[0], found.z[0]]), np.stack([x, z])
        what = "given an observation, coloured noise"
        agrees(of, f"x and z {what}", "dense conditioning twice", got, expected, rtol=1e-8, atol=1e-9)
        agrees(of, f"log-density {what}", "dense conditioning twice", logs, [log], rtol=1e-9)


def test_a_random_field_in_students_noise(agrees):
    """The scale integrated over with scipy, dense covariances given it; two fields in a row share one scale."""
    data, dof, t = Coloured.isotropic((2, 3), -2.0), 3.0, 0.4
    field = GaussianRandomField(data.power, RectifiedFlow(), noise=StudentT(dof))
    lag = np.fft.ifftn(data.power.numpy()).real
    index = np.stack(np.unravel_index(np.arange(6), (2, 3)), -1)
    one = np.array([[lag[tuple((a - b) % (2, 3))] for b in index] for a in index])
    covariance, x_t = np.kron(np.eye(2), one), RNG.normal(size=12) * 2

    def given(w):
        """Density, E[x], scale times E[z] and E[x^2] of precision w of the noise."""
        s = 0.6**2 * covariance + 0.4**2 / w * np.eye(12)
        away = np.linalg.solve(s, x_t)
        x = 0.6 * covariance @ away
        spread = np.diag(covariance - 0.6**2 * covariance @ np.linalg.solve(s, covariance))
        return multivariate_normal(np.zeros(12), s).pdf(x_t), x, 0.4 / w * away, spread + x**2

    def integrand(w):
        density, *moments = given(w)
        return gamma(dof / 2, scale=2 / dof).pdf(w) * density * np.concatenate([[1.0], *moments])

    total, *_ = quad_vec(integrand, 0, 30, epsabs=1e-30, epsrel=1e-12, points=[0.05, 0.5, 3], limit=2000)
    x, z, second = np.split(total[1:] / total[0], 3)
    at, there = torch.tensor([t], dtype=torch.float64), torch.tensor(x_t).reshape(1, 2, 2, 3)
    found, law = field(there, at), "scipy's quad_vec over the scale"
    got = np.stack([found.x.flatten(), found.z.flatten(), found.variance.flatten()])
    expected = np.stack([x, z, second - x**2])
    agrees(GaussianRandomField, "x, z and variance, Student's noise", law, got, expected, rtol=1e-9, atol=1e-10)
    logs = field.log_prob(there, at)
    agrees(GaussianRandomField, "log-density, Student's noise", law, logs, np.log(total[:1]), rtol=1e-10)


def test_conditioned_on_a_noisy_observation_is_bayes_rule(agrees):
    """In information form, weights by the evidence of each component."""
    a, y, std = RNG.normal(size=(2, 4)), np.array([0.3, -1.0]), 0.4
    posterior = Mixture(MEANS, None, WEIGHTS, RectifiedFlow(), covariances=COVARIANCES).conditioned(a, y, std)
    precision = [np.linalg.inv(c) + a.T @ a / std**2 for c in COVARIANCES]
    covariances = [np.linalg.inv(p) for p in precision]
    means = [v @ (np.linalg.solve(c, m) + a.T @ y / std**2) for v, c, m in zip(covariances, COVARIANCES, MEANS)]
    evidence = [
        w * multivariate_normal(a @ m, a @ c @ a.T + std**2 * np.eye(2)).pdf(y)
        for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES)
    ]
    share, bayes = np.array(evidence) / np.sum(evidence), "Bayes' rule in information form"
    agrees(Mixture, "means given an observation", bayes, posterior.means, means, rtol=1e-8)
    of = "covariances given an observation"
    agrees(Mixture, of, bayes, posterior.covariances(), covariances, rtol=1e-7, atol=1e-9)
    agrees(Mixture, "weights given an observation", bayes, posterior.weights, share, rtol=1e-8)
    x_t, t = RNG.normal(size=(1, 4)), 0.35
    got = posterior(torch.tensor(x_t), torch.tensor([t], dtype=torch.float64))
    x, _, _ = oracle(x_t[0], 0.65, 0.35, means, covariances, share)
    np.testing.assert_allclose(got.x[0], x, rtol=1e-7, atol=1e-8)


def test_a_conditioned_random_field_interpolates_what_was_seen(agrees):
    power = Coloured.isotropic((16,), -2.0).power
    field = GaussianRandomField(power)
    c = field.dense().covariances()[0].numpy()
    a = np.eye(16)[[3, 9]]
    posterior = field.conditioned(a, [1.0, -0.5], 0.01)
    gain = c @ a.T @ np.linalg.inv(a @ c @ a.T + 1e-4 * np.eye(2))
    of, dense, expected = "mean given an observation", "kriging in numpy", gain @ [1.0, -0.5]
    agrees(GaussianRandomField, of, dense, posterior.means[0], expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(posterior.covariances()[0], c - gain @ a @ c, atol=1e-9)


@pytest.mark.parametrize("kind", ["mixture", "field"])
def test_clean_draws_have_the_moments(kind, measured):
    n, generator = 20000, torch.Generator().manual_seed(0)
    if kind == "mixture":
        x = Mixture(MEANS, None, WEIGHTS, covariances=COVARIANCES).sample(n, generator).numpy()
        mean = WEIGHTS @ MEANS
        second = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
    else:
        field = GaussianRandomField(Coloured.isotropic((4,), -2.0).power)
        x, mean = field.sample(n, generator).numpy(), np.zeros(4)
        second = field.dense().covariances()[0].numpy()
    products = x[:, :, None] * x[:, None]
    first = np.abs(x.mean(0) - mean) / x.std(0)
    worst = max(first.max(), (np.abs(products.mean(0) - second) / products.std(0)).max()) * np.sqrt(n)
    of = Mixture if kind == "mixture" else GaussianRandomField
    measured(of, "first and second moments of draws", "closed form (standard errors)", "≤ 4.5", worst, most=4.5)


def test_fields_of_any_shape_and_their_dtype():
    mixture = Mixture(MEANS, 0.5)
    flat = torch.tensor(RNG.normal(size=(3, 4)), dtype=torch.float32)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    field = mixture(flat.reshape(3, 1, 2, 2), t)
    assert field.x.dtype == torch.float32 and field.x.shape == (3, 1, 2, 2)
    torch.testing.assert_close(field.x.reshape(3, 4), mixture(flat, t).x)


def test_a_vector_of_spreads_is_one_for_each_component():
    """Where there are as many components as dimensions too."""
    means, stds = np.array([[0.0, 0.0], [2.0, 1.0]]), np.array([0.4, 0.9])
    mixture, t = Mixture(means, stds, [1.0, 2.0]), torch.tensor([0.3, 0.3], dtype=torch.float64)
    x, sigma = np.array([[0.5, -0.7], [1.0, 2.5]]), float(mixture.process.sigma(t)[0])
    each = [multivariate_normal(m, s**2 + sigma**2).pdf(x) for m, s in zip(means, stds)]
    expected = np.log(each[0] / 3 + 2 * each[1] / 3)
    np.testing.assert_allclose(mixture.log_prob(torch.from_numpy(x), t).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("noise", [None, StudentT(3.0)], ids=["white", "student"])
def test_a_singular_covariance_at_clean_data(noise):
    """x is x_t / alpha, on the line of the law and off it, and z, of which nothing is known, 0; near t = 0 they agree."""
    schedule = FromSchedule(lambda t: 2 - t, lambda t: t)  # alpha(0) = 2
    line = Mixture(
        [[0.0, 0.0], [3.0, 1.0]], process=schedule, covariances=np.stack([np.ones((2, 2)), np.eye(2)]), noise=noise
    )
    x_t = torch.tensor([[1.0, 1.0], [1.0, -0.5]], dtype=torch.float64)
    found = line(x_t, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(found.x, x_t / 2, rtol=1e-12, atol=1e-12)
    assert (found.z == 0).all() and found.variance.abs().max() < 1e-12
    near = line(x_t[:1], torch.full((1,), 1e-9, dtype=torch.float64))
    torch.testing.assert_close(near.x, x_t[:1] / 2, rtol=1e-6, atol=1e-6)


BAD = {
    "expected either stds or covariances": lambda: Mixture(MEANS),
    "stds has numbers": lambda: Mixture(MEANS, 0.0),
    r"stds are \(4, 1\), expected \(3,\), \(3, 4\)": lambda: Mixture(MEANS, [1.0, 2.0, 3.0, 4.0]),
    r"means are \(3,\)": lambda: Mixture([1.0, 2.0, 3.0], 1.0),
    "expected 3 numbers above 0": lambda: Mixture(MEANS, 1.0, [1.0, 0.0, 2.0]),
    r"the noise is \(3,\), expected cells that 4 numbers": lambda: Mixture(MEANS, 1.0, noise=Coloured(torch.ones(3))),
    "the noise is Empirical, expected White": lambda: Mixture(MEANS, 1.0, noise=Empirical(torch.zeros(2, 4))),
    "mean and covariance are": lambda: Gaussian([0.0, 0.0], np.eye(3)),
    r"x_t is \(2, 4, 2\), expected a last part of \(2, 4\)": lambda: GaussianRandomField(torch.ones(2, 4))(
        torch.zeros(2, 4, 2), torch.ones(2) / 2
    ),
    r"expected \(5,\) cells|expected \(4,\) cells": lambda: GaussianRandomField(
        torch.ones(4), noise=Coloured(torch.ones(5))
    ),
    "expected 4 numbers a row": lambda: Mixture(MEANS, 1.0)(torch.zeros(2, 5), torch.ones(2) / 2),
    "means has NaN or infinite": lambda: Mixture([[np.nan, 0.0]], 0.5),
    "mean has NaN or infinite": lambda: Gaussian([np.nan], [1.0]),
    "covariance has NaN or infinite": lambda: Gaussian([0.0], [np.nan]),
    "covariances has NaN or infinite": lambda: Mixture([[0.0]], covariances=[[[np.inf]]]),
    "stds has NaN or infinite": lambda: Mixture(MEANS, np.inf),
    "weights has NaN or infinite": lambda: Mixture(MEANS, 1.0, [1.0, np.inf, 1.0]),
    "operator has NaN or infinite": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(4) * np.nan, np.zeros(4), 1.0),
    "observed has NaN or infinite": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(4), [np.nan, 0, 0, 0], 1.0),
    "std is inf, expected a finite number": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(4), np.zeros(4), np.inf),
    "observed is too far": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(4), [1e200, 0, 0, 0], 1.0),
    "too small for rows of the operator": lambda: Mixture(MEANS, 1.0).conditioned(np.ones((2, 4)), [1.0, 1.0], 1e-300),
    "a covariance singular: there is no density": lambda: Gaussian([0, 0], np.ones((2, 2)), RectifiedFlow()).log_prob(
        torch.ones(1, 2), torch.zeros(1)
    ),
    "std is 0": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(4), np.zeros(4), 0.0),
    r"expected \(m, 4\)": lambda: Mixture(MEANS, 1.0).conditioned(np.eye(3), np.zeros(3), 1.0),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


@pytest.mark.parametrize("noise", [None, StudentT(3.0)], ids=["white", "student"])
def test_the_posterior_variance_is_the_slope_of_the_mean(noise, agrees):
    """White noise: sigma^2 / alpha dE[x | x_t] / dx_t (Tweedie's second order). Student's: quadrature over the data."""
    process = RectifiedFlow()
    mixture = Mixture(MEANS, None, WEIGHTS, process, covariances=COVARIANCES, noise=noise)
    t = torch.full((1,), 0.4, dtype=torch.float64)
    x_t = torch.tensor(RNG.normal(size=(1, 4)))
    if noise is None:
        slope = torch.autograd.functional.jacobian(lambda v: mixture(v, t).x[0], x_t)[:, 0]
        found, expected = mixture(x_t, t).variance[0], 0.4**2 / 0.6 * slope.diagonal()
        agrees(Mixture, "posterior variance", "slope of the mean", found, expected, rtol=1e-8, atol=1e-10)
        return
    one = Mixture([[-1.0], [2.0]], [[0.5], [0.7]], [0.4, 0.6], process, noise=noise)

    def joint(x, power):
        density = 0.4 * norm.pdf(x, -1, 0.5) + 0.6 * norm.pdf(x, 2, 0.7)
        return x**power * density * student.pdf((0.8 - 0.6 * x) / 0.4, 3.0)

    moments = [
        quad(joint, -8, 9, args=(k,), points=[-1, 1.3, 2], epsabs=0, epsrel=1e-12, limit=400)[0] for k in range(3)
    ]
    expected = moments[2] / moments[0] - (moments[1] / moments[0]) ** 2
    found = one(torch.tensor([[0.8]], dtype=torch.float64), t).variance[0, 0]
    agrees(Mixture, "posterior variance, Student's noise", "scipy's quad over the data", found, expected, rtol=1e-8)
