"""The log-density of fields: against scipy where the law is Gaussian, its Jacobian against finite differences."""

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import coarse, fields, tiny_fit, waves
from scipy.stats import multivariate_normal
from torch import nn

import undrift
from undrift.cli.main import main
from undrift.data.jacobian import log_slopes
from undrift.denoise.guess import GaussianGuess
from undrift.denoise.precondition import Preconditioned
from undrift.distributions.diffusion import Diffusion
from undrift.distributions.field_density import KnownCells, field_log_prob
from undrift.errors import DataError, UsageError
from undrift.infer import log_prob
from undrift.process import EDM
from undrift.tasks.batch import Condition

LAND = (slice(None), slice(0, 3), slice(0, 4))


class Nothing(nn.Module):
    """A network that adds nothing to the guess."""

    def forward(self, x, label, vector):
        return torch.zeros_like(x[:, :1])


class Bent(nn.Module):
    """A network whose denoiser is not that of a Gaussian, with a Jacobian that mixes all numbers."""

    def __init__(self, size):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5

    def forward(self, x, label, vector):
        flat = x.flatten(1)
        return (0.3 * torch.tanh(flat @ self.weight.to(x.dtype))).reshape(x.shape)


@pytest.fixture(scope="module")
def data():
    """Maps with land, in years that warm."""
    ds = fields(30)
    ds = ds.assign_coords(time=np.arange(2000, 2030)).rename(time="year")
    ds["tas"] = ds.tas + 0.4 * (ds.year - 2000).astype(np.float32)
    ds.tas.values[LAND] = np.nan
    return ds


@pytest.fixture(scope="module")
def emulator(data):
    return tiny_fit(data, task="emulate", steps=2)


def dense(guess):
    """The guess's covariance as a matrix."""
    modes, floor = guess.modes.double().numpy(), float(guess.floor)
    return floor * np.eye(modes.shape[1]) + modes.T @ np.diag(guess.variances.numpy() - floor) @ modes


def test_a_gaussian_model_has_scipys_density(emulator, data, monkeypatch):
    """Land is not counted; the mean and the spread of cells are found by decoding alone."""
    monkeypatch.setattr(emulator, "net", Nothing())
    some = data.isel(year=[3, 11, 20, 28])
    found = emulator.log_prob(some, tolerance=0.1, nfe=250, progress=False)
    years, cells = {"year": some.year.values}, ~emulator.codec.mask.ravel()
    _, predicted = emulator.codec.encode(None, None, np.arange(4), covariates=years)
    mean, more = (emulator.codec.decode(v, predicted).astype(np.float64).reshape(4, -1)[:, cells] for v in (0.0, 1.0))
    covariance = dense(emulator.parts.guess)[np.ix_(cells, cells)]
    values = some.tas.values.reshape(4, -1)[:, cells].astype(np.float64)
    expected = [
        multivariate_normal(m, covariance * np.outer(one - m, one - m)).logpdf(x)
        for x, m, one in zip(values, mean, more)
    ]
    error = np.abs(found.log_prob.values - expected)
    assert found.attrs["numbers"] == cells.sum() == 84
    assert (error <= 2 * found.log_prob_error.values + 0.02).all() and error.max() < 0.2
    assert (found.error_trace < 1e-4).all()  # all of the trace is known
    loose = emulator.log_prob(some, nfe=250, progress=False)
    assert (np.abs(loose.log_prob.values - expected) <= 2 * loose.log_prob_error.values).all()
    kept = found.log_prob - emulator.log_prob(some, at="year=2003", tolerance=0.1, nfe=250, progress=False).log_prob
    assert abs(float(kept[0])) < 1e-9 and abs(float(kept[2])) > 0.1


class Lost(nn.Module):
    """A network whose numbers of the first field of a batch are none."""

    def forward(self, x, label, vector):
        out = torch.zeros_like(x[:, :1])
        out[0] = torch.nan
        return out


def test_what_is_no_number_or_misses_the_tolerance_is_told(emulator, data, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("undrift.cli.runs.open_any", lambda *args, **kwargs: emulator)
    some = data.isel(year=[3, 11, 20])
    some.to_netcdf(tmp_path / "some.nc")
    for net, words, missed in (
        (Nothing(), ["--tolerance", "1e-9"], 3),
        (Nothing(), ["--tolerance", "0"], 0),
        (Lost(), [], 0),
    ):
        monkeypatch.setattr(emulator, "net", net)
        out = tmp_path / "F.nc"
        words = ["log-prob", "RUN", str(tmp_path / "some.nc"), "--probes", "2", *words, "--overwrite"]
        assert main([*words, "--out", str(out)]) == 0
        said, found = capsys.readouterr(), xr.load_dataset(out)
        lost = int(found.log_prob.isnull().sum())
        assert (0 < lost < 3) == isinstance(net, Lost)
        assert (found.attrs["not_converged"], found.attrs["not_finite"]) == (missed, lost)
        assert ("3 of 3 fields miss the tolerance of 1e-09 nats" in said.err) == bool(missed)
        first = f"3 fields, {lost} with NaN; of the others mean " if lost else "3 fields, mean "
        assert f"{first}{float(found.log_prob.mean()):.4f} nats" in said.out


def test_errors_cover_the_exact_trace_and_are_small_beside_plain_signs(monkeypatch):
    """Numbers of two networks' denoisers, 24 numbers a field: normal scores of variance near one."""
    generator = torch.Generator().manual_seed(0)
    modes = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64))[0][:5]
    guess = GaussianGuess(modes, torch.tensor([30.0, 10.0, 3.0, 1.0, 0.5]), 0.2)
    law = Preconditioned(Bent(24), EDM(), guess)
    x = torch.randn(24, 1, 4, 6, generator=generator, dtype=torch.float64)
    options = {"tolerance": 0.05, "nfe": 120}
    exact = log_prob(law, x, trace="exact", **options)
    known = log_prob(law, x, trace="hutchinson", **options)
    monkeypatch.setattr(Preconditioned, "linear_part", lambda self, x_t, t: None)
    plain = log_prob(law, x, trace="hutchinson", **options)
    for found in (known, plain):
        score = (found.log_prob - exact.log_prob) / found.trace
        assert 0.6 < float(score.square().mean().sqrt()) < 1.5
    assert float(known.trace.mean()) < 0.5 * float(plain.trace.mean())


