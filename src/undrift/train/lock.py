"""One process at a time: a lock file that tells who holds it, and gives way when its holder is dead."""

from __future__ import annotations

__all__ = ["Lock"]

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from undrift.errors import UsageError

logger = logging.getLogger(__name__)


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: a number that another process of the same id does not have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    now = _started(pid)
    return started is None or now is None or started == now


class Lock:
    """A lock file, made with O_EXCL, which also NFS keeps.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine: str | None = None

    def acquire(self) -> None:
        """Take the lock; one whose holder died on this host is taken over.

        Raises:
            UsageError: Another process holds it; the text says which, where and since when.
        """
        mine = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "started": _started(os.getpid()),
            }
        )
        for _ in range(150):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                self._take_over()
                continue
            with os.fdopen(handle, "w") as file:
                file.write(mine)
            self._mine = mine
            return
        raise UsageError(f"{self.path} changes hands all the time: other processes want the same directory")

    def _take_over(self) -> None:
        """Remove the lock of a dead process, or say who lives."""
        try:
            text = self.path.read_text()
            if not text and time.time() - self.path.stat().st_mtime < 10:
                time.sleep(0.1)  # its holder is about to write it
                return
        except FileNotFoundError:
            return
        directory = self.path.with_suffix("")
        try:
            holder = json.loads(text)
            pid, host, since = int(holder["pid"]), str(holder["host"]), str(holder["since"])
            started = holder.get("started")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(
                f"{directory} is locked by {self.path}, which cannot be read; if no process works there, remove it"
            ) from None
        who = f"{pid}@{host} since {since}"
        if host != socket.gethostname():
            raise UsageError(
                f"{directory} is in use: lock held by {who}. Whether that process lives cannot be seen from "
                f"{socket.gethostname()}; if it does not, remove {self.path}"
            )
        if _alive(pid, started):
            raise UsageError(f"{directory} is in use: lock held by {who}; wait for it, or give another --out")
        # Two may find the same dead holder: only one can rename its file, and it looks at what it has renamed.
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if aside.read_text() != text:
            with suppress(FileExistsError):
                os.link(aside, self.path)
            aside.unlink()
            return
        aside.unlink()
        logger.warning("the lock of %s was held by %s, which is no longer alive: taken over", directory, who)

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        with suppress(OSError):
            if self._mine is not None and self.path.read_text() == self._mine:
                self.path.unlink()
        self._mine = None

    @contextmanager
    def held_on_failure(self) -> Iterator[None]:
        """Take the lock; keep it if the block succeeds, give it back if it fails."""
        self.acquire()
        try:
            yield
        except BaseException:
            self.release()
            raise
