"""Motion by phase correlation against patterns that were moved by a known amount."""

import numpy as np
import pytest

from undrift.data.motion import carried, motion


def pattern(shape, width=2.0, seed=0):
    """The spectrum of a smooth periodic field."""
    k = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    noise = np.fft.fftn(np.random.default_rng(seed).normal(size=shape))
    return noise * np.exp(-2 * (np.pi * width) ** 2 * sum(a**2 for a in k))


def shifted(spectrum, by):
    """The field moved by so many cells along each axis, exactly."""
    k = np.meshgrid(*(np.fft.fftfreq(n) for n in spectrum.shape), indexing="ij")
    return np.fft.ifftn(spectrum * np.exp(-2j * np.pi * sum(a * b for a, b in zip(k, by)))).real


@pytest.mark.parametrize(
    ("shape", "by"),
    [((40, 48), (1.3, -2.6)), ((96, 80), (-3.0, 5.4)), ((128,), (2.7,)), ((24, 20, 28), (1.0, -0.7, 2.4))],
)
def test_a_periodic_pattern_that_moves_as_one_is_followed(shape, by):
    spectrum = pattern(shape)
    frames = np.stack([shifted(spectrum, [k * b for b in by]) for k in range(3)])[None]
    found = motion(frames, [True] * len(shape))
    assert found.shape == (len(shape), *shape)
    np.testing.assert_allclose(found.reshape(len(shape), -1).T, np.tile(by, (np.prod(shape), 1)), atol=0.12)


def test_what_is_carried_on_is_where_the_pattern_goes():
    """Whole cells exactly; fractions as far as linear interpolation goes."""
    spectrum = pattern((32, 48), width=4.0)
    frame = shifted(spectrum, (0, 0))
    out = carried(frame[None], np.broadcast_to(np.array([2.0, -3.0])[:, None, None], (2, 32, 48)), (True, True), (1, 4))
    for got, steps in zip(out, (1, 4)):
        np.testing.assert_allclose(got[0], np.roll(frame, (2 * steps, -3 * steps), (0, 1)), atol=1e-12)
    half = carried(frame[None], np.full((2, 32, 48), 0.5), (True, True), [3])[0, 0]
    error = half - shifted(spectrum, (1.5, 1.5))
    assert error.std() < 0.03 * frame.std()


def test_through_an_open_end_comes_the_value_at_the_end():
    frame = np.arange(6.0)[None]
    out = carried(frame, np.full((1, 6), 2.0), (False,), [1, 2])
    np.testing.assert_allclose(out[:, 0], [[0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1]])
    np.testing.assert_allclose(carried(frame, np.full((1, 6), 2.0), (True,), [1])[0, 0], np.roll(np.arange(6.0), 2))


def test_a_turning_pattern_moves_as_a_solid_body():
    """v = omega x r about the centre of a domain with open ends: the motion of each part is its own."""
    from scipy.ndimage import map_coordinates

    size, omega = 128, 0.04
    field = shifted(pattern((size, size), width=2.5), (0, 0))
    y, x = np.meshgrid(*2 * [np.arange(size) - (size - 1) / 2], indexing="ij")
    frames = []
    for angle in (0.0, omega):
        c, s = np.cos(angle), np.sin(angle)
        frames.append(map_coordinates(field, [c * y + s * x + 63.5, -s * y + c * x + 63.5], mode="nearest"))
    found = motion(np.stack(frames)[None], (False, False))
    inside = np.hypot(y, x) < 45
    true = np.stack([-omega * x, omega * y])[:, inside]
    assert np.sqrt(((found[:, inside] - true) ** 2).mean()) < 0.25 * true.std()
    assert 0.75 < (found[:, inside] * true).sum() / (true**2).sum() < 1.05


def test_nothing_moves_where_there_is_nothing():
    frames = np.zeros((1, 3, 80, 80))
    np.testing.assert_array_equal(motion(frames, (False, False)), 0)
    frames[:] = np.nan
    np.testing.assert_array_equal(motion(frames, (True, True)), 0)
