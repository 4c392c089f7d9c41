"""The rivals of a run: the baselines that its data allow, fitted on training samples, drawn for held-out ones."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import nn

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.encoded import Encoded, Predicted
from undrift.data.fields import Fields
from undrift.distributions.baselines import Dressed, QuantileMap, around, dress, fit_baselines
from undrift.distributions.regression import errors_of, predict
from undrift.distributions.request import Request, labels_of, template, variables_of
from undrift.progress import Tick
from undrift.train.problem import Problem

__all__ = ["Rivals"]

_SAMPLES = 1000  # whose errors dress a baseline
_NUMBERS = 50_000_000  # of such errors, at most
_CHUNK_BYTES = 8 * 2**20  # of members that are made at once


@dataclass
class Rivals:
    """Dressed baselines of one run.

    Attributes:
        codec: of the run.
        device: of the regression.
        precision: of its arithmetic.
        twin: the same network trained as a regression, or None.
        dressed: what each baseline adds to its prediction, by name.
    """

    codec: Codec
    device: torch.device
    precision: torch.dtype
    twin: nn.Module | None = None
    dressed: dict[str, Dressed] = field(default_factory=dict)

    def fit(self, problem: Problem) -> None:
        """Dress all baselines with the errors that they make on training samples they were not fitted on.

        Those of states after a lead time are dressed lead by lead, see :mod:`undrift.distributions.lead_rivals`.
        """
        if problem.pairs is not None:
            return
        rows, size = problem.split.train, len(self.codec.layout.channels) * math.prod(self.codec.layout.shape)
        count = min(len(rows), _SAMPLES, max(50, _NUMBERS // size))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
        fold = problem.fold[rows]
        linear = []
        for start in range(0, len(rows), 64):
            at = slice(start, start + 64)
            values = {k: v[rows[at]] for k, v in problem.covariates.items()}
            _, mean = self.codec.encode(
                None, problem.pair.given, rows[at], covariates=values, fold=fold[at], known=_known(problem, rows[at])
            )
            linear.append(self.codec.decode(0.0, mean))
        truth = problem.pair.target.read(rows)
        interpolated = self._interpolated(problem.pair.given, rows)
        self.dressed = dict(fit_baselines(truth, fold, interpolated, np.concatenate(linear)))
        if self.codec.members > 1 and "interpolation" in self.dressed:
            self.dressed["interpolation"].note = "mean of the given members"
        if self.twin is not None:
            errors = errors_of(self.twin, problem, self.device, self.precision)
            self.dressed["regression"] = Dressed(dress(errors), {}, "the same network as a regression, trained as long")

    def absent(self) -> list[str]:
        """Which baselines there are not, and why, a sentence each."""
        out = []
        nameless = [c.label for c, base in zip(self.codec.layout.channels, self.codec.base) if base is None]
        if self.codec.given_layout is None:
            out.append("no interpolation and no quantile mapping: no field is given")
        elif nameless:
            out.append(
                f"no interpolation and no quantile mapping of {', '.join(nameless)}: "
                "no given field has the same name, level and units"
            )
        if self.twin is None:
            out.append("no regression: train with --baselines to have the same network trained as one")
        return out

    def draw(self, problem: Problem, shell: Shell, tick: Tick | None = None) -> dict[str, xr.Dataset]:
        """Each baseline for the held-out samples, as an ensemble whose members are made when they are read.

        A channel for which a baseline has no prediction is NaN. ``tick`` is told the number of samples done.
        """
        rows = problem.split.holdout
        points: dict[str, list[np.ndarray]] = {name: [] for name in self.dressed}
        for done, row in enumerate(rows):
            if tick is not None:
                tick(done)
            at = np.array([row])
            values = {k: v[at] for k, v in problem.covariates.items()}
            encoded, linear = self.codec.encode(
                None, problem.pair.given, at, covariates=values, known=_known(problem, at)
            )
            for name in self.dressed:
                points[name].append(self._point(name, at, problem, encoded, linear).astype(np.float32))
        held = problem.pair.target.select(rows)
        return {name: self._ensemble(name, np.concatenate(points.pop(name)), held, shell) for name in self.dressed}

    def _ensemble(self, name: str, point: np.ndarray, held: Fields, shell: Shell) -> xr.Dataset:
        """Members around predictions (n, C, *space), lazily, inside the bounds of each channel."""
        import dask.array as da

        layout, dressed = self.codec.layout, self.dressed[name]
        request = Request(*labels_of(held), [""] * len(held), None, {})
        attrs = {"dressed": "quantiles", "note": dressed.note}
        out = template(request, layout, shell, np.arange(len(dressed.members)), attrs)
        sizes = [request.labels.sizes[d] for d in request.dims]
        bounds = [np.broadcast_to(v.reshape(1, -1, *[1] * len(layout.space)), point[:1].shape) for v in self.bounds()]
        points, members, low, high = (variables_of(v, layout, shell) for v in (point, dressed.members, *bounds))
        arrays = {}
        for variable, values in points.items():
            cells = values.shape[1:]
            few = max(1, min(sizes[-1], _CHUNK_BYTES // (4 * len(dressed.members) * math.prod(cells))))
            lazy = da.asarray(values.reshape(*sizes, *cells))
            lazy = lazy.rechunk((*[1] * (len(sizes) - 1), few, *cells))
            ensemble = around(lazy, members[variable], low[variable][0], high[variable][0])
            arrays[variable] = out[variable].copy(data=ensemble)
        return out.assign(arrays)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest value of each channel, (C,)."""
        low = [-np.inf if t.lower is None else t.lower for t in self.codec.transforms]
        high = [np.inf if t.upper is None else t.upper for t in self.codec.transforms]
        return np.array(low, np.float32), np.array(high, np.float32)

    def _interpolated(self, given: Fields | None, rows: np.ndarray) -> np.ndarray | None:
        """What is given (of members their mean) on the target's grid, (n, C, *space), NaN where a channel has none.

        None where no channel has one.
        """
        base = self.codec.base
        if given is None or self.codec.given is None or all(b is None for b in base):
            return None
        fine = self.codec.given.apart(self.codec.given.regridder(given.read(rows).astype(np.float64))).mean(2)
        nothing = np.full_like(fine[:, 0], np.nan)
        return np.stack([nothing if b is None else fine[:, b] for b in base], 1)

    def _point(self, name: str, at: np.ndarray, problem: Problem, encoded: Encoded, linear: Predicted) -> np.ndarray:
        """One baseline's prediction for one held-out sample, (1, C, *space)."""
        state = self.dressed[name].state
        if name == "climatology":
            return state["mean"][None]
        if name == "linear predictor":
            return self.codec.decode(0.0, linear)
        if name == "regression":
            assert self.twin is not None
            residual = predict(self.twin, encoded, linear.mean.shape[1], self.device, self.precision)
            return self.codec.decode(residual, linear)
        point = self._interpolated(problem.pair.given, at)
        assert point is not None
        return point if name == "interpolation" else QuantileMap(state["source"], state["target"])(point)


def _known(problem: Problem, rows: np.ndarray) -> np.ndarray | None:
    """What the linear predictor knows of windows: the past, or no fine frame where the coarse sequence is given."""
    return problem.past(rows) if problem.pair.given is None else problem.nothing(rows)
