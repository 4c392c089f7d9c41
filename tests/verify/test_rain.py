"""Scores of rain: closed forms of fractions and tables, and derived fields against plain numpy."""

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.errors import UsageError
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.events import contingency, critical_success, fraction_terms, fractions
from undrift.verify.rain import rain_by_lead, rain_thresholds, steps_in_an_hour

MINUTE = np.timedelta64(1, "m")


def fss(truth, share, scale, periodic=(True, True), valid=None):
    valid = np.ones(truth.shape, bool) if valid is None else valid
    away, most = fraction_terms(truth, share, scale, periodic, valid)
    return 1 - away.sum() / most.sum()


@pytest.mark.parametrize("far", [0, 1, 3, 8])
@pytest.mark.parametrize("scale", [1, 5, 9])
def test_a_cell_that_is_displaced_scores_one_less_its_distance_over_the_neighbourhood(far, scale):
    """n (n - d) of the n^2 cells that see either see both: FSS = (n - d) / n, 0 beyond."""
    truth, share = np.zeros((1, 32, 32), bool), np.zeros((1, 32, 32))
    truth[0, 20, 3], share[0, 20, (3 - far) % 32] = True, 1
    assert fss(truth, share, scale) == pytest.approx(max(scale - far, 0) / scale)


def test_over_the_whole_domain_only_the_share_counts():
    """Roberts and Lean 2008, equation 8: 2 f o / (f^2 + o^2)."""
    rng = np.random.default_rng(0)
    truth, share = rng.random((1, 15, 15)) < 0.3, (rng.random((1, 15, 15)) < 0.1).astype(float)
    o, f = truth.mean(), share.mean()
    assert fss(truth, share, 15) == pytest.approx(2 * o * f / (o**2 + f**2))


def test_half_of_the_members_is_a_probability_of_one_half():
    truth = np.zeros((1, 8, 8), bool)
    truth[0, 2:4, 2:4] = True
    assert fss(truth, truth / 2, 1) == pytest.approx(1 - 0.25 / 1.25)


def test_fractions_are_of_the_cells_that_there_are():
    """Against a loop, with ends on one axis and missing cells."""
    rng = np.random.default_rng(1)
    share, valid = rng.random((2, 9, 12)), rng.random((2, 9, 12)) < 0.8
    got = fractions(share, 5, (False, True), valid)
    for k, i, j in np.ndindex(2, 9, 12):
        rows, columns = np.arange(max(i - 2, 0), min(i + 3, 9)), np.arange(j - 2, j + 3) % 12
        kept = valid[k][np.ix_(rows, columns)]
        assert got[k, i, j] == pytest.approx(share[k][np.ix_(rows, columns)][kept].mean() if kept.any() else 0)


def test_the_table_is_that_of_each_member_in_turn():
    rng = np.random.default_rng(2)
    truth, events = rng.random((3, 50)) < 0.4, rng.random((4, 3, 50)) < 0.5
    weights = rng.random((3, 50))
    hits, misses, alarms = contingency(truth, events, weights)
    np.testing.assert_allclose(hits, np.mean([(weights * (truth & e)).sum(1) for e in events], 0))
    np.testing.assert_allclose(misses, np.mean([(weights * (truth & ~e)).sum(1) for e in events], 0))
    np.testing.assert_allclose(alarms, np.mean([(weights * (~truth & e)).sum(1) for e in events], 0))
    assert critical_success(np.array(2.0), np.array(1.0), np.array(5.0)) == 0.25
    assert np.isnan(critical_success(np.array(0.0), np.array(0.0), np.array(0.0)))


