import numpy as np
import pytest
import xarray as xr
from cases import SAMPLES, curvilinear, law, rain_on_levels, section_of, temperature
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, PowerNorm

from undrift.report.channel import Limits, Source, channel_maps
from undrift.report.geometry import central, plan_axes, thin
from undrift.report.maps import draw_departures, draw_groups, draw_sample
from undrift.report.picture import Picture
from undrift.report.plots import score_plots
from undrift.report.samples import choose_samples, counterpart, given_for, take
from undrift.report.style import kind_of, label, number, plain, power_of, scale_for, tick, units_text, with_power
from undrift.report.words import grid_text
from undrift.verify.match import Axes as Dims


def sample_of(section):
    """First sample of a section: truth, members, given."""
    name = next(iter(section.truth.data_vars))
    at = {"time": 0}
    return section.truth[name].isel(at), section.ensemble[name].isel(at), section.given[name].isel(at)


def test_fields_of_one_unit_share_one_scale_and_the_spread_has_its_own():
    """Given, truth, realizations and mean are drawn in the very same norm, that covers their pooled range."""
    truth, members, given = sample_of(temperature())
    drawn = draw_sample(truth, members, given, space=("lat", "lon"))
    own = {title: scale for title, scale in drawn.scales.items() if title != "Ensemble spread"}
    assert list(own) == ["Given", "Truth", "Realization 1", "Realization 2", "Realization 3", "Ensemble mean"]
    assert len({id(scale) for scale in own.values()}) == 1
    pool = np.concatenate(
        [f.values.ravel() for f in (given, truth, members[0], members[1], members[2], members.mean("realization"))]
    )
    assert own["Truth"].limits == pytest.approx(tuple(np.quantile(pool.astype(float), [0.002, 0.998])))
    spread = drawn.scales["Ensemble spread"].limits
    assert spread[0] == 0 and 0 < spread[1] < own["Truth"].limits[1] / 10
    assert own["Truth"].label == "2 m temperature [K]" and drawn.scales["Ensemble spread"].label.endswith("[K]")
    assert [bar.title for bar in drawn.bars] == [", ".join(own), "Ensemble spread"]


def test_each_map_shows_its_field_on_its_cells(monkeypatch):
    seen = []
    mesh = Axes.pcolormesh
    monkeypatch.setattr(
        Axes, "pcolormesh", lambda self, x, y, c, **how: seen.append((x, y, c)) or mesh(self, x, y, c, **how)
    )
    truth, members, given = sample_of(temperature())
    drawn = draw_sample(truth, members, given, space=("lat", "lon"))
    departures = draw_departures(truth, members, space=("lat", "lon"), member="realization")
    values, mean = members.values.astype(float), members.values.astype(float).mean(0)
    expected = {
        "Given": given.values,
        "Truth": truth.values,
        **{f"Realization {m + 1}": values[m] for m in range(3)},
        "Ensemble mean": mean,
        "Ensemble spread": np.sqrt(((values - mean) ** 2).sum(0) / (len(values) - 1)),
        "Truth − mean": truth.values - mean,
        **{f"Realization {m + 1} − mean": values[m] - mean for m in range(2)},
    }
    titles = [panel.title for panel in (*drawn.panels, *departures.panels)]
    assert titles == list(expected)
    maps = [one for one in seen if one[2].shape[1] > 1]  # the others are colour bars
    for title, (x, y, cells) in zip(titles, maps, strict=True):
        np.testing.assert_allclose(cells, expected[title], rtol=1e-5, atol=1e-3, err_msg=title)
        field = given if title == "Given" else truth
        for edges, centres in ((x, field.lon.values), (y, field.lat.values)):
            np.testing.assert_allclose((edges[1:] + edges[:-1]) / 2, centres, err_msg=title)


def test_given_of_other_units_has_a_scale_of_its_own():
    """A map in other units cannot be read on the truth's scale."""
    truth, members, given = sample_of(temperature())
    given = (given * 0 + 5).assign_attrs(units="hPa", long_name="pressure")
    drawn = draw_sample(truth, members, given, space=("lat", "lon"))
    assert drawn.scales["Given"] is not drawn.scales["Truth"]
    assert drawn.scales["Given"].label == "pressure [hPa]" and len(drawn.bars) == 3


