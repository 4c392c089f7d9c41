"""The Gaussian guess: the covariance of clean fields, as far as the record knows it.

Principal components of a short record over-fit: the leading ones are too large and the trailing ones far too small.
So their number k and their shrinkage g towards the mean of the rest,

    variance_i = (1 - g) lambda_i + g rest,      i = 1 .. k,

with the total variance kept, are those under which fields of held-out blocks are most likely (a blocked
cross-validation of the shrinkage of Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["FoldedGuess", "GaussianGuess", "fit_guess"]

_MODES = (10, 20, 40, 80, 160, 320)
_SHRINKAGE = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


class GaussianGuess(nn.Module):
    """A Gaussian with covariance ``C = U diag(variances) U' + floor (1 - U U')``.

    Args:
        modes: orthonormal rows U', (k, D) with D = channels * cells; None for white.
        variances: their variances, (k,).
        floor: variance of all other directions.
    """

    modes: Tensor
    variances: Tensor
    floor: Tensor

    def __init__(self, modes: Tensor | None = None, variances: Tensor | None = None, floor: float = 1.0) -> None:
        super().__init__()
        device = torch.device("cpu") if modes is None else modes.device
        if modes is None or variances is None:
            modes, variances = torch.zeros(0, 1, device=device), torch.zeros(0, device=device)
        self.register_buffer("modes", modes.to(torch.float32))
        self.register_buffer("variances", variances.to(torch.float64))
        self.register_buffer("floor", torch.tensor(floor, dtype=torch.float64, device=device))

    def total(self, size: int) -> Tensor:
        """Mean eigenvalue of C over ``size`` dimensions."""
        return self.floor + (self.variances - self.floor).sum() / size

    def posterior_variance(self, ratio: Tensor, size: int) -> Tensor:
        """Mean eigenvalue of ``C r^2 (C + r^2)^{-1}``, for ratios (B,) -> (B,)."""
        square = ratio[:, None] ** 2
        tail = self.floor * square / (self.floor + square)
        head = self.variances * square / (self.variances + square)
        return tail[:, 0] + (head - tail).sum(1) / size

    def denoise(self, y: Tensor, ratio: Tensor) -> Tensor:
        """``C (C + r^2)^{-1} y`` for y (B, C, *space) and ratios (B,)."""
        square = ratio[:, None] ** 2
        tail = self.floor / (self.floor + square)
        flat = rearrange(y, "b ... -> b (...)")
        out = tail.to(y.dtype) * flat
        if len(self.variances):
            gain = (self.variances / (self.variances + square) - tail).to(y.dtype)
            modes = self.modes.to(y.dtype)
            out = out + (gain * (flat @ modes.T)) @ modes
        return out.reshape(y.shape)


def _spectrum(fields: NDArray[np.float64], number: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Leading eigenvalues and eigenvectors (k, D) of fields (n, D) about 0, and their mean square norm."""
    n = len(fields)
    values, vectors = np.linalg.eigh(fields @ fields.T / n)
    values, vectors = values[::-1][:number], vectors[:, ::-1][:, :number]
    values = np.maximum(values, 1e-12)
    return values, (vectors / np.sqrt(n * values)).T @ fields, float((fields**2).sum() / n)


def _shrunk(values: NDArray[np.float64], total: float, size: int, g: float) -> tuple[NDArray[np.float64], float]:
    """Shrunk variances of the modes, and the floor that keeps the total."""
    rest = max((total - values.sum()) / (size - len(values)), 1e-6 * total / size)
    out = (1 - g) * values + g * rest
    return out, max((total - out.sum()) / (size - len(values)), 1e-6 * total / size)


class FoldedGuess(nn.Module):
    """A guess for each fold, fitted without it, for training on the very fields that the guess is fitted to.

    The guess of a field's own fold would know the field: a network trained beside it would trust it too much.

    Args:
        guesses: one per fold.
    """

    def __init__(self, guesses: Sequence[GaussianGuess]) -> None:
        super().__init__()
        self.guesses = nn.ModuleList(guesses)

    def of(self, fold: int) -> GaussianGuess:
        """The guess without a fold."""
        guess = self.guesses[fold]
        assert isinstance(guess, GaussianGuess)
        return guess


def fit_guess(
    fields: NDArray[np.floating], fold: NDArray[np.intp]
) -> tuple[GaussianGuess, FoldedGuess, dict[str, float]]:
    """Fit the guess to clean fields.

    Args:
        fields: (n, D), centred by construction.
        fold: contiguous fold of each.

    Returns:
        The guess, those without each fold, and what was chosen: modes, shrinkage, and the held-out negative
        log-likelihood in nats a dimension of the chosen and of the white guess.
    """
    fields = np.asarray(fields, dtype=np.float64)
    n, size = fields.shape
    smallest = min(int((fold != k).sum()) for k in np.unique(fold))
    modes = [k for k in _MODES if k <= min(smallest, size) - 1]
    losses = np.zeros((len(modes), len(_SHRINKAGE)))
    white = 0.0
    for k in np.unique(fold):
        held = fields[fold == k]
        values, vectors, total = _spectrum(fields[fold != k], max(modes, default=1))
        scores, norms = (held @ vectors.T) ** 2, (held**2).sum(1)
        share = len(held) / n
        white += share * 0.5 * (norms.mean() / (total / size) / size + np.log(total / size))
        for i, number in enumerate(modes):
            for j, g in enumerate(_SHRINKAGE):
                variances, floor = _shrunk(values[:number], total, size, g)
                head = (scores[:, :number] / variances).sum(1) + (norms - scores[:, :number].sum(1)) / floor
                volume = np.log(variances).sum() + (size - number) * np.log(floor)
                losses[i, j] += share * 0.5 * (head.mean() + volume) / size
    if not modes or losses.min() >= white:
        white_guess = GaussianGuess(floor=float((fields**2).mean()))
        facts = {"modes": 0, "shrinkage": 1.0, "loss": white, "white": white}
        return white_guess, FoldedGuess([white_guess] * (int(fold.max()) + 1)), facts
    i, j = np.unravel_index(losses.argmin(), losses.shape)

    def guess(rows: NDArray[np.bool_]) -> GaussianGuess:
        values, vectors, total = _spectrum(fields[rows], modes[i])
        variances, floor = _shrunk(values, total, size, _SHRINKAGE[j])
        return GaussianGuess(torch.from_numpy(vectors), torch.from_numpy(variances), floor)

    chosen = {"modes": modes[i], "shrinkage": _SHRINKAGE[j], "loss": float(losses[i, j]), "white": white}
    folded = FoldedGuess([guess(fold != k) for k in range(int(fold.max()) + 1)])
    return guess(np.ones(n, dtype=bool)), folded, chosen
