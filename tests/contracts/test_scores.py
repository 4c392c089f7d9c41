"""What every score keeps: it does not know of units, of the order of realizations or samples, nor of blocks.

``POWER`` names every score and how it grows with the unit; one that ``evaluate`` returns and that is not here fails.
"""

import numpy as np
import pytest
import xarray as xr

from undrift.verify import evaluate, to_table

A, B = 1.8, 32.0  # from degC to degF

# In powers of the unit; None for values that move with its origin too: they are held as locations.
POWER = {
    "crps": 1,
    "rmse": 1,
    "mae": 1,
    "bias": 1,
    "spread": 1,
    "spread_skill": 0,
    "variogram": 1,
    "reliability_index": 0,
    "reliability_expected": 0,
    "reliability_noise": 0,
    "rank_histogram": 0,
    "binned_spread": 1,
    "binned_rmse": 1,
    "binned_share": 0,
    "skill": 0,
    "variogram_skill": 0,
    "crps_baseline": 1,
    "rmse_baseline": 1,
    "variogram_baseline": 1,
    "crps_sample": 1,
    "crps_map": 1,
    "rmse_map": 1,
    "spread_map": 1,
    "bias_map": 1,
    "spectrum_truth": 2,
    "spectrum_ensemble": 2,
    "spectrum_ratio": 0,
    "spectrum_ratio_baseline": 0,
    "block_length": 0,
    "quantiles_truth": None,
    "quantiles_ensemble": None,
    "histogram_edges": None,
    "histogram_truth": 0,
    "histogram_ensemble": 0,
    "zero_fraction_truth": 0,
    "zero_fraction_ensemble": 0,
    "wet_fraction_truth": 0,
    "wet_threshold": 0,
    "wet_fraction_ensemble": 0,
    "mean_difference_map": 1,
    "std_ratio_map": 0,
}

FREE = {"mean_shift": 0, "deviation_ratio": 0, "quantile_shift": 0, "truth_deviation": 1}  # without counterparts


def case(members=7, samples=12, seed=0):
    """A truth, an ensemble and a baseline that share a signal, with as many coordinates as maps have."""
    rng = np.random.default_rng(seed)
    coords = {
        "time": np.datetime64("2000-01-01", "ns") + np.arange(samples) * np.timedelta64(1, "D"),
        "lat": np.linspace(-60, 60, 8),
        "lon": np.arange(10) * 2.0,
    }
    signal = rng.normal(size=(samples, 8, 10))

    def made(count, scale):
        dims = ("time", "lat", "lon") if count is None else ("realization", "time", "lat", "lon")
        shape = signal.shape if count is None else (count, *signal.shape)
        values = 10 + signal + scale * rng.normal(size=shape)
        return xr.Dataset({"tas": (dims, values, {"units": "degC"})}, coords)

    return made(members, 0.6), made(None, 0.6), made(5, 1.0)


def scored(ensemble, truth, baseline):
    return evaluate(ensemble, truth, baselines={"rival": baseline}, bootstrap=20)


@pytest.fixture(scope="module")
def scores():
    return scored(*case())


def powers(scores):
    """Power of the unit of each variable, intervals as their scores."""
    return {str(name): POWER[str(name).removesuffix("_interval")] for name in scores.data_vars}


def test_every_score_is_held_by_this_suite(scores):
    assert {str(name).removesuffix("_interval") for name in scores.data_vars} == set(POWER)


def test_another_unit_scales_each_score_by_its_power(scores):
    other = []
    for ds in case():
        ds = A * ds + B
        ds.tas.attrs["units"] = "degF"
        other.append(ds)
    got = scored(*other)
    for name, power in powers(scores).items():
        expected = A * scores[name].values + B if power is None else A**power * scores[name].values
        if name.startswith(("zero_", "wet_")):
            continue  # zero is another value in another unit
        np.testing.assert_allclose(got[name].values, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_laws_without_counterparts_scale_likewise():
    ensemble, truth, _ = case()
    free = ensemble.assign_coords(time=ensemble.time + np.timedelta64(9999, "D"))
    first, other = evaluate(free, truth, bootstrap=20), evaluate(A * free + B, A * truth + B, bootstrap=20)
    assert {str(n).removesuffix("_interval") for n in first.data_vars} - set(POWER) == set(FREE)
    for name in (n for n in first.data_vars if str(n).removesuffix("_interval") in FREE):
        power = FREE[str(name).removesuffix("_interval")]
        np.testing.assert_allclose(other[name], A**power * first[name], rtol=1e-6, atol=1e-6, err_msg=str(name))


def test_the_table_gives_units_to_what_has_them(scores):
    ensemble, truth, _ = case()
    free = evaluate(ensemble.assign_coords(time=ensemble.time + np.timedelta64(9999, "D")), truth, bootstrap=20)
    rows = {row["score"]: row["units"] for table in (scores, free) for row in to_table(table)}
    assert {"crps", "rmse_baseline", "truth_deviation", "skill"} <= set(rows)
    for name, units in rows.items():
        has = {**POWER, **FREE}[name] == 1 or name == "wet_threshold"  # a threshold is chosen by the unit
        assert units == ("degC" if has else ""), name


def test_the_order_of_realizations_and_samples_is_nothing(scores):
    ensemble, truth, baseline = case()
    shuffled = ensemble.isel(realization=[3, 0, 6, 1, 5, 2, 4], time=np.arange(12)[::-1])
    got = scored(shuffled, truth, baseline)
    for name in powers(scores):
        expected = scores[name]
        if "sample" in expected.dims:
            expected = expected.isel(sample=slice(None, None, -1))
        np.testing.assert_allclose(got[name].values, expected.values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_chunks_are_nothing(scores):
    ensemble, truth, baseline = case()
    got = scored(ensemble.chunk(time=5, realization=2), truth.chunk(time=3), baseline.chunk(lat=4))
    for name in powers(scores):
        np.testing.assert_allclose(got[name].values, scores[name].values, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["crps", "rmse", "variogram", "mae"])
def test_a_score_prefers_the_true_law(name):
    """Biased or far too wide ensembles lose on average."""
    ensemble, truth, baseline = case(members=12, samples=30)
    good = float(scored(ensemble, truth, baseline)[name].squeeze())
    centre = ensemble.mean("realization")
    wide, biased = centre + 4 * (ensemble - centre), ensemble + 1.0
    for worse in (wide, biased) if name != "variogram" else (wide,):  # differences of cells do not see a common bias
        worse.tas.attrs["units"] = "degC"
        assert float(scored(worse, truth, baseline)[name].squeeze()) > good
