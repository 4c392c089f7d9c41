"""Bad input to the entries on plain tensors: one sentence each, of what was got, what was expected and what to type."""

import math

import numpy as np
import pytest
import torch

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.exact import Gaussian
from undrift.denoise.targets import F, X
from undrift.errors import UndriftError
from undrift.infer import log_prob, sample
from undrift.nets import MLP
from undrift.objective import SNR, DiscreteVLB, FlowMatching, ImplicitScoreMatching, ScoreMatching, Uniform
from undrift.process import (
    EDM,
    NCSN,
    VE,
    Bridge,
    Coloured,
    Cosine,
    DataToData,
    DiscreteBetas,
    FromSchedule,
    FromSDE,
    Independent,
    LinearBeta,
    LinearLogSNR,
    MinibatchOT,
    Process,
    RectifiedFlow,
    StudentT,
    White,
)
from undrift.solve.adams_bashforth import AdamsBashforth
from undrift.solve.ancestral import DDIM
from undrift.solve.frames import Straight
from undrift.solve.grid import EvenTime, Karras, Nodes, ShortFirst, TimeGrid
from undrift.solve.runge_kutta import Heun
from undrift.solve.sde import AnnealedLangevin, Langevin, PredictorCorrector
from undrift.solve.solver import Solver, State
from undrift.solve.step_size import Adaptive
from undrift.tasks.batch import Batch, Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit

SAMPLES = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
LOST = SAMPLES.clone()
LOST[3, 1] = math.nan
NET = MLP(2, width=8)
LAW = Gaussian([0.0, 0.0], [1.0, 1.0], RectifiedFlow())
VECTORS = Condition(vectors={"given": SAMPLES})


def around(fn=NET, **options):
    return Denoiser.from_callable(fn, **{"predicts": "velocity", "process": RectifiedFlow(), **options})


class Own(Denoiser):
    """Of somebody's own, with classes for objects."""

    def __init__(self, process, noise):
        self.process, self.noise = process, noise

    def __call__(self, x_t, t, condition=None):
        raise AssertionError("is refused before")


class NoEnds(Process):
    """Without t_min and t_max."""

    def alpha(self, t):
        return 1 - t

    sigma = alpha_dot = sigma_dot = alpha


def refused(call, *parts):
    """The one sentence that a call ends with has all parts."""
    with pytest.raises((ValueError, TypeError, UndriftError)) as caught:
        call()
    said = str(caught.value)
    assert all(part in said for part in parts), said
    assert "\n" not in said and len(said) < 300


