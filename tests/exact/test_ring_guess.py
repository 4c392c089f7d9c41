"""The guess of a known spectrum against the dense matrices that it stands for."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
import torch

from undrift.data.texture import wavenumbers
from undrift.data.waves import waves
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned, coefficients
from undrift.denoise.rings import RingGuess, fit_rings
from undrift.distributions import calibrate_rings
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.drawn import Drawn
from undrift.distributions.start import Silent, starts
from undrift.process import EDM
from undrift.solve.grid import ShortFirst
from undrift.tasks.batch import Condition

SHAPE, EDGES = (6, 8), np.array([0.1, 0.3])
POWERS = np.array([[4.0, 1.0, 0.25], [9.0, 2.0, 0.5]])


def guess(periodic=(False, True)):
    bins = np.searchsorted(EDGES, wavenumbers(SHAPE, periodic))
    share = np.bincount(bins.ravel(), minlength=3) / bins.size
    numbers = (torch.from_numpy(v) for v in (POWERS, EDGES, share))
    return RingGuess(*numbers, torch.tensor(periodic)), bins


def covariance(periodic=(False, True)):
    """Dense, of both channels one after the other."""
    _, bins = guess(periodic)
    basis = np.kron(*(waves(n, wrap)[0] for n, wrap in zip(SHAPE, periodic)))
    blocks = [basis.T @ np.diag(p[bins.ravel()]) @ basis for p in POWERS]
    size = len(basis)
    return np.block([[blocks[0], np.zeros((size, size))], [np.zeros((size, size)), blocks[1]]])


@pytest.mark.parametrize("size", [7, 8])
def test_bases_are_orthonormal_cosines_and_waves(size, agrees):
    rows, k = waves(size, False)
    field = np.random.default_rng(0).normal(size=size)
    agrees(waves, "cosines", "scipy.fft.dct", rows @ field, scipy.fft.dct(field, norm="ortho"), 1e-12, 1e-12)
    np.testing.assert_allclose(k, np.arange(size) / (2 * size))
    rows, k = waves(size, True)
    np.testing.assert_allclose(rows @ rows.T, np.eye(size), atol=1e-12)
    power = np.abs(np.fft.fft(field)) ** 2 / size
    for j in np.unique(k):  # the two waves of a number have the power of its two frequencies
        both = power[np.isclose(np.abs(np.fft.fftfreq(size)), j)].sum()
        assert ((rows @ field) ** 2)[k == j].sum() == pytest.approx(both, rel=1e-10)
    found = wavenumbers((size, 4), (True, False))
    agrees(wavenumbers, "|k|", "numpy.hypot", found, np.hypot(k[:, None], np.arange(4) / 8), 1e-12)


@pytest.mark.parametrize("periodic", [(False, True), (False, False)])
def test_denoising_is_that_of_the_dense_covariance(periodic, agrees):
    law, _ = guess(periodic)
    c, ratio = covariance(periodic), np.array([0.3, 2.0])
    y = np.random.default_rng(1).normal(size=(2, 2, *SHAPE))
    expected = [c @ np.linalg.solve(c + r**2 * np.eye(len(c)), row.ravel()) for r, row in zip(ratio, y)]
    found = law.denoise(torch.from_numpy(y), torch.from_numpy(ratio)).numpy().reshape(2, -1)
    agrees(RingGuess, "denoised", "dense linear algebra", found, np.stack(expected), 1e-9, 1e-9)
    values = np.linalg.eigvalsh(c)
    assert float(law.total(c.shape[0])) == pytest.approx(values.mean(), rel=1e-12)
    posterior = [(values * r**2 / (values + r**2)).mean() for r in ratio]
    np.testing.assert_allclose(law.posterior_variance(torch.from_numpy(ratio), len(c)), posterior, rtol=1e-12)
    c_in, c_out = coefficients(law, torch.from_numpy(ratio), len(c))
    np.testing.assert_allclose(c_in**-2, ratio**2 + values.mean(), rtol=1e-12)
    np.testing.assert_allclose(c_out**2, posterior, rtol=1e-12)


def test_one_power_is_white():
    white = RingGuess(torch.ones(2, 1), torch.zeros(0), torch.ones(1), torch.tensor([False, False]))
    y, ratio = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 1.0, 9.0])
    torch.testing.assert_close(white.denoise(y, ratio), GaussianGuess().denoise(y, ratio))


def test_a_denoiser_around_a_silent_network_is_the_guess():
    law, _ = guess()
    silent = lambda x, t, vector: torch.zeros_like(x)  # noqa: E731
    process = EDM()
    x = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.4], dtype=torch.float64).expand(2)
    found = Preconditioned(silent, process, law)(x, t).x
    torch.testing.assert_close(found, law.denoise(x, (process.sigma(t) / process.alpha(t)).expand(2)))


def test_spectra_are_those_of_the_fields(agrees):
    """Fields drawn from the dense covariance give its powers back; channels that do not count are left out."""
    rng, root = np.random.default_rng(2), np.linalg.cholesky(covariance())
    shape, periodic = (24, 32), (False, True)
    k = wavenumbers(shape, periodic)
    power = 5 / (1 + (k / 0.1) ** 2)
    bases = [waves(n, wrap)[0] for n, wrap in zip(shape, periodic)]
    assert root.shape[0] == 2 * np.prod(SHAPE)
    drawn = [bases[0].T @ (np.sqrt(power) * rng.normal(size=shape)) @ bases[1] for _ in range(200)]
    fields = [(np.stack([f, f * 7 * i]), np.array([True, i == 0])) for i, f in enumerate(drawn)]
    law = fit_rings(fields, (8, 8), periodic)
    bins = np.searchsorted(law.edges.numpy(), k)
    expected = np.array([power[bins == b].mean() if (bins == b).any() else np.nan for b in range(law.powers.shape[1])])
    there = np.isfinite(expected)
    modes = np.bincount(bins.ravel(), minlength=len(expected))[there]
    found = law.powers.numpy()[0, there]
    assert (np.abs(found / expected[there] - 1) < 5 * np.sqrt(2 / (200 * modes))).all()
    agrees(fit_rings, "powers", "the spectrum that made the fields", found, expected[there], 0.15)
    assert float(law.share.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("nfe", [4, 6, 10])
def test_few_steps_draw_the_guess_with_its_own_covariance(nfe, agrees):
    """Modes of far more than the largest noise, of far less, and between: of a silent network each is sqrt(P) z."""
    powers = torch.tensor([[20000.0, 900.0, 0.2], [4.0, 1.0, 0.05]], dtype=torch.float64)
    shape, periodic = (6, 8), (False, True)
    bins = np.searchsorted(EDGES, wavenumbers(shape, periodic))
    law = RingGuess(powers, torch.from_numpy(EDGES), torch.ones(3) / 3, torch.tensor(periodic))
    draws = Diffusion(Silent(2), law, micro_batch=2)
    z = torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bases = [waves(n, wrap)[0] for n, wrap in zip(shape, periodic)]
    found, noise = (bases[0] @ v.numpy() @ bases[1].T for v in (draws.sample(Condition(), z, nfe=nfe), z))
    agrees(
        starts,
        "amplitudes after few steps",
        "sqrt(P) z",
        np.abs(found),
        np.abs(powers.sqrt().numpy()[:, bins] * noise),
        1e-6,
        1e-6,
    )


def test_many_steps_start_with_the_law_in_the_noise(agrees):
    law, process = guess()[0], EDM(sigma_max=3.0)
    found = starts(law, process, ShortFirst(), 400)[0]
    agrees(starts, "many steps", "sqrt(P + sigma^2)", found.numpy(), np.sqrt(POWERS + 9.0), 1e-3)


def test_calibrated_octaves_have_the_energy_of_the_record(agrees, monkeypatch):
    """What is drawn lacks known factors, of channels that are asked given the others or nothing, where reached and not."""
    shape, octaves, draw = (64, 64), 3, np.random.default_rng(0)
    edges = np.exp2(np.arange(-6, -1, 1 / 3))[: 3 * octaves - 1]
    bins = np.searchsorted(edges, wavenumbers(shape, (True, True)))
    numbers = (np.ones((2, 9)), edges, np.full(9, 1 / 9), np.array([True, True]))
    law = RingGuess(*(torch.from_numpy(v) for v in numbers))
    lost = np.array([[[0.8, 0.9, 1.2], [1.2, 0.8, 1.0]], [[0.9, 1.2, 0.8], [1.2, 1.0, 0.9]]]) * [[0.7], [1.4]]
    reached = np.zeros((8, 2, *shape), bool)
    reached[4:] = True
    basis = waves(64, True)[0]
    turned = lambda v: basis @ v @ basis.T  # noqa: E731
    codec = SimpleNamespace(layout=SimpleNamespace(channels=[0, 1]), widened=lambda factor: None)

    def drawn(law, problem, device, nfe, known, items):
        first = known(0, 0) == "past"  # the first channel is given
        for _ in range(20):
            x, r = draw.normal(size=(2, 8, 2, *shape))
            other, there = (basis.T @ (side[:, bins // 3] * turned(r)) @ basis for side in lost)
            weight = np.ones_like(x)
            weight[:, 0] = not first
            r = np.where(reached, there, other)
            yield Drawn([], np.zeros((8, 0)), weight * x, r, None, weight, None, reached)

    monkeypatch.setattr(calibrate_rings, "drawn_of", drawn)
    monkeypatch.setattr(calibrate_rings, "items_of", lambda problem, numbers: [])
    monkeypatch.setattr(calibrate_rings, "_FEW", 0)
    problem = SimpleNamespace(codec=codec, past=lambda row: "past", nothing=lambda row: "nothing")
    factor = calibrate_rings.calibrate_rings(SimpleNamespace(guess=law), law, problem, torch.device("cpu"), 6)
    found = np.array(factor)[:, None] * law.gain.numpy()[..., ::3]
    agrees(calibrate_rings.calibrate_rings, "gains of octaves", "1 / lost", found, 1 / lost, 0.1)
    assert np.abs(law.tails[1] - law.tails[0]).max() < 0.05  # both are normal
    law.tails = torch.tensor([[-1.0, 1.0]] * 2, dtype=torch.float64)
    x = torch.from_numpy(draw.normal(size=(1, 2, *shape)))
    sides = [basis.T @ (gain[:, bins] * turned(x.numpy())) @ basis for gain in law.gain.numpy()]
    half = np.broadcast_to(np.arange(64) < 32, x.shape)
    condition = Condition({"reached": torch.from_numpy(half.astype(np.float32))})
    expected = np.where(half, sides[1], sides[0])
    agrees(RingGuess, "finished", "numpy", law.finished(x, condition).numpy(), expected, 1e-9, 1e-9)
    energies = law.energies(x, torch.from_numpy(half.copy())).numpy()
    fields = np.stack([basis.T @ (turned(x.numpy()) * (bins // 3 == k)) @ basis for k in range(3)]) ** 2
    own = [(fields * at).sum((1, 3, 4)).T for at in (~half, half)]
    agrees(RingGuess, "energies of octaves", "numpy", energies[..., ::3], np.stack(own), 1e-9, 1e-9)


def test_drawn_values_get_the_quantiles_of_residuals(agrees, monkeypatch):
    """Residuals that are a known function of normal ones: it is found, and goes on beyond what was seen."""
    shape, draw = (64, 64), np.random.default_rng(1)
    edges = torch.tensor([0.1])
    law = RingGuess(torch.ones(1, 2), edges, torch.ones(2) / 2, torch.tensor([True, True]))
    skew = lambda v: v + 0.15 * (np.maximum(v, 0) ** 2 - 0.5)  # noqa: E731
    codec = SimpleNamespace(layout=SimpleNamespace(channels=[0]), widened=lambda factor: None)

    def drawn(law, problem, device, nfe, known, items):
        for _ in range(30):
            x, r = skew(draw.normal(size=(8, 1, *shape))), draw.normal(size=(8, 1, *shape))
            yield Drawn([], np.zeros((8, 0)), x, r, None, np.ones_like(x), None, np.zeros(x.shape, bool))

    monkeypatch.setattr(calibrate_rings, "drawn_of", drawn)
    monkeypatch.setattr(calibrate_rings, "items_of", lambda problem, numbers: [])
    problem = SimpleNamespace(codec=codec, past=lambda row: None, nothing=lambda row: None)
    (factor,) = calibrate_rings.calibrate_rings(SimpleNamespace(guess=law), law, problem, torch.device("cpu"), 6)
    z = np.linspace(-3, 3, 61)
    x = torch.from_numpy(np.resize(z, (1, 1, *shape)))
    law.gain = law.gain.mean().expand(law.gain.shape)  # as of all modes but for chance
    found = factor * law.finished(x, Condition()).numpy().ravel()[:61]
    expected = np.where(z > 0, skew(z), skew(0) + factor * float(law.gain.mean()) * z)  # below the median as drawn
    agrees(calibrate_rings.calibrate_rings, "quantiles of drawn values", "the function", found, expected, 0.05, 0.05)
