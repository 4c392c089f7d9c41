"""What every network keeps: shapes of any size, conditioning, gradients, independence of the batch, bf16, padding."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import undrift.nets
from undrift.errors import UsageError
from undrift.nets import MLP, UNet, evaluate, fastest_dtype

NETS = {
    "1d": {"space": 1, "padding": ("reflect",)},
    "1d circular": {"space": 1, "padding": ("circular",)},
    "2d": {"space": 2, "padding": ("zeros", "zeros")},
    "2d globe": {"space": 2, "padding": ("reflect", "circular")},
    "3d": {"space": 3, "padding": ("zeros", "reflect", "circular")},
}
SMALL = {"channels": (8, 16, 32), "blocks": 1, "vector_features": 2, "embedding": 16}
# the second in test_a_perceptron_of_points, the last two in test_nets_of_windows.py
CLASSES = {"UNet", "MLP", "SpaceTimeUNet", "DiT"}


def build(dropout=0.0, seed=0, fresh=False, **options):
    """A small net on the CPU, its weights moved away from their zeros."""
    torch.manual_seed(seed)
    net = UNet(3, 2, dropout=dropout, **(SMALL | options))
    if not fresh:
        generator = torch.Generator().manual_seed(seed)
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, device="cpu")
            parameter.data += noise / math.sqrt(3 * max(parameter[0].numel(), 8))
    return net


def inputs(shape, batch=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, *shape, generator=generator, device="cpu")
    t = 1.5 * torch.rand(batch, generator=generator, device="cpu")
    return x, t, torch.randn(batch, 2, generator=generator, device="cpu")


@pytest.fixture(autouse=True)
def no_default_device():
    """A tensor created without a device lands on "meta" and cannot be computed with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, 2))
    torch.set_default_device("meta")
    yield
    torch.set_default_device("cpu")
    torch.set_num_threads(threads)


def test_every_public_net_is_held_by_this_suite():
    public = {name for name in undrift.nets.__all__ if isinstance(getattr(undrift.nets, name), type)}
    assert public == CLASSES


def lengthened(x, before, after, padding):
    """x with cells added at both ends of every axis of space, by numpy."""
    for axis, mode in enumerate(padding, start=2):
        width = [(0, 0)] * x.ndim
        width[axis] = (before[axis - 2], after[axis - 2])
        mode = (
            "edge"
            if mode == "reflect" and x.shape[axis] == 1
            else {"zeros": "constant", "circular": "wrap"}.get(mode, mode)
        )
        x = torch.from_numpy(np.pad(x.numpy(), width, mode=mode))
    return x


