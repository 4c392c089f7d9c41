"""The density of clean fields, through the probability-flow ODE.

The ODE that carries noise to data carries data to noise, and its density by the change of variables (Chen et al. 2018,
https://arxiv.org/abs/1806.07366, theorem 1; Grathwohl et al. 2018, "FFJORD", https://arxiv.org/abs/1810.01367, eq. 3;
Song et al. 2021, https://arxiv.org/abs/2011.13456, eq. 39). With ``s = sqrt(alpha^2 + sigma^2)`` and the angle theta of
``alpha = s cos(theta)``, ``sigma = s sin(theta)``, the field ``y = x_t / s`` moves by ``dy / dtheta = v / s``,
``v = alpha z - sigma x``, so that

    log p(x_t') = log p(x_t'') + D log(s_t'' / s_t') + r,
    dr / dtheta = g = tr(d v / d x_t) = (alpha D - s^2 tr(d x / d x_t)) / sigma.

r is 0 for Gaussian data of unit variance, and is carried as one more number of the field, ``L = s r``, with the pair

    x_L = cos(theta) r - sin(theta) g,     z_L = sin(theta) r + cos(theta) g,

which has the tie ``alpha x_L + sigma z_L = L`` and the motion ``dL/s / dtheta = g``: whatever solver moves the field
moves its log-determinant with it, with the same weights.
"""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from undrift.denoise.denoiser import Denoiser, check_denoiser
from undrift.denoise.estimate import Estimate, along
from undrift.errors import check_kind, check_number, check_whole, described, suggests_options
from undrift.process import Key, Noise, Process, uniform
from undrift.solve.frames import Angle, Straight
from undrift.solve.grid import TimeGrid, times_of
from undrift.solve.runge_kutta import KUTTA, RungeKutta
from undrift.solve.solver import Solver, check_solver, checked, no_noise
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Condition, check_rows

__all__ = ["Density", "log_prob"]

Base = Callable[[Tensor, Tensor], Tensor]
_EXACT = 32  # numbers of a field up to which the trace is exact if nothing is said
_SCORE = 5  # times the least ratio: where the score of clean data is taken


@dataclass(frozen=True)
class Density:
    """Log-densities of fields, with what is known of their errors.

    Attributes:
        log_prob: log-density at t_min in the units of x, nats, float64, (B,).
        error: estimate of its error, nats, (B,): the sum of the four that follow.
        discretisation: of the steps, by the run of half as many.
        trace: standard error of the trace over probes, 0 where it is exact.
        base: distance of the law at t_max from the base.
        truncation: of the start at a small ratio sigma / alpha, where sigma(t_min) is 0.
        nfe: calls of the denoiser; each comes with as many pullbacks as the trace has directions.
        status: "done", "not converged" where the error of a row is above the tolerance, or "non-finite".
        steps: of the finest run of any row.
        end: the fields at t_max, in the units of x_t there, float64, of the shape of x.
    """

    log_prob: Tensor
    error: Tensor
    discretisation: Tensor
    trace: Tensor
    base: Tensor
    truncation: Tensor
    nfe: int
    status: str
    steps: int
    end: Tensor


