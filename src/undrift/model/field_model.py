"""The facade of a trained model: labelled fields in, labelled fields out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import undrift
from undrift.config import parse_realizations, valid_seed
from undrift.data.cut import begun_at
from undrift.data.ensemble import open_ensemble
from undrift.data.leads import Lead
from undrift.data.open import open_fields
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.draw import Drawing
from undrift.distributions.forecast import Forecast, starts_of, steps_of
from undrift.distributions.forecast_rivals import ForecastRivals
from undrift.distributions.framewise import of_samples, of_starts
from undrift.distributions.lead_rivals import LeadRivals
from undrift.distributions.request import template
from undrift.distributions.sequence import Downscaling
from undrift.distributions.typed import Wanted, read_wanted
from undrift.distributions.windows import told_as_given
from undrift.errors import UsageError, suggests_options
from undrift.model.density_model import DensityModel, is_density, load_density, refuse_device
from undrift.model.describe import described
from undrift.model.field_density import log_prob_of_fields
from undrift.model.field_likelihood import held_out_likelihood
from undrift.model.files import Parts, facts_of, read_files, write_files
from undrift.model.opening import Data, open_data
from undrift.model.requests import coarse_from, frames_from, knows_coarse, request_of, sequence_from, task_of_forecast
from undrift.nets.members import member_of, number_of
from undrift.progress import track
from undrift.tasks import LeadTime, Task, Window, task_of
from undrift.train.device import device_of, precision_of
from undrift.train.log import read_metrics
from undrift.train.network import KINDS
from undrift.train.prepare import reopen
from undrift.train.problem import Problem
from undrift.train.run import staged
from undrift.verify.forecast import start_of
from undrift.verify.training import under_trained

__all__ = ["FieldModel", "load"]

logger = logging.getLogger(__name__)

_FORECASTS = 50


class FieldModel:
    """A distribution of labelled fields; made by :func:`undrift.fit` or :func:`undrift.load`.

    Attributes:
        parts: all that it consists of.
        device: where the network is.
        run: the run directory, or None.
        config: the resolved configuration.
        codec: from fields to the network's numbers and back.
        net: the trained network.
        facts: how training went.
    """

    def __init__(
        self,
        parts: Parts,
        device: torch.device,
        *,
        run: Path | None = None,
        problem: Problem | None = None,
        data: Data | None = None,
        given: Data | None = None,
    ) -> None:
        self.parts, self.device, self.run = parts, device, run
        self.config, self.codec, self.net, self.facts = parts.config, parts.codec, parts.net, parts.facts
        self._problem, self._data = problem, (data, given)

    @property
    def task(self) -> Task:
        """What is given and what is asked."""
        settings = self.config.task.model_dump()
        if self.config.task.name == "window" and self.codec.given_layout is None:
            settings["factor"] = None
        return task_of(**settings)

    @property
    def problem(self) -> Problem:
        """The data of the run, opened again where the model was loaded."""
        if self._problem is None:
            target, given = open_data(self.config, *self._data)
            target = begun_at(target, self.parts.shell.coords)
            if given is not None and self.parts.given_shell is not None:
                given = begun_at(given, self.parts.given_shell.coords)
            self._problem = reopen(target, given, self.task, self.config, self.codec)
            found, stored = self._problem.pair.target.fingerprint, self.facts.get("fingerprint")
            if stored and found != stored:
                logger.warning("the data differ from those of training: %s now, %s then", found[:12], stored[:12])
        return self._problem

    # drawing

    @suggests_options
    def sample(
        self,
        given: Data | None = None,
        *,
        fine: Data | None = None,
        holdout: bool = False,
        know: str | None = None,
        lead: Lead | Sequence[Lead] | None = None,
        observe: str | Path | None = None,
        constraint: Wanted | None = None,
        at: str | Mapping[str, Any] | None = None,
        realizations: int | slice | str | None = None,
        seed: int = 0,
        nfe: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
        dry_run: bool = False,
    ) -> Any:
        """Draw an ensemble.

        Args:
            given: what is given: files, a Dataset, or the output of :meth:`holdout_given`. Of windows that are given a
                coarse sequence that one, of any length: the fine one is drawn window after window, and a ``.zarr`` is
                gone on with after a process was killed, by the same call.
            fine: fine frames of which something is known beside the coarse sequence that is given, by their times: what
                is NaN or absent in them is asked.
            holdout: draw for the samples that training left out.
            know: which frames of held-out windows are given: "past" (the default), "future", "ends", "nothing", or
                numbers such as "0,6".
            lead: lead times after the initial states, of a model of them: text such as "3h,6h,90min" or several, of any
                length up to the longest of training, numbers where times are numbers. Of held-out states four leads
                unless told otherwise.
            observe: table (CSV) of what stations saw, each value with the standard deviation of its error: columns
                lat, lon, time, a variable and its ``_error``. Fields are drawn given that, by a model of windows that
                is given nothing else.
            constraint: that fields satisfy, such as ``undrift.guide.Integral(areas, [total])``, of channels
                (C, *space) in the units and the order of the data; or what ``--constraint`` takes, such as
                "divergence=u,v" or ["means=coarse.nc", "pr>=0"], of each frame that is asked. It holds for every
                estimate, and once more for what is drawn; the attribute ``constraint_residual`` says how far from it
                the result is.
            at: labels of samples, such as "year=2085,scenario=E1": for an emulator the covariates, else which
                samples of what is given.
            realizations: how many (20 unless the configuration says otherwise), or which (``slice(100, 200)``,
                "100:200"): bitwise the same slice of a whole ensemble.
            seed: of the noise; realization n of a sample is fixed by (seed, n, labels of the sample).
            nfe: network evaluations per realization (10 unless the configuration says otherwise); with ``observe``
                steps, each of several evaluations for windows of several frames (twice as many by default).
            out: file to stream to, ``.nc`` or ``.zarr``; the result is then opened lazily.
            overwrite: replace ``out``.
            progress: show a progress bar.
            dry_run: return sizes and an estimate instead.

        Returns:
            Dataset with dims (realization, *sample, *level, *space), coordinates, units and attributes of the data;
            after leads (realization, *sample, prediction_timedelta, *level, *space) with ``valid_time``. Its
            attribute ``block_means`` says whether the fields keep the means over blocks of cells that are given.
        """
        usual = self.config.sample.nfe * (1 if observe is None else 2)
        nfe = usual if nfe is None else nfe
        which = parse_realizations(self.config.sample.realizations if realizations is None else realizations)
        seed, numbers = valid_seed(seed), np.arange(which.start, which.stop)
        sequence = None
        if fine is not None and (given is None or holdout or not knows_coarse(self)):
            raise UsageError(
                "fine frames are known beside a coarse sequence that is given, of a model of such (--factor)"
            )
        if given is not None and not holdout and knows_coarse(self):
            others = {"know": know, "lead": lead, "observe": observe, "constraint": constraint}
            typed = [name for name, value in others.items() if value is not None]
            if typed:
                raise UsageError(f"a coarse sequence is given by itself; leave {' and '.join(typed)} out")
            sequence = sequence_from(self, given, at, fine)
        request = request_of(self, given, holdout, at, know, observe, lead) if sequence is None else sequence.request
        attrs = {"undrift_seed": seed, "undrift_nfe": nfe, "given_out_of_range": request.warn()}
        attrs["block_means"] = request.block_means(self.codec)
        if holdout and isinstance(self.task, Window):
            attrs["frames_given"] = " ".join(map(str, np.flatnonzero(self.task.frames_known(know or self.task.usual))))
        elif given is not None and isinstance(self.task, Window) and sequence is None:
            attrs |= told_as_given(request, self.codec, self.task)
        law, shell, attrs = self._law(), self.parts.shell, {**self._attrs(), **attrs}
        if sequence is None:
            labelled = template(request, self.codec.layout, shell, numbers, attrs)
            wanted, told = read_wanted(constraint, self.codec, shell)
            drawing = Drawing(
                law, self.codec, shell, self.device, request, numbers, seed, nfe, labelled.assign_attrs(told),
                None if wanted is None else of_samples(wanted, request, self.codec, shell, self.task),
            )  # fmt: skip
        else:
            drawing = Downscaling(law, self.codec, shell, self.device, sequence, numbers, seed, nfe, attrs)
        if dry_run:
            return drawing.plan(streamed=out is not None)
        if out is None:
            return drawing.in_memory(progress)
        drawing.to_file(out, overwrite, progress)
        return open_ensemble(out)

    @suggests_options
    def forecast(
        self,
        given: Data | None,
        *,
        coarse: Data | None = None,
        init: str | np.ndarray = "LAST",
        lead: str | float | None = None,
        steps: int | None = None,
        constraint: Wanted | None = None,
        realizations: int | slice | str | None = None,
        seed: int = 0,
        nfe: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
        dry_run: bool = False,
    ) -> Any:
        """Forecast from the frames of given data, window after window.

        Args:
            given: frames up to the start of each forecast: files or a Dataset; None for the run's own data.
            coarse: coarse frames of any times, of a model of windows that are given a coarse sequence: what is absent
                there is drawn, too.
            init: which frames forecasts begin with: "LAST", times such as "2019-03-26T12,2019-03-27", or
                "START/END/EVERY" such as "2019-03-26/2019-03-30/12h"; or an array of times.
            lead: how far, such as "48h"; or
            steps: how many frames.
            constraint: that each frame of the forecast satisfies, as of :meth:`sample`, of the channels of one frame.
            realizations: how many (50), or which, as of :meth:`sample`.
            seed: of the noise; realization n of a start is fixed by (seed, n, time of the start).
            nfe: network evaluations per window (10 unless the configuration says otherwise).
            out: file to write as they come, ``.nc`` or ``.zarr``; a ``.zarr`` is gone on with after a process was
                killed, by the same call.
            overwrite: replace ``out``.
            progress: show a progress bar.
            dry_run: return sizes instead.

        Returns:
            Dataset with dims (realization, time, prediction_timedelta, *level, *space) and ``valid_time``; of an
            ensemble that is given ``given_member`` after the time.
        """
        task = task_of_forecast(self)
        seed = valid_seed(seed)
        which = parse_realizations(_FORECASTS if realizations is None else realizations)
        shell, nfe = self.parts.shell, self.config.sample.nfe if nfe is None else nfe
        number = steps_of(shell, lead, steps)
        starts = starts_of(frames_from(self, given), self.codec, shell, task, init)
        wanted, told = read_wanted(constraint, self.codec, shell)
        attrs = {**self._attrs(), "undrift_seed": seed, "undrift_nfe": nfe, **told}
        numbers = np.arange(which.start, which.stop)
        forecast = Forecast(
            self._law(), self.codec, shell, self.device, task, starts, number, numbers, seed, nfe, attrs,
            None if wanted is None else of_starts(wanted, starts.each, starts.dim, shell, task, number),
            coarse=coarse_from(self, coarse),
        )  # fmt: skip
        if dry_run:
            return forecast.plan()
        if out is None:
            return forecast.in_memory(progress)
        forecast.to_file(out, overwrite, progress)
        return open_ensemble(out)

    @suggests_options
    def log_prob(
        self,
        data: Data,
        given: Data | None = None,
        *,
        at: str | Mapping[str, Any] | None = None,
        probes: int = 16,
        tolerance: float = 1.0,
        nfe: int = 256,
        seed: int = 0,
        dequantize: bool = False,
        progress: bool = True,
    ) -> xr.Dataset:
        """Log-density of fields, in nats in the units of the data, of models that emulate or downscale.

        Args:
            data: fields on the cells of training: files or a Dataset.
            given: what is given for them, joined by labels, of a model that is given fields.
            at: covariates that are told, such as "scenario=E1"; the others are those of the data.
            probes: vectors of random signs for the trace; its standard error falls with their root.
            tolerance: of the discretisation, in nats a field: steps are doubled until it is met, or
            nfe: calls of each network are used.
            seed: of the signs.
            dequantize: spread values that lie on even steps, as packed data do, over their steps.
            progress: show a progress bar.

        Returns:
            Dataset over the dims that count samples: ``log_prob``, and ``log_prob_error``, the sum of ``error_*``.
            The attribute ``numbers`` says how many values of a field count; cells that never have one do not.
            ``not_converged`` counts fields whose steps err by more than the tolerance after all calls, and
            ``not_finite`` those whose log-density is no number, for the network's are none.

        Raises:
            UsageError: fields of the model keep block means that are given, or its task is another.
            DataError: values are missing or at bounds, or lie on even steps.
        """
        return log_prob_of_fields(
            self, data, given, at, probes=probes, tolerance=tolerance, nfe=nfe, seed=seed, dequantize=dequantize,
            progress=progress,
        )  # fmt: skip

    @suggests_options
    def evaluate(
        self,
        samples: int = 10,
        *,
        probes: int = 4,
        tolerance: float = 1.0,
        seed: int = 0,
        dequantize: bool = False,
        progress: bool = True,
    ) -> dict[str, Any]:
        """The mean log-likelihood of fields that training left out, of models that emulate or downscale.

        Args:
            samples: how many of them, spread evenly; each takes about as long as :meth:`log_prob` of it.
            probes: as of :meth:`log_prob`.
            tolerance: likewise.
            seed: likewise.
            dequantize: likewise.
            progress: show a progress bar.

        Returns:
            ``log_likelihood`` in nats a field in the units of the data, its ``standard_error`` over the ``samples`` as
            if they were independent, and its ``numerical_error``: errors of traces added in squares, for they are
            independent, and the mean of the others; ``nats_per_value`` and ``bits_per_value``, -log2 p, of ``numbers``
            values a field; ``gaussian``, the same of the Gaussian that the network corrects, about the linear
            prediction, which is exact; and ``gain``, by how many nats a field the model is likelier, with
            ``gain_error`` over pairs. Fields that lack values are ``left_out``.

        Raises:
            UsageError: as of :meth:`log_prob`.
            DataError: likewise, or no sample was left out.
        """
        return held_out_likelihood(
            self, samples, probes=probes, tolerance=tolerance, seed=seed, dequantize=dequantize, progress=progress
        )

    def _law(self) -> Diffusion:
        precision = precision_of(self.config.train.precision, self.device)
        grid, micro_batch = self.facts.get("grid", "even"), self.config.sample.micro_batch
        trust = self.facts.get("trust")
        return Diffusion(
            self.net, self.parts.guess, precision=precision, micro_batch=micro_batch, grid=grid, trust=trust
        )

    def _attrs(self) -> dict[str, Any]:
        """What an ensemble says of the model that it is from."""
        layout, judged = self.codec.layout, self.under_trained()
        return {
            "source": f"undrift {undrift.__version__}",
            **({} if judged is None else {"still_improving": int(judged)}),
            "space_dims": " ".join(layout.space),
            "periodic_dims": " ".join(d for d, p in zip(layout.space, layout.periodic) if p),
        }

    # the held-out samples

    def holdout_truth(self) -> xr.Dataset:
        """The samples that training left out, on the target's grid."""
        held = self.problem.pair.target.select(self.problem.split.holdout)
        return held.restore(held.dataset)

    def holdout_given(self) -> xr.Dataset | None:
        """What is given for them, or None."""
        given = self.problem.pair.given
        if given is None:
            return None
        held = given.select(self.problem.split.holdout)
        return held.restore(held.dataset)

    def training_data(self) -> xr.Dataset:
        """The samples that trained."""
        used = self.problem.pair.target.select(self.problem.split.train)
        return used.restore(used.dataset)

    def baselines(self, progress: bool = True) -> dict[str, xr.Dataset]:
        """Dressed baselines for the held-out samples, each an ensemble of error quantiles.

        Their predictions are held in memory; the members around them, fifty times as many numbers, are made where and
        when they are read. A channel for which a baseline has no prediction is NaN. ``progress`` shows a progress bar.
        """
        problem = self.problem
        with track("making baselines", len(problem.split.holdout), enabled=progress) as tick:
            return self.parts.rivals.draw(problem, self.parts.shell, tick)

    def absent_baselines(self) -> list[str]:
        """Which baselines there are not, and why, a sentence each."""
        return self.parts.rivals.absent()

    def forecast_baselines(
        self, forecast: xr.Dataset, given: Data | None = None
    ) -> tuple[dict[str, xr.Dataset], list[str]]:
        """Dressed baselines for forecasts: persistence, climatology, EOF ridge and others, learned from training data.

        Args:
            forecast: with the starts and leads that are wanted, as :meth:`forecast` makes it.
            given: frames up to each start: files or a Dataset. The run's own data by default.

        Returns:
            By name, forecasts of the same starts (and given members) and leads whose members are error quantiles and
            are made when they are read; and a sentence on each baseline that there is not.

        Raises:
            DataError: starts or members that forecasts begin with are not in the given data, or leads are too long for
                the training part.
        """
        if isinstance(self.task, LeadTime):
            dims = self.config.data.dims or None
            states = self.problem.pair.target if given is None else open_fields(given, dims=dims)
            return LeadRivals(self.parts.rivals, self.problem, self.parts.shell, self.task).draw(forecast, states)
        if not isinstance(self.task, Window):
            raise UsageError(f"baselines of forecasts need a model of windows, and this one's task is {self.task.name}")
        times = np.atleast_1d(forecast[start_of(forecast)].values)
        starts = starts_of(frames_from(self, given), self.codec, self.parts.shell, self.task, times)
        return ForecastRivals(self.parts.rivals, self.problem, self.parts.shell, self.task).draw(forecast, starts)

    def under_trained(self) -> bool | None:
        """Whether more training would have helped, None where no validation says."""
        history = [tuple(row) for row in self.facts.get("history") or []]
        samples = self.facts.get("samples", {}).get("train")
        return under_trained(history, self.facts.get("images"), samples, number_of(self.net))

    # on disk

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a run directory that :func:`undrift.load` reads."""
        folder = Path(path)
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} exists; pass overwrite=True to replace it")
        if not self._rebuilt():
            raise UsageError("a run directory cannot rebuild a network of your own; keep its weights yourself")
        with staged(folder, facts_of(self.parts)) as stage:
            write_files(self.parts, stage)

    def _rebuilt(self) -> bool:
        """Whether the network is one that the configuration names."""
        return isinstance(member_of(self.net, 0), KINDS[self.config.net.kind])

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of the training's log."""
        path = None if self.run is None else self.run / "metrics.jsonl"
        return read_metrics(path) if path is not None and path.exists() else []

    def describe(self) -> dict[str, Any]:
        """What ``undrift inspect`` prints."""
        return described(self)


@suggests_options
def load(
    run: str | Path, *, verify: bool = True, device: str = "auto", data: Data | None = None, given: Data | None = None
) -> FieldModel | DensityModel:
    """Read a run directory.

    Args:
        run: the directory.
        verify: compare the checksums of all files first.
        device: where the network goes; a density of parameters stays on the CPU.
        data: the training data again, for a run trained on data in memory; only the held-out samples need them.
        given: likewise.

    Raises:
        CheckpointError: there is no complete run, or a file differs from what was written.
        UsageError: a device that there is not, or another than the CPU for a density of parameters.
    """
    path = Path(run)
    if is_density(path):
        refuse_device(device)
        return load_density(path, verify=verify)
    where = device_of(device)
    return FieldModel(read_files(path, where, verify=verify), where, run=path, data=data, given=given)
