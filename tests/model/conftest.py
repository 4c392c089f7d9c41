"""One tiny trained model for all tests that only draw."""

import pytest
import torch
from model_fields import fields, tiny_fit


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
