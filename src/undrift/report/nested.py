"""What the page shows of a nested run: evidence, posterior, and how the likelihood's contours were climbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.infer.nested_calls import LEAST
from undrift.report.corner import MOST, Samples, corner, parameter_label
from undrift.report.page import Part, Section
from undrift.report.picture import Picture, new_figure, render
from undrift.report.plots import SIZE, captioned
from undrift.report.style import MODEL, TRUTH, count, look, number
from undrift.report.tables import Cell, Column, Row, Table
from undrift.verify.information import Information, information

__all__ = ["log_volumes", "nested_section", "parameter_table", "points_by_depth", "with_error"]

Floats = NDArray[np.float64]
_FEW = 400  # effective draws below which quantiles are rough


def nested_section(
    posterior: xr.Dataset,
    run: xr.Dataset,
    *,
    title: str,
    commands: Sequence[str],
    marginals: Mapping[str, Information | str] | None = None,
) -> Section:
    """What the page shows of one nested run.

    Args:
        posterior: `NestedResult.to_dataset`, as posterior.nc holds it.
        run: `NestedResult.run_dataset`, as run.nc holds it.
        title: its heading.
        commands: that make it again.
        marginals: divergence of each parameter from its prior, or why there is none; None where the prior is not known.
    """
    names = [str(name) for name in posterior.data_vars if name not in ("weights", "log_likelihood")]
    labels = [str(posterior[name].attrs.get("long_name", name)) for name in names]
    values = np.stack([posterior[name].values for name in names], axis=1)
    weights, log_l = posterior["weights"].values, posterior["log_likelihood"].values
    told = information(log_l - float(posterior.attrs["log_z"]), weights)
    if _followed(posterior):  # the volumes that ln Z does not know are those of the divergence too
        error = float(np.hypot(told.divergence_error, float(posterior.attrs["log_z_error"])))
        told = replace(told, divergence_error=error)
    draws = Samples("posterior", values, weights)
    parts = [
        Part("Evidence", tables=[_evidence(posterior, run, told, names)]),
        Part(
            "Posterior",
            tables=[
                parameter_table(names, [draws]),
                *([] if marginals is None else [_learned(draws, names, marginals)]),
            ],
            wide=[corner([draws], names, labels, title="Posterior")],
        ),
        Part(
            "The run",
            plots=[_climb(run, _followed(posterior)), _evidence_by_level(posterior, run)],
            wide=[_trace(run, names, labels)],
        ),
    ]
    return Section(
        title=title,
        question=[f"Asked: the evidence and the posterior of {', '.join(names)}."],
        verdict=_verdict(posterior, told, len(names)),
        parts=parts,
        facts={"commands": list(commands)},
    )


def with_error(value: float, error: float) -> str:
    """``-4.381 ± 0.011``: the error with two digits and the value to the same place."""
    if not (np.isfinite(error) and error > 0):
        return f"{number(value, 4)} ± {'?' if not np.isfinite(error) else '0'}"
    places = max(1 - int(np.floor(np.log10(error))), 0)
    return f"{value:.{places}f} ± {error:.{places}f}".replace("-", "−")


def _followed(posterior: xr.Dataset) -> bool:
    """Whether live points were followed by dynesty."""
    return bool(posterior.attrs.get("driver") == "dynesty")


def _effective(weights: Floats) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _verdict(posterior: xr.Dataset, told: Information, parameters: int) -> list[str]:
    attrs = posterior.attrs
    shape, draws = float(attrs["pareto_shape"]), _effective(posterior["weights"].values)
    calls, failed = int(attrs["calls"]), int(attrs["failed_calls"])
    lines = []
    known, about = with_error(float(attrs["log_z"]), float(attrs["log_z_error"])), number(float(attrs["log_z"]), 4)
    tail = f"the tail of the weights has the Pareto shape {number(shape, 2)}, above 0.7"  # of runs of before
    if attrs["reliable"] != "true":
        lines.append(f"bad: ln Z is about {about}, without an error: {attrs.get('doubt', tail)}.")
    elif _followed(posterior):
        lines.append(f"good: ln Z = {known}, by dynesty with learned steps; its error is that of prior volumes, which "
                     "are guessed.")  # fmt: skip
    else:
        lines.append(f"good: ln Z = {known}. The tail of the weights has the Pareto shape {number(shape, 2)}, and up "
                     "to 0.7 their error can be told.")  # fmt: skip
    lines.append(f"info: the posterior is {with_error(told.divergence, told.divergence_error)} nats from the prior and "
                 f"constrains about {number(told.dimensionality, 2)} of {parameters} parameters.")  # fmt: skip
    if draws < _FEW:
        lines.append(f"warn: the posterior draws are worth {number(draws)} equally weighted ones: quantiles are rough.")
    if failed:
        lines.append(f"warn: {count(failed)} of {count(calls)} calls of the likelihood raised or returned NaN; they "
                     "count as likelihood zero.")  # fmt: skip
    return lines


def _evidence(posterior: xr.Dataset, run: xr.Dataset, told: Information, names: list[str]) -> Table:
    """Evidence and what was learned, by the weights of the final draws and by anesthetic from the run."""
    attrs, other, followed = posterior.attrs, _by_anesthetic(run, names), _followed(posterior)
    rows = [
        ("ln Z [nat]", with_error(float(attrs["log_z"]), float(attrs["log_z_error"])), 0),
        ("Kullback-Leibler divergence from the prior [nat]", with_error(told.divergence, told.divergence_error), 1),
        ("Bayesian model dimensionality", with_error(told.dimensionality, told.dimensionality_error), 2),
        *([] if followed else [("Pareto shape of the weights", number(float(attrs["pareto_shape"]), 2), 3)]),
        ("Calls of the likelihood", count(int(attrs["calls"])), 3),
        ("Failed calls", count(int(attrs["failed_calls"])), 3),
        ("Points" if followed else "Final draws", count(posterior.sizes["sample"]), 3),
        ("Worth, in equally weighted draws", number(_effective(posterior["weights"].values)), 3),
    ]
    columns = [Column(""), Column("by dynesty", "live points") if followed else Column("by importance", "final draws")]
    if other is None:
        return Table("Evidence.", columns, [Row(name, [Cell(text)]) for name, text, _ in rows])
    columns.append(Column("by anesthetic", "the run as one with live points"))
    cells = [*other, "–"]
    notes = (
        [] if followed else ["The run as one with live points tells ln Z less well: volumes are guessed, not known."]
    )
    return Table("Evidence.", columns, [Row(name, [Cell(text), Cell(cells[k])]) for name, text, k in rows], notes)


def _learned(draws: Samples, names: Sequence[str], marginals: Mapping[str, Information | str]) -> Table:
    """What was learned of each parameter by itself."""
    rows, notes = [], []
    weights = draws.weights / draws.weights.sum()
    for i, name in enumerate(names):
        mean = float(weights @ draws.values[:, i])
        deviation = float(np.sqrt(weights @ np.square(draws.values[:, i] - mean)))
        cells = [Cell(number(value, _digits(value, deviation))) for value in (mean, deviation)]
        one = marginals.get(name, "its prior is not known")
        if isinstance(one, str):
            rows.append(Row(name, [*cells, Cell("–"), Cell("–")]))
            notes.append(f"{name}: {one}.")
            continue
        cells.append(Cell(with_error(one.divergence, one.divergence_error)))
        rows.append(Row(name, [*cells, Cell(with_error(one.dimensionality, one.dimensionality_error))]))
    columns = [Column(""), Column("mean"), Column("standard deviation"),
               Column("Kullback-Leibler divergence", "nats from its prior"),
               Column("Bayesian dimensionality", "1: a Gaussian in a wide prior")]  # fmt: skip
    notes.append("Each parameter by itself, the others integrated out, by densities at rows that they were not fitted "
                 "to. What parameters tell only together is in the evidence's table alone.")  # fmt: skip
    return Table("What was learned of each parameter.", columns, rows, notes)


def _by_anesthetic(run: xr.Dataset, names: list[str]) -> tuple[str, str, str] | None:
    """Ln Z with its error sqrt(D / n) (Skilling 2006), D and the dimensionality; None where it is not installed."""
    try:
        from anesthetic import NestedSamples
    except ImportError:
        return None
    samples: Any = NestedSamples(
        data=np.stack([run[name].values for name in names], 1),
        logL=run["log_likelihood"].values, logL_birth=run["log_likelihood_birth"].values, columns=names,
    )  # fmt: skip
    divergence, live = float(samples.D_KL()), int(np.isneginf(run["log_likelihood_birth"].values).sum())
    error = float(np.sqrt(max(divergence, 0) / live))
    return with_error(float(samples.logZ()), error), number(divergence), number(float(samples.d_G()))


def parameter_table(names: Sequence[str], parts: Sequence[Samples]) -> Table:
    """Mean, standard deviation and quantiles of each parameter, of one or more samples."""
    rows = []
    for i, name in enumerate(names):
        for part in parts:
            x, w = part.values[:, i], part.weights / part.weights.sum()
            mean = float(w @ x)
            deviation = float(np.sqrt(w @ np.square(x - mean)))
            order = np.argsort(x)
            total = np.cumsum(w[order]) - 0.5 * w[order]
            quantiles = np.interp([0.025, 0.5, 0.975], total, x[order])
            cells = [Cell(number(v, _digits(v, deviation))) for v in (mean, deviation, *quantiles)]
            rows.append(Row(name if len(parts) == 1 else f"{name}, {part.name}", cells))
    columns = [Column(""), *(Column(n) for n in ("mean", "standard deviation", "2.5 %", "median", "97.5 %"))]
    return Table("Parameters.", columns, rows)


def _digits(value: float, deviation: float) -> int:
    """Digits at which a hundredth of a standard deviation is seen."""
    if not (deviation > 0 and value != 0):
        return 3
    return int(np.clip(3 + np.floor(np.log10(abs(value))) - np.floor(np.log10(deviation)), 3, 9))


def log_volumes(log_l: Floats, birth: Floats) -> Floats:
    """Mean ln X of the contours (n,) of a run by rising ln L: the sum of -1 / n_i, n_i the points alive at each."""
    alive = np.searchsorted(np.sort(birth), log_l, "left") - np.arange(len(log_l))
    return -np.cumsum(1 / np.maximum(alive, 1))


def points_by_depth(run: xr.Dataset) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Points by rising ln L, their ln L, and -ln X; those without likelihood are left out."""
    log_l, birth = run["log_likelihood"].values, run["log_likelihood_birth"].values
    order = np.argsort(log_l, kind="stable")
    depth, shown = -log_volumes(log_l[order], birth[order]), log_l[order] > LEAST
    return order[shown], log_l[order][shown], depth[shown]


