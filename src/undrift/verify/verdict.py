"""The scores in plain sentences."""

__all__ = ["verdict"]

import numpy as np
import xarray as xr

from undrift.verify.finding import Finding
from undrift.verify.verdict_by_lead import verdict_by_lead

_SPREAD_SKILL = (0.9, 1.1)
# A reliability index is seen where it is above what chance gives (its 95 % quantile, from the bootstrap), and matters
# above 0.1: that of a Gaussian ensemble whose spread is 10 % off, or whose bias is an eighth of its error.
_INDEX_MATTERS = 0.1
_BIAS_MATTERS = 0.2  # of the RMSE; matters where its interval also excludes 0
_EVEN = 0.005  # of spread/skill beside 1, as which it is printed
_SHAPE = 0.25  # share of the ranks' departure from flat that a slope or a bow must explain to be named
_SPECTRUM = (0.8, 1.25)
# Of laws that can only be compared as distributions, in standard deviations of the truth; each has to be beyond chance.
_MEAN_MATTERS, _QUANTILE_MATTERS = 0.25, 0.5
_DEVIATION = (0.8, 1.25)
_FIRM_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
_MEMORISING = 0.75


def verdict(scores: xr.Dataset) -> list[Finding]:
    """What the scores of `evaluate` say: skill, calibration, spectrum, memorisation, range, training.

    Those of `by_lead` say it of the leads.

    Reads the attributes `given_out_of_range` (share of given values outside the training range), `still_improving`
    (whether more training would have helped), `trained_for` (how long it was, in words) and `baselines_absent` (which
    baselines there are not, and why) where present.
    """
    if scores.attrs.get("by_lead"):
        return verdict_by_lead(scores)
    findings = [f for name in scores["variable"].values for f in _apart(str(name), scores.sel(variable=name))]
    if scores.attrs.get("matched", 0):
        for variable in scores["variable"].values:
            one = scores.sel(variable=variable)
            findings += _skill(str(variable), one) + _variogram(str(variable), one)
            findings += [_calibration(str(variable), one), *_bias(str(variable), one)]
        if absent := scores.attrs.get("baselines_absent"):
            findings.append(Finding("skill", "info", f"not compared: {absent}"))
    else:
        text = "no sample of the ensemble has a truth: distributions are compared and no CRPS is claimed"
        findings.append(Finding("matching", "info", text))
        findings += [_distribution(str(name), scores.sel(variable=name)) for name in scores["variable"].values]
    findings += [_spectrum(str(variable), scores.sel(variable=variable)) for variable in scores["variable"].values]
    findings += _memorisation(scores, like=not any(f.topic == "distribution" and f.level == "bad" for f in findings))
    findings += _run(scores)
    return findings


def _apart(variable: str, one: xr.Dataset) -> list[Finding]:
    """Whether hardly a value of the ensemble lies where the truth's are, as of other units."""
    (low, high), (bottom, top) = (one[f"quantiles_{side}"].values[[0, -1]] for side in ("ensemble", "truth"))
    if not (low > top or high < bottom):
        return []
    text = (
        f"{variable}: the ensemble ({low:.4g} to {high:.4g}) and the truth ({bottom:.4g} to {top:.4g}) have no value "
    )
    return [Finding("matching", "bad", f"{text}in common: are both in the same units?")]


def _skill(variable: str, one: xr.Dataset) -> list[Finding]:
    crps = f"{variable}: CRPS {_number(one['crps'])} {one['units'].values!s}".rstrip()
    if "skill" not in one or not np.isfinite(one["skill"].values).any():
        return [Finding("skill", "info", f"{crps}; no baseline to compare with")]
    beaten: list[str] = []
    lost: list[str] = []
    even: list[str] = []
    for name in one["baseline"].values:
        skill = float(one["skill"].sel(baseline=name))
        if not np.isfinite(skill):  # it has no prediction of this variable
            continue
        low, high = (float(v) for v in one["skill_interval"].sel(baseline=name))
        known = np.isfinite([low, high]).all()
        if skill == 0.0 or (known and low <= 0.0 <= high):
            span = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if known else ""
            even.append(f"{name} ({100 * skill:+.1f} %{span})")
        elif skill > 0:
            beaten.append(_by(name, skill, low, high))
        else:
            lost.append(_by(name, -skill, -high, -low))
    sentences: list[Finding] = []
    if beaten:
        sentences.append(Finding("skill", "good", f"{crps} beats {'; '.join(beaten)}"))
    if even:
        sentences.append(Finding("skill", "warn", f"{crps} is not distinguishable from {'; '.join(even)}"))
    if lost:
        sentences.append(Finding("skill", "bad", f"{crps} loses to {'; '.join(lost)}"))
    return sentences


def _by(name: str, share: float, low: float, high: float) -> str:
    """A rival and by how much, a share above 0 with its interval, where one is known."""
    span = f" [{100 * low:.1f}, {100 * high:.1f}]" if np.isfinite([low, high]).all() else ""
    return f"{name} by {100 * share:.1f} %{span}"


