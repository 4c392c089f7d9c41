"""Downscaling in time: a fine sequence of any length given the coarse one, window after window.

The first window is given its coarse frames alone, each further one also the last fine frames that were drawn before it,
so that the fine sequence is consistent from frame to frame. Fine values that are known beside the coarse ones are given
to each window, and come back as they are.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.frames import FRAME, later
from undrift.data.layout import plain
from undrift.data.place import place_given
from undrift.data.select import sample_mask
from undrift.data.write import CHUNK_BYTES, EnsembleWriter
from undrift.distributions.chain import WindowDraws, batches_of
from undrift.distributions.coarse import on_trained_grid
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.request import Request, template, variables_of
from undrift.distributions.windows import covariates_at, single_frames, whole_steps
from undrift.errors import DataError, UsageError
from undrift.progress import track
from undrift.tasks import Window

__all__ = ["CoarseSequence", "Downscaling", "sequence_of"]

logger = logging.getLogger(__name__)

Block = tuple[int, slice, dict[str, np.ndarray]]
_READ = 64


@dataclass(frozen=True)
class CoarseSequence:
    """A coarse sequence whose fine one is asked.

    Attributes:
        values: on the trained coarse grid, NaN where missing, (N, G, *coarse).
        times: of the frames, (N,), or None where they are counted.
        dim: name of the time.
        request: labels of the frames, and how what is given is brought to the trained grid.
        task: whose windows are drawn.
        fine: fine values that are known, NaN where they are asked, (N, C, *space), or None.
    """

    values: np.ndarray
    times: np.ndarray | None
    dim: str
    request: Request
    task: Window
    fine: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def windows(self, starts: np.ndarray, frames: int) -> np.ndarray:
        """Windows of so many frames, the frame varying fastest among the channels, (n, G frames, *coarse)."""
        out = np.moveaxis(self.values[starts[:, None] + np.arange(frames)], 1, 2)
        return out.reshape(len(starts), -1, *self.values.shape[2:]).astype(np.float64)


def sequence_of(
    fields: Fields,
    codec: Codec,
    shell: Shell,
    given_shell: Shell,
    task: Window,
    at: str | Mapping[str, Any] | None,
    fine: Fields | None = None,
) -> CoarseSequence:
    """The coarse sequence that is given: as many frames as a window has or more, some of which may be absent.

    Args:
        fields: the given frames.
        codec: of the model.
        shell: labels of its fields.
        given_shell: labels of what it is given.
        task: of the model.
        at: which of the frames, such as "time=2019-03-01/2019-03-08".
        fine: fine frames of which something is known, by their times: what is NaN or absent in them is asked.

    Raises:
        DataError: the frames are too few or no whole number of steps apart, there are several series, or the fields are
            others than those trained with.
        UsageError: windows of the model cannot follow each other.
    """
    fields = _selected(fields, at)
    assert codec.given is not None
    time = fields.layout.time
    if time is None:
        raise DataError("the coarse sequence has no time; name the dims with --dims time,y,x")
    others = _one_series(fields, time)
    values, interpolated = on_trained_grid(fields, codec, given_shell, task.frames)
    known = None
    if fine is None:
        times, (values,) = _on_steps(shell.coords[FRAME], (values, fields.times()))
    else:
        put = _fine_frames(_selected(fine, at), codec, shell)
        times, (values, known) = _on_steps(shell.coords[FRAME], (values, fields.times()), put)
    count = len(values)
    labels = xr.Dataset(coords={time: (time, np.arange(count) if times is None else times), **others})
    _refuse_length(count, task)
    first = ";".join(f"{d}={plain(labels[d].values[0])}" for d in sorted(fields.layout.sample))
    request = Request(labels, fields.layout.sample, [first], lambda rows: values[rows], {}, interpolated)
    out = CoarseSequence(values, times, time, request, task, known)
    request.outside |= _outside(out, codec, task.frames)
    return out


def _selected(fields: Fields, at: str | Mapping[str, Any] | None) -> Fields:
    return fields if at is None else fields.select(np.flatnonzero(sample_mask(fields, at)))


def _fine_frames(fields: Fields, codec: Codec, shell: Shell) -> tuple[np.ndarray, np.ndarray]:
    """Fine frames (n, C, *space) on the cells of training, NaN where they are asked, and their times."""
    times, time = fields.times(), fields.layout.time
    if times is None or time is None:
        raise DataError("the fine frames have no times, which say what coarse frames they are beside")
    _one_series(fields, time)
    place = place_given(fields, single_frames(codec.layout), shell.coords)
    for sentence in place.warnings:
        logger.warning("%s", sentence)
    parts = np.array_split(np.arange(len(fields)), -(-len(fields) // _READ))
    return np.concatenate([place(fields.read(rows)) for rows in parts]), times


def _one_series(fields: Fields, time: str) -> dict[str, Any]:
    """Coordinates of the dims beside the time, each of one label."""
    coords: dict[str, Any] = {}
    for dim in fields.layout.sample:
        found = {plain(fields.labels(i)[dim]): fields.labels(i)[dim] for i in range(len(fields))}
        if dim != time and len(found) > 1:
            raise DataError(
                f"the given data have {len(found)} labels of {dim!r}; choose one with --at {dim}={next(iter(found))}"
            )
        if dim != time:
            coords[dim] = (dim, np.array(list(found.values())))
    return coords


def _refuse_length(count: int, task: Window) -> None:
    """Refuse fewer frames than a window has, and more where windows cannot follow each other."""
    if count < task.frames:
        raise DataError(
            f"the coarse sequence has {count} frame{'s' * (count != 1)}, and a window of the model has {task.frames}; "
            f"give {task.frames} or more"
        )
    if count > task.frames and not (task.past and task.future):
        raise UsageError(
            f"the model was trained with --past {task.past} --future {task.future}: its windows cannot follow each "
            f"other, and the coarse sequence has {count} frames; train with both of at least 1"
        )


def _on_steps(
    lead: xr.DataArray, coarse: tuple[np.ndarray, np.ndarray | None], *fine: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Times of frames one step of the model apart each, and coarse and fine frames at them, NaN where one is absent."""
    values, times = coarse
    if times is None:
        if fine:
            raise DataError(
                "fine frames are beside coarse ones of the same times, and the coarse sequence has no times"
            )
        return times, [values]
    every = times
    for _, others in fine:
        if others.dtype.kind != times.dtype.kind:
            raise DataError(f"the fine frames are of {plain(others[0])}, and the coarse ones of {plain(times[0])}")
        every = np.unique(np.concatenate([every, others]))
    several = lead.size > 1 and len(every) > 1
    step = whole_steps(every, lead.values) if several else np.arange(len(every))
    if (np.diff(step) == 0).any():
        near = plain(every[1:][np.diff(step) == 0][0])
        raise DataError(f"the fine frames are beside the times of the coarse ones, such as {near}; give the same times")
    before = np.searchsorted(step, np.arange(step[-1] + 1), side="right") - 1
    after = np.arange(len(before)) - step[before]
    if len(before) > len(times):
        logger.warning(
            "%d of %d frames of the coarse sequence are absent: what is in them is drawn, too",
            len(before) - len(times), len(before),
        )  # fmt: skip
    if after.any():
        all_times = np.array([later(every[b : b + 1], int(k), lead)[0] for b, k in zip(before, after)])
        all_times = all_times.astype(every.dtype)
    else:
        all_times = every
    out = []
    for frames, own in ((values, times), *fine):
        out.append(np.full((len(before), *frames.shape[1:]), np.nan, frames.dtype))
        out[-1][step[np.searchsorted(every, own)]] = frames
    return all_times, out


