"""Noise that is a function of its key.

Each cell of each field has its own number, fixed by (seed, purpose, realization, digest of the sample's labels,
variable) and by the global index of the cell, through the counter-based generator Philox 4x64 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405). So neither batch size nor the number of
realizations, workers or variables changes a number, and any window of a field can be drawn alone.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

__all__ = ["Key", "normal", "uniform"]

_LANES = 4  # Philox 4x64 yields four words for each value of its counter


@dataclass(frozen=True)
class Key:
    """What a random field belongs to."""

    seed: int
    purpose: str
    realization: int = 0
    labels: str = ""
    variable: str = ""
    stage: int = 0

    def words(self) -> np.ndarray:
        """Two 64-bit words, the key of the generator."""
        parts = (self.seed, self.purpose, self.realization, self.labels, self.variable, self.stage)
        text = "\x1f".join(str(part) for part in parts)
        return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8")


def _run(key: Key, start: int, count: int) -> np.ndarray:
    """``count`` words of the key's stream from cell ``start`` on."""
    first, skip = divmod(start, _LANES)
    generator = np.random.Philox(key=key.words(), counter=[first, 0, 0, 0])
    return generator.random_raw(skip + count)[skip:]


def uniform(key: Key, shape: Sequence[int], window: Sequence[slice] | None = None) -> np.ndarray:
    """Uniform numbers in (0, 1) for the cells of a field, multiples of 2^-53.

    Args:
        key: what the field belongs to.
        shape: the whole field's shape.
        window: the part that is wanted, a slice of step 1 for each dim; the numbers are those of the same cells in the
            whole field.

    Returns:
        float64 array with the window's shape.

    Raises:
        ValueError: the window has another number of dims, or a step.
    """
    shape = tuple(shape)
    parts = (slice(None),) * len(shape) if window is None else tuple(window)
    if len(parts) != len(shape) or any(part.step not in (None, 1) for part in parts):
        raise ValueError(f"window is {parts}, expected {len(shape)} slices without a step")
    bounds = [part.indices(size)[:2] for part, size in zip(parts, shape)]
    out_shape = tuple(max(stop - start, 0) for start, stop in bounds)
    if out_shape == shape or 0 in out_shape:
        words = _run(key, 0, int(np.prod(out_shape)))
    else:
        first, last = bounds[-1]
        leading = itertools.product(*(range(start, stop) for start, stop in bounds[:-1]))
        rows = [int(np.ravel_multi_index((*index, first), shape)) for index in leading]
        words = np.concatenate([_run(key, row, last - first) for row in rows])
    # 52 bits and a half: the greatest is 1 - 2^-53, where 53 bits and a half would round to 1
    return (((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(out_shape)


def normal(key: Key, shape: Sequence[int], window: Sequence[slice] | None = None) -> np.ndarray:
    """Standard normal numbers, ``ndtri`` of :func:`uniform`: one word a cell whatever its value."""
    return ndtri(uniform(key, shape, window))
