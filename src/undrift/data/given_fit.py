"""Fitting what a codec knows of what is given: transforms and ranges, and the law of its gaps."""

from collections.abc import Mapping

import numpy as np

from undrift.data.fields import Fields
from undrift.data.given_codec import GivenCodec
from undrift.data.given_law import GivenLaw
from undrift.data.grid import Grid, Regridder
from undrift.data.linear import spread
from undrift.data.member_law import MemberLaw
from undrift.data.streamed import chunks, moments_of
from undrift.data.transforms import Transform, fit_transform

__all__ = ["fit_given", "fit_given_law"]

_LAW_NUMBERS = 20_000_000  # read for the law of what is given, samples x channels x cells
_LAW_SAMPLES, _LAW_LEAST = 500, 20  # of what is given: read at most, and without gaps at least


def fit_given(given: Fields, target: Fields, rows: np.ndarray, same: Mapping[int, Transform]) -> GivenCodec:
    """The transform of each given channel, that of the target where it is the ``same``, and the channels' ranges.

    Members, which are given in any order, have that of the first one. Nothing is standardised yet.
    """
    layout, count = given.layout, given.layout.members
    moments, _ = moments_of(given, rows)
    transforms = [
        same[i] if i in same else fit_transform("auto", m, f"given {c.label}", layout.units.get(c.variable, ""))
        for i, (c, m) in enumerate(zip(layout.channels[::count], moments[::count]))
    ]
    fine, coarse = ((len(transforms), *shape) for shape in (target.layout.shape, layout.shape))
    arrays = {"given_mean": np.zeros(fine), "given_std": np.ones(fine), "coarse_mean": np.zeros(coarse)}
    arrays |= {"coarse_std": np.ones(coarse), "given_mask": np.zeros(coarse), "gappy": np.zeros(())}
    arrays |= {"given_low": np.array([m.low for m in moments]), "given_high": np.array([m.high for m in moments])}
    each = [transform for transform in transforms for _ in range(count)]
    return GivenCodec(layout, Regridder(Grid.of(given), Grid.of(target)), each, arrays)


def fit_given_law(codec: GivenCodec, given: Fields, rows: np.ndarray) -> GivenLaw | MemberLaw:
    """The law of what is given, from samples without gaps where there are enough of them."""
    most = min(_LAW_SAMPLES, max(2 * _LAW_LEAST, _LAW_NUMBERS // codec.coarse_mean.size))
    parts, gaps = [], []
    for part in chunks(given, rows[spread(len(rows), most)]):
        raw = given.read(part).astype(np.float64)
        latent = np.stack([t.continuous(raw[:, i]) for i, t in enumerate(codec.transforms)], 1)
        centre, width = codec.each(codec.coarse_mean), codec.each(codec.coarse_std)
        parts.append(((latent - centre) / width).reshape(len(part), -1))
        gaps.append(codec.gaps(raw).reshape(len(part), -1).any(1))
    z, whole = np.nan_to_num(np.concatenate(parts)), ~np.concatenate(gaps)
    z = z[whole] if whole.sum() >= _LAW_LEAST else z
    return GivenLaw.fit(z) if codec.members == 1 else MemberLaw.fit(z, codec.members, len(codec.coarse_mean))
