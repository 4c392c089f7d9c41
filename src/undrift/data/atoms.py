"""Values that are repeated by more than chance: where a law has atoms it has no density in nats.

Counts and packed values lie on a ladder of even steps, exact zeros in one place. A ladder can be dequantized: each
value is drawn uniformly within its step, and a density p of what comes out has, on average over the step of a rung k,
ln p <= ln P(k) - ln step with P(k) the mass that p has there (Theis et al. 2016, arXiv:1511.01844, section 3.1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from undrift.data.table import Table
from undrift.errors import DataError

__all__ = ["check_atoms", "dequantized", "ladder", "steps"]

_REPEATED = 0.2  # share of rows that repeat a value on even steps
_ATOM = 0.05  # share of rows that have one value, or that are there twice
_ON_BOUND = 0.01  # of the weight that is exactly on a bound
_FEWEST = 20  # rows that tell anything


def steps(table: Table) -> NDArray[np.float64]:
    """(D,) the step of each column whose values lie on even steps and repeat, 0 for the others.

    The rows of a chain that stays where it is repeat too, but not on even steps.
    """
    return np.array([ladder(column) for column in table.values[table.weights > 0].T])


def check_atoms(table: Table) -> None:
    """Refuse a table whose law has no density.

    Raises:
        DataError: a column lies on even steps, or has much of its weight in one place.
    """
    rows = _moves(table)
    for name, x, bounds, turns in zip(table.names, table.values.T, table.bounds, table.periodic, strict=True):
        for bound in () if turns else bounds[np.isfinite(bounds)]:
            share = table.weights[x == bound].sum() / table.weights.sum()
            if share > _ON_BOUND and not ladder(x):
                raise DataError(
                    f"{table.source}: {100 * share:.1f} % of the weight of {name} is exactly at its bound {bound:g}, "
                    "where a density has no value; drop those rows, or leave the column out by naming the others as "
                    "variables"
                )
    for name, x, step in zip(table.names, rows.T, steps(table), strict=True):
        if step:
            raise DataError(
                f"{table.source}: the values of {name} lie on even steps of {step:g}, as counts or packed data do, and "
                "such a law has no density; type --dequantize to spread each over its step"
            )
        known, counts = np.unique(x, return_counts=True)
        share = counts.max(initial=0) / max(len(x), 1)
        if share > _ATOM and len(x) >= _FEWEST and len(known) > 1:
            place = f"{known[counts.argmax()]:g} in {100 * share:.1f} % of the rows"
            raise DataError(
                f"{table.source}: {name} is exactly {place}, where a density has no value; drop those rows, "
                "or leave the column out by naming the others as variables"
            )


def dequantized(table: Table, seed: int = 0) -> Table:
    """The table with each value on a ladder drawn uniformly within half a step around it and within its bounds.

    The densities that are learned from it are those of the spread values; a remark says so.
    """
    size = steps(table)
    low = np.maximum(table.values - size / 2, table.bounds[:, 0])
    high = np.minimum(table.values + size / 2, table.bounds[:, 1])
    uniforms = np.random.default_rng(seed).random(table.values.shape)
    values = np.where(size > 0, low + (high - low) * uniforms, table.values)
    said = tuple(
        f"{name}: each value is spread over its step of {step:g}; densities are those of the spread values"
        for name, step in zip(table.names, size, strict=True)
        if step
    )
    return replace(table, values=values, remarks=table.remarks + said)


def _moves(table: Table) -> NDArray[np.float64]:
    """The rows; of a chain that stays where it is, so that many of them are there twice, each but once."""
    rows = table.values[table.weights > 0]
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    stays = counts[counts > 1].sum() - counts.max()  # the most frequent row may be an atom
    return distinct if stays > _ATOM * len(rows) else rows


def ladder(x: NDArray[np.float64]) -> float:
    """The even step on which values repeat, else 0."""
    known = np.unique(x)
    if len(x) < _FEWEST or len(known) < 2 or 1 - len(known) / len(x) < _REPEATED:
        return 0.0
    gaps = np.diff(known)
    gaps = gaps[gaps > 1e-9 * (known[-1] - known[0])]  # the same value but for rounding
    step = gaps.min()
    return float(step) if np.abs(gaps / step - np.round(gaps / step)).max() < 0.01 else 0.0
