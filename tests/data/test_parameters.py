"""Maps of parameters to the line: they go back, their Jacobians are those of differences, their densities integrate to 1."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from undrift.data.axis import Axis, emptiest, fit_axis
from undrift.data.parameters import Parameters
from undrift.data.table import Table, open_table
from undrift.errors import DataError

INF = np.inf
CASES = {
    "free": (lambda r, n: r.normal(3, 2, n), (-INF, INF), False, "free"),
    "between": (lambda r, n: 2 + 3 * r.beta(0.7, 4, n), (2, 5), False, "between"),
    "log": (lambda r, n: 1 + r.lognormal(0, 2, n), (1, INF), False, "log"),
    "log of an upper bound": (lambda r, n: 1 - r.lognormal(0, 2, n), (-INF, 1), False, "log"),
    "decay": (lambda r, n: 4 + r.exponential(3, n), (4, INF), False, "decay"),
    "decay from an upper bound": (lambda r, n: -np.abs(r.normal(0, 3, n)), (-INF, 0), False, "decay"),
    "periodic": (lambda r, n: np.mod(350 + 40 * r.normal(size=n), 360), (0, 360), True, "between"),
}


def axis_of(case, n=400):
    make, (low, high), periodic, _ = CASES[case]
    x = make(np.random.default_rng(4), n)
    return x, fit_axis(x, np.full(n, 1 / n), low, high, periodic)


@pytest.mark.parametrize("case", CASES)
def test_each_axis_goes_back_and_has_the_slope_of_differences(case):
    x, axis = axis_of(case)
    assert axis.kind == CASES[case][3]
    u, slope = axis.forward(x)
    np.testing.assert_allclose(axis.inverse(u), x, rtol=1e-12)
    spread = np.std(u)
    u = np.linspace(u.min(), u.max(), 101)
    h = 1e-4 * spread
    slope = axis.forward(axis.inverse(u))[1]
    difference = (axis.inverse(u + h) - axis.inverse(u - h)) / (2 * h)
    if axis.cut is not None:
        difference = (np.mod(axis.inverse(u + h) - axis.inverse(u - h) + 180, 360) - 180) / (2 * h)
    np.testing.assert_allclose(np.exp(-slope), difference, rtol=1e-6)
    by_x, bend = axis.slopes(axis.inverse(u))
    np.testing.assert_allclose(by_x, np.exp(slope), rtol=1e-12)
    of_slope = (axis.forward(axis.inverse(u + h))[1] - axis.forward(axis.inverse(u - h))[1]) / (2 * h)
    np.testing.assert_allclose(bend, of_slope * by_x, rtol=1e-5, atol=1e-5 * np.abs(bend).max())


def test_the_ends_are_exact_far_out():
    between = Axis("between", 0.0, 1.0)
    for x in (1e-300, 1e-20, 0.5, 1 - 1e-15):
        assert between.inverse(between.forward(np.array([x]))[0])[0] == pytest.approx(x, rel=1e-11)
    decay = Axis("decay", 0.0, INF, scale=2.0)
    for x in (1e-300, 1e-9, 1.0, 300.0, 1e5):
        assert decay.inverse(decay.forward(np.array([x]))[0])[0] == pytest.approx(x, rel=1e-11)


def test_the_laws_that_become_standard_normal():
    rng = np.random.default_rng(0)
    flat, waiting = rng.uniform(-3, 7, 4000), rng.exponential(5.0, 4000)
    u = Axis("between", -3.0, 7.0).forward(flat)[0]
    assert stats.kstest(u, "norm").pvalue > 1e-3
    u = Axis("decay", 0.0, INF, scale=5.0).forward(waiting)[0]
    assert stats.kstest(u, "norm").pvalue > 1e-3


def table_of(values, bounds=None, periodic=None, weights=None, given=None):
    n, size = values.shape
    given = np.empty((n, 0)) if given is None else given
    return Table(
        values=values, names=tuple("abcdefg"[:size]), labels=tuple("abcdefg"[:size]),
        weights=np.ones(n) if weights is None else weights, log_likelihood=None,
        bounds=np.array([[-INF, INF]] * size if bounds is None else bounds, float),
        periodic=np.zeros(size, bool) if periodic is None else np.array(periodic),
        given=given, given_names=tuple(f"x{i}" for i in range(given.shape[1])), source="t",
    )  # fmt: skip


def mixed_table(n=500):
    rng = np.random.default_rng(7)
    z = rng.normal(size=(n, 4)) @ np.linalg.cholesky(0.4 + 0.6 * np.eye(4)).T
    values = np.stack([z[:, 0], 5 * stats.norm.cdf(z[:, 1]), np.exp(z[:, 2]), np.mod(z[:, 3], 2 * np.pi)], axis=1)
    return table_of(
        values, [[-INF, INF], [0, 5], [0, INF], [0, 2 * np.pi]], [False, False, False, True], rng.uniform(0, 2, n)
    )


def test_whitening_is_that_of_the_weighted_covariance():
    table = mixed_table()
    parameters = Parameters.fit(table)
    y, _ = parameters.encode(table.values)
    assert y.dtype == np.float64
    np.testing.assert_allclose(np.average(y, axis=0, weights=table.weights), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(y.T, aweights=table.weights, ddof=0), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(parameters.decode(y), table.values, rtol=1e-10)


def test_rows_of_weight_zero_do_not_count():
    table = mixed_table()
    wild = table_of(
        np.vstack([table.values, [1e6, 2, 1e9, 1]]), table.bounds, table.periodic, np.append(table.weights, 0)
    )
    for name, value in Parameters.fit(table).to_arrays().items():
        np.testing.assert_allclose(Parameters.fit(wild).to_arrays()[name], value, rtol=1e-12, err_msg=name)


def numerical(parameters, x, steps):
    """(D, D) dy/dx by central differences."""
    columns = []
    for i, step in enumerate(steps):
        h = np.zeros(len(x))
        h[i] = step
        columns.append((parameters.encode((x + h)[None])[0] - parameters.encode((x - h)[None])[0])[0] / (2 * step))
    return np.array(columns).T


def test_the_jacobian_and_the_score_are_those_of_differences():
    table = mixed_table()
    parameters = Parameters.fit(table)
    x = table.values[:6]
    y, log_det = parameters.encode(x)
    steps = 1e-6 * table.values.std(0)
    for one, value in zip(x, log_det, strict=True):
        assert np.linalg.slogdet(numerical(parameters, one, steps))[1] == pytest.approx(value, abs=1e-6)

    def log_p(points):  # the law N(0, 2) of each y
        y, log_det = parameters.encode(points)
        return stats.norm.logpdf(y, scale=np.sqrt(2)).sum(1) + log_det

    score = parameters.gradient(x, -y / 2)
    for i, step in enumerate(steps):
        h = np.zeros(4)
        h[i] = step
        np.testing.assert_allclose((log_p(x + h) - log_p(x - h)) / (2 * step), score[:, i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_density_in_the_units_of_the_data_integrates_to_one(case):
    make, bounds, periodic, _ = CASES[case]
    values = make(np.random.default_rng(4), 400)[:, None]
    parameters = Parameters.fit(table_of(values, [bounds], [periodic]))

    def density(x):
        y, log_det = parameters.encode(np.atleast_1d(x)[:, None])
        return float(np.exp(stats.norm.logpdf(y[0, 0]) + log_det[0]))

    edges = parameters.decode(np.linspace(-7, 7, 29)[:, None])[:, 0]
    edges = np.unique(np.concatenate([edges, bounds if periodic else []]))
    total = sum(integrate.quad(density, a, b, limit=100)[0] for a, b in pairwise(edges))
    assert total == pytest.approx(1, abs=2e-6)


def test_a_joint_density_integrates_to_one():
    """On the nodes of a rule in y, whose images are a grid in x only if the Jacobian is right: sum of p(x) dx/dy."""
    table = mixed_table()
    two = table_of(table.values[:, 1:3], table.bounds[1:3], [False, False], table.weights)
    parameters = Parameters.fit(two)
    a, weight_a = np.polynomial.legendre.leggauss(160)
    low, high = np.array([0, 0]), np.array([5, 60])
    x = np.stack(np.meshgrid(*(low[i] + (high[i] - low[i]) * (a + 1) / 2 for i in range(2)), indexing="ij"), -1)
    y, log_det = parameters.encode(x.reshape(-1, 2))
    p = np.exp(stats.norm.logpdf(y).sum(1) + log_det).reshape(160, 160)
    assert weight_a @ p @ weight_a * np.prod(high - low) / 4 == pytest.approx(1, abs=2e-3)


def test_beyond_a_bound_there_is_no_density_and_on_it_the_nearest():
    values = np.append(np.random.default_rng(0).uniform(0, 1, 300), 0.0)[:, None]
    parameters = Parameters.fit(table_of(values, [[0, 1]]))
    y, log_det = parameters.encode(np.array([[-1e-9], [0.0], [0.5], [1.0], [1.1]]))
    np.testing.assert_array_equal(np.isfinite(log_det), [False, True, True, True, False])
    assert np.isfinite(y).all()
    smallest = np.sort(values[:, 0])[1]
    np.testing.assert_allclose(y[1], parameters.encode(np.array([[smallest / 2]]))[0][0])


def test_the_circle_is_cut_where_nothing_is():
    rng = np.random.default_rng(2)
    x = np.mod(np.concatenate([rng.normal(355, 12, 300), rng.normal(100, 12, 300)]), 360)
    cut = emptiest(x, np.ones(600), 0, 360)
    assert 145 < cut < 310
    opposite = emptiest(np.mod(x[:300] + 185, 360), np.ones(300), 0, 360)  # values around 180
    assert min(opposite, 360 - opposite) < 30
    heavy = np.append(np.ones(600), 1000.0)
    assert abs(emptiest(np.append(x, 230.0), heavy, 0, 360) - 230) > 40
    axis = fit_axis(x, np.full(600, 1 / 600), 0, 360, True)
    u = axis.forward(x)[0]
    again = axis.forward(x + 720)
    np.testing.assert_allclose(again[0], u, atol=1e-9)
    assert stats.kstest(axis.forward(rng.uniform(0, 360, 3000))[0], "norm").pvalue > 1e-3


def test_arrays_keep_all():
    table = mixed_table()
    given = np.random.default_rng(1).normal(3, 2, size=(500, 2))
    table = table_of(table.values, table.bounds, table.periodic, table.weights, given)
    parameters = Parameters.fit(table)
    again = Parameters.from_arrays(parameters.to_arrays())
    for one, two in zip(parameters.encode(table.values), again.encode(table.values), strict=True):
        np.testing.assert_array_equal(one, two)
    standard = again.encode_given(given)
    np.testing.assert_allclose(np.average(standard, axis=0, weights=table.weights), 0, atol=1e-12)
    np.testing.assert_allclose(np.average(standard**2, axis=0, weights=table.weights), 1, rtol=1e-12)


def test_what_has_no_density_is_said():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    with pytest.raises(DataError, match="t: b is the same in every row"):
        Parameters.fit(table_of(x * [1, 0, 1] + [0, 7, 0]))
    with pytest.raises(DataError, match=r"t: (a, c|c, a) are linear combinations of each other; leave [ac] out"):
        Parameters.fit(table_of(np.column_stack([x[:, 0], x[:, 1], 3 - 2 * x[:, 0]])))
    with pytest.raises(DataError, match=r"50 rows of effective number 1\.0 for 3 columns, expected more than 4"):
        Parameters.fit(table_of(x, weights=np.append(np.full(49, 1e-9), 1)))
    with pytest.raises(DataError, match=r"12\.0 % of the weight of a is exactly at its bound 0"):
        Parameters.fit(table_of(np.append(rng.uniform(0, 1, 44), np.zeros(6))[:, None], [[0, 1]]))
    with pytest.raises(DataError, match=r"the covariate x0 is 2 in every row"):
        Parameters.fit(table_of(x, given=np.full((50, 1), 2.0)))


def test_a_table_that_is_read_can_be_encoded():
    import pandas as pd

    rng = np.random.default_rng(3)
    df = pd.DataFrame({"a": rng.uniform(0, 1, 60), "b": rng.normal(size=60)})
    table = open_table(df, bounds={"a": (0, 1)})
    y, log_det = Parameters.fit(table).encode(table.values)
    np.testing.assert_allclose(np.cov(y.T, ddof=0), np.eye(2), atol=1e-12)
    assert np.isfinite(log_det).all()
