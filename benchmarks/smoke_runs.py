"""Buoyant smoke in a closed box, as many runs of one solver: semi-Lagrangian advection, buoyancy, pressure projection.

Each run has an inflow of its own (place, width, rate), a buoyancy and a wind that changes at random, none of which the
models are told: they see frames of the smoke alone.
"""

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, map_coordinates

__all__ = ["smoke"]

SIDE = 64


def smoke(runs: int, frames: int, seed: int, steps: int = 2, dt: float = 1.0) -> np.ndarray:
    """Densities (runs, frames, 64, 64), one frame after so many steps; y (upwards) is the first axis of space."""
    rng = np.random.default_rng(seed)
    return np.stack([_run(np.random.default_rng(rng.integers(2**63)), frames, steps, dt) for _ in range(runs)])


def _run(rng: np.random.Generator, frames: int, steps: int, dt: float) -> np.ndarray:
    y, x = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5, indexing="ij")
    place, width = rng.uniform((6, 14), (16, 50)), rng.uniform(2.5, 5)
    inflow = rng.uniform(0.08, 0.2) * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * width**2))
    blob = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 6)
    density = np.clip(blob / blob.std() - 0.6, 0, None) * 0.8  # what there is at first, anywhere in the box
    buoyancy, wind = rng.uniform(0.05, 0.15), rng.normal() * 0.02
    v = u = np.zeros((SIDE, SIDE))
    out = []
    for _ in range(frames):
        for _ in range(steps):
            wind = 0.95 * wind + 0.006 * rng.normal()
            density = _advected(density, v, u, dt) + dt * inflow
            v, u = (_advected(w, v, u, dt) for w in (v, u))
            v, u = v + dt * buoyancy * density, u + dt * wind * y / SIDE
            v, u = _projected(v, u)
        out.append(density)
    return np.array(out, np.float32)


def _advected(q: np.ndarray, v: np.ndarray, u: np.ndarray, dt: float) -> np.ndarray:
    """The field where each parcel was a step before, its path by the midpoint rule."""
    at = np.indices(q.shape).astype(np.float64)
    half = at - 0.5 * dt * np.stack([v, u])
    middle = np.stack([map_coordinates(w, half, order=1, mode="nearest") for w in (v, u)])
    return map_coordinates(q, at - dt * middle, order=1, mode="nearest")


def _projected(v: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The velocity without its divergence, and with none through the walls: cosine and sine series of the box."""
    v, u = v.copy(), u.copy()
    v[[0, -1]], u[:, [0, -1]] = 0, 0
    k = np.pi * np.arange(SIDE) / SIDE
    symbol = 2 * (np.cos(k)[:, None] + np.cos(k)[None] - 2)  # of the Laplacian on the grid
    symbol[0, 0] = np.inf
    for _ in range(2):
        divergence = np.gradient(v, axis=0) + np.gradient(u, axis=1)
        pressure = idctn(dctn(divergence, type=2) / symbol, type=2)
        v, u = v - np.gradient(pressure, axis=0), u - np.gradient(pressure, axis=1)
        v[[0, -1]], u[:, [0, -1]] = 0, 0
    return v, u
