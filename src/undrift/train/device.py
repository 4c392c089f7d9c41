"""Where and how exactly the network computes."""

import logging
from functools import cache

import torch

from undrift.errors import UsageError
from undrift.nets.precision import fastest_dtype

__all__ = ["device_of", "precision_of"]

logger = logging.getLogger(__name__)


def device_of(name: str, *, tell: bool = False) -> torch.device:
    """The device of ``--device``; ``auto`` takes CUDA where there is one.

    Args:
        name: as it is typed.
        tell: say once where ``auto`` finds none: a training is what the CPU makes long.

    Raises:
        UsageError: the machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        if tell and not count:
            _note_once("no GPU was found: computing on the CPU")
        return torch.device("cuda" if count else "cpu")
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:
        has = f"has cuda:0 to cuda:{count - 1}" if count > 1 else "has cuda:0 only" if count else "has no CUDA device"
        raise UsageError(
            f"device {name} was asked for, and this machine {has}; type --device {'auto' if count else 'cpu'}"
        )
    return torch.device(name)


@cache
def _note_once(text: str) -> None:
    logger.info("%s", text)


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic."""
    return fastest_dtype(device) if name == "auto" else {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
