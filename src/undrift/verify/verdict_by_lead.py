"""The scores of forecasts by lead time in plain sentences."""

__all__ = ["verdict_by_lead"]

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from undrift.verify.finding import Finding, Level
from undrift.verify.leads import LEAD, lead_text

_SPREAD_SKILL = (0.9, 1.1)
_BIAS_MATTERS = 0.2  # of the RMSE, as of ensembles without leads
_SPECTRUM = (0.8, 1.25)


def verdict_by_lead(scores: xr.Dataset) -> list[Finding]:
    """What the scores of `by_lead` say of each field: skill against each baseline, calibration, bias and scales.

    Each sentence names the leads that it is of. A difference counts where the 95 % interval over the starts leaves out
    none; without intervals the number itself does.
    """
    findings: list[Finding] = []
    for name in scores["variable"].values:
        one = scores.sel(variable=name)
        one = one.isel({LEAD: np.flatnonzero(np.isfinite(one["crps"].values))})
        if one.sizes[LEAD]:
            parts = [*_skill(one), _calibration(one), *_bias(one), *_scales(one)]
            findings += [Finding(f.topic, f.level, f"{name}: {f.text}") for f in parts]
    if absent := scores.attrs.get("baselines_absent"):
        findings.append(Finding("skill", "info", f"not compared: {absent}"))
    return findings


def _skill(one: xr.Dataset) -> list[Finding]:
    ends = [f"{float(one['crps'][k]):.4g} {one['units'].values!s} at {_lead(one, k)}" for k in (0, -1)]
    crps = "forecasts' CRPS " + " and ".join(dict.fromkeys(" ".join(end.split()) for end in ends))
    if "skill" not in one or not np.isfinite(one["skill"].values).any():
        return [Finding("skill", "info", f"{crps}; no baseline to compare with")]
    always: dict[str, list[str]] = {"beats": [], "is not distinguishable from": [], "loses to": []}
    mixed: list[Finding] = []
    for base in one["baseline"].values:
        skill = one["skill"].sel(baseline=base).values
        low, high = _bounds(one.sel(baseline=base), "skill", skill)
        known, better, worse = np.isfinite(skill), low > 0, high < 0
        if not known.any():
            continue
        even = known & ~better & ~worse
        parts = {k: m for k, m in zip(always, (better, even, worse)) if m.any()}
        kind = next(iter(parts))
        if len(parts) == 1:
            always[kind].append(f"{base}{_by(kind, skill[known])}")
            continue
        told = [f"{k} {base if k == kind else 'it'} at {_at(one, m)}{_by(k, skill[m])}" for k, m in parts.items()]
        mixed.append(Finding("skill", "bad" if worse.any() else "warn", f"CRPS {', '.join(told)}"))
    level: dict[str, Level] = dict(zip(always, ("good", "warn", "bad")))
    out = [Finding("skill", level[k], f"{crps}; it {k} {'; '.join(names)}") for k, names in always.items() if names]
    return [*out, *mixed] if out else [Finding("skill", "info", crps), *mixed]


def _by(kind: str, skill: NDArray) -> str:
    """By how much a rival is beaten or beats."""
    return "" if kind.startswith("is") else f" by {_span(np.abs(skill))}"


