"""Targets against their papers' definitions, and back; estimates; anyone's network as a denoiser."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from undrift.denoise.denoiser import Denoiser, FromCallable
from undrift.denoise.estimate import Estimate, along
from undrift.denoise.targets import Eps, F, LearnedRange, Mean, Score, V, Velocity, X, named, target
from undrift.objective import DiscreteVLB
from undrift.process import EDM, Coloured, DiscreteBetas, RectifiedFlow, StudentT, White
from undrift.solve.ancestral import Ancestral
from undrift.solve.solver import State
from undrift.tasks.batch import Batch

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from implementations import PROCESSES

CPU = torch.device("cpu")
each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
TARGETS = {
    "eps": Eps(),
    "x": X(),
    "v": V(),
    "velocity": Velocity(),
    "score": Score(),
    "F": F(),
    "F of other data": F(1.7),
}


def problem(process, count=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(process.t_min, process.t_max, count + 2, dtype=torch.float64, device=CPU)[1:-1]
    x, z = torch.randn(2, count, 3, generator=generator, dtype=torch.float64, device=CPU)
    return t, x, z, process.alpha(t)[:, None] * x + process.sigma(t)[:, None] * z


@each
@pytest.mark.parametrize("name", TARGETS)
def test_x_and_z_come_back(process, name, agrees):
    t, x, z, x_t = problem(process)
    one = TARGETS[name]
    found = one.solve(one.of(x, z, process, t), x_t, process, t, White())
    pairs = np.stack([found.x, found.z]), np.stack([x, z])
    agrees(type(one), "x and z back from it, every process", "x and z", *pairs, rtol=1e-6, atol=1e-6)


@each
def test_targets_are_what_their_papers_say(process, agrees):
    t, x, z, x_t = problem(process)
    alpha, sigma = (v(t)[:, None] for v in (process.alpha, process.sigma))
    times = t.clone().requires_grad_()
    path = process.alpha(times)[:, None] * x + process.sigma(times)[:, None] * z
    slopes = [torch.autograd.grad(path[:, i].sum(), times, retain_graph=True)[0] for i in range(3)]
    defined = {
        "eps": ("Ho et al. (2020)", z),
        "x": ("x", x),
        "v": ("Salimans & Ho (2022)", alpha * z - sigma * x),
        "score": ("Vincent (2011)", -(x_t - alpha * x) / sigma**2),
        "velocity": ("d x_t / d t, automatically", torch.stack(slopes, 1)),
    }
    for name, data in (("F", 0.5), ("F of other data", 1.7)):  # of x_t / alpha
        ratio = sigma / alpha
        skip = data**2 / (ratio**2 + data**2)
        out = ratio * data / (ratio**2 + data**2).sqrt()
        defined[name] = ("Karras et al. (2022), table 1", (x - skip * x_t / alpha) / out)
    for name, (paper, expected) in defined.items():
        found, loose = TARGETS[name].of(x, z, process, t), name in ("score", "F", "F of other data")
        close = 1e-6 if loose else 1e-9
        agrees(type(TARGETS[name]), "of x and z, every process", paper, found, expected, rtol=close, atol=close)
        if name in ("eps", "x", "v", "velocity", "score", "F"):
            found = named(name).of(x, z, process, t)
            agrees(named, "six names", "their papers", found, expected, rtol=1e-6, atol=1e-6)
        if name in ("x", "v", "velocity", "F"):  # which determine x where alpha is 0, too
            found = target(name, process).of(x, z, process, t)
            agrees(target, "four names that fit every process", "their papers", found, expected, rtol=1e-6, atol=1e-6)


def test_the_mean_of_ddpm_in_its_own_letters(agrees):
    """Ho et al., eq. 7, from the betas alone; at the last step it is x itself."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    process, i = DiscreteBetas(), 300
    mean = Mean(lambda t: t - 1 / 1000)
    t = process.nodes[[i]]
    x, z = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = np.sqrt(bar[i]) * x + np.sqrt(1 - bar[i]) * z
    expected = (
        np.sqrt(bar[i - 1]) * betas[i] / (1 - bar[i]) * x
        + np.sqrt(1 - betas[i]) * (1 - bar[i - 1]) / (1 - bar[i]) * x_t
    )
    got = mean.of(x, z, process, t)
    agrees(Mean, "of x and z, step 301", "Ho et al. (2020), eq. 7", got, expected, rtol=1e-9, atol=1e-9)
    found = mean.solve(got, x_t, process, t, White())
    pairs = np.stack([found.x, found.z]), np.stack([x, z])
    agrees(Mean, "x and z back from it", "x and z", *pairs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean.of(x, z, process, process.nodes[[0]]), x)


