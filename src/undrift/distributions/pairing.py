"""The two ends of paths of flow matching, matched before a training rather than in each of its steps."""

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.errors import UsageError
from undrift.process import ConditionalOT, Coupling, DataToData, Independent, MinibatchOT

__all__ = ["COUPLINGS", "coupling_of", "drawn_rows", "paired"]

Array = NDArray[np.float64]
COUPLINGS = ("independent", "ot", "conditional-ot")
_CLASSES, _SHARE = 64, 0.05  # different conditions up to which they are classes, and the share where they are numbers
_FEWEST = 4  # rows of a class in the mean: where all rows differ there is nothing to match within one
_ROWS = 2048  # matched at once, of each class: the time of an assignment grows as their cube


def coupling_of(name: str, base: Tensor | None, given: Array | None) -> Coupling:
    """A coupling of points with rows of a base, or with white noise.

    Args:
        name: one of ``COUPLINGS``.
        base: rows of equal weight, (m, D); white noise if None.
        given: what is given with each point, (n, K), or None. Up to 64 different rows are classes, of which only equal
            ones are matched, where they have four points each in the mean; others are numbers, see
            :class:`undrift.process.ConditionalOT`.

    Raises:
        UsageError: transport that does not heed what is given, or nothing is given to be heeded.
    """
    ends = Independent() if base is None else DataToData(base)
    if name == "independent":
        return ends
    if name == "ot":
        if given is not None:
            raise UsageError(
                "optimal transport matches the base to rows whatever is given with them, so that the law of the base "
                "would depend on it, as that of a draw does not; type conditional-ot"
            )
        return MinibatchOT(ends)
    if given is None:
        raise UsageError("conditional-ot heeds covariates, and there are none; type ot")
    classes = len(np.unique(given, axis=0)) <= min(_CLASSES, len(given) / _FEWEST)
    return ConditionalOT(ends, None if classes else _SHARE)


def paired(
    coupling: Coupling,
    x: Tensor,
    odds: Tensor,
    given: Tensor | None,
    *,
    number: int,
    seed: int,
    seconds: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows, drawn by their odds, and the other ends of their paths.

    Args:
        coupling: of 2048 rows at once, of each class where it matches classes, and of no more than are asked for.
        x: points, (n, D).
        odds: of each, (n,).
        given: what is given with each, (n, K), or None.
        number: of pairs at least.
        seed: of the draws.
        seconds: after which no more are matched, though some are in any case.

    Returns:
        Numbers of rows, (pairs,), and z, (pairs, D).
    """
    generator, at_once = torch.Generator().manual_seed(seed), _ROWS
    if given is not None and isinstance(coupling, ConditionalOT) and coupling.share is None:
        at_once *= len(given.unique(dim=0))
    at_once = min(at_once, number)
    begun, rows, ends = time.monotonic(), [], []
    while sum(map(len, rows)) < number and (not rows or seconds is None or time.monotonic() - begun < seconds):
        at = drawn_rows(odds, at_once, generator)
        rows.append(at)
        ends.append(coupling(x[at], generator, None if given is None else given[at]))
    return torch.cat(rows), torch.cat(ends)


def drawn_rows(odds: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Rows by their odds, at evenly spaced places of the running sum: a row is drawn no oftener than its share says."""
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(odds), generator=generator)
    below = odds.double()[order].cumsum(0)
    places = (torch.arange(number, dtype=torch.float64) + start) / number * below[-1]
    return order[torch.searchsorted(below, places, right=True).clamp(max=len(odds) - 1)]
