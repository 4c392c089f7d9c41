"""What the page says beside its figures, in words and on the axes."""

import numpy as np
import pytest
import xarray as xr
from cases import temperature
from scipy import stats

from undrift.report import plots
from undrift.report.channel import Limits, score_maps
from undrift.report.tables import calibration_table, score_table
from undrift.report.words import provenance, record_text


def record(*parts):
    """Samples of (scenario, first year, last year)."""
    labels = [(name, year) for name, first, last in parts for year in range(first, last + 1)]
    scenario, year = zip(*labels)
    return xr.Dataset(
        {"tas": (("sample", "lat"), np.zeros((len(labels), 2)))},
        coords={"scenario": ("sample", list(scenario)), "year": ("sample", list(year))},
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([("A1B", 1860, 2099), ("E1", 2000, 2069)], "scenario A1B, year 1860 to 2099; scenario E1, year 2000 to 2069"),
        ([("A1B", 1860, 2099), ("E1", 1860, 2099)], "scenario A1B and E1, year 1860 to 2099"),
        ([("A1B", 1860, 2099)], "scenario A1B, year 1860 to 2099"),
        ([(name, 2000 + i, 2010) for i, name in enumerate("abcde")], "scenario a and b and c and d and e, year 2000 to 2010"),
    ],
)  # fmt: skip
def test_a_record_is_not_said_to_hold_what_was_left_out_of_one_scenario(parts, text):
    assert record_text(record(*parts), ["scenario", "year"], ["lat"]) == text


def test_many_words_are_not_told_apart(monkeypatch):
    many = record(*[(f"station {i}", 2000, 2000 + i) for i in range(200)])
    looked = []
    monkeypatch.setattr("undrift.report.words._reach", lambda labels: looked.append(labels) or "once")
    assert record_text(many, ["scenario", "year"], ["lat"]) == "once" and len(looked) == 1


@pytest.fixture(scope="module")
def scores():
    return temperature().scores.isel(variable=0)


def drawn(monkeypatch, scores, units):
    """The axes of each plot by its title, and the words under it."""
    figures = {}
    kept = plots.render

    def render(figure, alt, *, title, **how):
        figures[title] = figure.axes
        return kept(figure, alt, title=title, **how)

    monkeypatch.setattr(plots, "render", render)
    return figures, {one.title: one.caption for one in plots.score_plots(scores, units, "tas")}


def test_every_axis_has_its_units(monkeypatch, scores):
    for units, squared, inverse in [("K", "K²", "K⁻¹"), ("mm day⁻¹", "(mm day⁻¹)²", "(mm day⁻¹)⁻¹")]:
        axes, captions = drawn(monkeypatch, scores, units)
        assert axes["Scales"][0].get_ylabel() == f"power [{squared}]"
        assert axes["Distribution"][0].get_xlabel() == f"value [{units}]"
        assert axes["Distribution"][0].get_ylabel() == f"density [{inverse}]"
        assert axes["Spread against error"][0].get_ylabel() == f"RMSE of the mean [{units}]"
        assert captions["Over the samples"].endswith(f" {units}).")
    axes, _ = drawn(monkeypatch, scores, "1")
    assert axes["Distribution"][0].get_ylabel() == "density" and axes["Scales"][0].get_ylabel() == "power"


