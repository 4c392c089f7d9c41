"""Covariates as numbers: seasons in any calendar, names, trends."""

import cftime
import numpy as np
import pytest

from undrift.data.covariates import Covariate, Covariates
from undrift.errors import DataError


def daily(n=800, start="2001-01-01"):
    return np.datetime64(start, "ns") + np.arange(n) * np.timedelta64(1, "D")


def test_numbers_are_standardised_by_the_training_part():
    part = Covariate.fit("year", np.array([2000, 2010, 2020]))
    np.testing.assert_allclose(part.numbers(np.array([2010, 2030]))[:, 0], [0, 20 / np.std([0, 10, 20])])
    assert part.outside(np.array([1999, 2000, 2020, 2021])) == 0.5


def test_seasons_of_datetimes():
    """2001 has 365 days: day d is at phase d / 365; the record resolves years and, at steps of a day, no days."""
    part = Covariate.fit("time", daily())
    assert (part.kind, part.harmonics) == ("date", ("year",))
    numbers = part.numbers(daily(3, "2001-07-01"))
    phase = 2 * np.pi * (181 + np.arange(3)) / 365
    expected = np.stack([np.cos(phase), np.sin(phase), np.cos(2 * phase), np.sin(2 * phase)], 1)
    np.testing.assert_allclose(numbers[:, 1:], expected, atol=1e-12)
    leap = part.numbers(daily(1, "2004-12-31"))[0, 1:3]
    np.testing.assert_allclose(leap, [np.cos(2 * np.pi * 365 / 366), np.sin(2 * np.pi * 365 / 366)], atol=1e-12)


@pytest.mark.parametrize(
    ("calendar", "length"),
    [
        ("noleap", 365),
        ("360_day", 360),
        ("all_leap", 366),
        ("standard", 365),
        ("proleptic_gregorian", 365),
        ("julian", 365),
    ],
)
def test_seasons_of_other_calendars(calendar, length):
    dates = np.array([cftime.datetime(2001 + y, 10, 1, 6, calendar=calendar) for y in range(3)])
    part = Covariate.fit("time", dates)
    assert part.harmonics == ("year",)
    share = (dates[0].dayofyr - 1 + 0.25) / length
    np.testing.assert_allclose(
        part.numbers(dates)[0, 1:3], [np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)], atol=1e-12
    )


def test_cftime_in_the_gregorian_calendar_equals_datetime64():
    dates = daily(2000)
    others = np.array([cftime.datetime(*map(int, str(d)[:10].split("-")), calendar="standard") for d in dates])
    a, b = Covariate.fit("time", dates), Covariate.fit("time", others)
    np.testing.assert_allclose(b.numbers(others), a.numbers(dates), atol=1e-9)


def test_hours_are_resolved_where_the_steps_are_short():
    hourly = np.datetime64("2001-01-01", "ns") + np.arange(0, 240, 6) * np.timedelta64(1, "h")
    part = Covariate.fit("time", hourly)
    assert part.harmonics == ("day",)
    got = part.numbers(np.array(["2001-03-05T06:00"], dtype="datetime64[ns]"))[0, 1:]
    np.testing.assert_allclose(got, [0, 1, -1, 0], atol=1e-9)


def test_dates_beyond_training_are_told():
    part = Covariate.fit("time", daily(100))
    assert part.outside(daily(100, "2001-03-02")) == pytest.approx(0.6)


def test_names():
    part = Covariate.fit("scenario", np.array(["E1", "A1B", "E1"]))
    assert part.categories == ("E1", "A1B")
    np.testing.assert_array_equal(part.numbers(np.array(["A1B", "E1"])), [[0, 1], [1, 0]])
    with pytest.raises(DataError, match="scenario is 'B2', and training met only E1, A1B"):
        part.numbers(np.array(["B2"]))
    with pytest.raises(DataError, match="covariate 'year' has 1 missing or infinite values"):
        Covariate.fit("year", np.array([1.0, np.nan]))


def test_basis_has_cubic_trends_of_each_category():
    values = {"year": np.array([0.0, 1.0, 2.0, 3.0]), "scenario": np.array(["a", "b", "a", "b"])}
    c = Covariates.fit(values)
    c.degree = 3
    t = (values["year"] - 1.5) / np.std(values["year"])
    a, b = np.array([1, 0, 1, 0.0]), np.array([0, 1, 0, 1.0])
    columns = {tuple(np.round(column, 12)) for column in c.basis(values, 4).T}
    for wanted in (t, t**2, t**3, a, b, a * t, b * t, a * t**2, b * t**2, a * t**3, b * t**3):
        assert tuple(np.round(wanted, 12)) in columns
    assert c.basis(values, 4).shape == (4, 11)
    np.testing.assert_allclose(c.vector(values, 4), np.stack([t, a, b], 1))
    assert c.width == 3 and c.names == ["year", "scenario"]
    assert c.outside({"year": np.array([4.0, 2.0]), "scenario": np.array(["a", "a"])}) == {"year": 0.5}


def test_round_trip():
    values = {"time": daily(), "scenario": np.array(["a", "b"] * 400), "year": np.arange(800)}
    c = Covariates.fit(values)
    again = Covariates.from_list(c.to_list())
    assert again.parts == c.parts
    assert again.width == c.width == c.vector(values, 800).shape[1] == 5 + 2 + 1


def test_nothing_is_empty():
    c = Covariates.fit({})
    assert c.vector({}, 3).shape == (3, 0) and c.basis({}, 3).shape == (3, 0) and c.width == 0


def test_a_record_of_less_than_half_a_day_tells_nothing_of_the_day():
    minutes = np.datetime64("2010-08-26T00:00", "ns") + np.timedelta64(5, "m") * np.arange(400)
    assert Covariate.fit("time", minutes[:92], trend=False).harmonics == ()
    assert Covariate.fit("time", minutes, trend=False).harmonics == ("day",)
