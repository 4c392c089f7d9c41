"""Evidence by undrift.nested beside dynesty: pulls, and likelihood calls times squared error.

    python benchmarks/evidence.py --out benchmarks/results/evidence.json --sbibm sbibm-1.1.0-py2.py3-none-any.whl

The pull is (ln Z - truth) / reported error: mean 0 and spread 1 where errors are honest. Calls times squared error
does not depend on how long a sampler ran, so it compares samplers of different lengths. dynesty runs with each of its
ways to propose and fewer live points where dimensions are many; the smaller of its measured and its reported error is
taken, in its favour. `undrift, dynesty` is `undrift.nested(driver="dynesty")` with 250 live points. Every run is kept
in the file; the same command goes on where it was stopped, and `--table` only prints.

The laws and their exact evidences are those of `evidence_problems`; the four sbibm tasks take their observations from
sbibm's wheel.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from evidence_problems import Problem, of_task, problems
from undrift.infer.nested import nested

FOLLOWED, FOLLOWED_LIVE = "undrift, dynesty", 250
DYNESTY_LIVE = {2: 500, 5: 500, 10: 250, 20: 100, 30: 100}
TASKS = ("two_moons", "gaussian_linear", "gaussian_linear_uniform", "gaussian_mixture")


def known_problems(wheel: Path | None) -> dict[str, Problem]:
    """The laws of `evidence_problems`, and sbibm's tasks given their first observation."""
    tasks = [] if wheel is None else [of_task(wheel, name, 1) for name in TASKS]
    return problems() | {problem.name: problem for problem in tasks}


def scalar(problem: Problem) -> Callable[[np.ndarray], float]:
    return lambda theta: float(problem.log_likelihood(theta))


def ours(problem: Problem, seed: int, followed: bool) -> dict[str, float]:
    how: dict = {"driver": "dynesty", "live": FOLLOWED_LIVE} if followed else {}
    found = nested(scalar(problem), problem.prior_transform, problem.ndim, seed=seed, progress=False, **how)
    return {
        "log_z": found.log_z, "error": found.log_z_error, "calls": found.calls, "efficiency": found.efficiency,
        "pareto_shape": found.pareto_shape if math.isfinite(found.pareto_shape) else None,
    }  # fmt: skip


def dynestys(problem: Problem, seed: int, sample: str) -> dict[str, float]:
    from dynesty import NestedSampler

    sampler = NestedSampler(
        scalar(problem), problem.prior_transform, problem.ndim, nlive=DYNESTY_LIVE[problem.ndim],
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


def table(runs: dict[str, list[dict[str, float]]], known: dict[str, Problem], sampler: str = "undrift") -> None:
    pulls = []
    print(f"\n{sampler}\n")
    print("| law | runs | mean pull | spread | calls | error | calls x squared error | dynesty's best | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, problem in known.items():
        rows = [row for row in runs.get(f"{name}/{sampler}", []) if math.isfinite(row["error"])]
        refused = len(runs.get(f"{name}/{sampler}", [])) - len(rows)
        if len(rows) < 2:
            continue
        pull = np.array([(row["log_z"] - problem.log_evidence) / row["error"] for row in rows])
        pulls.append(pull)
        mine = cost(rows, problem.log_evidence)
        theirs = {key.split("/")[1]: cost(r, problem.log_evidence, least=True) for key, r in runs.items()
                  if key.startswith(f"{name}/") and not key.startswith(f"{name}/undrift") and r}  # fmt: skip
        best = min(theirs, key=lambda key: theirs[key]) if theirs else ""
        count = len(runs[f"{name}/{best}"]) if best else 0
        rival = f"{best}, {count}: {theirs[best]:.3g}" if best else ""
        ratio = f"{mine / theirs[best]:.2g}" if best else ""
        error = math.sqrt(np.mean([row["error"] ** 2 for row in rows]))
        calls = np.mean([row["calls"] for row in rows])
        said = f"{len(rows)}, {refused} refused" if refused else f"{len(rows)}"
        print(f"| {name} | {said} | {pull.mean():.2f} | {pull.std(ddof=1):.2f} | {calls:,.0f} | {error:.4f} "
              f"| {mine:.2g} | {rival} | {ratio} |")  # fmt: skip
    if pulls:
        pooled = np.concatenate(pulls)
        mean, spread = pooled.mean(), pooled.std(ddof=1)
        print(
            f"| pooled | {len(pooled)} | {mean:.2f} +- {spread / math.sqrt(len(pooled)):.2f} | {spread:.2f} | | | | | |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evidence.json"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sbibm", type=Path, help="sbibm's wheel, for its four tasks")
    parser.add_argument("--problems", nargs="*", help="some of them; all by default")
    parser.add_argument("--samplers", nargs="*", default=["undrift", FOLLOWED, "unif", "rwalk", "rslice"])
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after this time")
    parser.add_argument("--table", action="store_true", help="print what is kept, and run nothing")
    arguments = parser.parse_args()
    known = known_problems(arguments.sbibm)
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
                if sampler.startswith("undrift"):
                    found = ours(problem, seed, sampler == FOLLOWED)
                else:
                    found = dynestys(problem, seed, sampler)
                seconds = time.monotonic() - began
                rows.append({"seed": seed, **found, "seconds": seconds})
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(runs, indent=1))
                print(f"{name} {sampler} {seed}: ln Z {found['log_z']:.4f} (exact {problem.log_evidence:.4f}), error "
                      f"{found['error']:.4f}, {found['calls']:,} calls, {seconds:.0f} s", flush=True)  # fmt: skip
    table(runs, known)
    table(runs, known, FOLLOWED)


if __name__ == "__main__":
    main()
