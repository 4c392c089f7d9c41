"""Fitting the texture of what is not seen of windows."""

from collections.abc import Mapping

import numpy as np

from undrift.data.codec import Codec
from undrift.data.fields import Fields
from undrift.data.texture import Texture, spectra_of

__all__ = ["fit_texture"]

_WINDOWS = 4


def fit_texture(
    codec: Codec,
    target: Fields,
    given: Fields | None,
    rows: np.ndarray,
    fold: np.ndarray,
    covariates: Mapping[str, np.ndarray],
    past: int,
) -> Texture:
    """From the spectra of residuals: of the frames after the past given it, and of the past given none.

    First with draws of each cell on its own, whose white part is taken away, then with draws of what is left.

    Args:
        codec: its texture is set meanwhile.
        target: windows.
        given: what is given beside frames, window by window the same.
        rows: positions of the training windows.
        fold: of each of them.
        covariates: name -> value of each window of ``target``.
        past: frames that are given.
    """
    frames, shape = codec.layout.frames, codec.layout.shape
    ahead = np.arange(len(codec.layout.channels)) % frames >= past
    texture = codec.texture = None
    for _ in range(2):
        fields, draw = [], np.random.default_rng(0)
        for at in np.unique(np.linspace(0, len(rows) - 1, _WINDOWS).astype(int)):
            values = {k: v[rows[[at]]] for k, v in covariates.items()}
            known = target.read(rows[[at]])
            known.reshape(-1, frames, *shape)[:, past:] = np.nan
            for told, counts in ((known, ahead), (np.full_like(known, np.nan), ~ahead)):
                if counts.any():
                    encoded, _ = codec.encode(
                        target, given, rows[[at]], covariates=values, fold=fold[[at]], draw=draw, known=told
                    )
                    assert encoded.x is not None
                    fields.append((encoded.x[0], counts))
        powers, edges = spectra_of(fields, codec.layout.periodic)
        make = Texture.without_floor if texture is None else Texture
        texture = codec.texture = make(powers, edges, codec.layout.periodic)
    assert texture is not None
    return texture
