"""Nested sampling whose proposals are learned: evidence and posterior of one's own likelihood."""

from __future__ import annotations

__all__ = ["nested"]

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from undrift.errors import CheckpointError, UsageError, check_number, check_whole, suggests_options
from undrift.infer.nested_calls import Calls
from undrift.infer.nested_dynesty import by_dynesty
from undrift.infer.nested_importance import by_importance
from undrift.infer.nested_result import NestedResult
from undrift.infer.nested_rounds import Rounds
from undrift.progress import track
from undrift.train.durable import write_text

Driver = Literal["importance", "dynesty"]
PRECISION, DLOGZ = 0.01, {"importance": 0.01, "dynesty": 0.5}
RESERVED = ("weights", "log_likelihood", "log_likelihood_birth", "sample", "point", "level", "draw")  # names in results


@suggests_options
def nested(
    log_likelihood: Callable[..., Any],
    prior_transform: Callable[..., Any],
    ndim: int,
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    driver: Driver = "importance",
    live: int | None = None,
    dlogz: float | None = None,
    precision: float | None = None,
    most_calls: float = math.inf,
    most_failures: float = 0.1,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    pool: Any = None,
    progress: bool = True,
) -> NestedResult:
    """Evidence Z = integral of L over the prior, and posterior draws.

    By importance, the default, contours of rising likelihood are followed by learned mixtures (see
    `undrift.infer.nested_stages`), and ln Z is estimated from fresh draws of the last one, frozen: the mean of L pi / q
    is unbiased whatever q is.
    Whether q will do, and how many final draws it takes, is judged by other draws from it: were only final draws judged
    by their own weights, those with a large one would be drawn again, and estimates that are left would be too low and
    look too sure. That remains where final draws that passed the check allow no error. The relative variance of the
    weights is that of all draws from q, which moves less with the estimate.
    ln of an unbiased mean is low by half the squared error (Jensen); as that is half the error in errors, it is not
    corrected. Where the tail of the weights says that no error can be told (Pareto shape above 0.7), `log_z_error` is
    infinite and `reliable` false.

    By dynesty's driver live points are followed, and new ones come from Metropolis steps, most of them independent,
    from mixtures that are learned on the fly (`undrift.infer.dynesty_sampler`). It takes more calls for the same error,
    and tells one where no mixture covers the posterior's tails; not where points would not move far enough.

    Args:
        log_likelihood: ln L of parameters (ndim,), in nats; -inf is zero likelihood. A call that raises or returns NaN
            counts as zero likelihood, with a line in the log.
        prior_transform: parameters (ndim,) of a point (ndim,) of the unit cube, as for dynesty.
        ndim: number of parameters.
        names: of the parameters; by default x0, x1, ...
        labels: of the parameters in LaTeX, without dollar signs; by default the names.
        driver: "importance" or "dynesty".
        live: points, in equally weighted ones, that a contour is learned from, or that dynesty keeps alive; by default
            1000, or 25 a parameter. More find narrower modes, and make dynesty's error smaller.
        dlogz: the levels end where what lies above the contour adds less to ln Z; by default 0.01, or 0.5 where
            mixtures follow the contours no longer. Of more a thin part of high likelihood, as the neck of a funnel, may
            be overlooked. By default 0.5 with dynesty, whose last live points count for what lies above.
        precision: the standard error of ln Z to draw for, by importance; 0.01 by default.
        most_calls: calls of the likelihood after which the work ends, with the error that is then reached; dynesty,
            whose live points have not come to the posterior then, tells none.
        most_failures: the share of failed calls above which it stops.
        seed: with the same seed all numbers are the same.
        out: a folder for the state; what is drawn is kept there as it comes.
        resume: go on with the state in `out`, to the same numbers as without the stop.
        pool: anything with ``map(function, list)``, such as a multiprocessing pool. dynesty asks for eight points at a
            time, so that more processes than that are idle.
        progress: whether to show it.

    Raises:
        UsageError: an argument cannot be used, or `out` holds the state of another problem.
        UndriftError: too many calls failed.
    """
    check_whole(1, ndim=ndim)
    live = max(1000, 25 * ndim) if live is None else live
    check_whole(4 * ndim + 20, live=live)
    check_whole(0, seed=seed)
    if driver not in get_args(Driver):
        raise UsageError(f"driver is {driver!r}, expected importance or dynesty")
    if driver == "dynesty" and precision is not None:
        raise UsageError(
            f"precision is {precision!r}, and dynesty's error follows from its live points; leave precision out, and "
            "for half the error type four times live"
        )
    precision = PRECISION if precision is None else precision
    dlogz = DLOGZ[driver] if dlogz is None else dlogz
    _check_positive(dlogz=dlogz, precision=precision, most_calls=most_calls)
    if most_calls < 8 * live:
        raise UsageError(
            f"most_calls is {most_calls:g}, expected at least {8 * live}, eight a live point; type fewer live "
            f"points, of which {4 * ndim + 20} are the fewest"
        )
    names = _named(names, ndim, "names")
    labels = list(names) if labels is None else _named(labels, ndim, "labels")
    calls = Calls(log_likelihood, prior_transform, ndim, pool=pool, most_failures=most_failures)
    folder = None
    if out is not None:
        settings: dict[str, Any] = {
            "driver": driver,
            "ndim": ndim,
            "names": names,
            "seed": seed,
            "live": live,
            "dlogz": dlogz,
            "precision": precision,
        }
        settings |= {"most_calls": most_calls} if driver == "importance" else {}
        folder = _prepare(Path(out), settings, resume)  # all that numbers depend on: dynesty's are those of any end
    rounds = Rounds(calls, seed, folder)
    _check_same(calls, folder)
    with track("nested sampling", total=None) if progress else nullcontext(lambda done, note="": None) as tick:

        def say(note: str) -> None:
            tick(calls.made, f"{calls.made:,} calls, {note}")

        if driver == "dynesty":
            return by_dynesty(rounds, names, labels, live, dlogz, most_calls, say)
        return by_importance(rounds, names, labels, live, dlogz, precision, most_calls, say)


