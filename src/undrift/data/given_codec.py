"""What a codec knows of what is given: its latents on both grids, its range, its gaps and how they are filled."""

from collections.abc import Mapping, Sequence

import numpy as np

from undrift.data.given_law import GivenLaw
from undrift.data.grid import Regridder
from undrift.data.layout import Layout
from undrift.data.member_law import MemberLaw
from undrift.data.transforms import Transform, unbounded

__all__ = ["GivenCodec"]

_PER_CELL = ("given_mean", "given_std", "coarse_mean", "coarse_std", "given_low", "given_high")


class GivenCodec:
    """All that turns what is given into numbers; a part of :class:`undrift.data.codec.Codec`.

    Attributes:
        layout: of what is given.
        regridder: from its grid to the target's.
        transforms: one per given channel.
        members: members of a date that are given together.
        mean: of latents on the target's grid, (G / K, *space), to standardise what the network sees; std likewise.
        coarse_mean: of latents on their own grid, (G / K, *coarse), to standardise what the linear predictor sees;
            coarse_std likewise, one for all cells.
        low: least value of each channel in training, (G,); high: the largest.
        mask: cells that never had a value, (G / K, *coarse).
        gappy: whether cells are missing now and then. The network sees which.
        law: from which missing cells are drawn, or None.
    """

    def __init__(
        self, layout: Layout, regridder: Regridder, transforms: Sequence[Transform], arrays: Mapping[str, np.ndarray]
    ) -> None:
        self.layout, self.regridder, self.transforms = layout, regridder, list(transforms)
        self.members = layout.members
        self.mean, self.std, self.coarse_mean, self.coarse_std, self.low, self.high = (arrays[k] for k in _PER_CELL)
        self.mask, self.gappy = arrays["given_mask"].astype(bool), bool(arrays["gappy"])
        self.law: GivenLaw | MemberLaw | None = None
        if "law_own_modes" in arrays:
            self.law = MemberLaw.from_arrays(arrays, self.members)
        elif "law_modes" in arrays:
            self.law = GivenLaw(arrays["law_modes"], arrays["law_variances"], float(arrays["law_floor"]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that make it again."""
        values = (self.mean, self.std, self.coarse_mean, self.coarse_std, self.low, self.high)
        out = dict(zip(_PER_CELL, values))
        if isinstance(self.law, MemberLaw):
            out |= self.law.to_arrays()
        elif self.law is not None:
            out |= {"law_modes": self.law.modes, "law_variances": self.law.variances}
            out["law_floor"] = np.array(self.law.floor)
        return out | {"given_mask": self.mask.astype(np.int8), "gappy": np.array(int(self.gappy))}

    def each(self, values: np.ndarray) -> np.ndarray:
        """Numbers of given channels (G / K, ...) for each of K members, (G, ...)."""
        return np.repeat(values, self.members, axis=0)

    def apart(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) member by member, (n, G / K, K, *coarse)."""
        return raw.reshape(len(raw), -1, self.members, *raw.shape[2:])

    def mask_of(self, members: int) -> np.ndarray:
        """Given cells (G, *coarse) that never have a value where so many members are given."""
        mask = self.apart(self.each(self.mask)[None])[0].copy()
        mask[:, members:] = True
        return mask.reshape(-1, *self.mask.shape[1:])

    def singly(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) as single members, (n K, G / K, *coarse)."""
        apart = np.moveaxis(self.apart(raw), 2, 1)
        return apart.reshape(-1, *apart.shape[2:])

    def mixed(self, raw: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Given values (n, G, *coarse) with their members in an order that is drawn."""
        return self.apart(raw)[:, :, draw.permutation(self.members)].reshape(raw.shape)

    def gaps(self, raw: np.ndarray) -> np.ndarray:
        """Where given values (n, G, *coarse) are missing that are not always missing."""
        return np.isnan(raw) & ~self.each(self.mask)

    def filled(self, raw: np.ndarray, draw: np.random.Generator | None) -> np.ndarray:
        """Given values (n, G, *coarse) with those in gaps drawn given the others, or their mean without a generator."""
        gaps = self.gaps(raw)
        if self.law is None or not gaps.any():
            return raw
        out = raw.copy()
        for i in np.flatnonzero(gaps.reshape(len(raw), -1).any(1)):
            latent = np.stack([t.continuous(v) for t, v in zip(self.transforms, raw[i])])
            centre, width = self.each(self.coarse_mean), self.each(self.coarse_std)
            z = (latent - centre) / width
            z[self.each(self.mask)] = 0.0
            z = self.law.fill(z.ravel(), draw).reshape(z.shape)
            latent = centre + width * z
            drawn = np.stack([t.decode(v) for t, v in zip(self.transforms, latent)])
            out[i][gaps[i]] = drawn[gaps[i]]
        return out

    def latents(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Given values (n, G, *coarse) as latents on both grids, and where the fine ones are missing."""
        fine_raw = self.regridder(raw)
        coarse = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(self.transforms)], 1)
        fine = np.stack([t.continuous(fine_raw[:, i]) for i, t in enumerate(self.transforms)], 1)
        return coarse, fine, ~np.isfinite(fine)

    def standard(self, coarse: np.ndarray) -> np.ndarray:
        """What the linear predictor sees of latents (n, G, *coarse), of members their mean: (n, G / K, *coarse)."""
        return np.nan_to_num((self.apart(coarse).mean(2) - self.coarse_mean) / self.coarse_std)

    def fields(self, fine: np.ndarray, known: np.ndarray, frames: int, cut: tuple[slice, ...]) -> dict[str, np.ndarray]:
        """What the network sees of latents (n, G, *space), cut, and of where they are known where some are not.

        The linear predictor knows the level and extrapolates it; a network shown a level that training never had does
        not. So fields without bounds lose theirs, the mean over the whole domain and all members.
        """
        given = (fine - self.each(self.mean)) / self.each(self.std)
        level = np.where(unbounded(self.transforms, given.ndim - 2), self._level(given), 0)
        out = {"given": np.nan_to_num((given - level)[cut]).astype(np.float32)}
        if self.gappy:
            by_frame = known.reshape(len(known), -1, frames, *known.shape[2:])
            out["known"] = by_frame.min(1)[cut].astype(np.float32)
        return out

    def _level(self, x: np.ndarray) -> np.ndarray:
        """Mean of fields (n, G, *space) over the domain and all members, (n, G, *ones)."""
        apart = self.apart(x)
        axes, known = tuple(range(2, apart.ndim)), np.isfinite(apart)
        level = np.where(known, apart, 0).sum(axes, keepdims=True) / np.maximum(known.sum(axes, keepdims=True), 1)
        return np.repeat(level[:, :, 0], self.members, axis=1)

    def outside(self, raw: np.ndarray) -> np.ndarray:
        """Given values (n, G, *coarse) outside the range that their channel had in training, a share per channel."""
        shape = (-1,) + (1,) * (raw.ndim - 2)
        low, high = self.low.reshape(shape), self.high.reshape(shape)
        beyond = (raw < low) | (raw > high)
        known = np.isfinite(raw)
        axes = (0, *range(2, raw.ndim))
        return (beyond & known).sum(axes) / np.maximum(known.sum(axes), 1)