@suggests_options
@torch.no_grad()
def log_prob(
    denoiser: Denoiser,
    x: Tensor,
    condition: Condition | None = None,
    *,
    nfe: int = 1024,
    tolerance: float = 1e-3,
    solver: Solver | None = None,
    grid: TimeGrid | None = None,
    trace: str | None = None,
    probes: int = 16,
    base: Base | None = None,
    least: float = 0.001,
    first: int = 8,
    seed: int = 0,
) -> Density:
    """Log-density of fields at t_min, the smallest noise of the process.

    The ODE runs from the field to noise with ``first``, twice, four times, ... as many steps. Two runs of a solver of
    order p are extrapolated (Richardson 1911, doi:10.1098/rsta.1911.0009), ``(2^p fine - coarse) / (2^p - 1)``, and the
    difference of two of these estimates the error, as of a solver of order p; rows that are within half of the
    tolerance are not run again.

    Where sigma(t_min) is 0 the noise in x_t is not determined there. The run begins at ``sigma / alpha = rho = least``,
    up to which z grows as rho does: with ``y = x_t / alpha``, ``y += rho z / 2`` and ``r = h / 2``,
    ``h = D - alpha tr(d x / d x_t)``. The next power, ``z = c rho + d rho^3``, is known from z at ``rho / 2``, and what
    it adds is the error: ``rho / 3 (z(rho) - 2 z(rho / 2))`` in y and ``(h(rho) - 4 h(rho / 2)) / 3`` in r. The z of a
    network is not quite 0 where nothing is noise, ``z = c + b rho``; then 1/2 stands for 1/3, which is what is taken
    for all. The gradient of the log-density, which the distance in y is multiplied with, is told by how z grows.

    The base is the law of ``sigma(t_max) z``: then the density is that of what the sampler draws, and its distance from
    the law of the data at t_max is a term of the error.

    Args:
        denoiser: the denoiser.
        x: fields in the units of the denoiser and the dtype of its network, (B, C, *space) or (B, D).
        condition: what is given, one row for each of x.
        nfe: calls of the denoiser at most.
        tolerance: of the error of each row, in nats; 0 spends all calls.
        solver: of the ODE; the classical Runge-Kutta method of order 4 if None.
        grid: times of a run; equal steps in ``log(sigma / (alpha + sigma))`` if None.
        trace: "exact", with as many pullbacks as a field has numbers, or "hutchinson", with random signs (Hutchinson
            1989, doi:10.1080/03610918908812806); exact up to 32 numbers if None. Of the denoiser's
            :meth:`linear_part` the trace is known, and signs are for the rest.
        probes: vectors of signs for each row, the same all along the run; at least 2, as their spread is the error.
        base: ``base(x_t, t) -> (B,)``, the log-density at t_max, taken as exact.
        least: ratio sigma / alpha at which the run begins where sigma(t_min) is 0.
        first: steps of the coarsest run; where few see little of the path, two runs agree that are both wrong.
        seed: of the signs, which depend on the position of a row and on nothing else.

    Raises:
        ValueError: arguments or times of the grid that do not fit, or too few calls for two runs.
        TypeError: a solver that adds noise, a grid that chooses its steps, or an argument of another kind.
    """
    check_rows("x", x, condition)
    check_denoiser(denoiser)
    check_whole(nfe=nfe, seed=seed)
    check_whole(1, first=first)
    _check(tolerance, trace, probes, least, base)
    solver = RungeKutta(KUTTA, Angle()) if solver is None else solver
    _check_run(solver, grid)
    exact = trace == "exact" if trace else x[0].numel() <= _EXACT
    flow = _Flow(denoiser, x, condition, _directions(x, None if exact else probes, seed), exact, least)
    besides = 3 if base is None else 0  # calls for the base
    steps, whole = _first_steps(first, solver, flow.calls + besides, nfe), nfe - besides
    rows = torch.arange(len(x), device=x.device)
    coarse = _parts(flow, flow.run(rows, solver, grid, steps), base)
    end, found = torch.empty_like(flow.start), torch.empty_like(coarse)
    discretisation, last = torch.empty_like(found[:, 0]), torch.full_like(coarse, math.nan)
    gain = 2.0**solver.order
    while len(rows):
        before, steps = flow.calls, 2 * steps
        end[rows] = flow.run(rows, solver, grid, steps)
        fine = _parts(flow, end[rows], base)
        found[rows] = best = fine + (fine - coarse) / (gain - 1)
        moved, raw = _distance(best, last), _distance(fine, coarse)
        # two values may agree by chance, three hardly
        discretisation[rows] = torch.fmax(moved, raw / torch.where(moved.isnan(), 1, gain)) / (gain - 1)
        left = ~(discretisation[rows] <= tolerance / 2) | moved.isnan()
        left &= torch.isfinite(fine).all(1) | torch.isfinite(coarse).all(1)
        rows, coarse, last = rows[left], fine[left], best[left]
        if flow.calls + 2 * (flow.calls - before) > whole:
            break
    return _settled(flow, found, end, discretisation, base, tolerance, steps)