def showers(units="mm", members=5, starts=6, leads=14, step=10, seed=0, shape=(18, 16)):
    """Forecasts every hour, with leads of 10 minutes, and a truth; gamma-like rain with many dry cells."""
    rng = np.random.default_rng(seed)

    def rain(*sizes):
        return np.maximum(rng.normal(size=sizes), 0) ** 2

    times = np.datetime64("2001-07-01", "ns") + np.arange(6 * starts + leads) * step * MINUTE
    grid = {"y": np.arange(shape[0]), "x": np.arange(shape[1])}
    truth = xr.Dataset(
        {"rain": (("time", "y", "x"), rain(len(times), *shape), {"units": units})}, {"time": times} | grid
    )
    delta = (np.arange(1, leads + 1) * step * MINUTE).astype("timedelta64[ns]")
    dims = ("realization", "time", "prediction_timedelta", "y", "x")
    coords = {"time": times[: 6 * starts : 6], "prediction_timedelta": delta} | grid
    values = rain(members, starts, leads, *shape)
    forecast = xr.Dataset({"rain": (dims, values, {"units": units})}, coords)
    return forecast.assign_coords(valid_time=(("time", "prediction_timedelta"), coords["time"][:, None] + delta)), truth


def seen(forecast, truth):
    """The truth of each start and lead, (starts, leads, y, x)."""
    return truth.rain.sel(time=forecast.valid_time).transpose("time", "prediction_timedelta", "y", "x").values


