"""Simple forecasts and their dress, against processes whose best forecasts and errors are known."""

import numpy as np
import pytest

from undrift.distributions.climatology import fit_climatologies
from undrift.distributions.eof_ridge import fit_eof_ridges
from undrift.distributions.forecast_baselines import fit_forecast_baselines, persistence
from undrift.distributions.record import Record, blocks_of, known_at
from undrift.errors import DataError

STEPS = np.array([1, 3])


def dates(count, every="h", first="2001-01-01"):
    return np.datetime64(first, "ns") + np.arange(count) * np.timedelta64(1, every)


def ar1(count=1500, phi=(0.9, 0.6, 0.0), seed=0, cells=12):
    """Three orthogonal patterns whose amplitudes are AR(1) of variances 9, 4 and 1; and the patterns (3, cells)."""
    rng = np.random.default_rng(seed)
    patterns = np.linalg.qr(rng.normal(size=(cells, 3)))[0].T
    phi, sd = np.array(phi), np.array([3.0, 2.0, 1.0])
    p = [rng.normal(size=3)]
    for _ in range(count - 1):
        p.append(phi * p[-1] + np.sqrt(1 - phi**2) * rng.normal(size=3))
    values = (np.array(p) * sd) @ patterns
    return Record(values[:, None].astype(np.float32), dates(count), np.arange(count)), patterns, phi, sd


def test_blocks_leave_out_whatever_their_forecasts_touch():
    place = np.concatenate([np.arange(40), 100 + np.arange(60)])
    record = Record(np.zeros((100, 1, 2)), dates(100), place)
    *blocks, whole = blocks_of(record, 3, STEPS)
    starts = np.concatenate([block.starts for block in blocks])
    np.testing.assert_array_equal(starts, whole.starts)
    np.testing.assert_array_equal(starts, [*range(2, 37), *range(42, 97)])
    for block in blocks:
        for step in (-2, -1, 0, 1, 3):
            assert not block.keep[record.rows(block.starts, [step])].any()
    assert whole.keep.all() and sum(block.keep.sum() for block in blocks) > 4 * 100 - 5 * 5 - 5
    with pytest.raises(DataError, match="no 3 frames in a row that are followed by one 60 steps later"):
        blocks_of(record, 3, np.array([60]))
    with pytest.raises(DataError, match="40 frames is too short to leave out blocks of time for forecasts of 38 steps"):
        blocks_of(Record(np.zeros((40, 1, 2)), dates(40), np.arange(40)), 1, np.array([38]))


def test_climatology_is_the_cycle_of_the_day_and_the_year():
    """Two years of 3-hourly frames: the mean, the year, the day, and a day that is stronger in one season."""
    time = dates(2 * 365 * 8, first="2001-01-01")[0] + np.arange(2 * 365 * 8) * np.timedelta64(3, "h")
    year, day = 2 * np.pi * np.arange(len(time)) / (365 * 8), 2 * np.pi * np.arange(len(time)) / 8
    cycle = 280 + 10 * np.cos(year - 1) + 3 * np.sin(day) + 2 * np.cos(year) * np.sin(2 * day)
    noise = np.random.default_rng(0).normal(size=(len(time), 1, 6))
    record = Record((cycle[:, None, None] + noise).astype(np.float32), time, np.arange(len(time)))
    found = fit_climatologies(record, blocks_of(record, 1, STEPS))[-1]
    assert found.cycles == (1, 2)
    away = found(time)[:, 0] - cycle[:, None]
    assert np.sqrt((away**2).mean()) < 2 * np.sqrt(15 / len(time))  # 3 x 5 coefficients
    ahead = np.array(["2004-07-01T09"], "datetime64[ns]")
    np.testing.assert_allclose(found(ahead)[0, 0], cycle[(181 * 8 + 3)], atol=0.5)


