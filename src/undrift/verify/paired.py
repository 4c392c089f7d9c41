"""Streaming scores of one channel of an ensemble against its truth and its baselines."""

__all__ = ["Baseline", "Paired"]

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from undrift.verify.bootstrap import block_length, interval, replicate_counts
from undrift.verify.crps import discrete_crps, fair_crps
from undrift.verify.law import seeded
from undrift.verify.ranks import rank_counts, rank_noise, ranks, reliability_index
from undrift.verify.spectra import Spectrum
from undrift.verify.spread import binned_spread, moments, spread_skill
from undrift.verify.variogram import draw_pairs, variogram_score

_KEPT_CELLS = 4_000_000
Pairs = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]
Scores = dict[str, tuple[tuple[str, ...], NDArray]]


@dataclass
class Baseline:
    """Sums over cells of one baseline, per sample, with those of the model on the same cells."""

    samples: int
    wavenumbers: int
    dressed: bool
    sums: dict[str, NDArray] = field(init=False)
    spectra: NDArray = field(init=False)

    def __post_init__(self) -> None:
        names = ("mass", "crps", "model_crps", "square", "vario", "model_vario", "pairs")
        self.sums = {name: np.zeros(self.samples) for name in names}
        self.spectra = np.full((self.samples, self.wavenumbers), np.nan)


