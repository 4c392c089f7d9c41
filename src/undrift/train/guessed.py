"""The Gaussian guess of a training, from the residuals that the network is trained on."""

import math

import numpy as np

from undrift.config import Config
from undrift.denoise.guess import FoldedGuess, GaussianGuess, fit_guess
from undrift.denoise.spectral import fit_spectral
from undrift.tasks import Window
from undrift.train.prepare import Problem

__all__ = ["guess_of"]

_CELLS = 40_000  # channels x cells up to which principal components are computed
_SAMPLES = 1500
_SPECTRA = 12  # fields whose spectra the guess of parts of space has
_SPECTRA_NUMBERS = 200_000_000


def guess_of(problem: Problem, config: Config) -> tuple[GaussianGuess, FoldedGuess, dict[str, float]]:
    """The guess and those without each fold: of principal components, or of spectra where parts of windows are learned.

    White of other fields that are too large for components.
    """
    rows = np.sort(np.concatenate([problem.fit_rows, problem.stop_rows]))
    size = len(problem.codec.layout.channels) * math.prod(problem.codec.layout.shape)
    number = int(problem.fold.max()) + 1
    if problem.crop is not None or size > _CELLS:
        windows = problem.crop is not None and isinstance(problem.task, Window)
        guess = _spectral(problem, rows, size) if windows else GaussianGuess()
        return guess, FoldedGuess([guess] * number), {"modes": 0}  # a few numbers: they know no field by heart
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLES)).astype(int))]
    draw = np.random.default_rng(config.train.seed)
    parts = []
    for turn, start in enumerate(range(0, len(rows), 64)):
        at = rows[start : start + 64]  # of windows, of which usually much is asked: what usually is, and all, in turn
        parts.append(problem.encode(at, draw=draw, known=problem.past(at) if turn % 2 else problem.nothing(at)).x)
    fields = np.concatenate([p for p in parts if p is not None]).reshape(len(rows), -1)
    return fit_guess(fields, problem.fold[rows])


def _spectral(problem: Problem, rows: np.ndarray, size: int) -> GaussianGuess:
    """With the spectra of what is asked of whole fields: what usually is, and now and then all."""
    count = max(4, min(_SPECTRA, _SPECTRA_NUMBERS // size))
    fields = []
    for number, row in enumerate(rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]):
        at = np.array([row])
        known = problem.past(at) if number % 4 else problem.nothing(at)
        encoded = problem.encode(at, draw=np.random.default_rng(int(row)), known=known)
        assert encoded.x is not None
        fields.append((encoded.x[0], encoded.fields["asked"][0].astype(bool).reshape(len(encoded.x[0]), -1).all(1)))
    shape = problem.codec.layout.shape
    window = [min(problem.crop or n, n) for n in shape]
    return fit_spectral(fields, window, problem.codec.layout.periodic)
