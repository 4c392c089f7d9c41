"""What is known of a coarse sequence that is missing in part: from its other frames, and the fine ones.

The linear predictor of windows needs a number where nothing was given. It gets the mean that the law of coarse windows
has given what is known (:mod:`undrift.data.window_law`), and what it leaves of the fine fields varies by the variance
of that law beside its own: the network is asked to draw both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undrift.data.conserve import block_means, in_blocks

if TYPE_CHECKING:
    from undrift.data.codec import Codec

__all__ = ["CoarseLaw", "with_means"]


@dataclass(frozen=True)
class CoarseLaw:
    """The law of coarse windows.

    Attributes:
        codec: of the coarse windows by themselves, each of whose parts may be known.
    """

    codec: Codec

    def completed(
        self,
        fine: Codec,
        raw: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        fold: np.ndarray | None,
        draw: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Coarse windows (n, G, *coarse) with what is known of missing values in their place.

        Also the standard deviation that this leaves of the latents that are predicted from them by the codec of the
        ``fine`` windows, (n, C, *space); None where nothing is missing. The others are as of :meth:`complete`.
        """
        given = fine.given
        assert given is not None
        gaps = given.gaps(raw)
        if not gaps.any():
            return raw, None
        raw, *ends = self.complete(raw, gaps, covariates, fold, draw)
        low, high = (np.stack([t.continuous(v[:, i]) for i, t in enumerate(given.transforms)], 1) for v in ends)
        spread = np.where(gaps, (high - low) / 2, 0)
        frames = fine.layout.frames
        of_own = np.nan_to_num(given.regridder(spread))
        share = np.nan_to_num(given.regridder(spread / given.coarse_std)) ** 2
        share = np.sqrt(share.reshape(len(raw), -1, frames, *fine.layout.shape).mean(1))
        told = np.sqrt(np.maximum(fine.std**2 - fine.scale**2, 0))  # what other variables explain where all is given
        unsure = [
            told[c] * np.minimum(share[:, c % frames], 1) if source is None else of_own[:, source]
            for c, source in enumerate(fine.base)
        ]
        return raw, np.stack(unsure, 1)

    def complete(
        self,
        raw: np.ndarray,
        gaps: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        fold: np.ndarray | None,
        draw: np.random.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coarse windows (n, G, *coarse) with what is known of those in gaps in place of them.

        Args:
            raw: in the data's units, NaN where missing.
            gaps: where values are missing that are not always missing, same shape.
            covariates: name -> value of each, (n,).
            fold: of each, whose law was fitted without it; None for that of all.
            draw: generator of known latents at point masses.

        Returns:
            The windows with medians in the gaps, and the values a standard deviation below and above; all three are
            what is known elsewhere.
        """
        rows = np.flatnonzero(gaps.reshape(len(raw), -1).any(1))
        out = raw.copy(), raw.copy(), raw.copy()
        if rows.size:
            values = {name: value[rows] for name, value in covariates.items()}
            known = raw[rows].astype(np.float32)
            _, found = self.codec.encode(
                None, None, rows, covariates=values, fold=None if fold is None else fold[rows], known=known, draw=draw
            )
            for one, r in zip(out, (0.0, -1.0, 1.0)):
                one[rows] = np.where(gaps[rows], self.codec.decode(r, found), raw[rows])
        return out


def with_means(codec: Codec, raw: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Coarse windows (n, G, *coarse) with the means of blocks that are known in what is given of the fine ones.

    Args:
        codec: of the fine windows.
        raw: NaN where missing.
        known: fine values, NaN where asked, (n, C, *space); others than of the whole domain are of no use.
    """
    if known is None or codec.given is None or codec.factor is None or known.shape[1:] != codec.mask.shape:
        return raw
    if not codec.given.gaps(raw).any():
        return raw
    raw = raw.copy()
    for channel in np.flatnonzero(codec.conserves):
        source = codec.base[channel]
        whole = in_blocks(np.isfinite(known[:, channel]) | codec.mask[channel], codec.factor).all(-1)
        means = block_means(known[:, channel].astype(np.float64), codec.factor)
        raw[:, source] = np.where(np.isnan(raw[:, source]) & whole, means, raw[:, source])
    return raw