class Paired:
    """Per-sample and per-cell sums of one channel, and the scores that follow from them.

    Args:
        spectrum: of the grid.
        weights: (cells,) area weights.
        labels: one text per sample, for keyed draws.
        members: M.
        periodic: per axis of the grid, for the pairs of the variogram score.
        baselines: whether each is dressed, by name.
        seed: of rank ties, pairs and choices of cells.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        weights: NDArray,
        labels: list[str],
        members: int,
        periodic: tuple[bool, ...],
        baselines: Mapping[str, bool],
        seed: int,
    ) -> None:
        self._spectrum, self._weights, self._labels, self._members = spectrum, weights, labels, members
        self._periodic, self._seed = periodic, seed
        samples, cells = len(labels), weights.size
        names = ("mass", "crps", "error", "absolute", "square", "variance", "vario", "pairs")
        self._sums = {name: np.zeros(samples) for name in names}
        self._maps = {name: np.zeros(cells) for name in ("count", "crps", "error", "square", "variance")}
        self._ranks = np.zeros((samples, members + 1))
        self._kept = min(cells, max(1, _KEPT_CELLS // samples))
        self._cells: list[NDArray] = []
        self._pairs: Pairs | None = None
        size = spectrum.wavenumber.size
        self._baselines = {name: Baseline(samples, size, dressed) for name, dressed in baselines.items()}

    def add(
        self,
        part: slice,
        truth: NDArray,
        members: NDArray,
        valid: NDArray[np.bool_],
        baselines: Mapping[str, NDArray],
    ) -> None:
        """Add samples: truth (n, cells), members (M, n, cells), both finite; baselines with NaN as they come."""
        weights = self._weights * valid
        crps = fair_crps(truth, members)
        mean, variance = moments(members)
        error = mean - truth
        fields = {"crps": crps, "error": error, "square": np.square(error), "variance": variance}
        for name, values in fields.items():
            self._sums[name][part] = (weights * values).sum(axis=1)
            self._maps[name] += (valid * values).sum(axis=0)
        self._sums["absolute"][part] = (weights * np.abs(error)).sum(axis=1)
        self._sums["mass"][part] = weights.sum(axis=1)
        self._maps["count"] += valid.sum(axis=0)
        uniforms = np.stack([seeded(self._seed, "ties", name).random(truth.shape[1]) for name in self._labels[part]])
        self._ranks[part] = rank_counts(ranks(truth, members, uniforms), weights, self._members)
        self._keep(part, variance, fields["square"], weights)
        if self._pairs is None and valid.any():
            shape = self._spectrum.shape
            self._pairs = draw_pairs(shape, self._periodic, np.atleast_1d(valid.any(axis=0)), seed=self._seed)
        self._sums["vario"][part], self._sums["pairs"][part] = self._variogram(truth, members, valid)
        for name, values in baselines.items():
            self._add_baseline(self._baselines[name], part, truth, members, crps, valid, values)

    def _keep(self, part: slice, variance: NDArray, square: NDArray, weights: NDArray) -> None:
        """Keep variance, squared error and weight of all cells, or of a choice, for the bins of spread."""
        for row, label in enumerate(self._labels[part]):
            pick = slice(None)
            if self._kept < self._weights.size:
                pick = seeded(self._seed, "cells", label).choice(self._weights.size, self._kept, False)
            stacked = np.stack([variance[row, pick], square[row, pick], weights[row, pick]])
            self._cells.append(stacked[:, stacked[2] > 0].astype(np.float32))

    def _variogram(self, truth: NDArray, members: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
        """Weighted sum of the variogram score over pairs, and the sum of weights, per sample."""
        if self._pairs is None or self._pairs[0].size == 0:
            return np.zeros(truth.shape[0]), np.zeros(truth.shape[0])
        first, second, distance = self._pairs
        weights = (
            np.sqrt(self._weights[first] * self._weights[second]) / distance * (valid[:, first] & valid[:, second])
        )
        score = variogram_score(truth[:, first], truth[:, second], members[..., first], members[..., second], weights)
        mass = weights.sum(axis=1)
        return np.where(mass > 0, score, 0.0) * mass, mass

    def _add_baseline(
        self,
        baseline: Baseline,
        part: slice,
        truth: NDArray,
        members: NDArray,
        crps: NDArray,
        valid: NDArray[np.bool_],
        values: NDArray,
    ) -> None:
        """Scores of a baseline and of the model on the cells where both are known."""
        common = valid & np.isfinite(values).all(axis=0)
        values = np.where(common, values, 0.0)
        weights = self._weights * common
        own = discrete_crps(truth, values) if baseline.dressed else fair_crps(truth, values)
        sums = baseline.sums
        sums["mass"][part] = weights.sum(axis=1)
        sums["crps"][part] = (weights * own).sum(axis=1)
        sums["model_crps"][part] = (weights * crps).sum(axis=1)
        sums["square"][part] = (weights * np.square(values.mean(axis=0) - truth)).sum(axis=1)
        sums["vario"][part], sums["pairs"][part] = self._variogram(truth, values, common)
        if np.array_equal(common, valid):
            sums["model_vario"][part] = self._sums["vario"][part]
        else:
            sums["model_vario"][part] = self._variogram(truth, members, common)[0]
        enough = common.mean(axis=1) > 0.5
        if enough.any():
            shape = self._spectrum.shape
            fields = values[:, enough].reshape(values.shape[0], -1, *shape)
            spectra = self._spectrum(fields, common[enough].reshape(-1, *shape)).mean(axis=0)
            baseline.spectra[np.arange(part.start, part.stop)[enough]] = spectra

    def scores(self, order: NDArray[np.intp], replicates: int, truth_spectra: NDArray, spectra: NDArray) -> Scores:
        """All scores with their bootstrap intervals.

        Args:
            order: (n,) indices that put the samples into the order of time, for the blocks.
            replicates: number of bootstrap replicates.
            truth_spectra: (n, K) spectra of the truth, for ratios.
            spectra: (n, K) mean spectra of the members.

        Returns:
            Per name its dims, without that of the variable, and values.
        """
        sums = {name: values[order] for name, values in self._sums.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            per_sample = np.where(self._sums["mass"] > 0, self._sums["crps"] / self._sums["mass"], np.nan)
        block = block_length(per_sample[order])
        samples = len(self._labels)
        counts = replicate_counts(samples, block, replicates if samples > 2 else 0, self._seed)
        counts = np.concatenate([np.ones((1, samples)), counts])
        out: Scores = {"block_length": ((), np.array(block)), "crps_sample": (("sample",), per_sample)}
        with np.errstate(invalid="ignore", divide="ignore"):
            self._headline(out, sums, counts)
            self._rank_scores(out, self._ranks[order], counts, block)
            _put(out, "spectrum_ratio", _ratio(counts, spectra[order], truth_spectra[order]), ("wavenumber",))
            self._baseline_scores(out, order, counts, truth_spectra)
        cells = np.concatenate(self._cells, axis=1).astype(np.float64) if self._cells else np.zeros((3, 0))
        spread, rmse, share = binned_spread(cells[0], cells[1], cells[2], self._members)
        out |= {
            "binned_spread": (("spread_bin",), spread),
            "binned_rmse": (("spread_bin",), rmse),
            "binned_share": (("spread_bin",), share),
        }
        return out | self._map_scores()

    def _headline(self, out: Scores, sums: Mapping[str, NDArray], counts: NDArray) -> None:
        total = {name: counts @ values for name, values in sums.items()}
        mass, square, variance = total["mass"], total["square"], total["variance"]
        _put(out, "crps", total["crps"] / mass)
        _put(out, "rmse", np.sqrt(square / mass))
        _put(out, "bias", total["error"] / mass)
        _put(out, "mae", total["absolute"] / mass)
        _put(out, "spread", np.sqrt(variance / mass))
        _put(out, "spread_skill", spread_skill(variance / mass, square / mass, self._members))
        _put(out, "variogram", total["vario"] / total["pairs"])

    def _rank_scores(self, out: Scores, rank_mass: NDArray, counts: NDArray, block: int) -> None:
        total = rank_mass.sum(axis=0)
        frequency = total / total.sum()
        expected, noise = rank_noise(rank_mass, counts[1:], block)
        out["rank_histogram"] = (("rank",), frequency)
        # No interval: resampling adds noise to every bin, so that replicates lie above the index itself.
        out["reliability_index"] = ((), np.asarray(reliability_index(frequency)))
        out["reliability_expected"] = ((), np.array(expected))
        out["reliability_noise"] = ((), np.array(noise))

    def _baseline_scores(self, out: Scores, order: NDArray[np.intp], counts: NDArray, truth: NDArray) -> None:
        per: dict[str, list[NDArray]] = {}
        for baseline in self._baselines.values():
            total = {name: counts @ values[order] for name, values in baseline.sums.items()}
            rows = {
                "crps_baseline": total["crps"] / total["mass"],
                "rmse_baseline": np.sqrt(total["square"] / total["mass"]),
                "variogram_baseline": total["vario"] / total["pairs"],
                "skill": 1.0 - total["model_crps"] / total["crps"],
                "variogram_skill": 1.0 - total["model_vario"] / total["vario"],
                "spectrum_ratio_baseline": _ratio(counts, baseline.spectra[order], truth[order]),
            }
            for name, values in rows.items():
                per.setdefault(name, []).append(values)
        for name, values in per.items():
            dims = ("baseline", "wavenumber") if name.startswith("spectrum") else ("baseline",)
            _put(out, name, np.stack(values, axis=1), dims)

    def _map_scores(self) -> Scores:
        count = np.where(self._maps["count"] > 0, self._maps["count"], np.nan)
        mean = {name: values / count for name, values in self._maps.items()}
        return {
            "crps_map": (("cell",), mean["crps"]),
            "bias_map": (("cell",), mean["error"]),
            "rmse_map": (("cell",), np.sqrt(mean["square"])),
            "spread_map": (("cell",), np.sqrt(mean["variance"])),
        }


def _ratio(counts: NDArray, ours: NDArray, truth: NDArray) -> NDArray:
    """Ratio of mean spectra over the samples where both are known, per replicate: (B, K)."""
    known = np.isfinite(ours).all(axis=1) & np.isfinite(truth).all(axis=1)
    picked = counts[:, known]
    return (picked @ ours[known]) / (picked @ truth[known])


def _put(out: Scores, name: str, estimates: NDArray, dims: tuple[str, ...] = ()) -> None:
    """Store a score, the first of its estimates, and its interval from the others."""
    out[name] = (dims, np.asarray(estimates[0]))
    out[f"{name}_interval"] = (("bound", *dims), interval(estimates[1:]))
