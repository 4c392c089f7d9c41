"""Constraints in the user's units and order, on the estimates of a denoiser of residuals and on what is drawn."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.encoded import Predicted
from undrift.denoise.denoiser import Denoiser
from undrift.guide.constrained import Constrained
from undrift.guide.constraints import Constraint

__all__ = ["constrained_by", "orders_of", "projected", "residual_of", "tell_residual"]

logger = logging.getLogger(__name__)

Reorder = Callable[[Tensor], Tensor]

_FAR = 1e-3


def constrained_by(
    constraint: Constraint, codec: Codec, shell: Shell, predicted: Predicted, rows: int
) -> Callable[[Denoiser], Denoiser] | None:
    """What goes around a denoiser of residuals, so that its estimates satisfy a constraint in the data's units.

    None where a variable has a transform with bounds: an estimate on a bound has no latent of its own, and only what is
    drawn is projected.

    Args:
        constraint: of fields (B, C, *space) in the units and the order of the data.
        codec: of the model.
        shell: with the order of the data.
        predicted: of each field that is drawn, whose residuals the denoiser knows; the last counts for more rows.
        rows: of a batch.
    """
    if any(t.kind != "standard" or t.power != 1 for t in codec.transforms):
        return None
    at = np.minimum(np.arange(rows), len(predicted.mean) - 1)
    shape = (-1, *[1] * len(codec.layout.space))
    unit, zero = (np.array([getattr(t, name) for t in codec.transforms]).reshape(shape) for name in ("std", "mean"))
    offset = torch.from_numpy(zero + unit * predicted.mean[at])
    scale = torch.from_numpy(unit * predicted.std[at])
    ours, theirs = orders_of(codec, shell)
    return lambda denoiser: Constrained(
        denoiser,
        constraint,
        to_data=lambda r: theirs(offset.to(r.device) + scale.to(r.device) * r.double()),
        to_latent=lambda x: (ours(x) - offset.to(x.device)) / scale.to(x.device),
    )


def projected(values: np.ndarray, constraint: Constraint, codec: Codec, shell: Shell) -> np.ndarray:
    """Drawn fields (B, C, *space) in the data's units on the constraint.

    Cells without a value stay so, and count as 0.
    """
    ours, theirs = orders_of(codec, shell)
    known = np.isfinite(values)
    x = theirs(torch.from_numpy(np.where(known, values, 0).astype(np.float64)))
    return np.where(known, ours(constraint.project(x)).numpy(), np.nan).astype(np.float32)


def residual_of(values: np.ndarray, constraint: Constraint, codec: Codec, shell: Shell) -> float:
    """The largest residual of fields (B, C, *space) as they are written; cells without a value count as 0."""
    _, theirs = orders_of(codec, shell)
    return float(constraint.residual(theirs(torch.from_numpy(np.nan_to_num(values).astype(np.float64)))).max())


def tell_residual(residual: float) -> None:
    """Warn of fields that do not satisfy their constraint."""
    if residual > _FAR:
        logger.warning(
            "the constraint is satisfied to %.2g only, relative to its terms: it may contradict what is given", residual
        )


def orders_of(codec: Codec, shell: Shell) -> tuple[Reorder, Reorder]:
    """Fields (B, C, *space) from the data's order to the one in which they are computed, and the way back."""
    moved = [(2 + codec.layout.space.index(d), p) for d, p in shell.order.positions.items() if d in codec.layout.space]

    def reorder(x: Tensor, back: bool) -> Tensor:
        for axis, positions in moved:
            index = torch.from_numpy(np.argsort(positions) if back else np.asarray(positions)).to(x.device)
            x = x.index_select(axis, index)
        return x

    return lambda x: reorder(x, False), lambda x: reorder(x, True)
