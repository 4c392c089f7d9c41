"""Training samples beside what a law draws of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from undrift.data.encoded import Predicted
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.start import Silent
from undrift.nets.members import number_of
from undrift.process import Key, normal
from undrift.tasks.batch import Condition
from undrift.train.batches import to_condition
from undrift.train.problem import Problem

__all__ = ["Drawn", "drawn_of", "guess_alone", "items_of"]

_SAMPLES = 64
_MEMBERS = 2


@dataclass(frozen=True)
class Drawn:
    """Training samples beside what is drawn of them.

    Attributes:
        items: row of each sample, and which of its draws it is.
        vector: covariates, (n, K).
        x: residuals, (n, C, *space).
        r: drawn ones.
        added: to what the Gaussian guess draws alone from the same noise, by the network; None where it is not asked.
        weight: 1 where x is known.
        predicted: what was predicted of them.
        reached: where the motion of the past reaches, (n, C, *space).
    """

    items: list[tuple[int, int]]
    vector: np.ndarray
    x: np.ndarray
    r: np.ndarray
    added: np.ndarray | None
    weight: np.ndarray
    predicted: Predicted
    reached: np.ndarray


def guess_alone(law: Diffusion, channels: int) -> Diffusion:
    """The law of fields (B, C, *space) of which a network says nothing beyond the guess."""
    alone = Diffusion(Silent(channels), law.guess, process=law.process, micro_batch=law.micro_batch)
    alone.grid = law.grid
    return alone


def items_of(problem: Problem, numbers: int) -> list[tuple[int, int]]:
    """Two draws of training samples that are spread over the record, of so many numbers in all."""
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    size = len(problem.codec.layout.channels) * math.prod(problem.codec.layout.shape)
    count = max(4, min(_SAMPLES, len(rows), numbers // (_MEMBERS * size)))
    return [(int(row), m) for row in rows[np.linspace(0, len(rows) - 1, count).astype(int)] for m in range(_MEMBERS)]


def drawn_of(
    law: Diffusion,
    problem: Problem,
    device: torch.device,
    nfe: int,
    known: Callable[[np.ndarray, int], np.ndarray | None],
    items: list[tuple[int, int]],
    alone: Diffusion | None = None,
) -> Iterator[Drawn]:
    """Training samples beside what is drawn given what is known of them.

    Args:
        law: of the residuals.
        problem: the training data.
        device: of the law.
        nfe: network evaluations of each draw.
        known: what is told of a row, and of which of its draws.
        items: rows, and which of its draws each is.
        alone: the law of the guess, to draw from too.
    """
    micro = law.micro_batch
    members = number_of(law.net)
    turns = [(k, s) for k in range(members) for s in range(0, len(items[k::members]), micro)]
    for k, start in turns:
        part = items[k::members][start : start + micro]
        at = [np.array([row]) for row, _ in part]
        told = [known(row, m) for row, (_, m) in zip(at, part)]
        encoded, predicted = zip(
            *(problem.predicted(row, draw=np.random.default_rng(int(row[0])), known=k) for row, k in zip(at, told))
        )
        x, weight = (np.concatenate([getattr(e, name) for e in encoded]) for name in ("x", "weight"))
        z = np.stack([normal(Key(0, "calibrate", m, str(row)), x.shape[1:]) for row, m in part]).astype(np.float32)
        condition = Condition.concatenate([to_condition(e) for e in encoded]).to(device)
        noise = torch.from_numpy(z).to(device)
        r = law.sample(condition, noise, nfe=nfe, member=k).cpu().numpy()
        added = None if alone is None else r - alone.sample(condition, noise, nfe=nfe).cpu().numpy()
        vector = np.concatenate([e.vector for e in encoded])
        reached = np.concatenate([e.fields.get("reached", np.zeros_like(e.weight)) for e in encoded]) > 0
        yield Drawn(part, vector, x, r, added, weight, Predicted.joined(predicted), reached)
