"""Scores in time against closed forms: autocorrelations of AR(1), spells of a Markov chain."""

import numpy as np
import pytest
import xarray as xr

from undrift.verify import sequence_scores
from undrift.verify.temporal import Autocorrelation, Spells, spell_distance, spell_mean

DAY = np.timedelta64(1, "D")


def autoregressive(rho, frames, cells, rng):
    x = np.empty((frames, cells))
    x[0] = rng.normal(size=cells)
    for t in range(1, frames):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=cells)
    return x


def chain(stay, frames, cells, rng):
    """Two states, each left with the probability 1 - stay: spells of both are geometric with the mean 1 / (1 - stay)."""
    return (
        np.cumsum(np.append(rng.random((1, cells)) < 0.5, rng.random((frames - 1, cells)) > stay, axis=0), 0) % 2 == 1
    )


def autocorrelation(x, blocks=1):
    memory = Autocorrelation()
    for part in np.array_split(x, blocks, axis=-2):
        memory.add(part)
    return memory.value()


def lengths(event, blocks=1, weights=None):
    spells = Spells(event.shape[1], np.ones(event.shape[2]) if weights is None else weights)
    for part in np.array_split(event, blocks, axis=1):
        spells.add(part)
    return spells.counts()


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_the_autocorrelation_of_an_autoregression_is_its_coefficient(rho):
    """Less (1 + 4 rho) / N, the bias of N frames whose mean is not known."""
    got = autocorrelation(280 + autoregressive(rho, 200, 4000, np.random.default_rng(0)))
    expected = rho - (1 + 4 * rho) / 200
    assert got.mean() == pytest.approx(expected, abs=4 * got.std() / np.sqrt(4000) + 2e-4)


def test_the_autocorrelation_is_its_formula_however_it_is_streamed():
    x = 1e4 + autoregressive(0.6, 40, 6, np.random.default_rng(1)).reshape(1, 40, 6)
    d = x[0] - x[0].mean(0)
    expected = (d[1:] * d[:-1]).sum(0) / (d**2).sum(0)
    for blocks in (1, 3, 40):
        np.testing.assert_allclose(autocorrelation(x, blocks)[0], expected, rtol=1e-9)


def test_a_cell_that_never_changes_or_is_missing_has_no_autocorrelation():
    x = np.random.default_rng(2).normal(size=(10, 3))
    x[:, 0], x[4, 1] = 271.35, np.nan
    np.testing.assert_array_equal(np.isnan(autocorrelation(x)), [True, True, False])


@pytest.mark.parametrize("stay", [0.5, 0.75, 0.9])
def test_spells_of_a_markov_chain_are_geometric(stay):
    counts = lengths(chain(stay, 4000, 60, np.random.default_rng(3))[None])[0]
    mean, number = 1 / (1 - stay), counts.sum()
    assert spell_mean(counts) == pytest.approx(mean, abs=4 * mean * np.sqrt(stay / number) + 2 * mean**2 / 4000)
    k = np.arange(1, 6)
    share = (1 - stay) * stay ** (k - 1)
    np.testing.assert_allclose(counts[k] / number, share, atol=4 * np.sqrt(share.max() / number))


def test_geometric_laws_are_the_difference_of_their_means_apart():
    """The law with the larger mean is the longer one throughout."""
    k = np.arange(400)
    one, other = (np.where(k > 0, (1 - stay) * stay ** np.maximum(k - 1, 0), 0) for stay in (0.5, 0.9))
    assert spell_distance(one, 7 * other) == pytest.approx(10 - 2, rel=1e-9)
    assert spell_distance(one, one) == 0 and np.isnan(spell_distance(one, 0 * one))


def test_spells_are_counted_by_hand_however_they_are_streamed():
    event = np.array([[1, 1, 0, 1, 1, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0], [1] * 9], bool).T[None]
    weights = np.array([1.0, 2.0, 4.0])
    expected = np.zeros(10)
    expected[[1, 2, 3, 9]] = [1 + 2, 1, 1, 4]
    for blocks in (1, 2, 9):
        np.testing.assert_array_equal(lengths(event, blocks, weights)[0], expected)
    assert spell_mean(expected) == pytest.approx((3 * 1 + 2 + 3 + 36) / 9)


