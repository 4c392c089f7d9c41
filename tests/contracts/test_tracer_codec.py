"""A lossy codec: labelled fields to the amplitudes of their leading modes, a law of these, and fields again."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from undrift.denoise.denoiser import Denoiser
from undrift.denoise.targets import F
from undrift.infer import log_prob, sample
from undrift.objective import ScoreMatching
from undrift.process import EDM
from undrift.train.settings import Settings
from undrift.train.tensors import fit

KEPT, CELLS = 3, 12
VARIANCES = np.array([4.0, 2.0, 1.0, *np.linspace(0.3, 0.05, CELLS - 3)])
MODES = np.linalg.qr(np.random.default_rng(0).normal(size=(CELLS, CELLS)))[0].T


class Leading:
    """Keeps the amplitudes of the leading modes, of unit variance; what it loses it states, and draws when decoding."""

    def __init__(self, data):
        fields = data["tas"].values
        self.mean = fields.mean(0)
        _, values, rows = np.linalg.svd(fields - self.mean, full_matrices=False)
        self.variances = values**2 / len(fields)
        self.modes, self.rest = rows[:KEPT], rows[KEPT:]

    @property
    def reconstruction_error(self):
        """Mean square over cells of what is lost."""
        return self.variances[KEPT:].sum() / CELLS

    def encode(self, data):
        return torch.from_numpy((data["tas"].values - self.mean) @ self.modes.T / np.sqrt(self.variances[:KEPT]))

    def decode(self, amplitudes, like, lost=None):
        fields = self.mean + (amplitudes.numpy() * np.sqrt(self.variances[:KEPT])) @ self.modes
        if lost is not None:
            noise = lost.normal(size=(len(fields), CELLS - KEPT))
            fields = fields + (noise * np.sqrt(self.variances[KEPT:])) @ self.rest
        return like.isel(time=slice(0, 0)).drop_vars("time").assign(tas=(("time", "cell"), fields, like["tas"].attrs))


class Amplitudes(nn.Module):
    """EDM's F, linear in each amplitude: of unit Gaussian amplitudes it is 0."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(0.3 * torch.ones(KEPT, dtype=torch.float64))

    def forward(self, x, label):
        return self.gain * x / torch.hypot(label, torch.ones_like(label))[:, None]


@pytest.fixture(scope="module")
def record():
    fields = 280 + np.random.default_rng(1).normal(size=(20_000, CELLS)) * np.sqrt(VARIANCES) @ MODES
    return xr.Dataset({"tas": (("time", "cell"), fields, {"units": "K"})}, {"time": np.arange(20_000)})


@pytest.fixture(scope="module")
def law(record):
    codec, net, process = Leading(record), Amplitudes(), EDM(sigma_max=80.0, sigma_min=0.002)
    model = Denoiser.from_callable(net, predicts=F(1.0), process=process, label=process.sigma)
    settings = Settings(steps=400, learning_rate=2e-2, weight_decay=0.0)
    fit(net, ScoreMatching(), codec.encode(record), model=model, settings=settings)
    return codec, model


def test_the_codec_states_what_it_loses(record, law):
    back = law[0].decode(law[0].encode(record), record)
    assert back["tas"].attrs == record["tas"].attrs
    lost = float(((back["tas"].values - record["tas"].values) ** 2).mean())
    assert lost == pytest.approx(law[0].reconstruction_error, rel=1e-9)
    assert lost == pytest.approx(0.13125, rel=0.05)  # the sum of the trailing variances over the cells


def test_drawn_fields_have_the_covariance_of_the_record_and_what_is_lost_is_drawn(record, law):
    codec, model = law
    start = 80 * torch.randn(20_000, KEPT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    amplitudes = sample(model, start, nfe=20).x
    truth = (MODES.T * VARIANCES) @ MODES
    for lost, expected in (
        (None, (MODES[:KEPT].T * VARIANCES[:KEPT]) @ MODES[:KEPT]),
        (np.random.default_rng(3), truth),
    ):
        drawn = codec.decode(amplitudes, record, lost)["tas"].values
        assert np.abs(np.cov(drawn.T) - expected).max() < 0.04 * VARIANCES[0]


def test_the_density_is_one_of_amplitudes(record, law):
    """Standard normal; fields have none, as the codec has no determinant that would carry it to them."""
    codec, model = law
    x = codec.encode(record)[:200]
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(log_prob(model, x).log_prob, expected, rtol=0.03, atol=0.01)
