"""Target and given, sample by sample."""

from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from undrift.data.fields import Fields
from undrift.data.grid import Grid, Regridder
from undrift.data.regrid import join

__all__ = ["Pair", "join_given", "static_of"]


@dataclass
class Pair:
    """What a task asks and what it gives.

    Attributes:
        target: the samples that are asked.
        given: the same samples of what is given, on a grid of its own; None where only covariates are given.
        factor: fine cells per coarse cell and dim where the two grids are nested, else None.
        notes: what is done that the user should know.
        warnings: what may be wrong.
    """

    target: Fields
    given: Fields | None
    factor: tuple[int, ...] | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def select(self, indices: np.ndarray) -> "Pair":
        """Some of the samples."""
        given = None if self.given is None else self.given.select(indices)
        return replace(self, target=self.target.select(indices), given=given)


def nested(target: Fields, given: Fields) -> tuple[int, ...] | None:
    """Fine cells per coarse cell and dim if the coarse cells are blocks of fine cells, else None."""
    fine, coarse = target.layout.shape, given.layout.shape
    if len(fine) != len(coarse) or any(n % m for n, m in zip(fine, coarse)):
        return None
    factor = tuple(n // m for n, m in zip(fine, coarse))
    blocks = dict(zip(target.layout.space, factor))
    shell = xr.Dataset(coords={n: c for n, c in target.dataset.coords.items() if set(c.dims) <= set(blocks) and c.dims})
    shell = shell.assign(_=(target.layout.space, np.zeros(fine)))
    means = shell.coarsen(blocks).mean()  # pyright: ignore[reportAttributeAccessIssue]
    expected = Grid.of(means, replace(target.layout, shape=coarse))
    return factor if expected.same(Grid.of(given)) else None


def join_given(target: Fields, given: Fields) -> Pair:
    """A real pair: samples with equal labels; static fields of what is given condition the model too."""
    mine, theirs = join(target, given)
    joins = f"{len(mine)} of {len(target)} samples are joined with what is given"
    lost = len(mine) < len(target)
    notes, warnings = ([], [f"{joins}; the others are not used"]) if lost else ([joins], [])
    joined = target.select(mine)
    more = static_of(given, target)
    if more:
        joined.static = target.static.assign(more)
        notes.append(f"static fields of the given data condition the model too: {', '.join(more)}")
    return Pair(joined, given.select(theirs), nested(target, given), notes, warnings)


def static_of(given: Fields, target: Fields) -> dict[str, xr.DataArray]:
    """The static fields of what is given, on the target's grid, without those of which the target has its own."""
    names = [str(name) for name in given.static.data_vars if name not in target.static.data_vars]
    if not names:
        return {}
    move = Regridder(Grid.of(given), Grid.of(target))
    out = {}
    for name in names:
        array = given.static[name].transpose(..., *given.layout.space)
        level = [f"{name}_{dim}" for dim in array.dims[: array.ndim - len(given.layout.space)]]
        out[name] = xr.DataArray(move(array.values), dims=[*level, *target.layout.space], attrs=array.attrs)
    return out
