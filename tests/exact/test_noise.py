"""Keyed noise: any window of it is the slice of the whole, and it is white, uniform and normal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from undrift.process import Key, keyed, normal, uniform

GOLDEN_UNIFORM = [0.8736832997474354, 0.5574609067672928, 0.6163487144008452]
KEY = Key(7, "base", 3, "year=2085;scenario=E1", "tas")


@st.composite
def fields_and_windows(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    window = []
    for size in shape:
        first = draw(st.integers(0, size))
        window.append(slice(first, draw(st.integers(first, size))))
    return tuple(shape), tuple(window)


@settings(deadline=None, max_examples=80)
@given(fields_and_windows())
def test_a_window_is_the_slice_of_the_whole(case):
    shape, window = case
    part = uniform(KEY, shape, window)
    np.testing.assert_array_equal(part, uniform(KEY, shape)[window])
    np.testing.assert_array_equal(normal(KEY, shape, window), normal(KEY, shape)[window])


def test_a_step_or_a_missing_dim_is_refused():
    with pytest.raises(ValueError, match="expected 2 slices without a step"):
        uniform(KEY, (4, 4), (slice(0, 4, 2), slice(None)))
    with pytest.raises(ValueError, match="expected 2 slices"):
        uniform(KEY, (4, 4), (slice(None),))


def test_golden_values():
    """These numbers may never change: a saved seed must draw the same ensemble for ever."""
    np.testing.assert_array_equal(uniform(KEY, (3,)), GOLDEN_UNIFORM)
    np.testing.assert_allclose(normal(KEY, (3,)), stats.norm.ppf(GOLDEN_UNIFORM), rtol=1e-12)


def test_first_numbers_are_philox_of_the_hashed_key(measured):
    """The stream again from its definition: BLAKE2b of the words of the key, then numpy's Philox from counter 0."""
    import hashlib

    text = "\x1f".join(["7", "base", "3", "year=2085;scenario=E1", "tas", "0"])
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8")
    words = np.random.Philox(key=key, counter=[0, 0, 0, 0]).random_raw(50)
    expected = ((words >> np.uint64(12)) + 0.5) / 2.0**52
    other = int((uniform(KEY, (5, 10)).ravel() != expected).sum())
    measured(Key, "numbers that differ of 50", "BLAKE2b and numpy's Philox", 0, other, within=0.5)
    measured(uniform, "numbers that differ of 50", "BLAKE2b and numpy's Philox", 0, other, within=0.5)


OTHERS = {
    "seed": Key(8, "base", 3, "year=2085;scenario=E1", "tas"),
    "purpose": Key(7, "step", 3, "year=2085;scenario=E1", "tas"),
    "realization": Key(7, "base", 4, "year=2085;scenario=E1", "tas"),
    "labels": Key(7, "base", 3, "year=2085;scenario=A1B", "tas"),
    "variable": Key(7, "base", 3, "year=2085;scenario=E1", "pr"),
    "stage": Key(7, "base", 3, "year=2085;scenario=E1", "tas", 1),
    "digits in other places": Key(73, "base", 0, "year=2085;scenario=E1", "tas"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_key_is_uncorrelated(name):
    shape = (40, 50)
    a, b = normal(KEY, shape), normal(OTHERS[name], shape)
    for shift in (0, 1, 4):
        r = np.mean(a.ravel()[shift:] * b.ravel()[: a.size - shift])
        assert abs(r) < 4.5 / math.sqrt(a.size)
    assert not np.isin(a, b).any()


def test_laws(agrees, measured):
    n = 100_000
    u = uniform(Key(0, "laws"), (n,))
    assert u.min() > 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 4.5 * math.sqrt(1 / 12 / n)
    z = normal(Key(0, "laws"), (n,))
    agrees(normal, "normal law's quantile", "scipy's inverse of it", stats.norm.cdf(z), u, rtol=1e-12, atol=1e-12)
    assert abs(z.mean()) < 4.5 / math.sqrt(n)
    assert abs(z.var() - 1) < 4.5 * math.sqrt(2 / n)
    p = stats.kstest(z, "norm").pvalue
    measured(normal, "p of 100,000 numbers", "Kolmogorov and Smirnov", "≥ 1e-4", p, least=1e-4)
    for lag in (1, 2, 3, 4, 317):
        assert abs(np.mean(z[lag:] * z[:-lag])) < 4.5 / math.sqrt(n)


def test_the_extreme_words_of_the_generator_stay_inside(monkeypatch):
    """All bits zero and all bits one: nothing is rounded to 0 or 1, and every normal number is finite."""
    monkeypatch.setattr(keyed, "_run", lambda key, start, count: np.array([0, 2**64 - 1], dtype=np.uint64))
    u = uniform(KEY, (2,))
    assert u[0] > 0 and u[1] < 1
    np.testing.assert_allclose(normal(KEY, (2,)), [-8.2095, 8.2095], atol=1e-4)


def test_realizations_are_independent_normals():
    """Over realizations at one cell, and over cells at one realization."""
    z = np.stack([normal(Key(1, "base", r, "t=0", "v"), (6, 5)) for r in range(600)])
    assert np.abs(z.mean(0)).max() < 4.5 / math.sqrt(600)
    assert np.abs(z.var(0) - 1).max() < 4.5 * math.sqrt(2 / 600)
    flat = z.reshape(600, -1)
    correlation = flat.T @ flat / 600 - np.eye(30)
    assert np.abs(correlation[np.triu_indices(30, 1)]).max() < 5 / math.sqrt(600)
