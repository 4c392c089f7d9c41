"""What every operator of an observation keeps."""

import pytest
import torch
from implementations import CPU, OPERATORS

X = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device=CPU)
V = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, device=CPU)
each = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@each
def test_a_row_is_observed_by_itself(operator):
    y = operator(X)
    assert y.ndim == 2
    for i in range(len(X)):
        torch.testing.assert_close(operator(X[i : i + 1]), y[i : i + 1], rtol=1e-12, atol=1e-12)


@each
def test_the_jacobian_and_its_transpose(operator):
    """``H v`` against a central difference, and ``<H v, w> = <v, H^T w>``."""
    near = operator.linearised(X)
    torch.testing.assert_close(near.value, operator(X))
    slope = (operator(X + 1e-6 * V) - operator(X - 1e-6 * V)) / 2e-6
    torch.testing.assert_close(near.push(V), slope, rtol=1e-7, atol=1e-7)
    w = torch.cos(torch.arange(near.value.numel(), dtype=torch.float64, device=CPU)).reshape(near.value.shape)
    inner = (near.push(V) * w).sum(1), (V * near.pull(w)).sum((1, 2, 3))
    torch.testing.assert_close(*inner, rtol=1e-12, atol=1e-12)


@each
def test_what_is_observed_can_be_differentiated_where_a_gradient_is_asked_for(operator):
    """Within another guide: value, H v and H^T w by the field and by v and w, against central differences."""

    def all_of(x):
        near = operator.linearised(x)
        w = near.value.sin()
        return near.value.square().sum() + (near.push(x.cos()) ** 2).sum() + (near.pull(w) ** 3).sum()

    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(all_of(x), x)
    slope = (all_of(X + 1e-6 * V) - all_of(X - 1e-6 * V)) / 2e-6
    torch.testing.assert_close((gradient * V).sum(), slope, rtol=1e-6, atol=1e-7)
    assert not operator.linearised(X).value.requires_grad