def _mass(log_l: Floats, depth: Floats) -> Floats:
    """Posterior mass per unit of ln X, L X, with the largest as one."""
    log_mass = log_l - depth
    return np.exp(log_mass - log_mass.max())


def _climb(run: xr.Dataset, followed: bool) -> Picture:
    _, log_l, depth = points_by_depth(run)
    mass, name = _mass(log_l, depth), "contours as they were passed" if followed else "contours that were learned"
    with look():
        figure = new_figure(SIZE[0], 4.6)
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
        top.plot(depth, log_l, color=TRUTH, lw=1.4, label="points of the run")
        level, volume = run["level_log_l"].values, run["level_log_volume"].values
        known = np.isfinite(level) & np.isfinite(volume)
        top.plot(-volume[known], level[known], "o", color=MODEL, ms=4, label=name)
        high = float(log_l.max() + max(0.05 * np.ptp(log_l[mass > 1e-3]), 1e-3))  # a likelihood may be flat
        top.set_ylim(min(_from_below(log_l, mass), high - 0.1), high)
        top.set_ylabel("ln L [nat]")
        top.legend(loc="lower right")
        low.fill_between(depth, mass, color=MODEL, alpha=0.35, lw=0)
        low.plot(depth, mass, color=MODEL, lw=1.2)
        low.set(xlabel="−ln X, X the prior volume above the contour", ylabel="posterior mass", ylim=(0, 1.08))
        low.set_xlim(0, depth.max())
    text = "The likelihood's contour against the prior volume within it, and where the posterior is: "
    text += f"{len(log_l)} points, {int(known.sum())} contours."
    return captioned(render(figure, text, title="The climb", vector=True), text)


