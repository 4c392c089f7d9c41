"""The marginal posterior of a chain beside its prior: Gaussians, whose divergence and dimensionality are known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri
from scipy.stats import norm

from undrift.errors import DataError, UsageError
from undrift.infer.nested_prior import prior_by_parameter
from undrift.model.marginals import marginal_kl, marginals_of_nested

N = 4000


def chain(n=N, seed=0):
    """a is N(1, 1/4) and b given a is N(a, 1/4), drawn with twice the variances and weighted; c is uniform on [0, 2]."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(1, 0.5**0.5, n), rng.normal(0, 0.5**0.5, n)
    weight = np.exp(norm.logpdf(a, 1, 0.5) + norm.logpdf(b, 0, 0.5) + 0.5 * (2 * (a - 1) ** 2 + 2 * b**2))
    return pd.DataFrame({"a": a, "b": a + b, "c": rng.uniform(0, 2, n), "weight": weight})


def test_a_marginal_in_a_uniform_prior():
    """b is N(1, 1/2) in U(-9, 11); c has learned nothing."""
    found = marginal_kl(chain(), "b,c", bounds={"b": (-9, 11), "c": (0, 2)})
    exact = np.log(20) - 0.5 * np.log(2 * np.pi * np.e * 0.5)
    assert found.divergence == pytest.approx(exact, abs=3 * found.divergence_error)
    assert found.dimensionality == pytest.approx(1, abs=3 * found.dimensionality_error)
    assert found.divergence_error < 0.03 and found.dimensionality_error < 0.12


@pytest.mark.parametrize("learned", [False, True])
def test_a_marginal_in_a_gaussian_prior(learned):
    """b is N(1, 1/2) in N(0, 4), told as a log-density or by samples."""
    samples = pd.DataFrame({"b": np.random.default_rng(1).normal(0, 2, 3000)})
    found = marginal_kl(chain(), "b", prior=samples if learned else lambda x: norm.logpdf(x, 0, 2))
    exact = 0.5 * (0.5 / 4 + 1 / 4 - 1 - np.log(0.5 / 4))
    variance = 0.5 * (1 - 0.5 / 4) ** 2 + 0.5 / 16
    assert found.divergence == pytest.approx(exact, abs=3 * found.divergence_error)
    assert found.dimensionality == pytest.approx(2 * variance, abs=3 * found.dimensionality_error)
    assert found.divergence_error < (0.06 if learned else 0.03)


def test_a_density_that_learns_its_rows_by_heart_has_a_large_error():
    few = pd.DataFrame(np.random.default_rng(2).normal(size=(60, 8)), columns=list("abcdefgh"))
    found = marginal_kl(few, prior=lambda x: norm.logpdf(x).sum(1), estimator="kde")
    assert abs(found.divergence) < 3 * found.divergence_error and found.divergence_error > 0.3


def test_what_has_no_prior_is_refused():
    with pytest.raises(UsageError, match="b has no two bounds"):
        marginal_kl(chain(), "b")
    with pytest.raises(UsageError, match="estimator is 'spline', expected one of auto, flow-matching"):
        marginal_kl(chain(), "b", estimator="spline")
    with pytest.raises(DataError, match="a log ratio that is not finite"):
        marginal_kl(chain(), "b", prior=lambda x: np.where(x[:, 0] > 0, 0.0, -np.inf))


def cube(u):
    """a is N(0, 4), b exponential and falls with its number, c is N(0, 1) by the numbers of both."""
    return np.array([2 * ndtri(u[0]), -np.log(u[1]), (ndtri(u[2]) + ndtri(u[0])) / 2**0.5])


def test_parameters_of_a_nested_run_beside_their_priors():
    """a is N(0.3, 0.04) in N(0, 4), b has learned nothing, c is N(0, 1/4) in N(0, 1) of which draws are known."""
    rng = np.random.default_rng(4)
    values = {"a": rng.normal(0.3, 0.2, N), "b": rng.exponential(size=N), "c": rng.normal(0, 0.5, N)}
    posterior = xr.Dataset({name: ("sample", v) for name, v in values.items()})
    posterior["weights"] = ("sample", rng.uniform(0.5, 1.5, N))
    found = marginals_of_nested(posterior, prior_by_parameter(cube, ["a", "b", "c"]))
    ratio = np.array([0.1, 1.0, 0.5])
    exact = 0.5 * (ratio**2 - 1 - 2 * np.log(ratio)) + [0.5 * 0.15**2, 0, 0]
    for one, value in zip(found.values(), exact):
        assert one.divergence == pytest.approx(value, abs=3 * one.divergence_error + 0.002)
        assert one.divergence_error < 0.04
    assert found["a"].dimensionality == pytest.approx(1, abs=0.12) and found["b"].dimensionality < 0.02
    named = posterior.rename(a="weight"), prior_by_parameter(cube, ["weight", "b", "c"])[["weight"]]
    assert marginals_of_nested(*named)["weight"] == found["a"]
    far = posterior.assign(a=posterior.a + 9.8)  # 10, half a deviation below the mean, is the last quantile of a
    said = marginals_of_nested(far, prior_by_parameter(cube, ["a", "b", "c"])[["a"]])["a"]
    assert said.endswith("of the posterior lie beyond the quantiles of its prior")
    assert float(said.split()[0]) == pytest.approx(69.1, abs=2.5)
    fixed = posterior.assign(a=("sample", np.full(N, 9.0)))
    assert isinstance(marginals_of_nested(fixed, prior_by_parameter(cube, ["a", "b", "c"])[["a"]])["a"], str)
