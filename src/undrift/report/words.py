"""What the page says in words: the grid, the record, which samples were tested, how the model was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.data.layout import plain
from undrift.errors import DataError
from undrift.report.geometry import degrees, degrees_text
from undrift.report.samples import counterpart, sample_dims
from undrift.report.style import count, number
from undrift.verify.match import Axes, pair_samples, sample_labels

__all__ = ["files_text", "grid_text", "paired_by_label", "provenance", "record_text", "tested_text"]

_MOST_FILES, _MOST_APART = 6, 4


def grid_text(field: xr.Dataset, axes: Axes) -> str:
    """``36 x 48 cells, 15°N to 58.8°N, 135°W to 46.9°W``: degrees as the maps write them."""
    parts = [f"{' x '.join(map(str, axes.shape))} cells"]
    for name in dict.fromkeys([*axes.space, *(n for n in (axes.latitude, axes.longitude) if n)]):
        if name not in field.coords or field[name].dtype.kind not in "iuf" or not field[name].size:
            continue
        sign, values = degrees(field[name], name), np.asarray(field[name].values, np.float64)
        if sign == "E":
            for axis in range(values.ndim):
                values = np.unwrap(values, period=360, axis=axis)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if sign:
            parts.append(f"{degrees_text(low, sign)} to {degrees_text(high, sign)}")
        else:
            units = str(field[name].attrs.get("units", ""))
            parts.append(f"{name} {low:.5g} to {high:.5g}{' ' + units if units not in ('', '1') else ''}")
    return ", ".join(parts)


def record_text(data: xr.Dataset, names: Iterable[str], space: Iterable[str]) -> str:
    """``scenario A1B and E1, year 1860 to 2099``: what the labels of samples reach over; nothing without labels.

    Where a label of words has few values that reach differently, each is told apart:
    ``scenario A1B, year 1860 to 2099; scenario E1, year 2000 to 2069``.

    Args:
        data: the samples.
        names: of the labels.
        space: dimensions that count no samples.
    """
    labels = sample_labels(data, [str(d) for d in data.dims if d not in set(space)])
    known = {name: labels[name] for name in names if name in labels and labels[name].size}
    for name in (name for name, values in known.items() if _are_words(values)):
        rest = {other: values for other, values in known.items() if other != name}
        words = np.unique(known[name])
        if len(words) > _MOST_APART:
            continue
        apart = {value: {n: v[known[name] == value] for n, v in rest.items()} for value in words}
        if len({_reach(one) for one in apart.values()}) > 1:
            return "; ".join(f"{name} {value}, {_reach(one)}" for value, one in apart.items())
    return _reach(known)


def _reach(labels: Mapping[str, NDArray]) -> str:
    """What each of the labels reaches over: a range, or the words."""
    parts: list[str] = []
    for name, values in labels.items():
        found = sorted({plain(v) for v in values}, key=lambda v: (isinstance(v, str), v))
        if not _are_words(values) and len(found) > 2:
            parts.append(f"{name} {_date(found[0])} to {_date(found[-1])}")
        else:
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            parts.append(f"{name} {' and '.join(map(_date, found)) if not more else ', '.join(found[:6])}{more}")
    return ", ".join(parts)


def _are_words(values: NDArray) -> bool:
    return values.dtype.kind in "US" or isinstance(values[0], str)


def _date(value: object) -> str:
    """A label, a date without a time of day that is midnight."""
    return str(value).removesuffix("T00:00:00")


def files_text(paths: Iterable[str]) -> str:
    """Names of files without their folders, the first of many."""
    names = [Path(path).name for path in paths]
    more = f" and {len(names) - _MOST_FILES} more" if len(names) > _MOST_FILES else ""
    return ", ".join(names[:_MOST_FILES]) + more


def paired_by_label(other: xr.Dataset, ensemble: xr.Dataset, axes: Axes) -> dict[int, int]:
    """Counterparts that labels tell, none that only a place in the file tells; those of what is the same for all."""
    dims = sample_dims(other, axes)
    if not dims:
        return counterpart(other, ensemble, axes)
    pairs = pair_samples(ensemble, other, axes.sample, dims)
    return dict(zip(pairs.ensemble.tolist(), pairs.truth.tolist())) if pairs.by == "coordinates" else {}


def tested_text(
    ensemble: xr.Dataset, axes: Axes, scores: xr.Dataset, held: xr.Dataset, trained: xr.Dataset, rule: str
) -> str:
    """What an ensemble that was drawn before was really compared with.

    Args:
        ensemble: the ensemble.
        axes: its roles.
        scores: its scores.
        held: the samples that training left out.
        trained: those that trained.
        rule: how they were told apart, in words.
    """
    samples = int(np.prod([ensemble.sizes[d] for d in axes.sample], dtype=int))
    if not scores.attrs.get("matched", 0):
        return f"{_samples(samples)} were drawn, none of which has a counterpart in the truth: the laws are compared."
    tested = int(scores.attrs["n_samples"])
    text = f"Tested on {_samples(tested)} of the truth that was given"
    if tested < samples:
        text += f" ({_samples(samples - tested)} of the ensemble without a truth)"
    try:
        left, used = (len(paired_by_label(one, ensemble, axes)) for one in (held, trained))
    except DataError:
        return f"{text}; their labels do not tell whether training has seen them."
    if used:
        return f"{text}; {used} of the ensemble's samples are among those that trained."
    if left >= tested:
        return f"{text}, which training left out ({rule})."
    return f"{text}; {left} of them were left out of training ({rule}), none was among those that trained."


def _samples(number_of: int) -> str:
    return f"{count(number_of)} sample{'s' if number_of != 1 else ''}"


_NETS = {"unet": "U-Net", "space-time": "space-time U-Net", "dit": "DiT"}


def provenance(described: Mapping[str, Any]) -> dict[str, object]:
    """What `FieldModel.describe` says, in words; figures that need the source to be understood are left out."""
    training, data = described.get("training", {}), described.get("data", {})
    network, cells = described.get("network", {}), described.get("cells per given cell") or []
    told: dict[str, object] = {
        "task": f"{described.get('task')}{f' by {by}' if (by := ' x '.join(map(str, cells))) else ''}",
        "files": data.get("paths"),
        "files of what is given": data.get("given"),
        "held out": data.get("holdout") or "the last 20%",
        "other options of the data": {k: v for k, v in data.items() if k not in ("paths", "given", "holdout")},
        "transforms": described.get("transforms"),
    }
    predictor = described.get("linear predictor", {})
    if predictor.get("stages"):
        told["linear predictor"] = f"in the stages {', '.join(predictor['stages'])}"
    if described.get("block means kept of"):
        kept = ", ".join(described["block means kept of"])
        told["given means over blocks"] = f"kept by every drawn field of {kept}; the baselines need not keep them"
    members, size = network.get("members", 1), network.get("parameters of each")
    if size:
        name = _NETS.get(network.get("kind", "unet"), "network")
        nets = name if members == 1 else f"{members} {name}s"
        each = "" if members == 1 else " each, which draw the realizations in turn"
        channels = ", ".join(map(str, network.get("channels", [])))
        told["network"] = f"{nets} of {channels} channels, {_millions(size)} parameters{each}"
    told["training"] = _training_text(training, members)
    told["run"] = described.get("run")
    told["fingerprint of the data"] = described.get("fingerprint")
    told["versions"] = described.get("versions")
    return {key: value for key, value in told.items() if value}


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2g} million" if parameters >= 1e5 else count(parameters)


def _training_text(training: Mapping[str, Any], members: int) -> str:
    """``75 steps of 16 samples in 8.31 s, ended by its budget; best validation loss 0.947 at step 75``."""
    if not training.get("steps"):
        return ""
    steps = int(training["steps"])
    batch = f" of {round(training['images'] / steps)} samples" if training.get("images") else ""
    shared = f", shared by {members} networks in turn," if members > 1 else ""
    text = f"{count(steps)} steps{batch}{shared} in {number(training.get('seconds', float('nan')))} s"
    why = {"budget": "its budget", "steps": "its number of steps", "patience": "no further gain in validation"}
    if training.get("stop") in why:
        text += f", ended by {why[training['stop']]}"
    if training.get("best_loss") is not None:
        text += f"; best validation loss {number(training['best_loss'])} at step {count(training['best_step'])}"
    if training.get("skipped"):
        text += f"; {count(training['skipped'])} steps were skipped, their loss was not finite"
    return text
