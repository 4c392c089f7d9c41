"""Curves by lead time: what is drawn is what was scored."""

import numpy as np
import pytest
import xarray as xr

from undrift.report import leads
from undrift.report.leads import lead_axis, lead_plots
from undrift.report.page import Section, write_page

HOUR = np.timedelta64(1, "h")


def scores(rain=False):
    """Five leads of six hours, two baselines, and numbers of which each is another."""
    lead = (np.arange(1, 6) * 6 * HOUR).astype("timedelta64[ns]")
    along, rows = ("variable", "prediction_timedelta"), np.arange(1.0, 6)
    data = {
        "crps": (along, [rows]),
        "crps_interval": (("variable", "bound", "prediction_timedelta"), [[rows - 0.5, rows + 0.5]]),
        "crps_baseline": ((*along, "baseline"), [np.stack([2 * rows, rows + 0.25], 1)]),
        "skill": ((*along, "baseline"), [np.stack([0.5 + 0 * rows, 1 - rows / (rows + 0.25)], 1)]),
        "spread_skill": (along, [0.7 + rows / 10]),
        "spectrum_ratio": ((*along, "band"), [np.stack([rows / 5, 1 + 0 * rows], 1)]),
        "n_starts": ("prediction_timedelta", np.full(5, 7)),
    }
    coords = {
        "variable": ["tas"], "units": ("variable", ["K"]), "prediction_timedelta": lead, "bound": ["lower", "upper"],
        "baseline": ["climatology", "EOF ridge"], "band": ["2-4 cells", "4-8 cells"],
    }  # fmt: skip
    if rain:
        coords |= {"threshold": [0.1, 1.0], "scale": [1, 5, 17]}
        data["csi"] = ((*along, "threshold"), [np.stack([0.9 / rows, 0.5 / rows], 1)])
        data["fss"] = ((*along, "threshold", "scale"), np.arange(30.0).reshape(1, 5, 2, 3) / 40)
    return xr.Dataset(data, coords, {"by_lead": 1})


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each plot by the end of its title."""
    figures, kept = {}, leads.render

    def render(figure, alt, *, title, **how):
        figures[title.split(": ")[1]] = figure.axes
        return kept(figure, alt, title=title, **how)

    monkeypatch.setattr(leads, "render", render)
    return figures


def test_curves_are_the_scores(drawn):
    one = scores(rain=True)
    pictures = lead_plots(one, dpi=60)
    assert [p.title.split(": ")[1] for p in pictures] == list(drawn) and len(pictures) == 4
    assert all(p.uri.startswith("data:image/png") for p in pictures)
    crps = {line.get_label(): line.get_xydata() for line in drawn["CRPS by lead time"][0].lines}
    hours = np.arange(6.0, 31, 6)
    np.testing.assert_allclose(crps["ensemble"], np.stack([hours, one.crps.values[0]], 1))
    np.testing.assert_allclose(crps["EOF ridge"][:, 1], one.crps_baseline.values[0, :, 1])
    np.testing.assert_allclose(crps["climatology"][:, 1], one.crps_baseline.values[0, :, 0])
    assert drawn["CRPS by lead time"][0].get_xlabel() == "lead [h]"
    np.testing.assert_allclose(drawn["spread/skill by lead time"][0].lines[-1].get_ydata(), one.spread_skill.values[0])
    ratio = {line.get_label(): line.get_ydata() for line in drawn["scales by lead time"][0].lines}
    np.testing.assert_allclose(ratio["2-4 cells"], one.spectrum_ratio.values[0, :, 0])
    top, low = drawn["events by lead time"]
    np.testing.assert_allclose(top.lines[1].get_ydata(), one.csi.values[0, :, 1])
    np.testing.assert_allclose(low.lines[0].get_ydata(), one.fss.sel(scale=5).values[0, :, 0])


def test_words_say_which_baseline_is_nearest():
    """1 - 1 / 1.25 = 20 % at the first lead and 1 - 5 / 5.25 = 4.8 % at the last."""
    text = lead_plots(scores(), dpi=60)[0].caption
    assert "At 6 h it is 20 % below that of EOF ridge" in text and "At 30 h it is 4.8 % below" in text
    worse = scores()
    worse["skill"] = worse.skill - 0.3
    assert "At 6 h it is 10 % above that of EOF ridge" in lead_plots(worse, dpi=60)[0].caption


def test_what_was_not_scored_is_not_drawn():
    one = (
        scores()
        .drop_vars(["spectrum_ratio", "crps_baseline", "skill", "crps_interval"])
        .drop_dims(["baseline", "band"])
    )
    one["spread_skill"] = one.spread_skill * np.nan
    assert [p.title for p in lead_plots(one, dpi=60)] == ["tas: CRPS by lead time"]


@pytest.mark.parametrize(
    ("leads", "most", "text"),
    [
        (np.arange(1, 25) * 300 * np.timedelta64(1, "s"), 120, "lead [min]"),
        (np.arange(1, 9) * 6 * HOUR, 48, "lead [h]"),
        (np.arange(1, 11) * 24 * HOUR, 10, "lead [days]"),
        (np.arange(1, 11), 10, "lead [steps]"),
    ],
)
def test_leads_are_in_a_unit_of_which_there_are_some(leads, most, text):
    x, words = lead_axis(xr.Dataset(coords={"prediction_timedelta": leads}))
    assert x[-1] == pytest.approx(most) and words == text


def test_the_page_has_the_curves_and_a_link_to_them(tmp_path):
    path = write_page(tmp_path / "page.html", [Section("run", by_lead=scores())])
    html = path.read_text()
    assert '<h3 id="s1leads">Forecasts by lead time</h3>' in html and '<a href="#s1leads">By lead time</a>' in html
    assert html.count("by lead time</span>") == 3
