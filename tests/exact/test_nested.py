"""Nested sampling against evidences in closed form."""

import logging
import math
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from scipy.special import erf, ndtr, ndtri
from scipy.stats import genpareto, norm

from undrift.errors import UndriftError, UsageError
from undrift.infer.gaussian_mixture import GaussianMixture, effective_size
from undrift.infer.nested import nested
from undrift.infer.nested_calls import LEAST, Calls
from undrift.infer.nested_importance import by_importance
from undrift.infer.nested_result import NestedResult
from undrift.infer.nested_rounds import Rounds, log_normal
from undrift.infer.nested_stages import counting, effective_share, explore, finish, refine, wanted, weights_of
from undrift.infer.nested_strays import stray_summits
from undrift.infer.pareto import pareto_shape

SMALL = {"live": 150, "precision": 0.05, "progress": False}
WIDTH = 0.1


def gaussian(theta):
    return float(-0.5 * np.square(theta).sum() / WIDTH**2 - len(theta) * math.log(WIDTH * math.sqrt(2 * math.pi)))


def box(u):
    return 4 * u - 2


def exact(dimensions):
    """Of a normalised likelihood that lies within the box."""
    return -dimensions * math.log(4)


def test_pulls_have_mean_zero_and_spread_one(measured):
    def wide(theta):  # two nats of information: few levels
        return float(-0.5 * np.square(theta).sum() / 0.16 - math.log(0.16 * 2 * math.pi))

    found = [nested(wide, box, 2, seed=seed, live=80, precision=0.05, progress=False) for seed in range(20)]
    pulls = np.array([(r.log_z - exact(2)) / r.log_z_error for r in found])
    n = len(pulls)
    measured(nested, "mean pull of 20 seeds", "ln Z = -2 ln 4", 0, pulls.mean(), within=3.5 / math.sqrt(n))
    measured(nested, "spread of the pulls", "1", 1, pulls.std(ddof=1), within=3.5 / math.sqrt(2 * n))
    assert all(r.reliable for r in found)
    assert np.mean([r.log_z_error for r in found]) < 0.08


def test_the_posterior_is_that_of_the_likelihood():
    found = nested(gaussian, box, 3, seed=1, live=200, precision=0.02, progress=False)
    size = 1 / np.square(found.weights).sum()
    # The relative variance of n weights is n / size - 1; the draws that checked the proposal have another.
    assert found.log_z_error == pytest.approx(math.sqrt(1 / size - 1 / len(found.weights)), rel=0.1)
    mean = found.weights @ found.samples
    assert np.abs(mean).max() < 4 * WIDTH / math.sqrt(size)
    variance = found.weights @ np.square(found.samples)
    np.testing.assert_allclose(variance, WIDTH**2, rtol=4 * math.sqrt(2 / size))
    # E ln L - ln Z, and 2 var ln L = D for a Gaussian
    information = 3 * (math.log(4) - math.log(WIDTH * math.sqrt(2 * math.pi)) - 0.5)
    assert found.information == pytest.approx(information, abs=0.15)
    assert found.model_dimensionality == pytest.approx(3, rel=0.2)
    drawn = found.equally_weighted(2000)
    assert abs(drawn.std() - WIDTH) < 4 * WIDTH / math.sqrt(2 * 6000)


def test_a_poor_proposal_is_unbiased_and_says_so(measured):
    """A proposal of twice the width beside the peak: the error grows, the pulls stay."""
    poor = GaussianMixture(
        np.array([0.9, 0.1]), np.array([[0.15, -0.1], [0, 0]]), np.stack([0.12 * np.eye(2), np.eye(2)])
    )
    pulls = []
    for seed in range(40):
        rounds = Rounds(Calls(gaussian, box, 2), seed, None)
        _, log_w = finish(rounds, poor, 3000, lambda _: None)
        w = np.exp(log_w)
        pulls.append((math.log(w.mean()) - exact(2)) / (w.std(ddof=1) / w.mean() / math.sqrt(len(w))))
    pulls = np.array(pulls)
    measured(finish, "mean pull of a poor proposal", "-2 ln 4", 0, pulls.mean(), within=3.5 / math.sqrt(40))
    measured(finish, "spread of its pulls", "1", 1, pulls.std(ddof=1), within=3.5 / math.sqrt(80))


