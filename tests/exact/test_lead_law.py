"""The law of states after a lead against a rotating wave with damping, whose moments are known at every lead."""

import numpy as np
import pytest
from scipy.linalg import expm

from undrift.data.lead_fit import _Moments, _moments, _Record, fit_lead_laws
from undrift.data.lead_law import LeadLaw, LeadLaws, lead_features
from undrift.data.leads import Clock
from undrift.data.linear import folds

CELLS, DECAY, TURN, DECAY_BESIDE = 16, 0.1, 2 * np.pi / 9, 0.7
"""Of the wave per step: loss of amplitude, turn of phase; of what is beside it: loss, cell by cell."""
GENERATOR = np.array([[-DECAY, -TURN], [TURN, -DECAY]])
AT = 2 * np.pi * np.arange(CELLS) / CELLS
MODES = np.stack([np.cos(AT), np.sin(AT)]) / np.sqrt(CELLS / 2)
POWER, BESIDE = 4.0, 0.25


def exact(r, steps):
    """Mean and standard deviation of a state after a lead, per cell, of the wave alone with what is beside it."""
    a = MODES @ r
    e = r - a @ MODES
    mean = expm(GENERATOR * steps) @ a @ MODES + np.exp(-DECAY_BESIDE * steps) * e
    left = POWER * (1 - np.exp(-2 * DECAY * steps)) * (MODES**2).sum(0)
    return mean, np.sqrt(left + BESIDE * (1 - np.exp(-2 * DECAY_BESIDE * steps)))


def record(count, seed=0):
    """A wave whose amplitudes are an Ornstein-Uhlenbeck process that turns, and one for each cell beside it."""
    rng = np.random.default_rng(seed)
    step, kept = expm(GENERATOR), np.exp(-DECAY_BESIDE)
    a, e, out = np.sqrt(POWER) * rng.normal(size=2), np.sqrt(BESIDE) * rng.normal(size=CELLS), []
    for _ in range(count):
        a = step @ a + np.sqrt(POWER * (1 - np.exp(-2 * DECAY))) * rng.normal(size=2)
        e = kept * e + np.sqrt(BESIDE * (1 - kept**2)) * rng.normal(size=CELLS)
        out.append(a @ MODES + e)
    return np.array(out)


