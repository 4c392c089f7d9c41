"""Densities: the law of parameters in a table, perhaps given others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Density"]


@dataclass(frozen=True)
class Density:
    """Learn the law of the columns of a table, given its covariates where it has any.

    Attributes:
        estimator: "flow-matching", "diffusion", "nsf" (a spline flow), "kde", "mixture", "gp" (a Gaussian process
            through log-densities that come with the samples), or "auto": a mixture, or a mixture and a diffusion
            stacked, by the log-likelihood of left-out samples.
        ignore_rows: share of each chain that is left out at its beginning, or number of rows if above 1; of chains of
            the base too.
        dequantize: spread values that lie on even steps, as counts and packed data do, over their steps.
        bounds: name -> (low, high), None where open, and "periodic" after them where they are one place; or a file of
            ranges.
        coupling: of flow matching, how rows are paired with where the flow begins: "independent"; "ot", by optimal
            transport of minibatches; or "conditional-ot", by transport among rows of like covariates.
        base: of flow matching, a table of another law with the same columns, whose rows take the place of noise: the
            flow carries its law to that of the data, and has no log-density. Or a density of these columns, a
            ``DensityModel`` or its run directory, whose draws do: then it has one.
    """

    estimator: str | None = None
    ignore_rows: float | None = None
    dequantize: bool | None = None
    bounds: Mapping[str, Sequence[float | str | None]] | str | None = None
    coupling: str | None = None
    base: Any = None

    name = "density"
