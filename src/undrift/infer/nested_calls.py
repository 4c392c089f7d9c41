"""Calls of a user's likelihood: one at a time or by a pool, counted, and forgiven where one fails."""

from __future__ import annotations

__all__ = ["LEAST", "Calls"]

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr

from undrift.errors import UndriftError, UsageError

log = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 20.0
LEAST = -1e29  # ln L below which it is zero; anesthetic drops points of less than -1e30
FEW = 10  # failures that say nothing about a rate yet


class _Point:
    """One call: the parameters, the log-likelihood (-inf where it failed) and what went wrong."""

    def __init__(self, log_likelihood: Callable[..., Any], prior_transform: Callable[..., Any]) -> None:
        self.log_likelihood, self.prior_transform = log_likelihood, prior_transform

    def __call__(self, u: np.ndarray) -> tuple[np.ndarray, float, str]:
        """Of a point (D,) of the unit cube."""
        theta = np.full(len(u), np.nan)
        try:
            theta = np.array(self.prior_transform(u.copy()), dtype=np.float64)
            value = float(self.log_likelihood(theta.copy()))
        except Exception as error:  # whatever a user's code raises costs one point
            return theta, -math.inf, f"raised {type(error).__name__}: {error}"
        if math.isnan(value) or value == math.inf:
            return theta, -math.inf, f"returned {value}"
        return theta, value if value > LEAST else -math.inf, ""


class Calls:
    """Evaluates points y of the standard normal, whose u = Phi(y) lies in the prior's unit cube.

    A call that raises, or returns NaN or +inf, has likelihood zero and a line in the log; so the evidence stays well
    defined, and a part of the prior where the likelihood cannot be had counts as excluded by the data.

    Args:
        log_likelihood: of parameters (D,), a number.
        prior_transform: of a point (D,) of the unit cube, parameters (D,).
        dimensions: D.
        pool: anything with ``map(function, list)``.
        most_failures: the share of failed calls above which the work stops.

    Raises:
        UsageError: the prior transform returns another number of parameters.
        UndriftError: more calls failed than may.
    """

    def __init__(
        self,
        log_likelihood: Callable[..., Any],
        prior_transform: Callable[..., Any],
        dimensions: int,
        *,
        pool: Any = None,
        most_failures: float = 0.1,
    ) -> None:
        self.point = _Point(log_likelihood, prior_transform)
        self.dimensions, self.most_failures = dimensions, most_failures
        self.map = map if pool is None else pool.map
        self.block = 64 if pool is None else 1024
        self.made = self.failed = 0

    def __call__(
        self,
        y: np.ndarray,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        save: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Parameters (n, D) and log-likelihoods (n,) of points (n, D); `known` are those of the first points."""
        u = cube(y)
        theta, value = np.full_like(u, np.nan), np.full(len(u), -math.inf)
        begin = 0
        if known is not None:
            begin = len(known[1])
            theta[:begin], value[:begin] = known
        self.made += begin
        saved = time.monotonic()
        while begin < len(u):
            end = min(begin + self.block, len(u))
            for row, found in zip(range(begin, end), self.map(self.point, list(u[begin:end])), strict=True):
                self._take(row, found, theta, value)
            begin = end
            if save is not None and begin < len(u) and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save(theta[:begin], value[:begin])
                saved = time.monotonic()
        return theta, value

    def _take(self, row: int, found: tuple[np.ndarray, float, str], theta: np.ndarray, value: np.ndarray) -> None:
        at, log_l, wrong = found
        if at.shape != (self.dimensions,):
            raise UsageError(
                f"prior_transform returned an array of shape {at.shape}, expected ({self.dimensions},): one value for "
                "each parameter"
            )
        theta[row], value[row] = at, log_l
        self.count(1, [(at, wrong)] if wrong else [])

    def count(self, made: int, failures: list[tuple[np.ndarray, str]]) -> None:
        """Count calls that were made, with the parameters of those that failed and what went wrong."""
        self.made += made
        for at, wrong in failures:
            self.failed += 1
            log.warning(
                "log_likelihood %s at %s: the point counts as impossible (%d of %d calls failed)",
                wrong, np.array2string(at, precision=6, separator=", ", max_line_width=10**6), self.failed, self.made,
            )  # fmt: skip
            if self.failed > max(FEW, self.most_failures * self.made):
                raise UndriftError(
                    f"{self.failed} of {self.made} calls of log_likelihood failed, the last one {wrong}; at most "
                    f"{self.most_failures:.0%} may (most_failures). Correct it, or allow more, and go on with resume"
                )


def cube(y: np.ndarray) -> np.ndarray:
    """The points of the open unit cube, Phi(y)."""
    return np.clip(ndtr(y), 1e-300, 1 - 2.0**-53)
