"""Autocorrelation times and blocks of chains: against closed forms and sums by hand."""

import numpy as np
import pytest
from scipy.signal import lfilter

from undrift.data.autocorrelation import autocorrelation_time, blocks


def remembering(phi, n, seed=0):
    return lfilter([1.0], [1.0, -phi], np.random.default_rng(seed).standard_normal(n))[:, None]


def test_the_autocorrelation_time_of_an_autoregression():
    """tau = (1 + phi) / (1 - phi); the standard error is tau sqrt(2 (2 * 5 + 1) tau / n) (Sokal 1997)."""
    n = 40_000
    for phi in (0.0, 0.5, 0.9):
        tau = (1 + phi) / (1 - phi)
        found = autocorrelation_time(remembering(phi, n))
        assert found == pytest.approx(tau, abs=4 * tau * np.sqrt(22 * tau / n))
    both = np.hstack([remembering(0.5, n), remembering(0.9, n)])
    assert autocorrelation_time(both) == autocorrelation_time(both[:, 1:])


def test_blocks_are_five_times_as_long_and_stay_in_a_chain():
    n = 10_000
    values = np.concatenate([remembering(0.9, n), remembering(0.0, n, 1)])
    chain = np.repeat([0, 1], n)
    found = blocks(values, chain)
    lengths = np.bincount(found)
    assert lengths[0] == int(np.ceil(5 * autocorrelation_time(values[:n])))
    assert (np.diff(found) >= 0).all() and found[n] == found[n - 1] + 1
    assert (lengths[found[n] :] == 1).all()
    short = blocks(remembering(0.99, 400), np.zeros(400, int))
    assert np.bincount(short).tolist() == [10] * 40
