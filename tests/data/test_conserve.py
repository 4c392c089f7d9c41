"""Drawn fields have the means over blocks that are given, to rounding, whatever the transform."""

import numpy as np
import pytest
import xarray as xr

from undrift.data.codec_fit import fit_codec
from undrift.data.conserve import block_means, conserved, in_blocks
from undrift.data.open import open_fields
from undrift.data.transforms import Transform
from undrift.tasks import Downscale, pair

KINDS = {
    "standard": Transform("standard", 280.0, 12.0),
    "power": Transform("power", 1.3, 0.4, 1 / 3, 0.0),
    "censored": Transform("censored", 0.2, 0.9, 1 / 3, 0.0),
    "bounded": Transform("bounded", 60.0, 55.0, 1.0, 0.0, 100.0),
}
FACTORS = {1: (5,), 2: (2, 4), 3: (2, 1, 3)}


def latents(space: int, seed: int = 0) -> tuple[np.ndarray, tuple[int, ...]]:
    factor = FACTORS[space]
    shape = tuple(3 * f for f in factor)
    return np.random.default_rng(seed).normal(size=(7, *shape)), factor


@pytest.mark.parametrize("space", FACTORS)
def test_blocks_are_those_of_xarray(space):
    x, factor = latents(space)
    dims = [f"d{i}" for i in range(space)]
    array = xr.DataArray(x, dims=["n", *dims])
    expected = array.coarsen(dict(zip(dims, factor))).mean()
    np.testing.assert_allclose(block_means(x, factor), expected.values, rtol=1e-12)
    assert in_blocks(x, factor).shape == (*expected.shape, np.prod(factor))


