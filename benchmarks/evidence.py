"""Evidence by undrift.nested beside dynesty: pulls, and likelihood calls times squared error.

    python benchmarks/evidence.py --out benchmarks/results/evidence.json --sbibm sbibm-1.1.0-py2.py3-none-any.whl

The pull is (ln Z - truth) / reported error: mean 0 and spread 1 where errors are honest. Calls times squared error
does not depend on how long a sampler ran, so it compares samplers of different lengths. dynesty runs with each of its
ways to propose and fewer live points where dimensions are many; the smaller of its measured and its reported error is
taken, in its favour. Every run is kept in the file; the same command goes on where it was stopped, and `--table` only
prints.

Shells, egg-box: Feroz and Hobson 2008 (arXiv:0809.3437), sec. 6. The four sbibm tasks (Lueckmann et al. 2021,
arXiv:2101.04653) take their observations from sbibm's wheel, with likelihoods normalised over the data.
"""

import argparse
import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from undrift.infer.nested import nested

DYNESTY_LIVE = {2: 500, 5: 500, 10: 250, 20: 100, 30: 100}
EXACT_SBIBM = {
    "gaussian_linear": -8.070609963755125,
    "gaussian_linear_uniform": -9.776307310035907,
    "gaussian_mixture": -6.153393778406067,
    "two_moons": -0.6934463549984016,
}


@dataclass(frozen=True)
class Problem:
    """A likelihood and a prior whose evidence is known."""

    log_likelihood: Callable[[np.ndarray], float]
    prior_transform: Callable[[np.ndarray], np.ndarray]
    dimensions: int
    log_z: float


def box(half: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda u: half * (2 * u - 1)


def shells(dimensions: int, log_z: float) -> Problem:
    centre = np.zeros(dimensions)
    centre[0] = 3.5

    def log_likelihood(x: np.ndarray) -> float:
        left, right = math.dist(x, centre) - 2, math.dist(x, -centre) - 2
        return float(np.logaddexp(-(left**2) / 0.02, -(right**2) / 0.02)) - 0.5 * math.log(2 * math.pi * 0.01)

    return Problem(log_likelihood, box(6.0), dimensions, log_z)


def himmelblau(x: np.ndarray) -> float:
    return -((x[0] ** 2 + x[1] - 11) ** 2) - (x[0] + x[1] ** 2 - 7) ** 2


def rosenbrock(x: np.ndarray) -> float:
    return -100 * (x[1] - x[0] ** 2) ** 2 - (1 - x[0]) ** 2


def egg_box(x: np.ndarray) -> float:
    return (2 + math.cos(x[0] / 2) * math.cos(x[1] / 2)) ** 5


def normal(x: np.ndarray, mean: np.ndarray, variance: float) -> float:
    return -0.5 * float(np.square(x - mean).sum()) / variance - 0.5 * len(x) * math.log(2 * math.pi * variance)


def two_moons(theta: np.ndarray, x: np.ndarray) -> float:
    across, along = abs(theta[0] + theta[1]) / math.sqrt(2), (theta[1] - theta[0]) / math.sqrt(2)
    u, v = x[0] + across - 0.25, x[1] - along
    r = math.hypot(u, v)
    if u < 0 or r == 0:
        return -math.inf
    return normal(np.array([r]), np.array([0.1]), 1e-4) - math.log(math.pi * r)


def sbibm(wheel: Path) -> dict[str, Problem]:
    """The first observation of the tasks with an exact evidence."""
    data = {}
    with zipfile.ZipFile(wheel) as archive:
        for task in EXACT_SBIBM:
            text = archive.read(f"sbibm/tasks/{task}/files/num_observation_1/observation.csv").decode()
            data[task] = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1)

    def linear(theta: np.ndarray) -> float:
        return normal(data["gaussian_linear"], theta, 0.1)

    def uniform(theta: np.ndarray) -> float:
        return normal(data["gaussian_linear_uniform"], theta, 0.1)

    def mixture(theta: np.ndarray) -> float:
        x = data["gaussian_mixture"]
        return float(np.logaddexp(normal(x, theta, 1.0), normal(x, theta, 0.01))) - math.log(2)

    exact = EXACT_SBIBM
    return {
        "gaussian_linear": Problem(linear, lambda u: math.sqrt(0.1) * ndtri(u), 10, exact["gaussian_linear"]),
        "gaussian_linear_uniform": Problem(uniform, box(1.0), 10, exact["gaussian_linear_uniform"]),
        "gaussian_mixture": Problem(mixture, box(10.0), 2, exact["gaussian_mixture"]),
        "two_moons": Problem(lambda t: two_moons(t, data["two_moons"]), box(1.0), 2, exact["two_moons"]),
    }


