"""What a constraint costs beside the network: a constrained evaluation over a plain one.

    OMP_NUM_THREADS=1 python benchmarks/constraints.py --out benchmarks/results/constraints.json

A U-Net of about 30 ms for 16 maps of two channels, 32 x 48, on one core, as that of the demo. Each repeat times one
plain evaluation and one with each constraint, in turn; the ratio is the median over repeats of that to the plain one of
the same repeat, in seconds of the processor. Bound 1.1.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.guide import (
    BoundedMeans,
    Bounds,
    CoarseMeans,
    Constrained,
    Constraint,
    DivergenceFree,
    DivergenceFreeWith,
    Integral,
    Linear,
    Together,
)
from undrift.nets import UNet
from undrift.process import EDM

ROWS, CHANNELS, SPACE, FACTOR = 16, 2, (32, 48), (4, 4)
BOUND = 1.1


def constraints(x: Tensor) -> dict[str, Constraint]:
    """Of fields like x, with values that are those of other fields like it."""
    generator = torch.Generator().manual_seed(1)
    other = x + 0.3 * torch.randn(x.shape, generator=generator)
    cells = x[0].numel()
    areas = torch.cos(torch.linspace(-1, 1, SPACE[0]))[:, None].expand(SPACE)
    regions = torch.zeros(6, CHANNELS, *SPACE)
    for i in range(6):
        regions[i, i % 2, :, 16 * (i // 2) : 16 * (i // 2) + 16] = areas[:, :16]
    flow = torch.eye(CHANNELS)[:, :, None, None].expand(-1, -1, *SPACE) / areas.numel()
    calm = DivergenceFree((1, 0), (1.0, 1.0)).project(other)
    means = calm.reshape(ROWS, CHANNELS, SPACE[0] // 4, 4, SPACE[1] // 4, 4).mean((3, 5))
    sensors = torch.randn(200, cells, generator=generator)
    stations = torch.zeros(500, cells)
    stations[torch.arange(500), torch.randperm(cells, generator=generator)[:500]] = 1.0
    block, free = CoarseMeans(means, FACTOR), DivergenceFree((1, 0), (1.0, 1.0))
    return {
        "block means, 4 x 4": block,
        "block means by area": CoarseMeans(means, FACTOR, areas),
        "6 regional integrals": Integral(regions, torch.zeros(6)),
        "no divergence": free,
        "bounds": Bounds(-2.0, 2.0),
        "200 dense equations": Linear(sensors, torch.zeros(200)),
        "500 cells, sparse": Linear(stations.to_sparse(), torch.zeros(500)),
        "block means and bounds": BoundedMeans(block, Bounds(-1.0, 1.5)),
        "no divergence and block means": DivergenceFreeWith(free, CoarseMeans(means, FACTOR)),
        "no divergence and mean flow, to 1e-4": Together(Integral(flow, [0.2, -0.1]), free, tolerance=1e-4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = UNet(CHANNELS, CHANNELS, space=2, channels=(24, 48, 96), blocks=2).eval()
    plain = Preconditioned(net, EDM(), GaussianGuess(floor=1.0))
    x_t, t = torch.randn(ROWS, CHANNELS, *SPACE), torch.full((ROWS,), 0.3, dtype=torch.float64)
    names = constraints(plain(x_t, t).x.detach())
    made = {"plain": plain} | {name: Constrained(plain, one) for name, one in names.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    with torch.no_grad():
        for _ in range(options.repeats + 3):
            for name, denoiser in made.items():
                start = time.process_time()
                denoiser(x_t, t)
                seconds[name].append(time.process_time() - start)
        residuals = {name: float(one.residual(made[name](x_t, t).x).max()) for name, one in names.items()}
    step = 1000 * statistics.median(seconds["plain"][3:])
    print(f"plain evaluation {step:.1f} ms")
    results = {}
    for name in names:
        ratios = [c / p for c, p in zip(seconds[name][3:], seconds["plain"][3:])]
        results[name] = {"ratio": statistics.median(ratios), "residual": residuals[name]}
        verdict = "" if results[name]["ratio"] <= BOUND else f", above {BOUND}"
        print(f"{name}: {results[name]['ratio']:.3f}{verdict}, residual {residuals[name]:.1e}")
    if options.out:
        options.out.write_text(json.dumps({"plain_ms": step, "bound": BOUND, "constraints": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
