"""Weights and manifests: what is damaged, foreign or malicious is refused in one sentence."""

import json
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from undrift.errors import CheckpointError, UndriftError
from undrift.train import manifest as manifests
from undrift.train.checkpoint import Checkpoints, read_state
from undrift.train.manifest import SCHEMA_VERSION, read_manifest, verify_manifest, write_manifest
from undrift.train.weights import load_state, load_tensors, read_metadata, save_tensors


@pytest.fixture
def run(tmp_path):
    save_tensors(tmp_path / "model.safetensors", {"a": torch.arange(6.0).reshape(2, 3)}, {"undrift": "{}"})
    (tmp_path / "config.toml").write_text("[train]\nsteps = 3\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    write_manifest(tmp_path, ["model.safetensors", "config.toml", "metrics.jsonl"], {"data": "f00"})
    return tmp_path


def test_a_manifest_records_versions_and_files(run):
    found = verify_manifest(run)
    assert found["data"] == "f00"
    assert found["schema_version"] == SCHEMA_VERSION
    assert (
        found["versions"]["torch"] == torch.__version__.split("+")[0] or found["versions"]["torch"] == torch.__version__
    )
    assert set(found["files"]) == {"model.safetensors", "config.toml", "metrics.jsonl"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml", "metrics.jsonl"])
def test_one_flipped_bit_anywhere_is_noticed(run, name):
    content = (run / name).read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (run / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"checksum of {name} differs.*--no-verify") as caught:
            verify_manifest(run)
        assert "\n" not in str(caught.value)
    assert verify_manifest(run, verify=False)["data"] == "f00"


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml", "metrics.jsonl"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_noticed(run, name, share):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"checksum of {name} differs"):
        verify_manifest(run)


def test_a_log_may_grow_and_a_file_may_not_go(run):
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3}\n')
    verify_manifest(run)
    (run / "config.toml").unlink()
    with pytest.raises(CheckpointError, match="config.toml is missing from"):
        verify_manifest(run)
    verify_manifest(run, names=["model.safetensors"])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"files": []}', "[" * 100_000, "\x00\xff"])
def test_a_broken_manifest_is_one_sentence(run, text):
    (run / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        verify_manifest(run)
    assert "\n" not in str(caught.value)


def test_an_absent_manifest_says_how_to_go_on(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a finished run.*--resume"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", "..", "a/b"])
def test_a_manifest_reaches_no_file_outside(run, name):
    found = json.loads((run / "manifest.json").read_text())
    found["files"][name] = {"bytes": 1, "sha256": "0"}
    (run / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="outside its directory"):
        verify_manifest(run)


def set_schema(run, schema):
    found = json.loads((run / "manifest.json").read_text())
    found["schema_version"], found["undrift"] = schema, "9.8.7"
    (run / "manifest.json").write_text(json.dumps(found))


def test_a_newer_schema_is_refused_by_name(run):
    set_schema(run, SCHEMA_VERSION + 1)
    with pytest.raises(CheckpointError, match=r"written by version 9\.8\.7.*pip install --upgrade undrift"):
        verify_manifest(run)


def test_an_older_schema_is_migrated_with_a_note_or_refused(run, monkeypatch, caplog):
    set_schema(run, 0)
    with pytest.raises(CheckpointError, match=r"written by version 9\.8\.7.*cannot migrate"):
        verify_manifest(run)
    monkeypatch.setitem(manifests.MIGRATIONS, 0, lambda old: {**old, "lifted": True})
    assert verify_manifest(run)["lifted"]
    assert "read as schema_version 1" in caplog.text


@pytest.mark.parametrize("schema", [None, "1", -1, True, 1.5])
def test_a_schema_that_is_no_number(run, schema):
    set_schema(run, schema)
    with pytest.raises(CheckpointError, match="schema_version"):
        read_manifest(run)


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.pkl", "model.bin", "model.safetensors", "model"])
@pytest.mark.parametrize("kind", ["pickle", "torch", "old pickle"])
def test_a_pickle_is_refused_and_never_opened(tmp_path, name, kind):
    path, made = tmp_path / name, tmp_path / "made"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(made)))
    elif kind == "old pickle":
        path.write_bytes(pickle.dumps(Payload(made), protocol=0))
    else:
        torch.save({"a": Payload(made)}, path)
        assert zipfile.is_zipfile(path)
    for read in (load_tensors, read_metadata, read_state):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert not made.exists()


def header(length, text=b""):
    return length.to_bytes(8, "little") + text


