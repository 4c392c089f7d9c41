"""One small example or more of every implementation of every noun: the contract suites run over these lists.

``test_complete.py`` looks through the package and fails for a class that is not here.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.exact import Gaussian, GaussianRandomField, Mixture
from undrift.denoise.guess import FoldedGuess, GaussianGuess, Guess
from undrift.denoise.precondition import Preconditioned
from undrift.denoise.rings import RingGuess
from undrift.denoise.spectral import SpectralGuess
from undrift.denoise.targets import Eps, F, LearnedRange, Mean, Score, V, Velocity, X
from undrift.guide import (
    DPS,
    MMPS,
    BlockMeans,
    BoundedMeans,
    Bounds,
    ClassifierFree,
    ClassifierGuidance,
    CoarseMeans,
    Constrained,
    Constraint,
    DivergenceFree,
    DivergenceFreeWith,
    FourierModes,
    Function,
    Integral,
    Kalman,
    Linear,
    Mask,
    Observation,
    PiGDM,
    Points,
    RegionalSums,
    Replacement,
    Scaled,
    Together,
)
from undrift.nets import DiT, SpaceTimeUNet, UNet
from undrift.objective import (
    SNR,
    ContinuousVLB,
    CrossEntropy,
    DiscreteVLB,
    Dropping,
    EDMWeight,
    FlowMatching,
    ImplicitScoreMatching,
    Likelihood,
    LogNormal,
    MinSNR,
    ScoreMatching,
    Simple,
    Uniform,
)
from undrift.objective.denoising import DenoisingScoreMatching, Regression
from undrift.process import (
    EDM,
    NCSN,
    VE,
    Coloured,
    ConditionalOT,
    Cosine,
    DataToData,
    DiscreteBetas,
    Empirical,
    FromSchedule,
    FromSDE,
    Independent,
    LinearBeta,
    LinearLogSNR,
    MinibatchOT,
    RectifiedFlow,
    StudentT,
    SubVP,
    White,
)
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.ancestral import DDIM, Ancestral
from undrift.solve.dpm_solver import DPMSolver
from undrift.solve.exponential import DEIS, DPMSolverPlusPlus, ExponentialAdamsBashforth, SDEDPMSolverPlusPlus
from undrift.solve.frames import Angle, Plain, Ratio, Straight
from undrift.solve.grid import EvenAngle, EvenLogSNR, EvenTime, Karras, Nodes, ShortFirst
from undrift.solve.pndm import PNDM
from undrift.solve.runge_kutta import DORMAND_PRINCE, KUTTA, MIDPOINT, Euler, Heun, RungeKutta
from undrift.solve.sde import (
    AnnealedLangevin,
    EulerMaruyama,
    ImprovedEuler,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from undrift.tasks import Downscale, Emulate, Enrich, LeadTime, Window
from undrift.tasks.batch import Condition

CPU = torch.device("cpu")

PROCESSES = {
    "EDM": EDM(),
    "EDM of little noise": EDM(sigma_max=5.0, sigma_min=0.01),
    "rectified flow": RectifiedFlow(),
    "linear beta": LinearBeta(),
    "DDPM": DiscreteBetas(),
    "few betas": DiscreteBetas([0.05, 0.1, 0.2, 0.3, 0.5, 0.7]),
    "cosine": Cosine(),
    "cosine and sine": Cosine(offset=0.0),
    "cosine that ends before noise": Cosine(t_max=0.99),
    "linear log-SNR": LinearLogSNR(),
    "VE": VE(),
    "NCSN": NCSN(),
    "sub-VP": SubVP(),
    "own schedule": FromSchedule(lambda t: 1 - t**2, lambda t: t + t**3 / 2),
    "own cosines, 6e-17 at both ends": FromSchedule(
        lambda t: torch.cos(torch.pi / 2 * t), lambda t: torch.cos(torch.pi / 2 * (1 - t))
    ),
    "own SDE": FromSDE(lambda t: -0.5 - 4 * t, lambda t: 1 + 2 * t**2),
}
NOISES = {
    "white": White(),
    "coloured": Coloured.isotropic((4, 6), -2.0),
    "Student's": StudentT(3.0),
    "a data set": Empirical(torch.zeros(3, 4, device=CPU)),
}
COUPLINGS = {
    "independent": Independent(),
    "optimal transport": MinibatchOT(),
    "conditional transport": ConditionalOT(),
    "data to data": DataToData(torch.arange(24.0, device=CPU).reshape(4, 6)),
}
TARGETS = {
    "eps": Eps(),
    "x": X(),
    "v": V(),
    "velocity": Velocity(),
    "score": Score(),
    "F": F(),
    "F of other data": F(1.7),
    "mean": Mean(lambda t: 0.9 * t),
    "learned range": LearnedRange("v", lambda t: 0.9 * t),
}
FRAMES = {"plain": Plain(), "ratio": Ratio(), "straight": Straight(), "angle": Angle()}
SOLVERS = {
    **{
        f"Adams-Bashforth {order}, {name}": AdamsBashforth(order, f)
        for order in (1, 2, 3)
        for name, f in FRAMES.items()
    },
    **{f"DEIS {order}": DEIS(order) for order in (1, 2, 3)},
    **{f"exponential {of} {order}": ExponentialAdamsBashforth(order, of) for order in (1, 2, 3) for of in ("x", "z")},
    **{f"DPM-Solver {order}": DPMSolver(order) for order in (1, 2, 3)},
    "DPM-Solver++ 2M": DPMSolverPlusPlus(),
    "PNDM": PNDM(),
    "PLMS": PNDM(warm_up=False),
    **{f"Euler, {name}": Euler(frame) for name, frame in FRAMES.items()},
    "Heun": Heun(),
    "Heun, angle": Heun(frame=Angle()),
    "midpoint": RungeKutta(MIDPOINT),
    "Kutta": RungeKutta(KUTTA),
    "Dormand-Prince": RungeKutta(DORMAND_PRINCE),
    "DDIM": DDIM(),
    # with noise
    "DDIM, eta 1": DDIM(1.0),
    "DDPM, posterior variance": Ancestral(),
    "DDPM, upper variance": Ancestral("upper"),
    "DDPM, learned variance": Ancestral("learned"),
    "churn": Heun(0.2),
    "SDE-DPM-Solver++": SDEDPMSolverPlusPlus(),
    "Euler-Maruyama": EulerMaruyama(),
    "improved Euler": ImprovedEuler(),
    "reverse diffusion": ReverseDiffusion(),
    "predictor-corrector": PredictorCorrector(),
    "annealed Langevin": AnnealedLangevin(0.005, 3),
    "Langevin": Langevin(),
}
GRIDS = {
    "short first": ShortFirst(),
    "even time": EvenTime(),
    "even angle": EvenAngle(),
    "even log-SNR": EvenLogSNR(),
    "Karras": Karras(),
}
NODES = Nodes()  # of discrete processes only
TIMES = {
    "log-normal": LogNormal(),
    "uniform": Uniform(0.1, 0.8),
    "independent": Uniform(low_discrepancy=False),
}
WEIGHTS = {
    "simple": Simple(),
    "SNR": SNR(),
    "min-SNR": MinSNR(),
    "EDM": EDMWeight(),
    "likelihood": Likelihood(),
}
OPERATORS = {  # of fields (B, 2, 4, 6)
    "mask": Mask(torch.arange(24, device=CPU).reshape(4, 6) % 5 == 0),
    "block means": BlockMeans(2),
    "points": Points(
        torch.tensor([[0.5, 4.2], [3.9, 5.5]], device=CPU), torch.tensor([1, 0], device=CPU), periodic=True
    ),
    "waves": FourierModes(torch.tensor([[0, 0], [1, 2], [2, 0]], device=CPU)),
    "regional sums": RegionalSums(torch.linspace(-1, 2, 144, device=CPU).reshape(3, 2, 4, 6)),
    "scaled": Scaled(BlockMeans(2), torch.linspace(0.5, 2, 48, device=CPU).reshape(2, 4, 6)),
    "function": Function(lambda x: torch.stack([(x**2).mean((1, 2, 3)), x[:, 0].sin().sum((1, 2))], 1)),
}
TASKS = {
    "downscale": Downscale(2),
    "emulate": Emulate(),
    "enrich": Enrich(1),
    "window": Window(past=1, future=0),
    "downscale in time": Window(past=1, future=0, factor=2),
    "lead-time": LeadTime("3d"),
}


def guesses() -> dict[str, Guess]:
    """A white guess, one of two modes, one of waves and one of rings, for fields of 2 x 4 x 6 numbers."""
    modes, _ = torch.linalg.qr(torch.randn(48, 2, generator=torch.Generator().manual_seed(0), device=CPU))
    variances = torch.tensor([6.0, 3.0], dtype=torch.float64, device=CPU)
    power = 0.05 + 3 * torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    share = torch.tensor([1.0, 9.0, 14.0]) / 24  # modes of 4 x 6 cosines by the two edges
    powers = torch.tensor([[4.0, 1.0, 0.3], [2.0, 0.8, 0.1]])
    return {
        "white": GaussianGuess(floor=0.7),
        "two modes": GaussianGuess(modes.T, variances, 0.4),
        "waves": SpectralGuess(power, (False, True)),
        "rings": RingGuess(powers, torch.tensor([0.05, 0.3]), share, torch.tensor([False, False])),
    }


def net() -> UNet:
    """A small net of 2 channels and one given field, its weights moved away from zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = UNet(3, 2, space=2, channels=(8, 16), blocks=1, vector_features=2, embedding=16)
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, device=CPU)
    return made.eval()


