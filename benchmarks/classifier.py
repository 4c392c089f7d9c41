"""A noise-conditional classifier of digits, and whether its probabilities are right: a reliability diagram.

    OMP_NUM_THREADS=1 python benchmarks/classifier.py mnist10k_npm.npz --out benchmarks/results/classifier.json \
        --figure docs/images/classifier.png

The file holds ``images`` (10000, 28, 28) uint8 and ``labels``. 8,000 digits train a small convolutional network by
cross-entropy at all noise levels, by the one training loop; each of the other 2,000 is seen once in each of three bands
of noise. Drawn is the frequency of a digit among the cases in which it was given a probability, all ten digits of all
images in one diagram, with 3 standard errors of calibrated probabilities.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.guide import NoisyClassifier
from undrift.nets.embed import fourier_features
from undrift.objective import CrossEntropy, Uniform
from undrift.process import RectifiedFlow
from undrift.tasks.batch import Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit
from undrift.verify.reliability import Reliability, reliability

PROCESS, HELD_OUT = RectifiedFlow(), 2000
BANDS = {"t < 1/2": (0.0, 0.5), "1/2 < t < 3/4": (0.5, 0.75), "t > 3/4": (0.75, 1.0)}


class Digits(nn.Module):
    """Three convolutions that halve the image twice, shifted by the label of time, and means over what is left."""

    def __init__(self, width: int = 32, embedding: int = 32) -> None:
        super().__init__()
        self.embedding = embedding
        widths = [1, width, 2 * width, 2 * width]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.shifts = nn.ModuleList(nn.Linear(embedding, b) for b in widths[1:])
        self.norms = nn.ModuleList(nn.GroupNorm(4, b) for b in widths[1:])
        self.last = nn.Linear(2 * width * 49, 10)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) and labels (B,) to logits (B, 10)."""
        features = fourier_features(label, self.embedding).to(x.dtype)
        for i, (conv, norm, shift) in enumerate(zip(self.convs, self.norms, self.shifts)):
            x = F.silu(norm(conv(x)) + shift(features)[:, :, None, None])
            x = F.avg_pool2d(x, 2) if i < 2 else x
        return self.last(x.flatten(1))


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Images of unit variance, in an order drawn once, and one-hot labels."""
    with np.load(path) as data:
        images, labels = data["images"].astype(np.float32), data["labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images - images.mean()) / images.std()
    return torch.from_numpy(images[order])[:, None], F.one_hot(torch.from_numpy(labels[order]), 10).float()


@torch.no_grad()
def probabilities(classifier: NoisyClassifier, x: Tensor, band: tuple[float, float], seed: int) -> Tensor:
    """Of each image at one time of the band, (n, 10)."""
    generator = torch.Generator().manual_seed(seed)
    t = Uniform(*band)(len(x), PROCESS, generator)
    z = torch.randn(x.shape, generator=generator)
    wide = (-1, 1, 1, 1)
    x_t = PROCESS.alpha(t).float().reshape(wide) * x + PROCESS.sigma(t).float().reshape(wide) * z
    return torch.softmax(classifier(x_t, t).double(), 1)


def figure(path: Path, diagrams: dict[str, Reliability]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(diagrams), figsize=(10, 3.9), sharey=True, layout="constrained")
    for ax, (name, found) in zip(axes, diagrams.items()):
        ax.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
        ax.errorbar(
            found.probability, found.frequency, 3 * found.error, fmt="o", ms=4, color="#0072b2", capsize=2,
            label="held-out digits, 3 standard errors",
        )  # fmt: skip
        ax.set(title=name, xlabel="probability of the classifier", xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal")
    axes[0].set_ylabel("frequency")
    axes[-1].legend(loc="lower right", fontsize=8, frameon=False)
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    x, label = read(options.digits)
    net = Digits()
    classifier = NoisyClassifier(net, PROCESS)
    given = Condition({}, {"label": label[HELD_OUT:]})
    settings = Settings(steps=options.steps, learning_rate=2e-3, weight_decay=0.01)
    trained = fit(net, CrossEntropy(PROCESS), x[HELD_OUT:], given, model=classifier, settings=settings, batch=128)
    print(f"{trained.steps} steps")
    diagrams, results = {}, {}
    for seed, (name, band) in enumerate(BANDS.items()):
        p, truth = probabilities(classifier, x[:HELD_OUT], band, seed), label[:HELD_OUT]
        found = diagrams[name] = reliability(p, truth)
        away = np.abs(found.frequency - found.probability)
        results[name] = {
            "accuracy": float((p.argmax(1) == truth.argmax(1)).double().mean()),
            "cross_entropy": float(-(truth * p.clamp(min=1e-12).log()).sum(1).mean()),
            "calibration_error": float(np.nansum(found.count * away) / found.count.sum()),
            "largest_error_in_standard_errors": float(np.nanmax(away / found.error)),
            "probability": found.probability.tolist(),
            "frequency": found.frequency.tolist(),
            "error": found.error.tolist(),
            "count": found.count.tolist(),
        }
        shown = {k: round(v, 4) for k, v in results[name].items() if isinstance(v, float)}
        print(name, shown)
    if options.out:
        options.out.write_text(json.dumps({"steps": trained.steps, "bands": results}, indent=1) + "\n")
    if options.figure:
        figure(options.figure, diagrams)


if __name__ == "__main__":
    main()
