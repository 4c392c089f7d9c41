import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from browser import CHROMIUM, Browser
from cases import curvilinear, free_running, profile, rain_on_levels, section_of, temperature, volume
from PIL import Image

from undrift.errors import UsageError
from undrift.report import Section, write_page
from undrift.report.channel import Limits, Source
from undrift.report.page import MOST_BYTES

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> $\\frac{ & {{ 7*7 }}"


class Reader(HTMLParser):
    """Tags in order with their attributes, images, and numbers by their key."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.images, self.numbers, self._data = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "img":
            self.images.append(attrs)
        if tag == "data":
            self._data = (attrs["data-score"], float(attrs["value"]))

    def handle_data(self, data):
        if self._data:
            self.numbers.append((*self._data, data))
            self._data = None


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One page with the hostile section, a two-channel one and a free-running one, and the sections themselves."""
    hostile = temperature(
        name="tas" + HOSTILE, attrs={"units": "K" + HOSTILE, "long_name": HOSTILE}, title=HOSTILE, verdict=[HOSTILE],
        question=[HOSTILE], notes=[HOSTILE], facts={HOSTILE: HOSTILE, "commands": [HOSTILE], "nested": {"a": {"b": HOSTILE}}},
    )  # fmt: skip
    hostile.truth.attrs["license"] = HOSTILE
    sections = [rain_on_levels(), hostile]
    path = write_page(tmp_path_factory.mktemp("page") / "report.html", sections, title=HOSTILE)
    return path, path.read_text("utf-8"), sections


def test_every_number_of_the_tables_is_the_scores_own(page):
    """Each cell carries the exact value, and its text is that value to the digits shown."""
    _, html, sections = page
    read = Reader(html)
    pools = []
    for section in sections:
        for name in section.scores["variable"].values:
            pools.append(section.scores.sel(variable=name))
    assert len(read.numbers) > 60
    keys = {key.split(";")[0] for key, _, _ in read.numbers}
    assert {"crps", "crps_baseline", "skill", "spread_skill", "rmse", "variogram", "quantiles_truth"} <= keys
    parts = re.split(r'<h3 id="s\d+c\d+">', html)[1:]
    assert len(parts) == len(pools)
    for part, pool in zip(parts, pools):
        numbers = Reader(part.split("<article")[0]).numbers  # the next section's overview is not of this channel
        assert len(numbers) > 20
        for key, value, text in numbers:
            name, *at = key.split(";")
            where = {k: (float(v) if k == "quantile" else v) for k, v in (one.split("=", 1) for one in at)}
            np.testing.assert_equal(value, float(pool[name].sel(where)), err_msg=key)
            if np.isfinite(value) and value != 0:
                assert float(text.replace("−", "-")) == pytest.approx(value, rel=6e-3), key


def test_best_is_bold_and_it_is_the_smallest(page):
    """In each column of a score table the bold cell holds the column's least value."""
    _, html, _ = page
    table = next(t for t in re.findall(r"<table>.*?</table>", html, re.S) if "variogram score" in t)
    rows = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", table, re.S)
    crps = [
        (float(re.search(r'value="([^"]+)"', row)[1]), row.split("<td", 2)[1].startswith(' class="best"'))
        for row in rows
    ]
    assert len(crps) == 3
    assert [bold for _, bold in crps] == [value == min(v for v, _ in crps) for value, _ in crps]


def test_hostile_text_is_only_text(page):
    """Fault row 50: names, attributes, titles and facts with markup, mathematics or template syntax stay inert."""
    _, html, _ = page
    read = Reader(html)
    assert not [tag for tag, _ in read.tags if tag in ("script", "iframe", "object", "embed", "form")]
    assert not [attrs for _, attrs in read.tags if any(name.startswith("on") for name in attrs)]
    assert all(image["src"].startswith("data:image/") for image in read.images)
    assert (
        "&lt;script&gt;alert(" in html and "{{ 7*7 }}" in html and "49" not in re.findall(r"frac\{ &amp; (\S+)", html)
    )
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", html), "the page must load nothing"
    assert "url(" not in html and "@import" not in html


def test_pictures_decode_and_show_something(page):
    """Every image has words in its place, decodes, and is not one flat colour."""
    _, html, _ = page
    images = Reader(html).images
    assert len(images) > 60
    for image in images:
        assert len(image["alt"]) > 15
        kind, data = re.fullmatch(r"data:(image/[a-z+]+);base64,(.*)", image["src"]).groups()
        raw = base64.b64decode(data)
        if kind == "image/png":
            pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("L"), dtype=float)
            assert pixels.std() > 10, image["alt"]
        else:
            root = ElementTree.fromstring(raw)
            assert not [e for e in root.iter() if e.tag.endswith(("script", "foreignObject"))]
            assert len([e for e in root.iter() if e.tag.endswith("path")]) > 5


