"""New live points for dynesty's driver, proposed by a density that is learned from the live points.

    dynesty.NestedSampler(log_likelihood, prior_transform, ndim, sample=LearnedSampler(ndim=ndim))

A learned q is not the prior. So a point moves by Metropolis steps that leave the prior within the contour as it is:
most of them independent, from q (accepted with probability min(1, pi(y') q(y) / (pi(y) q(y'))), Tierney 1994,
doi:10.1214/aos/1176325750, sec. 2.3.2), the others of a random walk in the live points' ellipsoid, which frees a point
where q is too small. An independent step of acceptance a has the autocorrelation time (2 - a) / a, if a is the same
everywhere, and that sets how many there are, times a factor that rises where the ends of the steps still remember
their beginnings: the correlation of both is measured. A step that the first factor refuses costs no call of the
likelihood.
"""

from __future__ import annotations

__all__ = ["LearnedSampler"]

import math
from typing import Any

import numpy as np
from dynesty.internal_samplers import InternalSampler, SamplerHistoryItem, SamplerReturn
from dynesty.utils import get_random_generator
from scipy.linalg import solve_triangular
from scipy.special import ndtri

from undrift.infer.gaussian_mixture import GaussianMixture, climb
from undrift.infer.nested_calls import cube
from undrift.infer.nested_rounds import log_normal

INDEPENDENT = 0.75  # share of the steps
LENGTHS = 6.0  # steps, in autocorrelation times: of half as many 60 live points find ln Z high by a fifth of its error
REFIT = 0.2  # of the live points are new
FIRST_FIT = 2**32  # of the keys of random numbers: those below are of the rounds of draws
FEWEST, MOST = 6, 500
MEMORY, LASTING = 0.1, 0.99  # correlation of the end with the beginning that may be, and what an average of it keeps


class LearnedSampler(InternalSampler):
    """dynesty's way to propose, by independent steps from a learned mixture and random-walk steps.

    Args:
        ndim: number of parameters.
        seed: of the fits.

    Attributes:
        short: the share of its tunings at which the autocorrelation asked for more than `MOST` steps: of more than a
            few the points have not moved far enough, and ln Z is high.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = int(kwargs.get("seed", 0))
        self.acceptance, self.fits, self.proposed = 0.5, 0, math.inf
        self.memory, self.stretch = 0.0, 1.0
        self.tunings = self.cut = 0
        self.sampler_kwargs |= {"steps": self._wanted(), "q": None, "mean": None, "factor": None}

    @property
    def update_bound_interval_ratio(self) -> float:
        """How seldom dynesty's own bounds are updated, which are not used."""
        return 10 * MOST

    def prepare_sampler(self, **kwargs: Any) -> list[Any]:
        """Fit q anew where enough live points are new, and hand it to the steps."""
        run = kwargs["nested_sampler"]
        live = run.live_u[run.live_logl > kwargs["loglstar"]]  # of a plateau none
        if self.proposed > REFIT * len(live):
            y = ndtri(np.clip(live, 1e-300, 1 - 2.0**-53))
            rng = np.random.Generator(np.random.Philox(key=[self.seed, FIRST_FIT + self.fits]))
            judge = rng.random(len(y)) < 0.25
            begin = 1 if self.fits == 0 else len(self.sampler_kwargs["q"].weights) // 2
            weights = np.ones(len(y))
            fitted = climb(
                y[~judge], weights[~judge], (y[judge], weights[judge]), rng=rng, begin=begin, most=32, steps=30
            )
            wide = fitted.widened(1 + 1 / math.sqrt(y.shape[1]))
            self.sampler_kwargs["q"] = GaussianMixture.together([fitted, wide], np.array([0.8, 0.2]))
            self.sampler_kwargs["mean"] = y.mean(axis=0)
            self.sampler_kwargs["factor"] = np.linalg.cholesky(
                np.cov(y.T).reshape(y.shape[1], -1) + 1e-12 * np.eye(y.shape[1])
            )
            self.fits, self.proposed = self.fits + 1, 0
        self.proposed += len(kwargs["points"])
        return super().prepare_sampler(**kwargs)

    def tune(self, tuning_info: dict[str, Any], update: bool = True) -> None:
        """Measure the acceptance and the memory, and set the number of steps by them."""
        tried = tuning_info["independent"]
        if tried:
            keep = 0.995**tried
            self.acceptance = keep * self.acceptance + (1 - keep) * tuning_info["accepted"] / tried
        if tuning_info["walked"]:
            # towards a quarter of the walk's steps accepted
            self.scale *= math.exp(0.1 * (tuning_info["walk_accepted"] / tuning_info["walked"] - 0.25))
        self.memory = LASTING * self.memory + (1 - LASTING) * tuning_info["memory"]
        if update:
            self.stretch = max(1.0, self.stretch * (1.02 if self.memory > MEMORY else 0.98))
            wanted = self._wanted()
            self.sampler_kwargs["steps"] = int(np.clip(wanted, FEWEST, MOST))
            self.tunings, self.cut = self.tunings + 1, self.cut + (wanted > MOST)

    def _wanted(self) -> int:
        time = (2 - self.acceptance) / max(self.acceptance, 1e-3)
        return math.ceil(self.stretch * LENGTHS * time / INDEPENDENT)

    @property
    def short(self) -> float:
        """See the class."""
        return self.cut / max(self.tunings, 1)

    @staticmethod
    def sample(args: Any) -> SamplerReturn:
        """A new live point: Metropolis steps from a copy of one, all within the contour."""
        rng = get_random_generator(args.rseed)
        q, factor = args.kwargs["q"], args.kwargs["factor"]
        y = ndtri(np.clip(args.u, 1e-300, 1 - 2.0**-53))[None]
        here = log_normal(y)[0], q.log_prob(y)[0]
        begun, now, calls, history = y, None, 0, []
        counts = {"independent": 0, "accepted": 0, "walked": 0, "walk_accepted": 0}
        for _ in range(args.kwargs["steps"]):
            independent = rng.random() < INDEPENDENT
            if independent:
                to = q.draw(rng.standard_normal((1, y.shape[1] + 1)))
            else:
                to = y + args.scale * 2.4 / math.sqrt(y.shape[1]) * (factor @ rng.standard_normal(y.shape[1]))
            there = log_normal(to)[0], q.log_prob(to)[0]
            counts["independent" if independent else "walked"] += 1
            ratio = there[0] - here[0] - (there[1] - here[1] if independent else 0.0)
            if math.log(max(rng.random(), 1e-300)) >= ratio:
                continue
            u = cube(to[0])
            v = args.prior_transform(u)
            log_l = args.loglikelihood(np.asarray(v))
            calls += 1
            history.append(SamplerHistoryItem(u=u, v=v, logl=log_l))
            if log_l > args.loglstar:
                y, here, now = to, there, (u, v, log_l)
                counts["accepted" if independent else "walk_accepted"] += 1
        if now is None:  # never moved: the point stays, as it may
            v = args.prior_transform(args.u)
            now, calls = (args.u, v, args.loglikelihood(np.asarray(v))), calls + 1
        first, last = (solve_triangular(factor, (at - args.kwargs["mean"]).T, lower=True) for at in (begun, y))
        told = counts | {"memory": float((first * last).mean())}
        return SamplerReturn(
            u=now[0], v=now[1], logl=now[2], ncalls=calls, evaluation_history=history, tuning_info=told,
            proposal_stats=counts,
        )  # fmt: skip