def _calibration(one: xr.Dataset) -> Finding:
    ratio = one["spread_skill"].values
    known = np.isfinite(ratio)
    if not known.any():
        return Finding("calibration", "info", "spread cannot be judged (one realization, or no error)")
    low, high = _bounds(one, "spread_skill", ratio)
    small = known & (ratio < _SPREAD_SKILL[0]) & (high < 1)
    large = known & (ratio > _SPREAD_SKILL[1]) & (low > 1)
    fits = known & ~small & ~large
    told = [f"spread fits the error at {_at(one, fits)}"] if fits.any() else []
    level: Level = "good"
    for mask, name, word in ((small, "under-dispersed", "small"), (large, "over-dispersed", "large")):
        if mask.any():
            worst = int(np.argmax(np.where(mask, np.abs(np.log(np.maximum(ratio, 1e-12))), -1)))
            far = 100 * abs(1 - ratio[worst])
            bad = ratio[worst] < 0.7 or ratio[worst] > 1.4
            level = "bad" if bad or level == "bad" else "warn"
            told.append(f"{name} at {_at(one, mask)}, spread up to {far:.0f} % too {word} ({_lead(one, worst)})")
    values = ratio[known]
    return Finding("calibration", level, f"{'; '.join(told)} (spread/skill {values.min():.2f} to {values.max():.2f})")


def _bias(one: xr.Dataset) -> list[Finding]:
    bias, rmse = one["bias"].values, one["rmse"].values
    low, high = _bounds(one, "bias", bias)
    off = (np.abs(bias) > _BIAS_MATTERS * rmse) & ((low > 0) | (high < 0))
    if not off.any():
        return []
    worst = int(np.argmax(np.where(off, np.abs(bias) / rmse, -1)))
    value = f"{bias[worst]:+.3g} {one['units'].values!s}".strip()
    share = 100 * abs(bias[worst]) / rmse[worst]
    text = f"biased at {_at(one, off)}, most at {_lead(one, worst)} by {value}, {share:.0f} % of the RMSE"
    return [Finding("bias", "warn", text)]


def _scales(one: xr.Dataset) -> list[Finding]:
    if "spectrum_ratio" not in one or not np.isfinite(one["spectrum_ratio"].values).any():
        return []
    ratio = one["spectrum_ratio"].transpose(LEAD, "band").values
    known = np.isfinite(ratio)
    outside = known & ((ratio < _SPECTRUM[0]) | (ratio > _SPECTRUM[1]))
    low, high = _SPECTRUM
    if not outside.any():
        return [
            Finding("spectrum", "good", f"power within [{low}, {high}] of the truth's in every octave at all leads")
        ]
    away = np.where(outside, np.abs(np.log(np.maximum(ratio, 1e-12))), -1.0)
    k, b = np.unravel_index(int(away.argmax()), away.shape)
    names = [str(band) for band in one["band"].values[outside.any(0)]]
    where = f"{', '.join(names)} at {_at(one, np.asarray(outside.any(1)))}"
    text = (
        f"power outside [{low}, {high}] of the truth's in {where}, worst "
        f"{ratio[k, b]:.2f} in {one['band'].values[b]} at {_lead(one, int(k))}"
    )
    return [Finding("spectrum", "warn", text)]


def _bounds(one: xr.Dataset, name: str, values: NDArray) -> tuple[NDArray, NDArray]:
    """Ends of the interval of a score at each lead, the score itself where there is none."""
    if f"{name}_interval" not in one:
        return values, values
    low, high = one[f"{name}_interval"].transpose("bound", LEAD).values
    return tuple(np.where(np.isfinite(end), end, values) for end in (low, high))  # type: ignore[return-value]


def _span(shares: NDArray) -> str:
    """``4.8 to 20 %`` of shares."""
    ends = [f"{100 * v:.2g}" for v in (shares.min(), shares.max())]
    return f"{' to '.join(dict.fromkeys(ends))} %"


def _lead(one: xr.Dataset, k: int) -> str:
    return lead_text(one[LEAD].values[k])


def _at(one: xr.Dataset, mask: NDArray) -> str:
    """``1 h to 6 h and 9 h``; all leads by that name."""
    if mask.all():
        return "all leads"
    runs: Sequence[NDArray] = np.split(np.flatnonzero(mask), np.flatnonzero(np.diff(np.flatnonzero(mask)) > 1) + 1)
    texts = [_lead(one, run[0]) if len(run) == 1 else f"{_lead(one, run[0])} to {_lead(one, run[-1])}" for run in runs]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
