"""A training that begins with the network of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import nn

from undrift.config import Config
from undrift.data.codec import Codec
from undrift.data.codec_file import load_codec
from undrift.errors import CheckpointError, UsageError
from undrift.model.files import WEIGHTS, read_config
from undrift.nets.members import member_of
from undrift.train.manifest import read_manifest, verify_manifest
from undrift.train.network import Net
from undrift.train.problem import Problem
from undrift.train.weights import load_state, load_tensors

__all__ = ["begin_with"]

_NAMED = 6


def begin_with(net: nn.Module, problem: Problem, config: Config) -> None:
    """Give a network the weights of the run that ``train.fork`` names.

    Raises:
        CheckpointError: There is no finished run, or it is damaged.
        UsageError: Its network was made for other data, or is another by its settings.
    """
    assert config.train.fork is not None
    path = Path(config.train.fork)
    verify_manifest(path, names=[WEIGHTS])
    try:
        load_state(net, load_tensors(path / WEIGHTS), str(path / WEIGHTS))
    except CheckpointError as error:
        told = _other_data(net, problem, path) or _other_settings(config, path)
        if told is None:
            raise
        raise UsageError(f"--fork {path}: {told}, or leave --fork out to begin with a new network") from error


def _other_data(net: nn.Module, problem: Problem, path: Path) -> str | None:
    """What the network of a run was made for and what the data have, where that differs."""
    codec, _, _ = load_codec(path / "codec.nc")
    manifest = read_manifest(path)
    extra = manifest.get("extra", manifest)
    here = cast(Net, member_of(net, 0)).in_channels
    static = [str(name) for name in problem.pair.target.static.data_vars]
    theirs = _Made(codec, extra["facts"].get("static", []), extra["network"]["in_channels"])
    ours = _Made(problem.codec, static, here)
    if theirs.sizes() == ours.sizes():
        return None
    wanted, had = theirs.codec.layout.variables, ours.codec.layout.variables
    advice = "give it data and a task as that run has"
    if set(wanted) < set(had):
        advice = f"type --variables {','.join(wanted)}"
    return f"its network was made for {theirs.text()}, and is asked here for {ours.text()}; {advice}"


class _Made:
    """What a network is made for.

    Args:
        codec: From fields to its numbers.
        static: Names of the static fields.
        seen: Channels that it is given, of the noisy field and all else.
    """

    def __init__(self, codec: Codec, static: Sequence[str], seen: int) -> None:
        self.codec, self.static, self.seen = codec, static, seen

    def sizes(self) -> tuple[int, ...]:
        """All that its weights depend on, but for settings of the network."""
        layout = self.codec.layout
        return self.seen, len(layout.channels), self.codec.covariates.width, len(layout.space)

    def text(self) -> str:
        """As in ``tas on lat x lon given tas at factor 4 (7 channels in, 1 out)``."""
        codec, layout = self.codec, self.codec.layout
        given = [] if codec.given_layout is None else [_listing(codec.given_layout.variables)]
        if given and codec.factor is not None:
            given[0] += f" at factor {' x '.join(map(str, sorted(set(codec.factor))))}"
        given += [f"static {_listing(self.static)}"] if self.static else []
        given += [_listing(codec.covariates.names)] if codec.covariates.names else []
        width = codec.covariates.width
        numbers = f" and {width} number{'s' if width > 1 else ''}" if width else ""
        return (
            f"{_listing(layout.variables)} on {' x '.join(layout.space)}"
            f"{' given ' + ' and '.join(given) if given else ''} "
            f"({self.seen} channels{numbers} in, {len(layout.channels)} out)"
        )


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _other_settings(config: Config, path: Path) -> str | None:
    """Which settings of the network differ from those of the run."""
    kept, names = read_config(path / "config.toml").net, ("kind", "channels", "blocks", "patch", "members")
    pairs = [(name, getattr(kept, name), getattr(config.net, name)) for name in names]
    differ = [(f"net.{name}", _value(was), _value(now)) for name, was, now in pairs if was != now]
    if not differ:
        return None
    theirs, ours = (", ".join(f"{one[0]}={one[k]}" for one in differ) for k in (1, 2))
    advice = " ".join(f"--set {name}={was}" for name, was, _ in differ)
    return f"its network has {theirs}, and here {ours} is asked for; type {advice}"


def _value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
