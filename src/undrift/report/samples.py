"""Which samples the page shows, and their counterparts in the truth and in what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from undrift.data.cf import recognise
from undrift.data.ensemble import MEMBER_NAMES
from undrift.errors import DataError
from undrift.verify.crps import fair_crps
from undrift.verify.match import Axes, aligned_truth, axes_of, describe_rows, pair_samples, sample_labels

__all__ = ["Sample", "axes_for", "choose_samples", "counterpart", "given_for", "on_cells", "sample_dims", "take"]

_MOST_RANKED = 240  # samples whose error is looked at to choose the ones that are shown


@dataclass(frozen=True)
class Sample:
    """One sample to show: flat positions in the ensemble and the truth, its labels, why it was chosen, its CRPS."""

    ensemble: int
    truth: int | None
    text: str
    why: str
    crps: float = float("nan")


def axes_for(ensemble: xr.Dataset, truth: xr.Dataset | None) -> tuple[Axes, list[str]]:
    """The roles of the ensemble's dimensions, and the variables that have them."""
    other = ensemble if truth is None else truth
    numeric = [str(n) for n, v in ensemble.data_vars.items() if np.issubdtype(v.dtype, np.number) and v.ndim > 1]
    names = [n for n in numeric if n in other.data_vars]
    if not names:
        raise DataError(f"The ensemble ({', '.join(numeric) or 'no field'}) and the truth have no field in common.")
    if truth is None:
        other = ensemble.isel({d: 0 for d in MEMBER_NAMES if d in ensemble.dims}, drop=True)
    axes = axes_of(ensemble, other, names)
    if axes.realization is None:
        raise DataError(
            f"The ensemble has no dimension of members but {', '.join(map(str, ensemble.dims))}: name it realization."
        )
    return axes, [n for n in names if set(axes.space) <= set(ensemble[n].dims)]


def on_cells(truth: xr.Dataset, ensemble: xr.Dataset, names: Sequence[str], axes: Axes) -> xr.Dataset:
    """The truth on the ensemble's cells and in its coordinates, so that both are drawn on the same axes."""
    cells = aligned_truth(truth, ensemble, names, axes)
    shared = {n: c.variable for n, c in ensemble.coords.items() if c.dims and set(c.dims) <= set(axes.space)}
    return cells.assign_coords({n: c for n, c in shared.items() if n in cells.coords or n in cells.dims})


def take(field: xr.DataArray | xr.Dataset, dims: Sequence[str], flat: int) -> xr.DataArray | xr.Dataset:
    """The sample at a flat position over `dims`."""
    sizes = [field.sizes[d] for d in dims]
    return field.isel(dict(zip(dims, map(int, np.unravel_index(flat, sizes))))) if dims else field


def counterpart(other: xr.Dataset, ensemble: xr.Dataset, axes: Axes) -> dict[int, int]:
    """Flat position in `other` of each of the ensemble's samples that has one there, by label."""
    dims = [d for d in axes.sample if d in other.dims]
    dims += [str(d) for d in other.dims if d not in dims and _counts_samples(other, str(d), axes)]
    if not dims:
        count = int(np.prod([ensemble.sizes[d] for d in axes.sample], dtype=int))
        return dict.fromkeys(range(count), 0)
    pairs = pair_samples(ensemble, other, axes.sample, dims)
    return dict(zip(pairs.ensemble.tolist(), pairs.truth.tolist()))


def _counts_samples(other: xr.Dataset, dim: str, axes: Axes) -> bool:
    roles = recognise(other)
    return dim not in (*axes.space, *roles.space, *roles.level) and dim != axes.realization


def sample_dims(other: xr.Dataset, axes: Axes) -> list[str]:
    """The dimensions of `other` that count samples, in the order `counterpart` numbers them."""
    dims = [d for d in axes.sample if d in other.dims]
    return dims + [str(d) for d in other.dims if d not in dims and _counts_samples(other, str(d), axes)]


def choose_samples(
    members: xr.DataArray,
    truth: xr.DataArray | None,
    axes: Axes,
    pairs: Mapping[int, int],
    truth_dims: Sequence[str],
) -> list[Sample]:
    """The sample of median CRPS and the one at the worst tenth; the first one where truth has no counterparts.

    Args:
        members: (realization, *sample, *space) one field of the ensemble.
        truth: (*truth_dims, *space) or None.
        axes: the roles of the ensemble's dimensions.
        pairs: flat position in the truth by flat position in the ensemble.
        truth_dims: the truth's sample dimensions.
    """
    labels = sample_labels(members.to_dataset(name="field"), axes.sample)
    known = sorted(pairs) if truth is not None else []
    if truth is None or not known:
        text = describe_rows(labels, axes.sample, np.array([0]))[0]
        return [Sample(0, None, text, "Realizations")]
    known = [
        known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_RANKED)).round().astype(int))
    ]
    errors = np.array([_crps(take(members, axes.sample, e), take(truth, truth_dims, pairs[e]), axes) for e in known])
    order = np.argsort(np.where(np.isfinite(errors), errors, np.inf), kind="stable")
    order = order[: max(int(np.isfinite(errors).sum()), 1)]
    picks = [("A typical sample", order[(len(order) - 1) // 2])]
    if len(order) > 2:
        picks.append(("A hard sample", order[int(np.ceil(0.9 * (len(order) - 1)))]))
    rows = np.array([known[i] for _, i in picks])
    texts = [text.replace("T00:00:00", "") for text in describe_rows(labels, axes.sample, rows)]
    return [
        Sample(known[i], pairs[known[i]], text, why, float(errors[i]))
        for (why, i), text in zip(picks, texts, strict=True)
    ]


def _crps(members: xr.DataArray | xr.Dataset, truth: xr.DataArray | xr.Dataset, axes: Axes) -> float:
    """Fair CRPS of one sample, averaged over its cells without weights; only to rank samples among each other."""
    assert isinstance(members, xr.DataArray) and isinstance(truth, xr.DataArray) and axes.realization is not None
    crps = fair_crps(truth.transpose(*axes.space).values, members.transpose(axes.realization, *axes.space).values)
    return float(np.nanmean(crps)) if np.isfinite(crps).any() else float("nan")


def given_for(given: xr.Dataset | None, variable: str, level: Mapping[str, int], units: str) -> xr.DataArray | None:
    """What was given for a field: the variable of its name, else the first of its units, else the first."""
    if given is None:
        return None
    names = [str(n) for n in given.data_vars if np.issubdtype(given[n].dtype, np.number) and given[n].ndim]
    same = (
        [n for n in names if n == variable] or [n for n in names if given[n].attrs.get("units", "") == units] or names
    )
    if not same:
        return None
    chosen = given[same[0]]
    space = recognise(given).space
    first = {d: 0 for d in recognise(given).level if d in chosen.dims and d not in space}
    return chosen.isel(first | {d: i for d, i in level.items() if d in chosen.dims and i < chosen.sizes[d]})
