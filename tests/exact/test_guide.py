"""Guides on a Gaussian random field, whose posterior numpy knows: nothing of undrift in the oracles."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from guide_fields import (
    BASIS,
    CELLS,
    CPU,
    EXACT,
    OPERATORS,
    POWER,
    SPACE,
    affine,
    each_level,
    each_operator,
    each_process,
    estimate,
    fields,
    noisy,
    posterior,
    prior,
    problem,
    step,
    tensor,
)
from scipy.stats import multivariate_normal

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Gaussian, GaussianRandomField
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.guide import DPS, MMPS, BlockMeans, Function, Observation, PiGDM, RegionalSums
from undrift.infer import log_prob, sample
from undrift.process import EDM, Coloured, LinearBeta, RectifiedFlow
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.runge_kutta import Heun
from undrift.tasks.batch import Condition

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from implementations import SOLVERS, net

RNG = np.random.default_rng(6)


@each_operator
@each_level
@each_process
def test_mmps_is_the_posterior_at_every_time(operator, std, process, agrees):
    """Its estimate is the denoiser of the posterior law: what it draws then depends on the solver alone."""
    matrix, observed, observation = problem(operator, std)
    guided = MMPS(prior(process), observation, **EXACT)
    t, x_t = noisy(process)
    mean, covariance = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
    alpha, sigma = process.alpha(t).numpy(), process.sigma(t).numpy()
    expected = estimate(x_t, alpha, sigma, mean, covariance)
    found = guided(fields(x_t), t)
    against = "the denoiser of the posterior in numpy"
    agrees(MMPS, "x, five operators, two noise levels", against, found.x.flatten(1), expected, rtol=1e-8, atol=1e-8)
    z = (x_t - alpha[:, None] * expected) / sigma[:, None]
    agrees(MMPS, "z, five operators, two noise levels", against, found.z.flatten(1), z, rtol=1e-7, atol=1e-7)
    law = prior(process).conditioned(matrix, observed, std)
    agrees(MMPS, "x", "`GaussianRandomField.conditioned`", found.x, law(fields(x_t), t).x, rtol=1e-8, atol=1e-8)


def test_mmps_where_x_t_is_pure_noise(agrees):
    """At alpha = 0 the estimate is the posterior's mean, whatever x_t."""
    matrix, observed, observation = problem(OPERATORS["points"], 0.1)
    guided = MMPS(prior(RectifiedFlow()), observation, **EXACT)
    t, x_t = noisy(RectifiedFlow(), (1.0, 0.5))
    mean, _ = posterior(matrix, observed, 0.01 * np.eye(len(matrix)))
    found = guided(fields(x_t), t)
    agrees(MMPS, "x where alpha is 0", "the posterior's mean", found.x[0].flatten(), mean, rtol=2e-6, atol=2e-6)
    assert torch.equal(found.z[0].flatten(), tensor(x_t[0]))
    alone = guided(fields(x_t[1]), t[1:])
    torch.testing.assert_close(found.x[1:], alone.x, rtol=1e-12, atol=1e-12)


def test_an_observation_of_each_row_with_an_error_of_each_number(agrees):
    operator, std = OPERATORS["regional sums"], np.array([0.1, 0.5, 2.0])
    matrix = operator(fields(BASIS)).T.numpy()
    t, x_t = noisy(LinearBeta())
    observed = RNG.normal(size=(4, 3))
    found = MMPS(prior(LinearBeta()), Observation(operator, tensor(observed), tensor(std)), **EXACT)(fields(x_t), t)
    alpha, sigma = LinearBeta().alpha(t).numpy(), LinearBeta().sigma(t).numpy()
    rows = [posterior(matrix, y, np.diag(std**2)) for y in observed]
    expected = [estimate(x_t[i : i + 1], alpha[i:], sigma[i:], *law)[0] for i, law in enumerate(rows)]
    of = "rows and errors of their own"
    agrees(Observation, of, "the posterior of each", found.x.flatten(1), np.array(expected), rtol=1e-8, atol=1e-8)


