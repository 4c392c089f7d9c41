"""What is to be drawn: samples with labels, and what is given for each."""

import difflib
import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cftime
import numpy as np
import xarray as xr

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.encoded import Initial
from undrift.data.fields import Fields
from undrift.data.layout import Layout, plain
from undrift.data.members import offered_members, with_members
from undrift.data.regrid import match_given
from undrift.data.select import parse_selection, sample_mask
from undrift.data.stations import Stations
from undrift.errors import DataError, UsageError
from undrift.tasks import Window
from undrift.train.problem import Problem

__all__ = [
    "Request",
    "covariate_of",
    "labels_of",
    "request_at",
    "request_from",
    "request_holdout",
    "template",
    "variables_of",
]

logger = logging.getLogger(__name__)

_REFERENCES = {"ancillary_variables", "bounds", "cell_measures", "climatology", "formula_terms", "grid_mapping"}


@dataclass
class Request:
    """Samples that are asked for.

    Attributes:
        labels: coordinates of the samples, dims those that count samples.
        dims: those dims, slowest first.
        digests: text of each sample's labels, part of the keys of its noise.
        offered: ``offered(rows)`` gives what is given on the trained grid, (n, G, *coarse), or None.
        covariates: name -> value of each sample.
        interpolated: what is given was interpolated to the trained grid, so that it is no mean over its cells.
        outside: share of given values outside the training range, by channel or covariate.
        seen: of each sample the frames at which stations saw something, and what, or None.
        known: ``known(rows)`` gives values of windows of frames, (n, C, *space), NaN where they are asked, or None.
        initial: ``initial(rows)`` gives the states that samples are asked after, or None.
    """

    labels: xr.Dataset
    dims: tuple[str, ...]
    digests: list[str]
    offered: Callable[[np.ndarray], np.ndarray] | None
    covariates: dict[str, np.ndarray]
    interpolated: bool = False
    outside: dict[str, float] = field(default_factory=dict)
    known: Callable[[np.ndarray], np.ndarray] | None = None
    seen: Sequence[Sequence[tuple[int, Stations]]] | None = None
    initial: Callable[[np.ndarray], Initial] | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def block_means(self, codec: Codec) -> str:
        """Whether drawn fields keep the means over blocks that are given: kept, not kept, or not applicable, and why.

        These are plain means of the cells of a block, whatever their areas.
        """
        if self.offered is None or codec.factor is None or codec.members > 1:
            return "not applicable: training knew of no blocks of cells that are given"
        if not codec.conserves.any():
            return "not kept: what is given are no means over blocks of cells, or some of these cells have no value"
        if self.interpolated:
            return "not kept: what is given was interpolated to the blocks of training"
        kept = [c.label for c, keeps in zip(codec.layout.channels, codec.conserves) if keeps]
        names = "" if codec.conserves.all() else f" of {', '.join(kept)}"
        return f"kept{names}: plain means, not weighted by area, over {' x '.join(map(str, codec.factor))} cells"

    def warn(self) -> float:
        """Warn of values outside the training range; returns the largest share."""
        for name, share in self.outside.items():
            if share > 0.001:
                logger.warning("%.1f %% of the given %s lies outside the training range", 100 * share, name)
        return max(self.outside.values(), default=0.0)