def _calibration(variable: str, one: xr.Dataset) -> Finding:
    """Calibrated: spread/skill within 10 % of 1 or not to be told from it, no bias that matters, flat ranks."""
    ratio = float(one["spread_skill"])
    if not np.isfinite(ratio):
        return Finding("calibration", "info", f"{variable}: spread cannot be judged (one realization, or no error)")
    bounds = one["spread_skill_interval"].values
    low, high = bounds if np.isfinite(bounds).all() else (ratio, ratio)
    measured = f"(spread/skill {ratio:.2f}{_interval(bounds)}, {_index_text(one)})"
    said, level, text = f"{variable}: ", "warn", ""
    if ratio < _SPREAD_SKILL[0] and high < 1:
        level = "bad" if ratio < 0.7 else "warn"
        text = f"under-dispersed, spread {100 * (1 - ratio):.0f} % too small"
    elif ratio > _SPREAD_SKILL[1] and low > 1:
        level = "bad" if ratio > 1.4 else "warn"
        text = f"over-dispersed, spread {100 * (ratio - 1):.0f} % too large"
    elif not _SPREAD_SKILL[0] <= ratio <= _SPREAD_SKILL[1]:
        text = "too few samples to tell the spread from a calibrated one"
        text += f", but ranks are not flat{_shape(one)}" if _index_level(one) == "large" else ""
    elif _index_level(one) == "large":
        text = f"spread fits the error, but ranks are not flat{_shape(one)}"
    elif _biased(one):
        text = "spread fits the error, but the ensemble is biased"
    elif _index_level(one) == "visible":
        level, text = "good", f"calibrated but for a departure of the ranks that is seen and small{_shape(one)}"
    else:
        level, text = "good", "calibrated"
    return Finding("calibration", level, f"{said}{text} {measured}")


def _index_text(one: xr.Dataset) -> str:
    index, noise = float(one["reliability_index"]), float(one["reliability_noise"])
    return f"reliability index {index:.3f}" + (f", by chance up to {noise:.3f}" if np.isfinite(noise) else "")


def _index_level(one: xr.Dataset) -> str:
    """Nothing where ranks are as flat as chance leaves them, "visible" beyond that, "large" where it also matters."""
    index, noise = float(one["reliability_index"]), float(one["reliability_noise"])
    if np.isfinite(noise) and index <= noise:
        return ""
    return "large" if index > _INDEX_MATTERS else "visible" if np.isfinite(noise) else ""


def _shape(one: xr.Dataset) -> str:
    """What the ranks look like: the larger of a slope and a bow, the first two Legendre polynomials."""
    frequency = one["rank_histogram"].values
    away = frequency - 1.0 / frequency.size
    place = 2 * (np.arange(frequency.size) + 0.5) / frequency.size - 1
    waves = [place, 1.5 * np.square(place) - 0.5 - np.mean(1.5 * np.square(place) - 0.5)]
    parts = [float(away @ wave) / float(np.sqrt(wave @ wave)) if wave.any() else 0.0 for wave in waves]
    total = float(away @ away)
    if total == 0 or max(part**2 for part in parts) < _SHAPE * total:
        return ""
    if abs(parts[0]) >= abs(parts[1]):
        return f": a slope, as of members too {'low' if parts[0] > 0 else 'high'}"
    return _bow(one, up=parts[1] > 0)


def _bow(one: xr.Dataset, *, up: bool) -> str:
    """A U (`up`) or a dome, and what it is of where the spread as a whole says the opposite.

    Ranks count cells alike, and spread/skill counts each by its variance: a dome beside too little spread is of members
    that are too far apart in many cells, and too close together where errors are so large that they outweigh those.
    """
    name, here, there = ("a U", "close together", "far apart") if up else ("a dome", "far apart", "close together")
    text = f": {name}, as of members too {here}"
    ratio = float(one["spread_skill"])
    if (ratio <= 1 + _EVEN) if up else (ratio >= 1 - _EVEN):
        return text
    return f"{text} in many cells, and too {there} where {'they spread widely' if up else 'errors are large'}"


def _biased(one: xr.Dataset) -> bool:
    """Whether the mean is off by what matters, and not by chance."""
    bias, rmse = float(one["bias"]), float(one["rmse"])
    low, high = one["bias_interval"].values
    return bool(abs(bias) > _BIAS_MATTERS * rmse and not low <= 0 <= high)


def _bias(variable: str, one: xr.Dataset) -> list[Finding]:
    if not _biased(one):
        return []
    bias, bounds, units = float(one["bias"]), one["bias_interval"].values, str(one["units"].values)
    span = f" [{bounds[0]:+.3g}, {bounds[1]:+.3g}]" if np.isfinite(bounds).all() else ""
    share = 100 * abs(bias) / float(one["rmse"])
    text = f"{variable}: biased by {bias:+.3g} {units}".rstrip() + f"{span}, {share:.0f} % of the RMSE"
    return [Finding("bias", "warn", text)]