def test_each_plot_shows_the_scores(monkeypatch, scores):
    axes, captions = drawn(monkeypatch, scores, "K")
    same = np.testing.assert_allclose
    points = {
        title: [{line.get_label(): line.get_xydata().T for line in one.lines} for one in axes[title]] for title in axes
    }
    top, _ = points["Scales"]
    for name in ("truth", "ensemble"):
        same(top[name], [scores.wavelength, scores[f"spectrum_{name}"]])
    same(axes["Scales"][1].lines[-1].get_xydata().T, [scores.wavelength, scores.spectrum_ratio])
    for name in scores.baseline.values:
        same(top[name][1], (scores.spectrum_ratio_baseline.sel(baseline=name) * scores.spectrum_truth).values)
    inside = int(((scores.spectrum_ratio >= 0.8) & (scores.spectrum_ratio <= 1.25)).sum())
    assert f"at {inside} of {scores.sizes['wavenumber']} wavenumbers" in captions["Scales"]

    (ranks,), count = axes["Rank histogram"], scores.sizes["rank"]
    *bars, band = ranks.patches
    same([bar.get_height() for bar in bars], count * scores.rank_histogram)
    # the index is the mean distance of a bar from 1; of a normal number, that is sqrt(2 / pi) deviations
    half = stats.norm.ppf(0.975) * float(scores.reliability_expected) / np.sqrt(2 / np.pi)
    same([band.get_y(), band.get_y() + band.get_height()], [1 - half, 1 + half], rtol=1e-4)

    same(axes["Spread against error"][0].lines[1].get_xydata().T, [scores.binned_spread, scores.binned_rmse])
    same(points["Over the samples"][0].popitem()[1][1], [scores.crps] * 2)
    same(axes["Over the samples"][0].lines[0].get_ydata(), scores.crps_sample)
    stairs = {one.get_label(): one.get_data() for one in axes["Distribution"][0].patches}
    for name in ("truth", "ensemble"):
        density = scores[f"histogram_{name}"].values / np.diff(scores.histogram_edges)
        same(stairs[name].edges, scores.histogram_edges)
        same(stairs[name].values[density > 0], density[density > 0])
    skills = [(line.get_xdata(), line.get_ydata()) for line in axes["Skill"][0].lines]
    labels = [text.get_text() for text in axes["Skill"][0].get_yticklabels()]
    assert sorted(labels) == sorted(scores.baseline.values) and len(labels) == 2
    for row, name in enumerate(labels):
        for shift, key in ((0.11, "skill"), (-0.11, "variogram_skill")):
            at = [x for x, y in skills if np.allclose(y, row + shift)]
            same(at[0], scores[f"{key}_interval"].sel(baseline=name))
            same(at[1], [scores[key].sel(baseline=name)])


def test_intervals_of_the_tables_are_those_of_the_scores(scores):
    seen = 0
    for row in (*score_table(scores, "K").rows, *calibration_table(scores, "K").rows):
        for cell in row.cells:
            key, *at = cell.key.split(";")
            if f"{key}_interval" not in scores or not cell.interval:
                continue
            bounds = scores[f"{key}_interval"].sel(dict(one.split("=") for one in at)).values
            told = [float(part.replace("−", "-")) for part in cell.interval.split(" to ")]
            assert told == pytest.approx(bounds.tolist(), rel=6e-3), cell.key
            assert told[0] < told[1]
            seen += 1
    assert seen >= 6


def test_samples_are_named_at_equal_distances(monkeypatch, scores):
    labels = [f"year={2070 + i}" for i in range(30)]
    values = ("sample", np.linspace(1.0, 2.0, 30))
    many = scores.drop_dims("sample").assign_coords(sample=labels).assign(crps_sample=values)
    axes, captions = drawn(monkeypatch, many, "K")
    shown = axes["Over the samples"][0]
    assert [text.get_text() for text in shown.get_xticklabels()] == ["2070", "2080", "2090"]
    assert list(shown.get_xticks()) == [0, 10, 20]
    assert "Worst: year=2099 (2.00 K)." in captions["Over the samples"]


def test_the_words_say_what_was_computed(scores):
    """A reader who divides the spread by the RMSE must not wonder at the ratio beside them."""
    members = scores.attrs["n_realizations"]
    table = calibration_table(scores, "K")
    assert f"√({members + 1}/{members})" in table.caption
    factor = np.sqrt((members + 1) / members)
    assert float(scores.spread / scores.rmse * factor) == pytest.approx(float(scores.spread_skill), rel=1e-9)
    assert "cells weighted by area" in score_table(scores, "K").caption
    flat = scores.assign_attrs(weights="equal")
    assert "area" not in score_table(flat, "K").caption
    assert "fair" in " ".join(score_table(scores, "K").notes)
    (maps,) = score_maps(scores, {"units": "K"}, ("lat", "lon"), Limits(60, 1, 1))
    assert maps.caption.startswith("At each cell, over all samples.")


@pytest.mark.parametrize(
    ("cells", "task"), [([4, 4], "downscale by 4 x 4"), ([2, 1], "downscale by 2 x 1"), (None, "downscale")]
)
def test_a_task_is_told_with_the_cells_that_it_really_has(cells, task):
    assert provenance({"task": "downscale", "cells per given cell": cells})["task"] == task


def test_the_page_says_whose_block_means_are_kept():
    told = provenance({"task": "downscale", "block means kept of": ["tas", "pr"]})
    assert "every drawn field of tas, pr; the baselines need not" in str(told["given means over blocks"])
    assert "given means over blocks" not in provenance({"task": "emulate", "block means kept of": []})