@pytest.mark.parametrize("space", FACTORS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_get_their_means_and_cells_keep_their_order(kind, space):
    transform = KINDS[kind]
    u, factor = latents(space)
    truth = transform.decode(0.8 * latents(space, seed=1)[0] + 0.3)
    mask = np.zeros(u.shape[1:], dtype=bool)
    mask[(0,) * space] = True
    truth[:, mask] = np.nan
    means = block_means(truth, factor)
    out = conserved(u, means, factor, transform, mask)
    x = transform.decode(out)
    x[:, mask] = np.nan
    np.testing.assert_allclose(block_means(x, factor), means, rtol=1e-7, atol=1e-9)
    moved = in_blocks(out - u, factor)
    finite = np.isfinite(moved).all(-1)
    np.testing.assert_allclose(moved[finite], np.broadcast_to(moved[finite][:, :1], moved[finite].shape), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_known_cells_count_in_the_means_of_their_blocks(kind):
    """The others are shifted together to what is left of the means; a block that is known as a whole stays."""
    transform = KINDS[kind]
    u, factor = latents(2)
    truth = transform.decode(0.8 * latents(2, seed=1)[0] + 0.3)
    there = np.random.default_rng(2).random(truth.shape) < 0.4
    there[:, : factor[0], : factor[1]], there[:, -1, -1] = True, False
    known, mask = np.where(there, truth, np.nan), np.zeros(u.shape[1:], dtype=bool)
    out = conserved(u, block_means(truth, factor), factor, transform, mask, known)
    x = np.where(there, truth, transform.decode(out))
    np.testing.assert_allclose(block_means(x, factor), block_means(truth, factor), rtol=1e-7, atol=1e-9)
    moved = np.where(in_blocks(there, factor), np.nan, in_blocks(out - u, factor))
    dry = ~np.isfinite(moved).any(-1)
    assert np.nanstd(np.where(dry[..., None], 0, moved), axis=-1).max() < 1e-9
    np.testing.assert_array_equal(out[:, : factor[0], : factor[1]], u[:, : factor[0], : factor[1]])


@pytest.mark.parametrize("kind", ["censored", "bounded"])
def test_a_block_given_at_a_bound_is_at_the_bound(kind):
    transform = KINDS[kind]
    u, factor = latents(2)
    means = np.full((7, 3, 3), float(transform.decode(np.zeros(1))[0]))
    means[:, 0], means[:, 1, 0] = transform.lower, np.nan
    if transform.upper is not None:
        means[:, 2] = transform.upper
    x = transform.decode(conserved(u, means, factor, transform, np.zeros(u.shape[1:], bool)))
    assert (x[:, :2] == transform.lower).all()
    if transform.upper is not None:
        assert (x[:, 4:] == transform.upper).all()
    # nothing is given of this block
    np.testing.assert_array_equal(x[:, 2:4, :4], transform.decode(u[:, 2:4, :4]))


def test_what_is_in_a_block_keeps_its_law_given_the_mean():
    """Independent N(0, 1) cells shifted to a mean are such cells given that mean: variance 1 - 1/n, correlation -1/n."""
    rng = np.random.default_rng(0)
    u, cells = rng.normal(size=(4000, 4, 4)), 16
    means, unit, none = np.full((4000, 1, 1), 0.7), Transform("standard", 0.0, 1.0), np.zeros((4, 4), dtype=bool)
    out = in_blocks(conserved(u, means, (4, 4), unit, none), (4, 4))
    covariance = np.cov(out.reshape(4000, cells).T)
    np.testing.assert_allclose(out.mean(-1), 0.7, atol=1e-12)
    np.testing.assert_allclose(np.diag(covariance).mean(), 1 - 1 / cells, rtol=4 * np.sqrt(2 / 4000 / cells))
    off = covariance[~np.eye(cells, dtype=bool)].mean()
    np.testing.assert_allclose(off, -1 / cells, rtol=0.05)


def field(values: np.ndarray, **attrs: str) -> xr.Dataset:
    step = 1.0 if values.shape[-1] == 16 else 4.0
    axes = [np.arange(n) * step + (step - 1) / 2 for n in values.shape[1:]]
    coords = {"n": np.arange(len(values)), "y": axes[0], "x": axes[1]}
    return xr.Dataset({"q": (("n", "y", "x"), values, {"units": "K", **attrs})}, coords)


@pytest.mark.parametrize(("added", "kept"), [(0.0, True), (1e-7, True), (0.05, False)])
def test_means_are_kept_only_where_all_that_is_given_are_means(added, kept):
    rng = np.random.default_rng(0)
    fine = np.kron(rng.normal(size=(40, 2, 4)), np.ones((4, 4))) + rng.normal(size=(40, 8, 16))
    coarse = block_means(fine, (4, 4)) + added * rng.normal(size=(40, 2, 4))
    joined = pair.join_given(open_fields(field(fine)), open_fields(field(coarse)))
    codec, _ = fit_codec(joined.target, joined.given, np.arange(30), factor=joined.factor, covariates={})
    assert joined.factor == (4, 4)
    assert codec.conserves.tolist() == [kept]
    rows = np.arange(30, 40)
    encoded, predicted = codec.encode(None, joined.given, rows, covariates={})
    x = codec.decode(rng.normal(size=predicted.mean.shape), predicted, encoded.blocks)
    away = np.abs(block_means(x[:, 0].astype(float), (4, 4)) - coarse[30:]).max()
    assert (away < 1e-5) == kept


def test_rain_falls_only_where_it_is_given():
    rng = np.random.default_rng(1)
    slow = np.kron(rng.normal(size=(40, 2, 4)) - 0.5, np.ones((4, 4)))
    fine = np.maximum(slow + 0.5 * rng.normal(size=(40, 8, 16)), 0) ** 3
    task = Downscale(4).pair(open_fields(field(fine, units="mm/day")))
    codec, _ = fit_codec(task.target, task.given, np.arange(30), factor=task.factor, covariates={})
    encoded, predicted = codec.encode(None, task.given, np.arange(30, 40), covariates={})
    x = codec.decode(rng.normal(size=predicted.mean.shape), predicted, encoded.blocks)[:, 0]
    given = block_means(fine[30:], (4, 4))
    assert 0.05 < (given == 0).mean() < 0.95
    np.testing.assert_array_equal(block_means(x, (4, 4)) == 0, given == 0)
    np.testing.assert_allclose(block_means(x.astype(float), (4, 4)), given, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("gaps", "kept"), [("none", True), ("whole blocks", True), ("few", True), ("many", False)])
def test_means_of_what_is_known_of_a_block_are_not_kept(gaps, kept, caplog):
    caplog.set_level("INFO", logger="undrift")
    rng = np.random.default_rng(2)
    fine = np.kron(rng.normal(size=(40, 2, 4)), np.ones((4, 4))) + rng.normal(size=(40, 8, 16))
    if gaps == "whole blocks":
        fine[::3, :4, :4] = np.nan
    elif gaps != "none":
        fine.reshape(-1)[rng.permutation(fine.size)[: 2 if gaps == "few" else 100]] = np.nan
    task = Downscale(4).pair(open_fields(field(fine)))
    codec, _ = fit_codec(task.target, task.given, np.arange(40), factor=task.factor, covariates={})
    assert codec.conserves.tolist() == [kept]
    assert ("need not keep the block means of q" in caplog.text) == (not kept)


def test_values_given_where_the_target_has_none_do_not_count():
    rng = np.random.default_rng(3)
    fine = rng.normal(size=(40, 8, 16))
    coarse = block_means(fine, (4, 4))
    fine[:, :4, :4] = np.nan
    joined = pair.join_given(open_fields(field(fine)), open_fields(field(coarse)))
    codec, _ = fit_codec(joined.target, joined.given, np.arange(40), factor=joined.factor, covariates={})
    assert codec.conserves.tolist() == [True]
