"""Speed and learning of undrift's U-Net beside those of azula, diffusers and denoising-diffusion-pytorch.

Every peer meets a U-Net of ours with parameters and multiply-adds within 10 % of its own; 64x64, batch 16, bf16
autocast, AdamW, in one process that alternates between all nets in short bursts. Each net runs in the memory layout
in which it is faster. See network_speed.md for the command and figures.
"""

import argparse
import importlib.util
import json
import math
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from undrift.nets import UNet, evaluate
from undrift.nets.embed import fourier_features

SIZE, BATCH = 64, 16
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

# Ours at each peer's size.
OURS = {
    "azula": {"channels": (64, 72, 128, 176), "blocks": 1},
    "diffusers": {"channels": (64, 96, 192), "blocks": (1, 2, 2)},
    "ddpm-pytorch": {"channels": (64, 96, 128), "blocks": (1, 2, 2)},
}


class Azula(nn.Module):
    """azula's U-Net, modulated by Fourier features of the noise label."""

    def __init__(self) -> None:
        super().__init__()
        from azula.nn.unet import UNet as Net

        self.net = Net(1, 1, hid_channels=(32, 64, 128), hid_blocks=(2, 2, 2), norm="group", mod_features=128)

    def forward(self, x: Tensor, t: Tensor, vector: None = None) -> Tensor:
        return self.net(x, fourier_features(t, 128))


class Diffusers(nn.Module):
    """diffusers' UNet2DModel with attention at the lowest level."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.net = UNet2DModel(
            sample_size=SIZE,
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 64, 128),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, t: Tensor, vector: None = None) -> Tensor:
        return self.net(x, t * (2000 / math.pi)).sample


class DDPM(nn.Module):
    """denoising-diffusion-pytorch's Unet; its module imports torchvision for image files only."""

    def __init__(self) -> None:
        super().__init__()
        stub = types.ModuleType("torchvision")
        stub.transforms = stub.utils = types.ModuleType("torchvision.stub")
        stands_in = importlib.util.find_spec("torchvision") is None
        if stands_in:
            sys.modules["torchvision"] = stub
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet

        if stands_in:
            del sys.modules["torchvision"]
        self.net = Unet(32, dim_mults=(1, 2, 4), channels=1)

    def forward(self, x: Tensor, t: Tensor, vector: None = None) -> Tensor:
        return self.net(x, t * (2000 / math.pi))


PEERS: dict[str, Callable[[], nn.Module]] = {"azula": Azula, "diffusers": Diffusers, "ddpm-pytorch": DDPM}


@dataclass
class Entry:
    """One net with its optimiser, ready to be timed."""

    name: str
    net: nn.Module
    layout: str = "channels_last"

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-4, fused=True)
        self.times: dict[str, list[float]] = {"train": [], "infer": []}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.net(torch.randn(BATCH, 1, SIZE, SIZE), torch.rand(BATCH))
        self.flops = counter.get_total_flops() / 1e9
        self.parameters = sum(p.numel() for p in self.net.parameters()) / 1e6

    def use(self, layout: str) -> None:
        self.layout = layout
        self.net.to(memory_format=LAYOUTS[layout])

    def run(self, mode: str, x: Tensor, t: Tensor) -> float:
        x = x.to(memory_format=LAYOUTS[self.layout])
        start = time.perf_counter()
        if mode == "infer":
            with torch.no_grad():
                evaluate(self.net, torch.bfloat16, x, t)
        else:
            self.optimiser.zero_grad()
            (evaluate(self.net, torch.bfloat16, x, t) - x).square().mean().backward()
            self.optimiser.step()
        return time.perf_counter() - start


def entries(names: list[str], sizes: dict = OURS) -> list[Entry]:
    """The peers and, for each of them, ours of its size."""
    built = []
    for name in names:
        torch.manual_seed(0)
        built += [Entry(name, PEERS[name]()), Entry(f"undrift~{name}", UNet(1, 1, space=2, **sizes[name]))]
    return built


def measure(nets: list[Entry], rounds: int, modes: tuple[str, ...] = ("train", "infer")) -> None:
    """Alternate between all nets: per round one warm and one timed call of each kind."""
    x, t = torch.randn(BATCH, 1, SIZE, SIZE), torch.rand(BATCH)
    best: dict[tuple[str, str], str] = {}
    for entry in nets:
        for mode in modes:
            trial = {}
            for layout in LAYOUTS:
                entry.use(layout)
                trial[layout] = min(entry.run(mode, x, t) for _ in range(3))
            best[entry.name, mode] = min(trial, key=lambda layout: trial[layout])
            print(entry.name, mode, {k: f"{v * 1e3:.0f} ms" for k, v in trial.items()}, file=sys.stderr, flush=True)
    for _ in range(rounds):
        for mode in modes:
            for entry in nets:
                entry.use(best[entry.name, mode])
                entry.run(mode, x, t)
                entry.times[mode] += [entry.run(mode, x, t), entry.run(mode, x, t)]
    for entry in nets:
        entry.best = {mode: best[entry.name, mode] for mode in modes}  # type: ignore[attr-defined]


