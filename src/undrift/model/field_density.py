"""Log-densities of labelled fields under a trained model, in nats in the units of the data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from undrift.config import valid_seed
from undrift.data.atoms import ladder
from undrift.data.codec import Codec
from undrift.data.encoded import Predicted
from undrift.data.fields import Fields
from undrift.data.jacobian import log_slopes
from undrift.data.open import open_fields
from undrift.data.place import place_given
from undrift.data.regrid import join
from undrift.distributions.field_density import LogDensity, field_log_prob
from undrift.distributions.request import Request, covariate_of, labels_of, request_at, request_from
from undrift.errors import DataError, UsageError, check_number, check_whole
from undrift.model.opening import Data
from undrift.process import Key, uniform
from undrift.progress import track
from undrift.tasks import Downscale, Emulate
from undrift.tasks.batch import Condition
from undrift.train.batches import to_condition

if TYPE_CHECKING:
    from undrift.model.field_model import FieldModel

__all__ = [
    "Asked",
    "asked_fields",
    "check_given",
    "check_precision",
    "check_task",
    "log_densities",
    "log_prob_of_fields",
    "values_of",
]

_FINE = 0.01  # of a cell's standard deviation: steps of packed data that are as good as none
_ATOM = 0.05  # share of the values that are one and the same
_TERMS = ("discretisation", "trace", "base", "truncation")
_METHOD = "probability-flow ODE, traces by random signs beside the known one of the Gaussian guess"


def log_prob_of_fields(
    model: "FieldModel",
    data: Data,
    given: Data | None,
    at: str | Mapping[str, Any] | None,
    *,
    probes: int,
    tolerance: float,
    nfe: int,
    seed: int,
    dequantize: bool,
    progress: bool,
) -> xr.Dataset:
    """See :meth:`undrift.model.FieldModel.log_prob`."""
    seed = valid_seed(seed)
    check_precision(probes, tolerance)
    check_task(model)
    target = open_fields(data, dims=model.config.data.dims or None)
    target, request = _request(model, target, given, at)
    outside = request.warn()
    values, lost = values_of(model, target)
    if lost.any():
        raise DataError(
            f"values are missing in {int((lost > 0).sum())} of {len(target)} fields, {int(lost.sum())} numbers in all, "
            "that had values in training; a density is of whole fields, leave those out"
        )
    asked = asked_fields(model, values, request, dequantize, seed)
    found = log_densities(
        model, asked, probes=probes, tolerance=tolerance, nfe=nfe, seed=seed, progress=progress
    )  # fmt: skip
    attrs = model._attrs() | {
        "method": _METHOD,
        "numbers": int(asked.cells.sum()),
        "not_counted": f"{int((~asked.cells).sum())} cells that never have a value",
        "probes": probes,
        "network_calls": sum(one.nfe for one in found),
        "given_out_of_range": outside,
        "undrift_seed": seed,
    }
    attrs |= {"dequantized": asked.spread} if asked.spread else {}
    out = _labelled(request, asked.slopes, found, attrs)
    finite = np.isfinite(out.log_prob)
    missed = finite & (out.error_discretisation > (tolerance or np.inf))
    return out.assign_attrs(tolerance=tolerance, not_converged=int(missed.sum()), not_finite=int((~finite).sum()))


@dataclass(frozen=True)
class Asked:
    """Fields as the network sees them.

    Attributes:
        x: (n, C, *space).
        condition: what is given for each.
        cells: which have values, (C, *space).
        slopes: log of the Jacobian from the units of the data, (n,).
        spread: a sentence on values that were spread over their steps, or nothing.
    """

    x: torch.Tensor
    condition: Condition
    cells: NDArray[np.bool_]
    slopes: NDArray[np.float64]
    spread: str


def asked_fields(
    model: "FieldModel", values: NDArray[np.float64], request: Request, dequantize: bool, seed: int
) -> Asked:
    """Fields (n, C, *space) in the units of the data, as the network sees them.

    Raises:
        DataError: values have atoms, where no density in nats exists.
    """
    codec, predicted, condition = _encoded(model.codec, request)
    cells = ~model.codec.mask
    values, spread = _without_atoms(codec, values, predicted, cells, dequantize, seed)
    whole = (slice(None),) * len(codec.layout.space)
    x = torch.from_numpy(codec.residual(values, predicted, whole)[0])
    return Asked(x, condition, cells, log_slopes(codec, values, predicted)[:, cells].sum(1), spread)


def log_densities(
    model: "FieldModel", asked: Asked, *, probes: int, tolerance: float, nfe: int, seed: int, progress: bool
) -> list[LogDensity]:
    """Log-densities in the numbers of the network, a micro-batch each."""
    law, micro, x = model._law(), model.config.sample.micro_batch, asked.x
    cells, found = torch.from_numpy(asked.cells).to(model.device), []
    with track("log-densities", len(x), enabled=progress) as tick:
        for start in range(0, len(x), micro):
            rows = torch.arange(start, min(start + micro, len(x)))
            part = asked.condition.index(rows).to(model.device)
            found.append(
                field_log_prob(
                    law, x[rows].to(model.device), part, cells, probes=probes, tolerance=tolerance, nfe=nfe, seed=seed
                )
            )
            tick(int(rows[-1]) + 1)
    return found


def check_precision(probes: int, tolerance: float) -> None:
    """Refuse too few probes, and what is no tolerance."""
    check_whole(2, probes=probes)
    check_number(False, tolerance=tolerance)
    if tolerance < 0:
        raise UsageError(
            f"tolerance is {tolerance:g}, expected nats a field, such as 1, or 0 for all steps that there are"
        )


def check_task(model: "FieldModel") -> None:
    """Refuse models whose fields have no density in nats, or none that is found yet."""
    if not isinstance(model.task, Emulate | Downscale):
        raise UsageError(
            f"log-prob of fields is of models that emulate or downscale, and this one's task is {model.task.name}"
        )
    if model.codec.members > 1:
        raise UsageError("log-prob is of models that are given one field, and this one is given several members")


def _request(
    model: "FieldModel", target: Fields, given: Data | None, at: str | Mapping[str, Any] | None
) -> tuple[Fields, Request]:
    """The fields that are asked about, and what is given for each of them."""
    codec = model.codec
    if codec.given is not None:
        if given is None:
            raise UsageError("say what is given: --given COARSE.nc, with the labels of the fields")
        if at is not None:
            raise UsageError("at is for models that are given numbers; what is given is joined to the fields by labels")
        offered = open_fields(given, dims=model.config.data.dims or None)
        mine, theirs = join(target, offered)
        target, offered = target.select(mine), offered.select(theirs)
        request = request_from(offered, codec, model.parts.given_shell, None)
        check_given(model, request)
        labels, dims = labels_of(target)
        return target, replace(request, labels=labels, dims=dims)
    if given is not None:
        raise UsageError("this model is given covariates and no field; leave given out")
    labels, dims = labels_of(target)
    told = {} if at is None else request_at(at, codec, partly=True).covariates
    if any(len(values) > 1 for values in told.values()):
        raise UsageError(f"--at {at} names several samples; name one value for each covariate")
    values = {
        name: np.repeat(told[name], len(target)) if name in told else covariate_of(target, name)
        for name in codec.covariates.names
    }
    digests = [target.label_digest(i) for i in range(len(target))]
    return target, Request(labels, dims, digests, None, values, outside=codec.covariates.outside(values))


def check_given(model: "FieldModel", request: Request) -> None:
    """Refuse laws that lie on a surface, and given fields with gaps."""
    kept = request.block_means(model.codec)
    if kept.startswith("kept"):
        raise UsageError(
            "the model's fields keep the means over blocks that are given: they lie on a surface, where no density in "
            "nats exists; log-prob is of models that are given something else, as train --given OTHER.nc makes them"
        )
    assert request.offered is not None and model.codec.given is not None
    gaps = sum(bool(model.codec.given.gaps(request.offered(np.array([i]))).any()) for i in range(len(request)))
    if gaps:
        raise DataError(f"given values are missing for {gaps} of {len(request)} fields; leave those fields out")


def values_of(model: "FieldModel", target: Fields) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The fields on the model's cells, (n, C, *space), and how many values each lacks that training had, (n,).

    Raises:
        DataError: the cells are others.
    """
    codec = model.codec
    place = place_given(target, codec.layout, model.parts.shell.coords)
    if place.regridder is not None:
        raise DataError("the cells of the fields are not those of training; a density is of values on the same cells")
    values = place(target.read(np.arange(len(target)))).astype(np.float64)
    lost = np.isnan(values) & ~codec.mask
    return values, lost.reshape(len(target), -1).sum(1)


