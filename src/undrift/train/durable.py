"""Files that are whole or not there: written, synced to the disk, hashed, and renamed as the last act.

A rename within a directory is atomic on POSIX file systems, and durable once the directory itself is synced.
"""

from __future__ import annotations

__all__ = [
    "disk_full",
    "file_digest",
    "fix_mode",
    "out_of_space",
    "remove_tree",
    "sync",
    "sync_directory",
    "write_arrays",
    "write_text",
]

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from undrift.errors import UndriftError


def _umask_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


# Read once: reading the umask means setting it, which another thread could notice.
_FILE_MODE = _umask_mode()


def fix_mode(path: Path) -> None:
    """Give a file the mode of the user's umask (safetensors 0.8 writes 0600, which colleagues cannot read)."""
    os.chmod(path, _FILE_MODE)


def sync(path: Path) -> None:
    """Flush a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk; file systems that cannot are let be."""
    try:
        sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it holds the old or the new text, never a part."""
    _write(path, text.encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an .npz file that holds all of them or does not change."""
    held = io.BytesIO()
    np.savez(held, **arrays)  # type: ignore[arg-type]
    _write(path, held.getvalue())


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def file_digest(path: Path, length: int | None = None) -> str:
    """SHA-256 of a file, or of its first ``length`` bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    left = length
    with path.open("rb") as handle:
        while left is None or left > 0:
            block = handle.read(1 << 20 if left is None else min(left, 1 << 20))
            if not block:
                break
            digest.update(block)
            left = None if left is None else left - len(block)
    return digest.hexdigest()


def disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk, or the user's quota of it, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)  # safetensors passes the operating system's error on as text only
    return any(f"os error {code}" in text for code in (errno.ENOSPC, errno.EDQUOT))


def out_of_space(path: Path, needed: int, kept: str) -> UndriftError:
    """The sentence for a full disk: the path, the bytes needed and free, and what is still there."""
    parent = path
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    return UndriftError(
        f"no space left to write {path}: {needed:,} bytes needed, {free:,} free; {kept}. "
        "Free some space and go on with --resume"
    )


def remove_tree(path: Path) -> None:
    """Remove a directory; it loses its name first, so that a kill half-way leaves nothing that looks whole."""
    doomed = path.with_name(f"{path.name}.{os.getpid()}.gone.tmp")
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