def problems(wheel: Path | None) -> dict[str, Problem]:
    found = {
        "egg_box": Problem(egg_box, lambda u: 10 * math.pi * u, 2, 235.85594033),
        "rosenbrock": Problem(rosenbrock, box(5.0), 2, -5.80413237),
        "himmelblau": Problem(himmelblau, box(5.0), 2, -5.50384940),
    }
    shell = {2: -1.74564187, 5: -5.67360124, 10: -14.59049107, 20: -36.08654764, 30: -60.12776734}
    found |= {f"shells_{dimensions}": shells(dimensions, log_z) for dimensions, log_z in shell.items()}
    return found | ({} if wheel is None else sbibm(wheel))


def ours(problem: Problem, seed: int) -> dict[str, float]:
    found = nested(problem.log_likelihood, problem.prior_transform, problem.dimensions, seed=seed, progress=False)
    return {
        "log_z": found.log_z, "error": found.log_z_error, "calls": found.calls, "efficiency": found.efficiency,
        "pareto_shape": found.pareto_shape,
    }  # fmt: skip


def dynestys(problem: Problem, seed: int, sample: str) -> dict[str, float]:
    from dynesty import NestedSampler

    sampler = NestedSampler(
        problem.log_likelihood, problem.prior_transform, problem.dimensions, nlive=DYNESTY_LIVE[problem.dimensions],
        sample=sample, rstate=np.random.default_rng(seed),
    )  # fmt: skip
    sampler.run_nested(print_progress=False)
    found = sampler.results
    return {"log_z": float(found.logz[-1]), "error": float(found.logzerr[-1]), "calls": int(np.sum(found.ncall))}


def cost(rows: list[dict[str, float]], log_z: float, least: bool = False) -> float:
    """Mean calls times mean squared error; `least`: or times the mean square of the reported error, where less."""
    squared = np.mean([(row["log_z"] - log_z) ** 2 for row in rows])
    reported = np.mean([row["error"] ** 2 for row in rows])
    return float(np.mean([row["calls"] for row in rows]) * (min(squared, reported) if least else squared))


def table(runs: dict[str, list[dict[str, float]]], known: dict[str, Problem]) -> None:
    pulls = []
    print("problem | runs | pull mean, spread | calls | error | calls x error^2 | dynesty's best | ratio")
    for name, problem in known.items():
        rows = [row for row in runs.get(f"{name}/undrift", []) if math.isfinite(row["error"])]
        refused = len(runs.get(f"{name}/undrift", [])) - len(rows)
        if len(rows) < 2:
            continue
        pull = np.array([(row["log_z"] - problem.log_z) / row["error"] for row in rows])
        pulls.append(pull)
        mine = cost(rows, problem.log_z)
        theirs = {key.split("/")[1]: cost(r, problem.log_z, least=True) for key, r in runs.items()
                  if key.startswith(f"{name}/") and not key.endswith("undrift") and r}  # fmt: skip
        best = min(theirs, key=lambda key: theirs[key]) if theirs else ""
        rival = f"{best} {theirs[best]:.3g}" if best else ""
        ratio = f"{mine / theirs[best]:.2g}" if best else ""
        spread = math.sqrt(np.mean([row["error"] ** 2 for row in rows]))
        calls = np.mean([row["calls"] for row in rows])
        print(f"{name} | {len(rows)}, {refused} refused | {pull.mean():.2f}, {pull.std(ddof=1):.2f} | {calls:,.0f} | "
              f"{spread:.4f} | {mine:.2g} | {rival} | {ratio}")  # fmt: skip
    if pulls:
        pooled = np.concatenate(pulls)
        print(f"pooled | {len(pooled)} | {pooled.mean():.3f}, {pooled.std(ddof=1):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evidence.json"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sbibm", type=Path, help="sbibm's wheel, for its four tasks")
    parser.add_argument("--problems", nargs="*", help="some of them; all by default")
    parser.add_argument("--samplers", nargs="*", default=["undrift", "unif", "rwalk", "rslice"])
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after this time")
    parser.add_argument("--table", action="store_true", help="print what is kept, and run nothing")
    arguments = parser.parse_args()
    known = problems(arguments.sbibm)
    runs = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    start = time.monotonic()
    wanted = [] if arguments.table else range(arguments.seeds)
    for seed in wanted:
        for name in arguments.problems or known:
            for sampler in arguments.samplers:
                rows = runs.setdefault(f"{name}/{sampler}", [])
                if any(row["seed"] == seed for row in rows) or time.monotonic() - start > arguments.seconds:
                    continue
                began = time.monotonic()
                problem = known[name]
                found = ours(problem, seed) if sampler == "undrift" else dynestys(problem, seed, sampler)
                seconds = time.monotonic() - began
                rows.append({"seed": seed, **found, "seconds": seconds})
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(runs, indent=1))
                print(f"{name} {sampler} {seed}: ln Z {found['log_z']:.4f} (exact {problem.log_z:.4f}), error "
                      f"{found['error']:.4f}, {found['calls']:,} calls, {seconds:.0f} s", flush=True)  # fmt: skip
    table(runs, known)


if __name__ == "__main__":
    main()
