"""One option exchanges the network of a model: of windows, of single fields, on disk and back."""

import json

import numpy as np
import pytest
import torch
from model_fields import draw, fields, tiny_fit, waves

import undrift
from undrift.errors import UsageError
from undrift.nets import DiT, SpaceTimeUNet, UNet
from undrift.report.words import provenance
from undrift.train.network import choose_patch

KINDS = {
    "unet": (UNet, "8,8", "U-Net of 8, 8 channels"),
    "space-time": (SpaceTimeUNet, "8,8", "space-time U-Net of 8, 8 channels"),
    "dit": (DiT, "16", "DiT of 16 channels"),
}
WINDOW = undrift.Window(past=2, future=2)


def windows(kind, data=None, **how):
    settings = {"net.kind": kind, "net.channels": KINDS[kind][1], "train.batch": 4, "train.device": "cpu"}
    data = waves(60) if data is None else data
    return undrift.fit(data, **{"task": WINDOW, "steps": 3, "set": settings, "progress": False} | how)


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    """A run of each kind."""
    out = tmp_path_factory.mktemp("kinds") / "RUN"
    return request.param, out, windows(request.param, out=out)


def test_a_run_of_any_kind_is_read_and_draws_the_same(run):
    kind, out, model = run
    again = undrift.load(out, data=waves(60))
    assert type(again.net) is type(model.net) is KINDS[kind][0]
    assert again.net.padding == ("zeros", "circular")
    for key, value in model.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[key], value)
    last = waves(60).isel(time=slice(58, 60))
    one, other = (m.sample(last, realizations=2, nfe=2, progress=False).tas.values for m in (model, again))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one[:, 0, :2], np.broadcast_to(last.tas.values, one[:, 0, :2].shape))
    assert one[:, 0, 2:].std(0).mean() > 0.03


def test_the_run_says_which_kind_it_is(run):
    kind, out, model = run
    assert json.loads((out / "manifest.json").read_text())["network"]["kind"] == kind
    assert undrift.load(out).describe()["network"]["kind"] == kind
    assert provenance(model.describe())["network"].startswith(KINDS[kind][2])
    kept = undrift.load(out).config.net
    assert kept.blocks == (6 if kind == "dit" else 1) and kept.patch == (2 if kind == "dit" else None)


def test_a_network_of_ones_own_is_not_taken_for_that_of_the_configuration(tmp_path):
    net = SpaceTimeUNet(25, 4, space=2, frames=4, static=range(8, 13), vector_features=4, channels=(8,))
    model = windows("unet", net=net)
    assert model.describe()["network"]["kind"] == "own"
    with pytest.raises(UsageError, match="cannot rebuild a network of your own"):
        model.save(tmp_path / "own")


@pytest.mark.parametrize("kind", ["space-time", "dit"])
def test_the_static_channels_are_those_without_frames(kind):
    """Also where cells of the target are missing now and then, and whether or not the encoded data are kept."""
    data = waves(60).assign(height=(("lat", "lon"), np.random.default_rng(0).normal(size=(8, 16)), {"units": "m"}))
    data.tas[7, 2, 3] = np.nan
    model = windows(kind, data, static="height", steps=1)
    problem, static = model.problem, model.net.window.static
    rows = problem.fit_rows[:2]
    problem._kept = None
    anew = problem.encode(rows, draw=np.random.default_rng(0)).fields
    problem.keep()
    kept = problem.encode(rows, draw=np.random.default_rng(0)).fields
    assert list(anew) == list(kept) == ["linear", "static", "asked", "frames", "expected", "target known"]
    for encoded in (anew, kept):
        stacked = np.concatenate([np.zeros((2, 4, 8, 16)), *encoded.values()], 1)
        assert stacked.shape[1] == model.net.in_channels
        np.testing.assert_array_equal(stacked[:, static.start : static.stop], encoded["static"])


def test_a_transformer_downscales():
    model = tiny_fit(fields(), steps=3, set={"net.kind": "dit", "net.channels": "16", "net.blocks": 2, "net.patch": 4})
    assert type(model.net) is DiT and model.net.patch == 4 and len(model.net.layers) == 2
    coarse = fields().isel(time=slice(0, 2)).coarsen(lat=4, lon=4).mean()
    drawn = draw(model, coarse).tas
    np.testing.assert_allclose(
        drawn.coarsen(lat=4, lon=4).mean().values, np.broadcast_to(coarse.tas.values, (2, 2, 2, 3)), rtol=1e-6
    )


REFUSED = {
    "net.kind=space-time looks over the frames of a window, and a sample of this task has one": ("space-time", "8,8"),
    "net.channels=8,16: a DiT has one width; type --set net.channels=16": ("dit", "8,16"),
    "net.kind": ("resnet", "8"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_kinds_that_do_not_fit_are_refused(message):
    kind, channels = REFUSED[message]
    with pytest.raises(UsageError, match=message):
        tiny_fit(fields(), set={"net.kind": kind, "net.channels": channels})


def test_a_fork_is_of_the_same_kind(run):
    kind, out, _ = run
    if kind == "unet":
        with pytest.raises(
            UsageError, match="its network has net.kind=unet, and here net.kind=space-time is asked for"
        ):
            undrift.fit(waves(60), fork=out, steps=1, set={"net.kind": "space-time"}, progress=False)
    assert undrift.fit(waves(60), fork=out, steps=1, progress=False).describe()["network"]["kind"] == kind


def test_a_resume_with_another_kind_is_refused(run):
    kind, out, _ = run
    other = {"unet": "dit", "space-time": "unet", "dit": "space-time"}[kind]
    settings = {"net.kind": other, "net.channels": KINDS[kind][1], "train.batch": 4, "train.device": "cpu"}
    with pytest.raises(UsageError, match=f'net.kind: was "{kind}", now "{other}"'):
        windows(kind, out=out, resume=True, set=settings)


@pytest.mark.parametrize(
    ("shape", "patch"), [((8, 16), 2), ((33, 49), 4), ((256, 256), 16), ((600,), 4), ((8, 8, 8), 2)]
)
def test_a_domain_has_at_most_256_patches(shape, patch):
    assert choose_patch(shape) == patch


@pytest.mark.parametrize(("kind", "channels"), [("unet", [16, 32]), ("space-time", [8, 16]), ("dit", [32])])
def test_a_plan_chooses_the_width_of_each_kind(kind, channels):
    plan = undrift.fit(
        waves(60), task=WINDOW, steps=2, set={"net.kind": kind, "train.batch": 4}, dry_run=True, progress=False
    )
    assert plan["network"]["kind"] == kind and plan["network"]["channels"] == channels
    assert plan["network"]["parameters of each"] > 1000
