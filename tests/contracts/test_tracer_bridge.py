"""From one data set to another: a coupling of data to data with a bridge between, and the flow that it teaches."""

import numpy as np
import pytest
import torch
from torch import nn

from undrift.denoise.denoiser import Denoiser
from undrift.infer import log_prob, sample
from undrift.objective import FlowMatching, Uniform
from undrift.process import Bridge, DataToData, RectifiedFlow
from undrift.solve.ancestral import Ancestral
from undrift.tasks.batch import Batch
from undrift.train.settings import Settings
from undrift.train.tensors import fit

FROM, TO = (-1.0, 0.5), (2.0, 1.5)  # mean and standard deviation of each of the two laws
SCALE, COUNT = 0.4, 200_000


def normal(law, seed, count=COUNT):
    generator = torch.Generator().manual_seed(seed)
    return law[0] + law[1] * torch.randn(count, 1, generator=generator, dtype=torch.float64)


def exact(t, gamma, gamma_dot):
    """Slope and offset of ``E[-x + z + gamma' w | x_t]`` of independent ends, ``x_t = (1 - t) x + t z + gamma w``."""
    variance = (1 - t) ** 2 * TO[1] ** 2 + t**2 * FROM[1] ** 2 + gamma**2
    slope = (-(1 - t) * TO[1] ** 2 + t * FROM[1] ** 2 + gamma * gamma_dot) / variance
    return slope, FROM[0] - TO[0] - slope * ((1 - t) * TO[0] + t * FROM[0])


def test_the_velocity_learned_at_a_time_is_that_of_the_two_laws_and_the_bridge():
    net = nn.Linear(1, 1).double()
    process, t = RectifiedFlow(), 0.3
    coupling = DataToData(normal(FROM, 1))
    objective = FlowMatching(coupling, Bridge(SCALE), Uniform(t, t))
    model = Denoiser.from_callable(lambda x, label: net(x), predicts="velocity", process=process, noise=coupling.noise)
    settings = Settings(steps=1500, learning_rate=3e-2, weight_decay=0.0, ema=0.25)
    fit(net, objective, normal(TO, 0), model=model, settings=settings, batch=1024)
    gamma, gamma_dot = SCALE * np.sin(np.pi * t) ** 2, SCALE * np.pi * np.sin(2 * np.pi * t)
    slope, offset = exact(t, gamma, gamma_dot)
    without, _ = exact(t, 0.0, 0.0)
    assert abs(net.weight.item() - slope) < 0.03 < abs(slope - without)
    assert abs(net.bias.item() - offset) < 0.05


def test_the_flow_carries_one_law_into_the_other_with_and_without_the_bridge():
    for scale in (0.0, SCALE):

        def velocity(x, t, scale=scale):
            at = t[:, None]
            gamma = scale * torch.sin(torch.pi * at) ** 2
            slope, offset = exact(at, gamma, scale * torch.pi * torch.sin(2 * torch.pi * at))
            return slope * x + offset

        model = Denoiser.from_callable(velocity, predicts="velocity", process=RectifiedFlow())
        starts = normal(FROM, 2, 50)
        ends = sample(model, starts, nfe=60).x
        # the flow of a Gaussian into a Gaussian keeps standardised coordinates
        expected = TO[0] + TO[1] * (starts - FROM[0]) / FROM[1]
        assert (ends - expected).abs().max() < 0.01


def test_what_holds_for_noise_only_is_refused():
    coupling, x = DataToData(normal(FROM, 1)), normal(TO, 3, 20)
    naive, bridge = (
        Denoiser.from_callable(lambda x, t: x, predicts="velocity", process=RectifiedFlow(), noise=noise)
        for noise in (None, coupling.noise)
    )
    with pytest.raises(ValueError, match="give the denoiser noise=coupling.noise"):
        FlowMatching(coupling)(Batch.of(x), naive, 0)
    with pytest.raises(TypeError, match="Ancestral adds noise"):
        sample(bridge, x, solver=Ancestral())
    with pytest.raises(TypeError, match="Empirical noise has no log_prob"):
        log_prob(bridge, x)
    with pytest.raises(TypeError, match="it has no score"):
        _ = bridge(x, torch.full((20,), 0.5, dtype=torch.float64)).score
