"""Densities of tables with log-densities: from labelled rows to nats in the units of the data."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import undrift
from undrift.data.log_density import log_density_of
from undrift.data.table import open_table
from undrift.errors import UsageError
from undrift.model import density_training


def rows(n=300, seed=0):
    """a is N(3, 4), b on [0, 10] with a density in proportion to exp(-b / 2)."""
    rng = np.random.default_rng(seed)
    b = -2 * np.log1p(-rng.uniform(size=n) * -np.expm1(-5))
    return pd.DataFrame({"a": rng.normal(3, 2, n), "b": b})


def log_p(table):
    return norm.logpdf(table["a"], 3, 2) - table["b"] / 2 - np.log(-2 * np.expm1(-5))


def fitted(table, **options):
    return undrift.fit(table, estimator="gp", progress=False, **options)


@pytest.mark.parametrize("kind", ["log_posterior", "log_prior", "bounds"])
def test_a_log_density_is_learned_in_the_units_of_the_data(kind, tmp_path):
    """The posterior itself, likelihood and prior, or the likelihood where the prior is uniform: one density."""
    table, exact = rows(), log_p(rows())
    if kind == "log_posterior":
        table = table.assign(log_posterior=exact - 40)
    elif kind == "log_prior":
        table = table.assign(logL=norm.logpdf(table["a"], 3, 2), log_prior=-table["b"] / 2)
    else:
        table = table.assign(logL=exact + 3)
    bounds = {"a": (-40, 40), "b": (0, 10)} if kind == "bounds" else {"b": (0, 10)}
    model = fitted(table, bounds=bounds, out=tmp_path / "RUN")
    fresh = rows(500, seed=1)
    found = model.log_prob(fresh)
    gap = found.log_prob - log_p(fresh)
    assert float(np.sqrt((gap**2).mean())) < 0.05 and float((gap / found.log_prob_error).std()) < 3
    again = undrift.load(tmp_path / "RUN")
    np.testing.assert_array_equal(again.log_prob(fresh).log_prob, found.log_prob)
    np.testing.assert_array_equal(again.sample(realizations=5).a, model.sample(realizations=5).a)
    assert model.describe()["log density"].startswith("log-posterior" if kind == "log_posterior" else "log-likelihood")


def test_a_realization_is_the_same_however_many_are_drawn():
    model = fitted(rows().assign(log_posterior=log_p(rows())), bounds={"b": (0, 10)})
    whole = model.sample(realizations=20, seed=3).to_array()
    part = model.sample(realizations="5:9", seed=3).to_array()
    np.testing.assert_allclose(part, whole.isel(realization=slice(5, 9)), rtol=1e-12)


def test_chains_in_getdists_form_hold_the_posterior(tmp_path):
    table = rows(80)
    np.savetxt(tmp_path / "c_1.txt", np.column_stack([np.ones(80), -log_p(table), table]))
    (tmp_path / "c.paramnames").write_text("a\nb\n")
    found, origin = log_density_of(open_table(tmp_path / "c"))
    np.testing.assert_allclose(found, log_p(table))
    assert origin == "log-posterior"


def test_what_lacks_a_log_density_says_what_to_add():
    table = rows(60)
    for wrong, options, said in (
        (table, {}, "add a column log_posterior"),
        (table.assign(logL=0.0), {"bounds": {"b": (0, 10)}}, "two bounds of each parameter"),
        (table.assign(log_posterior=0.0), {"variables": "a"}, r"drop the columns .*\(b\)"),
        (table.assign(log_posterior=0.0), {"dequantize": True}, "--dequantize moves"),
    ):
        with pytest.raises(UsageError, match=said):
            fitted(wrong, **options)
    with pytest.raises(undrift.DataError, match=r"row \d+ is nan"):
        fitted(table.assign(log_posterior=np.nan))


def test_a_bound_of_no_column_is_told(tmp_path, caplog):
    file = tmp_path / "a.ranges"
    file.write_text("a N N\nbb 0 10\n")
    model = undrift.fit(rows(), estimator="mixture", bounds=str(file), progress=False)
    (said,) = model.describe()["remarks"]
    assert "'bb'" in said and said.endswith("there are a, b") and said in caplog.text
    file.write_text("bb 0 10\n")
    with pytest.raises(undrift.DataError, match="did you mean 'b'"):
        open_table(rows(), bounds=file)
    with pytest.raises(undrift.DataError, match="did you mean 'b'"):
        open_table(rows(), bounds="bb=0/10")


@pytest.mark.parametrize("estimator", ["nsf", "diffusion", "mixture"])
def test_a_row_beyond_all_numbers_has_no_density(estimator):
    steps = {} if estimator == "mixture" else {"steps": 5}
    model = undrift.fit(rows(), estimator=estimator, **steps, progress=False)
    found = model.log_prob(pd.DataFrame({"a": [3.0, 1e300], "b": [1.0, 1.0]}))
    assert np.isneginf(found.log_prob[1]) and np.isposinf(found.log_prob_error[1])
    assert np.isfinite(found.log_prob[0]) and np.isfinite(found.log_prob_error[0])


def test_neighbours_of_a_chain_are_held_out_together():
    """Of a random walk with its chain and draw, a row's neighbour is on its side of the split but at blocks' ends."""
    rng = np.random.default_rng(0)
    walk = np.zeros(4000)
    for i in range(1, 4000):
        walk[i] = 0.95 * walk[i - 1] + rng.standard_normal()
    table = open_table(pd.DataFrame({"chain": 0, "draw": np.arange(4000), "a": walk}))
    held = density_training._numbers(table, np.random.default_rng(1)) < 0.1
    assert 0.03 < held.mean() < 0.2
    assert np.abs(np.diff(held.astype(int))).sum() < 0.1 * held.sum()
