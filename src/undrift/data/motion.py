"""Motion of patterns from frame to frame by phase correlation, and frames moved on along it.

The shift between two frames is where their correlation peaks; here the cross-power of each frequency counts by
``R / (|R| + mean |R|)``, between plain and phase correlation (Kuglin and Hines 1975), so that frequencies without power
do not. The whole domain is measured first, then blocks of it around that shift, and a linear function of place is
fitted around each block: single blocks are too uncertain to be followed for an hour. Frames are carried on by backward
semi-Lagrangian steps, each with the motion where it has got to (Germann and Zawadzki 2002,
doi:10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2).
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.fft
import scipy.ndimage

__all__ = ["carried", "motion", "origins", "picked"]

_BLOCK = 32  # cells along each side
_REACH = 128.0  # cells over which motion is a linear function of place
_FAR = 0.25  # of a block: shifts beyond the domain's own that are not believed
_CLEAR = 0.1  # least peak of a block's correlation, where 1 is a pure shift

Axes = Sequence[int]


def motion(frames: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """Cells that patterns move along each axis from one frame to the next, (d, *space).

    Args:
        frames: consecutive frames (C, P, *space), all of which count alike; what is missing is NaN.
        periodic: of each space axis.
    """
    shape = frames.shape[2:]
    filled = np.nan_to_num(_standard(frames))
    whole, _ = _shift(filled[:, :-1], filled[:, 1:], periodic)
    if all(n < 2 * _BLOCK for n in shape):
        return np.broadcast_to(whole.reshape(-1, *[1] * len(shape)), (len(shape), *shape)).copy()
    corners = [_corners(n) for n in shape]
    found = np.empty((len(shape), *(len(c) for c in corners)))
    for place in itertools.product(*(range(len(c)) for c in corners)):
        found[(slice(None), *place)] = _of_block(filled, [c[i] for c, i in zip(corners, place)], whole, periodic)
    return _between(_locally_linear(found, corners, shape, periodic), corners, shape)


def carried(frame: np.ndarray, moved: np.ndarray, periodic: Sequence[bool], steps: Sequence[int]) -> np.ndarray:
    """A frame (C, *space) carried on by ascending numbers of steps, (steps, C, *space).

    What comes in through an end that is not periodic is the value at that end.
    """
    return np.stack([picked(frame, at, periodic) for at in origins(moved, periodic, steps)])


def origins(moved: np.ndarray, periodic: Sequence[bool], steps: Sequence[int]) -> Iterator[np.ndarray]:
    """Where what is in each cell was some steps before, (d, *space) in cells, for ascending numbers of steps."""
    at = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in moved.shape[1:]), indexing="ij"))
    done = 0
    for step in steps:
        for _ in range(step - done):
            at = at - np.stack([_at(v, at, periodic) for v in moved])
        done = step
        yield at


def picked(frame: np.ndarray, at: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """Channels (C, *space) at places (d, *space), linear between cells, of the frame's dtype."""
    return np.stack([_at(channel, at, periodic) for channel in frame]).astype(frame.dtype)


def _standard(frames: np.ndarray) -> np.ndarray:
    """Each channel with mean 0 and deviation 1, so that units do not weigh."""
    axes = tuple(range(1, frames.ndim))
    known = np.isfinite(frames)
    count = np.maximum(known.sum(axes, keepdims=True), 1)
    anomaly = frames - np.where(known, frames, 0).sum(axes, keepdims=True) / count
    spread = np.sqrt(np.where(known, anomaly**2, 0).sum(axes, keepdims=True) / count)
    return anomaly / np.where(spread > 0, spread, 1)


def _shift(before: np.ndarray, after: np.ndarray, periodic: Sequence[bool]) -> tuple[np.ndarray, float]:
    """Cells between patterns (C, P, *space) before and after, (d,), and how clear the peak is."""
    shape = before.shape[2:]
    axes = tuple(range(2, before.ndim))
    taper = _taper(shape, periodic)
    f, g = (scipy.fft.fftn((v - v.mean(axes, keepdims=True)) * taper, axes=axes) for v in (before, after))
    cross = (np.conj(np.asarray(f)) * np.asarray(g)).sum((0, 1))
    size = np.abs(cross)
    if not size.max() > 0:
        return np.zeros(len(shape)), 0.0
    weight = size / (size + size.mean())
    surface = np.real(np.asarray(scipy.fft.ifftn(cross / (size + size.mean()))))
    peak = np.unravel_index(int(surface.argmax()), shape)
    shift = np.array([_signed(p + _vertex(surface, peak, axis), shape[axis]) for axis, p in enumerate(peak)])
    return shift, float(surface[peak] * np.prod(shape) / weight.sum())


