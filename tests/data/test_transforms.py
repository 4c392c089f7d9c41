"""Transforms: exact inverses, the same latents in any unit, and point masses at their true rate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from undrift.data.transforms import KINDS, Moments, Transform, choose, fit_transform
from undrift.errors import DataError, UsageError

RNG = np.random.default_rng


def moments_of(*blocks):
    m = Moments()
    for block in blocks:
        m.update(np.asarray(block))
    return m


def fitted(x, kind="auto"):
    return fit_transform(kind, moments_of(x), "v")


def samples(kind, n=4000, seed=0):
    z = RNG(seed).normal(size=n)
    if kind == "standard":
        return 280 + 7 * z
    if kind == "power":
        return np.exp(0.8 * z - 8)
    if kind == "censored":
        return np.maximum(0.4 * z + 0.1, 0) ** 3
    return np.clip(0.7 * z + 0.6, 0, 1)


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_the_kind_is_found_from_the_values(kind):
    assert choose(moments_of(samples(kind))) == kind


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.floats(-5, 5),
    st.floats(0.01, 10),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20),
)
def test_decode_is_the_inverse_of_encode(kind, mean, std, values):
    x = np.array(values)
    bounds = {"standard": (None, None), "power": (0.0, None), "censored": (0.0, None), "bounded": (0.0, 1.0)}[kind]
    t = Transform(kind, mean, std, 1 / 3 if kind in ("power", "censored") else 1.0, *bounds)
    np.testing.assert_allclose(t.decode(t.encode(x)), x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(t.decode(t.continuous(x)), x, rtol=1e-9, atol=1e-12)
    assert Transform.from_dict(t.to_dict()) == t


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["power", "censored", "bounded"]), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10))
def test_no_latent_decodes_beyond_a_bound(kind, latents):
    t = fitted(samples(kind))
    x = t.decode(np.array([*latents, -math.inf, math.inf]) if kind == "bounded" else np.array([*latents, -math.inf]))
    assert (x >= 0).all()
    assert kind != "bounded" or (x <= 1).all()
    low, high = t.thresholds
    assert t.decode(np.array([np.nextafter(low, -math.inf)]))[0] == 0.0
    assert kind != "bounded" or t.decode(np.array([np.nextafter(high, math.inf)]))[0] == 1.0


def test_formulas():
    assert Transform("standard", 280.0, 7.0).encode(np.array([294.0]))[0] == pytest.approx(2.0)
    power = Transform("power", 1.0, 0.5, 1 / 3, 0.0)
    assert power.encode(np.array([8.0]))[0] == pytest.approx(2.0)
    assert power.decode(np.array([2.0]))[0] == pytest.approx(8.0)
    # what is given may lie below the bound, as packed rain does by a rounding
    assert power.continuous(np.array([-8.0]))[0] == pytest.approx(-6.0)
    assert power.thresholds == pytest.approx((-2.0, math.inf))
    bounded = Transform("bounded", 0.25, 0.5, 1.0, 0.0, 1.0)
    assert bounded.thresholds == pytest.approx((-0.5, 1.5))
    np.testing.assert_array_equal(bounded.encode(np.array([0.0, 0.25, 1.0])), [-math.inf, 0.0, math.inf])


def test_point_masses_are_marked_and_missing_stays_missing():
    t = fitted(samples("censored"))
    u = t.encode(np.array([0.0, 0.01, np.nan]))
    latent = lambda x: (x**t.power - t.mean) / t.std  # noqa: E731
    assert u[0] == -math.inf and u[1] == pytest.approx(latent(0.01)) and math.isnan(u[2])
    np.testing.assert_allclose(t.continuous(np.array([0.0, 0.01])), [latent(0.0), latent(0.01)])


@pytest.mark.parametrize("kind", ["standard", "power", "censored"])
@pytest.mark.parametrize("factor", [86400.0, 1e-3])
def test_another_unit_gives_the_same_latents(kind, factor):
    x = samples(kind)
    a, b = fitted(x), fitted(factor * x)
    np.testing.assert_allclose(b.encode(factor * x), a.encode(x), rtol=1e-9, atol=1e-9)
    z = RNG(1).normal(size=50)
    np.testing.assert_allclose(b.decode(z), factor * a.decode(z), rtol=1e-9)


def test_per_cents_are_fractions():
    """Sea ice comes as [0, 1] and as [0, 100]."""
    x = samples("bounded")
    a, b = fitted(x), fitted(100 * x)
    assert (b.kind, b.upper) == ("bounded", 100.0)
    np.testing.assert_allclose(b.continuous(100 * x), a.continuous(x), atol=1e-12)
    assert b.decode(np.array([9.0, -9.0])).tolist() == [100.0, 0.0]
    assert choose(moments_of(samples("censored") * 100)) == "censored"


def test_moments_do_not_depend_on_the_blocks_and_leave_missing_out():
    x = samples("standard", 1000)
    whole, parts = moments_of(x), moments_of(x[:10], np.full(5, np.nan), x[10:700], x[700:])
    assert parts.count == 1000
    for power, values in ((1.0, x), (1 / 3, np.cbrt(x))):
        expected = values.mean(), values.std()
        assert whole.mean_std(power) == pytest.approx(expected, rel=1e-10)
        assert parts.mean_std(power) == pytest.approx(expected, rel=1e-10)


def test_statistics_are_kept_in_float64():
    """A float32 running mean of 300 K is off by degrees; the shift keeps even float64 from losing the variance."""
    x = (300 + RNG(0).normal(size=100_000) * 0.01).astype(np.float32)
    mean, std = moments_of(*np.array_split(x, 100)).mean_std(1.0)
    assert mean == pytest.approx(x.astype(np.float64).mean(), rel=1e-12)
    assert std == pytest.approx(x.astype(np.float64).std(), rel=1e-9)


@pytest.mark.parametrize("dry", [0.05, 0.4, 0.85])
def test_rain_comes_back_at_its_true_rate(dry):
    n = 50_000
    rng = RNG(3)
    x = np.where(rng.random(n) < dry, 0.0, rng.gamma(0.7, 5e-5, n))
    t = fitted(x)
    assert t.kind == "censored"
    share = (x == 0).mean()
    assert stats.norm.cdf(t.thresholds[0]) == pytest.approx(share, abs=1e-9)
    drawn = t.decode(rng.normal(size=n))
    assert abs((drawn == 0).mean() - share) < 4.5 * math.sqrt(share * (1 - share) / n)
    # the mean of the cube root over wet cells is what the scale is fitted to
    wet = np.cbrt(x[x > 0])
    got = np.cbrt(drawn[drawn > 0])
    assert abs(got.mean() - wet.mean()) < 4.5 * math.hypot(
        got.std() / math.sqrt(got.size), wet.std() / math.sqrt(wet.size)
    )


def test_ice_comes_back_at_both_ends():
    n = 50_000
    x = np.clip(RNG(0).normal(0.7, 0.5, n), 0, 1)
    t = fitted(x)
    assert t.kind == "bounded"
    drawn = t.decode(RNG(1).normal(size=n))
    for end in (0.0, 1.0):
        share = (x == end).mean()
        assert abs((drawn == end).mean() - share) < 4.5 * math.sqrt(2 * share * (1 - share) / n)
    assert stats.kstest(x, stats.norm(0.7, 0.5).cdf).statistic > 0.05  # it is no Gaussian
    assert stats.ks_2samp(drawn, x).pvalue > 1e-4


def test_errors():
    constant = moments_of(np.full(10, 3.0))
    with pytest.raises(DataError, match=r"tas is constant \(3\) in the training part; leave it out with --variables"):
        fit_transform("auto", constant, "tas")
    with pytest.raises(DataError, match="tas has no value in the training part"):
        fit_transform("auto", moments_of(np.full(3, np.nan)), "tas")
    with pytest.raises(UsageError, match=r"transform of tas is 'cubed', expected one of auto, standard, censored"):
        fit_transform("cubed", moments_of(samples("standard")), "tas")
    with pytest.raises(
        DataError, match="values down to -27.* takes none below 0; use --set codec.transforms.tas=standard"
    ):
        fit_transform("censored", moments_of(samples("standard") - 280), "tas")
    with pytest.raises(DataError, match="values up to 3.*'bounded' takes none above 1 .*or 100"):
        fit_transform("bounded", moments_of(samples("standard")), "sic")


def test_rain_with_rounding_below_zero_keeps_its_dry_cells_and_its_bound():
    rng = np.random.default_rng(5)
    rain = np.maximum(rng.normal(size=4000), 0) ** 2 * 1e-4
    stored = np.where(rain == 0, rng.choice([0.0, -1e-12], rain.size), rain)
    moments = Moments()
    moments.update(stored)
    transform = fit_transform("auto", moments, "pr", "kg m-2 s-1")
    assert transform.kind == "censored" and transform.lower == 0
    drawn = transform.decode(rng.normal(size=100_000))
    assert drawn.min() == 0
    share = (rain == 0).mean()
    assert abs((drawn == 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize(
    ("units", "low", "high", "top"), [("%", 5.0, 99.8, 100.0), ("1", 0.0, 0.99, 1.0), ("%", 0.0, 100.0, 100.0)]
)
def test_per_cents_and_fractions_stay_in_their_range_whether_or_not_they_reach_it(units, low, high, top):
    values = np.random.default_rng(6).uniform(low, high, 5000)
    moments = Moments()
    moments.update(values)
    transform = fit_transform("auto", moments, "hurs", units)
    assert (transform.lower, transform.upper) == (0.0, top)
    decoded = transform.decode(np.array([-50.0, 50.0]))
    np.testing.assert_array_equal(decoded, [0.0, top])
    np.testing.assert_allclose(transform.decode(transform.encode(values[:100])), values[:100], rtol=1e-9)


def test_records_that_are_rounded_have_no_rain_below_half_of_a_step():
    """A latent between 0 and the smallest value would be rain that the record does not have."""
    rng, step = RNG(0), 0.12
    hidden = np.maximum(0.2 + 0.8 * rng.normal(size=200_000), 0) ** 3
    x = step * np.round(hidden / step)
    t = fit_transform("censored", moments_of(x), "v", rounded=True)
    assert t.least == pytest.approx(step / 2) and t.lower == 0
    assert stats.norm.cdf(t.thresholds[0]) == pytest.approx((x == 0).mean(), abs=1e-9)
    # the latents are those of the hidden field, whose dry part is all below half of a step
    assert t.mean == pytest.approx(0.2, abs=0.02) and t.std == pytest.approx(0.8, rel=0.02)
    drawn = t.decode(rng.normal(size=x.size))
    assert not ((drawn > 0) & (drawn < step / 2 * (1 - 1e-9))).any()
    assert (drawn == 0).mean() == pytest.approx((x == 0).mean(), abs=4.5 * math.sqrt(0.25 / x.size))
    np.testing.assert_allclose(t.decode(t.encode(x)), x, rtol=1e-9)
    assert fit_transform("censored", moments_of(x), "v").least == 0
