"""Five tasks of simulation-based inference after Lueckmann et al. 2021, https://arxiv.org/abs/2101.04653, appendix T.

Priors, simulators, likelihoods and, where there is a closed form, evidences are written here from the paper's
definitions. Observations, true parameters and reference posteriors are read from the wheel of sbibm 1.1.0 (MIT):

    pip download --no-deps sbibm==1.1.0
    python benchmarks/sbibm_tasks.py sbibm-1.1.0-py2.py3-none-any.whl [sbibm_exact_logZ.csv]

checks the evidences against a table of (task, observation, dim, logZ), and each posterior against its reference.
"""

import argparse
import bz2
import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp, ndtri
from scipy.stats import truncnorm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A prior and a simulator whose likelihood is known.

    Attributes:
        name: as in sbibm.
        ndim: D, number of parameters.
        data: number of values of one observation.
        prior_transform: (..., D) in the unit cube -> (..., D) parameters.
        bounds: (low, high) of every parameter, infinite where the prior has none.
        simulate: ((n, D) parameters, rng) -> (n, data) values.
        log_likelihood: ((..., D) parameters, (data,) values) -> (...) nats.
        log_evidence: (data,) values -> ln Z, None where there is no closed form.
        posterior: ((data,) values, n, rng) -> (n, D) exact draws given them, None where there is no closed form.
    """

    name: str
    ndim: int
    data: int
    prior_transform: Callable[[Floats], Floats]
    bounds: tuple[float, float]
    simulate: Callable[[Floats, np.random.Generator], Floats]
    log_likelihood: Callable[[Floats, Floats], Floats]
    log_evidence: Callable[[Floats], float] | None
    posterior: Callable[[Floats, int, np.random.Generator], Floats] | None = None


def _uniform(half_width: float) -> Callable[[Floats], Floats]:
    return lambda u: half_width * (2 * np.asarray(u) - 1)


def _log_normal(square: Floats, variance: float, dims: int) -> Floats:
    return -0.5 * square / variance - 0.5 * dims * np.log(2 * np.pi * variance)


def _log_within(x: Floats, half_width: float, std: float) -> Floats:
    """Logarithm of the mass of N(x, std^2) in [-half_width, half_width], exact in the tails too."""
    a = np.abs(x)
    high, low = log_ndtr((half_width - a) / std), log_ndtr((-half_width - a) / std)
    return high + np.log1p(-np.exp(low - high))


def _kept(propose: Callable[[Floats, int, np.random.Generator], Floats]) -> Callable[..., Floats]:
    """Exactly n draws of those that a proposal keeps."""

    def posterior(x: Floats, n: int, rng: np.random.Generator) -> Floats:
        found: list[Floats] = []
        while sum(map(len, found)) < n:
            found.append(propose(x, n, rng))
        return np.concatenate(found)[:n]

    return posterior


def gaussian_linear() -> Task:
    """T.1: theta ~ N(0, 0.1 I), x ~ N(theta, 0.1 I) in ten dimensions."""
    std = np.sqrt(0.1)
    return Task(
        "gaussian_linear", 10, 10, lambda u: std * ndtri(u), (-np.inf, np.inf),
        lambda theta, rng: theta + std * rng.normal(size=theta.shape),
        lambda theta, x: _log_normal(((x - theta) ** 2).sum(-1), 0.1, 10),
        lambda x: float(_log_normal((x**2).sum(), 0.2, 10)),
        lambda x, n, rng: x / 2 + np.sqrt(0.05) * rng.normal(size=(n, 10)),
    )  # fmt: skip


def gaussian_linear_uniform() -> Task:
    """T.2: theta ~ U[-1, 1]^10, x ~ N(theta, 0.1 I)."""
    std = np.sqrt(0.1)
    return Task(
        "gaussian_linear_uniform", 10, 10, _uniform(1.0), (-1.0, 1.0),
        lambda theta, rng: theta + std * rng.normal(size=theta.shape),
        lambda theta, x: _log_normal(((x - theta) ** 2).sum(-1), 0.1, 10),
        lambda x: float(_log_within(x, 1.0, std).sum() - 10 * np.log(2)),
        lambda x, n, rng: truncnorm.rvs((-1 - x) / std, (1 - x) / std, x, std, size=(n, 10), random_state=rng),
    )  # fmt: skip


def slcp() -> Task:
    """T.3: theta ~ U[-3, 3]^5; four normal draws in the plane.

    Their mean is (theta_1, theta_2), their deviations theta_3^2 and theta_4^2, their correlation tanh theta_5.
    """

    def simulate(theta: Floats, rng: np.random.Generator) -> Floats:
        first, second, rho = theta[:, 2:3] ** 2, theta[:, 3:4] ** 2, np.tanh(theta[:, 4:5])
        z = rng.normal(size=(len(theta), 4, 2))
        x = theta[:, :1] + first * z[..., 0]
        y = theta[:, 1:2] + second * (rho * z[..., 0] + np.sqrt(1 - rho**2) * z[..., 1])
        return np.stack([x, y], -1).reshape(len(theta), 8)

    def log_likelihood(theta: Floats, x: Floats) -> Floats:
        points = np.asarray(x).reshape(4, 2)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            first, second = theta[..., 2] ** 2, theta[..., 3] ** 2
            slope, log_root = np.tanh(theta[..., 4]), -np.log(np.cosh(theta[..., 4]))  # ln sqrt(1 - tanh^2)
            a = (points[:, 0] - theta[..., :1]) / first[..., None]
            b = (points[:, 1] - theta[..., 1:2]) / second[..., None]
            square = (a**2 + ((b - slope[..., None] * a) / np.exp(log_root)[..., None]) ** 2).sum(-1)
            value = -0.5 * square - 4 * (np.log(2 * np.pi * first * second) + log_root)
        return np.where(np.isfinite(value), value, -np.inf)

    return Task("slcp", 5, 8, _uniform(3.0), (-3.0, 3.0), simulate, log_likelihood, None)


def gaussian_mixture() -> Task:
    """T.7: theta ~ U[-10, 10]^2, x ~ N(theta, I) or N(theta, 0.01 I), each with probability one half."""

    def simulate(theta: Floats, rng: np.random.Generator) -> Floats:
        std = np.where(rng.random((len(theta), 1)) < 0.5, 1.0, 0.1)
        return theta + std * rng.normal(size=theta.shape)

    def log_likelihood(theta: Floats, x: Floats) -> Floats:
        square = ((x - theta) ** 2).sum(-1)
        return np.logaddexp(_log_normal(square, 1.0, 2), _log_normal(square, 0.01, 2)) - np.log(2)

    def log_evidence(x: Floats) -> float:
        inside = [_log_within(x, 10.0, std).sum() for std in (1.0, 0.1)]
        return float(logsumexp(inside) - np.log(2) - 2 * np.log(20))

    def proposed(x: Floats, n: int, rng: np.random.Generator) -> Floats:
        draws = simulate(np.broadcast_to(x, (n, 2)), rng)  # the likelihood is even in x - theta
        return draws[(np.abs(draws) <= 10).all(1)]

    return Task(
        "gaussian_mixture", 2, 2, _uniform(10.0), (-10.0, 10.0), simulate, log_likelihood, log_evidence,
        _kept(proposed),
    )  # fmt: skip


def two_moons() -> Task:
    """T.8: theta ~ U[-1, 1]^2; x = (r cos a + 1/4, r sin a) + (-|theta_1 + theta_2|, theta_2 - theta_1) / sqrt 2 with
    a ~ U(-pi / 2, pi / 2) and r ~ N(0.1, 0.01^2)."""

    def shift(theta: Floats) -> Floats:
        return np.stack([0.25 - np.abs(theta[..., 0] + theta[..., 1]) / np.sqrt(2),
                         (theta[..., 1] - theta[..., 0]) / np.sqrt(2)], -1)  # fmt: skip

    def simulate(theta: Floats, rng: np.random.Generator) -> Floats:
        angle, radius = np.pi * (rng.random(len(theta)) - 0.5), rng.normal(0.1, 0.01, len(theta))
        return shift(theta) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    def log_likelihood(theta: Floats, x: Floats) -> Floats:
        v = x - shift(theta)
        radius = np.linalg.norm(v, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = _log_normal((radius - 0.1) ** 2, 1e-4, 1) - np.log(
                np.pi * radius
            )  # dx = r dr da; 10 std from r < 0
        return np.where(v[..., 0] > 0, value, -np.inf)

    def log_evidence(x: Floats) -> float:
        """The mean over r and a of the prior density of both parameters that lead there."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        radius, angle = 0.1 + 0.01 * nodes[:, None], np.pi * ((np.arange(40_000) + 0.5) / 40_000 - 0.5)
        along, across = radius * np.cos(angle) - x[0] + 0.25, x[1] - radius * np.sin(angle)
        inside = np.zeros(along.shape)
        for a in (along, -along):
            first, second = (a - across) / np.sqrt(2), (a + across) / np.sqrt(2)
            inside += (along >= 0) & (np.abs(first) <= 1) & (np.abs(second) <= 1)
        return float(np.log(weights @ inside.mean(1) / weights.sum() / 4))

    def proposed(x: Floats, n: int, rng: np.random.Generator) -> Floats:
        angle, radius = np.pi * (rng.random(n) - 0.5), rng.normal(0.1, 0.01, n)
        along, across = radius * np.cos(angle) - x[0] + 0.25, x[1] - radius * np.sin(angle)
        a = np.where(rng.random(n) < 0.5, along, -along)
        draws = np.stack([a - across, a + across], 1) / np.sqrt(2)
        return draws[(along >= 0) & (np.abs(draws) <= 1).all(1)]

    return Task("two_moons", 2, 2, _uniform(1.0), (-1.0, 1.0), simulate, log_likelihood, log_evidence, _kept(proposed))


