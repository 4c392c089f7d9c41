"""Exponential integrators: what is linear in the ODE is solved exactly, the denoiser's part by a polynomial.

With ``rho = sigma / alpha = exp(-lambda / 2)`` the ODE has two exact solutions (Lu et al. 2022, "DPM-Solver",
https://arxiv.org/abs/2206.00927, proposition 3.1, and "DPM-Solver++", https://arxiv.org/abs/2211.01095, for
a network that predicts the data; their lambda is half of ours):

    x_s / alpha_s = x_t / alpha_t + integral of z drho,
    x_s / sigma_s = x_t / sigma_t + integral of x d(1 / rho).

Where ``sigma_s = 0`` the second leaves ``x_s = alpha_s x``: a run that ends at clean data ends with a denoising.
"""

import math

import numpy as np
import torch
from torch import Tensor

from undrift.denoise.estimate import Estimate
from undrift.process import Process
from undrift.solve.multistep import Multistep

__all__ = ["DEIS", "DPMSolverPlusPlus", "ExponentialAdamsBashforth", "SDEDPMSolverPlusPlus"]

_GAUSS = np.polynomial.legendre.leggauss(32)


def _integrals(nodes: np.ndarray, first: float, last: float, density: object) -> list[float]:
    """Integrals from first to last of the nodes' Lagrange polynomials times a density, by Gauss's quadrature."""
    points = first + (last - first) * (_GAUSS[0] + 1) / 2
    weight = _GAUSS[1] * (last - first) / 2 * density(points)  # type: ignore[operator]
    out = []
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        out.append(float((weight * np.prod((points[:, None] - others) / (node - others), axis=1)).sum()))
    return out


class _Order(Multistep):
    def __init__(self, order: int) -> None:
        if order not in (1, 2, 3):
            raise ValueError(f"order is {order}, expected 1, 2 or 3")
        super().__init__(order)


