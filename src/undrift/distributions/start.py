"""Where draws start: at noise from which the steps of the sampler take a Gaussian guess to its own covariance.

Without what a network adds, a run of the sampler from the noise sigma is linear, and multiplies the amplitude of a mode
of variance P by a number h(P) of its steps. From ``sigma z`` the mode would end with the variance ``(h sigma)^2``,
which is below P where the mode is not small beside sigma, as noise alone is not all that there is at sigma,

    (h sigma)^2 -> P sigma^2 / (P + sigma^2)    with more and more steps,

and few steps are too long for it: of a mode of 20 to 60 times the unit scale, as wide rain has them, six steps from
sigma = 80 leave 40 % of the variance. So modes start from ``sqrt(P) / |h| z``, which tends to the law that they have in
the noise, ``N(0, P + sigma^2)``, and end with the variance P after any number of steps.
"""

import torch
from torch import Tensor, nn

from undrift.denoise.precondition import Preconditioned
from undrift.denoise.rings import RingGuess
from undrift.infer.sample import sample
from undrift.process import Process
from undrift.solve.grid import TimeGrid

__all__ = ["Silent", "starts"]

_RANGE = (0.5, 2.0)  # of the start's standard deviation, over that in the noise


class Silent(nn.Module):
    """A network that adds nothing to the guess of fields of so many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, label: Tensor, vector: Tensor | None) -> Tensor:
        """0, (B, channels, *space)."""
        return torch.zeros_like(x[:, : self.channels])


@torch.no_grad()
def starts(guess: RingGuess, process: Process, grid: TimeGrid, nfe: int) -> Tensor:
    """What the amplitudes of standard normal noise are multiplied by, (1, C, K), float64.

    Args:
        guess: of the preconditioning.
        process: noising process.
        grid: of the times.
        nfe: network evaluations.
    """
    device = guess.powers.device
    t_max = torch.tensor(process.t_max, dtype=torch.float64, device=device)
    alpha, sigma = process.alpha(t_max), process.sigma(t_max)
    ones = torch.ones(1, *guess.powers.shape, dtype=torch.float64, device=device)
    alone = Preconditioned(Silent(len(guess.powers)), process, guess.amplitudes())
    end = sample(alone, sigma * ones, nfe=nfe, grid=grid).x.abs()
    in_noise = (alpha**2 * guess.powers + sigma**2).sqrt()
    return (sigma * guess.powers.sqrt() / end / in_noise).clamp(*_RANGE) * in_noise
