"""The array kernels against closed forms, hand loops and other people's code."""

import numpy as np
import pytest
import scoringrules
import xarray as xr
from scipy.optimize import brentq

from undrift.verify.bootstrap import block_length, interval, replicate_counts
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.marginal import canonical_units, weighted_quantile, wet_threshold
from undrift.verify.ranks import rank_counts, rank_noise, ranks, reliability_index
from undrift.verify.spread import binned_spread, moments, spread_skill
from undrift.verify.variogram import draw_pairs, variogram_score
from undrift.verify.weights import area_weights, cell_areas, latitude_weights


def near(values, expected, k=4.0):
    """Mean of independent values within k standard errors."""
    error = np.std(values, ddof=1) / np.sqrt(np.size(values))
    assert abs(np.mean(values) - expected) < k * error, (np.mean(values), expected, error)


class TestCRPS:
    def test_is_the_fair_estimator_of_scoringrules_at_300_kelvin(self):
        rng = np.random.default_rng(0)
        x, y = 300 + rng.standard_normal((9, 40)), 300 + rng.standard_normal(40)
        expected = scoringrules.crps_ensemble(y - 300, x - 300, m_axis=0, estimator="fair", backend="numpy")
        np.testing.assert_allclose(fair_crps(y, x), expected, atol=1e-12)

    @pytest.mark.parametrize("members", [2, 3, 10, 50])
    def test_calibrated_gaussian_scores_sigma_over_root_pi_for_any_number_of_members(self, members):
        rng = np.random.default_rng(members)
        y, x = 2.0 * rng.standard_normal(20_000), 2.0 * rng.standard_normal((members, 20_000))
        near(fair_crps(y, x), 2.0 / np.sqrt(np.pi))

    def test_wrong_spread_agrees_with_the_closed_form(self):
        rng = np.random.default_rng(3)
        y, x = rng.standard_normal(40_000), 0.4 * rng.standard_normal((8, 40_000)) + 0.3
        near(fair_crps(y, x) - scoringrules.crps_normal(y, 0.3, 0.4), 0.0)

    def test_agrees_with_xskillscore(self):
        xskillscore = pytest.importorskip("xskillscore")
        rng = np.random.default_rng(1)
        x, y = rng.gamma(0.5, 1.0, (12, 6, 7)), rng.gamma(0.5, 1.0, (6, 7))
        theirs = xskillscore.crps_ensemble(
            xr.DataArray(y, dims=["t", "x"]), xr.DataArray(x, dims=["member", "t", "x"]), dim=[]
        )
        np.testing.assert_allclose(discrete_crps(y, x), theirs.values, rtol=1e-10)
        gini = np.abs(x[:, None] - x[None]).sum((0, 1)) / 2
        fair = theirs.values + gini / 12**2 - gini / (12 * 11)
        np.testing.assert_allclose(fair_crps(y, x), fair, rtol=1e-9, atol=1e-12)

    def test_quantile_members_score_as_their_law_and_not_better(self):
        from scipy.stats import norm

        y = np.random.default_rng(2).standard_normal(5000)
        x = norm.ppf((np.arange(50) + 0.5) / 50)[:, None] * np.ones(5000)
        exact = scoringrules.crps_normal(y, 0.0, 1.0)
        assert abs(np.mean(discrete_crps(y, x) - exact)) < 1e-3
        assert np.mean(fair_crps(y, x) - exact) < -0.008  # the fair estimator would flatter it

    def test_one_member_is_the_absolute_error(self):
        np.testing.assert_array_equal(fair_crps(np.array([1.0, 2.0]), np.array([[3.0, 1.5]])), [2.0, 0.5])


