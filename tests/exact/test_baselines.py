"""Dressed baselines: quantiles of their own errors, in the order of real fields, and calibrated."""

import math

import numpy as np
import pytest

from undrift.distributions.baselines import QuantileMap, around, dress, fit_baselines

RNG = np.random.default_rng


def test_members_are_the_quantiles_of_each_cell():
    errors = RNG(0).gamma(2.0, size=(137, 2, 3, 4))
    members = dress(errors, 20)
    levels = (np.arange(20) + 0.5) / 20
    expected = np.quantile(errors, levels, axis=0, method="hazen")
    np.testing.assert_allclose(np.sort(members, 0), expected, rtol=1e-5)


def test_missing_errors_are_left_out():
    errors = RNG(0).normal(size=(50, 1, 3))
    errors[5:20, 0, 1] = np.nan
    members = dress(errors, 10)
    known = np.delete(errors[:, 0, 1], np.arange(5, 20))
    np.testing.assert_allclose(
        np.sort(members[:, 0, 1]), np.quantile(known, (np.arange(10) + 0.5) / 10, method="hazen"), rtol=1e-5
    )


def test_the_order_is_that_of_real_fields():
    """As many errors as members: member m is high where error field m is high."""
    errors = RNG(1).normal(size=(12, 1, 5, 6)) + RNG(2).normal(size=(12, 1, 1, 1)) * 2
    members = dress(errors, 12)
    np.testing.assert_array_equal(members.argsort(0).argsort(0), errors.argsort(0).argsort(0))
    a = np.corrcoef(members.reshape(12, -1).T)
    b = np.corrcoef(errors.reshape(12, -1).T)
    assert abs(a.mean() - b.mean()) < 0.05 and b.mean() > 0.5


def test_fewer_errors_than_members_still_give_all_quantiles():
    errors = RNG(1).normal(size=(7, 1, 4))
    expected = np.quantile(errors, (np.arange(30) + 0.5) / 30, axis=0, method="hazen")
    np.testing.assert_allclose(np.sort(dress(errors, 30), 0), expected, rtol=1e-5)


def test_dressed_climatology_has_the_crps_of_a_gaussian():
    """E CRPS of the true Gaussian is sigma / sqrt(pi); fifty quantiles and 4000 errors come within a per cent."""
    sigma, n = 2.0, 4000
    errors = sigma * RNG(0).normal(size=(n, 1, 2))
    members = around(np.zeros((n, 1, 2)), dress(errors), np.array(-np.inf), np.array(np.inf))
    truth = sigma * RNG(1).normal(size=(n, 1, 2))
    ranked = np.sort(members.astype(np.float64), 0)
    m = len(ranked)
    spread = np.tensordot(2 * np.arange(m) - m + 1, ranked, 1) / m**2  # half the mean difference of two members
    crps = np.abs(members - truth).mean(0) - spread
    expected = sigma / math.sqrt(math.pi)
    assert abs(crps.mean() - expected) < 4.5 * crps.std() / math.sqrt(crps.size) + 0.01 * expected


def test_an_ensemble_keeps_its_bounds():
    members = np.array([-2.0, 0.0, 2.0]).reshape(3, 1, 1) * np.ones((3, 2, 4))
    point = np.full((5, 2, 4), 1.0)
    out = around(point, members, np.array([[0.0], [-np.inf]]), np.array([[np.inf], [1.5]]))
    assert out.shape == (3, 5, 2, 4)
    assert out[:, 0, 0, 0].tolist() == [0.0, 1.0, 3.0]
    assert out[:, 0, 1, 0].tolist() == [-1.0, 1.0, 1.5]


def test_a_map_of_a_field_to_itself_is_the_identity():
    x = RNG(0).normal(size=(200, 1, 3))
    new = 3 * RNG(1).normal(size=(50, 1, 3))
    np.testing.assert_allclose(QuantileMap.fit(x, x)(new), new, atol=1e-12)


