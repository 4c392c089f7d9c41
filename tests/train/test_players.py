"""Objectives of several players: whose turn it is, what is not finite, and that a game goes on to the same bits."""

import math

import pytest
import torch
from training_problem import CPU, Rows, make_batch, make_net

from undrift.errors import UndriftError
from undrift.objective import Player
from undrift.objective.players import players
from undrift.train.checkpoint import Checkpoints
from undrift.train.loop import train
from undrift.train.run import RunDirectory
from undrift.train.settings import Settings
from undrift.train.state import TrainState
from undrift.train.step import take_step, validate
from undrift.train.tensors import fit


class Number(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64, device=CPU))


class Game:
    """The critic's and the network's losses need each other's number; a teacher follows at a tenth."""

    def __init__(self):
        self.critic, self.teacher = Number(0.7), Number(0.0)
        self.players = {"critic": Player(self.critic, self.judge), "teacher": Player(self.teacher)}

    def __call__(self, batch, net, key):
        return ((net.value - 2 * self.critic.value) * batch.x) ** 2, {}

    def judge(self, batch, net, key):
        return ((self.critic.value * net.value - 1) * batch.x) ** 2, {}

    def after_step(self, net):
        self.teacher.value.lerp_(net.value, 0.1)


def game():
    net, objective = Number(-0.4), Game()
    settings = Settings(steps=9, weight_decay=0.0, betas=(0.8, 0.9))
    return net, objective, TrainState(net, settings, objective.players)


def step(state, objective, x):
    return take_step(state, objective, Rows(x), rate=0.1, clip=math.inf, seed=0, device=CPU)


class Adam:
    """Algorithm 1 of Kingma & Ba, of one number."""

    def __init__(self, value):
        self.value, self.m, self.v, self.n = value, 0.0, 0.0, 0

    def step(self, slope):
        self.n += 1
        self.m, self.v = 0.8 * self.m + 0.2 * slope, 0.9 * self.v + 0.1 * slope**2
        m, v = self.m / (1 - 0.8**self.n), self.v / (1 - 0.9**self.n)
        self.value -= 0.1 * m / (v**0.5 + 1e-8)


def test_players_take_turns_each_by_its_own_optimiser():
    """First the critic and then, with the critic as it is now, the network; then the teacher."""
    net, objective, state = game()
    critic, one, teacher = Adam(0.7), Adam(-0.4), 0.0
    for n in range(9):
        x = torch.linspace(-1, 1 + n, 4, dtype=torch.float64, device=CPU)
        square, outcome = float((x**2).mean()), step(state, objective, x)
        miss = critic.value * one.value - 1
        judged = square * miss**2
        critic.step(2 * square * miss * one.value)
        miss = one.value - 2 * critic.value
        made = square * miss**2, abs(2 * square * miss)
        one.step(2 * square * miss)
        teacher += 0.1 * (one.value - teacher)
        found = outcome.diagnostics["critic_loss"], outcome.loss, outcome.gradient_norm
        assert found == pytest.approx((judged, *made), rel=1e-9)
        found = [float(part.value.detach()) for part in (objective.critic, net, objective.teacher)]
        assert found == pytest.approx([critic.value, one.value, teacher], rel=1e-9)


def test_a_loss_that_is_not_finite_moves_nobody():
    _, objective, state = game()
    step(state, objective, torch.ones(2, dtype=torch.float64, device=CPU))
    before = {name: value.clone() for name, value in state.tensors().items()}
    outcome = step(state, objective, torch.full((2,), math.nan, dtype=torch.float64, device=CPU))
    assert not outcome.good and state.counters.skipped_in_row == 1
    assert all(torch.equal(value, before[name]) for name, value in state.tensors().items())


class Judged:
    """The loss is what a critic of batch norm and dropout says."""

    def __init__(self):
        self.critic = torch.nn.Sequential(
            torch.nn.BatchNorm1d(3, eps=0.44, device=CPU), torch.nn.Dropout(0.5), torch.nn.Dropout(0.5)
        )
        self.players = {"critic": Player(self.critic)}

    def __call__(self, batch, net, key):
        return net(self.critic(batch.x)).sum(1), {}


def test_players_do_not_learn_from_validation():
    """Running mean 0 and variance 1 are used and kept, nothing is dropped, and each module is in its mode again."""
    objective, net, x = Judged(), torch.nn.Dropout(0.5), torch.arange(12.0, device=CPU).reshape(4, 3)
    objective.critic[2].eval()
    loss, _ = validate(net, objective, [Rows(x), Rows(x + 1)], seed=0, device=CPU)
    assert loss == pytest.approx(float((2 * x + 1).sum()) / 8 / 1.2, rel=1e-6)
    assert torch.equal(objective.critic[0].running_mean, torch.zeros(3, device=CPU))
    modes = [net.training, *(module.training for module in objective.critic.modules())]
    assert modes == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("name", "meant"), [("player", "players"), ("playrs", "players"), ("after_steps", "after_step")]
)
def test_a_misspelt_attribute_names_the_nearest(name, meant):
    said = f"^Wrong has '{name}', which no training looks at; did you mean '{meant}'\\?$"
    wrong = type("Wrong", (Game,), {name: {}})
    assert players(wrong()).keys() == {"critic", "teacher"}  # it has both as they should be
    wrong = type("Wrong", (), {name: {}, "__call__": Game.__call__, "layers": 3, "after_epoch": 2})
    with pytest.raises(TypeError, match=said):
        fit(Number(0.0), wrong(), torch.ones(4, 1), settings=Settings(steps=1))
    assert not players(type("Right", (), {"layers": 3, "plays": 2, "after_epoch": 1})())


class Adversary:
    """A critic with dropout that is trained beside the network, and its slow copy."""

    def __init__(self, stop_at=None):
        self.critic, self.slow, self.stop_at, self.calls = make_net(), make_net(), stop_at, 0
        self.players = {"critic": Player(self.critic, self.judge), "slow": Player(self.slow)}

    def made(self, batch, net, key):
        return net(torch.randn(batch.x.shape, generator=torch.Generator("cpu").manual_seed(key), device=CPU))

    def __call__(self, batch, net, key):
        return self.critic(self.made(batch, net, key)).square().mean(1), {}

    def judge(self, batch, net, key):
        self.calls += 1
        if self.calls == self.stop_at:
            raise UndriftError("the game is over")
        return (self.critic(batch.x) - self.slow(self.made(batch, net, key).detach())).square().mean(1), {}

    def after_step(self, net):
        for slow, value in zip(self.slow.parameters(), net.parameters()):
            slow.lerp_(value, 0.2)


def run_of(path, objective, **options):
    settings = Settings(steps=20, save_steps=5, learning_rate=3e-3, validate_every=0.25, seed=3)
    with RunDirectory(path, **options) as run:
        train(make_net(), objective, make_batch, settings=settings, validation=[make_batch(99)], run=run)
        tensors, record = Checkpoints(run.checkpoints).newest()
    return tensors, record["counters"]


def test_a_game_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, counters = run_of(tmp_path / "whole", Adversary())
    with pytest.raises(UndriftError, match="over"):
        run_of(tmp_path / "cut", Adversary(stop_at=13))
    cut, again = run_of(tmp_path / "cut", Adversary(), resume=True)
    assert counters == again and whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert {"player critic.exp_avg.0.weight", "player slow.net.0.weight"} <= whole.keys()
    assert not torch.equal(whole["player slow.net.0.weight"], make_net()[0].weight)
