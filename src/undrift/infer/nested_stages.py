"""The three stages of nested sampling by importance.

1. Levels: the contour L* rises so that the points above it always are worth `live` equally weighted ones. A mixture q
   is fitted to the prior within the contour, and its draws join. The prior volume above a contour is the sum of the
   balance weights v above it (importance nested sampling: Feroz et al. 2013, arXiv:1306.2144; Lange 2023,
   arXiv:2306.16923; Williams et al. 2023, arXiv:2302.08526).
2. Pilots: a mixture is fitted to the posterior weights v L, and its draws tell how many calls the wanted error takes.
3. Final: that many draws from the last mixture, now frozen. The evidence is the mean of L pi / q over these alone, so
   that it is unbiased whatever q is worth; a poor q costs calls, which the error shows.

A sixth of each frozen proposal is defensive (Hesterberg 1995): the fit with wider components, which together have the
tails of a Student t, and a ladder of the proposals of the levels, from the prior up. They bound the weights where the fit
has thin tails or nothing at all.
"""

from __future__ import annotations

__all__ = ["explore", "finish", "refine"]

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.special import logsumexp

from undrift.infer.gaussian_mixture import GaussianMixture, climb, effective_size
from undrift.infer.nested_rounds import Rounds, log_normal
from undrift.infer.pareto import pareto_shape

LADDER_SHARE = 0.05
PILOT_LADDER = 0.25
LADDER_STEPS = 10
WIDER = ((0.8, 0.06), (2.5, 0.03), (5.0, 0.02))  # standard deviations times 1 + the first / sqrt(D), and the share
PILOTS = 8
LEVEL_SHARES = np.array([0.75, 0.1, 0.15])  # of a level's fit, its wider copy and the level before
MOST_FITTED = 8_000
FINAL_BLOCK = 20_000

Say = Callable[[str], None]


def explore(rounds: Rounds, live: int, dlogz: float, most_calls: float, say: Say) -> list[dict[str, float]]:
    """Draw levels until what lies above the contour adds less than `dlogz` to ln Z.

    Returns:
        of each level: the contour, the log of the prior volume above it, ln Z so far and the share of draws above it.
    """
    dimensions = rounds.calls.dimensions
    rounds.draw("levels", lambda: GaussianMixture.standard(dimensions), 2 * live)
    history: list[dict[str, float]] = []
    contour, components, still = -math.inf, 1, 0
    while True:
        before, contour = contour, max(contour, _contour(rounds, live))
        above = rounds.log_l >= contour if contour > -math.inf else rounds.log_l > -math.inf
        volume = float(logsumexp(rounds.log_v[above])) if above.any() else -math.inf
        log_z = float(logsumexp(rounds.log_v + rounds.log_l))
        below = float(logsumexp((rounds.log_v + rounds.log_l)[~above])) if not above.all() else -math.inf
        top = float(rounds.log_l.max())
        last = rounds.rounds[-1]
        share = float(np.mean(last.log_l >= before)) if before > -math.inf else float(np.mean(last.log_l > before))
        history.append(
            {"log_l": contour, "log_volume": volume, "log_z": log_z, "efficiency": share, "calls": rounds.calls.made}
        )
        say(f"ln Z {log_z:.3f}, ln X {volume:.2f}")
        still = still + 1 if contour <= before and contour > -math.inf else 0
        done = top > -math.inf and (log_z - below < dlogz or contour == top)
        if done or still > 20 or rounds.calls.made + 2 * live > most_calls:
            return history

        def proposal(above: np.ndarray = above, begin: int = components) -> GaussianMixture:
            if above.sum() < 2 * dimensions + 2:
                return GaussianMixture.standard(dimensions)
            fitted = _fit(rounds, rounds.log_v, above, begin, 32, 1000 + 10 * live)
            # Evenly shared by half: a small mode has to have points at the next level too.
            fitted = replace(fitted, weights=0.5 * fitted.weights + 0.5 / len(fitted.weights))
            wide = fitted.widened(1 + WIDER[0][0] / math.sqrt(dimensions))
            # What this fit overlooks, the last one may have had: its points come with weights that can be fitted.
            return GaussianMixture.together([fitted, wide, last.proposal], LEVEL_SHARES).pruned(1e-3)

        found = rounds.draw("levels", proposal, 2 * live)
        components = int(np.sum(found.proposal.weights > 0)) // 2


