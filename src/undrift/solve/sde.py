"""Steps of the reverse SDE ``dx = (f x - g^2 score) dt + g dw``, and Langevin steps at one time."""

import math

from torch import Tensor

from undrift.denoise.estimate import along
from undrift.errors import check_kind, check_number, check_whole
from undrift.process import Process
from undrift.solve.solver import Draws, Evaluate, Solver, State, by_row

__all__ = [
    "AnnealedLangevin",
    "EulerMaruyama",
    "ImprovedEuler",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
]


class EulerMaruyama(Solver):
    """``x_s = x_t - (t - s) (f x_t - g^2 score) + g sqrt(t - s) noise``: refused where alpha is 0.

    Anderson (1982), doi:10.1016/0304-4149(82)90051-5; Song et al. (2021), https://arxiv.org/abs/2011.13456, eq. 6.
    """

    stochastic = True
    order = 1

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        return State(state.x + _increment(f, state.x, process, t, t - s, draw(0)))


class ImprovedEuler(Solver):
    """Euler-Maruyama, again from where it ends, and the mean of the two; their distance estimates the error.

    Jolicoeur-Martineau et al. (2021), "Gotta go fast when generating data with score-based models",
    https://arxiv.org/abs/2105.14080, with the same noise in both; made for
    :class:`undrift.solve.step_size.Adaptive`. Refused where alpha is 0; a step that ends where sigma is 0, and the
    score infinite, is one of Euler-Maruyama, without an estimate.
    """

    stochastic = True
    adaptive = True
    order = 1
    evaluations = 2

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        x, noise, span = state.x, draw(0), t - s
        first = x + _increment(f, x, process, t, span, noise)

        def improved(t: Tensor, s: Tensor) -> State:
            both = (first + x + _increment(f, first, process, s, span, noise)) / 2
            return State(both, error=first - both)

        return by_row(process.sigma(s) == 0, t, s, lambda t, s: State(first), improved)


class ReverseDiffusion(Solver):
    """The transition turned around: ``x_s = (2 - alpha_{t|s}) x_t + sigma_{t|s}^2 score + sigma_{t|s} noise``.

    Song et al. (2021), https://arxiv.org/abs/2011.13456, appendix E, eq. 46, with ``f_i = (alpha_{t|s} - 1) x`` and
    ``G_i = sigma_{t|s}`` (their algorithms 2 and 3).
    """

    stochastic = True
    order = 1

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        law, score = process.transition(s, t), f(state.x, t).score
        kept, variance = along(2 - law.alpha, state.x), along(law.variance, state.x)
        return State(kept * state.x + variance * score + variance.sqrt() * draw(0))