def by_hand(net, x, t, vector, other=None):
    """The U-Net written down anew from its weights, in float64: additive skips around hard-swish blocks.

    Of blocks without a film ``other(weights, key, x)`` says what they are.
    """
    weights = {key: value.double() for key, value in net.state_dict().items()}
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[net.space]

    def layer(x, key, **how):
        if weights[f"{key}.weight"].shape[-1] == 3:
            x = lengthened(x, (1,) * net.space, (1,) * net.space, net.padding)
        return conv(x, weights[f"{key}.weight"], weights[f"{key}.bias"], **how)

    def dense(x, key):
        return x @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    def block(x, key):
        if f"{key}.film.weight" not in weights:
            return other(weights, key, x)
        scale, shift = dense(e, f"{key}.film").reshape(len(x), 2, -1, *[1] * net.space).unbind(1)
        group = x.reshape(len(x), max(x.shape[1] // 16, 1), -1)  # of 16 channels
        group = (group - group.mean(2, keepdim=True)) / (group.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        y = layer((1 + scale) * group.reshape(x.shape) + shift, f"{key}.first.conv")
        return x + layer(y * (y + 3).clamp(0, 6) / 6, f"{key}.second.conv")

    x, t, vector = x.double(), t.double(), vector.double()
    frequencies = torch.from_numpy(64 ** np.linspace(0, 1, net.embedding // 2))
    e = torch.cat([(frequencies * t[:, None]).cos(), (frequencies * t[:, None]).sin(), vector], 1)
    for key in ("embed.first", "embed.second"):
        e = dense(e, key) / (1 + (-dense(e, key)).exp())
    sizes, stride, levels = x.shape[2:], 2 ** (len(net.channels) - 1), len(net.channels)
    # whole coarsest cells, and one more of them beside the seam of a circle that is cut in parts of one
    missing = [-n % stride + stride * (mode == "circular" and n % stride > 0) for n, mode in zip(sizes, net.padding)]
    x = layer(lengthened(x, [m // 2 for m in missing], [m - m // 2 for m in missing], net.padding), "first.conv")
    skips = []
    for level in range(levels):
        if level:
            skips.append(x)
            x = layer(x, f"shrink.{level - 1}", stride=2)
        for n in range(len(net.down[level])):
            x = block(x, f"down.{level}.{n}")
    for level in reversed(range(levels)):
        for n in range(len(net.up[level])):
            x = block(x, f"up.{level}.{n}")
        if level:
            x = layer(x, f"grow.{level - 1}")
            for axis in range(2, x.ndim):
                x = x.repeat_interleave(2, axis)
            x = x + skips.pop()
    x = layer(x, "last.conv")
    return x[(..., *(slice(m // 2, m // 2 + n) for m, n in zip(missing, sizes)))]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13])
def test_any_size_goes_in_and_what_the_formula_says_comes_out(name, size):
    shape = (size, 5, 1)[: NETS[name]["space"]]
    x, t, vector = inputs(shape, batch=2)
    net = build(blocks=(1, 2, 1), **NETS[name]).eval()
    expected = by_hand(net, x, t, vector)
    assert expected.std() > 0.1
    with torch.no_grad():
        assert torch.equal(build(fresh=True, **NETS[name])(x, t, vector), torch.zeros(2, 2, *shape, device="cpu"))
        torch.testing.assert_close(net(x, t, vector).double(), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(net(x, t, vector).detach().double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NETS)
def test_padding_of_the_outside_does_not_leak_out(name):
    """A size that is no multiple of the stride equals the same net on the field lengthened by hand."""
    options = NETS[name]
    space, padding = options["space"], options["padding"]
    net = build(**options).eval()
    x, t, vector = inputs((10, 8, 8)[:space], batch=2)
    before, after = (3, 3) if padding[0] == "circular" else (1, 1)
    index = torch.arange(-before, 10 + after, device="cpu")
    index = index % 10 if padding[0] == "circular" else 9 - (9 - index.abs()).abs()
    longer = x[:, :, index].clone()
    if padding[0] == "zeros":
        longer[:, :, 0] = longer[:, :, -1] = 0
    with torch.no_grad():
        expected = net(longer, t, vector)[:, :, before : before + 10]
        torch.testing.assert_close(net(x, t, vector), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["1d circular", "2d globe", "3d"])
def test_rolling_a_periodic_axis_rolls_the_output(name):
    options = NETS[name]
    axis = 2 + options["padding"].index("circular")
    net = build(**options).eval()
    x, t, vector = inputs((12, 16, 8)[: options["space"]])
    with torch.no_grad():
        y = net(x, t, vector)
        for cells in (net.stride, -2 * net.stride):
            rolled = net(x.roll(cells, axis), t, vector)
            torch.testing.assert_close(rolled, y.roll(cells, axis), rtol=0, atol=2e-6)
        assert (net(x.roll(1, axis), t, vector) - y.roll(1, axis)).abs().max() > 1e-3  # by other steps it cannot
    if "globe" in name:
        with torch.no_grad():
            wrong = net(x.roll(4, 2), t, vector) - y.roll(4, 2)
        assert wrong.abs().max() > 1e-3  # the other axis is not periodic


@pytest.mark.parametrize("name", NETS)
def test_every_weight_learns_by_the_slope_of_the_loss(name):
    """Finite differences of the loss, by the way that is taken where no gradient is kept, along the gradient of each."""
    shallow = {"channels": (8, 16)} if NETS[name]["space"] == 3 else {}  # convolutions of boxes are slow
    net = build(dropout=0.2, **(NETS[name] | shallow))
    x, t, vector = inputs((4, 4, 4) if shallow else (8, 8)[: net.space], batch=2 if shallow else 6)

    def loss():
        torch.manual_seed(3)  # of the channels that are dropped
        return net(x, t, vector).square().mean()

    loss().backward()
    for key, parameter in net.named_parameters():
        slope = parameter.grad.norm()
        assert slope > 1e-3, key
        step, values = 0.01 * parameter.grad / slope, []
        with torch.no_grad():
            for way in (1, -2):
                parameter += way * step
                values.append(float(loss()))
            parameter += step
        assert (values[0] - values[1]) / 0.02 == pytest.approx(float(slope), rel=0.03), key


def test_a_fresh_net_learns_from_zero():
    """All weights but the last layer's wait one step only."""
    net = build(fresh=True, **NETS["2d"])
    x, t, vector = inputs((8, 8))
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    (net(x, t, vector) - x[:, :2]).square().mean().backward()
    assert net.last.conv.weight.grad.abs().max() > 0
    optimiser.step()
    optimiser.zero_grad()
    (net(x, t, vector) - x[:, :2]).square().mean().backward()
    blocks = [*net.down.named_parameters(), *net.up.named_parameters()]
    silent = [key for key, p in blocks if p.grad.abs().max() == 0]
    assert not silent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [6, 16])
def test_a_sample_is_the_same_bits_beside_any_neighbours_at_any_position(name, dtype, batch):
    net = build(**NETS[name]).eval()
    shape = (9, 8, 6)[: net.space]
    x, t, vector = inputs(shape, batch)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(3), device="cpu")
    others = [a.clone() for a in inputs(shape, batch, seed=7)]
    for ours, other in zip((x, t, vector), others):
        other[2] = ours[4]
    with torch.no_grad():
        y = evaluate(net, dtype, x, t, vector)
        assert torch.equal(evaluate(net, dtype, x[order], t[order], vector[order]), y[order])
        assert torch.equal(evaluate(net, dtype, *others)[2], y[4])


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_agrees_within_its_rounding(name):
    net = build(**NETS[name])
    x, t, vector = inputs((16, 8, 8)[: net.space])
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        net.zero_grad()
        y = evaluate(net, dtype, x, t, vector)
        assert y.dtype == torch.float32
        y.square().mean().backward()
        gradients[dtype] = y.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters())
    # Some 20 roundings of relative size 2^-9 (bfloat16 has 8 significant bits) follow each other.
    for exact, rounded in zip(gradients[torch.float32], gradients[torch.bfloat16]):
        error = (exact - rounded).norm() / exact.norm()
        assert 2**-12 < error < math.sqrt(20) * 2**-7


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 5, 11)])
def test_the_operations_counted_are_those_torch_counts(name, shape):
    net = build(channels=(8, 12, 16), blocks=(1, 2, 1), **NETS[name])
    x, t, vector = inputs(shape[: net.space], batch=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t, vector)
    assert net.flops((3, *shape[: net.space])) == counter.get_total_flops()


@pytest.mark.parametrize("name", NETS)
def test_the_label_and_the_vector_matter(name):
    net = build(**NETS[name]).eval()
    x, t, vector = inputs((8, 8, 8)[: net.space])
    with torch.no_grad():
        y = net(x, t, vector)
        for changed in (net(x, t + 0.02, vector), net(x, t, vector + 0.1)):
            assert ((changed - y).flatten(1).norm(dim=1) > 1e-3 * y.flatten(1).norm(dim=1)).all()


def test_dropout_keeps_the_mean_and_ends_with_training():
    """Half of the channels fall in training, the kept ones weigh twice: the film's mean over draws is what it was."""
    torch.manual_seed(5)
    block = build(dropout=0.5, **NETS["2d"]).down[1][0]
    x, embedding = torch.randn(4000, 16, 1, 1, device="cpu"), torch.randn(4000, 16, device="cpu")
    with torch.no_grad():
        exact = block.eval()._film(x, embedding)
        drawn = block.train()._film(x, embedding)
    kept = drawn[0] != 0
    torch.testing.assert_close(drawn[0][kept], 2 * exact[0][kept])
    torch.testing.assert_close(drawn[1][kept], 2 * exact[1][kept])
    assert (drawn[1][~kept] == 0).all()
    assert abs(kept.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(kept.numel())


def test_the_keys_of_the_weights():
    """Runs on disk hold these names: they may be added to, not renamed."""
    keys = set(build(**NETS["2d"]).state_dict())
    names = ("embed.first", "embed.second", "first.conv", "last.conv", "shrink.1", "grow.0", "up.2.0.film")
    for name in (*names, "down.0.0.first.conv", "down.0.0.second.conv"):
        assert {f"{name}.weight", f"{name}.bias"} <= keys
    assert len(keys) == 2 * (2 + 2 + 2 * 2 + 6 * 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": 4}, "1, 2 or 3"),
        ({"space": 2, "padding": ("zeros",)}, "each of 2 axes"),
        ({"space": 2, "padding": ("zeros", "mirror")}, "zeros, reflect, circular"),
        ({"space": 2, "channels": ()}, "one positive number per level"),
        ({"space": 2, "blocks": (1, 2)}, "each of 3 levels"),
        ({"space": 2, "dropout": 1.0}, "probability"),
        ({"space": 2, "embedding": 7}, "even number"),
    ],
)
def test_numbers_that_make_no_net(options, words):
    with pytest.raises(UsageError, match=words):
        UNet(3, 2, **options)


def test_inputs_of_another_net():
    net = build(**NETS["2d"])
    x, t, vector = inputs((8, 8))
    with pytest.raises(UsageError, match="made for"):
        net(x[:, :2], t, vector)
    with pytest.raises(UsageError, match="0 vector features"):
        net(x, t)


def test_the_fastest_type_follows_the_hardware(monkeypatch):
    cases = [("AVX512", True, False), ("AVX512", False, True), ("AVX512", False, False), ("AVX2", False, False)]
    cases += [("AVX2", True, True)]  # as ATEN_CPU_CAPABILITY may ask for
    expected = [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32, torch.float32]
    for (capability, bf16, amx), dtype in zip(cases, expected, strict=True):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda b=bf16: b, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda a=amx: a, raising=False)
        assert fastest_dtype("cpu") is dtype
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: n)
        assert fastest_dtype("cuda:0") is dtype
    assert fastest_dtype("mps") is torch.float32


@pytest.mark.parametrize("sinusoids", [0, 3])
def test_a_perceptron_of_points(sinusoids):
    """What it computes, in numpy, from its own weights; it begins at zero; bad sizes are one sentence."""
    net = MLP(2, width=8, layers=2, vector_features=3, embedding=6, sinusoids=sinusoids)
    generator = torch.Generator("cpu").manual_seed(0)
    x, vector = (
        torch.randn(5, 2, generator=generator, device="cpu"),
        torch.randn(5, 3, generator=generator, device="cpu"),
    )
    t = torch.rand(5, generator=generator, device="cpu")
    assert (net(x, t, vector) == 0).all()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, device="cpu")
    waves = t.numpy()[:, None] * 64 ** np.linspace(0, 1, 3)
    h = np.concatenate([x.numpy(), np.cos(waves), np.sin(waves), vector.numpy()], 1)
    for i, layer in enumerate(net.layers):
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if sinusoids and i == 0:  # wavelengths 8, 4 and 2
            turns = np.concatenate([2 * np.pi * x.numpy()[:, [k]] / [8, 4, 2] for k in range(2)], 1)
            h = h + np.concatenate([np.sin(turns), np.cos(turns)], 1) @ net.waves.weight.detach().numpy().T
        h = h / (1 + np.exp(-h)) if i < 2 else h
    np.testing.assert_allclose(net(x, t, vector).detach().numpy(), h, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="expected whole numbers of at least 1"):
        MLP(0)
    with pytest.raises(UsageError, match="expected whole numbers of at least 1"):
        MLP(2, sinusoids=-1)
    with pytest.raises(UsageError, match="an even number"):
        MLP(2, embedding=5)
