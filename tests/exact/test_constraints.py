"""Constraints against dense matrices of numpy: nearest, at once there, orthogonal, in any units, also together."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import brentq

from undrift.denoise.exact import Gaussian
from undrift.errors import UndriftError
from undrift.guide import (
    BoundedMeans,
    Bounds,
    CoarseMeans,
    Constrained,
    DivergenceFree,
    DivergenceFreeWith,
    Integral,
    Linear,
    Together,
)
from undrift.infer import sample
from undrift.process import EDM, RectifiedFlow

CPU = torch.device("cpu")
C, H, W = 2, 6, 8
SPACING = (0.5, 2.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def fields(seed=1, rows=3):
    return 1.0 + 2.0 * rng(seed).normal(size=(rows, C, H, W))


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=np.float64), device=CPU)


def row_of(set_cells):
    row = np.zeros((C, H, W))
    set_cells(row)
    return row.ravel()


def blocks(weights):
    """The matrix of weighted means over blocks of 3 x 2 cells."""
    rows = []
    for c in range(C):
        for i in range(0, H, 3):
            for j in range(0, W, 2):
                row = np.zeros((C, H, W))
                part = weights[i : i + 3, j : j + 2]
                row[c, i : i + 3, j : j + 2] = part / part.sum()
                rows.append(row.ravel())
    return np.array(rows)


def divergence():
    """Matrix of the divergence, column by column: channel 1 along the first axis of space, 0 along the second."""
    ky, kx = (2 * np.pi * np.fft.fftfreq(n, h) for n, h in zip((H, W), SPACING))
    columns = []
    for unit in np.eye(C * H * W):
        u, v = unit.reshape(C, H, W)
        out = 1j * kx * np.fft.fft2(u) + 1j * ky[:, None] * np.fft.fft2(v)
        columns.append(np.fft.ifft2(out).real.ravel())
    return np.array(columns).T


def linear_cases():
    """Name -> (class, constraint, A, b (1 or B, m))."""
    area = np.cos(np.linspace(-1, 1, H))[:, None] * np.ones(W)
    coarse = rng(2).normal(size=(3, C, H // 3, W // 2))
    plain, areal = blocks(np.ones((H, W))), blocks(area)
    free = coarse.copy()
    free[:, 1, 0, 2] = np.nan
    kept = ~np.isnan(free[0].ravel())
    regions = np.zeros((3, C, H, W))
    regions[0, 0, :3], regions[1, 0, 2:], regions[2, 1] = area[:3], area[2:], area
    dense = rng(3).normal(size=(7, C * H * W))
    thin = dense * (rng(4).uniform(size=dense.shape) < 0.1)
    b, each = rng(5).normal(size=7), rng(6).normal(size=(3, 7))
    d = divergence()
    flat = coarse.reshape(3, -1)
    return {
        "block means": (CoarseMeans, CoarseMeans(tensor(coarse), (3, 2)), plain, flat),
        "areal block means": (CoarseMeans, CoarseMeans(tensor(coarse), (3, 2), tensor(area)), areal, flat),
        "a free block": (CoarseMeans, CoarseMeans(tensor(free), (3, 2)), plain[kept], flat[:, kept]),
        "integrals": (Integral, Integral(tensor(regions), [1.0, 5.0, 3.0]), regions.reshape(3, -1), [[1.0, 5.0, 3.0]]),
        "dense": (Linear, Linear(dense, b), dense, b[None]),
        "rows of their own": (Linear, Linear(tensor(dense), tensor(each)), dense, each),
        "sparse": (Linear, Linear(tensor(thin).to_sparse(), b), thin, b[None]),
        "sparse of scipy": (Linear, Linear(sparse.csr_array(thin), b), thin, b[None]),
        "divergence": (DivergenceFree, DivergenceFree((1, 0), SPACING), d, np.zeros((1, len(d)))),
    }


LINEAR = linear_cases()
each = pytest.mark.parametrize("case", LINEAR.values(), ids=LINEAR)


def nearest(x, a, b):
    """By the pseudoinverse, which also takes rows that depend on each other."""
    flat = x.reshape(len(x), -1)
    return (flat + (b - flat @ a.T) @ np.linalg.pinv(a, rcond=1e-10).T).reshape(x.shape)


@each
def test_the_projection_is_that_of_the_dense_matrix(case, agrees):
    cls, constraint, a, b = case
    x = fields()
    found = constraint.project(tensor(x)).numpy()
    agrees(cls, "nearest field", "pseudoinverse in numpy", found, nearest(x, a, b), rtol=1e-12, atol=1e-12)
    moved = (found - x).reshape(3, -1)
    free = np.eye(C * H * W) - np.linalg.pinv(a, rcond=1e-10) @ a
    agrees(cls, "what moves along the constraint", "0", moved @ free, 0 * moved, rtol=1e-12, atol=1e-12)
    size = np.abs(a) @ np.abs(x.reshape(3, -1)).max(0)
    error = np.abs(found.reshape(3, -1) @ a.T - b) / size.max()
    agrees(cls, "the constraint after projection", "0", error, 0 * error, rtol=1e-12, atol=1e-12)
    again = constraint.project(tensor(found)).numpy()
    agrees(cls, "a second projection", "the first", again, found, rtol=1e-12, atol=1e-12)


@each
def test_float32_keeps_it_to_one_part_in_100000(case):
    _, constraint, a, b = case
    x = (280 + 10 * rng(7).normal(size=(3, C, H, W))).astype(np.float32)
    found = constraint.project(torch.from_numpy(x))
    assert found.dtype == torch.float32
    flat = found.double().numpy().reshape(3, -1)
    terms = np.maximum(np.abs(flat) @ np.abs(a).T, np.abs(b)).max(1)
    assert (np.abs(flat @ a.T - b).max(1) / terms).max() < 1e-6
    assert float(constraint.residual(found).max()) < 1e-5 < float(constraint.residual(torch.from_numpy(x)).min())


@each
def test_the_residual_is_the_largest_error_over_the_largest_term(case):
    cls, constraint, a, b = case
    if cls is DivergenceFree:
        return
    flat = fields().reshape(3, -1)
    length = np.linalg.norm(a, axis=1) if issubclass(cls, Linear) else 1.0  # whose rows have unit length
    error = np.abs(flat @ a.T - b) / length
    size = np.maximum(np.abs(flat) @ np.abs(a).T, np.abs(b)) / length
    np.testing.assert_allclose(constraint.residual(tensor(fields())).numpy(), error.max(1) / size.max(1), rtol=1e-12)
    assert float(constraint.residual(constraint.project(tensor(fields()))).max()) < 1e-13


@pytest.mark.parametrize("sizes", [(6, 8), (5, 7), (4, 6, 5)])
def test_the_divergence_is_that_of_numpy(sizes, agrees):
    """Even and odd, 2 and 3 dims; the gradient of anything has nothing left, a rotation all."""
    count = len(sizes)
    spacing = (0.5, 2.0, 1.5)[:count]
    waves = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n, h) for n, h in zip(sizes, spacing)), indexing="ij")
    waves = [np.where(2 * np.abs(k) * h > 2 * np.pi * 0.999, 0, k) for k, h in zip(waves, spacing)]  # Nyquist

    def spectral(v):
        return sum(1j * k * np.fft.fftn(part) for k, part in zip(waves, v))

    v = rng(1).normal(size=(count, *sizes))
    gradient = [np.fft.ifftn(1j * k * np.fft.fftn(v[0])).real for k in waves]
    constraint = DivergenceFree(range(count), spacing)
    found = constraint.project(tensor(v)[None])[0].numpy()
    size = np.sqrt(sum((np.abs(k * np.fft.fftn(part)) ** 2).sum() for k in waves for part in v))
    left = np.linalg.norm(spectral(found)) / size
    agrees(DivergenceFree, "divergence left", "numpy's FFT", left, 0.0, rtol=1e-14, atol=1e-14)
    share = np.linalg.norm(spectral(v)) / size
    agrees(DivergenceFree, "residual", "numpy's FFT", constraint.residual(tensor(v)[None])[0], share, rtol=1e-12)
    removed = constraint.project(tensor(gradient)[None])
    agrees(DivergenceFree, "what is left of a gradient", "0", removed, 0 * removed, rtol=1e-12, atol=1e-12)
    x = tensor(v)[None].float()
    assert float(constraint.residual(constraint.project(x))) < 1e-6


def test_bounds_clip(agrees):
    x = fields()
    low = rng(8).normal(size=(C, 1, 1))
    found = Bounds(tensor(low), 2.0).project(tensor(x))
    agrees(Bounds, "nearest field", "numpy's clip", found, np.clip(x, low, 2.0), rtol=1e-15)
    error = np.abs(np.clip(x, low, 2.0) - x).max((1, 2, 3)) / np.abs(x).max((1, 2, 3))
    agrees(Bounds, "residual", "numpy", Bounds(tensor(low), 2.0).residual(tensor(x)), error, rtol=1e-14)
    assert float(Bounds(high=50.0).residual(tensor(x)).max()) == 0


SCALE, OFFSET = rng(9).uniform(0.3, 3.0, size=(C, H, W)), rng(10).normal(size=(3, C, H, W))


@each
def test_in_the_units_of_a_network_it_is_nearest_there(case, agrees):
    cls, constraint, a, b = case
    scale = SCALE if cls is not DivergenceFree else SCALE[:, :1, :1] * np.ones_like(SCALE)
    u = fields(11)
    found = constraint.in_units(tensor(scale), tensor(OFFSET)).project(tensor(u)).numpy()
    own = [nearest(u[i : i + 1], a * scale.ravel(), b[i % len(b)] - a @ OFFSET[i].ravel()) for i in range(3)]
    agrees(cls, "nearest in other units", "pseudoinverse in numpy", found, np.concatenate(own), rtol=1e-11, atol=1e-11)
    assert float(constraint.residual(tensor(OFFSET + scale * found)).max()) < 1e-12
    twice = constraint.in_units(tensor(scale), tensor(OFFSET)).in_units(tensor(2 * np.ones_like(scale)), tensor(OFFSET))
    u = twice.project(tensor(u))
    assert float(constraint.residual(tensor(OFFSET + scale * (OFFSET + 2 * u.numpy()))).max()) < 1e-11


def test_bounds_in_other_units():
    u = tensor(fields(11))
    found = Bounds(-0.5, 0.7).in_units(tensor(SCALE), tensor(OFFSET)).project(u).numpy()
    np.testing.assert_allclose(OFFSET + SCALE * found, np.clip(OFFSET + SCALE * u.numpy(), -0.5, 0.7), rtol=1e-12)


def test_means_and_bounds_together_shift_and_clip(agrees):
    """The nearest rain with these means is ``max(x + shift, 0)`` with one shift for each block."""
    x, coarse = fields(), rng(2).uniform(0.0, 2.0, size=(3, C, H // 3, W // 2))
    expected = np.empty_like(x)
    for index in np.ndindex(coarse.shape):
        n, c, i, j = index
        part = np.s_[n, c, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2]
        shift = brentq(lambda s, v=x[part], m=coarse[index]: np.maximum(v + s, 0).mean() - m, -20, 20, xtol=1e-14)
        expected[part] = np.maximum(x[part] + shift, 0)
    parts = CoarseMeans(tensor(coarse), (3, 2)), Bounds(low=0.0)
    found = Together(*parts, tolerance=1e-10).project(tensor(x))
    agrees(Together, "means and bounds", "shift and clip, block by block", found, expected, rtol=1e-8, atol=1e-8)
    assert float(found.min()) == 0  # the last holds to rounding
    loose = Together(*parts[::-1], tolerance=1e-4).project(tensor(x))
    assert float(parts[0].residual(loose).max()) < 1e-14
    assert 1e-9 < np.abs(loose.numpy() - expected).max() < 1e-2  # what the tolerance is


def shifted(u, weight, scale, offset, mean, high):
    """``clip(u + level a)`` of one block, its level a root of scipy."""
    a, low, top = weight * scale, -offset / scale, (high - offset) / scale

    def excess(level):
        return (weight * (offset + scale * np.clip(u + level * a, low, top))).sum() - mean

    level = 0.0 if np.isnan(mean) else -1e3 if mean <= 0 else brentq(excess, -1e3, 1e3, xtol=1e-13, rtol=1e-14)
    return np.clip(u + level * a, low, top)


@pytest.mark.parametrize("high", [np.inf, 2.5])
def test_bounded_means_shift_along_the_weights_and_clip(high, agrees):
    """Some blocks are dry, one is free, one below the bound by rounding, two beyond it with all cells; also in other units."""
    x, area = fields(), np.cos(np.linspace(-1, 1, H))[:, None] * np.ones(W)
    coarse = rng(2).uniform(0.0, 2.4, size=(3, C, H // 3, W // 2))
    coarse[:, 0, 0, 1], coarse[:, 1, 1, 3], coarse[0, 1, 0, 0] = 0.0, np.nan, -1e-9
    x[0, 0, :3, 4:6] += 30
    x[1, 0, :3, 4:6] -= 30
    constraint = BoundedMeans(CoarseMeans(tensor(coarse), (3, 2), tensor(area)), Bounds(0.0, high))
    plain = constraint.project(tensor(x))
    other = constraint.in_units(tensor(SCALE), tensor(OFFSET)).project(tensor(x))
    for found, scale, offset in ((plain, np.ones_like(SCALE), np.zeros_like(OFFSET)), (other, SCALE, OFFSET)):
        expected = np.empty_like(x)
        for n, c, i, j in np.ndindex(coarse.shape):
            part = np.s_[c, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2]
            weight = area[part[1:]] / area[part[1:]].sum()
            block = (x[n][part], weight, scale[part], offset[n][part], coarse[n, c, i, j], high)
            expected[n][part] = shifted(*block)
        agrees(BoundedMeans, "nearest field", "a root of scipy for each block", found, expected, rtol=1e-10, atol=1e-10)
        assert float(constraint.residual(tensor(offset + scale * found.numpy())).max()) < 1e-8  # of the mean below 0
    assert float(plain.min()) == 0 and (plain[:, 0, :3, 2:4] == 0).all()


def test_linear_ones_together_are_one(agrees):
    """Integrals, means and divergence at once; the rows of means and integrals depend on each other."""
    _, integral, a, b = LINEAR["integrals"]
    _, free, d, zero = LINEAR["divergence"]
    x = fields()
    found = Together(integral, free, tolerance=1e-12).project(tensor(x))
    stacked = np.concatenate([a, d]), np.concatenate([b, zero], 1)
    agrees(Together, "linear ones", "pseudoinverse of all", found, nearest(x, *stacked), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["block means", "integrals"])
def test_zero_divergence_with_means_is_one_step(name, agrees):
    """Rows that zero divergence makes depend on each other are no hindrance, in any units; values that it forbids are."""
    _, free, d, _ = LINEAR["divergence"]
    _, part, a, _ = LINEAR[name]
    scale = SCALE[:, :1, :1] * np.ones_like(SCALE)
    calm = nearest(OFFSET + fields(30), d, np.zeros((1, len(d))))
    b = calm.reshape(3, -1) @ a.T
    values = tensor(b.reshape(3, C, H // 3, W // 2)) if name == "block means" else tensor(b)
    made = CoarseMeans(values, (3, 2)) if name == "block means" else Integral(tensor(a).reshape(-1, C, H, W), values)
    both, x = DivergenceFreeWith(free, made), fields()
    stacked = np.concatenate([a, d])
    expected = nearest(x, stacked, np.concatenate([b, np.zeros((3, len(d)))], 1))
    found = both.project(tensor(x))
    agrees(DivergenceFreeWith, "nearest field", "pseudoinverse of all", found, expected, rtol=1e-9, atol=1e-9)
    assert float(both.residual(found).max()) < 1e-12
    found = both.in_units(tensor(scale), tensor(OFFSET)).project(tensor(x))
    target = np.concatenate([b, np.zeros((3, len(d)))], 1) - OFFSET.reshape(3, -1) @ stacked.T
    expected = nearest(x, stacked * scale.ravel(), target)
    agrees(DivergenceFreeWith, "nearest in other units", "pseudoinverse of all", found, expected, rtol=1e-9, atol=1e-9)
    assert float(both.residual(tensor(OFFSET + scale * found.numpy())).max()) < 1e-12
    if name == "block means":
        with pytest.raises(ValueError, match="no field without divergence has these values"):
            DivergenceFreeWith(free, part)
        with pytest.raises(ValueError, match="a mean is NaN"):
            DivergenceFreeWith(free, LINEAR["a free block"][1])


def test_a_row_does_not_wait_for_others():
    x, coarse = fields(), rng(2).uniform(0.0, 2.0, size=(3, C, H // 3, W // 2))
    all_rows = Together(CoarseMeans(tensor(coarse), (3, 2)), Bounds(low=0.0)).project(tensor(x))
    for i in range(3):
        alone = Together(CoarseMeans(tensor(coarse[i : i + 1]), (3, 2)), Bounds(low=0.0)).project(tensor(x[i : i + 1]))
        torch.testing.assert_close(alone[0], all_rows[i], rtol=1e-14, atol=1e-14)


def test_the_exact_law_of_white_fields_under_a_constraint(agrees):
    """``E[x | x_t, A x = b]`` where the posterior is white, in the units of the network and of the data."""
    _, constraint, a, b = LINEAR["integrals"]
    mean, variance, scale = rng(12).normal(size=C * H * W), 1.7, SCALE.ravel()
    process = EDM()
    law = Gaussian(mean, variance * np.ones(C * H * W), process)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    x_t = fields(13)
    sigma = process.sigma(t).numpy()[:, None]
    free = mean + variance / (variance + sigma**2) * (x_t.reshape(3, -1) - mean)
    offset = OFFSET[0]
    expected = nearest(free, a * scale, b - a @ offset.ravel()).reshape(x_t.shape)
    guided = Constrained(law, constraint.in_units(tensor(SCALE), tensor(offset)))
    found = guided(tensor(x_t), t)
    agrees(Constrained, "E[x | x_t, A x = b], white", "conditioning in numpy", found.x, expected, rtol=1e-11)
    z = (x_t - expected) / sigma[..., None, None]
    agrees(Constrained, "z at the same x_t", "(x_t - alpha x) / sigma", found.z, z, rtol=1e-11)
    units = {
        "to_data": lambda u: tensor(offset) + tensor(SCALE) * u,
        "to_latent": lambda x: (x - tensor(offset)) / tensor(SCALE),
    }
    other = Constrained(law, constraint, **units)(tensor(x_t), t).x
    expected = nearest(offset + SCALE * free.reshape(x_t.shape), a, np.asarray(b))
    agrees(
        Constrained,
        "x, nearest in data units",
        "pseudoinverse in numpy",
        offset + SCALE * other.numpy(),
        expected,
        rtol=1e-11,
    )


def test_sampling_arrives_on_the_constraint(agrees):
    """The flow of a white Gaussian: along the constraint as without it, across it at once there."""
    _, constraint, a, b = LINEAR["integrals"]
    law = Gaussian(np.zeros(C * H * W), 4.0 * np.ones(C * H * W), RectifiedFlow())
    x_1 = rng(14).normal(size=(3, C, H, W))
    draw = sample(Constrained(law, constraint), tensor(x_1), nfe=40)
    flat = draw.x.numpy().reshape(3, -1)
    size = np.abs(b).max()
    agrees(
        Constrained,
        "A x at the end of a run",
        "b",
        flat @ a.T / size,
        np.tile(b, (3, 1)) / size,
        rtol=1e-12,
        atol=1e-12,
    )
    expected = nearest(2 * x_1, a, np.asarray(b))
    agrees(
        Constrained,
        "the end of a run, 40 calls",
        "the flow of the conditional law",
        draw.x,
        expected,
        rtol=2e-3,
        atol=2e-3,
    )


def test_the_end_stays_finite_where_there_is_no_noise():
    _, constraint, *_ = LINEAR["dense"]
    law = Gaussian(np.zeros(C * H * W), np.ones(C * H * W), RectifiedFlow())
    for t in (0.0, 1.0):
        at = torch.full((3,), t, dtype=torch.float64)
        plain, found = law(tensor(fields()), at), Constrained(law, constraint)(tensor(fields()), at)
        assert torch.equal(found.z, plain.z) and float(constraint.residual(found.x).max()) < 1e-13


def test_the_projection_can_be_differentiated():
    """Of all, stacked, against central differences in a random direction."""
    x, push, weight = (tensor(fields(seed)) for seed in (20, 21, 22))
    coarse = tensor(rng(2).uniform(0.0, 2.0, size=(3, C, H // 3, W // 2)))
    others = {
        "bounded": (0, BoundedMeans(CoarseMeans(coarse, (3, 2)), Bounds(0.0))),
        "bounds": (0, Bounds(0.0)),
        "both": (0, Together(CoarseMeans(coarse, (3, 2)), Bounds(0.0), tolerance=1e-12)),
    }
    for _, constraint, *_ in {**LINEAR, **others}.values():
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((constraint.project(at) * weight).sum(), at)
        ends = [float((constraint.project(x + h * push) * weight).sum()) for h in (1e-5, -1e-5)]
        assert float((slope * push).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-6)


def test_what_cannot_be_kept_is_one_sentence():
    a = rng(3).normal(size=(3, 5))
    twice = np.vstack([a, a[0] - 2 * a[1]])
    with pytest.raises(ValueError, match="row 3 of the operator is a sum of multiples .* says the same, leave it out"):
        Linear(twice, [1.0, 2.0, 3.0, -3.0])
    with pytest.raises(ValueError, match="row 3 .* contradicts them, so no field satisfies all"):
        Linear(twice, [1.0, 2.0, 3.0, 3.0])
    with pytest.raises(ValueError, match="row 1 of the operator is 0 or NaN"):
        Linear(np.array([[1.0, 0.0], [0.0, 0.0]]), [1.0, 2.0])
    with pytest.raises(ValueError, match=r"operator and values are \(3, 5\) and \(2,\)"):
        Linear(a, [1.0, 2.0])
    with pytest.raises(ValueError, match="expected 5 numbers in each"):
        Linear(a, np.ones(3)).project(torch.zeros(1, 6))
    with pytest.raises(ValueError, match=r"fields are \(1, 1, 4\), expected \('B', 1, 6\)"):
        CoarseMeans(torch.zeros(1, 1, 3), (2,)).project(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="only cells of weight 0"):
        CoarseMeans(torch.zeros(1, 1, 2), (2,), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="low is above high"):
        Bounds(1.0, 0.0)
    with pytest.raises(ValueError, match="expected at least one"):
        Bounds()
    with pytest.raises(ValueError, match="expected 2 or 3 of each"):
        DivergenceFree((0, 0), (1.0, 1.0))
    with pytest.raises(ValueError, match="differs between cells"):
        LINEAR["divergence"][1].in_units(tensor(SCALE), tensor(OFFSET))
    with pytest.raises(UndriftError, match="2 constraints have a relative residual of .* after 50 rounds"):
        Together(Bounds(low=1.0), Bounds(high=0.0), rounds=50).project(torch.zeros(1, 1, 4))
    with pytest.raises(UndriftError, match="no field within the bounds has a mean of -1 over a block"):
        BoundedMeans(CoarseMeans(-torch.ones(1, 1, 2), (2,)), Bounds(low=0.0)).project(torch.zeros(1, 1, 4))
    with pytest.raises(TypeError, match=r"constraint is the class Bounds, expected an object of Constraint"):
        Together(Bounds)
    with pytest.raises(TypeError, match="means is Bounds, expected an object of CoarseMeans"):
        BoundedMeans(Bounds(0.0), Bounds(0.0))
    with pytest.raises(TypeError, match="denoiser is function, expected an object of Denoiser"):
        Constrained(lambda x, t: x, Bounds(0.0))
    with pytest.raises(ValueError, match="expected both or none"):
        Constrained(Gaussian([0.0], [1.0]), Bounds(0.0), to_data=torch.exp)
