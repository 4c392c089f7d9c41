"""How far one law lies from another, in standard deviations, where no sample has a counterpart."""

__all__ = ["law_shift"]

import numpy as np
from numpy.typing import NDArray

from undrift.verify.bootstrap import block_length, interval, replicate_counts
from undrift.verify.law import Law
from undrift.verify.marginal import QUANTILES

_BINS = 500  # of the histograms whose quantiles are resampled


def law_shift(ours: Law, truth: Law, weights: NDArray, replicates: int, seed: int) -> dict:
    r"""Difference of means, ratio of standard deviations and differences of quantiles.

    The unit is the truth's standard deviation over samples, averaged over cells as a variance: a climate that is a
    little too warm everywhere is far off in it, however much the cells differ among each other.

    .. math:: \sigma^2 = \sum_c w_c s_c^2 / \sum_c w_c

    Intervals come from resampling blocks of samples of each side by itself. They are those of the mean and deviation in
    a choice of cells, moved to the estimate from all of them; NaN where the truth has fewer than two samples.

    Args:
        ours: the ensemble's law, made to be resampled.
        truth: likewise.
        weights: (cells,) area weights.
        replicates: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        mean_shift, deviation_ratio, quantile_shift(quantile), truth_deviation in the unit of the data, and the
        intervals of the first three.
    """
    unit = _deviation(truth, weights)
    scale = unit if unit > 0 else np.nan
    mean = _mean(ours.mean_map - truth.mean_map, weights) / scale
    ratio = _deviation(ours, weights) / scale
    q = np.array(QUANTILES)
    quantiles = (ours.quantiles(q) - truth.quantiles(q)) / scale
    out = {
        "truth_deviation": ((), np.array(unit)),
        "mean_shift": ((), np.array(mean)),
        "deviation_ratio": ((), np.array(ratio)),
        "quantile_shift": (("quantile",), quantiles),
    }
    bounds = [np.full((2, *np.shape(v)), np.nan) for v in (mean, ratio, quantiles)]
    if replicates and truth.sums.shape[1] > 1 and np.isfinite(scale):
        counts = [_counts(law, replicates, seed + n) for n, law in enumerate((ours, truth))]
        moments = [_moments(law, count, weights) for law, count in zip((ours, truth), counts)]
        values = np.concatenate([ours.values[0], truth.values[0]])
        edges = np.linspace(values.min(), values.max(), _BINS + 1)
        spread = [_quantiles(law, count, edges, q) for law, count in zip((ours, truth), counts)]
        moved = [
            (moments[0][0] - moments[1][0]) / scale,
            np.log(moments[0][1] / moments[1][1]),
            (spread[0] - spread[1]) / scale,
        ]
        around = [interval(one[1:] - one[0]) for one in moved]
        bounds = [mean + around[0], ratio * np.exp(around[1]), quantiles + around[2]]
    names = ("mean_shift", "deviation_ratio", "quantile_shift")
    for name, bound in zip(names, bounds):
        out[f"{name}_interval"] = (("bound", *out[name][0]), bound)
    return out


def _mean(field: NDArray, weights: NDArray) -> float:
    """Mean over the area, missing cells left out."""
    known = np.isfinite(field)
    return float(np.average(field[known], weights=weights[known])) if known.any() else np.nan


def _deviation(law: Law, weights: NDArray) -> float:
    """Root mean variance over samples; where there is one sample only, the deviation of all values."""
    own = float(np.sqrt(_mean(np.square(law.std_map), weights)))
    if own > 0 or not law.values[0].size:
        return own
    values, mass = law.values
    return float(np.sqrt(np.average(np.square(values - np.average(values, weights=mass)), weights=mass)))


def _counts(law: Law, replicates: int, seed: int) -> NDArray:
    """How often each sample occurs in each replicate, the first of which is the sample itself."""
    samples = law.sums.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        series = law.sums[1].sum(axis=1) / law.sums[0].sum(axis=1)
    drawn = replicate_counts(samples, block_length(series), replicates, seed)
    return np.concatenate([np.ones((1, samples)), drawn])


def _moments(law: Law, counts: NDArray, weights: NDArray) -> tuple[NDArray, NDArray]:
    """Area means of mean and deviation in the chosen cells, per replicate."""
    number, total, square = (counts @ part for part in law.sums)
    mass = weights[law.places] * (number > 0)
    mean = total / np.maximum(number, 1)
    variance = np.maximum(square / np.maximum(number, 1) - np.square(mean), 0.0)
    area = np.maximum(mass.sum(axis=1), np.finfo(float).tiny)
    deviation = np.sqrt((mass * variance).sum(axis=1) / area)
    return (mass * mean).sum(axis=1) / area, np.maximum(deviation, np.finfo(float).tiny)


def _quantiles(law: Law, counts: NDArray, edges: NDArray, q: NDArray) -> NDArray:
    """Quantiles of resampled histograms: (replicates, quantiles)."""
    values, mass = law.values
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    samples = law.sums.shape[1]
    table = np.bincount(law.sample_of_value * _BINS + place, mass, samples * _BINS).reshape(samples, _BINS)
    cumulated = np.cumsum(counts @ table, axis=1)
    share = np.concatenate([np.zeros((len(counts), 1)), cumulated / cumulated[:, -1:]], axis=1)
    return np.stack([np.interp(q, row, edges) for row in share])
