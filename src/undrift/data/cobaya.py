"""What the file of settings beside a chain of Cobaya says of its parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from undrift.data.chain_objects import load_extra
from undrift.errors import DataError

__all__ = ["read_cobaya"]


def read_cobaya(path: Path) -> tuple[dict[str, tuple[float, float]], set[str], dict[str, str], set[str]]:
    """Bounds of uniform priors, the names that are periodic, LaTeX, and the names that are derived.

    Read as plain data: tags of Python objects in the file are skipped, never built.

    Raises:
        DataError: the file is no YAML, or has no parameters.
    """
    yaml = load_extra("yaml", f"the settings {path}")

    class Plain(yaml.SafeLoader):
        """Safe, and silent where a tag asks for an object."""

    Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Plain)
        parameters = settings["params"].items()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: has no settings of parameters ({str(error).splitlines()[0][:120]})") from error
    bounds, periodic, labels, derived = {}, set(), {}, set()
    for name, said in parameters:
        said = said if isinstance(said, dict) else {"value": said}
        if said.get("latex"):
            labels[name] = str(said["latex"])
        prior = said.get("prior")
        if prior is None:
            derived.add(name)
            continue
        if isinstance(prior, list):
            prior = {"min": prior[0], "max": prior[-1]}
        low, high = _number(prior.get("min"), -math.inf), _number(prior.get("max"), math.inf)
        if (low, high) != (-math.inf, math.inf):
            bounds[name] = (low, high)
        if said.get("periodic") or prior.get("periodic"):
            periodic.add(name)
    return bounds, periodic, labels, derived


def _number(value: Any, where_none: float) -> float:
    return where_none if value is None else float(value)
