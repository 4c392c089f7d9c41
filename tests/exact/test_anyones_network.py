"""Networks of others through ``Denoiser.from_callable``, against the samplers that they come with."""

import numpy as np
import pytest
import torch

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.targets import F
from undrift.infer.sample import sample
from undrift.process import EDM, DiscreteBetas
from undrift.solve.ancestral import DDIM
from undrift.solve.grid import Karras, Nodes
from undrift.solve.runge_kutta import Heun


@pytest.fixture(scope="module")
def unet():
    """A small UNet2DModel with random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()


@pytest.mark.parametrize(
    ("schedule", "theirs", "predicts"),
    [("linear", "epsilon", "eps"), ("scaled_linear", "v_prediction", "v"), ("linear", "sample", "x")],
)
@torch.no_grad()
def test_ddim_is_that_of_diffusers(unet, schedule, theirs, predicts):
    """The same timesteps, 37 apart, from the same start: the largest difference over the largest number."""
    from diffusers import DDIMScheduler, DDPMScheduler

    trained = DDPMScheduler(beta_schedule=schedule, prediction_type=theirs)
    scheduler = DDIMScheduler.from_config(trained.config, clip_sample=False)
    scheduler.set_timesteps(27)  # 1000 // 27 = 37
    if theirs == "sample":  # its noise is over 1 - alpha^2, of which float32 keeps three digits at the data: 1.2e-5
        scheduler.alphas_cumprod = torch.cumprod(1 - trained.betas.double(), 0)
    x_1 = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = x_1
    for step in range(999, -1, -37):
        x = scheduler.step(unet(x, step).sample, step, x).prev_sample

    process, seen = DiscreteBetas(trained.betas), []

    def network(x_t, label):
        seen.append(int(label[0].round()))
        return unet(x_t, label.round().long()).sample

    denoiser = Denoiser.from_callable(network, predicts=predicts, process=process, label=process.step_index)
    draw = sample(denoiser, x_1, nfe=28, solver=DDIM(), grid=Nodes())
    assert seen == list(range(999, -1, -37))
    assert float((draw.x - x).abs().max() / x.abs().max()) < 1e-5


def raw(x, c_noise):
    """A network's F in float64, bounded and not linear."""
    return np.tanh(0.7 * x + c_noise[:, None]) * x[:, ::-1] + 0.3 * np.cos(x)


def edm_sampler(denoised, x, sigmas):
    """Karras et al. (2022), algorithm 2 without churn, which is algorithm 1 for sigma(t) = t."""
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        slope = (x - denoised(x, sigma)) / sigma
        end = x + (following - sigma) * slope
        if following:
            end = x + (following - sigma) * (slope + (end - denoised(end, following)) / following) / 2
        x = end
    return x


@pytest.mark.parametrize("way", ["denoised", "raw"])
def test_heun_is_edms_sampler_on_edms_network(way, agrees):
    """D = c_skip x + c_out F(c_in x; log(sigma) / 4) as a function of its own, or F with its target."""
    data, process = 0.5, EDM(80.0, 0.002)

    def denoised(x, sigma):
        sigma = np.broadcast_to(sigma, len(x))
        n = np.sqrt(sigma**2 + data**2)[:, None]
        f = raw(x / n, np.log(sigma) / 4)
        return (data / n) ** 2 * x + sigma[:, None] * data / n * f

    def network(x, sigma):
        x, sigma = x.numpy(), sigma.numpy()
        if way == "denoised":
            return torch.from_numpy(denoised(x, sigma))
        return torch.from_numpy(raw(x / np.sqrt(sigma**2 + data**2)[:, None], np.log(sigma) / 4))

    sigmas = (80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    x_1 = 80 * np.random.default_rng(0).normal(size=(3, 5))
    predicts = "x" if way == "denoised" else F(data)
    denoiser = Denoiser.from_callable(network, predicts=predicts, process=process, label=process.sigma)
    draw = sample(denoiser, torch.from_numpy(x_1), nfe=35, solver=Heun(), grid=Karras())
    assert draw.nfe == 35
    agrees(Heun, f"an EDM network, {way}", "algorithm 2 in numpy", draw.x, edm_sampler(denoised, x_1, sigmas), 1e-9)
