"""How good a density of parameters is on rows that it has not seen: likelihood, two-sample test, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undrift.data.table import Table, open_table
from undrift.errors import DataError
from undrift.model.density_model import DensityModel
from undrift.model.density_training import held_and_stop, table_of
from undrift.verify.c2st import TwoSample, c2st
from undrift.verify.calibration import posterior_ranks, tarp_ranks
from undrift.verify.likelihood import Likelihood

__all__ = ["DensityScores", "score_density", "thinned", "unseen_rows"]

_MOST_TOLD_APART = 1000  # rows of each side that a classifier is trained with
_MOST_SIMULATIONS = 400  # rows that draws are made for, of a density that is given something
_DRAWS = 99  # for each of them: ranks are 0 to 99
_FEWEST = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DensityScores:
    """What was found on rows that training has not seen.

    Attributes:
        held: these rows.
        log_likelihood: their mean log-density.
        draws: (m, D) of the density, given what some of the rows were given.
        rows: (n, D) held-out rows of equal weight.
        two_sample: how well a classifier tells the draws from these rows; None where they are fewer than 50.
        ranks: (n, D) of held-out rows among `number` draws given what was given with them, or None.
        distance_ranks: (n,) TARP's, or None.
        number: of draws for each rank.
    """

    held: Table
    log_likelihood: Likelihood
    draws: Floats
    rows: Floats
    two_sample: TwoSample | None
    ranks: NDArray[np.intp] | None = None
    distance_ranks: NDArray[np.intp] | None = None
    number: int = _DRAWS


def unseen_rows(model: DensityModel, truth: Sequence[str] = ()) -> Table:
    """The rows of a table that is named, else those of the training's that were held out.

    Raises:
        DataError: none was held out, or the table of the training cannot be opened or has other rows now.
    """
    if truth:
        given = model.facts["given_names"] or None
        return open_table(truth[0], variables=model.names, covariates=given)
    if not model.config.data.paths:
        raise DataError("the density was fitted to a table in memory, of which no rows are kept; type --truth TABLE")
    table = table_of(model.config)
    held, _ = held_and_stop(model.config, table)
    if len(held) != model.facts["rows"] or int(held.sum()) != model.facts["held out"]:
        raise DataError(
            f"{table.source} has {len(held)} rows now, and {model.facts['rows']} when it was fitted: it is not known "
            "which were held out; type --truth TABLE"
        )
    if not (held & (table.weights > 0)).any():
        raise DataError("no row was held out; type --truth TABLE, or train with --holdout 10%")
    return table.take(held)


def score_density(model: DensityModel, held: Table, *, draws: int = _DRAWS, seed: int = 0) -> DensityScores:
    """Likelihood of held-out rows, and what tells them from draws.

    Rows are thinned by weight, each kept with probability w / max w and none twice: copies would be recognised. Where
    something is given, a classifier is shown half of the rows beside draws for the other half: shown a row and a draw
    for the same given values, it would learn from the one that the other is of the other kind.

    Args:
        model: the density.
        held: rows that it has not seen.
        draws: for each row, of a density that is given something.
        seed: of the draws and the thinning.
    """
    found = model.likelihood_of(held)
    told = bool(model.facts["given_names"])
    rows = thinned(held, 2 * _MOST_TOLD_APART if told else _MOST_TOLD_APART, seed)
    if not told:
        drawn = _matrix(model, realizations=len(rows.values), seed=seed)
        return DensityScores(held, found, drawn, rows.values, _told_apart(rows.values, drawn))
    held_rows, half = rows.values, len(rows.values) // 2
    drawn = _matrix(model, rows.given[half : 2 * half], realizations=1, seed=seed)[:, 0]
    pair = np.hstack([rows.values, rows.given])[:half], np.hstack([drawn, rows.given[half : 2 * half]])
    rows = rows.take(np.arange(len(rows.values)) < _MOST_SIMULATIONS)
    truth = rows.values
    many = _matrix(model, rows.given, realizations=draws, seed=seed)
    return DensityScores(
        held, found, drawn, held_rows, _told_apart(*pair),
        posterior_ranks(truth, many, seed), tarp_ranks(truth, many, seed=seed), draws,
    )  # fmt: skip


def thinned(table: Table, most: int, seed: int) -> Table:
    """Rows of equal weight: each kept with probability w / max w, copies joined, at most so many."""
    rows = np.hstack([table.values, table.given])
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    weights = np.bincount(which.reshape(-1), table.weights)
    rng = np.random.default_rng([seed, 9])
    kept = first[rng.random(len(weights)) < weights / weights.max()]
    at = np.zeros(len(rows), bool)
    at[rng.permutation(kept)[:most]] = True
    return table.take(at)


def _matrix(model: DensityModel, given: Floats | None = None, *, realizations: int, seed: int) -> Floats:
    """Draws (n, D), or (n, L, D) of rows of what is given."""
    if given is None:
        drawn = model.sample(realizations=realizations, seed=seed)
    else:
        import pandas as pd

        table = pd.DataFrame(given, columns=model.facts["given_names"])
        drawn = model.sample(table, realizations=realizations, seed=seed)
    return np.stack([drawn[name].values for name in model.names], axis=-1)


def _told_apart(truth: Floats, drawn: Floats) -> TwoSample | None:
    return c2st(truth, drawn) if len(truth) >= _FEWEST else None