def labelled(values, times, members):
    dims = ("realization", "time", "y", "x") if members else ("time", "y", "x")
    return xr.Dataset({"u": (dims, values, {"units": "m"})}, {"time": times, "y": np.arange(4), "x": np.arange(5)})


@pytest.fixture(scope="module")
def case():
    """Truth and members of one autoregression, and members that forget sooner."""
    rng, frames = np.random.default_rng(4), 300
    times = np.datetime64("2001-01-01", "ns") + np.arange(frames) * DAY
    made = {rho: autoregressive(rho, frames, 13 * 20, rng).reshape(frames, 13, 4, 5) for rho in (0.9, 0.5)}
    truth = labelled(made[0.9][:, 0], times, False)
    alike, other = (labelled(np.moveaxis(made[rho][:, 1:], 1, 0), times, True) for rho in (0.9, 0.5))
    return truth, alike, other


def test_members_are_compared_with_the_truth(case):
    truth, alike, other = case
    scores = sequence_scores(alike, truth, baselines={"forgetful": other}, thresholds=[0.0]).sel(variable="u")
    assert float(scores.autocorrelation_truth) == pytest.approx(0.9 - 4.6 / 300, abs=0.02)
    assert float(scores.autocorrelation_ensemble) == pytest.approx(0.9 - 4.6 / 300, abs=0.01)
    assert float(scores.autocorrelation_baseline.sel(baseline="forgetful")) == pytest.approx(0.5 - 3 / 300, abs=0.01)
    memory = autocorrelation(truth.u.values.reshape(300, 20))
    np.testing.assert_allclose(scores.autocorrelation_truth_map.values.ravel(), memory)
    assert list(scores.spell.values) == ["below q10", "above q90", "above 0", "up to 0"]
    for spell in scores.spell.values:
        one = scores.sel(spell=spell)
        assert float(one.spell_distance) < 2.5 * float(one.spell_distance_expected)
        assert float(one.spell_distance_baseline.sel(baseline="forgetful")) > 4 * float(one.spell_distance)
    counts = lengths(alike.u.values.reshape(12, 300, 20) > 0)
    apart = [spell_distance(np.delete(counts, i, 0).sum(0), counts[i]) for i in range(12)]
    above = scores.sel(spell="above 0")
    assert float(above.spell_distance_expected) == pytest.approx(np.mean(apart), rel=1e-9)
    of_truth = lengths(truth.u.values.reshape(1, 300, 20) > 0)[0]
    assert float(above.spell_distance) == pytest.approx(spell_distance(counts.sum(0), of_truth), rel=1e-9)
    # from 0 an autoregression of rho crosses with the probability arccos(rho) / pi a step (Rice)
    for found, rho in ((scores.spell_ensemble, 0.9), (scores.spell_baseline.sel(baseline="forgetful"), 0.5)):
        assert float(found.sel(spell="above 0")) == pytest.approx(np.pi / np.arccos(rho), rel=0.06)


def test_the_order_of_the_samples_and_the_units_do_not_count(case):
    truth, alike, _ = case
    first, shuffled = alike.isel(realization=slice(4)), np.random.default_rng(5).permutation(300)
    scores = sequence_scores(first, truth)
    assert scores is not None
    xr.testing.assert_allclose(scores, sequence_scores(first.isel(time=shuffled), truth), rtol=1e-9)
    xr.testing.assert_allclose(scores, sequence_scores(first * 1.8 + 32, truth * 1.8 + 32), rtol=1e-6)


def test_samples_that_are_no_sequence_have_no_such_scores(case):
    truth, alike, _ = case
    assert sequence_scores(alike.isel(time=np.r_[0:20, 22:60]), truth) is None
    assert sequence_scores(alike.isel(time=slice(0, 5)), truth) is None
    years = alike.assign_coords(time=np.arange(300))
    assert sequence_scores(years, truth.assign_coords(time=np.arange(300))) is None


def test_cells_without_a_truth_count_in_nothing(case):
    truth, alike, _ = case
    masked = truth.where((truth.x > 0) | (truth.y > 0))
    scores, whole = sequence_scores(alike, masked), sequence_scores(alike, truth)
    values = whole.autocorrelation_truth_map.values.ravel()[1:]
    assert float(scores.autocorrelation_truth.squeeze()) == pytest.approx(values.mean())
    assert np.isnan(scores.autocorrelation_truth_map.values.ravel()[0])
