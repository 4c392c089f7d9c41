"""The four stages of nested sampling by importance.

1. Levels: the contour L* rises so that the points above it always are worth `live` equally weighted ones. A mixture q
   is fitted to the prior within the contour, and its draws join; summits seen below it are climbed to, too
   (see `undrift.infer.nested_strays`). The prior volume above a contour is the sum of the
   balance weights v above it (importance nested sampling: Feroz et al. 2013, arXiv:1306.2144; Lange 2023,
   arXiv:2306.16923; Williams et al. 2023, arXiv:2302.08526).
2. Pilots: a mixture is fitted to the posterior weights v L, and its draws tell how many calls the wanted error takes.
3. Check: draws from the last mixture, now frozen, whose weights tell whether it will do, and how many it takes.
4. Final: that many. The evidence is the mean of L pi / q over these alone, none of which had a say in q or in their
   number, so that it is unbiased whatever q is worth; a poor q costs calls, which the error shows.

A fifth of each fit's proposal is defensive (Hesterberg 1995): the fit with wider components, which together have the
tails of a Student t, and a ladder of the proposals of the levels, from the prior up. They bound the weights where the
fit has thin tails or nothing at all.
"""

from __future__ import annotations

__all__ = ["Say", "counting", "effective_share", "explore", "finish", "refine", "wanted", "weights_of"]

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from undrift.infer.gaussian_mixture import GaussianMixture, climb, effective_size
from undrift.infer.nested_rounds import Round, Rounds, log_normal
from undrift.infer.nested_strays import stray_summits
from undrift.infer.pareto import pareto_shape

ENOUGH, FOLLOWED = 0.5, 0.3  # nats of ln Z above a contour, and the share of draws within it
LADDER_SHARE = 0.05
PILOT_LADDER = 0.25
LADDER_STEPS = 7
WIDER = ((0.8, 0.1), (3.5, 0.05))  # standard deviations times 1 + the first / sqrt(D), and the share
PILOTS = 8
LEVEL_SHARES = np.array([0.65, 0.2, 0.15])  # of a level's fit, its wider copy and the level before
STRAY_SHARE = 0.15
CALM = 0.6  # Pareto shape of a pilot's weights
FITS_KEPT = 3
FREEZING_STEPS = 30
KEPT = 0.4
MOST_COMPONENTS = 64
MOST_FITTED = 5_000
FINAL_BLOCK = 20_000

Say = Callable[[str], None]


def explore(rounds: Rounds, live: int, dlogz: float, most_calls: float, say: Say) -> list[dict[str, float]]:
    """Draw levels until what lies above the contour adds less than `dlogz` to ln Z.

    The last levels see parts of high likelihood that are thin, as the neck of a funnel. Where few draws fall within the
    contour, as where the likelihood is highest on a ring, no mixture follows them, and they end at `ENOUGH`.

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
        volume = float(np.logaddexp.reduce(rounds.log_v[above])) if above.any() else -math.inf
        log_z = float(np.logaddexp.reduce(rounds.log_v + rounds.log_l))
        below = float(np.logaddexp.reduce((rounds.log_v + rounds.log_l)[~above])) if not above.all() else -math.inf
        top = float(rounds.log_l.max())
        last = rounds.rounds[-1]
        share = float(np.mean(last.log_l >= before)) if before > -math.inf else float(np.mean(last.log_l > before))
        history.append(
            {"log_l": contour, "log_volume": volume, "log_z": log_z, "efficiency": share, "calls": rounds.calls.made}
        )
        say(f"ln Z {log_z:.3f}, ln X {volume:.2f}")
        still = still + 1 if contour <= before and contour > -math.inf else 0
        left = log_z - below
        enough = left < dlogz or (left < ENOUGH and share < FOLLOWED)
        done = top > -math.inf and (enough or contour == top)
        if done or still > 40 or rounds.calls.made + live > most_calls:
            return history

        def proposal(
            above: np.ndarray = above, begin: int = components, before: GaussianMixture = last.proposal
        ) -> GaussianMixture:
            if above.sum() < 2 * dimensions + 2:
                return with_strays(GaussianMixture.standard(dimensions))
            fitted = _fit(rounds, rounds.log_v, above, begin, 32, 1000 + 10 * live)
            # Evenly shared by half: a small mode has to have points at the next level too.
            fitted = replace(fitted, weights=0.5 * fitted.weights + 0.5 / len(fitted.weights))
            wide = fitted.widened(1 + WIDER[0][0] / math.sqrt(dimensions))
            # What this fit overlooks, the last one may have had: its points come with weights that can be fitted.
            return with_strays(GaussianMixture.together([fitted, wide, before], LEVEL_SHARES).pruned(1e-3))

        def with_strays(level: GaussianMixture, contour: float = contour) -> GaussianMixture:
            strays = stray_summits(rounds.y, rounds.log_l, contour)
            if strays is None:
                return level
            return GaussianMixture.together([level, strays], np.array([1 - STRAY_SHARE, STRAY_SHARE]))

        found = rounds.draw("levels", proposal, live)
        components = _components(found.proposal)


def _components(proposal: GaussianMixture) -> int:
    """How many components a level's fit had: its wide copy begins where the first mean comes again."""
    repeated = np.flatnonzero((proposal.means == proposal.means[0]).all(axis=1))
    return int(repeated[1]) if len(repeated) > 1 else 1


