"""What a guided evaluation costs beside an unguided one: a U-Net whose parameters are frozen, and block means observed.

    OMP_NUM_THREADS=1 python benchmarks/guidance.py --out benchmarks/results/guidance.json

All take turns in one process on one core; medians over the repeats of the ratios of processor time. A guide of one
gradient (DPS, PiGDM) may cost 2.5 evaluations; MMPS costs one more gradient for each iteration of its conjugate
gradients.
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import torch

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.guide import DPS, MMPS, BlockMeans, Observation, PiGDM
from undrift.nets import UNet
from undrift.process import EDM

SIZE, BATCH, FACTOR = 64, 4, 8


def evaluations() -> dict[str, Denoiser]:
    """The denoiser alone, and guided."""
    net = UNet(1, 1, space=2, channels=(32, 64, 128), blocks=2).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():  # a fresh net returns 0, and its gradient is 0
        parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    denoiser = Preconditioned(net, EDM(), GaussianGuess(floor=1.0))
    observed = torch.randn((SIZE // FACTOR) ** 2, generator=generator)
    observation = Observation(BlockMeans(FACTOR), observed, 0.1)
    return {
        "unguided": denoiser,
        "DPS": DPS(denoiser, observation),
        "PiGDM": PiGDM(denoiser, observation),
        **{f"MMPS, {n} iterations": MMPS(denoiser, observation, iterations=n, tolerance=0.0) for n in (1, 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter(
        "ignore", RuntimeWarning
    )  # of MMPS, whose iterations are counted here and do not end by themselves
    made = evaluations()
    t = torch.full((BATCH,), 0.5, dtype=torch.float64)
    x_t = torch.randn(BATCH, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    seconds: dict[str, list[float]] = {name: [] for name in made}
    with torch.no_grad():
        for _ in range(options.repeats + 2):
            for name, denoiser in made.items():
                begun = time.process_time()
                denoiser(x_t, t)
                seconds[name].append(time.process_time() - begun)
    base = seconds["unguided"][2:]
    ratios = {
        name: statistics.median(a / b for a, b in zip(values[2:], base, strict=True))
        for name, values in seconds.items()
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} unguided evaluations of {1000 * statistics.median(base):.0f} ms")
    if options.out:
        options.out.write_text(json.dumps({"size": SIZE, "batch": BATCH, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
