"""Faults in the formulas, each of which some test must notice: ``make mutate``.

Every fault is one replacement in one file. It is made in a copy of the package, and the tests named beside it run on
that copy; tests that still pass have not seen the fault, and the command fails.

    python tests/mutate.py [part of a file's name ...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """One replacement, and the tests that must fail."""

    path: str
    right: str
    wrong: str
    tests: str


FAULTS = [
    Fault("process/process.py", "return 2 * (self.alpha", "return (self.alpha", "contracts/test_processes.py"),
    Fault("process/process.py", "(alpha * self.sigma(s)) ** 2", "(alpha * self.sigma(t)) ** 2",
          "contracts/test_processes.py"),
    Fault("process/process.py", "return (1 - t) ** -2", "return (1 - t) ** -1", "contracts/test_processes.py"),
    Fault("process/noise.py", "+ 0.5) * 2.0**-52", "+ 0.5) * 2.0**-53", "exact/test_noise.py"),
    Fault("solve/adams_bashforth.py", "estimate.z - estimate.x", "estimate.x - estimate.z", "exact/test_sampler.py"),
    Fault("solve/adams_bashforth.py", "history[: self.order - 1]", "history[: self.order - 2]", "exact/test_sampler.py"),
    Fault("solve/adams_bashforth.py", "** (powers + 1) / (powers + 1)", "** (powers + 1) / (powers + 2)",
          "exact/test_sampler.py"),
    Fault("solve/grid.py", "even**1.5", "even", "exact/test_sampler.py"),
    Fault("denoise/precondition.py", "(ratio**2 + guess.total(size)).rsqrt()", "(ratio + guess.total(size)).rsqrt()",
          "exact/test_denoise.py"),
    Fault("denoise/precondition.py", "guess.posterior_variance(ratio, size).sqrt()",
          "guess.posterior_variance(ratio, size)", "exact/test_denoise.py"),
    Fault("denoise/guess.py", "tail = self.floor * square / (self.floor + square)",
          "tail = square / (self.floor + square)", "exact/test_denoise.py"),
    Fault("denoise/guess.py", "isotonic_regression(held, increasing=False)", "isotonic_regression(held)",
          "exact/test_denoise.py"),
    Fault("objective/denoising.py", "(f - (x - linear) / c_out) ** 2", "(f - (x - linear)) ** 2",
          "exact/test_objective.py"),
    Fault("objective/times.py", "math.sqrt(2) * torch.erfinv", "torch.erfinv", "exact/test_objective.py"),
    Fault("data/ridge.py", "1 / (values + penalty * values[0])", "1 / (values + penalty)", "data/test_linear.py"),
    Fault("data/transforms.py", "x if self.power == 1 else np.sign(x) * np.abs(x) ** self.power",
          "x if self.power == 1 else np.abs(x) ** self.power", "data/test_transforms.py"),
    Fault("data/censored.py", "return mean - std * ratio, std**2", "return mean + std * ratio, std**2",
          "data/test_codec.py"),
    Fault("data/predictors.py", "tried.append(fitted((channel,), (own,)))", "pass", "data/test_predictors.py"),
    Fault("data/curves.py", "** 2 + variance) * weight", "** 2) * weight", "data/test_curves.py"),
    Fault("data/curves.py", "yield k, fold != k", "yield k, fold >= 0", "data/test_curves.py"),
    Fault("data/curves.py", "beside = np.bincount(at, left * right", "beside = np.bincount(at, right * right",
          "data/test_curves.py"),
    Fault("data/codec.py", "std[:, i] *= curve.widened", "std[:, i] /= curve.widened", "data/test_curves.py"),
    Fault("data/censored.py", "log_ndtr((mean[wet] - high) / std[wet])", "log_ndtr((high - mean[wet]) / std[wet])",
          "data/test_curves.py"),
    Fault("data/codec.py", "self.std[None][cut] - level)", "self.std[None][cut])", "data/test_codec.py"),
    Fault("data/codec.py", "share * ndtr(a)", "share", "data/test_codec.py"),
    Fault("data/codec.py", "np.exp(0.5 * log_amplitude", "np.exp(log_amplitude", "data/test_amplitude.py"),
    Fault("data/given_law.py", "there @ z[known] / self.floor", "there @ z[known]", "data/test_given_law.py"),
    Fault("data/given_law.py", "np.sqrt(self.floor) * rng", "self.floor * rng", "data/test_given_law.py"),
    Fault("data/given_law.py", "np.linalg.solve(root.T, rng", "np.linalg.solve(root, rng", "data/test_given_law.py"),
    Fault("data/given_law.py", "values - floor, 1e-12", "values, 1e-12", "data/test_given_law.py"),
    Fault("data/conserve.py", "return level - (share * cells).sum(-1)", "return level - cells.sum(-1)",
          "data/test_conserve.py"),
    Fault("data/conserve.py", "np.where(counted, cells, -np.inf).max(-1)", "cells.min(-1)", "data/test_conserve.py"),
    Fault("data/conserve.py", "in_blocks(~mask, factor)", "in_blocks(np.ones_like(mask), factor)",
          "data/test_conserve.py"),
    Fault("nets/unet.py", ".add_(skips.pop())", ".add_(0.5 * skips.pop())", "contracts/test_nets.py"),
    Fault("nets/members.py", "net.nets[number % len(net.nets)]", "net.nets[0]", "model/test_members.py"),
    Fault("distributions/regression.py", ".sum(0) / number", ".sum(0)", "model/test_members.py"),
    Fault("data/codec_fit.py", "usual[channel] -= codec.given_mean[source]", "pass", "data/test_codec.py"),
    Fault("data/amplitude.py", "- 2 * x", "- x", "data/test_amplitude.py"),
    Fault("data/amplitude.py", "return 0.5 * float(np.mean(log_variance + ratio))",
          "return 0.5 * float(np.mean(2 * log_variance + ratio))", "data/test_amplitude.py"),
    Fault("train/shared_errors.py", "self.share * (2 - self.share)", "self.share", "train/test_shared_errors.py"),
    Fault("train/shared_errors.py", "np.sqrt(len(mean))", "1", "train/test_shared_errors.py"),
    Fault("train/ema.py", "(self.exponent + 1)", "self.exponent", "train/test_train_loop.py"),
    Fault("verify/spread.py", "np.sqrt((members + 1) / members", "np.sqrt(members / (members + 1)",
          "verify/test_kernels.py"),
    Fault("verify/variogram.py", "drawn.var(axis=0, ddof=1) / members", "drawn.var(axis=0, ddof=1)",
          "verify/test_kernels.py"),
    Fault("verify/spectra.py", "last = np.full(last_size // 2 + 1, 2.0)", "last = np.full(last_size // 2 + 1, 1.0)",
          "verify/test_spectra.py"),
    Fault("verify/shift.py", "np.square(law.std_map)", "law.std_map", "contracts/test_scores.py"),
    Fault("verify/shift.py", "interval(one[1:] - one[0])", "interval(one[1:])", "verify/test_evaluate.py"),
    Fault("verify/verdict.py", "waves = [place,", "waves = [-place,", "verify/test_evaluate.py"),
    Fault("verify/verdict.py", "wavelength[worst]", "wavelength[0]", "verify/test_verdict.py"),
    Fault("verify/marginal.py", "return np.histogram(", "return 2 * np.histogram(", "verify/test_verdict.py"),
    Fault("verify/bootstrap.py", "exponent = 2.0 / 3.0", "exponent = 2.2 / 3.0", "verify/test_kernels.py"),
    Fault("train/step.py", "tally.add(diagnostics, len(batch))", "tally.add(diagnostics)", "train/test_train_loop.py"),
    Fault("report/plots.py", '("truth", "ensemble", "ratio"))', '("ensemble", "truth", "ratio"))', "report/test_words.py"),
    Fault("verify/training.py", "step <= 2 * last / 3", "step <= last", "train/test_train_loop.py"),
    Fault("verify/ranks.py", "1.0 / frequency.shape[-1]", "1.0 / (frequency.shape[-1] - 1)", "verify/test_kernels.py"),
]  # fmt: skip


def noticed(fault: Fault, source: Path) -> bool:
    """Whether the tests fail on a copy of the package that has the fault."""
    path = source / "undrift" / fault.path
    text = path.read_text()
    if text.count(fault.right) != 1:
        raise SystemExit(f"{fault.path} holds {fault.right!r} {text.count(fault.right)} times, expected once")
    path.write_text(text.replace(fault.right, fault.wrong))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{fault.tests}"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    path.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(f"tests/{fault.tests} could not run:\n{done.stdout[-2000:]}")
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Make the faults whose file's name holds one of the names, all without any; 1 if one goes unnoticed."""
    chosen = [fault for fault in FAULTS if not names or any(name in fault.path for name in names)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        shutil.copytree(ROOT / "src" / "undrift", source / "undrift")
        for number, fault in enumerate(chosen, 1):
            seen = noticed(fault, source)
            missed += [] if seen else [fault]
            verb = "noticed" if seen else "MISSED "
            print(f"{number:3d}/{len(chosen)} {verb} {fault.path}: {fault.right} -> {fault.wrong}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults are noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
