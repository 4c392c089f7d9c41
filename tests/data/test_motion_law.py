"""The predictor of frames that move, against fields that move, fade and hide by a known law."""

import itertools

import numpy as np
import pytest
from scipy import stats

from undrift.data.motion_law import MotionLaw, MotionLaws, _regressed, fit_motion_laws, octaves, roughness

PERIODIC = (True, True)
FADE, PAST, LEADS, BY = 0.8, 2, 3, (1, -2)


def waves(n=32, seed=0):
    """A smooth periodic field of variance 1."""
    rng = np.random.default_rng(seed)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * np.exp(-200 * (k - 0.08) ** 2)).real
    return (field - field.mean()) / field.std()


def moving(number, low=-np.inf):
    """Windows (1, T, y, x) of fields that move by whole cells and keep FADE of themselves each frame after the past."""
    for i in range(number):
        frames = [waves(seed=10 * i)]
        for t in range(1, PAST + LEADS):
            on = np.roll(frames[-1], BY, (0, 1))
            new = waves(seed=10 * i + t)
            frames.append(on if t < PAST else FADE * on + np.sqrt(1 - FADE**2) * new)
        window = np.stack(frames)[None]
        yield np.where(window <= low, -np.inf, window)


def law_of(leads, constant):
    """All octaves kept, with a spread of 1."""
    shape = (1, leads, 2)
    weights, ends = np.concatenate([np.ones((*shape, 5)), np.zeros((*shape, 3))], -1), np.full(1, np.inf)
    return MotionLaw(weights, constant, np.ones(shape), np.zeros(shape), np.full(1, 1e-6), -ends, ends, PAST)


