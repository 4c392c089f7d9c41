"""Tables of text with a header: plain CSV, and that of anesthetic with its labels and weights."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from undrift.data.chain_objects import from_frame, without_dollars
from undrift.data.columns import Columns
from undrift.errors import DataError

__all__ = ["read_csv"]


def read_csv(path: Path) -> Columns:
    """A .csv or .tsv file: its first line names the columns, unless it is all numbers: then they are x0, x1, ...

    What stands between them is a comma, a semicolon or a tab: that of which the first line has most.

    The form of ``to_csv`` of anesthetic is known too: labels in a second line, weights in the second column. A column
    without a name that counts the rows, as of ``to_csv`` of pandas, is left out.

    Raises:
        DataError: the file is no table, or a line has another number of columns than the first.
    """
    import pandas as pd

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({getattr(error, 'strerror', None) or error})") from error
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not kept:
        raise DataError(f"{path}: the file is empty")
    separator = max(",;\t", key=kept[0][1].count)
    heads = list(csv.reader([line.lstrip("# ") for _, line in kept[:3]], delimiter=separator))
    names = [word.strip() for word in heads[0]]
    headless = all(_is_number(word) for word in names)
    labels, skipped = _of_anesthetic(heads)
    body = kept[0 if headless else 1 + skipped :]
    for number, line in body:
        got = len(next(csv.reader([line], delimiter=separator))) if '"' in line else line.count(separator) + 1
        if got != len(names):
            raise DataError(
                f"{path}: line {number} has {got} columns, expected {len(names)} as line {kept[0][0]} has; the file "
                "may be cut off there"
            )
    if headless:
        names = [f"x{i}" for i in range(len(names))]
    elif skipped:
        names = ["", "weights" if names[1] == "" else names[1], *names[2:]]
    if not body:
        raise DataError(f"{path}: has a header and no rows")
    text = io.StringIO("\n".join(line for _, line in body))
    frame = pd.read_csv(text, sep=separator, header=None, names=range(len(names)), skipinitialspace=True)
    counts = not headless and not names[0] and (frame[0].to_numpy() == np.arange(len(frame))).all()
    frame = frame.set_axis(names, axis=1).iloc[:, 1 if counts or skipped else 0 :]
    columns = from_frame(frame, str(path), word="line")
    columns = replace(columns, line=np.array([number for number, _ in body]))
    if not skipped:
        return columns
    beside = ("logL_birth", "nlive", "insertion", "chain")
    kept_names = tuple(name for name in columns.parameters if name not in beside)
    return replace(columns, parameters=kept_names, labels=dict(zip(names, labels, strict=True)))


def _of_anesthetic(heads: list[list[str]]) -> tuple[list[str], int]:
    """Labels without dollar signs, and how many lines after the names are no rows; none where the form is another."""
    if len(heads) < 3 or heads[0][0].strip() or heads[1][0] != "labels" or len(heads[1]) != len(heads[0]):
        return [], 0
    weighted = heads[2][1:2] == ["weights"]
    return [without_dollars(word) for word in heads[1]], 2 if weighted else 1


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
