"""Windows with rain drawn more often: the probabilities to the digit, and an expectation that stays."""

import itertools

import numpy as np
import pytest

from undrift.data.importance import BLOCK, Importance
from undrift.data.windows import Windows

SHAPE, CROP, COUNT, SHARE = (40, 30), 16, 5, 0.6


@pytest.fixture
def amounts():
    rng = np.random.default_rng(0)
    shape = (COUNT, *(-(-n // BLOCK) for n in SHAPE))
    return rng.gamma(0.3, 1.0, shape) * (rng.random(shape) < 0.4)


def drawn(amounts, share=SHARE, crop=CROP):
    return Importance(Windows(COUNT, 4, SHAPE, crop, seed=3), amounts, share)


def inside(amounts, window):
    """The amount of the blocks that begin in a window, counted one by one."""
    total = np.zeros(len(amounts))
    for place in itertools.product(*(range(n) for n in amounts.shape[1:])):
        if all(part.start <= BLOCK * p < part.stop for p, part in zip(place, window)):
            total += amounts[(slice(None), *place)]
    return total


def test_probabilities_are_those_of_the_formula(amounts):
    source = drawn(amounts)
    corners = list(itertools.product(range(SHAPE[0] - CROP + 1), range(SHAPE[1] - CROP + 1)))
    windows = [tuple(slice(s, s + CROP) for s in corner) for corner in corners]
    r = np.array([inside(amounts, w) for w in windows])
    expected = (1 - SHARE) / len(corners) + SHARE * r.sum(1) / r.sum()
    np.testing.assert_allclose(source.corners.ravel(), expected, rtol=1e-9)
    for w, one in list(zip(windows, r))[::37]:
        rows = (1 - SHARE) / COUNT + SHARE * one / one.sum() if one.sum() else np.full(COUNT, 1 / COUNT)
        np.testing.assert_allclose(source.chances(w), rows, rtol=1e-9)


def test_the_weights_undo_the_probabilities(amounts):
    """The expected weight is 1, so is the expectation of any loss what it is of even draws."""
    source, steps = drawn(amounts), 4000
    loss = lambda i, w: (1 + i) * (1 + w[0].start) + (inside(amounts, w)[i] > 1) * 30.0  # noqa: E731
    means, weights, rain = [], [], []
    for step in range(steps):
        rows, window, counts = source.draw(step)
        means.append(np.mean([c * loss(i, window) for i, c in zip(rows, counts)]))
        weights.append(counts)
        rain.append(inside(amounts, window)[rows])
    corners = itertools.product(range(SHAPE[0] - CROP + 1), range(SHAPE[1] - CROP + 1))
    every = [tuple(slice(s, s + CROP) for s in corner) for corner in corners]
    even = np.mean([[loss(i, w) for i in range(COUNT)] for w in every])
    assert abs(np.mean(means) - even) < 4.5 * np.std(means) / np.sqrt(steps)
    assert abs(np.mean(weights) - 1) < 4.5 * np.std(np.mean(weights, 1)) / np.sqrt(steps)
    assert np.max(weights) <= 1 / (1 - SHARE) ** 2 + 1e-9
    assert np.mean(rain) > 1.5 * np.mean([inside(amounts, w) for w in every])


def test_a_draw_is_a_function_of_seed_and_step(amounts):
    a, b = drawn(amounts), drawn(amounts)
    in_order = [a.draw(step) for step in range(5)]
    for step in (4, 0, 2):
        for mine, theirs in zip(b.draw(step), in_order[step]):
            np.testing.assert_array_equal(mine, theirs)


def test_without_rain_or_crop_all_is_even(amounts):
    rows, window, counts = drawn(0 * amounts).draw(0)
    np.testing.assert_allclose(counts, 1, rtol=1e-12)
    assert window is not None and len(rows) == 4
    whole = drawn(amounts, crop=None)
    total = amounts.reshape(COUNT, -1).sum(1)
    np.testing.assert_allclose(whole.chances(None), (1 - SHARE) / COUNT + SHARE * total / total.sum(), rtol=1e-9)
    assert whole.draw(0)[1] is None
