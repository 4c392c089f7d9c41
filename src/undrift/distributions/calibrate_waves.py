"""Calibration of windows that go on from each other: their mean, the power of their waves, and where they are lively.

An error of a per cent of the spread in the mean of a window, or in its variance, becomes one of many per cent where
windows are drawn one after the other. So what a network draws is compared with the training samples, and finished
(:meth:`undrift.denoise.spectral.SpectralGuess.finished`) in three steps, each measured after those before it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from undrift.data.encoded import Predicted
from undrift.data.waves import rings
from undrift.denoise.spectral import SpectralGuess
from undrift.denoise.windows import WindowGuess
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.drawn import Drawn, drawn_of, guess_alone, items_of
from undrift.tasks import Window
from undrift.tasks.batch import Condition
from undrift.train.problem import Problem

__all__ = ["calibrate_waves", "fit_cells", "fit_gains", "fit_offset"]

Array = NDArray[np.floating]
_NUMBERS = 16_000_000  # drawn in all
_GAINS = (0.3, 5.0)  # of a ring of waves
_CELLS = (0.5, 2.0)  # of a neighbourhood
_FEW = 100  # waves that speak for the variance of all rings, beside those of a ring itself
_FEW_AFTER = 1000  # likewise of windows that go on from drawn ones, which stand beside others than their own truth
_NEAR = 8  # sides of the neighbourhood in that of the domain
_SEASON = 4  # covariates that are cosines and sines of the year


@dataclass(frozen=True)
class _Windows:
    """Windows (n, C, *space): anomalies T, their linear prediction M, what is drawn of T - M in units of its std.

    And what the network adds to that, covariates (n, K), and mean and std of the latents, (n, 2, C, *space).
    """

    items: list[tuple[int, int]]
    vector: Array
    total: Array
    mean: Array
    std: Array
    drawn: Array
    added: Array
    predicted: Array


def _finished(part: SpectralGuess, windows: _Windows) -> Array:
    """What is drawn of them as a guess finishes it."""
    told = Condition(vectors={"covariates": _on(part, windows.vector)})
    return part.finished(_on(part, windows.drawn), told).cpu().numpy()


def _on(part: SpectralGuess, values: np.ndarray) -> torch.Tensor:
    """Numbers as a tensor where a guess is."""
    return torch.from_numpy(values).to(part.power.device)


def calibrate_waves(
    law: Diffusion, guess: WindowGuess, problem: Problem, device: torch.device, nfe: int
) -> list[float]:
    """Measure offset, gains of rings and gains of cells where the usual frames are asked, else of rings alone.

    They are put into the guess, which finishes what is drawn. Gains are measured twice: of windows that go on from true
    frames, and of those that go on from the ends of these as drawn, which have what the first ones lack. As in
    drawing, all is predicted by what is fitted to the whole record: around that climatology stands its variance.

    Returns:
        The factor of each channel's spread.
    """
    problem = replace(problem, fold=np.full_like(problem.fold, -1), _kept=None)
    asked, usual = guess.asked.cpu().numpy(), guess.usual
    items = items_of(problem, _NUMBERS)
    windows = _windows(problem, drawn_of(law, problem, device, nfe, lambda row, m: None, items[::4]))
    _put_gains(guess.other, windows, windows.drawn, problem, np.ones_like(asked))
    alone = guess_alone(law, len(asked))
    windows = _windows(problem, drawn_of(law, problem, device, nfe, lambda row, m: problem.past(row), items, alone))
    usual.offset = _offset(usual, windows, problem) * _on(usual, _wide(asked, usual))
    drawn = _finished(usual, windows)
    spread = _put_gains(usual, windows, drawn, problem, asked, cells=True)
    ends = _ends(windows, usual, problem)
    windows = _windows(problem, drawn_of(law, problem, device, nfe, lambda row, m: ends[int(row[0]), m], list(ends)))
    spread *= _put_gains(usual, windows, windows.drawn, problem, asked, cells=True, few=_FEW_AFTER)
    return [float(v) for v in spread]


def fit_offset(added: Array, features: Array, ring: NDArray[np.intp]) -> Array:
    """The mean of what a network adds to windows in the course of the year, as coefficients of features.

    A climatology is what the linear predictor says, and the mean of what is drawn around it is 0 at any time of the
    year. They are of least squares, and those of a ring drawn to 0 by the share of them that is chance.

    Args:
        added: amplitudes of what a network adds, (n, C, W).
        features: 1, and cosines and sines of the year, (n, F).
        ring: of each wave, (W,).

    Returns:
        (F, C, W).
    """
    n, channels, count = added.shape
    flat = added.reshape(n, -1)
    found = np.linalg.lstsq(features, flat, rcond=None)[0]
    freedom = max(n - features.shape[1], 1)
    noise = ((flat - features @ found) ** 2).sum(0).reshape(channels, count) / freedom
    chance = np.diag(np.linalg.pinv(features.T @ features))
    found = found.reshape(-1, channels, count)
    power, noise = (
        np.stack([np.bincount(ring, v) for v in part.reshape(-1, count)]).reshape(*part.shape[:-1], -1)
        for part in (found**2, noise)
    )
    share = np.clip(1 - chance[:, None, None] * noise / np.maximum(power, 1e-300), 0, 1)
    return found * share[..., ring]


def fit_gains(sums: Array, frames: int, count: Array, which: NDArray[np.bool_], few: float = _FEW) -> Array:
    """Gains of rings (C, R): of few waves that of all frames of a variable, and of those that of all rings.

    What is drawn is the linear prediction M of an anomaly and the residual R of it. The gain g of R is the one with
    which their sum has the power of the record's anomalies T in each frame,

        |M|^2 + 2 g M R + g^2 |R|^2 = |T|^2:

    then windows that are drawn one after the other neither gain nor lose power. A sampler of few steps leaves out what
    is smaller than its last noise, a network adds errors of its own, and a prediction that goes too far leaves
    residuals that lean against it.

    Args:
        sums: |T|^2, |M|^2, M R and |R|^2, (4, C, R).
        frames: of a variable, which are channels in a row.
        count: waves in each ring, of all samples, (R,).
        which: channels that are asked, (C,).
        few: waves that speak for all rings, beside those of a ring itself.
    """
    grouped = (sums * which[:, None]).reshape(4, -1, frames, sums.shape[2]).sum(2)
    group, whole = _solved(grouped, _GAINS), _solved(grouped.sum(2, keepdims=True), _GAINS)
    group = (count * group + few * whole) / (count + few)
    mixed = (count * _solved(sums, _GAINS) + few * np.repeat(group, frames, 0)) / (count + few)
    return np.where(which[:, None], mixed, 1.0)


def fit_cells(halves: Sequence[Array], frames: int, periodic: Sequence[bool]) -> Array:
    """Gains of cells (C, *space), those of neighbourhoods and of all frames of a variable.

    They are solved as :func:`fit_gains` has it, of each half of the samples. The logarithm of the gains is taken for
    as much as the halves agree on, the ratio of its covariance between them to its variance.

    Args:
        halves: |T|^2, |M|^2, M R and |R|^2 of each cell, (4, C, *space).
        frames: of a variable, which are channels in a row.
        periodic: which axes are.
    """
    logs = []
    for sums in (*halves, np.add(*halves)):
        near = sums.reshape(4, -1, frames, *sums.shape[2:]).sum(2)
        for axis, cyclic in enumerate(periodic, start=2):
            size = max(1, near.shape[axis] // _NEAR)
            near = uniform_filter1d(near, size, axis=axis, mode="wrap" if cyclic else "nearest")
        logs.append(np.log(_solved(near, _CELLS)).reshape(len(near[0]), -1))
    one, other, both = (v - v.mean(1, keepdims=True) for v in logs)
    share = np.clip((one * other).mean(1) / np.maximum((both**2).mean(1), 1e-300), 0, 1)
    gains = np.exp(share[:, None] * both).reshape(-1, *halves[0].shape[2:])
    return np.repeat(gains, frames, axis=0)


def _solved(sums: Array, bounds: tuple[float, float]) -> Array:
    """The gain of drawn residuals with which windows have the power of the record."""
    total, mean, cross, drawn = sums
    drawn = np.maximum(drawn, 1e-300)
    root = np.sqrt(np.maximum(cross**2 + drawn * (total - mean), 0))
    return np.clip((root - cross) / drawn, *bounds)


def _windows(problem: Problem, drawn: Iterable[Drawn]) -> _Windows:
    parts, seen = [], []
    for part in drawn:
        rows = [np.array([row]) for row, _ in part.items]
        usual = np.concatenate([problem.predicted(row, known=problem.nothing(row))[1].mean for row in rows])
        mean, std = (part.predicted.mean - usual) * part.weight, part.predicted.std * part.weight
        values = part.predicted.mean, part.predicted.std
        added = np.empty((len(rows), 0)) if part.added is None else part.added
        numbers = (part.vector, mean + std * part.x, mean, std, part.r, added, np.stack(values, 1))
        parts.append([v.astype(np.float32) for v in numbers])
        seen += part.items
    return _Windows(seen, *(np.concatenate(v) for v in zip(*parts)))


def _offset(part: SpectralGuess, windows: _Windows, problem: Problem) -> torch.Tensor:
    """The mean of what the network adds, (1 + F, C, *space): one sample of each row, the mean of its draws."""
    of_row, first = np.unique([row for row, _ in windows.items], return_index=True)
    added = np.stack([windows.added[[one == row for one, _ in windows.items]].mean(0) for row in of_row])
    season = _SEASON if problem.codec.season is not None else 0
    features = np.concatenate([np.ones((len(first), 1)), windows.vector[first, :season]], 1)
    ring = rings(problem.codec.layout.shape, problem.codec.layout.periodic).ravel()
    offset = fit_offset(_amplitudes(part, added), features, ring)
    return part.fields(_on(part, offset.reshape(-1, *part.power.shape)))


def _ends(windows: _Windows, part: SpectralGuess, problem: Problem) -> dict[tuple[int, int], Array]:
    """The past of the windows that go on from drawn ones, where training has them: by row and draw."""
    task, known = problem.task, {}
    assert isinstance(task, Window)
    rows = set(np.concatenate([problem.fit_rows, problem.stop_rows]).tolist())
    finished = _finished(part, windows)
    for i, (row, m) in enumerate(windows.items):
        after = row + task.future
        told = problem.past(np.array([after])) if after in rows else None
        if told is None:
            continue
        mean, std = windows.predicted[i]
        features = problem.codec.covariates.basis({k: v[[row]] for k, v in problem.covariates.items()}, 1)
        drawn = problem.codec.decode(
            finished[i][None], Predicted(mean[None], std[None], problem.codec.seasons(features))
        )
        shape = (1, -1, task.frames, *drawn.shape[2:])
        told.reshape(shape)[:, :, : task.past] = drawn.reshape(shape)[:, :, -task.past :]
        known[after, m] = told
    return known


def _put_gains(
    part: SpectralGuess,
    windows: _Windows,
    drawn: Array,
    problem: Problem,
    which: NDArray[np.bool_],
    cells: bool = False,
    few: float = _FEW,
) -> NDArray[np.float64]:
    """Gains of rings, and of cells, where these channels are asked; the factor of each channel's spread."""
    layout = problem.codec.layout
    ring = rings(layout.shape, layout.periodic).ravel()
    amplitudes = (_amplitudes(part, v) for v in (windows.total, windows.mean, windows.std * drawn))
    products = _products(*amplitudes)
    sums = np.array([[np.bincount(ring, one) for one in product] for product in products], dtype=np.float64)
    gain = fit_gains(sums, layout.frames, np.float64(len(drawn)) * np.bincount(ring), which, few)
    spread = np.where(which, (gain * sums[3]).sum(1) / np.maximum(sums[3].sum(1), 1e-300), 1.0)
    factor = _on(part, gain[:, ring].reshape(part.gain.shape))
    part.gain *= factor.to(part.gain)
    if cells:
        x = _on(part, drawn)
        left = windows.std * part.fields(factor.to(x) * part.spectrum(x)).cpu().numpy()
        half = np.unique([row for row, _ in windows.items], return_inverse=True)[1] % 2
        halves = [_products(*(v[half == k] for v in (windows.total, windows.mean, left))) for k in (0, 1)]
        found = np.where(_wide(which, part), fit_cells(halves, layout.frames, layout.periodic), 1.0)
        part.cells *= torch.from_numpy(found).to(part.cells)
    return spread


def _wide(which: NDArray[np.bool_], part: SpectralGuess) -> NDArray[np.bool_]:
    """Channels (C,) as (C, *ones)."""
    return which.reshape(-1, *[1] * (part.power.ndim - 1))


def _products(total: Array, mean: Array, left: Array) -> Array:
    """|T|^2, |M|^2, M R and |R|^2 summed over windows (n, C, ...), (4, C, ...)."""
    pairs = ((total, total), (mean, mean), (mean, left), (left, left))
    return np.stack([np.einsum("n...,n...->...", one, other, dtype=np.float64) for one, other in pairs])


def _amplitudes(part: SpectralGuess, fields: Array) -> Array:
    """Amplitudes of the waves of fields (n, C, *space), (n, C, W)."""
    return part.spectrum(_on(part, fields)).cpu().numpy().reshape(*fields.shape[:2], -1)