def stacked(make, denoiser, names, std=0.3):
    """Guides around each other, and the matrix and the numbers of all that was observed."""
    parts = [problem(OPERATORS[name], std) for name in names]
    for _, _, observation in parts:
        denoiser = make(denoiser, observation)
    return denoiser, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def test_guides_around_guides_observe_all(agrees):
    """Three of MMPS, one around the other, have the posterior of all; and its Jacobian, two of them."""
    process = RectifiedFlow()
    t, x_t = noisy(process)
    alpha, sigma = process.alpha(t).numpy(), process.sigma(t).numpy()
    names = ["block means", "points", "mask"]
    guided, matrix, observed = stacked(lambda d, o: MMPS(d, o, **EXACT), prior(process), names)
    mean, covariance = posterior(matrix, observed, 0.09 * np.eye(len(matrix)))
    expected = estimate(x_t, alpha, sigma, mean, covariance)
    of = "the posterior of all that was observed"
    agrees(MMPS, "x of three, stacked", of, guided(fields(x_t), t).x.flatten(1), expected, rtol=1e-8, atol=1e-8)

    guided, matrix, observed = stacked(lambda d, o: MMPS(d, o, **EXACT), prior(process), names[:2])
    mean, covariance = posterior(matrix, observed, 0.09 * np.eye(len(matrix)))
    _, back = guided.pullback(fields(x_t), t)
    g = RNG.normal(size=x_t.shape)
    rows = [
        a * covariance @ np.linalg.solve(a**2 * covariance + s**2 * np.eye(CELLS), v)
        for a, s, v in zip(alpha, sigma, g)
    ]
    agrees(MMPS, "J' g of two, stacked", of, back(fields(g)).flatten(1), np.array(rows), rtol=1e-8, atol=1e-8)


GUIDES = {
    "DPS": lambda d, o: DPS(d, o, 0.1, steps=50),
    "PiGDM": lambda d, o: PiGDM(d, o, tolerance=1e-10),
    "PiGDM by steps": lambda d, o: PiGDM(d, o, steps=50, tolerance=1e-10),
    "MMPS": lambda d, o: MMPS(d, o, tolerance=1e-10),
}


@pytest.mark.parametrize("outer", [None, "DPS", "PiGDM"])
@pytest.mark.parametrize("name", GUIDES)
def test_the_pullback_of_a_guide_is_its_derivative(name, outer):
    """Of a function that is not linear, alone and within another guide, against central differences."""
    curved = Observation(
        Function(lambda x: torch.stack([(x**2).sum((1, 2, 3)), x[:, 0, 0].sin().sum(1)], 1)), tensor([20.0, 1.0]), 0.5
    )
    guided = GUIDES[name](prior(LinearBeta()), curved)
    if outer:
        guided = GUIDES[outer](guided, problem(OPERATORS["block means"], 0.5)[2])
    t, x_t = noisy(LinearBeta(), (0.2, 0.5))
    x_t, g, push = fields(x_t), fields(RNG.normal(size=(2, CELLS))), fields(RNG.normal(size=(2, CELLS)))
    found, back = guided.pullback(x_t, t)
    assert not found.x.requires_grad
    ends = [guided(x_t + step * push, t).x for step in (1e-5, -1e-5)]
    slope = ((ends[0] - ends[1]) * g).sum((1, 2, 3)) / 2e-5
    torch.testing.assert_close((back(g) * push).sum((1, 2, 3)), slope, rtol=2e-6, atol=1e-7)


def test_the_last_use_of_a_pullback_is_as_the_others():
    t, x_t = noisy(EDM())
    _, back = prior(EDM()).pullback(fields(x_t), t)
    first = back(fields(x_t))
    assert torch.equal(back(fields(x_t), last=True), first)
    with pytest.raises(RuntimeError, match="second time"):
        back(fields(x_t))


def test_a_third_derivative_is_refused():
    guided, _, _ = stacked(lambda d, o: MMPS(d, o, **EXACT), prior(EDM()), ["block means", "points", "mask"])
    t, x_t = noisy(EDM(), (0.5,))
    with pytest.raises(RuntimeError, match="give one guide an Observation of all"):
        guided.pullback(fields(x_t), t)[1](fields(x_t))


WEIGHTS = {
    "a cell": BASIS[7].ravel(),
    "the domain's mean": np.full(CELLS, 1 / CELLS),
    "a difference of neighbours": (BASIS[7] - BASIS[8]).ravel(),
    "a block": BASIS[[0, 1, 6, 7]].mean(0).ravel(),
    "a wave": np.tile(np.cos(2 * np.pi * np.arange(6) / 6), 4) / CELLS,
}


def compare(measured, of, found, expected):
    """Means of named sums over cells, in standard deviations of the posterior, and their variances."""
    (mean, covariance), (mean_there, covariance_there) = found, expected
    against = "the posterior's, exact propagation"
    for name, w in WEIGHTS.items():
        variance = w @ covariance_there @ w
        off = abs(w @ (mean - mean_there)) / np.sqrt(variance)
        measured(MMPS, f"draws, {of}: mean of {name}, in stds", against, "no difference", off, most=0.02)
        off = abs(w @ covariance @ w / variance - 1)
        measured(MMPS, f"draws, {of}: variance of {name}", against, "no difference", off, most=0.02)
    off = np.linalg.norm(covariance - covariance_there) / np.linalg.norm(covariance_there)
    measured(MMPS, f"draws, {of}: whole covariance", against, "no difference", off, most=0.02)


