"""The prior of each parameter from a map of the unit cube, against scipy's laws."""

import numpy as np
from scipy.special import ndtri
from scipy.stats import expon, norm

from undrift.infer.nested_prior import prior_by_parameter, share_below


def cube(u):
    """a is N(0, 4), b exponential and falls with its number, c is N(0, 1) by the numbers of both."""
    return np.array([2 * ndtri(u[0]), -np.log(u[1]), (ndtri(u[2]) + ndtri(u[0])) / 2**0.5])


def test_the_prior_of_each_parameter(agrees):
    prior = prior_by_parameter(cube, ["a", "b", "c"], seed=1)
    assert prior.a.dims == prior.b.dims == ("level",) and prior.c.dims == ("draw",)
    found = np.stack([share_below(prior.a, np.linspace(-6, 6, 50)), share_below(prior.b, np.linspace(0.01, 9, 50))])
    exact = np.stack([norm.cdf(np.linspace(-6, 6, 50), 0, 2), expon.sf(np.linspace(0.01, 9, 50))])
    agrees(share_below, "share of the prior below", "scipy's Gaussian and exponential laws", found, exact, 5e-4, 1e-9)
    moments = [prior.c.mean(), prior.c.std()]
    agrees(prior_by_parameter, "mean and deviation of draws", "a standard normal law", moments, [0, 1], 0.05, 0.05)
