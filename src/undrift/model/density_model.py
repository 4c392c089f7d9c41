"""The facade of a density of parameters: labelled samples in, labelled draws and log-densities out."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import undrift
from undrift.config import Config, dump_config, load_config, parse_realizations, valid_seed
from undrift.data.parameters import Parameters
from undrift.data.table import Table, open_table
from undrift.distributions.estimators import density_from_arrays
from undrift.distributions.point_flow import TOLERANCE, PointFlow
from undrift.distributions.points import PointDensity
from undrift.distributions.residual import Residual
from undrift.distributions.stacked import Stacked
from undrift.errors import CheckpointError, DataError, UsageError, check_number, suggests_options
from undrift.process import Key, normal
from undrift.solve.grid import TimeGrid
from undrift.solve.solver import Solver
from undrift.solve.step_size import Adaptive
from undrift.train.log import MetricsLog, read_metrics
from undrift.train.manifest import read_manifest, verify_manifest
from undrift.train.run import staged
from undrift.train.weights import load_tensors, save_tensors
from undrift.verify.likelihood import Likelihood, mean_likelihood

__all__ = ["DensityModel", "is_density", "load_density", "refuse_device"]

_WEIGHTS, _LOG = "model.safetensors", "metrics.jsonl"
_DRAWS = 1000
_CELLS = 1 << 50  # of noise, of which draws of any number are the beginning


@dataclass
class DensityModel:
    """A density of parameters, perhaps given others; made by :func:`undrift.fit` or :func:`undrift.load`.

    Attributes:
        config: the resolved configuration.
        parameters: from values to numbers of unit scale without bounds, and back.
        density: of these numbers.
        facts: how it was fitted.
        run: the run directory, or None.
        log: lines of the training's log, none of what is not trained step by step.
    """

    config: Config
    parameters: Parameters
    density: PointDensity
    facts: dict[str, Any] = field(default_factory=dict)
    run: Path | None = None
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(self.facts["names"])

    @suggests_options
    def sample(
        self,
        given: Any = None,
        *,
        realizations: int | slice | str | None = None,
        seed: int = 0,
        at: Mapping[str, float] | None = None,
    ) -> xr.Dataset:
        """Draw parameters.

        Args:
            given: table of what is given, with the columns of the covariates; each of its rows is drawn for.
            realizations: how many draws, of each row of what is given (1000 unless told otherwise), or which.
            seed: of the noise; realization n of row i is fixed by (seed, n, i).
            at: one row of what is given, name -> value.

        Returns:
            Dataset of the parameters over (realization,), or (sample, realization) for a table of what is given.
        """
        seed, told = valid_seed(seed), self._told(given, at)
        which = parse_realizations(_DRAWS if realizations is None else realizations)
        count = 1 if told is None else len(told)
        rows = [self._drawn(seed, i, which, None if told is None else told[i]) for i in range(count)]
        values = np.stack(rows)
        dims: tuple[str, ...] = ("sample", "realization")
        if told is None or given is None:
            values, dims = values[0], ("realization",)
        labels = zip(self.names, self.facts["labels"])
        fields = {name: (dims, values[..., i], {"long_name": label}) for i, (name, label) in enumerate(labels)}
        out = xr.Dataset(
            fields, {"realization": np.arange(which.start, which.stop)}, self._attrs() | {"undrift_seed": seed}
        )
        if at is not None:
            out = out.assign_attrs({f"given_{name}": float(value) for name, value in at.items()})
        return out

    @suggests_options
    def transport(
        self,
        data: Any,
        given: Any = None,
        *,
        at: Mapping[str, float] | None = None,
        nfe: int = 64,
        solver: Solver | None = None,
        grid: TimeGrid | Adaptive | None = None,
    ) -> xr.Dataset:
        """Carry rows of the law of the base to rows of the law that was learned.

        Args:
            data: table with the columns of the parameters.
            given: table of what is given, one row for each of ``data`` or one for all.
            at: one row of what is given, for all rows.
            nfe: evaluations of the network at most.
            solver: of :mod:`undrift.solve`, see :func:`undrift.infer.sample`.
            grid: of times, likewise.

        Returns:
            Dataset of the parameters over (sample,), as the rows of ``data``.

        Raises:
            UsageError: the density was fitted without a base.
        """
        if not isinstance(self.density, PointFlow) or self.density.base is None:
            raise UsageError("the density was fitted without a base, so that it carries no rows; fit with base=")
        table, told = open_table(data, variables=self.names), self._told(given, at)
        with np.errstate(all="ignore"):
            y, jacobian = self.parameters.encode(table.values)
        if not (np.isfinite(y).all() and np.isfinite(jacobian).all()):
            raise DataError(f"{table.source}: a row lies outside the bounds of the parameters; drop it")
        found = self.density.transport(y, self._for_each(told, len(y)), nfe=nfe, solver=solver, grid=grid)
        values = self.parameters.decode(found)
        fields = {
            name: ("sample", values[:, i], {"long_name": label})
            for i, (name, label) in enumerate(zip(self.names, self.facts["labels"]))
        }
        return xr.Dataset(fields, {"sample": np.arange(len(values))}, self._attrs())

    def _drawn(self, seed: int, row: int, which: slice, told: NDArray[np.float64] | None) -> NDArray[np.float64]:
        width, count = self.density.numbers, which.stop - which.start
        part = slice(which.start * width, which.stop * width)
        z = normal(Key(seed, "density", row), (_CELLS,), (part,)).reshape(count, width)
        return self.parameters.decode(self.density.draw(z, None if told is None else np.repeat(told[None], count, 0)))

    @suggests_options
    def log_prob(self, data: Any, given: Any = None, *, at: Mapping[str, float] | None = None) -> xr.Dataset:
        """Log-density of rows of a table, in nats in the units of the data.

        Args:
            data: table with the columns of the parameters.
            given: table of what is given, one row for each of ``data``; by default columns of ``data`` itself.
            at: one row of what is given, for all rows.

        Returns:
            Dataset of ``log_prob`` and ``log_prob_error`` over (sample,); outside the bounds -inf. Where a
            row is too far out for the numbers of an estimator it is -inf too, with an infinite error. Of an ODE the
            attributes tell the tolerance, how many rows miss it, and how often the network was called for all rows.
        """
        rows = self._rows(data, given, at)
        with _calls_of(self.density) as calls:
            found, error = self._log_prob(*rows)
        attrs = self._attrs()
        if _flows(self.density):
            missed = np.isfinite(error) & (error > TOLERANCE)
            attrs = attrs | {"tolerance": TOLERANCE, "not_converged": int(missed.sum()), "network_calls": len(calls)}
        units = {"units": "nat"}
        fields = {
            "log_prob": ("sample", found, units | {"long_name": "log-density in the units of the data"}),
            "log_prob_error": ("sample", error, units | {"long_name": "estimated error of the log-density"}),
        }
        return xr.Dataset(fields, {"sample": np.arange(len(found))}, attrs)

    @suggests_options
    def score(self, data: Any, given: Any = None, *, at: Mapping[str, float] | None = None) -> xr.Dataset:
        """Gradient of the log-density by the parameters, at rows of a table.

        Args:
            data: as of :meth:`log_prob`.
            given: likewise.
            at: likewise.

        Returns:
            Dataset over (sample,) with the name of each parameter: the derivative by it, in nats a unit; NaN outside
            the bounds.
        """
        self._check_density()
        values, told = self._rows(data, given, at)
        with np.errstate(all="ignore"):
            y, jacobian = self.parameters.encode(values)
        told, found = self._for_each(told, len(y)), np.full(y.shape, np.nan)
        inside = np.isfinite(y).all(1) & np.isfinite(jacobian)
        if inside.any():
            slopes = self.density.score(y[inside], None if told is None else told[inside])
            known = np.isfinite(slopes).all(1)
            kept = np.flatnonzero(inside)[known]
            found[kept] = self.parameters.gradient(values[kept], slopes[known])
        fields = {
            name: ("sample", found[:, i], {"long_name": f"derivative of the log-density by {label}"})
            for i, (name, label) in enumerate(zip(self.names, self.facts["labels"]))
        }
        return xr.Dataset(fields, {"sample": np.arange(len(found))}, self._attrs())

    @suggests_options
    def evaluate(self, data: Any = None) -> dict[str, Any]:
        """The mean log-likelihood of a table, in nats a row, by its weights.

        Args:
            data: table with all columns that were fitted; None: what was measured of the rows that were held out.

        Returns:
            ``log_likelihood``, its ``standard_error`` (None of one row), the ``rows`` of positive weight that they
            are of, and how many more lie ``outside`` the bounds, which are left out.
        """
        if data is None:
            self._check_density()
            score = self.facts["log likelihood"]
            if not score:
                raise UsageError("no row was held out; name a table, or fit with holdout='10%'")
            found = Likelihood(score["held out"], score["standard error"], score["rows"], score.get("outside", 0))
        else:
            found = self.likelihood_of(
                open_table(data, variables=self.names, covariates=self.facts["given_names"] or None)
            )
        names = ("log_likelihood", "standard_error", "rows", "outside")
        return dict(zip(names, (found.mean, found.error, found.rows, found.outside)))

    def likelihood_of(self, table: Table) -> Likelihood:
        """The mean log-likelihood of a table with all columns that were fitted.

        Raises:
            DataError: no row of positive weight lies within the bounds.
        """
        found = mean_likelihood(self.log_prob_of(table)[0], table.weights)
        if not found.rows:
            raise DataError(f"{table.source}: every row lies outside the bounds of the density")
        return found

    def _rows(
        self, data: Any, given: Any, at: Mapping[str, float] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Values of the parameters (n, D), and what is given with them."""
        beside = self.facts["given_names"] if given is None and at is None else []
        table = open_table(data, variables=self.names, covariates=beside or None)
        return table.values, self.parameters.encode_given(table.given) if beside else self._told(given, at)

    @property
    def has_log_prob(self) -> bool:
        """Whether it has a log-density: a flow that begins at rows of a table has none."""
        flow = self.density
        return not isinstance(flow, PointFlow) or flow.base is None or flow.base.law is not None

    def _check_density(self) -> None:
        if not self.has_log_prob:
            raise UsageError(
                f"the flow begins at {self.facts['base']}, whose density is not known, so that it has no log-density; "
                "fit with a density as base, or without a base, for one"
            )

    def log_prob_of(self, table: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-densities and their errors, (n,) each, of a table with all columns that were fitted."""
        told = self.parameters.encode_given(table.given) if self.facts["given_names"] else None
        return self._log_prob(table.values, told)

    def _log_prob(
        self, values: NDArray[np.float64], told: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self._check_density()
        with np.errstate(all="ignore"):
            y, jacobian = self.parameters.encode(values)
        told = self._for_each(told, len(y))
        found, error = np.full(len(values), -np.inf), np.zeros(len(values))
        inside = np.isfinite(y).all(1) & np.isfinite(jacobian)
        if inside.any():
            value, off = self.density.log_prob(y[inside], None if told is None else told[inside])
            unknown = ~np.isfinite(value)  # so far out that squares overflow
            found[inside] = np.where(unknown, -np.inf, value + jacobian[inside])
            error[inside] = np.where(unknown, np.inf, off)
        return found, error

    def _for_each(self, told: NDArray[np.float64] | None, rows: int) -> NDArray[np.float64] | None:
        """What is given, with one row for each."""
        if told is not None and len(told) == 1:
            return np.repeat(told, rows, 0)
        if told is not None and len(told) != rows:
            raise DataError(f"{rows} rows of data and {len(told)} of what is given; expected as many, or one")
        return told

    def _told(self, given: Any, at: Mapping[str, float] | None) -> NDArray[np.float64] | None:
        """What is given, scaled, (rows, K), or None where the density has nothing given."""
        names = self.facts["given_names"]
        if not names:
            if given is not None or at is not None:
                raise UsageError("the density was fitted with nothing given; leave it out, or fit with covariates")
            return None
        if at is not None:
            if given is not None:
                raise UsageError("got a table of what is given, and at; expected one of them")
            if set(at) != set(names):
                raise UsageError(f"at names {', '.join(at)}; the density is given {', '.join(names)}")
            check_number(**{f"at {name}": at[name] for name in names})
            return self.parameters.encode_given(np.array([[float(at[name]) for name in names]]))
        if given is None:
            raise UsageError(
                f"the density is of {', '.join(self.names)} given {', '.join(names)}; say them, as at {names[0]}=..."
            )
        return self.parameters.encode_given(open_table(given, variables=names).values)

    def _attrs(self) -> dict[str, Any]:
        attrs = {"source": f"undrift {undrift.__version__}", "estimator": self.facts["estimator"]}
        return attrs | ({"remarks": "; ".join(self.facts["remarks"])} if self.facts["remarks"] else {})

    def describe(self) -> dict[str, Any]:
        """What it is and how it was fitted, as JSON has it."""
        return json.loads(json.dumps(self.facts, default=float))

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write a run directory."""
        arrays: dict[str, np.ndarray] = {}
        for name, part in (("density", self.density), ("parameters", self.parameters)):
            arrays |= {f"{name}.{key}": value for key, value in part.to_arrays().items()}
        tensors = {name: torch.from_numpy(np.atleast_1d(np.ascontiguousarray(v))) for name, v in arrays.items()}
        shapes = {name: list(np.shape(v)) for name, v in arrays.items()}
        folder = Path(out)
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} exists; pass overwrite=True to replace it")
        with staged(folder, {"density": self.describe(), "shapes": shapes}) as stage:
            dump_config(self.config, stage / "config.toml")
            save_tensors(stage / _WEIGHTS, tensors)
            if self.log:
                with MetricsLog(stage / _LOG) as log:
                    for line in self.log:
                        rest = {k: v for k, v in line.items() if k not in ("kind", "step", "seconds")}
                        log.write(line["kind"], line["step"], line["seconds"], rest)
        self.run = Path(out)
        return self.run


