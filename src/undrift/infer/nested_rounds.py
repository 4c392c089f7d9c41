"""Rounds of draws, each from one known proposal, and what they say together.

The prior is the standard normal pi(y) in D dimensions. Round r has n_r draws from q_r; all points together are
weighted by the balance heuristic (Veach and Guibas 1995), v = pi(y) / sum_r n_r q_r(y): then the sum of v f(y) over
all points estimates the prior mean of f, whatever the proposals.
"""

from __future__ import annotations

__all__ = ["Rounds"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from undrift.errors import CheckpointError
from undrift.infer.gaussian_mixture import GaussianMixture
from undrift.infer.nested_calls import Calls
from undrift.train.durable import write_arrays


@dataclass(frozen=True)
class Round:
    """Draws from one proposal.

    Attributes:
        stage: "levels", "pilot", "check" or "final".
        proposal: what they were drawn from.
        y: points (n, D), the prior being standard normal.
        theta: their parameters (n, D).
        log_l: their log-likelihoods (n,).
        failed: how many of the calls failed.
    """

    stage: str
    proposal: GaussianMixture
    y: np.ndarray
    theta: np.ndarray
    log_l: np.ndarray
    failed: int = 0

    def save(self, path: Path) -> None:
        """Write the round to an .npz file, whole or not at all."""
        arrays = {"stage": np.array(self.stage), "y": self.y, "theta": self.theta, "log_l": self.log_l}
        arrays["failed"] = np.array(self.failed)
        write_arrays(path, arrays | {f"proposal_{name}": a for name, a in self.proposal.to_arrays().items()})

    @classmethod
    def load(cls, path: Path) -> Round:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is broken.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                proposal = {name: kept[f"proposal_{name}"] for name in ("weights", "means", "factors")}
                points = kept["y"], kept["theta"], kept["log_l"], int(kept["failed"])
                return cls(str(kept["stage"]), GaussianMixture.from_arrays(proposal), *points)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); remove it and go on with resume") from error


class Rounds:
    """All rounds of a run in their order: drawn where they are asked for first, read where a folder has them.

    Args:
        calls: evaluates points.
        seed: with the number of a round it gives the round's random numbers.
        folder: where rounds are kept, or None.
    """

    def __init__(self, calls: Calls, seed: int, folder: Path | None) -> None:
        self.calls, self.seed, self.folder = calls, seed, folder
        self.rounds: list[Round] = []
        self.weighed: list[Round] = []  # those whose points count together: all but the last final ones
        dimensions = calls.dimensions
        self.y, self.theta = np.empty((0, dimensions)), np.empty((0, dimensions))
        self.log_l, self.log_prior, self.log_drawn = np.empty(0), np.empty(0), np.empty(0)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of the next round: 0 for its points, others for what is fitted before."""
        return np.random.Generator(np.random.Philox(key=[self.seed, 16 * len(self.rounds) + purpose]))

    def draw(self, stage: str, proposal: Callable[[], GaussianMixture], count: int) -> Round:
        """The next round, of `count` points from the proposal."""
        found = self._kept()
        if found is None:
            found = self._new(stage, proposal(), count)
        self.rounds.append(found)
        if stage != "final":
            self.weigh(found)
        return found

    @property
    def log_v(self) -> np.ndarray:
        """Logs of v of all points so far, those of the final rounds left out."""
        return self.log_prior - self.log_drawn

    def _kept(self) -> Round | None:
        if self.folder is None or not (path := self._path()).exists():
            return None
        found = Round.load(path)
        self.calls.made += len(found.log_l)
        self.calls.failed += found.failed
        return found

    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"round-{len(self.rounds):05d}.npz"

    def _new(self, stage: str, proposal: GaussianMixture, count: int) -> Round:
        y = proposal.draw(self.rng(0).standard_normal((count, self.calls.dimensions + 1)))
        before = self.calls.failed
        if self.folder is None:
            return Round(stage, proposal, y, *self.calls(y), self.calls.failed - before)
        part, known = self.folder / "part.npz", None
        if part.exists():
            with np.load(part, allow_pickle=False) as kept:
                if len(kept["y"]) == count and np.array_equal(kept["y"], y):
                    known = kept["theta"], kept["log_l"]

        def save(theta: np.ndarray, log_l: np.ndarray) -> None:
            write_arrays(part, {"y": y, "theta": theta, "log_l": log_l})

        found = Round(stage, proposal, y, *self.calls(y, known, save), self.calls.failed - before)
        found.save(self._path())
        part.unlink(missing_ok=True)
        return found

    def weigh(self, found: Round) -> None:
        """Count a round in: log sum_r n_r q_r of the old points is updated, that of the new ones begun."""
        new = np.full(len(found.y), -math.inf)
        self.weighed.append(found)
        for past in self.weighed:
            new = np.logaddexp(new, math.log(len(past.y)) + past.proposal.log_prob(found.y))
        old = np.logaddexp(self.log_drawn, math.log(len(found.y)) + found.proposal.log_prob(self.y))
        self.log_drawn = np.concatenate([old, new])
        self.y = np.concatenate([self.y, found.y])
        self.theta = np.concatenate([self.theta, found.theta])
        self.log_l = np.concatenate([self.log_l, found.log_l])
        self.log_prior = np.concatenate([self.log_prior, log_normal(found.y)])


def log_normal(y: np.ndarray) -> np.ndarray:
    """The standard normal's log-density (n,) of points (n, D)."""
    return -0.5 * np.square(y).sum(axis=1) - 0.5 * y.shape[1] * math.log(2 * math.pi)
