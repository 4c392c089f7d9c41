"""The Gaussian guess: the covariance of clean fields, as far as the record knows it.

Principal components of a short record over-fit: their own eigenvalues are too large for the leading ones and far too
small for the trailing ones. So each component has the variance that fields of *held-out* blocks have along it,

    variance_i = mean over folds k of  E [ (u_i(k) . x)^2 ],   x in fold k, u_i(k) fitted without it,

made to decrease; among all covariances with these eigenvectors this one is nearest to the true one (nonlinear
shrinkage by
cross-validation, Bartz 2016, "Cross-validation based nonlinear shrinkage", https://arxiv.org/abs/1611.00798). All other
directions share what is left of the variance. On small domains the components are those of a covariance that is
localised (:mod:`undrift.denoise.localised`) where that serves held-out blocks better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from undrift.denoise.localised import leading, tapers
from undrift.denoise.spectral import SpectralGuess
from undrift.denoise.windows import WindowGuess
from undrift.tasks.batch import Condition

__all__ = ["FoldedGuess", "GaussianGuess", "Guess", "by_rows", "fit_guess"]

_MODES = 320
_LEAST = 1.05  # a component's variance over that of the rest from which it is kept
_LOCALISED = 4200  # channels x cells up to which covariances are localised: a dense matrix of them
_TRIED_MODES = 96  # with which localisations are compared
_TRIED_CELLS = 800  # channels x cells at most, likewise
_NARROWER = 2**0.5
_NARROWEST = 1.5


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

    def gains(self, ratio: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What ``C (C + r^2)^{-1}`` multiplies all directions by, (B, 1), and the modes beyond that, (B, k)."""
        square = ratio[:, None] ** 2
        tail = self.floor / (self.floor + square)
        return tail.to(dtype), (self.variances / (self.variances + square) - tail).to(dtype)

    def shrink(self, y: Tensor, tail: Tensor, gain: Tensor) -> Tensor:
        """:meth:`denoise` with known :meth:`gains`, of each row or of all."""
        flat = rearrange(y, "b ... -> b (...)")
        out = tail * flat
        if len(self.variances):
            modes = self.modes.to(y.dtype)
            out = out + (gain * (flat @ modes.T)) @ modes
        return out.reshape(y.shape)

    def diagonal(self, tail: Tensor, gain: Tensor, shape: Sequence[int]) -> Tensor:
        """Of the matrix that :meth:`shrink` multiplies by, float64, (1 or B, *shape)."""
        out = tail.double().expand(len(tail), math.prod(shape))
        if len(self.variances):
            out = out + gain.double() @ self.modes.double() ** 2
        return out.reshape(-1, *shape)

    def parts(self, condition: Condition, rows: int) -> list[tuple["GaussianGuess", Tensor]]:
        """Each guess that rows (B,) of a batch have, and which they are: itself, and all."""
        return [(self, torch.ones(rows, dtype=torch.bool, device=self.floor.device))]

    def estimate(self, y: Tensor, f: Tensor, tail: Tensor, gain: Tensor, c_out: Tensor) -> Tensor:
        """The guess and what a network's numbers f add to it."""
        return self.shrink(y, tail, gain) + c_out * f

    def added(self, f: Tensor, gain: Tensor) -> Tensor:
        """What a network adds to the guess, in units of c_out: its numbers as they are."""
        return f

    def weighed(self, error: Tensor, gain: Tensor) -> Tensor:
        """Errors in units of c_out as they count in training: as they are."""
        return error

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """Drawn fields: as they are."""
        return x

    def denoise(self, y: Tensor, ratio: Tensor) -> Tensor:
        """``C (C + r^2)^{-1} y`` for y (B, C, *space) and ratios (B,)."""
        return self.shrink(y, *self.gains(ratio, y.dtype))


