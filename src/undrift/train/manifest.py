"""The manifest of a directory: written last, it says which files belong and what their bytes are.

```json
{"schema_version": 1, "undrift": "0.1.0", "versions": {...},
 "files": {"model.safetensors": {"bytes": 4, "sha256": "..."}}}
```

Nothing in the file formats in use notices a flipped bit, so every reader compares SHA-256. Logs that may grow after
the manifest is written (``*.jsonl``) are compared over the length that was recorded.
"""

from __future__ import annotations

__all__ = ["SCHEMA_VERSION", "read_manifest", "verify_manifest", "write_manifest"]

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from undrift.errors import CheckpointError
from undrift.train.durable import file_digest, sync, write_text

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""schema version -> a function that lifts a manifest of that version by one."""
LARGEST = 16 << 20  # bytes; a manifest of a thousand files has 0.2 MB
NAME = "manifest.json"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def write_manifest(run: Path, files: Iterable[str], extra: Mapping[str, Any] | None = None) -> None:
    """Sync and hash the files of a directory and write ``manifest.json`` as the last of them.

    Args:
        run: The directory.
        files: Names within it.
        extra: Further JSON-able entries, such as the fingerprint of the data and what was resolved.
    """
    listed: dict[str, dict[str, Any]] = {}
    for name in sorted(set(files)):
        sync(run / name)
        size = (run / name).stat().st_size
        listed[name] = {"bytes": size, "sha256": file_digest(run / name, size)}
    packages = ("torch", "numpy", "xarray", "safetensors")
    manifest = {
        **(extra or {}),
        "schema_version": SCHEMA_VERSION,
        "undrift": _version("undrift"),
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in packages}},
        "files": listed,
    }
    write_text(run / NAME, json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; a manifest has at most {LARGEST:,}")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {NAME}, the last file that is written: it is not a finished run. "
            f"If its training was stopped, go on with `undrift train ... --resume --out {path.parent}`"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not the JSON of a manifest: it was changed or damaged") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is not a manifest of undrift: it has no table 'files'")
    return manifest


def read_manifest(run: Path) -> dict[str, Any]:
    """Read the manifest of a directory, lifted to this version's schema, without comparing any file.

    Raises:
        CheckpointError: It is absent, no manifest, or of a version that this one cannot read.
    """
    manifest = _parse(run / NAME)
    schema = manifest.get("schema_version")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 0:
        raise CheckpointError(f"{run / NAME} has schema_version {schema!r}; expected a whole number")
    written = f"written by version {manifest.get('undrift', 'unknown')} of undrift (schema_version {schema})"
    if schema > SCHEMA_VERSION:
        raise CheckpointError(
            f"{run} is {written}; this is version {_version('undrift')}, which reads up to schema_version "
            f"{SCHEMA_VERSION}: pip install --upgrade undrift"
        )
    for step in range(schema, SCHEMA_VERSION):
        if step not in MIGRATIONS:
            raise CheckpointError(f"{run} is {written}, which this version cannot migrate; load it with that version")
        manifest = MIGRATIONS[step](manifest)
    if schema < SCHEMA_VERSION:
        logger.warning("%s is %s: read as schema_version %d", run, written, SCHEMA_VERSION)
    return manifest


def _check(run: Path, name: object, entry: object) -> None:
    """Compare one file with its entry."""
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", ".."):
        raise CheckpointError(f"{run / NAME} lists a file outside its directory: {name!r}")
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        raise CheckpointError(f"{run / NAME} lists {name} without a sha256")
    size = entry.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise CheckpointError(f"{run / NAME} lists {name} without its number of bytes")
    path = run / name
    if not path.is_file():
        raise CheckpointError(f"{name} is missing from {run}, though its manifest lists it")
    grows = name.endswith(".jsonl")
    found = path.stat().st_size
    if found < size or (found > size and not grows):
        damage = f"it has {found:,} bytes, {size:,} were written"
    elif file_digest(path, size) != entry["sha256"]:
        damage = "its bytes are not those that were written"
    else:
        return
    raise CheckpointError(
        f"checksum of {name} differs in {run}: {damage}. Restore the file, or pass --no-verify to read it all the same"
    )


def verify_manifest(run: Path, verify: bool = True, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Read the manifest of a directory and compare the files that it lists with their checksums.

    Args:
        run: The directory.
        verify: False reads the manifest and compares nothing.
        names: Only these files; default all.

    Raises:
        CheckpointError: No or no readable manifest, a listed file is missing, or a checksum differs.
    """
    manifest = read_manifest(run)
    if verify:
        wanted = set(manifest["files"] if names is None else names)
        for name in sorted(wanted - set(manifest["files"])):
            raise CheckpointError(f"{run / NAME} does not list {name}")
        for name, entry in manifest["files"].items():
            if name in wanted:
                _check(run, name, entry)
    return manifest