TASKS = {make.__name__: make for make in (two_moons, gaussian_linear, gaussian_linear_uniform, gaussian_mixture, slcp)}


def observation(wheel: Path, task: str, number: int) -> Floats:
    """(data,) values of observation 1 to 10."""
    return _table(wheel, task, number, "observation.csv")[0]


def true_parameters(wheel: Path, task: str, number: int) -> Floats:
    """(D,) parameters that observation 1 to 10 was simulated with."""
    return _table(wheel, task, number, "true_parameters.csv")[0]


def reference_posterior(wheel: Path, task: str, number: int) -> Floats:
    """(10000, D) draws from the posterior given observation 1 to 10."""
    return _table(wheel, task, number, "reference_posterior_samples.csv.bz2")


def _table(wheel: Path, task: str, number: int, name: str) -> Floats:
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(f"sbibm/tasks/{task}/files/num_observation_{number}/{name}")
    text = (bz2.decompress(raw) if name.endswith(".bz2") else raw).decode()
    return np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, ndmin=2)


def stein(task: Task, draws: Floats, x: Floats) -> Floats:
    """(D,) mean of (h^2 - theta_i^2) d ln L / d theta_i - 2 theta_i over draws, in its standard errors.

    It is zero under the posterior of a uniform prior on [-h, h]: integrated by parts, with a factor that is 0 at the
    ends.
    """
    half, step, found = task.bounds[1], 1e-5, []
    for i in range(task.ndim):
        h = step * np.eye(task.ndim)[i]
        slope = (task.log_likelihood(draws + h, x) - task.log_likelihood(draws - h, x)) / (2 * step)
        values = (half**2 - draws[:, i] ** 2) * slope - 2 * draws[:, i]
        found.append(values.mean() / (values.std() / np.sqrt(len(values))))
    return np.array(found)


