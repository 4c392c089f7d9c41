"""The log-density of the parameters at the rows of a table, where it comes with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from undrift.data.table import Table
from undrift.errors import DataError, UsageError

__all__ = ["log_density_of"]


def log_density_of(table: Table) -> tuple[NDArray[np.float64], str]:
    """The log-density of the parameters, up to a constant, in the data's units, and where it is from.

    It is the column log_posterior, or minus the second column of chains in GetDist's form; else the log-likelihood and
    the column log_prior; else the log-likelihood where all parameters have two bounds, between which the prior is then
    taken to be uniform.

    Returns:
        (n,), -inf where the density is 0, and half a sentence.

    Raises:
        UsageError: there is none, or it is one of other parameters too.
        DataError: a value is NaN or +inf.
    """
    if table.unused:
        raise UsageError(
            f"the log-density that comes with {table.source} is of {', '.join((*table.names, *table.unused))}; "
            "--estimator gp learns it of all of them: leave --variables out, or drop the columns that are no "
            f"parameters ({', '.join(table.unused)}), or type --estimator mixture for the density of some"
        )
    told = table.log_likelihood
    if table.log_posterior is not None:
        found, origin = table.log_posterior, "log-posterior"
    elif told is not None and table.log_prior is not None:
        found, origin = told + table.log_prior, "log-likelihood and log-prior"
    elif told is not None and np.isfinite(table.bounds).all():
        found, origin = told, "log-likelihood, with a prior that is uniform within the bounds"
    else:
        lack = "log-likelihoods but no prior" if told is not None else "no log-densities"
        raise UsageError(
            f"{table.source} has {lack}, of which --estimator gp learns; add a column log_posterior, or logL with a "
            "column log_prior or two bounds of each parameter between which its prior is uniform (--bounds a=0/1), or "
            "type --estimator mixture"
        )
    wrong = np.flatnonzero(np.isnan(found) | (found == np.inf))
    if len(wrong):
        raise DataError(
            f"{table.source}: the {origin.split(',')[0]} of row {wrong[0]} is {found[wrong[0]]}, expected a finite "
            "number, or -inf where the density is 0"
        )
    return found, origin
