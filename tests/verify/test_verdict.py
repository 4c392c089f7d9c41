"""Each line of the verdict at both sides of what it hangs on: scores of a known kind, one number of them replaced."""

import numpy as np
import pytest
import xarray as xr

from undrift.verify import evaluate, verdict


@pytest.fixture(scope="module")
def scores():
    """Of an ensemble that is calibrated, against a rival that is twice as wide."""
    rng = np.random.default_rng(0)
    dims = ("time", "lat", "lon")
    coords = {"time": np.arange(60), "lat": np.linspace(-60, 60, 9), "lon": np.arange(12) * 2.0}
    signal = rng.normal(size=(60, 9, 12))

    def drawn(scale, *members):
        values = 280 + signal + scale * rng.normal(size=(*members, 60, 9, 12))
        return xr.Dataset({"tas": (("realization",) * len(members) + dims, values, {"units": "K"})}, coords)

    return evaluate(drawn(0.5, 20), drawn(0.5), baselines={"rival": drawn(1.0, 20)}, bootstrap=50)


def said(scores, topic, **values):
    """(level, text) of the findings of a topic, with these scores in place of the computed ones."""
    changed = {
        name: scores[name].copy(data=np.full(scores[name].size, value).reshape(scores[name].shape))
        for name, value in values.items()
    }
    return [(f.level, f.text) for f in verdict(scores.assign(changed)) if f.topic == topic]


def test_the_scores_replaced_are_good_ones(scores):
    assert {f.level for f in verdict(scores)} == {"good"}


@pytest.mark.parametrize(
    ("skill", "interval", "level", "text"),
    [
        (0.3, (0.2, 0.4), "good", "beats rival by 30.0 % [20.0, 40.0]"),
        (0.3, (-0.01, 0.6), "warn", "is not distinguishable from rival (+30.0 % [-1.0, +60.0])"),
        (-0.3, (-0.6, 0.01), "warn", "is not distinguishable from rival (-30.0 % [-60.0, +1.0])"),
        (-0.3, (-0.4, -0.2), "bad", "loses to rival by 30.0 % [20.0, 40.0]"),
    ],
)
def test_skill_beats_loses_or_is_not_told_apart(scores, skill, interval, level, text):
    ((got, sentence),) = said(scores, "skill", skill=skill, skill_interval=interval)
    assert got == level and sentence == f"tas: CRPS {float(scores.crps.item()):.4g} K {text}"


@pytest.mark.parametrize(("interval", "told"), [((-0.4, -0.2), True), ((-0.4, 0.01), False), ((0.2, 0.4), False)])
def test_a_lost_variogram_score_is_told_where_it_is_beyond_chance(scores, interval, told):
    lost = [
        one
        for one in said(scores, "skill", variogram_skill=np.mean(interval), variogram_skill_interval=interval)
        if "variogram" in one[1]
    ]
    assert len(lost) == told
    assert not told or (lost[0][0] == "bad" and lost[0][1].endswith("loses to rival by 30.0 % [20.0, 40.0]"))


@pytest.mark.parametrize(
    ("ratio", "interval", "level", "text"),
    [
        (0.69, (0.6, 0.8), "bad", "under-dispersed, spread 31 % too small"),
        (0.71, (0.6, 0.8), "warn", "under-dispersed, spread 29 % too small"),
        (0.89, (0.8, 0.99), "warn", "under-dispersed, spread 11 % too small"),
        (0.89, (0.7, 1.01), "warn", "too few samples to tell the spread from a calibrated one"),
        (0.91, (0.8, 0.99), "good", "calibrated"),
        (1.09, (1.01, 1.2), "good", "calibrated"),
        (1.11, (1.01, 1.2), "warn", "over-dispersed, spread 11 % too large"),
        (1.11, (0.99, 1.2), "warn", "too few samples to tell the spread from a calibrated one"),
        (1.39, (1.2, 1.5), "warn", "over-dispersed, spread 39 % too large"),
        (1.41, (1.2, 1.5), "bad", "over-dispersed, spread 41 % too large"),
    ],
)
def test_spread_is_judged_beyond_a_tenth_and_beyond_chance(scores, ratio, interval, level, text):
    ((got, sentence),) = said(scores, "calibration", spread_skill=ratio, spread_skill_interval=interval)
    low, high = interval
    assert got == level and sentence.startswith(f"tas: {text} (spread/skill {ratio:.2f} [{low:.2f}, {high:.2f}]")


