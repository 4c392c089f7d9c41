"""The loop that turns noise into a field."""

from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate
from undrift.errors import check_kind, check_whole, suggests_options
from undrift.process import Coloured, White
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.grid import ShortFirst, TimeGrid, times_of
from undrift.solve.solver import Solver, check_solver, checked, no_noise
from undrift.solve.step_size import Adaptive, Control, Fixed
from undrift.tasks.batch import Condition, check_finite, check_rows

__all__ = ["Draw", "sample"]

_SOLVER = AdamsBashforth()  # one for all runs: it remembers the numbers of its steps


@dataclass(frozen=True)
class Draw:
    """The end of a run of the sampler.

    Attributes:
        x: the field, (B, C, *space).
        nfe: evaluations of the denoiser, the last one included where sigma(t_min) is above 0.
        status: "done", "not converged" or "non-finite".
        steps: steps taken; of an adaptive run those that were accepted by any row.
        error: root mean square over cells of each row's estimated error, summed over steps, (B,), where the solver
            estimates it.
    """

    x: Tensor
    nfe: int
    status: str
    steps: int
    error: Tensor | None = None


@suggests_options
@torch.no_grad()
def sample(
    denoiser: Denoiser,
    x_1: Tensor,
    condition: Condition | None = None,
    *,
    nfe: int = 10,
    solver: Solver | None = None,
    grid: TimeGrid | Adaptive | None = None,
    seed: int = 0,
    denoise: bool = True,
) -> Draw:
    """Integrate from the largest noise to the data.

    Args:
        denoiser: the denoiser.
        x_1: start at ``t_max``, (B, C, *space), a draw of ``sigma(t_max) z``.
        condition: what is given, one row for each of x_1.
        nfe: evaluations of the denoiser at most; of an adaptive run, before it ends as not converged.
        solver: Adams-Bashforth of order 3 on the velocity of the straight path if None.
        grid: :class:`ShortFirst` if None; :class:`undrift.solve.step_size.Adaptive` chooses steps by their error.
        seed: of the noise that stochastic solvers add: a row's noise depends on its position and on nothing else.
        denoise: end with the denoiser's estimate of x where the run ends at noise above 0; an adaptive run that is not
            converged ends with it at the noise to which each row has come.

    Returns:
        The fields and the run's facts; a field that left the finite numbers is reported in ``status``, never silently.

    Raises:
        ValueError: an x_1, a condition or times of the grid that do not fit, too few evaluations for one step, or a
            solver of one's own that takes more than it says or makes another shape.
        TypeError: the solver adds noise of another law than the denoiser's or against its word, or an argument is of
            another kind.
    """
    check_rows("x_1", x_1, condition)
    check_finite("x_1", x_1, condition)
    check_denoiser(denoiser)
    check_whole(nfe=nfe, seed=seed)
    solver, grid = _SOLVER if solver is None else solver, ShortFirst() if grid is None else grid
    check_solver(solver)
    check_kind((TimeGrid, Adaptive), "EvenTime(), of undrift.solve.grid", grid=grid)
    process = denoiser.process
    _refuse_noise(denoiser, solver)
    # an adaptive run to clean data ends before it, with a denoising
    clean = bool(process.clean(torch.tensor(process.t_min, dtype=torch.float64, device=x_1.device)))
    last = denoise and (not clean or isinstance(grid, Adaptive))
    if nfe < solver.least + last:
        raise ValueError(
            f"nfe is {nfe}, expected at least {solver.least + last} for one step of {type(solver).__name__}"
        )
    calls = 0

    def evaluate(x_t: Tensor, t: Tensor) -> Estimate:
        nonlocal calls
        calls += 1
        if calls > nfe:
            raise ValueError(
                f"{type(solver).__name__} needs more than nfe = {nfe} evaluations for {control.number + 1} steps, and "
                f"says {solver.evaluations} a step; set evaluations in its class"
            )
        return denoiser(x_t, t.expand(len(x_t)), condition)

    control: Control
    if isinstance(grid, Adaptive):
        control = grid.begin(process, x_1, solver, nfe - last, seed)
    else:
        control = Fixed(times_of(grid, process, solver.steps(nfe - last), x_1.device))
    state, error = solver.init(x_1), None
    while control.goes_on:

        def draw(stage: int) -> Tensor:
            z = control.draw(x_1, seed, stage)
            return denoiser.noise.filtered(z, 0.5) if isinstance(denoiser.noise, Coloured) else z

        noise = draw if solver.stochastic else no_noise
        trial = checked(solver.step(evaluate, state, process, control.t, control.s, noise), x_1, solver)
        state, found = control.settled(state, trial, calls)
        if found is not None:
            error = found if error is None else error + found
    x, status = state.x, control.status
    if last:
        x = evaluate(x, control.t).x
    if not bool(torch.isfinite(x).all()):
        status = "non-finite"
    return Draw(x, calls, status, control.accepted, error)


def _refuse_noise(denoiser: Denoiser, solver: Solver) -> None:
    """The noise that a solver adds is white, or that of the denoiser where it is Gaussian and the solver allows it."""
    noise = denoiser.noise
    if solver.stochastic and not isinstance(noise, White) and not (solver.any_gaussian and noise.gaussian):
        raise TypeError(
            f"{type(solver).__name__} adds noise, and that of the denoiser is {type(noise).__name__}; "
            "expected white noise, or use a solver of the ODE"
        )
