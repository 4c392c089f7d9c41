"""Problems of nested sampling whose evidence is known: egg-box, Rosenbrock, Himmelblau, Gaussian shells, sbibm's tasks.

    python benchmarks/evidence_problems.py        # each ln Z, beside a quadrature in two dimensions

Each has a log-likelihood, the transform from the unit cube to the prior, and the exact logarithm of
Z = E over the prior of the likelihood. Functions take (..., D) arrays, so one point or many.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import gammaln, ndtr

from sbibm_tasks import TASKS, observation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A likelihood under a prior.

    Attributes:
        name: what it is called in tables.
        ndim: D.
        log_likelihood: (..., D) parameters -> (...) nats.
        prior_transform: (..., D) in the unit cube -> (..., D) parameters.
        log_evidence: exact ln Z.
    """

    name: str
    ndim: int
    log_likelihood: Callable[[Floats], Floats]
    prior_transform: Callable[[Floats], Floats]
    log_evidence: float


def _box(low: float, high: float) -> Callable[[Floats], Floats]:
    return lambda u: low + (high - low) * np.asarray(u)


def egg_box() -> Problem:
    """The logarithm of L is (2 + cos(x / 2) cos(y / 2))^5, on [0, 10 pi]^2 (Feroz et al. 2009, arXiv:0809.3437, 6.1).

    As cos(2 pi - u) = cos u, each of the five half-turns of u = x / 2 has the same integral: Z is the mean over
    [0, pi]^2.
    """

    def log_likelihood(theta: Floats) -> Floats:
        return (2 + np.cos(theta[..., 0] / 2) * np.cos(theta[..., 1] / 2)) ** 5

    u = np.pi * (np.arange(2000) + 0.5) / 2000  # the midpoint rule on a period of an even smooth function: exact
    log_l = log_likelihood(np.stack(np.meshgrid(2 * u, 2 * u), -1))
    top = log_l.max()
    return Problem("egg_box", 2, log_likelihood, _box(0, 10 * np.pi), float(top + np.log(np.exp(log_l - top).mean())))


def rosenbrock() -> Problem:
    """Rosenbrock's valley as -ln L = (1 - x)^2 + 100 (y - x^2)^2 on [-5, 5]^2."""

    def log_likelihood(theta: Floats) -> Floats:
        x, y = theta[..., 0], theta[..., 1]
        return -((1 - x) ** 2) - 100 * (y - x**2) ** 2

    def along(x: float) -> float:  # the integral over y
        std = np.sqrt(1 / 200)
        return np.exp(-((1 - x) ** 2)) * np.sqrt(np.pi) / 10 * (ndtr((5 - x**2) / std) - ndtr((-5 - x**2) / std))

    total = quad(along, -5, 5, points=[-np.sqrt(5), 1, np.sqrt(5)], epsabs=1e-14, limit=200)[0]
    return Problem("rosenbrock", 2, log_likelihood, _box(-5, 5), float(np.log(total / 100)))


def himmelblau() -> Problem:
    """Himmelblau's function, of four minima, as -ln L = (x^2 + y - 11)^2 + (x + y^2 - 7)^2 on [-5, 5]^2."""

    def log_likelihood(theta: Floats) -> Floats:
        x, y = theta[..., 0], theta[..., 1]
        return -((x**2 + y - 11) ** 2) - (x + y**2 - 7) ** 2

    nodes, weights = np.polynomial.legendre.leggauss(1000)
    grid = 5 * np.stack(np.meshgrid(nodes, nodes), -1)
    return Problem(
        "himmelblau", 2, log_likelihood, _box(-5, 5),
        float(np.log(weights @ np.exp(log_likelihood(grid)) @ weights / 4)),
    )  # fmt: skip


def gaussian_shells(ndim: int, radius: float = 2.0, width: float = 0.1, centre: float = 3.5) -> Problem:
    """Two shells of Gaussian section about (+-centre, 0, ...) on [-6, 6]^D (Feroz et al. 2009, arXiv:0809.3437, 6.2).

    The shells do not touch each other nor the box: Z is twice that of one, an integral over its radius.
    """

    def log_likelihood(theta: Floats) -> Floats:
        away = np.zeros(ndim)
        away[0] = centre
        distance = np.stack([np.linalg.norm(theta - away, axis=-1), np.linalg.norm(theta + away, axis=-1)])
        log_shell = -0.5 * ((distance - radius) / width) ** 2 - np.log(np.sqrt(2 * np.pi) * width)
        return np.logaddexp(*log_shell)

    def section(r: float) -> float:
        return (r / radius) ** (ndim - 1) * np.exp(-0.5 * ((r - radius) / width) ** 2) / (np.sqrt(2 * np.pi) * width)

    integral = quad(section, max(radius - 10 * width, 0), radius + 15 * width, epsabs=0, epsrel=1e-12, limit=200)[0]
    log_sphere = np.log(2) + ndim / 2 * np.log(np.pi) - gammaln(ndim / 2) + (ndim - 1) * np.log(radius)
    log_evidence = np.log(2) + log_sphere + np.log(integral) - ndim * np.log(12)
    return Problem(f"gaussian_shells_{ndim}", ndim, log_likelihood, _box(-6, 6), float(log_evidence))


def of_task(wheel: Path, name: str, number: int) -> Problem:
    """A task of sbibm given its observation 1 to 10, read from the wheel of sbibm: see ``sbibm_tasks``."""
    task, x = TASKS[name](), observation(wheel, name, number)
    if task.log_evidence is None:
        raise ValueError(
            f"{name} has no closed-form evidence; take one of two_moons, gaussian_linear, gaussian_mixture"
        )
    return Problem(
        f"{name}_{number}", task.ndim, lambda theta: task.log_likelihood(theta, x), task.prior_transform,
        task.log_evidence(x),
    )  # fmt: skip


def problems() -> dict[str, Problem]:
    """All that need no file, by name."""
    made = [egg_box(), rosenbrock(), himmelblau(), *(gaussian_shells(d) for d in (2, 5, 10, 20, 30))]
    return {problem.name: problem for problem in made}


def midpoint(problem: Problem, cells: int = 2000) -> float:
    """ln Z of a problem in two dimensions by the midpoint rule on the unit square."""
    u = (np.arange(cells) + 0.5) / cells
    log_l = problem.log_likelihood(problem.prior_transform(np.stack(np.meshgrid(u, u), -1)))
    top = log_l.max()
    return float(top + np.log(np.exp(log_l - top).mean()))


if __name__ == "__main__":
    for name, problem in problems().items():
        beside = f"{midpoint(problem):.5f}" if problem.ndim == 2 else ""
        print(f"{name:20s} ln Z {problem.log_evidence:.5f} {beside}")