class Langevin(Solver):
    """A Langevin step at one time, ``x + step score + sqrt(2 step) noise``: a corrector, for s = t.

    The step is ``share sigma^2``, or, with ``snr``, that of Song et al. (2021), https://arxiv.org/abs/2011.13456,
    algorithm 4, ``2 (snr |noise| / |score|)^2``, with the score of each field by itself and ``|noise|^2`` its mean, the
    number D of a field's numbers, as they advise for small batches. With a score of noise alone, ``|score|^2`` is
    ``D / sigma^2`` in the mean and the two are the same for ``share = 2 snr^2``, the default, for their snr of 0.16.

    The first leaves the law at t as it is, up to the order of the step. The second is long where the score is small,
    and leaves a law proportional to ``p |score|^2``: for Gaussian data with variances too large by ``1 + 2 / D``, and
    with few numbers with steps without bound. It is for fields of hundreds of numbers.

    For the VP process their algorithm 5 has a further factor ``1 - beta_i``, which is 1 in the limit of many levels and
    is left out here.

    Args:
        snr: their signal-to-noise ratio r; None with ``share``.
        share: step in units of sigma(t)^2, the same for all fields; 0.0512 if both are None.
    """

    stochastic = True
    order = 1

    def __init__(self, snr: float | None = None, share: float | None = None) -> None:
        if snr is not None and share is not None:
            raise ValueError(f"snr and share are {snr} and {share}, expected one of them")
        if snr is None:
            share = 2 * 0.16**2 if share is None else share
        name, value = ("share", share) if snr is None else ("snr", snr)
        check_number(**{name: value})
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, expected a number above 0")
        self.snr, self.share = snr, share

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`."""
        if bool((t != s).any()):
            raise ValueError("a Langevin step stays at its time, expected s = t; use PredictorCorrector to move")
        if bool((process.sigma(t) == 0).any()):
            raise ValueError(
                f"sigma(t) is 0 for {type(process).__name__}, expected noise above 0, where there is a score"
            )
        score, noise = f(state.x, t).score, draw(0)
        if self.share is not None:
            step = along(self.share * process.sigma(t) ** 2, state.x)
        else:
            assert self.snr is not None
            root = math.sqrt(noise[0].numel())
            step = along(2 * (self.snr * root / score.flatten(1).norm(dim=1)) ** 2, state.x)
        return State(state.x + step * score + (2 * step).sqrt() * noise)


class PredictorCorrector(Solver):
    """A step of one solver to s, then steps of another that stay there.

    Song et al. (2021), https://arxiv.org/abs/2011.13456, algorithm 1.

    Args:
        predictor: what moves, :class:`ReverseDiffusion` if None.
        corrector: what stays, :class:`Langevin` if None.
        corrections: how many steps of it.
    """

    stochastic = True

    def __init__(self, predictor: Solver | None = None, corrector: Solver | None = None, corrections: int = 1) -> None:
        self.predictor = ReverseDiffusion() if predictor is None else predictor
        self.corrector = Langevin() if corrector is None else corrector
        check_kind(Solver, "ReverseDiffusion()", predictor=self.predictor)
        check_kind(Solver, "Langevin()", corrector=self.corrector)
        check_whole(0, corrections=corrections)
        self.corrections, self.order = corrections, self.predictor.order
        self.evaluations = self.predictor.evaluations + corrections * self.corrector.evaluations

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`; no corrections where sigma is 0."""
        moved = self.predictor.step(f, state, process, t, s, draw)

        def corrected(t: Tensor, s: Tensor) -> State:
            state = moved
            for i in range(self.corrections):
                state = self.corrector.step(f, state, process, t, s, lambda stage, i=i: draw(100 * (i + 1) + stage))
            return State(state.x, moved.history)

        return by_row(process.sigma(s) == 0, s, s, lambda t, s: moved, corrected)


class AnnealedLangevin(Solver):
    """Langevin steps at each noise level in turn, ``x + step / 2 score + sqrt(step) noise``.

    Song & Ermon (2019), https://arxiv.org/abs/1907.05600, algorithm 1: ``step = epsilon sigma_i^2 / sigma_min^2`` at
    every level, the largest and the smallest included; then the field is taken for one of the next level. A step moves
    to the level s and stays there; the first one also stays at the level where it begins.

    Args:
        epsilon: step at the smallest level, below ``4 sigma_min^2``, from where on Langevin steps diverge.
        repeats: steps at each level.
    """

    stochastic = True
    order = 1

    def __init__(self, epsilon: float = 2e-5, repeats: int = 100) -> None:
        check_number(epsilon=epsilon)
        check_whole(1, repeats=repeats)
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon}, expected a number above 0")
        self.epsilon, self.repeats, self.evaluations = epsilon, repeats, repeats

    @property
    def least(self) -> int:
        """See :class:`undrift.solve.solver.Solver`; two levels."""
        return 2 * self.repeats

    def steps(self, nfe: int) -> int:
        """See :class:`undrift.solve.solver.Solver`; there is one level more than steps."""
        return nfe // self.repeats - 1

    def step(self, f: Evaluate, state: State, process: Process, t: Tensor, s: Tensor, draw: Draws) -> State:
        """See :class:`undrift.solve.solver.Solver`; what is remembered is the last level.

        Raises:
            ValueError: sigma is 0 at t_min, or alpha at t, or epsilon is too large.
        """
        name, least = type(process).__name__, process.sigma(t.new_full((), process.t_min))
        if float(least) == 0:
            raise ValueError(f"sigma(t_min) is 0 for {name}, expected a smallest level above 0, as NCSN() has it")
        if self.epsilon >= 4 * float(least) ** 2:
            raise ValueError(
                f"epsilon is {self.epsilon}, expected less than 4 sigma(t_min)^2 = {4 * float(least) ** 2:.3g}"
            )
        if bool((process.alpha(t) == 0).any()):
            raise ValueError(f"alpha(t) is 0 for {name}, and such a field is none of the next level; use DDIM(eta=1.0)")
        x = state.x
        for i in range(self.repeats if not state.history else 0):
            x = self._langevin(f, x, process, t, least, draw(self.repeats + i))
        x = along(process.alpha(s) / process.alpha(t), x) * x
        for i in range(self.repeats):
            x = self._langevin(f, x, process, s, least, draw(i))
        return State(x, (s,))

    def _langevin(self, f: Evaluate, x: Tensor, process: Process, t: Tensor, least: Tensor, noise: Tensor) -> Tensor:
        step = along(self.epsilon * (process.sigma(t) / least) ** 2, x)
        return x + step / 2 * f(x, t).score + step.sqrt() * noise


def _increment(f: Evaluate, x: Tensor, process: Process, t: Tensor, span: Tensor, noise: Tensor) -> Tensor:
    """Of the reverse SDE over ``span``, with drift and diffusion at (x, t)."""
    if bool((process.alpha(t) == 0).any()):
        raise ValueError(
            f"alpha(t) is 0 for {type(process).__name__}, and the drift of its SDE infinite; use DDIM(eta=1.0)"
        )
    g2 = process.diffusion_squared(t)
    drift = along(process.drift(t), x) * x - along(g2, x) * f(x, t).score
    return along((g2 * span).sqrt(), x) * noise - along(span, x) * drift