class TestSpread:
    @pytest.mark.parametrize("members", [2, 5, 20])
    def test_exchangeable_gives_one_and_the_factor_is_needed(self, members):
        rng = np.random.default_rng(members)
        x, y = rng.standard_normal((members, 100, 400)), rng.standard_normal((100, 400))
        mean, variance = moments(x)
        square = (mean - y) ** 2
        each = spread_skill(variance.mean(1), square.mean(1), members)
        # The ratio of means has a bias of order 1/400 per row: judge the pooled one by the scatter of rows.
        error = each.std(ddof=1) / np.sqrt(100)
        pooled = float(spread_skill(variance.mean(), square.mean(), members))
        assert abs(pooled - 1.0) < 3 * error
        assert abs(pooled / np.sqrt((members + 1) / members) - 1.0) > 3 * error

    def test_binned_spread_follows_error(self):
        rng = np.random.default_rng(5)
        sigma = rng.permutation(np.repeat(3.0 ** np.arange(10), 5000))  # ten levels that an estimate cannot confuse
        members = 40
        x, y = sigma * rng.standard_normal((members, sigma.size)), sigma * rng.standard_normal(sigma.size)
        mean, variance = moments(x)
        spread, rmse, share = binned_spread(variance, (mean - y) ** 2, np.ones(sigma.size), members)
        np.testing.assert_allclose(share, 0.1, atol=1e-4)
        np.testing.assert_allclose(spread, 3.0 ** np.arange(10) * np.sqrt(41 / 40), rtol=0.01)
        np.testing.assert_allclose(rmse / spread, 1.0, atol=4 / np.sqrt(2 * 5000))

    def test_one_member_has_no_spread(self):
        assert np.isnan(moments(np.zeros((1, 3)))[1]).all()


class TestRanks:
    @pytest.mark.parametrize("dry", [0.0, 0.7])
    def test_flat_for_exchangeable_also_with_ties_at_zero(self, dry):
        rng = np.random.default_rng(7)
        draw = lambda *shape: np.where(rng.random(shape) < dry, 0.0, rng.gamma(0.5, 2.0, shape))  # noqa: E731
        x, y = draw(9, 1, 40_000), draw(1, 40_000)
        counts = rank_counts(ranks(y, x, rng.random(y.shape)), np.ones(y.shape), 9)[0]
        chi_square = np.sum((counts - 4000) ** 2 / 4000)
        assert chi_square < 9 + 4 * np.sqrt(18)
        if dry:
            lowest = rank_counts(ranks(y, x, np.zeros(y.shape)), np.ones(y.shape), 9)[0]
            assert lowest[0] > 0.6 * 40_000  # without random ties

    def test_position_is_the_number_of_members_below(self):
        assert ranks(np.array([2.5]), np.array([[1.0], [2.0], [3.0]]), np.array([0.99])).tolist() == [2]

    def test_index_of_a_flat_and_of_a_one_sided_histogram(self):
        assert reliability_index(np.full(5, 0.2)) == pytest.approx(0.0)
        assert reliability_index(np.array([1.0, 0, 0, 0])) == pytest.approx(1.5)

    def test_noise_is_what_exchangeable_ensembles_give(self):
        # 60 samples of 50 cells that err together in groups of ten: five independent ranks per sample.
        rng = np.random.default_rng(11)
        members, index, expected, quantile = 5, [], [], []
        for trial in range(60):
            rank = np.repeat(rng.integers(0, members + 1, (60, 5)), 10, axis=1)
            counts = rank_counts(rank, np.ones(rank.shape), members)
            index.append(reliability_index(counts.sum(0) / counts.sum()))
            mean, q95 = rank_noise(counts, replicate_counts(60, 1, 200, trial), 1)
            expected.append(mean)
            quantile.append(q95)
        near(np.array(index) - np.array(expected), 0.0)
        independent = 6 * np.sqrt(2 / np.pi) * np.sqrt(1 / 6 * 5 / 6 / 3000)
        assert np.mean(expected) > 2.5 * independent  # counting cells would say three times less
        assert np.mean(np.array(index) > np.array(quantile)) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 60)