FITS = [
    ({"x": SAMPLES[:, 0]}, "x is (16,) of torch.float32, expected a tensor (B, ...)", "type x[:, None]"),
    ({"x": SAMPLES.numpy()}, "x is ndarray (16, 2) of float32, expected a tensor", "torch.as_tensor("),
    ({"x": SAMPLES.long()}, "x is (16, 2) of torch.int64, expected a tensor", "real numbers"),
    ({"x": LOST}, "x is NaN or infinite in 1 of 16 rows, first in row 3", "weight=torch.isfinite(x).float()"),
    ({"x": LOST, "weight": torch.ones(16, 2)}, "x is NaN or infinite in 1 of 16 rows"),
    ({"x": SAMPLES.double()}, "x_t (256, 2) of torch.float64", "for weights of float32 give fields.float()"),
    ({"model": None}, "model is MLP, expected an object of Denoiser", "type model=Denoiser.from_callable(net,"),
    ({"model": around(lambda x, t: (x, t))}, "made tuple, expected a tensor (256, 2)", "lambda x, t: net(x, t)[0]"),
    ({"model": around(lambda x, t: NET(x, t)[:, :1])}, "the network made (256, 1) of (256, 2), expected (256, 2)"),
    ({"model": around(MLP(3, width=8))}, "the network fails on x_t (256, 2)", "label (256,)"),
    ({"model": around(MLP(2, width=8))}, "does not depend on its weights", "made around the same network"),
    ({"net": around(), "model": None}, "net is FromCallable, expected an object of Module"),
    ({"batch": 0}, "batch is 0, expected a whole number of at least 1"),
    ({"batch": 2.5}, "batch is 2.5, expected a whole number of at least 1"),
    (
        {"weight": np.ones((16, 2))},
        "weight is ndarray (16, 2) of float64, expected the shape of x, (16, 2), as a tensor",
    ),
    ({"weight": torch.zeros(16, 2)}, "no number above; expected 1 where x is known, else 0"),
    ({"weight": -torch.ones(16, 2)}, "weight has numbers below 0"),
    ({"condition": {"given": SAMPLES}}, "condition is dict, expected an object of Condition", "Condition(vectors={"),
    ({"condition": VECTORS}, "the network fails on", "label (256,) of torch.float32 and a Condition"),
    ({"condition": Condition(vectors={"given": LOST})}, "given is NaN or infinite in 1 of 16 rows", "finite numbers"),
    ({"objective": FlowMatching}, "objective is the class FlowMatching", "type FlowMatching()"),
    ({"settings": 100}, "settings is 100, expected an object of Settings; type Settings(steps=2000)"),
    ({"step": 3}, "fit has no option 'step'"),
    (
        {"objective": FlowMatching(DataToData(SAMPLES))},
        "is Empirical, and that of the denoiser White",
        "noise=coupling.noise",
    ),
    ({"objective": FlowMatching(Independent(StudentT(3)))}, "is StudentT, and that of the denoiser White"),
    (
        {"objective": ScoreMatching(coupling=Independent(White())), "model": around(noise=StudentT(3))},
        "the noise of the coupling is White, and that of the denoiser StudentT; give the denoiser noise=coupling.noise",
    ),
    (
        {"objective": ScoreMatching(coupling=Independent(StudentT(4))), "model": around(noise=StudentT(3))},
        "the noise of the coupling is StudentT, and that of the denoiser another StudentT",
    ),
]


@pytest.mark.parametrize(("options", "parts"), [(options, parts) for options, *parts in FITS])
def test_fit(options, parts):
    options = {"net": NET, "objective": FlowMatching(), "x": SAMPLES, "model": around(), **options}
    refused(lambda: fit(**{"settings": Settings(steps=2), **options}), *parts)


SAMPLED = [
    ({"denoiser": NET}, "denoiser is MLP, expected an object of Denoiser", "type denoiser=Denoiser.from_callable(net,"),
    ({"denoiser": Own(EDM, White())}, "process is the class EDM", "type EDM(), of undrift.process.edm"),
    ({"denoiser": Own(NoEnds(), White())}, "t_min, t_max of NoEnds are None, None", "type t_min, t_max = 0.0, 1.0"),
    ({"denoiser": Own(EDM(), White)}, "noise is the class White", "type White()"),
    (
        {"solver": Heun},
        "solver is the class Heun, expected an object of Solver; type Heun(), of undrift.solve.runge_kutta",
    ),
    ({"solver": "heun"}, "solver is 'heun', expected an object of Solver; type Heun(), of undrift.solve.runge_kutta"),
    ({"solver": "adams-bashforth"}, "type AdamsBashforth(), of undrift.solve.adams_bashforth"),
    ({"solver": EvenTime()}, "solver is EvenTime, expected an object of Solver; type Heun()"),
    ({"grid": EvenTime}, "grid is the class EvenTime, expected an object of TimeGrid or Adaptive; type EvenTime()"),
    ({"grid": "karras"}, "grid is 'karras'", "type Karras(), of undrift.solve.grid"),
    ({"grid": Adaptive}, "type Adaptive(), of undrift.solve.step_size"),
    ({"grid": torch.linspace(1, 0, 11)}, "grid is Tensor (11,) of torch.float32"),
    ({"nfe": 2.5}, "nfe is 2.5, expected a whole number"),
    ({"nfe": 0}, "nfe is 0, expected at least 1 for one step of AdamsBashforth"),
    ({"nfe": "10"}, "nfe is '10', expected a whole number"),
    ({"seed": 1.0}, "seed is 1.0, expected a whole number"),
    ({"seed": None}, "seed is None, expected a whole number"),
    ({"x_1": SAMPLES.long()}, "x_1 is (16, 2) of torch.int64, expected a tensor"),
    ({"x_1": LOST}, "x_1 is NaN or infinite in 1 of 16 rows, first in row 3; expected finite numbers"),
    ({"x_1": (16, 2)}, "x_1 is tuple, expected a tensor"),
    ({"x_1": SAMPLES[:, 0]}, "type x_1[:, None]"),
    ({"condition": SAMPLES}, "condition is Tensor (16, 2) of torch.float32, expected an object of Condition"),
    ({"steps": 3}, "sample has no option 'steps'"),
]


