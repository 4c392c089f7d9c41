"""The guess of independent waves against dense matrices made by numpy's and scipy's transforms."""

import numpy as np
import pytest
import scipy.fft
import torch

from undrift.data.waves import rings, waves
from undrift.denoise.guess import FoldedGuess, by_rows
from undrift.denoise.precondition import Preconditioned
from undrift.denoise.spectral import SpectralGuess, fit_spectral
from undrift.denoise.windows import WindowGuess
from undrift.distributions.calibrate_waves import fit_cells, fit_gains, fit_offset
from undrift.distributions.start import Silent
from undrift.objective.denoising import DenoisingScoreMatching
from undrift.process import EDM
from undrift.tasks.batch import Batch, Condition

CPU = torch.device("cpu")
SHAPE, PERIODIC, CELLS = (5, 6), (False, True), 30
POWER = np.random.default_rng(0).random((2, *SHAPE)) * np.array([2.0, 0.01])[:, None, None] + 1e-4


def covariance():
    """Of two channels, (60, 60): cosines along the first axis, Fourier's waves along the second."""
    first = scipy.fft.dct(np.eye(5), axis=0, norm="ortho")
    angle = 2 * np.pi * np.arange(6) / 6
    second = [np.ones(6), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle), np.cos(3 * angle)]
    second = np.array([w / np.linalg.norm(w) for w in second])
    out = np.zeros((60, 60))
    for c in range(2):
        basis = np.kron(first, second)
        out[c * CELLS : (c + 1) * CELLS, c * CELLS : (c + 1) * CELLS] = basis.T @ np.diag(POWER[c].ravel()) @ basis
    return out


