"""Time grids: where a solver stops on its way from noise to data."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from undrift.errors import check_kind, check_number, check_whole, described
from undrift.process import Process
from undrift.solve.frames import Angle, Frame, Plain, Straight

__all__ = ["EvenAngle", "EvenLogSNR", "EvenTime", "Karras", "Nodes", "ShortFirst", "TimeGrid"]


class TimeGrid(ABC):
    """Times of a run, from the process and the number of steps alone."""

    @abstractmethod
    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """Times, float64, (steps + 1,), decreasing from ``t_max`` to ``t_min``."""


class _Even(TimeGrid):
    frame: Frame

    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """See :class:`TimeGrid`."""
        ends = _ends(process, steps, device)
        first, last = self.frame.clock(process, ends).tolist()
        clock = torch.linspace(first, last, steps + 1, dtype=torch.float64, device=device)
        return torch.cat([ends[:1], self.frame.time(process, clock[1:-1]), ends[1:]])


class EvenTime(_Even):
    """Equal steps in t."""

    frame = Plain()


class EvenAngle(_Even):
    """Equal steps in ``atan2(sigma, alpha)``, the time of the cosine schedule, for any process."""

    frame = Angle()


class EvenLogSNR(TimeGrid):
    """Equal steps in lambda, the grid of DPM-Solver (Lu et al. 2022, https://arxiv.org/abs/2206.00927).

    Where lambda is infinite at an end of the process, the first or last step goes there from the bound.

    Args:
        least: smallest ratio sigma / alpha before an end at clean data.
        most: largest one after a start at pure noise.
    """

    def __init__(self, least: float = 0.002, most: float = 80.0) -> None:
        check_number(least=least, most=most)
        if not 0 < least < most:
            raise ValueError(f"least, most are {least}, {most}, expected 0 < least < most")
        self.least, self.most = least, most

    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """See :class:`TimeGrid`."""
        ends = _ends(process, steps, device)
        ratio = process.ratio(ends)
        before = [ends[:1]] if bool(process.pure_noise(ends[0])) else []
        after = [ends[1:]] if bool(process.clean(ends[1])) else []
        count = steps + 1 - len(before) - len(after)
        if count < 2:
            return _Even.__call__(EvenAngle(), process, steps, device)
        high = self.most if before else float(ratio[0])
        low = min(self.least, high / 2) if after else float(ratio[1])
        inner = process.t_of_ratio(self.between(high, low, count, device))
        if not before:
            inner[0] = process.t_max
        if not after:
            inner[-1] = process.t_min
        return torch.cat([*before, inner, *after])

    def between(self, high: float, low: float, count: int, device: torch.device | str) -> Tensor:
        """So many ratios from high to low."""
        shares = torch.linspace(0, 1, count, dtype=torch.float64, device=device)
        return high * (low / high) ** shares


class Karras(EvenLogSNR):
    """Equal steps in ``(sigma / alpha)^(1 / rho)`` (Karras et al. 2022, https://arxiv.org/abs/2206.00364, eq. 5).

    Args:
        rho: the power.
        least: smallest ratio before an end at clean data, their sigma_min.
        most: largest one after a start at pure noise.
    """

    def __init__(self, rho: float = 7.0, least: float = 0.002, most: float = 80.0) -> None:
        super().__init__(least, most)
        check_number(rho=rho)
        if not rho > 0:
            raise ValueError(f"rho is {rho}, expected a number above 0")
        self.rho = rho

    def between(self, high: float, low: float, count: int, device: torch.device | str) -> Tensor:
        """See :class:`EvenLogSNR`."""
        shares = torch.linspace(0, 1, count, dtype=torch.float64, device=device)
        return (high ** (1 / self.rho) + shares * (low ** (1 / self.rho) - high ** (1 / self.rho))) ** self.rho


class Nodes(TimeGrid):
    """The process's own discrete times, all or evenly respaced (DDPM's steps, NCSN's levels)."""

    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """See :class:`TimeGrid`.

        Raises:
            ValueError: the process has no discrete times, or fewer than are asked.
        """
        _ends(process, steps, device)
        nodes = getattr(process, "nodes", None)
        if nodes is None:
            raise ValueError(f"{type(process).__name__} has no discrete times; use another grid")
        if steps > len(nodes) - 1:
            raise ValueError(f"steps is {steps}, expected {len(nodes) - 1} at most, the steps of the process")
        rows = torch.linspace(len(nodes) - 1, 0, steps + 1, dtype=torch.float64, device="cpu").round().long()
        return nodes[rows].to(device)


class ShortFirst(TimeGrid):
    """Equal steps in a power of ``u = sigma / (alpha + sigma)``, from noise to data, the first one short: the default.

    Along u the rescaled field ``x_t / (alpha + sigma)`` runs on straight lines ``(1 - u) x + u z``. With power 1 these
    are cut into equal parts; a power below 1 has shorter steps near the data, where the details of a field are decided.
    With few steps that matters most, and with many the large scales of a random field do, whose errors are smallest
    with power 1: of n steps the power is ``n / (n + 4.7)``, and of less than six ``3.3 / n``, as they are too few to
    leave the noise in long steps. Nothing in it knows the data (``benchmarks/solvers.py``).

    A multistep solver begins with a step of order one, whose error is of the order of the square of its length: with
    steps of length h the first is ``h^(3/2)`` long, so that a solver of order three keeps its order. For Gaussian data
    of twice the unit scale, ten steps then end 0.4 % from the true standard deviation instead of 2 %.

    Args:
        power: of u, for any number of steps; as above if None.
    """

    def __init__(self, power: float | None = None) -> None:
        if power is not None:
            check_number(power=power)
            if not power > 0:
                raise ValueError(f"power is {power}, expected a number above 0")
        self.power = power

    def __call__(self, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
        """See :class:`TimeGrid`."""
        ends, clock = _ends(process, steps, device), Straight()
        power = self.power or max(steps / (steps + 4.7), min(3.3 / steps, 1.0))
        first, last = (clock.clock(process, ends) ** power).tolist()
        rest = torch.linspace(first - ((first - last) / steps) ** 1.5, last, steps, dtype=torch.float64, device=device)
        return torch.cat([ends[:1], clock.time(process, rest[:-1] ** (1 / power)), ends[1:]])


def times_of(grid: TimeGrid, process: Process, steps: int, device: torch.device | str = "cpu") -> Tensor:
    """The times of a grid, which may be of somebody's own, checked, float64, (steps + 1,).

    Raises:
        ValueError: they are not what :class:`TimeGrid` says, or no tensor.
    """
    times, first, last = grid(process, steps, device), process.t_max, process.t_min
    if not isinstance(times, Tensor) or times.shape != (steps + 1,) or times.dtype != torch.float64:
        wrong = described(times)
    elif not bool((times.diff() < 0).all()):
        wrong = "times that do not fall everywhere"
    elif float(times[0]) != first or float(times[-1]) != last:
        wrong = f"times from {float(times[0]):.6g} to {float(times[-1]):.6g}"
    else:
        return times
    raise ValueError(
        f"the grid {type(grid).__name__} made {wrong}, expected float64 ({steps + 1},), falling from exactly "
        f"t_max = {first:.6g} to t_min = {last:.6g}"
    )


def _ends(process: Process, steps: int, device: torch.device | str) -> Tensor:
    """Start and end of a run of so many steps.

    Raises:
        TypeError: no process.
        UsageError: no whole number of steps.
    """
    check_kind(Process, "EDM()", process=process)
    check_whole(1, steps=steps)
    return torch.tensor([process.t_max, process.t_min], dtype=torch.float64, device=device)