LIES = {
    "empty": b"",
    "text": b"these are not weights\n" * 20,
    "a terabyte of header": header(1 << 40, b'{"a"'),
    "a header of 100 MB in a short file": header(100_000_000, b"{}"),
    "no JSON": header(20, b"{" * 20),
    "overlap": (lambda h: header(len(h), h) + bytes(8))(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    ),
    "a shape that overflows": (lambda h: header(len(h), h) + bytes(8))(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}'
    ),
    "beyond the end": (lambda h: header(len(h), h) + bytes(8))(
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_in_little_memory(tmp_path, lie):
    path = tmp_path / "model.safetensors"
    path.write_bytes(LIES[lie])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_truncated_file_of_weights_is_refused_at_each_length(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.zeros(4)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            load_tensors(path)


def test_tensors_come_back_bit_for_bit(tmp_path):
    base = torch.randn(4, 3)
    tensors = {
        "plain": base,
        "view": base[1:],
        "transposed": base.T,
        "number": torch.tensor(3.0),
        "count": torch.tensor(2**60),
        "none": torch.zeros(0, 2),
        "half": torch.randn(5).bfloat16(),
    }
    save_tensors(tmp_path / "a.safetensors", tensors)
    found = load_tensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_weights_of_another_network_are_refused_whole():
    net = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(4)])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tensors = {name: value + 1 for name, value in before.items()}
    short = {name: value for name, value in tensors.items() if name.startswith("0.")}
    with pytest.raises(CheckpointError, match=r"lacks 1\.weight, 1\.bias, 2\.weight, 2\.bias, 3\.weight and 1 more"):
        load_state(net, short)
    with pytest.raises(CheckpointError, match=r"0\.weight \(got \(3, 2\), expected \(2, 2\)\)"):
        load_state(net, {**tensors, "0.weight": torch.zeros(3, 2)})
    with pytest.raises(CheckpointError, match=r"without use, extra"):
        load_state(net, {**tensors, "extra": torch.zeros(1)})
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    load_state(net, tensors)
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())


def test_the_last_two_are_kept_and_a_broken_newer_one_is_not_counted(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, {"net.a": torch.full((2,), float(step))}, {"counters": {"step": step}})
    assert checkpoints.steps() == [2, 3]
    (checkpoints.directory(3) / "state.safetensors").write_bytes(b"")
    again = Checkpoints(tmp_path)
    tensors, record = again.newest()
    assert record == {"counters": {"step": 2}}
    assert torch.equal(tensors["net.a"], torch.full((2,), 2.0))
    again.save(3, {"net.a": torch.full((2,), 9.0)}, {"counters": {"step": 3}})
    assert again.steps() == [2, 3]
    assert torch.equal(Checkpoints(tmp_path).newest()[0]["net.a"], torch.full((2,), 9.0))
    assert len(list(tmp_path.iterdir())) == 2


FULL = """
import sys, torch
from pathlib import Path
from undrift.errors import UndriftError
from undrift.train.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"net.a": torch.ones(50_000)}, {"counters": {}})
try:
    checkpoints.save(2, {"net.a": torch.ones(1_000_000)}, {"counters": {}})
except UndriftError as error:
    print(error)
tensors, _ = Checkpoints(Path(sys.argv[1])).newest()
assert bool((tensors["net.a"] == 1).all()) and len(tensors["net.a"]) == 50_000
print([p.name for p in Path(sys.argv[1]).iterdir()])
"""


def test_a_full_disk_names_path_and_bytes_and_keeps_what_was_saved(tmp_path):
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && "
    can = (
        shutil.which("unshare")
        and not subprocess.run(["unshare", "-m", "sh", "-c", mount + "true"], capture_output=True).returncode
    )
    if not can:
        pytest.skip("no right to mount a small disk here; the next test simulates it")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount + 'exec "$0" -c "$1" "$2"', sys.executable, FULL, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text, names = done.stdout.strip().splitlines()
    assert f"no space left to write {tmp_path}" in text
    assert "4,000,000 bytes needed" in text
    assert "what was saved before is intact" in text
    assert names == "['step-00000001']"


def test_a_full_disk_at_the_manifest(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"net.a": torch.ones(2)}, {"counters": {}})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("undrift.train.checkpoint.write_manifest", full)
    with pytest.raises(UndriftError, match=r"no space left to write .*step-00000002: 8 bytes needed"):
        checkpoints.save(2, {"net.a": torch.ones(2)}, {"counters": {}})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert Checkpoints(tmp_path).newest() is not None
