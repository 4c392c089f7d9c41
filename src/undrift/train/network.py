"""The network of a training: its size, chosen from data size and budget, and its first weights."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from undrift.config import Config
from undrift.data.codec import Codec
from undrift.errors import UsageError
from undrift.nets.dit import DiT
from undrift.nets.members import Members
from undrift.nets.space_time import SpaceTimeUNet
from undrift.nets.unet import UNet
from undrift.train.problem import Problem

__all__ = ["KINDS", "Net", "build_net", "chosen", "completed", "left_open", "make_net", "refuse_kind"]

Net = UNet | SpaceTimeUNet | DiT
KINDS: dict[str, type[Net]] = {"unet": UNet, "space-time": SpaceTimeUNet, "dit": DiT}
"""The networks that a configuration can name."""

_SPEED = 1.5e11  # operations a second of a training step on two cores, to foresee the number of steps
_PASSES_A_MEMBER = 80  # of each sample through one network, from which another network is worth more
_MEMBERS = 4
_BLOCKS = {"unet": 1, "space-time": 1, "dit": 6}
_PATCHES = 256  # of a frame of a DiT at most: attention costs the square of their number


def choose_channels(kind: str, samples: int, cells: int, dims: int, passes: float) -> list[int]:
    """Channels of a net from the size of the data and how often training would see each sample with the usual ones.

    Small records overfit wide nets and small domains need no depth; a net twice as wide at the finest level costs twice
    as much a step and is worth it once the narrow one has nothing more to learn.
    """
    width = 16 if samples < 100 else 32
    side = cells ** (1 / dims)
    levels = 3 if side >= 16 else 2
    first = 2 * width if samples >= 100 and passes >= 40 else width
    if kind == "dit":
        return [2 * first]
    if kind == "space-time":  # which has so many for every frame
        first, width = first // 2, width // 2
    return [first, 2 * width, 2 * width][:levels]


def choose_patch(shape: Sequence[int]) -> int:
    """Cells along each side of the smallest patches, of 2 cells or more, of which the domain has no more than 256.

    It counts the whole domain where training sees windows of it, for that is what is drawn.
    """
    patch = 2
    while math.prod(-(-n // patch) for n in shape) > _PATCHES:
        patch *= 2
    return patch


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
    net.blocks = net.blocks or _BLOCKS[net.kind]
    if net.kind == "dit":
        net.patch = net.patch or choose_patch(shape)
    passes = _passes(problem, config)
    net.members = net.members or choose_members(passes)
    cells = math.prod(shape)
    net.channels = net.channels or choose_channels(net.kind, samples, cells, len(shape), passes / net.members)
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
    names = ("members", "channels", "dropout", "blocks", *(["patch"] if config.net.kind == "dit" else []))
    return [name for name in names if getattr(config.net, name) in (None, [])]


def build_net(problem: Problem, config: Config) -> nn.Module:
    """The untrained net or nets that fit the problem, of a configuration that leaves nothing open."""
    codec, net = problem.codec, config.net
    assert net.members is not None and net.dropout is not None
    inputs = _inputs(problem)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        nets = [make_net(codec, config, inputs, net.channels) for _ in range(net.members)]
    for one in nets:
        one.set_dropout(net.dropout)
    return nets[0] if net.members == 1 else Members(nets)


def make_net(codec: Codec, config: Config, in_channels: int, channels: Sequence[int]) -> Net:
    """The net between the numbers of a codec, untrained.

    Raises:
        UsageError: the settings fit no such net.
    """
    layout, net = codec.layout, config.net
    modes = net.padding
    modes = [modes] * len(layout.space) if isinstance(modes, str) else modes
    if len(modes) != len(layout.space):
        raise UsageError(
            f"net.padding={','.join(modes)}: give one for each of {', '.join(layout.space)}, or one for all"
        )
    refuse_kind(net.kind, layout.frames)
    open_ends = [{"zero": "zeros", "reflect": "reflect"}[mode] for mode in modes]
    padding = tuple("circular" if p else mode for p, mode in zip(layout.periodic, open_ends))
    sizes = (in_channels, len(layout.channels))
    usual = {"space": len(layout.space), "padding": padding, "vector_features": codec.vector_width}
    blocks = net.blocks or _BLOCKS[net.kind]
    if net.kind == "unet":
        return UNet(*sizes, channels=tuple(channels), blocks=blocks, **usual)
    window = {"frames": layout.frames, "static": _static(codec)}
    if net.kind == "space-time":
        return SpaceTimeUNet(*sizes, channels=tuple(channels), blocks=blocks, **window, **usual)
    if len(channels) != 1:
        raise UsageError(
            f"net.channels={','.join(map(str, channels))}: a DiT has one width; type --set net.channels={max(channels)}"
        )
    patch = net.patch or choose_patch(layout.shape)
    return DiT(*sizes, channels=tuple(channels), layers=blocks, patch=patch, **window, **usual)


def refuse_kind(kind: str, frames: int) -> None:
    """Refuse a kind of net that has nothing to do with samples of so many frames.

    Raises:
        UsageError: it has not.
    """
    if kind == "space-time" and frames == 1:
        raise UsageError(
            "net.kind=space-time looks over the frames of a window, and a sample of this task has one; "
            "type --set net.kind=unet or dit, or --task window with --past and --future"
        )


def _static(codec: Codec) -> range:
    """Which channels of a net's input have no frames: those after the noisy field, what is given and the prediction."""
    frames = codec.layout.frames
    if frames == 1:
        return range(0)  # what is given may come first, and there is nothing to tell apart
    given = 0 if codec.given is None else len(codec.given.layout.channels) + frames * codec.given.gappy
    first = 2 * len(codec.layout.channels) + given
    return range(first, first + len(codec.static))


def _inputs(problem: Problem) -> int:
    """Channels that a net sees: the noisy field and what is given beside it."""
    given = sum(v.shape[1] for v in problem.encode(problem.fit_rows[:1]).fields.values())
    return len(problem.codec.layout.channels) + given


def _passes(problem: Problem, config: Config) -> float:
    """About how often a training of a net of usual width would see each cell of each sample."""
    shape = problem.codec.layout.shape
    if config.train.steps is None:
        assert config.train.budget is not None
        usual = choose_channels(config.net.kind, len(problem.fit_rows), math.prod(shape), len(shape), 0)
        with torch.random.fork_rng(devices=[]):
            net = make_net(problem.codec, config, _inputs(problem), usual)
        seen = config.train.budget * _SPEED / (3 * net.flops((1, *shape)))  # backward costs twice forward
    else:
        window = [min(problem.crop or n, n) for n in shape]
        seen = config.train.steps * config.train.batch * math.prod(window) / math.prod(shape)
    return seen / len(problem.fit_rows)