@each_operator
@each_level
def test_mmps_draws_the_posterior(operator, std, measured):
    """The sampler is an affine map of x_1: its matrix gives the law of what is drawn, without any error of sampling."""
    matrix, observed, observation = problem(operator, std)
    mean, covariance = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
    guided = MMPS(prior(RectifiedFlow()), observation, iterations=50, tolerance=1e-6)
    through, offset = affine(guided, nfe=40)
    compare(measured, "five operators, two noise levels", (offset, through @ through.T), (mean, covariance))


@pytest.mark.parametrize("solver", [DDIM(), Heun()], ids=["DDIM", "Heun"])
def test_mmps_draws_the_posterior_with_other_solvers(solver, measured):
    matrix, observed, observation = problem(OPERATORS["points"], 0.3)
    law = posterior(matrix, observed, 0.09 * np.eye(len(matrix)))
    guided = MMPS(prior(EDM()), observation, iterations=50, tolerance=1e-6)
    through, offset = affine(guided, nfe=200 if solver.order == 1 else 100, solver=solver)
    compare(measured, "other solvers", (offset, 80.0**2 * through @ through.T), law)


def test_mmps_draws_the_posterior_with_noise(measured):
    """DDPM's steps are affine in x and in the noise: mean and covariance go through them step by step.

    Their error is of first order in the number of steps, and is extrapolated from 60 and 120 of them.
    """
    process, solver = LinearBeta(), Ancestral()
    matrix, observed, observation = problem(OPERATORS["block means"], 0.3)
    guided = MMPS(prior(process), observation, iterations=50, tolerance=1e-6)
    columns = np.concatenate([np.zeros((1, CELLS)), np.eye(CELLS)])

    def law(steps):
        mean, covariance = np.zeros(CELLS), np.eye(CELLS)
        ratios = np.geomspace(float(process.ratio(tensor(1.0))), 1e-3, steps)
        times = [*process.t_of_ratio(tensor(ratios)), tensor(0.0)]
        for t, s in pairwise(times):
            moved = step(solver, guided, process, columns, t, s, 0 * columns)
            pushed = step(solver, guided, process, 0 * columns, t, s, columns)
            through, noise = (moved[1:] - moved[0]).T, (pushed[1:] - pushed[0]).T
            mean, covariance = moved[0] + through @ mean, through @ covariance @ through.T + noise @ noise.T
        return mean, covariance

    coarse, fine = law(60), law(120)
    limit = [2 * b - a for a, b in zip(coarse, fine)]
    compare(measured, "DDPM's noise", limit, posterior(matrix, observed, 0.09 * np.eye(len(matrix))))


# one needs the variance of each cell, the others stay at their time
ALONE = {"DDPM, learned variance", "Langevin", "annealed Langevin"}


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ALONE])
def test_every_solver_draws_with_mmps_what_it_draws_with_the_posterior(name, agrees):
    """The same noise through the guide and through the exact denoiser of the posterior."""
    matrix, observed, observation = problem(OPERATORS["regional sums"], 0.5)
    guided = MMPS(prior(LinearBeta()), observation, **EXACT)
    law = guided.denoiser.conditioned(matrix, observed, 0.5)
    x_1 = fields(np.random.default_rng(3).normal(size=(2, CELLS)))
    options = {"solver": SOLVERS[name], "nfe": SOLVERS[name].least + 12, "seed": 4}
    found, expected = sample(guided, x_1, **options), sample(law, x_1, **options)
    assert found.status == "done"
    of = "draws with each solver"
    agrees(MMPS, of, "the denoiser of the posterior", found.x, expected.x, rtol=1e-6, atol=1e-6)


