"""The table by lead time: each number is the score, the least CRPS of a row in bold."""

import numpy as np
import pytest
from test_leads import scores

from undrift.report.lead_table import lead_tables
from undrift.report.page import Section, write_page


def with_errors():
    one = scores(rain=True)
    along = ("variable", "prediction_timedelta")
    return one.assign(rmse=(along, [np.arange(5.0) + 2]), bias=(along, [np.arange(5.0) - 2]))


def test_each_cell_is_its_score():
    one = with_errors()
    (table,) = lead_tables(one)
    assert [c.name for c in table.columns] == [
        "lead", "starts", "CRPS", "climatology", "EOF ridge", "RMSE of mean", "bias", "spread / skill", "CSI ≥ 0.100",
        "CSI ≥ 1.00",
    ]  # fmt: skip
    assert [row.name for row in table.rows] == ["6 h", "12 h", "18 h", "24 h", "30 h"]
    at = one.isel(variable=0)
    want = np.stack([at.crps, *at.crps_baseline.values.T, at.rmse, at.bias, at.spread_skill, *at.csi.values.T], 1)
    found = np.array([[float(cell.exact) for cell in row.cells[1:]] for row in table.rows])
    np.testing.assert_allclose(found, want)
    assert [cell.text for cell in table.rows[1].cells[:2]] == ["7", "2.00"]
    assert table.rows[1].cells[1].interval == "1.50 to 2.50"


@pytest.mark.parametrize(("ridge", "best"), [(0.25, 1), (-0.25, 3)])
def test_the_least_is_in_bold(ridge, best):
    one = with_errors()
    one["crps_baseline"][..., 1] = one.crps + ridge
    for row in lead_tables(one)[0].rows:
        assert [k for k, cell in enumerate(row.cells) if cell.best] == [best]


def test_of_many_leads_some_are_shown_and_that_is_said():
    one = with_errors()
    many = one.isel(prediction_timedelta=np.arange(60) % 5).assign_coords(
        prediction_timedelta=(np.arange(1, 61) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    )
    (table,) = lead_tables(many)
    assert len(table.rows) == 24 and table.rows[0].name == "1 h" and table.rows[-1].name == "60 h"
    assert "24 of 60 leads" in " ".join(table.notes)


def test_the_page_has_the_table(tmp_path):
    html = write_page(tmp_path / "page.html", [Section("run", by_lead=with_errors())]).read_text()
    assert 'data-score="crps_baseline;lead=12 h;baseline=EOF ridge">2.25</data>' in html