def test_two_samples_of_one_field_share_the_scale():
    """The typical and the hard sample can be compared by eye."""
    source = Source(temperature())
    maps = channel_maps(source, "tas", {}, Limits(60, 6, 1), 2)
    typical, hard = maps[0], maps[-1]
    assert (
        typical.heading.startswith("A typical")
        and hard.heading.startswith("A hard")
        and "time=2001-01-0" in hard.heading
    )
    assert typical.scales["Truth"] is hard.scales["Truth"]


def test_samples_are_those_of_median_and_worst_tenth_crps():
    """With the truth shifted by 0, 1, ... the median is the middle shift and the hard one nine tenths up."""
    ensemble, truth, _ = law(
        "t", ("time", "y", "x"), {"time": np.arange(11) * 2}, {"units": "K"}, lambda z: z, {"y": 8, "x": 9}
    )
    shift = np.array([3, 0, 7, 1, 10, 2, 9, 4, 8, 5, 6])
    ensemble = ensemble + 100.0 * xr.DataArray(shift, dims="time")
    source_axes = Source(type("S", (), {"ensemble": ensemble, "truth": truth, "given": None, "scores": None}))
    chosen = choose_samples(ensemble["t"], truth["t"], source_axes.axes, source_axes.truth_pairs, ["time"])
    assert [shift[s.ensemble] for s in chosen] == [5, 9]
    assert [s.text for s in chosen] == ["time=18", "time=12"]


def test_truth_and_given_are_found_by_label_not_by_place():
    """A truth that begins earlier and runs backwards, and a given with one sample missing."""
    section = temperature()
    truth = xr.concat(
        [section.truth, section.truth.assign_coords(time=section.truth.time - np.timedelta64(99, "D"))], "time"
    )
    truth = truth.isel(time=slice(None, None, -1))
    source = Source(
        type(
            "S",
            (),
            {
                "ensemble": section.ensemble,
                "truth": truth,
                "given": section.given.isel(time=slice(1, None)),
                "scores": None,
            },
        )
    )
    assert len(source.truth_pairs) == SAMPLES and len(source.given_pairs) == SAMPLES - 1
    for e, t in source.truth_pairs.items():
        assert take(truth, ["time"], t).time == section.ensemble.time[e]
    assert 0 not in source.given_pairs and source.given_pairs[1] == 0
    static = section.given.isel(time=0, drop=True)
    assert set(counterpart(static, section.ensemble, source.axes).values()) == {0}


def test_a_truth_on_more_cells_is_drawn_on_those_of_the_ensemble():
    """A truth with the edge that training trimmed, latitude reversed and longitude in 0..360 gives the same maps."""
    section = temperature()
    wide = section.truth.pad(lat=(0, 1), lon=(0, 1), mode="edge")
    wide = wide.assign_coords(lat=np.linspace(30, 54, 25), lon=np.linspace(-20, 12, 33))
    wide = wide.isel(lat=slice(None, None, -1)).assign_coords(lon=wide.lon % 360).sortby("lon")
    expected, found = [
        Source(type("S", (), {"ensemble": section.ensemble, "truth": truth, "given": None, "scores": None}))
        for truth in (section.truth, wide)
    ]
    np.testing.assert_array_equal(found.truth.tas.values, section.truth.tas.values)
    np.testing.assert_array_equal(found.truth.lon.values, section.ensemble.lon.values)
    maps = [channel_maps(one, "tas", {}, Limits(60, 6, 1), 1)[0] for one in (expected, found)]
    assert maps[0].heading == maps[1].heading and maps[0].caption == maps[1].caption
    assert [p.uri for p in maps[0].panels] == [p.uri for p in maps[1].panels]


def test_given_variable_is_chosen_by_name_then_units():
    """Same name first, same units next, else the first field there is."""
    grid = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"))
    given = xr.Dataset({"a": grid.assign_attrs(units="m"), "b": grid.assign_attrs(units="K"), "c": grid})
    assert given_for(given, "c", {}, "K").name == "c"
    assert given_for(given, "tas", {}, "K").name == "b"
    assert given_for(given, "tas", {}, "Pa").name == "a"
    assert given_for(None, "tas", {}, "Pa") is None


