"""What undrift's own code around the network costs in a sampling step: 16 fields of the demo at once.

    make demo && python benchmarks/overhead.py demo/downscale

The time inside the network is added up while `sample` runs; what is left is the cost of preconditioning, solver, grid
and noise, as a share of the step. The two matrix products with the modes of the Gaussian guess, which are weights of
the model as those of the network are, stand by themselves. Medians over the repeats.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import undrift
from undrift.denoise import precondition
from undrift.distributions.diffusion import Diffusion
from undrift.infer import sample
from undrift.nets.members import member_of
from undrift.solve.ancestral import Ancestral
from undrift.solve.runge_kutta import Heun
from undrift.tasks.batch import Condition

BATCH, NFE = 16, 20
SOLVERS = {"the default": None, "Heun": Heun(), "Ancestral, with noise": Ancestral()}


def one_call(model: undrift.FieldModel) -> tuple[Diffusion, Condition, torch.Tensor]:
    """The law, condition and noise of the sampler's call for 16 realizations of one held-out map."""
    kept, original = [], Diffusion.sample

    def sample_and_keep(law: Diffusion, condition: Condition, z: torch.Tensor, **options: int) -> torch.Tensor:
        kept.append((law, condition, z))
        return original(law, condition, z, **options)

    Diffusion.sample = sample_and_keep
    model.sample(holdout=True, realizations=BATCH, nfe=2, progress=False)
    Diffusion.sample = original
    return kept[0]


class Stopwatch:
    """Adds up the seconds inside a function."""

    def __init__(self, function: Callable) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: object) -> object:
        begun = time.perf_counter()
        out = self.function(*arguments)
        self.seconds += time.perf_counter() - begun
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    law, condition, z = one_call(undrift.load(options.run))
    sigma = float(law.process.sigma(torch.tensor(law.process.t_max, dtype=torch.float64)))
    network = precondition.evaluate = Stopwatch(precondition.evaluate)
    modes = law.guess.shrink = Stopwatch(law.guess.shrink)
    denoiser = precondition.Preconditioned(member_of(law.net, 0).eval(), law.process, law.guess, law.precision)
    results = {}
    for name, solver in SOLVERS.items():
        code, guess, step = [], [], []
        for repeat in range(options.repeats + 2):
            network.seconds = modes.seconds = 0.0
            start = time.perf_counter()
            with torch.no_grad():
                sample(denoiser, sigma * z, condition, nfe=NFE, solver=solver, seed=repeat)
            total = time.perf_counter() - start
            step.append(1000 * total / NFE)
            guess.append(100 * modes.seconds / total)
            code.append(100 * (total - network.seconds - modes.seconds) / total)
        parts = {"code_percent": code, "modes_percent": guess, "step_ms": step}
        results[name] = {part: statistics.median(values[2:]) for part, values in parts.items()}
        one = results[name]
        print(
            f"{name}: {one['code_percent']:.2f} % of a step of {one['step_ms']:.1f} ms, and "
            f"{one['modes_percent']:.2f} % for the modes of the Gaussian guess",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps({"batch": BATCH, "nfe": NFE, "solvers": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
