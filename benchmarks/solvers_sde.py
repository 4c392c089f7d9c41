"""Draws of samplers with noise in the process, beside azula's and diffusers', on exact denoisers.

    python benchmarks/solvers.py --sde "ring of 8" "8-D mixture"

With noise there is no exact end point of a start: what is compared are laws. Of 4096 draws each sampler makes, from
starts of the exact law at sigma 80, two distances to the target are shown:

- the energy distance ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` to 16,384 exact draws, 0 in the mean for exact draws
  (Szekely & Rizzo 2013, https://doi.org/10.1016/j.jspi.2013.03.018): modes with wrong weights;
- the mean of -log p above that of exact draws, in nats a dimension: modes that are too wide (above 0), or too narrow.

The floor is the largest of both in eight sets of 4096 exact draws. Every network call counts.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from solvers import HIGH, LOW, STARTS, TARGETS, Counted, azula_denoiser, denoise_of
from undrift.denoise.denoiser import Denoiser
from undrift.denoise.exact import GaussianRandomField, Mixture
from undrift.infer import sample
from undrift.process import EDM
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.exponential import SDEDPMSolverPlusPlus
from undrift.solve.grid import EvenLogSNR, Karras, TimeGrid
from undrift.solve.solver import Solver

COUNTS = (8, 10, 16, 20, 40)
Sampler = Callable[[Counted, Tensor, int], Tensor]


def ours(solver: Solver | None = None, grid: TimeGrid | None = None) -> Sampler:
    def run(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
        process = EDM(HIGH)
        denoiser = Denoiser.from_callable(
            lambda x_t, sigma: denoise(x_t, float(sigma[0])), predicts="x", process=process, label=process.sigma
        )
        return sample(denoiser, x, nfe=nfe, solver=solver, grid=grid).x

    return run


def azula_sampler(name: str, calls: int = 1, **options: float) -> Sampler:
    """Of so many calls a step, with azula's VE schedule, even in log(sigma)."""

    def run(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
        import azula.sample

        sampler = getattr(azula.sample, name)
        return sampler(azula_denoiser(denoise), steps=nfe // calls, silent=True, dtype=torch.float64, **options)(x)

    return run


def diffusers_edm(order: int, schedule: str) -> Sampler:
    def run(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
        from diffusers import EDMDPMSolverMultistepScheduler

        scheduler = EDMDPMSolverMultistepScheduler(
            sigma_min=LOW,
            sigma_max=HIGH,
            solver_order=order,
            algorithm_type="sde-dpmsolver++",
            sigma_schedule=schedule,
        )
        scheduler.set_timesteps(nfe)
        for i, t in enumerate(scheduler.timesteps):
            sigma, data = float(scheduler.sigmas[i]), scheduler.config["sigma_data"]
            skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.sqrt(sigma**2 + data**2)
            x = scheduler.step((denoise(x, sigma) - skip * x) / out, t, x).prev_sample
        return x

    return run


def diffusers_ancestral(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
    """Euler's ancestral steps on Karras's levels, as the schedule of betas ends elsewhere."""
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler()
    scheduler.set_timesteps(nfe)
    levels = torch.linspace(HIGH ** (1 / 7), LOW ** (1 / 7), nfe, dtype=torch.float64) ** 7
    scheduler.sigmas = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
    for level, t in zip(levels, scheduler.timesteps):
        scheduler.scale_model_input(x, t)
        x = scheduler.step((x - denoise(x, float(level))) / level, t, x).prev_sample
    return x


def diffusers_ddpm(denoise: Counted, x: Tensor, nfe: int) -> Tensor:
    """With its own betas, from standard normal noise."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(clip_sample=False, prediction_type="sample", timestep_spacing="trailing")
    scheduler.set_timesteps(nfe)
    x = x / HIGH
    for t in scheduler.timesteps:
        alpha = math.sqrt(float(scheduler.alphas_cumprod[t]))
        x = scheduler.step(denoise(x / alpha, math.sqrt(1 - alpha**2) / alpha), t, x).prev_sample
    return x


OURS: dict[str, Sampler] = {
    "undrift SDE-DPM++, Karras": ours(SDEDPMSolverPlusPlus(), Karras()),
    "undrift SDE-DPM++, log-SNR": ours(SDEDPMSolverPlusPlus(), EvenLogSNR()),
    "undrift SDE-DPM++, default grid": ours(SDEDPMSolverPlusPlus()),
    "undrift DDPM, default grid": ours(Ancestral()),
    "undrift DDIM 0.5, default grid": ours(DDIM(0.5)),
    "undrift default (no noise)": ours(),
}
PEERS: dict[str, Sampler] = {
    "azula DDPM": azula_sampler("DDPMSampler"),
    "azula DDIM 0.5": azula_sampler("DDIMSampler", eta=0.5),
    "azula Ito": azula_sampler("ItoSampler"),
    "azula PC": azula_sampler("PCSampler", 2),
    "diffusers SDE-DPM++ 1": diffusers_edm(1, "karras"),
    "diffusers SDE-DPM++ 2": diffusers_edm(2, "karras"),
    "diffusers SDE-DPM++ 2, log-SNR": diffusers_edm(2, "exponential"),
    "diffusers Euler ancestral": diffusers_ancestral,
    "diffusers DDPM": diffusers_ddpm,
}


def between(x: Tensor, y: Tensor) -> float:
    """Mean distance of rows, (n, D) and (m, D)."""
    parts = [torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist").sum() for rows in x.split(1024)]
    return float(sum(parts)) / len(x) / len(y)


def within(x: Tensor) -> float:
    """Mean distance of different rows."""
    return between(x, x) * len(x) / (len(x) - 1)


def excess(target: Mixture | GaussianRandomField, x: Tensor) -> float:
    """Mean of -log p, nats a dimension."""
    return -float(target.log_prob(x, torch.zeros(1, dtype=torch.float64)).mean()) / x[0].numel()


def measured(title: str) -> dict:
    target = TARGETS[title]()
    generator = torch.Generator().manual_seed(0)
    denoise, _ = denoise_of(target)
    exact = target.sample(4 * STARTS, generator)
    inside, level = within(exact.flatten(1)), excess(target, exact)

    def found(x: Tensor) -> dict[str, float]:
        if not bool(torch.isfinite(x).all()):
            return {"energy": math.inf, "excess": math.inf}
        rows = x.double().flatten(1)
        energy = 2 * between(rows, exact.flatten(1)) - within(rows) - inside
        return {"energy": energy, "excess": excess(target, x.double()) - level}

    sets = [found(target.sample(STARTS, generator)) for _ in range(8)]
    floor = {name: max(abs(one[name]) for one in sets) for name in sets[0]}
    table: dict[str, dict[int, dict]] = {}
    for name, sampler in {**OURS, **PEERS}.items():
        for nfe in COUNTS:
            clean = target.sample(STARTS, generator)
            x = clean + HIGH * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
            torch.manual_seed(nfe)  # peers draw from the global state
            counted = Counted(denoise)
            end = sampler(counted, x, nfe)
            if counted.calls != nfe:
                raise SystemExit(f"{name} made {counted.calls} calls for {nfe}")
            table.setdefault(name, {})[nfe] = found(end)
    return {"target": title, "floor": floor, "distances": table}


def run(titles: list[str], out: Path) -> None:
    results = []
    for title in titles:
        one = measured(title)
        results.append(one)
        for kind, unit in (("energy", 1e3), ("excess", 1.0)):
            said = "energy distance, 1e-3" if kind == "energy" else "mean -log p above exact draws', nats a dimension"
            print(f"\n{title}: {said}; exact draws up to {unit * one['floor'][kind]:.3f}")
            print(" " * 32 + "".join(f"{n:>10d}" for n in COUNTS))
            for name, row in one["distances"].items():
                print(f"{name:32s}" + "".join(f"{unit * row[n][kind]:10.3f}" for n in COUNTS), flush=True)
        out.write_text(json.dumps(results, indent=1))
