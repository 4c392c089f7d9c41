"""Chains of parameters that are in memory already: arrays, data frames, samples of anesthetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undrift.data.columns import Columns
from undrift.errors import DataError, described, needs_extra

__all__ = ["columns_of_object", "from_frame", "from_samples", "load_extra", "numbers", "without_dollars"]

_KEPT_BY_ANESTHETIC = ("logL", "logL_birth", "nlive", "insertion", "chain")  # columns beside the parameters
_EVIDENCE_DRAWS = 400


def load_extra(name: str, what: str) -> Any:
    """A library of the extra ``bayes``.

    Raises:
        UsageError: it is not installed.
    """
    from importlib import import_module

    with needs_extra("bayes", what):
        return import_module(name)


def columns_of_object(source: Any, name: str | None = None) -> Columns:
    """The columns of an array, a data frame, samples of anesthetic or an xarray Dataset.

    Raises:
        DataError: its shape or its values are not those of a table.
    """
    import pandas as pd
    import xarray as xr

    if isinstance(source, pd.DataFrame):
        of_anesthetic = hasattr(source, "get_weights") and hasattr(source, "get_labels_map")
        return from_samples(source, name or "samples") if of_anesthetic else from_frame(source, name or "data frame")
    if isinstance(source, xr.Dataset):
        from undrift.data.chain_datasets import from_dataset

        return from_dataset(source, name or "dataset")
    if isinstance(source, np.ndarray):
        if source.dtype.names:
            return from_frame(pd.DataFrame(source), name or "array")
        return _of_array(source, name or "array")
    raise DataError(
        f"the table is {described(source)}, expected an array (n, D), a data frame, a Dataset, samples of anesthetic, "
        "or the path of a file or chain root"
    )


def _of_array(array: NDArray, name: str) -> Columns:
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise DataError(f"{name}: is {array.dtype} of shape {array.shape}, expected numbers of shape (n, D)")
    values = np.asarray(array, np.float64).reshape(len(array), -1 if len(array) else 1)
    return Columns.of_one(name, {f"x{i}": column for i, column in enumerate(values.T)})


def from_frame(frame: Any, name: str, first: int = 0, word: str = "row") -> Columns:
    """The columns of a data frame.

    Those named chain and draw, of ArviZ, tell the chains and are no parameters; nor are realization, and sample beside
    it, where they number draws of a density.
    """
    values = {str(column): numbers(frame[column]) for column in frame.columns}
    if len(values) != frame.shape[1]:
        raise DataError(f"{name}: has two columns of one name; there are {', '.join(map(str, frame.columns))}")
    columns = Columns.of_one(name, values, first, word)
    if _counts(values.get("realization")):
        beside = ("realization", "sample") if _counts(values.get("sample")) else ("realization",)
        columns = replace(columns, parameters=tuple(n for n in columns.parameters if n not in beside))
    if "chain" not in values or not np.isfinite(values["chain"]).all():
        return columns
    known, chain = np.unique(values["chain"], return_inverse=True)
    return replace(
        columns,
        chain=chain,
        origins=tuple(f"{name}, chain {number:g}" for number in known),
        parameters=tuple(n for n in columns.parameters if n not in ("chain", "draw")),
        sequential=True,
    )


def _counts(column: NDArray[np.float64] | None) -> bool:
    """Whether a column numbers its rows: whole numbers from 0 up."""
    return column is not None and bool((np.isfinite(column) & (column >= 0) & (column == np.round(column))).all())


def numbers(column: Any) -> NDArray[np.float64]:
    """float64 of a pandas column, NaN where it is no number: said when the column is chosen."""
    import pandas as pd

    return pd.Series(pd.to_numeric(column, errors="coerce")).to_numpy(np.float64, na_value=np.nan)


def from_samples(samples: Any, name: str) -> Columns:
    """Samples of anesthetic: their weights, labels, and of a nested run its ln Z with what the volumes leave open."""
    values = {str(c[0] if isinstance(c, tuple) else c): samples[c].to_numpy(np.float64) for c in samples.columns}
    if all(word.isdigit() for word in values):
        values = {f"x{word}": column for word, column in values.items()}
    spoken = {str(key): str(label) for key, label in samples.get_labels_map().items()}
    n = len(samples)
    nested = hasattr(samples, "logZ") and "nlive" in values
    return Columns(
        source=name,
        values=values,
        parameters=tuple(c for c in values if c not in _KEPT_BY_ANESTHETIC),
        chain=np.zeros(n, np.intp),
        line=np.arange(n),
        origins=(name,),
        labels={key: without_dollars(label) for key, label in spoken.items() if label and label != key},
        weights=np.asarray(samples.get_weights(), np.float64),
        log_likelihood=values.get("logL"),
        log_evidence=_evidence(samples, values) if nested else None,
        nested=nested,
    )


def _evidence(samples: Any, values: Mapping[str, NDArray]) -> tuple[float, float]:
    """Evidence as anesthetic gives it, and its standard deviation over the prior volumes that the run leaves open.

    Volumes shrink by t with ln t = ln u / n_live, u uniform (Skilling 2006, doi:10.1214/06-BA127); draws of the whole
    sequence give draws of ln Z = ln sum L_i (X_{i-1} - X_{i+1}) / 2.
    """
    from scipy.special import logsumexp

    rng = np.random.default_rng(0)
    shrink = -rng.exponential(size=(_EVIDENCE_DRAWS, len(values["nlive"]))) / values["nlive"]
    log_volume = np.cumsum(shrink, axis=1)
    before = np.pad(log_volume[:, :-1], ((0, 0), (1, 0)))
    after = np.pad(log_volume[:, 1:], ((0, 0), (0, 1)), constant_values=-np.inf)
    shell = before + np.log1p(-np.exp(after - before)) - np.log(2)
    draws = np.asarray(logsumexp(shell + values["logL"], axis=1), np.float64)
    return float(samples.logZ()), float(draws.std())


def without_dollars(label: str) -> str:
    """LaTeX without the dollar signs around it."""
    inside = label.strip()
    return inside[1:-1] if len(inside) > 1 and inside[0] == inside[-1] == "$" else inside
