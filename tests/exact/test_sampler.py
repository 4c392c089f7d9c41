"""The solver's weights, its order on an exact denoiser, and the moments of the sampler."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.estimate import Estimate
from undrift.denoise.exact import Gaussian, GaussianRandomField
from undrift.infer.sample import sample
from undrift.process import EDM, NCSN, Coloured, DiscreteBetas, LinearBeta, RectifiedFlow, StudentT
from undrift.solve.adams_bashforth import AdamsBashforth, weights
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.exponential import DPMSolverPlusPlus
from undrift.solve.frames import Ratio
from undrift.solve.grid import Nodes, ShortFirst
from undrift.solve.pndm import PNDM
from undrift.solve.runge_kutta import DORMAND_PRINCE, KUTTA, Euler, Heun, RungeKutta
from undrift.solve.sde import AnnealedLangevin, EulerMaruyama, ImprovedEuler
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Condition

CPU = torch.device("cpu")
VARIANCES = np.array([4.0, 1.0, 0.3, 0.05])
MEAN = np.array([1.0, -2.0, 0.5, 0.0])


@dataclass
class ExactGaussian(Denoiser):
    """E[x | x_t] for x ~ N(mean, diag(variances)): mean + v / (v + sigma^2) (x_t - mean), with alpha = 1."""

    process: EDM

    def __call__(self, x_t, t, condition):
        sigma = (t / (1 - t)).reshape(-1, 1)
        v, m = torch.tensor(VARIANCES, device=CPU).to(x_t.dtype), torch.tensor(MEAN, device=CPU).to(x_t.dtype)
        x = m + v / (v + sigma**2) * (x_t - m)
        return Estimate(x, (x_t - x) / sigma, self.process, t)


def exact_flow(x, sigma_t, sigma_s):
    """The probability-flow ODE of a Gaussian: standardised coordinates stay."""
    return MEAN + np.sqrt((VARIANCES + sigma_s**2) / (VARIANCES + sigma_t**2)) * (x - MEAN)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_weights_integrate_the_interpolating_polynomial(count):
    rng = np.random.default_rng(count)
    start, stop = 0.7, 0.55
    nodes = [start, *np.sort(rng.uniform(0.72, 0.95, count - 1))]
    got = weights(nodes, start, stop)
    for i in range(count):
        others = [n for j, n in enumerate(nodes) if j != i]
        lagrange = Polynomial.fromroots(others) if others else Polynomial([1.0])
        integral = (lagrange / lagrange(nodes[i])).integ()
        assert got[i] == pytest.approx(integral(stop) - integral(start), rel=1e-10)


def test_weights_are_the_textbook_ones_on_equal_steps(measured):
    """Adams-Bashforth of order 3 with step 1: 23/12, -16/12, 5/12; of order 2: 3/2, -1/2."""
    off = np.abs(np.array(weights([0.0, -1.0, -2.0], 0.0, 1.0)) - np.array([23, -16, 5]) / 12).max()
    measured(weights, "of order 3 on equal steps", "23/12, -16/12, 5/12", 0, off, within=1e-14)
    assert weights([0.0, -1.0], 0.0, 1.0) == pytest.approx([1.5, -0.5])


def integrate(order, times, x):
    process, solver = EDM(), AdamsBashforth(order)
    denoiser, state = ExactGaussian(process), solver.init(torch.from_numpy(x))
    for t, s in itertools.pairwise(times):
        state = solver.step(lambda x_t, t: denoiser(x_t, t, None), state, process, t, s, None)
    return state.x.numpy()


def between(high, low):
    """The process between two finite noise levels."""
    process = EDM(high)
    process.t_min = low / (1 + low)
    return process


GRIDS = {
    "bridge": lambda steps: ShortFirst()(between(10.0, 0.05), steps, CPU),
    # shrinking steps: only weights from the true nodes keep the order
    "uneven": lambda steps: ShortFirst()(between(10.0, 0.05), steps, CPU) ** 1.3 * (10 / 11) ** -0.3,
    "equal": lambda steps: torch.linspace(10 / 11, 0.05 / 1.05, steps + 1, dtype=torch.float64, device=CPU),
}


@pytest.mark.parametrize(
    ("order", "grid", "slope"),
    [
        (1, "equal", 1),
        (2, "equal", 2),
        (3, "equal", 2),
        (1, "bridge", 1),
        (2, "bridge", 2),
        (3, "bridge", 3),
        (3, "uneven", 3),
    ],
)
def test_order_of_convergence(order, grid, slope):
    x = MEAN + np.sqrt(VARIANCES + 10.0**2) * np.random.default_rng(0).normal(size=(5, 4))
    errors = []
    for steps in (64, 128, 256):
        times = GRIDS[grid](steps)
        last = float(times[-1] / (1 - times[-1]))
        errors.append(np.abs(integrate(order, times, x) - exact_flow(x, 10.0, last)).max())
    slopes = -np.diff(np.log2(errors))
    assert slope - 0.15 < slopes[-1] < slope + 0.6, (errors, slopes)


def test_the_grid_is_even_in_a_power_of_u_after_a_short_first_step():
    process = EDM(sigma_max=40.0)
    t = ShortFirst()(process, 9, CPU).numpy()
    sigma = t / (1 - t)
    u = (sigma / (1 + sigma)) ** (9 / 13.7)
    h = (40 / 41) ** (9 / 13.7) / 9
    assert u[0] - u[1] == pytest.approx(h**1.5)
    np.testing.assert_allclose(u[1:], np.linspace(u[1], 0, 9), atol=1e-15)
    assert t[0] == process.t_max and t[-1] == 0
    assert ShortFirst()(process, 1, CPU).tolist() == [process.t_max, 0.0]
    with pytest.raises(ValueError, match="power is 0"):
        ShortFirst(0)


@pytest.mark.parametrize("nfe", [10, 40])
def test_moments_of_the_sampler_on_a_gaussian(nfe, measured):
    """The whole map is linear for a Gaussian: its factors are measured exactly, and they are the standard deviations."""
    process = EDM()
    z = torch.cat([torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)])
    draw = sample(ExactGaussian(process), 80.0 * z, nfe=nfe)
    assert (draw.nfe, draw.status) == (nfe, "done")
    start, one = draw.x.numpy()
    factor = one - start
    # the start lacks the data's own spread: sigma_max z instead of sqrt(v + sigma_max^2) z
    expected = np.sqrt(VARIANCES) * 80.0 / np.sqrt(VARIANCES + 80.0**2)
    off, most = np.abs(factor / expected - 1).max(), 0.03 if nfe == 10 else 0.001
    measured(sample, f"standard deviation, default, nfe {nfe}, relative", "a Gaussian's", 0, off, within=most)
    # what is drawn at z = 0 starts mean away from the centre of the noise
    np.testing.assert_allclose(start, MEAN * (1 - factor / 80.0), atol=0.02 if nfe == 10 else 0.001)


def test_few_steps_are_enough_for_data_of_unit_scale():
    """The default of ten evaluations: within half a per cent of the standard deviation down to a variance of 0.3."""
    z = torch.tensor([[0.0] * 4, [1.0] * 4], dtype=torch.float64)
    x = sample(ExactGaussian(EDM()), 80.0 * z, nfe=10).x.numpy()
    np.testing.assert_allclose((x[1] - x[0])[:3], np.sqrt(VARIANCES[:3]), rtol=0.006)


def test_a_field_that_leaves_the_finite_numbers_is_reported():
    class Broken(Denoiser):
        process = EDM()

        def __call__(self, x_t, t, condition):
            return Estimate(torch.full_like(x_t, math.nan), x_t, self.process, t)

    assert sample(Broken(), torch.ones(1, 3, dtype=torch.float64), nfe=2).status == "non-finite"


@pytest.mark.parametrize("order", [0, 4])
def test_unknown_orders_are_refused(order):
    with pytest.raises(ValueError, match=f"order is {order}, expected 1, 2 or 3"):
        AdamsBashforth(order)


def test_no_evaluation_is_refused():
    with pytest.raises(ValueError, match="nfe is 0"):
        sample(ExactGaussian(EDM()), torch.zeros(1, 4), nfe=0)


def test_anyones_network_is_sampled_in_a_line():
    """A function of (x, sigma), as EDM's networks are; the last call at sigma(t_min) above 0 is the denoising."""
    process = EDM(80.0, 0.002)
    calls = []

    def network(x, sigma):
        calls.append(float(sigma[0]))
        return x * 0.3 / (0.3 + sigma[:, None] ** 2)

    z = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    denoiser = Denoiser.from_callable(network, predicts="x", process=process, label=process.sigma)
    draw = sample(denoiser, 80 * z, nfe=40)
    assert (draw.nfe, draw.steps, len(calls), draw.status) == (40, 39, 40, "done")
    assert calls[0] == pytest.approx(80.0) and calls[-1] == pytest.approx(0.002)
    torch.testing.assert_close(draw.x, 0.3**0.5 * z, rtol=1e-3, atol=0)
    # the estimated error is that of lower order, so above the true one and going down with it
    finer = sample(denoiser, 80 * z, nfe=80)
    assert draw.error is not None and finer.error is not None
    true = float((draw.x - sample(denoiser, 80 * z, nfe=400).x).square().mean().sqrt())
    assert true < float(draw.error[0]) and float(finer.error[0]) < float(draw.error[0]) / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_told_the_time_in_whole(dtype):
    """Step 999 of DDPM would be step 1000 in bfloat16."""
    process, labels = DiscreteBetas(), []

    def network(x, label):
        labels.append(label)
        return x * label[:, None].cos()

    denoiser = Denoiser.from_callable(network, predicts="eps", process=process, label=process.step_index)
    draw = sample(denoiser, torch.ones(1, 3, dtype=dtype), nfe=4, solver=DDIM(), grid=Nodes())
    assert draw.x.dtype == dtype and all(label.dtype == torch.float32 for label in labels)
    assert [float(label) for label in labels] == [999.0, 666.0, 333.0, 0.0]


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_coloured_noise_in_half_precision_is_that_of_whole(dtype, digits):
    noise, z = Coloured.isotropic((4, 5), -2.0), torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    found, exact = noise.filtered(z.to(dtype), 0.5), noise.filtered(z.to(dtype).double(), 0.5)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= digits * exact.abs().max()