def labels_of(fields: Fields) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Coordinates over the sample dims; a subset that is no product of its dims counts along ``sample``."""
    ds = fields.dataset
    dims = fields.layout.sample if set(fields.layout.sample) <= set(ds.dims) else ("sample",)
    coords = {n: c for n, c in ds.coords.items() if set(c.dims) <= set(dims) and c.dims}
    out = xr.Dataset(coords=coords)
    for dim in dims:
        if dim not in out.coords:
            out = out.assign_coords({dim: (dim, np.arange(ds.sizes[dim]))})
    return out, tuple(str(d) for d in dims)


def request_from(
    fields: Fields,
    codec: Codec,
    given_shell: Shell | None,
    at: str | Mapping[str, Any] | None,
    *,
    covariates: bool = True,
) -> Request:
    """Samples of what is given, all or those that ``at`` selects, with the model's covariates unless told otherwise."""
    if at is not None:
        fields = fields.select(np.flatnonzero(sample_mask(fields, at)))
    if codec.given is None or given_shell is None:
        raise UsageError("this model is given covariates and no field; type --at year=2085 in place of --given")
    members = None
    if codec.members > 1 and fields.layout.members == 1:
        fields, members = offered_members(fields, codec.members)
    mask = codec.given.mask_of(codec.members if members is None else members.size)
    match = match_given(fields, codec.given.layout, given_shell.coords, mask=mask)
    for sentence in [*match.notes, *match.warnings]:
        logger.warning("%s", sentence)
    interpolated = match.regridder.interpolates
    if interpolated and codec.conserves.any():
        logger.warning("what is given is interpolated: the drawn fields need not have its means over blocks")

    def offered(rows: np.ndarray) -> np.ndarray:
        return match(fields.read(rows)).astype(np.float64)

    outside: dict[str, float] = {}
    step, missing, gappy = 64, 0, 0
    totals = np.zeros(len(codec.given.layout.channels))
    for start in range(0, len(fields), step):
        rows = np.arange(start, min(start + step, len(fields)))
        raw = offered(rows)
        totals += codec.given.outside(raw) * len(rows)
        gaps = codec.given.gaps(raw).reshape(len(rows), -1).sum(1)
        missing, gappy = missing + int(gaps.sum()), gappy + int((gaps > 0).sum())
    if missing:
        logger.warning(
            "%d given values are missing, in %d of %d samples: %s",
            missing, gappy, len(fields), "each realization draws its own in their place" if codec.given.law is not None
            else "this older run takes their mean",
        )  # fmt: skip
    for channel, share in zip(codec.given.layout.channels, totals / max(len(fields), 1)):
        if share > 0:
            outside[channel.label] = float(share)
    values = {name: covariate_of(fields, name) for name in codec.covariates.names} if covariates else {}
    if covariates:
        outside |= codec.covariates.outside(values)
    labels, dims = with_members(*labels_of(fields), members, codec.layout)
    digests = [fields.label_digest(i) for i in range(len(fields))]
    return Request(labels, dims, digests, offered, values, interpolated, outside)


def request_holdout(
    problem: Problem, given_shell: Shell | None, at: str | Mapping[str, Any] | None, know: str | None = None
) -> Request:
    """The samples that training left out, all or those that ``at`` selects; ``know`` says which frames are given."""
    rows = problem.split.holdout
    if at is not None:
        rows = rows[np.flatnonzero(sample_mask(problem.pair.target.select(rows), at))]
    pair = problem.pair.select(rows)
    values = {name: value[rows] for name, value in problem.covariates.items()}
    # noise and output belong to the labels of the target, also where those of what is given differ a little
    digests = [pair.target.label_digest(i) for i in range(len(pair.target))]
    request = Request(*labels_of(pair.target), digests, None, values)
    if isinstance(problem.task, Window):
        given, target = problem.task.frames_known(know or problem.task.usual), pair.target

        def known(rows: np.ndarray) -> np.ndarray:
            values = target.read(rows)
            values.reshape(len(rows), -1, len(given), *values.shape[2:])[:, :, ~given] = np.nan
            return values

        request.known = known
    elif know is not None:
        raise UsageError(f"know={know} says which frames of a window are given, and this model knows of no windows")
    if pair.given is not None:
        offer = request_from(pair.given, problem.codec, given_shell, None, covariates=False)
        request.offered, request.interpolated, request.outside = offer.offered, offer.interpolated, offer.outside
    request.outside |= problem.codec.covariates.outside(values)
    return request


def covariate_of(fields: Fields, name: str) -> np.ndarray:
    """One covariate of given samples, among their covariates or coordinates.

    Raises:
        DataError: they have none of that name.
    """
    if name in fields.covariates:
        return fields.covariate(name)
    if name in fields._dataset.coords:
        return fields.along(fields._dataset[name].reset_coords(drop=True))
    raise DataError(f"the model was trained with covariate {name!r}, which the given data lack; add it as a coordinate")


