"""From data to a trained model: what ``undrift.fit`` does, step by step."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from undrift.config import Config
from undrift.data.coarse_fit import fit_coarse_law
from undrift.data.codec import Codec, Encoded, Initial, Predicted
from undrift.data.codec_fit import fit_codec
from undrift.data.cut import begun_with
from undrift.data.fields import Fields
from undrift.data.leads import Pairs
from undrift.data.members import date_of, reordered
from undrift.data.motion_law import Ahead
from undrift.data.split import Split, fill_values, overlapping, split
from undrift.data.windows import Windows, auto_crop
from undrift.errors import DataError, UsageError
from undrift.nets.precision import fastest_dtype
from undrift.tasks import LeadTime, Task, Window
from undrift.tasks.batch import Batch, Condition
from undrift.tasks.pair import Pair
from undrift.train.aheads import Aheads
from undrift.train.pairs import pairs_of
from undrift.train.settings import Settings
from undrift.train.shared_errors import SharedErrors
from undrift.train.source import source_of

__all__ = [
    "Problem",
    "batches",
    "device_of",
    "precision_of",
    "prepare",
    "settings_of",
    "to_batch",
]

logger = logging.getLogger(__name__)

_MEMORY_SAMPLES = 512
_SHARED_SAMPLES = 1500
_READ = 16  # samples at a time
_KEPT_NUMBERS = 300_000_000
_VALIDATION = 0.1
_VALIDATION_BLOCKS = 3
_VALIDATION_FIELDS = 128


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


@dataclass
class Problem:
    """All that training needs and that is not the network.

    Attributes:
        pair: target and given, sample by sample.
        split: which samples train.
        fit_rows: training samples of the network.
        stop_rows: training samples that only choose when to stop: blocks of the record.
        codec: fitted on all training samples.
        fold: fold of each sample of the pair (-1 for those held out).
        covariates: name -> value of each sample of the pair.
        crop: cells along each side of a window, or None.
        task: that made the pair.
        memory: samples, or dates of an ensemble, after which residuals are independent: at least 1.
        pairs: of states and those that they are asked after, or None.
    """

    pair: Pair
    split: Split
    fit_rows: np.ndarray
    stop_rows: np.ndarray
    codec: Codec
    fold: np.ndarray
    covariates: dict[str, np.ndarray]
    crop: int | None
    task: Task
    memory: int = 1
    pairs: Pairs | None = None
    _kept: tuple[Encoded, Predicted] | None = field(default=None, repr=False)
    _place: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int), repr=False)
    _aheads: Aheads | None = field(default=None, repr=False)

    def encode(
        self,
        rows: np.ndarray,
        window: tuple[slice, ...] | None = None,
        draw: np.random.Generator | None = None,
        known: np.ndarray | None = None,
    ) -> Encoded:
        """Out-of-fold residuals of training samples; what is known of windows is drawn unless it is told.

        So is the state that others are asked after, and the lead.
        """
        return self.predicted(rows, window, draw, known)[0]

    def predicted(
        self,
        rows: np.ndarray,
        window: tuple[slice, ...] | None = None,
        draw: np.random.Generator | None = None,
        known: np.ndarray | None = None,
    ) -> tuple[Encoded, Predicted]:
        """As :meth:`encode`, and what they are residuals from."""
        ahead: list[Ahead | None] | None = None
        offered = self._offered(rows, None)
        if known is None:
            known, ahead = self._known(rows, window, draw)
            offered = self._offered(rows, draw, known)
        initial = None if self.pairs is None else self.initial(*self.pairs.draw(rows, draw), window)
        if self._kept is None:
            values = {k: v[rows] for k, v in self.covariates.items()}
            given = self.pair.given if draw is None or self.pair.given is None else reordered(self.pair.given, draw)
            return self.codec.encode(
                self.pair.target, given, rows, covariates=values, fold=self.fold[rows], window=window,
                draw=draw, offered=offered, known=known, initial=initial, ahead=ahead,
            )  # fmt: skip
        encoded, prediction = self._kept
        whole = window if window is not None else (slice(None),) * len(self.codec.layout.space)
        at = self._place[rows]
        cut = (at, slice(None), *whole)
        predicted, fields = prediction[cut], {k: v[cut] for k, v in encoded.fields.items()}
        if known is not None:
            predicted, more = self.codec.windowed(known, predicted, self.fold[rows], whole, draw, ahead)
            fields |= more
        if known is not None and offered is not None:
            predicted = self._lacking(rows, offered, known, predicted, fields, whole, draw)
        vector = encoded.vector[at]
        if initial is not None:
            predicted, more, lead = self.codec.after(initial, predicted, self.fold[rows], whole, draw)
            fields, vector = fields | more, np.concatenate([vector, lead], 1)
        residual, weight = self.codec.residual(self.pair.target.read(rows, whole), predicted, whole, draw)
        x, weight = self.codec.asked(residual, weight, fields)
        fields = self.codec.marked(fields, weight)
        return Encoded(x, weight, fields, vector), predicted

    def _offered(
        self, rows: np.ndarray, draw: np.random.Generator | None, known: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Coarse windows that are given, NaN where they are missing: by a mask that is drawn, too, where one is.

        Those of known fine frames are known beside a part of space, as they are of the whole of it. None where no
        coarse windows are given, or none may be missing.
        """
        if self.pair.given is None or self.codec.coarse_law is None:
            return None
        values = self.pair.given.read(rows).astype(np.float64)
        if draw is None:
            return values
        assert isinstance(self.task, Window) and known is not None
        there = self.task.offer(values.shape[1:], len(rows), draw)
        whole = np.asarray(np.isfinite(known).all(tuple(range(2, known.ndim))))
        for channel in np.flatnonzero(self.codec.conserves):
            there[whole[:, channel], self.codec.base[channel]] = True
        return np.where(there, values, np.nan)

    def _lacking(
        self, rows: np.ndarray, offered: np.ndarray, known: np.ndarray, predicted: Predicted,
        fields: dict[str, np.ndarray], window: tuple[slice, ...], draw: np.random.Generator | None,
    ) -> Predicted:  # fmt: skip
        """The prediction with that of windows of which coarse values are missing, whose fields are replaced."""
        which = np.flatnonzero(self.codec.gaps(offered).reshape(len(rows), -1).any(1))
        if not which.size:
            return predicted
        values = {k: v[rows[which]] for k, v in self.covariates.items()}
        encoded, own = self.codec.encode(
            None, None, rows[which], covariates=values, fold=self.fold[rows[which]], window=window, draw=draw,
            offered=offered[which], known=known[which],
        )  # fmt: skip
        for name in fields:
            if name != "static":
                fields[name] = fields[name].copy()
                fields[name][which] = encoded.fields[name]
        mean, std = predicted.mean.copy(), np.array(predicted.std)
        mean[which], std[which] = own.mean, own.std
        return Predicted(mean, std)

    def initial(self, rows: np.ndarray, lags: np.ndarray, window: tuple[slice, ...] | None) -> Initial:
        """States in ``rows`` (n, past) that others are asked after, each predicted without its own fold."""
        flat, whole = rows.ravel(), window if window is not None else (slice(None),) * len(self.codec.layout.space)
        values = self.pair.target.read(flat, whole)
        if self._kept is not None:
            predicted = self._kept[1][(self._place[flat], slice(None), *whole)]
        else:
            told = {k: v[flat] for k, v in self.covariates.items()}
            predicted = self.codec.alone(told, len(flat), whole, self.fold[flat])
        return Initial(values.reshape(*rows.shape, *values.shape[1:]), predicted, lags)

    def _known(
        self, rows: np.ndarray, window: tuple[slice, ...] | None, draw: np.random.Generator | None
    ) -> tuple[np.ndarray | None, list[Ahead | None] | None]:
        """Values of windows of frames, NaN where they are asked: by a mask that is drawn, or all where none is.

        Also what the motion of their past tells of a part of space; None where the whole of it is seen.
        """
        if not isinstance(self.task, Window):
            return None, None
        values = self.pair.target.read(rows, window)
        if draw is None:
            return np.full_like(values, np.nan), None
        names = [c.variable for c in self.codec.layout.channels[:: self.task.frames]]
        known = self.task.draw(values.shape[1:], len(rows), draw, names, self.pair.given is not None)
        ahead = None
        if window is not None and self.codec.motion_laws is not None:
            self._aheads = self._aheads or Aheads(self.codec, self.pair.target, self.fold)
            ahead = self._aheads(rows, known, window)
        return np.where(known, values, np.nan), ahead

    def past(self, rows: np.ndarray) -> np.ndarray | None:
        """Values of windows of frames with what usually is asked NaN; None for other tasks."""
        if not isinstance(self.task, Window):
            return None
        values = self.pair.target.read(rows)
        shape = (*values.shape[:1], -1, self.task.frames, *values.shape[2:])
        values.reshape(shape)[:, :, ~self.task.frames_known(self.task.usual)] = np.nan
        return values

    def nothing(self, rows: np.ndarray) -> np.ndarray | None:
        """Values of windows of frames of which nothing is known; None for other tasks."""
        if not isinstance(self.task, Window):
            return None
        return np.full((len(rows), len(self.codec.layout.channels), *self.codec.layout.shape), np.nan, np.float32)

    def keep(self) -> None:
        """Hold what does not change from step to step in memory, where there is room for it.

        The linear algebra of a batch would otherwise compete with the network for the processor at every step. Given
        members change: which they are and their order is drawn at each.
        """
        if self.codec.members > 1:
            return
        rows = np.sort(np.concatenate([self.fit_rows, self.stop_rows]))
        first = self.encode(rows[:1])
        rows = rows if self.pairs is None else self.split.train
        assert first.x is not None
        of_windows = (
            "static",
            "asked",
            "frames",
            "expected",
            "doubt",
            "target known",
        )  # alike in all rows, or of each batch
        numbers = sum(v.size for k, v in first.fields.items() if k not in of_windows) + 4 * first.x.size
        if numbers * len(rows) > _KEPT_NUMBERS:
            return
        fields: dict[str, list[np.ndarray]] = {}
        vectors, means, stds = [], [], []
        for start in range(0, len(rows), _READ):
            at = rows[start : start + _READ]
            values = {k: v[at] for k, v in self.covariates.items()}
            encoded, prediction = self.codec.encode(
                None, self.pair.given, at, covariates=values, fold=self.fold[at], draw=np.random.default_rng(int(at[0]))
            )
            for name, value in encoded.fields.items():
                if name != "target known":  # of each batch, and after what is given of windows: the order of channels
                    fields.setdefault(name, []).append(value[:1] if name == "static" else value)
            vectors.append(encoded.vector)
            means.append(prediction.mean)
            stds.append(prediction.std)
        static = {k: np.broadcast_to(v[0][0], (len(rows), *v[0].shape[1:])) for k, v in fields.items() if k == "static"}
        kept = {k: static[k] if k in static else np.concatenate(v) for k, v in fields.items()}
        self._place = np.full(len(self.pair.target), -1)
        self._place[rows] = np.arange(len(rows))
        self._kept = (
            Encoded(None, None, kept, np.concatenate(vectors)),
            Predicted(np.concatenate(means), np.concatenate(stds)),
        )