def test_the_balance_weights_are_those_of_the_prior(measured):
    """Rounds of unequal length from unequal proposals: sums of the weights are means of the standard normal."""
    rounds, n = Rounds(Calls(gaussian, box, 2), 0, None), 20_000
    wide = GaussianMixture(np.ones(1), np.array([[0.5, 0.0]]), 1.6 * np.eye(2)[None])
    narrow = GaussianMixture(np.ones(1), np.array([[-1.0, 0.5]]), 0.6 * np.eye(2)[None])
    rounds.draw("levels", lambda: wide, n)
    rounds.draw("levels", lambda: narrow, n // 4)
    v = np.exp(rounds.log_v)
    first, second = v @ rounds.y[:, 0], v @ np.square(rounds.y[:, 0])
    # The largest weight is about 2 / n, so that the sums have errors of about 1 / sqrt(n).
    for name, value, expected in (("1", v.sum(), 1), ("y", first, 0), ("y^2", second, 1)):
        measured(
            Rounds, f"sum of weights times {name}", "the standard normal", expected, value, within=6 / math.sqrt(n)
        )


def test_the_calls_are_made_at_the_normals_quantiles(agrees):
    calls, y = Calls(gaussian, box, 2), np.random.default_rng(1).standard_normal((50, 2))
    theta, log_l = calls(y)
    agrees(Calls, "parameters of y", "the prior at scipy's Phi(y)", theta, 4 * norm.cdf(y) - 2, 1e-12, 1e-12)
    expected = norm(0, WIDTH).logpdf(4 * norm.cdf(y) - 2).sum(axis=1)
    agrees(Calls, "log-likelihood of y", "scipy's normal", log_l, expected, 1e-9)
    assert calls.made == 50 and calls.failed == 0


def test_what_a_draw_counts_is_foretold(measured):
    rounds = Rounds(Calls(gaussian, box, 2), 4, None)
    explore(rounds, 300, 0.5, math.inf, lambda _: None)
    proposal, counts = refine(rounds, 300, 0.02, math.inf, lambda _: None)
    _, log_w = finish(rounds, proposal, 5000, lambda _: None)
    found = effective_size(np.exp(log_w)) / 5000
    log_l, log_u = np.array([0.0, 1.0, -1.0]), np.array([0.1, 0.9, -0.3])
    v = np.array([0.5, 0.2, 0.3])
    expected = (v @ np.exp(log_l)) ** 2 / (v @ np.exp(log_l + log_u))
    share = counting(np.log(v), log_l, log_u)
    measured(counting, "effective share of a draw", "(E w)^2 / E w^2 by numpy", expected, share, within=1e-12)
    measured(refine, "effective share of draws, foretold over found", "1", 1, counts / found, within=0.1)
    assert found > 0.8


def test_the_volume_of_a_contour_is_that_of_its_disc(measured):
    rounds = Rounds(Calls(gaussian, box, 2), 0, None)
    history = explore(rounds, 500, 0.5, math.inf, lambda _: None)
    peak = -2 * math.log(WIDTH * math.sqrt(2 * math.pi))
    for level in history:
        square = 2 * WIDTH**2 * (peak - level["log_l"])
        if square < 4:  # the disc lies within the box
            volume = math.log(math.pi * square / 16)
            measured(
                explore, "ln of the prior volume of a contour", "the disc's", volume, level["log_volume"], within=0.2
            )
    assert history[-1]["log_volume"] < -5


def test_all_modes_are_found():
    """Nine narrow modes of unequal mass, four of them at the border of the prior."""
    centres = np.array([[x, y] for x in (0, 0.5, 1) for y in (0, 0.5, 1)], float)
    width = 0.01

    def log_likelihood(theta):
        return float(np.logaddexp.reduce(-0.5 * np.square(theta - centres).sum(axis=1) / width**2))

    found = nested(log_likelihood, lambda u: u, 2, live=300, seed=3, progress=False)
    exactly = math.log(4 * 2 * math.pi * width**2)  # 1 whole, 4 halves, 4 quarters
    assert abs(found.log_z - exactly) < 4 * found.log_z_error
    assert found.log_z_error < 0.02


def test_the_draws_wanted_give_the_precision(measured):
    # Weights of efficiency 1/4 have variance 3: the mean of n of them the relative error sqrt(3 / n).
    measured(wanted, "draws for an error of 0.1 at efficiency 1/4", "3 / 0.1^2", 300, wanted(0.25, 0.1), within=1)


def test_the_share_of_a_draw_with_lognormal_weights(measured):
    """ln w ~ N(0, s^2) has the relative variance exp(s^2) - 1, so a draw counts exp(-s^2)."""
    n, s = 400_000, 0.5
    found = effective_share(s * np.random.default_rng(0).standard_normal(n) - 700)
    measured(effective_share, "share of lognormal weights", "exp(-s^2)", math.exp(-(s**2)), found, within=0.005)


def test_weights_are_of_the_prior_over_the_proposal(agrees):
    wide = GaussianMixture(np.ones(1), np.array([[0.5, 0.0]]), 1.6 * np.eye(2)[None])
    drawn = Rounds(Calls(gaussian, box, 2), 0, None).draw("check", lambda: wide, 50)
    u = norm.cdf(drawn.y)
    log_l = norm(0, WIDTH).logpdf(4 * u - 2).sum(axis=1)
    expected = log_l + norm.logpdf(drawn.y).sum(axis=1) - norm([0.5, 0], 1.6).logpdf(drawn.y).sum(axis=1)
    agrees(weights_of, "ln of L pi / q", "scipy's normals", weights_of(drawn), expected, 1e-9)


def test_a_summit_below_the_contour_is_climbed_from(agrees):
    """Two cones of ln L, of one the points to the left of its tip alone: three times the spread of its upper half."""
    rng = np.random.default_rng(0)
    high, low = 0.3 * rng.normal(size=(200, 2)), rng.normal(size=(40, 2)) * 0.1 + [5, 0]
    y = np.concatenate([high, low])
    log_l = np.concatenate([-np.linalg.norm(high, axis=1), -8 - 20 * np.linalg.norm(low - [5.5, 0], axis=1)])
    found = stray_summits(y, log_l, -3.0)
    order = np.argsort(-log_l[200:])
    distance = np.linalg.norm(low - low[order[0]], axis=1)
    near = np.argsort(distance)[:12]
    upper = low[near[np.argsort(-log_l[200:][near])][:6]]
    k = int(np.argmin(np.linalg.norm(found.means - upper.mean(axis=0), axis=1)))
    agrees(stray_summits, "mean", "of the upper half of the neighbours", found.means[k], upper.mean(axis=0), 1e-9)
    covariance = found.factors[k] @ found.factors[k].T
    expected = 9 * np.cov(upper.T, bias=True)
    agrees(stray_summits, "covariance", "nine times that of them", covariance, expected, 1e-5)
    assert stray_summits(y, log_l, -1e9) is None
    assert stray_summits(np.zeros((100, 7)), -np.arange(100.0), 0.0) is None


def test_a_small_mode_whose_points_lie_below_the_contour_is_found():
    """A cone of ln L in a corner of the prior, of 45 % of the evidence, that rises from below the main mode."""

    def log_likelihood(u):
        main = -0.5 * np.square(u - 0.3).sum() / 0.01
        return float(np.logaddexp(main, 8 - 300 * math.hypot(u[0] - 1, u[1] - 1)))

    for seed in (1003, 1004, 1006):  # the contour had passed all of its points
        rounds = Rounds(Calls(log_likelihood, lambda u: u, 2), seed, None)
        explore(rounds, 200, 0.5, math.inf, lambda _: None)
        assert rounds.log_l.max() > 4


def test_pareto_shape(measured):
    rng = np.random.default_rng(0)
    for k in (0.2, 0.5, 1.0):
        w = genpareto.rvs(k, size=40_000, random_state=rng)
        # The error of k from M exceedances is (1 + k) / sqrt(M); ten made-up ones at 0.5 are counted in.
        m = 600
        expected = (m * k + 5) / (m + 10)
        measured(
            pareto_shape,
            f"shape {k}",
            "the law drawn from",
            expected,
            pareto_shape(np.log(w)),
            within=3.5 * (1 + k) / math.sqrt(m),
        )
    assert pareto_shape(np.zeros(1000)) == -math.inf


def test_stopped_and_resumed_the_numbers_are_the_same(tmp_path):
    whole = nested(gaussian, box, 2, seed=5, **SMALL)
    left = [700]

    def stops(theta):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return gaussian(theta)

    with pytest.raises(KeyboardInterrupt):
        nested(stops, box, 2, seed=5, out=tmp_path / "run", **SMALL)
    with pytest.raises(UsageError, match="resume=True"):
        nested(gaussian, box, 2, seed=5, out=tmp_path / "run", **SMALL)
    calls = []
    again = nested(lambda t: calls.append(0) or gaussian(t), box, 2, seed=5, out=tmp_path / "run", resume=True, **SMALL)
    assert again.log_z == whole.log_z and again.log_z_error == whole.log_z_error and again.calls == whole.calls
    np.testing.assert_array_equal(again.samples, whole.samples)
    assert len(calls) < whole.calls - 400
    with pytest.raises(UsageError, match="seed=5, got 6"):
        nested(gaussian, box, 2, seed=6, out=tmp_path / "run", resume=True, **SMALL)
    with pytest.raises(UsageError, match="another problem"):
        nested(lambda t: gaussian(t) + 1, box, 2, seed=5, out=tmp_path / "run", resume=True, **SMALL)


def test_no_more_calls_than_may_be():
    for most in (1200, 1700, 2500):
        found = nested(gaussian, box, 2, seed=5, **(SMALL | {"precision": 1e-3}), most_calls=most)
        assert found.calls <= most
        assert abs(found.log_z - exact(2)) < 4 * found.log_z_error


def test_a_pool_gives_the_same_numbers():
    one = nested(gaussian, box, 2, seed=6, **SMALL)
    with ThreadPool(2) as pool:
        two = nested(gaussian, box, 2, seed=6, pool=pool, **SMALL)
    assert one.log_z == two.log_z


def test_a_call_that_fails_costs_a_point_and_a_line(caplog):
    """Left of x = -1.5, 12.5 % of the prior and far from the peak, one call in four raises and one gives NaN."""

    def log_likelihood(theta):
        if theta[0] < -1.5 and theta[1] < -1:
            raise ValueError("solver diverged")
        if theta[0] < -1.5 and theta[1] > 1:
            return math.nan
        return gaussian(theta)

    with caplog.at_level(logging.WARNING):
        found = nested(log_likelihood, box, 2, seed=7, **SMALL)
    assert 0 < found.failed < 0.1 * found.calls
    assert sum("counts as impossible" in r.message for r in caplog.records) == found.failed
    assert any("ValueError: solver diverged" in r.message for r in caplog.records)
    assert any("log_likelihood returned nan at" in r.message for r in caplog.records)
    assert abs(found.log_z - exact(2)) < 4 * found.log_z_error


def test_a_likelihood_that_fails_too_often_stops_resumable(tmp_path):
    broken = [True]

    def log_likelihood(theta):
        if broken[0] and theta[0] > 0:
            raise RuntimeError("no licence")
        return gaussian(theta)

    with pytest.raises(UndriftError, match="no licence") as stopped:
        nested(log_likelihood, box, 2, seed=5, out=tmp_path / "run", **SMALL)
    assert "resume" in str(stopped.value)
    broken[0] = False
    again = nested(log_likelihood, box, 2, seed=5, out=tmp_path / "run", resume=True, **SMALL)
    assert again.failed == 0
    assert again.log_z == nested(gaussian, box, 2, seed=5, **SMALL).log_z


def test_a_prior_with_tails_and_zero_likelihood_in_half_of_it():
    """theta ~ N(0, 1), the likelihood a step times a Gaussian: Z = 2^(-1/2) (1/2) for N(theta; 0, 1)."""

    def log_likelihood(theta):
        return float(-0.5 * theta[0] ** 2 - 0.5 * math.log(2 * math.pi)) if theta[0] > 0 else -math.inf

    found, known = nested(log_likelihood, ndtri, 1, seed=8, **SMALL), math.log(0.5 / math.sqrt(4 * math.pi))
    assert abs(found.log_z - known) < 4 * found.log_z_error
    theta, log_l, birth = found.nested_run()
    live = int(np.isneginf(birth).sum())
    assert int((log_l == LEAST).sum()) == pytest.approx(live / 2, rel=0.1)
    assert (theta[log_l == LEAST] < 0).all()
    error = math.sqrt(found.information / live)
    assert float(found.to_anesthetic().logZ()) == pytest.approx(known, abs=4 * error)
    assert error < 0.15


def test_the_neck_of_a_funnel_is_not_overlooked(measured):
    """v ~ N(0, 9) and two x ~ N(0, e^v): P(v < -5) = 4.8 %, where the likelihood is highest, in a thin part."""

    def funnel(theta):
        v = theta[0]
        return float(
            -(v**2) / 18 - 0.5 * np.square(theta[1:]).sum() * math.exp(-v) - v - math.log(3 * (2 * math.pi) ** 1.5)
        )

    def wide(u):
        return np.array([30 * u[0] - 15, 200 * u[1] - 100, 200 * u[2] - 100])

    found = nested(funnel, wide, 3, seed=1, live=300, precision=0.03, progress=False)
    v = np.linspace(-15, 15, 3001)
    share = np.exp(-(v**2) / 18) / (3 * math.sqrt(2 * math.pi)) * erf(100 / np.exp(v / 2) / math.sqrt(2)) ** 2
    pull = (found.log_z - math.log(np.trapezoid(share, v) / (30 * 200**2))) / found.log_z_error
    measured(by_importance, "pull in a funnel of three parameters", "ln Z", 0, pull, within=4)
    neck = float(found.weights[found.samples[:, 0] < -5].sum())
    measured(by_importance, "posterior mass in the neck of a funnel", "P(v < -5)", ndtr(-5 / 3), neck, within=0.012)


def test_a_flat_likelihood_has_its_value():
    found = nested(lambda _: 2.5, box, 2, seed=9, **SMALL)
    assert found.log_z == pytest.approx(2.5, abs=4 * max(found.log_z_error, 1e-9))


def test_bad_arguments_are_told():
    for wrong, text in (
        ({"ndim": 0}, "ndim is 0"), ({"live": 3}, "live is 3"), ({"precision": 0}, "precision is 0"), ({"names": ["a"]}, "names has 1"),
        ({"names": ["weights", "b"]}, "named 'weights', which results"),
        ({"most_calls": 900}, "most_calls is 900, expected at least 1200"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=text):
            nested(gaussian, box, **({"ndim": 2, **SMALL} | wrong))
    with pytest.raises(UsageError, match=r"shape \(1,\), expected \(2,\)"):
        nested(gaussian, lambda u: u[:1], 2, **SMALL)


@pytest.fixture(scope="module")
def found():
    return nested(gaussian, box, 2, names=["a", "b"], labels=[r"\alpha", r"\beta"], seed=10, progress=False)


def test_anesthetic_reads_a_nested_run(found, measured):
    samples = found.to_anesthetic()
    theta, log_l, birth = found.nested_run()
    assert (np.diff(log_l) >= 0).all() and (birth < log_l).all()
    np.random.seed(0)  # noqa: NPY002 (what anesthetic draws from)
    log_z = samples.logZ(200)
    away = (float(samples.logZ()) - exact(2)) / log_z.std()
    measured(NestedResult, "anesthetic's ln Z, in its own errors", "-2 ln 4", "below 4", abs(away), most=4)
    assert log_z.std() < 0.3
    information = 2 * (math.log(4) - math.log(WIDTH * math.sqrt(2 * math.pi)) - 0.5)
    assert float(samples.D_KL()) == pytest.approx(information, abs=4 * samples.D_KL(200).std())
    assert list(samples.get_labels()) == [r"$\alpha$", r"$\beta$"] or r"$\alpha$" in list(samples.get_labels())
    del theta


def test_getdist_reads_the_chain(found, tmp_path):
    found.to_getdist(tmp_path / "chains" / "run", bounds={"a": (-2, 2)})
    from getdist import loadMCSamples

    chain = loadMCSamples(str(tmp_path / "chains" / "run"), settings={"ignore_rows": 0})
    np.testing.assert_allclose(chain.std("a"), math.sqrt(found.weights @ found.samples[:, 0] ** 2), rtol=0.01)
    assert chain.ranges.getLower("a") == -2 and chain.ranges.getUpper("b") is None
    assert chain.paramNames.parWithName("b").label == r"\beta"


def test_the_dataset_holds_draws_and_evidence(found, tmp_path):
    import xarray as xr

    found.to_netcdf(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc") as kept:
        np.testing.assert_array_equal(kept["a"], found.samples[:, 0])
        np.testing.assert_array_equal(kept["weights"], found.weights)
        assert kept.attrs["log_z"] == found.log_z and kept["a"].attrs["long_name"] == r"\alpha"


def test_the_prior_is_standard_normal_in_y(agrees):
    y = np.random.default_rng(0).standard_normal((5, 3))
    expected = GaussianMixture.standard(3).log_prob(y)
    agrees(GaussianMixture, "the standard one", "the normal's formula", expected, log_normal(y), 1e-12)
