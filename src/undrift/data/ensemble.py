"""Ensembles from disk, ours or anybody's."""

__all__ = ["MEMBER_NAMES", "CheckedStore", "open_ensemble"]

import json
import logging
from pathlib import Path
from typing import Any

import google_crc32c
import xarray as xr
from zarr.storage import LocalStore

from undrift.data.netcdf import open_dataset
from undrift.errors import DataError, IncompleteError

log = logging.getLogger(__name__)

MEMBER_NAMES = ("realization", "number", "member", "ensemble", "sample")


class CheckedStore(LocalStore):
    """A folder of Zarr chunks, read only, where a damaged or absent chunk is an error that names it.

    zarr's own crc32c error does not say which chunk it is about, and an absent chunk reads as fill values. Chunks whose
    last codec is crc32c end with the little-endian checksum of what is before it; that is compared here, on reading.
    Absent chunks are errors in stores that say `complete`, for those were written with all of their chunks.
    """

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self._kinds: dict[str, bool] = {}
        self._ours: bool | None = None

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """The bytes of a key, checked."""
        found = await super().get(key, prototype, byte_range)
        self._check(key, found, byte_range)
        return found

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """The bytes of a key, checked."""
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        self._check(key, found, byte_range)
        return found

    def _check(self, key: str, found: Any, byte_range: Any) -> None:
        """Raises DataError where the chunk `key` is damaged, or absent from a store that should have it."""
        name, mark, _ = key.partition("/c/")
        if not mark or not self._checked(name):
            return
        where = f"chunk {key} of {self.root}"
        if found is None:
            if self._says_complete():
                raise DataError(f"{where} is missing: a part of the result is lost; draw it again")
        elif byte_range is None:
            raw = found.to_bytes()
            if len(raw) < 4 or google_crc32c.value(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
                raise DataError(f"{where} is damaged: its crc32c checksum differs; draw it again or restore the file")

    def _checked(self, name: str) -> bool:
        """Whether the chunks of an array end with a crc32c."""
        if name not in self._kinds:
            try:
                codecs = json.loads((Path(self.root) / name / "zarr.json").read_text())["codecs"]
                self._kinds[name] = codecs[-1]["name"] == "crc32c"
            except (OSError, ValueError, LookupError, TypeError):
                self._kinds[name] = False
        return self._kinds[name]

    def _says_complete(self) -> bool:
        """Whether the store carries our mark of completeness."""
        if self._ours is None:
            attrs = self._about().get("attributes")
            self._ours = isinstance(attrs, dict) and str(attrs.get("complete")).lower() == "true"
        return self._ours

    def consolidated(self) -> bool:
        """Whether the metadata of all arrays are kept in one place, in the order in which they were written (v3)."""
        return bool(self._about().get("consolidated_metadata"))

    def _about(self) -> dict[str, Any]:
        """The metadata of the whole store (v3), empty where there are none."""
        try:
            found = json.loads((Path(self.root) / "zarr.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def open_ensemble(path: str | Path, *, incomplete: str = "raise", members: bool = True) -> xr.Dataset:
    """Opens an ensemble lazily.

    Args:
        path: a `.nc` or `.zarr` of ours or of anybody else.
        incomplete: what to do where the attribute `complete` is not "true": "raise", or "warn" and go on.
        members: whether a dim of members is required.

    Returns:
        The dataset with its member dim called `realization`; `number`, `member`, `ensemble` and `sample` are accepted.

    Raises:
        DataError: the file is absent, unreadable, or has no dim of members.
        IncompleteError: the file says of itself that it is not complete.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: give the path of an ensemble (.nc or .zarr)")
    try:
        if path.is_dir():
            store: Any = CheckedStore(path)
            data = xr.open_dataset(store, engine="zarr", chunks={}, consolidated=store.consolidated())
        else:
            data = open_dataset(path, chunks={})
    except DataError:
        raise
    except Exception as error:  # the backends raise whatever they like
        text = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as NetCDF or Zarr: {type(error).__name__}: {text}") from error
    state = str(data.attrs.get("complete", "true")).lower()
    if state not in ("true", "1"):
        message = f"{path} is incomplete (its attribute complete is {state!r}): the run that wrote it did not finish"
        if incomplete == "raise":
            raise IncompleteError(f"{message}; draw it again with --overwrite")
        log.warning("%s", message)
    found = next((name for name in MEMBER_NAMES if name in data.dims), None)
    if found is None:
        if members:
            raise DataError(
                f"{path} has no dim of members: expected one of {', '.join(MEMBER_NAMES)}, it has {list(data.sizes)}"
            )
        return data
    if found != "realization":
        attrs = dict(data[found].attrs) if found in data.coords else {}
        data = data.rename({found: "realization"})
        if "realization" in data.coords:
            data["realization"].attrs = attrs
    if "realization" in data.coords:
        data["realization"].attrs.setdefault("standard_name", "realization")
    return data
