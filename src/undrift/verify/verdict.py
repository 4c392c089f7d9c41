"""The scores in plain sentences."""

__all__ = ["Finding", "verdict"]

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

_SPREAD_SKILL = (0.9, 1.1)
_FLAT = 0.1  # mean relative deviation of a rank's frequency that is still called flat
_SPECTRUM = (0.8, 1.25)
_MEMORISING = 0.75


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict.

    Attributes:
        topic: "skill", "calibration", "memorisation", "spectrum", "range", "training" or "matching".
        level: "good", "warn" where the reader should know, "bad" where the ensemble should not be used as it is,
            "info" otherwise.
        text: the sentence.
    """

    topic: str
    level: Literal["good", "info", "warn", "bad"]
    text: str

    def __str__(self) -> str:
        return self.text


def verdict(scores: xr.Dataset) -> list[Finding]:
    """What the scores of `evaluate` say: skill, calibration, spectrum, memorisation, range, training.

    Reads the attributes `given_out_of_range` (share of given values outside the training range), `still_improving`
    (whether the validation loss still fell when training ended) and `baselines_absent` (which baselines there are not,
    and why) where present.
    """
    findings: list[Finding] = []
    if scores.attrs.get("matched", 0):
        for variable in scores["variable"].values:
            one = scores.sel(variable=variable)
            findings += _skill(str(variable), one)
            findings.append(_calibration(str(variable), one))
        if absent := scores.attrs.get("baselines_absent"):
            findings.append(Finding("skill", "info", f"not compared: {absent}"))
    else:
        text = "no sample of the ensemble has a truth: distributions are compared and no CRPS is claimed"
        findings.append(Finding("matching", "info", text))
    findings += [_spectrum(str(variable), scores.sel(variable=variable)) for variable in scores["variable"].values]
    findings += _memorisation(scores)
    findings += _run(scores)
    return findings


def _skill(variable: str, one: xr.Dataset) -> list[Finding]:
    if "skill" not in one or not np.isfinite(one["skill"].values).any():
        return [Finding("skill", "info", f"{variable}: CRPS {_number(one['crps'])}; no baseline to compare with")]
    beaten: list[str] = []
    lost: list[str] = []
    even: list[str] = []
    for name in one["baseline"].values:
        skill = float(one["skill"].sel(baseline=name))
        if not np.isfinite(skill):  # it has no prediction of this variable
            continue
        low, high = (float(v) for v in one["skill_interval"].sel(baseline=name))
        known = np.isfinite([low, high]).all()
        span = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if known else ""
        text = f"{name} by {100 * skill:+.1f} %{span}"
        if known and low <= 0.0 <= high:
            even.append(f"{name} ({100 * skill:+.1f} %{span})")
        elif skill > 0:
            beaten.append(text)
        else:
            lost.append(text)
    sentences: list[Finding] = []
    crps = f"{variable}: CRPS {_number(one['crps'])} {one['units'].values!s}".rstrip()
    if beaten:
        sentences.append(Finding("skill", "good", f"{crps} beats {'; '.join(beaten)}"))
    if even:
        sentences.append(Finding("skill", "warn", f"{crps} is not distinguishable from {'; '.join(even)}"))
    if lost:
        sentences.append(Finding("skill", "bad", f"{crps} loses to {'; '.join(lost)}"))
    return sentences


def _calibration(variable: str, one: xr.Dataset) -> Finding:
    """Calibrated: spread/skill within 10 % of 1, and ranks flat to 10 % or to what chance gives."""
    ratio, index, noise = (float(one[name]) for name in ("spread_skill", "reliability_index", "reliability_noise"))
    expected = float(one["reliability_expected"])
    if not np.isfinite(ratio):
        return Finding("calibration", "info", f"{variable}: spread cannot be judged (one realization, or no error)")
    span = _interval(one["spread_skill_interval"].values)
    measured = f"spread/skill {ratio:.2f}{span}, reliability index {index:.3f}"
    if np.isfinite(expected):
        measured += f" ({expected:.3f} by chance)"
    flat = index <= max(_FLAT, noise if np.isfinite(noise) else 0.0)
    if ratio < _SPREAD_SKILL[0]:
        level = "bad" if ratio < 0.7 else "warn"
        share = 100 * (1 - ratio)
        return Finding(
            "calibration", level, f"{variable}: under-dispersed, spread {share:.0f} % too small ({measured})"
        )
    if ratio > _SPREAD_SKILL[1]:
        level = "bad" if ratio > 1.4 else "warn"
        share = 100 * (ratio - 1)
        return Finding("calibration", level, f"{variable}: over-dispersed, spread {share:.0f} % too large ({measured})")
    if not flat:
        return Finding("calibration", "warn", f"{variable}: spread fits the error, but ranks are not flat ({measured})")
    return Finding("calibration", "good", f"{variable}: calibrated ({measured})")


def _spectrum(variable: str, one: xr.Dataset) -> Finding:
    ratio, wavelength = one["spectrum_ratio"].values, one["wavelength"].values
    known = np.isfinite(ratio)
    if not known.any():
        return Finding("spectrum", "info", f"{variable}: no spectrum (too many missing cells, or a constant truth)")
    outside = known & ((ratio < _SPECTRUM[0]) | (ratio > _SPECTRUM[1]))
    low, high = _SPECTRUM
    if not outside.any():
        text = f"{variable}: spectrum within [{low}, {high}] of the truth's down to 2 cells"
        return Finding("spectrum", "good", text)
    worst = int(np.argmax(np.where(outside, np.abs(np.log(np.maximum(ratio, 1e-12))), -1.0)))
    text = (
        f"{variable}: spectrum outside [{low}, {high}] of the truth's at {int(outside.sum())} of {int(known.sum())} "
        f"wavenumbers, worst {ratio[worst]:.2f} at {wavelength[worst]:.1f} cells"
    )
    return Finding("spectrum", "warn", text)


def _memorisation(scores: xr.Dataset) -> list[Finding]:
    if "memorisation" not in scores:
        return []
    ratio, copies = float(scores["memorisation"]), float(scores["memorisation_copies"])
    if not np.isfinite(ratio):
        known = float(scores["memorisation_known"]) if "memorisation_known" in scores else np.nan
        why = f"{100 * known:.0f} % of the truth is among the training data" if known > 0 else "the truth repeats them"
        text = f"memorisation cannot be judged: {why}; score samples that training has not seen"
        return [Finding("memorisation", "warn", text)]
    measured = f"members lie {ratio:.2f} times as far from the nearest training field as the truth does"
    if copies > 0.01:
        text = f"memorising: {100 * copies:.0f} % of members are near copies of a training field ({measured})"
        return [Finding("memorisation", "bad", text)]
    if ratio < _MEMORISING:
        return [Finding("memorisation", "warn", f"perhaps memorising: {measured}")]
    return [Finding("memorisation", "good", f"not memorising: {measured}")]


def _run(scores: xr.Dataset) -> list[Finding]:
    findings: list[Finding] = []
    share = float(scores.attrs.get("given_out_of_range", 0.0))
    if share > 0:
        text = f"{100 * share:.1f} % of the given values lie outside the range seen in training: an extrapolation"
        findings.append(Finding("range", "warn", text))
    if scores.attrs.get("still_improving", 0):
        text = "under-trained: the validation loss was still falling when training ended; give it a larger budget"
        findings.append(Finding("training", "warn", text))
    return findings


def _number(value: xr.DataArray) -> str:
    return f"{float(value):.4g}"


def _interval(bounds: np.ndarray) -> str:
    return f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if np.isfinite(bounds).all() else ""
