"""The law of members that are given together, for those that are missing.

Members of a date are exchangeable: they share s, and have deviations e_k of their own,

    z_k = U' a + W' b_k + noise,    a_i ~ N(0, v_i),    b_ki ~ N(0, w_i),    noise ~ N(0, floor).

Of K members of n dates, with d the deviations from the mean of the date, ``S_e = sum d d' / (n (K - 1))`` is the
covariance of e and that of the means less ``S_e / K`` is that of s: analysis of variance of one random factor (Searle,
Casella and McCulloch 1992, "Variance Components", chapter 3). U and W are their leading principal components.
Missing members are drawn given the others, as :mod:`undrift.data.given_law` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.given_law import GivenLaw

__all__ = ["MemberLaw"]

Array = NDArray[np.float64]
_COMMON, _OWN = 64, 32  # modes at most
_LEAST = 1e-4  # of the mean variance: the least that a value varies on its own


@dataclass(frozen=True)
class MemberLaw:
    """A Gaussian of the given numbers of all members of one date, standardised and centred.

    Attributes:
        common: modes of what members share, orthonormal rows (k, p), p numbers a member.
        common_variances: along them, (k,).
        own: modes of the deviations of each, (l, p).
        own_variances: along them, (l,).
        floor: variance of each number beside them.
        members: K.
        variables: channels of a member; numbers of a sample are ordered (variable, member, cell).
    """

    common: NDArray[np.float32]
    common_variances: Array
    own: NDArray[np.float32]
    own_variances: Array
    floor: float
    members: int
    variables: int

    @classmethod
    def fit(cls, z: Array, members: int, variables: int) -> Self:
        """From standardised samples (n, variables x members x cells) without gaps."""
        apart = _by_member(z, members, variables)
        n, _, p = apart.shape
        mean = apart.mean(1)
        deviations = (apart - mean[:, None]).reshape(n * members, p)
        variances, own = _components(deviations, 1 / max(n * (members - 1), 1), _OWN)
        means, common = _components(mean, 1 / n, _COMMON)
        within = deviations @ common.T
        shared = np.diag(means) - within.T @ within / max(n * (members - 1) * members, 1)
        values, turn = np.linalg.eigh(shared)
        kept = values > 1e-9 * max(float(means.max(initial=0)), 1e-30)
        values, common = values[kept], turn[:, kept].T @ common
        total = float((apart**2).sum()) / (n * members)
        floor = max((total - values.sum() - variances.sum()) / p, _LEAST * total / p, 1e-12)
        own_variances = np.maximum(variances - floor, 1e-12)
        return cls(common.astype(np.float32), values, own.astype(np.float32), own_variances, floor, members, variables)

    @cached_property
    def together(self) -> GivenLaw:
        """The law of all members side by side, (members x p) numbers."""
        own = np.kron(np.eye(self.members, dtype=np.float32), self.own)
        modes = np.concatenate([np.tile(self.common, (1, self.members)), own])
        variances = np.concatenate([self.common_variances, np.tile(self.own_variances, self.members)])
        return GivenLaw(modes, variances, self.floor)

    def fill(self, z: Array, rng: np.random.Generator | None) -> Array:
        """One sample (variables x members x cells,) with its NaN drawn given the rest; their mean without generator."""
        apart = _by_member(z[None], self.members, self.variables)[0]
        filled = self.together.fill(apart.ravel(), rng).reshape(self.members, self.variables, -1)
        return filled.swapaxes(0, 1).ravel()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {
            "law_modes": self.common,
            "law_variances": self.common_variances,
            "law_own_modes": self.own,
            "law_own_variances": self.own_variances,
            "law_floor": np.array(self.floor),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], members: int) -> Self:
        """Inverse of :meth:`to_arrays`."""
        names = ("law_modes", "law_variances", "law_own_modes", "law_own_variances")
        common, values, own, own_values = (arrays[name] for name in names)
        variables = len(arrays["coarse_mean"])
        return cls(common, values, own, own_values, float(arrays["law_floor"]), members, variables)


def _by_member(z: Array, members: int, variables: int) -> Array:
    """Samples (n, variables x members x cells) as (n, members, variables x cells)."""
    return z.reshape(len(z), variables, members, -1).swapaxes(1, 2).reshape(len(z), members, -1)


def _components(x: Array, scale: float, most: int) -> tuple[Array, Array]:
    """Leading eigenvalues (k,) and orthonormal eigenvectors (k, p) of ``scale x' x``, x of (n, p)."""
    _, spread, modes = np.linalg.svd(x, full_matrices=False)
    values = spread**2 * scale
    count = int(min(most, max(1, len(x) // 2), (values > 1e-9 * max(float(values[0]), 1e-30)).sum()))
    return values[:count], modes[:count]
