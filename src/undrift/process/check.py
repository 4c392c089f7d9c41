"""Whether a process is one: values, derivatives, inverses and ends, by trying it."""

import torch
from torch import Tensor

from undrift.errors import check_kind, described
from undrift.process.process import Process

__all__ = ["check_process"]

_CHECKED = 4097  # times at which a process is tried
_INVERTED = 256  # of which every so many is inverted
_SHORTER = 1e-5  # by how much a process ends before an infinite derivative


def check_process(process: Process) -> None:
    """Refuse what is no process: to be called once, in a test, on one of your own.

    ``FromSchedule`` and ``FromSDE`` are checked when they are made.

    Raises:
        TypeError: no object of Process, or without ``t_min`` and ``t_max``.
        ValueError: an alpha or sigma that is not float64, finite and above 0 but at its end, whose derivative is
            another or infinite at an end; an alpha / sigma that does not fall everywhere; or a ``log_snr``, ``ratio``
            or inverse that does not belong to it.
    """
    check_kind(Process, "RectifiedFlow()", process=process)
    check_ends(process)
    t = torch.linspace(process.t_min, process.t_max, _CHECKED, dtype=torch.float64, device="cpu")
    for name, end in (("alpha", -1), ("sigma", 0)):
        value, slope = (_tried(process, method, t) for method in (name, f"{name}_dot"))
        _check_value(name, value, t, end)
        _check_slope(name, value, slope, t)
    _check_fall(process, t)
    _check_inverse(process, t[1:-1:_INVERTED])


def check_ends(process: Process) -> None:
    """``t_min`` and ``t_max`` are there.

    Raises:
        TypeError: they are not, or no numbers.
        ValueError: they are not ``0 <= t_min < t_max <= 1``.
    """
    ends = getattr(process, "t_min", None), getattr(process, "t_max", None)
    said = f"t_min, t_max of {type(process).__name__} are {described(ends[0])}, {described(ends[1])}, expected "
    if not all(isinstance(end, int | float) for end in ends):
        raise TypeError(f"{said}numbers; in the class type t_min, t_max = 0.0, 1.0")
    if not 0 <= process.t_min < process.t_max <= 1:
        raise ValueError(f"{said}0 <= t_min < t_max <= 1")


def _tried(process: Process, name: str, t: Tensor) -> Tensor:
    made = getattr(process, name)(t)
    if not isinstance(made, Tensor) or made.shape != t.shape or made.dtype != torch.float64:
        raise ValueError(f"{name} made {described(made)} of t, expected {described(t)}")
    return made.detach()


def _check_value(name: str, value: Tensor, t: Tensor, end: int) -> None:
    may_be_0 = torch.zeros_like(value, dtype=torch.bool)
    may_be_0[end] = True
    wrong = ~torch.isfinite(value) | (value < 0) | ((value == 0) & ~may_be_0)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} is {float(value[first]):g} at t = {float(t[first]):.6g}, expected a finite number above 0 "
            "between t = 0, data, and t = 1, noise"
        )


def _check_slope(name: str, value: Tensor, slope: Tensor, t: Tensor) -> None:
    for at, shorter in ((0, f"t_min={float(t[0]) + _SHORTER:g}"), (-1, f"t_max={float(t[-1]) - _SHORTER:g}")):
        if not bool(torch.isfinite(slope[at])):
            raise ValueError(
                f"the derivative of {name} is {float(slope[at]):g} at t = {float(t[at]):g}, expected a finite number; "
                f"type {shorter}"
            )
    slope, change = slope[1:-1], (value[2:] - value[:-2]) / (t[2] - t[0])
    off = (slope - change).abs().nan_to_num(nan=torch.inf)
    if float(off.median()) > 1e-3 * float(change.abs().max()):  # an end, or a kink, may be steep
        middle = len(slope) // 2
        raise ValueError(
            f"the derivative of {name} is {float(slope[middle]):g} in the middle, and its values change by "
            f"{float(change[middle]):g}; expected a function made of torch operations on t, or {name}_dot to be that "
            f"of {name}"
        )


def _check_fall(process: Process, t: Tensor) -> None:
    alpha, sigma = process.alpha(t), process.sigma(t)
    level, log_snr = alpha / torch.hypot(alpha, sigma), 2 * (alpha.log() - sigma.log())
    rising = (log_snr.diff() >= 0).nonzero()
    if len(rising):
        at = int(rising[0])
        raise ValueError(
            f"alpha / sigma does not fall between t = {float(t[at]):.6g} and {float(t[at + 1]):.6g} "
            f"(alpha / sqrt(alpha^2 + sigma^2) goes from {float(level[at]):.6g} to {float(level[at + 1]):.6g}); "
            "expected t = 0 to be data and t = 1 noise"
        )


def _check_inverse(process: Process, t: Tensor) -> None:
    """In lambda, as t itself is not determined where lambda hardly falls."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    level = 2 * (alpha.log() - sigma.log())

    def lambda_at(t: Tensor) -> Tensor:
        return 2 * (process.alpha(t).log() - process.sigma(t).log())

    found = {
        "log_snr": _tried(process, "log_snr", t),
        "ratio": -2 * _tried(process, "ratio", t).log(),
        "t_of_log_snr": lambda_at(process.t_of_log_snr(level)),
        "t_of_ratio": lambda_at(process.t_of_ratio(sigma / alpha)),
    }
    for name, values in found.items():
        wrong = ((values - level).abs() > 1e-6 * (1 + level.abs())) | torch.isnan(values)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise ValueError(
                f"{name} is that of lambda = {float(values[at]):.6g} at t = {float(t[at]):.6g}, where alpha and sigma "
                f"have {float(level[at]):.6g}; expected log(alpha^2 / sigma^2), or leave {name} away"
            )
