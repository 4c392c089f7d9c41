"""Columns of numbers as a source holds them, before any is chosen: what every reader of tables returns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from undrift.errors import DataError, UsageError, check_number

__all__ = ["LOG_LIKELIHOODS", "LOG_POSTERIORS", "LOG_PRIORS", "WEIGHTS", "Columns", "absent", "split_marked"]

WEIGHTS = ("weight", "weights")
LOG_LIKELIHOODS = ("logL", "log_likelihood", "loglikelihood", "loglike")
LOG_PRIORS = ("log_prior", "logprior")
LOG_POSTERIORS = ("log_posterior", "logposterior", "logpost")


@dataclass(frozen=True)
class Columns:
    """Named columns with what belongs to their rows.

    Attributes:
        source: what is named in sentences.
        values: (n,) float64 by name; NaN where the source has no number.
        parameters: the columns that are taken where none are asked for.
        labels: LaTeX by name, without dollar signs, for those that have one.
        weights: (n,), None where all count alike.
        log_likelihood: (n,), None where the source has none.
        log_prior: (n,), None where the source has none.
        log_posterior: (n,) up to a constant, None where the source has none.
        chain: (n,) number of the chain, into ``origins``.
        line: (n,) where the row stands in its origin.
        origins: name of each chain's file or part.
        word: what a row is called there.
        bounds: (low, high) by name, as the source's own file says.
        periodic: names that the source's own file calls periodic.
        log_evidence: ln Z of a nested run and its standard deviation.
        nested: whether the rows are those of a nested run, of which none is burn-in.
        sequential: whether the rows of each chain are in the order in which they were drawn.
    """

    source: str
    values: Mapping[str, NDArray[np.float64]]
    parameters: tuple[str, ...]
    chain: NDArray[np.intp]
    line: NDArray[np.intp]
    origins: tuple[str, ...]
    word: str = "row"
    labels: Mapping[str, str] = field(default_factory=dict)
    weights: NDArray[np.float64] | None = None
    log_likelihood: NDArray[np.float64] | None = None
    log_prior: NDArray[np.float64] | None = None
    log_posterior: NDArray[np.float64] | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    periodic: tuple[str, ...] = ()
    log_evidence: tuple[float, float] | None = None
    nested: bool = False
    sequential: bool = False

    @classmethod
    def of_one(cls, source: str, values: Mapping[str, ArrayLike], first: int = 0, word: str = "row") -> Columns:
        """Columns whose rows are counted from ``first``, weights and log-likelihoods among them by their names."""
        known = {name: np.asarray(value, np.float64) for name, value in values.items()}
        n = len(next(iter(known.values()))) if known else 0
        origin = np.zeros(n, np.intp)
        return split_marked(cls(source, known, tuple(known), origin, np.arange(first, first + n), (source,), word))

    def place(self, row: int) -> str:
        """Where a row stands, for a sentence."""
        return f"{self.origins[self.chain[row]]}: {self.word} {self.line[row]}"

    def take(self, rows: NDArray) -> Columns:
        """Some of the rows."""

        def some(v: NDArray | None) -> NDArray | None:
            return None if v is None else v[rows]

        return replace(
            self,
            values={name: v[rows] for name, v in self.values.items()},
            chain=self.chain[rows],
            line=self.line[rows],
            weights=some(self.weights),
            log_likelihood=some(self.log_likelihood),
            log_prior=some(self.log_prior),
            log_posterior=some(self.log_posterior),
        )

    def unmarked(self, names: Iterable[str]) -> Columns:
        """Without the weights or log-likelihoods of a column that is asked for as a value."""
        asked = set(names)
        return replace(
            self,
            weights=None if asked & set(WEIGHTS) & set(self.values) else self.weights,
            log_likelihood=None if asked & set(LOG_LIKELIHOODS) & set(self.values) else self.log_likelihood,
            log_prior=None if asked & set(LOG_PRIORS) & set(self.values) else self.log_prior,
            log_posterior=None if asked & set(LOG_POSTERIORS) & set(self.values) else self.log_posterior,
        )

    def without_burn_in(self, ignore_rows: float) -> Columns:
        """Without the first rows of each chain: a share of them below 1, a number of them from 1 up, as in GetDist.

        Raises:
            UsageError: the number is negative, or neither a share nor whole.
            DataError: nothing is left of a chain, or the rows are a nested run's.
        """
        check_number(ignore_rows=ignore_rows)
        if ignore_rows < 0 or (ignore_rows >= 1 and ignore_rows != int(ignore_rows)):
            raise UsageError(
                f"ignore_rows is {ignore_rows}, expected a share of each chain below 1 or a whole number of its rows"
            )
        if ignore_rows == 0:
            return self
        if self.nested:
            raise DataError(
                f"{self.source}: is a nested run, which has no burn-in: its first rows carry the prior's volume; "
                f"drop ignore_rows ({ignore_rows})"
            )
        keep = np.zeros(len(self.chain), bool)
        for number, origin in enumerate(self.origins):
            rows = np.flatnonzero(self.chain == number)
            first = int(ignore_rows * len(rows)) if ignore_rows < 1 else int(ignore_rows)
            if first >= len(rows) > 0:
                raise DataError(
                    f"{origin}: has {len(rows)} rows and ends at {self.word} {self.line[rows[-1]]}, so that "
                    f"ignore_rows {ignore_rows} leaves none of them; type a smaller one"
                )
            keep[rows[first:]] = True
        return self.take(keep)

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(n, len(names)) values, all finite.

        Raises:
            DataError: a column is absent, or a value is no finite number.
        """
        for name in names:
            if name not in self.values:
                raise absent(self.source, name, self.values)
            wrong = np.flatnonzero(~np.isfinite(self.values[name]))
            if len(wrong):
                value = self.values[name][wrong[0]]
                got = "missing or no number" if np.isnan(value) else f"{value}"
                more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
                raise DataError(
                    f"{self.place(wrong[0])}: {name} is {got}{more}, expected a finite number; correct or drop the "
                    "row, or leave the column out by naming the others as variables"
                )
        n = len(self.chain)
        return np.stack([self.values[name] for name in names], axis=1) if names else np.empty((n, 0))

    def checked_weights(self) -> NDArray[np.float64]:
        """(n,) weights: 1 where there are none, 0 where the likelihood is.

        Raises:
            DataError: a weight is negative or not finite, a log-likelihood is NaN or +inf, or no weight is positive.
        """
        weights = np.ones(len(self.chain)) if self.weights is None else self.weights.copy()
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(wrong):
            raise DataError(
                f"{self.place(wrong[0])}: the weight is {weights[wrong[0]]}, expected a finite number of at least 0; "
                "this the column of weights?"
            )
        if self.log_likelihood is not None:
            wrong = np.flatnonzero(np.isnan(self.log_likelihood) | (self.log_likelihood == np.inf))
            if len(wrong):
                raise DataError(
                    f"{self.place(wrong[0])}: the log-likelihood is {self.log_likelihood[wrong[0]]}, expected a finite "
                    "number, or -inf where the likelihood is 0"
                )
            weights[self.log_likelihood == -np.inf] = 0.0
        if not weights.any():
            raise DataError(f"{self.source}: none of its {len(weights)} rows has a positive weight; is this the chain?")
        return weights


def split_marked(columns: Columns) -> Columns:
    """Weights, log-likelihoods, log-priors and log-posteriors taken out of the parameters by their names."""
    marks = {
        "weights": WEIGHTS, "log_likelihood": LOG_LIKELIHOODS, "log_prior": LOG_PRIORS, "log_posterior": LOG_POSTERIORS
    }  # fmt: skip
    found = {kind: next((n for n in columns.parameters if n in names), None) for kind, names in marks.items()}
    return replace(
        columns,
        parameters=tuple(name for name in columns.parameters if name not in found.values()),
        **{kind: columns.values[name] for kind, name in found.items() if name is not None},
    )


def absent(source: str, name: str, there: Iterable[str]) -> DataError:
    """The sentence about a column that is not there."""
    names = list(there)
    close = difflib.get_close_matches(name, names, n=1)
    known = f"did you mean {close[0]!r}?" if close else "there are " + ", ".join(names[:20])
    return DataError(f"{source}: has no column {name!r}; {known}")
