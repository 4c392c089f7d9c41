"""The rivals of states after lead times: simple forecasts at any lead, and the same network as a regression.

At leads between two steps of the record a simple forecast, and the errors that dress it, lie on the straight line
between those at the steps before and after; at no lead they are the initial state and no error.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from undrift.data.codec_file import Shell
from undrift.data.encoded import Initial
from undrift.data.fields import Fields
from undrift.data.frames import Frames
from undrift.data.layout import plain
from undrift.data.leads import places_of, starts_in
from undrift.data.regrid import match_given
from undrift.distributions.forecast_baselines import ForecastBaseline, dressed_by_lead, fit_forecast_baselines
from undrift.distributions.forecast_rivals import dressed_forecast, record_of
from undrift.distributions.lead_time import request_leads, times_of
from undrift.distributions.record import Known, Record
from undrift.distributions.regression import predict
from undrift.distributions.request import Request
from undrift.distributions.rivals import Rivals
from undrift.errors import DataError
from undrift.tasks import LeadTime
from undrift.train.pairs import pairs_of
from undrift.train.problem import Problem
from undrift.verify.leads import LEAD

__all__ = ["LeadRivals"]

_TWIN_STATES = 60  # whose errors dress the regression at a lead
_LEAST = 8


@dataclass(frozen=True)
class LeadRivals:
    """Baselines of the states after lead times of one run.

    Attributes:
        rivals: of the run.
        problem: its data.
        shell: labels of its fields.
        task: of the run.
    """

    rivals: Rivals
    problem: Problem
    shell: Shell
    task: LeadTime

    def draw(self, forecast: xr.Dataset, fields: Fields) -> tuple[dict[str, xr.Dataset], list[str]]:
        """Each as a dressed ensemble of the same starts and leads, whose members are made when they are read.

        Args:
            forecast: that has them.
            fields: states, among which are those at its starts and the given ones before them.

        Returns:
            The baselines by name, and a sentence on each that there is not.

        Raises:
            DataError: the states lack a start, or the training part is too short for the leads.
        """
        codec, laws = self.rivals.codec, self.rivals.codec.lead_laws
        assert laws is not None
        dims, labels, rows = self._starts(forecast, fields)
        leads = np.array([laws.clock.steps(v) for v in forecast[LEAD].values])
        steps = np.unique(np.concatenate([np.floor(leads + 1e-9), np.ceil(leads - 1e-9)])).astype(int)
        steps = steps[steps > 0]
        found, absent = fit_forecast_baselines(
            self._record(int(steps[-1])), self.task.past, steps, codec.layout.periodic
        )
        known = self._known(fields, rows, steps)
        points = {name: _between(one.predict(known), known.past[:, :, -1], steps, leads) for name, one in found.items()}
        if self.rivals.twin is None:
            absent.append("no regression: train with --baselines to have the same network trained as one")
        elif (errors := self._twin_errors(steps)) is None:
            absent.append(f"no regression: fewer than {_LEAST} states that it was not fitted on have all leads")
        else:
            request = request_leads(fields, codec, self.shell, leads, rows)
            answers = np.concatenate([self._regressed(request, i) for i in range(len(request))])
            points["regression"] = answers.reshape(len(rows), len(leads), *answers.shape[1:])
            found["regression"] = ForecastBaseline(_never, dressed_by_lead(errors), "the same network as a regression")
        out, sizes = {}, [labels.sizes[d] for d in dims]
        for name, one in found.items():
            members = _between(one.members, np.zeros_like(one.members[:, 0]), steps, leads)
            point = points[name].reshape(*sizes, *points[name].shape[1:]).astype(np.float32)
            dressed = ForecastBaseline(one.predict, members.astype(np.float32), one.note)
            every = (*dims, LEAD)
            out[name] = dressed_forecast(point, dressed, labels, every, codec.layout, self.shell, self.rivals.bounds())
        return out, absent

    def _starts(self, forecast: xr.Dataset, fields: Fields) -> tuple[tuple[str, ...], xr.Dataset, np.ndarray]:
        """Dims and labels of the starts, and the samples (n, past) among the given states."""
        layout, laws = self.rivals.codec.layout, self.rivals.codec.lead_laws
        assert laws is not None
        fixed = {"realization", LEAD, *layout.space, *(d for dims in layout.level.values() for d in dims)}
        first = forecast[layout.variables[0]]
        dims = tuple(str(d) for d in first.dims if d not in fixed)
        coords = {n: c for n, c in forecast.coords.items() if c.dims and set(c.dims) <= {*dims, LEAD}}
        labels = xr.Dataset(coords=coords)
        each = [np.ravel(v.values) for v in xr.broadcast(*(labels[d] for d in layout.sample))]
        place = {fields.label_digest(int(row[-1])): row for row in starts_in(fields, laws.past, laws.clock)}
        wanted = [
            ";".join(f"{d}={plain(v)}" for d, v in sorted(zip(layout.sample, row), key=lambda pair: pair[0]))
            for row in zip(*each)
        ]
        lacking = [text for text in wanted if text not in place]
        if lacking:
            raise DataError(f"the given data lack {len(lacking)} of {len(wanted)} initial states, first {lacking[0]}")
        return dims, labels, np.stack([place[text] for text in wanted])

    def _record(self, longest: int) -> Record:
        """The training part in the order of time."""
        target, rows = self.problem.pair.target, self.problem.split.train
        place = places_of(target)[rows]
        order = np.argsort(place, kind="stable")
        frames = Frames(rows[order], times_of(target)[rows[order]], place[order], np.zeros(0, dtype=int))
        return record_of(target, frames, self.task.past + longest)[0]

    def _known(self, fields: Fields, rows: np.ndarray, steps: np.ndarray) -> Known:
        """What simple forecasts begin with."""
        codec, laws = self.rivals.codec, self.rivals.codec.lead_laws
        assert laws is not None
        match = match_given(fields, codec.layout, self.shell.coords, mask=codec.mask)
        past = match(fields.read(rows.ravel()))
        past = np.moveaxis(past.reshape(*rows.shape, *past.shape[1:]), 1, 2)
        times = times_of(fields)[rows]
        valid = np.stack([laws.clock.after(times[:, -1], float(k)) for k in steps], 1)
        return Known(past, times, valid, steps)

    def _regressed(self, request: Request, i: int) -> np.ndarray:
        """The regression's answer to one start and lead, (1, C, *space)."""
        assert request.initial is not None
        values = {k: v[[i]] for k, v in request.covariates.items()}
        return self._answer(values, request.initial(np.array([i])))

    def _answer(self, covariates: dict[str, np.ndarray], initial: Initial) -> np.ndarray:
        rivals = self.rivals
        assert rivals.twin is not None
        encoded, linear = rivals.codec.encode(None, None, np.arange(1), covariates=covariates, initial=initial)
        channels = len(rivals.codec.layout.channels)
        return rivals.codec.decode(predict(rivals.twin, encoded, channels, rivals.device, rivals.precision), linear)

    def _twin_errors(self, steps: np.ndarray) -> np.ndarray | None:
        """Errors (n, steps, C, *space) of the regression on states that only chose when it stopped."""
        problem, target = self.problem, self.problem.pair.target
        pairs = pairs_of(target, problem.split.train, self.task)
        rows = problem.stop_rows[pairs.reach[problem.stop_rows] >= steps[-1]]
        if len(rows) < _LEAST:
            return None
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _TWIN_STATES).astype(int))]
        out = []
        for row in rows:
            told = {k: v[[row]] for k, v in problem.covariates.items()}
            answers = []
            for k in steps:
                given = pairs.before(np.array([row]), np.array([k]))
                answers.append(self._answer(told, problem.initial(given, np.array([float(k)]), None)))
            out.append(target.read(np.array([row])) - np.concatenate(answers))
        return np.stack(out).astype(np.float32)


def _never(known: Known) -> np.ndarray:
    raise NotImplementedError("its predictions are made beside it")


def _between(values: np.ndarray, none: np.ndarray, steps: np.ndarray, leads: np.ndarray) -> np.ndarray:
    """Values (n, steps, ...) at leads, on the straight line between steps; ``none`` (n, ...) is that at no lead."""
    values, steps = np.concatenate([none[:, None], values], 1), np.concatenate([[0], steps])
    k = np.clip(np.searchsorted(steps, leads + 1e-9, side="right") - 1, 0, len(steps) - 2)
    share = ((leads - steps[k]) / (steps[k + 1] - steps[k])).reshape(-1, *[1] * (values.ndim - 2))
    return (1 - share) * values[:, k] + share * values[:, k + 1]
