"""Is a family of posteriors calibrated: simulation-based calibration and TARP, with tests of finite samples.

Parameters theta_i are drawn from the prior, data x_i given theta_i, and L draws from the posterior in question given
each x_i. If it is the true one, the rank of theta_i among its L draws is uniform on 0..L, for each parameter
(simulation-based calibration, Talts et al. 2018, arXiv:1804.06788, theorem 1) and for the distance from any place that
was chosen without theta_i (TARP, Lemos et al. 2023, arXiv:2302.03026; random places miss no error). Ranks are whole
numbers and their law is exact for every L: nothing here is asymptotic in the number of draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undrift.errors import DataError, UsageError
from undrift.verify.ranks import ranks

__all__ = ["Uniformity", "coverage", "coverage_band", "posterior_ranks", "tarp_places", "tarp_ranks", "uniformity"]

_PER_BIN = 20  # simulations that a bin of the chi-square test expects (Talts et al. 2018, section 4.1)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Uniformity:
    """Tests of ranks against the uniform law.

    Attributes:
        counts: (bins,) ranks in each bin.
        expected: (bins,) how many a uniform law has there.
        chi_square: sum (counts - expected)^2 / expected.
        chi_square_p: its p, by the chi-square law of bins - 1 degrees of freedom.
        distance: the Kolmogorov-Smirnov distance of the ranks, spread at random within their steps, from uniform.
        distance_p: its p, exact for every number of simulations and of draws.
    """

    counts: Floats
    expected: Floats
    chi_square: float
    chi_square_p: float
    distance: float
    distance_p: float


def posterior_ranks(truth: Floats, draws: Floats, seed: int = 0) -> NDArray[np.intp]:
    """Rank of each true parameter among its posterior draws (Talts et al. 2018, algorithm 1); ties broken at random.

    Args:
        truth: (n, D) parameters that the data were simulated with.
        draws: (n, L, D) independent draws given the data of each; a chain has to be thinned first.
        seed: of the random order of ties.

    Returns:
        (n, D) ranks in 0..L.
    """
    truth, draws = _matched(truth, draws)
    return ranks(truth, np.moveaxis(draws, 1, 0), np.random.default_rng(seed).random(truth.shape))


def tarp_places(truth: Floats, seed: int = 0) -> Floats:
    """(n, D) places, uniform over the box that the true parameters (n, D) span, as in Lemos et al. 2023, section 4."""
    truth = np.asarray(truth, np.float64)
    low, high = truth.min(axis=0), truth.max(axis=0)
    return low + (high - low) * np.random.default_rng([seed, 1]).random(truth.shape)


def tarp_ranks(truth: Floats, draws: Floats, places: Floats | None = None, seed: int = 0) -> NDArray[np.intp]:
    """How many draws are nearer to a place than the truth is (Lemos et al. 2023, algorithm 2); ties broken at random.

    Distances are Euclidean with every parameter in units of the standard deviation of the truths.

    Args:
        truth: (n, D) parameters that the data were simulated with.
        draws: (n, L, D) independent draws given the data of each.
        places: (n, D), each chosen without its truth (its data may be used); by default ``tarp_places``.
        seed: of the places and of the random order of ties.

    Returns:
        (n,) ranks in 0..L.
    """
    truth, draws = _matched(truth, draws)
    places = tarp_places(truth, seed) if places is None else np.asarray(places, np.float64)
    if places.shape != truth.shape:
        raise DataError(f"places have shape {places.shape}, expected that of the truth, {truth.shape}")
    unit = truth.std(axis=0)
    unit = np.where(unit > 0, unit, 1.0)
    of_truth = np.linalg.norm((truth - places) / unit, axis=-1)
    of_draws = np.linalg.norm((draws - places[:, None]) / unit, axis=-1)
    return ranks(of_truth, of_draws.T, np.random.default_rng([seed, 2]).random(len(truth)))


def coverage(rank: NDArray[np.intp], draws: int) -> tuple[Floats, Floats]:
    """Credible levels and the share of truths within them.

    The region of level k / (L + 1) is that below the k-th of L draws: below in value for ranks of simulation-based
    calibration, in distance for those of TARP. The true posterior covers each level exactly, whatever L; a curve above
    the diagonal at high levels is too wide, below it too narrow.

    Args:
        rank: (n,) ranks in 0..L.
        draws: L.

    Returns:
        (L + 2,) levels 0, 1 / (L + 1), ..., 1, and (L + 2,) shares of ranks that are below k.
    """
    counts = _counts(rank, draws)
    return np.arange(draws + 2) / (draws + 1), np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()


def coverage_band(levels: Floats, simulations: int, probability: float = 0.95) -> tuple[Floats, Floats]:
    """Where the coverage of the true posterior lies at each level with a probability: binomial quantiles over n."""
    from scipy.stats import binom

    tail = (1 - probability) / 2
    low, high = (binom.ppf(q, simulations, levels) / simulations for q in (tail, 1 - tail))
    return np.asarray(low), np.asarray(high)


def uniformity(rank: NDArray[np.intp], draws: int, bins: int | None = None, seed: int = 0) -> Uniformity:
    """Whether ranks are uniform on 0..L.

    Bins hold whole ranks, as even in number as can be, and the chi-square test expects what each of them holds. The
    Kolmogorov-Smirnov test takes (rank + v) / (L + 1) with v uniform on [0, 1), which is exactly uniform where the
    ranks are: ties, which make the test of the ranks themselves too timid, are gone.

    Args:
        rank: (n,) ranks in 0..L.
        draws: L.
        bins: of the chi-square test; by default as many as expect 20 ranks each, at most L + 1 and at least 2.
        seed: of v.

    Raises:
        UsageError: there are fewer than 2 bins or more than L + 1.
    """
    from scipy.stats import chi2, kstest

    counts = _counts(rank, draws)
    n = int(counts.sum())
    bins = max(min(n // _PER_BIN, draws + 1), 2) if bins is None else bins
    if not 2 <= bins <= draws + 1:
        raise UsageError(f"bins is {bins}, expected 2 to {draws + 1}: {draws} draws have {draws + 1} ranks")
    edges = np.round(np.linspace(0, draws + 1, bins + 1)).astype(int)
    found, expected = np.add.reduceat(counts, edges[:-1]), n * np.diff(edges) / (draws + 1)
    chi_square = float(((found - expected) ** 2 / expected).sum())
    spread = (np.asarray(rank).ravel() + np.random.default_rng([seed, 3]).random(n)) / (draws + 1)
    test = kstest(spread, "uniform")
    return Uniformity(
        found, expected, chi_square, float(chi2.sf(chi_square, bins - 1)), float(test.statistic), float(test.pvalue)
    )


def _counts(rank: NDArray[np.intp], draws: int) -> Floats:
    """(L + 1,) how often each rank occurs."""
    rank = np.asarray(rank).ravel()
    if not len(rank) or rank.min() < 0 or rank.max() > draws:
        raise DataError(f"ranks are {rank.min() if len(rank) else 'none'} to {rank.max() if len(rank) else 'none'}, "
                        f"expected 0 to the number of draws, {draws}")  # fmt: skip
    return np.bincount(rank, minlength=draws + 1).astype(np.float64)


def _matched(truth: Floats, draws: Floats) -> tuple[Floats, Floats]:
    truth, draws = np.asarray(truth, np.float64), np.asarray(draws, np.float64)
    if truth.ndim != 2 or draws.ndim != 3 or truth.shape != (draws.shape[0], draws.shape[2]) or not draws.shape[1]:
        raise DataError(
            f"truth and draws have shapes {truth.shape} and {draws.shape}, expected (n, D) and (n, L, D): for each "
            "of n simulations the D parameters and L draws of them"
        )
    if not (np.isfinite(truth).all() and np.isfinite(draws).all()):
        raise DataError("truth or draws hold NaN or infinite values, expected finite numbers")
    return truth, draws
