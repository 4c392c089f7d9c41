"""Log-densities of fields on the command line, held-out ones too, against scipy where the law is known."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import fields, tiny_fit
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

import undrift
from undrift.cli.main import main
from undrift.data.open import open_fields
from undrift.denoise.precondition import coefficients
from undrift.distributions.request import request_from
from undrift.nets.members import Members

LAND = (slice(None), slice(0, 3), slice(0, 4))
QUICK = ["--probes", "2", "--tolerance", "2"]


def silenced(model):
    """The model whose network adds nothing to its Gaussian."""
    with torch.no_grad():
        for weights in model.net.parameters():
            weights.zero_()
    return model


def laws(model, ds, offered=None, **covariates):
    """Mean, covariance and values of each field at the cells that have any; mean and spread by decoding alone."""
    codec, guess = model.codec, model.parts.guess
    cells, rows = ~codec.mask.ravel(), np.arange(len(ds.time if "time" in ds.dims else ds.year))
    _, predicted = codec.encode(None, None, rows, covariates=covariates, offered=offered)
    mean, more = (codec.decode(v, predicted).astype(np.float64).reshape(len(rows), -1)[:, cells] for v in (0.0, 1.0))
    modes, floor = guess.modes.double().numpy()[:, cells], float(guess.floor)
    inner = floor * np.eye(cells.sum()) + modes.T @ np.diag(guess.variances.numpy() - floor) @ modes
    values = ds.tas.values.reshape(len(rows), -1)[:, cells].astype(np.float64)
    return mean, more - mean, inner, values


def log_normal(mean, spread, inner, values):
    return np.array([
        multivariate_normal(m, inner * np.outer(s, s)).logpdf(x) for m, s, x in zip(mean, spread, values)
    ])  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Maps with land in years that warm, and an emulator of them that is Gaussian."""
    folder = tmp_path_factory.mktemp("likelihood")
    ds = fields(30).assign_coords(time=np.arange(2000, 2030)).rename(time="year")
    ds["tas"] = ds.tas + 0.4 * (ds.year - 2000).astype(np.float32)
    ds.tas.values[LAND] = np.nan
    ds.to_netcdf(folder / "maps.nc")
    ds.isel(year=[3, 25]).to_netcdf(folder / "two.nc")
    model = tiny_fit(str(folder / "maps.nc"), task="emulate", covariates="year", holdout="year=2024/2029", steps=1)
    silenced(model).save(folder / "RUN")
    return folder


def test_log_prob_on_the_command_line_is_scipys(folder, capsys):
    out = folder / "F.nc"
    assert main(["log-prob", str(folder / "RUN"), str(folder / "two.nc"), *QUICK, "--out", str(out), "--json"]) == 0
    found, told = xr.load_dataset(out), json.loads(capsys.readouterr().out)
    ds, model = xr.load_dataset(folder / "two.nc"), undrift.load(folder / "RUN")
    exact = log_normal(*laws(model, ds, year=ds.year.values))
    off = np.abs(found.log_prob.values - exact)
    assert found.log_prob.dims == ("year",) and (found.year == ds.year).all()
    assert found.log_prob.attrs["units"] == found.log_prob_error.attrs["units"] == "nat"
    assert found.attrs["numbers"] == 84 and found.attrs["probes"] == 2 and found.attrs["network_calls"] > 0
    assert found.attrs["not_counted"] == "12 cells that never have a value"
    assert (off < 2 * found.log_prob_error + 0.02).all() and float(found.log_prob_error.max()) < 3
    assert told == {"out": str(out), "fields": 2, "outside": 0, "not a number": 0,
                    "not converged": found.attrs["not_converged"], "mean": pytest.approx(float(found.log_prob.mean())),
                    "largest error": pytest.approx(float(found.log_prob_error.max()))}  # fmt: skip


