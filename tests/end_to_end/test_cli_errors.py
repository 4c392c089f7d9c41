"""Bad input of every kind ends with one clear line on stderr, the right exit code, and nothing written."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from undrift.cli.main import main


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
    ("check good.nc --factor four", 2, "--factor"),
    ("check good.nc --task upscale", 2, "downscale"),
    ("check good.nc --task emulate --factor 4", 2, "leave --factor out"),
    ("check good.nc --given good.nc --factor 4", 2, "leave --factor out"),
    ("check absent.nc", 3, "absent.nc"),
    ("check absent_*.nc", 3, "absent_*.nc"),
    ("check text.nc", 3, "text.nc"),
    ("check empty.nc", 3, "empty.nc"),
    ("check cut.nc", 3, "cut.nc"),
    ("check store.zarr", 3, "store.zarr"),
    ("check objects.npy --dims sample,y,x", 3, "objects.npy"),
    ("check huge.npy --dims sample,y,x", 3, "huge.npy"),
    ("check bare.npy", 3, "--dims"),
    ("check good.nc --select lat=70/80", 3, "selects 0 of"),
    ("check good.nc --select lta=35/60", None, "lat"),
    ("check good.nc --variables ts", None, "tas"),
    ("check good.nc --periodic z", 2, "z"),
    ("check good.nc --holdout yaer=3", None, "yaer"),
    ("train --out new", 2, "no data is named"),
    ("train good.nc", 2, "--out"),
    ("train good.nc --steps 5 --otu new", 2, "Did you mean --out"),
    ("train good.nc --steps 0 --out new", 2, "train.steps"),
    ("train good.nc --steps 5 --task emulate --factor 4 --out new", 2, "leave --factor out"),
    ("train good.nc --steps 5 --given good.nc --factor 4 --out new", 2, "leave --factor out"),
    ("train good.nc --steps 5 --budget 3m --out new", 2, "one of them"),
    ("train good.nc --budget 3parsecs --out new", 2, "type a duration"),
    ("train good.nc --steps 5 --resume --overwrite --out new", 2, "one of them"),
    ("train good.nc --steps 5 --set train.bach=8 --out new", 2, "did you mean 'batch'"),
    ("train good.nc --steps 5 --set train.batch --out new", 2, "--set"),
    ("train good.nc --steps 5 --set train.batch=x --out new", 2, "train.batch"),
    ("train good.nc --steps 5 --set net._target_=os.system --out new", 2, "unknown key"),
    ("train good.nc --steps 5 --config bad.toml --out new", 2, "line 2"),
    ("train good.nc --steps 5 --config absent.toml --out new", 2, "absent.toml"),
    ("train good.nc --steps 5 --task emulate --covariates yaer --out new", None, "yaer"),
    ("train good.nc --steps 5 --factor 100 --out new", None, "100"),
    ("train good.nc --steps 5 --holdout time=900/999 --out new", 3, "selects 0 of"),
    ("train good.nc --steps 5 --device gpu --out new", 2, "train.device"),
    ("train good.nc --steps 5 --device cuda:7 --out new", 2, "cuda"),
    ("train inf.nc --steps 5 --out new", 3, "inf"),
    ("train absent.nc --steps 5 --out new", 3, "absent.nc"),
    ("train good.nc --given absent.nc --steps 5 --out new", 3, "absent.nc"),
    ("train good.nc --steps 5 --out run", 2, "another --out"),
    ("train good.nc --steps 5 --out file", 2, "file"),
    ("train good.nc --steps 5 --resume --out new", 4, "new"),
    ("sample absent --out e.nc", 4, "absent"),
    ("sample file --out e.nc", 4, "file"),
    ("sample run --out e.nc", 4, "manifest.json"),
    ("sample pickled --out e.nc", 4, "manifest"),
    ("sample run", 2, "--out"),
    ("sample run --out e.txt", 2, ".zarr"),
    ("sample run --out good.nc", 2, "--overwrite"),
    ("sample run --out e.nc --given good.nc --holdout", 2, "one of them"),
    ("sample run --out e.nc --realizations 0", 2, "--realizations"),
    ("sample run --out e.nc --realizations 9:3", 2, "--realizations"),
    ("sample run --out e.nc --realizations many", 2, "--realizations"),
    ("sample run --out e.nc --nfe 0", 2, "--nfe"),
    ("sample run --out e.nc --seed -1", 2, "seed -1"),
    ("evaluate good.nc --truth good.nc --seed -1", 2, "seed -1"),
    ("train good.nc --set train.budget=3m --set train.steps=5 --out new", 2, "both say how long"),
    ("evaluate good.nc", 2, "--truth"),
    ("evaluate absent.nc --truth good.nc", 3, "absent.nc"),
    ("evaluate good.nc --truth good.nc", 3, "realization"),
    ("evaluate good.nc --truth good.nc --out scores.csv", 2, ".json"),
    ("evaluate good.nc --truth good.nc --run absent", 4, "absent"),
    ("report absent", 4, "absent"),
    ("report run", 4, "manifest.json"),
    ("report run --ensemble good.nc", 2, "--truth"),
    ("report run --out page.pdf", 2, ".html"),
    ("report run --realizations 1", 2, "at least 2"),
    ("inspect absent", 4, "absent"),
    ("inspect run", 4, "manifest.json"),
    ("inspect pickled", 4, "manifest"),
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
    assert got == code if code is not None else got in (2, 3), err
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
def test_debug_shows_where(folder, how):
    words = ["sample", "absent", "--out", "e.nc"] + ["--debug"] * (how == "flag")
    environment = {**os.environ, **({"UNDRIFT_DEBUG": "1"} if how == "environment" else {})}
    done = run(words, cwd=folder, env=environment)
    assert done.returncode == 4 and "Traceback" in done.stderr


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
    assert words.strip().splitlines()[-1].startswith("undrift train ")
    assert any("undrift train " in str(value) for value in content.values())


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "1", "SLURM_CPUS_PER_TASK": "3"}, 1),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
    ],
)
def test_threads_come_from_the_scheduler(environment, threads):
    code = "from undrift.cli.options import set_threads; set_threads(); import torch; print(torch.get_num_threads())"
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(threads), done.stderr


def test_a_number_of_threads_that_is_none(monkeypatch):
    from undrift.cli.options import set_threads
    from undrift.errors import UsageError

    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(UsageError, match="OMP_NUM_THREADS='many'"):
        set_threads()


def test_progress_off_a_terminal_is_a_line_with_the_time_left(capsys, monkeypatch):
    from undrift import progress

    moments = iter(np.arange(0.0, 100.0, 2.5))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(moments))))
    with progress.track("training", total=100) as tick:
        for done in range(10):
            tick(done, f"loss {done}")
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(line.startswith("undrift: training ") and " left, loss " in line for line in lines)


def test_work_of_unknown_length_is_a_line_with_the_time_so_far(capsys, monkeypatch):
    from undrift import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    with progress.track("demo", total=4) as tick, progress.track("scoring", total=None):
        tick(1)
        time.sleep(2.4)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3
    assert all(re.fullmatch(r"undrift: demo 25 % > scoring, 0:0[12] so far", line) for line in lines), lines
    time.sleep(1.2)
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
