"""Fitting the law of the coarse windows that finer ones are given."""

from collections.abc import Collection, Mapping

import numpy as np

from undrift.data.coarse_law import CoarseLaw
from undrift.data.codec import Codec
from undrift.data.codec_fit import fit_codec
from undrift.data.fields import Fields

__all__ = ["fit_coarse_law"]


def fit_coarse_law(
    codec: Codec,
    given: Fields,
    rows: np.ndarray,
    *,
    covariates: Mapping[str, np.ndarray],
    transforms: Mapping[str, str] | None = None,
    number_of_folds: int = 5,
    linear: bool = True,
    cycles: Collection[str] = (),
    past: int = 0,
) -> None:
    """Fit it and leave it in the codec of the fine windows, whose network is told from then on what is missing.

    Args:
        codec: of the fine windows.
        given: the coarse ones.
        rows: positions of the training samples; the others are as of :func:`undrift.data.codec_fit.fit_codec`.
        covariates: likewise.
        transforms: likewise; those of variables that are given are heeded.
        number_of_folds: likewise.
        linear: likewise.
        cycles: likewise.
        past: likewise.
    """
    own = {name: kind for name, kind in (transforms or {}).items() if name in given.layout.variables}
    found, _ = fit_codec(
        given, None, rows, factor=None, covariates=covariates, transforms=own, number_of_folds=number_of_folds,
        linear=linear, cycles=cycles, windows=True, past=past,
    )  # fmt: skip
    assert codec.given is not None
    codec.coarse_law, codec.given.gappy = CoarseLaw(found), True
