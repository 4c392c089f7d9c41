"""500 steps of an autoregressive record, window after window: the law stays that of the record."""

import numpy as np
import pytest
import xarray as xr

import undrift
from undrift.train import prepare

PERSISTENCE, STEPS, REALIZATIONS, CELLS = 0.8, 500, 8, 12


def record(count=500):
    """AR(1) of unit variance in time, of waves of a falling spectrum along a circle: power 10^(-k / 3)."""
    rng = np.random.default_rng(0)
    k = np.minimum(np.arange(CELLS), CELLS - np.arange(CELLS))
    root = np.sqrt(10 ** (-k / 3.0))
    root *= np.sqrt(CELLS / (root**2).sum())
    noise = np.fft.ifft(np.fft.fft(rng.normal(size=(count, 8, CELLS))) * root).real
    x = np.zeros_like(noise)
    x[0] = noise[0]
    for t in range(1, count):
        x[t] = PERSISTENCE * x[t - 1] + np.sqrt(1 - PERSISTENCE**2) * noise[t]
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(1, "h")
    return xr.Dataset({"tas": (("time", "y", "x"), x.astype(np.float32))}, {"time": times}), root**2


@pytest.fixture(scope="module")
def emulated():
    patch = pytest.MonkeyPatch()
    patch.setattr(prepare, "_WINDOW_CELLS", 0)  # as large fields are
    data, power = record()
    try:
        model = undrift.fit(
            data, task=undrift.Window(past=1, future=10), periodic="x", steps=40, progress=False,
            set={"net.channels": "16,16", "sample.nfe": 6},
        )  # fmt: skip
    finally:
        patch.undo()
    forecast = model.forecast(data, steps=STEPS, realizations=REALIZATIONS, progress=False)
    x = forecast.tas.isel(time=0).transpose("realization", "prediction_timedelta", "y", "x").values
    return x[:, STEPS // 2 :], power, data.tas.values


def effective(persistence, count):
    """Independent numbers that the mean square of so many of a Gaussian AR(1) is worth."""
    return count * (1 - persistence**2) / (1 + persistence**2)


def test_the_variance_is_that_of_the_record(emulated):
    x, power, data = emulated
    waves = (power / CELLS).sum() ** 2 / ((power / CELLS) ** 2).sum()  # independent numbers in a row
    error = np.sqrt(2 / (effective(PERSISTENCE, REALIZATIONS * len(x[0])) * 8 * waves))
    learned = np.sqrt(2 / (effective(PERSISTENCE, len(data)) * 8 * waves))
    assert (x**2).mean() == pytest.approx(1, abs=4 * np.hypot(error, learned))
    assert abs(x.mean()) < 4 * np.sqrt((1 + PERSISTENCE) / (1 - PERSISTENCE) * power[0] / CELLS / 8 / len(data))


def test_no_wave_dies_or_grows(emulated):
    x, power, _ = emulated
    found = (np.abs(np.fft.fft(x)) ** 2).mean((0, 1, 2)) / CELLS
    error = 4 * np.sqrt(2 / (effective(PERSISTENCE, 500) * 8))
    np.testing.assert_allclose(found[:7], power[:7], rtol=error)


def test_days_go_on_from_each_other_at_the_seams_of_windows(emulated):
    """The correlation of a frame with the next is that of the record, within windows and between them."""
    x, _, data = emulated
    lagged = (x[:, :-1] * x[:, 1:]).mean((0, 2, 3)) / (x**2).mean()
    seam = (np.arange(STEPS // 2 + 1, STEPS) % 10) == 0  # frames 1 to 10 are a window
    true = (data[:-1] * data[1:]).mean() / (data**2).mean()
    assert lagged[seam].mean() == pytest.approx(true, abs=0.05)
    assert lagged[~seam].mean() == pytest.approx(true, abs=0.05)
