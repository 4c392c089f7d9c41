"""The Gaussian guess of a training: from the residuals that the network is trained on."""

import math
from collections.abc import Callable

import numpy as np
import torch

from undrift.config import Config
from undrift.data.linear import spread
from undrift.denoise.guess import FoldedGuess, GaussianGuess, Guess, fit_guess
from undrift.denoise.rings import fit_rings
from undrift.denoise.spectral import fit_spectral
from undrift.denoise.windows import WindowGuess
from undrift.errors import DataError
from undrift.tasks import Window
from undrift.train.problem import Problem

__all__ = ["guess_of"]

_GUESS_CELLS = 40_000  # channels x cells up to which principal components are computed
_GUESS_SAMPLES = 1500
_WINDOW_CELLS = 30_000  # likewise of windows, above which waves are
_SPECTRAL_SAMPLES = 160
_RING_FIELDS = 12  # whose spectra the guess of parts of space has
_RING_NUMBERS = 200_000_000
_READ = 16  # samples at a time


def guess_of(problem: Problem, config: Config) -> tuple[Guess, FoldedGuess, dict[str, float]]:
    """The Gaussian guess, from the residuals that the network is trained on.

    Where parts of windows are learned it has the spectrum of whole ones, and it is white of other parts.
    """
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    size = len(problem.codec.layout.channels) * math.prod(problem.codec.layout.shape)
    if problem.crop is None and size > _WINDOW_CELLS and isinstance(problem.task, Window):
        return _spectral(problem)
    if problem.crop is not None or size > _GUESS_CELLS:
        windows = problem.crop is not None and isinstance(problem.task, Window)
        guess = _rings(problem, rows, size) if windows else GaussianGuess()
        return guess, FoldedGuess([guess] * (int(problem.fold.max()) + 1)), {"modes": 0}
    rows = rows[spread(len(rows), _GUESS_SAMPLES)]
    draw = np.random.default_rng(config.train.seed)
    parts = []
    for number, start in enumerate(range(0, len(rows), 64)):
        at = rows[start : start + 64]  # of windows, of which usually much is asked: what usually is, and all, in turn
        parts.append(problem.encode(at, draw=draw, known=problem.past(at) if number % 2 else problem.nothing(at)).x)
    fields = np.concatenate([p for p in parts if p is not None]).reshape(len(rows), -1)
    if not (fields**2).sum() > 0:
        raise DataError("what is given tells all of what is asked, and nothing is left to draw; give something else")
    layout = problem.codec.layout
    return fit_guess(fields, problem.fold[rows], layout.shape, layout.periodic)


def _rings(problem: Problem, rows: np.ndarray, size: int) -> GaussianGuess:
    """With the spectra of what is asked of whole fields: what usually is, and now and then all."""
    count = max(4, min(_RING_FIELDS, _RING_NUMBERS // size))
    fields = []
    for number, row in enumerate(rows[spread(len(rows), count)]):
        at = np.array([row])
        known = problem.past(at) if number % 4 else problem.nothing(at)
        encoded = problem.encode(at, draw=np.random.default_rng(int(row)), known=known)
        assert encoded.x is not None
        fields.append((encoded.x[0], encoded.fields["asked"][0].astype(bool).reshape(len(encoded.x[0]), -1).all(1)))
    shape = problem.codec.layout.shape
    window = [min(problem.crop or n, n) for n in shape]
    return fit_rings(fields, window, problem.codec.layout.periodic)


def _spectral(problem: Problem) -> tuple[Guess, FoldedGuess, dict[str, float]]:
    """The guess of large windows: a few numbers of each channel, which need no folds."""
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    layout, known = problem.codec.layout, problem.past(rows[:1])
    assert known is not None
    asked = np.isnan(known[0]).reshape(len(layout.channels), -1).all(1)

    def residuals(count: int, told: Callable[[np.ndarray], np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        some = rows[spread(len(rows), count)]
        parts = [
            problem.encode(at, draw=np.random.default_rng(int(at[0])), known=told(at))
            for at in np.array_split(some, -(-len(some) // _READ))
        ]
        x, weight = (np.concatenate([v for e in parts if (v := getattr(e, k)) is not None]) for k in ("x", "weight"))
        return x, weight

    usual, facts = fit_spectral(residuals(_SPECTRAL_SAMPLES, problem.past)[0], layout.periodic, asked, coupled=True)
    x, weight = residuals(_SPECTRAL_SAMPLES // 2, lambda at: None)  # by masks of all kinds, in which cells are 0
    share = weight.mean((0, *range(2, weight.ndim)), keepdims=True)
    other, _ = fit_spectral(x / np.sqrt(np.maximum(share, 1e-3)), layout.periodic, np.ones_like(asked), coupled=False)
    never = torch.from_numpy(problem.codec.mask) if problem.codec.mask.any() else None
    guess = WindowGuess(usual, other, torch.from_numpy(asked), never)
    return guess, FoldedGuess([guess] * (int(problem.fold.max()) + 1)), facts