def test_size_and_order(page):
    """Below 5 MB, and the verdict stands before everything else."""
    path, html, _ = page
    assert path.stat().st_size < MOST_BYTES
    assert html.index("Verdict") < html.index("<main>") < html.index("CRPS")
    for text in (
        "How to reproduce it",
        "Provenance",
        "Training curve",
        "Rank histogram",
        "Spread against error",
        "Scales",
    ):
        assert text in html
    assert "undrift train a.nc b.nc --out run\nundrift report run" in html


def test_a_large_section_stays_below_the_limit_and_says_what_is_left(tmp_path, monkeypatch):
    """Eight noisy levels: at most six are shown, fewer where the page would be too large, and the rest are counted."""
    rng = np.random.default_rng(1)
    shape, dims = (2, 8, 60, 80), ("time", "plev", "lat", "lon")
    coords = {
        "time": [1, 2],
        "plev": np.arange(8) * 100,
        "lat": np.linspace(-60, 60, 60),
        "lon": np.linspace(0, 300, 80),
    }
    truth = xr.Dataset({"ta": (dims, rng.standard_normal(shape, "f4"))}, coords)
    ensemble = xr.Dataset({"ta": (("realization", *dims), rng.standard_normal((3, *shape), "f4"))}, coords)
    monkeypatch.setattr("undrift.report.page._LADDER", (Limits(60, 6, 1), Limits(60, 2, 1)))
    for kind in ("_png", "_svg"):  # what a picture weighs, and not what it shows
        monkeypatch.setattr(f"undrift.report.picture.{kind}", lambda *_: bytes(20_000))
    shown, most = [], MOST_BYTES
    for _ in range(2):
        monkeypatch.setattr("undrift.report.page.MOST_BYTES", most)
        html = write_page(tmp_path / "r.html", [Section("Noise", ensemble=ensemble, truth=truth)]).read_text("utf-8")
        assert len(html.encode()) < most
        most = len(html.encode()) - 1
        shown.append(len(re.findall(r"<h3[^>]*>ta, plev", html)))
        assert shown[-1] + int(re.search(r"(\d+) further fields are not shown", html)[1]) == 8
    assert shown == [6, 2]


def test_free_running_claims_no_crps(tmp_path):
    """Without counterparts no number of matched verification appears, and the caption says what the truth is."""
    section = free_running()
    assert section.scores.attrs["matched"] == 0
    html = write_page(tmp_path / "r.html", [section]).read_text("utf-8")
    assert "crps" not in {key.split(";")[0] for key, _, _ in Reader(html).numbers}
    numbers = [(key, value) for key, value, _ in Reader(html).numbers if key == "mean_shift"]
    assert numbers == [("mean_shift", float(section.scores["mean_shift"][0]))]
    assert "free-running" in html and "Where the laws differ" in html and "Rank histogram" not in html