class _Flow:
    """The ODE of field and log-determinant from the data to noise; each row is D numbers and as many L as probes."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        condition: Condition | None,
        directions: Tensor,
        exact: bool,
        least: float,
    ) -> None:
        self.denoiser, self.condition, self.shape, self.dtype = denoiser, condition, x.shape[1:], x.dtype
        self.directions, self.exact, self.calls = directions, exact, 0
        self.size = x[0].numel()
        flat = x.double().flatten(1)
        log_det = flat.new_zeros(len(x), 1 if exact else len(directions))
        process = denoiser.process
        t = torch.tensor(process.t_min, dtype=torch.float64, device=x.device)
        self.process, self.truncation, self.shift = process, torch.zeros_like(flat[:, 0]), 0.0
        if bool(process.clean(t)):
            flat, log_det = self._begin(flat, t, least)
        s = self.scale(self.process.t_min, x.device)
        self.start = torch.cat([flat, s * log_det], 1)
        self.shift += self.size * math.log(self.scale(process.t_max, x.device) / s)

    def _begin(self, flat: Tensor, t: Tensor, least: float) -> tuple[Tensor, Tensor]:
        """The step from clean data to the ratio where the run begins: z is proportional to the ratio."""
        process = copy.copy(self.process)
        later = process.t_of_ratio(t.new_tensor(least))
        ratio, alpha = float(process.ratio(later)), float(process.alpha(later))
        y = flat / float(process.alpha(t))
        self.process = process
        self.shift = self.size * math.log(alpha / float(process.alpha(t)))
        rows, half = torch.arange(len(flat), device=flat.device), process.t_of_ratio(t.new_tensor(least / 2))
        process.t_min = float(later)
        found, trace = self.evaluate(alpha * y, later, rows)
        before, trace_before = self.evaluate(float(process.alpha(half)) * y, half, rows)
        h, h_before = self.size - alpha * trace, self.size - float(process.alpha(half)) * trace_before
        z, bent = found.z.flatten(1).double(), (found.z - 2 * before.z).flatten(1).double()
        # the score: how z grows, as that of a network need not be 0 where nothing is noise
        above = process.t_of_ratio(t.new_tensor(_SCORE * least))
        more, _ = self.evaluate(float(process.alpha(above)) * y, above, rows)
        score = _pull(self.denoiser.noise, more.z - found.z).flatten(1) / (_SCORE - 1)
        self.truncation = ((h - 4 * h_before).mean(1).abs() + (score * bent).sum(1).abs()) / 2
        return alpha * (y + ratio / 2 * z), h / 2

    def scale(self, t: float, device: torch.device) -> float:
        """``sqrt(alpha^2 + sigma^2)``."""
        at = torch.tensor(t, dtype=torch.float64, device=device)
        return float(torch.hypot(self.process.alpha(at), self.process.sigma(at)))

    def evaluate(self, flat: Tensor, t: Tensor, rows: Tensor) -> tuple[Estimate, Tensor]:
        """The denoiser's estimate at fields (B, D), and ``tr(d x / d x_t)`` by each probe, (B, probes)."""
        self.calls += 1
        x_t = flat.reshape(-1, *self.shape).to(self.dtype)
        condition = None if self.condition is None else self.condition.index(rows)
        found, back = self.denoiser.pullback(x_t, t.expand(len(flat)), condition)
        part = None if self.exact else self.denoiser.linear_part(x_t, t.expand(len(flat)))
        known = x_t.new_zeros(1, dtype=torch.float64) if part is None else part[1].flatten(1).sum(1)
        parts = []
        for signs in self.directions:
            one = signs if self.exact else signs[rows]
            one = one.reshape(-1, *self.shape).expand_as(x_t)
            rest = back(one) if part is None else back(one) - part[0](one)
            parts.append((rest * one).flatten(1).double().sum(1) + known)
        traces = torch.stack(parts, 1)
        return found, traces.sum(1, keepdim=True) if self.exact else traces

    def run(self, rows: Tensor, solver: Solver, grid: TimeGrid | None, steps: int) -> Tensor:
        """Rows at t_max."""
        process, device = self.process, self.start.device

        def moved(state: Tensor, t: Tensor) -> Estimate:
            field, log_det = state[:, : self.size], state[:, self.size :]
            found, trace = self.evaluate(field, t, rows)
            alpha, sigma = along(process.alpha(t), state), along(process.sigma(t), state)
            s = torch.hypot(alpha, sigma)
            r, g = log_det / s, (alpha * self.size - s**2 * trace) / sigma
            x_l, z_l = (alpha * r - sigma * g) / s, (sigma * r + alpha * g) / s
            x, z = (v.flatten(1).double() for v in (found.x, found.z))
            return Estimate(torch.cat([x, x_l], 1), torch.cat([z, z_l], 1), process, t)

        times = _times(process, steps, device) if grid is None else times_of(grid, process, steps, device).flip(0)
        state = solver.init(self.start[rows])
        for t, s in itertools.pairwise(times):
            state = checked(solver.step(moved, state, process, t, s, no_noise), state.x, solver)
        return state.x