def in_blocks(values, size, of):
    y, x = (n // size for n in values.shape[-2:])
    cut = values[..., : y * size, : x * size]
    return of(cut.reshape(*values.shape[:-2], y, size, x, size), axis=(-3, -1))


def test_each_lead_has_its_events_and_blocks():
    forecast, truth = showers()
    rivals = {"half": (0.5 * forecast).assign_attrs(dressed="quantiles")}
    rivals["half"].rain.attrs["units"] = "mm"
    scores = rain_by_lead(
        forecast, truth, [0.5, 2.0], scales=(1, 3, 99), sizes=(4, 16, 64), baselines=rivals, bootstrap=0
    )
    one, y, x = scores.isel(variable=0), seen(forecast, truth), forecast.rain.values
    assert list(one.scale) == [1, 3] and list(one.block) == [4, 16]
    for lead in (0, 9):
        for t, threshold in enumerate((0.5, 2.0)):
            truth_wet, wet = y[:, lead] >= threshold, x[:, :, lead] >= threshold
            hits = (truth_wet & wet).sum()
            either = (truth_wet | wet).sum()
            np.testing.assert_allclose(one.csi[lead, t], hits / either)
            want = fss(truth_wet, wet.mean(0), 3, (False, False))
            np.testing.assert_allclose(one.fss.sel(scale=3)[lead, t], want)
            half = 0.5 * x[:, :, lead] >= threshold
            np.testing.assert_allclose(
                one.csi_baseline[lead, 0, t], (truth_wet & half).sum() / (truth_wet | half).sum()
            )
        for size in (4, 16):
            for name, of in (("mean", np.mean), ("max", np.max)):
                got = one[f"crps_{name}"].sel(block=size)[lead]
                want = fair_crps(in_blocks(y[:, lead], size, of), in_blocks(x[:, :, lead], size, of)).mean()
                np.testing.assert_allclose(got, want, err_msg=name)
                half = in_blocks(0.5 * x[:, :, lead], size, of)
                base = one[f"crps_{name}_baseline"].sel(block=size)[lead, 0]
                np.testing.assert_allclose(base, discrete_crps(in_blocks(y[:, lead], size, of), half).mean())
                np.testing.assert_allclose(one[f"skill_{name}"].sel(block=size)[lead, 0], 1 - got / base)


@pytest.mark.parametrize(("units", "factor"), [("mm", 6), ("mm/h", 1)])
def test_sums_over_an_hour_are_of_its_leads(units, factor):
    """14 steps of 10 minutes are two whole hours; a rate's sum over an hour is its mean."""
    forecast, truth = showers(units)
    scores = rain_by_lead(forecast, truth, [1.0], scales=(1,), sizes=(), bootstrap=0).isel(variable=0)
    x, y = (
        v[..., :12, :, :].reshape(*v.shape[:-3], 2, 6, *v.shape[-2:]).mean(-3) * factor
        for v in (forecast.rain.values, seen(forecast, truth))
    )
    want = [fair_crps(y[:, h], x[:, :, h]).mean() for h in (0, 1)]
    np.testing.assert_allclose(scores.crps_hour.values[[5, 11]], want)
    assert np.isfinite(scores.crps_hour).sum() == 2


def test_hours_that_lack_a_frame_are_left_out():
    forecast, truth = showers()
    short = truth.drop_isel(time=3)
    scores = rain_by_lead(forecast, short, [1.0], scales=(1,), sizes=(), bootstrap=0).isel(variable=0)
    x, y = (
        v[..., :12, :, :].reshape(*v.shape[:-3], 2, 6, *v.shape[-2:]).sum(-3)
        for v in (forecast.rain.values, seen(forecast, truth))
    )
    np.testing.assert_allclose(scores.crps_hour.values[5], fair_crps(y[1:, 0], x[:, 1:, 0]).mean())
    np.testing.assert_allclose(scores.crps_hour.values[11], fair_crps(y[:, 1], x[:, :, 1]).mean())


def test_dates_of_another_calendar_have_hours_too():
    forecast, truth = showers()
    first = cftime.DatetimeNoLeap(2001, 7, 1)

    def dated(ds):
        ds = ds.drop_vars("valid_time", errors="ignore")
        minutes = ((ds.time.values - np.datetime64("2001-07-01")) / MINUTE).astype(int)
        return ds.assign_coords(time=[first + int(m) * np.timedelta64(1, "m").item() for m in minutes])

    options = {"scales": (1,), "sizes": (), "bootstrap": 0}
    want = rain_by_lead(forecast, truth, [1.0], **options)
    got = rain_by_lead(dated(forecast), dated(truth), [1.0], **options)
    np.testing.assert_allclose(got.crps_hour, want.crps_hour)
    np.testing.assert_allclose(got.csi, want.csi)


def test_intervals_hold_what_they_are_of_and_missing_cells_do_not_count():
    forecast, truth = showers(starts=12, leads=2)
    whole = rain_by_lead(forecast, truth, [1.0], scales=(3,), sizes=(4,), bootstrap=100).isel(variable=0)
    for name in ("csi", "fss", "crps_mean"):
        low, high = whole[f"{name}_interval"].transpose("bound", ...).values
        assert (low < whole[name]).all() and (whole[name] < high).all(), name
    truth.rain.values[:, 3, 4] = np.nan
    forecast.rain.values[:, :, :, 3, 4] = 1e9
    holed = rain_by_lead(forecast, truth, [1.0], scales=(3,), sizes=(4,), bootstrap=0).isel(variable=0)
    assert np.abs(holed.csi - whole.csi).max() < 0.01 and np.abs(holed.fss - whole.fss).max() < 0.01
    y, x = (in_blocks(v, 4, np.mean) for v in (seen(forecast, truth)[:, 0], forecast.rain.values[:, :, 0]))
    np.testing.assert_allclose(holed.crps_mean[0, 0], np.nanmean(fair_crps(y, x)[:, np.isfinite(y[0])]))


def test_thresholds_are_in_the_units_of_rain():
    def array(units, name="pr"):
        return xr.DataArray(0.0, attrs={"units": units}, name=name)

    np.testing.assert_allclose(rain_thresholds(array("mm/h")), (0.1, 1, 5))
    np.testing.assert_allclose(rain_thresholds(array("kg m-2 s-1")), np.array([0.1, 1, 5]) / 3600)
    assert rain_thresholds(array("K", "tas")) == ()


def test_which_leads_make_hours():
    def leads(minutes):
        return (np.array(minutes) * MINUTE).astype("timedelta64[ns]")

    assert steps_in_an_hour(leads(range(5, 125, 5))) == 12
    assert steps_in_an_hour(leads([30, 60, 90])) == 2
    for none in ([60, 120], [25, 50, 75], [10, 20, 30], [30, 60, 120], [60], [0, 30, 60]):
        assert steps_in_an_hour(leads(none)) is None, none
    assert steps_in_an_hour(np.arange(1, 9)) is None


def test_a_neighbourhood_has_a_middle():
    forecast, truth = showers(leads=2)
    with pytest.raises(UsageError, match="got a neighbourhood of 4 cells, expected an odd number, such as 5"):
        rain_by_lead(forecast, truth, [1.0], scales=(4,))