@pytest.mark.parametrize(("options", "parts"), [(options, parts) for options, *parts in SAMPLED])
def test_sample(options, parts):
    refused(lambda: sample(**{"denoiser": LAW, "x_1": SAMPLES, **options}), *parts)


DENSITIES = [
    ({"denoiser": NET}, "denoiser is MLP, expected an object of Denoiser"),
    ({"x": SAMPLES.numpy()}, "x is ndarray (16, 2) of float32, expected a tensor"),
    ({"solver": Heun}, "solver is the class Heun", "type Heun()"),
    ({"grid": EvenTime}, "grid is the class EvenTime", "type EvenTime()"),
    ({"nfe": 20.5}, "nfe is 20.5, expected a whole number"),
    ({"probes": 2.5}, "probes is 2.5, expected a whole number"),
    ({"tolerance": "small"}, "tolerance is 'small', expected a number"),
    ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
    ({"base": White()}, "base is White, expected a function", "base=lambda x_t, t: noise.log_prob(x_t)"),
    ({"base": lambda x_t, t: 0.0}, "base made 0.0 of 16 fields, expected (16,)"),
    ({"step": 3}, "log_prob has no option 'step'"),
]


@pytest.mark.parametrize(("options", "parts"), [(options, parts) for options, *parts in DENSITIES])
def test_log_prob(options, parts):
    refused(lambda: log_prob(**{"denoiser": LAW, "x": SAMPLES, **options}), *parts)


NO_TIME = [
    (torch.full((16,), 80.0, dtype=torch.float64), "t is 80,"),
    (torch.tensor([0.5] * 15 + [-0.1]), "t is -0.1,"),
]


@pytest.mark.parametrize(("t", "said"), [*NO_TIME, (torch.tensor(math.nan), "t is nan,")])
def test_a_noise_level_in_place_of_a_time(t, said):
    for call in (LAW, LAW.log_prob, around()):
        refused(lambda call=call: call(SAMPLES, t), said, "expected a label in [0, 1]", "process.t_of_ratio(sigma)")
    refused(lambda: LAW(SAMPLES, 0.5), "t is 0.5, expected a tensor")


def test_the_time_of_a_noise_level_is_as_the_sentence_says():
    """At sigma = 80, E[x] of N(1, 4) is 1 + 4 / (4 + 6400) (x_t - 1)."""
    law, x_t = Gaussian([1.0], [4.0]), torch.tensor([[60.0]], dtype=torch.float64)
    found = law(x_t, law.process.t_of_ratio(torch.tensor(80.0, dtype=torch.float64)))
    assert float(found.x) == pytest.approx(1 + 4 / 6404 * 59, rel=1e-12)


class Made(TimeGrid):
    """Times of somebody's own, by a function of process and steps."""

    def __init__(self, made):
        self.made = made

    def __call__(self, process, steps, device="cpu"):
        return self.made(process, steps)


