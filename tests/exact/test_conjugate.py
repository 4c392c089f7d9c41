"""Conjugate gradients of rows against numpy, and their derivatives."""

import numpy as np
import pytest
import torch
from guide_fields import (
    CPU,
    tensor,
)

from undrift.guide.conjugate import conjugate_gradients, solve

RNG = np.random.default_rng(7)


def systems():
    root = RNG.normal(size=(3, 6, 6))
    matrices = root @ root.transpose(0, 2, 1) + np.array([0.1, 1.0, 30.0])[:, None, None] * np.eye(6)
    return matrices, RNG.normal(size=(3, 6))


def product(matrices):
    return lambda v: torch.einsum("bij,bj->bi", tensor(matrices) if isinstance(matrices, np.ndarray) else matrices, v)


def test_conjugate_gradients_solve_each_row(agrees):
    matrices, right = systems()
    right[1] = 0
    found, off = conjugate_gradients(product(matrices), tensor(right), 60, 1e-12)
    expected = np.linalg.solve(matrices, right[..., None])[..., 0]
    agrees(conjugate_gradients, "solutions of rows", "numpy.linalg.solve", found, expected, rtol=1e-9, atol=1e-10)
    assert (off <= 1e-12).all()
    for i in range(3):  # where the others end, a row does not
        alone, _ = conjugate_gradients(product(matrices[i : i + 1]), tensor(right[i : i + 1]), 60, 1e-12)
        torch.testing.assert_close(alone[0], found[i], rtol=1e-12, atol=1e-12)


def test_a_row_that_is_not_solved_keeps_its_best_and_warns():
    matrices, right = systems()
    matrices[0] = -np.eye(6)  # no covariance: the row ends at once, at 0
    matrices[2] += 20 * np.triu(RNG.normal(size=(6, 6)), 1)  # not symmetric
    found, off = conjugate_gradients(product(matrices), tensor(right), 7, 1e-12)
    left = np.linalg.norm(right - np.einsum("bij,bj->bi", matrices, found.numpy()), axis=1) / np.linalg.norm(
        right, axis=1
    )
    np.testing.assert_allclose(off, left, rtol=1e-6, atol=1e-9)
    assert (found[0] == 0).all()
    assert off[0] == 1
    assert off[1] < 1e-6
    assert off[2] <= 1
    with pytest.warns(RuntimeWarning, match="give more iterations or a larger tolerance"):
        solve(product(matrices), tensor(right), 7, 1e-12)


def test_a_solution_has_two_derivatives(agrees):
    """Of ``f(s) = c' (M + s N)^-1 b``: ``-c' P N x`` and ``2 c' P N P N x``, with P the inverse and x = P b."""
    matrices, right = systems()
    other, weigh = np.diag(RNG.uniform(size=6)), RNG.normal(size=6)
    s = torch.tensor(0.3, dtype=torch.float64, device=CPU, requires_grad=True)
    whole = tensor(matrices) + s * tensor(other)
    value = (solve(product(whole), tensor(right), 60, 1e-13) * tensor(weigh)).sum()
    (first,) = torch.autograd.grad(value, s, create_graph=True)
    (second,) = torch.autograd.grad(first, s)
    inverse = np.linalg.inv(matrices + 0.3 * other)
    x = np.einsum("bij,bj->bi", inverse, right)
    turned = inverse @ other
    d1 = -np.einsum("i,bij,bj->", weigh, turned, x)
    d2 = 2 * np.einsum("i,bij,bj->", weigh, turned @ turned, x)
    agrees(solve, "first and second derivative", "matrices by hand", [first.item(), second.item()], [d1, d2], rtol=1e-9)