@pytest.mark.parametrize("r", [0.02, 0.7, 12.0])
def test_guess_is_the_posterior_of_its_covariance(r, agrees):
    guess, c = SpectralGuess(torch.from_numpy(POWER), PERIODIC), covariance()
    y = np.random.default_rng(1).normal(size=(3, 2, *SHAPE))
    ratio = torch.full((3,), r, dtype=torch.float64, device=CPU)
    gain = c @ np.linalg.inv(c + r**2 * np.eye(60))
    expected, dense = (y.reshape(3, -1) @ gain.T).reshape(y.shape), "conditioning in numpy"
    agrees(SpectralGuess, "E[x | y]", dense, guess.denoise(torch.from_numpy(y), ratio), expected, rtol=1e-9, atol=1e-12)
    posterior = c - gain @ c
    got = guess.posterior_variance(ratio, 60)
    agrees(SpectralGuess, "posterior variance", dense, got, np.full(3, np.trace(posterior) / 60), rtol=1e-9)
    assert float(guess.total(60)) == pytest.approx(np.trace(c) / 60)
    # white numbers of a network get the posterior's covariance over its mean variance
    spread = guess.gains(ratio[:1], torch.float64)[1]
    eye = torch.eye(60, dtype=torch.float64, device=CPU).reshape(60, 2, *SHAPE)
    root = guess.added(eye, spread).reshape(60, 60).numpy()
    np.testing.assert_allclose(root @ root.T, posterior / (np.trace(posterior) / 60), rtol=1e-7, atol=1e-10)
    # as they count in training: the square root of that, of mean 1 for white numbers
    counted = guess.weighed(torch.from_numpy(root).reshape(60, 2, *SHAPE), spread).reshape(60, 60).numpy()
    values, vectors = np.linalg.eigh(root @ root.T)
    expected = (vectors * np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(counted @ counted.T, expected / np.trace(expected) * 60, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("size", "periodic"), [(7, True), (8, True), (5, False)])
def test_waves_are_orthonormal_and_have_their_frequency(size, periodic, agrees):
    basis, frequency = waves(size, periodic)
    agrees(waves, "basis", "orthonormal", basis @ basis.T, np.eye(size), rtol=1e-9, atol=1e-12)
    mirrored = basis if periodic else np.concatenate([basis, basis[:, ::-1]], 1)
    power = np.abs(np.fft.rfft(mirrored)) ** 2
    found = np.fft.rfftfreq(mirrored.shape[1])[power.argmax(1)]
    agrees(waves, "frequency", "numpy's FFT", frequency, found, rtol=1e-12)
    assert (power.max(1) > 0.999 * power.sum(1)).all()


def test_rings_are_of_one_frequency(agrees):
    """Cycles along the longest axis: of a plane wave by numpy's own frequencies."""
    found = rings((12, 24), (False, True))
    lat, lon = np.arange(12) / 24, np.repeat(np.arange(13), 2)[1:-1] / 24
    expected = np.round(24 * np.hypot(lat[:, None], lon[None])).astype(int)
    agrees(rings, "ring", "np.hypot", found, expected, rtol=1e-12)


def test_the_fitted_guess_has_the_spectrum_and_the_correlations_of_the_fields(agrees):
    """Fields of a known isotropic spectrum, five decades of it; of channels that are not asked nothing is learned."""
    shape, count = (32, 32), 400
    wave = np.fft.fftfreq(32, 1 / 32)
    radius = np.hypot(wave[:, None], wave[None])
    rng = np.random.default_rng(0)
    noise = np.fft.fft2(rng.normal(size=(count, 3, *shape)))
    noise[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    x = np.fft.ifft2(noise * 10 ** (-radius / 8)).real
    x[:, 2] = 100.0
    guess, facts = fit_spectral(x, (True, True), np.array([True, True, False]), coupled=True)
    ring = rings(shape, (True, True))
    for k in (1, 8, 15):
        true = (10 ** (-radius[np.rint(radius) == k] / 4)).mean()
        got = guess.power[:2, torch.from_numpy(ring == k)].mean(1)
        error = 4 * np.sqrt(2 / (count * (ring == k).sum()))
        agrees(fit_spectral, f"power at wavenumber {k}", "the spectrum drawn from", got, [true, true], rtol=error)
    true, got = 10 ** (-radius[0, :17] / 4), guess.power[0].numpy()[0]  # along one axis, cosines and sines
    np.testing.assert_allclose(got[[0, *range(1, 31, 2), 31]], true, rtol=5 * np.sqrt(2 / count))
    np.testing.assert_allclose(got[1:31:2], got[2:31:2], rtol=1e-12)
    found = guess.correlation.numpy()[1:]
    agrees(fit_spectral, "correlation", "that drawn from", found[:, 0, 1], np.full(len(found), 0.8), rtol=0.03)
    assert (found[:, 2, :2] == 0).all() and (found[:, 2, 2] == 1).all() and (guess.power[2] == 1).all()
    facts_alone = fit_spectral(x[:, :1], (True, True), np.array([True]), coupled=False)[1]
    exact = 0.5 * (1 - np.log(10) / 4 * radius.mean())
    assert facts_alone["loss"] == pytest.approx(exact, abs=0.01)
    # two channels that are correlated have 0.5 log(1 - 0.8^2) nats less, in the mean over all three
    assert facts["loss"] == pytest.approx((2 * exact + 0.5 + 0.5 * np.log(0.36)) / 3, abs=0.02)


def test_the_fitted_guess_knows_along_and_across_apart():
    """Fields that are white along one axis and smooth along the other."""
    x = np.random.default_rng(0).normal(size=(400, 1, 16, 16))
    x = np.fft.irfft(np.fft.rfft(x) * 10 ** (-np.arange(9) / 8), 16)
    power = fit_spectral(x, (True, True), np.array([True]), coupled=False)[0].power[0].numpy()
    # of 400 fields, beside which a ring counts for ten
    np.testing.assert_allclose(power[1:15, 0], 1, rtol=0.25)
    np.testing.assert_allclose(power[0, [1, 3, 5, 7]], 10 ** (-np.arange(1, 5) / 4), rtol=0.25)


def test_channels_that_are_coupled_have_the_posterior_of_their_covariance(agrees):
    ring = rings(SHAPE, PERIODIC).ravel()
    correlation = torch.eye(2, dtype=torch.float64).repeat(ring.max() + 1, 1, 1)
    correlation[:, 0, 1] = correlation[:, 1, 0] = torch.linspace(0.9, -0.5, ring.max() + 1, dtype=torch.float64)
    power = torch.from_numpy(POWER).clone()
    power[:, :, 2], power[:, :, 4] = power[:, :, 1], power[:, :, 3]  # sines as cosines
    guess = SpectralGuess(power, PERIODIC, correlation)
    basis = guess.spectrum(torch.eye(CELLS, dtype=torch.float64).reshape(CELLS, 1, *SHAPE)).reshape(CELLS, CELLS)
    basis, std, c = basis.T.numpy(), np.sqrt(power.numpy().reshape(2, -1)), np.zeros((60, 60))
    for i in range(2):
        for j in range(2):
            middle = np.diag(std[i] * std[j] * correlation.numpy()[ring, i, j])
            c[i * CELLS : (i + 1) * CELLS, j * CELLS : (j + 1) * CELLS] = basis.T @ middle @ basis
    y = np.random.default_rng(1).normal(size=(3, 2, *SHAPE))
    for r in (0.05, 1.0):
        ratio = torch.full((3,), r, dtype=torch.float64, device=CPU)
        expected = (y.reshape(3, -1) @ (c @ np.linalg.inv(c + r**2 * np.eye(60))).T).reshape(y.shape)
        got = guess.denoise(torch.from_numpy(y), ratio)
        agrees(SpectralGuess, "E[x | y], coupled", "conditioning in numpy", got, expected, rtol=1e-5, atol=1e-5)


def test_windows_are_guessed_by_what_is_asked_of_them(agrees):
    """Each row by its own guess, alone as beside rows of another."""
    usual = SpectralGuess(torch.from_numpy(POWER), PERIODIC)
    other = SpectralGuess(2 * torch.from_numpy(POWER), PERIODIC)
    guess = WindowGuess(usual, other, torch.tensor([False, True]))
    asked = torch.zeros(3, 2, *SHAPE)
    asked[0, 1] = asked[1] = 1
    asked[2] = 1
    asked[2, 0, 2:] = 0
    found = guess.parts(Condition({"asked": asked}), 3)
    assert [(part is usual, at.tolist()) for part, at in found] == [
        (True, [True, False, False]),
        (False, [False, True, True]),
    ]
    values = torch.arange(6.0).reshape(2, 3, 1)
    agrees(by_rows, "value", "by hand", by_rows(values, [at for _, at in found]), [[0.0], [4.0], [5.0]], rtol=1e-12)
    net, x = Zero(), torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((3,), 0.4, dtype=torch.float64, device=CPU)
    together = Preconditioned(net, EDM(), guess)(x, t, Condition({"asked": asked})).x
    for row, part in enumerate((usual, other, other)):
        at, condition = slice(row, row + 1), Condition({"asked": asked[row : row + 1]})
        alone = Preconditioned(net, EDM(), part)(x[at], t[at], condition).x
        agrees(WindowGuess, f"row {row}", "its own guess alone", together[at], alone, rtol=1e-9, atol=1e-12)


def test_a_frame_is_given_though_some_of_its_cells_never_have_a_value():
    """As over land: such cells are asked of every frame."""
    spectral = [SpectralGuess(k * torch.from_numpy(POWER), PERIODIC) for k in (1, 2)]
    never = torch.zeros(2, *SHAPE, dtype=torch.bool)
    never[:, 1:4, 3:5] = True
    guess = WindowGuess(*spectral, torch.tensor([False, True]), never)
    asked = never.float().repeat(2, 1, 1, 1)
    asked[:, 1] = 1
    asked[1, 0, 0] = 1  # of the second one a part is asked
    found = guess.parts(Condition({"asked": asked}), 2)
    assert [(part is guess.usual, at.tolist()) for part, at in found] == [(True, [True, False]), (False, [False, True])]
    assert "never" in guess.state_dict() and "never" not in WindowGuess(*spectral, guess.asked).state_dict()


def test_a_given_frame_may_lack_a_few_cells(agrees):
    """The frames that are asked keep the posterior in which they go together, and a cell that is missing has its own."""
    power = torch.from_numpy(POWER).clone()
    power[:, :, 2], power[:, :, 4] = power[:, :, 1], power[:, :, 3]  # sines as cosines
    power = torch.cat([torch.ones_like(power[:1]), power])
    correlation = torch.eye(3, dtype=torch.float64).repeat(rings(SHAPE, PERIODIC).max() + 1, 1, 1)
    correlation[:, 1, 2] = correlation[:, 2, 1] = 0.9
    usual, other = SpectralGuess(power, PERIODIC, correlation), SpectralGuess(power, PERIODIC)
    guess = WindowGuess(usual, other, torch.tensor([False, True, True]))
    asked = torch.ones(2, 3, *SHAPE)
    asked[0, 0] = 0
    asked[0, 0, 1, 2] = 1
    found = guess.parts(Condition({"asked": asked}), 2)
    assert [(part is usual, at.tolist()) for part, at in found] == [(True, [True, False]), (False, [False, True])]
    x = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((1,), 0.4, dtype=torch.float64, device=CPU)
    got = Preconditioned(Silent(3), EDM(), guess)(x, t, Condition({"asked": asked[:1]})).x
    sigma = EDM().sigma(t)
    alone = SpectralGuess(power[1:], PERIODIC, correlation[:, 1:, 1:]).denoise(x[:, 1:], sigma)
    agrees(WindowGuess, "E[x | y], frames", "without the given one", got[:, 1:], alone, rtol=1e-5, atol=1e-6)
    expected = torch.zeros(SHAPE, dtype=torch.float64)
    expected[1, 2] = x[0, 0, 1, 2] / (1 + sigma[0] ** 2)
    agrees(WindowGuess, "E[x | y], a cell", "y / (1 + sigma^2)", got[0, 0], expected, rtol=1e-5, atol=1e-6)


class Zero(torch.nn.Module):
    def forward(self, x, t, vector):
        return 0 * x[:, :2]


def test_a_network_that_adds_nothing_has_a_loss_of_one_and_draws_the_spectrum():
    from undrift.infer import sample

    guess, c = SpectralGuess(torch.from_numpy(POWER), PERIODIC), covariance()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.multivariate_normal(np.zeros(60), c, size=1000).reshape(-1, 2, *SHAPE))
    batch = Batch(x, Condition({}), torch.ones_like(x), torch.zeros(len(x), dtype=torch.long, device=CPU))
    loss, _ = DenoisingScoreMatching(EDM(), FoldedGuess([guess]))(batch, Zero(), 0)
    assert float(loss.mean()) == pytest.approx(1, abs=4 * float(loss.std()) / 1000**0.5)
    z = torch.randn(2000, 2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sample(Preconditioned(Zero(), EDM(), guess), 80 * z, nfe=40).x
    power = guess.spectrum(drawn).square().mean(0).numpy()
    np.testing.assert_allclose(power, POWER, rtol=4 * np.sqrt(2 / 2000) + 0.03)


def test_what_is_drawn_is_finished_by_the_gain():
    gain = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    guess = SpectralGuess(torch.from_numpy(POWER), PERIODIC, gain=gain)
    x = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(guess.spectrum(guess.finished(x, Condition())), gain * guess.spectrum(x))


def test_gains_give_what_is_drawn_the_power_of_the_record():
    """Of amplitudes that lean against the prediction: the power of the sum is that of the record in each ring."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(2, 3, 10_000)) * np.array([1.0, 0.5, 0.2])[:, None]
    drawn = rng.normal(size=mean.shape) * 0.8 - 0.3 * mean
    true = np.array([[1.5, 0.9, 0.3], [1.4, 0.8, 0.4]])
    sums = np.stack([true, (mean**2).mean(2), (mean * drawn).mean(2), (drawn**2).mean(2)])
    gains = fit_gains(sums, 2, np.full(3, 1e9), np.array([True, True]))
    np.testing.assert_allclose(((mean + gains[..., None] * drawn) ** 2).mean(2), true, rtol=1e-5)
    few = fit_gains(sums, 2, np.full(3, 1e-9), np.array([False, True]))
    assert (few[0] == 1).all() and np.ptp(few[1]) < 1e-9  # of no waves, that of all rings
    total = sums[:, 1].sum(1)
    assert total[1] + 2 * few[1, 0] * total[2] + few[1, 0] ** 2 * total[3] == pytest.approx(total[0])


def test_the_mean_that_a_network_adds_is_found_in_the_course_of_the_year_and_chance_is_not():
    """Of 200 windows; where the network adds no mean, chance leaves a quarter of its power in one ring at most."""
    rng, phase = np.random.default_rng(0), 2 * np.pi * np.arange(200) / 200
    features = np.stack([np.ones(200), np.cos(phase), np.sin(phase)], 1)
    ring = np.repeat([0, 1], 500)
    true = np.zeros((3, 2, 1000))
    true[0, 0], true[2, 1] = 1.5, -0.8 * ring
    noise = rng.normal(size=(200, 2, 1000)) * np.array([0.5, 1.0])[:, None]
    found = fit_offset(np.tensordot(features, true, 1) + noise, features, ring)
    error = np.array([0.5, 1.0])[:, None] * np.sqrt(np.array([1, 2, 2]) / 200)[:, None, None]
    there = true != 0
    assert np.abs((found - true) / error)[there].max() < 5
    for one, size in ((found[1, 0], error[1, 0]), (found[2, 1, :500], error[2, 1])):
        assert (one**2).mean() < 0.25 * size**2
    assert np.mean((found - true)[there]) == pytest.approx(0, abs=4 * 1.0 * np.sqrt(2 / 200 / there.sum()))


def test_a_drawn_field_loses_the_offset_of_its_season_and_gets_the_gains_of_its_cells():
    rng = np.random.default_rng(0)
    offset, cells = rng.normal(size=(3, 2, *SHAPE)), rng.uniform(0.5, 2, size=(2, *SHAPE))
    guess = SpectralGuess(
        torch.from_numpy(POWER), PERIODIC, offset=torch.from_numpy(offset), cells=torch.from_numpy(cells)
    )
    x, vector = rng.normal(size=(4, 2, *SHAPE)), rng.normal(size=(4, 5))
    season = np.concatenate([np.ones((4, 1)), vector[:, :2]], 1)
    got = guess.finished(torch.from_numpy(x), Condition(vectors={"covariates": torch.from_numpy(vector)}))
    agrees_with = cells * (x - np.tensordot(season, offset, 1))
    np.testing.assert_allclose(got.numpy(), agrees_with, atol=1e-12)


def test_gains_of_cells_are_those_on_which_two_halves_agree():
    """A half of the domain is twice too lively in one variable; the other variable is right but for chance."""
    rng, shape, n = np.random.default_rng(0), (16, 24), 200
    true = np.ones((2, *shape))
    true[0, :, :12] = 0.5
    mean = 0.6 * rng.normal(size=(2, n, 4, *shape))
    left = 0.8 * rng.normal(size=mean.shape)
    total = mean + np.repeat(true, 2, 0) * 0.8 * rng.normal(size=mean.shape)
    halves = [
        np.stack([(a * b).sum(0) for a, b in ((t, t), (m, m), (m, r), (r, r))]) for t, m, r in zip(total, mean, left)
    ]
    found = fit_cells(halves, 2, (False, False))
    assert found.shape == (4, *shape) and (found[0] == found[1]).all()
    ratio = found[0] / np.exp(np.log(found[0]).mean())
    np.testing.assert_allclose(ratio[:, 1:10].mean() / ratio[:, 14:].mean(), 0.5, rtol=0.05)
    assert np.abs(np.log(found[2])).max() < 0.02
