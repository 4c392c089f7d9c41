"""Drawing of labelled ensembles: a request in, blocks of fields in the user's units and order out."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.encoded import Encoded, Initial, Predicted
from undrift.data.write import EnsembleWriter
from undrift.denoise.denoiser import Denoiser
from undrift.distributions.constrained import constrained_by, projected, residual_of, tell_residual
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.framewise import ConstraintOf
from undrift.distributions.observed import guide_of
from undrift.distributions.request import Request, variables_of
from undrift.nets.members import member_of, number_of
from undrift.process import Key, normal
from undrift.progress import track
from undrift.tasks.batch import Condition
from undrift.train.batches import to_condition

__all__ = ["Drawing"]

logger = logging.getLogger(__name__)

Block = tuple[slice, int, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Drawing:
    """One ensemble that is asked for.

    Attributes:
        law: of the network's numbers.
        codec: between them and fields.
        shell: labels of the fields.
        device: of the network.
        request: the samples and what is given for each.
        numbers: of the realizations.
        seed: of the noise; realization n of a sample is fixed by (seed, n, labels of the sample).
        nfe: network evaluations per realization.
        labelled: the empty ensemble, dims (realization, *sample, *level, *space).
        constraint: that fields of samples satisfy, given these; in the units and the order of the data.
        residuals: how far they are from it, filled while they are drawn.
    """

    law: Diffusion
    codec: Codec
    shell: Shell
    device: torch.device
    request: Request
    numbers: np.ndarray
    seed: int
    nfe: int
    labelled: xr.Dataset
    constraint: ConstraintOf | None = None
    residuals: list[float] = field(default_factory=list)

    def in_memory(self, progress: bool) -> xr.Dataset:
        """The ensemble as a Dataset."""
        dims = self.request.dims
        sizes = [self.request.labels.sizes[d] for d in dims]
        flat = {
            str(k): np.empty((len(self.numbers), math.prod(sizes), *v.shape[1 + len(sizes) :]), np.float32)
            for k, v in self.labelled.data_vars.items()
        }
        for rows, i, block in self._blocks(self.nfe, progress):
            for name, values in block.items():
                flat[name][rows, i] = values
        shaped = {k: v.reshape(len(self.numbers), *sizes, *v.shape[2:]) for k, v in flat.items()}
        out = self.labelled.assign({k: self.labelled[k].copy(data=v) for k, v in shaped.items()})
        return out.assign_attrs(self._told())

    def _told(self) -> dict[str, float]:
        """What is known once all is drawn, as attributes."""
        if not self.residuals:
            return {}
        tell_residual(max(self.residuals))
        return {"constraint_residual": max(self.residuals)}

    def to_file(self, path: str | Path, overwrite: bool, progress: bool) -> None:
        """The ensemble streamed to a file."""
        with EnsembleWriter(path, self.labelled, overwrite, sample=self.request.dims) as writer:
            for rows, i, block in self._blocks(self.nfe, progress):
                writer.write(rows, slice(i, i + 1), {k: v[:, None] for k, v in block.items()})
            writer.annotate(self._told())

    def plan(self, *, streamed: bool) -> dict[str, Any]:
        """Sizes of the ensemble, and memory and time as one micro batch with few evaluations tells."""
        micro, rows = self.law.micro_batch, len(self.request) * len(self.numbers)
        calls = sum(1 for _ in self._micro_batches()) * self.nfe
        plan = {
            "dims": {str(k): int(v) for k, v in self.labelled.sizes.items()},
            "bytes": int(self.labelled.nbytes),
            "network_calls": calls,
        }
        seconds = []
        for evaluations in (1, 1, 2) if rows else ():  # the first warms up
            began = time.perf_counter()
            next(self._blocks(evaluations, False))
            seconds.append(time.perf_counter() - began)
        if seconds:
            call = max(seconds[2] - seconds[1], 0.1 * seconds[1])
            plan["seconds"] = round(calls * call + calls / self.nfe * max(seconds[1] - call, 0), 2)
        width = max(getattr(member_of(self.law.net, 0), "channels", (64,)))
        held = micro * math.prod(self.codec.layout.shape) * (8 * width + 12 * len(self.codec.layout.channels))
        plan["memory_mb"] = round((4 * held + (0 if streamed else self.labelled.nbytes)) / 2**20 + 400)
        return plan

    def _blocks(self, nfe: int, progress: bool) -> Iterator[Block]:
        """Positions of realizations, sample, and values per variable, one micro batch after the other."""
        micro, count, of_given = self.law.micro_batch, len(self.numbers), self.codec.given

        @lru_cache(maxsize=micro)
        def offered(i: int) -> np.ndarray | None:
            return None if self.request.offered is None else self.request.offered(np.array([i]))

        @lru_cache(maxsize=micro)
        def frames(i: int) -> np.ndarray | None:
            return None if self.request.known is None else self.request.known(np.array([i]))

        @lru_cache(maxsize=micro)
        def initial(i: int) -> Initial | None:
            return None if self.request.initial is None else self.request.initial(np.array([i]))

        @lru_cache(maxsize=micro)
        def encoded(i: int, realization: int | None) -> tuple[Encoded, Predicted]:
            rows = np.array([i])
            values = {k: v[rows] for k, v in self.request.covariates.items()}
            draw = None if realization is None else self._generator("given", i, realization)
            raw = offered(i)
            if raw is not None and draw is not None and of_given is not None and of_given.members > 1:
                raw = of_given.mixed(raw, self._generator("members", i, int(realization or 0)))
            both = self.codec.encode(
                None, None, rows, covariates=values, offered=raw, draw=draw, known=frames(i), initial=initial(i)
            )
            return (replace(both[0], blocks=None), both[1]) if self.request.interpolated else both

        def given(i: int, realization: int) -> tuple[Encoded, Predicted]:
            raw = offered(i)  # what is missing is another draw for each realization, and so is the order of members
            drawn = self.codec.members > 1
            if raw is not None and of_given is not None and of_given.law is not None and self.codec.coarse_law is None:
                drawn |= bool(of_given.gaps(raw).any())
            before = frames(i) is not None or initial(i) is not None
            drawn |= before and any(t.kind != "standard" for t in self.codec.transforms)
            return encoded(i, realization if drawn else None)

        at_bound, drawn = np.zeros(len(self.codec.transforms)), 0
        with track("drawing", len(self.request) * count, enabled=progress) as tick:
            for part in self._micro_batches():
                member = int(self.numbers[part[0][1]])
                z = np.stack([self._noise(i, r) for i, r in part])
                known = [given(i, r) for i, r in part]
                condition = Condition.concatenate([to_condition(e) for e, _ in known]).to(self.device)
                guided, observed = None, self.request.seen is not None
                if self.request.seen is not None and self.request.seen[part[0][0]]:
                    guided = guide_of(self.request.seen[part[0][0]], self.codec, known[0][1])
                if self.constraint is not None:
                    guided = self._constrained(guided, [i for i, _ in part], [p for _, p in known])
                start = torch.from_numpy(z).to(self.device)
                x = self.law.sample(
                    condition, start, nfe=nfe, member=member, guided=guided, alone=observed,
                    finish=guided is None or not observed,
                )  # fmt: skip
                x = x.cpu().numpy()
                for at in _runs(part):
                    i, first = part[at[0]]
                    predicted = Predicted.joined([known[k][1] for k in at])
                    kept = [known[k][0].blocks for k in at]
                    blocks = None if kept[0] is None else np.concatenate([b for b in kept if b is not None])
                    put = frames(i)
                    values = self.codec.decode(x[at], predicted, blocks, put)
                    constraint = None if self.constraint is None else self.constraint([i] * len(at))
                    if constraint is not None:
                        values = projected(values, constraint, self.codec, self.shell)
                    values = values if put is None else np.where(np.isfinite(put), put, values)
                    if constraint is not None:
                        self.residuals.append(residual_of(values, constraint, self.codec, self.shell))
                    at_bound += self.codec.at_bound(values)
                    drawn += len(at)
                    yield slice(first, first + len(at)), i, variables_of(values, self.codec.layout, self.shell)
                tick(drawn)
        self._tell_bounds(at_bound / max(drawn, 1))

    def _constrained(
        self, guided: Callable[[Denoiser], Denoiser] | None, samples: list[int], known: list[Predicted]
    ) -> Callable[[Denoiser], Denoiser] | None:
        """What goes around the denoiser: the constraint, around what guides it."""
        assert self.constraint is not None
        predicted = Predicted.joined(known)
        rows = self.law.micro_batch
        constraint = self.constraint(samples + samples[-1:] * (rows - len(samples)))
        around = constrained_by(constraint, self.codec, self.shell, predicted, rows)
        if around is None or guided is None:
            return guided if around is None else around
        return lambda denoiser: around(guided(denoiser))

    def _micro_batches(self) -> Iterator[list[tuple[int, int]]]:
        """(sample, position of the realization) of each call of the network, all of one of its members."""
        members, micro = number_of(self.law.net), self.law.micro_batch
        together = micro if self.request.seen is None else 1  # of those that are guided each is on its own
        for begin in range(0, len(self.request), together):
            some = range(begin, min(begin + together, len(self.request)))
            for k in range(members):
                own = np.flatnonzero(self.numbers % members == k)
                items = [(i, int(r)) for i in some for r in own]
                yield from (items[start : start + micro] for start in range(0, len(items), micro))

    def _tell_bounds(self, share: np.ndarray) -> None:
        """Say of each bounded channel how many of its drawn values stand at a bound."""
        for channel, transform, part in zip(self.codec.layout.channels, self.codec.transforms, share):
            if part > 0:
                bounds = " or ".join(f"{b:g}" for b in (transform.lower, transform.upper) if b is not None)
                logger.info("%s: %.2g %% of the drawn values stand at the bound %s", channel.label, 100 * part, bounds)

    def _generator(self, purpose: str, sample: int, realization: int) -> np.random.Generator:
        """The generator of what is drawn for one realization before the network is asked."""
        key = Key(self.seed, purpose, int(self.numbers[realization]), self.request.digests[sample])
        return np.random.Generator(np.random.Philox(key=key.words()))

    def _noise(self, sample: int, realization: int) -> np.ndarray:
        """The base noise of one field, (C, *space)."""
        layout, digest = self.codec.layout, self.request.digests[sample]
        number = int(self.numbers[realization])
        draws = [normal(Key(self.seed, "base", number, digest, c.label), layout.shape) for c in layout.channels]
        return np.stack(draws).astype(np.float32)


def _runs(part: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Places in a micro batch of consecutive realizations of one sample."""
    run = [0]
    for k in range(1, len(part)):
        (i, r), (j, s) = part[k - 1], part[k]
        if i != j or s != r + 1:
            yield run
            run = []
        run.append(k)
    yield run