def nets() -> dict[str, torch.nn.Module]:
    """One of each kind, of fields (B, 3, 4, 6) to (B, 2, 4, 6); the last two of two frames."""
    window = {"space": 2, "frames": 2, "static": range(2, 3)}
    return {
        "U-Net": net(),
        "space-time U-Net": SpaceTimeUNet(3, 2, channels=(8, 8), **window),
        "DiT": DiT(3, 2, channels=(8,), layers=2, patch=2, **window),
    }


def denoisers() -> dict[str, SimpleNamespace]:
    """Of fields (B, 2, 4, 6), and whether they use what is given."""
    made = {
        f"{law}, {name}": SimpleNamespace(denoiser=Preconditioned(net(), PROCESSES[law], guess), given=True)
        for law in ("EDM", "rectified flow", "linear log-SNR")
        for name, guess in guesses().items()
    }
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(3, 48, generator=generator, dtype=torch.float64, device=CPU)
    root = torch.randn(48, 48, generator=generator, dtype=torch.float64, device=CPU)
    weigh = torch.randn(2, generator=generator, device=CPU)

    def own(x_t: torch.Tensor, label: torch.Tensor, condition: Condition) -> torch.Tensor:
        factor = 1 + condition.vectors["covariates"] @ weigh
        return x_t * (factor * torch.cos(label))[:, None, None, None] + condition.fields["given"]

    for law in ("EDM", "rectified flow"):
        process = PROCESSES[law]
        exact = {
            "Gaussian": Gaussian(means[0], root @ root.T / 48 + torch.eye(48, device=CPU), process),
            "mixture": Mixture(means, 0.5, [1.0, 2.0, 3.0], process),
            "random field": GaussianRandomField(Coloured.isotropic((4, 6), -2.0).power, process),
        }
        made |= {f"{law}, {name}": SimpleNamespace(denoiser=one, given=False) for name, one in exact.items()}
        function = Denoiser.from_callable(own, predicts="v", process=process)
        made[f"{law}, function"] = SimpleNamespace(denoiser=function, given=True)
    return made


