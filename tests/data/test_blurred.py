"""The law of a flat number with normal noise, beside a quadrature of its definition."""

import numpy as np
import pytest
from scipy import integrate, stats

from undrift.data import blurred
from undrift.data.axis import Axis, straightened

WIDTHS = (0.0, 2.0, 32.0, 512.0)


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_share_and_density_are_those_of_the_convolution(width):
    for u in (-width / 2 - 4.0, -width / 2, -width / 4, 0.0):
        near = (max(-width / 2, u - 9.0), min(width / 2, u + 9.0))
        density = integrate.quad(lambda v, u=u: stats.norm.pdf(u - v) / width, *near, epsabs=0)[0]
        below = integrate.quad(lambda v, u=u: stats.norm.cdf(u - v) / width, *near, epsabs=0)[0]
        below += max(near[0] + width / 2, 0.0) / width  # of flat numbers that lie 9 deviations below u
        assert np.exp(blurred.log_density(np.array([u]), width)) == pytest.approx(density, rel=1e-9)
        assert np.exp(blurred.log_share(np.array([u]), width)) == pytest.approx(below, rel=1e-9)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_quantile_goes_back_and_the_slope_is_that_of_differences(width):
    log_p = np.log(np.concatenate([np.logspace(-300, -3, 40), np.linspace(0.002, 0.5, 40)]))
    u = blurred.quantile(log_p, width)
    np.testing.assert_allclose(blurred.log_share(u, width), log_p, rtol=1e-12, atol=1e-11)
    inner, h = np.linspace(-width / 2 - 6, 0, 60), 1e-5
    difference = (blurred.log_density(inner + h, width) - blurred.log_density(inner - h, width)) / (2 * h)
    np.testing.assert_allclose(blurred.slope_of_log_density(inner, width), difference, rtol=1e-6, atol=1e-7)


def test_a_flat_axis_goes_back_and_is_straight_in_the_middle():
    axis = Axis("between", 0.0, 10.0, flat=32.0)
    x = np.concatenate([np.logspace(-200, -1, 50), np.linspace(0.2, 9.8, 50), 10 - np.logspace(-14, -1, 50)])
    u, slope = axis.forward(x)
    np.testing.assert_allclose(axis.inverse(u), x, rtol=1e-12)
    h = 1e-6
    inner = np.linspace(0.1, 9.9, 41)
    difference = (axis.forward(inner + h)[0] - axis.forward(inner - h)[0]) / (2 * h)
    np.testing.assert_allclose(np.exp(axis.forward(inner)[1]), difference, rtol=1e-6)
    np.testing.assert_allclose(np.exp(slope[60:90]), 32 / 10, rtol=1e-3)  # x = 10 (u + 16) / 32
    by_x, bend = axis.slopes(inner)
    steeper = (axis.forward(inner + h)[1] - axis.forward(inner - h)[1]) / (2 * h)
    np.testing.assert_allclose(bend, steeper, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_x, difference, rtol=1e-6)


def test_the_width_is_chosen_by_how_narrow_the_law_is_that_is_given():
    rng = np.random.default_rng(0)
    x = rng.uniform(-10, 10, 4000)
    weights, axis = np.full(4000, 1 / 4000), Axis("between", -10.0, 10.0)
    near = (x + 0.5 * rng.normal(size=4000))[:, None]
    # noise of 0.5 is a deviation in the middle where 20 / flat = 0.5
    assert straightened(axis, x, weights, near).flat in (32.0, 64.0)
    assert straightened(axis, x, weights, rng.normal(size=(4000, 1))).flat == 0.0  # a flat law becomes normal
    assert straightened(axis, x, weights, np.empty((4000, 0))) is axis
    assert straightened(Axis(), x, weights, near) == Axis()