@pytest.mark.parametrize(
    ("covariance", "said"),
    [
        ([[1.0, 0.5], [0.4, 1.0]], "a covariance and its transpose differ by 0.1 of its largest entry"),
        ([[1.0, 2.0], [2.0, 1.0]], "a covariance has an eigenvalue of -0.5 of its largest entry"),
        ([1.0, -2.0], "covariance has a variance of -2, expected numbers above 0"),
        ([[1.0, float("nan")], [0.0, 1.0]], "covariance has NaN or infinite numbers, expected finite ones"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance, said):
    with pytest.raises(ValueError, match=said):
        Gaussian([0.0, 0.0], covariance)


def test_noise_of_the_sde_is_a_rows_own_and_goes_with_the_seed():
    x = 80 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    process = EDM()
    denoiser = Denoiser.from_callable(
        lambda x, s: x / (1 + s[:, None] ** 2), predicts="x", process=process, label=process.sigma
    )
    run = lambda x, seed=3: sample(denoiser, x, nfe=12, solver=Ancestral(), seed=seed).x  # noqa: E731
    torch.testing.assert_close(run(x[:2]), run(x)[:2], rtol=0, atol=0)
    assert not torch.equal(run(x, 4), run(x)) and torch.equal(run(x), run(x))


def test_what_only_white_noise_allows_is_refused_for_others():
    x = torch.ones(1, 3, dtype=torch.float64)
    student = Gaussian(torch.zeros(3), torch.ones(3), noise=StudentT(3.0))
    with pytest.raises(TypeError, match="that of the denoiser is StudentT"):
        sample(student, x, solver=EulerMaruyama())
    assert sample(student, x).status == "done"
    coloured = GaussianRandomField(torch.ones(3), noise=Coloured.isotropic((3,), -1.0))
    with pytest.raises(TypeError, match="expected white noise"):
        sample(coloured, x, solver=EulerMaruyama())
    assert sample(coloured, x, solver=Ancestral()).status == "done"


def test_ancestral_noise_has_the_colour_of_the_process():
    """From nothing but noise to the law of the data: the spectrum of draws, within standard errors."""
    data, noise = Coloured.isotropic((8,), -2.0), Coloured.isotropic((8,), -1.0)
    process, n = EDM(80.0), 1500
    denoiser = GaussianRandomField(data.power, process, noise=noise)
    start = 80 * noise.draw((n, 8), torch.Generator().manual_seed(0))
    x = sample(denoiser, start, nfe=60, solver=Ancestral()).x
    power = (torch.fft.fft(x).abs() ** 2 / 8).mean(0) / data.power
    assert (abs(power - 1) < 0.05 + 4.5 * (2 / n) ** 0.5).all(), power


@pytest.mark.parametrize("process", [EDM(), RectifiedFlow()], ids=["EDM", "flow"])
def test_an_adaptive_run_to_clean_data_ends_with_a_denoising(process):
    """From the true law at t_max, so that what is left is the solver's error and the last denoising's."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variances, t = torch.tensor(VARIANCES), torch.tensor(process.t_max, dtype=torch.float64)
    scale = (process.alpha(t) ** 2 * variances + process.sigma(t) ** 2).sqrt()
    denoiser = Gaussian(torch.zeros(4), variances, process)
    rule = Adaptive(relative=1e-5, absolute=1e-5)
    found = sample(denoiser, scale * x, nfe=2000, solver=RungeKutta(DORMAND_PRINCE), grid=rule)
    assert found.status == "done"
    torch.testing.assert_close(found.x, variances.sqrt() * x, rtol=2e-3, atol=2e-3)
    # the variance that is still noise at the end is gone: without the denoising it is there
    raw = sample(denoiser, scale * x, nfe=2000, solver=RungeKutta(DORMAND_PRINCE), grid=rule, denoise=False)
    assert raw.nfe == found.nfe - 1 and not torch.equal(raw.x, found.x)


class Counted(Denoiser):
    """A Gaussian that keeps the times at which it was asked."""

    def __init__(self, process):
        self.process, self.seen, self.law = process, [], Gaussian(MEAN, VARIANCES, process)

    def __call__(self, x_t, t, condition=None):
        self.seen.append(float(t[0]))
        return self.law(x_t, t, condition)


@pytest.mark.parametrize(
    "solver", [Euler(), RungeKutta(KUTTA), Heun(churn=0.2), AdamsBashforth(), DPMSolverPlusPlus(), PNDM(), DDIM()]
)
def test_steps_are_not_chosen_by_an_error_that_no_step_estimates(solver):
    denoiser = Counted(EDM())
    with pytest.raises(ValueError, match=f"{type(solver).__name__} estimates no error of each step"):
        sample(denoiser, torch.ones(1, 4), nfe=50, solver=solver, grid=Adaptive())
    assert not denoiser.seen


def test_steps_are_not_chosen_by_a_clock_that_begins_at_infinity():
    denoiser = Counted(RectifiedFlow())
    with pytest.raises(ValueError, match="clock of Ratio is infinite at t_max of RectifiedFlow"):
        sample(denoiser, torch.ones(1, 4), nfe=50, solver=RungeKutta(DORMAND_PRINCE, Ratio()), grid=Adaptive())
    assert not denoiser.seen


def test_annealed_langevin_in_the_loop():
    """So many evaluations at each level, and one sentence where there is no smallest level or steps diverge."""
    law, x = Counted(NCSN(0.1, 1.0, 5)), torch.ones(1, 4, dtype=torch.float64)
    found = sample(law, x, nfe=16, solver=AnnealedLangevin(0.01, 3), grid=Nodes())
    assert (found.nfe, found.steps) == (16, 4)
    np.testing.assert_allclose(law.seen, [*np.repeat(np.linspace(1, 0, 5), 3), 0.0], atol=1e-15)
    for process, epsilon, nfe, said in (
        (law.process, 0.01, 6, "nfe is 6, expected at least 7 for one step of AnnealedLangevin"),
        (law.process, 0.0400001, 16, r"epsilon is 0.0400001, expected less than 4 sigma\(t_min\)\^2 = 0.04"),
        (EDM(), 0.01, 16, r"sigma\(t_min\) is 0 for EDM"),
    ):
        law = Counted(process)
        with pytest.raises(ValueError, match=said):
            sample(law, x, nfe=nfe, solver=AnnealedLangevin(epsilon, 3))
        assert not law.seen


def test_the_learned_variance_of_cells_is_not_mixed_with_coloured_noise():
    coloured = GaussianRandomField(torch.ones(3), noise=Coloured.isotropic((3,), -1.0))
    with pytest.raises(TypeError, match="Ancestral adds noise, and that of the denoiser is Coloured"):
        sample(coloured, torch.ones(1, 3, dtype=torch.float64), solver=Ancestral("learned"))


def test_a_gradient_where_there_is_no_signal_is_no_nan():
    process = RectifiedFlow()
    one = Estimate(torch.ones(1, 2), torch.ones(1, 2), process, torch.ones(1, dtype=torch.float64))
    assert torch.equal(one.shift(torch.zeros(1, 2)).x, one.x)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_an_adaptive_run_of_the_sde_knows_the_error_of_every_row(kind):
    law = Gaussian(MEAN, VARIANCES, LinearBeta())
    x_1 = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(kind)
    draw = sample(law, x_1, nfe=2000, solver=ImprovedEuler(), grid=Adaptive(0.1, 0.1))
    assert draw.status == "done" and (draw.error > 0).all() and (draw.error < 5).all()


def test_what_cannot_be_sampled_is_refused():
    law = Gaussian(MEAN, VARIANCES, EDM())
    with pytest.raises(ValueError, match=r"x_1 is \(2, 4\) of torch.int64, expected a tensor"):
        sample(law, torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="x_1 is ndarray"):
        sample(law, np.ones((2, 4)))
    with pytest.raises(ValueError, match="'year' has 5 rows, expected 2"):
        sample(law, torch.ones(2, 4), Condition(vectors={"year": torch.ones(5, 1)}))


def test_an_adaptive_run_that_meets_no_number_says_so():
    denoiser = Denoiser.from_callable(lambda x, t: x * torch.nan, process=EDM())
    draw = sample(denoiser, torch.ones(2, 4), nfe=40, solver=Heun(), grid=Adaptive(), denoise=False)
    assert draw.status == "non-finite" and draw.nfe <= 40