def test_noise_alone_has_no_cycle():
    rng = np.random.default_rng(1)
    record = Record(rng.normal(size=(400, 1, 8)).astype(np.float32), dates(400, "D"), np.arange(400))
    found = fit_climatologies(record, blocks_of(record, 1, STEPS))[-1]
    assert found.cycles == (0, 0)
    np.testing.assert_allclose(found.coefficients[0, 0], record.values.mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_ridge_finds_the_best_forecast_of_an_ar1_process():
    """The best forecast of each amplitude is phi^k times it, and leaves 1 - phi^(2k) of its variance."""
    record, patterns, phi, sd = ar1()
    blocks = blocks_of(record, 2, STEPS)
    ridge = fit_eof_ridges(record, blocks, fit_climatologies(record, blocks), 2, STEPS)[-1]
    test, *_ = ar1(seed=5)
    test = Record((test.values[:, 0] @ ar1(seed=5)[1].T @ patterns)[:, None], test.times, test.place)
    known, truth = known_at(test, np.arange(1, 1400), 2, STEPS)
    guess = ridge(known)
    for lead, step in enumerate(STEPS):
        best = (known.past[:, 0, -1] @ patterns.T * phi**step) @ patterns
        excess = ((guess[:, lead, 0] - best) ** 2).sum(1).mean()
        least = (sd**2 * (1 - phi ** (2.0 * step))).sum()
        assert excess < 0.06 * least
        np.testing.assert_allclose(((guess[:, lead, 0] - truth[:, lead, 0]) ** 2).sum(1).mean(), least, rtol=0.12)


def test_each_channel_is_forecast_in_its_own_units():
    """The same field in another unit: what is forecast of it is the same in that unit."""
    record, *_ = ar1(count=600)
    both = Record(np.concatenate([record.values, 30 * record.values + 273], 1), record.times, record.place)
    blocks = blocks_of(both, 2, STEPS)
    ridge = fit_eof_ridges(both, blocks, fit_climatologies(both, blocks), 2, STEPS)[-1]
    guess = ridge(known_at(both, np.arange(100, 120), 2, STEPS)[0])
    np.testing.assert_allclose(guess[:, :, 1], 30 * guess[:, :, 0] + 273, rtol=1e-5, atol=1e-3)
    alone = fit_eof_ridges(record, blocks, fit_climatologies(record, blocks), 2, STEPS)[-1]
    want = alone(known_at(record, np.arange(100, 120), 2, STEPS)[0])
    np.testing.assert_allclose(guess[:, :, 0], want[:, :, 0], atol=0.02)


def test_ridge_with_too_few_starts_is_none():
    record, *_ = ar1(count=20)
    blocks = blocks_of(record, 2, STEPS)
    assert fit_eof_ridges(record, blocks, fit_climatologies(record, blocks), 2, STEPS) is None


def test_the_dress_of_each_lead_has_the_spread_of_its_error():
    """Persistence of an AR(1) amplitude leaves 2 (1 - phi^k) of its variance, climatology all of it."""
    record, patterns, phi, sd = ar1(count=3000, phi=(0.9, 0.6, 0.3))
    found, absent = fit_forecast_baselines(record, 2, STEPS, [False])
    assert set(found) == {"persistence", "Lagrangian persistence", "climatology", "EOF ridge"} and not absent
    for lead, step in enumerate(STEPS):
        spread = {name: one.members[:, lead, 0].var(0) for name, one in found.items()}
        power = sd**2 @ patterns**2
        np.testing.assert_allclose(spread["climatology"].sum(), power.sum(), rtol=0.2)
        np.testing.assert_allclose(spread["persistence"].sum(), (2 * sd**2 * (1 - phi ** (1.0 * step))).sum(), rtol=0.2)
        np.testing.assert_allclose(spread["EOF ridge"].sum(), (sd**2 * (1 - phi ** (2.0 * step))).sum(), rtol=0.2)
    known, _ = known_at(record, np.array([7]), 2, STEPS)
    np.testing.assert_array_equal(persistence(known)[0], np.repeat(record.values[[7]], 2, 0))


def test_errors_of_the_dress_are_of_forecasts_that_did_not_see_the_block():
    """As many EOFs as cells and no noise to average over: a fit that had seen the starts would leave too little."""
    rng = np.random.default_rng(2)
    record = Record(rng.normal(size=(120, 1, 60)).astype(np.float32), dates(120), np.arange(120))
    found, _ = fit_forecast_baselines(record, 3, np.array([1]), [False])
    assert found["EOF ridge"].members.var(0).mean() > 0.95
    assert found["climatology"].members.var(0).mean() > 0.95


def test_one_past_frame_shows_no_motion():
    record, *_ = ar1(count=300)
    found, absent = fit_forecast_baselines(record, 1, STEPS, [False])
    assert "Lagrangian persistence" not in found and "no Lagrangian persistence" in absent[0]


def test_a_travelling_wave_is_carried_on():
    """A wave that goes a cell a step is forecast without error where persistence fails."""
    t = np.arange(200)
    rng = np.random.default_rng(3)
    shape = np.fft.ifft(np.fft.fft(rng.normal(size=48)) * np.exp(-np.abs(np.fft.fftfreq(48)) * 20)).real
    values = np.stack([np.roll(shape, k) for k in t])[:, None].astype(np.float32) / shape.std()
    found, _ = fit_forecast_baselines(Record(values, dates(200), t), 3, STEPS, [True])
    spread = {name: np.sqrt((one.members**2).mean((0, 2, 3))) for name, one in found.items()}
    assert (spread["Lagrangian persistence"] < 0.1).all() and (spread["persistence"] > 0.3).all()


def test_a_block_from_which_no_forecast_has_all_leads_counts_for_nothing():
    """The last of five, when leads reach beyond the record's end."""
    record, *_ = ar1(count=300)
    steps = np.array([1, 70])
    blocks = blocks_of(record, 2, steps)
    assert not len(blocks[-2].starts)
    ridges = fit_eof_ridges(record, blocks, fit_climatologies(record, blocks), 2, steps)
    known, truth = known_at(record, blocks[-1].starts, 2, steps)
    error = ((ridges[-1](known) - truth) ** 2).mean((0, 2, 3))
    power = (truth**2).mean((0, 2, 3))
    # of variances 9, 4 and 1 a step leaves 1 - 0.81, 1 - 0.36 and 1; seventy steps leave all
    assert error[0] / power[0] == pytest.approx((9 * 0.19 + 4 * 0.64 + 1) / 14, rel=0.25)
    assert error[1] / power[1] > 0.7
