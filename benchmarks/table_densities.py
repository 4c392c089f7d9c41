"""Estimators of densities beside each other, by ``undrift.fit``, on laws whose density is known.

    python benchmarks/table_densities.py --out benchmarks/results/table_densities.json     # resumable

Each estimator is fitted to the same 100,000 draws of a law in the plane for the same time (a mixture and a kernel
density take what they take; a kernel density is of 20,000 of them). KL = mean (log p - log q) on fresh draws with its
paired standard error, which can approach 0 and never be below it by more than chance; and the seconds that the
log-density of 10,000 points takes.
``nsf`` is zuko's neural spline flow, and with ``--torchcfm FOLDER``, where

    pip install --no-deps --target FOLDER torchcfm pot

has put it, a flow of torchcfm's by its tutorial in the plane is beside them: its perceptron, batches of 256, Adam, and
independent or optimally matched pairs (``torchcfm``, ``torchcfm-ot``). Its law is that of ``sigma = 0``, without the
noise of 0.1 that the tutorial adds, and the points are scaled to unit variance, both of which are in its favour; width
256 as ours, in place of 64. What is learned beside each other is trained for as long, in the same run.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import undrift
from densities import LAWS
from undrift.distributions.estimators import ESTIMATORS

Points = NDArray[np.float64]
DRAWS, FEWER, FRESH, TIMED = 100_000, 20_000, 20_000, 10_000
PEERS = ("torchcfm", "torchcfm-ot")
WIDTH, BATCH, STEPS = 256, 256, 48
CHUNK = 500
TRIED = 10  # of so many points the error of one is measured


def own(rows: Points, estimator: str, budget: float, seed: int) -> tuple[Callable[[Points], tuple], dict]:
    """The log-density of one of undrift's estimators, with its error, and how it was fitted."""
    model = undrift.fit(rows, estimator=estimator, budget=budget, seed=seed, progress=False)

    def log_prob(x: Points) -> tuple[Points, Points]:
        found = model.log_prob(x)
        return found.log_prob.values, found.log_prob_error.values

    return log_prob, model.describe()["training"]


def peer(rows: Points, name: str, budget: float, seed: int) -> tuple[Callable[[Points], tuple], dict]:
    """The same of torchcfm, its log-density by Runge and Kutta's fourth order; its error by half as many steps."""
    from torchcfm.conditional_flow_matching import (
        ConditionalFlowMatcher,
        ExactOptimalTransportConditionalFlowMatcher,
    )
    from torchcfm.models import MLP

    torch.manual_seed(seed)
    begun, mean, scale = time.perf_counter(), rows.mean(0), float(rows.std())
    x = torch.from_numpy((rows - mean) / scale).float()
    kind = ExactOptimalTransportConditionalFlowMatcher if name == "torchcfm-ot" else ConditionalFlowMatcher
    matcher = kind(sigma=0.0)
    net, steps = MLP(dim=2, w=WIDTH, time_varying=True), 0
    optimizer = torch.optim.Adam(net.parameters())
    while time.perf_counter() - begun < budget:
        x_1 = x[torch.randint(len(x), (BATCH,))]
        t, x_t, velocity = matcher.sample_location_and_conditional_flow(torch.randn_like(x_1), x_1)
        loss = ((net(torch.cat([x_t, t[:, None]], -1)) - velocity) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1

    def log_prob(values: Points) -> tuple[Points, Points]:
        y = torch.from_numpy((values - mean) / scale).float()
        found, again = (torch.cat([_carried(net, part, steps) for part in rows.split(CHUNK)]).numpy()
                        for rows, steps in ((y, STEPS), (y[::TRIED], STEPS // 2)))  # fmt: skip
        return found - 2 * math.log(scale), np.abs(found[::TRIED] - again)

    return log_prob, {"steps": steps}


def _carried(net: torch.nn.Module, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Log-density of points carried from t = 1, the data, to the normal law at t = 0, with the exact divergence."""

    def slope(x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_()
        v = net(torch.cat([x, torch.full((len(x), 1), t)], -1))
        rows = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=i == 0)[0][:, i] for i in range(2)]
        return v.detach(), sum(rows).double()

    h, total = -1 / steps, torch.zeros(len(x), dtype=torch.float64)
    for k in range(steps):
        t = 1 + k * h
        a = slope(x, t)
        b = slope(x + h / 2 * a[0], t + h / 2)
        c = slope(x + h / 2 * b[0], t + h / 2)
        d = slope(x + h * c[0], t + h)
        x = x + h / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0])
        total += h / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1])
    return total - (x.double() ** 2).sum(1) / 2 - math.log(2 * math.pi)


def measured(law: str, estimator: str, budget: float, seed: int) -> dict:
    """KL, its error, and what it took."""
    one = LAWS[law]
    rows = one.draw(FEWER if estimator == "kde" else DRAWS, np.random.default_rng(seed))
    begun = time.perf_counter()
    log_prob, training = (peer if estimator in PEERS else own)(rows, estimator, budget, seed)
    fitted = time.perf_counter() - begun
    fresh = one.draw(FRESH, np.random.default_rng([seed, 1]))
    begun = time.perf_counter()
    found, error = log_prob(fresh[:TIMED])
    seconds = time.perf_counter() - begun
    gap = one.log_p(fresh) - np.concatenate([found, log_prob(fresh[TIMED:])[0]])
    return {
        "kl": float(gap.mean()),
        "standard_error": float(gap.std(ddof=1) / math.sqrt(FRESH)),
        "bar": one.bar,
        "fitted_seconds": fitted,
        "log_prob_seconds": seconds,
        "log_prob_error": float(np.quantile(error, 0.9)),
        "training": training,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="*", default=list(LAWS))
    parser.add_argument("--estimators", nargs="*", choices=["auto", *ESTIMATORS, *PEERS])
    parser.add_argument("--torchcfm", type=Path, help="folder in which pip has put it")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/table_densities.json"))
    asked = parser.parse_args()
    if asked.torchcfm:
        sys.path.append(str(asked.torchcfm))
    estimators = asked.estimators or ["auto", *(e for e in ESTIMATORS if e != "gp"), *(PEERS if asked.torchcfm else ())]
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    for law in asked.laws:
        for estimator in estimators:
            key = f"{law}, {estimator}"
            if key not in found:
                found[key] = measured(law, estimator, asked.budget, asked.seed)
                asked.out.write_text(json.dumps(found, indent=1) + "\n")
            one = found[key]
            print(
                f"{key}: KL {one['kl']:.4f} +- {one['standard_error']:.4f} (bar {one['bar']}), "
                f"10,000 points in {one['log_prob_seconds']:.1f} s within {one['log_prob_error']:.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