def refine(rounds: Rounds, live: int, precision: float, most_calls: float, say: Say) -> tuple[GaussianMixture, float]:
    """Fit the posterior and draw pilots until another would save little, then freeze a proposal.

    Pilots have more of the ladder than what is frozen in the end, and so find what a fit overlooks.

    Returns:
        the frozen proposal, and about the share of a draw that counts: the effective number of draws over the number.
    """
    ladder, fits, most, size = _ladder(rounds), [], 0.0, 2 * live
    for _ in range(PILOTS):

        def pilot_proposal(begin: int = len(fits[-1].weights) if fits else 8) -> GaussianMixture:
            found = _fit(
                rounds, rounds.log_v + rounds.log_l, rounds.log_l > -math.inf, begin, MOST_COMPONENTS, MOST_FITTED
            )
            return _defended(found, ladder, PILOT_LADDER)

        pilot = rounds.draw("pilot", pilot_proposal, size)
        fits.append(_first(pilot.proposal, len(ladder.weights)))
        log_p = rounds.log_l + rounds.log_prior
        log_q = _defended(fits[-1], ladder, LADDER_SHARE).log_prob(rounds.y)
        counts = counting(rounds.log_v, rounds.log_l, log_p - log_q)
        say(f"a draw counts {counts:.2f}")
        gained, most = counts > 1.1 * most, max(counts, most)
        calm = pareto_shape((log_p - log_q)[-size:]) < CALM
        enough = calm and (not gained or wanted(most, precision) < 2 * size)
        if enough or rounds.calls.made + 2 * size > most_calls:
            break
        size *= 2 if wanted(most, precision) > 8 * size else 1
    latest = fits[-FITS_KEPT:]
    together = GaussianMixture.together(latest, np.full(len(latest), 1 / len(latest)))
    return _freeze(rounds, _defended(together, ladder, LADDER_SHARE))


def counting(log_v: np.ndarray, log_l: np.ndarray, log_w: np.ndarray) -> float:
    """(E w)^2 / E w^2 of draws from q with the weights w = L pi / q, from points of prior weight v."""
    if not log_l.max() > -math.inf:
        return 1e-3
    first, second = np.logaddexp.reduce(log_v + log_l), np.logaddexp.reduce(log_v + log_l + log_w)
    return float(np.clip(np.exp(2 * first - second), 1e-4, 0.999))


