"""Operators against matrices written out in numpy, and their adjoints."""

import math

import numpy as np
import pytest
import torch

from undrift.guide import BlockMeans, FourierModes, Function, Mask, Points, RegionalSums, Scaled
from undrift.guide.operators import Linear

CPU = torch.device("cpu")
C, H, W = 2, 4, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, C, H, W))
KEPT = RNG.uniform(size=(C, H, W)) > 0.6
SCALE = RNG.uniform(0.5, 2, size=(C, H, W))
REGIONS = RNG.normal(size=(3, C, H, W))
PLACES = np.array([[0.0, 0.0], [1.25, 4.5], [3.0, 5.0], [2.9, 0.1], [0.5, 2.0]])
AROUND = np.array([[-0.25, 5.75], [3.5, 2.0], [7.25, -1.0]])
OF = np.array([0, 1, 1, 0, 1])
WAVES = np.array([[0, 0], [1, 2], [-1, 2], [2, 3], [2, 1], [0, 3]])


def row(cells):
    """A row of the matrix from {(channel, i, j): weight}."""
    out = np.zeros((C, H, W))
    for place, weight in cells.items():
        out[place] += weight
    return out.ravel()


def between(places, channels):
    """Bilinear weights, on a torus."""
    rows = []
    for (y, x), c in zip(places, channels):
        i, j = math.floor(y), math.floor(x)
        cells = {}
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
            cells[c, (i + di) % H, (j + dj) % W] = weight
        rows.append(row(cells))
    return np.array(rows)


def waves():
    """Cosines and sines, orthonormal."""
    i, j = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
    rows = []
    for c in range(C):
        phases = [2 * np.pi * (k * i / H + m * j / W) for k, m in WAVES]
        own = [2 * k % H == 0 and 2 * m % W == 0 for k, m in WAVES]
        channel = [np.cos(p) * math.sqrt((1 if o else 2) / (H * W)) for p, o in zip(phases, own)]
        channel += [-np.sin(p) * math.sqrt(2 / (H * W)) for p, o in zip(phases, own) if not o]
        for wave in channel:
            full = np.zeros((C, H, W))
            full[c] = wave
            rows.append(full.ravel())
    return np.array(rows)


def blocks(fy, fx):
    rows = []
    for c in range(C):
        for i in range(0, H, fy):
            for j in range(0, W, fx):
                rows.append(row({(c, i + a, j + b): 1 / (fy * fx) for a in range(fy) for b in range(fx)}))
    return np.array(rows)


def cells(places):
    return np.array([row({tuple(place): 1.0}) for place in places])


OPERATORS = {
    "mask of each channel": (Mask(torch.tensor(KEPT, device=CPU)), cells(np.argwhere(KEPT))),
    "mask of space": (
        Mask(torch.tensor(KEPT[0], device=CPU)),
        cells([(c, *place) for c in range(C) for place in np.argwhere(KEPT[0])]),
    ),
    "blocks of 2": (BlockMeans(2), blocks(2, 2)),
    "blocks of 2 x 3": (BlockMeans((2, 3)), blocks(2, 3)),
    "points": (Points(torch.tensor(PLACES, device=CPU), torch.tensor(OF, device=CPU)), between(PLACES, OF)),
    "points on a torus": (Points(torch.tensor(AROUND, device=CPU), periodic=True), between(AROUND, [0, 0, 0])),
    "nearest cells": (
        Points(torch.tensor(PLACES, device=CPU), torch.tensor(OF, device=CPU), nearest=True),
        cells([(c, *np.rint(place).astype(int)) for c, place in zip(OF, PLACES)]),
    ),
    "waves": (FourierModes(torch.tensor(WAVES, device=CPU)), waves()),
    "regional sums": (RegionalSums(torch.tensor(REGIONS, device=CPU)), REGIONS.reshape(3, -1)),
    "scaled": (Scaled(BlockMeans(2), torch.tensor(SCALE, device=CPU)), blocks(2, 2) * SCALE.ravel()),
}


