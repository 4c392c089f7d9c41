"""Bad input of every kind ends with one clear line on stderr, the right exit code, and nothing written."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from undrift.cli.main import main
from undrift.cli.options import set_threads
from undrift.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small files, good and bad."""
    path = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    values = rng.normal(280, 5, (24, 8, 12)).astype("float32")
    coords = {"time": np.arange(24), "lat": np.linspace(40.0, 54.0, 8), "lon": np.linspace(0.0, 22.0, 12)}
    good = xr.Dataset({"tas": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    good.to_netcdf(path / "good.nc")
    infinite = good.copy(deep=True)
    infinite.tas[3, 2, 1] = np.inf
    infinite.to_netcdf(path / "inf.nc")
    (path / "text.nc").write_text("time,lat,lon,tas\n")
    (path / "empty.nc").write_bytes(b"")
    (path / "cut.nc").write_bytes((path / "good.nc").read_bytes()[:900])
    np.save(path / "bare.npy", values)
    np.save(path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000, 1000, 1000), }".ljust(117)
        + b"\n"
    )
    (path / "store.zarr").mkdir()
    (path / "store.zarr" / "zarr.json").write_text("{broken")
    (path / "file").write_text("not a run")
    (path / "run").mkdir()
    (path / "run" / "notes.txt").write_text("no run either")
    (path / "pickled").mkdir()
    (path / "pickled" / "model.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    (path / "pickled" / "manifest.json").write_text("{}")
    (path / "bad.toml").write_text("[train]\nbatcj = 8\n")
    return path


TABLE = [
    # words, exit code, a part of the message
    ("", 0, None),
    ("chek good.nc", 2, 'Did you mean "check"'),
    ("--bogus", 2, "--bogus"),
    ("check", 2, "no data is named"),
    ("check good.nc --fator 4", 2, "Did you mean --factor"),
    ("check good.nc --factor four", 2, 'unable to convert "four" into int'),
    ("check good.nc --task upscale", 2, 'Choose from: "downscale", "emulate"'),
    ("check good.nc --task emulate --factor 4", 2, "leave --factor out"),
    ("check good.nc --given good.nc --factor 4", 2, "leave --factor out"),
    ("check absent.nc", 3, "absent.nc: no such file or directory; did you mean 'text.nc'?"),
    ("check absent_*.nc", 3, "absent_*.nc: no file matches this pattern"),
    ("check text.nc", 3, "text.nc: is text"),
    ("check empty.nc", 3, "empty.nc: the file is empty"),
    ("check cut.nc", 3, "it may be truncated or damaged"),
    ("check store.zarr", 3, "store.zarr: cannot be read as a Zarr store"),
    ("check objects.npy --dims sample,y,x", 3, "objects.npy: holds Python objects"),
    ("check huge.npy --dims sample,y,x", 3, "huge.npy: claims shape (10000000, 1000, 1000)"),
    ("check bare.npy", 3, "for example undrift check bare.npy --dims sample,y,x"),
    ("check good.nc --select lat=70/80", 3, "selects 0 of"),
    ("check good.nc --select lta=35/60", 2, "did you mean 'lat'?"),
    ("check good.nc --variables ts", 3, "did you mean 'tas'?"),
    ("check good.nc --periodic z", 2, "--periodic z: no such dimension of space; there are lat, lon"),
    ("check good.nc --holdout yaer=3", 2, "selection by 'yaer': no such label of samples; there are time"),
    ("train --out new", 2, "no data is named"),
    ("train good.nc", 2, "--out requires an argument"),
    ("train good.nc --steps 5 --otu new", 2, "Did you mean --out"),
    ("train good.nc --steps 0 --out new", 2, "train.steps"),
    ("train good.nc --steps 5 --task emulate --factor 4 --out new", 2, "leave --factor out"),
    ("train good.nc --steps 5 --given good.nc --factor 4 --out new", 2, "leave --factor out"),
    ("train good.nc --steps 5 --budget 3m --out new", 2, "one of them"),
    ("train good.nc --budget 3parsecs --out new", 2, "type a duration"),
    ("train good.nc --steps 5 --resume --overwrite --out new", 2, "one of them"),
    ("train good.nc --steps 5 --set train.bach=8 --out new", 2, "did you mean 'batch'"),
    ("train good.nc --steps 5 --set train.batch --out new", 2, "expected --set section.key=value"),
    ("train good.nc --steps 5 --set train.batch=x --out new", 2, "train.batch: got 'x'"),
    ("train good.nc --steps 5 --set net._target_=os.system --out new", 2, "unknown key"),
    ("train good.nc --steps 5 --config bad.toml --out new", 2, "line 2"),
    ("train good.nc --steps 5 --config absent.toml --out new", 2, "absent.toml: No such file"),
    ("train good.nc --steps 5 --task emulate --covariates yaer --out new", 3, "--covariates yaer: no such label"),
    ("train good.nc --steps 5 --factor 100 --out new", 2, "task.factor: got 100"),
    ("train good.nc --steps 5 --holdout time=900/999 --out new", 3, "selects 0 of"),
    ("train good.nc --steps 5 --device gpu --out new", 2, "train.device: got 'gpu'"),
    ("train good.nc --steps 5 --device cuda:7 --out new", 2, "device cuda:7 was asked for"),
    ("train inf.nc --steps 5 --out new", 3, "tas has 1 infinite values (or beyond float32), first at time=3"),
    ("train absent.nc --steps 5 --out new", 3, "absent.nc: no such file"),
    ("train good.nc --given absent.nc --steps 5 --out new", 3, "absent.nc: no such file"),
    ("train good.nc --steps 5 --out run", 2, "another --out"),
    ("train good.nc --steps 5 --out file", 2, "is a file; --out takes the name of a directory"),
    ("train good.nc --steps 5 --resume --out new", 4, "new does not exist, so there is nothing to resume"),
    ("sample absent --out e.nc", 4, "absent does not exist; expected a run directory"),
    ("sample file --out e.nc", 4, "file is a file; expected a run directory"),
    ("sample run --out e.nc", 4, "run is no run directory: it has no manifest.json"),
    ("sample pickled --out e.nc", 4, "pickled/manifest.json is not a manifest of undrift"),
    ("sample run", 2, "--out requires an argument"),
    ("sample run --out e.txt", 2, "ends in .nc or .zarr"),
    ("sample run --out good.nc", 2, "--overwrite"),
    ("sample run --out e.nc --given good.nc --holdout", 2, "one of them"),
    ("sample run --out e.nc --realizations 0", 2, "got --realizations 0, expected a number"),
    ("sample run --out e.nc --realizations 9:3", 2, "got --realizations 9:3, expected a number"),
    ("sample run --out e.nc --realizations many", 2, "got --realizations many, expected a number"),
    ("sample run --out e.nc --nfe 0", 2, "got --nfe 0, expected at least 1"),
    ("sample run --out e.nc --seed -1", 2, "seed -1"),
    ("evaluate good.nc --truth good.nc --seed -1", 2, "seed -1"),
    ("train good.nc --set train.budget=3m --set train.steps=5 --out new", 2, "both say how long"),
    ("evaluate good.nc", 2, "got no --truth"),
    ("evaluate absent.nc --truth good.nc", 3, "absent.nc does not exist"),
    ("evaluate good.nc --truth good.nc", 3, "good.nc has no dim of members"),
    ("evaluate good.nc --truth good.nc --out scores.csv", 2, "ends in .json or .nc"),
    ("evaluate good.nc --truth good.nc --run absent", 4, "absent does not exist; expected a run directory"),
    ("report absent", 4, "absent does not exist; expected a run directory"),
    ("report run", 4, "run is no run directory: it has no manifest.json"),
    ("report run --ensemble good.nc", 2, "--ensemble and --truth belong together"),
    ("report run --out page.pdf", 2, "ends in .html"),
    ("report run --realizations 1", 2, "at least 2"),
    ("inspect absent", 4, "absent does not exist; expected a run directory"),
    ("inspect run", 4, "run is no run directory: it has no manifest.json"),
    ("inspect pickled", 4, "pickled/manifest.json is not a manifest of undrift"),
    ("demo --budget 0", 2, "type a duration"),
    ("demo --out run", 2, "--overwrite"),
]


@pytest.mark.parametrize(("words", "code", "says"), TABLE, ids=[words or "nothing" for words, *_ in TABLE])
def test_one_line_and_the_exit_code(folder, capsys, monkeypatch, words, code, says):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    got = main(words.split())
    out, err = capsys.readouterr()
    if code == 0:
        assert got == 0 and "Usage" in out
        return
    assert got == code, err
    told = err + (out if words.startswith("check") else "")
    assert says is None or says in told, told
    assert "Traceback" not in told
    last = told.strip().splitlines()[-1]
    assert last.startswith("undrift: ") or words.startswith("check"), told
    assert sorted(folder.rglob("*")) == before


def run(words, **options):
    command = [sys.executable, "-m", "undrift", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_process_ends_with_the_code_and_without_a_traceback(folder):
    done = run(["sample", "absent", "--out", "e.nc"], cwd=folder)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("undrift: absent") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_where(folder, capsys, monkeypatch, how):
    monkeypatch.chdir(folder)
    words = ["sample", "absent", "--out", "e.nc"] + ["--debug"] * (how == "flag")
    if how == "environment":
        monkeypatch.setenv("UNDRIFT_DEBUG", "1")
    assert main(words) == 4
    assert "Traceback" in capsys.readouterr().err


def test_output_into_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "undrift", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert done.returncode in (1, 141)
    assert done.stderr == b""


def test_ctrl_c_is_quiet(folder):
    code = (
        "import signal, time, undrift.data.check as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs have it ignored
        "from undrift.cli.main import main\n"
        "def wait(*a, **k):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "c.check = wait\n"
        "raise SystemExit(main(['check', 'good.nc']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "undrift: stopped\n")


def test_an_unexpected_error_is_one_line_too(folder, capsys, monkeypatch):
    import undrift.data.check

    def fail(*args, **options):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(undrift.data.check, "check", fail)
    assert main(["check", str(folder / "good.nc")]) == 1
    assert capsys.readouterr().err == "undrift: unexpected RuntimeError: two lines (--debug shows where)\n"


def test_check_in_json_and_in_words_agree(folder, capsys):
    assert main(["check", str(folder / "good.nc"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert main(["check", str(folder / "good.nc")]) == 0
    words = capsys.readouterr().out
    *said, command = [line for line in words.strip().splitlines() if line]
    assert said == [f"{line['severity']}: {line['text']}" for line in content["lines"]] and len(said) > 5
    assert command == content["suggested"] and command.startswith("undrift train ")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "1", "SLURM_CPUS_PER_TASK": "3"}, 1),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
    ],
)
def test_threads_come_from_the_scheduler(monkeypatch, environment, threads):
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        set_threads()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_number_of_threads_that_is_none(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(UsageError, match="OMP_NUM_THREADS='many'"):
        set_threads()


def test_progress_off_a_terminal_is_a_line_with_the_time_left(capsys, monkeypatch):
    from undrift import progress

    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress.track("training", total=100) as tick:
        for done in range(1, 11):
            now[0] += 2.5
            tick(done, f"loss {done}")
    # a line every ten seconds, at a pace of 2.5 s for each of a hundred
    assert capsys.readouterr().err.splitlines() == [
        "undrift: training 4 %, 4:00 left, loss 4",
        "undrift: training 8 %, 3:50 left, loss 8",
    ]


class Quick(threading.Event):
    """A second of waiting is over in a fifth."""

    def wait(self, timeout=None):
        return super().wait(None if timeout is None else timeout / 5)


def test_work_of_unknown_length_is_a_line_with_the_time_so_far(capsys, monkeypatch):
    """By a clock five times as fast: a line a second, and none once the work is over."""
    from undrift import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    monkeypatch.setattr(progress, "threading", SimpleNamespace(Event=Quick, Thread=threading.Thread))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 5 * time.monotonic()))
    with progress.track("demo", total=4) as tick, progress.track("scoring", total=None):
        tick(1)
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3
    assert all(re.fullmatch(r"undrift: demo 25 % > scoring, 0:0[1-4] so far", line) for line in lines), lines
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_work_of_unknown_length_too(monkeypatch):
    from undrift import progress

    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    with progress.track("scoring", total=None) as tick:
        tick(0.0, "half of it")
        time.sleep(0.5)
    assert "scoring" in progress.sys.stderr.getvalue() and "half of it" in progress.sys.stderr.getvalue()
    with progress.track("demo", total=1.0) as tick:
        tick(0.5, left=100.0)
        time.sleep(0.5)
    assert "1:40 left" in progress.sys.stderr.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_time_left_of_a_resumed_work_counts_only_this_part(monkeypatch):
    from undrift import progress

    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tracker = progress._Tracker("training", 100.0, None)
    tracker.tick(60.0)
    now[0] = 10.0
    tracker.done = 70.0
    assert tracker.left() == pytest.approx(30.0)
    tracker.tick(71.0, left=400.0)  # told by one who knows better
    assert tracker.left() == 400.0 and "6:40 left" in tracker.text()
    assert [progress.clock(s) for s in (0, 61, 3725)] == ["0:00", "1:01", "1:02:05"]
