"""Fitting the texture of what is not seen of windows."""

import numpy as np

from undrift.data.codec import Codec
from undrift.data.linear import spread
from undrift.data.texture import Texture, spectra_of
from undrift.data.training_part import TrainingPart

__all__ = ["fit_texture"]

_WINDOWS = 4


def fit_texture(codec: Codec, part: TrainingPart, past: int) -> Texture:
    """From the spectra of residuals: of the frames after the past given it, and of the past given none.

    First with draws of each cell on its own, whose white part is taken away, then with draws of what is left. Before
    the law of windows is known, of all frames given none.

    Args:
        codec: its texture is set meanwhile.
        part: the training windows.
        past: frames that are given.
    """
    if codec.window_laws is None:
        past = codec.layout.frames
    ahead = np.arange(len(codec.layout.channels)) % codec.layout.frames >= past
    texture = codec.texture = None
    for _ in range(2):
        fields, draw = [], np.random.default_rng(0)
        for at in spread(len(part), _WINDOWS)[:, None]:
            known = None if codec.window_laws is None else part.up_to(past, at)
            for told, counts in ((known, ahead), (None if known is None else np.full_like(known, np.nan), ~ahead)):
                if counts.any():
                    encoded, _ = part.encode(codec, at, draw=draw, known=told)
                    assert encoded.x is not None
                    fields.append((encoded.x[0], counts))
        powers, edges = spectra_of(fields, codec.layout.periodic)
        make = Texture.without_floor if texture is None else Texture
        texture = codec.texture = make(powers, edges, codec.layout.periodic)
    assert texture is not None
    return texture
