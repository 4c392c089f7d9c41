"""What every solver and time grid keeps: its order, rows that do not know of each other, steps linear in the estimates."""

from itertools import pairwise

import pytest
import torch
from implementations import CPU, GRIDS, PROCESSES, SOLVERS

from undrift.denoise.denoiser import Estimate
from undrift.process import EDM

F64 = {"dtype": torch.float64, "device": CPU}
each = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def gaussian(process, variance=0.3, mean=0.7):
    """E[x | x_t] for x ~ N(mean, variance), and the noise that goes with it."""

    def f(x_t, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        x = mean + variance * alpha / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)
        return Estimate(x, (x_t - alpha * x) / sigma)

    return f


def run(solver, process, times, x, f):
    state = solver.init(x)
    for t, s in pairwise(times):
        state = solver.step(f, state, process, t, s)
    return state.x


def starts(seed, count=5):
    return torch.randn(count, 1, 3, generator=torch.Generator().manual_seed(seed), **F64)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_grid_goes_from_all_noise_to_the_data(grid, process, steps):
    t = grid(process, steps, CPU)
    assert t.dtype == torch.float64 and t.shape == (steps + 1,)
    assert t[0] == process.t_max and t[-1] == process.t_min
    assert (t.diff() < 0).all()


@each
def test_the_declared_order_is_the_measured_one(solver):
    """Against the exact flow of a Gaussian, in which standardised coordinates stay, with the solver's own grid."""
    process = EDM(10.0)
    process.t_min = 0.05 / 1.05
    mean, variance, errors = 0.7, 0.3, []
    x = mean + (variance + 100.0) ** 0.5 * starts(0)
    exact = mean + ((variance + 0.05**2) / (variance + 100.0)) ** 0.5 * (x - mean)
    for steps in (64, 128, 256):
        times = GRIDS["uniform bridge"](process, steps, CPU)
        errors.append(float((run(solver, process, times, x, gaussian(process)) - exact).abs().max()))
    slope = torch.tensor(errors).log2().diff().neg()[-1]
    assert solver.order - 0.15 < slope < solver.order + 0.6, errors


@each
def test_a_row_does_not_know_of_the_others(solver):
    process = EDM(20.0)
    times, f = GRIDS["uniform bridge"](process, 6, CPU), gaussian(process)
    x = 20 * starts(1)
    together = run(solver, process, times, x, f)
    for i in range(len(x)):
        assert torch.equal(run(solver, process, times, x[i : i + 1], f), together[i : i + 1])
    moved = x.clone()
    moved[1:] *= 100
    assert torch.equal(run(solver, process, times, moved, f)[0], together[0])


@each
def test_no_time_no_step(solver):
    process = EDM(20.0)
    x, t = starts(2), torch.tensor(0.8, **F64)
    state = solver.step(gaussian(process), solver.init(x), process, t, t)
    torch.testing.assert_close(state.x, x, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("solver", [s for s in SOLVERS.values() if not s.stochastic], ids=lambda s: str(s.order))
def test_a_deterministic_step_is_linear_in_state_and_estimates(solver):
    """What integrates the field integrates the divergence with the same weights."""
    process, times = EDM(20.0), torch.tensor([0.9, 0.8, 0.6, 0.3], **F64)
    fields = [[starts(10 * k + i) for i in range(7)] for k in range(2)]
    both = [2.0 * a - 3.0 * b for a, b in zip(*fields)]

    def integrate(parts):
        queue = iter(range(1, 7, 2))

        def f(x_t, t):
            i = next(queue)
            return Estimate(parts[i], parts[i + 1])

        return run(solver, process, times, parts[0], f)

    one, two = (integrate(parts) for parts in fields)
    torch.testing.assert_close(integrate(both), 2.0 * one - 3.0 * two, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(one, fields[0][0])