class DEIS(_Order):
    """tAB-DEIS: z as a polynomial in t, ``integral of l_i(t) rho'(t) dt``.

    Zhang & Chen (2022), "Fast sampling of diffusion models with exponential integrator",
    https://arxiv.org/abs/2204.13902.

    Args:
        order: 1 (DDIM), 2 or 3: one more than the degree of the polynomial.
    """

    def quantity(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """The noise."""
        return estimate.z

    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """See :class:`undrift.solve.multistep.Multistep`."""

        def rate(t: np.ndarray) -> np.ndarray:
            at = torch.tensor(t, dtype=torch.float64, device="cpu")
            alpha, sigma = process.alpha(at), process.sigma(at)
            return ((process.sigma_dot(at) * alpha - sigma * process.alpha_dot(at)) / alpha**2).numpy()

        alpha_s, alpha_t = float(process.alpha(s)), float(process.alpha(times[0]))
        parts = _integrals(times.cpu().numpy(), float(times[0]), float(s), rate)
        return alpha_s / alpha_t, [alpha_s * part for part in parts]


class ExponentialAdamsBashforth(_Order):
    """z or x as a polynomial in lambda, integrated exactly: exponential Adams-Bashforth methods.

    Hochbruck & Ostermann (2010), "Exponential integrators", https://doi.org/10.1017/S0962492910000048, exponential
    multistep methods.

    Args:
        order: 1 (DDIM, whichever is predicted), 2 or 3.
        of: "z", the noise, or "x", the data.
    """

    def __init__(self, order: int = 3, of: str = "x") -> None:
        super().__init__(order)
        if of not in ("x", "z"):
            raise ValueError(f"of is {of!r}, expected 'x' or 'z'")
        self.of = of

    def quantity(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """The data or the noise."""
        return estimate.x if self.of == "x" else estimate.z

    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """See :class:`undrift.solve.multistep.Multistep`."""
        t, last = times[0], float(process.log_snr(s))
        nodes = process.log_snr(times[~process.pure_noise(times)]).cpu().numpy()
        none = [0.0] * (len(times) - len(nodes))
        if self.of == "x":
            sigma_s = float(process.sigma(s))
            if bool(process.clean(s)):
                return 0.0, [float(process.alpha(s)), *[0.0] * (len(times) - 1)]
            parts = _integrals(nodes, float(nodes[0]), last, lambda v: np.exp(v / 2) / 2)
            return sigma_s / float(process.sigma(t)), [*(sigma_s * part for part in parts), *none]
        alpha_s = float(process.alpha(s))
        if bool(process.clean(s)):  # no polynomial in lambda reaches there
            parts = [-float(process.ratio(t)), *[0.0] * (len(nodes) - 1)]
        else:
            parts = _integrals(nodes, float(nodes[0]), last, lambda v: -np.exp(-v / 2) / 2)
        return alpha_s / float(process.alpha(t)), [*(alpha_s * part for part in parts), *none]


class DPMSolverPlusPlus(Multistep):
    """DPM-Solver++(2M): x extrapolated to the middle of the step in lambda.

    Lu et al. (2022), https://arxiv.org/abs/2211.01095, algorithm 2, with ``h = (lambda_s - lambda_t) / 2``, the last
    step's ``h'`` and ``r = h' / h``:

        x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) [(1 + 1 / 2r) x - 1 / 2r x'].
    """

    def __init__(self) -> None:
        super().__init__(2)

    def quantity(self, estimate: Estimate, process: Process, t: Tensor) -> Tensor:
        """The data."""
        return estimate.x

    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """See :class:`undrift.solve.multistep.Multistep`."""
        nodes = torch.where(process.pure_noise(times), -torch.inf, process.log_snr(times)).tolist()
        last, alpha_s, sigma_s = (float(v(s)) for v in (process.log_snr, process.alpha, process.sigma))
        if bool(process.clean(s)):
            return 0.0, [alpha_s, *[0.0] * (len(nodes) - 1)]
        h = (last - nodes[0]) / 2
        whole, keep = -alpha_s * math.expm1(-h), sigma_s / float(process.sigma(times[0]))
        if len(nodes) == 1 or h == 0 or math.isinf(h):
            return keep, [whole, *[0.0] * (len(nodes) - 1)]
        extra = h / (nodes[0] - nodes[1])  # 1 / 2r
        return keep, [whole * (1 + extra), -whole * extra]


class SDEDPMSolverPlusPlus(DPMSolverPlusPlus):
    """SDE-DPM-Solver++(2M): the same for the reverse SDE.

    Lu et al. (2022), https://arxiv.org/abs/2211.01095, with D the extrapolated x in square brackets above:

        x_s = sigma_s / sigma_t e^-h x_t + alpha_s (1 - e^-2h) D + sigma_s sqrt(1 - e^-2h) noise.

    Its weak order is 1 in general, as the noise enters x.
    """

    stochastic = True
    any_gaussian = True

    def __init__(self) -> None:
        super().__init__()
        self.order = 1

    def holds(self, process: Process, t: Tensor, s: Tensor) -> bool:
        """Everywhere: where alpha is 0, h is infinite and the step finite."""
        return True

    def coefficients(self, process: Process, times: Tensor, s: Tensor) -> tuple[float, list[float]]:
        """See :class:`undrift.solve.multistep.Multistep`."""
        keep, weights = super().coefficients(process, times, s)
        lost = self._lost(process, times[0], s)
        factor = lost / (1 - math.sqrt(1 - lost)) if lost else 0.0  # (1 - e^-2h) / (1 - e^-h)
        return keep * math.sqrt(1 - lost), [factor * weight for weight in weights]

    def noise(self, process: Process, t: Tensor, s: Tensor) -> float:
        """See :class:`undrift.solve.multistep.Multistep`."""
        return float(process.sigma(s)) * math.sqrt(self._lost(process, t, s))

    def _lost(self, process: Process, t: Tensor, s: Tensor) -> float:
        """``1 - e^-2h``."""
        if bool(process.pure_noise(t)):
            return float(s != t)
        return 0.0 if float(s) == float(t) else -math.expm1(float(process.log_snr(t) - process.log_snr(s)))
