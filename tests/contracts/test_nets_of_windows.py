"""What the nets of windows keep: what UNet keeps, and that nothing but numbers and distances tells frames apart."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_nets import by_hand, lengthened, no_default_device  # noqa: F401
from torch.utils.flop_counter import FlopCounterMode

from undrift.data.memory import ACTIVATIONS
from undrift.errors import UsageError
from undrift.nets import DiT, SpaceTimeUNet, UNet, evaluate

FRAMES = 3
WINDOW = {"frames": FRAMES, "static": range(6, 8), "vector_features": 2, "embedding": 16}
LEVELS, PATCHES = WINDOW | {"channels": (8, 16)}, WINDOW | {"channels": (24,), "layers": 3, "patch": 2}
NETS = {
    "U-Net 1d circular": (SpaceTimeUNet, LEVELS | {"space": 1, "padding": ("circular",)}),
    "U-Net 2d globe": (SpaceTimeUNet, LEVELS | {"space": 2, "padding": ("reflect", "circular")}),
    "U-Net 2d of one level": (SpaceTimeUNet, LEVELS | {"space": 2, "channels": (16,)}),
    "U-Net 3d": (SpaceTimeUNet, LEVELS | {"space": 3, "padding": ("zeros", "reflect", "circular")}),
    "DiT 1d circular": (DiT, PATCHES | {"space": 1, "padding": ("circular",)}),
    "DiT 2d globe": (DiT, PATCHES | {"space": 2, "padding": ("reflect", "circular")}),
    "DiT 3d": (DiT, PATCHES | {"space": 3, "padding": ("zeros", "reflect", "circular")}),
    "DiT 2d of single fields": (DiT, PATCHES | {"space": 2, "frames": 1, "static": range(0)}),
}
PERIODIC = [name for name, (_, options) in NETS.items() if "circular" in options.get("padding", ())]


def build(name, dropout=0.0, fresh=False):
    """A small net on the CPU, its weights moved away from their zeros."""
    torch.manual_seed(0)
    kind, options = NETS[name]
    net = kind(11, 6, dropout=dropout, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in [] if fresh else net.parameters():
        noise = torch.randn(parameter.shape, generator=generator, device="cpu")
        parameter.data += noise / math.sqrt(3 * max(parameter[0].numel(), 8))
    return net


def inputs(name, shape=(8, 6, 4), batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 11, *shape[: NETS[name][1]["space"]], generator=generator, device="cpu")
    t = 1.5 * torch.rand(batch, generator=generator, device="cpu")
    return x, t, torch.randn(batch, 2, generator=generator, device="cpu")


def dense(weights, key, x):
    """A convolution of one cell, of x (..., channels)."""
    weight = weights[f"{key}.conv.weight"]
    return x @ weight.flatten(1).T + weights[f"{key}.conv.bias"]


def looked(layer, weights, key, x):
    """Attention of x (B frames, C, *space), held in tests/exact/test_nets_attention.py, with these weights."""
    for part in ("ask", "tell"):
        assert torch.equal(getattr(layer, part).conv.weight.double(), weights[f"{key}.{part}.conv.weight"])
    return layer.double()(x)


def mixed(net):
    """What stands between the residual blocks of the space-time U-Net."""

    def block(weights, key, x):
        if f"{key}.mix.conv.weight" not in weights:
            layer = net.get_submodule(f"{key}.attend")
            group = x.reshape(len(x), max(x.shape[1] // 16, 1), -1)
            group = (group - group.mean(2, keepdim=True)) / (group.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
            return x + looked(layer, weights, f"{key}.attend", group.reshape(x.shape))
        y = x.movedim(1, -1).unflatten(0, (-1, FRAMES))
        near = [y[:, [max(t - 1, 0), t, min(t + 1, FRAMES - 1)]].movedim(1, -2).flatten(-2) for t in range(FRAMES)]
        return x + dense(weights, f"{key}.mix", torch.stack(near, 1)).flatten(0, 1).movedim(-1, 1)

    return block


def patches_by_hand(net, x, t, vector):
    """The DiT written down anew, of frames (n, C, *space) in float64: adaLN-Zero, patch by patch."""
    weights = {key: value.double() for key, value in net.state_dict().items()}
    width, patch, sizes = net.channels[0], net.patch, x.shape[2:]

    def linear(key, x):
        return x @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    def normed(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()

    def told(key, parts):
        return linear(key, e).reshape(len(x), *[1] * net.space, parts, width).unbind(-2)

    frequencies = torch.from_numpy(64 ** np.linspace(0, 1, net.embedding // 2))
    e = torch.cat([(frequencies * t[:, None]).cos(), (frequencies * t[:, None]).sin(), vector], 1)
    e = F.silu(linear("embed.second", F.silu(linear("embed.first", e))))
    x = lengthened(x, (0,) * net.space, [-n % patch for n in sizes], net.padding)
    grid = [n // patch for n in x.shape[2:]]
    # (n, *grid, C, *cells of a patch)
    order = [0, *range(2, 2 + 2 * net.space, 2), 1, *range(3, 3 + 2 * net.space, 2)]
    cut = x.reshape(len(x), -1, *(m for n in grid for m in (n, patch))).permute(order)
    h = cut.flatten(1 + net.space) @ weights["first.weight"].flatten(1).T + weights["first.bias"]
    for n, layer in enumerate(net.layers):
        shift, scale, gate, shift_2, scale_2, gate_2 = told(f"layers.{n}.film", 6)
        y = ((1 + scale) * normed(h) + shift).movedim(-1, 1)
        h = h + gate * looked(layer.attend, weights, f"layers.{n}.attend", y).movedim(1, -1)
        y = dense(weights, f"layers.{n}.widen", (1 + scale_2) * normed(h) + shift_2)
        h = h + gate_2 * dense(weights, f"layers.{n}.narrow", y * (y + 3).clamp(0, 6) / 6)
    shift, scale = told("film", 2)
    y = dense(weights, "last", (1 + scale) * normed(h) + shift)
    y = y.unflatten(-1, (-1, *[patch] * net.space))  # (n, *grid, C, *cells)
    back = [0, 1 + net.space, *(a for i in range(net.space) for a in (1 + i, 2 + net.space + i))]
    y = y.permute(back).reshape(len(x), -1, *(n * patch for n in grid))
    return y[(..., *(slice(0, n) for n in sizes))]


def whole_by_hand(net, x, t, vector):
    """Either net on windows, frame by frame, in float64."""
    frames, static = net.window.frames, [*net.window.static]
    rest = [i for i in range(net.in_channels) if i not in static]
    x, t, vector = x.double(), t.double(), vector.double()
    eye = torch.eye(frames, dtype=torch.float64, device="cpu")
    parts = [
        [x[:, [*rest[k::frames], *static]], t, torch.cat([vector, eye[k].expand(len(x), -1)], 1)] for k in range(frames)
    ]
    x, t, vector = (torch.stack(part, 1).flatten(0, 1) for part in zip(*parts))
    if isinstance(net, DiT):
        y = patches_by_hand(net, x, t, vector)
    else:
        y = by_hand(net.net, x, t, vector, mixed(net.net))
    y = y.unflatten(0, (-1, frames))
    return torch.stack([y[:, k, v] for v in range(y.shape[2]) for k in range(frames)], 1)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_any_size_goes_in_and_what_the_formula_says_comes_out(name, size):
    x, t, vector = inputs(name, (size, 5, 2), batch=2)
    net = build(name).eval()
    with torch.no_grad():
        found = net(x, t, vector)
        assert torch.equal(build(name, fresh=True)(x, t, vector), torch.zeros(2, 6, *x.shape[2:], device="cpu"))
        expected = whole_by_hand(net, x, t, vector)
    assert expected.std() > 0.1
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", PERIODIC)
def test_rolling_a_periodic_axis_rolls_the_output(name):
    axis = 2 + NETS[name][1]["padding"].index("circular")
    net = build(name).eval()
    x, t, vector = inputs(name, (8, 8, 8))
    with torch.no_grad():
        y = net(x, t, vector)
        for cells in (net.stride, -2 * net.stride):
            rolled = net(x.roll(cells, axis), t, vector)
            torch.testing.assert_close(rolled, y.roll(cells, axis), rtol=0, atol=3e-6)
        assert (net(x.roll(1, axis), t, vector) - y.roll(1, axis)).abs().max() > 1e-3  # by other steps it cannot
        if axis > 2:
            assert (net(x.roll(2, 2), t, vector) - y.roll(2, 2)).abs().max() > 1e-3  # the other is not periodic


@pytest.mark.parametrize("name", [name for name in NETS if "single" not in name])
def test_frames_that_are_alike_are_answered_alike_but_for_their_numbers(name):
    net = build(name).eval()
    x, t, vector = inputs(name)
    moving = (
        torch.cat([x[:, :6], x[:, 8:]], 1).unflatten(1, (-1, FRAMES))[:, :, :1].expand(-1, -1, FRAMES, *x.shape[2:])
    )
    x = torch.cat([moving.flatten(1, 2)[:, :6], x[:, 6:8], moving.flatten(1, 2)[:, 6:]], 1)
    with torch.no_grad():
        numbered = net(x, t, vector).unflatten(1, (2, FRAMES))
        (net if isinstance(net, DiT) else net.net).embed.first.weight[:, -FRAMES:] = 0
        y = net(x, t, vector).unflatten(1, (2, FRAMES))
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y), rtol=0, atol=1e-5)
    assert (numbered - numbered[:, :, :1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", [name for name in NETS if "single" not in name])
def test_every_frame_is_seen_by_every_other(name):
    net = build(name).eval()
    x, t, vector = inputs(name)
    with torch.no_grad():
        y = net(x, t, vector)
        for frame in range(FRAMES):
            other = x.clone()
            other[:, frame] += 1
            change = (net(other, t, vector) - y).unflatten(1, (2, FRAMES)).abs().amax((0, 1, *range(3, x.ndim + 1)))
            assert (change > 1e-4).all(), (frame, change)


@pytest.mark.parametrize("name", NETS)
def test_every_weight_learns_by_the_slope_of_the_loss(name):
    net = build(name, dropout=0.2)
    x, t, vector = inputs(name, (4, 4, 4), batch=2)

    def loss():
        torch.manual_seed(3)  # of the channels that are dropped
        return net(x, t, vector).square().mean()

    loss().backward()
    for key, parameter in net.named_parameters():
        slope = parameter.grad.norm()
        if key.endswith("ask.conv.bias"):  # a bias of all keys alike has no say: no slope of its own there
            assert slope > 1e-4, key
        else:
            assert slope > 1e-3, key
        step, values = 0.01 * parameter.grad / slope, []
        with torch.no_grad():
            for way in (1, -2):
                parameter += way * step
                values.append(float(loss()))
            parameter += step
        assert (values[0] - values[1]) / 0.02 == pytest.approx(float(slope), rel=0.05, abs=1e-4), key


@pytest.mark.parametrize("name", NETS)
def test_a_fresh_net_learns_from_zero(name):
    """The last layer moves first, then what it is fed with; gates open before what they let through."""
    net = build(name, fresh=True)
    x, t, vector = inputs(name)
    optimiser, silent = torch.optim.SGD(net.parameters(), 0.1), []
    for _ in range(4):
        optimiser.zero_grad()
        (net(x, t, vector) - x[:, :6]).square().mean().backward()
        silent.append([key for key, p in net.named_parameters() if p.grad.abs().max() == 0])
        optimiser.step()
    assert silent[0] and not silent[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [6, 16])
def test_a_sample_is_the_same_bits_beside_any_neighbours_at_any_position(name, dtype, batch):
    net = build(name).eval()
    x, t, vector = inputs(name, (9, 8, 6), batch)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(3), device="cpu")
    others = [a.clone() for a in inputs(name, (9, 8, 6), batch, seed=7)]
    for ours, other in zip((x, t, vector), others):
        other[2] = ours[4]
    with torch.no_grad():
        y = evaluate(net, dtype, x, t, vector)
        assert torch.equal(evaluate(net, dtype, x[order], t[order], vector[order]), y[order])
        assert torch.equal(evaluate(net, dtype, *others)[2], y[4])


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_agrees_within_its_rounding(name):
    net = build(name)
    x, t, vector = inputs(name)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        net.zero_grad()
        y = evaluate(net, dtype, x, t, vector)
        assert y.dtype == torch.float32
        y.square().mean().backward()
        found[dtype] = y.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])
    for exact, rounded in zip(found[torch.float32], found[torch.bfloat16]):
        error = (exact - rounded).norm() / exact.norm()
        assert 2**-12 < error < math.sqrt(20) * 2**-7  # as of the U-Net


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 5, 7)])
def test_the_operations_counted_are_those_torch_counts(name, shape):
    net = build(name)
    x, t, vector = inputs(name, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t, vector)
    assert net.flops((3, *x.shape[2:])) == counter.get_total_flops()


@pytest.mark.parametrize("name", NETS)
def test_the_label_and_the_vector_matter(name):
    net = build(name).eval()
    x, t, vector = inputs(name)
    with torch.no_grad():
        y = net(x, t, vector)
        for changed in (net(x, t + 0.02, vector), net(x, t, vector + 0.1)):
            assert ((changed - y).flatten(1).norm(dim=1) > 1e-3 * y.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize(
    "net",
    [
        UNet(30, 6, space=2, channels=(32, 64, 64)),
        SpaceTimeUNet(30, 6, space=2, frames=6, channels=(16, 32, 32)),
        DiT(30, 6, space=2, frames=6, channels=(64,), patch=4),
    ],
    ids=lambda net: type(net).__name__,
)
def test_a_plan_knows_about_how_much_a_training_holds(net):
    """What autograd keeps for the way back, of a batch of two in float32: within a factor of two of what is told."""
    seen = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = net(torch.randn(2, 30, 32, 32, device="cpu"), torch.rand(2, device="cpu"))
    held = sum(size for key, size in seen.items() if key not in weights)
    assert y.requires_grad and 0.5 < held / (2 * ACTIVATIONS * net.held((32, 32))) < 2


def test_dropout_of_the_transformer_keeps_the_mean_and_ends_with_training():
    layer, seen = build("DiT 2d globe", dropout=0.5).layers[1], []
    layer.widen.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    layer.film.weight.data[: 3 * 24] = layer.film.bias.data[: 3 * 24] = 0  # no attention, so that both see the same
    x, e = torch.randn(1200, 24, 1, 1, device="cpu"), torch.randn(1200, 16, device="cpu")
    layer.eval()(x, e), layer.train()(x, e)
    exact, drawn = seen
    stays = drawn != 0
    torch.testing.assert_close(drawn[stays], 2 * exact[stays])
    assert abs(stays.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(stays.numel())


@pytest.mark.parametrize(
    ("name", "count"), [("U-Net 2d globe", 2 * (2 + 4 + 4 * 3 + 2 + 2 * 2)), ("DiT 2d globe", 2 * (2 + 1 + 3 * 5 + 2))]
)
def test_the_keys_of_the_weights(name, count):
    """Runs on disk hold these names: they may be added to, not renamed."""
    keys = set(build(name).state_dict())
    names = {
        "U-Net 2d globe": ("net.first.conv", "net.down.0.0.film", "net.down.0.1.mix.conv", "net.up.1.1.attend.ask.conv"),
        "DiT 2d globe": ("embed.first", "first", "layers.2.film", "layers.1.attend.tell.conv", "layers.0.widen.conv",
                         "layers.0.narrow.conv", "film", "last.conv"),
    }  # fmt: skip
    for one in names[name]:
        assert {f"{one}.weight", f"{one}.bias"} <= keys
    assert len(keys) == count


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (DiT, {"space": 4}, "1, 2 or 3"),
        (DiT, {"space": 2, "padding": ("zeros",)}, "each of 2 axes"),
        (DiT, {"space": 2, "channels": (8, 8)}, "a DiT has one width"),
        (DiT, {"space": 2, "patch": 0}, "patch is 0, expected a whole number of at least 1"),
        (DiT, {"space": 2, "dropout": 1.0}, "probability"),
        (SpaceTimeUNet, {"space": 4, "frames": 1}, "1, 2 or 3"),
        (SpaceTimeUNet, {"space": 2, "frames": 4}, "groups of 4 channels"),
    ],
)
def test_numbers_that_make_no_net(kind, options, words):
    with pytest.raises(UsageError, match=words):
        kind(3, 2, **options)


@pytest.mark.parametrize("name", ["U-Net 2d globe", "DiT 2d globe"])
def test_inputs_of_another_net(name):
    net = build(name)
    x, t, vector = inputs(name)
    with pytest.raises(UsageError, match="made for"):
        net(x[:, :2], t, vector)
    with pytest.raises(UsageError, match="0 vector features"):
        net(x, t)


@pytest.mark.parametrize(
    ("kind", "shape", "rate", "most"),
    [
        (SpaceTimeUNet, {"channels": (16, 16)}, 0.01, 0.05),
        (DiT, {"channels": (64,), "layers": 2, "patch": 4}, 0.005, 0.65),  # half of its patches travel by then
    ],
)
def test_the_next_frame_of_what_travels_is_learned(kind, shape, rate, most):
    """The last of four frames, each the one before rolled by two cells, which persistence misses by 2 in the square."""
    torch.manual_seed(0)
    net = kind(4, 4, space=1, frames=4, padding=("circular",), embedding=16, **shape)
    generator = torch.Generator().manual_seed(0)
    optimiser, losses = torch.optim.Adam(net.parameters(), rate), []
    for _ in range(80):
        first = torch.randn(16, 1, 16, generator=generator, device="cpu")
        frames = torch.cat([first.roll(2 * k, 2) for k in range(4)], 1)
        x = torch.cat([frames[:, :3], torch.zeros(16, 1, 16, device="cpu")], 1)
        loss = (net(x, torch.zeros(16, device="cpu"))[:, 3] - frames[:, 3]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    persistence = (frames[:, 3] - frames[:, 2]).square().mean()
    assert np.mean(losses[-10:]) < most < 1 < persistence
