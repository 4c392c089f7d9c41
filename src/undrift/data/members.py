"""Members of one date that are given together: an ensemble's members as levels of its variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.ensemble import MEMBER_NAMES
from undrift.data.fields import Fields, _Store
from undrift.data.layout import Layout, channels_for
from undrift.errors import DataError, UsageError

__all__ = [
    "MEMBER",
    "date_of",
    "ensemble_dim",
    "ensemble_of",
    "given_to",
    "left_out",
    "offered_members",
    "one_member",
    "others_of",
    "reordered",
    "with_members",
]

MEMBER = "given_member"
"""The level dim of given members; what is drawn has it as a coordinate with their labels."""

_ENSEMBLES = tuple(name for name in MEMBER_NAMES if name != "sample")
_SEED = 0  # of the order in which members are given where nothing else is told


def ensemble_dim(fields: Fields) -> str | None:
    """The sample dim that counts members of one date: by its standard_name or by the names in use; else None."""
    for dim in fields.layout.sample:
        told = fields._dataset[dim].attrs if dim in fields._dataset.coords else {}
        if told.get("standard_name") == "realization" or dim in _ENSEMBLES:
            return dim
    return None


class _MemberStore(_Store):
    """Members of each date side by side, read one by one from the store of an ensemble whose last dim counts them.

    Args:
        members: that store, of samples (*date, M).
        dataset: lazily what is read.
        layout: with K members among the levels; samples are (*date, M) where each member is given K others, else dates.
        seed: of their order, drawn for each date; None for that of the store.
    """

    def __init__(self, members: _Store, dataset: xr.Dataset, layout: Layout, seed: int | None) -> None:
        super().__init__(dataset, layout, members.sources)
        self.members, self.seed = members, seed
        self.others = len(self.sizes) == len(members.sizes)

    @property
    def wants_memory(self) -> bool:
        """Never: the members are kept, not their choices."""
        return False

    def positions(self, indices: np.ndarray) -> np.ndarray:
        """Positions of the given members in the ensemble's store, (n, K), -1 where there is none."""
        size, count = self.members.sizes[-1], self.layout.members
        date, own = np.divmod(indices, size) if self.others else (indices, None)
        order = np.stack([self._order(int(d), size) for d in date]) if len(date) else np.zeros((0, size), int)
        first = np.zeros(len(date), int) if own is None else np.argmax(order == own[:, None], 1) + 1
        at = first[:, None] + np.arange(count)
        member = np.take_along_axis(order, at % size, 1)
        return np.where(at < size if own is None else True, date[:, None] * size + member, -1)

    def _order(self, date: int, size: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(size)
        return np.random.Generator(np.random.Philox(key=[self.seed, date])).permutation(size)

    def read(self, indices: np.ndarray, window: tuple[slice, ...], *, allow_inf: bool = False) -> np.ndarray:
        """Values (n, C, *space), the member varying fastest among the channels, NaN where there is none."""
        where = self.positions(np.asarray(indices))
        there = where >= 0
        once, inverse = np.unique(where[there], return_inverse=True)
        values = self.members.read(once, window, allow_inf=allow_inf)
        out = np.full((*where.shape, *values.shape[1:]), np.nan, np.float32)
        out[there] = values[inverse.ravel()]
        out = np.moveaxis(out, 1, 2)
        return np.ascontiguousarray(out.reshape(len(out), -1, *out.shape[3:]))

    def read_files(self, indices: np.ndarray, window: tuple[slice, ...]) -> np.ndarray:
        """As :meth:`read`; infinite values are left for the caller."""
        return self.read(indices, window, allow_inf=True)


def _members_last(fields: Fields, dim: str) -> Fields:
    """The same samples, with the dim of members as the last of those that count them.

    One that is called ``realization`` becomes ``member``: what is drawn has that dim.
    """
    layout, dataset = fields.layout, fields.dataset
    if not set(layout.sample) <= set(dataset.dims):
        raise DataError(f"the chosen samples are no whole dates of all labels of {dim!r}; choose others")
    name = "member" if dim == "realization" else dim
    sample = (*(d for d in layout.sample if d != dim), name)
    last = replace(layout, sample=sample, ensemble=name)
    if fields._index is None and sample == layout.sample:
        return _with(fields, dataset, last, fields._store)
    if name != dim:
        dataset = dataset.rename({dim: name})
    if name in dataset.coords:
        attrs = {k: v for k, v in dataset[name].attrs.items() if k != "standard_name"}
        dataset = dataset.assign_coords({name: (name, dataset[name].values, attrs)})
    arrays = {n: dataset[n].transpose(*sample, *layout.level.get(n, ()), *layout.space) for n in layout.variables}
    return _with(fields, dataset.assign(arrays), last)


def ensemble_of(fields: Fields) -> Fields:
    """The samples of an ensemble with the dim of its members last.

    Raises:
        UsageError: there is no such dim, or none of dates beside it.
    """
    dim = ensemble_dim(fields)
    if dim is None or len(fields.layout.sample) < 2:
        raise UsageError(
            f"--task enrich needs an ensemble: a dim such as number, member or realization beside that of dates, and "
            f"the samples are over {', '.join(fields.layout.sample)}; name the dims with --dims time,member,y,x"
        )
    return _members_last(fields, dim)


def given_to(target: Fields, given: Fields) -> Fields:
    """What is given to samples of a target: all members of a date at once where the target has no such dim."""
    dim = ensemble_dim(given)
    if dim is None or dim in target.layout.sample or len(given.layout.sample) < 2:
        return given
    return _as_given(given)


def others_of(fields: Fields, count: int) -> Fields:
    """What each member (samples (*date, M)) is given: ``count`` others of its date, in an order that is drawn."""
    size = fields._store.sizes[-1]
    if size <= count:
        dim = fields.layout.sample[-1]
        raise DataError(
            f"there are {size} members along {dim!r}, expected more than the {count} that one is given; "
            f"type --members {max(size - 1, 1)}"
        )
    return _side_by_side(fields, count, fields.layout.sample, _SEED)


def _as_given(fields: Fields) -> Fields:
    """Dates that are given all members of an ensemble, in an order that is drawn."""
    fields = ensemble_of(fields)
    return _side_by_side(fields, fields._store.sizes[-1], fields.layout.sample[:-1], _SEED)


def offered_members(fields: Fields, count: int) -> tuple[Fields, xr.DataArray]:
    """Dates that are given ``count`` members: those of a file, in its order, the rest missing; and their labels.

    A file without members is one member.

    Raises:
        DataError: it has more.
    """
    dim = ensemble_dim(fields)
    if dim is None:
        dim = "member"
        names = list(fields.layout.variables)
        dataset = fields.dataset.assign({n: fields.dataset[n].expand_dims(dim) for n in names})
        fields = _with(fields, dataset, replace(fields.layout, sample=(dim, *fields.layout.sample)))
    fields, last = _members_last(fields, dim), "member" if dim == "realization" else dim
    size = fields._store.sizes[-1]
    if size > count:
        raise DataError(
            f"the given data have {size} members along {dim!r}, and the model is given {count} at most; choose some "
            f"with --at {dim}=0/{count - 1}"
        )
    if len(fields.layout.sample) == 1:
        raise DataError(f"the given data have no dim beside {dim!r} that counts dates; add the time")
    known = last in fields.dataset.coords
    labels = fields.dataset[last].values if known else np.arange(size)
    attrs = dict(fields.dataset[last].attrs) if known else {}
    given = _side_by_side(fields, count, fields.layout.sample[:-1], None)
    return given, xr.DataArray(labels, dims=MEMBER, attrs={"long_name": "given member", **attrs, "dim": dim})


def reordered(fields: Fields, draw: np.random.Generator) -> Fields:
    """The same samples with given members drawn anew; other fields as they are."""
    store = fields._store
    if not isinstance(store, _MemberStore):
        return fields
    anew = _MemberStore(store.members, store.dataset, store.layout, int(draw.integers(1, 2**62)))
    return Fields(fields._dataset, fields.layout, sources=fields.sources, _store=anew, _index=fields._index)


def date_of(fields: Fields, rows: np.ndarray) -> np.ndarray:
    """The date of each sample, (n,), where members of one are given of each other; else each sample is one."""
    return rows if fields.layout.ensemble is None else fields._base(rows) // fields._store.sizes[-1]


def one_member(layout: Layout) -> Layout:
    """The layout of one of the given members."""
    level = {name: tuple(d for d in dims if d != MEMBER) for name, dims in layout.level.items()}
    channels = [replace(c, level=tuple(pair for pair in c.level if pair[0] != MEMBER)) for c in layout.channels]
    return replace(layout, level=level, channels=tuple(dict.fromkeys(channels)), members=1)


def with_members(
    labels: xr.Dataset, dims: tuple[str, ...], members: xr.DataArray | None, layout: Layout
) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Labels of what is drawn, where the members that are given are called ``given_member``.

    Args:
        labels: of the samples that are given.
        dims: that count them; one of members is a sample dim of its own where each is given alone.
        members: labels of those that are given together, or None.
        layout: of the model.
    """
    if members is not None:
        return labels.assign_coords({MEMBER: members}), dims
    alone = [d for d in dims if d == "realization" or (d in _ENSEMBLES and d not in layout.sample)]
    if not alone:
        return labels, dims
    attrs = {k: v for k, v in labels[alone[0]].attrs.items() if k != "standard_name"}
    labels = labels.rename({alone[0]: MEMBER})
    labels[MEMBER].attrs = attrs
    return labels, tuple(MEMBER if d == alone[0] else d for d in dims)


def left_out(ensemble: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """An ensemble that was drawn given some members, and the members of the truth that were not, each a sample.

    Of windows and forecasts that are of each given member for itself the truth is that member. Datasets of which
    neither is so come back as they are.

    Raises:
        DataError: all members of the truth were given.
    """
    dim = str(ensemble[MEMBER].attrs.get("dim", "")) if MEMBER in ensemble.coords else ""
    if not dim or dim not in truth.dims:
        return ensemble, truth
    labels = truth[dim].values if dim in truth.coords else np.arange(truth.sizes[dim])
    if any(MEMBER in array.dims for array in ensemble.data_vars.values()):
        own = truth.drop_vars(dim, errors="ignore").rename({dim: MEMBER}).assign_coords({MEMBER: (MEMBER, labels)})
        return ensemble, own.isel({MEMBER: np.flatnonzero(np.isin(labels, ensemble[MEMBER].values))})
    rest = np.flatnonzero(~np.isin(labels, ensemble[MEMBER].values))
    if not rest.size:
        raise DataError(f"all members of the truth along {dim!r} were given; there is nothing to score")
    name = "left_out" if dim == "realization" else dim
    out = truth.isel({dim: rest}).assign_coords({dim: (dim, labels[rest])})
    if name != dim:
        out = out.rename({dim: name})
        out[name].attrs.pop("standard_name", None)
    return ensemble.drop_vars(MEMBER).expand_dims({name: labels[rest]}, axis=1), out


def _side_by_side(fields: Fields, count: int, sample: tuple[str, ...], seed: int | None) -> Fields:
    layout = fields.layout
    level = {name: (*layout.level.get(name, ()), MEMBER) for name in layout.variables}
    if any(MEMBER in layout.level.get(name, ()) for name in layout.variables):
        raise DataError(f"the data have a dim {MEMBER!r} already, which is that of given members; rename it")
    labels = {d: list(fields._dataset[d].values) for dims in layout.level.values() for d in dims}
    labels[MEMBER] = list(range(count))
    channels = tuple(c for name in layout.variables for c in channels_for(name, level[name], labels))
    new = replace(layout, sample=sample, level=level, channels=channels, members=count, ensemble=None)
    gone = () if layout.sample[-1] in sample else layout.sample[-1:]
    shell = fields._dataset.drop_dims(gone).drop_vars(layout.variables, errors="ignore")
    shell = shell.assign_coords({MEMBER: np.arange(count)})
    blank = {n: (sample, np.zeros([fields._dataset.sizes[d] for d in sample], np.int8)) for n in layout.variables}
    store = _MemberStore(fields._store, shell.assign(blank), new, seed)
    where = store.positions(np.arange(int(np.prod(store.sizes)))).reshape(*store.sizes, count)
    dataset = shell.assign({n: _lazily(fields._dataset[n], where, new, n) for n in layout.variables})
    store.dataset = dataset
    return _with(fields, dataset, new, store)


def _lazily(array: xr.DataArray, where: np.ndarray, layout: Layout, name: str) -> xr.DataArray:
    """Members of each sample as an array (*sample, *level, K, *space), read when it is."""
    dims = [d for d in array.dims if d not in layout.space and d not in layout.level[name]]
    at = np.unravel_index(np.maximum(where, 0), [array.sizes[d] for d in dims])
    bare = array.drop_vars([c for c in array.coords if c in (*dims, *layout.sample)]).variable
    over = (*layout.sample, MEMBER)
    picked = xr.Variable(bare.dims, bare.chunk().data)[{d: xr.Variable(over, i) for d, i in zip(dims, at)}]
    picked = picked.where(xr.Variable(over, where >= 0)) if (where < 0).any() else picked
    out = picked.transpose(*layout.sample, *layout.level[name], *layout.space)
    out.attrs = dict(array.attrs)
    return xr.DataArray(out)


def _with(fields: Fields, dataset: xr.Dataset, layout: Layout, store: Any = None) -> Fields:
    covariates = fields.covariates
    if not set(map(str, covariates.dims)) <= set(layout.sample):
        covariates = covariates.drop_dims([d for d in covariates.dims if d not in layout.sample])
    return Fields(
        dataset,
        layout,
        static=fields.static,
        covariates=covariates,
        covariate_names=[n for n in fields.covariate_names if n in covariates],
        order=fields.order,
        sources=fields.sources,
        counts=dict(fields.counts),
        warnings=fields.warnings,
        _store=store,
    )
