"""Laws of noise and couplings: their moments, their densities, and the assignment by exhaustion."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from undrift.process import Bridge, Coloured, DataToData, Empirical, Independent, MinibatchOT, StudentT, White

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from implementations import COUPLINGS

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_white_noise_is_standard_normal(measured):
    z = White().draw((400, 50), generator()).numpy()
    p = stats.kstest(z.ravel(), "norm").pvalue
    measured(White, "p of draws", "normal law, Kolmogorov and Smirnov", "≥ 1e-3", p, least=1e-3)
    assert abs(np.mean(z[:, 1:] * z[:, :-1])) < 4 / np.sqrt(z.size)
    torch.testing.assert_close(White().whitened(torch.ones(2, 3)), torch.ones(2, 3))


def test_coloured_noise_has_the_covariance_of_its_spectrum(agrees):
    """The filter applied to each basis vector gives the root of the circulant matrix of the spectrum."""
    noise = Coloured.isotropic((4, 6), -1.5)
    power = noise.power.numpy()
    assert power.mean() == pytest.approx(1.0)
    ky, kx = np.meshgrid(np.fft.fftfreq(4), np.fft.fftfreq(6), indexing="ij")
    k = np.maximum(np.hypot(ky, kx), 1 / 6)
    agrees(Coloured, "spectrum, isotropic", "power of |k|", power / power[1, 0], (k / k[1, 0]) ** -1.5, rtol=1e-12)
    lag = np.fft.ifft2(power).real  # covariance at each lag
    y, x = np.divmod(np.arange(24), 6)
    covariance = lag[(y[:, None] - y) % 4, (x[:, None] - x) % 6]
    basis = torch.eye(24, dtype=torch.float64, device=CPU).reshape(24, 4, 6)
    root = noise.filtered(basis, 0.5).reshape(24, 24).numpy()
    agrees(
        Coloured, "covariance", "circulant matrix of the spectrum", root.T @ root, covariance, rtol=1e-12, atol=1e-12
    )
    inverse = noise.whitened(basis).reshape(24, 24)
    agrees(Coloured, "inverse covariance", "numpy's inverse", inverse, np.linalg.inv(covariance), rtol=1e-9, atol=1e-9)


def test_draws_of_coloured_noise_have_its_spectrum(measured):
    noise, n = Coloured.isotropic((8, 8), -2.0), 4000
    z = noise.draw((n, 8, 8), generator())
    found = (torch.fft.fft2(z).abs() ** 2 / 64).mean(0).numpy()
    away = found / noise.power.numpy() - 1
    worst = np.abs(away).max() / np.sqrt(2 / n)  # real modes have chi-squares of one degree
    measured(Coloured, "spectrum of draws, 64 modes", "power (standard errors)", "≤ 5", worst, most=5)
    assert z.var() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("n", "dof"), [(5, 3.0), (2, 1.0), (64, 2048.0)])
def test_student_noise_is_the_perturbation_of_pfgm(n, dof, measured):
    """PFGM++, appendix B: with beta ~ Beta(N/2, D/2), R = sigma sqrt(D) sqrt(beta / (1 - beta)), direction uniform."""
    z = StudentT(dof).draw((4000, n), generator(1)).numpy()
    radius = np.linalg.norm(z, axis=1)
    share = radius**2 / dof / (1 + radius**2 / dof)
    p = stats.kstest(share, stats.beta(n / 2, dof / 2).cdf).pvalue
    measured(StudentT, f"p of the radius, N {n}, D {dof:g}", "Xu et al. (2023), appendix B", "≥ 1e-3", p, least=1e-3)
    direction = z / radius[:, None]
    assert np.abs(direction.mean(0)).max() < 5 / np.sqrt(4000 * n)
    marginal = stats.kstest(z[:, 0], stats.t(dof).cdf)
    assert marginal.pvalue > 1e-3


def test_many_added_dimensions_are_white_noise(agrees):
    share = torch.linspace(0.001, 0.999, 50, dtype=torch.float64, device=CPU)
    assert (StudentT(1e9).scale(share) - 1).abs().max() < 2e-4
    # quantiles of the inverse root of chi2_3 / 3
    expected = 1 / np.sqrt(stats.chi2(3).ppf(share.numpy()) / 3)
    agrees(StudentT, "quantiles of the scale", "scipy's chi2", StudentT(3.0).scale(share), expected, rtol=1e-10)


def test_what_only_gaussian_noise_has_is_refused():
    assert not StudentT(2.0).gaussian and White().gaussian
    with pytest.raises(TypeError, match="StudentT noise is not Gaussian"):
        StudentT(2.0).whitened(torch.ones(1, 2))


def test_minibatch_transport_is_the_best_of_all_permutations(measured):
    x = torch.randn(5, 3, generator=generator(2), dtype=torch.float64)
    base = DataToData(torch.randn(7, 3, generator=generator(3), dtype=torch.float64))
    z = MinibatchOT(base)(x, generator(4))
    drawn = base(x, generator(4))
    costs = {p: float(((x - drawn[list(p)]) ** 2).sum()) for p in itertools.permutations(range(5))}
    cost = float(((x - z) ** 2).sum())
    measured(MinibatchOT, "cost of five pairs", "all 120 permutations", min(costs.values()), cost, within=1e-9)
    torch.testing.assert_close(z, drawn[list(min(costs, key=lambda p: costs[p]))])


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_coupling_says_whether_its_z_knows_x(name):
    x = torch.linspace(-1, 1, 30, dtype=torch.float64, device=CPU).reshape(5, 6)
    given = torch.zeros(5, 1, dtype=torch.float64, device=CPU)
    one, other = (COUPLINGS[name](of, generator(4), given) for of in (x, x.flip(0)))
    assert COUPLINGS[name].knows_x == (not torch.equal(one, other))
    assert not (COUPLINGS[name].independent and COUPLINGS[name].knows_x)


def test_couplings_keep_the_law_of_the_other_end(measured):
    x = torch.zeros(3000, 2, dtype=torch.float64)
    p = stats.kstest(Independent()(x, generator(5)).numpy().ravel(), "norm").pvalue
    measured(Independent, "p of z", "normal law, Kolmogorov and Smirnov", "≥ 1e-3", p, least=1e-3)
    rows = DataToData(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))(x, generator(6))
    share = float((rows[:, 0] == 1).double().mean())
    away = (share - 0.5) / (0.5 / np.sqrt(3000))
    for of in (DataToData, Empirical):
        measured(of, "share of the first of two rows", "1/2 (standard errors)", 0, away, within=4.5)
    assert {tuple(r) for r in rows.tolist()} == {(1.0, 2.0), (3.0, 4.0)}
    with pytest.raises(ValueError, match="those of the other data set"):
        DataToData(torch.zeros(2, 5))(x, generator())


def test_a_bridge_is_closed_at_both_ends(agrees):
    bridge = Bridge(0.3)
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64, device=CPU).requires_grad_()
    gamma = bridge.gamma(t)
    paper = "Albergo et al. (2023), table 3"
    agrees(Bridge, "gamma at 0, 1/4, 1/2, 1", paper, gamma.detach(), [0, 0.15, 0.3, 0], rtol=1e-14, atol=1e-14)
    (slope,) = torch.autograd.grad(gamma.sum(), t)
    agrees(Bridge, "gamma'", "automatic differentiation", bridge.gamma_dot(t.detach()), slope, rtol=1e-12, atol=1e-14)


def test_bad_laws_are_refused():
    with pytest.raises(ValueError, match="even in k"):
        Coloured(torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="not above 0"):
        Coloured(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="expected a last part of"):
        Coloured(torch.ones(4)).whitened(torch.ones(2, 5))
    for dof in (0, 1e-3):
        with pytest.raises(ValueError, match=f"dof is {dof}, expected 0.1 or more"):
            StudentT(dof)
    assert torch.isfinite(StudentT(0.1).draw((20000, 2), generator())).all()
    with pytest.raises(ValueError, match="scale is 0"):
        Bridge(0)