def test_a_page_without_scores_or_truth(tmp_path):
    """Realizations alone, and a section that has nothing but words, are pages too."""
    one = temperature()
    html = write_page(
        tmp_path / "r.html", [Section("Bare", ensemble=one.ensemble), Section("Words", ["only"])]
    ).read_text("utf-8")
    assert "Realization 1" in html and "Truth" not in html and "No verdict was made." in html


def test_refusals(tmp_path):
    """No section, and a file that may not be replaced, are usage errors; the file stays as it was."""
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        write_page(tmp_path / "r.html", [Section("a")], overwrite=False)
    with pytest.raises(UsageError, match="at least one section"):
        write_page(tmp_path / "r.html", [])
    assert (tmp_path / "r.html").read_text() == "mine"
    write_page(tmp_path / "r.html", [Section("a")])
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"], "no temporary file may stay"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(page, browser, width):
    """No console error, no missing image, nothing asked of the network, no horizontal overflow."""
    path, _, _ = page
    facts = browser.open(path, width)
    assert abs(facts["width"] - width) <= 20
    assert facts["console"] == [] and facts["requests"] == [] and facts["scripts"] == 0
    assert facts["scroll"] <= facts["width"] and facts["wide"] == []
    assert width < 1400 or facts["cut"] == [], "on a wide screen no table is cut off"
    assert len(facts["images"]) > 60
    assert all(i["done"] and i["natural"] > 0 and i["shown"] > 100 for i in facts["images"])
    assert "Verdict" in facts["text"] and HOSTILE.split(" $")[0] in facts["text"]


def test_the_browser_test_sees_faults(browser, tmp_path):
    """The probe itself: a script error, a missing image and a wide element are each reported."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='nowhere.png'><div style='width:3000px'>x</div><script>undefined_name()</script>")
    facts = browser.open(bad, 400)
    assert facts["scroll"] > facts["width"] and facts["wide"] and not facts["cut"]
    assert any("undefined_name" in str(e) for e in facts["console"])
    assert any(i["natural"] == 0 for i in facts["images"])
    bad.write_text("<div class='wide' style='overflow-x: auto'><div style='width:3000px'>x</div></div>")
    facts = browser.open(bad, 1400)
    assert len(facts["cut"]) == 1 and facts["wide"] == [], "what scrolls by itself is wide nowhere else"


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (curvilinear, "Map of truth: sst [degC]"),
        (profile, "Line plot of given, truth and realizations: u [m\u00a0s⁻¹]"),
        (volume, "Map of truth: density"),
    ],
)
def test_other_geometries_in_a_browser(make, shown, browser, tmp_path):
    """Curvilinear grids across the date line, one dimension and three."""
    path = write_page(tmp_path / "r.html", [make()])
    facts = browser.open(path, 400)
    assert facts["console"] == [] and facts["scroll"] <= facts["width"]
    assert sum(i["alt"].startswith(shown) for i in facts["images"]) == 2, "of a typical and of a hard sample"
    assert len(facts["images"]) > 10
    assert all(i["done"] and i["natural"] > 0 and i["shown"] > 100 for i in facts["images"])


def test_levels_are_matched_with_their_own_scores():
    """A second level whose errors are ten times larger gets its own, ten times larger CRPS."""
    section = rain_on_levels()
    scaled = {}
    for name in ("ensemble", "truth"):
        low = getattr(section, name).isel(height=[0])
        scaled[name] = xr.concat([low, 10 * low.assign_coords(height=[100.0])], "height")
    source = Source(section_of(scaled["ensemble"], scaled["truth"]))
    assert [level for _, level in source.channels] == [{"height": 0}, {"height": 1}]
    crps = [float(source.scores_of("pr", level)["crps"]) for _, level in source.channels]
    assert crps[1] == pytest.approx(10 * crps[0], rel=1e-5)
    assert [source.title("pr", level).split(", ")[1] for _, level in source.channels] == ["height 10 m", "height 100 m"]