def covariates_of(fields: Fields, task: Task) -> dict[str, np.ndarray]:
    """The covariates asked; an emulator without any takes the labels of its samples."""
    if fields.covariate_names:
        return {name: fields.covariate(name) for name in fields.covariate_names}
    if isinstance(task, Window | LeadTime):
        times = fields.times()
        dated = times is not None and (times.dtype.kind == "M" or hasattr(times[0], "calendar"))
        return {str(fields.layout.time): times} if times is not None and dated else {}
    if task.name != "emulate":
        return {}
    labelled = [dim for dim in fields.layout.sample if dim in fields.dataset.coords]
    return {dim: fields.along(fields._dataset[dim].reset_coords(drop=True)) for dim in labelled}


def _stop_rows(train: np.ndarray, frames: int) -> np.ndarray:
    """Blocks spread over the record, a tenth of it in all.

    One block at its beginning where windows of so many frames that overlap these blocks are more than half of all.
    """
    parts = np.array_split(train, _VALIDATION_BLOCKS)
    size = max(1, round(len(train) * _VALIDATION / _VALIDATION_BLOCKS))
    rows = np.concatenate([part[(len(part) - size) // 2 : (len(part) - size) // 2 + size] for part in parts])
    if _near(train, rows, frames).mean() > 0.5:
        return train[: max(1, round(len(train) * _VALIDATION))]
    return rows


def _near(rows: np.ndarray, others: np.ndarray, apart: int) -> np.ndarray:
    """Which rows are less than so many samples apart from one of others."""
    return np.abs(rows[:, None] - others[None]).min(1) < apart


def prepare(target: Fields, given: Fields | None, task: Task, config: Config, *, samples: int | None = None) -> Problem:
    """Pair, split and encode.

    Args:
        target: what is asked.
        given: what is given, where it is a dataset of its own.
        task: pairs the two.
        config: of the run.
        samples: fit the codec to so many at most, spread over the record: enough to say what would be trained.
    """
    pair = task.pair(target if given is None else begun_with(target, given), given)
    whole = split(pair.target, config.data.holdout)
    for sentence in pair.notes:
        logger.info("%s", sentence)
    for sentence in [*pair.target.warnings, *pair.warnings, *whole.warnings]:
        logger.warning("%s", sentence)
    train = whole.train
    if len(train) < 8:
        raise DataError(f"{len(train)} samples are left for training, expected at least 8; hold out less")
    if samples is not None:
        train = train[np.unique(np.linspace(0, len(train) - 1, samples).astype(int))]
    if given is not None and pair.given is not None:
        for found in fill_values(pair.given, np.concatenate([train, whole.holdout])):
            logger.warning("given: %s", found)
    covariates = covariates_of(pair.target, task)
    coarse = pair.given if isinstance(task, Window) else None
    if coarse is not None and config.codec.motion:
        raise UsageError(
            "codec.motion=true carries on the past frames of windows and knows nothing of the coarse ones that they "
            "are given; leave it out, or train without --factor and --given"
        )
    codec, fold = fit_codec(
        pair.target,
        pair.given,
        train,
        factor=pair.factor,
        covariates=covariates,
        transforms=config.codec.transforms,
        number_of_folds=config.codec.folds,
        linear=config.codec.linear,
        cycles=() if pair.target.covariate_names else tuple(covariates) if isinstance(task, Window | LeadTime) else (),
        windows=isinstance(task, Window),
        maps=_crop(config.train.crop, pair.target) is None,
        leads=(task.clock(pair.target), task.steps(pair.target), task.past) if isinstance(task, LeadTime) else None,
        past=task.past if isinstance(task, Window) else 0,
        motion=config.codec.motion if coarse is None else False,
    )
    if isinstance(task, Window) and coarse is not None:
        fit_coarse_law(
            codec, coarse, train, covariates=covariates, transforms=config.codec.transforms,
            number_of_folds=config.codec.folds, linear=config.codec.linear, past=task.past,
            cycles=() if pair.target.covariate_names else tuple(covariates),
        )  # fmt: skip
    folds = np.full(len(pair.target), -1)
    folds[train] = fold
    crop = _crop(config.train.crop, pair.target)
    problem = Problem(pair, whole, whole.train, whole.train[:0], codec, folds, covariates, crop, task)
    if isinstance(task, LeadTime):
        problem.pairs = pairs_of(pair.target, whole.train, task)
    if samples is None:
        _keep_apart(problem)
        problem.keep()
    return problem


def _keep_apart(problem: Problem) -> None:
    """Choose the samples that train and those that only choose when to stop."""
    train, target = problem.split.train, problem.pair.target
    blocks = [train[i : i + _READ] for i in range(0, len(train), _READ)]
    known = np.concatenate([np.isfinite(target.read(b)).reshape(len(b), -1).any(1) for b in blocks])
    problem.fit_rows = train[known]
    if problem.pairs is not None:
        problem.fit_rows = problem.fit_rows[problem.pairs.reach[problem.fit_rows] > 0]
    dates, all_dates = date_of(target, problem.fit_rows), np.unique(date_of(target, train))
    problem.memory = _memory(problem)
    stop = np.intersect1d(_stop_rows(all_dates, target.layout.frames), dates)
    problem.stop_rows = problem.fit_rows[np.isin(dates, stop)]
    far = problem.fit_rows[~np.isin(dates, all_dates[_near(all_dates, stop, problem.memory)])]
    problem.fit_rows = np.setdiff1d(far, overlapping(target, problem.stop_rows))


def _memory(problem: Problem) -> int:
    """Dates after which out-of-fold residuals have lost 1 - 1/e of their correlation, at least 1.

    Samples nearer to those that choose when to stop would tell the network about them.
    """
    dates, first = np.unique(date_of(problem.pair.target, problem.fit_rows), return_index=True)
    rows, dates = problem.fit_rows[first][:_MEMORY_SAMPLES], dates[:_MEMORY_SAMPLES]
    most = max(1, len(first) // (10 * _VALIDATION_BLOCKS))
    window = None if problem.crop is None else tuple(slice(0, problem.crop) for _ in problem.codec.layout.shape)
    parts = [problem.encode(rows[i : i + 64], window).x for i in range(0, len(rows), 64)]
    x = np.concatenate([p for p in parts if p is not None]).reshape(len(rows), -1)
    power = float((x**2).mean())
    for lag in range(1, max(2, most)):
        pairs = dates[lag:] - dates[:-lag] == lag
        if not pairs.any() or float((x[lag:][pairs] * x[:-lag][pairs]).mean()) < power / np.e:
            return lag
    return most


def reopen(target: Fields, given: Fields | None, task: Task, config: Config, codec: Codec) -> Problem:
    """The problem of a run that is trained, around its codec; nothing is fitted."""
    pair = task.pair(target, given)
    whole = split(pair.target, config.data.holdout)
    all_folds = np.full(len(pair.target), -1)
    dates = date_of(pair.target, whole.train)
    stop = whole.train[np.isin(dates, _stop_rows(np.unique(dates), pair.target.layout.frames))]
    covariates = covariates_of(pair.target, task)
    return Problem(pair, whole, np.setdiff1d(whole.train, stop), stop, codec, all_folds, covariates, None, task)


def _crop(wanted: str | int, fields: Fields) -> int | None:
    shape = fields.layout.shape
    if wanted == "auto":
        return auto_crop(shape)
    size = int(wanted)
    if size < 8:
        raise UsageError(f"crop is {size}, expected at least 8 cells or auto")
    return size if size < max(shape) else None


def to_batch(encoded: Encoded, fold: np.ndarray, member: int = 0) -> Batch:
    """Arrays as tensors on the CPU."""
    assert encoded.x is not None and encoded.weight is not None
    x, weight = (torch.from_numpy(np.ascontiguousarray(v)) for v in (encoded.x, encoded.weight))
    return Batch(x, to_condition(encoded), weight, torch.from_numpy(fold), member)


def to_condition(encoded: Encoded) -> Condition:
    """What is given as tensors on the CPU."""
    fields = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in encoded.fields.items()}
    vectors = {"covariates": torch.from_numpy(encoded.vector)} if encoded.vector.shape[1] else {}
    return Condition(fields, vectors)


def batches(problem: Problem, config: Config) -> tuple[Callable[[int], Batch], list[Batch]]:
    """The batch of each step, and the batches that choose when to stop."""
    rows, size = problem.fit_rows, config.train.batch
    shared = None if isinstance(problem.task, Window | LeadTime) else _shared_errors(problem)
    windows = Windows(len(rows), size, problem.codec.layout.shape, problem.crop, config.train.seed)
    source = source_of(problem.codec, problem.pair.target, rows, windows, config.train.wet)

    def batch(step: int) -> Batch:
        at, window, counts = source.draw(step)
        at, fold = rows[at], problem.fold[rows[at]]
        encoded = problem.encode(at, window, windows.rng(3, step))
        assert encoded.x is not None and encoded.weight is not None
        x = encoded.x
        if shared is not None:
            x = shared.exchange(x, encoded.weight, fold, window, windows.rng(5, step))
        out = to_batch(replace(encoded, x=x), fold, step)
        return out if isinstance(source, Windows) else replace(out, importance=torch.from_numpy(counts).to(out.x.dtype))

    count = len(problem.stop_rows)
    members = config.net.members or 1
    parts = 1 if problem.crop is None else math.prod(max(1, n // problem.crop) for n in windows.shape)
    number = max(1, min(_VALIDATION_FIELDS, 4 * count * parts) // size)
    number = members * -(-number // members)  # each network as often as the others
    stop = []
    for i in range(number):
        at = problem.stop_rows[(np.arange(size) * max(1, count // size) + i) % count]
        draws = Windows(count, size, windows.shape, windows.crop, config.train.seed + 1)
        stop.append(to_batch(problem.encode(at, draws.window(i), draws.rng(4, i)), problem.fold[at], i))
    return batch, stop


def _shared_errors(problem: Problem) -> SharedErrors:
    size = len(problem.codec.layout.channels) * math.prod(problem.codec.layout.shape)
    count = max(100, min(_SHARED_SAMPLES, _KEPT_NUMBERS // size))
    rows = problem.fit_rows[np.unique(np.linspace(0, len(problem.fit_rows) - 1, count).astype(int))]
    fold = problem.fold[rows]
    place = np.concatenate([np.arange(n) * 2 // n for n in np.bincount(fold) if n])

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), _READ):
            at = np.arange(start, min(start + _READ, len(rows)))
            encoded = problem.encode(rows[at])
            assert encoded.x is not None and encoded.weight is not None
            yield at, encoded.x, encoded.weight

    return SharedErrors.fit(blocks(), 2 * fold + place)


def settings_of(config: Config) -> Settings:
    """How long and how the loop trains."""
    t = config.train
    return Settings(
        steps=t.steps,
        budget=None if t.steps is not None else t.budget,
        learning_rate=t.learning_rate,
        weight_decay=t.weight_decay,
        warmup=t.warmup,
        clip=t.clip,
        ema=t.ema,
        patience=t.patience,
        save_every=t.save_every,
        save_steps=t.save_steps,
        seed=t.seed,
    )