def table(nets: list[Entry], modes: tuple[str, ...] = ("train", "infer")) -> list[dict]:
    """Rows of medians, images per second and ratios of ours to the peer of the row above."""
    rows = []
    for entry in nets:
        row: dict = {"net": entry.name, "parameters (M)": round(entry.parameters, 2), "GF": round(entry.flops, 1)}
        for mode in modes:
            seconds = statistics.median(entry.times[mode])
            row |= {f"{mode} ms": round(seconds * 1e3), f"{mode} images/s": round(BATCH / seconds, 1)}
            row |= {f"{mode} min ms": round(min(entry.times[mode]) * 1e3), f"{mode} layout": entry.best[mode]}  # type: ignore[attr-defined]
        rows.append(row)
    for peer, ours in zip(rows[::2], rows[1::2]):
        for key in ("parameters (M)", "GF"):
            ours[f"{key} ratio"] = round(ours[key] / peer[key], 3)
        for mode in modes:
            ours[f"{mode} speed ratio"] = round(ours[f"{mode} images/s"] / peer[f"{mode} images/s"], 2)
            ours[f"{mode} speed ratio of minima"] = round(peer[f"{mode} min ms"] / ours[f"{mode} min ms"], 2)
    return rows


def fields(count: int, size: int, seed: int) -> Tensor:
    """Synthetic fields with fronts and patches, of unit variance, made of two power-law Gaussian fields."""
    generator = torch.Generator().manual_seed(seed)
    wave = torch.fft.fftfreq(size)
    radius = (wave[:, None] ** 2 + wave**2).sqrt()
    radius[0, 0] = math.inf
    slope = 1.2 + 0.8 * torch.rand(count, 2, 1, 1, generator=generator)
    noise = torch.fft.fft2(torch.randn(count, 2, size, size, generator=generator))
    z = torch.fft.ifft2(noise * radius**-slope).real
    z = z / z.std((2, 3), keepdim=True)
    x = torch.tanh(3 * z[:, :1]) + 0.5 * (z[:, 1:] + 0.5 * z[:, :1]).clamp(min=0) ** 2
    return (x - x.mean()) / x.std()


def score_matching(net: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """EDM's loss in units of the network's target, sigma_data = 1 (Karras et al. 2022, equation 8)."""
    sigma = torch.exp(1.2 * torch.randn(len(x), generator=generator) - 0.6).view(-1, 1, 1, 1)
    y = x + sigma * torch.randn(x.shape, generator=generator)
    c_skip, c_out, c_in = 1 / (1 + sigma**2), sigma / (1 + sigma**2).sqrt(), 1 / (1 + sigma**2).sqrt()
    f = evaluate(net, torch.bfloat16, (c_in * y).to(memory_format=torch.channels_last), sigma.flatten().atan())
    return (f - (x - c_skip * y) / c_out).square().mean()


def learn(names: list[str], seconds: float, rates: list[float], size: int, seed: int = 0) -> list[dict]:
    """Validation loss after equal wall clock, the nets taking turns; the best learning rate of each counts."""
    train, valid = fields(4096, size, 1), fields(256, size, 2)
    runs = [(entry, rate) for rate in rates for entry in entries(names)]
    state = []
    for entry, rate in runs:
        entry.use("channels_last")
        state.append({"spent": 0.0, "steps": 0, "generator": torch.Generator().manual_seed(seed), "rate": rate})
    while any(run["spent"] < seconds for run in state):
        for (entry, rate), run in zip(runs, state):
            turn = time.perf_counter()
            share = run["spent"] / seconds
            while share < 1 and time.perf_counter() - turn < seconds / 12:
                start = time.perf_counter()
                for group in entry.optimiser.param_groups:
                    group["lr"] = rate * min(1.0, share / 0.05 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * share))
                entry.optimiser.zero_grad()
                pick = torch.randint(len(train), (BATCH,), generator=run["generator"])
                score_matching(entry.net, train[pick], run["generator"]).backward()
                nn.utils.clip_grad_norm_(entry.net.parameters(), 1.0)
                entry.optimiser.step()
                run["spent"] += time.perf_counter() - start
                run["steps"] += 1
                share = run["spent"] / seconds
    rows = []
    for (entry, rate), run in zip(runs, state):
        generator = torch.Generator().manual_seed(99)
        entry.net.eval()
        with torch.no_grad():
            losses = [score_matching(entry.net, batch, generator).item() for batch in valid.split(BATCH)]
        rows.append({"net": entry.name, "rate": rate, "steps": run["steps"], "loss": round(statistics.mean(losses), 5)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the alternating timing")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--learn", type=float, metavar="SECONDS", help="compare the losses after so long instead")
    parser.add_argument("--rates", default="5e-4,1e-3", help="learning rates that --learn tries with every net")
    parser.add_argument("--size", type=int, default=SIZE, help="cells per axis for --learn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.peers.split(",")
    if options.learn:
        rows = learn(names, options.learn, [float(rate) for rate in options.rates.split(",")], options.size)
    else:
        nets = entries(names)
        measure(nets, options.rounds)
        rows = table(nets)
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
