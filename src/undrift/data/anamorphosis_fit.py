"""Fitting the anamorphosis of windows whose yearly cycle is known."""

import math
from collections.abc import Mapping

import numpy as np

from undrift.data.anamorphosis import Anamorphosis, fit_levels, seasons_at
from undrift.data.codec import Codec
from undrift.data.fields import Fields
from undrift.data.linear import spread

__all__ = ["fit_anamorphosis"]

_KINDS = ("censored", "power")
_BLOCK = 64
_NUMBERS = 100_000_000  # sorted at a time, windows x cells and those beside
_SEASONS = 12
_LEAST = 20 * _SEASONS  # windows that are read, if there are as many: of fewer there are no seasons


def fit_anamorphosis(codec: Codec, target: Fields, rows: np.ndarray, covariates: Mapping[str, np.ndarray]) -> None:
    """Put the anamorphosis of all variables with one bound into a codec, from the first frame of each window.

    Args:
        codec: of which nothing but the transforms is fitted yet.
        target: windows.
        rows: positions of the training windows.
        covariates: name -> value of each window, of which the first tells the time of year.
    """
    layout, frames = codec.layout, codec.layout.frames
    which = [i for i in range(0, len(layout.channels), frames) if codec.transforms[i].kind in _KINDS]
    if not which:
        return
    size = math.prod(layout.shape)
    rows = rows[spread(len(rows), max(_LEAST, _NUMBERS // (size * 3 ** len(layout.shape))))]
    parts = np.array_split(rows, -(-len(rows) // _BLOCK))
    values = np.concatenate([target.read(part)[:, which] for part in parts])
    weights = None
    if len(rows) >= _LEAST:
        told = {name: value[rows] for name, value in covariates.items()}
        weights = seasons_at(codec.covariates.basis(told, len(rows)), _SEASONS).T
    found = []
    for k, i in enumerate(which):
        transform = codec.transforms[i]
        low = transform.thresholds[0] if transform.kind == "censored" else -np.inf
        found.append(fit_levels(transform.continuous(values[:, k]), low, layout.periodic, weights))
    levels, scores = (np.stack(v) for v in zip(*found))
    codec.shaped(Anamorphosis(np.add.outer(which, np.arange(frames)), levels, scores))
