"""Windows of whole frames in which a few cells are missing.

Of Gaussian windows what is asked is linear in the given frames x, and so its mean given their known cells K alone is
that given the whole frames with the missing cells M at their own mean, and its variance grows by theirs:

    E[x_M | x_K] = -P_MM^-1 P_MK x_K,    Var[x_M | x_K] = P_MM^-1,
    E[y | x_K] = G E[x | x_K],    Var[y | x_K] = Var[y | x] + G_M P_MM^-1 G_M',

with P the inverse covariance of the given frames and G the regression of y on them (Rue and Held 2005, "Gaussian Markov
Random Fields", theorem 2.5). P is known of the law's maps, whose amplitudes go on in time, and of the waves of what
they leave (`undrift.data.window_law`); it is exact where no wave is partly in the maps.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from undrift.data.waves import rings, turned

if TYPE_CHECKING:
    from undrift.data.window_law import WindowLaw

__all__ = ["are_few", "gap_covariance", "gap_means", "precise"]

Array = NDArray[np.floating]
_FEW = 32  # cells
_SHARE = 1 / 8  # of the frames' cells
_LEAST = 1e-6  # of the mean power of waves


def are_few(missing: int, cells: int) -> bool:
    """Whether so many missing cells of whole frames are few: more are a part of the window that is asked."""
    return missing <= min(_FEW, _SHARE * cells)


def precise(law: "WindowLaw", x: Array, frames: NDArray[np.bool_]) -> Array:
    """The inverse covariance P of given frames times windows x (V, T, cells) that are 0 elsewhere."""
    assert law.rings is not None and law.waves is not None
    count, which = int(frames.sum()), np.repeat(frames, len(law.modes))
    flat = np.moveaxis(x[:, frames], 1, 0).reshape(count, -1)
    a = flat @ law.modes.T
    inside = np.linalg.solve(law.covariance[np.ix_(which, which)], a.ravel()).reshape(a.shape)
    e = np.moveaxis((flat - a @ law.modes).reshape(count, *law.own.shape), 0, 1)
    whiten = np.where(law.own > 0, 1 / np.sqrt(np.maximum(law.own, 1e-30)), 0)[:, None]
    y = turned((e * whiten).reshape(*e.shape[:2], *law.space), law.periodic)
    ring = rings(law.space, law.periodic).ravel()
    power = law.waves * ring.size / np.maximum(np.bincount(ring), 1)
    power = np.maximum(power, _LEAST * power.mean(1, keepdims=True))
    inverse = np.linalg.inv(law.rings[:, :, frames][..., frames]) / power[..., None, None]
    y = np.einsum("vwfg,vgw->vfw", inverse[:, ring], y.reshape(e.shape))
    e = turned(y.reshape(*y.shape[:2], *law.space), law.periodic, back=True).reshape(e.shape) * whiten
    flat = np.moveaxis(e, 1, 0).reshape(count, -1)
    flat = flat + (inside - flat @ law.modes.T) @ law.modes
    out = np.zeros(x.shape)
    out[:, frames] = np.moveaxis(flat.reshape(count, *law.own.shape), 0, 1)
    return out


def gap_covariance(law: "WindowLaw", gaps: NDArray[np.bool_], frames: NDArray[np.bool_]) -> Array:
    """Covariance of the missing cells (V, T, cells) of given frames, given all their others, (M, M)."""
    at, columns = np.nonzero(gaps), []
    for index in zip(*at):
        one = np.zeros(gaps.shape)
        one[index] = 1
        columns.append(precise(law, one, frames)[at])
    return np.linalg.inv(np.stack(columns, 1))


def gap_means(
    law: "WindowLaw", r: Array, gaps: NDArray[np.bool_], frames: NDArray[np.bool_], covariance: Array
) -> Array:
    """Windows (V, T, cells) with the means of missing cells given all others of these frames, 0 in other frames."""
    out = np.where(frames[:, None] & ~gaps, r, 0.0)
    out[gaps] = -covariance @ precise(law, out, frames)[gaps]
    return out
