"""Fields on a part of their grid, from another meridian on, or as means over blocks of cells."""

from dataclasses import replace

import numpy as np
import xarray as xr

from undrift.data.fields import Fields
from undrift.data.layout import no_block
from undrift.data.order import unwrap
from undrift.errors import UsageError

__all__ = ["begun_at", "begun_with", "coarsened", "trimmed"]


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
    cut = ", ".join(
        f"{d} {n} -> {m}{_ends(fields.dataset, d, m)}" for d, n, m in zip(layout.space, layout.shape, shape) if n != m
    )
    keep = {d: np.arange(m) for d, m in zip(layout.space, shape)}
    part = {d: slice(0, m) for d, m in zip(layout.space, shape)}
    out = _rebuilt(fields, fields.dataset.isel(part), shape, keep)
    if fields._index is None and fields._store.memory is not None:
        out._store.remember(fields._store.memory[(..., *part.values())], finite=fields._store.finite)
    return out, [f"the far edge is trimmed to a multiple of {factor} cells: {cut}"]


def _ends(dataset: xr.Dataset, dim: str, size: int) -> str:
    """The first and last label of what stays of a dim, where it has any."""
    if dim not in dataset.coords or dataset[dim].dtype.kind not in "iuf":
        return ""
    first, last = dataset[dim].values[[0, size - 1]]
    return f" ({first:.7g} to {last:.7g})"


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
