"""Run directories of version 0.1 load for ever, and draw what they drew then.

``tests/data/make_run.py`` made them. If this fails, the reader has to learn the old format; the files stay as they are.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import undrift
from undrift.errors import CheckpointError
from undrift.train.manifest import verify_manifest
from undrift.train.weights import load_tensors

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module", params=["run_0_1", "run_0_1_means"])
def kept(request):
    return DATA / request.param


@pytest.fixture(scope="module")
def model(kept):
    return undrift.load(kept / "run", device="cpu")


def test_it_draws_what_it_drew(kept, model):
    """To a thousandth of the spread in nearly all cells: machines differ in the last bits, and a bit can dry a cell.

    Later runs name the grid of times that they are drawn on; these were drawn on the first one.
    """
    with xr.open_dataset(kept / "draw.nc") as then:
        then = then.load()
    now = model.sample(kept / "given.nc", realizations=4, seed=7, progress=False)
    assert now.pr.dims == then.pr.dims and now.pr.attrs["units"] == then.pr.attrs["units"]
    for name in ("realization", "time", "lat", "lon"):
        np.testing.assert_array_equal(now[name].values, then[name].values)
    np.testing.assert_array_equal(np.isnan(now.pr.values), np.isnan(then.pr.values))
    spread = float(then.pr.std())
    assert spread > 0 and 0.05 < float((then.pr == 0).mean()) < 0.95
    np.testing.assert_allclose(now.pr.values, then.pr.values, atol=1e-3 * spread, rtol=0)
    part = model.sample(kept / "given.nc", realizations="2:4", seed=7, progress=False)
    np.testing.assert_array_equal(part.pr.values, now.pr.values[2:4])
    means = kept.name == "run_0_1_means"
    assert model.describe()["network"]["members"] == (2 if means else 1)
    assert model.describe()["block means kept of"] == (["pr"] if means else [])
    assert now.attrs["block_means"].startswith("kept: " if means else "not applicable: training knew of no blocks")


def test_it_keeps_what_a_report_needs(kept, model):
    assert model.config.task.factor == 2 and model.facts["steps"] == 3
    assert set(model.parts.rivals.dressed) == {
        "climatology", "interpolation", "quantile mapping", "linear predictor", "regression",
    }  # fmt: skip
    assert model.codec.given.mask.tolist() == [[[False] * 4] * 4]
    tensors = load_tensors(kept / "run" / "regression.safetensors")
    twin = model.parts.rivals.twin.state_dict()
    assert tensors and all(torch.equal(twin[name], value) for name, value in tensors.items())
    assert model.describe()["fingerprint"] == "d489054c6bfc67abec9bf7cc81436029be6669713a3b3d77a8dd3afc7d563f6d"


def test_its_checksums_hold_and_a_changed_byte_is_found(kept, tmp_path):
    assert verify_manifest(kept / "run")["schema_version"] == 1
    shutil.copytree(kept / "run", tmp_path / "run")
    broken = bytearray((tmp_path / "run" / "codec.nc").read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "run" / "codec.nc").write_bytes(broken)
    with pytest.raises(CheckpointError, match=r"codec\.nc"):
        undrift.load(tmp_path / "run")


def test_it_can_be_saved_again(kept, model, tmp_path):
    model.save(tmp_path / "again")
    again = undrift.load(tmp_path / "again", device="cpu")
    drawn = [m.sample(kept / "given.nc", realizations=1, progress=False).pr.values for m in (model, again)]
    np.testing.assert_array_equal(*drawn)
