"""Fitting on plain tensors: a linear least squares, a velocity, and what cannot be fitted."""

import numpy as np
import pytest
import torch

from undrift.errors import UsageError
from undrift.tasks.batch import Condition
from undrift.train.settings import Settings
from undrift.train.tensors import fit

CPU = torch.device("cpu")


class Affine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(3, 2, device=CPU)


def squares(batch, model, key):
    return (model.map(batch.condition.vectors["given"]) - batch.x).square().mean(1), {}


def problem(count=500):
    rng = np.random.default_rng(0)
    given = rng.normal(size=(count, 3))
    x = given @ rng.normal(size=(3, 2)) + 0.4 + 0.1 * rng.normal(size=(count, 2))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(given, dtype=torch.float32)


def test_it_finds_the_least_squares():
    x, given = problem()
    net = Affine()
    settings = Settings(steps=800, learning_rate=0.05, weight_decay=0.0)
    found = fit(net, squares, x, Condition({}, {"given": given}), settings=settings, batch=200)
    expected = np.linalg.lstsq(np.c_[given.numpy(), np.ones(len(x))], x.numpy(), rcond=None)[0]
    np.testing.assert_allclose(net.map.weight.detach().numpy().T, expected[:3], atol=0.01)
    np.testing.assert_allclose(net.map.bias.detach().numpy(), expected[3], atol=0.01)
    assert found.steps == 800 and found.stop == "steps" and not net.training
    again = Affine()
    again.load_state_dict({name: value.detach().clone() for name, value in net.state_dict().items()})
    assert torch.equal(again.map.weight, found.net.map.weight)  # the average, not the last weights


def test_cells_without_weight_are_not_fitted():
    """The mean of the known cells of each column, whatever stands in the others."""
    x, _ = problem()
    weight = (torch.arange(1000).reshape(500, 2) % 3 > 0).float()
    net = torch.nn.Linear(1, 2, device=CPU)

    def masked(batch, net, key):
        return (batch.weight * (net(torch.zeros(len(batch), 1, device=CPU)) - batch.x) ** 2).mean(1), {}

    settings = Settings(steps=600, learning_rate=0.05, weight_decay=0.0, ema=0.2)
    fit(net, masked, torch.where(weight > 0, x, 50.0), weight=weight, settings=settings, batch=500)
    expected = [float(x[weight[:, i] > 0, i].mean()) for i in range(2)]
    np.testing.assert_allclose(net.bias.detach().numpy(), expected, atol=0.02)


def test_the_same_seed_ends_with_the_same_bits():
    x, given = problem()
    ends = []
    for _ in range(2):
        torch.manual_seed(1)
        net = Affine()
        fit(net, squares, x, Condition({}, {"given": given}), settings=Settings(steps=20, seed=4))
        ends.append(net.map.weight.detach().clone())
    assert torch.equal(*ends)


def test_what_cannot_be_fitted_is_one_sentence():
    x, given = problem()
    with pytest.raises(ValueError, match="'given' has 499 rows, expected 500"):
        fit(Affine(), squares, x, Condition({}, {"given": given[1:]}), settings=Settings(steps=1))
    with pytest.raises(ValueError, match=r"weight is \(500, 1\), expected the shape of x, \(500, 2\)"):
        fit(Affine(), squares, x, weight=torch.ones(500, 1), settings=Settings(steps=1))
    with pytest.raises(ValueError, match="expected a tensor"):
        fit(Affine(), squares, x[:0], settings=Settings(steps=1))
    with pytest.raises(UsageError, match="give one"):
        Settings()