class TestVariogram:
    def test_hand_loop_and_scoringrules(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((6, 3, 12)), rng.standard_normal((3, 12))
        first, second, distance = draw_pairs((3, 4), (False, False), np.ones(12, bool), count=1000)
        weights = np.broadcast_to(1 / distance, (3, distance.size))
        ours = variogram_score(y[:, first], y[:, second], x[..., first], x[..., second], weights, fair=False)
        table = np.zeros((12, 12))
        table[first, second] = 1 / distance
        for n in range(3):
            total = 0.0
            for i, j, d in zip(first, second, distance):
                drawn = np.mean([abs(x[m, n, i] - x[m, n, j]) ** 0.5 for m in range(6)])
                total += (abs(y[n, i] - y[n, j]) ** 0.5 - drawn) ** 2 / d
            assert ours[n] == pytest.approx(total / np.sum(1 / distance), rel=1e-12)
        theirs = scoringrules.vs_ensemble(y, np.moveaxis(x, 0, 1), np.broadcast_to(table, (3, 12, 12)), backend="numpy")
        np.testing.assert_allclose(ours, theirs / table.sum(), rtol=1e-10)

    def test_fair_form_does_not_depend_on_the_number_of_members(self):
        rng = np.random.default_rng(1)
        means = {}
        for members in (3, 30):
            y, x = rng.standard_normal((4000, 8)), rng.standard_normal((members, 4000, 8))
            pair = np.arange(7), np.arange(1, 8)
            w = np.ones((4000, 7))
            means[members] = variogram_score(y[:, pair[0]], y[:, pair[1]], x[..., pair[0]], x[..., pair[1]], w)
        difference = means[3].mean() - means[30].mean()
        assert abs(difference) < 4 * np.sqrt(means[3].var() / 4000 + means[30].var() / 4000)

    def test_sees_a_lost_correlation_that_crps_cannot(self):
        rng = np.random.default_rng(2)
        smooth = lambda *s: np.repeat(rng.standard_normal((*s, 2)), 4, axis=-1)  # noqa: E731
        y, good, bad = smooth(500), smooth(10, 500), rng.standard_normal((10, 500, 8))
        first, second, distance = draw_pairs((8,), (False,), np.ones(8, bool))
        w = np.broadcast_to(1 / distance, (500, distance.size))
        score = [variogram_score(y[:, first], y[:, second], e[..., first], e[..., second], w) for e in (good, bad)]
        assert score[1].mean() - score[0].mean() > 10 * (score[1] - score[0]).std() / np.sqrt(500)

    def test_pairs_are_distinct_near_valid_and_wrap_only_where_periodic(self):
        valid = np.random.default_rng(0).random(30 * 40) > 0.3
        first, second, distance = draw_pairs((30, 40), (False, True), valid, count=200)
        assert first.size == 200 and valid[first].all() and valid[second].all()
        assert len({frozenset(pair) for pair in zip(first, second)}) == 200
        dy, dx = np.abs(first // 40 - second // 40), np.abs(first % 40 - second % 40)
        assert dy.max() <= 3 and np.minimum(dx, 40 - dx).max() <= 3 and dx.max() > 30
        np.testing.assert_allclose(distance, np.hypot(dy, np.minimum(dx, 40 - dx)))
        again = draw_pairs((30, 40), (False, True), valid, count=200)
        np.testing.assert_array_equal(first, again[0])


class TestWeights:
    def test_integral_over_the_globe_is_exact(self):
        lat = np.linspace(-87.5, 87.5, 36)
        weights = latitude_weights(lat)
        assert weights.sum() == pytest.approx(2.0, abs=1e-14)
        np.testing.assert_allclose(weights / weights.sum(), np.cos(np.deg2rad(lat)) / np.cos(np.deg2rad(lat)).sum())
        # The cell mean of sin^2 has a closed form, and its area mean over the sphere is 1/3.
        edges = np.sin(np.deg2rad(np.linspace(-90, 90, 37)))
        cell_mean = np.diff(edges**3) / 3 / np.diff(edges)
        assert np.average(cell_mean, weights=weights) == pytest.approx(1 / 3, abs=1e-14)

    def test_poles_get_their_caps_and_order_does_not_matter(self):
        lat = np.linspace(90, -90, 19)
        weights = latitude_weights(lat)
        assert weights.sum() == pytest.approx(2.0) and weights[0] > 0
        np.testing.assert_allclose(weights, latitude_weights(lat[::-1])[::-1])

    def test_two_dimensional_mesh_is_the_cosine_and_a_rotated_pole_is_not(self):
        lat, lon = np.meshgrid(np.arange(40.0, 60, 0.5), np.arange(0.0, 20, 0.5), indexing="ij")
        mesh = cell_areas(lat, lon)
        ratio = mesh / np.cos(np.deg2rad(lat))
        np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=1e-4)
        rotated_lat = np.deg2rad(np.arange(-10.0, 10, 0.5))[:, None] + np.zeros(40)
        rotated_lon = np.deg2rad(np.arange(-10.0, 10, 0.5))[None] + np.zeros((40, 1))
        x, z = np.cos(rotated_lat) * np.cos(rotated_lon), np.sin(rotated_lat)
        y = np.cos(rotated_lat) * np.sin(rotated_lon)
        tilt = np.deg2rad(50)
        x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
        areas = cell_areas(np.rad2deg(np.arcsin(z)), np.rad2deg(np.arctan2(y, x)))
        np.testing.assert_allclose(areas / areas.mean(), np.cos(rotated_lat) / np.cos(rotated_lat).mean(), atol=1e-3)

    def test_projected_grid_has_equal_weights(self):
        np.testing.assert_array_equal(area_weights(("y", "x"), (3, 4)), np.ones((3, 4)))
        weights = area_weights(("lat", "lon"), (3, 2), (("lat",), np.array([0.0, 30.0, 60.0])))
        np.testing.assert_allclose(weights[:, 0] / weights[0, 0], [1, np.cos(np.pi / 6), 0.5])
        assert weights.mean() == pytest.approx(1.0)


class TestMarginal:
    def test_weighted_quantile_of_equal_weights_is_hazens(self):
        values = np.random.default_rng(0).standard_normal(101)
        q = np.array([0.1, 0.5, 0.9])
        expected = np.quantile(values, q, method="hazen")
        np.testing.assert_allclose(weighted_quantile(values, np.ones(101), q), expected)
        np.testing.assert_allclose(
            weighted_quantile(values, np.where(values > 0, 1.0, 0.0), [0.0]), values[values > 0].min()
        )

    @pytest.mark.parametrize(
        ("units", "expected"),
        [
            ("mm/day", 1.0),
            ("mm d-1", 1.0),
            ("mm day**-1", 1.0),
            ("kg m-2 s-1", 1 / 86400),
            ("kg m^-2 s^-1", 1 / 86400),
            ("mm s-1", 1 / 86400),
            ("mm/h", 1 / 24),
            ("K", None),
            ("m s-1", None),
        ],
    )
    def test_wet_day_in_any_units(self, units, expected):
        assert wet_threshold(units, ["x"]) == (None if expected is None else pytest.approx(expected))

    def test_metres_per_second_of_rain(self):
        assert wet_threshold("m s-1", ["pr"]) == pytest.approx(1e-3 / 86400)
        assert wet_threshold("m s-1", ["ua", "eastward_wind", "pressure-level wind"]) is None

    def test_units_have_one_spelling(self):
        assert canonical_units("degrees_Celsius") == canonical_units("degC") != canonical_units("K")
        assert canonical_units("W m-2") == canonical_units("W/m2") != canonical_units("W m2")
        assert canonical_units("m/s") != canonical_units("m s")


class TestBootstrap:
    @staticmethod
    def ar1(rng, correlation, count):
        noise = rng.standard_normal(count) * np.sqrt(1 - correlation**2)
        series = np.empty(count)
        series[0] = rng.standard_normal()
        for n in range(1, count):
            series[n] = correlation * series[n - 1] + noise[n]
        return series

    def test_blocks_are_one_for_white_noise_and_grow_with_correlation(self):
        rng = np.random.default_rng(0)
        assert np.mean([block_length(self.ar1(rng, 0.0, 300)) for _ in range(20)]) < 2
        for r, count in ((0.5, 300), (0.9, 300), (0.5, 20_000), (0.9, 20_000)):
            share = (1 - r) / (1 + r)  # of independent samples; Wilks 1997, equation 20
            exact = brentq(lambda n, e=2 / 3 * (1 - share), of=count: n - (of - n + 1) ** e, 1, count)
            lengths = [block_length(self.ar1(rng, r, count)) for _ in range(40 if count == 300 else 4)]
            assert np.mean(lengths) == pytest.approx(exact, rel=0.12 if count == 300 else 0.06)
        assert block_length(np.ones(50)) == 1 and block_length(np.arange(4.0)) == 1

    def test_counts_are_contiguous_blocks(self):
        counts = replicate_counts(20, 5, 50, 1)
        np.testing.assert_array_equal(counts.sum(1), 20)
        one = np.flatnonzero(np.diff((replicate_counts(1000, 10, 1)[0] > 0).astype(int)) == 1)
        assert len(one) <= 100
        np.testing.assert_array_equal(counts, replicate_counts(20, 5, 50, 1))

    def test_coverage_on_an_autoregression(self):
        rng = np.random.default_rng(4)
        inside, naive, trials = 0, 0, 300
        for trial in range(trials):
            series = self.ar1(rng, 0.6, 200)
            for name, block in (("block", block_length(series)), ("naive", 1)):
                low, high = interval(replicate_counts(200, block, 200, trial) @ series / 200)
                if name == "block":
                    inside += low <= 0 <= high
                else:
                    naive += low <= 0 <= high
        # A block bootstrap of 200 dependent samples covers a little less than the nominal 95 %.
        assert 0.86 < inside / trials < 0.985
        assert naive / trials < 0.75
