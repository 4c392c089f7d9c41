"""Several networks share a training and draw in turn."""

import copy

import numpy as np
import pytest
import torch
from model_fields import draw, fields, tiny_fit

import undrift
from undrift.distributions.regression import predict
from undrift.errors import Interrupted, UsageError
from undrift.model import training
from undrift.nets.members import Members, member_of, number_of
from undrift.objective.denoising import DenoisingScoreMatching
from undrift.process import EDM
from undrift.report.style import count
from undrift.report.words import provenance
from undrift.train import network
from undrift.train.batches import batches
from undrift.train.guesses import guess_of
from undrift.train.network import build_net, choose_members
from undrift.train.settings import settings_of
from undrift.train.state import TrainState
from undrift.train.step import take_step


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_fit(
        fields(), steps=7, set={"net.members": 3}, baselines=True, out=tmp_path_factory.mktemp("members") / "run"
    )


@pytest.mark.parametrize(("passes", "members"), [(3, 1), (159, 1), (161, 2), (250, 3), (9999, 4)])
def test_a_network_more_for_each_eighty_passes(passes, members):
    assert choose_members(passes) == members


def test_each_realization_is_of_one_network_in_turn(model):
    assert number_of(model.net) == 3
    whole = draw(model, holdout=True, realizations=7).tas.values
    for k in range(3):
        alone = copy.copy(model)
        alone.net = member_of(model.net, k)
        np.testing.assert_array_equal(draw(alone, holdout=True, realizations=7).tas.values[k::3], whole[k::3])
    assert (whole[0] != draw(alone, holdout=True, realizations=1).tas.values[0]).any()
    np.testing.assert_array_equal(draw(model, holdout=True, realizations="2:6").tas.values, whole[2:6])


def test_a_run_of_several_networks_is_read_back_and_streams_the_same(model, tmp_path):
    whole = draw(model, holdout=True, realizations=5).tas.values
    again = undrift.load(model.run, device="cpu", data=fields())
    streamed = draw(again, again.holdout_given(), realizations=5, out=tmp_path / "ensemble.nc")
    np.testing.assert_array_equal(streamed.tas.values, whole)
    assert again.describe()["network"]["members"] == 3


def test_what_is_counted_of_the_networks_is_of_one_of_them(model):
    size = sum(p.numel() for p in member_of(model.net, 0).parameters())
    told = provenance(model.describe())
    assert (
        told["network"]
        == f"3 U-Nets of 8, 8 channels, {count(size)} parameters each, which draw the realizations in turn"
    )
    assert told["training"].startswith("7 steps of 8 samples, shared by 3 networks in turn, in ")
    plan = tiny_fit(fields(), steps=7, set={"net.members": 3}, dry_run=True)["network"]
    assert {**model.describe()["network"], "dropout": plan["dropout"]} == plan and plan["parameters of each"] == size
    alone = copy.copy(model)
    alone.net = member_of(model.net, 0)
    told = provenance(alone.describe())
    assert told["network"] == f"U-Net of 8, 8 channels, {count(size)} parameters" and "shared" not in told["training"]


def test_the_regression_is_the_mean_of_its_networks(model):
    problem, twin = model.problem, model.parts.rivals.twin
    rows = problem.split.train[:2]
    encoded = problem.encode(rows)
    parts = [
        predict(member_of(twin, k), encoded, 1, torch.device("cpu"), torch.float32) for k in range(number_of(twin))
    ]
    got = predict(twin, encoded, 1, torch.device("cpu"), torch.float32)
    np.testing.assert_allclose(got, np.mean(parts, 0), rtol=1e-5, atol=1e-7)
    assert np.abs(parts[0] - parts[1]).max() > 1e-6


def test_a_step_trains_one_network_and_batches_take_them_in_turn(model):
    trained, config = model, model.config
    objective = DenoisingScoreMatching(EDM(), guess_of(model.problem, config)[1])
    state, fresh = (build_net(model.problem, config) for _ in range(2))
    assert isinstance(fresh, Members)
    state = TrainState(state, settings_of(config))
    batch, _ = batches(model.problem, config)
    for step in range(2):
        take_step(state, objective, batch(step), rate=1e-2, clip=1.0, seed=0, device=torch.device("cpu"))
    for net in (state.net, state.average.net):
        pairs = [zip(member_of(fresh, k).parameters(), member_of(net, k).parameters()) for k in range(3)]
        assert [any((a != b).any() for a, b in pair) for pair in pairs] == [True, True, False]
    batch, stop = batches(trained.problem, config)
    assert [batch(step).member for step in range(4)] == [0, 1, 2, 3]
    assert [one.member for one in stop] == list(range(len(stop)))


def test_a_longer_training_goes_on_with_the_networks_it_began_with(tmp_path, monkeypatch):
    """What is chosen from the budget is kept in the run: a larger budget must not ask for another network."""
    monkeypatch.setattr(network, "_passes", lambda problem, config: 60.0 * config.train.steps)
    run, open_ends = tmp_path / "run", {"net.channels": []}
    first = tiny_fit(fields(), steps=2, out=run, set=open_ends)
    longer = tiny_fit(fields(), steps=6, out=run, set=open_ends, resume=True)
    afresh = tiny_fit(fields(), steps=6, set=open_ends)
    assert (number_of(first.net), number_of(longer.net), number_of(afresh.net)) == (1, 1, 4)
    assert longer.facts["steps"] == 6 and longer.config.net.dropout == first.config.net.dropout == 0.2


def test_a_resume_that_is_refused_changes_nothing(tmp_path, monkeypatch):
    run = tmp_path / "run"

    def raising(error):
        def fit(*_):
            raise error

        monkeypatch.setattr(training, "_fit", fit)

    raising(Interrupted("stopped"))
    with pytest.raises(Interrupted):
        tiny_fit(fields(), steps=2, out=run)
    before = (run / "config.toml").read_text()
    raising(UsageError("other settings"))
    with pytest.raises(UsageError):
        tiny_fit(fields(), steps=2, out=run, resume=True, set={"train.batch": 4})
    assert (run / "config.toml").read_text() == before and "batch = 8" in before
