"""Nested sampling by dynesty's driver, whose new live points are proposed by learned mixtures.

The driver runs in the unit cube (see `undrift.infer.dynesty_sampler` for the steps). It asks for `QUEUE` new points at
a time, however many processes there are, so that numbers do not depend on them. Its own saves are pickles: kept
instead, as arrays, is what came back of each request, and a run that goes on is the same run again, which calls no
likelihood until what is kept ends. The volumes that ln Z and its error are of are ours (`log_evidence`): the driver's
own mean of X makes ln Z high by half its squared error, and its error is too large where the last live points matter.
"""

from __future__ import annotations

__all__ = ["by_dynesty", "log_evidence"]

import logging
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from undrift.errors import CheckpointError, UsageError, needs_extra
from undrift.infer.gaussian_mixture import GaussianMixture, effective_size
from undrift.infer.nested_calls import LEAST, SECONDS_BETWEEN_SAVES, Calls, cube
from undrift.infer.nested_result import NestedResult
from undrift.infer.nested_rounds import Rounds
from undrift.infer.nested_stages import Say
from undrift.train.durable import write_arrays

log = logging.getLogger(__name__)

Called = Callable[[np.ndarray], tuple[np.ndarray, float, str]]  # of a point of the cube: parameters, ln L, what failed

QUEUE = 8
DRAWS = 1000  # of the volumes
NEGLIGIBLE = 1e-12  # of the largest weight
SHORT = 0.05  # of the tunings: points that have not moved far enough
ZERO = -1e300  # dynesty's ln of a likelihood of zero
STEPS = ("independent", "accepted", "walked", "walk_accepted", "memory")  # what the proposals are tuned by
ANSWER = ("log_l", "calls", "failed", *STEPS, "contour")  # after the point


