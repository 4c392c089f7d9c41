"""Spectra of fields in cosines and waves, and coherent draws of what is not seen.

All that is known of the latent of a dry cell is that it is below the threshold: in training it is drawn, from its
conditional law. Draws of each cell on its own would be white noise wherever it is dry, a texture that the wet part does
not have and that a network has to learn the edges of. So the ranks of the draws are those of a Gaussian field with the
spectrum of the residuals (a Gaussian copula): the law of each cell stays, and dry cells go on as wet ones do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from undrift.data.waves import waves

__all__ = ["Texture", "spectra_of", "wavenumbers"]

_BINS_AN_OCTAVE = 3
_LEAST = 1e-6  # of a channel's mean power
_WHITE = 1e-3  # of the floor that is left of it

Array = NDArray[np.floating]


def wavenumbers(shape: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.float64]:
    """|k| of each mode of a grid, (*shape)."""
    along = [waves(n, wrap)[1] for n, wrap in zip(shape, periodic)]
    return np.sqrt(sum(k**2 for k in np.meshgrid(*along, indexing="ij")))


def spectra_of(
    fields: Sequence[tuple[Array, NDArray[np.bool_]]], periodic: Sequence[bool]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power of each channel within bins of |k|, (C, K), and the edges between the bins, (K - 1,).

    Args:
        fields: (C, *space) each, centred by construction, and which of its channels count, (C,); of a channel that
            never does the power is 1.
        periodic: of each axis.
    """
    shape = fields[0][0].shape[1:]
    k = wavenumbers(shape, periodic)
    edges = np.exp2(np.arange(np.log2(k[k > 0].min()) + 0.5, np.log2(k.max()), 1 / _BINS_AN_OCTAVE))
    bins = np.searchsorted(edges, k).ravel()
    modes = np.bincount(bins, minlength=len(edges) + 1)
    total, count = np.zeros((len(fields[0][0]), len(modes))), np.zeros(len(fields[0][0]))
    bases = [waves(n, wrap)[0] for n, wrap in zip(shape, periodic)]
    for one, counts in fields:
        amplitudes = _along(one.astype(np.float64), bases)
        for c in np.flatnonzero(counts):
            total[c] += np.bincount(bins, (amplitudes[c] ** 2).ravel(), len(modes))
            count[c] += 1
    powers = total / np.maximum(modes * count[:, None], 1)
    there = np.flatnonzero(modes)
    nearest = there[np.abs(np.arange(len(modes))[:, None] - there).argmin(1)]
    powers = np.where(count[:, None] > 0, powers[:, nearest], 1.0)
    return np.maximum(powers, _LEAST * powers.mean(1, keepdims=True) + 1e-12), edges


@dataclass(frozen=True)
class Texture:
    """Gaussian fields of variance 1 with given spectra, as ranks.

    Attributes:
        powers: of each channel and bin of |k|, (C, K), up to a factor.
        edges: between the bins, (K - 1,), in cycles a cell.
        periodic: of each axis.
    """

    powers: Array
    edges: Array
    periodic: tuple[bool, ...]
    _grids: dict[tuple[int, ...], tuple[list[Array], Array, Array]] = field(default_factory=dict, repr=False)

    @classmethod
    def without_floor(cls, powers: Array, edges: Array, periodic: Sequence[bool]) -> Self:
        """Of spectra whose white part is that of draws of each cell on its own."""
        floor = powers.min(1, keepdims=True)
        return cls(np.maximum(powers - floor, _WHITE * floor), edges, tuple(periodic))

    def ranks(self, channels: NDArray[np.intp], shape: Sequence[int], draw: np.random.Generator) -> Array:
        """Ranks in (0, 1), each uniform, of some channels on a grid, (channels, *shape)."""
        bases, amplitudes, scale = self._grid(tuple(shape))
        noise = draw.standard_normal((len(channels), *shape), np.float32)
        return ndtr(_along(amplitudes[channels] * noise, [b.T for b in bases]) / scale[channels])

    def ranks_at(self, at: NDArray[np.bool_], draw: np.random.Generator) -> Array:
        """Ranks where they are wanted of fields (n, C, *shape), 1/2 in channels where none is."""
        out = np.full(at.shape, 0.5)
        for one, there in zip(out, at):
            which = np.flatnonzero(there.reshape(len(there), -1).any(1))
            one[which] = self.ranks(which, at.shape[2:], draw)
        return out

    def _grid(self, shape: tuple[int, ...]) -> tuple[list[Array], Array, Array]:
        """The basis along each axis, the amplitude of each mode and the deviation of each cell, (C, *shape)."""
        if shape not in self._grids:
            bases = [waves(n, wrap)[0].astype(np.float32) for n, wrap in zip(shape, self.periodic)]
            bins = np.searchsorted(self.edges, wavenumbers(shape, self.periodic))
            amplitudes = np.sqrt(self.powers).astype(np.float32)[:, bins]
            scale = np.sqrt(_along(amplitudes**2, [(b**2).T for b in bases]))
            self._grids[shape] = bases, amplitudes, scale
        return self._grids[shape]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {"texture_powers": self.powers, "texture_edges": self.edges}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], periodic: Sequence[bool]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["texture_powers"], arrays["texture_edges"], tuple(periodic))


def _along(x: Array, matrices: Sequence[Array]) -> Array:
    """A matrix applied along each axis of (C, *space)."""
    for axis, matrix in enumerate(matrices):
        x = np.moveaxis(np.moveaxis(x, axis + 1, -1) @ matrix.T, -1, axis + 1)
    return x