def fitted(number, low=-np.inf):
    fold = np.repeat(np.arange(4), number // 4)
    bounds = {"low": np.array([low]), "high": np.array([np.inf])}
    return fit_motion_laws(moving(number, low), fold, past=PAST, periodic=PERIODIC, **bounds)


def test_octaves_add_up_and_hold_what_gaussian_filters_leave():
    """Of a wave of k cycles a cell G_s leaves exp(-2 (pi s k)^2), so each octave has the difference of two of these."""
    n, k = 64, 5 / 64
    wave = np.broadcast_to(np.cos(2 * np.pi * k * np.arange(n))[:, None], (n, n))[None]
    found = octaves(wave, PERIODIC)
    np.testing.assert_allclose(found.sum(1), wave, atol=1e-12)
    left = [1.0, *np.exp(-2 * (np.pi * k * 2.0 ** np.arange(5)) ** 2), 0.0]  # filters of 1 to 16 cells
    assert found.shape[1] == 6
    for band, (more, less) in enumerate(itertools.pairwise(left)):
        np.testing.assert_allclose(found[0, band], (more - less) * wave[0], atol=3e-3)


def test_weights_and_spread_are_those_of_the_law_that_made_the_fields():
    law = fitted(40).of(None)
    for lead in range(LEADS):
        kept = FADE ** (lead + 1)
        found = law.spread(law.ahead(next(moving(1))[:, :PAST], PERIODIC))[0, lead]
        assert found.mean() == pytest.approx(np.sqrt(1 - kept**2), rel=0.05)
    for window in moving(3):
        found = law.ahead(window[:, :PAST], PERIODIC)
        on = np.roll(window[0, PAST - 1], BY, (0, 1))
        np.testing.assert_allclose(found.last[0, 0], on, atol=0.1)
        for lead in range(LEADS):
            there = np.roll(on, (lead * BY[0], lead * BY[1]), (0, 1)).ravel()
            assert np.polyfit(there, found.mean[0, lead].ravel(), 1)[0] == pytest.approx(FADE ** (lead + 1), rel=0.05)
        assert found.inside.all()


def test_dry_cells_do_not_bias_the_law():
    """Half of the cells are below the threshold: a fit to clipped values would have half the spread."""
    wet = fitted(40, 0.0).of(None)
    spread = wet.spread(wet.ahead(next(moving(1, 0.0))[:, :PAST], PERIODIC)).mean((0, 2, 3))
    np.testing.assert_allclose(spread, np.sqrt(1 - FADE ** (2 * np.arange(1, 4))), rtol=0.12)
    shares, truth = [], []
    for window in moving(8, 0.0):
        found = wet.ahead(window[:, :PAST], PERIODIC)
        for lead in range(LEADS):
            shares.append(stats.norm.cdf(-found.mean[0, lead] / wet.spread(found)[0, lead]).mean())
            truth.append(np.isneginf(window[0, PAST + lead]).mean())
    assert np.mean(shares) == pytest.approx(np.mean(truth), abs=0.02)


def test_a_censored_regression_finds_the_line_beneath_the_threshold():
    rng, n, low = np.random.default_rng(1), 40_000, 0.3
    x = rng.normal(size=(2, n))
    u = 0.2 + 0.7 * x[0] + 0.1 * x[1] + 0.5 * rng.normal(size=n)
    rough = np.exp(0.5 * rng.normal(size=n))
    weights, constant, std, power = _regressed(x, rough, np.where(u < low, -np.inf, u), low, np.inf)
    error = 0.5 / np.sqrt(n) * np.sqrt(2)  # half of the cells tell little
    np.testing.assert_allclose(weights, [0.7, 0.1], atol=5 * error)
    assert constant == pytest.approx(0.2, abs=0.03) and std == pytest.approx(0.5, abs=0.02) and power <= 0.05
    weights, *_ = _regressed(x, rough, -0.5 * x[0] + 1.5 * x[1] + 0 * u, -np.inf, np.inf)
    np.testing.assert_allclose(weights, [0.0, 1.0], atol=1e-3)  # none grows, and none turns its sign


def test_the_spread_grows_with_the_roughness_as_in_the_law_that_made_the_latents():
    rng, n, low = np.random.default_rng(2), 40_000, -0.5
    x, rough = rng.normal(size=(1, n)), 2 * np.exp(0.7 * rng.normal(size=n))
    u = 0.1 + 0.6 * x[0] + 0.4 * rough**0.8 * rng.normal(size=n)
    for seen, bound in ((u, -np.inf), (np.where(u < low, -np.inf, u), low)):
        weights, constant, std, power = _regressed(x, rough, seen, bound, np.inf)
        assert power == pytest.approx(0.8, abs=0.06) and std == pytest.approx(0.4, rel=0.03)
        assert weights[0] == pytest.approx(0.6, abs=0.02) and constant == pytest.approx(0.1, abs=0.02)
    assert np.isclose(roughness(np.ones((1, 4, 16, 16)), PERIODIC), 3).all()  # the sum of three octaves


def test_cells_that_the_motion_fills_from_outside_are_told():
    """A field that moves by (1, -2) cells a frame brings what is unknown into so many rows and columns."""
    big = waves(96, seed=3)
    frames = np.stack([big[32 - t : 72 - t, 20 + 2 * t : 60 + 2 * t] for t in range(2)])[None]
    law = law_of(2, np.array([[[0.0, 9.0]] * 2]))
    found = law.ahead(frames, (False, False))
    for lead in range(2):
        expected = np.ones((40, 40), bool)
        expected[: lead + 1], expected[:, 40 - 2 * (lead + 1) :] = False, False
        assert (found.inside[lead] != expected).mean() < 0.05
        inner = np.zeros((40, 40), bool)
        inner[4:-1, :-6] = True
        ahead = big[30 - lead : 70 - lead, 24 + 2 * lead : 64 + 2 * lead]
        assert np.sqrt(np.mean((found.mean[0, lead][inner] - ahead[inner]) ** 2)) < 0.12
    assert (found.mean[0, 1][~found.inside[1]] > 5).all()  # its constant


def test_a_past_that_is_not_whole_tells_nothing_and_a_few_gaps_are_filled():
    laws = MotionLaws([law_of(1, np.zeros((1, 1, 2)))], PERIODIC)
    window = np.concatenate([next(moving(1))[0, :2], np.full((1, 32, 32), np.nan)])[None]
    mask = np.zeros(window.shape[1:], bool)
    (whole,) = laws.seen(window, mask, None)
    assert whole is not None
    window[0, 1, 5:8, 5:8] = np.nan
    (few,) = laws.seen(window, mask, None)
    assert few is not None and np.isfinite(few.mean).all() and 0 < (~few.inside).sum() < 30
    window[0, 1, :8] = np.nan
    assert laws.seen(window, mask, None) == [None]
    mask[:, :8] = True  # these cells never have a value
    window[0, :, :8] = np.nan
    assert laws.seen(window, mask, None)[0] is not None


def test_frames_before_known_ones_are_carried_back_along_the_motion():
    """Rain that only moves: the past given what is after it is that, moved back, and given the past nothing changes."""

    def window(seed):
        first = np.maximum(waves(seed=seed), 0) ** 2
        frames = np.stack([np.roll(first, (t * BY[0], t * BY[1]), (0, 1)) for t in range(PAST + LEADS)])[None]
        return np.where(frames <= 0, -np.inf, frames)

    bounds = {"low": np.zeros(1), "high": np.array([np.inf])}
    fold = np.repeat(np.arange(4), 4)
    laws = fit_motion_laws(map(window, range(16)), fold, past=PAST, periodic=PERIODIC, **bounds)
    assert (laws.of(None).past, laws.of(None, back=True).past, laws.of(None, back=True).frames) == (2, 2, 4)
    truth = window(99)
    given = np.where(np.arange(PAST + LEADS)[:, None, None] < PAST, np.nan, truth)
    never = np.zeros(given.shape[1:], bool)
    (found,) = laws.seen(given, never, None)
    assert found.back and found.inside.all()
    mean, std = np.full((2, 1, *given.shape[1:]), 9.0)
    carried, reached = laws.put([found], ~np.isnan(given), None, mean, std)
    wet = truth[0, :PAST] > 0.3
    away = (mean[0, :PAST] - truth[0, :PAST])[wet]
    assert np.sqrt((away**2).mean()) < 0.1 * truth[0, :PAST][wet].std()
    assert (mean[0, PAST:] == 9).all() and (std[0, PAST:] == 9).all() and (std[0, :PAST] < 0.3).all()
    assert reached[0, :PAST].all() and not reached[0, PAST:].any()
    np.testing.assert_allclose(carried[0, :PAST][wet], truth[0, :PAST][wet], atol=0.15)
    (on,) = laws.seen(np.where(np.arange(PAST + LEADS)[:, None, None] < PAST, truth, np.nan), never, None)
    assert not on.back
    wider = laws.widened(np.array([[2.0, 3.0, 1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(wider.of(None, True).std, laws.of(None, True).std * np.array([3.0, 2.0])[:, None])
    read = MotionLaws.from_arrays(laws.to_arrays(), PERIODIC)
    np.testing.assert_array_equal(read.seen(given, never, None)[0].mean, found.mean)
