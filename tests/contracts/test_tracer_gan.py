"""A GAN in the plane: two players in the one loop of training, each with its own loss and optimiser."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from undrift.objective import Player
from undrift.tasks.batch import Batch
from undrift.train.settings import Settings
from undrift.train.state import TrainState
from undrift.train.step import take_step
from undrift.train.tensors import fit

MEAN = torch.tensor([1.0, -0.5])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
SETTINGS = Settings(steps=800, learning_rate=1e-2, weight_decay=0.0, betas=(0.0, 0.99), ema=0.1)


class Adversarial:
    """Goodfellow et al. (2014), https://arxiv.org/abs/1406.2661, the generator's loss that does not saturate.

    The critic's gradient at data is penalised (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eq. 9), with
    which the game converges.
    """

    def __init__(self, critic):
        self.critic = critic
        self.players, self.steps = {"critic": Player(critic, self.criticise)}, 0

    def __call__(self, batch, model, key):
        return F.softplus(-self.critic(self.drawn(batch, model, key))[:, 0]), {}

    def criticise(self, batch, model, key):
        x = batch.x.clone().requires_grad_()
        real, fake = self.critic(x)[:, 0], self.critic(self.drawn(batch, model, key).detach())[:, 0]
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        return F.softplus(-real) + F.softplus(fake) + 0.1 * slope.square().sum(1), {"real": real.detach().mean()}

    def after_step(self, net):
        self.steps += 1

    def drawn(self, batch, model, key):
        return model(torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(key)))


def game():
    """A linear generator, whose law is a Gaussian of known moments, and a critic that can tell any two of them."""
    torch.manual_seed(0)
    return nn.Linear(2, 2), Adversarial(nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 1)))


def data(count):
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return MEAN + z @ torch.linalg.cholesky(COVARIANCE).T


def test_the_generator_finds_the_moments_of_the_data():
    generator, objective = game()
    fit(generator, objective, data(20_000), settings=SETTINGS, batch=256)
    assert (generator.bias - MEAN).abs().max() < 0.1
    assert (generator.weight @ generator.weight.T - COVARIANCE).abs().max() < 0.2


def test_each_player_steps_by_its_own_loss_alone():
    generator, objective = game()
    state = TrainState(generator, SETTINGS, objective.players)
    before = {name: value.clone() for name, value in state.tensors().items()}
    critic_first = objective.criticise(batch(0), generator, 0)[0].mean()
    outcome = step(state, objective, 0)
    assert outcome.good and objective.steps == 1
    assert outcome.diagnostics["critic_loss"] == pytest.approx(float(critic_first.detach()), rel=0.1)
    moved = {name for name, value in state.tensors().items() if not torch.equal(value, before[name])}
    assert {"net.weight", "player critic.net.0.weight", "player critic.exp_avg_sq.0.weight"} <= moved


def test_a_checkpoint_takes_up_the_game():
    generator, objective = game()
    state = TrainState(generator, SETTINGS, objective.players)
    for number in range(3):
        step(state, objective, number)
    kept, record = {name: value.clone() for name, value in state.tensors().items()}, state.record()
    other, again = game()
    resumed = TrainState(other, SETTINGS, again.players)
    resumed.restore(kept, record)
    for number in range(3, 5):
        step(state, objective, number)
        step(resumed, again, number)
    for name, value in state.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def batch(number):
    return Batch.of(data(4096)[number * 256 : (number + 1) * 256])


def step(state, objective, number):
    return take_step(state, objective, batch(number), rate=1e-2, clip=1.0, seed=0, device=torch.device("cpu"))
