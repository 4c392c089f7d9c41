"""Spectra: Parseval, known laws, and xrft."""

import numpy as np
import pytest
import xarray as xr

from undrift.verify.spectra import Spectrum


def random_field(rng, count, size, slope, dims=2):
    """Periodic Gaussian fields whose power per mode is k^-slope."""
    k = np.sqrt(sum(np.square(f) for f in np.meshgrid(*[np.fft.fftfreq(size) * size] * dims, indexing="ij")))
    amplitude = np.where(k > 0, np.maximum(k, 1e-9) ** (-slope / 2), 0.0)
    axes = tuple(range(1, dims + 1))
    return np.fft.ifftn(
        np.fft.fftn(rng.standard_normal((count, *[size] * dims)), axes=axes) * amplitude, axes=axes
    ).real


@pytest.mark.parametrize("shape", [(16,), (15,), (12, 20), (11, 14), (10, 100), (6, 7, 8)])
def test_parseval_on_periodic_domains(shape):
    fields = np.random.default_rng(0).standard_normal((3, *shape)) + 5.0
    spectrum = Spectrum(shape, (True,) * len(shape))
    axes = tuple(range(1, len(shape) + 1))
    np.testing.assert_allclose(spectrum(fields).sum(-1), fields.var(axis=axes), rtol=1e-12)


def test_parseval_of_windowed_and_masked_fields():
    rng = np.random.default_rng(0)
    fields, valid = rng.standard_normal((4, 13, 18)), rng.random((4, 13, 18)) > 0.2
    taper = np.hanning(15)[1:-1, None] * np.hanning(20)[1:-1] * valid
    mean = (fields * taper).sum((1, 2)) / taper.sum((1, 2))
    variance = (np.square((fields - mean[:, None, None]) * taper)).sum((1, 2)) / np.square(taper).sum((1, 2))
    np.testing.assert_allclose(Spectrum((13, 18), (False, False))(fields, valid).sum(-1), variance, rtol=1e-12)


def test_slope_of_a_known_law():
    spectrum = Spectrum((64, 64), (True, True))
    fields = random_field(np.random.default_rng(1), 200, 64, 3.0)
    energy = spectrum(fields).mean(0)
    k = spectrum.wavenumber
    use = (k >= 3) & (k <= 30)
    slope = np.polyfit(np.log(k[use]), np.log(energy[use]), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.05)  # power k^-3 per mode on a ring of 2 pi k modes


def test_agrees_with_xrft_on_a_square():
    xrft = pytest.importorskip("xrft")
    fields = random_field(np.random.default_rng(2), 1, 32, 2.0)[0]
    array = xr.DataArray(fields, dims=("y", "x"), coords={"y": np.arange(32.0), "x": np.arange(32.0)})
    power = xrft.power_spectrum(array, dim=["y", "x"], detrend="constant", scaling="density")
    radius = np.rint(np.hypot(power.freq_y, power.freq_x).values * 32).astype(int)
    theirs = np.bincount(radius.ravel(), power.values.ravel()) / 32**2
    spectrum = Spectrum((32, 32), (True, True))
    np.testing.assert_allclose(spectrum(fields), theirs[1:], rtol=1e-10)


def test_a_wave_lands_in_its_wavenumber_and_wavelength():
    x = np.arange(48)
    field = np.sqrt(2) * np.cos(2 * np.pi * 6 * x / 48)[None] * np.ones((32, 1))
    zonal = Spectrum((32, 48), (False, True))
    assert zonal.kind == "zonal"
    energy = zonal(field)
    at = int(np.argmax(energy))
    assert zonal.wavenumber[at] == 6 and zonal.wavelength[at] == 8.0
    assert energy[at] == pytest.approx(1.0) and energy.sum() == pytest.approx(1.0)
    isotropic = Spectrum((32, 48), (False, False))
    assert isotropic.wavelength[np.argmax(isotropic(field))] == pytest.approx(8.0)


@pytest.mark.parametrize("size", [12, 13])
def test_zonal_is_the_weighted_variance_along_the_circle(size):
    rng = np.random.default_rng(3)
    fields, rows = rng.standard_normal((5, 7, size)), rng.random(7) + 0.1
    spectrum = Spectrum((7, size), (False, True), rows[:, None] * np.ones(size))
    expected = np.average(fields.var(axis=-1), axis=-1, weights=rows)
    np.testing.assert_allclose(spectrum(fields).sum(-1), expected, rtol=1e-12)


@pytest.mark.parametrize("periodic", [(False, False), (False, True), (True, True)])
def test_same_law_has_ratio_one_and_doubled_amplitude_four(periodic):
    rng = np.random.default_rng(4)
    fields = random_field(rng, 800, 16, 2.0)
    spectrum = Spectrum((16, 16), periodic)
    a, b = spectrum(fields[:400]), spectrum(fields[400:])
    ratio = a.mean(0) / b.mean(0)
    error = np.sqrt(a.var(0) / a.mean(0) ** 2 / 400 + b.var(0) / b.mean(0) ** 2 / 400)
    assert np.all(np.abs(ratio - 1) < 4 * error)
    np.testing.assert_allclose(spectrum(2 * fields) / spectrum(fields), 4.0)


def test_values_under_the_mask_do_not_matter():
    rng = np.random.default_rng(5)
    valid = rng.random((9, 10)) > 0.3
    field = rng.standard_normal((9, 10))
    for periodic in ((False, False), (False, True)):
        spectrum = Spectrum((9, 10), periodic)
        np.testing.assert_allclose(spectrum(np.where(valid, field, 1e6), valid), spectrum(field, valid), rtol=1e-9)
