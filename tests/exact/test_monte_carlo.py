"""Moments and spectra of draws by Monte Carlo: each named functional, and all at once by one chi-square.

The bias of a run is found without drawing: on a Gaussian field every step is linear and the same in every cell, so that
what a unit impulse becomes is the factor of every wavenumber; on a mixture the start is integrated over.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import pinvh
from scipy.stats import chi2, norm

from undrift.denoise.exact import GaussianRandomField, Mixture
from undrift.infer.sample import sample
from undrift.process import EDM, LinearLogSNR
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.exponential import SDEDPMSolverPlusPlus
from undrift.solve.grid import EvenLogSNR, ShortFirst

LEVEL = 1e-3  # of all bounds of one set together, and on both sides of its chi-square


def compared(method, draws, names, values, expected, measured, *, covariance=None, bias=0.0, wrong=None):
    """Means of ``values`` (n, functionals), of known bias, against ``expected``, which is to be told from ``wrong``."""
    covariance = np.cov(values.T) if covariance is None else covariance
    error = np.sqrt(np.diag(covariance) / len(values))
    assert len(names) == values.shape[1] <= 100
    assert (error < 0.01 * np.abs(expected)).all(), dict(zip(names, error / expected))
    off = (values.mean(0) - expected) / error
    assert (np.abs(off) < norm.isf(LEVEL / 2 / len(names))).all(), dict(zip(names, off))
    inverse, rank = pinvh(covariance / np.outer(error, error) / len(values), rtol=1e-9, return_rank=True)
    least, most = chi2.isf([1 - LEVEL, LEVEL], rank)
    said = f"{least:.3g} to {most:.3g}, {rank} degrees"
    measured(method, f"chi-square, {draws}", "closed form", said, off @ inverse @ off, least=least, most=most)
    if method is sample:
        share = (np.abs(bias) / error).max()
        measured(method, f"bias over standard error, {draws}", "exact propagation", "below 0.3", share, most=0.3)
    off = (values.mean(0) - wrong) / error
    assert off @ inverse @ off > most, "a law that is 2 % off is not told from the right one"


def spectrum(shape, length):
    """Power of a field that is rougher along the first dim than along the second, (*shape); ``length`` in cells."""
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    return 2 / (1 + length**2 * (x**2 + 2 * y**2))


def functionals(shape, edges, lags):
    """Names and weights (functionals, *shape): all are sums of weights times ``|FFT(x)_k|^2 / cells``."""
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius, out = np.hypot(shape[0] * y, shape[1] * x), {}
    for low, high in itertools.pairwise(edges):
        inside = (radius >= low) & (radius < high)
        out[f"variance at {low} <= |k| < {high}"] = inside / inside.sum()
    for a, b in lags:
        out[f"covariance at lag {a}, {b}"] = np.cos(2 * np.pi * (a * y + b * x)) / y.size
    return list(out), np.stack(list(out.values()))


def coloured(power, count, seed):
    """Fields of a spectrum, (count, *space)."""
    modes = np.fft.fft2(np.random.default_rng(seed).normal(size=(count, *power.shape)))
    return np.fft.ifft2(modes * np.sqrt(power)).real


def gains(law, solver, times):
    """``|factor|^2`` at each wavenumber of the start and of each step's unit noise, (times, *space)."""
    impulses = torch.zeros(len(times), len(times), *law.law.power.shape, dtype=torch.float64)
    impulses[range(len(times)), range(len(times)), 0, 0] = 1
    state = solver.init(impulses[0])
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        noise = impulses[i + 1]
        state = solver.step(lambda x, at: law(x, at.expand(len(x))), state, law.process, t, s, lambda _, z=noise: z)
    sigma = float(law.process.sigma(times[-1]))
    x = law(state.x, times[-1:].expand(len(times))).x if sigma > 0 else state.x
    return np.abs(np.fft.fft2(x.numpy())) ** 2


SMALL = ((6, 8), 7.0, (0, 0.5, 1.2, 1.8, 2.5, 3.3, 9), [(0, 0), (0, 1), (1, 0), (1, 1)])
LARGE = ((16, 16), 3.6, (0, 4, 6, 7.5, 99), [(0, 0), (1, 0)])
RUNS = {
    "field, default": (SMALL, EDM(), None, None, 40, 26_000),
    "field, SDE-DPM-Solver++": (LARGE, LinearLogSNR(10, -6), SDEDPMSolverPlusPlus(), EvenLogSNR(), 141, 640),
}