def improved(v, i=300):
    """A network of improved DDPM that predicts the noise 0 and v, its denoiser, and its process, step i."""
    process = DiscreteBetas()

    def net(x, label):
        return torch.cat([0 * x, v.expand_as(x)], 1)

    predicts = LearnedRange("eps", lambda t: t - 1 / 1000)
    return process, Denoiser.from_callable(net, predicts=predicts, process=process), process.nodes[i]


def test_the_learned_range_is_the_variance_of_ddpms_step(measured):
    """Nichol & Dhariwal, eq. 15, from the betas alone; and that of the first step is its beta."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar, i = np.cumprod(1 - betas), 300
    v = torch.tensor([-1.0, 0.3, 1.0], dtype=torch.float64)
    process, denoiser, t = improved(v, i)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    state = Ancestral("learned").step(
        lambda x, at: denoiser(x, at.expand(1)), State(zero), process, t, process.nodes[i - 1], lambda stage: zero + 1
    )
    least = betas[i] * (1 - bar[i - 1]) / (1 - bar[i])
    share = (v.numpy() + 1) / 2
    expected = np.exp(share * np.log(betas[i]) + (1 - share) * np.log(least))
    gap = np.abs(state.x.numpy()[0] ** 2 / expected - 1).max()
    measured(LearnedRange, "relative error of the step's variance", "the betas", 0.0, gap, within=1e-9)
    first = denoiser(zero, process.nodes[:1]).variance
    torch.testing.assert_close(first, torch.full_like(zero, betas[0]), rtol=1e-9, atol=0)


def test_the_bound_teaches_the_learned_range_the_variance_of_the_data():
    """Unit Gaussian data: var(x_s | x_t) is DDPM's upper bound b, so the least bound is at v = 1."""
    process, (s, t) = DiscreteBetas(), DiscreteBetas().nodes[1:3]
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def net(x_t, label):
        return torch.cat([process.sigma(t) * x_t, v.expand_as(x_t)], 1)  # E[z | x_t]

    predicts = LearnedRange("eps", lambda t: t - 1 / 1000)
    denoiser, loss = Denoiser.from_callable(net, predicts=predicts, process=process), DiscreteVLB(torch.stack([s, t]))
    span = -float(torch.log((1 - process.alpha(s) ** 2) / (1 - process.alpha(t) ** 2)))  # log(b / b')
    for value in (-1.0, 1.0, 3.0):
        v.data.fill_(value)
        (slope,) = torch.autograd.grad(loss(Batch.of(x), denoiser, 5)[0].mean(), v)
        away = (value - 1) / 2 * span  # log(S / b), along which the KL rises by (1 - b / S) / 2
        assert float(slope) / (span / 2) == pytest.approx((1 - np.exp(-away)) / 2, abs=0.03)


@each
def test_velocity_score_and_shift_of_an_estimate(process, agrees):
    t, x, z, x_t = problem(process)
    estimate = Estimate(x, z, process, t)
    alpha, sigma, alpha_dot, sigma_dot = (
        f(t)[:, None] for f in (process.alpha, process.sigma, process.alpha_dot, process.sigma_dot)
    )
    agrees(Estimate, "velocity", "alpha' x + sigma' z", estimate.velocity, alpha_dot * x + sigma_dot * z, rtol=1e-9)
    agrees(Estimate, "score", "-z / sigma", estimate.score, -z / sigma, rtol=1e-9)
    agrees(
        along,
        "of seven rows, times (7, 3)",
        "numpy's broadcasting",
        along(t, x) * x,
        t.numpy()[:, None] * x.numpy(),
        rtol=1e-12,
    )
    push = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = estimate.shift(push)
    agrees(Estimate, "score after a shift", "score + shift", moved.score, estimate.score + push, rtol=1e-8, atol=1e-8)
    agrees(
        Estimate, "alpha x + sigma z after a shift", "x_t", alpha * moved.x + sigma * moved.z, x_t, rtol=1e-9, atol=1e-9
    )


