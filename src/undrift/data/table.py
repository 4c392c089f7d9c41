"""A table of parameters: samples with weights, names, bounds and conditions, from whatever holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undrift.data.burn_in import burn_in_remarks
from undrift.data.chain_files import read_chain_path
from undrift.data.chain_objects import columns_of_object
from undrift.data.columns import Columns, absent
from undrift.data.ranges import read_ranges, spoken_bounds, typed_bounds
from undrift.errors import DataError, UsageError

__all__ = ["Table", "is_table", "open_table"]

Bounds = Mapping[str, Sequence[Any]] | str | os.PathLike


@dataclass(frozen=True)
class Table:
    """Weighted samples of D parameters, and of K conditions beside them.

    Attributes:
        values: (n, D) float64, all finite and within the bounds.
        names: of the D parameters.
        labels: their LaTeX without dollar signs, the name where there is none.
        weights: (n,) float64, at least 0 and not all 0.
        log_likelihood: (n,) float64 as the source has it (of GetDist's chains the log-posterior), -inf where the
            weight is 0 for it; None where there is none.
        log_prior: (n,) float64 log-density of the prior up to a constant, None where there is none.
        log_posterior: (n,) float64 log-density of the parameters up to a constant, None where there is none.
        bounds: (D, 2) float64, -inf and inf where open.
        periodic: (D,) bool; both bounds are finite where it holds.
        given: (n, K) float64 conditions; K = 0 where there are none.
        given_names: of the K conditions.
        source: what the table was read from.
        log_evidence: ln Z and its standard deviation where the source is a nested run, else None.
        unused: parameters of the source that are neither among the names nor given.
        chain: (n,) numbers of the chains whose rows are in the order in which they were drawn; None where no order is
            known.
        remarks: sentences about what a reader should know: a chain that seems to hold its burn-in.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    log_likelihood: NDArray[np.float64] | None
    bounds: NDArray[np.float64]
    periodic: NDArray[np.bool_]
    given: NDArray[np.float64]
    given_names: tuple[str, ...]
    source: str
    log_evidence: tuple[float, float] | None = None
    remarks: tuple[str, ...] = ()
    log_prior: NDArray[np.float64] | None = None
    log_posterior: NDArray[np.float64] | None = None
    unused: tuple[str, ...] = ()
    chain: NDArray[np.intp] | None = None

    def take(self, rows: NDArray) -> Table:
        """Some of the rows."""
        beside = ("log_likelihood", "log_prior", "log_posterior", "chain")
        some = {name: None if (v := getattr(self, name)) is None else v[rows] for name in beside}
        return replace(self, values=self.values[rows], weights=self.weights[rows], given=self.given[rows], **some)

    @property
    def effective(self) -> float:
        """Kish's effective number of samples, (sum w)^2 / sum w^2."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())


def is_table(data: object) -> bool:
    """Whether data are a table of parameters by their kind: frames, arrays of two dims, and CSV files."""
    if isinstance(data, str | Path):
        return str(data).lower().endswith(".csv")
    if isinstance(data, np.ndarray):
        return data.ndim == 2 or data.dtype.names is not None
    return hasattr(data, "columns")


def open_table(
    source: Any,
    *,
    variables: Sequence[str] | str | None = None,
    covariates: Sequence[str] | str | None = None,
    ignore_rows: float = 0.0,
    bounds: Bounds | None = None,
    periodic: Sequence[str] | str = (),
) -> Table:
    """Samples of parameters as a table.

    Columns named weight or weights and logL or log_likelihood are the rows' weights and log-likelihoods, unless they
    are asked for as variables. Rows of likelihood 0 keep their -inf and get weight 0.

    Args:
        source: a NumPy array (n, D) or one with named fields, a pandas DataFrame, samples of anesthetic, an xarray
            Dataset over one dimension or over (chain, draw), or the path of a .csv, .npy, .npz or NetCDF file (of
            ArviZ: its group posterior), or a chain root: PolyChord's, MultiNest's, UltraNest's, Cobaya's, CosmoMC's
            or GetDist's.
        variables: the columns to take, as names or as "x0,x1"; by default all that are neither derived (starred in
            .paramnames), fixed in .ranges, weights, likelihoods nor covariates.
        covariates: the columns that condition the others.
        ignore_rows: burn-in: the share of each chain below 1, or the number of its rows.
        bounds: (low, high) by name, None or inf where open, or the path of a file in the form of .ranges, or text as
            "a=0/1,b=0/N"; they replace those that a chain root has beside it. Nothing else is taken for a bound.
        periodic: names of parameters whose bounds are one place, as those of angles.

    Raises:
        DataError: the source cannot be read, a column is absent, a value is no finite number or lies beyond its bounds,
            a weight is negative: with the row.
        UsageError: the options contradict each other.
    """
    columns = _columns(source).without_burn_in(ignore_rows)
    given_names = _names(covariates, "covariates")
    names = _names(variables, "variables") or tuple(n for n in columns.parameters if n not in given_names)
    if both := set(names) & set(given_names):
        raise UsageError(f"{sorted(both)[0]!r} is among the variables and the covariates, expected in one of them")
    if not names:
        raise DataError(f"{columns.source}: leaves no column to learn; there are {', '.join(columns.values)}")
    if not len(columns.chain):
        raise DataError(f"{columns.source}: has no rows")
    columns = columns.unmarked(names + given_names)
    values, given = columns.matrix(names), columns.matrix(given_names)
    limits, cyclic, unmet = _bounds(columns, names, bounds, _names(periodic, "periodic"))
    _check_within(columns, names, values, limits)
    weights = columns.checked_weights()
    return Table(
        values=values,
        names=names,
        labels=tuple(columns.labels.get(name) or name for name in names),
        weights=weights,
        log_likelihood=columns.log_likelihood,
        bounds=limits,
        periodic=cyclic,
        given=given,
        given_names=given_names,
        source=columns.source,
        log_evidence=columns.log_evidence,
        remarks=burn_in_remarks(columns, names, weights) + unmet,
        log_prior=columns.log_prior,
        log_posterior=columns.log_posterior,
        unused=tuple(name for name in columns.parameters if name not in names + given_names),
        chain=columns.chain if columns.sequential else None,
    )


def _columns(source: Any) -> Columns:
    return read_chain_path(Path(source)) if isinstance(source, str | os.PathLike) else columns_of_object(source)


def _names(given: Sequence[str] | str | None, option: str) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else list(given or ())
    names = tuple(str(name).strip() for name in names)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{option} names {name!r} twice, expected each column once")
    return tuple(name for name in names if name)


def _bounds(
    columns: Columns, names: tuple[str, ...], asked: Bounds | None, cyclic: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """(D, 2) bounds, (D,) whether they are periodic: as asked, else as the file beside the chain says; and a remark."""
    known, turning = dict(columns.bounds), set(columns.periodic)
    unmet: tuple[str, ...] = ()
    if isinstance(asked, str) and "=" in asked and not Path(asked).exists():
        asked = typed_bounds(asked)
    if isinstance(asked, Mapping):
        known, turning = spoken_bounds(asked)
        for name in known:
            if name not in columns.values:
                raise absent(f"bounds of {columns.source}", name, columns.values)
    elif asked is not None:
        known, turning = read_ranges(Path(asked))
        unmet = _unmet(Path(asked), known, columns)
    for name in cyclic:
        if name not in names:
            raise absent(f"periodic of {columns.source}", name, names)
    turning |= set(cyclic)
    limits = np.array([known.get(name, (-np.inf, np.inf)) for name in names], np.float64)
    for name, (low, high) in zip(names, limits, strict=True):
        if name in turning and not (np.isfinite(low) and np.isfinite(high)):
            raise UsageError(
                f"{name} is periodic and its bounds are {low:g}, {high:g}; give both, as --bounds {name}=0/360 "
                f"(bounds={{{name!r}: (0, 360)}})"
            )
    return limits, np.array([name in turning for name in names], bool), unmet


def _unmet(path: Path, known: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    """A remark about names of a file of bounds that no column has; one that has no column at all is refused."""
    strange = [name for name in known if name not in columns.values]
    if known and len(strange) == len(known):
        raise absent(f"{path}, bounds of {columns.source}", strange[0], columns.values)
    there = ", ".join(list(columns.values)[:20])
    return tuple(
        f"{path}: the bounds of {name!r} are of no column of {columns.source} and not used; there are {there}"
        for name in strange
    )


def _check_within(columns: Columns, names: tuple[str, ...], values: NDArray, limits: NDArray) -> None:
    beyond = (values < limits[:, 0]) | (values > limits[:, 1])
    for row, column in np.argwhere(beyond)[:1]:
        count = int(beyond[:, column].sum())
        more = f" (and {count - 1} more rows)" if count > 1 else ""
        raise DataError(
            f"{columns.place(row)}: {names[column]} is {values[row, column]:.15g}{more}, beyond its bounds "
            f"{limits[column, 0]:.15g}, {limits[column, 1]:.15g}; correct the bounds or drop the row"
        )
