"""What undrift's own code around the network costs in a sampling step: 16 fields of the demo at once.

    make demo && python benchmarks/overhead.py demo/downscale

The same `sample` runs as it is and with the time inside the network summed up; what is left, over what is inside, is
the cost of preconditioning, solver, grid and noise. Median and range over the repeats.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import undrift
from undrift.denoise.precondition import Preconditioned
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    law, condition, z = one_call(undrift.load(options.run))
    net = member_of(law.net, 0).eval()
    sigma = float(law.process.sigma(torch.tensor(law.process.t_max, dtype=torch.float64)))
    denoiser = Preconditioned(net, law.process, law.guess, law.precision)
    inside, begun = 0.0, 0.0

    def enter(*_: object) -> None:
        nonlocal begun
        begun = time.perf_counter()

    def leave(*_: object) -> None:
        nonlocal inside
        inside += time.perf_counter() - begun

    net.register_forward_pre_hook(enter)
    net.register_forward_hook(leave)
    results = {}
    for name, solver in SOLVERS.items():
        shares = []
        for repeat in range(options.repeats + 2):
            inside, start = 0.0, time.perf_counter()
            with torch.no_grad():
                sample(denoiser, sigma * z, condition, nfe=NFE, solver=solver, seed=repeat)
            total = time.perf_counter() - start
            shares.append((total - inside) / inside)
        shares = sorted(shares[2:])
        results[name] = {"median": statistics.median(shares), "least": shares[0], "most": shares[-1]}
        print(f"{name}: {100 * results[name]['median']:.2f} % ({100 * shares[0]:.2f} to {100 * shares[-1]:.2f})")
    if options.out:
        options.out.write_text(json.dumps({"batch": BATCH, "nfe": NFE, "overhead": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