def _freeze(rounds: Rounds, proposal: GaussianMixture) -> tuple[GaussianMixture, float]:
    """The proposal with the shares of its components that make the variance of the weights least.

    E w^2 = integral of (L pi)^2 / q falls with each step a_k <- a_k sqrt(integral of (L pi)^2 q_k / q^2), for
    q = sum_k a_k q_k: Titterington's multiplicative algorithm with power 1/2 (Yu 2010, doi:10.1214/09-AOS758). A part
    of the shares stays as it was, so that no component that defends is lost.
    """
    log_p = rounds.log_l + rounds.log_prior
    cost = 2 * log_p - rounds.log_prior + rounds.log_v
    held = np.flatnonzero(cost > cost.max() - 30) if log_p.max() > -math.inf else np.empty(0, int)
    if not len(held):
        return proposal, 1e-3
    terms = replace(proposal, weights=np.ones(len(proposal.weights))).terms(rounds.y[held])
    # in units of the proposal itself: q_k / q_0, and (L pi)^2 / q_0
    log_q = proposal.log_prob(rounds.y[held])
    ratio, cost = np.exp(terms - log_q[:, None]), cost[held] - log_q
    cost = np.exp(cost - cost.max())
    shares = proposal.weights
    for _ in range(FREEZING_STEPS):
        q = ratio @ shares
        shares = shares * np.sqrt((cost / q**2) @ ratio)
        shares = KEPT * proposal.weights + (1 - KEPT) * shares / shares.sum()
    frozen = replace(proposal, weights=shares)
    return frozen, counting(rounds.log_v[held], rounds.log_l[held], log_p[held] - frozen.log_prob(rounds.y[held]))


def wanted(counts: float, precision: float) -> int:
    """Draws for a standard error of ln Z: (1 / counts - 1) / precision^2, from the relative variance of the weights."""
    return math.ceil((1 / counts - 1) / precision**2)


def effective_share(log_w: np.ndarray) -> float:
    """(mean w)^2 / mean w^2 of draws' own weights, from their logs (n,): 1 / (1 + relative variance)."""
    if not log_w.max() > -math.inf:
        return 1e-4
    w = np.exp(log_w - log_w.max())
    return max(1e-4, effective_size(w) / len(w))


def weights_of(drawn: Round) -> np.ndarray:
    """The logs of the weights L pi / q of a round's draws (n,)."""
    return drawn.log_l + log_normal(drawn.y) - drawn.proposal.log_prob(drawn.y)


def finish(rounds: Rounds, proposal: GaussianMixture, count: int, say: Say) -> tuple[list[Round], np.ndarray]:
    """The final draws, and the logs of their weights L pi / q."""
    left, parts = count, []
    while left > 0:
        # Blocks of one size: a longer run that is asked for later goes on where this one ended.
        parts.append(rounds.draw("final", lambda: proposal, min(left, FINAL_BLOCK)))
        left -= len(parts[-1].y)
        say(f"{count - left:,} of {count:,} final draws")
    return parts, np.concatenate([weights_of(part) for part in parts])


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
    return climb(y[~judge], w[~judge], (y[judge], w[judge]), rng=rng, begin=begin, most=most, steps=40)


def _defended(fitted: GaussianMixture, ladder: GaussianMixture, share: float) -> GaussianMixture:
    """The fit with its wider copies and this share of the ladder, which comes last."""
    copies = [fitted.widened(1 + much / math.sqrt(fitted.dimensions)) for much, _ in WIDER]
    wider = np.array([wide for _, wide in WIDER])
    shares = (1 - share) * np.concatenate([[1 - wider.sum()], wider])
    return GaussianMixture.together([fitted, *copies, ladder], np.append(shares, share))


def _first(defended: GaussianMixture, ladder: int) -> GaussianMixture:
    """The fit that `_defended` was given."""
    count = (len(defended.weights) - ladder) // (1 + len(WIDER))
    weights = defended.weights[:count]
    return GaussianMixture(weights / weights.sum(), defended.means[:count], defended.factors[:count])


def _ladder(rounds: Rounds) -> GaussianMixture:
    """Proposals of the levels, evenly from the prior to the last."""
    levels = [r.proposal for r in rounds.rounds if r.stage == "levels"]
    chosen = np.unique(np.linspace(0, len(levels) - 1, LADDER_STEPS).round().astype(int))
    return GaussianMixture.together([levels[i].pruned(4e-3) for i in chosen], np.full(len(chosen), 1 / len(chosen)))
