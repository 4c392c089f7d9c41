"""The linear predictor of a state after a lead time tau, as a Gaussian knows it from the states that are given.

A standardised residual r (C channels x cells) is a few maps and what they leave of each cell, and both go on in time:

    r(t + tau) = E' A(tau) a + rho(tau) e + error,    a = E r(t),    e = r(t) - E' a,

with the empirical orthogonal functions E. At whole steps A and rho are regressions, of the leading amplitudes on each
other and of the others on themselves. Between two steps k <= tau < l they go on as the powers of the one-step matrix G
do, and meet the regressions at both ends,

    A(tau) = G^(tau - k) A(k) + (tau - k) / (l - k) (A(l) - G^(l - k) A(k)),

which is exp(L tau) for a Markov process: a linear inverse model (Penland and Sardeshmukh 1995,
doi:10.1175/1520-0442(1995)008<1999:TOGOTS>2.0.CO;2). The error has the variance that such a mean leaves of r,
times what out-of-fold errors say of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.leads import Clock

__all__ = ["LeadLaw", "LeadLaws", "lead_features"]

Array = NDArray[np.floating]
_LEAST_STD = 0.02
_USUAL = 4
_KEPT = 128  # leads whose coefficients are kept


@dataclass(frozen=True)
class At:
    """What a law says of one lead.

    Attributes:
        gain: of the amplitudes from the given ones, A, (K, P K).
        ahead: of what is left from what is left of the given states, rho, (C, P).
        std: of the error, (C, cells).
    """

    gain: Array
    ahead: Array
    std: Array


@dataclass
class LeadLaw:
    """The Gaussian of a state given P states up to the initial one, after any lead.

    Attributes:
        modes: orthonormal maps E, (K, C cells).
        knots: leads in steps that have a regression, ascending from 0, (L,).
        gains: A at the knots, (L, K, P K).
        covariance: of the given amplitudes, oldest first, (P K, P K).
        generator: G, (K, K).
        own: variance of what the maps leave of each cell, (C, cells), 0 where there never is a value.
        ahead: rho at the knots, (L, C, P).
        correlation: in time of what the maps leave of the given states, (C, P, P).
        decay: its correlation over one step, (C,).
        inflation: of the error's variance at the knots, (L, C).
    """

    modes: Array
    knots: NDArray[np.intp]
    gains: Array
    covariance: Array
    generator: Array
    own: Array
    ahead: Array
    correlation: Array
    decay: Array
    inflation: Array
    _at: dict[float, At] = field(default_factory=dict, repr=False, init=False)

    def at(self, steps: float) -> At:
        """The coefficients of a lead in steps, above 0."""
        found = self._at.get(steps)
        if found is None:
            if len(self._at) >= _KEPT:
                self._at.clear()
            found = self._at[steps] = self._coefficients(steps)
        return found

    def given(self, r: Array, there: NDArray[np.bool_], steps: float) -> tuple[Array, Array]:
        """Mean (n, C, cells) and standard deviation (C, cells) of states after a lead.

        Args:
            r: the given states (n, P, C, cells), oldest first, 0 where missing.
            there: where they are known, same shape.
            steps: the lead.
        """
        law, (n, past) = self.at(steps), r.shape[:2]
        a = r.reshape(n * past, self.own.size) @ self.modes.T
        e = np.where(there, r - (a @ self.modes).reshape(r.shape), 0.0)
        mean = ((a.reshape(n, law.gain.shape[1]) @ law.gain.T) @ self.modes).reshape(n, *self.own.shape)
        return mean + np.einsum("cp,npcx->ncx", law.ahead, e), law.std

    def _coefficients(self, steps: float) -> At:
        k = int(np.clip(np.searchsorted(self.knots, steps, side="right") - 1, 0, len(self.knots) - 2))
        since, gap = steps - self.knots[k], self.knots[k + 1] - self.knots[k]
        share = since / gap
        gain = _power(self.generator, since) @ self.gains[k]
        gain = gain + share * (self.gains[k + 1] - _power(self.generator, gap) @ self.gains[k])
        decay = self.decay[:, None]
        ahead = decay**since * self.ahead[k] + share * (self.ahead[k + 1] - decay**gap * self.ahead[k])
        count = len(self.modes)
        left = self.covariance[-count:, -count:] - gain @ self.covariance @ gain.T if count else np.zeros((0, 0))
        variance = ((left @ self.modes) * self.modes).sum(0).reshape(self.own.shape)
        beside = 1 - np.einsum("cp,cpq,cq->c", ahead, self.correlation, ahead)
        variance = np.maximum(variance, 0) + self.own * np.maximum(beside, 0)[:, None]
        inflation = (1 - share) * self.inflation[k] + share * self.inflation[k + 1]
        least = _LEAST_STD**2 * min(1.0, steps)
        return At(gain, ahead, np.sqrt(np.maximum(variance * inflation[:, None], least)))

    def part(self, window: Sequence[slice], space: Sequence[int]) -> "LeadLaw":
        """The law on a part of space (itself for the whole of it), which only one without maps can be asked for."""
        if all(s == slice(None) for s in window):
            return self
        own = self.own.reshape(-1, *space)[(slice(None), *window)]
        own = own.reshape(len(own), -1)
        return LeadLaw(np.zeros((0, own.size)), self.knots, np.zeros((len(self.knots), 0, 0)), np.zeros((0, 0)),
                       np.zeros((0, 0)), own, self.ahead, self.correlation, self.decay, self.inflation)  # fmt: skip


_FIELDS = ("modes", "knots", "gains", "covariance", "generator", "own", "ahead", "correlation", "decay", "inflation")


class LeadLaws:
    """The law of states after a lead: one without each fold of the record, and that of all.

    Args:
        laws: the last is that of all.
        clock: how leads are counted.
        space: cells along each dim.
    """

    def __init__(self, laws: Sequence[LeadLaw], clock: Clock, space: Sequence[int]) -> None:
        self.laws, self.clock, self.space = list(laws), clock, tuple(space)

    @property
    def past(self) -> int:
        """States that are given."""
        return self.laws[-1].ahead.shape[-1]

    @property
    def longest(self) -> int:
        """The longest lead, in steps."""
        return int(self.laws[-1].knots[-1])

    def described(self) -> dict[str, object]:
        """How far they reach and what they are made of, in words and numbers."""
        maps = len(self.laws[-1].modes)
        return {"longest": self.clock.text(self.longest), "steps": self.longest, "given": self.past, "maps": maps}

    @property
    def usual(self) -> Array:
        """Leads that are shown unless others are asked, in whole steps."""
        return np.unique(np.round(np.linspace(0, self.longest, _USUAL + 1)[1:]))

    def given(
        self, r: Array, there: NDArray[np.bool_], lags: Array, fold: NDArray[np.intp] | None, window: Sequence[slice]
    ) -> tuple[Array, Array]:
        """Mean and standard deviation (n, C, *window) of states after leads.

        Args:
            r: standardised residuals of the given states, (n, P, C, *window), oldest first, 0 where missing.
            there: where they are known.
            lags: in steps, (n,).
            fold: of each, whose law was fitted without it; None for that of all.
            window: part of space.
        """
        mean, std = np.empty((2, len(r), *r.shape[2:]))
        for i in range(len(r)):
            law = self.laws[-1 if fold is None else fold[i]].part(window, self.space)
            flat = (1, *r.shape[1:3], -1)
            found = law.given(r[i].reshape(flat).astype(np.float64), there[i].reshape(flat), float(lags[i]))
            mean[i], std[i] = (v.reshape(r.shape[2:]) for v in found)
        return mean, std

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold the law of all."""
        out = {f"lead_{name}": getattr(self.laws[-1], name) for name in _FIELDS}
        return out | {"lead_modes": out["lead_modes"].astype(np.float32), "lead_clock": self.clock.to_array()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], space: Sequence[int]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        law = LeadLaw(*(arrays[f"lead_{name}"] for name in _FIELDS))
        law.modes = law.modes.astype(np.float64)
        return cls([law], Clock.from_array(arrays["lead_clock"]), space)


def lead_features(lags: Array, longest: int) -> np.ndarray:
    """What a network is told of leads in steps, (n, 2): the lead and its logarithm, each within [-1, 1].

    Below one step the logarithm stays: training has no shorter leads.
    """
    log = np.log(np.maximum(lags, 1.0)) / np.log(max(longest, 2))
    return (2 * np.stack([lags / longest, log], 1) - 1).astype(np.float32)


def _power(matrix: Array, exponent: float) -> Array:
    """A real matrix to a real power of 0 or more, its eigenvalues within the unit circle."""
    if exponent == 0 or not len(matrix):
        return np.eye(len(matrix))
    values, vectors = np.linalg.eig(matrix)
    if np.linalg.cond(vectors) > 1e8:  # nearly defective: on the straight line
        return np.eye(len(matrix)) * max(1 - exponent, 0) + min(exponent, 1) * matrix
    values = values.astype(complex)
    values = values / np.maximum(np.abs(values), 1)
    return ((vectors * values**exponent) @ np.linalg.inv(vectors)).real
