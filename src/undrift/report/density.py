"""What the page shows of a density of parameters: draws beside rows that it has not seen, and its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undrift.report.corner import MOST, Samples, corner, parameter_label
from undrift.report.nested import parameter_table, with_error
from undrift.report.page import Part
from undrift.report.picture import Picture, new_figure, render
from undrift.report.plots import SIZE, captioned
from undrift.report.style import MODEL, TRUTH, count, line_style, look, number
from undrift.report.tables import Cell, Column, Row, Table
from undrift.report.training import training_plots
from undrift.verify.c2st import TwoSample
from undrift.verify.calibration import Uniformity, coverage, coverage_band, uniformity
from undrift.verify.likelihood import Likelihood, learned_by_heart

__all__ = [
    "calibration_part",
    "density_verdict",
    "field_likelihood",
    "likelihood_part",
    "samples_part",
    "training_part",
]

_APART = 0.05  # accuracy above one half that a reader should know of
_UNLIKELY = 0.01  # of the smallest p, times the number of tests


def likelihood_part(found: Likelihood, two_sample: TwoSample | None, facts: Mapping) -> Part:
    """How likely unseen rows are, and how well draws are told from them."""
    lines = [("Mean log-density of unseen rows [nat a row]", _known(found)), ("Unseen rows", str(found.rows))]
    if found.outside:
        lines.append(("Further ones outside the bounds", str(found.outside)))
    if facts.get("log likelihood"):
        lines.append(("Of training rows [nat a row]", number(facts["log likelihood"]["of training rows"], 5)))
    if two_sample is not None:
        lines.append(
            ("Accuracy of a classifier, draws against rows (C2ST)", with_error(two_sample.accuracy, two_sample.error))
        )
    table = Table("On rows that training has not seen.", [Column(""), Column("measured")],
                  [Row(name, [Cell(text)]) for name, text in lines])  # fmt: skip
    if two_sample is not None:
        table.notes.append("C2ST: 0.5 where draws and rows cannot be told apart, 1 where they are never alike.")
    return Part("Likelihood", tables=[table])


def _known(found: Likelihood) -> str:
    return number(found.mean, 4) if found.error is None else with_error(found.mean, found.error)


def field_likelihood(found: Mapping[str, Any]) -> tuple[Part, str]:
    """How likely held-out fields are, and the sentence about it.

    Args:
        found: by :meth:`undrift.model.FieldModel.evaluate`.
    """
    ours, other = found, found["gaussian"]
    rows = [
        Row(
            name,
            [
                Cell(with_error(one["log_likelihood"], one["standard_error"])),
                Cell(number(error, 2)),
                Cell(f"{one['nats_per_value']:.4f}".replace("-", "−")),
                Cell(f"{one['bits_per_value']:.4f}".replace("-", "−")),
            ],
            model=one is ours,
        )
        for name, one, error in (
            ("this model", ours, found["numerical_error"]),
            ("the Gaussian that its network corrects", other, 0.0),
        )
    ]
    columns = [Column("", "mean over held-out fields"), Column("log p", "nats a field"),
               Column("numerical error", "nats a field"), Column("log p", "nats a value"),
               Column("−log₂ p", "bits a value")]  # fmt: skip
    caption = f"{found['samples']} fields of {count(found['numbers'])} values that training has not seen."
    notes = ["Densities are in the units of the data, so that they compare models and not data. The standard error is "
             "that of independent fields."]  # fmt: skip
    if found["left_out"]:
        notes.append(f"{found['left_out']} more lack values and are left out.")
    if found.get("dequantized"):
        notes.append(f"{found['dequantized'].capitalize()}.")
    gain = with_error(found["gain"], found["gain_error"])
    sentence = f"info: the network gains {gain} nats a held-out field beyond the Gaussian that it corrects."
    return Part("Likelihood", tables=[Table(caption, columns, rows, notes)]), sentence


_LOSSES = {
    "nsf": ("−log q [nat]", " The loss is minus the log-density of whitened parameters."),
    "flow-matching": ("velocity loss", " The loss is the mean square error of the velocity of whitened parameters."),
    "diffusion": ("denoising loss", " A network that adds nothing to the Gaussian guess it starts from is near 1."),
}
_LOSSES["stacked"] = _LOSSES["diffusion"]


def training_part(metrics: Sequence[Mapping], estimator: str) -> Part | None:
    """The training curve; None of what is not trained step by step."""
    if estimator not in _LOSSES:
        return None
    loss, about = _LOSSES[estimator]
    plots = training_plots(metrics, loss=loss, about=f"{about} Validation is of rows that only tell when to stop.")
    return Part("Training", plots=plots) if plots else None


def samples_part(held: Samples, draws: Samples, names: Sequence[str], labels: Sequence[str]) -> Part:
    """Draws beside rows: moments, quantiles and a corner."""
    return Part(
        "Draws beside unseen rows",
        tables=[parameter_table(names, [draws, held])],
        wide=[corner([draws, held], names, labels, title="Draws and rows")],
    )


def calibration_part(
    ranks: NDArray[np.intp], distances: NDArray[np.intp], number_of: int, names: Sequence[str], labels: Sequence[str]
) -> tuple[Part, str]:
    """Simulation-based calibration and TARP, and the sentence about them.

    Args:
        ranks: (n, D) of the truths among the draws.
        distances: (n,) of TARP.
        number_of: draws.
        names: of the parameters.
        labels: their LaTeX.
    """
    tests = [uniformity(column, number_of) for column in ranks.T] + [uniformity(distances, number_of)]
    called = [*names, "distance from random places (TARP)"]
    rows = [
        Row(name, [Cell(number(test.chi_square, 3)), Cell(number(test.chi_square_p, 2)), Cell(number(test.distance, 2)),
                   Cell(number(test.distance_p, 2))])
        for name, test in zip(called, tests, strict=True)
    ]  # fmt: skip
    columns = [Column(""), Column("χ²", f"{len(tests[0].counts)} bins"), Column("its p"),
               Column("Kolmogorov-Smirnov distance"), Column("its p")]  # fmt: skip
    caption = f"Ranks of {len(ranks)} unseen rows among {number_of} draws, against the uniform law."
    table = Table(caption, columns, rows, ["Of the true posteriors each p is uniform between 0 and 1."])
    smallest = min(min(test.chi_square_p, test.distance_p) for test in tests)
    p = min(2 * len(tests) * smallest, 1.0)
    if p < _UNLIKELY:
        text = (
            f"warn: the posteriors are not calibrated: ranks of unseen rows are uneven (p {number(p, 2)} of all tests)."
        )
    else:
        text = f"good: ranks of unseen rows are even, as of calibrated posteriors (p {number(p, 2)} of all tests)."
    plots = [_rank_histogram(test, parameter_label(name, label, 30), name, number_of)
             for test, name, label in list(zip(tests, names, labels))[:MOST]]  # fmt: skip
    curves = _coverage(ranks, distances, number_of, names, labels)
    return Part("Calibration", tables=[table], plots=[curves, *plots]), text


def _rank_histogram(test: Uniformity, shown: str, name: str, draws: int) -> Picture:
    from scipy.stats import binom

    bins, total = len(test.counts), int(test.counts.sum())
    low, high = (binom.ppf(q, total, test.expected / total) / test.expected for q in (0.025, 0.975))
    edges = np.linspace(0, 1, bins + 1)
    with look():
        figure = new_figure(SIZE[0], 2.6)
        axes = figure.add_subplot()
        axes.stairs(high, edges, baseline=low, fill=True, color="#f0b429", alpha=0.3, lw=0)
        axes.stairs(test.counts / test.expected, edges, color=MODEL, lw=1.5)
        axes.axhline(1, color=TRUTH, lw=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(1.15 * float(np.max([high.max(), (test.counts / test.expected).max()])), 1.6))
        axes.set(xlabel=f"share of draws below the truth: {shown}", ylabel="frequency / expected")
    text = f"{bins} bins of {total} ranks among {draws} draws; yellow: where 95 % of a calibrated posterior's bins lie."
    text += " A U is too narrow, a dome too wide, a slope is biased."
    return captioned(render(figure, f"{name}: {text}", title=f"Ranks of {name}", vector=True), text)


def _coverage(
    ranks: NDArray[np.intp], distances: NDArray[np.intp], draws: int, names: Sequence[str], labels: Sequence[str]
) -> Picture:
    with look():
        figure = new_figure(SIZE[0], 4.4)
        axes = figure.add_subplot()
        levels, ours = coverage(distances, draws)
        low, high = coverage_band(levels, len(distances))
        axes.fill_between(levels, low - levels, high - levels, color="#f0b429", alpha=0.3, lw=0)
        axes.axhline(0, color=TRUTH, lw=1)
        for i, (name, label) in list(enumerate(zip(names, labels)))[:MOST]:
            style = {**line_style(i), "marker": "", "lw": 1.1}
            axes.plot(levels, coverage(ranks[:, i], draws)[1] - levels, label=parameter_label(name, label, 20), **style)
        axes.plot(levels, ours - levels, color=MODEL, lw=2, label="TARP")
        axes.set(xlabel="credible level", ylabel="covered share less the level", xlim=(0, 1))
        axes.legend(ncols=2)
    text = (
        f"How much more of {len(distances)} unseen rows lie in a credible region than should: of TARP's regions, and "
    )
    text += "below quantiles of each parameter; yellow: where the true posterior is at each level with 95 %."
    return captioned(render(figure, text, title="Coverage", vector=True), text)


def density_verdict(found: Likelihood, two_sample: TwoSample | None, facts: Mapping[str, Any], own: bool) -> list[str]:
    """Sentences about the likelihood, the two-sample test, and rows learned by heart."""
    if found.error is None:
        lines = [f"info: one row that training has not seen has a log-density of {_known(found)} nats."]
    else:
        lines = [f"info: rows that training has not seen have a log-density of {_known(found)} nats in the mean."]
    if found.outside:
        lines.append(f"warn: {found.outside} of {found.rows + found.outside} rows lie outside the bounds, where the "
                     "density is 0: they are in no mean.")  # fmt: skip
    if two_sample is not None:
        above = two_sample.accuracy - 0.5
        known = with_error(two_sample.accuracy, two_sample.error)
        if above > max(_APART, 3 * two_sample.error):
            lines.append(f"warn: a classifier tells draws from unseen rows in {known} of cases; by chance it is half.")
        else:
            lines.append(f"good: a classifier tells draws from unseen rows in {known} of cases, by chance half.")
    score = facts.get("log likelihood") or {}
    if own and score:
        if learned_by_heart(score):
            gap = score["of training rows"] - score["held out"]
            lines.append(f"warn: rows of the training are likelier by {number(gap)} nats than unseen ones: they are "
                         "learned by heart. Type a smaller --budget, or --estimator kde or mixture.")  # fmt: skip
        elif score["standard error"] is not None:
            lines.append("good: training rows are no likelier than unseen ones by more than chance.")
    return lines