def _spectrum(fields: NDArray[np.float64], number: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Leading eigenvalues and eigenvectors (k, D) of fields (n, D) about 0, and their mean square norm."""
    n = len(fields)
    values, vectors = np.linalg.eigh(fields @ fields.T / n)
    values, vectors = values[::-1][:number], vectors[:, ::-1][:, :number]
    values = np.maximum(values, 1e-12)
    return values, (vectors / np.sqrt(n * values)).T @ fields, float((fields**2).sum() / n)


Guess = GaussianGuess | SpectralGuess | WindowGuess


def by_rows(values: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """Of several values (B or 1, ...) that of the part in which each row (B,) is."""
    out = values[0]
    for value, at in zip(values[1:], rows[1:]):
        out = torch.where(at.reshape(-1, *[1] * (value.ndim - 1)), value, out)
    return out


class FoldedGuess(nn.Module):
    """A guess for each fold, fitted without it, for training on the very fields that the guess is fitted to.

    The guess of a field's own fold would know the field: a network trained beside it would trust it too much.

    Args:
        guesses: one per fold.
    """

    def __init__(self, guesses: Sequence[Guess]) -> None:
        super().__init__()
        self.guesses = nn.ModuleList(guesses)

    def of(self, fold: int) -> Guess:
        """The guess without a fold."""
        guess = self.guesses[fold]
        assert isinstance(guess, Guess)
        return guess

    def groups(self, fold: Tensor, condition: Condition) -> list[tuple[GaussianGuess | SpectralGuess, Tensor]]:
        """Each guess that rows of these folds (B,) have, and which rows they are."""
        found: dict[int, list[int]] = {}
        for k in fold.unique().tolist():
            found.setdefault(id(self.of(k)), []).append(k)
        rows = [torch.isin(fold, torch.tensor(ks, device=fold.device)) for ks in found.values()]
        parts = [self.of(ks[0]).parts(condition, len(fold)) for ks in found.values()]
        return [(guess, own & at) for at, each in zip(rows, parts) for guess, own in each if bool((own & at).any())]


def fit_guess(
    fields: NDArray[np.floating],
    fold: NDArray[np.intp],
    space: Sequence[int] | None = None,
    periodic: Sequence[bool] | None = None,
) -> tuple[GaussianGuess, FoldedGuess, dict[str, float]]:
    """Fit the guess to clean fields.

    Args:
        fields: (n, D), centred by construction.
        fold: contiguous fold of each.
        space: cells along each dim, of channels * cells = D: then components of localised covariances are tried too,
            and those with which held-out fields in noise of unit variance are likeliest are taken.
        periodic: dims whose ends are neighbours.

    Returns:
        The guess, those without each fold, and facts: the number of modes, the share of variance that they hold, the
        half-width of the localisation in cells (0 without), and the held-out negative log-likelihood in nats a
        dimension of the guess ("loss") and of a white one ("white").
    """
    fields = np.asarray(fields, dtype=np.float64)
    size = fields.shape[1]
    taper, half_width = None, 0.0
    if space is not None and size <= _LOCALISED:
        half_width = _half_width(fields, fold, space, periodic or [False] * len(space))
        taper = tapers(space, periodic or [False] * len(space), half_width) if half_width else None
    held = _held_out(fields, fold, taper, _MODES)
    kept, total = len(held.variances), held.total

    def guess(vectors: NDArray[np.float64]) -> GaussianGuess:
        return GaussianGuess(torch.from_numpy(vectors[:kept].copy()), torch.from_numpy(held.variances), held.floor)

    facts = {"modes": kept, "share": float(held.variances.sum() / total), "half_width": half_width}
    facts["white"] = 0.5 * (1 + np.log(total / size))
    facts["loss"] = held.loss(0.0, size) + 0.5
    return guess(_basis(fields, max(kept, 1), taper)), FoldedGuess([guess(basis) for basis in held.bases]), facts


@dataclass(frozen=True)
class _Held:
    """What held-out fields tell: bases without each fold, the variances along them, that of the rest, and all of it."""

    bases: list[NDArray[np.float64]]
    variances: NDArray[np.float64]
    floor: float
    total: float

    def loss(self, noise: float, size: int) -> float:
        """Mean of half the logarithm of the variances beside that of a noise."""
        rest = (size - len(self.variances)) * np.log(self.floor + noise)
        return float(0.5 * (np.log(self.variances + noise).sum() + rest) / size)


def _held_out(
    fields: NDArray[np.float64], fold: NDArray[np.intp], taper: NDArray[np.float32] | None, modes: int
) -> _Held:
    n, size = fields.shape
    number = int(fold.max()) + 1
    most = min(modes, size - 1)
    if taper is None:  # no more components than fields
        most = min(most, min(int((fold != k).sum()) for k in range(number)) - 1)
    bases, held, total = [], np.zeros(most), 0.0
    for k in range(number):
        bases.append(_basis(fields[fold != k], most, taper))
        held += ((fields[fold == k] @ bases[-1].T) ** 2).sum(0) / n
        total += float((fields[fold == k] ** 2).sum()) / n
    variances = isotonic_regression(held, increasing=False).x if most else held
    floor = max((total - variances.sum()) / (size - most), 1e-6 * total / size)
    kept = int((variances > _LEAST * floor).sum())
    floor = max((total - variances[:kept].sum()) / (size - kept), 1e-6 * total / size)
    return _Held(bases, variances[:kept].copy(), floor, total)


def _basis(fields: NDArray[np.float64], number: int, taper: NDArray[np.float32] | None) -> NDArray[np.float64]:
    return _spectrum(fields, number)[1] if taper is None else leading(fields, number, taper)[1]


def _half_width(
    fields: NDArray[np.float64], fold: NDArray[np.intp], space: Sequence[int], periodic: Sequence[bool]
) -> float:
    """Of the taper whose leading components serve held-out fields best, in cells; 0 for none.

    From wide to narrow, as long as it helps, on every so many cells. In noise of unit variance it is the leading
    components that count; of fewer cells each is known better.
    """
    stride = 1
    while fields.shape[1] / stride ** len(space) > _TRIED_CELLS:
        stride += 1
    every = (slice(None), slice(None), *(slice(0, None, stride) for _ in space))
    thin = fields.reshape(len(fields), -1, *space)[every]
    space, noise = thin.shape[2:], 1.0 / stride ** len(space)
    thin = thin.reshape(len(thin), -1)
    best, found = _held_out(thin, fold, None, _TRIED_MODES).loss(noise, thin.shape[1]), 0.0
    width = float(max(space))
    while width >= _NARROWEST:
        loss = _held_out(thin, fold, tapers(space, periodic, width), _TRIED_MODES).loss(noise, thin.shape[1])
        if loss >= best:
            break
        best, found, width = loss, width, width / _NARROWER
    return found * stride