def _taper(shape: Axes, periodic: Sequence[bool]) -> np.ndarray:
    out = np.ones(shape)
    for axis, (n, wrap) in enumerate(zip(shape, periodic)):
        if not wrap:
            out = out * np.hanning(n + 2)[1:-1].reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return out


def _vertex(surface: np.ndarray, peak: tuple, axis: int) -> float:
    """Where the parabola through the peak and its neighbours along an axis has its top, in [-1/2, 1/2]."""
    n = surface.shape[axis]
    if n < 3:
        return 0.0
    low, mid, high = (surface[(*peak[:axis], (peak[axis] + k) % n, *peak[axis + 1 :])] for k in (-1, 0, 1))
    bend = low - 2 * mid + high
    return 0.0 if bend == 0 else float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))


def _signed(shift: float, size: int) -> float:
    return (shift + size / 2) % size - size / 2


def _corners(size: int) -> np.ndarray:
    """Where blocks begin: half a block apart, the last one at the end."""
    if size <= _BLOCK:
        return np.zeros(1, dtype=int)
    count = -(-(size - _BLOCK) // (_BLOCK // 2)) + 1
    return np.unique(np.linspace(0, size - _BLOCK, count).round().astype(int))


def _of_block(filled: np.ndarray, corner: Sequence[int], whole: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """The shift of one block, measured from where the domain's shift says that it was."""
    shape = filled.shape[2:]
    sides = [min(_BLOCK, n) for n in shape]
    back = []
    for axis, (c, side, n) in enumerate(zip(corner, sides, shape)):
        wanted = round(float(whole[axis]))
        back.append(wanted if periodic[axis] else int(np.clip(wanted, c + side - n, c)))

    def cut(values: np.ndarray, moved: Sequence[int]) -> np.ndarray:
        for axis, (c, side, m, n) in enumerate(zip(corner, sides, moved, shape)):
            values = np.take(values, (c - m + np.arange(side)) % n, axis=2 + axis)
        return values

    open_ends = [wrap and side == n for wrap, side, n in zip(periodic, sides, shape)]
    shift, clear = _shift(cut(filled[:, :-1], back), cut(filled[:, 1:], [0] * len(shape)), open_ends)
    if clear < _CLEAR or (np.abs(shift) > _FAR * np.array(sides)).any():
        return whole
    return np.array(back) + shift


def _locally_linear(
    found: np.ndarray, corners: Sequence[np.ndarray], shape: Axes, periodic: Sequence[bool]
) -> np.ndarray:
    """Values at blocks (d, *blocks) by linear regression on place, with Gaussian weights around each block."""
    places = np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, len(shape)).astype(np.float64)
    values = found.reshape(len(found), -1)
    out = np.empty_like(values)
    for i, place in enumerate(places):
        away = places - place
        for axis, (n, wrap) in enumerate(zip(shape, periodic)):
            away[:, axis] = (away[:, axis] + n / 2) % n - n / 2 if wrap else away[:, axis]
        counts = np.exp(-0.25 * (away**2).sum(1) / _REACH**2)  # root of the weights
        design = np.concatenate([np.ones((len(away), 1)), away / _REACH], 1) * counts[:, None]
        out[:, i] = np.linalg.lstsq(design, (values * counts).T, rcond=1e-6)[0][0]
    return out.reshape(found.shape)


def _between(values: np.ndarray, corners: Sequence[np.ndarray], shape: Axes) -> np.ndarray:
    """Values at blocks' centres (d, *blocks) on all cells, the nearest beyond the outermost."""
    along = []
    for c, n in zip(corners, shape):
        centres = c + (min(_BLOCK, n) - 1) / 2
        along.append(np.interp(np.arange(n), centres, np.arange(len(c))))
    at = np.stack(np.meshgrid(*along, indexing="ij"))
    return np.stack([scipy.ndimage.map_coordinates(v, at, order=1, mode="nearest") for v in values])


def _at(values: np.ndarray, at: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """Values (*space) at places (d, *space), linear between cells."""
    inside = []
    for axis, wrap in enumerate(periodic):
        size = values.shape[axis]
        inside.append(at[axis] % size if wrap else np.clip(at[axis], 0, size - 1))
        if wrap:
            values = np.concatenate([values, np.take(values, [0], axis=axis)], axis)
    return scipy.ndimage.map_coordinates(values, np.stack(inside), order=1, mode="nearest", output=np.float64)