def by_dynesty(
    rounds: Rounds, names: list[str], labels: list[str], live: int, dlogz: float, most_calls: float,
    say: Say,
) -> NestedResult:  # fmt: skip
    """Follow the contours of the likelihood with `live` points, by dynesty.

    Args:
        rounds: draws the first live points; its calls, seed and folder are those of the run.
        names: of the parameters.
        labels: of the parameters in LaTeX.
        live: points that are always alive, until the end.
        dlogz: the end, where the live points could add no more to ln Z.
        most_calls: calls of the likelihood after which it ends before that, without an error.
        say: told ln Z and ln X as they come.

    Raises:
        UsageError: hardly any of the first points has a likelihood above zero.
    """
    with needs_extra("bayes", "driver dynesty"):
        from dynesty import NestedSampler

        from undrift.infer.dynesty_sampler import MOST, LearnedSampler

    calls = rounds.calls
    first = rounds.draw("levels", lambda: GaussianMixture.standard(calls.dimensions), live)
    known = int(np.isfinite(first.log_l).sum())
    if known < 2 * calls.dimensions + 2:
        raise UsageError(
            f"{known} of {live} points of the prior have a likelihood above zero, expected at least "
            f"{2 * calls.dimensions + 2} to follow its contours from; type more live points, or leave the driver out, "
            "and another folder where this one is kept"
        )
    requests = _Requests(calls, None if rounds.folder is None else rounds.folder.with_name("requests"))

    def tell(found: Any, number: int, *_: Any, **__: Any) -> None:
        if number % live == 0:
            say(f"ln Z {found.logz:.3f}, ln X {found.logvol:.2f}")

    u = cube(first.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a stop before the end, which the result tells
        learned = LearnedSampler(ndim=calls.dimensions, seed=rounds.seed)
        create: Any = NestedSampler  # whose signature lies
        sampler = create(
            _not_called, _not_called, calls.dimensions, nlive=live, bound="none", sample=learned, rstate=rounds.rng(0),
            live_points=[u, u.copy(), first.log_l.copy()], pool=requests, queue_size=QUEUE,
        )  # fmt: skip
        sampler.ncall = live
        try:
            most = None if math.isinf(most_calls) else int(most_calls - live)
            sampler.run_nested(maxcall=most, dlogz=dlogz, print_func=tell)
        finally:
            requests.save()
    doubt = ""
    if most is not None and sampler.results.ncall[:-live].sum() > most:  # what dynesty counts; some wait in its queue
        doubt = "the calls ended before the live points had come to the posterior; type more of them (most_calls)"
    elif (short := getattr(sampler.internal_sampler, "short", 0.0)) > SHORT:  # none where all is drawn from the prior
        doubt = (
            f"{short:.0%} of the time new points would have taken more than {MOST} steps to forget the old ones, for "
            "their contours are not like mixtures; the driver importance may do"
        )
    if doubt:
        log.warning("no error can be told: %s", doubt)
    return _result(sampler.results, rounds, names, labels, live, doubt)


def _result(found: Any, rounds: Rounds, names: list[str], labels: list[str], live: int, doubt: str) -> NestedResult:
    calls, log_l = rounds.calls, np.where(found.logl > ZERO, found.logl, -math.inf)
    log_z, error = log_evidence(log_l, found.logvol, rounds.rng(1))
    log_v, log_w = _shells(found.logvol), _pieces(log_l, found.logvol)
    weights = np.exp(log_w - np.logaddexp.reduce(log_w))
    theta, born = rounds.rounds[0].theta[found.samples_id], found.samples_it > 0  # by its slot where it is a first one
    for i in np.flatnonzero(born):
        theta[i] = calls.point.prior_transform(found.samples_u[i].copy())
    held = rounds.rng(2).permutation(np.flatnonzero(weights > NEGLIGIBLE * weights.max()))  # in no order, as draws are
    made, contours = live + np.cumsum(found.ncall), np.maximum(found.logl, LEAST)
    history = [
        {
            "log_l": log_l[i], "log_volume": found.logvol[i], "log_z": np.logaddexp.reduce(log_w[: i + 1]),
            "efficiency": live / max(made[i] - made[i - live], 1), "calls": made[i],
        }
        for i in range(live, len(log_l), live)
    ]  # fmt: skip
    return NestedResult(
        log_z=log_z,
        log_z_error=math.inf if doubt else error,
        samples=theta[held],
        weights=weights[held],
        log_likelihood=log_l[held],
        names=tuple(names),
        labels=tuple(labels),
        calls=calls.made,
        failed=calls.failed,
        efficiency=effective_size(weights) / calls.made,
        pareto_shape=math.nan,
        doubt=doubt,
        history=[{name: float(value) for name, value in level.items()} for level in history],
        points=(theta, log_l, log_v),
        driver="dynesty",
        birth=np.where(born, contours[np.maximum(found.samples_it, 1) - 1], -math.inf),
    )


def log_evidence(
    log_l: np.ndarray, log_x: np.ndarray, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """Mean and deviation of ln Z over the volumes that contours may have.

    At a death among n live points the volume shrinks by the largest of n uniform numbers, so that -ln of it is
    exponential of rate n (Skilling 2006, doi:10.1214/06-BA127, sec. 3 and 6).

    Args:
        log_l: contours by rising likelihood, (n,).
        log_x: as dynesty has them, falling by ln((n + 1) / n) at each death, (n,).
        rng: draws the volumes.
        draws: of all volumes.
    """
    alive = 1 / np.expm1(-np.diff(log_x, prepend=0.0))
    drawn = [
        np.logaddexp.reduce(_pieces(log_l, -np.cumsum(rng.exponential(size=len(log_l)) / alive))) for _ in range(draws)
    ]
    return float(np.mean(drawn)), float(np.std(drawn, ddof=1))


def _shells(log_x: np.ndarray) -> np.ndarray:
    """Logs of the volumes between a contour and the one before."""
    steps = np.diff(log_x, prepend=0.0)
    return log_x - steps + np.log(-np.expm1(steps))


def _pieces(log_l: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """Logs of what the points add to Z by the rule of trapezia, the last one with all that is within its contour."""
    before = np.concatenate([log_l[:1], log_l[:-1]])
    pieces = np.logaddexp(before, log_l) - math.log(2) + _shells(log_x)
    pieces[-1] = np.logaddexp(pieces[-1], log_l[-1] + log_x[-1])
    return pieces


def _not_called(u: np.ndarray) -> float:
    raise AssertionError("dynesty calls the likelihood in requests alone")


class _Request:
    """Answers one request of dynesty's for a new point, by the user's functions, which may fail."""

    def __init__(self, sample: Callable[[Any], Any], point: Called) -> None:
        self.sample, self.point = sample, point

    def __call__(self, argument: Any) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
        """The answer as a row of numbers: the point (D,), the others of `ANSWER`; and the calls that failed."""
        failures: list[tuple[np.ndarray, str]] = []

        def log_likelihood(u: np.ndarray) -> float:
            theta, value, wrong = self.point(u)
            if wrong:
                failures.append((theta, wrong))
            return value

        found = self.sample(argument._replace(prior_transform=np.copy, loglikelihood=log_likelihood))
        steps = [math.nan if found.tuning_info is None else found.tuning_info[name] for name in STEPS]
        told = [found.logl, found.ncalls, len(failures), *steps, argument.loglstar]
        return np.array([*found.u, *told], dtype=np.float64), failures


class _Requests:
    """What dynesty takes for a pool: answers its requests for new points, and keeps the answers in a folder."""

    def __init__(self, calls: Calls, folder: Path | None) -> None:
        self.calls, self.folder, self.size = calls, folder, QUEUE
        self.kept, self.parts = np.empty((0, calls.dimensions + len(ANSWER))), 0
        self.new: list[np.ndarray] = []
        self.saved = time.monotonic()
        if folder is not None:
            folder.mkdir(exist_ok=True)
            paths = sorted(folder.glob("part-*.npz"))
            if paths:
                self.kept, self.parts = np.concatenate([*map(self._read, paths)]), int(paths[-1].stem[-5:]) + 1

    def map(self, sample: Callable[[Any], Any], arguments: list[Any]) -> list[Any]:
        """The answers as dynesty takes them: from the folder as long as it has any."""
        if len(self.kept):
            rows, self.kept = self.kept[: len(arguments)], self.kept[len(arguments) :]
            self._check_contour(rows, arguments)
            self.calls.made += int(rows[:, self.calls.dimensions + ANSWER.index("calls")].sum())
            self.calls.failed += int(rows[:, self.calls.dimensions + ANSWER.index("failed")].sum())
        else:
            rows = self._asked(sample, arguments)
        return [self._told(row) for row in rows]

    def _asked(self, sample: Callable[[Any], Any], arguments: list[Any]) -> list[np.ndarray]:
        rows, request = [], _Request(sample, self.calls.point)
        bare = [argument._replace(prior_transform=None, loglikelihood=None) for argument in arguments]
        for row, failures in self.calls.map(request, bare):
            rows.append(row)
            self.calls.count(int(row[self.calls.dimensions + ANSWER.index("calls")]), failures)
        self.new += rows
        if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES:
            self.save()
        return rows

    def _told(self, row: np.ndarray) -> Any:
        from dynesty.internal_samplers import SamplerReturn

        u, told = row[: self.calls.dimensions], dict(zip(ANSWER, row[self.calls.dimensions :], strict=True))
        steps = None if math.isnan(told["accepted"]) else {name: told[name] for name in STEPS}
        return SamplerReturn(
            u=u, v=u, logl=told["log_l"], ncalls=int(told["calls"]), evaluation_history=[], tuning_info=steps,
            proposal_stats=None,
        )  # fmt: skip

    def _check_contour(self, rows: np.ndarray, arguments: list[Any]) -> None:
        then, now = rows[0, -1], float(arguments[0].loglstar)
        if then != now:
            raise UsageError(
                f"the state in {self.folder} was at ln L = {then:.9g} where this run comes to {now:.9g}: the "
                "likelihood is another, or another machine or version rounds otherwise; type another folder"
            )

    def save(self) -> None:
        """Keep the answers since the last time."""
        if self.folder is not None and self.new:
            write_arrays(self.folder / f"part-{self.parts:05d}.npz", {"answers": np.array(self.new)})
            self.parts += 1
        self.new, self.saved = [], time.monotonic()

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as kept:
                return kept["answers"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}); remove it and those after it, and go on with resume"
            ) from error