def test_cells_without_values_are_no_dimension():
    """A Gaussian whose first cells are always 0: the density is that of the others."""
    guess = GaussianGuess(torch.eye(6, dtype=torch.float64)[2:4], torch.tensor([4.0, 2.0]), 0.5)
    cells = torch.tensor([False, False, True, True, True, True]).reshape(1, 2, 3)
    x = torch.tensor([[0.0, 0.0, 1.0, -1.0, 0.3, 0.2], [0.0, 0.0, 3.0, 0.1, -0.9, 0.4]]).reshape(2, 1, 2, 3)
    options = {"probes": 4, "tolerance": 1e-3, "nfe": 400, "seed": 0}
    found = field_log_prob(Diffusion(Nothing(), guess), x, Condition(), cells, **options)
    law = multivariate_normal(np.zeros(4), np.diag([4.0, 2.0, 0.5, 0.5]))
    assert np.abs(found.value.numpy() - law.logpdf(x.flatten(1)[:, 2:].double())).max() < 0.01
    around = KnownCells(Preconditioned(Bent(6), EDM(), guess), cells, torch.zeros(1, 2, 3))
    part = around.linear_part(torch.zeros(1, 4), torch.tensor([0.5], dtype=torch.float64))
    columns = part[0](torch.eye(4))
    torch.testing.assert_close(columns.diagonal().double(), part[1][0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["standard", "power"])
def test_the_jacobian_is_that_of_finite_differences(kind):
    """Of a root of rain with an anamorphosis, and of standardised values, of fields given covariates."""
    ds = fields(30, offset=20.0)
    ds["tas"] = np.abs(ds.tas) ** (3 if kind == "power" else 1) * 1e-3 + 1e-3
    model = tiny_fit(
        ds.assign_coords(time=np.arange(30.0)), task="emulate", steps=1, set={"codec.transforms.tas": kind}
    )
    codec, values = model.codec, ds.tas.values[:3, None].astype(np.float64)
    if kind == "power":
        from undrift.data.anamorphosis import Anamorphosis, fit_levels

        every = codec.latents(ds.tas.values[:, None], None)[:, 0]
        levels, scores = fit_levels(every, -np.inf, (False, False))
        codec.shaped(Anamorphosis(np.array([[0]]), levels[None], scores[None]))
    times = {"time": np.arange(3.0)}
    _, predicted = codec.encode(None, None, np.arange(3), covariates=times)
    step = 1e-6 * np.abs(values)

    def numbers(x):
        return (codec.latents(x, None) - predicted.mean) / predicted.std

    expected = np.log((numbers(values + step) - numbers(values - step)) / (2 * step))
    found = log_slopes(codec, values, predicted)
    close = np.abs(found - expected) < 1e-4
    assert close.mean() > 0.99 and np.ptp(found) > (0.5 if kind == "power" else 0)  # a difference may lie across a knot


def test_laws_without_a_density_are_refused(emulator, data, trained):
    wavy = waves(40)
    with pytest.raises(UsageError, match="keep the means over blocks"):
        trained.log_prob(fields(4), coarse(fields(4)), progress=False)
    with pytest.raises(UsageError, match="say what is given: --given"):
        trained.log_prob(fields(4), progress=False)
    with pytest.raises(UsageError, match="tolerance is -1, expected nats a field"):
        emulator.log_prob(data, tolerance=-1, progress=False)
    lost = data.isel(year=[0]).copy(deep=True)
    lost.tas.values[0, 5, 5] = np.nan
    with pytest.raises(DataError, match="values are missing in 1 of 1 fields"):
        emulator.log_prob(lost, progress=False)
    with pytest.raises(DataError, match="the cells of the fields are not those of training"):
        emulator.log_prob(data.interp(lat=np.linspace(31, 52, 15)).isel(year=[0]), progress=False)
    packed = data.isel(year=slice(0, 8)).round(0)
    with pytest.raises(DataError, match="lies on even steps of 1.*--dequantize"):
        emulator.log_prob(packed, progress=False)
    told = emulator.log_prob(packed.isel(year=[0]), dequantize=True, probes=2, nfe=60, tolerance=9, progress=False)
    assert told.attrs["dequantized"] == "tas: each value is spread over its step of 1"
    windows = undrift.fit(wavy, task=undrift.Window(past=1, future=1), steps=1, progress=False,
                          set={"net.channels": "8,8", "train.device": "cpu"})  # fmt: skip
    with pytest.raises(UsageError, match="models that emulate or downscale, and this one's task is window"):
        windows.log_prob(wavy, progress=False)