def is_density(path: str | Path) -> bool:
    """Whether a run directory holds a density of parameters."""
    file = Path(path) / "manifest.json"
    return file.is_file() and "density" in _extra(read_manifest(Path(path)))


def refuse_device(name: str) -> None:
    """Refuse a device that a density of parameters would not heed."""
    if name not in ("auto", "cpu"):
        raise UsageError(
            f"device is {name}, and a density of parameters is fitted, drawn and evaluated on the CPU; type cpu"
        )


def _extra(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return manifest.get("extra", manifest)


def load_density(path: str | Path, *, verify: bool = True) -> DensityModel:
    """Read what :meth:`DensityModel.save` wrote.

    Raises:
        CheckpointError: A file differs from what was written.
    """
    path = Path(path)
    extra = _extra(verify_manifest(path, verify=verify))
    tensors = load_tensors(path / _WEIGHTS)
    arrays = {name: value.numpy().reshape(extra["shapes"][name]) for name, value in tensors.items()}

    def part(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}."): v for key, v in arrays.items() if key.startswith(f"{name}.")}

    facts = dict(extra["density"])
    if not part("density") or not part("parameters"):
        raise CheckpointError(f"{path / _WEIGHTS} holds no density of parameters")
    density = density_from_arrays(facts["estimator"], part("density"))
    config = load_config(path / "config.toml")
    return DensityModel(
        config, Parameters.from_arrays(part("parameters")), density, facts, path, read_metrics(path / _LOG)
    )


@contextmanager
def _calls_of(density: PointDensity) -> Iterator[list[None]]:
    """One entry for each call of the networks of flows; none of what has none."""
    calls: list[None] = []
    handles = [flow.net.register_forward_hook(lambda *_: calls.append(None)) for flow in _flows(density)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _flows(density: PointDensity) -> list[PointFlow]:
    """The flows that a density is made of: itself, where it begins, that of its residuals, or those beside others."""
    inner: list[PointDensity] = []
    if isinstance(density, PointFlow) and density.base is not None and density.base.law is not None:
        inner = [density.base.law.density]
    elif isinstance(density, Residual):
        inner = [density.density]
    elif isinstance(density, Stacked):
        inner = list(density.parts.values())
    own = [density] if isinstance(density, PointFlow) else []
    return own + [flow for part in inner for flow in _flows(part)]
