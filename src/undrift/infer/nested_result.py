"""What nested sampling found, and the files other packages read it from."""

from __future__ import annotations

__all__ = ["NestedResult"]

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from undrift.data.rows import write_rows
from undrift.errors import UsageError, needs_extra
from undrift.infer.nested_calls import LEAST
from undrift.train.durable import write_text


@dataclass(frozen=True)
class NestedResult:
    """Evidence and weighted posterior draws.

    Attributes:
        log_z: ln Z in nats.
        log_z_error: its standard error; infinite where none can be told, for which see `doubt`.
        samples: parameters of the final draws (n, D), or of all live points that died.
        weights: their posterior weights (n,), which sum to one.
        log_likelihood: ln L of them (n,).
        names: of the parameters (D,).
        labels: of the parameters in LaTeX (D,).
        calls: calls of the likelihood.
        failed: those of them that raised or returned NaN.
        efficiency: the effective number of final draws over their number, or of points over calls.
        pareto_shape: shape of the tail of the weights, above 0.7 of which no error can be told; NaN where live points
            were followed.
        history: of each level, or of as many deaths as there are live points, the contour `log_l`, the log of the prior
            volume above it, ln Z so far, the share of draws or calls that came above it, and the calls so far.
        points: parameters (m, D), ln L (m,) and log prior weight (m,) of all points before the final draws: the sum of
            the weights above a contour is the prior volume there.
        doubt: why no error could be told; empty where one could.
        driver: "importance", or "dynesty" where live points were followed.
        birth: of the points of dynesty, ln L of the contours that they were born at (m,).
    """

    log_z: float
    log_z_error: float
    samples: np.ndarray
    weights: np.ndarray
    log_likelihood: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str, ...]
    calls: int
    failed: int
    efficiency: float
    pareto_shape: float
    history: list[dict[str, float]]
    points: tuple[np.ndarray, np.ndarray, np.ndarray]
    doubt: str = ""
    driver: str = "importance"
    birth: np.ndarray | None = None

    @property
    def reliable(self) -> bool:
        """Whether an error could be told."""
        return not self.doubt

    @property
    def information(self) -> float:
        """The Kullback-Leibler divergence of the posterior from the prior in nats: mean of ln L - ln Z."""
        held = self.weights > 0
        return float(self.weights[held] @ self.log_likelihood[held] - self.log_z)

    @property
    def model_dimensionality(self) -> float:
        """Bayesian model dimensionality, 2 var ln L (Handley and Lemos 2019, arXiv:1903.06682, eq. 17)."""
        held = self.weights > 0
        w, log_l = self.weights[held], self.log_likelihood[held]
        return float(2 * w @ np.square(log_l - w @ log_l))

    def equally_weighted(self, count: int, *, seed: int = 0) -> np.ndarray:
        """Parameters (count, D) resampled by weight: systematic, with one uniform number, then shuffled."""
        rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
        steps = (np.arange(count) + rng.random()) / count
        rows = np.searchsorted(np.cumsum(self.weights), steps * self.weights.sum())
        return self.samples[rng.permutation(np.minimum(rows, len(self.samples) - 1))]

    def nested_run(self, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The points of a run with live points: dynesty's, or ours thinned to such a one of constant number.

        The dead points of such a run are a Poisson process of rate n in ln X, X the prior volume above the contour. So
        a point of prior weight v is kept with probability n v / X, n being the largest that (nearly) all allow. The
        n-th point after a death is the one born at it. Where a part of the prior has no likelihood, as large a share of
        the first n points dies at once, at ln L = -1e29.

        Returns:
            parameters (m, D), ln L and the ln L of the contour at birth (m,), by rising ln L.
        """
        theta, log_l, log_v = self.points
        if self.birth is not None:
            return theta, np.maximum(log_l, LEAST), self.birth
        order = np.argsort(-log_l, kind="stable")
        nothing = order[np.isneginf(log_l[order])]
        share, none = np.exp(np.logaddexp.reduce(log_v[nothing]) - np.logaddexp.reduce(log_v)), theta[nothing]
        order = order[: len(order) - len(nothing)]
        theta, log_l, log_v = theta[order], log_l[order], log_v[order]
        log_x = np.logaddexp.accumulate(log_v)
        # At the top, where the sum is of few points, the volume stays that of a hundred: those are its live points.
        ratio = np.exp(log_v - np.maximum(log_x, log_x[min(100, len(log_x) - 1)]))
        live = max(10, int(1 / np.quantile(ratio, 0.99)))
        rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
        kept = np.flatnonzero(rng.random(len(ratio)) < live * ratio)[::-1]
        theta, log_l = theta[kept], log_l[kept]
        birth = np.full(len(log_l), -math.inf)
        birth[live:] = log_l[:-live]
        if not (zeros := round(live * share)):
            return theta, log_l, birth
        birth[rng.choice(min(live, len(birth)), zeros, replace=False)] = LEAST
        first = none[rng.integers(len(none), size=zeros)]
        return (
            np.concatenate([first, theta]), np.concatenate([np.full(zeros, LEAST), log_l]),
            np.concatenate([np.full(zeros, -math.inf), birth]),
        )  # fmt: skip

    def to_anesthetic(self, *, seed: int = 0) -> Any:
        """The NestedSamples of anesthetic from `nested_run`: its live points tell ln Z less well than final draws."""
        with needs_extra("bayes", "to_anesthetic"):
            from anesthetic import NestedSamples
        theta, log_l, birth = self.nested_run(seed=seed)
        return NestedSamples(
            data=theta, logL=log_l, logL_birth=birth, columns=list(self.names), labels=[f"${x}$" for x in self.labels]
        )

    def to_dataset(self) -> Any:
        """The posterior draws as an xarray Dataset over `sample`, with the evidence in its attributes."""
        import xarray as xr

        found = xr.Dataset(
            {
                name: ("sample", column, {"long_name": label})
                for name, label, column in zip(self.names, self.labels, self.samples.T, strict=True)
            }
        )
        found["weights"] = ("sample", self.weights, {"long_name": "posterior weight", "units": "1"})
        found["log_likelihood"] = ("sample", self.log_likelihood, {"units": "nat"})
        found.attrs = {
            "log_z": self.log_z,
            "log_z_error": self.log_z_error,
            "calls": self.calls,
            "failed_calls": self.failed,
            "efficiency": self.efficiency,
            "pareto_shape": self.pareto_shape,
            "reliable": str(self.reliable).lower(),
            "doubt": self.doubt,
            "driver": self.driver,
        }
        return found

    def run_dataset(self, *, seed: int = 0) -> Any:
        """How it went, as an xarray Dataset: `nested_run` over `point`, and `history` over `level`."""
        import xarray as xr

        theta, log_l, birth = self.nested_run(seed=seed)
        columns = zip(self.names, self.labels, theta.T, strict=True)
        found = xr.Dataset({name: ("point", column, {"long_name": label}) for name, label, column in columns})
        nat = {"units": "nat"}
        found["log_likelihood"] = ("point", log_l, nat)
        found["log_likelihood_birth"] = ("point", birth, nat | {"long_name": "contour at birth"})
        for name in ("log_l", "log_volume", "log_z", "efficiency", "calls"):
            found[f"level_{name}"] = ("level", np.array([level[name] for level in self.history], dtype=np.float64))
        return found

    def to_netcdf(self, path: str | Path) -> None:
        """Write `to_dataset` to a NetCDF file."""
        write_rows(self.to_dataset(), path)

    def to_getdist(self, root: str | Path, bounds: dict[str, tuple[float, float]] | None = None) -> None:
        """Write ``root.txt`` (weight, -ln L, parameters), ``root.paramnames`` and ``root.ranges``, as getdist reads.

        Args:
            root: path without a suffix.
            bounds: hard bounds of parameters by name, infinite where there is none; a name left out has none.
        """
        bounds = {} if bounds is None else bounds
        unknown = set(bounds) - set(self.names)
        if unknown:
            raise UsageError(f"bounds are given for {sorted(unknown)[0]!r}; the parameters are {', '.join(self.names)}")
        held = self.weights > 0
        table = np.column_stack([self.weights, -self.log_likelihood, self.samples])[held]
        root = Path(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        rows = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in table)
        write_text(root.with_name(root.name + ".txt"), rows + "\n")
        lines = [f"{name}\t{label}" for name, label in zip(self.names, self.labels, strict=True)]
        write_text(root.with_name(root.name + ".paramnames"), "\n".join(lines) + "\n")
        ranges = [f"{name} {_bound(*bounds.get(name, (-math.inf, math.inf)))}" for name in self.names]
        write_text(root.with_name(root.name + ".ranges"), "\n".join(ranges) + "\n")


def _bound(low: float, high: float) -> str:
    return " ".join("N" if math.isinf(value) else f"{value:.17g}" for value in (low, high))
