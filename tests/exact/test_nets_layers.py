"""Layers of the nets against formulas written out in numpy."""

import numpy as np
import pytest
import torch

from undrift.nets.embed import ConditionEmbedding, RowLinear, fourier_features
from undrift.nets.layers import Conv, ResidualBlock, pad_axis

MODES = {"zeros": "constant", "reflect": "reflect", "circular": "wrap"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 1), (7, 3)])
def test_pad_axis_is_numpys(mode, size, before, after):
    x = np.random.default_rng(0).normal(size=(2, 3, size, 2)).astype(np.float32)
    if size == 1 and mode == "reflect":
        expected = np.repeat(x, before + 1 + after, axis=2)
    else:
        expected = np.pad(x, [(0, 0), (0, 0), (before, after), (0, 0)], mode=MODES[mode])
    padded = pad_axis(torch.from_numpy(x), 2, before, after, mode)
    np.testing.assert_array_equal(padded.numpy(), expected)


@pytest.mark.parametrize("padding", [("zeros",), ("reflect", "circular"), ("circular", "zeros", "reflect")])
def test_conv_is_the_sum_over_its_stencil(padding):
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    layer = Conv(2, 3, padding)
    x = rng.normal(size=(2, 2, *(5, 4, 3)[: len(padding)])).astype(np.float32)
    padded = x.astype(np.float64)
    for axis, mode in enumerate(padding, start=2):
        width = [(0, 0)] * x.ndim
        width[axis] = (1, 1)
        padded = np.pad(padded, width, mode=MODES[mode])
    weight, bias = (p.detach().double().numpy() for p in (layer.conv.weight, layer.conv.bias + 0.5))
    layer.conv.bias.data += 0.5
    expected = np.zeros((2, 3, *x.shape[2:])) + bias.reshape(1, 3, *[1] * len(padding))
    for offset in np.ndindex(*weight.shape[2:]):
        window = padded[(..., *(slice(o, o + n) for o, n in zip(offset, x.shape[2:])))]
        expected += np.einsum("oi,bi...->bo...", weight[(..., *offset)], window)
    with torch.no_grad():
        np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("grad", [True, False])
def test_residual_block_is_its_formula(grad):
    """x + W2 act(W1 ((1 + a) norm(x) + b)) with act(u) = u min(max(u + 3, 0), 6) / 6, the norm over 16 channels each."""
    torch.manual_seed(0)
    block = ResidualBlock(32, 8, ("zeros", "zeros"))
    for parameter in block.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    x, embedding = torch.randn(2, 32, 6, 5) + 1, torch.randn(2, 8)
    groups = x.double().reshape(2, 2, -1)
    norm = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    film = embedding @ block.film.weight.T + block.film.bias
    y = (1 + film[:, :32, None, None]) * norm.reshape(x.shape) + film[:, 32:, None, None]
    y = block.first.double()(y)
    y = y * (y + 3).clamp(0, 6) / 6
    expected = (x.double() + block.second.double()(y)).detach()
    before = x.clone()
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(block.float()(x, embedding).detach().double(), expected, rtol=0, atol=5e-6)
    assert torch.equal(x, before)


def test_fourier_features_tell_small_labels_apart():
    """Their Gram matrix over the range of labels has the kernel cos(w (t - s)): labels 0.02 apart are no near copies."""
    t = torch.linspace(0, torch.pi / 2, 80)
    features = fourier_features(t, 128).double()
    w = 64 ** np.linspace(0, 1, 64)
    gram = np.cos(w * (t.double().numpy()[:, None, None] - t.double().numpy()[None, :, None])).sum(-1)
    np.testing.assert_allclose((features @ features.T).numpy(), gram, atol=2e-3)
    assert gram[0, 1] / gram[0, 0] < 0.93
    assert (np.diff(features[:, 0].numpy()) < 0).all()  # the slowest wave is monotone


def test_embedding_is_its_formula_also_under_autocast():
    torch.manual_seed(0)
    embed = ConditionEmbedding(16, 3)
    t, vector = torch.rand(5), torch.randn(5, 3)
    x = torch.cat([fourier_features(t, 16), vector], 1)
    silu = lambda u: u / (1 + torch.exp(-u))  # noqa: E731
    hidden = silu(x @ embed.first.weight.T + embed.first.bias)
    expected = silu(hidden @ embed.second.weight.T + embed.second.bias)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embed(t, vector), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 5, 6, 11])
def test_row_linear_is_linear_with_rows_that_do_not_know_their_place(batch):
    torch.manual_seed(0)
    layer = RowLinear(130, 96)
    x = torch.randn(batch, 130)
    y = layer(x)
    torch.testing.assert_close(y, x @ layer.weight.T + layer.bias, rtol=0, atol=1e-5)
    for shift in range(1, batch):
        assert torch.equal(layer(x.roll(shift, 0)), y.roll(shift, 0))
