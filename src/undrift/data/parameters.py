"""Parameters as unbounded, whitened numbers and back, with the exact logarithm of the Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from undrift.data.atoms import check_atoms
from undrift.data.axis import KINDS, Axis, fit_axis, straightened
from undrift.data.table import Table
from undrift.errors import DataError

__all__ = ["Parameters"]

_DEPENDENT = 1e-10  # of the correlations' eigenvalues: what is smaller is rounding

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """x -> u = f(x) for each parameter -> y = L^-1 (u - mean), L the Cholesky factor of the weighted covariance of u.

    A density q of y is one of x: ln p(x) = ln q(y) + log_det with log_det = sum_i ln |du_i/dx_i| - ln det L.

    Attributes:
        axes: the map f of each of the D parameters.
        mean: (D,) weighted mean of u.
        factor: (D, D) L, lower triangular: y_i depends on x_1 to x_i alone.
        given_mean: (K,) weighted mean of what is given.
        given_scale: (K,) its weighted standard deviation.
    """

    axes: tuple[Axis, ...]
    mean: Floats
    factor: Floats
    given_mean: Floats
    given_scale: Floats

    @classmethod
    def fit(cls, table: Table) -> Self:
        """The maps for a table.

        Raises:
            DataError: a column is constant, is a linear combination of others, or has atoms; or there are not more
                samples than columns.
        """
        check_atoms(table)
        kept = table.weights > 0
        weights = table.weights[kept] / table.weights.sum()
        values = table.values[kept]
        given = table.given[kept]
        axes = tuple(
            straightened(fit_axis(column, weights, low, high, bool(turns)), column, weights, given)
            for column, (low, high), turns in zip(values.T, table.bounds, table.periodic, strict=True)
        )
        u = np.stack([axis.forward(x)[0] for axis, x in zip(axes, values.T, strict=True)], axis=1)
        mean, covariance = _moments(u, weights)
        _check_spread(table, mean, covariance, 1 / float(weights @ weights))
        given_mean, given_covariance = _moments(given, weights)
        given_scale = np.sqrt(np.diag(given_covariance))
        for name, centre, scale in zip(table.given_names, given_mean, given_scale, strict=True):
            if scale <= 1e-12 * abs(centre):
                raise DataError(f"{table.source}: the covariate {name} is {centre:.6g} in every row; leave it out")
        return cls(axes, mean, _factor(covariance), given_mean, given_scale)

    def encode(self, values: Floats) -> tuple[Floats, Floats]:
        """Whitened numbers and the logarithm of the Jacobian.

        Args:
            values: (n, D) in the data's units. A value on a bound is taken to be a little within it.

        Returns:
            (n, D) y, and (n,) log_det: ln |det dy/dx|, -inf where a value is beyond its bounds.
        """
        values = np.asarray(values, np.float64)
        mapped = [axis.forward(x) for axis, x in zip(self.axes, values.T, strict=True)]
        u = np.stack([one for one, _ in mapped], axis=1)
        log_slope = np.sum([slope for _, slope in mapped], axis=0)
        y = solve_triangular(self.factor, (u - self.mean).T, lower=True).T
        return y, log_slope - np.log(np.diag(self.factor)).sum()

    def decode(self, y: Floats) -> Floats:
        """(n, D) whitened numbers -> (n, D) values within their bounds, in the data's units."""
        u = np.asarray(y, np.float64) @ self.factor.T + self.mean
        return np.stack([axis.inverse(one) for axis, one in zip(self.axes, u.T, strict=True)], axis=1)

    def gradient(self, values: Floats, score: Floats) -> Floats:
        """The score of x from that of y: grad ln p(x) = (dy/dx)^T grad ln q(y) + grad log_det.

        Args:
            values: (n, D) within their bounds.
            score: (n, D) gradient of ln q by y.

        Returns:
            (n, D), per unit of each parameter.
        """
        slopes = [axis.slopes(x) for axis, x in zip(self.axes, np.asarray(values, np.float64).T, strict=True)]
        by_u = solve_triangular(self.factor, np.asarray(score, np.float64).T, lower=True, trans=1).T
        slope, bend = (np.stack(columns, axis=1) for columns in zip(*slopes, strict=True))
        return slope * by_u + bend

    def encode_given(self, given: Floats) -> Floats:
        """(n, K) conditions in units of their standard deviation."""
        return (np.asarray(given, np.float64) - self.given_mean) / self.given_scale

    def to_arrays(self) -> dict[str, NDArray]:
        """All that ``from_arrays`` needs."""
        return {
            "axis_kind": np.array([KINDS.index(axis.kind) for axis in self.axes]),
            "axis_bounds": np.array([[axis.low, axis.high] for axis in self.axes]),
            "axis_cut": np.array([np.nan if axis.cut is None else axis.cut for axis in self.axes]),
            "axis_scale": np.array([axis.scale for axis in self.axes]),
            "axis_inside": np.array([axis.inside for axis in self.axes]),
            "axis_flat": np.array([axis.flat for axis in self.axes]),
            "mean": self.mean,
            "factor": self.factor,
            "given_mean": self.given_mean,
            "given_scale": self.given_scale,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Self:
        """The maps that ``to_arrays`` wrote."""
        columns = zip(
            arrays["axis_kind"],
            arrays["axis_bounds"],
            arrays["axis_cut"],
            arrays["axis_scale"],
            arrays["axis_inside"],
            arrays.get("axis_flat", np.zeros(len(arrays["axis_kind"]))),  # of models from before there was one
            strict=True,
        )
        axes = tuple(
            Axis(
                KINDS[int(kind)],
                float(low),
                float(high),
                None if np.isnan(cut) else float(cut),
                float(scale),
                (float(inside[0]), float(inside[1])),
                float(flat),
            )
            for kind, (low, high), cut, scale, inside, flat in columns
        )
        mean, factor = np.asarray(arrays["mean"], np.float64), np.asarray(arrays["factor"], np.float64)
        return cls(axes, mean, factor, np.asarray(arrays["given_mean"]), np.asarray(arrays["given_scale"]))


def _moments(u: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted mean and covariance, weights summing to 1."""
    mean = weights @ u
    return mean, (weights[:, None] * (u - mean)).T @ (u - mean)


def _factor(covariance: Floats) -> Floats:
    return np.asarray(np.linalg.cholesky(covariance), np.float64)


def _check_spread(table: Table, mean: Floats, covariance: Floats, effective: float) -> None:
    spread = np.sqrt(np.diag(covariance))
    for name, centre, scale in zip(table.names, mean, spread, strict=True):
        if not scale > 1e-12 * abs(centre):
            raise DataError(
                f"{table.source}: {name} is the same in every row of positive weight; leave it out by naming the "
                "others as variables"
            )
    if effective <= len(spread) + 1:
        raise DataError(
            f"{table.source}: {len(table.weights)} rows of effective number {effective:.1f} for {len(spread)} columns, "
            f"expected more than {len(spread) + 1}"
        )
    values, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
    if values[0] < _DEPENDENT:
        names = [table.names[i] for i in np.argsort(-np.abs(vectors[:, 0])) if abs(vectors[i, 0]) > 1e-3]
        raise DataError(
            f"{table.source}: {', '.join(names)} are linear combinations of each other; leave {names[0]} out by naming "
            "the others as variables"
        )