@pytest.mark.parametrize(("operator", "matrix"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator_is_its_matrix(operator, matrix, agrees):
    x = torch.tensor(X, device=CPU)
    y = operator(x)
    agrees(
        type(operator), "A x", "a matrix written out in numpy", y, X.reshape(3, -1) @ matrix.T, rtol=1e-12, atol=1e-12
    )
    w = torch.tensor(RNG.normal(size=y.shape), device=CPU)
    expected = (w.numpy() @ matrix).reshape(X.shape)
    agrees(Linear, "adjoint", "the matrix transposed", operator.adjoint(w, x.shape), expected, rtol=1e-12, atol=1e-12)
    inner = (y * w).sum(), (x * operator.adjoint(w, x.shape)).sum()
    agrees(Linear, "<A x, w> = <x, A' w>", "itself", *inner, rtol=1e-12, atol=1e-12)
    near = operator.linearised(x)
    assert torch.equal(near.value, y)
    assert torch.equal(near.push(x), y)
    assert torch.equal(near.pull(w), operator.adjoint(w, x.shape))
    assert operator(x.float()).dtype == torch.float32


def test_waves_are_orthonormal(agrees):
    matrix = FourierModes(torch.tensor(WAVES, device=CPU))(
        torch.eye(C * H * W, device=CPU).double().reshape(-1, C, H, W)
    ).T
    agrees(FourierModes, "A A'", "1", matrix @ matrix.T, np.eye(len(matrix)), rtol=1e-12, atol=1e-12)


def test_a_line_has_one_dim():
    """Fields of one dim of space: points, blocks and waves."""
    x = torch.arange(6.0, device=CPU).double().reshape(1, 1, 6)
    assert BlockMeans(3)(x).tolist() == [[1.0, 4.0]]
    assert Points(torch.tensor([[2.5], [5.5]], device=CPU), periodic=True)(x).tolist() == [[2.5, 2.5]]
    assert FourierModes(torch.tensor([[0]], device=CPU))(x).item() == pytest.approx(15 / math.sqrt(6), rel=1e-14)


def test_a_function_has_the_jacobian_of_its_formula(agrees):
    """Of ``(sum w_i x_i^2, sin x_0)``."""
    weights = RNG.normal(size=(H, W))
    inner = torch.tensor(weights, device=CPU)
    operator = Function(lambda x: torch.stack([(inner * x[:, 1] ** 2).sum((1, 2)), x[:, 0, 0, 0].sin()], 1))
    jacobian = np.zeros((3, 2, C, H, W))
    jacobian[:, 0, 1] = 2 * weights * X[:, 1]
    jacobian[:, 1, 0, 0, 0] = np.cos(X[:, 0, 0, 0])
    value = np.stack([(weights * X[:, 1] ** 2).sum((1, 2)), np.sin(X[:, 0, 0, 0])], 1)
    v, w = RNG.normal(size=X.shape), RNG.normal(size=(3, 2))
    near = operator.linearised(torch.tensor(X, device=CPU))
    agrees(Function, "value", "numpy", near.value, value, rtol=1e-12)
    push, pull = near.push(torch.tensor(v, device=CPU)), near.pull(torch.tensor(w, device=CPU))
    agrees(Function, "H v", "its derivative by hand", push, np.einsum("bmchw,bchw->bm", jacobian, v), rtol=1e-12)
    agrees(Function, "H' w", "its derivative by hand", pull, np.einsum("bmchw,bm->bchw", jacobian, w), rtol=1e-12)


X_2 = torch.tensor(X, device=CPU)
REFUSED = {
    "float mask": (lambda: Mask(torch.ones(4, 6, device=CPU)), "expected bool"),
    "mask of another size": (
        lambda: Mask(torch.ones(4, 5, dtype=torch.bool, device=CPU))(X_2),
        r"expected \(2, 4, 6\)",
    ),
    "blocks of half a cell": (lambda: BlockMeans(0.5), "factor is 0.5, expected a whole number"),
    "blocks that do not fit": (lambda: BlockMeans(4)(X_2), "expected multiples of the factor 4"),
    "a point outside": (lambda: Points(torch.tensor(AROUND, device=CPU))(X_2), "expected 0 to 3"),
    "points in three dims": (lambda: Points(torch.zeros(1, 3, device=CPU))(X_2), "have 3 and 3 dims, not 2"),
    "positions in a row": (lambda: Points(torch.zeros(3, device=CPU)), r"expected finite numbers \(m, dims"),
    "a third channel": (
        lambda: Points(torch.zeros(1, 2, device=CPU), torch.tensor([2], device=CPU))(X_2),
        "expected 0 to 1",
    ),
    "a channel too few": (
        lambda: Points(torch.zeros(1, 2, device=CPU), torch.zeros(0, device=CPU)),
        r"expected \(1,\)",
    ),
    "a wave twice": (lambda: FourierModes(torch.tensor([[1, 2], [-1, -2]], device=CPU))(X_2), "expected each once"),
    "waves of one dim": (lambda: FourierModes(torch.tensor([[1]], device=CPU))(X_2), "have 1 dims, expected 2"),
    "waves between": (lambda: FourierModes(torch.tensor([[0.5, 1]], device=CPU)), "expected integers"),
    "regions of another size": (lambda: RegionalSums(torch.ones(1, 4, 6, device=CPU))(X_2), r"expected \(m, 2, 4, 6\)"),
    "one number of all rows": (lambda: Function(lambda x: x.sum()[None])(X_2), r"expected \(3, ...\)"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()
