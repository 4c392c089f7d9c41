"""One small example or more of every implementation of every noun: the contract suites run over these lists.

``test_complete.py`` looks through the package and fails for a class that is not here.
"""

from types import SimpleNamespace

import torch

from undrift.denoise.guess import FoldedGuess, GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.nets import UNet
from undrift.objective.denoising import DenoisingScoreMatching, Regression
from undrift.objective.times import LogNormal
from undrift.process import EDM
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.grid import UniformBridge
from undrift.tasks import Downscale, Emulate

CPU = torch.device("cpu")

PROCESSES = {"EDM": EDM(), "EDM of little noise": EDM(sigma_max=5.0)}
SOLVERS = {f"Adams-Bashforth {order}": AdamsBashforth(order) for order in (1, 2, 3)}
GRIDS = {"uniform bridge": UniformBridge()}
TIMES = {"log-normal": LogNormal()}
TASKS = {"downscale": Downscale(2), "emulate": Emulate()}


def guesses() -> dict[str, GaussianGuess]:
    """A white guess and one of two modes, for fields of 2 x 4 x 6 numbers."""
    modes, _ = torch.linalg.qr(torch.randn(48, 2, generator=torch.Generator().manual_seed(0), device=CPU))
    variances = torch.tensor([6.0, 3.0], dtype=torch.float64, device=CPU)
    return {"white": GaussianGuess(floor=0.7), "two modes": GaussianGuess(modes.T, variances, 0.4)}


def net() -> UNet:
    """A small net of 2 channels and one given field, its weights moved away from zero."""
    made = UNet(3, 2, space=2, channels=(8, 16), blocks=1, vector_features=2, embedding=16)
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, device=CPU)
    return made.eval()


def denoisers() -> dict[str, object]:
    """Of fields (B, 2, 4, 6)."""
    return {
        f"{law}, {name}": Preconditioned(net(), process, guess)
        for law, process in PROCESSES.items()
        for name, guess in guesses().items()
    }


def objectives() -> dict[str, SimpleNamespace]:
    """Of fields (B, 2, 4, 6), and whether they draw anything."""
    folded = FoldedGuess(list(guesses().values()))
    return {
        "denoising score matching": SimpleNamespace(loss=DenoisingScoreMatching(EDM(), folded), random=True),
        "regression": SimpleNamespace(loss=Regression(), random=False),
    }
