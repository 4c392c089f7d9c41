"""Forecasts: windows drawn one after the other, each given the last frames of the one before."""

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

from undrift.config import parse_duration
from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.frames import FRAME, later, single_steps
from undrift.data.layout import plain
from undrift.data.members import MEMBER, ensemble_dim
from undrift.data.place import place_given
from undrift.data.select import sample_mask
from undrift.data.write import EnsembleWriter
from undrift.distributions.chain import WindowDraws, batches_of
from undrift.distributions.coarse import CoarseFrames
from undrift.distributions.constrained import constrained_by, projected, residual_of, tell_residual
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.framewise import ConstraintOf
from undrift.distributions.request import Request, template, variables_of
from undrift.distributions.windows import REGULAR, covariates_at, members_of, single_frames, steps_since
from undrift.errors import DataError, UsageError
from undrift.progress import track
from undrift.tasks import Window
from undrift.verify.leads import LEAD

__all__ = ["LEAD", "Forecast", "Starts", "starts_of", "steps_of"]

_RESIDUAL = "constraint_residual"
logger = logging.getLogger(__name__)

Block = tuple[int, int, slice, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Starts:
    """What forecasts begin with.

    Attributes:
        times: of the last known frame of each, (n,).
        past: values of the frames up to it, of each member of an ensemble where there is one, the member varying
            fastest, (n M, C, past, *space), NaN where missing.
        dim: name of the time.
        members: labels of the members of the ensemble that is given, along ``given_member``, or None.
    """

    times: np.ndarray
    past: np.ndarray
    dim: str
    members: xr.DataArray | None = None

    def __len__(self) -> int:
        return len(self.past)

    @property
    def each(self) -> np.ndarray:
        """The time of each member of each start, (n M,)."""
        return np.repeat(self.times, len(self.past) // max(len(self.times), 1))

    @property
    def labels(self) -> dict[str, Any]:
        """Coordinates of the starts, and of the members."""
        times = (self.dim, self.times, {"standard_name": "forecast_reference_time"})
        return {self.dim: times} | ({} if self.members is None else {MEMBER: self.members})

    def place(self, i: int) -> dict[str, int]:
        """Position of one of them along the dims of a forecast."""
        if self.members is None:
            return {self.dim: i}
        start, member = divmod(i, self.members.size)
        return {self.dim: start, MEMBER: member}

    def digest(self, i: int) -> str:
        """Text of its labels."""
        at = self.place(i)
        told = f"{self.dim}={plain(self.times[at[self.dim]])}"
        member = None if self.members is None else plain(self.members.values[at[MEMBER]])
        return told if self.members is None else f"{told};{self.members.attrs['dim']}={member}"


def starts_of(fields: Fields, codec: Codec, shell: Shell, task: Window, init: str | np.ndarray) -> Starts:
    """The frames that forecasts begin with.

    Args:
        fields: the given frames.
        codec: of the model.
        shell: labels of its fields.
        task: of the model.
        init: "LAST", times with commas between them, or START/END/EVERY such as "2019-03-26/2019-03-30/12h"; or an
            array of times.

    Raises:
        UsageError: no time is meant by ``init``, or the model has no past.
        DataError: the given frames have no time, or nothing of them is the model's.
    """
    if task.past == 0:
        raise UsageError("the model was trained with --past 0: it draws windows that nothing is before; type --past 4")
    time, layout = fields.layout.time, single_frames(codec.layout)
    if time is None:
        raise DataError("the given frames have no time, which a forecast begins with; add a dim of that name")
    members, labels = members_of(fields)
    first = fields.select(members[0])
    times = first.times()
    if times is None:  # frames are counted
        times = np.array([first.labels(i)[time] for i in range(len(first))])
    for dim in fields.layout.sample:
        found = list(dict.fromkeys(plain(fields.labels(i)[dim]) for i in range(len(fields))))
        if dim not in (time, ensemble_dim(fields)) and len(found) > 1:
            raise DataError(f"the given data have {len(found)} labels of {dim!r}; give one, such as {dim}={found[0]}")
    match = place_given(fields, layout, shell.coords)
    for sentence in match.warnings:
        logger.warning("%s", sentence)
    chosen = _chosen(first, time, times, init)
    shape = (len(chosen), len(members), len(layout.channels), task.past, *codec.layout.shape)
    past, found = np.full(shape, np.nan, np.float32), 0
    for k, last in enumerate(chosen):
        rows, before = _before(times, last, task.past, shell.coords[FRAME].values)
        found += len(rows) - 1
        for m, at in enumerate(members):
            values = match(fields.read(at[rows]))
            past[k, m][:, task.past - 1 - before] = np.moveaxis(values, 0, 1)
    if task.past > 1 and not found:
        logger.warning(
            "nothing is given of the %d frames before a start, %s apart, and they are drawn, too",
            task.past - 1, _told(_step(shell)),
        )  # fmt: skip
    return Starts(times[chosen], past.reshape(-1, *shape[2:]), time, labels)


def _before(times: np.ndarray, last: int, past: int, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the frames of the past up to the ``last``, and how many steps of the model each is before it."""
    if len(offsets) > 1 and offsets.dtype.kind in ("m" if times.dtype.kind in "MO" else "f"):
        steps, wanted = -steps_since(times, times[last], offsets), np.arange(past)
        rows = np.abs(steps - wanted[:, None]).argmin(1)
        there = np.abs(steps[rows] - wanted) <= REGULAR
        return rows[there], wanted[there]
    apart = single_steps(times)[0] if len(times) > 1 else np.zeros(0, int)
    place = np.concatenate([[0], np.cumsum(np.where(apart > 0, apart, past))])
    rows = np.flatnonzero((place <= place[last]) & (place > place[last] - past))
    return rows, place[last] - place[rows]


def _chosen(fields: Fields, time: str, times: np.ndarray, init: str | np.ndarray) -> list[int]:
    """Positions of the frames that forecasts begin with."""
    if not isinstance(init, str):
        place = {plain(t): i for i, t in enumerate(times)}
        lacking = [plain(t) for t in init if plain(t) not in place]
        if lacking:
            raise DataError(
                f"the given data lack {len(lacking)} of {len(init)} starts of forecasts, first {lacking[0]}"
            )
        return [place[plain(t)] for t in init]
    if init.upper() == "LAST":
        return [len(times) - 1]
    ends = init.split("/")
    if len(ends) == 1:
        found = [np.flatnonzero(sample_mask(fields, f"{time}={text.strip()}")) for text in init.split(",")]
        return [int(f[0]) for f in found]
    if len(ends) != 3:
        raise UsageError(f"got --init {init}, expected LAST, times such as 2019-03-26T12, or START/END/EVERY")
    within = np.flatnonzero(sample_mask(fields, f"{time}={ends[0]}/{ends[1]}"))
    since = [_seconds(times[i] - times[within[0]]) for i in within]
    every = parse_duration(ends[2])
    return [int(i) for i, s in zip(within, since) if abs(s / every - round(s / every)) < 1e-6]


def _seconds(difference: Any) -> float:
    if isinstance(difference, np.timedelta64):
        return float(difference / np.timedelta64(1, "s"))
    return float(difference.total_seconds()) if hasattr(difference, "total_seconds") else float(difference)


def steps_of(shell: Shell, lead: str | float | None, steps: int | None) -> int:
    """How many frames a forecast has, from a time such as "48h" or their number.

    Raises:
        UsageError: neither or both are given, or the time is no whole number of steps.
    """
    if (lead is None) == (steps is None):
        raise UsageError("say how far to forecast: --lead 48h, or --steps 16; one of them")
    if steps is not None:
        if steps < 1:
            raise UsageError(f"got --steps {steps}, expected at least 1")
        return int(steps)
    step = _step(shell)
    if not isinstance(step, np.timedelta64):
        raise UsageError(f"got --lead {lead}, and the model's frames are counted; type --steps N")
    assert lead is not None
    number = parse_duration(lead) / _seconds(step)
    if abs(number - round(number)) > 1e-6 or number < 0.5:
        raise UsageError(
            f"got --lead {lead}, {number:.3g} steps of {_seconds(step):g} s; expected a whole number of them"
        )
    return round(number)


def _told(step: Any) -> str:
    return f"{_seconds(step):g} s" if isinstance(step, np.timedelta64) else f"{step:g}"


def _step(shell: Shell) -> Any:
    """From one frame to the next: a timedelta64, a number of the time's unit, or 1 where frames are counted."""
    offsets = shell.coords[FRAME].values
    return offsets[1] - offsets[0] if len(offsets) > 1 else 1


@dataclass(frozen=True)
class Forecast:
    """Forecasts that are asked for.

    Attributes:
        law: of the network's numbers.
        codec: between them and fields.
        shell: labels of the fields.
        device: of the network.
        task: of the model.
        starts: what they begin with.
        steps: frames of each.
        numbers: of the realizations.
        seed: of the noise; realization n of a start is fixed by (seed, n, time of the start).
        nfe: network evaluations per window.
        attrs: of the result.
        constraint: that windows satisfy, of a number of their block and given which starts they are of.
        residuals: how far they are from it, filled while they are drawn.
        coarse: frames that windows are given, where training had such.

    Raises:
        DataError: all coarse frames are of other times.
    """

    law: Diffusion
    codec: Codec
    shell: Shell
    device: torch.device
    task: Window
    starts: Starts
    steps: int
    numbers: np.ndarray
    seed: int
    nfe: int
    attrs: Mapping[str, Any] = field(default_factory=dict)
    constraint: Callable[[int], ConstraintOf] | None = None
    residuals: list[float] = field(default_factory=list)
    coarse: CoarseFrames | None = None

    def __post_init__(self) -> None:
        """Refuse coarse frames of other times."""
        if self.coarse is not None:
            times = [self._times(self.starts.times, block) for block in range(self.blocks)]
            self.coarse.refuse_others(np.concatenate(times, 1))

    @property
    def blocks(self) -> int:
        """Windows that are drawn one after the other."""
        return -(-self.steps // self.task.future)

    def labelled(self) -> xr.Dataset:
        """The empty forecasts, dims (realization, time, prediction_timedelta, *level, *space)."""
        starts, frames = self.starts, np.arange(1, self.steps + 1)
        leads = frames * _step(self.shell)
        valid = np.stack([later(starts.times, int(n), self.shell.coords[FRAME]) for n in frames], axis=1)
        coords = xr.Dataset(
            coords={
                **starts.labels,
                LEAD: (LEAD, leads, {"standard_name": "forecast_period"}),
                "valid_time": ((starts.dim, LEAD), valid, {"long_name": "time that is forecast"}),
            }
        )
        request = Request(coords, (*starts.labels, LEAD), [], None, {})
        empty = template(request, single_frames(self.codec.layout), self.shell, self.numbers, self.attrs)
        return empty.drop_vars(FRAME)

    def in_memory(self, progress: bool) -> xr.Dataset:
        """The forecasts as a Dataset."""
        out = self.labelled()
        arrays = {str(k): np.empty(v.shape, np.float32) for k, v in out.data_vars.items()}
        for r, i, leads, values in self._drawn(progress, lambda r, i: False):
            for name, value in values.items():
                arrays[name][(r, *self.starts.place(i).values(), leads)] = value
        return out.assign({k: out[k].copy(data=v) for k, v in arrays.items()}).assign_attrs(self._told())

    def _told(self, before: float = 0.0) -> dict[str, float]:
        """What is known of the residual so far, as attributes."""
        return {} if self.constraint is None else {_RESIDUAL: max([before, *self.residuals])}

    def to_file(self, path: str | Path, overwrite: bool, progress: bool) -> None:
        """The forecasts written as they come; what a process that was killed had written to a .zarr is kept."""
        labelled, starts = self.labelled(), self.starts
        chunks = {"realization": 1, **dict.fromkeys(starts.labels, 1), LEAD: min(self.task.future, self.steps)}
        told = {**self.attrs, "times": [starts.digest(i) for i in range(len(starts))], "steps": self.steps}
        told |= {"numbers": [int(n) for n in self.numbers[[0, -1]]], "nfe": self.nfe, "seed": self.seed}
        if self.coarse is not None:
            told["coarse"] = hashlib.sha256(self.coarse.values.tobytes()).hexdigest()
        with EnsembleWriter(
            path,
            labelled,
            overwrite,
            sample=(*starts.labels, LEAD),
            chunks=chunks,
            resume=json.dumps(told, default=str),
        ) as writer:
            before = float(writer.noted(_RESIDUAL, 0.0))  # by a process that was killed
            for r, i, leads, values in self._drawn(progress, lambda r, i: writer.written(r, starts.place(i))):
                writer.annotate(self._told(before))
                writer.write(slice(r, r + 1), {**starts.place(i), LEAD: leads}, {k: v[None] for k, v in values.items()})

    def plan(self) -> dict[str, Any]:
        """Sizes and network calls."""
        labelled, micro = self.labelled(), self.law.micro_batch
        batches = sum(1 for _ in self._batches(lambda r, i: False))
        return {
            "dims": {str(k): int(v) for k, v in labelled.sizes.items()},
            "bytes": int(labelled.nbytes),
            "windows one after the other": self.blocks,
            "network_calls": batches * self.blocks * self.nfe,
            "fields in a call": micro,
        }

    def _batches(self, done: Callable[[int, int], bool]) -> Iterator[list[tuple[int, int]]]:
        """(start, position of the realization) of what is drawn at a time, all by one of the networks."""
        return batches_of(self.law, self.numbers, len(self.starts), done)

    def _drawn(self, progress: bool, done: Any) -> Iterator[Block]:
        """Realization, start, leads, and values per variable (leads, *level, *space) of each window drawn."""
        task, one, count = self.task, single_frames(self.codec.layout), 0
        total = len(self.starts) * len(self.numbers) * self.blocks
        with track("forecasting", total, enabled=progress) as tick:
            for part in self._batches(done):
                past = self.starts.past[[i for i, _ in part]]
                for block in range(self.blocks):
                    frames = self._window(part, past, block)
                    past = frames[:, :, -task.past :]
                    future = np.moveaxis(frames[:, :, task.past :], 2, 1)
                    first = block * task.future
                    leads = slice(first, min(first + task.future, self.steps))
                    for (i, r), values in zip(part, future[:, : leads.stop - first]):
                        yield r, i, leads, variables_of(values, one, self.shell)
                    count += len(part)
                    tick(count)
        tell_residual(max(self.residuals, default=0.0))

    def _window(self, part: list[tuple[int, int]], past: np.ndarray, block: int) -> np.ndarray:
        """Windows (B, C, frames, *space) given their past; what is missing of that is drawn too."""
        task, layout = self.task, self.codec.layout
        rows, shape = len(part), layout.shape
        known = np.full((rows, past.shape[1], task.frames, *shape), np.nan, np.float32)
        known[:, :, : task.past] = past
        known = known.reshape(rows, -1, *shape)
        at = later(self.starts.each[[i for i, _ in part]], block * task.future, self.shell.coords[FRAME])
        chain = WindowDraws(self.law, self.codec, self.device, self.seed, self.nfe)
        digests = [f"{self.starts.digest(i)};block={block}" for i, _ in part]
        numbers, wanted = [int(self.numbers[r]) for _, r in part], None
        of_starts = None if self.constraint is None else self.constraint(block)
        offered, keeps = self._offered([i for i, _ in part], block), self.coarse is None or not self.coarse.interpolated
        if of_starts is None:
            values = chain(known, covariates_at(self.codec, at), numbers, digests, offered, keeps)
        else:
            starts, whole = [i for i, _ in part], self.law.micro_batch
            padded = of_starts(starts + starts[-1:] * (whole - rows))
            values = chain(
                known, covariates_at(self.codec, at), numbers, digests, offered, keeps,
                guided=lambda predicted: constrained_by(padded, self.codec, self.shell, predicted, whole),
            )  # fmt: skip
            wanted = of_starts(starts)
            values = projected(values, wanted, self.codec, self.shell)
            self.residuals.append(residual_of(values, wanted, self.codec, self.shell))
        return np.where(np.isfinite(known), known, values).reshape(rows, -1, task.frames, *shape)

    def _offered(self, rows: list[int], block: int) -> np.ndarray | None:
        """Coarse windows of starts, (n, G frames, *coarse), NaN where no frame is given; None where none is wanted."""
        if self.coarse is None:
            return None
        return self.coarse.windows(self._times(self.starts.each[rows], block))

    def _times(self, starts: np.ndarray, block: int) -> np.ndarray:
        """Of the frames of the windows of starts (n,), (n, frames)."""
        first = block * self.task.future + 1 - self.task.past
        steps = range(first, first + self.task.frames)
        return np.stack([later(starts, k, self.shell.coords[FRAME]) for k in steps], 1)
