"""Tiny trained models for all tests that only draw."""

import pytest
import torch
from model_fields import FACTOR, detail, fields, tiny_fit

import undrift


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny tensors gain nothing from threads, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, one_thread):
    """A model and its run directory."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return tiny_fit(fields(), steps=20, out=out)


@pytest.fixture(scope="session")
def sequence_models(tmp_path_factory, one_thread):
    """A model of windows that are given a coarse sequence, and the same read again from its run directory."""
    run, data = tmp_path_factory.mktemp("sequences") / "RUN", detail()
    task, small = undrift.Window(past=2, future=3, factor=FACTOR), {"net.channels": "16,16", "sample.micro_batch": 4}
    made = undrift.fit(data, task=task, steps=50, set=small, out=run, progress=False)
    return made, undrift.load(run, data=data)
