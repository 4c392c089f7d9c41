"""Sequences of two handwritten digits that bounce in a box (Srivastava et al. 2015, https://arxiv.org/abs/1502.04681)."""

import numpy as np

SIDE, DIGITS, SPEED = 64, 2, 3.6
"""Cells along each side of the box, digits in it, and cells that each of them goes in a frame."""


def paths(count: int, frames: int, room: int, rng: np.random.Generator) -> np.ndarray:
    """Corners of digits that go straight and bounce off walls, (count, frames, 2), within [0, room]."""
    angle = rng.uniform(0, 2 * np.pi, count)
    velocity = SPEED * np.stack([np.sin(angle), np.cos(angle)], 1)
    free = rng.uniform(0, room, (count, 1, 2)) + velocity[:, None] * np.arange(frames)[:, None]
    return room - np.abs(free % (2 * room) - room)  # unfolded at the walls


def moving_digits(images: np.ndarray, count: int, frames: int, seed: int) -> np.ndarray:
    """Sequences (frames, count, 64, 64) of digits among images (n, h, h) in [0, 255], the brighter in front."""
    rng, side = np.random.default_rng(seed), images.shape[1]
    out = np.zeros((frames, count, SIDE, SIDE), np.uint8)
    for _ in range(DIGITS):
        chosen = images[rng.integers(len(images), size=count)]
        corners = np.round(paths(count, frames, SIDE - side, rng)).astype(int)
        for k in range(frames):
            for i, (y, x) in enumerate(corners[:, k]):
                box = out[k, i, y : y + side, x : x + side]
                np.maximum(box, chosen[i], out=box)
    return out
