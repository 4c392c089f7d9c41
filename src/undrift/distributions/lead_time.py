"""States after lead times: what is asked of each start and lead, from files or from the part that was held out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import is_timelike
from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.encoded import Initial
from undrift.data.fields import Fields
from undrift.data.leads import Clock, Lead, leads_of, starts_in
from undrift.data.regrid import match_given
from undrift.data.select import sample_mask
from undrift.data.static import PARTS_OF_TIME
from undrift.distributions.request import Request, covariate_of, labels_of
from undrift.errors import DataError, UsageError
from undrift.verify.leads import LEAD

__all__ = ["request_after", "request_leads", "times_of"]


def request_after(
    fields: Fields,
    codec: Codec,
    shell: Shell,
    at: str | Mapping[str, Any] | None,
    lead: Lead | Sequence[Lead] | None,
    *,
    usual: bool,
) -> Request:
    """States after lead times from all given states, or from those that ``at`` selects.

    Args:
        fields: the given states.
        codec: of the model.
        shell: labels of its fields.
        at: labels of initial states.
        lead: the lead times as they are typed.
        usual: whether a few leads are meant where none is typed.

    Raises:
        UsageError: no lead is meant, or one that cannot be drawn.
        DataError: no chosen state has all frames before it, or the given data lack a variable or a covariate.
    """
    laws = codec.lead_laws
    assert laws is not None
    if lead is None and not usual:
        raise UsageError(f"say how far from the initial states: --lead {laws.clock.text(laws.longest)}")
    leads = laws.usual if lead is None else leads_of(lead, laws.clock, laws.longest)
    return request_leads(fields, codec, shell, leads, _chosen_starts(fields, codec, at))


def request_leads(fields: Fields, codec: Codec, shell: Shell, leads: np.ndarray, rows: np.ndarray) -> Request:
    """States after each of the leads from each start.

    All leads of a start share the digest that keys the noise, so that a realization goes on smoothly in the lead.

    Args:
        fields: the given states.
        codec: of the model.
        shell: labels of its fields.
        leads: in steps of the record, ascending.
        rows: samples (n, past) of the starts, the initial state last.

    Raises:
        DataError: the given data lack a variable or a covariate.
    """
    laws = codec.lead_laws
    assert laws is not None
    absent = [v for v in codec.layout.variables if v not in fields.layout.variables]
    if absent:
        raise DataError(f"the given data lack {absent[0]!r}, which the model was trained on")
    match = match_given(fields, codec.layout, shell.coords, mask=codec.mask)
    starts = fields.select(rows[:, -1])
    labels, dims = labels_of(starts)
    digests = [starts.label_digest(i) for i in range(len(starts))]
    count, times = len(leads), times_of(fields)
    valid = np.stack([laws.clock.after(times[rows[:, -1]], float(lead)) for lead in leads], 1)
    told = {
        name: _told(codec, name, fields, valid.ravel(), np.repeat(rows[:, -1], count))
        for name in codec.covariates.names
    }

    def initial(which: np.ndarray) -> Initial:
        given = rows[which // count]
        flat = given.ravel()
        values = match(fields.read(flat)).reshape(*given.shape, len(codec.layout.channels), *codec.layout.shape)
        alone = {name: _told(codec, name, fields, times[flat], flat) for name in codec.covariates.names}
        return Initial(values, codec.alone(alone, len(flat)), leads[which % count])

    labels = _labelled(labels, dims, fields, laws.clock, leads, valid)
    each = [digest for digest in digests for _ in leads]
    outside = codec.covariates.outside(told)
    return Request(labels, (*dims, LEAD), each, None, told, outside=outside, initial=initial)


def _chosen_starts(fields: Fields, codec: Codec, at: str | Mapping[str, Any] | None) -> np.ndarray:
    """The samples (n, past) of all states that have so many frames up to them, or of those that ``at`` selects.

    Raises:
        DataError: there is none.
    """
    laws = codec.lead_laws
    assert laws is not None
    rows = starts_in(fields, laws.past, laws.clock)
    if at is not None:
        rows = rows[np.isin(rows[:, -1], np.flatnonzero(sample_mask(fields, at)))]
    if not len(rows):
        raise DataError(f"none of the chosen states has {laws.past} frames in a row up to it; give earlier ones too")
    return rows


def times_of(fields: Fields) -> np.ndarray:
    """Times of all samples; positions along time where there are none."""
    times = fields.times()
    if times is not None:
        return times
    dim = str(fields.layout.time)
    return np.array([fields.labels(i)[dim] for i in range(len(fields))])


def _told(codec: Codec, name: str, fields: Fields, times: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A covariate of states at times: told by the time, or that of the samples in ``rows``."""
    if name == codec.layout.time:
        return times
    if name in PARTS_OF_TIME and is_timelike(times):
        return getattr(xr.DataArray(times, dims="time").dt, name).values
    return covariate_of(fields, name)[rows]


def _labelled(
    labels: xr.Dataset, dims: tuple[str, ...], fields: Fields, clock: Clock, leads: np.ndarray, valid: np.ndarray
) -> xr.Dataset:
    """The labels of starts with the leads, and the times that are asked along both."""
    time = str(fields.layout.time)
    ticks = np.array([clock.lead(float(lead)) for lead in leads])
    labels = labels.assign_coords({LEAD: (LEAD, ticks, {"standard_name": "forecast_period"})})
    along, sizes = (time if time in dims else dims[-1]), [labels.sizes[d] for d in dims]
    first = np.moveaxis(valid.reshape(*sizes, len(leads)), dims.index(along), 0)
    first = first.reshape(sizes[dims.index(along)], -1, len(leads))[:, 0]
    labels = labels.assign_coords(valid_time=((along, LEAD), first, {"long_name": "time that is forecast"}))
    labels[time].attrs["standard_name"] = "forecast_reference_time"
    return labels
