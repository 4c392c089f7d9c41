"""Tensors in files: safetensors only, read and written with what a user's disk can do to them in mind.

Pickles (``.pt``, ``.ckpt``, ``.pkl``) are refused by name and by content and never opened: reading one runs whatever
code its author put there (CVE-2025-32434, CVE-2026-24747).
"""

from __future__ import annotations

__all__ = ["check_names", "load_state", "load_tensors", "read_metadata", "save_tensors"]

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from undrift.errors import CheckpointError
from undrift.train.durable import disk_full, fix_mode, out_of_space, sync

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib", ".npy")
LARGEST_HEADER = 100_000_000  # bytes, the format's own limit


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file and sync it. The name is used as it is: rename afterwards.

    Raises:
        UndriftError: The disk is full.
    """
    seen: set[int] = set()
    flat: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        # The format has no shared storage: what is tied is written twice.
        flat[name] = tensor.clone() if tensor.numel() and pointer in seen else tensor
        seen.add(pointer)
    try:
        save_file(flat, path, metadata=dict(metadata or {}))
        fix_mode(path)
        sync(path)
    except (OSError, SafetensorError) as error:
        if disk_full(error):
            needed = sum(tensor.nbytes for tensor in flat.values())
            raise out_of_space(path, needed, "what was saved before is intact") from None
        raise CheckpointError(f"{path} cannot be written: {error}") from None


def _sniff(path: Path) -> None:
    """Refuse what is no safetensors file, by its first bytes."""
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is refused: a {path.suffix} file can run code when read; give a .safetensors file"
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            head = handle.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if head[:4] == b"PK\x03\x04" or (
        head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[2:8] != bytes(6)
    ):
        raise CheckpointError(f"{path} is a pickle under another name, which can run code when read: refused")
    length = int.from_bytes(head[:8], "little")
    if size < 10 or length > min(size - 8, LARGEST_HEADER) or head[8:9] != b"{":
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({size:,} bytes): it is truncated, damaged or something else"
        )


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        CheckpointError: It is missing, a pickle, truncated, or its header does not fit its size.
    """
    _sniff(path)
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a safetensors file.

    Raises:
        CheckpointError: As ``load_tensors``.
    """
    _sniff(path)
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from None


def _listing(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: A name is missing or left over, or a shape differs; the first five of each are named.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    shapes = [
        f"{name} (got {tuple(found[name].shape)}, expected {tuple(value.shape)})"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    faults = [("lacks", missing), ("has, without use,", surplus), ("has other shapes for", shapes)]
    if missing or surplus or shapes:
        text = "; ".join(f"{source} {verb} {_listing(names)}" for verb, names in faults if names)
        raise CheckpointError(f"the weights are of another network, nothing was loaded: {text}")


def load_state(net: nn.Module, tensors: Mapping[str, Tensor], source: str = "the file") -> None:
    """Copy tensors into the parameters and buffers of a network: all of them, or none.

    Raises:
        CheckpointError: A name is missing or left over, or a shape differs; the first five of each are named.
    """
    own = net.state_dict(keep_vars=True)
    check_names(own, tensors, source)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
