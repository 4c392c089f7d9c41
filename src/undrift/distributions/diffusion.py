"""A diffusion model as a distribution: process, denoiser, solver."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.guess import Guess, by_rows
from undrift.denoise.precondition import Preconditioned
from undrift.denoise.rings import RingGuess
from undrift.denoise.trust import Trusted
from undrift.distributions.start import starts
from undrift.errors import UndriftError
from undrift.infer.sample import sample
from undrift.nets.members import member_of
from undrift.process import EDM, Process
from undrift.solve.grid import ShortFirst, TimeGrid
from undrift.tasks.batch import Condition

__all__ = ["GRIDS", "Diffusion"]

# By the name that a run keeps: its draws stay what they were. Runs that name none were drawn on even steps.
GRIDS: dict[str, TimeGrid] = {"even": ShortFirst(1.0), "short first": ShortFirst()}


class Diffusion:
    """The law of fields that a trained network and its process define.

    Args:
        net: network, see :class:`undrift.denoise.precondition.Preconditioned`.
        guess: Gaussian guess of the preconditioning.
        process: noising process.
        precision: dtype of the network's arithmetic.
        micro_batch: fields in each network call. Every call has this shape, short ones are padded, so that a field's
            numbers do not depend on how many are drawn with it.
        grid: name of the time grid.
        trust: in the network where nothing is given, see :class:`undrift.denoise.trust.Trusted`.
    """

    def __init__(
        self,
        net: nn.Module,
        guess: Guess,
        *,
        process: Process | None = None,
        precision: torch.dtype = torch.float32,
        micro_batch: int = 16,
        grid: str = "short first",
        trust: Sequence[float] | None = None,
    ) -> None:
        self.net, self.guess, self.micro_batch = net, guess, micro_batch
        self.process = process or EDM()
        self.precision, self.grid = precision, GRIDS[grid]
        self.trust = trust
        self._denoisers: dict[tuple[int, bool], Preconditioned] = {}  # each remembers what depends on the times alone
        self._starts: dict[int, Tensor] = {}

    def sample(
        self,
        condition: Condition,
        z: Tensor,
        *,
        nfe: int = 10,
        member: int = 0,
        guided: Callable[[Denoiser], Denoiser] | None = None,
        alone: bool = False,
        finish: bool | None = None,
    ) -> Tensor:
        """One field for each row of the noise.

        Args:
            condition: what is given, one row for each field.
            z: standard normal noise, (B, C, *space).
            nfe: network evaluations.
            member: which network draws, where there are several.
            guided: what goes around the denoiser.
            alone: nothing is given, so that the network counts for what it is trusted.
            finish: whether the guess finishes what is drawn; None where nothing guides it. Fields that agree with
                observations stay, and those of constraints that hold once more afterwards do not.

        Raises:
            UndriftError: a field left the finite numbers.
        """
        x_1 = self._start(z, nfe)
        alone = alone and self.trust is not None
        if (member, alone) not in self._denoisers:
            net = member_of(self.net, member)
            net = Trusted(net, self.trust) if alone and self.trust is not None else net
            self._denoisers[member, alone] = Preconditioned(net, self.process, self.guess, self.precision)
        within = self._denoisers[member, alone]
        denoiser = within if guided is None else guided(within)
        was_training = self.net.training
        self.net.eval()
        out = []
        for start in range(0, len(z), self.micro_batch):
            stop = min(start + self.micro_batch, len(z))
            rows = torch.arange(start, start + self.micro_batch, device=z.device).clamp(max=stop - 1)
            draw = sample(denoiser, x_1[rows], condition.index(rows), nfe=nfe, grid=self.grid)
            if draw.status != "done":
                raise UndriftError("the sampler left the finite numbers; train longer, or with a smaller learning rate")
            finishes = guided is None if finish is None else finish
            x = self._finished(draw.x, condition.index(rows)) if finishes else draw.x
            out.append(x[: stop - start])
        self.net.train(was_training)
        return torch.cat(out)

    def _start(self, z: Tensor, nfe: int) -> Tensor:
        """Fields (B, C, *space) in the largest noise, from standard normal ones."""
        if isinstance(self.guess, RingGuess):
            if nfe not in self._starts:
                self._starts[nfe] = starts(self.guess, self.process, self.grid, nfe)
            return self.guess.filtered(z, self._starts[nfe].to(z.dtype))
        t_max = torch.tensor(self.process.t_max, dtype=torch.float64, device=z.device)
        return float(self.process.sigma(t_max)) * z

    def _finished(self, x: Tensor, condition: Condition) -> Tensor:
        """What is drawn as the guess finishes it."""
        guesses, rows = zip(*self.guess.parts(condition, len(x)))
        return condition.blanked(by_rows([guess.finished(x, condition) for guess in guesses], rows))
