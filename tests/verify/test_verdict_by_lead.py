"""Sentences about forecasts: each names the leads that it is of, by numbers that are put there."""

import numpy as np
import pytest
import xarray as xr

from undrift.verify import by_lead, verdict
from undrift.verify.verdict_by_lead import verdict_by_lead

HOUR = np.timedelta64(1, "h")


def scores(**values):
    """Of six leads, all of them good but for what is given."""
    along = ("variable", "prediction_timedelta")
    plain = {
        "crps": np.linspace(0.5, 1.0, 6), "rmse": np.full(6, 2.0), "bias": np.zeros(6), "spread_skill": np.ones(6),
    } | {k: v for k, v in values.items() if not k.endswith("_interval") and k not in ("skill", "spectrum_ratio")}  # fmt: skip
    data = {name: (along, np.asarray(v, float)[None]) for name, v in plain.items()}
    skill = np.asarray(values.get("skill", np.full((6, 2), 0.25)), float)
    data["skill"] = ((*along, "baseline"), skill[None])
    width = np.asarray(values.get("skill_interval", 0.01))
    data["skill_interval"] = (
        ("variable", "bound", "prediction_timedelta", "baseline"),
        [[skill - width, skill + width]],
    )
    ratio = np.asarray(values.get("spectrum_ratio", np.ones((6, 2))), float)
    data["spectrum_ratio"] = ((*along, "band"), ratio[None])
    for name in ("bias", "spread_skill"):
        width = values.get(f"{name}_interval", 0.01)
        data[f"{name}_interval"] = (
            ("variable", "bound", "prediction_timedelta"),
            [[plain[name] - width, plain[name] + width]],
        )
    leads = (np.arange(1, 7) * HOUR).astype("timedelta64[ns]")
    coords = {
        "variable": ["tas"], "units": ("variable", ["K"]), "prediction_timedelta": leads, "bound": ["lower", "upper"],
        "baseline": ["climatology", "EOF ridge"], "band": ["2-4 cells", "4-8 cells"],
    }  # fmt: skip
    return xr.Dataset(data, coords, {"by_lead": 1})


def said(topic, **values):
    return [(f.level, f.text) for f in verdict(scores(**values)) if f.topic == topic]


def test_good_scores_are_said_in_one_sentence_each():
    assert [(f.level, f.text) for f in verdict(scores())] == [
        ("good", "tas: forecasts' CRPS 0.5 K at 1 h and 1 K at 6 h; it beats climatology by 25 %; EOF ridge by 25 %"),
        ("good", "tas: spread fits the error at all leads (spread/skill 1.00 to 1.00)"),
        ("good", "tas: power within [0.8, 1.25] of the truth's in every octave at all leads"),
    ]


def test_each_baseline_is_told_with_its_leads():
    ridge = [0.3, 0.1, 0.005, -0.005, -0.02, -0.1]
    skill = np.stack([[0.4, 0.3, 0.2, 0.5, 0.3, 0.2], ridge], 1)
    assert said("skill", skill=skill) == [
        ("good", "tas: forecasts' CRPS 0.5 K at 1 h and 1 K at 6 h; it beats climatology by 20 to 50 %"),
        (
            "bad",
            "tas: CRPS beats EOF ridge at 1 h to 2 h by 10 to 30 %, is not distinguishable from it at 3 h to 4 h, loses "
            "to it at 5 h to 6 h by 2 to 10 %",
        ),
    ]
    skill[:, 1] = [0.3, 0.005, 0.3, 0.005, 0.3, 0.3]
    assert said("skill", skill=skill)[1] == (
        "warn",
        "tas: CRPS beats EOF ridge at 1 h, 3 h and 5 h to 6 h by 30 %, is not distinguishable from it at 2 h and 4 h",
    )
    worst = said("skill", skill=np.full((6, 2), -0.2))
    assert worst == [
        ("bad", "tas: forecasts' CRPS 0.5 K at 1 h and 1 K at 6 h; it loses to climatology by 20 %; EOF ridge by 20 %")
    ]
    assert said("skill", skill=np.full((6, 2), np.nan))[0][1].endswith("; no baseline to compare with")


