"""The versions that a run was made with, beside those that run now."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["made_with", "versions_of"]

_PACKAGES = ("undrift", "torch", "numpy", "xarray", "safetensors")


def made_with(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The versions that a manifest tells of."""
    return {"undrift": str(manifest.get("undrift", "unknown")), **manifest.get("versions", {})}


def versions_of(made: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """``versions``: those of the making, the running ones where it is of this process; and which of them differ now."""
    now = {name: _running(name) for name in (made or ("python", *_PACKAGES))}
    differ = {name: now[name] for name, one in made.items() if now[name] != one}
    return {"versions": dict(made or now), **({"running versions that differ": differ} if differ else {})}


def _running(name: str) -> str:
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return "absent"