@pytest.mark.parametrize(
    ("name", "attrs", "values", "kind"),
    [
        ("tas", {"units": "degC"}, [-5.0, 20.0], "temperature"),
        ("x", {"long_name": "surface temperature anomaly", "units": "K"}, [-2.0, 3.0], "diverging"),
        ("pr", {"units": "mm/day"}, [0.0, 30.0], "rain"),
        ("u", {"units": "m s-1"}, [-10.0, 12.0], "diverging"),
        ("rho", {}, [1e-3, 1.0, 1e3], "logarithmic"),
        ("hus", {"units": "kg kg-1"}, [1e-3, 2e-2], "sequential"),
    ],
)
def test_colours_follow_what_the_field_is(name, attrs, values, kind):
    assert kind_of(name, attrs, np.array(values)) == kind


def test_scales_by_kind():
    """Diverging scales are symmetric about 0, rain starts at 0, heavy tails get a norm that shows them."""
    rng = np.random.default_rng(0)
    assert sum(scale_for("u", {}, [rng.standard_normal(500) + 0.3], kind="diverging").limits) == pytest.approx(0)
    rain = scale_for("pr", {}, [np.maximum(rng.standard_normal(900) - 1, 0) ** 3])
    assert rain.limits[0] == 0 and isinstance(rain.norm, PowerNorm) and rain.cmap(0.0)[:3] == (1, 1, 1)
    assert isinstance(scale_for("rho", {}, [np.exp(3 * rng.standard_normal(900))]).norm, LogNorm)
    low, high = scale_for("r", {}, [np.exp(rng.standard_normal(900))], kind="ratio").limits
    assert low * high == pytest.approx(1)
    for flat in ([np.full(9, 280.0)], [np.full(9, np.nan)], [np.zeros(9)]):
        low, high = scale_for("tas", {"units": "K"}, flat).limits
        assert low < high


@pytest.mark.parametrize("kind", ["rain", "score", "temperature", "sequential"])
def test_lightness_is_monotone_and_even(kind):
    """CIELAB lightness of sequential maps goes one way in nearly equal steps."""
    rgb = scale_for("x", {}, [np.array([0.0, 1.0])], kind=kind).cmap(np.linspace(0, 1, 11))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = np.diff(lightness)
    assert np.all(steps > 0) or np.all(steps < 0)
    assert np.abs(steps).max() < 2.2 * np.abs(steps).min()
    assert np.ptp(lightness) > 60


def test_curvilinear_longitudes_do_not_jump_at_the_date_line():
    """Neighbouring columns 0.8 degrees apart stay so across 180."""
    field = curvilinear().truth["sst"].isel(time=0)
    y, x = plan_axes(field, ("j", "i"))
    assert (y.degrees, x.degrees) == ("N", "E")
    assert np.diff(x.values, axis=1) == pytest.approx(0.8) and x.values.max() > 180


def test_axes_have_units():
    """Degrees, kilometres for long axes in metres, cells where there is no coordinate."""
    field = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"), coords={"y": ("y", [0.0, 5000, 10000], {"units": "m"})})
    y, x = plan_axes(field, ("y", "x"))
    assert y.label == "y [km]" and y.values.tolist() == [0, 5, 10] and x.label == "x (cell)"
    lat = xr.DataArray(np.zeros(3), dims="lat", coords={"lat": [10.0, 20, 30]})
    assert plan_axes(lat, ("lat",))[0].label == "latitude [°N]"


def test_volumes_show_the_middle_and_fine_fields_block_means():
    """The slice is that of the middle cell, and a thinned field keeps its mean."""
    volume = xr.DataArray(np.arange(24.0).reshape(4, 2, 3), dims=("z", "y", "x"), coords={"z": [0.0, 1, 2, 3]})
    cut, note = central(volume, ("z", "y", "x"))
    assert np.array_equal(cut, volume[2]) and "z (2.00)" in note
    fine = xr.DataArray(np.random.default_rng(0).standard_normal((720, 360)), dims=("y", "x"))
    coarse = thin(fine, ("y", "x"))
    assert coarse.shape == (360, 360) and float(coarse.mean()) == pytest.approx(float(fine.mean()))


