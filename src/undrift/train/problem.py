"""What a network is trained on: encoded samples, each predicted without its own fold."""

from dataclasses import dataclass, field, replace

import numpy as np

from undrift.data.codec import Codec
from undrift.data.encoded import Encoded, Initial, Predicted
from undrift.data.leads import Pairs
from undrift.data.members import reordered
from undrift.data.motion_law import Ahead
from undrift.data.split import Split
from undrift.tasks import Task, Window
from undrift.tasks.pair import Pair
from undrift.train.aheads import Aheads

__all__ = ["Problem"]

_READ = 16  # samples at a time
_KEPT_NUMBERS = 300_000_000


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
        given = self.codec.given
        assert given is not None
        which = np.flatnonzero(given.gaps(offered).reshape(len(rows), -1).any(1))
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
        return replace(predicted, mean=mean, std=std)

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
        # alike in all rows, or of each batch
        of_windows = ("static", "asked", "frames", "expected", "doubt", "target known")
        numbers = sum(v.size for k, v in first.fields.items() if k not in of_windows) + 4 * first.x.size
        if numbers * len(rows) > _KEPT_NUMBERS:
            return
        fields: dict[str, list[np.ndarray]] = {}
        vectors, predicted = [], []
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
            predicted.append(prediction)
        static = {k: np.broadcast_to(v[0][0], (len(rows), *v[0].shape[1:])) for k, v in fields.items() if k == "static"}
        kept = {k: static[k] if k in static else np.concatenate(v) for k, v in fields.items()}
        self._place = np.full(len(self.pair.target), -1)
        self._place[rows] = np.arange(len(rows))
        self._kept = (
            Encoded(None, None, kept, np.concatenate(vectors)),
            Predicted.joined(predicted),
        )