def _outside(given: CoarseSequence, codec: Codec, frames: int) -> dict[str, float]:
    """Share of given values outside the range of training, by channel; tells of missing ones."""
    starts = np.unique(np.append(np.arange(0, len(given) - frames + 1, frames), len(given) - frames))
    raw = given.windows(starts, frames)
    assert codec.given is not None
    missing = codec.given.gaps(raw)
    if missing.any():
        share = 100 * missing.mean()
        logger.warning("%.2g %% of the given values are missing: each realization draws its own in their place", share)
    shares = codec.given.outside(raw).reshape(-1, frames).mean(1)
    names = [c.label for c in single_frames(codec.given.layout).channels]
    return {name: float(share) for name, share in zip(names, shares) if share > 0}


@dataclass(frozen=True)
class Downscaling:
    """A fine sequence that is asked for.

    Attributes:
        law: of the network's numbers.
        codec: between them and fields.
        shell: labels of the fields.
        device: of the network.
        given: the coarse sequence.
        numbers: of the realizations.
        seed: of the noise; realization n is fixed by (seed, n, labels of the first frame).
        nfe: network evaluations per window.
        attrs: of the result.
    """

    law: Diffusion
    codec: Codec
    shell: Shell
    device: torch.device
    given: CoarseSequence
    numbers: np.ndarray
    seed: int
    nfe: int
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Window:
        """Whose windows are drawn."""
        return self.given.task

    @property
    def starts(self) -> np.ndarray:
        """First frame of each window: ``future`` after that of the one before, but for the last, which ends it all."""
        last = len(self.given) - self.task.frames
        return np.append(np.arange(0, last, max(self.task.future, 1)), last)

    def labelled(self) -> xr.Dataset:
        """The empty fine sequence, dims (realization, *sample, *level, *space)."""
        empty = template(self.given.request, single_frames(self.codec.layout), self.shell, self.numbers, self.attrs)
        return empty.drop_vars(FRAME, errors="ignore")

    def in_memory(self, progress: bool) -> xr.Dataset:
        """The fine sequence as a Dataset."""
        out = self.labelled()
        arrays = {str(k): np.empty(v.shape, np.float32) for k, v in out.data_vars.items()}
        at = self.given.request.dims.index(self.given.dim)
        for r, frames, values in self._drawn(progress, lambda r: False):
            for name, value in values.items():
                place = (r, *[0] * at, frames, *[0] * (len(self.given.request.dims) - at - 1))
                arrays[name][place] = value
        return out.assign({k: out[k].copy(data=v) for k, v in arrays.items()})

    def to_file(self, path: str | Path, overwrite: bool, progress: bool) -> None:
        """The fine sequence written as it comes; realizations that a killed process had written to a .zarr are kept."""
        labelled, dims, dim = self.labelled(), self.given.request.dims, self.given.dim
        told = {**self.attrs, "first": self.given.request.digests, "frames": len(self.given)}
        told["given"] = hashlib.sha256(self.given.values.tobytes()).hexdigest()
        if self.given.fine is not None:
            told["fine"] = hashlib.sha256(self.given.fine.tobytes()).hexdigest()
        told |= {"numbers": [int(n) for n in self.numbers[[0, -1]]], "nfe": self.nfe, "seed": self.seed}
        chunks = {"realization": 1, dim: self.chunk}
        with EnsembleWriter(
            path, labelled, overwrite, sample=dims, chunks=chunks, resume=json.dumps(told, default=str)
        ) as writer:
            for r, frames, values in self._drawn(progress, lambda r: writer.written(r, {})):
                block = {
                    k: v.reshape(1, *(len(v) if d == dim else 1 for d in dims), *v.shape[1:]) for k, v in values.items()
                }
                writer.write(slice(r, r + 1), {dim: frames}, block)

    def plan(self, *, streamed: bool) -> dict[str, Any]:
        """Sizes and network calls."""
        labelled, batches = self.labelled(), sum(1 for _ in self._batches(lambda r: False))
        return {
            "dims": {str(k): int(v) for k, v in labelled.sizes.items()},
            "bytes": int(labelled.nbytes),
            "windows one after the other": len(self.starts),
            "network_calls": batches * len(self.starts) * self.nfe,
            "fields in a call": self.law.micro_batch,
            "streamed": streamed,
        }

    @property
    def chunk(self) -> int:
        """Frames that are written at a time."""
        field_bytes = 4 * len(self.codec.layout.channels) // self.task.frames * int(np.prod(self.codec.layout.shape))
        return int(np.clip(CHUNK_BYTES // field_bytes, 1, len(self.given)))

    def _batches(self, done: Callable[[int], bool]) -> Iterator[list[int]]:
        """Positions of realizations that are drawn at a time."""
        for part in batches_of(self.law, self.numbers, 1, lambda r, _: done(r)):
            yield [r for _, r in part]

    def _drawn(self, progress: bool, done: Callable[[int], bool]) -> Iterator[Block]:
        """Realization, frames, and values per variable (frames, *level, *space), a chunk at a time."""
        one, count = single_frames(self.codec.layout), 0
        with track("drawing", len(self.numbers) * len(self.starts), enabled=progress) as tick:
            for part in self._batches(done):
                ready, first = np.empty((len(part), 0, *self._frame_shape), np.float32), 0
                fine = np.empty((len(part), len(one.channels), 0, *self.codec.layout.shape), np.float32)
                for block, start in enumerate(self.starts):
                    before = 0 if block == 0 else int(self.starts[block - 1]) + self.task.frames - int(start)
                    fine = self._window(part, block, int(start), fine[:, :, fine.shape[2] - before :])
                    ready = np.concatenate([ready, np.moveaxis(fine[:, :, before:], 2, 1)], 1)
                    ends = start + self.task.frames == len(self.given)
                    size = ready.shape[1] if ends else ready.shape[1] // self.chunk * self.chunk
                    for r, values in zip(part, ready[:, :size]):
                        for at in range(0, size, self.chunk):
                            some = values[at : at + self.chunk]
                            frames = slice(first + at, first + at + len(some))
                            yield r, frames, variables_of(some, one, self.shell)
                    ready, first = ready[:, size:], first + size
                    count += len(part)
                    tick(count)

    @property
    def _frame_shape(self) -> tuple[int, ...]:
        """(C, *space) of one frame."""
        return (len(self.codec.layout.channels) // self.task.frames, *self.codec.layout.shape)

    def _window(self, part: list[int], block: int, start: int, before: np.ndarray) -> np.ndarray:
        """A window of each realization (B, C, frames, *space) that begins with frames ``before`` (B, C, f, *space)."""
        frames, given = self.task.frames, self.given
        known = np.full((len(part), *before.shape[1:2], frames, *before.shape[3:]), np.nan, np.float32)
        if given.fine is not None:
            known[:] = np.moveaxis(given.fine[start : start + frames], 0, 1)
        known[:, :, : before.shape[2]] = before
        offered = given.windows(np.array([start]), frames)
        at = None if given.times is None else np.repeat(given.times[[start + max(self.task.past - 1, 0)]], len(part))
        draws = WindowDraws(self.law, self.codec, self.device, self.seed, self.nfe)
        digests = [f"{given.request.digests[0]};block={block}"] * len(part)
        values = draws(
            known.reshape(len(part), -1, *before.shape[3:]),
            covariates_at(self.codec, at),
            [int(self.numbers[r]) for r in part],
            digests,
            offered,
            keeps=not given.request.interpolated,
        ).reshape(known.shape)
        return np.where(np.isfinite(known), known, values)