def _from_below(log_l: Floats, mass: Floats) -> float:
    """Where the axis begins: the first contours of a prior are far below all that matters."""
    top, heavy = float(log_l.max()), log_l[mass > 1e-6].min()
    return float(max(np.quantile(log_l, 0.1), top - 6 * (top - heavy)))


def _evidence_by_level(posterior: xr.Dataset, run: xr.Dataset) -> Picture:
    calls, log_z = run["level_calls"].values, run["level_log_z"].values
    value, error = float(posterior.attrs["log_z"]), float(posterior.attrs["log_z_error"])
    known = np.isfinite(log_z) & (np.arange(len(log_z)) >= len(log_z) // 2)
    name = "all points" if _followed(posterior) else "the final draws"
    with look():
        figure = new_figure(*SIZE)
        axes = figure.add_subplot()
        axes.plot(calls[known], log_z[known], "o-", color=MODEL, ms=4, label="levels so far, the later half")
        axes.axhline(value, color=TRUTH, lw=1.2, label=name)
        if np.isfinite(error):
            axes.axhspan(value - 2 * error, value + 2 * error, color="#f0b429", alpha=0.3, lw=0)
        span = max(float(np.abs(log_z[known] - value).max(initial=0.0)), 6 * error if np.isfinite(error) else 0.0, 1e-3)
        axes.set_ylim(value - 1.3 * span, value + 1.3 * span)
        axes.set(xlabel="calls of the likelihood", ylabel="ln Z [nat]")
        axes.grid(axis="y")
        axes.legend()
    why = "which do not have all of it yet" if _followed(posterior) else "which are biased while contours are learned"
    text = f"ln Z by the levels so far, {why}, and by {name} with "
    text += "two standard errors (yellow)."
    return captioned(render(figure, text, title="Evidence against calls", vector=True), text)


def _trace(run: xr.Dataset, names: list[str], labels: list[str]) -> Picture:
    order, log_l, depth = points_by_depth(run)
    mass, shown = _mass(log_l, depth), min(len(names), MOST)
    with look():
        figure = new_figure(9.0, 0.7 + 1.25 * shown)
        grid = figure.subplots(shown, 1, squeeze=False, sharex=True)[:, 0]
        for axes, name, text in zip(grid, names, labels):
            axes.scatter(depth, run[name].values[order], c=mass, s=5, cmap="Blues", vmin=-0.5, vmax=1, lw=0)
            axes.set_ylabel(parameter_label(name, text, 16))
        grid[-1].set_xlabel("−ln X, X the prior volume above the contour")
        grid[-1].set_xlim(0, depth.max())
        figure.align_ylabels()
    text = "Each point of the run at its prior volume; the darker, the more of the posterior lies there."
    if shown < len(names):
        text += f" The first {shown} of {len(names)} parameters."
    return captioned(render(figure, f"Trace of {', '.join(names[:shown])}. {text}", title="Trace"), text)