def test_a_shift_and_scale_is_recovered_inside_and_the_ends_shift_outside():
    x = RNG(0).normal(size=(500, 1, 2))
    mapped = QuantileMap.fit(x, 5 + 2 * x)
    inside = np.linspace(-2, 2, 9).reshape(9, 1, 1) * np.ones((1, 1, 2))
    np.testing.assert_allclose(mapped(inside), 5 + 2 * inside, atol=1e-10)
    low, high = x.min(0), x.max(0)
    np.testing.assert_allclose(mapped((high + 3)[None])[0], 5 + 2 * high + 3)
    np.testing.assert_allclose(mapped((low - 3)[None])[0], 5 + 2 * low - 3)


def test_mapped_values_have_the_marginal_of_the_truth():
    x, truth = RNG(0).normal(size=(2000, 1, 1)), RNG(1).exponential(size=(2000, 1, 1))
    mapped = QuantileMap.fit(x, truth)(x)
    for q in (0.1, 0.5, 0.9, 0.975):
        assert np.quantile(mapped, q) == pytest.approx(np.quantile(truth, q), abs=0.02)


def test_a_point_mass_is_mapped_to_the_middle_of_what_it_stands_for():
    """Six in ten are dry where in truth four in ten are: zero stands for all of the lower six tenths."""
    x = np.concatenate([np.zeros(600), np.linspace(0.01, 1, 400)]).reshape(-1, 1, 1)
    truth = np.concatenate([np.zeros(400), np.linspace(0.01, 3, 600)]).reshape(-1, 1, 1)
    mapped = QuantileMap.fit(x, truth)
    top = np.quantile(truth, 0.6)
    assert mapped(np.zeros((1, 1, 1)))[0, 0, 0] == pytest.approx(top / 2, abs=0.1)
    assert mapped(np.ones((1, 1, 1)))[0, 0, 0] == pytest.approx(3.0)


def test_no_sample_dresses_its_own_prediction():
    """Climatology's errors leave out the fold: for white data their variance is (1 + 1 / n_left) sigma^2."""
    n = 40
    truth = RNG(0).normal(size=(n, 1, 50, 60))
    fold = np.repeat(np.arange(4), n // 4)
    out = fit_baselines(truth, fold, None, np.zeros_like(truth))
    members = out["climatology"].members
    levels = (np.arange(50) + 0.5) / 50
    left = np.stack([truth[fold != k].mean(0) for k in range(4)])[fold]
    np.testing.assert_allclose(
        np.sort(members, 0), np.quantile(truth - left, levels, axis=0, method="hazen"), atol=1e-5
    )
    np.testing.assert_allclose(out["climatology"].state["mean"], truth.mean(0))
    assert set(out) == {"climatology", "linear predictor"}
    np.testing.assert_allclose(
        np.sort(out["linear predictor"].members, 0), np.quantile(truth, levels, axis=0, method="hazen"), atol=1e-5
    )


def test_quantile_mapping_is_fitted_without_the_fold():
    rng = RNG(0)
    given = rng.normal(size=(80, 1, 1))
    truth = 1 + given + 0.3 * rng.normal(size=(80, 1, 1))
    fold = np.repeat(np.arange(4), 20)
    out = fit_baselines(truth, fold, given, given)
    errors = np.concatenate(
        [(truth - QuantileMap.fit(given[fold != k], truth[fold != k])(given))[fold == k] for k in range(4)]
    )
    levels = (np.arange(50) + 0.5) / 50
    np.testing.assert_allclose(
        np.sort(out["quantile mapping"].members, 0), np.quantile(errors, levels, axis=0, method="hazen"), atol=1e-5
    )
    np.testing.assert_allclose(
        np.sort(out["interpolation"].members, 0), np.quantile(truth - given, levels, axis=0, method="hazen"), atol=1e-5
    )