def test_a_guided_denoiser_has_the_density_of_the_posterior(agrees):
    """Of three numbers, two sums of which were seen: the divergence goes through the guide."""
    root, matrix, observed = RNG.normal(size=(3, 3)), RNG.normal(size=(2, 3)), np.array([0.5, -1.0])
    covariance, process = root @ root.T + np.eye(3), RectifiedFlow()
    observation = Observation(RegionalSums(tensor(matrix)), tensor(observed), 0.5)
    guided = MMPS(Gaussian(tensor(np.zeros(3)), tensor(covariance), process), observation, **EXACT)
    x = RNG.normal(size=(4, 3))
    found = log_prob(guided, tensor(x), nfe=130)
    mean, left = posterior(matrix, observed, 0.25 * np.eye(2), covariance)
    expected = multivariate_normal(mean, left).logpdf(x)
    of = "log-density of the guided flow"
    agrees(MMPS, of, "scipy's of the posterior", found.log_prob, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.filterwarnings("error")
def test_float32_is_float64_rounded(name):
    """With as many iterations and the tolerance that a guide has unless told otherwise."""
    t, x_t = noisy(LinearBeta())
    guide = {"DPS": DPS, "MMPS": MMPS}.get(name, PiGDM)
    steps = {"steps": 50} if name in ("DPS", "PiGDM by steps") else {}
    guided = guide(prior(LinearBeta()), problem(OPERATORS["points"], 0.1)[2], **steps)
    found, expected = guided(fields(x_t).float(), t), guided(fields(x_t), t)
    assert found.x.dtype == torch.float32
    torch.testing.assert_close(found.x.double(), expected.x, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:conjugate gradients")  # no mean of any law, its Jacobian is not symmetric
def test_a_guide_leaves_no_gradient_in_a_network():
    network = net()
    denoiser = Preconditioned(network, EDM(), GaussianGuess(floor=0.7))
    x_t = fields(RNG.normal(size=(4, CELLS))).float().reshape(2, 2, *SPACE)
    condition = Condition({"given": torch.ones(2, 1, *SPACE, device=CPU)}, {"covariates": torch.ones(2, 2, device=CPU)})
    observation, t = Observation(BlockMeans(2), torch.zeros(12, device=CPU), 0.5), tensor([0.3, 0.6])
    for guide in (DPS, PiGDM, MMPS):
        guided = guide(denoiser, observation)
        network.requires_grad_(True)
        found = guided(x_t, t, condition)
        assert not found.x.requires_grad
        assert not found.z.requires_grad
        assert all(p.grad is None for p in network.parameters())
        network.requires_grad_(False)
        torch.testing.assert_close(guided(x_t, t, condition).x, found.x, rtol=1e-6, atol=1e-6)


def observed(values, std=0.1):
    return Observation(BlockMeans(2), torch.as_tensor(values, dtype=torch.float64, device=CPU), std)


class Student(Denoiser):
    """An end point of the path, and no mean."""

    process = EDM()

    def __call__(self, x_t, t, condition=None):
        return Estimate(0.5 * x_t, x_t / 2, self.process, t, kind="end")


REFUSED = {
    "an end point": (
        lambda: DPS(Student(), observed(np.zeros(6)))(fields(np.zeros((1, CELLS))), tensor([0.5])),
        TypeError,
        "an end point has no score that can be shifted",
    ),
    "a matrix of observations for the wrong rows": (
        lambda: DPS(prior(EDM()), observed(np.zeros((3, 6))))(fields(np.zeros((2, CELLS))), tensor([0.5, 0.5])),
        ValueError,
        r"the operator made \(2, 6\), and observed is \(3, 6\)",
    ),
    "not finite": (lambda: observed([np.nan] * 6), ValueError, "leave them out"),
    "a negative std": (lambda: observed(np.zeros(6), -1.0), ValueError, "0 or more"),
    "errors of another number": (lambda: observed(np.zeros(6), tensor([1.0, 2.0])), ValueError, r"a number or \(m,\)"),
    "no steps": (
        lambda: DPS(prior(EDM()), observed(np.zeros(6)), steps=0),
        ValueError,
        "expected a whole number of at least 1",
    ),
    "a network": (lambda: MMPS(net(), observed(np.zeros(6))), TypeError, r"type Denoiser.from_callable"),
    "numbers without an operator": (lambda: MMPS(prior(EDM()), tensor([1.0])), TypeError, r"type Observation\("),
    "an operator's class": (
        lambda: Observation(BlockMeans, tensor([1.0]), 0.1),
        TypeError,
        r"type BlockMeans\(factor\)",
    ),
    "a list": (lambda: Observation(BlockMeans(2), [1.0], 0.1), TypeError, r"type torch.tensor\(observed\)"),
    "a variance below 0": (lambda: PiGDM(prior(EDM()), observed(np.zeros(6)), -1.0), ValueError, "at least 0"),
    "no iterations": (lambda: MMPS(prior(EDM()), observed(np.zeros(6)), iterations=0), ValueError, "of at least 1"),
    "coloured noise": (
        lambda: MMPS(GaussianRandomField(tensor(POWER), EDM(), noise=Coloured(tensor(POWER))), observed(np.zeros(6))),
        TypeError,
        "expected a denoiser of white noise",
    ),
}


@pytest.mark.parametrize(("make", "error", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(make, error, reason):
    with pytest.raises(error, match=reason):
        make()
