"""What the dimensions of a dataset mean: samples, levels, space, and the channels they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["Channel", "Layout", "base_channels", "no_block", "plain"]


def plain(value: Any) -> Any:
    """A coordinate label as a plain Python value that JSON can hold (int, float or str).

    Integral floats become ints and float32 its shortest decimal, so that the label does not depend on the dtype in
    which a file keeps it; dates become ISO 8601 text.
    """
    if hasattr(value, "isoformat"):  # datetime and cftime
        return _trim_iso(value.isoformat())
    if isinstance(value, np.datetime64):
        return "NaT" if np.isnat(value) else _trim_iso(str(value.astype("datetime64[ns]")))
    if isinstance(value, np.timedelta64):
        return plain(value / np.timedelta64(1, "s"))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if np.isfinite(value) and float(value).is_integer() and abs(value) < 2**53:
            return int(value)
        return float(str(value))
    return str(value)


def _trim_iso(text: str) -> str:
    """ISO 8601 to the second, with the fraction only where there is one."""
    text = text.replace(" ", "T")
    head, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    return f"{head}.{fraction}" if fraction else head


@dataclass(frozen=True)
class Channel:
    """One network channel: one variable at one level.

    Attributes:
        variable: The name of the variable.
        level: Pairs (dimension, label), empty for a variable without levels.
    """

    variable: str
    level: tuple[tuple[str, object], ...] = ()

    @property
    def label(self) -> str:
        """Text for people, such as ``ta[plev=50000]``."""
        if not self.level:
            return self.variable
        return f"{self.variable}[{','.join(f'{dim}={label}' for dim, label in self.level)}]"


@dataclass(frozen=True)
class Layout:
    """The roles of the dimensions of canonical fields.

    Attributes:
        variables: Names of the variables, in the order of their channels.
        sample: Dimensions that count samples, slowest first.
        space: Dimensions of space in the order (z, y, x), of which the first may be absent.
        level: Per variable the dimensions that become channels.
        time: The sample dimension that is time, or None.
        shape: Sizes of the space dimensions.
        periodic: Per space dimension, whether its ends are neighbours.
        latitude: Name of the latitude coordinate (1-D on a space dimension, or 2-D), or None.
        longitude: Likewise of the longitude.
        channels: One per variable and level; varies fastest over the last level dimension.
        units: Units per variable, "" where the data have none.
        frames: Frames of a window, whose level dim is then ``lead_time``; 1 where samples are single fields.
        members: Members of one date that are given together, whose level dim is then ``given_member``; else 1.
        ensemble: The sample dim that counts members of one date, the last one, where these are given of each other.
    """

    variables: tuple[str, ...]
    sample: tuple[str, ...]
    space: tuple[str, ...]
    level: dict[str, tuple[str, ...]]
    time: str | None
    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    latitude: str | None
    longitude: str | None
    channels: tuple[Channel, ...]
    units: dict[str, str] = field(default_factory=dict)
    frames: int = 1
    members: int = 1
    ensemble: str | None = None

    def channels_of(self, variable: str) -> list[int]:
        """Positions of the channels of one variable."""
        return [i for i, channel in enumerate(self.channels) if channel.variable == variable]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; ``from_dict`` is its inverse."""
        out = asdict(self)
        for name, usual in (("frames", 1), ("members", 1), ("ensemble", None)):
            if out[name] == usual:
                del out[name]  # as runs were written that knew of none
        out["channels"] = [
            {"variable": c.variable, "level": [[dim, label] for dim, label in c.level]} for c in self.channels
        ]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in out.items()} | {
            "level": {name: list(dims) for name, dims in self.level.items()}
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Layout:
        """The layout that ``to_dict`` wrote."""

        def names(key: str) -> tuple[str, ...]:
            return tuple(str(item) for item in given[key])

        channels = tuple(
            Channel(c["variable"], tuple((str(dim), label) for dim, label in c["level"])) for c in given["channels"]
        )
        return cls(
            variables=names("variables"),
            sample=names("sample"),
            space=names("space"),
            level={name: tuple(dims) for name, dims in given["level"].items()},
            time=given["time"],
            shape=tuple(int(n) for n in given["shape"]),
            periodic=tuple(bool(flag) for flag in given["periodic"]),
            latitude=given["latitude"],
            longitude=given["longitude"],
            channels=channels,
            units=dict(given["units"]),
            frames=int(given.get("frames", 1)),
            members=int(given.get("members", 1)),
            ensemble=given.get("ensemble"),
        )


def no_block(layout: Layout, factor: int) -> str:
    """What to do about a grid that has no block of ``factor`` cells along each side."""
    size, least = " x ".join(map(str, layout.shape)), min(layout.shape)
    dim = layout.space[layout.shape.index(least)]
    remedy = f"give a --factor of at most {least}, or type --task emulate"
    if least == 1:
        remedy = f"drop the dim {dim!r} of one cell (ncwa -a {dim} IN.nc OUT.nc), or type --task emulate"
    return f"a grid of {size} has no block of {factor} cells: {remedy}"


def channels_for(variable: str, dims: Sequence[str], labels: Mapping[str, Sequence[object]]) -> tuple[Channel, ...]:
    """The channels of one variable: every combination of its levels, the last dimension varying fastest."""
    levels: list[tuple[tuple[str, object], ...]] = [()]
    for dim in dims:
        levels = [(*level, (dim, plain(label))) for level in levels for label in labels[dim]]
    return tuple(Channel(variable, level) for level in levels)


def base_channels(layout: Layout, given: Layout | None) -> list[int | None]:
    """For each target channel the given channel of the same variable, level and units."""
    out: list[int | None] = []
    for channel in layout.channels:
        match = None
        for i, other in enumerate(given.channels if given is not None else ()):
            if other == channel and given is not None:
                same = given.units.get(other.variable, "") == layout.units.get(channel.variable, "")
                match = i if same else match
        out.append(match)
    return out
