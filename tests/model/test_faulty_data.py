"""What training does with data that have a fault."""

from model_fields import fields, tiny_fit


def test_training_warns_of_bare_fill_values(caplog):
    data = fields()
    data.tas.values[3, 1, :4] = -999.0
    tiny_fit(data, dry_run=True)
    assert (
        "tas has 4 times -999, which looks like an undeclared fill value: set the attribute _FillValue" in caplog.text
    )
