"""The learned proposals within dynesty's driver."""

import math
from collections import namedtuple

import numpy as np
from dynesty import NestedSampler

from undrift.infer.dynesty_sampler import LearnedSampler
from undrift.infer.gaussian_mixture import GaussianMixture

WIDTH = 0.1


def gaussian(theta):
    return float(-0.5 * np.square(theta).sum() / WIDTH**2 - len(theta) * math.log(WIDTH * math.sqrt(2 * math.pi)))


def test_the_evidence_of_dynestys_driver_is_unbiased(measured):
    pulls = []
    for seed in range(6):
        sampler = NestedSampler(
            gaussian,
            lambda u: 4 * u - 2,
            2,
            nlive=40,
            sample=LearnedSampler(ndim=2),
            rstate=np.random.default_rng(seed),
        )
        sampler.run_nested(print_progress=False, dlogz=0.5)
        pulls.append((sampler.results.logz[-1] + 2 * math.log(4)) / sampler.results.logzerr[-1])
    mean = float(np.mean(pulls))
    measured(LearnedSampler, "mean pull of 6 seeds under dynesty", "ln Z = -2 ln 4", 0, mean, within=3.5 / math.sqrt(6))


def test_steps_leave_the_prior_within_the_contour_as_it_is(measured):
    """From exact draws of a disc of a uniform prior, steps of a q that is off centre give draws of the same law."""
    rng, n = np.random.default_rng(0), 6000
    r, angle = 0.3 * np.sqrt(rng.random(n)), 2 * math.pi * rng.random(n)
    start = 0.5 + np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    poor = GaussianMixture(np.ones(1), np.array([[0.4, -0.2]]), 0.5 * np.eye(2)[None])
    Argument = namedtuple("Argument", "u loglstar scale prior_transform loglikelihood rseed kwargs")
    kwargs = {"q": poor, "factor": 0.2 * np.eye(2), "mean": np.zeros(2), "steps": 5}
    level = lambda v: -math.dist(v, (0.5, 0.5))  # noqa: E731
    end = np.array([
        LearnedSampler.sample(Argument(u, -0.3, 1.0, lambda u: u, level, np.random.default_rng(i), kwargs)).u
        for i, u in enumerate(start)
    ])  # fmt: skip
    away = end - 0.5
    # Of a disc of radius R: E x = 0, var x = R^2 / 4, E r^4 = R^4 / 3.
    pulls = np.abs(away.mean(axis=0)) / (0.15 / math.sqrt(n))
    measured(LearnedSampler, "mean of points moved by a poor q, in errors", "0", "below 4", pulls.max(), most=4)
    square = np.square(away).sum(axis=1)
    pull = abs(square.mean() - 0.045) / (0.09 * math.sqrt(1 / 3 - 1 / 4) / math.sqrt(n))
    measured(LearnedSampler, "mean square of points moved by a poor q, in errors", "R^2 / 2", "below 4", pull, most=4)
    assert np.mean(np.any(end != start, axis=1)) > 0.5


def test_the_number_of_steps_follows_the_acceptance(measured):
    sampler = LearnedSampler(ndim=2)
    for _ in range(500):
        sampler.tune({"independent": 10, "accepted": 2, "walked": 0, "walk_accepted": 0, "memory": 0.0})
    # 6 autocorrelation times (2 - a) / a at a = 0.2, three quarters of the steps independent
    measured(
        LearnedSampler, "steps at acceptance 0.2", "6 (2 - a) / a / 0.75", 72, sampler.sampler_kwargs["steps"], within=1
    )
    assert LearnedSampler(ndim=2).sampler_kwargs["steps"] == 24  # of acceptance 0.5, until it is measured
    for _ in range(200):
        sampler.tune({"independent": 10, "accepted": 2, "walked": 0, "walk_accepted": 0, "memory": 0.3})
    most = sampler.sampler_kwargs["steps"]  # the average memory is above 0.1 after 40 tunings: 1.02^160 = 24
    measured(
        LearnedSampler, "steps where the beginning is remembered", "72 x 1.02^160, 500 at most", 500, most, within=0
    )
    assert sampler.short > 0.05
    for _ in range(900):
        sampler.tune({"independent": 10, "accepted": 2, "walked": 0, "walk_accepted": 0, "memory": 0.0})
    assert sampler.sampler_kwargs["steps"] == 72


def test_the_memory_of_steps_is_the_correlation_of_their_ends(measured):
    """Without a step that is accepted the end is the beginning, of whitened mean square one; many good steps forget."""
    Argument = namedtuple("Argument", "u loglstar scale prior_transform loglikelihood rseed kwargs")
    good = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    start = np.random.default_rng(0).random((600, 2))
    for level, exact in ((-1.0, 1.0), (1.0, 0.0)):
        kwargs = {"q": good, "factor": np.eye(2), "mean": np.zeros(2), "steps": 10}
        found = [
            LearnedSampler.sample(
                Argument(u, 0.0, 1.0, lambda u: u, lambda _, level=level: level, np.random.default_rng(i), kwargs)
            ).tuning_info["memory"]
            for i, u in enumerate(start)
        ]
        name = f"correlation of the ends of steps, {exact:g}"
        measured(LearnedSampler, name, f"{exact:g}", exact, float(np.mean(found)), within=4 * math.sqrt(2 / 1200))
