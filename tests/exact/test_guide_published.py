"""DPS and PiGDM against the published algorithms in numpy, and their bias."""

import numpy as np
from guide_fields import (
    CELLS,
    COVARIANCE,
    OPERATORS,
    affine,
    each_level,
    each_operator,
    fields,
    posterior,
    prior,
    problem,
    step,
)

from undrift.guide import DPS, PiGDM
from undrift.process import DiscreteBetas
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.grid import Nodes

BETAS = np.linspace(1e-3, 0.2, 50)
KEPT = np.concatenate([[1.0], np.cumprod(1 - BETAS)])  # alpha_bar of 0 .. N
ROWS = 400


def gain(i):
    """The matrix of E[x_0 | x_i], which is its Jacobian too."""
    return np.sqrt(KEPT[i]) * COVARIANCE @ np.linalg.inv(KEPT[i] * COVARIANCE + (1 - KEPT[i]) * np.eye(CELLS))


def published(push, x, noise):
    """DDPM of 50 steps, each of which is moved by ``push(i, x_i, x_hat)``: Ho et al. 2020, eq. 6 and 7."""
    for i in range(len(BETAS), 0, -1):
        x_hat, beta, before = x @ gain(i).T, BETAS[i - 1], KEPT[i - 1]
        mean = np.sqrt(before) * beta * x_hat + np.sqrt(1 - beta) * (1 - before) * x
        std = np.sqrt((1 - before) / (1 - KEPT[i]) * beta)
        x = mean / (1 - KEPT[i]) + std * noise[i - 1] + push(i, x, x_hat)
    return x


def ours(guided, x, noise):
    nodes = guided.process.nodes
    for i in range(len(BETAS), 1, -1):
        x = step(Ancestral(), guided, guided.process, x, nodes[i - 1], nodes[i - 2], noise[i - 1])
    return guided(fields(x), nodes[:1].expand(len(x))).x.flatten(1).numpy()


def bias(draws, law):
    """Of the mean, in the posterior's standard deviations (root mean square over cells), and ratio of the variances."""
    mean, covariance = law
    off = (draws.mean(0) - mean) / np.sqrt(np.diag(covariance))
    return np.sqrt(np.mean(off**2)), draws.var(0, ddof=1).sum() / np.trace(covariance)


def against_the_published(agrees, method, of, guided, push):
    """Draws of both, from the same noise."""
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=(ROWS, CELLS)), rng.normal(size=(len(BETAS), ROWS, CELLS))
    found, expected = ours(guided, x, noise), published(push, x, noise)
    agrees(method, f"draws{of}", "the published algorithm in numpy", found, expected, rtol=1e-7, atol=1e-7)
    return found, expected


def keep_bias(measured, method, of, found, expected):
    """Lines of the table, within a tenth of the bias of the oracle."""
    against = "bias of the same in numpy"
    measured(method, f"mean{of}: stds of the posterior off", against, expected[0], found[0], within=0.1 * expected[0])
    measured(method, f"variance{of}, over the posterior's", against, expected[1], found[1], within=0.1 * expected[1])


@each_operator
@each_level
def test_dps_is_the_published_algorithm(operator, std, measured, agrees):
    """Chung et al. 2022, algorithm 1, with the step zeta / |y - A x_hat|."""
    matrix, observed, observation = problem(operator, std)
    scale = 0.1

    def push(i, x, x_hat):
        misfit = observed - x_hat @ matrix.T
        gradient = -2 * misfit @ matrix @ gain(i)  # of the squared norm, by x
        return -scale / np.linalg.norm(misfit, axis=1, keepdims=True) * gradient

    guided = DPS(prior(DiscreteBetas(BETAS)), observation, scale, steps=len(BETAS))
    found, expected = against_the_published(agrees, DPS, "", guided, push)
    if operator is OPERATORS["block means"]:
        law = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
        keep_bias(measured, DPS, f" of draws, block means, std {std}, zeta 0.1", bias(found, law), bias(expected, law))


@each_operator
@each_level
def test_pigdm_by_steps_is_the_published_algorithm(operator, std, measured, agrees):
    """Steps of DDIM with eta = 1, moved by alpha_s alpha_t r^2 times the gradient of N(y; A x_hat, r^2 A A' + std^2)."""
    matrix, observed, observation = problem(operator, std)

    def push(i, x, x_hat):
        r2 = 1 - KEPT[i]
        inner = r2 * matrix @ matrix.T + std**2 * np.eye(len(matrix))
        gradient = np.linalg.solve(inner, (observed - x_hat @ matrix.T).T).T @ matrix @ gain(i)
        return np.sqrt(KEPT[i - 1] * KEPT[i]) * r2 * gradient

    guided = PiGDM(prior(DiscreteBetas(BETAS)), observation, steps=len(BETAS), tolerance=1e-10)
    found, expected = against_the_published(agrees, PiGDM, " by steps", guided, push)
    if operator is OPERATORS["block means"]:
        law = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
        keep_bias(measured, PiGDM, f" by steps, block means, std {std}", bias(found, law), bias(expected, law))


@each_operator
@each_level
def test_pigdm_adds_to_the_score(operator, std, measured, agrees):
    """DDIM in numpy on the noise's estimate minus sigma times the gradient, of data of variance 2."""
    matrix, observed, observation = problem(operator, std)

    def run(x):
        for i in range(len(BETAS), 0, -1):
            kept, lost = KEPT[i], 1 - KEPT[i]
            x_hat, r2 = x @ gain(i).T, 2 * lost / (2 * kept + lost)
            inner = r2 * matrix @ matrix.T + std**2 * np.eye(len(matrix))
            gradient = np.linalg.solve(inner, (observed - x_hat @ matrix.T).T).T @ matrix @ gain(i)
            eps = (x - np.sqrt(kept) * x_hat) / np.sqrt(lost) - np.sqrt(lost) * gradient
            x = np.sqrt(KEPT[i - 1]) * (x - np.sqrt(lost) * eps) / np.sqrt(kept) + np.sqrt(1 - KEPT[i - 1]) * eps
        return x

    guided = PiGDM(prior(DiscreteBetas(BETAS)), observation, 2.0, tolerance=1e-10)
    through, offset = affine(guided, nfe=len(BETAS), solver=DDIM(), grid=Nodes())
    against = "DDIM on the guided score in numpy"
    start = run(np.zeros((1, CELLS)))[0]
    expected = (run(np.eye(CELLS)) - start).T
    agrees(PiGDM, "mean of draws", against, offset, start, rtol=1e-8, atol=1e-8)
    agrees(PiGDM, "matrix of draws", against, through, expected, rtol=1e-8, atol=1e-8)
    if operator is OPERATORS["block means"]:
        mean, covariance = posterior(matrix, observed, std**2 * np.eye(len(matrix)))
        pairs = [
            (np.sqrt(np.mean((m - mean) ** 2 / np.diag(covariance))), np.trace(a @ a.T) / np.trace(covariance))
            for m, a in ((offset, through), (start, expected))
        ]
        keep_bias(measured, PiGDM, f" of draws, block means, std {std}", *pairs)