def _numbers(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def request_at(at: str | Mapping[str, Any], codec: Codec, *, partly: bool = False) -> Request:
    """Samples by their labels alone: all combinations of the values, ranges of whole numbers included.

    Args:
        at: "year=2085,scenario=E1" or "year=2070/2099,scenario=E1"; as a mapping also lists of values.
        codec: the model's codec, whose covariates are asked for.
        partly: whether some of them may be absent.
    """
    names = codec.covariates.names
    chosen: dict[str, list[Any]] = {}
    for key, value in (parse_selection(at) if isinstance(at, str) else at).items():
        values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
        values = [_numbers(v) if isinstance(v, str) else v for v in values]
        is_range = isinstance(at, str) and len(values) == 2
        if is_range and all(isinstance(v, int) for v in values):
            values = list(range(min(values), max(values) + 1))
        elif is_range and values[0] != values[1]:
            raise UsageError(f"--at {key}={values[0]}/{values[1]} is no range of whole numbers; name one value")
        elif is_range:
            values = values[:1]
        chosen[key] = values
    missing = [n for n in names if n not in chosen and not partly]
    unknown = [k for k in chosen if k not in names]
    if missing or unknown:
        near = difflib.get_close_matches(unknown[0].lower(), missing, n=1) if unknown else []
        said = f"names {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        meant = f": did you mean {near[0]!r}?" if near else ";"
        raise UsageError(f"--at {said}{meant} the model is given {', '.join(names) or 'no covariate'}")
    names = [n for n in names if n in chosen]
    labels = xr.Dataset(coords={n: (n, _array(chosen[n], codec, n)) for n in names})
    mesh = list(itertools.product(*(labels[n].values for n in names)))
    covariates = {n: np.array([row[i] for row in mesh]) for i, n in enumerate(names)}
    digests = [";".join(f"{n}={plain(v)}" for n, v in sorted(zip(names, row))) for row in mesh]
    outside = {} if partly else codec.covariates.outside(covariates)
    return Request(labels, tuple(names), digests, None, covariates, outside=outside)


def _date(text: str, calendar: str) -> Any:
    """A date as the training data have them: datetime64, or cftime of a calendar."""
    if not calendar:
        date = np.datetime64(text, "ns")
        if np.isnat(date):
            raise ValueError(text)
        return date
    found = re.fullmatch(r"(-?\d{1,4})(?:-(\d\d?))?(?:-(\d\d?))?(?:[T ](\d\d?)(?::(\d\d))?(?::(\d\d))?)?", text)
    if not found:
        raise ValueError(text)
    year, month, day, *clock = (None if v is None else int(v) for v in found.groups())
    return cftime.datetime(year, month or 1, day or 1, *(v or 0 for v in clock), calendar=calendar)


def _array(values: Sequence[Any], codec: Codec, name: str) -> np.ndarray:
    part = next(p for p in codec.covariates.parts if p.name == name)
    if part.kind == "date":
        try:
            return np.array([_date(str(v), part.calendar) for v in values])
        except ValueError:
            raise UsageError(f"--at {name}={values[0]} is no date; type {name}=2085-07-01") from None
    bad = [v for v in values if not isinstance(v, int | float | np.number) or not np.isfinite(v)]
    if part.kind == "number" and bad:
        raise UsageError(f"--at {name}={bad[0]} is no number; training met {part.low:g} to {part.high:g}")
    return np.array([str(v) for v in values]) if part.kind == "category" else np.array(values)


def template(
    request: Request, layout: Layout, shell: Shell, realizations: np.ndarray, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """The labelled, empty ensemble: lazy zeros with dims (realization, *sample, *level, *space) in the user's order."""
    import dask.array as da

    number = ("realization", realizations, {"standard_name": "realization", "units": "1"})
    out = xr.Dataset(coords={**request.labels.coords, "realization": number})
    space = shell.coords.drop_vars(list(shell.coords.data_vars))
    out = out.assign_coords(space.coords)
    sizes = {**{d: request.labels.sizes[d] for d in request.dims}, **dict(zip(layout.space, layout.shape))}
    for name in layout.variables:
        dims = ("realization", *request.dims, *layout.level.get(name, ()), *layout.space)
        shape = [len(realizations) if d == "realization" else sizes.get(d, space.sizes.get(d, 0)) for d in dims]
        lazy = da.zeros(shape, dtype=np.float32, chunks=[1 if i == 0 else n for i, n in enumerate(shape)])
        keep = {k: v for k, v in shell.variable_attrs.get(name, {}).items() if k not in ("_FillValue", "missing_value")}
        out[name] = (dims, lazy, keep)
    return _closed(shell.order.restore(out)).assign_attrs({**shell.attrs, **attrs})


def _closed(ds: xr.Dataset) -> xr.Dataset:
    """The dataset without CF attributes that point to variables which it does not have."""
    out = ds.copy()
    for name in out.variables:
        for about in (out[name].attrs, out[name].encoding):
            for key in _REFERENCES & about.keys():
                words = [word for word in str(about[key]).split() if not word.endswith(":")]
                if not set(words) <= set(out.variables):
                    del about[key]
    return out


def variables_of(values: np.ndarray, layout: Layout, shell: Shell) -> dict[str, np.ndarray]:
    """Channels (n, C, *space) as variables (n, *level, *space) in the user's order."""
    for dim, positions in shell.order.positions.items():
        if dim in layout.space:
            values = np.take(values, np.argsort(positions), axis=2 + layout.space.index(dim))
    out = {}
    for name in layout.variables:
        part = values[:, layout.channels_of(name)]
        levels = [shell.coords.sizes[d] for d in layout.level.get(name, ())]
        out[name] = part.reshape(len(values), *levels, *part.shape[2:])
    return out