def test_the_likelihood_of_held_out_fields(folder, capsys):
    """Of six held-out years three, evenly; the Gaussian's is exact, the model's that of its error."""
    assert main(["evaluate", str(folder / "RUN"), "--log-prob", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ds, model = xr.load_dataset(folder / "maps.nc").sel(year=[2024, 2026, 2029]), undrift.load(folder / "RUN")
    exact = log_normal(*laws(model, ds, year=ds.year.values))
    gaussian = found["gaussian"]
    assert (found["samples"], found["left_out"], found["numbers"]) == (3, 0, 84)
    assert gaussian["log_likelihood"] == pytest.approx(exact.mean(), abs=0.01)
    assert gaussian["standard_error"] == pytest.approx(exact.std(ddof=1) / 3**0.5, rel=1e-3)
    assert gaussian["nats_per_value"] == pytest.approx(exact.mean() / 84, abs=1e-3)
    assert gaussian["bits_per_value"] == pytest.approx(-exact.mean() / 84 / np.log(2), abs=1e-3)
    off = found["log_likelihood"] - exact.mean()
    assert abs(off) < 2 * found["numerical_error"] + 0.02 and found["numerical_error"] < 2
    assert found["gain"] == pytest.approx(found["log_likelihood"] - gaussian["log_likelihood"], abs=1e-6)


def test_a_downscaling_run_is_told_what_is_given(tmp_path, capsys):
    """Every third cell of the fields, with noise, so that no means over blocks are kept: the law of fine given coarse."""
    fine = fields(24, lat=np.linspace(31, 52, 6), lon=np.linspace(0, 24, 9))
    rng = np.random.default_rng(1)
    coarse = fine.isel(lat=slice(0, None, 2), lon=slice(1, None, 3))
    coarse = coarse + 0.2 * rng.normal(size=coarse.tas.shape).astype(np.float32)
    coarse.tas.attrs["units"] = "K"
    fine.to_netcdf(tmp_path / "fine.nc")
    coarse.to_netcdf(tmp_path / "coarse.nc")
    paths = str(tmp_path / "fine.nc"), str(tmp_path / "coarse.nc")
    model = undrift.fit(paths[0], given=paths[1], task="downscale", steps=1, progress=False,
                        set={"net.channels": "8,8", "train.device": "cpu"})  # fmt: skip
    silenced(model).save(tmp_path / "RUN")
    few = fine.isel(time=[2, 23])
    few.to_netcdf(tmp_path / "few.nc")
    words = ["log-prob", str(tmp_path / "RUN"), str(tmp_path / "few.nc"), "--given", paths[1], *QUICK]
    assert main([*words, "--out", str(tmp_path / "F.nc")]) == 0
    found = xr.load_dataset(tmp_path / "F.nc")
    asked = request_from(open_fields(coarse.isel(time=[2, 23])), model.codec, model.parts.given_shell, None)
    exact = log_normal(*laws(model, few, offered=asked.offered(np.arange(2))))
    off = np.abs(found.log_prob.values - exact)
    assert (off < 2 * found.log_prob_error + 0.02).all() and float(found.log_prob_error.max()) < 3
    assert np.ptp(exact) > 0.1 and found.attrs["numbers"] == 54


class Modes(nn.Module):
    """A network whose denoiser is that of modes of equal weight at +m and -m with the guess's covariance, or of one."""

    def __init__(self, guess, m, both):
        super().__init__()
        self.guess, self.m, self.both = guess, m, both

    def forward(self, x, label, vector):
        ratio = label.double().tan()
        c_in, c_out = (v.reshape(-1, 1, 1, 1) for v in coefficients(self.guess, ratio, self.m.numel()))
        m = self.m.expand(len(x), *self.m.shape)
        left = m - self.guess.denoise(m, ratio)  # r^2 (C + r^2)^{-1} m
        y = x[:, :1].double() / c_in
        sign = torch.tanh((y * left).flatten(1).sum(1) / ratio**2).reshape(-1, 1, 1, 1) if self.both else 1.0
        return (sign * left / c_out).to(x.dtype)


@pytest.mark.parametrize("kind", ["one network", "two networks"])
def test_a_mixture_has_the_density_of_its_modes(folder, kind, monkeypatch):
    """Two modes a few deviations apart: of a bent denoiser, and of two networks by which members are drawn in turn."""
    model, ds = undrift.load(folder / "RUN"), xr.load_dataset(folder / "maps.nc").isel(year=[1, 8, 20, 27])
    guess, cells = model.parts.guess, ~model.codec.mask
    m = 0.4 * torch.from_numpy(np.where(cells, 1.0, 0.0))
    nets = [Modes(guess, m, True)] if kind == "one network" else [Modes(guess, s * m, False) for s in (1, -1)]
    monkeypatch.setattr(model, "net", nets[0] if len(nets) == 1 else Members(nets))
    found = model.log_prob(ds, tolerance=0.2, probes=8, progress=False)
    mean, spread, inner, values = laws(model, ds, year=ds.year.values)
    shift = m.numpy()[cells] * spread
    each = [log_normal(mean + s * shift, spread, inner, values) for s in (1, -1)]
    exact = logsumexp(each, axis=0) - np.log(2)
    alone = log_normal(mean, spread, inner, values)
    off = np.abs(found.log_prob.values - exact)
    assert (off < 3 * found.log_prob_error + 0.02).all() and float(found.log_prob_error.max()) < 2
    assert np.abs(exact - alone).max() > 3  # nats: of the Gaussian without modes it is another


def test_what_has_no_log_density_says_so(folder, trained, capsys):
    with pytest.raises(undrift.UsageError, match="keep the means over blocks"):
        trained.evaluate(2, progress=False)
    for words, said in (
        (["--log-prob", "3", "4"], "expected one number"),
        (["--log-prob", "0"], "samples is 0, expected a whole number of at least 1"),
        ([], "or with --log-prob how likely held-out fields are"),
        (["--log-prob", "--truth", "a.nc"], "undrift log-prob RUN DATA"),
    ):
        assert main(["evaluate", str(folder / "RUN"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["evaluate", "ENS.nc", "--log-prob"]) == 2 and "is no run" in capsys.readouterr().err