@pytest.mark.parametrize(
    ("ratio", "level", "text"),
    [
        ([1, 1, 0.95, 0.85, 0.8, 0.75], "warn", "spread fits the error at 1 h to 3 h; under-dispersed at 4 h to 6 h, "
         "spread up to 25 % too small (6 h) (spread/skill 0.75 to 1.00)"),
        ([0.6, 1, 1, 1, 1, 1], "bad", "spread fits the error at 2 h to 6 h; under-dispersed at 1 h, spread up to 40 % too "
         "small (1 h) (spread/skill 0.60 to 1.00)"),
        ([1.3] * 6, "warn", "over-dispersed at all leads, spread up to 30 % too large (1 h) (spread/skill 1.30 to 1.30)"),
        ([1.5, 1, 1, 1, 1, 0.8], "bad", "spread fits the error at 2 h to 5 h; under-dispersed at 6 h, spread up to 20 % "
         "too small (6 h); over-dispersed at 1 h, spread up to 50 % too large (1 h) (spread/skill 0.80 to 1.50)"),
    ],
)  # fmt: skip
def test_spread_is_told_with_its_leads(ratio, level, text):
    assert said("calibration", spread_skill=np.array(ratio, float)) == [(level, f"tas: {text}")]


def test_what_chance_explains_is_not_told():
    wide = {"spread_skill": np.full(6, 0.8), "spread_skill_interval": 0.3}
    assert said("calibration", **wide)[0][0] == "good"
    assert said("bias", bias=np.full(6, 0.5), bias_interval=0.6) == []
    assert said("skill", skill_interval=0.3)[0][0] == "warn"


def test_bias_and_scales_are_named_where_they_are_worst():
    bias = np.array([0.1, 0.3, -0.5, 0.6, 0.1, 0.1])
    assert said("bias", bias=bias) == [("warn", "tas: biased at 3 h to 4 h, most at 4 h by +0.6 K, 30 % of the RMSE")]
    ratio = np.ones((6, 2))
    ratio[4:, 0] = 0.7, 0.5
    assert said("spectrum", spectrum_ratio=ratio) == [
        (
            "warn",
            "tas: power outside [0.8, 1.25] of the truth's in 2-4 cells at 5 h to 6 h, worst 0.50 in 2-4 cells at 6 h",
        )
    ]


def test_leads_without_a_truth_are_passed_over():
    crps = np.linspace(0.5, 1.0, 6)
    crps[3:] = np.nan
    assert said("skill", crps=crps)[0][1].startswith("tas: forecasts' CRPS 0.5 K at 1 h and 0.7 K at 3 h")


def test_computed_scores_without_intervals():
    rng, times = np.random.default_rng(0), np.datetime64("2001-01-01", "ns") + np.arange(60) * HOUR
    truth = xr.Dataset({"u": (("time", "y", "x"), rng.normal(size=(60, 6, 6)))}, {"time": times})
    dims = ("realization", "time", "prediction_timedelta", "y", "x")
    drawn = xr.Dataset({"u": (dims, 0.5 * rng.normal(size=(8, 50, 2, 6, 6)))}, {"time": times[:50]})
    drawn = drawn.assign_coords(prediction_timedelta=(np.arange(1, 3) * HOUR).astype("timedelta64[ns]"))
    found = by_lead(drawn, truth, bootstrap=0)
    texts = {f.topic: f.text for f in verdict_by_lead(found)}
    low = float(found.spread_skill.min())
    assert f"under-dispersed at all leads, spread up to {100 * (1 - low):.0f} % too small" in texts["calibration"]
    assert texts["skill"].startswith(f"u: forecasts' CRPS {float(found.crps[0, 0]):.4g} at 1 h and")
