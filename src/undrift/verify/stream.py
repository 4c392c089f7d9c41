"""Reading of labelled ensembles in blocks of samples, so that what is bigger than memory can be scored."""

__all__ = ["Reader", "blocks"]

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.errors import DataError

_BLOCK_BYTES = 64 * 2**20


class Reader:
    """One variable as float64 arrays (members, samples, levels, cells), read some samples at a time.

    Args:
        array: the variable, in memory or lazy.
        realization: its dimension of members, None for one member.
        sample: its sample dims.
        level: its level dims, flattened with the last varying fastest.
        space: its space dims.
        rows: flat indices of the samples to read, in the order in which they are served.
        what: for errors, as "the ensemble".
    """

    def __init__(
        self,
        array: xr.DataArray,
        realization: str | None,
        sample: Sequence[str],
        level: Sequence[str],
        space: Sequence[str],
        rows: NDArray[np.intp],
        what: str,
    ) -> None:
        if realization is None:
            realization = "_member"
            array = array.expand_dims(realization)
        self._array, self._sample, self._what = array, tuple(sample), what
        self._order = (realization, *self._sample, *level, *space)
        self._rows = np.asarray(rows, np.intp)
        self.members = int(array.sizes[realization])
        self.levels = int(np.prod([array.sizes[dim] for dim in level], dtype=int))
        self.cells = int(np.prod([array.sizes[dim] for dim in space], dtype=int))

    def __len__(self) -> int:
        return int(self._rows.size)

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample in float64."""
        return 8 * self.members * self.levels * self.cells

    def read(self, part: slice) -> NDArray[np.float64]:
        """Samples of one part of the rows: (members, n, levels, cells), missing values NaN.

        Raises:
            DataError: where a value is infinite.
        """
        rows = self._rows[part]
        sizes = [self._array.sizes[dim] for dim in self._sample]
        pieces: list[NDArray] = []
        if not self._sample:
            pieces = [self._load(self._array)]
        else:
            index = np.stack(np.unravel_index(rows, sizes), axis=-1)
            starts = np.flatnonzero(np.any(np.diff(index[:, :-1], axis=0, prepend=-1) != 0, axis=-1))
            bounds = [0, *(int(s) for s in starts if s), len(rows)]
            for low, high in pairwise(bounds):
                lead = {dim: slice(int(i), int(i) + 1) for dim, i in zip(self._sample[:-1], index[low, :-1])}
                last = index[low:high, -1]
                whole = bool(np.all(np.diff(last) == 1))
                pick = slice(int(last[0]), int(last[-1]) + 1) if whole else last
                pieces.append(self._load(self._array.isel({**lead, self._sample[-1]: pick})))
        values = np.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]
        if np.isinf(values).any():
            raise DataError(f"{self._what} holds infinite values of {self._array.name}: mark missing values as NaN")
        return values

    def _load(self, piece: xr.DataArray) -> NDArray[np.float64]:
        values = np.asarray(piece.transpose(*self._order).values, np.float64)
        return values.reshape(self.members, -1, self.levels, self.cells)


def blocks(readers: Sequence[Reader]) -> Iterator[slice]:
    """Consecutive parts of the rows that all readers share, each small enough to be worked on in memory."""
    total = len(readers[0])
    step = max(1, _BLOCK_BYTES // max(1, sum(reader.bytes_per_sample for reader in readers)))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
