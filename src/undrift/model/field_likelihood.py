"""How likely fields that training has not seen are under a model, beside the Gaussian that its network corrects."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from undrift.config import valid_seed
from undrift.data.linear import spread
from undrift.denoise.guess import GaussianGuess
from undrift.distributions.field_density import gaussian_log_prob
from undrift.distributions.request import request_holdout
from undrift.errors import DataError, check_whole
from undrift.model.field_density import (
    asked_fields,
    check_given,
    check_precision,
    check_task,
    log_densities,
    values_of,
)

if TYPE_CHECKING:
    from undrift.model.field_model import FieldModel

__all__ = ["held_out_likelihood"]

_CALLS = 256  # of each network


def held_out_likelihood(
    model: "FieldModel", samples: int, *, probes: int, tolerance: float, seed: int, dequantize: bool, progress: bool
) -> dict[str, Any]:
    """See :meth:`undrift.model.FieldModel.evaluate`."""
    seed = valid_seed(seed)
    check_whole(1, samples=samples)
    check_precision(probes, tolerance)
    check_task(model)
    problem = model.problem
    held = problem.split.holdout
    if not len(held):
        raise DataError("training left no sample out; train with --holdout 20%, or type undrift log-prob RUN DATA")
    rows = held[spread(len(held), samples)]
    values, lost = values_of(model, problem.pair.target.select(rows))
    if lost.all():
        raise DataError(
            f"each of {len(rows)} held-out fields lacks values that training had; a density is of whole ones"
        )
    request = request_holdout(
        replace(problem, split=replace(problem.split, holdout=rows[lost == 0])), model.parts.given_shell, None
    )
    if model.codec.given is not None:
        check_given(model, request)
    request.warn()
    asked = asked_fields(model, values[lost == 0], request, dequantize, seed)
    found = log_densities(model, asked, probes=probes, tolerance=tolerance, nfe=_CALLS, seed=seed, progress=progress)
    value, trace, error = (
        torch.cat([getattr(one, name) for one in found]).cpu().numpy() for name in ("value", "trace", "error")
    )
    guess, numbers = model.parts.guess, int(asked.cells.sum())
    assert isinstance(guess, GaussianGuess)  # of other tasks it may be another
    gaussian = (
        gaussian_log_prob(guess, asked.x.to(model.device), torch.from_numpy(asked.cells).to(model.device)).cpu().numpy()
    )
    gain = value - gaussian
    return {
        "samples": len(value),
        "left_out": int((lost > 0).sum()),
        "numbers": numbers,
        **_told(value + asked.slopes, numbers),
        "numerical_error": float((error - trace).mean() + np.sqrt(np.square(trace).sum()) / len(trace)),
        "gaussian": _told(gaussian + asked.slopes, numbers),
        "gain": float(gain.mean()),
        "gain_error": _standard_error(gain),
    } | ({"dequantized": asked.spread} if asked.spread else {})


def _told(values: NDArray[np.float64], numbers: int) -> dict[str, float]:
    """Of log-densities of fields (n,) in nats."""
    mean = float(values.mean())
    return {
        "log_likelihood": mean,
        "standard_error": _standard_error(values),
        "nats_per_value": mean / numbers,
        "bits_per_value": -mean / numbers / math.log(2),
    }


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
