"""What every solver and time grid keeps: its order, rows that do not know of each other, steps linear in the estimates."""

from itertools import pairwise

import pytest
import torch
from implementations import CPU, GRIDS, NODES, PROCESSES, SOLVERS

from undrift.denoise.estimate import Estimate, along
from undrift.process import EDM, NCSN, DiscreteBetas, RectifiedFlow
from undrift.solve.frames import Plain
from undrift.solve.multistep import Multistep
from undrift.solve.pndm import PNDM
from undrift.solve.sde import AnnealedLangevin, EulerMaruyama, ImprovedEuler, Langevin, PredictorCorrector
from undrift.solve.solver import State

F64 = {"dtype": torch.float64, "device": CPU}
each = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def gaussian(process, variance=0.3, mean=0.7):
    """E[x | x_t] for x ~ N(mean, variance), and the noise that goes with it."""

    def f(x_t, t):
        alpha, sigma = along(process.alpha(t), x_t), along(process.sigma(t), x_t)
        x = mean + variance * alpha / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)
        left = variance * sigma**2 / (alpha**2 * variance + sigma**2)
        return Estimate(x, (x_t - alpha * x) / sigma, process, t, variance=left * torch.ones_like(x))

    return f


def run(solver, process, times, x, f, rows=None):
    """The end of a run of some rows, each with the noise of its number."""
    state = solver.init(x)
    for step, (t, s) in enumerate(pairwise(times)):
        state = solver.step(f, state, process, t, s, draws(x, range(len(x)) if rows is None else rows, step))
    return state.x


def draws(x, rows, step=0):
    """Standard normal noise by step, stage and number of the row."""

    def draw(stage):
        seeds = [(1000 * step + stage) * 1000 + row for row in rows]
        return torch.stack([torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(k), **F64) for k in seeds])

    return draw


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


def grid_of(solver, process, steps):
    """A corrector stays where it is."""
    times = GRIDS["short first"](process, steps, CPU)
    return times[2].expand(steps + 1) if isinstance(solver, Langevin) else times


@each
def test_a_row_does_not_know_of_the_others(solver):
    process = EDM(20.0, 0.05)
    times, f = grid_of(solver, process, 6), gaussian(process)
    x = 20 * starts(1)
    together = run(solver, process, times, x, f)
    assert torch.isfinite(together).all()
    for i in range(len(x)):
        assert torch.equal(run(solver, process, times, x[i : i + 1], f, [i]), together[i : i + 1])
    moved = x.clone()
    moved[1:] *= 100
    assert torch.equal(run(solver, process, times, moved, f)[0], together[0])


ONE_TIME = (Multistep, PNDM, AnnealedLangevin, Langevin)  # for all rows, or without a step in time


@pytest.mark.parametrize("name", [k for k, s in SOLVERS.items() if not isinstance(s, ONE_TIME)])
def test_rows_with_times_of_their_own_step_as_if_alone(name):
    """One from all noise, one to clean data, where no solver may ask, and one between."""
    solver = SOLVERS[name]
    process = EDM() if isinstance(solver, EulerMaruyama | ImprovedEuler) else RectifiedFlow()
    f, x = gaussian(process), starts(6, 3)
    t, s = at([process.t_max, 0.6, 0.5]), at([0.7, 0.0, 0.3])
    together = solver.step(f, State(x), process, t, s, draws(x, range(3))).x
    alone = [
        solver.step(f, State(x[i : i + 1]), process, t[i], s[i], draws(x[i : i + 1], [i])).x for i in range(len(x))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-14, atol=1e-14)


@each
def test_noise_is_drawn_by_stochastic_solvers_only(solver):
    process = EDM(20.0, 0.05)
    times, f, x = grid_of(solver, process, 6), gaussian(process), 20 * starts(1)
    one, other = (run(solver, process, times, x, f, rows) for rows in (range(5), range(5, 10)))
    assert torch.equal(one, other) != solver.stochastic


