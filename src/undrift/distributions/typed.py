"""Constraints as they are typed, for the samples that are drawn.

means=COARSE.nc       means over blocks of cells equal the fields of a file
integral=SUMS.nc      sums weighted by the fields of a file equal its ``value``
divergence=u,v        zero divergence, u along the last dim of space, v along the one before
"0<=pr<=50", "t>=180" bounds
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.layout import Channel, Layout, plain
from undrift.data.open import near
from undrift.data.sources import read_path
from undrift.data.units import same_units
from undrift.distributions.constrained import orders_of
from undrift.distributions.windows import single_frames
from undrift.errors import DataError, UsageError
from undrift.guide.bounded import BoundedMeans
from undrift.guide.constraints import Bounds, CoarseMeans, Constraint, Integral
from undrift.guide.divergence import DivergenceFree, DivergenceFreeWith
from undrift.guide.together import Together

__all__ = ["Labels", "Typed", "Wanted", "read_wanted"]

Wanted = Constraint | str | Sequence[str]
"""What a user may say of fields: a constraint of his own, or the words of ``--constraint``."""

Labels = Mapping[str, Any]
"""Of one sample, or one frame of it: its label along each dim that counts samples."""

_EXPECTED = 'means=COARSE.nc, integral=SUMS.nc, divergence=u,v, or bounds in quotes such as "0<=pr<=50"'
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUNDS = re.compile(
    rf"(?:(?P<first>{_NUMBER})\s*(?P<before><=|>=)\s*)?(?P<name>[^<>=]+?)\s*(?:(?P<after><=|>=)\s*(?P<last>{_NUMBER}))?"
)
_PLACED = 0.05  # of a cell, by which coordinates may differ
_EVEN = 1e-3
_CLOSE = 1e-6  # of the length of a field: to which several constraints hold that have no projection of their own


@dataclass
class Typed:
    """What was typed of the fields of a model, one frame of its windows.

    Attributes:
        layout: of one frame.
        coords: of the fields, in the order of the data.
        missing: cells that never have a value, (V, *space), in that order.
        low, high: bounds of each channel.
        means, sums: files with means over blocks, and with weights and values of sums.
        flows: channels of the components of vector fields without divergence, along the last dims of space.
    """

    layout: Layout
    coords: xr.Dataset
    missing: np.ndarray
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    means: tuple[str, xr.Dataset] | None = None
    sums: tuple[str, xr.Dataset] | None = None
    flows: list[DivergenceFree] = field(default_factory=list)
    _last: tuple[list[Any], Constraint] | None = None

    @classmethod
    def read(cls, words: Sequence[str], codec: Codec, shell: Shell) -> "Typed":
        """Read constraints, each of a kind once; bounds as often as there are variables.

        Raises:
            UsageError: a word is none of them, or names what the model does not have.
            DataError: a file cannot be read.
        """
        _, back = orders_of(codec, shell)
        frames = codec.layout.frames
        missing = back(torch.from_numpy(codec.mask[::frames])[None])[0].numpy()
        made = cls(single_frames(codec.layout), shell.order.restore(shell.coords), missing)
        for word in words:
            made._add(word)
        made._check_bounds()
        return made

    # what is typed

    def _add(self, word: str) -> None:
        kind, equals, value = word.partition("=")
        if equals and kind in ("means", "integral") and value:
            name = "means" if kind == "means" else "sums"
            if getattr(self, name) is not None:
                raise UsageError(f"--constraint {kind}= is given twice; put all of it into one file")
            setattr(self, name, (value, self._file(word, value)))
        elif equals and kind == "divergence" and value:
            self.flows += self._flows(word, [name.strip() for name in value.split(",")])
        elif (found := _BOUNDS.fullmatch(word.strip())) and (found["before"] or found["after"]):
            self._bound(word, found)
        else:
            raise UsageError(f"got --constraint {word}, expected {_EXPECTED}")

    def _file(self, word: str, path: str) -> xr.Dataset:
        if not Path(path).exists():
            raise DataError(
                f"got --constraint {word}, and {path} does not exist; expected a NetCDF file or Zarr folder"
            )
        ds = read_path(Path(path), None, None, None)
        if not set(self.layout.variables) & set(map(str, ds.data_vars)):
            raise DataError(
                f"{path} has {', '.join(map(str, ds.data_vars))}, expected some of {', '.join(self.layout.variables)}"
            )
        return ds

    def _variable(self, word: str, name: str) -> str:
        if name not in self.layout.variables:
            meant = near(name, self.layout.variables)
            raise UsageError(f"got --constraint {word}, and the model has no {name}; {meant}")
        return name

    def _bound(self, word: str, found: re.Match[str]) -> None:
        name = self._variable(word, found["name"].strip())
        for number, sign, is_low in ((found["first"], found["before"], "<="), (found["last"], found["after"], ">=")):
            if number is not None:
                bounds = self.low if sign == is_low else self.high
                if name in bounds:
                    raise UsageError(f"got --constraint {word}, and {name} has such a bound already; type it once")
                bounds[name] = float(number)

    def _check_bounds(self) -> None:
        for name in set(self.low) & set(self.high):
            if self.low[name] > self.high[name]:
                raise UsageError(
                    f"{name} cannot be at least {self.low[name]:g} and at most {self.high[name]:g}; type the lower "
                    "bound first"
                )

    def _flows(self, word: str, names: list[str]) -> list[DivergenceFree]:
        layout, count = self.layout, len(names)
        if count not in (2, 3) or count > len(layout.space) or len(set(names)) < count:
            raise UsageError(
                f"got --constraint {word}, expected components along {', '.join(layout.space[::-1])}, such as "
                "divergence=u,v"
            )
        for name in names:
            self._variable(word, name)
        axes = layout.space[-count:]
        flat = layout.latitude is None and all(layout.periodic[-count:])
        if not flat:
            raise UsageError(
                f"got --constraint {word}, which needs a flat grid that closes on itself; train with --periodic "
                f"{','.join(axes)} where that is so"
            )
        spacing = [self._spacing(word, dim) for dim in axes]
        parts = [layout.channels_of(name) for name in names[::-1]]  # the last component is along the first of the axes
        levels = [[layout.channels[c].level for c in part] for part in parts]
        if any(level != levels[0] for level in levels):
            raise UsageError(f"got --constraint {word}, whose components have not the same levels")
        return [DivergenceFree(channels, spacing) for channels in zip(*parts)]

    def _spacing(self, word: str, dim: str) -> float:
        if dim not in self.coords.coords or self.coords[dim].ndim != 1 or self.coords[dim].dtype.kind not in "iuf":
            return 1.0
        steps = np.diff(self.coords[dim].values.astype(np.float64))
        if not (steps > 0).all() or np.ptp(steps) > _EVEN * steps.mean():
            raise UsageError(f"got --constraint {word}, which needs even steps upward along {dim}")
        return float(steps.mean())

    # what it says of samples

    def wanted(self, rows: Sequence[Labels]) -> Constraint:
        """The constraint of fields (B, V, *space) with these labels.

        Raises:
            DataError: a file does not fit the grid, or lacks a label.
        """
        used = {str(d) for one in (self.means, self.sums) if one for d in one[1].dims}
        key = [tuple((d, plain(v)) for d, v in row.items() if d in used) for row in rows]
        key = key[:1] if len(set(key)) == 1 else key
        if self._last is None or self._last[0] != key:
            self._last = (key, self._made([dict(row) for row in key]))
        return self._last[1]

    def _made(self, rows: Sequence[Labels]) -> Constraint:
        """Each projection that is exact for two at once serves both, and Dykstra's rounds join what is left."""
        bounds, parts = self._bounds(), list[Constraint](self.flows)
        means = None if self.means is None else self._means(*self.means, rows)
        sums = None if self.sums is None else self._sums(*self.sums, rows)
        last: Constraint | None = bounds
        if means is not None and bounds is not None:
            last, means = BoundedMeans(means, bounds), None
        equations = means if means is not None and not means.means.isnan().any() else sums
        if len(self.flows) == 1 and equations is not None:
            parts = [DivergenceFreeWith(self.flows[0], equations)]
            means, sums = (None if one is equations else one for one in (means, sums))
        parts += [one for one in (sums, means, last) if one is not None]
        return parts[0] if len(parts) == 1 else Together(*parts, tolerance=_CLOSE)

    def _bounds(self) -> Bounds | None:
        if not self.low and not self.high:
            return None
        names = [channel.variable for channel in self.layout.channels]
        wide = (-1, *[1] * len(self.layout.space))
        low, high = ([b.get(n, end) for n in names] for b, end in ((self.low, -np.inf), (self.high, np.inf)))
        return Bounds(*(torch.tensor(b, dtype=torch.float64).reshape(wide) for b in (low, high)))

    def _means(self, path: str, ds: xr.Dataset, rows: Sequence[Labels]) -> CoarseMeans:
        space = self.layout.space
        some = ds[next(v for v in self.layout.variables if v in ds)]
        factor = []
        for dim, size in zip(space, self.layout.shape):
            cells = some.sizes.get(dim, 0)
            if not cells or size % cells:
                raise DataError(
                    f"{path} has {cells} cells along {dim}, expected a number that divides the model's {size}"
                )
            factor.append(size // cells)
        coarse = tuple(size // f for size, f in zip(self.layout.shape, factor))
        means = np.full((len(rows), len(self.layout.channels), *coarse), np.nan)
        for c, channel in enumerate(self.layout.channels):
            if channel.variable in ds:
                one = self._field(path, ds[channel.variable], channel, factor)
                for b, labels in enumerate(rows):
                    means[b, c] = _at(path, one, labels, space).values
        weights = torch.from_numpy((~self.missing).astype(np.float64))
        blocks = CoarseMeans(torch.full((1, *means.shape[1:]), torch.nan), factor).in_blocks
        lost = blocks(weights[None]).sum(-1) == 0
        return CoarseMeans(torch.from_numpy(means).masked_fill(lost, torch.nan), factor, weights)

    def _sums(self, path: str, ds: xr.Dataset, rows: Sequence[Labels]) -> Integral:
        if "value" not in ds:
            raise DataError(f"{path} has no variable 'value', which says what each of its sums is to be")
        layout, space = self.layout, self.layout.space
        names = [v for v in layout.variables if v in ds]
        known = {*space, *(d for v in names for d in layout.level.get(v, ()))}
        dims = list(dict.fromkeys(str(d) for v in names for d in ds[v].dims if d not in known))
        if len(dims) > 1:
            raise DataError(f"{path} has weights along {', '.join(dims)}, expected one dim beside those of the fields")
        count = ds.sizes[dims[0]] if dims else 1
        weights = np.zeros((count, len(layout.channels), *layout.shape))
        for c, channel in enumerate(layout.channels):
            if channel.variable in ds:
                one = self._field(path, ds[channel.variable], channel, [1] * len(space))
                weights[:, c] = np.nan_to_num(one.transpose(*[d for d in dims if d in one.dims], *space).values)
        weights[:, self.missing] = 0
        value = ds["value"]
        values = [np.broadcast_to(_at(path, value, labels, dims).values, count) for labels in rows]
        try:
            return Integral(torch.from_numpy(weights), np.array(values, dtype=np.float64))
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None

    def _field(self, path: str, da: xr.DataArray, channel: Channel, factor: Sequence[int]) -> xr.DataArray:
        """The part of a variable of a file that is of a channel, its cells where those of the model are."""
        units = self.layout.units.get(channel.variable, "")
        if any(f > 1 for f in factor) and "units" in da.attrs and not same_units(str(da.attrs["units"]), units):
            raise DataError(f"{path}: {channel.variable} is in {da.attrs['units']}, expected {units or 'no units'}")
        for dim, label in channel.level:
            found = {plain(v): i for i, v in enumerate(da[dim].values)} if dim in da.dims else {}
            if label not in found:
                raise DataError(f"{path} lacks {channel.label}")
            da = da.isel({dim: found[label]})
        for dim, f in zip(self.layout.space, factor):
            if dim not in da.dims or da.sizes[dim] * f != self.coords.sizes[dim]:
                raise DataError(
                    f"{path}: {channel.variable} has {da.sizes.get(dim, 0)} cells along {dim}, expected "
                    f"{self.coords.sizes[dim] // f}"
                )
            da = self._placed(path, da, dim, f)
        return da

    def _placed(self, path: str, da: xr.DataArray, dim: str, factor: int) -> xr.DataArray:
        """The array with its cells along a dim in the order of the model's, by coordinates where both have them."""
        if dim not in da.coords or dim not in self.coords.coords or self.coords[dim].ndim != 1:
            return da
        theirs, ours = da[dim].values.astype(np.float64), self.coords[dim].values.astype(np.float64)
        centres = ours.reshape(-1, factor).mean(1)
        away = theirs[None] - centres[:, None]
        if dim == self.layout.longitude:
            away = (away + 180) % 360 - 180
        index = np.abs(away).argmin(1)
        step = np.abs(np.diff(centres)).min() if len(centres) > 1 else np.inf
        far = np.abs(away[np.arange(len(index)), index])
        if far.max() > _PLACED * step:
            k = int(far.argmax())
            raise DataError(f"{path} has {dim} {theirs[index[k]]:g} nearest to {centres[k]:g}, expected it there")
        return da.isel({dim: index})


def read_wanted(
    constraint: Wanted | None, codec: Codec, shell: Shell
) -> tuple[Constraint | Typed | None, dict[str, str]]:
    """The constraint, read where it was typed, and what an ensemble says of it."""
    if constraint is None or (not isinstance(constraint, Constraint) and not len(constraint)):
        return None, {}
    if isinstance(constraint, Constraint):
        return constraint, {"constraint": type(constraint).__name__}
    words = [constraint] if isinstance(constraint, str) else list(constraint)
    return Typed.read(words, codec, shell), {"constraint": " ".join(words)}


def _at(path: str, da: xr.DataArray, labels: Labels, kept: Sequence[str]) -> xr.DataArray:
    """The part of an array with a sample's labels, its dims those that are kept."""
    for dim in [str(d) for d in da.dims if d not in kept]:
        if dim not in labels:
            if da.sizes[dim] > 1:
                raise DataError(f"{path} has the dim {dim}, which samples have no label of; choose one of its values")
            da = da.isel({dim: 0})
            continue
        found = {plain(v): i for i, v in enumerate(da[dim].values)} if dim in da.coords else {}
        if plain(labels[dim]) not in found:
            raise DataError(f"{path} has no {dim}={plain(labels[dim])}, which is drawn")
        da = da.isel({dim: found[plain(labels[dim])]})
    return da.transpose(*[d for d in kept if d in da.dims])
