"""500 steps of an autoregressive record, window after window: the law stays that of the record."""

import numpy as np
import pytest
import xarray as xr

import undrift
from undrift.train import guesses

PERSISTENCE, STEPS, REALIZATIONS, COUNT = 0.8, 500, 4, 400
RADIUS = np.hypot(*np.meshgrid(np.fft.fftfreq(8, 1 / 8), np.fft.fftfreq(12, 1 / 12), indexing="ij"))
POWER = 10 ** (-RADIUS / 3) / (10 ** (-RADIUS / 3)).mean()


def record():
    """AR(1) of unit variance in time, of waves of a falling spectrum."""
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(COUNT, 8, 12)))
    noise = np.fft.ifft2(noise * np.sqrt(POWER)).real
    x = noise.copy()
    for t in range(1, COUNT):
        x[t] = PERSISTENCE * x[t - 1] + np.sqrt(1 - PERSISTENCE**2) * noise[t]
    times = np.datetime64("2001-01-01", "ns") + np.arange(COUNT) * np.timedelta64(1, "h")
    return xr.Dataset({"tas": (("time", "y", "x"), x.astype(np.float32))}, {"time": times})


@pytest.fixture(scope="module")
def emulated():
    """Steps 251 to 500, of a network that has hardly been trained, and the record."""
    patch, data = pytest.MonkeyPatch(), record()
    patch.setattr(guesses, "_WINDOW_CELLS", 0)  # as large fields are
    try:
        model = undrift.fit(
            data, task=undrift.Window(past=1, future=10), periodic="y,x", steps=10, progress=False,
            set={"net.channels": "16,16", "sample.nfe": 6, "sample.micro_batch": 4},
        )  # fmt: skip
    finally:
        patch.undo()
    forecast = model.forecast(data, steps=STEPS, realizations=REALIZATIONS, progress=False)
    x = forecast.tas.isel(time=0).transpose("realization", "prediction_timedelta", "y", "x").values
    return x[:, STEPS // 2 :], data.tas.values


def relative_error(power, frames):
    """Standard error of the mean square of so many frames of a Gaussian AR(1) with waves of these powers."""
    independent = frames * (1 - PERSISTENCE**2) / (1 + PERSISTENCE**2) * power.sum() ** 2 / (power**2).sum()
    return np.sqrt(2 / independent)


def test_the_variance_is_that_of_the_record(emulated):
    x, _ = emulated
    error = np.hypot(relative_error(POWER, REALIZATIONS * STEPS / 2), relative_error(POWER, 0.8 * COUNT))
    assert (x**2).mean() == pytest.approx(1, rel=4 * error)
    assert abs(x.mean()) < 4 * np.sqrt((1 + PERSISTENCE) / (1 - PERSISTENCE) * POWER[0, 0] / 96 / (0.8 * COUNT))


def test_no_wave_dies_or_grows(emulated):
    x, _ = emulated
    found = (np.abs(np.fft.fft2(x)) ** 2).mean((0, 1)) / 96
    for k in range(7):
        ring = np.rint(RADIUS) == k
        error = np.hypot(*(relative_error(POWER[ring], n) for n in (REALIZATIONS * STEPS / 2, 0.8 * COUNT)))
        assert found[ring].mean() == pytest.approx(POWER[ring].mean(), rel=4 * error), k


def test_frames_go_on_from_each_other_at_the_seams_of_windows(emulated):
    """The correlation of a frame with the next is that of the record, within windows and between them."""
    x, data = emulated
    lagged = (x[:, :-1] * x[:, 1:]).mean((0, 2, 3)) / (x**2).mean()
    seam = np.arange(STEPS // 2 + 1, STEPS) % 10 == 0  # frames 1 to 10 are a window
    true = (data[:-1] * data[1:]).mean() / (data**2).mean()
    assert lagged[seam].mean() == pytest.approx(true, abs=0.06)
    assert lagged[~seam].mean() == pytest.approx(true, abs=0.06)


def test_a_constraint_that_holds_by_itself_changes_nothing(monkeypatch):
    """What is drawn under a constraint is finished, too."""
    monkeypatch.setattr(guesses, "_WINDOW_CELLS", 0)
    data = record().isel(time=slice(0, 300))
    model = undrift.fit(
        data, task=undrift.Window(past=1, future=3), periodic="y,x", steps=2, progress=False,
        set={"net.channels": "8,8", "sample.nfe": 4, "sample.micro_batch": 4},
    )  # fmt: skip
    for guess in (model.parts.guess.usual, model.parts.guess.other):
        guess.gain *= 1.5
    plain = model.forecast(data, steps=6, realizations=2, progress=False)
    bounded = model.forecast(data, steps=6, realizations=2, constraint=["tas>=-1000"], progress=False)
    np.testing.assert_allclose(bounded.tas, plain.tas, atol=1e-3)
    window = data.isel(time=slice(100, 104)).where(data.time < data.time[101])
    plain, bounded = (
        model.sample(window, realizations=2, constraint=told, progress=False) for told in (None, ["tas>=-1000"])
    )
    np.testing.assert_allclose(bounded.tas, plain.tas, atol=1e-3)