@pytest.mark.parametrize("run", [None, *RUNS])
def test_spectra_of_a_random_field(run, measured):
    (shape, length, edges, lags), process, solver, grid, nfe, n = RUNS[run or "field, default"]
    power = spectrum(shape, length)
    law = GaussianRandomField(torch.from_numpy(power), process)
    names, weights = functionals(shape, edges, lags)
    method, bias = sample if run else GaussianRandomField, 0.0
    if run is None:
        x = law.sample(n, torch.Generator().manual_seed(0)).numpy()
    else:
        top = torch.tensor(process.t_max, dtype=torch.float64)
        start = float(process.alpha(top)) ** 2 * power + float(process.sigma(top)) ** 2
        x_1 = torch.from_numpy(coloured(start, n, 1))
        drawn = sample(law, x_1, nfe=nfe, solver=solver, grid=grid, seed=1)
        gain = gains(law, solver or AdamsBashforth(), (grid or ShortFirst())(process, drawn.steps))
        end = gain[0] * start + gain[1:].sum(0)
        x, bias = drawn.x.numpy(), np.einsum("aij,ij->a", weights, end - power)
    values = np.einsum("nij,aij->na", np.abs(np.fft.fft2(x)) ** 2 / power.size, weights)
    expected = np.einsum("aij,ij->a", weights, power)
    known = {"covariance": 2 * np.einsum("aij,bij->ab", weights * power**2, weights), "bias": bias}
    compared(method, run or "field", names, values, expected, measured, wrong=1.02 * expected, **known)


MEANS = np.array([[2.0, 1.0], [3.5, 2.5], [1.2, 3.0]])
STDS = np.array([[0.5, 0.6], [0.4, 0.5], [0.5, 0.4]])
SHARES = np.array([0.3, 0.4, 0.3])
POWERS = [(1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3), (4, 0), (2, 2), (0, 4)]


def mixed(x):
    """Of each draw: the share of each mode, whose mean is the mode's weight, and products of powers."""
    density = SHARES * np.exp(-0.5 * (((x[:, None] - MEANS) / STDS) ** 2).sum(2)) / STDS.prod(1)
    products = np.stack([x[:, 0] ** i * x[:, 1] ** j for i, j in POWERS], 1)
    return np.concatenate([density / density.sum(1, keepdims=True), products], 1)


def moments(stds):
    """The means of the above: weights, and raw moments to the fourth of Gaussians."""
    m, v = MEANS, stds**2
    raw = [np.ones_like(m), m, m**2 + v, m**3 + 3 * m * v, m**4 + 6 * m**2 * v + 3 * v**2]
    return np.array([*SHARES, *(SHARES @ (raw[i][:, 0] * raw[j][:, 1]) for i, j in POWERS)])


@pytest.mark.parametrize("run", [None, "mixture, default"])
def test_moments_of_a_mixture(run, measured):
    law, n, nfe, bias, method = Mixture(MEANS, STDS, SHARES), 60_000, 20, 0.0, sample if run else Mixture
    x = law.sample(n, torch.Generator().manual_seed(0)).numpy()
    if run:
        rng = np.random.default_rng(1)
        modes = rng.choice(3, n, p=SHARES)
        x_1 = MEANS[modes] + np.sqrt(STDS[modes] ** 2 + 80**2) * rng.normal(size=(n, 2))
        x = sample(law, torch.from_numpy(x_1), nfe=nfe).x.numpy()

        z = np.linspace(-6.5, 6.5, 120)
        nodes = 80 * np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2)
        spread = STDS**2 + 80**2
        density = np.exp(-0.5 * ((nodes[:, None] - MEANS) ** 2 / spread).sum(2)) / np.sqrt(spread.prod(1)) @ SHARES
        ends = mixed(sample(law, torch.from_numpy(nodes), nfe=nfe).x.numpy())
        bias = density @ ends / density.sum() - moments(STDS)
    names = ["weight 0", "weight 1", "weight 2", *(f"E x^{i} y^{j}" for i, j in POWERS)]
    known = {"bias": bias, "wrong": moments(1.02 * STDS)}
    compared(method, run or "mixture", names, mixed(x), moments(STDS), measured, **known)
