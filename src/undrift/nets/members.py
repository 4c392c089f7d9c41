"""Networks trained side by side: what one of them learned by chance, the others did not.

A network's mean prediction is wrong by something of its own, which depends on its first weights and on the order of
what it saw. An ensemble whose realizations come from several networks in turn counts that as spread, and its mean has
less of it (Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles",
https://arxiv.org/abs/1612.01474).
"""

from __future__ import annotations

__all__ = ["Members", "member_of", "number_of"]

from collections.abc import Sequence

from torch import nn


class Members(nn.Module):
    """Networks of one shape; each step of training and each realization is of one of them.

    Args:
        nets: the networks, at least one.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)


def number_of(net: nn.Module) -> int:
    """How many networks these are."""
    return len(net.nets) if isinstance(net, Members) else 1


def member_of(net: nn.Module, number: int) -> nn.Module:
    """The network of a step or realization ``number``, in turn; one that stands alone is always meant."""
    return net.nets[number % len(net.nets)] if isinstance(net, Members) else net
