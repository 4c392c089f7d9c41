"""Gaussians of which only the part between two bounds is seen (Tobin 1958, doi:10.2307/1907382).

A latent u at a point mass is marked -inf or inf: all that is known of it is the side of the threshold that it is on.
"""

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

__all__ = ["expected", "residuals", "surprise"]

_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


def _below(threshold: np.ndarray, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of N(mean, std^2) below a threshold."""
    a = (threshold - mean) / std
    ratio = np.exp(-0.5 * a**2 - _HALF_LOG_TWO_PI - log_ndtr(a))
    return mean - std * ratio, std**2 * np.clip(1 - a * ratio - ratio**2, 1e-6, 1)


def expected(
    u: np.ndarray, mean: np.ndarray, std: np.ndarray, low: np.ndarray | float, high: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Latents with those at a point mass replaced by conditional means, and the conditional variances (0 elsewhere).

    Args:
        u: latents, -inf and inf at point masses, NaN where missing.
        mean: of each, before it is seen; same shape, or one that broadcasts to it.
        std: likewise.
        low: threshold below which a latent is at the lower point mass, likewise.
        high: that of the upper one.
    """
    dry, wet = np.isneginf(u), np.isposinf(u)
    if not (dry.any() or wet.any()):
        return u, np.zeros_like(u)
    mean, std, low, high = (np.broadcast_to(v, u.shape) for v in (mean, std, low, high))
    out, variance = u.copy(), np.zeros_like(u)
    out[dry], variance[dry] = _below(low[dry], mean[dry], std[dry])
    m, v = _below(-high[wet], -mean[wet], std[wet])
    out[wet], variance[wet] = -m, v
    return out, variance


def surprise(u: np.ndarray, mean: np.ndarray, std: np.ndarray, low: float, high: float) -> np.ndarray:
    """Negative log-likelihood, in nats, of each latent; arguments as of :func:`expected`, all of one shape."""
    dry, wet = np.isneginf(u), np.isposinf(u)
    inside = np.where(dry | wet, mean, u)
    out = 0.5 * ((inside - mean) / std) ** 2 + np.log(std) + _HALF_LOG_TWO_PI
    out[dry] = -log_ndtr((low - mean[dry]) / std[dry])
    out[wet] = -log_ndtr((mean[wet] - high) / std[wet])
    return out


def residuals(
    u: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    draw: np.random.Generator | None,
    ranks: np.ndarray | None,
) -> np.ndarray:
    """Standardised latents, those at a point mass drawn from their law beyond the threshold.

    Args:
        u: latents, as the next four as of :func:`expected`.
        mean: of each.
        std: likewise.
        low: lower threshold.
        high: upper threshold.
        draw: generator; None for the median of that law.
        ranks: uniform in (0, 1), of the shape of u, in place of independent draws; or None.
    """
    r = (u - mean) / std
    for sign, at in ((1.0, np.isneginf(u)), (-1.0, np.isposinf(u))):
        if at.any():
            bound = np.broadcast_to(low if sign > 0 else high, u.shape)
            a = sign * ((bound - mean) / std)[at]
            drawn = 0.5 if draw is None else draw.random(a.shape) if ranks is None else ranks[at]
            share = drawn * (1 - 2e-12) + 1e-12
            r[at] = sign * np.clip(ndtri(share * ndtr(a)), -8, 8)
    return r