def adapted(solver, process):
    """Those whose step is in units of what they meet: with steps that make them affine, and small enough."""
    if isinstance(solver, AnnealedLangevin):
        return AnnealedLangevin(float(process.sigma(at(process.t_min))) ** 2 or 1.0, 8)
    if isinstance(solver, PredictorCorrector):
        return PredictorCorrector(corrector=Langevin(None, 0.02))
    return Langevin(None, 0.02) if isinstance(solver, Langevin) else solver


def at(t):
    return torch.tensor(t, **F64)


def moments(solver, process, times):
    """Mean and variance at the end, exactly: rows begin at 0 and 1, or have one noise that is 1, as steps are affine."""
    rows = 2 + len(times) * solver.evaluations * solver.stochastic
    kept, x = {}, torch.zeros(rows, 1, **F64)
    x[1] = 1.0

    def draw(step, stage):
        noise = torch.zeros(rows, 1, **F64)
        noise[kept.setdefault((step, stage), 2 + len(kept))] = 1.0
        return noise

    state, f = solver.init(x), gaussian(process)
    for step, (t, s) in enumerate(pairwise(times)):
        state = solver.step(f, state, process, t, s, lambda stage, step=step: draw(step, stage))
    end, alpha, sigma = state.x[:, 0], process.alpha(times[0]), process.sigma(times[0])
    gain = end[1] - end[0]
    return end[0] + gain * alpha * 0.7, gain**2 * (0.3 * alpha**2 + sigma**2) + (end[2:] - end[0]).square().sum()


REFUSED = (
    "alpha(t) is 0 for {}, and the drift of its SDE infinite; use DDIM(eta=1.0)",
    "sigma(t_min) is 0 for {}, expected a smallest level above 0, as NCSN() has it",
    "alpha(t) is 0 for {}, and such a field is none of the next level; use DDIM(eta=1.0)",
)
STRETCHED = ("EDM", "EDM of little noise", "VE")  # in t: what steps in t and not in sigma needs many steps


@pytest.mark.parametrize("name", PROCESSES)
def test_every_solver_arrives_from_every_start_or_says_why_not(name):
    """Mean and standard deviation of a Gaussian within 0.3 of it after 40 evaluations, or a sentence; never a NaN."""
    process, refused = PROCESSES[name], []
    for key, solver in SOLVERS.items():
        solver = adapted(solver, process)
        in_time = isinstance(solver, EulerMaruyama | ImprovedEuler) or isinstance(getattr(solver, "frame", None), Plain)
        nfe = 640 if in_time and name in STRETCHED else 24 if name == "own SDE" else 40  # of which each takes long
        nfe = max(nfe, 4 * solver.evaluations)
        times = grid_of(solver, process, solver.steps(nfe))
        try:
            mean, variance = moments(solver, process, times)
        except ValueError as error:
            assert str(error) in [text.format(type(process).__name__) for text in REFUSED], key
            refused.append(type(solver))
            continue
        alpha, sigma = process.alpha(times[-1]), process.sigma(times[-1])
        true = 0.3 * alpha**2 + sigma**2
        off = torch.stack([(mean - 0.7 * alpha).abs() / true.sqrt(), (variance / true).log().abs() / 2])
        assert (off < (0.6 if isinstance(solver, AnnealedLangevin) else 0.3)).all(), (key, off)
    noise, clean = bool(process.pure_noise(at(process.t_max))), bool(process.clean(at(process.t_min)))
    expected = [EulerMaruyama, ImprovedEuler] * noise + [AnnealedLangevin] * (noise or clean)
    assert refused == expected


@pytest.mark.parametrize("grid", ["even log-SNR", "Karras"])
@pytest.mark.parametrize("key", ["Adams-Bashforth 3, straight", "DDIM", "DPM-Solver++ 2M", "SDE-DPM-Solver++"])
def test_an_alpha_that_is_the_rounding_of_0_is_0_to_grids_of_ratios(key, grid):
    """With 200 steps of cos(pi / 2 t), which ends at 6e-17, mean and deviation are those of the data within 2 %."""
    process = PROCESSES["own cosines, 6e-17 at both ends"]
    mean, variance = moments(SOLVERS[key], process, GRIDS[grid](process, 200, CPU))
    assert abs(mean - 0.7) < 0.01 and abs((variance / 0.3).log() / 2) < 0.02


