"""In which floating-point type a network runs; its weights stay float32."""

from __future__ import annotations

__all__ = ["evaluate", "fastest_dtype"]

import torch
from torch import Tensor, nn


def fastest_dtype(device: torch.device | str) -> torch.dtype:
    """The type in which convolutions are fastest here, by the processor's instructions and not by a timing.

    Args:
        device: where the network lives.

    Returns:
        bfloat16 on CPUs with AVX512-BF16 or AMX and on CUDA devices with native bfloat16, else float32.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        features = torch.backends.cpu.get_cpu_capability()
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if features == "AVX512" and native else torch.float32
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.float32


def evaluate(net: nn.Module, dtype: torch.dtype, x: Tensor, t: Tensor, vector: Tensor | None = None) -> Tensor:
    """Run a net on x in the given type, its weights staying as they are.

    Args:
        net: a module of (x, t, vector).
        dtype: float32, or bfloat16 for mixed precision.
        x: (B, C, *space).
        t: noise labels, (B,).
        vector: (B, V) or none.

    Returns:
        The output in float32, (B, C', *space).
    """
    with torch.autocast(device_type=x.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return net(x, t, vector).float()
