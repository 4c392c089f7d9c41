"""Live points that are followed by dynesty's driver, with learned steps: evidence, volumes, stops and failures."""

import logging
import math
import re
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from scipy.special import ndtri

from undrift.errors import CheckpointError, UndriftError, UsageError
from undrift.infer.nested import nested
from undrift.infer.nested_dynesty import by_dynesty, log_evidence

WIDTH = 0.1
FEW = {"driver": "dynesty", "live": 48, "progress": False}


def narrow(theta):  # 4.5 nats of information, of which draws from the prior find the first two
    return float(-0.5 * np.square(theta).sum() / WIDTH**2 - len(theta) * math.log(WIDTH * math.sqrt(2 * math.pi)))


def box(u):
    return 4 * u - 2


EXACT = -2 * math.log(4)


def deaths(live, number, rng):
    """Volumes of contours within which `live` points are, and dynesty's mean ones; the live points die at the end."""
    alive = np.concatenate([np.full(number, live), np.arange(live, 0, -1)])
    true = -np.cumsum(rng.exponential(size=len(alive)) / alive)
    return true, -np.cumsum(np.log1p(1 / alive))


def test_the_evidence_of_known_volumes(measured):
    """L = X^(-1/2), Z = 2: ln Z is 0.69 in the mean of many runs, and scatters as its error says."""
    pulls = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        true, told = deaths(40, 600, rng)
        log_z, error = log_evidence(-0.5 * true, told, rng, draws=200)
        pulls.append((log_z - math.log(2)) / error)
    mean, spread = float(np.mean(pulls)), float(np.std(pulls, ddof=1))
    measured(log_evidence, "mean pull of 150 runs", "Z = 2 of L = X^(-1/2)", 0, mean, within=3.5 / math.sqrt(150))
    measured(log_evidence, "spread of the pulls", "1", 1, spread, within=3.5 / math.sqrt(300))


def test_pulls_have_mean_zero_and_spread_one(measured):
    found = [nested(narrow, box, 2, seed=seed, **FEW) for seed in range(12)]
    pulls = np.array([(r.log_z - EXACT) / r.log_z_error for r in found])
    assert all(r.reliable for r in found)
    measured(
        by_dynesty, "mean pull of 12 seeds, by dynesty", "ln Z = -2 ln 4", 0, pulls.mean(), within=3.5 / math.sqrt(12)
    )
    measured(by_dynesty, "spread of the pulls, by dynesty", "1", 1, pulls.std(ddof=1), within=3.5 / math.sqrt(24))
    deviation = np.sqrt([r.weights @ np.square(r.samples[:, 0] - r.weights @ r.samples[:, 0]) for r in found])
    exact = WIDTH  # within the box
    measured(by_dynesty, "deviation of the posterior, by dynesty", "0.1", exact, deviation.mean(), within=0.006)


def test_half_the_prior_without_likelihood(measured):
    """theta ~ N(0, 1), a step times a Gaussian: ties at zero likelihood are half of the live points."""

    def log_likelihood(theta):
        return float(-0.5 * theta[0] ** 2 - 0.5 * math.log(2 * math.pi)) if theta[0] > 0 else -math.inf

    found = [nested(log_likelihood, ndtri, 1, seed=seed, **FEW) for seed in range(8)]
    pulls = [(r.log_z - math.log(0.5 / math.sqrt(4 * math.pi))) / r.log_z_error for r in found]
    mean = float(np.mean(pulls))
    measured(by_dynesty, "mean pull of 8 seeds where half has L = 0", "ln Z", 0, mean, within=3.5 / math.sqrt(8))
    assert min(r.samples.min() for r in found) > 0
    apart = [abs(float(r.to_anesthetic().logZ()) - r.log_z) / r.log_z_error for r in found]
    measured(
        by_dynesty, "ln Z by anesthetic where half has L = 0, in errors", "ours", "below 0.3", max(apart), most=0.3
    )
    flat = nested(lambda _: 2.5, box, 2, **FEW)
    assert flat.log_z == pytest.approx(2.5, abs=1e-9)
    assert flat.run_dataset().level_log_l.size == 0
    tiny = nested(lambda t: log_likelihood(t) if t[0] > 0 else -1e30, ndtri, 1, seed=0, **FEW)  # as good as zero
    assert tiny.log_z == found[0].log_z


