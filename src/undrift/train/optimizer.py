"""AdamW, with weight decay only where a weight's size has no meaning of its own."""

from __future__ import annotations

__all__ = ["AdamW", "decayed"]

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq", "count")


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


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2, https://arxiv.org/abs/1711.05101), its moments kept by name.

    With gradient g, m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2 at the n-th step, then
    w <- w - rate (decay w + (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)).
    The arithmetic is torch's fused kernel, one pass over memory, by its functional form: the class
    ``torch.optim.AdamW`` imports torch's compiler, two seconds of every start.

    Args:
        net: The network whose trainable parameters are stepped.
        weight_decay: For the parameters that decay.
        betas: b1 and b2.
        eps: The floor of the denominator.
    """

    def __init__(
        self, net: nn.Module, weight_decay: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8
    ) -> None:
        self.betas, self.eps = betas, eps
        self.parameters = {name: value for name, value in net.named_parameters() if value.requires_grad}
        decay = decayed(net)
        self.decay = {name: weight_decay if name in decay else 0.0 for name in self.parameters}
        with torch.no_grad():
            self.moments = {
                "exp_avg": {name: torch.zeros_like(value) for name, value in self.parameters.items()},
                "exp_avg_sq": {name: torch.zeros_like(value) for name, value in self.parameters.items()},
                "count": {
                    name: torch.zeros((), dtype=torch.float32, device=value.device)
                    for name, value in self.parameters.items()
                },
            }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for value in self.parameters.values():
            value.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Step all parameters that have a gradient, at a learning rate."""
        for decay in sorted(set(self.decay.values())):
            names = [n for n, value in self.parameters.items() if self.decay[n] == decay and value.grad is not None]
            moments = [[self.moments[kind][name] for name in names] for kind in MOMENTS]
            values = [self.parameters[name] for name in names]
            gradients = [value.grad for value in values if value.grad is not None]
            adamw(
                [*values], gradients, moments[0], moments[1], [], moments[2], fused=True, amsgrad=False, lr=rate,
                beta1=self.betas[0], beta2=self.betas[1], weight_decay=decay, eps=self.eps, maximize=False,
            )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """The moments as ``kind.name``, as they are, not copied."""
        return {f"{kind}.{name}": value for kind in MOMENTS for name, value in self.moments[kind].items()}

    def restore(self, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy moments in, by kind and name; the caller has seen that all are there and have the shapes."""
        for kind in MOMENTS:
            for name, value in self.moments[kind].items():
                value.copy_(parts[kind][name])