def _variogram(variable: str, one: xr.Dataset) -> list[Finding]:
    """Baselines whose variogram score is better than the model's beyond doubt: their fields hang together better."""
    if "variogram_skill" not in one:
        return []
    lost: list[str] = []
    for name in one["baseline"].values:
        skill = float(one["variogram_skill"].sel(baseline=name))
        low, high = (float(v) for v in one["variogram_skill_interval"].sel(baseline=name))
        if high < 0:
            lost.append(_by(name, -skill, -high, -low))
    text = f"{variable}: variogram score (how neighbouring cells differ) loses to {'; '.join(lost)}"
    return [Finding("skill", "bad", text)] if lost else []


def _distribution(variable: str, one: xr.Dataset) -> Finding:
    """Means, deviations and quantiles of two laws without counterparts."""
    shift, ratio = (float(one[name]) for name in ("mean_shift", "deviation_ratio"))
    if not np.isfinite([shift, ratio]).all():
        return Finding("distribution", "info", f"{variable}: distributions cannot be compared (a constant truth)")
    unit = f"{float(one['truth_deviation']):.3g} {one['units'].values!s}".strip()
    said: list[str] = []
    low, high = one["mean_shift_interval"].values
    if abs(shift) > _MEAN_MATTERS and not low <= 0 <= high:
        said.append(f"the mean is too {'high' if shift > 0 else 'low'}")
    bottom, top = one["deviation_ratio_interval"].values
    if not _DEVIATION[0] <= ratio <= _DEVIATION[1] and not bottom <= 1 <= top:
        said.append(f"the standard deviation is too {'large' if ratio > 1 else 'small'}")
    firm = one.sel(quantile=list(_FIRM_QUANTILES))
    off, bounds = firm["quantile_shift"].values, firm["quantile_shift_interval"].values
    far = (np.abs(off) > _QUANTILE_MATTERS) & ~((bounds[0] <= 0) & (bounds[1] >= 0))
    worst = int(np.argmax(np.where(far, np.abs(off), 0.0) if far.any() else np.abs(off)))
    if far.any():
        said.append(f"quantiles differ, most that of {100 * _FIRM_QUANTILES[worst]:g} %")
    span = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite([low, high]).all() else ""
    measured = (
        f"(in standard deviations of the truth, {unit}: mean {shift:+.2f}{span}, "
        f"{100 * _FIRM_QUANTILES[worst]:g} % quantile {off[worst]:+.2f}; standard deviation {ratio:.2f} times the "
        f"truth's{_interval(np.array([bottom, top]))})"
    )
    if not said:
        return Finding("distribution", "good", f"{variable}: distributed like the truth {measured}")
    level = "bad" if abs(shift) > 1 or not 0.5 <= ratio <= 2 else "warn"
    return Finding("distribution", level, f"{variable}: not distributed like the truth, {', '.join(said)} {measured}")


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


def _memorisation(scores: xr.Dataset, like: bool) -> list[Finding]:
    """What distances to the training data say, if the truth is new and `like` the ensemble."""
    if "memorisation" not in scores:
        return []
    ratio, copies = float(scores["memorisation"]), float(scores["memorisation_copies"])
    measured = f"members lie {ratio:.2f} times as far from the nearest training field as the truth does"
    if copies > 0.01:
        more = f" ({measured})" if np.isfinite(ratio) else ""
        text = f"memorising: {100 * copies:.0f} % of members are near copies of a training field{more}"
        return [Finding("memorisation", "bad", text)]
    if not np.isfinite(ratio):
        known = float(scores["memorisation_known"]) if "memorisation_known" in scores else np.nan
        why = f"{100 * known:.0f} % of the truth is among the training data" if known > 0 else "the truth repeats them"
        text = f"memorisation cannot be judged: {why}; score samples that training has not seen"
        return [Finding("memorisation", "warn", text)]
    if not like:
        text = f"memorisation cannot be judged: the truth is of another distribution ({measured})"
        return [Finding("memorisation", "info", text)]
    if ratio < _MEMORISING:
        return [Finding("memorisation", "warn", f"perhaps memorising: {measured}")]
    return [Finding("memorisation", "good", f"not memorising: {measured}")]


def _run(scores: xr.Dataset) -> list[Finding]:
    findings: list[Finding] = []
    share = float(scores.attrs.get("given_out_of_range", 0.0))
    if share > 0:
        text = f"{100 * share:.1f} % of the given values lie outside the range seen in training: an extrapolation"
        findings.append(Finding("range", "warn", text))
    if "still_improving" in scores.attrs:
        after = f" ({scores.attrs['trained_for']})" if scores.attrs.get("trained_for") else ""
        if scores.attrs["still_improving"]:
            text = f"under-trained{after}: the validation loss had not settled when training ended; give it more time"
            findings.append(Finding("training", "warn", text))
        else:
            findings.append(Finding("training", "good", f"trained long enough{after}: the validation loss had settled"))
    return findings


def _number(value: xr.DataArray) -> str:
    return f"{float(value):.4g}"


def _interval(bounds: np.ndarray) -> str:
    return f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if np.isfinite(bounds).all() else ""