def law_of(longest):
    """The law that the moments themselves make."""
    knots = np.arange(longest + 1)
    gains = np.stack([expm(GENERATOR * k) for k in knots])
    ahead = np.exp(-DECAY_BESIDE * knots)[:, None, None]
    ones = np.ones((1, CELLS))
    return LeadLaw(
        MODES, knots, gains, POWER * np.eye(2), expm(GENERATOR), BESIDE * ones, ahead, np.ones((1, 1, 1)),
        np.array([np.exp(-DECAY_BESIDE)]), np.ones((longest + 1, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("steps", [0.25, 1.0, 1.5, 4.75, 6.0])
def test_between_the_steps_a_law_goes_on_as_the_process_does(steps):
    """Exact on the steps and off them: a linear inverse model of a Markov process."""
    r = np.random.default_rng(1).normal(size=CELLS)
    mean, std = law_of(6).given(r[None, None, None], np.ones((1, 1, 1, CELLS), dtype=bool), steps)
    want_mean, want_std = exact(r, steps)
    np.testing.assert_allclose(mean[0, 0], want_mean, atol=1e-12)
    np.testing.assert_allclose(std[0], want_std, rtol=1e-12)


def test_a_law_of_any_regressions_goes_through_them():
    """Of a process that is not Markov the coefficients are continuous and have those of the steps on the steps."""
    law, rng = law_of(3), np.random.default_rng(7)
    law.gains[1:], law.ahead[1:] = rng.normal(size=(3, 2, 2)), rng.random((3, 1, 1))
    for step in (1, 2):
        for near in (step - 1e-9, step + 1e-9):
            np.testing.assert_allclose(law.at(near).gain, law.gains[step], atol=1e-7)
            np.testing.assert_allclose(law.at(near).ahead, law.ahead[step], atol=1e-7)
    middle = expm(GENERATOR / 2) @ law.gains[1] + (law.gains[2] - expm(GENERATOR) @ law.gains[1]) / 2
    np.testing.assert_allclose(law.at(1.5).gain, middle, atol=1e-12)


def test_moments_without_a_fold_know_nothing_of_it():
    r, fold = record(300), folds(300, 5)
    other = np.where((fold == 2)[:, None], 100.0, r)
    found = []
    for values in (r, other):
        kept = _Record(values[:, None], np.arange(300), fold, 1)
        found.append(_moments(kept, [MODES] * 6, [0, 1, 3])[2])
    for lag in (0, 1, 3):
        np.testing.assert_array_equal(found[0].lagged[lag], found[1].lagged[lag])
        np.testing.assert_array_equal(found[0].beside[lag], found[1].beside[lag])
    a = r @ MODES.T
    inside = (fold[3:] != 2) & (fold[:-3] != 2)
    np.testing.assert_allclose(found[0].lagged[3], a[3:][inside].T @ a[:-3][inside] / inside.sum(), rtol=1e-9)


def test_amplitudes_that_are_drawn_together_have_one_correlation():
    """With nothing of their own left each goes on with the mean correlation, weighed by power."""
    lagged = {0: np.diag([3.0, 1.0]), 1: np.array([[2.4, 0.5], [0.1, 0.2]])}
    found = _Moments(MODES, lagged, np.ones((1, CELLS)), {0: np.ones(1), 1: np.full(1, 0.5)})
    law = found.law(np.arange(2), 1, 2, 1.0)
    np.testing.assert_allclose(law.gains[1], 0.65 * np.eye(2), rtol=2e-3, atol=1e-12)
    np.testing.assert_allclose(found.law(np.arange(2), 1, 0, 0.0).gains[1], np.diag([0.8, 0.2]), rtol=2e-3)
    np.testing.assert_allclose(found.law(np.arange(2), 1, 2, 0.0).gains[1], lagged[1] / [3, 1], rtol=2e-3)


@pytest.mark.parametrize("past", [1, 2])
def test_a_fitted_law_has_the_moments_of_the_process(past):
    """Of a long record, on and off its steps; more given states tell nothing of a Markov process."""
    r = record(6000)
    laws, _ = fit_lead_laws(r[:, None], np.arange(6000), folds(6000, 5), Clock(), 8, past, maps=True)
    other = record(3000, seed=2)
    for steps in (1.0, 3.0, 8.0, 0.5, 2.5, 7.25):
        law, away, scale = laws.laws[-1], [], []
        for t in range(past - 1, 3000, 50):
            given = other[None, t - past + 1 : t + 1, None]
            mean, std = law.given(given, np.ones(given.shape, dtype=bool), steps)
            want_mean, want_std = exact(other[t], steps)
            away.append(mean[0, 0] - want_mean)
            scale.append(std[0] / want_std)
        assert np.sqrt(np.mean(np.square(away))) < 0.15 * want_std.mean(), steps
        np.testing.assert_allclose(np.mean(scale), 1, atol=0.06)


def test_errors_out_of_fold_widen_a_law_that_knows_too_little():
    """A random walk, in which each fold is elsewhere than the others know: the variance follows the errors."""
    fold = folds(400, 5)
    r = 0.2 * np.random.default_rng(3).normal(size=(400, 1, 1, CELLS)).cumsum(0)
    laws, _ = fit_lead_laws(r[:, 0], np.arange(400), fold, Clock(), 4, 1, maps=False)
    for lag in (1, 4):
        seen, expected = [], []
        for k, law in enumerate(laws.laws[:-1]):
            rows = np.flatnonzero(fold == k)[:-lag]
            mean, std = law.given(r[rows], np.ones(r[rows].shape, dtype=bool), float(lag))
            seen.append(((r[rows + lag, 0] - mean) ** 2).mean())
            expected.append((std**2).mean())
        assert np.mean(seen) == pytest.approx(np.mean(expected), rel=0.15)


def test_gaps_and_other_series_are_no_pairs():
    """Every second fold begins anew with the opposite sign: pairs across would undo the correlation."""
    rng = np.random.default_rng(4)
    place = np.concatenate([np.arange(4) + 100 * k for k in range(200)])
    r = np.repeat(rng.normal(size=(200, 1, CELLS)), 4, 0) * np.where(np.arange(800) // 4 % 2, 1, -1)[:, None, None]
    laws, _ = fit_lead_laws(r, place, folds(800, 5), Clock(), 3, 1, maps=False)
    np.testing.assert_allclose(laws.laws[-1].ahead[:, 0, 0], 1, atol=2e-3)


def test_arrays_hold_a_law():
    law = law_of(5)
    clock = Clock(3600e9, dates=True)
    again = LeadLaws.from_arrays(LeadLaws([law], clock, (CELLS,)).to_arrays(), (CELLS,))
    assert again.longest == 5 and again.past == 1 and again.clock == clock
    r = np.random.default_rng(1).normal(size=(1, 1, 1, CELLS))
    there = np.ones(r.shape, dtype=bool)
    for found, want in zip(again.laws[0].given(r, there, 2.5), law.given(r, there, 2.5)):
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_what_a_network_is_told_of_a_lead():
    np.testing.assert_allclose(
        lead_features(np.array([0.5, 1, 2, 4, 16]), 16),
        [[-0.9375, -1], [-0.875, -1], [-0.75, -0.5], [-0.5, 0], [1, 1]],
        atol=1e-6,
    )