def test_groups_without_values_are_left_out():
    """A map that is nowhere finite is not drawn."""
    empty = xr.DataArray(np.full((3, 3), np.nan), dims=("y", "x"))
    assert draw_groups([({"CRPS": empty}, {}, "score")], ("y", "x")) == []


def test_a_power_of_ten_stands_in_the_label_and_nowhere_else(monkeypatch):
    """Rain in mm s-1: matplotlib would print 1e-5 over the label of its colour bar and in a corner of its plots."""
    figures = []
    for module in ("maps", "plots"):
        path = f"undrift.report.{module}.render"
        monkeypatch.setattr(path, lambda figure, alt, **more: figures.append(figure) or Picture("", alt, 1, 1))
    section = rain_on_levels()
    rain, members = (ds.pr.isel(time=0, height=0) / 86400 for ds in (section.truth, section.ensemble))
    draw_sample(rain, members.assign_attrs(units="mm s-1", long_name="rain"), None, space=("y", "x"))
    small = section_of(*(ds / 86400 for ds in (section.ensemble, section.truth)))
    score_plots(small.scores.isel(variable=0), units_text("mm s-1"), "pr")
    labels = []
    for figure in figures:
        figure.canvas.draw()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                assert axis.get_offset_text().get_text() == ""
                labels.append(axis.get_label_text())
    assert "rain [10⁻⁴ mm s⁻¹]" in labels and "RMSE of the mean [10⁻⁵ mm s⁻¹]" in labels
    assert "power [(mm s⁻¹)²]" in labels


def test_each_map_of_scores_has_its_bar_under_it():
    field = xr.DataArray(np.random.default_rng(0).random((3, 4)), dims=("y", "x"))
    (drawn,) = draw_groups(
        [({"CRPS": field, "Spread": field}, {}, "score"), ({"Bias": field}, {}, "diverging")], ("y", "x")
    )
    assert [bar.title for bar in drawn.under] == [panel.title for panel in drawn.panels] and drawn.bars == []


def test_degrees_are_written_as_on_the_axes():
    grid = xr.Dataset(
        coords={
            "lat": ("lat", np.linspace(-10.0, 58.75, 5), {"units": "degrees_north"}),
            "lon": ("lon", (np.linspace(340.0, 380.0, 6)) % 360, {"units": "degrees_east"}),
            "x": ("x", np.arange(3.0) * 500, {"units": "m"}),
        }
    )
    on = lambda *space: Dims(None, (), space, tuple(grid.sizes[d] for d in space), (False,) * 2, None, None)  # noqa: E731
    assert grid_text(grid, on("lat", "lon")) == "5 x 6 cells, 10°S to 58.75°N, 20°W to 20°E"
    assert grid_text(grid, on("lat", "x")) == "5 x 3 cells, 10°S to 58.75°N, x 0 to 1000 m"


def test_text_of_labels_and_numbers():
    """Units stand in brackets, mathematics stays text, numbers keep three digits."""
    assert label("tas", {"standard_name": "air_temperature", "units": "K"}) == "air temperature [K]"
    assert label("frac", {"units": "1"}) == "frac"
    assert label("pr", {"long_name": "lwe_precipitation_rate", "units": "kg m-2 s**-1"}) == (
        "lwe precipitation rate [kg\u00a0m⁻²\u00a0s⁻¹]"
    )
    assert [units_text(u) for u in ("mm/day", "degC", "%", "10 m", "K$x_2$")] == [
        "mm/day",
        "degC",
        "%",
        "10 m",
        "K$x_2$",
    ]
    assert [power_of(v) for v in (4.6e-5, 300, 0.02, 2e6, 0, np.nan)] == [-5, 0, 0, 6, 0, 0]
    assert with_power("CRPS", -5) == "CRPS [10⁻⁵]"
    assert plain("a$b\n$c") == r"a\$b \$c"
    assert [number(v) for v in (0.08312, 123.4, -1.5, 0, 1e-7, np.nan)] == [
        "0.0831",
        "123",
        "−1.50",
        "0",
        "1.00e−07",
        "–",
    ]
    assert [tick(v) for v in (1e-6, 0.01, 1, 100, 1e6)] == ["10⁻⁶", "0.01", "1", "100", "10⁶"]
