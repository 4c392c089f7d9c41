"""Target and given, sample by sample."""

from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from undrift.data.fields import Fields
from undrift.data.grid import Grid, Regridder
from undrift.data.layout import no_block
from undrift.data.order import unwrap
from undrift.data.regrid import join
from undrift.errors import UsageError

__all__ = ["Pair", "begun_at", "begun_with", "coarsened", "join_given", "static_of", "trimmed"]


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


def _rebuilt(fields: Fields, dataset: xr.Dataset, shape: tuple[int, ...], keep: dict[str, np.ndarray] | None) -> Fields:
    order = fields.order
    for dim, index in (keep or {}).items():
        order = order.crop(dim, index)
    return Fields(
        dataset,
        replace(fields.layout, shape=shape),
        static=fields.static.isel({d: i for d, i in (keep or {}).items() if d in fields.static.dims}),
        covariates=fields.covariates,
        covariate_names=fields.covariate_names,
        order=order,
        sources=fields.sources,
        counts=dict(fields.counts),
        warnings=fields.warnings,
    )


def trimmed(fields: Fields, factor: int) -> tuple[Fields, list[str]]:
    """The fields without the cells of the far edge that make no whole block of ``factor`` cells, and a note on it."""
    layout = fields.layout
    shape = tuple(n - n % factor for n in layout.shape)
    if 0 in shape:
        raise UsageError(no_block(layout, factor))
    if shape == layout.shape:
        return fields, []
    cut = ", ".join(f"{d} {n} -> {m}" for d, n, m in zip(layout.space, layout.shape, shape) if n != m)
    keep = {d: np.arange(m) for d, m in zip(layout.space, shape)}
    dataset = fields.dataset.isel({d: slice(0, m) for d, m in zip(layout.space, shape)})
    note = f"the far edge is trimmed to a multiple of {factor} cells: {cut}"
    return _rebuilt(fields, dataset, shape, keep), [note]


def begun_at(fields: Fields, coords: xr.Dataset) -> Fields:
    """The fields from the meridian of a run on, which may have begun global longitudes anywhere before 0.1.0.

    Args:
        fields: as this version opens them.
        coords: those of the run over space.
    """
    dim = _global_longitude(fields)
    return fields if dim is None or dim not in coords.coords else _begun(fields, dim, float(coords[dim][0]))


def begun_with(target: Fields, given: Fields) -> Fields:
    """The target from the west of the first cell of what is given, where both go round the globe.

    Global longitudes are begun at Greenwich, which may lie within a given cell that is a block of target cells.
    """
    dim, other = _global_longitude(target), _global_longitude(given)
    if dim is None or other is None or target.dataset.sizes[dim] % given.dataset.sizes[other]:
        return target
    cells, wide = 360.0 / target.dataset.sizes[dim], 360.0 / given.dataset.sizes[other]
    return _begun(target, dim, float(given.dataset[other][0]) - (wide - cells) / 2)


def _global_longitude(fields: Fields) -> str | None:
    """The dim of longitudes that go round the globe."""
    layout, dim = fields.layout, str(fields.layout.longitude)
    return dim if dim in fields.dataset.coords and dict(zip(layout.space, layout.periodic)).get(dim) else None


def _begun(fields: Fields, dim: str, first: float) -> Fields:
    """The fields from the longitude ``first`` on, if it is that of a cell."""
    layout, have = fields.layout, np.asarray(fields.dataset[dim].values, np.float64)
    away = np.abs((have - first + 180.0) % 360.0 - 180.0)
    start = int(away.argmin())
    if start == 0 or away[start] > 1e-3 * 360.0 / have.size:
        return fields
    index = (start + np.arange(have.size)) % have.size
    lon = unwrap(have[index])
    lon += 360.0 * np.round((first - lon[0]) / 360.0)
    dataset = fields.dataset.isel({dim: index})
    dataset = dataset.assign_coords({dim: (dim, lon.astype(dataset[dim].dtype), dataset[dim].attrs)})
    out = _rebuilt(fields, dataset, layout.shape, {dim: index})
    out.order.canonical[dim] = dataset[dim].values
    return out


def coarsened(fields: Fields, factor: int) -> Fields:
    """Means over blocks of ``factor`` cells along each space dim; missing cells are left out of a block's mean."""
    layout = fields.layout
    blocks = dict.fromkeys(layout.space, factor)
    with xr.set_options(keep_attrs=True):
        dataset = fields.dataset.coarsen(blocks).mean()  # pyright: ignore[reportAttributeAccessIssue]
    out = _rebuilt(fields, dataset, tuple(n // factor for n in layout.shape), None)
    out.static = xr.Dataset()
    return out


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
