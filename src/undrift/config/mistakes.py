"""One sentence about what is wrong with a configuration."""

from __future__ import annotations

__all__ = ["explain", "keys_of", "nearest", "sentence", "unknown"]

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from undrift.config.sections import Config


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or nothing when none is near."""
    found = difflib.get_close_matches(name.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.6)
    original = {n.lower(): n for n in names}
    return f"; did you mean {original[found[0]]!r}?" if found else ""


def keys_of(section: str | None = None) -> list[str]:
    """The keys of a section, or the names of all sections."""
    if section is None:
        return list(Config.model_fields)
    return list(getattr(Config(), section).__class__.model_fields) if section in Config.model_fields else []


def unknown(path: tuple[str, ...]) -> str:
    """Say that a key is unknown, and which known key is meant: in its own section first, then in the others."""
    name = path[-1]
    if len(path) == 1:
        homes = [s for s in keys_of() if name in keys_of(s)]
        hint = f"; did you mean '{homes[0]}.{name}'?" if homes else nearest(name, keys_of())
        return f"unknown section {name!r}{hint or '; the sections are ' + ', '.join(keys_of())}"
    known = keys_of(path[0])
    hint = nearest(name, known)
    homes = [s for s in keys_of() if name in keys_of(s)]
    if not hint and homes:
        hint = f"; did you mean '{homes[0]}.{name}'?"
    return f"unknown key {'.'.join(path)!r}{hint or f'; the keys of [{path[0]}] are ' + ', '.join(known)}"


def explain(error: ValidationError) -> tuple[tuple[str, ...], str]:
    """Return the path of the first mistake and one sentence about it."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    path = tuple(str(part) for part in first["loc"])
    if len(path) >= 2:
        # What follows section and key names branches of a union, or places in a list: no key that a user typed.
        path = path[: 3 if path[0] == "codec" and path[1] == "transforms" else 2]
    if first["type"] == "extra_forbidden":
        return path, unknown(path)
    same = [one for one in error.errors(include_url=False) if one["loc"][: len(path)] == first["loc"][: len(path)]]
    return path, sentence(".".join(path) or "the configuration", same)


def sentence(key: str, errors: list[Any]) -> str:
    """What is wrong with one value, which may be one of several kinds."""
    shown = repr(errors[0]["input"])
    messages = [one["msg"].removeprefix("Value error, ") for one in errors if repr(one["input"]) == shown]
    if messages[0].startswith("got "):
        return f"{key}: {messages[0]}"
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    text = " or ".join(dict.fromkeys([messages[0], *(m.removeprefix("Input should be ") for m in messages[1:])]))
    return f"{key}: got {shown}; {text[:1].lower()}{text[1:]}"