def _times(process: Process, steps: int, device: torch.device) -> Tensor:
    """Equal steps in ``log(sigma / (alpha + sigma))``, from t_min to t_max, (steps + 1,)."""
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64, device=device)
    first, last = Straight().clock(process, ends).log().tolist()
    inner = torch.linspace(first, last, steps + 1, dtype=torch.float64, device=device)[1:-1]
    return torch.cat([ends[:1], Straight().time(process, inner.exp()), ends[1:]])


def _directions(x: Tensor, probes: int | None, seed: int) -> Tensor:
    """Unit vectors (D, D), or random signs, (probes, B, D), in the dtype of x."""
    if probes is None:
        return torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    shape = (probes, x[0].numel())
    signs = [torch.from_numpy(uniform(Key(seed, "probe", row), shape) < 0.5) for row in range(len(x))]
    return torch.stack(signs, 1).to(x.device, x.dtype) * 2 - 1


def _parts(flow: _Flow, end: Tensor, base: Base | None) -> Tensor:
    """The base's log-density and the log-determinant by each probe, (B, 1 + probes)."""
    process, device = flow.process, end.device
    t = torch.tensor(process.t_max, dtype=torch.float64, device=device)
    x, sigma = end[:, : flow.size].reshape(-1, *flow.shape), float(process.sigma(t))
    if base is None:
        start = flow.denoiser.noise.log_prob(x / sigma) - flow.size * math.log(sigma)
    else:
        start = base(x, t.expand(len(x)))
        if not isinstance(start, Tensor) or start.shape != (len(x),):
            got = tuple(start.shape) if isinstance(start, Tensor) else described(start)
            raise ValueError(f"base made {got} of {len(x)} fields, expected ({len(x)},)")
        start = start.double()
    log_det = end[:, flow.size :] / flow.scale(process.t_max, device) + flow.shift
    return torch.cat([start[:, None], log_det], 1)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Of two log-densities in parts, (B,)."""
    return (one[:, 0] - other[:, 0]).abs() + (one[:, 1:] - other[:, 1:]).mean(1).abs()


def _base_error(flow: _Flow, end: Tensor) -> Tensor:
    """``|log p(x_T) - log b(x_T)|``, b the law of ``sigma z``, by what the denoiser says at t_max, (B,).

    The gradient of the difference is that of b less that of p, ``(b'(x_T / sigma) - b'(z)) / sigma`` with b' minus the
    gradient of the noise's log-density, and is integrated along the ray from 0 to x_T by Simpson's rule. At 0 the
    difference is that of Gaussian data with the x and ``tr(d x / d x_t) / D`` found there. Right up to the third power
    of alpha / sigma, and for Gaussian data with one variance to all. Simpson's distance from the trapezoidal rule is
    added, 0 for Gaussian data.
    """
    process, noise, rows = flow.process, flow.denoiser.noise, torch.arange(len(end), device=end.device)
    t = torch.tensor(process.t_max, dtype=torch.float64, device=end.device)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    x, slopes = end[:, : flow.size], []
    start = torch.zeros_like(x[:, 0])
    if bool(process.pure_noise(t)):
        return start
    for share in (0.0, 0.5, 1.0):
        found, trace = flow.evaluate(share * x, t, rows)
        ray = (share * x / sigma).reshape(-1, *flow.shape)
        pull = _pull(noise, found.z).flatten(1)
        slopes.append(((_pull(noise, ray).flatten(1) - pull) * x).sum(1) / sigma)
        if share == 0:
            left = (1 - alpha * trace.mean(1) / flow.size).clamp(min=1e-12)  # 1 / (1 + variance alpha^2 / sigma^2)
            start = flow.size / 2 * left.log() - (pull * found.z.double().flatten(1)).sum(1) / (2 * left)
    first, middle, last = slopes
    return (start + (first + 4 * middle + last) / 6).abs() + (first - 2 * middle + last).abs() / 3


def _pull(noise: Noise, z: Tensor) -> Tensor:
    """Minus the gradient of the noise's log-density, ``C^{-1} z`` where it is Gaussian, float64, (B, ...)."""
    with torch.enable_grad():
        at = z.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(noise.log_prob(at).sum(), at)
    return -gradient


