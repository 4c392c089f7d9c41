"""AdamW, with weight decay only where a weight's size has no meaning of its own."""

from __future__ import annotations

__all__ = ["adamw", "decayed"]

import torch
from torch import nn


def decayed(net: nn.Module) -> set[str]:
    """Names of the parameters that decay: matrices and kernels, but no biases, gains of norms, or embeddings."""
    names: set[str] = set()
    for prefix, module in net.named_modules():
        if isinstance(module, nn.Embedding) or "Norm" in type(module).__name__:
            continue
        for name, value in module.named_parameters(prefix, recurse=False):
            if value.ndim >= 2 and name.rsplit(".", 1)[-1] != "bias":
                names.add(name)
    return names


def adamw(net: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2) in two groups of parameters.

    The fused form: one pass over memory, and its step counter lives on the parameters' device.
    """
    decay = decayed(net)
    named = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for name, value in named if name in decay], "weight_decay": weight_decay},
        {"params": [value for name, value in named if name not in decay], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
