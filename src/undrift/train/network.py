"""The network of a training: its size, chosen from data size and budget, and its first weights."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from undrift.config import Config
from undrift.data.codec import Codec
from undrift.errors import UsageError
from undrift.nets.members import Members
from undrift.nets.unet import UNet
from undrift.train.prepare import Problem

__all__ = ["build_net", "chosen", "completed", "left_open", "make_net"]

_SPEED = 1.5e11  # operations a second of a training step on two cores, to foresee the number of steps
_PASSES_A_MEMBER = 80  # of each sample through one network, from which another network is worth more
_MEMBERS = 4


def choose_channels(samples: int, cells: int, dims: int, passes: float) -> list[int]:
    """Channels of the U-Net from the size of the data and how often training would see each sample with the usual ones.

    Small records overfit wide nets and small domains need no depth; a net twice as wide at the finest level costs twice
    as much a step and is worth it once the narrow one has nothing more to learn.
    """
    width = 16 if samples < 100 else 32
    side = cells ** (1 / dims)
    levels = 3 if side >= 16 else 2
    first = 2 * width if samples >= 100 and passes >= 40 else width
    return [first, 2 * width, 2 * width][:levels]


def choose_dropout(passes: float) -> float:
    """Dropout of a training that sees each sample so many times: the oftener, the more there is to unlearn by heart."""
    return 0.1 if passes < 60 else 0.2 if passes < 200 else 0.3


def choose_members(passes: float) -> int:
    """Networks that share a training which would show each sample so often to one."""
    return int(min(max(passes // _PASSES_A_MEMBER, 1), _MEMBERS))


def chosen(problem: Problem, config: Config, kept: Config | None = None) -> Config:
    """The configuration with what it leaves open of the network: as a run that is gone on with has it, or chosen."""
    if kept is not None and not left_open(kept):
        return completed(config, kept)
    config = config.model_copy(deep=True)
    samples, shape, net = len(problem.fit_rows), problem.codec.layout.shape, config.net
    passes = _passes(problem, config)
    net.members = net.members or choose_members(passes)
    net.channels = net.channels or choose_channels(samples, math.prod(shape), len(shape), passes / net.members)
    net.dropout = choose_dropout(passes / net.members) if net.dropout is None else net.dropout
    return config


def completed(config: Config, kept: Config) -> Config:
    """The configuration with what it leaves open of the network as another has it."""
    config = config.model_copy(deep=True)
    for name in left_open(config):
        setattr(config.net, name, getattr(kept.net, name))
    return config


def left_open(config: Config) -> list[str]:
    """What a configuration does not say of the network, and is chosen."""
    return [name for name in ("members", "channels", "dropout") if getattr(config.net, name) in (None, [])]


def build_net(problem: Problem, config: Config) -> nn.Module:
    """The untrained U-Net or U-Nets that fit the problem, of a configuration that leaves nothing open."""
    codec, net = problem.codec, config.net
    assert net.members is not None and net.dropout is not None
    given = sum(v.shape[1] for v in problem.encode(problem.fit_rows[:1]).fields.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        nets = [make_net(codec, config, len(codec.layout.channels) + given, net.channels) for _ in range(net.members)]
    for one in nets:
        one.set_dropout(net.dropout)
    return nets[0] if net.members == 1 else Members(nets)


def make_net(codec: Codec, config: Config, in_channels: int, channels: Sequence[int]) -> UNet:
    """The U-Net between the numbers of a codec, untrained."""
    layout = codec.layout
    modes = config.net.padding
    modes = [modes] * len(layout.space) if isinstance(modes, str) else modes
    if len(modes) != len(layout.space):
        raise UsageError(
            f"net.padding={','.join(modes)}: give one for each of {', '.join(layout.space)}, or one for all"
        )
    open_ends = [{"zero": "zeros", "reflect": "reflect"}[mode] for mode in modes]
    return UNet(
        in_channels,
        len(layout.channels),
        space=len(layout.space),
        channels=tuple(channels),
        blocks=config.net.blocks,
        vector_features=codec.covariates.width,
        padding=tuple("circular" if p else mode for p, mode in zip(layout.periodic, open_ends)),
    )


def _passes(problem: Problem, config: Config) -> float:
    """About how often a training of a net of usual width would see each cell of each sample."""
    shape = problem.codec.layout.shape
    if config.train.steps is None:
        assert config.train.budget is not None
        channels = choose_channels(len(problem.fit_rows), math.prod(shape), len(shape), 0)
        with torch.random.fork_rng(devices=[]):
            net = make_net(problem.codec, config, len(problem.codec.layout.channels), channels)
        seen = config.train.budget * _SPEED / (3 * net.flops((1, *shape)))  # backward costs twice forward
    else:
        window = [min(problem.crop or n, n) for n in shape]
        seen = config.train.steps * config.train.batch * math.prod(window) / math.prod(shape)
    return seen / len(problem.fit_rows)