def _settled(
    flow: _Flow,
    parts: Tensor,
    end: Tensor,
    discretisation: Tensor,
    base: Base | None,
    tolerance: float,
    steps: int,
) -> Density:
    log_det, none = parts[:, 1:], torch.zeros_like(discretisation)
    found = parts[:, 0] + log_det.mean(1)
    spread = none if flow.exact else log_det.std(1) / math.sqrt(log_det.shape[1])
    away = _base_error(flow, end) if base is None else none
    error = discretisation + spread + away + flow.truncation
    status = "done" if bool((error <= tolerance).all()) else "not converged"
    if not bool(torch.isfinite(found).all()):
        status = "non-finite"
    ends = end[:, : flow.size].reshape(-1, *flow.shape)
    return Density(found, error, discretisation, spread, away, flow.truncation, flow.calls, status, steps, ends)


def _first_steps(steps: int, solver: Solver, calls: int, nfe: int) -> int:
    """Steps of the first run, where so many calls are needed besides and one of twice as many steps has to follow."""
    while steps > 1 and calls + 3 * steps * solver.evaluations > nfe:
        steps //= 2
    if calls + 3 * steps * solver.evaluations > nfe:
        raise ValueError(
            f"nfe is {nfe}, expected at least {calls + 3 * solver.evaluations} for runs of one and of two steps"
        )
    return steps


def _check_run(solver: Solver, grid: TimeGrid | None) -> None:
    """Refuse what does not solve an ODE with a number of steps that is told."""
    check_solver(solver)
    if isinstance(grid, Adaptive):
        raise TypeError("grid is Adaptive, expected a TimeGrid or None: log_prob adds steps until the tolerance is met")
    if grid is not None:
        check_kind(TimeGrid, "EvenTime(), of undrift.solve.grid", grid=grid)
    if solver.stochastic:
        raise TypeError(f"{type(solver).__name__} adds noise, expected a solver of the ODE")


def _check(tolerance: float, trace: str | None, probes: int, least: float, base: Base | None) -> None:
    check_whole(probes=probes)
    check_number(False, tolerance=tolerance, least=least)
    if trace not in (None, "exact", "hutchinson"):
        raise ValueError(f"trace is {trace!r}, expected 'exact' or 'hutchinson'")
    if probes < 2:
        raise ValueError(f"probes is {probes}, expected at least 2: their spread is the error")
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}, expected at least 0")
    if not 0 < least < 0.1:
        raise ValueError(f"least is {least}, expected a ratio between 0 and 0.1")
    if base is not None and (isinstance(base, type) or not callable(base)):
        raise TypeError(
            f"base is {described(base)}, expected a function base(x_t, t) -> (B,); of noise type "
            "base=lambda x_t, t: noise.log_prob(x_t)"
        )