def guides() -> dict[str, SimpleNamespace]:
    """Denoisers around those of fields (B, 2, 4, 6), and whether they use what is given."""
    within = denoisers()
    means = Observation(BlockMeans(2), torch.linspace(-1, 1, 12, device=CPU), 0.3)
    cells = Observation(OPERATORS["mask"], torch.ones(10, device=CPU), 0.5)
    curved = Observation(OPERATORS["function"], torch.ones(2, device=CPU), 0.5)
    made = {}
    for law in ("EDM", "rectified flow"):
        field, mixture = (within[f"{law}, {name}"].denoiser for name in ("random field", "mixture"))
        made |= {
            f"{law}, DPS": DPS(field, curved, 1e-4, steps=10),
            f"{law}, PiGDM": PiGDM(mixture, means),
            f"{law}, MMPS": MMPS(mixture, cells, tolerance=1e-6),
            f"{law}, Kalman": Kalman(mixture, cells, GaussianGuess()),
            f"{law}, MMPS in PiGDM": PiGDM(MMPS(field, cells, tolerance=1e-6), means),
        }
    cases = {name: SimpleNamespace(denoiser=one, given=False) for name, one in made.items()}
    network = within["EDM, white"].denoiser
    return cases | {"DPS of a network": SimpleNamespace(denoiser=DPS(network, means, 1e-4, steps=10), given=True)}