def test_the_score_of_coloured_noise_is_that_of_its_covariance(agrees):
    noise, process = Coloured.isotropic((4, 6), -1.0), EDM()
    x, z = torch.randn(2, 1, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.4], dtype=torch.float64)
    basis = torch.eye(24, dtype=torch.float64).reshape(24, 4, 6)
    inverse = torch.linalg.inv(noise.filtered(basis, 1.0).reshape(24, 24))
    expected = -(inverse @ z.reshape(24) / process.sigma(t)).reshape(1, 4, 6)
    found = Estimate(x, z, process, t, noise).score
    agrees(Estimate, "score, coloured noise", "dense inverse covariance", found, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(TypeError, match="not Gaussian"):
        _ = Estimate(x, z, process, t, StudentT(3.0)).score
    with pytest.raises(TypeError, match="expected white noise"):
        Estimate(x, z, process, t, noise).shift(x)


def test_a_network_of_edm_and_one_of_ddpm(agrees):
    """Both as their repositories have them: D(x, sigma) -> x, and eps(x, step)."""
    variance = 0.4

    def karras(x, sigma):
        return variance / (variance + sigma[:, None] ** 2) * x

    process = EDM()
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x_t = torch.tensor([[0.3, -1.0], [4.0, 2.0]], dtype=torch.float64)
    found = Denoiser.from_callable(karras, predicts="x", process=process, label=process.sigma)(x_t, t)
    sigma = torch.tensor([0.25, 9.0], dtype=torch.float64)[:, None]
    pairs = np.stack([found.x, found.z]), np.stack([v / (variance + sigma**2) * x_t for v in (variance, sigma)])
    agrees(FromCallable, "x, z by a network D(x, sigma)", "posterior of a Gaussian", *pairs, rtol=1e-12)

    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

    def ho(x, step):
        alpha2 = bar[step.round().long()][:, None]
        return (1 - alpha2).sqrt() / (alpha2 * variance + 1 - alpha2) * x

    process = DiscreteBetas()
    t = process.nodes[[3, 800]]
    found = Denoiser.from_callable(ho, predicts="eps", process=process, label=process.step_index)(x_t, t)
    alpha2 = bar[[3, 800]][:, None]
    expected = alpha2.sqrt() * variance / (alpha2 * variance + 1 - alpha2) * x_t
    agrees(FromCallable, "x by a network eps(x, step)", "posterior of a Gaussian", found.x, expected, rtol=1e-9)


def test_the_pullback_is_the_transposed_jacobian(agrees):
    process = RectifiedFlow()
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = Denoiser.from_callable(lambda x, t: torch.tanh(x @ matrix.T), predicts="x", process=process)
    x_t = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, g = (
        torch.tensor([0.3, 0.6], dtype=torch.float64),
        torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 1.0]], dtype=torch.float64),
    )
    with torch.no_grad():
        found, back = denoiser.pullback(x_t, t)
    value = torch.tanh(x_t @ matrix.T)
    torch.testing.assert_close(found.x, value)
    expected = ((1 - value**2) * g) @ matrix
    agrees(FromCallable, "pullback", "transposed Jacobian of a tanh", back(g), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back(2 * g), 2 * back(g))
    assert not found.x.requires_grad


def test_what_does_not_determine_x_is_refused():
    with pytest.raises(ValueError, match="says nothing of x at t = 1"):
        Denoiser.from_callable(lambda x, t: x, predicts="eps", process=RectifiedFlow())
    with pytest.raises(ValueError, match="predicts is 'noise', expected one of eps, x, v"):
        Denoiser.from_callable(lambda x, t: x, predicts="noise", process=EDM())
    with pytest.raises(ValueError, match=r"made \(2, 3\) of \(2, 6\)"):
        Denoiser.from_callable(lambda x, t: x[:, :3], process=EDM())(torch.ones(2, 6), torch.ones(2) / 2)
    with pytest.raises(ValueError, match="sigma_data is 0"):
        F(0.0)
