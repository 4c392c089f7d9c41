"""Whether chains still hold their way from where they were started to where they stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from undrift.data.columns import Columns

__all__ = ["burn_in_remarks"]

_BATCHES = 20
_FAR = 8.0  # standard deviations of the later batches' means: t of 9 degrees of freedom has 2e-5 beyond


def burn_in_remarks(columns: Columns, names: Sequence[str], weights: NDArray[np.float64]) -> tuple[str, ...]:
    """A sentence for each chain whose beginning is elsewhere than its second half.

    The chain is cut into 20 batches; the mean of the first is held against the mean and the spread of the last ten, so
    that what neighbouring rows share is in the spread (batch means, as in Geweke 1992).

    Args:
        columns: of a source whose rows are in the order they were drawn in; others get no sentence.
        names: the columns looked at.
        weights: (n,) of the rows.
    """
    if not columns.sequential:
        return ()
    values = columns.matrix(names)
    found = []
    for number, origin in enumerate(columns.origins):
        rows = np.flatnonzero((columns.chain == number) & (weights > 0))
        if len(rows) < 5 * _BATCHES:
            continue
        parts = np.array_split(rows, _BATCHES)
        means = np.stack([np.average(values[part], axis=0, weights=weights[part]) for part in parts])
        late = means[_BATCHES // 2 :]
        spread = late.std(axis=0, ddof=1)
        away = np.divide(np.abs(means[0] - late.mean(0)), spread, out=np.zeros(len(spread)), where=spread > 0)
        if away.max() > _FAR:
            name = names[int(np.argmax(away))]
            found.append(
                f"{origin}: up to {columns.word} {columns.line[parts[0][-1]]} {name} is on average {away.max():.0f} "
                "standard deviations from where it stays; is this burn-in? type --ignore-rows 0.3, or more"
            )
    return tuple(found)
