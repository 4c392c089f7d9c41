"""A training that is killed anywhere and resumed ends with the same bits."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from training_problem import Spec, finish, start

from undrift.errors import CheckpointError
from undrift.train.checkpoint import Checkpoints, read_state
from undrift.train.log import read_metrics
from undrift.train.manifest import verify_manifest
from undrift.train.weights import load_tensors


def result(path):
    """All that must be equal: tensors, counters, model, and the log but for its clock."""
    tensors, record = read_state(path / "state.safetensors")
    lines = [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_s")}
        for line in read_metrics(path / "metrics.jsonl")
    ]
    return tensors, record["counters"], load_tensors(path / "model.safetensors"), lines


def assert_same(got, want):
    for ours, theirs in ((got[0], want[0]), (got[2], want[2])):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert torch.equal(ours[name], theirs[name]), name
    assert got[1] == want[1]
    assert got[3] == want[3]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(Spec(str(path)))
    return result(path)


def test_undisturbed_twice_is_the_same_and_learns(tmp_path, undisturbed):
    finish(Spec(str(tmp_path / "run"), pause=0.002))
    assert_same(result(tmp_path / "run"), undisturbed)
    tensors, counters, model, lines = undisturbed
    losses = [loss for _, loss in counters["history"]]
    assert losses[-1] < 0.9 * losses[0]
    assert {name.partition(".")[0] for name in tensors} == {"net", "average", "best", "exp_avg", "exp_avg_sq", "count"}
    assert all(torch.equal(model[name], tensors[f"best.{name}"]) for name in model)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 31))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == list(range(3, 31, 3))


@pytest.mark.parametrize("seed", range(5))
def test_two_kills_at_random_moments(tmp_path, undisturbed, seed):
    path = tmp_path / "run"
    chance = random.Random(seed)
    spec = Spec(str(path), pause=0.01)
    for _ in range(2):
        process = start(replace(spec, resume=path.is_dir()))
        began = time.monotonic()
        while not path.is_dir() and time.monotonic() - began < 60:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.join(60)
    finish(replace(spec, resume=True))
    assert_same(result(path), undisturbed)
    assert not (path / "checkpoints").exists()


def calls_of(tmp_path, spec):
    """Number of calls of an undisturbed run that change the disk."""
    finish(replace(spec, count_to=str(tmp_path / "count")))
    return int((tmp_path / "count").read_text())


def test_kill_at_each_call_that_touches_the_disk(tmp_path, undisturbed):
    """Start, two saves, the end, and the last acts: before each the process dies; then it is resumed."""
    short = Spec(str(tmp_path / "count-run"), steps=4, save_steps=2)
    total = calls_of(tmp_path, short)
    want = result(tmp_path / "count-run")
    assert total > 30
    died = 0
    # All of them would take a minute: a quarter of them is enough to have met all kinds.
    for call in range(1, total + 1, 4):
        path = tmp_path / f"run-{call}"
        spec = replace(short, path=str(path), die_at=call)
        process = start(spec)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        died += 1
        finish(replace(spec, die_at=None, resume=path.is_dir()))
        assert_same(result(path), want)
        verify_manifest(path)
        assert sorted(p.name for p in path.iterdir()) == [
            ".undrift",
            "manifest.json",
            "metrics.jsonl",
            "model.safetensors",
            "state.safetensors",
        ]
    assert died > 8


def test_overwrite_keeps_a_complete_result_at_each_moment(tmp_path):
    path = tmp_path / "run"
    spec = Spec(str(path), steps=2, save_steps=1)
    finish(spec)
    old = (path / "model.safetensors").read_bytes()
    finish(Spec(str(tmp_path / "other"), steps=2, save_steps=1, learning_rate=1e-2))
    new = (tmp_path / "other" / "model.safetensors").read_bytes()
    assert old != new
    again = replace(spec, overwrite=True, learning_rate=1e-2)
    call = 0
    while True:
        call += 4
        process = start(replace(again, die_at=call))
        process.join(60)
        places = [place for place in (path, tmp_path / "run.replaced") if (place / "manifest.json").exists()]
        assert places
        for place in places:
            verify_manifest(place)
            assert (place / "model.safetensors").read_bytes() in (old, new)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert (path / "model.safetensors").read_bytes() == new
    assert not (tmp_path / "run.replaced").exists()
    assert call > 20


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_exits_with_75(tmp_path, undisturbed, name):
    path = tmp_path / "run"
    spec = Spec(str(path), pause=0.03, save_steps=1000)
    process = start(spec)
    while len(read_metrics(path / "metrics.jsonl")) < 4:
        time.sleep(0.005)
    os.kill(process.pid, getattr(signal, name))
    process.join(60)
    assert process.exitcode == 75
    text = (tmp_path / "run.said").read_text()
    assert f"stopped by {name} after step" in text
    assert "requeue to continue" in text
    (step,) = Checkpoints(path / "checkpoints").steps()
    assert 4 <= step < 30
    assert not (tmp_path / "run.lock").exists()
    finish(replace(spec, pause=0, resume=True))
    assert_same(result(path), undisturbed)


def test_ctrl_c_twice_aborts(tmp_path):
    path = tmp_path / "run"
    process = start(Spec(str(path), pause=0.5))
    while not read_metrics(path / "metrics.jsonl"):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 1  # KeyboardInterrupt, as multiprocessing reports it
    assert Checkpoints(path / "checkpoints").steps() == []


def test_resume_of_a_finished_run_changes_nothing(tmp_path, undisturbed):
    path = tmp_path / "run"
    finish(Spec(str(path)))
    before = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
    assert "is finished (steps, step 30): nothing left to do" in finish(Spec(str(path), resume=True))
    assert {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()} == before


def test_a_larger_number_of_steps_goes_on(tmp_path):
    path = tmp_path / "run"
    finish(Spec(str(path)))
    start_tensors, _ = read_state(path / "state.safetensors")
    process = start(Spec(str(path), steps=60, resume=True, pause=0.02))
    while len(read_metrics(path / "metrics.jsonl")) < 50:
        time.sleep(0.005)
    verify_manifest(path)  # the older result stays readable meanwhile
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finish(Spec(str(path), steps=60, resume=True))
    tensors, counters, _, lines = result(path)
    assert counters["step"] == 60
    assert counters["images"] == 480
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 61))
    assert float(tensors["count.0.weight"]) == 60
    assert not torch.equal(tensors["net.0.weight"], start_tensors["net.0.weight"])
    # The rate follows the used share, which the larger number has halved.
    assert [line["step"] for line in lines if line["kind"] == "summary"] == [30, 60]
    rates = {line["step"]: line for line in lines if line["kind"] == "train"}
    assert rates[30]["lr"] < rates[31]["lr"] > rates[60]["lr"]
    after = rates[31]
    assert after["lr"] == pytest.approx(
        0.5 * 3e-3 * (1 + torch.cos(torch.tensor(torch.pi * (30.5 / 60 - 0.05) / 0.95)).item()), rel=1e-5
    )


def test_kill_while_a_larger_result_replaces_the_smaller(tmp_path):
    """At each moment a reader finds one of the two whole, or is told that the run is unfinished; a resume completes it."""
    longer = Spec(str(tmp_path / "want"), steps=4, save_steps=1)
    finish(replace(longer, steps=2))
    finish(replace(longer, resume=True))
    want = result(tmp_path / "want")
    finish(replace(longer, path=str(tmp_path / "base"), steps=2))
    call = 0
    while True:
        call += 5
        path = tmp_path / f"run-{call}"
        shutil.copytree(tmp_path / "base", path)
        spec = replace(longer, path=str(path), resume=True)
        process = start(replace(spec, die_at=call))
        process.join(60)
        if (path / "manifest.json").exists():
            verify_manifest(path)
        if process.exitcode == 0:
            break
        finish(spec)
        assert_same(result(path), want)
    assert call > 30


def test_a_damaged_result_is_not_gone_on_with(tmp_path):
    path = tmp_path / "run"
    finish(Spec(str(path), steps=2))
    (path / "state.safetensors").write_bytes(b"")
    text = finish(Spec(str(path), steps=4, resume=True), code=4)
    assert "checksum of state.safetensors differs" in text


@pytest.mark.parametrize("change", [{"learning_rate": 1e-2}, {"steps": 20}, {"steps": None, "budget": 1.0}])
def test_resume_with_other_settings_shows_the_difference(tmp_path, change):
    path = tmp_path / "run"
    finish(Spec(str(path), publish=False))
    text = finish(Spec(str(path), resume=True, **change), code=2)
    assert f"{next(iter(change))}: was {json.dumps(vars(Spec(''))[next(iter(change))])}, now" in text.replace(
        "config.", ""
    )


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "manifest"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, undisturbed, damage):
    path = tmp_path / "run"
    process = start(Spec(str(path), pause=0.03))
    checkpoints = Checkpoints(path / "checkpoints")
    while len(checkpoints.steps()) < 2:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    newest = checkpoints.directory(checkpoints.steps()[-1])
    file = newest / "state.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "remove":
        file.unlink()
    else:
        (newest / "manifest.json").write_text("{")
    partial = path / "checkpoints" / "step-00000099.123.tmp"
    partial.mkdir()
    text = finish(Spec(str(path), resume=True))
    assert f"{newest} is not whole: falling back to the one before" in text
    assert f"{partial} was not finished" in text
    if damage == "flip":
        assert "checksum of state.safetensors differs" in text
    assert_same(result(path), undisturbed)


def test_no_whole_checkpoint_is_an_error_and_no_fresh_start(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    (tmp_path / "step-00000010").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint in .* is whole"):
        checkpoints.newest()