RANKS = (np.arange(21) - 10) / 10
SHAPES = {
    ": a slope, as of members too low": RANKS,
    ": a slope, as of members too high": -RANKS,
    ": a U, as of members too close together": RANKS**2 - np.mean(RANKS**2),
    ": a dome, as of members too far apart": np.mean(RANKS**2) - RANKS**2,
    "": np.where(np.arange(21) % 2, 21 / 20 - 1, 21 / 22 - 1) * 4,  # up and down from rank to rank
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ranks_are_judged_by_what_matters_and_by_chance_and_their_shape_is_named(scores, shape):
    ranks = {"rank_histogram": (1 + 0.3 * SHAPES[shape]) / 21}
    for index, noise, level, text in (
        (0.11, 0.10, "warn", f"spread fits the error, but ranks are not flat{shape} ("),
        (0.09, 0.08, "good", f"calibrated but for a departure of the ranks that is seen and small{shape} ("),
        (0.09, 0.10, "good", "calibrated ("),
        (0.11, 0.12, "good", "calibrated ("),
    ):
        ((got, sentence),) = said(scores, "calibration", reliability_index=index, reliability_noise=noise, **ranks)
        assert got == level and sentence.startswith(f"tas: {text}"), (index, noise)


@pytest.mark.parametrize(
    ("share", "interval", "told"),
    [(0.21, (0.01, 1), True), (0.19, (0.01, 1), False), (0.21, (-0.01, 1), False), (-0.21, (-1, -0.01), True)],
)
def test_a_bias_is_told_beyond_a_fifth_of_the_error_and_beyond_chance(scores, share, interval, told):
    rmse = float(scores.rmse.item())
    found = said(scores, "bias", bias=share * rmse, bias_interval=interval)
    assert len(found) == told
    assert not told or found[0] == (
        "warn",
        f"tas: biased by {share * rmse:+.3g} K [{interval[0]:+.3g}, {interval[1]:+.3g}], 21 % of the RMSE",
    )


def test_a_spectrum_is_named_where_it_is_furthest_off(scores):
    waves = scores.sizes["wavenumber"]
    assert said(scores, "spectrum", spectrum_ratio=[0.81, *[1.24] * (waves - 1)])[0][0] == "good"
    for worst in (0.5, 1.9):
        ratio = np.ones(waves)
        ratio[1], ratio[3] = 1.3, worst
        length = float(scores.wavelength[3])
        assert said(scores, "spectrum", spectrum_ratio=ratio) == [
            (
                "warn",
                f"tas: spectrum outside [0.8, 1.25] of the truth's at 2 of {waves} wavenumbers, "
                f"worst {worst:.2f} at {length:.1f} cells",
            )
        ]


@pytest.mark.parametrize(
    ("ratio", "copies", "level", "text"),
    [
        (1.0, 0.0, "good", "not memorising: members lie 1.00 times as far"),
        (0.76, 0.01, "good", "not memorising: members lie 0.76 times as far"),
        (0.74, 0.01, "warn", "perhaps memorising: members lie 0.74 times as far"),
        (1.0, 0.02, "bad", "memorising: 2 % of members are near copies of a training field (members lie 1.00 times"),
    ],
)
def test_memorising_is_told_by_distance_and_by_copies(scores, ratio, copies, level, text):
    scores = scores.assign(memorisation=ratio, memorisation_copies=copies)
    ((got, sentence),) = [(f.level, f.text) for f in verdict(scores) if f.topic == "memorisation"]
    assert got == level and sentence.startswith(text)


def test_histograms_are_shares_of_the_area_in_each_bin():
    rng = np.random.default_rng(1)
    coords = {"time": np.arange(10), "lat": [0.0, 30.0, 60.0], "lon": [0.0, 1.0]}
    truth = xr.Dataset({"q": (("time", "lat", "lon"), rng.normal(size=(10, 3, 2)))}, coords)
    ensemble = xr.Dataset({"q": (("realization", *truth.q.dims), 2 * rng.normal(size=(5, 10, 3, 2)))}, coords)
    scores = evaluate(ensemble, truth, bootstrap=0)
    edges = scores.histogram_edges.values[0]
    area = np.cos(np.deg2rad(truth.lat.values))[:, None] / (2 * np.cos(np.deg2rad(truth.lat.values)).sum())
    for name, values in (("truth", truth.q.values[None]), ("ensemble", ensemble.q.values)):
        inside = (values[..., None] >= edges[:-1]) & (values[..., None] < edges[1:])
        inside[..., -1] |= values == edges[-1]
        expected = (inside * area[:, :, None]).sum((2, 3)).mean((0, 1))
        np.testing.assert_allclose(scores[f"histogram_{name}"].values[0], expected, atol=1e-6)
        assert expected.sum() > 0.9