def refine(rounds: Rounds, live: int, precision: float, most_calls: float, say: Say) -> tuple[GaussianMixture, float]:
    """Fit the posterior and draw pilots until a better fit would save little.

    A pilot has more of the ladder than the proposal that is frozen in the end, and so finds what the fit overlooks.

    Returns:
        the proposal to freeze, and the share of a draw that counts: the effective number of draws over the number.
    """
    best: GaussianMixture | None = None
    most, size, ladder = 0.0, 2 * live, _ladder(rounds)
    for _ in range(PILOTS):

        def fitted(begin: int = 8 if best is None else len(best.weights) // 6) -> GaussianMixture:
            found = _fit(rounds, rounds.log_v + rounds.log_l, rounds.log_l > -math.inf, begin, 128, MOST_FITTED)
            return GaussianMixture.together([_defended(found, ladder), ladder], np.array([1 - PILOT_LADDER, PILOT_LADDER]))

        pilot = rounds.draw("pilot", fitted, size)
        tried = _frozen(pilot.proposal, ladder)
        log_p = pilot.log_l + log_normal(pilot.y)
        log_w, drawn = log_p - tried.log_prob(pilot.y), pilot.proposal.log_prob(pilot.y)
        if not log_p.max() > -math.inf:
            continue
        # of weights w under the frozen q from draws of the pilot's: E w = mean(p / q_pilot), E w^2 = mean(p w / q_pilot)
        first, second = logsumexp(log_p - drawn), logsumexp(log_p + log_w - drawn)
        counts = float(np.exp(2 * first - second)) / size
        say(f"a draw counts {counts:.2f}")
        gained, calm = counts > 1.1 * most, pareto_shape(log_w) < 0.5
        if counts > most:
            best, most = tried, counts
        enough = calm and (not gained or wanted(most, precision) < 2 * size)
        if enough or rounds.calls.made + 2 * size > most_calls:
            break
        size *= 2 if wanted(most, precision) > 8 * size else 1
    return (ladder, 1e-3) if best is None else (best, min(most, 0.999))


def wanted(counts: float, precision: float) -> int:
    """Draws for a standard error of ln Z: (1 / counts - 1) / precision^2, from the relative variance of the weights."""
    return math.ceil((1 / counts - 1) / precision**2)


def finish(rounds: Rounds, proposal: GaussianMixture, count: int, say: Say) -> tuple[np.ndarray, ...]:
    """The final draws: points, parameters, log-likelihoods and the logs of the weights L pi / q."""
    left, parts = count, []
    while left > 0:
        # Blocks of one size: a longer run that is asked for later goes on where this one ended.
        parts.append(rounds.draw("final", lambda: proposal, min(left, FINAL_BLOCK)))
        left -= len(parts[-1].y)
        say(f"{count - left:,} of {count:,} final draws")
    y, theta = np.concatenate([p.y for p in parts]), np.concatenate([p.theta for p in parts])
    log_l = np.concatenate([p.log_l for p in parts])
    return y, theta, log_l, log_l + log_normal(y) - proposal.log_prob(y)


def _contour(rounds: Rounds, live: int) -> float:
    """The highest contour whose points are worth `live` equally weighted ones."""
    order = np.argsort(-rounds.log_l, kind="stable")
    log_v = rounds.log_v[order]
    v = np.exp(log_v - log_v.max())
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.cumsum(v) ** 2 / np.cumsum(v**2)
    enough = np.flatnonzero((worth >= live) & (np.arange(len(v)) >= live - 1))
    return float(rounds.log_l[order[enough[0]]]) if len(enough) else -math.inf


def _fit(rounds: Rounds, log_w: np.ndarray, among: np.ndarray, begin: int, most: int, fitted: int) -> GaussianMixture:
    """A mixture fitted to weighted points; single weights are truncated (Ionides 2008) at the mean times sqrt(n)."""
    rows = np.flatnonzero(among)
    w = np.exp(log_w[rows] - log_w[rows].max())
    w = np.minimum(w, w.mean() * math.sqrt(len(w)))
    rng = rounds.rng(1)
    heavy = w > 1e-4 * w.mean()
    rows, w = rows[heavy], w[heavy]
    if len(rows) > fitted:  # thinned so that no point comes twice: one left out must not be fitted too
        chance = np.minimum(1.0, fitted * w / w.sum())
        taken = rng.random(len(rows)) < chance
        rows, w = rows[taken], (w / chance)[taken]
    y = rounds.y[rows]
    judge = rng.random(len(y)) < 0.25
    if judge.sum() < 8 or (~judge).sum() < 8:
        judge = np.arange(len(y)) % 2 == 1
    return climb(y[~judge], w[~judge], (y[judge], w[judge]), rng=rng, begin=begin, most=most)


def _defended(fitted: GaussianMixture, ladder: GaussianMixture) -> GaussianMixture:
    """The fit with its wider copies and the ladder."""
    copies = [fitted.widened(1 + much / math.sqrt(fitted.dimensions)) for much, _ in WIDER]
    shares = np.array([LADDER_SHARE, *(share for _, share in WIDER)])
    return GaussianMixture.together([fitted, ladder, *copies], np.concatenate([[1 - shares.sum()], shares]))


def _frozen(pilot: GaussianMixture, ladder: GaussianMixture) -> GaussianMixture:
    """A pilot's proposal without the ladder that was added to it."""
    last = len(pilot.weights) - len(ladder.weights)
    return GaussianMixture(pilot.weights[:last] / (1 - PILOT_LADDER), pilot.means[:last], pilot.factors[:last])


def _ladder(rounds: Rounds) -> GaussianMixture:
    """Proposals of the levels, evenly from the prior to the last."""
    levels = [r.proposal for r in rounds.rounds if r.stage == "levels"]
    chosen = np.unique(np.linspace(0, len(levels) - 1, LADDER_STEPS).round().astype(int))
    return GaussianMixture.together([levels[i] for i in chosen], np.full(len(chosen), 1 / len(chosen)))