F64 = torch.float64
TIMES = {
    "made times that do not fall everywhere": [
        lambda p, n: torch.linspace(p.t_min, p.t_max, n + 1, dtype=F64),
        lambda p, n: torch.linspace(p.t_max, p.t_min, n + 1, dtype=F64).round(decimals=0),
        lambda p, n: torch.linspace(p.t_max, p.t_min, n + 1, dtype=F64).index_fill(0, torch.tensor(2), math.nan),
    ],
    "made times from 1 to ": [lambda p, n: torch.linspace(p.t_max, p.t_min + 1e-4, n + 1, dtype=F64)],
    "made times from 0.5 to ": [lambda p, n: torch.linspace(0.5, p.t_min, n + 1, dtype=F64)],
    "made Tensor (": [
        lambda p, n: torch.linspace(p.t_max, p.t_min, 5 * n + 1, dtype=F64),
        lambda p, n: torch.tensor([p.t_max], dtype=F64),
        lambda p, n: torch.linspace(p.t_max, p.t_min, n + 1),
    ],
    "made list": [lambda p, n: [p.t_max, p.t_min]],
}


@pytest.mark.parametrize(("said", "made"), [(said, made) for said, all_made in TIMES.items() for made in all_made])
def test_times_of_an_own_grid(said, made):
    expected = "falling from exactly t_max = 1 to t_min = "
    refused(lambda: sample(LAW, SAMPLES, grid=Made(made)), said, "expected float64 (11,)", expected)
    refused(lambda: log_prob(LAW, SAMPLES, grid=Made(made)), said, "expected float64 (9,)", expected)


class Stepping(Solver):
    """A solver of somebody's own, by what its step makes of ``(f, x, t, draw)``."""

    order = 1

    def __init__(self, made, order=1):
        self.made, self.order = made, order

    def step(self, f, state, process, t, s, draw):
        return self.made(f, state.x, t, draw)


def thrice(f, x, t, draw):
    return State([f(x, t).x for _ in range(3)][-1])


STEPS = [
    (
        Stepping(lambda f, x, t, draw: State(f(x, t).x + draw(0))),
        "a solver with stochastic = False drew noise",
        "stochastic = True",
    ),
    (
        Stepping(lambda f, x, t, draw: f(x, t).x),
        "a step of Stepping made Tensor (16, ",
        "expected a State, such as State(x)",
    ),
    (Stepping(lambda f, x, t, draw: State(f(x, t).x[:5])), "a step of Stepping made (5, ", "expected the same shape"),
    (Stepping(thrice, order=None), "order of Stepping is None, expected a number, such as order = 1"),
]


@pytest.mark.parametrize(("solver", "parts"), [(solver, parts) for solver, *parts in STEPS])
def test_a_step_of_an_own_solver(solver, parts):
    refused(lambda: sample(LAW, SAMPLES, solver=solver), *parts)
    refused(lambda: log_prob(LAW, SAMPLES, solver=solver), *parts)


def test_an_own_solver_takes_the_evaluations_that_it_says():
    said = "Stepping needs more than nfe = 10 evaluations for 4 steps, and says 1 a step; set evaluations in its class"
    refused(lambda: sample(LAW, SAMPLES, solver=Stepping(thrice)), said)
    honest = Stepping(thrice)
    honest.evaluations = 3
    assert sample(LAW, SAMPLES, solver=honest).nfe == 9
    honest.adaptive = True
    refused(lambda: sample(LAW, SAMPLES, solver=honest, grid=Adaptive()), "made a State without an error")


DENOISERS = [
    ({"process": RectifiedFlow}, "process is the class RectifiedFlow", "type RectifiedFlow(), of undrift.process"),
    ({"process": "edm"}, "process is 'edm', expected an object of Process; type EDM()"),
    ({"noise": White}, "noise is the class White", "type White()"),
    ({"noise": StudentT}, "noise is the class StudentT", "type StudentT(dof)"),
    ({"noise": Independent()}, "noise is Independent, expected an object of Noise; type noise=White()"),
    ({"predicts": X}, "predicts is the class X", "type X(), of undrift.denoise.targets"),
    ({"fn": MLP}, "fn is the class MLP, expected a function of tensors or an nn.Module"),
    ({"label": "sigma"}, "label is 'sigma', expected a function"),
    ({"label": lambda t: 0.5}, "label made 0.5 of t, expected a tensor"),
    ({"fn": lambda x, t: {"sample": x}}, "the network made dict, expected a tensor (16, 2)"),
    ({"fn": lambda x, t: x.numpy()}, "the network made ndarray (16, 2) of float32"),
    (
        {"fn": lambda x, t: x.long()},
        "the network made Tensor (16, 2) of torch.int64, expected a tensor (16, 2) of real",
    ),
    ({"fn": lambda x: x}, "the network fails on x_t (16, 2)", "takes 1 positional argument but 2 were given"),
]