FROM_NOISE = [k for k in SOLVERS if any(part in k for part in ("ratio", "DEIS", "exponential", "DPM-", "PNDM", "PLMS"))]


@pytest.mark.parametrize("name", [k for k in FROM_NOISE if "SDE" not in k] + ["Heun", "DDIM"])
def test_the_step_from_pure_noise_is_ddims(name):
    """``alpha_s E[x] + sigma_s E[z]``, E[x] the mean of the data and E[z] the field; and the next step is finite."""
    solver, process = SOLVERS[name], RectifiedFlow()
    x, f = starts(4), gaussian(process)
    state = solver.step(f, solver.init(x), process, at(1.0), at(0.7), None)
    torch.testing.assert_close(state.x, 0.3 * 0.7 + 0.7 * x, rtol=1e-13, atol=1e-13)
    assert state.error is None
    # what is remembered of it does no harm: a short step is the ODE's velocity
    h, slope = 1e-6, f(state.x, at(0.7))
    after = solver.step(f, state, process, at(0.7), at(0.7 - h), None).x
    torch.testing.assert_close((state.x - after) / h, slope.z - slope.x, rtol=1e-4, atol=1e-4)


def stays(solver):
    """Whether a step without time does nothing: correctors and churn move even so."""
    return not (isinstance(solver, Langevin | PredictorCorrector | AnnealedLangevin) or getattr(solver, "churn", 0))


@pytest.mark.parametrize("name", [k for k, s in SOLVERS.items() if stays(s)])
def test_no_time_no_step(name):
    solver, process = SOLVERS[name], EDM(20.0, 0.05)
    x, t = starts(2), torch.tensor(0.8, **F64)
    state = solver.step(gaussian(process), solver.init(x), process, t, t, draws(x, range(5)))
    torch.testing.assert_close(state.x, x, rtol=1e-13, atol=1e-13)


@each
def test_evaluations_are_counted(solver):
    process, calls = EDM(20.0, 0.05), 0

    def f(x_t, t):
        nonlocal calls
        calls += 1
        return gaussian(process)(x_t, t)

    steps = solver.steps(40)
    assert steps >= 1 and solver.least <= 40
    run(solver, process, grid_of(solver, process, steps), starts(3), f)
    assert 40 - solver.evaluations < calls <= 40


@pytest.mark.parametrize("name", [k for k, s in SOLVERS.items() if not s.stochastic])
def test_a_deterministic_step_is_linear_in_state_and_estimates(name):
    """What integrates the field integrates the divergence with the same weights."""
    solver = SOLVERS[name]
    process, times = EDM(20.0), torch.tensor([0.9, 0.8, 0.6, 0.3], **F64)
    fields = [[starts(100 * k + i) for i in range(51)] for k in range(2)]
    both = [2.0 * a - 3.0 * b for a, b in zip(*fields)]

    def integrate(parts):
        queue = iter(range(1, 51, 2))

        def f(x_t, t):
            i = next(queue)
            return Estimate(parts[i], parts[i + 1], process, t)

        return run(solver, process, times, parts[0], f)

    one, two = (integrate(parts) for parts in fields)
    torch.testing.assert_close(integrate(both), 2.0 * one - 3.0 * two, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(one, fields[0][0])


@pytest.mark.parametrize("process", [DiscreteBetas(), NCSN()], ids=["DDPM", "NCSN"])
def test_nodes_are_the_processs_own(process):
    nodes = set(process.nodes.tolist())
    for steps in (3, len(nodes) - 1):
        times = NODES(process, steps, CPU)
        assert times[0] == process.t_max and times[-1] == process.t_min
        assert set(times.tolist()) <= nodes and (times.diff() < 0).all() and len(times) == steps + 1
    with pytest.raises(ValueError, match="expected [0-9]+ at most"):
        NODES(process, len(nodes), CPU)
    with pytest.raises(ValueError, match="EDM has no discrete times"):
        NODES(EDM(), 3, CPU)
