"""A conditional GAN on the residuals that undrift trains on: one network of undrift's as generator, a critic beside it.

The generator's loss is that of Goodfellow et al. (2014, https://arxiv.org/abs/1406.2661) which does not saturate, plus
the L1 distance of pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004, eq. 4); the critic's gradient at data
is penalised (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eq. 9). Both play in undrift's own loop.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from undrift.config import Config
from undrift.objective import Player
from undrift.tasks.batch import Batch, Condition
from undrift.train.batches import batches
from undrift.train.loop import train
from undrift.train.network import build_net
from undrift.train.problem import Problem
from undrift.train.run import RunDirectory
from undrift.train.settings import settings_of

__all__ = ["GAN", "Critic", "fit_gan"]

L1, PENALTY = 10.0, 0.05


class Critic(nn.Module):
    """Whether a field belongs to what is given: strided convolutions, the lead time as channels of one number each."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width, 4 * width]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(sizes))
        self.last = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """One number for each field (B, C, *space)."""
        fields, vector = condition.stacked(), condition.vector()
        assert fields is not None and vector is not None
        lead = vector[:, :, None, None].expand(-1, -1, *x.shape[2:])
        h = torch.cat([x, fields, lead], 1)
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
        return self.last(h).mean((1, 2, 3))


class Adversarial:
    """The generator's loss, and the critic as a player with its own."""

    def __init__(self, critic: Critic) -> None:
        self.critic = critic
        self.players = {"critic": Player(critic, self.criticise)}

    def __call__(self, batch: Batch, net: nn.Module, key: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of each sample."""
        fake = drawn(net, batch.condition, noise(batch.x, key))
        away = (fake - batch.x).abs().mean((1, 2, 3))
        fooled = F.softplus(-self.critic(fake, batch.condition))
        return fooled + L1 * away, {"l1": away.detach().mean()}

    def criticise(self, batch: Batch, net: nn.Module, key: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of each sample."""
        x = batch.x.clone().requires_grad_()
        real = self.critic(x, batch.condition)
        with torch.no_grad():
            fake = drawn(net, batch.condition, noise(batch.x, key))
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        loss = F.softplus(-real) + F.softplus(self.critic(fake, batch.condition))
        return loss + PENALTY / 2 * slope.square().sum((1, 2, 3)), {"real": real.detach().mean()}


class GAN:
    """The trained generator in the place of a diffusion, with the method that draws."""

    def __init__(self, net: nn.Module, micro_batch: int) -> None:
        self.net, self.micro_batch = net.eval(), micro_batch

    def sample(self, condition: Condition, z: Tensor, **_: object) -> Tensor:
        """Fields from noise (B, C, *space), by one evaluation."""
        with torch.no_grad():
            return drawn(self.net, condition, z)


def drawn(net: nn.Module, condition: Condition, z: Tensor) -> Tensor:
    """What the generator makes of noise."""
    fields = condition.stacked()
    assert fields is not None
    return net(torch.cat([z, fields], 1), z.new_zeros(len(z)), condition.vector())


def noise(like: Tensor, key: int) -> Tensor:
    """White noise of a shape."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(key))


def fit_gan(problem: Problem, config: Config, run: RunDirectory) -> nn.Module:
    """Train for the steps of a configuration; returns the generator's averaged weights."""
    config = config.model_copy(deep=True)
    config.net.members, config.net.dropout = 1, 0.0
    batch, _ = batches(problem, config)
    first = batch(0)
    fields, vector = first.condition.stacked(), first.condition.vector()
    assert fields is not None and vector is not None
    torch.manual_seed(config.train.seed)
    critic = Critic(first.x.shape[1] + fields.shape[1] + vector.shape[1])
    settings = replace(settings_of(config), learning_rate=5e-4, weight_decay=0.0, betas=(0.0, 0.99))
    trained = train(build_net(problem, config), Adversarial(critic), batch, settings=settings, run=run)
    assert np.isfinite([float(p.detach().abs().max()) for p in trained.net.parameters()]).all()
    return trained.net
