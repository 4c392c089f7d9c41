"""What a chain tells of some of its parameters: marginal Kullback-Leibler divergence and Bayesian dimensionality.

The marginal posterior has no density of its own until one is fitted to the chain's columns (Bevins et al. 2022,
arXiv:2207.11457). Here the density that is taken at a row was fitted without that row.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from undrift.data.parameters import Parameters
from undrift.data.table import Table, open_table
from undrift.distributions.estimators import ESTIMATORS, Fitting, chosen, fit_density
from undrift.errors import DataError, UsageError, check_number, check_whole
from undrift.infer.nested_prior import share_below
from undrift.model.density_training import split_of
from undrift.verify.information import Information, information

__all__ = ["marginal_kl", "marginals_of_nested"]

_ESTIMATORS = ("auto", *(name for name in ESTIMATORS if name != "gp"))  # that learns the log-density of all parameters
_ROWS, _BEYOND = 4000, 0.001  # of a nested run, and the share of them beyond all quantiles of a prior
_VALUE = "value"  # a parameter's own name may be that of weights or likelihoods
_STOP = 0.1  # share of rows that tell how smooth a density is

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]


def marginal_kl(
    chain: Any,
    variables: Sequence[str] | str | None = None,
    *,
    prior: Any = None,
    bounds: Any = None,
    estimator: str = "mixture",
    folds: int = 5,
    budget: float = 60.0,
    seed: int = 0,
) -> Information:
    """Kullback-Leibler divergence and Bayesian dimensionality of the marginal posterior of some parameters.

    Both are means over the chain of r = ln p - ln pi (:func:`undrift.verify.information.information`), p fitted to the
    other folds. A fitted density is likelier than the true one at the rows it was fitted to and less likely at others,
    by about as much: half of what lies between the two is a second part of the error, added in squares, and where the
    prior is fitted too, the jackknife over its folds a third.

    Args:
        chain: what :func:`undrift.data.table.open_table` takes, with weights and bounds.
        variables: the parameters, as names or "x0,x1"; all by default.
        prior: their log-density, a function (n, D) -> (n,) in nats; or a chain of prior samples with the same columns,
            to which a density is fitted; by default uniform within the bounds.
        bounds: of the parameters, as ``open_table`` takes them.
        estimator: of the density.
        folds: into which the rows are split; rows that are the same stay together.
        budget: seconds for all fits of a kind, of estimators that train.
        seed: of the folds and the fits.

    Raises:
        UsageError: the prior is left out and a parameter lacks a bound, or there is no such estimator.
        DataError: a row lies where the prior is zero.
    """
    check_whole(2, folds=folds)
    check_number(False, budget=budget)
    if estimator not in _ESTIMATORS:
        raise UsageError(f"estimator is {estimator!r}, expected one of {', '.join(_ESTIMATORS)}")
    table = open_table(chain, variables=variables, bounds=bounds)
    different = len(np.unique(table.values[table.weights > 0], axis=0))
    if different < folds:
        raise DataError(f"{table.source} has {different} different rows, expected at least {folds}, one a fold")
    posteriors, fold = _fitted(table, estimator, folds, budget, seed)
    at = np.stack([density(table.values) for density in posteriors])
    priors = _priors(prior, table, bounds, estimator, folds, budget, seed)
    log_prior = np.stack([np.asarray(density(table.values), np.float64).reshape(-1) for density in priors])
    rows = np.arange(len(fold))
    ratio = at - log_prior.mean(0)
    unseen = information(ratio[fold, rows], table.weights)
    seen = [information(one[fold != k], table.weights[fold != k]) for k, one in enumerate(ratio)]
    parts = [unseen.divergence_error, 0.5 * float(np.mean([one.divergence for one in seen]) - unseen.divergence)]
    others = [
        unseen.dimensionality_error,
        0.5 * float(np.mean([one.dimensionality for one in seen]) - unseen.dimensionality),
    ]
    if len(log_prior) > 1:
        each = [information(at[fold, rows] - one, table.weights) for one in log_prior]
        parts.append(_jackknife([one.divergence for one in each]))
        others.append(_jackknife([one.dimensionality for one in each]))
    return Information(unseen.divergence, math.hypot(*parts), unseen.dimensionality, math.hypot(*others))


def marginals_of_nested(posterior: xr.Dataset, prior: xr.Dataset) -> dict[str, Information | str]:
    """Divergence of each parameter of a nested run from its prior, or a sentence where there is none.

    A divergence is the same in the share of the prior below a parameter, in which the prior is uniform. About a second
    a parameter: of the first 4000 final draws, which are independent, by mixtures.

    Args:
        posterior: `NestedResult.to_dataset`.
        prior: of :func:`undrift.infer.nested_prior.prior_by_parameter`.
    """
    found: dict[str, Information | str] = {}
    weights = posterior["weights"].values[:_ROWS]
    for name in (str(name) for name in prior.data_vars):
        values, law = posterior[name].values[:_ROWS], prior[name]
        try:
            if "level" in law.dims:
                outside = (values < float(law.min())) | (values > float(law.max()))
                if (beyond := float(weights[outside].sum() / weights.sum())) > _BEYOND:
                    raise DataError(f"{100 * beyond:.2g} % of the posterior lie beyond the quantiles of its prior")
                table = pd.DataFrame({_VALUE: share_below(law, values), "weight": weights})
                found[name] = marginal_kl(table, _VALUE, bounds={_VALUE: (0.0, 1.0)})
            else:
                table = pd.DataFrame({_VALUE: values, "weight": weights})
                found[name] = marginal_kl(table, _VALUE, prior=pd.DataFrame({_VALUE: law.values}))
        except DataError as error:
            found[name] = str(error)
    return found


def _jackknife(values: list[float]) -> float:
    return float(np.std(values) * np.sqrt(len(values) - 1))


def _fitted(
    table: Table, estimator: str, folds: int, budget: float, seed: int
) -> tuple[list[LogDensity], NDArray[np.intp]]:
    """Densities of the rows without each fold, and the fold of each row, (n,)."""
    fold = np.minimum((split_of(table, np.random.default_rng([seed, 7])) * folds).astype(np.intp), folds - 1)
    return [_log_density(table.take(fold != k), estimator, budget / folds, seed) for k in range(folds)], fold


def _log_density(table: Table, estimator: str, budget: float, seed: int) -> LogDensity:
    parameters = Parameters.fit(table)
    y, _ = parameters.encode(table.values)
    choice = chosen(estimator, table.effective, len(table.names), 0, budget)
    stop = split_of(table, np.random.default_rng([seed, 8])) < _STOP
    fitting = Fitting(budget=budget, seed=seed)
    _, density, _ = fit_density(choice, y, table.weights, None, stop, fitting)

    def log_density(values: Array) -> Array:
        with np.errstate(all="ignore"):
            z, jacobian = parameters.encode(values)
        found, inside = np.full(len(values), -np.inf), np.isfinite(z).all(1) & np.isfinite(jacobian)
        found[inside] = density.log_prob(z[inside])[0] + jacobian[inside]
        return found

    return log_density


def _priors(
    prior: Any, table: Table, bounds: Any, estimator: str, folds: int, budget: float, seed: int
) -> list[LogDensity]:
    """The log-density of the prior; several where it is fitted to samples, each without a fold of them."""
    if isinstance(prior, Callable):
        return [prior]
    if prior is not None:
        return _fitted(open_table(prior, variables=table.names, bounds=bounds), estimator, folds, budget, seed)[0]
    width = table.bounds[:, 1] - table.bounds[:, 0]
    for name, size in zip(table.names, width):
        if not np.isfinite(size):
            raise UsageError(
                f"{name} has no two bounds, between which the prior would be uniform; give bounds, as "
                f"bounds={{{name!r}: (0, 1)}}, or the prior, as a log-density or as samples"
            )
    return [lambda values: np.full(len(values), -np.log(width).sum())]