def _check_positive(**values: float) -> None:
    check_number(False, **values)
    for name, value in values.items():
        if value <= 0:
            raise UsageError(f"{name} is {value!r}, expected a number above 0")


def _named(names: Sequence[str] | None, ndim: int, what: str) -> list[str]:
    found = [f"x{i}" for i in range(ndim)] if names is None else [str(name) for name in names]
    if len(found) != ndim or len(set(found)) != ndim:
        raise UsageError(f"{what} has {len(found)} entries, {len(set(found))} of them different; expected {ndim}")
    if what == "names" and (taken := [name for name in found if name in RESERVED or name.startswith("level_")]):
        raise UsageError(
            f"a parameter is named {taken[0]!r}, which results name something else by; give it another name"
        )
    return found


def _prepare(out: Path, settings: dict[str, Any], resume: bool) -> Path:
    """The folder of the rounds, which belong to these settings."""
    path = out / "settings.json"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1))
        return out / "rounds"
    if not resume:
        raise UsageError(f"{out} holds the state of a run; type resume=True to go on with it, or another folder")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); start again in another folder") from error
    kept.setdefault("driver", "importance")
    for name, value in settings.items():
        if kept.get(name) != value:
            raise UsageError(
                f"{out} holds a run with {name}={kept.get(name)!r}, got {value!r}; type the same, or another folder"
            )
    return out / "rounds"


def _check_same(calls: Calls, folder: Path | None) -> None:
    """The first point kept must still have its likelihood."""
    if folder is None or not (path := folder / "round-00000.npz").exists():
        return
    with np.load(path, allow_pickle=False) as kept:
        y, log_l = kept["y"], kept["log_l"]
    first = np.flatnonzero(log_l > -math.inf)[:1]
    if not len(first):
        return
    made, failed = calls.made, calls.failed
    _, now = calls(y[first])
    calls.made, calls.failed = made, failed
    if not np.allclose(now, log_l[first], rtol=1e-9, atol=1e-9):
        raise UsageError(
            f"log_likelihood gives {now[0]:.9g} at a point where the state in {folder.parent} has "
            f"{log_l[first][0]:.9g}: it is another problem; type another folder"
        )
