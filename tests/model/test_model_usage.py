"""What a caller may get wrong, and is told before anything is trained."""

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import draw, fields, tiny_fit
from torch import nn

import undrift
from undrift.errors import UsageError


class Own(nn.Module):
    """A network of a user's, with a number of channels in and out."""

    def __init__(self, taken, given=1, kernel=3):
        super().__init__()
        self.layer = nn.Conv2d(taken, given, kernel, padding=1)
        self.calls = 0

    def forward(self, x, t, vector):
        self.calls += 1
        return self.layer(x)


def test_a_network_of_ones_own_is_asked_once_before_it_is_trained():
    with pytest.raises(UsageError, match=r"net=Own fails on x \(8, (\d+), 8, 12\), t \(8,\), vector None") as caught:
        tiny_fit(fields(), net=Own(99))
    taken = int(str(caught.value).split("(8, ")[1].split(",")[0])
    for wrong, shape in ((Own(taken, 3), r"\(8, 3, 8, 12\)"), (Own(taken, kernel=1), r"\(8, 1, 10, 14\)")):
        with pytest.raises(UsageError, match=rf"returns {shape}, expected \(8, 1, 8, 12\)"):
            tiny_fit(fields(), net=wrong)
        assert wrong.calls == 1
    right = Own(taken)
    before = right.layer.weight.detach().clone()
    random = torch.random.get_rng_state()
    model = tiny_fit(fields(), net=right)
    assert torch.equal(random, torch.random.get_rng_state())
    assert isinstance(model.net, Own) and not torch.equal(model.net.layer.weight, before)
    first, model.net.calls = draw(model, holdout=True), 0
    truth = model.holdout_truth()
    assert float((first.tas.mean("realization") - truth.tas).std()) < 0.5 * float(truth.tas.std())
    xr.testing.assert_identical(draw(model, holdout=True), first)
    assert model.net.calls == 2 * -(-2 * truth.sizes["time"] // 8)  # two evaluations of eight fields at a time
    with torch.no_grad():
        model.net.layer.bias += 1.0
    assert float(np.abs(draw(model, holdout=True).tas - first.tas).max()) > 1e-2, "it is this network that draws"


def test_a_budget_and_steps_are_refused_however_they_are_set(tmp_path):
    both = {"train.budget": "3m", "train.steps": 5}
    with pytest.raises(UsageError, match="train.budget=180s and train.steps=5 both say how long"):
        tiny_fit(fields(), steps=None, set=both)
    (tmp_path / "budget.toml").write_text("[train]\nbudget = '3m'\n")
    model = tiny_fit(fields(), steps=2, config=tmp_path / "budget.toml")  # what is typed replaces it
    assert (model.config.train.steps, model.config.train.budget) == (2, None)


@pytest.mark.parametrize(("crop", "told"), [(99, True), (12, True), (8, False), ("auto", False)])
def test_a_crop_that_cuts_nothing_is_told(caplog, crop, told):
    with caplog.at_level("INFO"):
        tiny_fit(fields(), crop=crop)
    assert told == (f"--crop {crop} is no smaller than the field of 8 x 12: the whole field is used" in caplog.text)


def test_settings_that_differ_are_named_without_the_words_of_python(tmp_path):
    data = fields()
    tiny_fit(data, steps=2, out=tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        tiny_fit(data, steps=None, budget="3m", out=tmp_path / "run", resume=True)
    assert "steps: was 2, now absent" in str(caught.value) and "budget: was absent, now 180" in str(caught.value)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_resume_that_the_settings_refuse_reads_no_data(tmp_path, monkeypatch, checkpoint):
    """Of a finished run, and of one of which there is a checkpoint only; what is allowed goes on to the data."""
    data, run = tmp_path / "data.nc", tmp_path / "run"
    fields().to_netcdf(data)
    open_ends = {"net.channels": []}
    tiny_fit(data, steps=2, out=run, set=open_ends)
    if checkpoint:
        folder = run / "checkpoints" / "step-00000002"
        folder.mkdir(parents=True)
        (run / "state.safetensors").rename(folder / "state.safetensors")
        (run / "manifest.json").unlink()

    def read(*_):
        raise InterruptedError

    monkeypatch.setattr("undrift.model.training.open_data", read)
    again = {"steps": 2, "out": run, "resume": True, "set": open_ends}
    for change, told in [
        ({"seed": 1}, "config.train.seed: was 0, now 1"),
        ({"task": "emulate"}, 'config.task.name: was "downscale", now "emulate"'),
        ({"data": tmp_path / "other.nc"}, "config.data.paths: was .*data.nc.*, now .*other.nc"),
        ({"steps": 1}, "steps: was 2, now 1"),
        ({"steps": None, "budget": 3}, "steps: was 2, now absent\n  budget: was absent, now 3"),
        ({"seed": 1, "dry_run": True}, "config.train.seed"),
    ]:
        with pytest.raises(UsageError, match=rf"--resume {run} with other settings or data:\n  {told}"):
            tiny_fit(**{"data": data, **again, **change})
    for allowed in ({}, {"steps": 4}):
        with pytest.raises(InterruptedError):
            tiny_fit(**{"data": data, **again, **allowed})


@pytest.mark.parametrize("argument", ["variables", "static", "covariates", "dims", "periodic"])
def test_names_that_are_none(argument):
    with pytest.raises(UsageError, match=f"got {argument}=3, expected names"):
        tiny_fit(fields(), **{argument: 3})


def test_a_factor_that_nothing_is_averaged_by():
    with pytest.raises(UsageError, match="got --factor 4, but an emulator"):
        undrift.fit(fields(), task="emulate", factor=4, steps=1)
    coarse = fields().coarsen(lat=4, lon=4).mean()
    with pytest.raises(UsageError, match="got --factor 4, but --given"):
        undrift.fit(fields(), given=coarse, factor=4, steps=1)
    task = undrift.Downscale(factor=4)  # which always has a factor
    plan = undrift.fit(fields(), given=coarse, task=task, steps=1, dry_run=True)
    assert (plan["given"], plan["target"]) == ({"tas": [2, 3]}, {"tas": [8, 12]})
