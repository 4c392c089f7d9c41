"""Evidence by importance: which stages follow each other, and what a proposal must be worth before it is drawn from."""

from __future__ import annotations

__all__ = ["by_importance"]

import logging
import math

import numpy as np

from undrift.errors import UsageError
from undrift.infer.nested_result import NestedResult
from undrift.infer.nested_rounds import Round, Rounds
from undrift.infer.nested_stages import Say, effective_share, explore, finish, refine, wanted, weights_of
from undrift.infer.pareto import pareto_shape

log = logging.getLogger(__name__)

RELIABLE = 0.7  # of the Pareto shape
CALM = 0.6  # of a check: its shape is known to about 0.1, and the final draws are to be reliable too
ATTEMPTS = 6  # at a check that is calm, each of which costs little
FEWEST = 8  # final draws to a live point: of fewer, skew weights would make low estimates look sure
CHECKING = 4  # draws to a live point that judge a frozen proposal before the final ones


def by_importance(
    rounds: Rounds, names: list[str], labels: list[str], live: int, dlogz: float, precision: float, most_calls: float,
    say: Say,
) -> NestedResult:  # fmt: skip
    """Learn the contours and the posterior, and estimate ln Z from fresh draws.

    Args:
        rounds: all draws.
        names: of the parameters.
        labels: of the parameters in LaTeX.
        live: points, in equally weighted ones, that a contour is learned from.
        dlogz: the levels end where what lies above the contour adds less to ln Z.
        precision: the standard error of ln Z to draw for.
        most_calls: calls of the likelihood at most.
        say: told how it goes.

    Raises:
        UsageError: no draw has a likelihood above zero.
    """
    calls = rounds.calls
    history = explore(rounds, live, dlogz, most_calls - 4 * live, say)
    for attempt in range(ATTEMPTS):
        proposal, _ = refine(rounds, live, precision, most_calls - 2 * live, say)
        count = int(min(CHECKING * live, (most_calls - calls.made) / 2))
        check = weights_of(rounds.draw("check", lambda frozen=proposal: frozen, count))
        more = attempt < ATTEMPTS - 1 and calls.made + 2 * (CHECKING + FEWEST) * live <= most_calls
        if more and pareto_shape(check) > CALM:
            continue
        count = max(wanted(effective_share(check), precision), FEWEST * live)
        final, log_w = finish(rounds, proposal, int(min(count, most_calls - calls.made)), say)
        more = more and calls.made + 2 * (CHECKING + FEWEST) * live <= most_calls
        if not more or pareto_shape(np.concatenate([check, log_w])) <= RELIABLE:
            break
        for part in final:  # what they found that the proposal overlooked is learned, and fresh ones are drawn
            rounds.weigh(part)
    return _result(rounds, final, log_w, check, history, names, labels)


def _result(
    rounds: Rounds,
    final: list[Round],
    log_w: np.ndarray,
    check: np.ndarray,
    history: list[dict[str, float]],
    names: list[str],
    labels: list[str],
) -> NestedResult:
    if not log_w.max() > -math.inf:
        raise UsageError("log_likelihood is -inf or failed at every final draw: the prior does not meet the likelihood")
    log_z = float(np.logaddexp.reduce(log_w) - math.log(len(log_w)))
    w = np.exp(log_w - log_z)
    both = np.concatenate([check, log_w])
    error = math.sqrt((1 / effective_share(both) - 1) / (len(w) - 1))
    shape = pareto_shape(both)
    doubt = ""
    if shape > RELIABLE:
        doubt = (
            f"the tail of the weights has the Pareto shape {shape:.2f}, above {RELIABLE}; more live points (live) or "
            "the driver dynesty may do"
        )
        log.warning("no error can be told: %s", doubt)
    return NestedResult(
        log_z=log_z,
        log_z_error=math.inf if doubt else error,
        samples=np.concatenate([part.theta for part in final]),
        weights=w / w.sum(),
        log_likelihood=np.concatenate([part.log_l for part in final]),
        names=tuple(names),
        labels=tuple(labels),
        calls=rounds.calls.made,
        failed=rounds.calls.failed,
        efficiency=float(1 / (1 + w.var())),
        pareto_shape=shape,
        doubt=doubt,
        history=history,
        points=(rounds.theta, rounds.log_l, rounds.log_v),
    )
