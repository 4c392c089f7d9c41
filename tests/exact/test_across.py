"""What variables of a cell tell of each other, beside dense conditioning."""

import numpy as np
import pytest

from undrift.data.across import Across, correlated, fit_across
from undrift.data.window_law import WindowLaw

RNG = np.random.default_rng(4)
VARIABLES, FRAMES, CELLS = 3, 4, 5
LAGS = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
IN_TIME = 0.7**LAGS


def correlations(count):
    """Of a different kind in each cell."""
    roots = RNG.normal(size=(count, VARIABLES, VARIABLES)) + np.eye(VARIABLES)
    covariance = roots @ roots.swapaxes(1, 2)
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return covariance / (std[:, :, None] * std[:, None, :])


def conditioned(covariance, r, known):
    """Dense mean and variance of a vector given its known part."""
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known]).T
    return gain @ r[known], np.diag(covariance - gain @ covariance[known])


@pytest.mark.parametrize("cells", [CELLS, 1])
@pytest.mark.parametrize("later", [False, True])
def test_separable_laws_are_conditioned_exactly(cells, later):
    """Variables given others in all frames; also where the asked one is known in another frame."""
    across, own = correlations(cells), RNG.random((VARIABLES, CELLS)) + 0.5
    none = np.zeros((0, VARIABLES * CELLS)), np.zeros((0, 0))
    law = WindowLaw(*none, own, np.stack([IN_TIME] * VARIABLES), across=Across(across))
    r = RNG.normal(size=(VARIABLES, FRAMES, CELLS))
    known = np.zeros(r.shape, bool)
    known[0, 1 if later else slice(None)] = True
    if later:
        known[1, 3] = True
    else:
        known[2, :, :3] = True
    mean, std = law.given(r, known)
    for i in range(CELLS):
        scale = np.sqrt(own[:, i])
        full = np.kron(across[min(i, cells - 1)] * np.outer(scale, scale), IN_TIME)
        expected, variance = conditioned(full, r[:, :, i].ravel(), known[:, :, i].ravel())
        expected, variance = expected.reshape(VARIABLES, FRAMES), variance.reshape(VARIABLES, FRAMES)
        at = ~known[:, :, i]
        if later:  # what another variable was in another frame tells of this one is left out
            at = np.zeros_like(at)
            at[1, 1] = True
        np.testing.assert_allclose(mean[..., i][at], expected[at], rtol=1e-9)
        np.testing.assert_allclose(std[..., i][at] ** 2, variance[at], rtol=1e-9)


def test_the_share_that_is_not_believed_is_chosen_by_held_out_products():
    """Many samples: hardly shrunk, and coefficients are those of the law. None to see: all of it."""
    truth = correlations(CELLS)
    drawn = np.einsum("cvw,ncw->ncv", np.linalg.cholesky(truth), RNG.normal(size=(6000, CELLS, VARIABLES)))
    products = [np.einsum("ncv,ncw->cvw", part, part) / 1500 for part in np.split(drawn, 4)]
    assert fit_across(products, [1500] * 4) == 0.05
    np.testing.assert_allclose(correlated(np.mean(products, 0), 0.0), truth, atol=0.06)
    few = [np.einsum("ncv,ncw->cvw", part, part) / 6 for part in np.split(RNG.normal(size=(24, 200, VARIABLES)), 4)]
    assert fit_across(few, [6] * 4) >= 0.5


def test_correlations_of_too_many_cells_are_those_of_their_mean(monkeypatch):
    """And a variable that never varies has none."""
    monkeypatch.setattr("undrift.data.across._NUMBERS", 6)
    products = np.array([[[4.0, 1.0], [1.0, 1.0]], [[4.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_allclose(correlated(products, 0.2), [[[1, 0.2], [0.2, 1]]])
    dry = correlated(np.array([[[1.0, 0.0], [0.0, 0.0]]]), 0.0)
    np.testing.assert_array_equal(dry, [np.eye(2)])
