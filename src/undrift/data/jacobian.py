"""The Jacobian of a codec: from a density of its numbers to one in the units of the data.

The numbers of a field are ``r = (v(T(x)) - mean) / std``, cell by cell: T the transform of each variable, v the
anamorphosis where there is one, mean and std what is predicted from what is given. So

    log p(x) = log p(r) + sum over cells of  log |dT / dx| + log |dv / dT| - log std.
"""

import numpy as np
from numpy.typing import NDArray

from undrift.data.codec import Codec
from undrift.data.encoded import Predicted

__all__ = ["log_slopes"]


def log_slopes(codec: Codec, raw: NDArray[np.floating], prediction: Predicted) -> NDArray[np.float64]:
    """``log |dr / dx|`` of each cell, in nats.

    Args:
        codec: of the fields.
        raw: fields in the units of the data, (n, C, *space).
        prediction: what they are residuals from, as :meth:`undrift.data.codec.Codec.encode` makes it.

    Returns:
        (n, C, *space), NaN where a value is missing; infinite where it is at a bound.
    """
    out = np.stack([t.log_slope(raw[:, i]) for i, t in enumerate(codec.transforms)], 1)
    out[np.isnan(raw)] = np.nan
    if codec.anamorphosis is not None:
        u = np.stack([t.encode(raw[:, i]) for i, t in enumerate(codec.transforms)], 1)
        out += codec.anamorphosis.log_slope(u, prediction.seasons)
    return out - np.log(prediction.std)
