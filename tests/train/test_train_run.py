"""Who may write to a run directory, and what becomes of what was there."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from undrift.errors import CheckpointError, Interrupted, UsageError
from undrift.train.lock import Lock
from undrift.train.manifest import verify_manifest
from undrift.train.run import RunDirectory, changes, staged


def complete(path, text="result"):
    with RunDirectory(path) as run, run.publish({"note": text}) as stage:
        (stage / "config.toml").write_text(text)
    return path


def files(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_publish_writes_all_and_leaves_nothing_else(tmp_path):
    path = complete(tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert sorted(files(path)) == [".undrift", "config.toml", "manifest.json"]
    assert verify_manifest(path)["note"] == "result"


def test_existing_output_is_refused_and_left_alone(tmp_path):
    path = complete(tmp_path / "run")
    before = files(path)
    with pytest.raises(UsageError, match="--resume to go on with it, --overwrite to replace it"), RunDirectory(path):
        pass
    assert files(path) == before
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize(
    "names", [["thesis.tex"], ["checkpoints/epoch=3.ckpt", "config.toml", "model.safetensors"], ["manifest.json"]]
)
@pytest.mark.parametrize("option", ["overwrite", "resume"])
def test_what_is_no_run_is_never_replaced(tmp_path, names, option):
    for name in names:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("precious")
    before = files(tmp_path)
    with pytest.raises(UsageError, match="is not a run of undrift"), RunDirectory(tmp_path / "mine", **{option: True}):
        pass
    assert files(tmp_path) == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="is a file"), RunDirectory(tmp_path / "run", overwrite=True):
        pass


def test_resume_of_what_is_not_there_is_no_fresh_start(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as caught, RunDirectory(tmp_path / "rum", resume=True):
        pass
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="both"):
        RunDirectory(tmp_path / "run", resume=True, overwrite=True)


def test_overwrite_puts_the_old_result_back_when_the_new_one_fails_early(tmp_path):
    path = complete(tmp_path / "run")
    before = files(path)
    with pytest.raises(RuntimeError), RunDirectory(path, overwrite=True) as run:
        assert run.old.is_dir()
        assert files(run.old) == before
        raise RuntimeError
    assert files(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_before_anything_was_trained_leaves_the_way_free(tmp_path, there):
    if there:
        (tmp_path / "run").mkdir()
    with pytest.raises(RuntimeError), RunDirectory(tmp_path / "run") as run:
        (run.path / "config.toml").write_text("")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), RunDirectory(tmp_path / "run") as run:
        run.metrics.write_text("{}")  # what was measured may tell why
        raise RuntimeError
    assert run.metrics.exists()


def test_a_stop_before_the_first_checkpoint_keeps_what_resume_needs(tmp_path):
    path = complete(tmp_path / "run")
    before = files(path)
    with pytest.raises(Interrupted), RunDirectory(path, overwrite=True) as run:
        (run.path / "config.toml").write_text("new")
        raise Interrupted
    assert files(run.old) == before and not (tmp_path / "run.lock").exists()
    with RunDirectory(path, resume=True) as run, run.publish() as stage:
        assert (run.path / "config.toml").read_text() == "new"
        (stage / "config.toml").write_text("newer")
    assert not run.old.exists()


def test_overwrite_of_an_unfinished_new_result_keeps_the_complete_old_one(tmp_path):
    path = complete(tmp_path / "run", "first")
    with pytest.raises(RuntimeError), RunDirectory(path, overwrite=True) as run:
        (run.checkpoints / "step-00000005").mkdir()
        raise RuntimeError
    assert (tmp_path / "run.replaced" / "config.toml").read_text() == "first"
    with RunDirectory(path, overwrite=True) as run:
        assert (run.old / "config.toml").read_text() == "first"
        with run.publish() as stage:
            (stage / "config.toml").write_text("third")
    assert not run.old.exists()
    assert (path / "config.toml").read_text() == "third"


def test_a_failure_while_staging_leaves_the_old_result(tmp_path):
    path = complete(tmp_path / "run", "old")
    before = files(path)
    with pytest.raises(RuntimeError), staged(path) as stage:
        (stage / "config.toml").write_text("new")
        raise RuntimeError
    assert files(path) == before


def test_the_second_process_is_told_who_holds_the_lock(tmp_path):
    code = "import sys, time; from undrift.train.run import RunDirectory\nwith RunDirectory(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"in\n"
            for option in ({}, {"resume": True}, {"overwrite": True}):
                # The marker file is there already, so only resume and overwrite reach the lock.
                wanted = "exists" if not option else rf"lock held by {other.pid}@{socket.gethostname()} since 20\d\d-"
                with pytest.raises(UsageError, match=wanted), RunDirectory(tmp_path / "run", **option):
                    pass
        finally:
            other.kill()
    with RunDirectory(tmp_path / "run", resume=True) as run:  # the holder is dead
        assert run.path.is_dir()
    assert not (tmp_path / "run.lock").exists()


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def lock_text(**changed):
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-02T03:04:05+00:00", "started": None}
    return json.dumps({**holder, **changed})


def test_the_lock_of_a_dead_process_is_taken_over_with_a_note(tmp_path, caplog):
    path = tmp_path / "run.lock"
    pid = dead_pid()
    path.write_text(lock_text(pid=pid))
    lock = Lock(path)
    lock.acquire()
    assert (
        f"held by {pid}@{socket.gethostname()} since 2026-01-02T03:04:05+00:00, which is no longer alive" in caplog.text
    )
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_that_was_given_again_is_not_the_holder(tmp_path, caplog):
    path = tmp_path / "run.lock"
    path.write_text(lock_text(started="1"))
    Lock(path).acquire()
    assert "taken over" in caplog.text


def test_a_living_process_keeps_its_lock(tmp_path):
    (tmp_path / "run.lock").write_text(lock_text())
    with pytest.raises(UsageError, match=f"lock held by {os.getpid()}@"):
        Lock(tmp_path / "run.lock").acquire()


@pytest.mark.parametrize("text", [lock_text(host="another-node", pid=1), "nonsense", "[]", '{"pid": "x"}'])
def test_a_lock_that_cannot_be_judged_is_left_with_advice(tmp_path, text):
    (tmp_path / "run.lock").write_text(text)
    with pytest.raises(UsageError, match=r"remove"):
        Lock(tmp_path / "run.lock").acquire()
    assert (tmp_path / "run.lock").read_text() == text


def test_a_lock_taken_over_by_another_is_not_released(tmp_path):
    lock = Lock(tmp_path / "run.lock")
    lock.acquire()
    (tmp_path / "run.lock").write_text("another's")
    lock.release()
    assert (tmp_path / "run.lock").exists()


def test_changes_name_what_differs_but_for_budget_and_steps():
    old = {"config": {"train": {"steps": 10, "learning_rate": 1e-3}, "data": {"paths": ["a.nc"]}}, "data": "f00"}
    new = {"config": {"train": {"steps": 20, "learning_rate": 2e-3}, "data": {"paths": ["b.nc"]}}, "extra": 1}
    assert changes(old, new) == [
        "config.train.learning_rate: was 0.001, now 0.002",
        'config.data.paths: was ["a.nc"], now ["b.nc"]',
        'data: was "f00", now absent',
        "extra: was absent, now 1",
    ]
    assert changes(old, old) == []


def test_files_have_the_mode_of_the_umask(tmp_path):
    """In a process of its own, since the umask is that of the process."""
    code = (
        "import os, sys; os.umask(0o027)\n"
        "from pathlib import Path; import torch; from undrift.train.run import RunDirectory; from undrift.train.weights import save_tensors\n"
        "with RunDirectory(sys.argv[1]) as run, run.publish() as stage: save_tensors(stage / 'model.safetensors', {'a': torch.zeros(3)})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)
    for path in (tmp_path / "run").iterdir():
        assert oct(path.stat().st_mode & 0o777) == "0o640", path


def test_the_torch_free_files_stay_torch_free():
    code = "import sys; import undrift.train.run, undrift.train.log, undrift.train.manifest; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
