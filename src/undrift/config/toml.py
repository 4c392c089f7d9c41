"""A configuration as TOML text and as a file."""

from __future__ import annotations

__all__ = ["config_text", "dump_config", "forked", "load_config", "parse_config"]

import re
import tomllib
from pathlib import Path

from pydantic import ValidationError

from undrift.config.mistakes import explain
from undrift.config.sections import Config
from undrift.errors import CheckpointError, UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 8


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Map each key of a TOML text to its line; keys inside inline tables are found under their parent's line."""
    where: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\[\]=]+?)\s*\]+\s*(#.*)?$", line)
        entry = re.match(r"\s*((?:\"[^\"]*\"|'[^']*'|[\w.\- ])+?)\s*=", line)
        found = header or entry
        if not found:
            continue
        path = tuple(part.strip().strip("\"'") for part in found.group(1).split("."))
        if header:
            table = path
        for end in range(1, len(path) + 1):
            where.setdefault((() if header else table) + path[:end], number)
    return where


def _guard(text: str, source: str) -> None:
    """Refuse texts that are made to exhaust a parser, before it sees them."""
    for number, line in enumerate(text.splitlines(), 1):
        depth = deepest = 0
        for character in line:
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
        if deepest > 4 * MAX_DEPTH or line.split("=", 1)[0].count(".") > 4 * MAX_DEPTH:
            raise UsageError(f"{source}, line {number}: nested deeper than {MAX_DEPTH} levels")


def _depth(value: object) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        if level <= MAX_DEPTH and isinstance(node, dict | list):
            stack.extend((child, level + 1) for child in (node.values() if isinstance(node, dict) else node))
    return deepest


def parse_config(text: str, source: str = "the configuration") -> Config:
    """Read a configuration from TOML text.

    Args:
        text: The TOML; keys that are absent take their defaults.
        source: What to call the text in errors, such as its file name.

    Raises:
        UsageError: With the line, for bad TOML, a duplicate or unknown key, a wrong type, nan or inf.
    """
    if len(text.encode()) > MAX_BYTES:
        raise UsageError(f"{source} is larger than {MAX_BYTES:,} bytes; that is no undrift configuration")
    _guard(text, source)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r"\s*\((at [^)]*)\)$", r" \1", str(error))
        message = message.replace("at end of document", f"at line {len(text.splitlines())}")
        hint = " (a key or section given twice)" if "overwrite" in message or "twice" in message else ""
        raise UsageError(f"{source}: {message}{hint}") from None
    except RecursionError:
        raise UsageError(f"{source} is nested deeper than {MAX_DEPTH} levels") from None
    if _depth(values) > MAX_DEPTH:
        raise UsageError(f"{source} is nested deeper than {MAX_DEPTH} levels")
    try:
        return Config.model_validate(values, strict=True)
    except ValidationError as error:
        path, message = explain(error)
        where = _lines(text)
        line = next((where[path[:end]] for end in range(len(path), 0, -1) if path[:end] in where), None)
        raise UsageError(f"{source}{f', line {line}' if line else ''}: {message}") from None


def load_config(path: str | Path) -> Config:
    """Read a configuration file; see `parse_config`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return parse_config(raw.decode("utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8; a configuration is a TOML file") from None


def forked(run: str | Path) -> Config:
    """Return the configuration of a run with whose network another begins.

    Raises:
        CheckpointError: It is no run directory.
    """
    stored = Path(run) / "config.toml"
    if not stored.is_file():
        raise CheckpointError(f"{run} is no run directory; --fork begins with the network of one")
    config = load_config(stored)
    config.train.fork = None
    return config


def config_text(config: Config) -> str:
    """Return the configuration as TOML; keys that are None are left out, as TOML has no null."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(exclude_none=True))


def dump_config(config: Config, path: str | Path) -> None:
    """Write the configuration as TOML, so that `load_config` returns an equal one."""
    Path(path).write_text(config_text(config), encoding="utf-8")