@pytest.mark.parametrize(("options", "parts"), [(options, parts) for options, *parts in DENOISERS])
def test_from_callable(options, parts):
    refused(lambda: around(**options)(SAMPLES, torch.full((16,), 0.5, dtype=torch.float64)), *parts)


def test_a_denoiser_takes_times_as_a_tensor():
    refused(lambda: around()(SAMPLES, 0.5), "t is 0.5, expected a tensor with a row for each field")


MADE = [
    (lambda: EDM("80"), "sigma_max is '80', expected a finite number"),
    (lambda: EDM(math.inf), "sigma_max is inf, expected a finite number"),
    (lambda: VE(sigma_max=math.inf), "sigma_max is inf, expected a finite number"),
    (lambda: NCSN(levels=2.5), "levels is 2.5, expected a whole number of at least 2"),
    (lambda: LinearBeta(beta_max=math.inf), "beta_max is inf, expected a finite number"),
    (lambda: Cosine(math.nan), "offset is nan, expected a finite number"),
    (lambda: LinearLogSNR(math.inf), "log_snr_max is inf, expected a finite number"),
    (lambda: DiscreteBetas("linear"), "betas is 'linear', expected two numbers or more between 0 and 1"),
    (lambda: FromSDE("0", 1.0), "drift is '0', expected a function of t, such as lambda t: 1 - t, or a number"),
    (lambda: FromSDE(lambda t: math.sin(t), 1.0), "drift fails on a tensor of times", "torch operations"),
    (lambda: FromSDE(0.0, lambda t: torch.ones(3)), "diffusion fails on", "with a value for each time"),
    (lambda: FromSchedule(lambda t: np.cos(t), lambda t: t), "alpha fails on a tensor of times", "torch operations"),
    (lambda: StudentT(math.inf), "dof is inf", "the limit is White()"),
    (lambda: Coloured(np.ones(4)), "power is ndarray (4,) of float64, expected a tensor", "Coloured.isotropic"),
    (lambda: Coloured.isotropic(8, -2), "shape is 8, expected the cells along each dim, such as (32, 32)"),
    (lambda: DataToData(LOST), "the other data set has NaN"),
    (
        lambda: DataToData(SAMPLES.numpy()),
        "the other data set is ndarray (16, 2) of float32, expected a tensor (n, ...)",
    ),
    (lambda: Independent(StudentT), "noise is the class StudentT", "type StudentT(dof)"),
    (lambda: MinibatchOT(White()), "base is White, expected an object of Coupling; type Independent(noise)"),
    (lambda: Bridge("0.1"), "scale is '0.1', expected a finite number"),
    (lambda: FlowMatching(MinibatchOT), "coupling is the class MinibatchOT", "type MinibatchOT()"),
    (lambda: FlowMatching(times=Uniform), "times is the class Uniform", "type Uniform()"),
    (lambda: FlowMatching(bridge=0.1), "bridge is 0.1, expected an object of Bridge; type Bridge(0.1)"),
    (lambda: ScoreMatching(SNR), "weight is the class SNR", "type SNR()"),
    (lambda: ScoreMatching("snr"), "weight is 'snr'", "type SNR()"),
    (lambda: ImplicitScoreMatching(slices=2.5), "slices is 2.5, expected a whole number of at least 1"),
    (lambda: DiscreteVLB([0.1, 0.2]), "times is list, expected a tensor (n + 1,), such as process.nodes"),
    (lambda: F("0.5"), "sigma_data is '0.5', expected a finite number"),
    (lambda: AdamsBashforth(3, Straight), "frame is the class Straight", "type Straight()"),
    (lambda: DDIM("1"), "eta is '1', expected a finite number"),
    (lambda: Langevin(-1.0), "snr is -1.0, expected a number above 0"),
    (lambda: AnnealedLangevin(repeats=2.5), "repeats is 2.5, expected a whole number of at least 1"),
    (lambda: PredictorCorrector(Heun), "predictor is the class Heun", "type Heun()"),
    (lambda: Karras("7"), "rho is '7', expected a finite number"),
    (lambda: ShortFirst(math.nan), "power is nan, expected a finite number"),
    (lambda: MLP(2.5), "size is 2.5, expected a whole number"),
    (lambda: Settings(steps=2.5), "steps is 2.5, expected a whole number"),
    (lambda: Settings(steps=2, seed=1.5), "seed is 1.5, expected a whole number"),
    (lambda: Settings(budget="2min"), "budget is '2min', expected a finite number"),
    (lambda: Settings(steps=2, learning_rate="1e-3"), "learning_rate is '1e-3', expected a number"),
    (lambda: Condition(SAMPLES), "fields is Tensor (16, 2) of torch.float32", "type Condition({'name': values})"),
    (lambda: Condition(vectors={"a": SAMPLES.numpy()}), "'a' is ndarray (16, 2) of float32", "torch.as_tensor("),
]


