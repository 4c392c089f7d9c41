"""The same network as a plain regression: what a generative model has to beat at equal cost."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from undrift.config import Config
from undrift.data.encoded import Encoded
from undrift.nets.members import member_of, number_of
from undrift.objective.denoising import Regression
from undrift.train.batches import batches, to_condition
from undrift.train.device import precision_of
from undrift.train.loop import train
from undrift.train.network import build_net
from undrift.train.problem import Problem
from undrift.train.run import RunDirectory
from undrift.train.settings import Progress, Trained, settings_of

__all__ = ["errors_of", "fit_regression", "predict"]


def fit_regression(
    problem: Problem, config: Config, device: torch.device, *, run: RunDirectory | None, identity: Mapping[str, Any],
    progress: Progress | None,
) -> Trained:  # fmt: skip
    """Train the twin on the same residuals for the same budget or steps.

    In a run directory it has checkpoints and a log of its own, ``RUN/regression``, so that one that is stopped is gone
    on with like the main network. They live until the result is published.

    Args:
        problem: the training data.
        config: of the run.
        device: where to train.
        run: the run directory, entered, or None for a training in memory.
        identity: what must be the same on a resume, see :func:`undrift.train.loop.train`.
        progress: told how far it is.
    """
    net = build_net(problem, config)
    objective = Regression(precision_of(config.train.precision, device))
    batch, stop = batches(problem, config)
    with nullcontext() if run is None else run.regression() as folder:
        return train(
            net, objective, batch, settings=settings_of(config), validation=stop, run=folder, device=device,
            identity=identity, progress=progress,
        )  # fmt: skip


def predict(
    net: nn.Module, encoded: Encoded, channels: int, device: torch.device, precision: torch.dtype
) -> np.ndarray:
    """Residuals that the twin predicts, the mean of its networks, (n, C, *space)."""
    condition = to_condition(encoded).to(device)
    first = next(iter(condition.fields.values()))
    blank = torch.zeros(len(first), channels, *first.shape[2:], device=device)
    net.eval()
    number = number_of(net)
    with torch.no_grad():
        answers = [Regression(precision).predict(blank, condition, member_of(net, k)) for k in range(number)]
    return (torch.stack(answers).sum(0) / number).cpu().numpy()


def errors_of(net: nn.Module, problem: Problem, device: torch.device, precision: torch.dtype) -> np.ndarray:
    """Error fields (n, C, *space) in the data's units on the samples that only chose when to stop."""
    codec, out = problem.codec, []
    for row in problem.stop_rows:
        rows = np.array([row])
        values = {k: v[rows] for k, v in problem.covariates.items()}
        encoded, linear = codec.encode(
            problem.pair.target, problem.pair.given, rows, covariates=values, fold=problem.fold[rows],
            known=problem.past(rows),
        )  # fmt: skip
        guess = codec.decode(predict(net, encoded, len(codec.layout.channels), device, precision), linear)
        out.append(problem.pair.target.read(rows) - guess)
    return np.concatenate(out)
