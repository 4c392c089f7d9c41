"""How much memory a training takes, beside what the machine has."""

import os
from pathlib import Path

import numpy as np

from undrift.config import Config
from undrift.data.fields import MEMORY_LIMIT, Fields
from undrift.data.findings import Line
from undrift.data.windows import auto_crop

__all__ = ["ACTIVATIONS", "memory_line"]

ACTIVATIONS = 90  # bytes of a cell and channel of the finest level, as measured in float32; bfloat16 takes half of it
_FITTING, _FITTING_MOST = 40, 800_000_000  # bytes of a cell and channel while the linear predictors are fitted, at most
_ENCODING = 250  # bytes of a cell and channel of up to 64 whole samples while preparing, as measured


def memory_line(fields: Fields) -> Line:
    """Rough memory for training; a warning where it is more than half of the machine's."""
    layout = fields.layout
    cells, channels = int(np.prod(layout.shape)), len(layout.channels)
    data = 4 * len(fields) * channels * cells
    held = data if data <= MEMORY_LIMIT else 0
    how = "kept in memory" if held else "read from disk as needed"
    preparing = _ENCODING * min(len(fields), 64) * channels * cells
    preparing += min(_FITTING * len(fields) * channels * cells, _FITTING_MOST)
    crop = auto_crop(layout.shape)
    window = [min(n, crop or n) for n in layout.shape]
    usual = Config().train.batch
    width = 16 if len(fields) < 100 else 64  # what training chooses for a small record, and at most for others

    def total(batch: int) -> float:
        network = ACTIVATIONS * width * batch * int(np.prod(window))
        return (held + max(preparing, network)) / 1e9 + 0.5  # half a GB for Python, torch and xarray

    text = f"{data / 1e9:.3g} GB as float32 ({how}); training takes roughly {total(usual):.2g} GB of memory"
    room = _machine_memory() / 1e9
    if total(usual) <= room / 2:
        return "info", text
    small = next((n for n in (8, 4, 2, 1) if total(n) <= room / 2), None)
    if preparing / 1e9 + 0.5 > room / 2:
        less = f"--select {layout.space[0]}=FROM/TO for a part of the domain"
    else:
        less = f"--set train.batch={small}" if small else "--crop 32, windows of so many cells along each side"
    return "warning", f"{text}, and this machine has {room:.2g} GB: add {less}"


def _machine_memory() -> int:
    """Bytes of memory of the machine, or those that its control group may have."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(pages, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return pages
