"""Drawing given observations at stations: an unconditional model is guided, and not trained again."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from undrift.data.codec import Codec
from undrift.data.encoded import Predicted
from undrift.data.stations import Stations
from undrift.denoise.denoiser import Denoiser
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.guide.kalman import Kalman
from undrift.guide.observe import Observation
from undrift.guide.operators import Points, Scaled
from undrift.guide.posterior import MMPS

__all__ = ["ITERATIONS", "guide_of"]

ITERATIONS = 5
"""Of conjugate gradients: each costs half as much again as an evaluation of the network."""
_TOLERANCE = 1e-2
_SOLVED = 2000  # numbers up to which their covariance is inverted at each step


def guide_of(
    seen: Sequence[tuple[int, Stations]], codec: Codec, predicted: Predicted
) -> Callable[[Denoiser], Denoiser]:
    """What goes around a denoiser of residuals, given what stations saw at frames of a window.

    A value v of a variable with transform T is taken for T(v) in latents, with the error ``T'(v)`` times as large, and
    interpolated between the latents of the cells around it.

    Args:
        seen: frames, and what was seen at each.
        codec: of the model.
        predicted: of the field, whose residuals are drawn, (1, C, *space).
    """
    layout, values, errors, channels = codec.layout, [], [], []
    seasons = None if predicted.seasons is None else predicted.seasons[0]
    for frame, name, at, value, error in (
        (f, *row) for f, s in seen for row in zip(s.variables, s.positions, s.values, s.errors)
    ):
        channel = layout.channels_of(name)[frame]
        transform = codec.transforms[channel]
        near = transform.continuous(np.array([value - error / 2, value, value + error / 2]))
        near = near if codec.anamorphosis is None else codec.anamorphosis.at(channel, near, at, seasons)
        channels.append(channel)
        values.append(near[1])
        errors.append(max(abs(near[2] - near[0]), 1e-6))
    mean, std = (
        torch.from_numpy(np.ascontiguousarray(v[:1], dtype=np.float64)) for v in (predicted.mean, predicted.std)
    )
    positions = torch.from_numpy(np.concatenate([s.positions for _, s in seen]))
    points = Points(positions, torch.tensor(channels), periodic=layout.periodic)
    away = torch.tensor(values, dtype=torch.float64) - points(mean)[0]
    observation = Observation(Scaled(points, std[0]), away, torch.tensor(errors, dtype=torch.float64))

    def guided(denoiser: Denoiser) -> Denoiser:
        # of several frames the guess is of what usually is asked of them, and not of windows of which nothing is given
        single = layout.frames == 1 and len(values) <= _SOLVED
        guess = denoiser.guess if isinstance(denoiser, Preconditioned) else None
        if single and isinstance(guess, GaussianGuess) and len(guess.variances):
            return Kalman(denoiser, observation, guess)
        return MMPS(denoiser, observation, iterations=ITERATIONS, tolerance=_TOLERANCE)

    return guided