def _encoded(codec: Codec, request: Request) -> tuple[Codec, Predicted, Condition]:
    """What is predicted of each field, and what the network is told."""
    rows = np.arange(len(request))
    offered = None if request.offered is None else request.offered(rows)
    encoded, predicted = codec.encode(None, None, rows, covariates=request.covariates, offered=offered)
    return codec, predicted, to_condition(encoded)


def _without_atoms(
    codec: Codec,
    values: NDArray[np.float64],
    predicted: Predicted,
    cells: NDArray[np.bool_],
    dequantize: bool,
    seed: int,
) -> tuple[NDArray[np.float64], str]:
    """The values, spread over the steps on which they lie where that is asked, and a sentence that says so.

    Raises:
        DataError: values at a bound, or on steps that are not small beside what is left to be drawn.
    """
    told = []
    for i, channel in enumerate(codec.layout.channels):
        known = values[:, i][:, cells[i]]
        bounded = codec.transforms[i].encode(known)
        repeated = float(np.unique(known, return_counts=True)[1].max(initial=0) / max(known.size, 1))
        if not np.isfinite(bounded).all() or (codec.transforms[i].power != 1 and (known == 0).any()):
            share = float((~np.isfinite(bounded) | (known == 0)).mean())
            raise DataError(
                f"{channel.label} is at a bound, such as an exact 0, in {100 * share:.2g} % of its values, where a law "
                "has an atom and no density in nats exists"
            )
        step = ladder(known.ravel())
        if repeated > _ATOM and not step:
            raise DataError(
                f"{100 * repeated:.1f} % of the values of {channel.label} are the same number, where a law has an atom "
                "and no density in nats exists"
            )
        spread = np.exp(-np.median(log_slopes(codec, values, predicted)[:, i][:, cells[i]]))
        if not step or step < _FINE * spread:
            continue
        if not dequantize:
            raise DataError(
                f"{channel.label} lies on even steps of {step:g}, as counts and packed data do, and such a law has no "
                "density; type --dequantize to spread each value over its step"
            )
        shift = uniform(Key(seed, "dequantize", i), values[:, i].shape) - 0.5
        values[:, i] += step * shift
        told.append(f"{channel.label}: each value is spread over its step of {step:g}")
    return values, "; ".join(told)


def _labelled(
    request: Request, slopes: NDArray[np.float64], found: list[LogDensity], attrs: dict[str, Any]
) -> xr.Dataset:
    """The log-densities over the dims that count samples."""
    shape = [request.labels.sizes[d] for d in request.dims]

    def variable(values: NDArray[np.float64], name: str) -> tuple[tuple[str, ...], NDArray[np.float64], dict[str, str]]:
        return request.dims, values.reshape(shape), {"units": "nat", "long_name": name}

    def joined(name: str) -> NDArray[np.float64]:
        return torch.cat([getattr(one, name) for one in found]).cpu().numpy()

    fields = {
        "log_prob": variable(joined("value") + slopes, "log-density in the units of the data"),
        "log_prob_error": variable(joined("error"), "estimated error of the log-density"),
    }
    fields |= {f"error_{name}": variable(joined(name), f"part of the error: {name}") for name in _TERMS}
    return xr.Dataset(fields, request.labels.coords, attrs)
