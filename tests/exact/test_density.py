"""log_prob through the probability-flow ODE, against densities in closed form written with numpy and scipy alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import gamma, multivariate_normal, multivariate_t

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.exact import Gaussian, GaussianRandomField, Mixture
from undrift.infer import log_prob
from undrift.process import EDM, Coloured, RectifiedFlow, StudentT, White
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.exponential import DEIS
from undrift.solve.grid import EvenAngle
from undrift.solve.runge_kutta import DORMAND_PRINCE, Heun, RungeKutta
from undrift.solve.sde import EulerMaruyama
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Condition

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from implementations import PROCESSES

CPU = torch.device("cpu")
GAUSSIAN = (np.array([[1.0, -2.0, 0.5]]), np.array([[[2.0, 0.8, 0.0], [0.8, 1.0, 0.1], [0.0, 0.1, 0.2]]]), np.ones(1))
MIXTURE = (
    np.array([[1.5, 0.0], [-1.5, 1.0], [0.0, -1.0]]),
    np.array([0.3, 0.5, 0.8])[:, None, None] ** 2 * np.eye(2),
    np.array([1.0, 2.0, 3.0]) / 6,
)
WIDE = (
    np.array([[0.8, 0.0], [-0.6, 0.5]]),
    np.array([[[0.8, 0.3], [0.3, 0.9]], [[0.9, -0.2], [-0.2, 1.2]]]),
    np.array([0.4, 0.6]),
)
LAWS = {"Gaussian": GAUSSIAN, "mixture": MIXTURE}


def ends(process):
    t = torch.tensor(process.t_min, dtype=torch.float64, device=CPU)
    return float(process.alpha(t)), float(process.sigma(t))


def density(x, law, alpha=1.0, sigma=0.0):
    """Log-density of alpha x + sigma z."""
    means, covariances, weights = law
    noise = sigma**2 * np.eye(means.shape[1])
    parts = [
        np.log(w) + multivariate_normal(alpha * m, alpha**2 * c + noise).logpdf(x)
        for m, c, w in zip(means, covariances, weights)
    ]
    return logsumexp(np.array(parts), 0)


def draws(count, law, alpha=1.0, sigma=0.0, seed=0):
    rng = np.random.default_rng(seed)
    means, covariances, weights = law
    which = rng.choice(len(weights), count, p=weights)
    x = np.stack([rng.multivariate_normal(means[k], covariances[k]) for k in which])
    return alpha * x + sigma * rng.normal(size=x.shape)


def exact(law, process, noise=None):
    means, covariances, weights = law
    return Mixture(means, None, weights, process, covariances=covariances, noise=noise)


OTHER_NUMBERS = {"EDM of little noise", "few betas", "cosine and sine"}  # of a process that is there already


@pytest.mark.parametrize("process", [name for name in PROCESSES if name not in OTHER_NUMBERS])
def test_with_the_exact_base_the_density_is_exact(process, measured):
    """1e-5 nats a dimension for every process, from t_min to t_max."""
    name, process = process, PROCESSES[process]
    alpha, sigma = ends(process)
    x, denoiser = draws(6, WIDE, alpha, sigma), exact(WIDE, process)
    found = log_prob(denoiser, torch.from_numpy(x), base=denoiser.log_prob, tolerance=4e-5, nfe=2048)
    error = np.abs(found.log_prob.numpy() - density(x, WIDE, alpha, sigma))
    assert found.status == "done" and found.nfe <= 2048
    assert (error <= 2 * found.error.numpy() + 1e-9).all()
    assert np.median(found.error.numpy() / error) < 15  # 3 to 5: the estimate is of a solver of one order less
    against = "closed form of a mixture"
    measured(log_prob, f"error in nats a dimension, {name}", against, "≤ 1e-5", error.max() / 2, most=1e-5)


RUNS = [(name, "mixture") for name in ("EDM", "rectified flow", "NCSN")]
RUNS += [(name, "Gaussian") for name in ("EDM", "linear beta")]


@pytest.mark.parametrize(("name", "law"), RUNS)
def test_the_estimate_of_the_error_covers_the_truth_with_the_standard_base(name, law, measured):
    process = PROCESSES[name]
    alpha, sigma = ends(process)
    x = draws(200, LAWS[law], alpha, sigma)
    found = log_prob(exact(LAWS[law], process), torch.from_numpy(x), tolerance=2e-2)
    error = np.abs(found.log_prob.numpy() - density(x, LAWS[law], alpha, sigma))
    if name != "rectified flow":  # without signal at t_max there is no such term
        assert np.median(error / found.error.numpy()) > 0.3  # an estimate, no bound that is always far above
    covered = (error <= 2 * found.error.numpy()).mean()
    against = f"closed form of a {law}, 200 points"
    measured(log_prob, f"share of truths within 2 estimates, {name}", against, "≥ 0.9", covered, least=0.9)


def field(x, power, alpha, sigma):
    """Log-density of a stationary field plus white noise, by its dense covariance."""
    cells = power.size
    columns = np.fft.ifftn(np.fft.fftn(np.eye(cells).reshape(-1, *power.shape), axes=(1, 2)) * power, axes=(1, 2)).real
    covariance = alpha**2 * columns.reshape(cells, cells) + sigma**2 * np.eye(cells)
    return multivariate_normal(np.zeros(cells), covariance).logpdf(x.reshape(len(x), -1))


def test_hutchinson_on_a_random_field(measured):
    """The standard error over probes is of the right size: normal scores of variance near one."""
    law, process = Coloured.isotropic((8, 8), -2.0), EDM(sigma_min=0.1)
    x = law.draw((200, 8, 8), torch.Generator().manual_seed(0))
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype, device=CPU)
    found = log_prob(GaussianRandomField(law.power, process), x, tolerance=0.1)
    error = found.log_prob.numpy() - field(x.numpy(), law.power.numpy(), 1.0, 0.1)
    covered = (np.abs(error) <= 2 * found.error.numpy()).mean()
    against = "dense covariance of a random field of 8 x 8, 200 points"
    measured(log_prob, "share of truths within 2 estimates, Hutchinson", against, "≥ 0.9", covered, least=0.9)
    scores = error / found.trace.numpy()
    assert 0.8 < np.median(np.abs(scores)) / 0.6745 < 1.2
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(200) + 0.01
    assert found.status == "not converged"  # sixteen probes are not enough for a tenth of a nat


def test_hutchinson_needs_one_row_only_and_is_without_error_for_independent_numbers():
    law, process = Coloured.isotropic((8, 8), -2.0), EDM(sigma_min=0.1)
    x = law.draw((3, 8, 8), torch.Generator().manual_seed(0))
    field = GaussianRandomField(law.power, process)
    whole = log_prob(field, x, probes=4, tolerance=1.0, seed=3)
    part = log_prob(field, x[:2], probes=4, tolerance=1.0, seed=3)
    torch.testing.assert_close(whole.log_prob[:2], part.log_prob, rtol=1e-12, atol=1e-9)
    assert (log_prob(field, x, probes=4, tolerance=1.0, seed=4).log_prob - whole.log_prob).abs().min() > 1e-3
    # a diagonal Jacobian has the same trace with any signs
    variances = np.linspace(0.3, 3.0, 40)
    x = np.random.default_rng(0).normal(size=(5, 40)) * np.sqrt(variances + 0.01)
    denoiser = Gaussian(np.zeros(40), variances, process)
    found = log_prob(denoiser, torch.from_numpy(x), base=denoiser.log_prob, probes=2, tolerance=1e-3)
    assert found.trace.max() < 1e-9 and found.status == "done"
    expected = -0.5 * (x**2 / (variances + 0.01) + np.log(2 * np.pi * (variances + 0.01))).sum(1)
    np.testing.assert_allclose(found.log_prob.numpy(), expected, atol=1e-3)


SOLVERS = {
    "Dormand-Prince": (RungeKutta(DORMAND_PRINCE), None),
    "Heun": (Heun(), EvenAngle()),
    "Adams-Bashforth": (AdamsBashforth(2), None),
    "DEIS": (DEIS(2), EvenAngle()),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_any_solver_of_the_ode_carries_the_log_determinant(name):
    process = EDM(sigma_max=10.0, sigma_min=0.1)
    x = draws(10, GAUSSIAN, 1.0, 0.1)
    denoiser = exact(GAUSSIAN, process)
    solver, grid = SOLVERS[name]
    x_t = torch.from_numpy(x)
    found = log_prob(denoiser, x_t, solver=solver, grid=grid, base=denoiser.log_prob, tolerance=1e-2)
    error = np.abs(found.log_prob.numpy() - density(x, GAUSSIAN, 1.0, 0.1))
    assert found.status == "done" and (error <= 2 * found.error.numpy()).all()
    assert error.max() < 1e-2


def test_a_change_of_units_moves_the_density_by_its_jacobian():
    """x in units c times smaller: log p falls by D log c."""
    c, x = 10.0, draws(6, MIXTURE, 1.0, 0.05)
    means, covariances, weights = MIXTURE
    scaled = exact((c * means, c**2 * covariances, weights), EDM(80.0 * c, 0.05 * c))
    found = log_prob(scaled, torch.from_numpy(c * x), base=scaled.log_prob, tolerance=1e-3)
    np.testing.assert_allclose(found.log_prob.numpy(), density(x, MIXTURE, 1.0, 0.05) - 2 * np.log(c), atol=2e-3)


def test_the_density_of_a_mixture_integrates_to_one(measured):
    """Also with the standard base, where it is the density of what the sampler draws."""
    denoiser = Mixture([[-1.0], [1.5]], [[0.3], [0.6]], [1.0, 2.0], EDM(sigma_max=5.0, sigma_min=0.05))
    x = torch.linspace(-15, 15, 601, dtype=torch.float64, device=CPU)
    found = log_prob(denoiser, x[:, None], tolerance=1e-4)
    total = float(torch.trapezoid(found.log_prob.exp(), x))
    measured(log_prob, "integral of the density in one dimension", "1", 1.0, total, within=1e-4)


def student_density(x, law, sigma, dof):
    """Mixture plus a Student t vector, by quadrature over its precision."""
    out = []
    for row in x:

        def integrand(log_w, row=row):
            w = np.exp(log_w)
            return np.exp(density(row, law, 1.0, sigma / np.sqrt(w))) * gamma(dof / 2, scale=2 / dof).pdf(w) * w

        out.append(np.log(quad(integrand, -12, 4, epsabs=0, epsrel=1e-9, limit=200)[0]))
    return np.array(out)


def test_students_noise_needs_only_the_flow():
    noise, process = StudentT(4.0), EDM(sigma_max=40.0, sigma_min=0.3)
    denoiser, x = exact(WIDE, process, noise), draws(3, WIDE, 1.0, 0.3)
    expected = student_density(x, WIDE, 0.3, 4.0)
    found = log_prob(denoiser, torch.from_numpy(x), base=denoiser.log_prob, tolerance=1e-3)
    np.testing.assert_allclose(found.log_prob.numpy(), expected, atol=1e-3)
    found = log_prob(denoiser, torch.from_numpy(x), tolerance=1e-3)
    error = np.abs(found.log_prob.numpy() - expected)
    assert error.max() > 1e-4 and (error <= 2 * found.error.numpy()).all()


def test_laws_of_noise_know_their_densities(agrees):
    z = np.random.default_rng(0).normal(size=(5, 2, 4, 6))
    x, flat, law = torch.from_numpy(z), z.reshape(5, -1), Coloured.isotropic((4, 6), -2.0)
    expected = multivariate_normal(np.zeros(48), np.eye(48)).logpdf(flat)
    agrees(White, "log-density", "scipy's normal law", White().log_prob(x), expected, rtol=1e-11)
    expected = sum(field(z[:, c], law.power.numpy(), 1.0, 0.0) for c in range(2))
    agrees(Coloured, "log-density", "dense covariance", law.log_prob(x), expected, rtol=1e-11)
    expected = multivariate_t(np.zeros(48), np.eye(48), df=3.0).logpdf(flat)
    agrees(StudentT, "log-density", "scipy's multivariate t", StudentT(3.0).log_prob(x), expected, rtol=1e-11)
    for dof in (0.1, 59.0, 61.0, 5e3, 1e9, 1e15):  # on both sides of where the series takes over, and far beyond
        half = dof / 2
        ratio = np.log1p(np.arange(24) / half).sum()  # Gamma(half + 24) / Gamma(half) / half^24
        expected = ratio - 24 * np.log(2 * np.pi) - (half + 24) * np.log1p((flat**2).sum(1) / dof)
        agrees(
            StudentT,
            "log-density, D 0.1 to 1e15",
            "product of 24 factors",
            StudentT(dof).log_prob(x),
            expected,
            rtol=1e-12,
        )


def test_a_network_in_float32_and_what_is_given_row_by_row():
    """The mean of the data is given; rows end at different steps and keep what is theirs."""
    process = RectifiedFlow()
    means = np.linspace(-6, 6, 7)[:, None] * np.ones(2)
    x = means + 0.5 * np.random.default_rng(0).normal(size=(7, 2))

    def velocity(x_t, t, given):
        t, mean = t[:, None], given.vectors["mean"]
        away = (x_t - (1 - t) * mean) / ((1 - t) ** 2 * 0.25 + t**2)
        return t * away - mean - (1 - t) * 0.25 * away

    denoiser = Denoiser.from_callable(velocity, predicts="velocity", process=process)
    condition = Condition(vectors={"mean": torch.from_numpy(means).float()})
    found = log_prob(denoiser, torch.from_numpy(x).float(), condition, tolerance=5e-3)
    expected = density(x - means, (np.zeros((1, 2)), 0.25 * np.eye(2)[None], np.ones(1)))
    assert found.log_prob.dtype == torch.float64 and found.status == "done"
    np.testing.assert_allclose(found.log_prob.numpy(), expected, atol=5e-3)
    with pytest.raises(ValueError, match="'mean' has 7 rows, expected 6"):
        log_prob(denoiser, torch.zeros(6, 2, device=CPU), condition)


def test_the_start_at_clean_data_is_part_of_the_error():
    """Data as narrow as the first ratio: the term is seen and covers."""
    denoiser = Gaussian([0.0], [0.03**2], RectifiedFlow())
    x = torch.tensor([[0.0], [0.05]], dtype=torch.float64, device=CPU)
    found = log_prob(denoiser, x, least=0.01, tolerance=1e-4)
    expected = -0.5 * ((x[:, 0] / 0.03) ** 2 + np.log(2 * np.pi * 0.03**2))
    error = (found.log_prob - expected).abs()
    assert (error > 5e-4).all() and (error <= 2 * found.error).all() and found.status == "not converged"
    assert (found.error - found.truncation).max() < 1e-4
    found = log_prob(denoiser, x, least=0.005, tolerance=1e-6, nfe=2048)
    ratio = (found.truncation / (found.log_prob - expected).abs()).tolist()
    # 3/2 of it; at the mean there is the term of the trace alone; off it the score is taken too far from the data and is too small
    assert 1.35 < ratio[0] < 1.8 and 0.75 < ratio[1] < 1.8
    assert log_prob(denoiser, x, tolerance=1e-3).status == "done"


def test_a_tolerance_that_is_not_reached_is_said():
    denoiser, x = exact(MIXTURE, EDM(sigma_min=0.01)), torch.from_numpy(draws(4, MIXTURE, 1.0, 0.01))
    few = log_prob(denoiser, x, base=denoiser.log_prob, nfe=100, tolerance=1e-3)
    assert few.status == "not converged" and few.nfe <= 100 and (few.error > 1e-3).any()
    assert log_prob(denoiser, x, tolerance=1e-5).status == "not converged"  # for the base
    x[1] = float("nan")
    broken = log_prob(denoiser, x, tolerance=1e-2, base=denoiser.log_prob)
    assert broken.status == "non-finite" and torch.isfinite(broken.log_prob).tolist() == [True, False, True, True]


def test_what_cannot_be_is_refused():
    denoiser, x = exact(MIXTURE, EDM()), torch.zeros(3, 2, dtype=torch.float64, device=CPU)
    with pytest.raises(TypeError, match="EulerMaruyama adds noise"):
        log_prob(denoiser, x, solver=EulerMaruyama())
    with pytest.raises(TypeError, match="grid is Adaptive"):
        log_prob(denoiser, x, grid=Adaptive())
    with pytest.raises(ValueError, match="expected at least 18 for runs"):
        log_prob(denoiser, x, nfe=17)
    with pytest.raises(ValueError, match="trace is 'sliced'"):
        log_prob(denoiser, x, trace="sliced")
    with pytest.raises(ValueError, match="probes is 1, expected at least 2"):
        log_prob(denoiser, x, probes=1)
    with pytest.raises(ValueError, match="expected a tensor"):
        log_prob(denoiser, x.long())
    with pytest.raises(ValueError, match=r"base made \(3, 1\)"):
        log_prob(denoiser, x, base=lambda x_t, t: x_t[:, :1])
    for name, value in (("tolerance", -1.0), ("least", 0.0)):
        with pytest.raises(ValueError, match=f"{name} is"):
            log_prob(denoiser, x, **{name: value})
