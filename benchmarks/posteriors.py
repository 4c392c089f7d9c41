"""Posterior estimation on tasks of sbibm (Lueckmann et al. 2021, https://arxiv.org/abs/2101.04653) by ``undrift.fit``.

    pip download --no-deps sbibm==1.1.0
    python benchmarks/posteriors.py sbibm-1.1.0-py2.py3-none-any.whl --out benchmarks/results/posteriors.json

10,000 simulations from the prior are a table of parameters and data; one density of the parameters given the data is
fitted to it, with one setting for all tasks and the prior's bounds, and draws 10,000 posterior samples for each of the
ten observations. C2ST is the accuracy of sbibm's classifier between these and the reference posterior: 0.5 is perfect.
Beside it stands ``KL``, the mean of log p(theta | x) - log q(theta | x) over fresh simulations, with its standard
error: a sharper measure, where the evidence has a closed form. Resumable: each fit and observation is kept as it comes.
``--estimators`` compares some by the log-likelihood of rows that were held out, and by KL, with another seed.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import undrift
from sbibm_tasks import TASKS, Task, observation, reference_posterior
from undrift.verify import c2st

SIMULATIONS, DRAWS, OBSERVATIONS, FRESH = 10_000, 10_000, 10, 200
BARS = {"two_moons": 0.56, "gaussian_linear": 0.53, "gaussian_mixture": 0.58, "slcp": 0.75}


def simulated(task: Task, count: int, seed: list[int]) -> tuple[NDArray, NDArray]:
    """(count, D) parameters from the prior and (count, K) data."""
    rng = np.random.default_rng(seed)
    theta = task.prior_transform(rng.random((count, task.ndim)))
    return theta, task.simulate(theta, rng)


def fitted(task: Task, estimator: str, minutes: float, seed: int) -> undrift.DensityModel:
    """The density of theta given x; a tenth of the simulations only measures it."""
    theta, x = simulated(task, SIMULATIONS, [seed, 0])
    names = [f"theta{i}" for i in range(task.ndim)], [f"x{i}" for i in range(task.data)]
    table = pd.DataFrame(np.hstack([theta, x]), columns=[*names[0], *names[1]])
    bounds = dict.fromkeys(names[0], task.bounds) if math.isfinite(task.bounds[0]) else None
    return undrift.fit(
        table, task=undrift.Density(estimator, bounds=bounds), variables=names[0], covariates=names[1],
        budget=60 * minutes, seed=seed, progress=False,
    )  # fmt: skip


def divergence(task: Task, model: undrift.DensityModel, seed: int) -> dict[str, float]:
    """Mean of log p - log q over fresh simulations, where p is known."""
    if task.log_evidence is None:
        return {}
    theta, x = simulated(task, FRESH, [seed, 1])
    exact = [
        task.log_likelihood(t, d) + log_prior(task, t) - task.log_evidence(d) for t, d in zip(theta, x, strict=True)
    ]
    gap = np.array(exact) - model.log_prob(pd.DataFrame(theta, columns=model.names), x).log_prob.values
    return {"kl": float(gap.mean()), "kl_error": float(gap.std(ddof=1) / math.sqrt(FRESH))}


def log_prior(task: Task, theta: NDArray) -> float:
    """Of the flat prior within bounds, or of gaussian_linear's N(0, 0.1 I)."""
    if math.isfinite(task.bounds[0]):
        return -task.ndim * math.log(task.bounds[1] - task.bounds[0])
    return float(-(theta**2).sum() / 0.2 - task.ndim * math.log(2 * math.pi * 0.1) / 2)


def compared(wheel: Path, task: Task, model: undrift.DensityModel, number: int) -> dict[str, float]:
    """C2ST at one observation, its standard error, and the seconds of drawing and of the classifier."""
    x = observation(wheel, task.name, number)
    begun = time.perf_counter()
    drawn = model.sample(at={f"x{i}": float(v) for i, v in enumerate(x)}, realizations=DRAWS, seed=number)
    draws, drawing = np.stack([drawn[name].values for name in model.names], 1), time.perf_counter() - begun
    begun = time.perf_counter()
    found = c2st(reference_posterior(wheel, task.name, number), draws)
    return {"c2st": found.accuracy, "error": found.error, "drawing": drawing, "classifier": time.perf_counter() - begun}


def said(name: str, one: dict) -> str:
    """One line."""
    text = f"{name}: {one['estimator']}, held-out log-likelihood {one['log_likelihood']:.3f}, fitted in "
    text += f"{one['seconds']:.0f} s ({one['processor_seconds']:.0f} of a processor)"
    if "kl" in one:
        text += f", KL {one['kl']:.3f} +- {one['kl_error']:.3f}"
    values = np.array([v["c2st"] for v in one["observations"].values()])
    if len(values):
        alone = next(iter(one["observations"].values()))["error"]
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else alone
        text += f", C2ST {values.mean():.3f} +- {error:.3f} over {len(values)} observations"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--estimators", nargs="+", default=["auto"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--observations", nargs="*", type=int, default=list(range(1, OBSERVATIONS + 1)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("posteriors"), help="where the fitted densities are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/posteriors.json"))
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    for name, estimator in ((n, e) for n in asked.tasks for e in asked.estimators):
        task, key = TASKS[name](), f"{name}, {estimator}, {asked.minutes:g} min, seed {asked.seed}"
        run = asked.runs / key.replace(", ", "_").replace(" ", "")
        if key not in found:
            begun, busy = time.perf_counter(), time.process_time()
            model = fitted(task, estimator, asked.minutes, asked.seed)
            seconds, busy = time.perf_counter() - begun, time.process_time() - busy
            model.save(run, overwrite=True)
            facts = {
                "seconds": seconds,
                "processor_seconds": busy,
                "estimator": model.facts["estimator"],
                "training": model.facts["training"],
            }
            found[key] = facts | model.evaluate() | divergence(task, model, asked.seed) | {"observations": {}}
            asked.out.write_text(json.dumps(found, indent=1, default=float) + "\n")
            print(said(key, found[key]), flush=True)
        one, model = found[key], undrift.load(run)
        for number in asked.observations:
            if str(number) not in one["observations"]:
                one["observations"][str(number)] = compared(asked.wheel, task, model, number)
                asked.out.write_text(json.dumps(found, indent=1, default=float) + "\n")
        print(f"{said(key, one)} (bar {BARS[name]})", flush=True)


if __name__ == "__main__":
    main()
