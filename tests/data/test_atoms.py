"""Laws with atoms have no density: they are refused, and ladders of values are spread over their steps."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from undrift.data.atoms import check_atoms, dequantized, steps
from undrift.data.parameters import Parameters
from undrift.data.table import open_table
from undrift.errors import DataError

RNG = np.random.default_rng(8)
N = 2000
FREE = RNG.normal(size=N)


def table_of(x, **options):
    return open_table(pd.DataFrame({"k": x, "free": FREE[: len(x)]}), **options)


LADDERS = {
    "counts": (RNG.poisson(4, N), 1.0),
    "packed": (np.round(RNG.normal(280, 10, N) / 0.1) * 0.1 + 0.03, 0.1),
    "single precision": ((RNG.integers(-40, 40, N) * 0.025).astype(np.float32), 0.025),
}


@pytest.mark.parametrize("kind", LADDERS)
def test_a_ladder_is_refused_and_can_be_spread(kind):
    x, step = LADDERS[kind]
    table = table_of(x)
    np.testing.assert_allclose(steps(table), [step, 0], rtol=1e-4)
    with pytest.raises(DataError, match=f"the values of k lie on even steps of {step:g}.*type --dequantize"):
        Parameters.fit(table)
    spread = dequantized(table, seed=1)
    np.testing.assert_array_equal(spread.values[:, 1], table.values[:, 1])
    away = (spread.values[:, 0] - table.values[:, 0]) / step
    assert stats.kstest(away, "uniform", args=(-0.5, 1)).pvalue > 1e-3
    assert spread.remarks == (
        f"k: each value is spread over its step of {step:g}; densities are those of the spread values",
    )
    Parameters.fit(spread)


def test_one_column_is_as_many():
    with pytest.raises(DataError, match=r"x0 lie on even steps of 1"):
        check_atoms(open_table(LADDERS["counts"][0]))
    with pytest.raises(DataError, match=r"x0 is exactly 0 in \d\d\.\d % of the rows"):
        check_atoms(open_table(np.maximum(FREE, 0)))


def test_what_is_spread_stays_within_its_bounds():
    table = table_of(RNG.poisson(1, N), bounds={"k": (0, None)})
    spread = dequantized(table)
    assert spread.values[:, 0].min() >= 0
    at_zero = spread.values[table.values[:, 0] == 0, 0]
    assert stats.kstest(at_zero, "uniform", args=(0, 0.5)).pvalue > 1e-3
    check_atoms(spread)


def test_exact_zeros_are_refused_with_their_share():
    x = np.where(RNG.random(N) < 0.3, 0.0, RNG.exponential(size=N))
    with pytest.raises(DataError, match=rf"k is exactly 0 in {100 * (x == 0).mean():.1f} % of the rows"):
        check_atoms(table_of(x))
    x[x == 0] = 1e-9 * RNG.random((x == 0).sum())
    check_atoms(table_of(x))


def test_chains_that_stay_or_move_one_parameter_at_a_time_are_no_ladders():
    still = np.repeat(RNG.normal(size=(200, 2)), 10, axis=0)
    check_atoms(open_table(still))
    slow = np.repeat(RNG.normal(size=200), 10)  # moves one time in ten
    check_atoms(table_of(slow))
    np.testing.assert_array_equal(steps(table_of(slow)), 0)


def test_text_of_few_digits_is_continuous():
    check_atoms(table_of(np.round(FREE, 5)))
