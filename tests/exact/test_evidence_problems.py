"""The problems of the benchmarks of inference: evidences against quadrature, simulators against their likelihoods."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FOLDER = Path(__file__).parents[2] / "benchmarks"


def loaded(name):
    """A script of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TASKS = loaded("sbibm_tasks").TASKS
PROBLEMS = loaded("evidence_problems")
PUBLISHED = {
    "egg_box": 235.85594, "rosenbrock": -5.8041, "himmelblau": -5.5038, "gaussian_shells_2": -1.746,
    "gaussian_shells_5": -5.674, "gaussian_shells_10": -14.590, "gaussian_shells_20": -36.087, "gaussian_shells_30": -60.128,
}  # fmt: skip


def test_evidences_are_those_published_and_those_of_a_quadrature():
    problems = PROBLEMS.problems()
    assert set(problems) == set(PUBLISHED)
    for name, problem in problems.items():
        assert problem.log_evidence == pytest.approx(PUBLISHED[name], abs=6e-4), name
        if problem.ndim == 2:
            assert PROBLEMS.midpoint(problem, 1000) == pytest.approx(problem.log_evidence, abs=2e-4), name


def test_the_shells_by_importance_in_five_dimensions():
    """Points about one centre with their distance drawn from the section: L pi / q has the evidence as its mean."""
    problem, rng, n = PROBLEMS.problems()["gaussian_shells_5"], np.random.default_rng(0), 20_000
    radius, direction = rng.normal(2, 0.1, n), rng.normal(size=(n, 5))
    theta = radius[:, None] * direction / np.linalg.norm(direction, axis=1)[:, None] + [3.5, 0, 0, 0, 0]
    sphere = 8 / 3 * np.pi**2  # of radius 1 in five dimensions
    density = stats.norm.pdf(radius, 2, 0.1) / (sphere * radius**4)
    value = 2 * np.exp(problem.log_likelihood(theta)) / density / 12**5  # both shells are alike
    assert abs(value.mean() - np.exp(problem.log_evidence)) < 4 * value.std() / np.sqrt(n)


@pytest.mark.parametrize("name", TASKS)
def test_a_simulator_draws_from_its_likelihood(name):
    """Of data given theta, the mean of p(x | theta') / p(x | theta) is 1 where p(x | theta) is their law."""
    task, rng, n = TASKS[name](), np.random.default_rng(1), 20_000
    theta = task.prior_transform(np.full(task.ndim, 0.6))
    other = theta + 0.02 * rng.normal(size=task.ndim) / np.sqrt(task.ndim)
    x = task.simulate(np.broadcast_to(theta, (n, task.ndim)), rng)
    assert x.shape == (n, task.data)
    pairs = [(task.log_likelihood(theta, one), task.log_likelihood(other, one)) for one in x[:2000]]
    here, there = np.array(pairs).T
    assert np.isfinite(here).all()
    ratio = np.exp(there - here)
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / np.sqrt(2000) + (0.1 if name == "two_moons" else 0)


@pytest.mark.parametrize("name", ["two_moons", "gaussian_mixture"])
def test_the_evidence_of_a_task_is_the_mean_of_its_likelihood(name):
    task = TASKS[name]()
    u = (np.arange(1200) + 0.5) / 1200
    theta = task.prior_transform(np.stack(np.meshgrid(u, u), -1))
    for x in np.array([[-0.2, 0.1], [0.25, 1.25]]) * (1 if name == "two_moons" else 8):
        likelihood = np.exp(task.log_likelihood(theta, x))
        assert np.log(likelihood.mean()) == pytest.approx(task.log_evidence(x), abs=5e-3)


@pytest.mark.parametrize("name", ["two_moons", "gaussian_mixture", "gaussian_linear", "gaussian_linear_uniform"])
def test_exact_posteriors_have_the_moments_of_their_likelihood(name):
    """Against the prior's draws weighted by the likelihood, each parameter and its square."""
    task, rng, n = TASKS[name](), np.random.default_rng(4), 200_000
    x = np.full(task.data, {"two_moons": 0.0, "gaussian_mixture": 9.5}.get(name, 0.6))
    draws = task.posterior(x, 4000, rng)
    assert draws.shape == (4000, task.ndim)
    if task.ndim == 10:  # each parameter by itself: the others are as they are given
        theta = np.repeat(draws[:1], n, axis=0)
        theta[:, 0] = task.prior_transform(rng.random((n, task.ndim)))[:, 0]
        draws = draws[:, :1]
    else:
        theta = task.prior_transform(rng.random((n, 2)))
    weights = np.exp(task.log_likelihood(theta, x))
    theta = theta[:, : draws.shape[1]]
    for power in (1, 2):
        mean = np.average(theta**power, axis=0, weights=weights)
        spread = (weights[:, None] ** 2 * (theta**power - mean) ** 2).sum(0) / weights.sum() ** 2
        error = np.sqrt((draws**power).var(axis=0) / len(draws) + spread)
        assert (np.abs((draws**power).mean(0) - mean) < 4.5 * error).all()


def test_slcp_is_the_normal_law_of_its_matrices():
    task, rng = TASKS["slcp"](), np.random.default_rng(2)
    theta, x = task.prior_transform(rng.random((5, 5))), rng.normal(size=8)
    for one, found in zip(theta, task.log_likelihood(theta, x), strict=True):
        s, t, rho = one[2] ** 2, one[3] ** 2, np.tanh(one[4])
        law = stats.multivariate_normal(one[:2], [[s * s, rho * s * t], [rho * s * t, t * t]])
        assert found == pytest.approx(law.logpdf(x.reshape(4, 2)).sum(), rel=1e-9)


@pytest.mark.parametrize("name", ["gaussian_linear", "gaussian_linear_uniform"])
def test_gaussian_evidences_by_one_dimension_after_another(name):
    task, x = TASKS[name](), np.linspace(-1.5, 1.2, 10)
    u = (np.arange(20_000) + 0.5) / 20_000
    values = task.prior_transform(np.repeat(u[:, None], 10, axis=1))[:, 0]
    expected = sum(np.log(stats.norm.pdf(one, values, np.sqrt(0.1)).mean()) for one in x)
    assert task.log_evidence(x) == pytest.approx(expected, abs=1e-3)
    theta = task.prior_transform(np.linspace(0.2, 0.7, 10))
    assert task.log_likelihood(theta, x) == pytest.approx(stats.norm.logpdf(x, theta, np.sqrt(0.1)).sum())
