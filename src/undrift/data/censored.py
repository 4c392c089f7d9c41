"""Gaussians of which only the part between two bounds is seen (Tobin 1958, doi:10.2307/1907382).

A latent u at a point mass is marked -inf or inf: all that is known of it is the side of the threshold that it is on.
"""

import numpy as np
from scipy.special import log_ndtr

__all__ = ["expected", "surprise"]

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