def check(wheel: Path, exact: Path | None) -> None:
    """Print evidences beside those of the table, and how far the reference of slcp is from its likelihood."""
    known = {}
    if exact is not None:
        with exact.open() as file:
            known = {(row["task"], int(row["observation"])): float(row["logZ"]) for row in csv.DictReader(file)}
    for name, make in TASKS.items():
        task = make()
        for number in range(1, 6):
            x = observation(wheel, name, number)
            if task.log_evidence is None:
                z = stein(task, reference_posterior(wheel, name, number), x)
                print(f"{name:24s} {number} reference against the likelihood: {np.round(z, 1)} standard errors")
            else:
                beside = f"table {known[name, number]:.8f}" if (name, number) in known else ""
                print(f"{name:24s} {number} ln Z {task.log_evidence(x):.8f} {beside}")


def compare(wheel: Path, names: list[str]) -> None:
    """Print the C2ST of exact draws against each reference posterior: seconds in two dimensions, 12 min in ten."""
    from undrift.verify import c2st

    for name in names:
        task = TASKS[name]()
        if task.posterior is None:
            continue
        for number in range(1, 6):
            draws = task.posterior(observation(wheel, name, number), 10_000, np.random.default_rng(number))
            found = c2st(reference_posterior(wheel, name, number), draws)
            print(f"{name:24s} {number} C2ST {found.accuracy:.4f} +- {found.error:.4f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("exact", type=Path, nargs="?")
    parser.add_argument("--c2st", nargs="+", choices=list(TASKS), help="tasks whose exact draws are compared")
    options = parser.parse_args()
    compare(options.wheel, options.c2st) if options.c2st else check(options.wheel, options.exact)