def constraints() -> dict[str, Constraint]:
    """Of fields (B, 2, 4, 6)."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device=CPU)

    means, areas = normal(1, 2, 2, 2), normal(4, 6).exp()
    made = {
        "block means": CoarseMeans(means, (2, 3)),
        "areal block means": CoarseMeans(means, (2, 3), areas),
        "integral": Integral(normal(2, 2, 4, 6), [1.0, -2.0]),
        "linear": Linear(normal(5, 48), normal(5)),
        "divergence": DivergenceFree((1, 0), (1.0, 0.5)),
        "bounds": Bounds(-0.5, 1.0),
    }
    made["bounded means"] = BoundedMeans(made["areal block means"], Bounds(-2.0, 3.0))
    flow = torch.eye(2, dtype=torch.float64, device=CPU)[:, :, None, None].expand(2, 2, 4, 6)
    made["divergence and flow"] = DivergenceFreeWith(made["divergence"], Integral(flow, [5.0, -9.0]))
    return made | {"together": Together(made["block means"], Bounds(low=-2.0))}


def guided() -> dict[str, SimpleNamespace]:
    """Denoisers around a denoiser of fields (B, 2, 4, 6), and whether they use what is given."""
    inner = Preconditioned(net(), EDM(), guesses()["two modes"])
    exact = GaussianRandomField(Coloured.isotropic((4, 6), -2.0).power, RectifiedFlow())
    known = torch.full((1, 2, 4, 6), torch.nan, device=CPU)
    known[..., :2, 1] = 0.3

    def logits(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(x_t).flatten(2).mean(2) * (1 - t.to(x_t.dtype))[:, None]

    kinked = ("bounds", "bounded means", "together")  # no derivative everywhere: exact/test_constraints.py has theirs
    smooth = {name: one for name, one in constraints().items() if name not in kinked}
    made = {f"constrained, {name}": Constrained(inner, one) for name, one in smooth.items()}
    made["replacement"] = Replacement(inner, known)
    made["classifier-free"] = ClassifierFree(inner, 1.5)
    made["stacked"] = Constrained(Replacement(ClassifierFree(inner, 0.5), known), constraints()["integral"])
    made["classifier"] = ClassifierGuidance(exact, logits, 1, 2.0)
    return {name: SimpleNamespace(denoiser=one, given=name != "classifier") for name, one in made.items()}


def objectives() -> dict[str, SimpleNamespace]:
    """Of fields (B, 2, 4, 6): whether they draw anything, and what they train, made of a net."""
    folded = FoldedGuess(list(guesses().values()))
    guess = guesses()["two modes"]

    def denoiser(net: torch.nn.Module) -> Denoiser:
        return Preconditioned(net, EDM(), guess)

    levels = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64, device=CPU)

    def classifier(net: torch.nn.Module) -> Callable[..., torch.Tensor]:
        return lambda x_t, t: net(torch.cat([x_t, x_t[:, :1]], 1), t.float(), x_t[:, :, 0, 0]).flatten(2).mean(2)

    losses = {
        "score matching": ScoreMatching(),
        "flow matching": FlowMatching(),
        "discrete bound": DiscreteVLB(levels),
        "continuous bound": ContinuousVLB(Uniform(0.01)),
        "sliced score matching": ImplicitScoreMatching(slices=1),
        "with and without what is given": Dropping(ScoreMatching(), 0.5),
    }
    cases = {
        "folded score matching": SimpleNamespace(
            loss=DenoisingScoreMatching(EDM(), folded), random=True, model=lambda net: net
        ),
        "regression": SimpleNamespace(loss=Regression(), random=False, model=lambda net: net),
        "cross-entropy": SimpleNamespace(loss=CrossEntropy(EDM(), "covariates"), random=True, model=classifier),
    } | {name: SimpleNamespace(loss=loss, random=True, model=denoiser) for name, loss in losses.items()}
    for name, case in cases.items():
        case.of_cells = name != "cross-entropy"  # a label is of the whole field
    return cases
