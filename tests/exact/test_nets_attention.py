"""Attention, the frames of a window and their convolution against formulas written out in numpy."""

import numpy as np
import pytest
import torch

from undrift.errors import UsageError
from undrift.nets.attention import Attention, angles, heads_of
from undrift.nets.frames import Frames
from undrift.nets.space_time import FrameAttention, FrameConv


def moved(module, seed=0):
    """The module with all weights away from zero, and its dense layers as matrices in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 4) ** 0.5
    return {key: value.double().numpy() for key, value in module.state_dict().items()}


def dense(weights, key, x):
    """A convolution of one cell, of x (..., channels)."""
    weight = weights[f"{key}.conv.weight"]
    return x @ weight.reshape(weight.shape[:2]).T + weights[f"{key}.conv.bias"]


def looked(q, k, v, speeds, places):
    """Attention of one head, (n, d) each: products of pairs turned by their distance along each axis (RoFormer, eq. 16).

    ``speeds`` are radians a position, (pairs, axes), and ``places`` positions, (n, axes).
    """
    pairs = len(speeds)
    one, two = (a[:, :pairs] + 1j * a[:, pairs : 2 * pairs] for a in (q, k))
    apart = np.einsum("pa,ija->ijp", speeds, places[:, None] - places[None])
    score = np.einsum("ip,jp,ijp->ij", one, two.conj(), np.exp(1j * apart)).real
    score = (score + q[:, 2 * pairs :] @ k[:, 2 * pairs :].T) / np.sqrt(q.shape[1])
    share = np.exp(score - score.max(1, keepdims=True))
    return share / share.sum(1, keepdims=True) @ v


CASES = {  # over, channels, sizes, periodic
    "frames": ("frames", 6, (3,), (True,)),
    "frames of maps, two heads": ("frames", 64, (2, 3), (False, True)),
    "a line": ("space", 10, (5,), (False,)),
    "a circle": ("space", 12, (6,), (True,)),
    "a map": ("space", 20, (3, 4), (False, True)),
    "a box, an odd head": ("space", 7, (2, 3, 2), (True, False, False)),
}


@pytest.mark.parametrize("case", CASES)
def test_attention_is_its_formula_of_distances(case):
    over, channels, sizes, periodic = CASES[case]
    frames, heads = 4, max(channels // 32, 1)
    layer = Attention(channels, frames, periodic, over)
    weights, each = moved(layer), channels // heads
    x = np.random.default_rng(1).normal(size=(2 * frames, channels, *sizes)).astype(np.float32)
    rows = np.moveaxis(x.astype(np.float64), 1, -1).reshape(2, frames, -1, channels)
    q, k, v = np.split(dense(weights, "ask", rows), 3, -1)
    pairs = each // 2
    axes, closes = (sizes, periodic) if over == "space" else ((frames,), (False,))
    speeds = np.zeros((pairs, len(axes)))
    shares = np.array_split(np.arange(pairs), len(axes))
    for axis, own in enumerate(shares):
        radians = np.geomspace(1, 1 / 64, len(own)) if len(own) > 1 else np.ones(len(own))
        if closes[axis]:  # a whole number of turns around
            radians = np.maximum(np.round(radians * axes[axis] / (2 * np.pi)), 1) * 2 * np.pi / axes[axis]
        speeds[own, axis] = radians
    places = np.stack([i.ravel() for i in np.indices(axes)], -1)
    out = np.zeros_like(rows)
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        for b in range(2):
            for other in range(rows.shape[2] if over == "frames" else frames):
                at = (b, slice(None), other, part) if over == "frames" else (b, other, slice(None), part)
                out[at] = looked(q[at], k[at], v[at], speeds, places)
    expected = np.moveaxis(dense(weights, "tell", out).reshape(2 * frames, *sizes, channels), -1, 1)
    with torch.no_grad():
        np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, rtol=0, atol=3e-6)
    assert np.abs(expected).max() > 0.3


def test_angles_close_on_a_circle_and_reach_far_on_a_line():
    line = angles((5,), 7, (False,)).numpy()
    np.testing.assert_allclose(line[1], np.geomspace(1, 1 / 64, 7))
    np.testing.assert_allclose(line, np.arange(5)[:, None] * line[1])
    circle = angles((20,), 7, (True,)).numpy()
    turns = 20 * circle[1] / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)
    np.testing.assert_allclose(turns, [3, 2, 1, 1, 1, 1, 1])  # nearest to 20 / (2 pi) 64^(-k / 6)


def test_heads_have_about_32_channels_each():
    assert [heads_of(c) for c in (1, 31, 32, 64, 96, 100, 128)] == [1, 1, 1, 2, 3, 2, 4]


def test_a_convolution_of_frames_is_its_sum():
    layer = FrameConv(3, 4, 2)
    weights = moved(layer)
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5, 2)).astype(np.float32)
    w = weights["mix.conv.weight"].reshape(3, 3, 3)  # out, frame before or after, in
    expected = x.astype(np.float64) + weights["mix.conv.bias"].reshape(3, 1, 1)
    for t in range(4):
        for k, s in enumerate((max(t - 1, 0), t, min(t + 1, 3))):
            expected[:, t] += np.einsum("oi,bi...->bo...", w[:, k], x[:, s])
    with torch.no_grad():
        y = layer(torch.from_numpy(x).flatten(0, 1), None).unflatten(0, (2, 4))
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=2e-6)


def test_frames_attend_to_what_the_norm_leaves():
    layer = FrameAttention(32, 3, 1)
    moved(layer)
    x = torch.randn(6, 32, 5, generator=torch.Generator().manual_seed(0))
    groups = x.double().reshape(6, 2, -1)
    norm = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    with torch.no_grad():
        expected = x.double() + layer.attend.double()(norm.reshape(x.shape))
        torch.testing.assert_close(layer.float()(x, None).double(), expected, rtol=0, atol=5e-6)


def test_channels_of_a_window_and_back():
    """Groups with the frame fastest around two static channels: every number where it belongs."""
    window = Frames(11, 6, 3, range(6, 8))
    x = torch.arange(2 * 11 * 4.0).reshape(2, 11, 4)
    folded = window.folded(x)
    assert (window.seen, window.answered) == (5, 2) and folded.shape == (6, 5, 4)
    for b in range(2):
        for t in range(3):
            rows = [t, 3 + t, 8 + t, 6, 7]  # of the variables before and after the static ones, and these
            assert torch.equal(folded[3 * b + t], x[b, rows])
    assert torch.equal(window.unfolded(folded[:, :2]), x[:, :6])
    labels, vectors = window.told(torch.tensor([0.1, 0.2]), torch.tensor([[5.0], [6.0]]))
    assert labels.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2, 0.2])
    assert vectors.tolist() == [[v, *row] for v in (5.0, 6.0) for row in np.eye(3).tolist()]


@pytest.mark.parametrize(
    "channels", [(11, 6, 3, range(5, 7)), (10, 6, 3, range(6, 8)), (11, 5, 3, range(6, 8)), (6, 6, 3, range(6, 8))]
)
def test_channels_that_are_no_whole_groups(channels):
    with pytest.raises(UsageError, match="expected groups of 3 channels, one for each frame"):
        Frames(*channels)
    with pytest.raises(UsageError, match="at least one frame and one channel"):
        Frames(1, 1, 0)
