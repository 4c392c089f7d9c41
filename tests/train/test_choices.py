"""What is chosen from data size and budget."""

import numpy as np
import pytest
import xarray as xr

import undrift


def data(samples):
    rng = np.random.default_rng(0)
    coords = {"time": np.arange(samples), "y": np.arange(16.0), "x": np.arange(16.0)}
    values = rng.normal(size=(samples, 16, 16)).astype(np.float32)
    return xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, coords)


def planned(samples, **how):
    return undrift.fit(data(samples), factor=4, holdout="20%", dry_run=True, progress=False, **how)["network"]


@pytest.mark.parametrize(("steps", "dropout"), [(100, 0.1), (1000, 0.2), (5000, 0.3)])
def test_dropout_follows_how_often_training_sees_each_sample(steps, dropout):
    assert planned(150, steps=steps, set={"net.members": 1})["dropout"] == dropout
    assert planned(150, steps=steps, set={"net.dropout": 0.15})["dropout"] == 0.15


def test_several_networks_share_a_long_training():
    assert [planned(150, steps=steps)["members"] for steps in (100, 1300, 5000)] == [1, 2, 4]
    assert planned(150, steps=5000)["dropout"] == 0.2  # each of the four sees a quarter


def test_a_longer_budget_and_fewer_samples_drop_more():
    assert planned(400, budget="2s")["dropout"] < planned(400, budget="10m")["dropout"]
    assert planned(1600, budget="20s")["dropout"] < planned(100, budget="20s")["dropout"]


@pytest.mark.parametrize(
    ("samples", "steps", "channels"),
    [(150, 200, [32, 64, 64]), (150, 400, [64, 64, 64]), (60, 4000, [16, 32, 32])],
)
def test_the_net_is_wide_where_a_narrow_one_has_nothing_more_to_learn(samples, steps, channels):
    assert planned(samples, steps=steps)["channels"] == channels


def test_a_plan_reads_a_few_samples_and_names_the_network_of_the_training(monkeypatch):
    from undrift.train import prepare

    fitted = []

    def spy(target, given, rows, **options):
        fitted.append(len(rows))
        return prepare_fit(target, given, rows, **options)

    prepare_fit = prepare.fit_codec
    monkeypatch.setattr(prepare, "fit_codec", spy)
    plan = planned(300, steps=2)
    model = undrift.fit(data(300), factor=4, holdout="20%", steps=2, progress=False)
    assert fitted[0] == 64 and fitted[1] > 200
    size = sum(p.numel() for p in model.net.parameters())
    assert plan["parameters of each"] == size and plan["channels"] == list(model.net.channels)
