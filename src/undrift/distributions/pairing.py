"""The two ends of paths of flow matching, matched before a training rather than in each of its steps."""

import math
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
_ROWS, _LEAST = 2048, 256  # most and fewest matched at once, of a class: the time grows as their cube


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

    About as many rows are matched at once as there are that differ, of each class where the coupling matches classes,
    but 2048 at most and 256 at least: copies of a row make an assignment slow, and tell it nothing. Within a time 256
    are, and twice as many as long as all pairs can be expected within it, an assignment of twice as many taking eight
    times as long; pairs of smaller matchings are not kept.

    Args:
        coupling: of the points.
        x: points, (n, D).
        odds: of each, (n,).
        given: what is given with each, (n, K), or None.
        number: of pairs at least.
        seed: of the draws.
        seconds: after which no more are matched, though some are in any case.

    Returns:
        Numbers of rows, (pairs,), and z, (pairs, D).
    """
    generator, begun = torch.Generator().manual_seed(seed), time.monotonic()
    classes = torch.zeros(len(x), dtype=torch.long)
    if given is not None and isinstance(coupling, ConditionalOT) and coupling.share is None:
        classes = given.unique(dim=0, return_inverse=True)[1]
    differ = _differ(x[odds > 0], classes[odds > 0], int(classes.max()) + 1)
    largest = number * float(torch.bincount(classes, odds.double()).max() / odds.double().sum())
    most = math.ceil(min(_ROWS, max(_LEAST, int(differ.max())), largest))

    def matched(size: int) -> tuple[Tensor, Tensor]:
        drawn = drawn_rows(odds, min(size * len(differ), number), generator)
        parts: list[Tensor] = []
        for one in classes[drawn].unique():
            rows, at_once = drawn[classes[drawn] == one], min(size, max(_LEAST, int(differ[one])))
            if (several := round(len(rows) / at_once)) > 1:  # copies of a row are neighbours
                rows = rows[torch.randperm(len(rows), generator=generator)]
            parts += rows.tensor_split(max(several, 1))
        z = [coupling(x[part], generator, None if given is None else given[part]) for part in parts]
        return torch.cat(parts), torch.cat(z)

    size, found = most if seconds is None else min(most, _LEAST), []
    while sum(len(at) for at, _ in found) < number:
        start = time.monotonic()
        found.append(matched(size))
        now = time.monotonic()
        left = math.inf if seconds is None else seconds - (now - begun)
        if size < most and 4 * (now - start) * number / len(found[-1][0]) <= left:
            size, found = min(2 * size, most), []
        elif left <= 0:
            break
    rows, ends = zip(*found)
    return torch.cat(rows), torch.cat(ends)


def _differ(x: Tensor, classes: Tensor, number: int) -> Tensor:
    """How many rows of each class differ, (classes,)."""
    return torch.bincount(torch.cat([classes[:, None].to(x), x], 1).unique(dim=0)[:, 0].long(), minlength=number)


def drawn_rows(odds: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Rows by their odds, at evenly spaced places of the running sum: a row is drawn no oftener than its share says."""
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(odds), generator=generator)
    below = odds.double()[order].cumsum(0)
    places = (torch.arange(number, dtype=torch.float64) + start) / number * below[-1]
    return order[torch.searchsorted(below, places, right=True).clamp(max=len(odds) - 1)]
