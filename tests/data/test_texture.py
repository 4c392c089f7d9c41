"""Draws that hang together: each uniform, and with the spectrum that is asked for."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from undrift.data.texture import Texture, spectra_of, wavenumbers
from undrift.data.waves import waves

SHAPE = (20, 24)
EDGES = np.array([0.03, 0.06, 0.12, 0.25])
POWERS = np.array([[50.0, 20.0, 5.0, 1.0, 0.2], [1.0, 1.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_ranks_are_uniform_everywhere_and_have_the_correlation_of_the_spectrum(periodic):
    texture, draw, n = Texture(POWERS, EDGES, periodic), np.random.default_rng(0), 1500
    fields = np.stack([ndtri(texture.ranks(np.array([0]), SHAPE, draw))[0] for _ in range(n)])
    assert np.abs(fields.mean(0)).max() < 5 / np.sqrt(n)
    assert np.abs(fields.var(0) - 1).max() < 5 * np.sqrt(2 / n)  # at the ends too
    assert stats.kstest(fields[:, 3, 7], "norm").pvalue > 1e-4
    # the dense covariance of cosines and waves, as a correlation
    basis = np.kron(*(waves(m, wrap)[0] for m, wrap in zip(SHAPE, periodic)))
    power = POWERS[0][np.searchsorted(EDGES, wavenumbers(SHAPE, periodic)).ravel()]
    dense = basis.T @ (power[:, None] * basis)
    scale = np.sqrt(np.diag(dense))
    here = 5 * SHAPE[1] + 6
    expected = (dense / np.outer(scale, scale))[here].reshape(SHAPE)
    found = (fields * fields[:, 5, 6][:, None, None]).mean(0)
    assert np.abs(found - expected).max() < 5.5 / np.sqrt(n)
    assert expected[5, 7] > 0.6


def test_a_flat_spectrum_is_white_and_the_floor_of_another_is_taken_away():
    texture = Texture(POWERS, EDGES, (False, False))
    white = ndtri(texture.ranks(np.array([1]), SHAPE, np.random.default_rng(1)))[0]
    assert abs(np.corrcoef(white[:, 1:].ravel(), white[:, :-1].ravel())[0, 1]) < 4.5 / np.sqrt(white.size)
    bare = Texture.without_floor(POWERS + 0.3, EDGES, (False, False))
    np.testing.assert_allclose(bare.powers[0, :4], POWERS[0, :4] - 0.2)
    again = Texture.from_arrays(texture.to_arrays(), (False, False))
    one, two = (t.ranks(np.array([0, 1]), (8, 9), np.random.default_rng(2)) for t in (texture, again))
    np.testing.assert_array_equal(one, two)


def test_spectra_are_those_of_the_fields_that_count():
    rng, shape, periodic = np.random.default_rng(3), (24, 32), (False, True)
    bases = [waves(n, wrap)[0] for n, wrap in zip(shape, periodic)]
    power = 5 / (1 + (wavenumbers(shape, periodic) / 0.1) ** 2)
    drawn = [bases[0].T @ (np.sqrt(power) * rng.normal(size=shape)) @ bases[1] for _ in range(100)]
    powers, edges = spectra_of(
        [(np.stack([f, 9 * f * i]), np.array([True, i == 0])) for i, f in enumerate(drawn)], periodic
    )
    bins = np.searchsorted(edges, wavenumbers(shape, periodic))
    for b in np.unique(bins):
        error = 5 * np.sqrt(2 / (100 * (bins == b).sum()))
        assert powers[0, b] == pytest.approx(power[bins == b].mean(), rel=error + 0.05)
    assert (powers[1] < 1e-6).all()