def test_stopped_and_resumed_the_numbers_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("undrift.infer.nested_dynesty.SECONDS_BETWEEN_SAVES", 0.05)
    whole, left = nested(narrow, box, 2, seed=5, **FEW), [1200]

    def stops(theta):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return narrow(theta)

    for resume in (False, True):  # later parts follow the first
        with pytest.raises(KeyboardInterrupt):
            nested(stops, box, 2, seed=5, out=tmp_path / "run", resume=resume, **FEW)
        left[0] = 500
    calls = []
    again = nested(lambda t: calls.append(0) or narrow(t), box, 2, seed=5, out=tmp_path / "run", resume=True, **FEW)
    assert (again.log_z, again.log_z_error, again.calls) == (whole.log_z, whole.log_z_error, whole.calls)
    np.testing.assert_array_equal(again.samples, whole.samples)
    assert len(calls) < whole.calls - 1400
    with pytest.raises(UsageError, match="driver='dynesty', got 'importance'"):
        nested(narrow, box, 2, seed=5, out=tmp_path / "run", resume=True, live=48, progress=False)
    with pytest.raises(UsageError, match="another problem"):
        nested(lambda t: narrow(t) + 1, box, 2, seed=5, out=tmp_path / "run", resume=True, **FEW)
    part = tmp_path / "run" / "requests" / "part-00001.npz"
    with np.load(part) as kept:
        answers = kept["answers"]
    np.savez(part, answers=answers + 1e-9)
    with pytest.raises(UsageError, match="rounds otherwise; type another folder"):
        nested(narrow, box, 2, seed=5, out=tmp_path / "run", resume=True, **FEW)
    part.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"part-00001.npz cannot be read .* and those after it"):
        nested(narrow, box, 2, seed=5, out=tmp_path / "run", resume=True, **FEW)


def test_a_pool_gives_the_same_numbers():
    one = nested(narrow, box, 2, seed=6, **FEW)
    with ThreadPool(2) as pool:
        two = nested(narrow, box, 2, seed=6, pool=pool, **FEW)
    assert one.log_z == two.log_z


def test_a_call_that_fails_costs_a_point_and_a_line(caplog):
    def log_likelihood(theta):
        if theta[0] < -1.2 and theta[1] < -1:
            raise ValueError("solver diverged")
        return narrow(theta)

    with caplog.at_level(logging.WARNING):
        found = nested(log_likelihood, box, 2, seed=7, **FEW)
    assert 0 < found.failed < 0.1 * found.calls
    assert sum("ValueError: solver diverged" in r.message for r in caplog.records) == found.failed
    assert abs(found.log_z - EXACT) < 4 * found.log_z_error
    with pytest.raises(UndriftError, match="solver diverged"):
        nested(log_likelihood, lambda u: box(u) - 1, 2, most_failures=0.01, **FEW)


def test_births_are_those_of_a_run_with_live_points(measured):
    found = nested(narrow, box, 2, seed=10, names=["a", "b"], **(FEW | {"live": 200}))
    theta, log_l, birth = found.nested_run()
    assert int(np.isneginf(birth).sum()) == 200
    assert (birth < log_l).all()
    assert 0.5 * len(theta) < len(found.samples) <= len(theta)
    assert [narrow(t) for t in theta[::50]] == pytest.approx(log_l[::50], abs=1e-9)
    alive = np.searchsorted(np.sort(birth), log_l, "left") - np.arange(len(log_l))
    np.testing.assert_array_equal(alive[:-200], 200)
    np.testing.assert_array_equal(alive[-200:], np.arange(200, 0, -1))
    samples = found.to_anesthetic()
    gap = abs(float(samples.logZ()) - found.log_z) / found.log_z_error
    measured(by_dynesty, "ln Z of dynesty's points by anesthetic, in errors", "ours", "below 0.3", gap, most=0.3)
    within = np.exp(np.logaddexp.reduce(found.points[2][log_l > narrow([WIDTH, 0])]))  # a disc of one width
    exact = math.pi * WIDTH**2 / 16
    measured(by_dynesty, "prior volume of a contour, by dynesty", "pi r^2 / 16", exact, within, within=0.4 * exact)


def test_what_it_cannot_do_is_told(tmp_path):
    with pytest.raises(UsageError, match="precision is 0.1, and dynesty's error follows from its live points"):
        nested(narrow, box, 2, precision=0.1, **FEW)
    with pytest.raises(UsageError, match="driver is 'multinest', expected importance or dynesty"):
        nested(narrow, box, 2, **(FEW | {"driver": "multinest"}))
    with pytest.raises(UsageError, match="of 48 points of the prior have a likelihood above zero, expected at least 6"):
        nested(lambda t: narrow(t) if t[0] > 1.95 else -math.inf, box, 2, **FEW)
    short = nested(narrow, box, 2, most_calls=400, out=tmp_path / "run", **FEW)
    assert short.calls < 400 + 8 * 20  # one request more
    assert not short.reliable
    assert short.log_z_error == math.inf
    assert short.doubt.startswith("the calls ended before")
    whole = nested(narrow, box, 2, **FEW)
    more = nested(narrow, box, 2, most_calls=10**6, out=tmp_path / "run", resume=True, **FEW)
    assert (more.log_z, more.calls) == (whole.log_z, whole.calls)
    assert nested(narrow, box, 2, most_calls=whole.calls, **FEW).log_z_error == whole.log_z_error  # it was over before


def test_points_that_cannot_move_far_enough_are_told(monkeypatch):
    """Of at most six steps nearly all tunings ask for more."""
    monkeypatch.setattr("undrift.infer.dynesty_sampler.MOST", 6)
    found = nested(narrow, box, 2, **FEW)
    assert not found.reliable
    assert found.log_z_error == math.inf
    assert re.match(r"\d+% of the time new points would have taken more than 6 steps", found.doubt)