@pytest.mark.parametrize(("make", "parts"), [(make, parts) for make, *parts in MADE])
def test_constructors(make, parts):
    refused(make, *parts)


@pytest.mark.parametrize("grid", [EvenTime(), Karras(), Nodes(), ShortFirst()], ids=lambda grid: type(grid).__name__)
@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", None])
def test_grids_have_a_whole_number_of_steps(grid, steps):
    refused(lambda: grid(DiscreteBetas(), steps), f"steps is {steps!r}, expected a whole number of at least 1")
    refused(lambda: grid(EDM, 3), "process is the class EDM", "type EDM()")


@pytest.mark.parametrize("objective", [FlowMatching(), ScoreMatching(), ImplicitScoreMatching()])
def test_objectives_take_a_denoiser(objective):
    refused(lambda: objective(Batch.of(SAMPLES), NET, 0), "model is MLP, expected an object of Denoiser")


def test_the_noise_may_be_another_object_of_the_same_law():
    power = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for noise, same, other in (
        (StudentT(3), StudentT(3.0), StudentT(4)),
        (Coloured(power), Coloured(power.clone()), Coloured(2 * power)),
        (White(), White(), StudentT(3)),
    ):
        assert noise.is_law_of(same) and not noise.is_law_of(other)
        objective, batch = FlowMatching(Independent(noise)), Batch.of(SAMPLES)
        losses = [objective(batch, around(noise=one), 0)[0] for one in (noise, same)]
        assert torch.equal(*losses)


def test_a_number_stands_for_a_constant_function():
    """dx = dw: alpha = 1 and sigma = sqrt(t); dx = -x / 2 dt + dw: sigma^2 = 1 - exp(-t)."""
    t = torch.tensor([0.04, 0.25, 1.0], dtype=torch.float64)
    torch.testing.assert_close(FromSDE(0.0, 1.0).sigma(t), t.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(FromSDE(-0.5, 1).sigma(t), (1 - torch.exp(-t)).sqrt(), rtol=1e-12, atol=0)
    schedule = FromSchedule(1.0, lambda t: 3 * t)
    assert schedule.alpha(t).tolist() == [1.0] * 3 and schedule.alpha_dot(t).tolist() == [0.0] * 3


def test_what_stands_where_the_weight_is_zero_may_be_missing():
    """The weights end as they do with zeros in place of NaN."""
    known, ends = torch.isfinite(LOST), []
    for x in (LOST, torch.where(known, LOST, 0.0)):
        torch.manual_seed(0)
        net = MLP(2, width=8)
        found = fit(net, FlowMatching(), x, weight=known.float(), model=around(net), settings=Settings(steps=5))
        ends.append(net.layers[0].weight.detach())
        assert found.skipped == 0
    assert torch.equal(*ends)
