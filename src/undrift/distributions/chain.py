"""Windows of frames that are drawn one after the other, each realization of noise of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from undrift.data.codec import Codec
from undrift.data.encoded import Encoded, Predicted
from undrift.denoise.denoiser import Denoiser
from undrift.distributions.diffusion import Diffusion
from undrift.nets.members import number_of
from undrift.process import Key, normal
from undrift.tasks.batch import Condition
from undrift.train.batches import to_condition

__all__ = ["WindowDraws", "batches_of"]


def batches_of(
    law: Diffusion, numbers: np.ndarray, chains: int, done: Callable[[int, int], bool]
) -> Iterator[list[tuple[int, int]]]:
    """(chain, position of the realization) of what is drawn at a time, all by one of the networks.

    Args:
        law: whose networks take turns.
        numbers: of the realizations.
        chains: how many there are of each realization.
        done: whether a position of a realization of a chain is there already.
    """
    members, micro = number_of(law.net), law.micro_batch
    for k in range(members):
        own = np.flatnonzero(numbers % members == k)
        items = [(i, int(r)) for i in range(chains) for r in own if not done(int(r), i)]
        yield from (items[start : start + micro] for start in range(0, len(items), micro))


@dataclass(frozen=True)
class WindowDraws:
    """Draws windows given any part of them, each of a realization of its own.

    Attributes:
        law: of the network's numbers.
        codec: between them and fields.
        device: of the network.
        seed: of the noise.
        nfe: network evaluations of a window.
    """

    law: Diffusion
    codec: Codec
    device: torch.device
    seed: int
    nfe: int

    def __call__(
        self,
        known: np.ndarray,
        covariates: Mapping[str, np.ndarray],
        numbers: Sequence[int],
        digests: Sequence[str],
        offered: np.ndarray | None = None,
        keeps: bool = True,
        guided: Callable[[Predicted], Callable[[Denoiser], Denoiser] | None] | None = None,
    ) -> np.ndarray:
        """Windows (n, C, *space) in the data's units.

        Args:
            known: their values, NaN where they are asked, (n, C, *space).
            covariates: name -> value of each, (n,).
            numbers: of the realization of each, all drawn by one of the networks.
            digests: text of each; its noise is fixed by (seed, number, digest).
            offered: the coarse sequence of each on the trained grid, (n, G, *coarse), or None. One for all, whose times
                are the same, is encoded once where nothing of it is missing.
            keeps: whether means over blocks are kept where training found that what is given are such.
            guided: what is put around the denoiser of windows with a prediction, or None; what is drawn has yet to be
                projected on it.
        """
        layout, shared = self.codec.layout, None
        if offered is not None and len(offered) == 1:
            assert self.codec.given is not None
            shared = None if self.codec.given.gaps(offered).any() else self._coarse(covariates, offered)
            offered = np.repeat(offered, len(numbers), 0)
        conditions, predicted, blocks, noise = [], [], [], []
        for row, (number, digest) in enumerate(zip(numbers, digests)):
            draw = np.random.Generator(np.random.Philox(key=Key(self.seed, "given", number, digest).words()))
            at = slice(row, row + 1)
            if shared is not None:
                encoded, mean = self._window(shared, known[at], draw)
            else:
                encoded, mean = self.codec.encode(
                    None, None, np.arange(1), covariates={k: v[at] for k, v in covariates.items()}, known=known[at],
                    draw=draw, offered=None if offered is None else offered[at],
                )  # fmt: skip
            conditions.append(to_condition(encoded))
            predicted.append(mean)
            blocks += [] if encoded.blocks is None or not keeps else [encoded.blocks]
            noise.append(
                [normal(Key(self.seed, "base", number, digest, c.label), layout.shape) for c in layout.channels]
            )
        condition = Condition.concatenate(conditions).to(self.device)
        z = torch.from_numpy(np.array(noise, dtype=np.float32)).to(self.device)
        whole = Predicted.joined(predicted)
        around = None if guided is None else guided(whole)
        x = self.law.sample(condition, z, nfe=self.nfe, member=numbers[0], guided=around, finish=True)
        return self.codec.decode(x.cpu().numpy(), whole, np.concatenate(blocks) if blocks else None, known)

    def _coarse(self, covariates: Mapping[str, np.ndarray], offered: np.ndarray) -> tuple[Encoded, Predicted]:
        """What a coarse sequence (1, G, *coarse) without gaps tells of a window of which nothing fine is known."""
        first = {k: v[:1] for k, v in covariates.items()}
        return self.codec.encode(None, None, np.arange(1), covariates=first, offered=offered)

    def _window(
        self, coarse: tuple[Encoded, Predicted], known: np.ndarray, draw: np.random.Generator
    ) -> tuple[Encoded, Predicted]:
        """A window (1, C, *space) of that coarse sequence, given its known part."""
        codec, (encoded, predicted) = self.codec, coarse
        whole = (slice(None),) * len(codec.layout.space)
        mean, more = codec.windowed(known, predicted, None, whole, draw)
        fields = {k: v for k, v in encoded.fields.items() if k != "target known"} | more
        _, weight = codec.asked(None, np.ones(known.shape, np.float32), fields)
        return replace(encoded, fields=codec.marked(fields, weight)), mean
