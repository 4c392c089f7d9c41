"""The stateless sampler: every sample once an epoch, and a step is a function of its number."""

import numpy as np
import pytest

from undrift.data.windows import Windows


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (7, 16), (16, 8), (1, 3)])
def test_every_sample_once_an_epoch(count, batch):
    w = Windows(count, batch, (8, 8), None, seed=5)
    epochs = 6
    steps = -(-epochs * count // batch)
    seen = np.concatenate([w.rows(step) for step in range(steps)])[: epochs * count].reshape(epochs, count)
    np.testing.assert_array_equal(np.sort(seen, axis=1), np.broadcast_to(np.arange(count), seen.shape))
    assert count < 5 or len({tuple(row) for row in seen}) == epochs


def test_a_step_needs_none_of_those_before():
    a, b = Windows(50, 16, (40, 30), 8, seed=1), Windows(50, 16, (40, 30), 8, seed=1)
    in_order = [(a.rows(s), a.window(s), a.rng(3, s).random(4)) for s in range(12)]
    for s in (11, 3, 7, 0):
        rows, window, numbers = in_order[s]
        np.testing.assert_array_equal(b.rows(s), rows)
        assert b.window(s) == window
        np.testing.assert_array_equal(b.rng(3, s).random(4), numbers)
    other = Windows(50, 16, (40, 30), 8, seed=2)
    assert any(other.window(s) != in_order[s][1] for s in range(12))
    assert not np.array_equal(other.rows(0), in_order[0][0])
    assert not np.array_equal(a.rng(3, 1).random(4), a.rng(4, 1).random(4))
    assert not np.array_equal(a.rng(3, 1).random(4), a.rng(3, 2).random(4))


def test_corners_are_uniform_over_all_places_where_a_window_fits():
    w = Windows(4, 2, (12, 6), 8, seed=0)
    windows = [w.window(step) for step in range(3000)]
    assert {x.stop - x.start for _, x in windows} == {6}
    counts = np.bincount([y.start for y, _ in windows], minlength=5)
    assert counts.size == 5 and {y.stop - y.start for y, _ in windows} == {8}
    chi_square = ((counts - 600) ** 2 / 600).sum()
    assert chi_square < 23.5  # 4 degrees of freedom, p = 1e-4
    assert Windows(4, 2, (12, 6), None, seed=0).window(3) is None
